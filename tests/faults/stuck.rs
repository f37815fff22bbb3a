//! Disks and mounts that fail or do not answer: root holds the daemon's system calls up, or makes them fail.

use keyloan_e2e::programs::needed;
use keyloan_e2e::{PASSPHRASE, Running, Sandbox, approver, eventually, wire};
use nix::libc;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// strace(1) attached to the daemon, for as long as this lives.
struct Tampering {
    strace: Child,
    tasks: PathBuf,
}

impl Tampering {
    fn with(sandbox: &Sandbox, inject: &str, only: Option<&Path>) -> Self {
        assert!(keyloan_e2e::sandbox::user().is_some(), "only root tampers with the daemon: run as root");
        let pid = sandbox.daemon().unwrap().to_string();
        let mut strace = Command::new(needed("strace"));
        strace.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("inject={inject}"), "-p", &pid]);
        if let Some(path) = only {
            strace.arg("-P").arg(path);
        }
        let strace = strace.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let tampering = Self { strace, tasks: Path::new("/proc").join(pid).join("task") };
        eventually("every thread is traced", || {
            tampering.of_each_thread("status").iter().all(|status| !status.contains("TracerPid:\t0\n"))
        });
        tampering
    }

    fn of_each_thread(&self, file: &str) -> Vec<String> {
        let threads = std::fs::read_dir(&self.tasks).unwrap();
        let texts = threads.map(|thread| std::fs::read_to_string(thread.unwrap().path().join(file)));
        texts.filter_map(Result::ok).collect()
    }

    /// Whether a thread of the daemon is in a system call, `proc_pid_syscall`(5).
    fn holds_up(&self, call: i64) -> bool {
        let begins = format!("{call} ");
        self.of_each_thread("syscall").iter().any(|text| text.starts_with(&begins))
    }
}

impl Drop for Tampering {
    fn drop(&mut self) {
        let _ = self.strace.kill();
        let _ = self.strace.wait();
    }
}

/// Longer than any test.
const FOR_EVER: &str = "delay_enter=600000000";

fn lent_by_rule() -> Sandbox {
    let sandbox = Sandbox::with_token(b"tok");
    sandbox.policy("env=allow");
    sandbox
}

#[test]
fn a_disk_that_does_not_answer_keeps_nobody_else_waiting() {
    let sandbox = lent_by_rule();
    let tampering = Tampering::with(&sandbox, &format!("fdatasync:{FOR_EVER}"), None);
    sandbox.with_secrets(&["--", "true"]).run().ok();
    eventually("the log is being synced", || tampering.holds_up(libc::SYS_fdatasync));
    assert_eq!(sandbox.status()["vault"], "unlocked");
    assert!(tampering.holds_up(libc::SYS_fdatasync), "it was answered when the disk had answered");
}

#[test]
fn after_a_sync_that_failed_nothing_more_is_lent() {
    let sandbox = lent_by_rule();
    let tampering = Tampering::with(&sandbox, "fdatasync:error=EIO", None);
    sandbox.with_secrets(&["--", "true"]).run().ok();
    eventually("the log is known to be broken", || sandbox.status()["log_works"] == false);
    drop(tampering);
    let refused = sandbox.with_secrets(&["--", "printenv", "TWINE_PASSWORD"]).run();
    assert!(refused.stdout.is_empty());
    refused.refused(125, "without a record nothing is done");
}

#[test]
fn a_file_on_a_mount_that_does_not_answer_is_refused() {
    let sandbox = lent_by_rule();
    let file = sandbox.path("project/.keyloan.toml");
    let _tampering = Tampering::with(&sandbox, &format!("pread64:{FOR_EVER}"), Some(&file));
    for _ in 0..3 {
        sandbox.with_secrets(&["--", "true"]).run().refused(125, "its file system does not answer");
    }
    sandbox.keyloan(&["trust"]).run().refused(2, "its file system does not answer");
    // The daemon ends all the same: strace keeps nothing of it but what it holds up.
    let status = format!("/proc/{}/status", sandbox.daemon().unwrap());
    sandbox.keyloan(&["daemon", "stop"]).run().ok();
    eventually("the daemon ends", || {
        std::fs::read_to_string(&status).map_or(true, |status| status.contains("State:\tZ"))
    });
}

#[test]
fn a_program_on_a_mount_that_does_not_answer_is_a_warning() {
    let sandbox = Sandbox::with_token(b"tok");
    let kept = sandbox.path("project/question");
    sandbox.set_approver(approver::recording(&kept));
    let directory = sandbox.make_directory("project/dead");
    let program = sandbox.write_program("project/dead/program", "#!/bin/sh\n");
    let _tampering = Tampering::with(&sandbox, &format!("statx:{FOR_EVER}"), Some(&directory));
    sandbox.with_secrets(&["--", program.to_str().unwrap()]).run().ok();
    let question = std::fs::read_to_string(&kept).unwrap();
    assert!(question.contains(&format!("{} could not be looked at", directory.display())), "{question}");
}

#[test]
fn an_approver_on_a_mount_that_does_not_answer_is_no_yes() {
    let sandbox = Sandbox::with_token(b"tok");
    let program = sandbox.set_approver(approver::ALLOW);
    let _tampering = Tampering::with(&sandbox, &format!("read:{FOR_EVER}"), Some(&program));
    sandbox.with_secrets(&["--", "true"]).run().refused(125, "the approver program");
}

#[test]
fn a_runtime_directory_on_a_mount_that_does_not_answer_keeps_nobody_waiting() {
    let sandbox = Sandbox::with_token(b"tok");
    let directory = sandbox.make_directory("project/dead");
    let bus = sandbox.write("project/dead/bus", "");
    let _tampering = Tampering::with(&sandbox, &format!("statx:{FOR_EVER}"), Some(&bus));
    // A display that is not there: every pinentry is tried, the one that needs a bus too.
    let (display, directory) = (":65000", directory.display().to_string());
    let header = format!(
        r#"{{"version":1,"body":{{"unlock":{{"desktop":true}}}},"values":[{{"name":"display","length":{}}},{{"name":"runtime_dir","length":{}}}]}}"#,
        display.len(),
        directory.len()
    );
    let answer =
        wire::exchange(&sandbox, &wire::frame(&header, (display.to_owned() + &directory).as_bytes()));
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.contains("no window can be opened on display :65000"), "{answer}");
}

#[test]
fn a_rekey_whose_requester_went_away_makes_the_next_one_wait_and_not_fail() {
    let sandbox = Sandbox::with_vault();
    let new = sandbox.write("new", "another passphrase").display().to_string();
    let line = format!("exec 5<{new}; exec keyloan rekey --passphrase-fd 3 --new-passphrase-fd 5");
    let rekey = || {
        let passphrase = sandbox.write("passphrase", PASSPHRASE).display().to_string();
        sandbox.command(needed("sh"), &["-c", &format!("exec 3<{passphrase}; {line}")])
    };
    // Long enough for the second to come to its own work; were it not to wait, that is.
    let tampering = Tampering::with(&sandbox, "syncfs:delay_enter=5000000:when=1", None);
    let mut first = Running(rekey().start());
    eventually("the first is being synced", || tampering.holds_up(libc::SYS_syncfs));
    first.end();
    rekey().run().ok();
    drop(tampering);
    sandbox.stop();
    sandbox.keyed("another passphrase", &["unlock", "--passphrase-fd", "3"]).run().ok();
}
