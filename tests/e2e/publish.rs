//! A real package, published with twine to a real index on loopback, as `docs/guide/publish-to-pypi.md`
//! tells it.

use keyloan_e2e::programs::needed;
use keyloan_e2e::{Sandbox, approver, eventually};
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

const TOKEN: &str = "pypi-AgEIcHlwaS5vcmc-canary-7f3a91";

/// twine and pypiserver in a virtual environment, made once and kept beside the build.
fn tools() -> PathBuf {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("publish-venv");
    let ready = place.join("ready");
    if ready.exists() {
        return place;
    }
    let run = |command: &mut Command| {
        let out = command.output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    };
    let _ = std::fs::remove_dir_all(&place);
    run(Command::new(needed("python3")).args(["-m", "venv", "--copies"]).arg(&place));
    let packages = ["twine==6.1.0", "pypiserver==2.3.2", "passlib==1.7.4", "setuptools==80.9.0"];
    run(Command::new(place.join("bin/pip")).args(["install", "--quiet"]).args(packages));
    std::fs::write(ready, "").unwrap();
    place
}

struct Index {
    server: Child,
    port: u16,
    packages: PathBuf,
}

impl Index {
    fn start(sandbox: &Sandbox, tools: &Path) -> Self {
        let packages = sandbox.make_directory("packages");
        // {SHA} is what passlib reads without further packages; the index is a throwaway on loopback.
        let hash = "import passlib.hash,sys; print('__token__:'+passlib.hash.ldap_sha1.hash(sys.argv[1]))";
        let line = sandbox.command(tools.join("bin/python"), &["-c", hash, TOKEN]).run().ok().text();
        let htpasswd = sandbox.write("htpasswd", line);
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut server = Command::new(tools.join("bin/pypi-server"));
        server.args(["run", "-i", "127.0.0.1", "-p", &port.to_string(), "-P"]).arg(htpasswd);
        server.args(["-a", "update,download,list"]).arg(&packages).current_dir("/");
        server.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let server = server.spawn().unwrap();
        eventually("the index answers", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        Self { server, port, packages }
    }

    fn published(&self) -> usize {
        std::fs::read_dir(&self.packages).unwrap().count()
    }
}

impl Drop for Index {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// A package in `project`, built to a source distribution.
fn package(sandbox: &Sandbox, tools: &Path) {
    sandbox.write(
        "project/setup.py",
        "from setuptools import setup\nsetup(name='lent', version='1.0', py_modules=['lent'])\n",
    );
    sandbox.write("project/lent.py", "answer = 42\n");
    sandbox.command(tools.join("bin/python"), &["setup.py", "-q", "sdist"]).run().ok();
}

#[test]
fn a_package_is_published_with_a_yes_and_only_with_one() {
    let tools = tools();
    open_to_all(&tools);
    let sandbox = Sandbox::with_token(TOKEN.as_bytes());
    package(&sandbox, &tools);
    let index = Index::start(&sandbox, &tools);
    let url = format!("http://127.0.0.1:{}/", index.port);
    let twine = tools.join("bin/twine").display().to_string();
    let upload = [
        "--",
        &twine,
        "upload",
        "--non-interactive",
        "--disable-progress-bar",
        "--repository-url",
        &url,
        "dist/lent-1.0.tar.gz",
    ];

    let bare = sandbox.command(&twine, &upload[2..]).run();
    assert!(bare.status != 0 && index.published() == 0, "the index asks for a password: {}", bare.text());

    sandbox.set_approver(approver::DENY);
    sandbox.with_secrets(&upload).run().refused(125, "it was declined");
    assert_eq!(index.published(), 0);

    sandbox.set_approver(approver::ALLOW);
    sandbox.keyloan(&["item", "set", "pypi", "token"]).stdin("pypi-wrong").run().ok();
    let wrong = sandbox.with_secrets(&upload).run();
    assert_eq!(wrong.status, 1);
    assert!(wrong.text().contains("403 Forbidden"), "{}{}", wrong.text(), wrong.stderr);
    assert_eq!(index.published(), 0);

    sandbox.keyloan(&["item", "set", "pypi", "token"]).stdin(TOKEN).run().ok();
    let published = sandbox.with_secrets(&upload).run().ok();
    assert!(!published.text().contains(TOKEN));
    assert_eq!(index.published(), 1);

    found_nowhere(&sandbox);
}

/// The token is in no file of the sandbox and in no process, seen from outside by whoever runs the tests.
fn found_nowhere(sandbox: &Sandbox) {
    let mut searched = 0;
    let mut folders = vec![sandbox.path("")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() {
                assert!(
                    !holds(&std::fs::read(entry.path()).unwrap()),
                    "it lies in {}",
                    entry.path().display()
                );
                searched += 1;
            }
        }
    }
    assert!(searched > 15, "only {searched} files were searched");
    let own = std::process::id().to_string();
    let mut processes = 0;
    for entry in std::fs::read_dir("/proc").unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name == own || !name.starts_with(|c: char| c.is_ascii_digit()) {
            continue;
        }
        for what in ["environ", "cmdline"] {
            let Ok(mut file) = std::fs::File::open(format!("/proc/{name}/{what}")) else { continue };
            let mut bytes = Vec::new();
            let _ = file.read_to_end(&mut bytes);
            assert!(!holds(&bytes), "process {name} has it in its {what}");
            processes += 1;
        }
    }
    assert!(processes > 4, "only {processes} files of processes were searched");
}

fn holds(bytes: &[u8]) -> bool {
    bytes.windows(TOKEN.len()).any(|window| window == TOKEN.as_bytes())
}

/// The build's directory may lie where the tests' user cannot go; then the tools move to where it can.
fn open_to_all(tools: &Path) {
    for directory in tools.ancestors() {
        let mode = std::fs::metadata(directory).unwrap().permissions().mode();
        assert!(
            keyloan_e2e::sandbox::user().is_none() || mode & 0o001 != 0,
            "{} is closed to the tests' user; build elsewhere (CARGO_TARGET_DIR)",
            directory.display()
        );
    }
}
