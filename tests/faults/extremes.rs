//! Numbers and streams that nobody sends by mistake.

use keyloan_e2e::programs::{bin, needed};
use keyloan_e2e::{PASSPHRASE, PIN, Running, Sandbox, approver, eventually, wire};
use std::process::Command;

#[test]
fn a_loan_for_longer_than_time_lasts_ends_no_daemon() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    sandbox.policy("env=allow");
    sandbox.keyloan(&["item", "set", "x", "vars"]).stdin("A=1").run().ok();
    let pid = sandbox.daemon();
    let lend =
        r#"{"version":1,"body":{"lend":{"sets":["x"],"manifest_at":null,"seconds":18446744073709551615}}}"#;
    let answer = wire::exchange(&sandbox, &wire::frame(lend, b""));
    assert!(String::from_utf8_lossy(&answer).contains("\"lent\""), "{}", String::from_utf8_lossy(&answer));
    assert_eq!(sandbox.daemon(), pid);
    sandbox.with_secrets(&["--for", "99999d", "--", "true"]).run().refused(125, "at most ten years");
}

#[test]
fn a_journal_that_nobody_reads_any_more_ends_no_daemon() {
    let sandbox = Sandbox::with_vault();
    sandbox.stop();
    let start = "import os, subprocess, sys\n\
                 r, w = os.pipe(); found = os.fstat(w)\n\
                 env = dict(os.environ, JOURNAL_STREAM=f'{found.st_dev}:{found.st_ino}')\n\
                 daemon = subprocess.Popen([sys.argv[1], 'run'], stderr=w, env=env)\n\
                 os.close(w); os.read(r, 100); os.close(r)\n\
                 daemon.wait()\n";
    let daemon = bin().join("keyloand").display().to_string();
    let _daemon = Running(sandbox.command(needed("python3"), &["-c", start, &daemon]).start());
    eventually("it listens", || sandbox.socket().exists());
    let pid = sandbox.daemon();
    sandbox.unlock().ok();
    sandbox.keyloan(&["lock"]).run().ok();
    sandbox.unlock().ok();
    assert_eq!(sandbox.daemon(), pid);
}

#[test]
fn a_backup_that_never_ends_keeps_nobody_from_a_vault() {
    let sandbox = Sandbox::empty();
    let pipe = sandbox.path("project/pipe").display().to_string();
    sandbox.command(needed("mkfifo"), &[&pipe]).run().ok();
    let _writer = Running(sandbox.command(needed("sh"), &["-c", "exec sleep 1000 >pipe"]).start());
    let line = "exec keyloan restore - <pipe";
    let _restoring = Running(sandbox.command(needed("sh"), &["-c", line]).start());
    eventually("the daemon runs", || sandbox.socket().exists());
    let [passphrase, pin] = [("passphrase", PASSPHRASE), ("pin", PIN)]
        .map(|(name, text)| sandbox.write(name, text).display().to_string());
    let init =
        format!("exec 3<{passphrase} 4<{pin}; exec timeout 30 keyloan init --passphrase-fd 3 --pin-fd 4");
    let mut command = Command::new(needed("sh"));
    command.args(["-c", &init]);
    sandbox.prepared(command).run().ok();
}
