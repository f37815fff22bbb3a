//! A private home with its own daemon. As root everything in it runs as an unprivileged user, since root
//! sees everything and proves nothing.

use crate::programs::{bin, needed};
use nix::unistd::{Gid, Uid, User, chown};
use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::Duration;

pub const PASSPHRASE: &str = "correct horse battery";
pub const PIN: &str = "4711";
const USER: &str = "keyloan-test";
/// Nothing a test runs takes longer but the question that nobody answers.
const LIMIT: Duration = Duration::from_secs(90);

pub struct Sandbox {
    root: PathBuf,
}

/// What a command did.
#[derive(Debug)]
pub struct Output {
    pub status: i32,
    /// The signal it died of.
    pub signal: Option<i32>,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Output {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Fails the test unless the command succeeded.
    #[track_caller]
    #[allow(
        clippy::must_use_candidate,
        clippy::return_self_not_must_use,
        reason = "an assertion; its value is a bonus"
    )]
    pub fn ok(self) -> Self {
        assert!(self.status == 0, "status {}: {}{}", self.status, self.text(), self.stderr);
        self
    }

    /// Fails the test unless the command failed with this status and said this.
    #[track_caller]
    #[allow(
        clippy::must_use_candidate,
        clippy::return_self_not_must_use,
        reason = "an assertion; its value is a bonus"
    )]
    pub fn refused(self, status: i32, said: &str) -> Self {
        assert_eq!(self.status, status, "{}{}", self.text(), self.stderr);
        assert!(self.stderr.contains(said), "'{said}' is not in: {}", self.stderr);
        self
    }
}

/// The user the tests run as, made on first use.
pub fn user() -> Option<(Uid, Gid)> {
    static MADE: OnceLock<Option<(u32, u32)>> = OnceLock::new();
    let made = MADE.get_or_init(|| {
        if !Uid::effective().is_root() {
            return None;
        }
        if User::from_name(USER).unwrap().is_none() {
            // Another test process may be making it at the same moment.
            let _ = Command::new(needed("useradd")).args(["--no-create-home", USER]).output().unwrap();
        }
        let user = User::from_name(USER).unwrap().expect("the test user can be made");
        Some((user.uid.as_raw(), user.gid.as_raw()))
    });
    made.map(|(uid, gid)| (Uid::from_raw(uid), Gid::from_raw(gid)))
}

impl Sandbox {
    /// An empty home, with no vault.
    pub fn empty() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("kl-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let root = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&root);
        let sandbox = Self { root };
        for directory in ["", "home", "run", "project"] {
            sandbox.make_directory(directory);
        }
        sandbox
    }

    /// A home with an unlocked vault. The first one of a process is made, the others are copies of it.
    pub fn with_vault() -> Self {
        static TEMPLATE: OnceLock<PathBuf> = OnceLock::new();
        let template = TEMPLATE.get_or_init(|| {
            let first = Self::empty();
            first.init().ok();
            first.stop();
            let kept = first.root.with_extension("template");
            let _ = fs::remove_dir_all(&kept);
            copy_tree(&first.root, &kept);
            kept
        });
        let sandbox = Self::empty();
        fs::remove_dir_all(&sandbox.root).unwrap();
        copy_tree(template, &sandbox.root);
        sandbox.unlock().ok();
        sandbox
    }

    /// A vault whose policy lets an approver program answer.
    pub fn with_approver(answer: &str) -> Self {
        let sandbox = Self::with_vault();
        sandbox.set_approver(answer);
        sandbox
    }

    /// A vault with the token `tok` and a trusted `.keyloan.toml` in `project`, and an allowing approver.
    pub fn with_token(value: &[u8]) -> Self {
        let sandbox = Self::with_approver(crate::approver::ALLOW);
        sandbox.keyloan(&["item", "set", "pypi", "token"]).stdin(value).run().ok();
        sandbox.write("project/.keyloan.toml", TOKEN_MANIFEST);
        sandbox.keyloan(&["trust"]).run().ok();
        sandbox
    }

    /// Another sandbox with the same content; its daemon must not run.
    #[must_use]
    pub fn copy(&self) -> Self {
        let sandbox = Self::empty();
        fs::remove_dir_all(&sandbox.root).unwrap();
        copy_tree(&self.root, &sandbox.root);
        sandbox
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    pub fn vault(&self) -> PathBuf {
        self.path("home/.local/share/keyloan/vault")
    }

    pub fn log(&self) -> PathBuf {
        self.path("home/.local/state/keyloan/audit.jsonl")
    }

    pub fn socket(&self) -> PathBuf {
        self.path("run/keyloan/control.sock")
    }

    /// Makes a directory of the sandbox's user, 0700.
    pub fn make_directory(&self, name: &str) -> PathBuf {
        let path = if name.is_empty() { self.root.clone() } else { self.path(name) };
        fs::create_dir_all(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        own(&path);
        path
    }

    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        own(&path);
        path
    }

    pub fn write_program(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.write(name, text);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        path
    }

    /// A command in the sandbox, in its `project` directory.
    pub fn command<S: AsRef<OsStr>>(&self, program: impl AsRef<OsStr>, arguments: &[S]) -> Run {
        let mut command = Command::new(program);
        command.args(arguments);
        self.prepared(command)
    }

    pub fn prepared(&self, mut command: Command) -> Run {
        command.env_clear().envs(self.environment()).current_dir(self.path("project"));
        if let Some((uid, gid)) = user() {
            command.uid(uid.as_raw()).gid(gid.as_raw());
        }
        Run { command, stdin: Vec::new() }
    }

    pub fn environment(&self) -> Vec<(&'static str, std::ffi::OsString)> {
        let mut path = bin().as_os_str().to_owned();
        path.push(":/usr/bin:/bin");
        vec![
            ("HOME", self.path("home").into()),
            ("XDG_RUNTIME_DIR", self.path("run").into()),
            ("PATH", path),
            ("LANG", "C.UTF-8".into()),
        ]
    }

    pub fn keyloan<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Run {
        self.command(bin().join("keyloan"), arguments)
    }

    pub fn with_secrets<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Run {
        self.command(bin().join("with-secrets"), arguments)
    }

    /// `keyloan` with the passphrase on descriptor 3 and the PIN on descriptor 4.
    pub fn keyed(&self, passphrase: &str, arguments: &[&str]) -> Run {
        let passphrase = self.write("passphrase", passphrase);
        let pin = self.write("pin", PIN);
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "exec 3<\"$1\" 4<\"$2\"; shift 2; exec \"$@\"", "sh"]);
        command.arg(passphrase).arg(pin).arg(bin().join("keyloan")).args(arguments);
        self.prepared(command)
    }

    pub fn init(&self) -> Output {
        self.keyed(PASSPHRASE, &["init", "--passphrase-fd", "3", "--pin-fd", "4"]).run()
    }

    pub fn unlock(&self) -> Output {
        self.keyed(PASSPHRASE, &["unlock", "--passphrase-fd", "3"]).run()
    }

    #[track_caller]
    pub fn policy(&self, setting: &str) {
        self.keyed(PASSPHRASE, &["policy", "set", setting, "--passphrase-fd", "3"]).run().ok();
    }

    /// Changes that take effect together, with the passphrase.
    #[track_caller]
    pub fn policies(&self, settings: &[&str]) {
        self.keyed(PASSPHRASE, &[&["policy", "set", "--passphrase-fd", "3"], settings].concat()).run().ok();
    }

    /// Writes an approver double and sets it.
    #[track_caller]
    pub fn set_approver(&self, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.write_program("approver", text);
        self.policy(&format!("approver.command={}", path.display()));
        path
    }

    pub fn status(&self) -> serde_json::Value {
        let status = self.keyloan(&["status", "--json"]).run().ok();
        serde_json::from_slice(&status.stdout).unwrap()
    }

    /// The daemon's pid, where one runs.
    pub fn daemon(&self) -> Option<i32> {
        self.status().get("pid").and_then(serde_json::Value::as_i64).and_then(|pid| pid.try_into().ok())
    }

    /// The log's records of one kind.
    pub fn events(&self, kind: &str) -> Vec<serde_json::Value> {
        let text = fs::read_to_string(self.log()).unwrap_or_default();
        let records = text.lines().filter_map(|line| serde_json::from_str(line).ok());
        records.filter(|record: &serde_json::Value| record["event"] == kind).collect()
    }

    pub fn stop(&self) {
        let Some(pid) = self.daemon() else { return };
        self.keyloan(&["daemon", "stop"]).run();
        crate::eventually("the daemon ends", || is_over(pid));
    }
}

/// A child of the test stays a zombie until the test waits for it.
fn is_over(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "))
}

const TOKEN_MANIFEST: &str =
    "[env]\nTWINE_USERNAME = { value = \"__token__\" }\nTWINE_PASSWORD = \"local://pypi/token\"\n";

impl Drop for Sandbox {
    fn drop(&mut self) {
        // A daemon that a test left in an odd state is ended by its pid, which its log tells.
        let pids = self.events("daemon_started");
        let _ = self.keyloan(&["daemon", "stop"]).run();
        for started in pids {
            let Some(pid) = started["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()) else { continue };
            // By its home too: a copied log names the daemons of another sandbox, and a pid may be used again.
            let home = format!("HOME={}", self.path("home").display());
            let is_ours = fs::read(format!("/proc/{pid}/environ")).is_ok_and(|environment| {
                environment.split(|byte| *byte == 0).any(|entry| entry == home.as_bytes())
            });
            let deadline = std::time::Instant::now() + Duration::from_secs(2);
            while is_ours && !is_over(pid) {
                if std::time::Instant::now() > deadline {
                    let pid = nix::unistd::Pid::from_raw(pid);
                    let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
                    break;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        let _ = fs::remove_dir_all(&self.root);
    }
}

/// A command that runs, and is killed when the test is over, however that goes.
pub struct Running(pub Child);

impl Running {
    pub fn end(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

/// A command about to run.
pub struct Run {
    command: Command,
    stdin: Vec<u8>,
}

impl Run {
    #[must_use]
    pub fn stdin(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.stdin = bytes.as_ref().to_vec();
        self
    }

    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.command.env_remove(name);
        self
    }

    #[must_use]
    pub fn within(mut self, directory: &Path) -> Self {
        self.command.current_dir(directory);
        self
    }

    /// In a process group of its own, as a shell starts a job.
    #[must_use]
    pub fn as_job(mut self) -> Self {
        self.command.process_group(0);
        self
    }

    /// For a test that sets the standard streams itself.
    pub fn into_command(self) -> Command {
        self.command
    }

    /// Starts it with pipes.
    pub fn start(mut self) -> Child {
        self.command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.command.spawn().unwrap_or_else(|error| panic!("{:?}: {error}", self.command));
        if !self.stdin.is_empty() {
            let _ = child.stdin.take().unwrap().write_all(&self.stdin);
        }
        child
    }

    /// Runs it to its end.
    pub fn run(self) -> Output {
        let mut child = self.start();
        drop(child.stdin.take());
        finished(child)
    }
}

/// Waits for a child with a limit.
pub fn finished(child: Child) -> Output {
    let pid = i32::try_from(child.id()).unwrap();
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || sender.send(child.wait_with_output()));
    let Ok(output) = receiver.recv_timeout(LIMIT) else {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        panic!("a command took longer than {LIMIT:?}");
    };
    let output = output.unwrap();
    Output {
        status: output.status.code().unwrap_or(-1),
        signal: output.status.signal(),
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

fn own(path: &Path) {
    if let Some((uid, gid)) = user() {
        chown(path, Some(uid), Some(gid)).unwrap();
    }
}

fn copy_tree(from: &Path, to: &Path) {
    let copied = Command::new(needed("cp")).arg("-a").arg(from).arg(to).output().unwrap();
    assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
}
