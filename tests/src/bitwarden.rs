//! A real `bw`, signed in to a double of a Bitwarden server (`tests/doubles/bitwarden.js`) behind real TLS.

use crate::programs::needed;
use crate::sandbox::{Output, Running, Sandbox};
use crate::{PASSPHRASE, eventually};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

const SERVER: &str = include_str!("../doubles/bitwarden.js");
/// Writes down every request that `bw serve` gets, in the real program's own process.
const COUNTED: &str = include_str!("../doubles/counted.js");

const PACKAGE: &str = "@bitwarden/cli@2026.6.0";

pub const MASTER: &str = "correct \"horse\" bättery";

/// The real program, installed once and kept beside the build.
pub fn program(beside: &str) -> PathBuf {
    static INSTALLED: OnceLock<PathBuf> = OnceLock::new();
    let place = INSTALLED.get_or_init(|| {
        let place = Path::new(beside).join("bitwarden-cli");
        let ready = place.join("ready");
        if ready.exists() {
            return place;
        }
        let _ = fs::remove_dir_all(&place);
        fs::create_dir_all(&place).unwrap();
        let mut install = Command::new(needed("npm"));
        install.args(["install", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix"]);
        let out = install.arg(&place).arg(PACKAGE).current_dir(&place).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        fs::write(ready, "").unwrap();
        place
    });
    place.join("node_modules/@bitwarden/cli/build/bw.js")
}

pub struct Bitwarden<'a> {
    sandbox: &'a Sandbox,
    server: Option<Running>,
    /// As keyloan runs it.
    pub bw: PathBuf,
}

impl<'a> Bitwarden<'a> {
    /// An account with these items, `bw` signed in to it.
    pub fn start(sandbox: &'a Sandbox, beside: &str, items: &Value, folders: &Value) -> Self {
        let bitwarden = Self::signed_out(sandbox, beside, items, folders);
        bitwarden.sign_in("app");
        bitwarden
    }

    pub fn signed_out(sandbox: &'a Sandbox, beside: &str, items: &Value, folders: &Value) -> Self {
        sandbox.make_directory("server");
        for directory in ["app", "other"] {
            sandbox.make_directory(directory);
        }
        let account = serde_json::json!({
            "email": "me@example.org", "password": MASTER, "items": items, "folders": folders,
        });
        sandbox.write("server/account.json", account.to_string());
        sandbox.write("server/bitwarden.js", SERVER);
        certify(sandbox);
        let counted = sandbox.write("home/counted.js", COUNTED);
        let script = format!(
            "#!/bin/sh\necho $$ >>{run}/started\nenv >{run}/environment\nCOUNTED={run}/served exec {node} --require {counted} {bw} \"$@\"\n",
            run = sandbox.path("run").display(),
            node = needed("node").display(),
            counted = counted.display(),
            bw = program(beside).display(),
        );
        let bw = sandbox.write_program("home/bw", script);
        let mut bitwarden = Self { sandbox, server: None, bw };
        bitwarden.serve();
        bitwarden
    }

    /// Starts the server, as it was at the beginning.
    fn serve(&mut self) {
        let port = self.sandbox.path("server/port");
        let arguments = [self.sandbox.path("server/bitwarden.js"), self.sandbox.path("server")];
        let mut command = self.sandbox.command(needed("node"), &arguments).into_command();
        command.stdin(Stdio::null());
        self.server = Some(Running(command.spawn().unwrap()));
        eventually("the server listens", || port.exists());
    }

    /// From now on nobody answers there.
    pub fn end_server(&mut self) {
        self.server = None;
    }

    /// The process of the server, to be stopped and continued.
    pub fn server(&self) -> u32 {
        self.server.as_ref().unwrap().0.id()
    }

    /// `bw` by hand, with a directory of its own.
    pub fn bw(&self, directory: &str, arguments: &[&str]) -> Output {
        let run = self.sandbox.command(&self.bw, arguments);
        let run = run.env("BITWARDENCLI_APPDATA_DIR", self.sandbox.path(directory));
        run.env("NODE_EXTRA_CA_CERTS", self.sandbox.path("ca.pem")).run()
    }

    pub fn sign_in(&self, directory: &str) {
        let port = fs::read_to_string(self.sandbox.path("server/port")).unwrap();
        self.bw(directory, &["config", "server", &format!("https://127.0.0.1:{port}")]).ok();
        self.bw(directory, &["login", "me@example.org", MASTER, "--nointeraction"]).ok();
    }

    /// `keyloan vault add NAME` for the account in a directory, with or without a password.
    pub fn link(&self, name: &str, directory: &str, password: Option<&str>, more: &[&str]) -> Output {
        let ca = format!("ca={}", self.sandbox.path("ca.pem").display());
        link(self.sandbox, name, &self.bw, directory, password, &[&[ca.as_str()], more].concat())
    }

    /// From now on the server says that it was asked too often.
    pub fn limit(&self) {
        self.sandbox.write("server/limit", "");
    }

    pub fn end_limit(&self) {
        fs::remove_file(self.sandbox.path("server/limit")).unwrap();
    }

    /// Requests that `bw serve` got and that begin so.
    pub fn served(&self, beginning: &str) -> usize {
        let text = fs::read_to_string(self.sandbox.path("run/served")).unwrap_or_default();
        text.lines().filter(|line| line.starts_with(beginning)).count()
    }

    /// The processes that keyloan started last are last.
    pub fn started(&self) -> Vec<i32> {
        started(self.sandbox)
    }
}

/// The processes of scripts that write theirs down.
pub fn started(sandbox: &Sandbox) -> Vec<i32> {
    let text = fs::read_to_string(sandbox.path("run/started")).unwrap_or_default();
    text.lines().map(|line| line.parse().unwrap()).collect()
}

pub fn runs(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|stat| !stat.contains(") Z "))
}

/// `keyloan vault add NAME --kind bitwarden` with any program as `bw`.
pub fn link(
    sandbox: &Sandbox,
    name: &str,
    bw: &Path,
    directory: &str,
    password: Option<&str>,
    more: &[&str],
) -> Output {
    let passphrase = sandbox.write("passphrase", PASSPHRASE);
    let secret = sandbox.write("master", password.unwrap_or_default());
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "exec 3<\"$1\" 5<\"$2\"; shift 2; exec \"$@\"", "sh"]).args([passphrase, secret]);
    command.arg(crate::programs::bin().join("keyloan")).args(["vault", "add", name, "--kind", "bitwarden"]);
    command.arg(format!("bw={}", bw.display()));
    command.arg(format!("appdata={}", sandbox.path(directory).display())).args(["--passphrase-fd", "3"]);
    if password.is_some() {
        command.args(["--secret-fd", "password=5"]);
    }
    sandbox
        .prepared({
            command.args(more);
            command
        })
        .run()
}

/// A CA of the sandbox, and the server's certificate.
fn certify(sandbox: &Sandbox) {
    let script = r#"set -e
cd "$1"
key="-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
openssl req -x509 $key -days 2 -subj "/CN=test CA" -keyout ca.key -out ca.pem
openssl req $key -subj "/CN=server" -keyout server/key.pem -out server/request.pem
echo subjectAltName=IP:127.0.0.1 >server/extensions
openssl x509 -req -in server/request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 1 \
    -extfile server/extensions -out server/cert.pem
"#;
    let root = sandbox.path("");
    sandbox.command("/bin/sh", &["-c".into(), script.into(), "sh".into(), root.into_os_string()]).run().ok();
}
