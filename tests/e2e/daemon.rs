//! The daemon: one per user, started on demand, gone when told.

use keyloan_e2e::{Sandbox, approver, eventually};
use std::collections::HashSet;
use std::path::Path;

#[test]
fn fifty_clients_at_once_start_one_daemon() {
    let sandbox = Sandbox::with_vault();
    sandbox.stop();
    let started = sandbox.events("daemon_started").len();
    let clients: Vec<_> = (0..50).map(|_| sandbox.keyloan(&["daemon", "start"]).start()).collect();
    for client in clients {
        keyloan_e2e::sandbox::finished(client).ok();
    }
    assert_eq!(sandbox.events("daemon_started").len(), started + 1);
    let pids: HashSet<_> = (0..5).map(|_| sandbox.daemon().unwrap()).collect();
    assert_eq!(pids.len(), 1);
}

#[test]
fn a_daemon_that_is_stopped_locks_and_leaves_no_socket() {
    let sandbox = Sandbox::with_token(b"tok");
    let pid = sandbox.daemon().unwrap();
    sandbox.keyloan(&["daemon", "stop"]).run().ok();
    eventually("the daemon ends", || !Path::new(&format!("/proc/{pid}")).exists());
    assert!(!sandbox.socket().exists());
    assert_eq!(sandbox.events("daemon_stopped").len(), 2, "once for the template, once now");
    assert_eq!(sandbox.keyloan(&["daemon", "stop"]).run().ok().stderr, "keyloan: no daemon runs\n");
    sandbox.with_secrets(&["--", "true"]).run().refused(125, "the vault is locked");
}

#[test]
fn a_dead_daemons_socket_is_no_obstacle() {
    let sandbox = Sandbox::with_token(b"tok");
    let pid = sandbox.daemon().unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
    eventually("the daemon is dead", || !Path::new(&format!("/proc/{pid}")).exists());
    assert!(sandbox.socket().exists(), "the socket of the dead daemon is still there");
    sandbox.unlock().ok();
    assert_eq!(sandbox.with_secrets(&["--", "printenv", "TWINE_PASSWORD"]).run().ok().text(), "tok\n");
    sandbox.keyloan(&["log", "--verify"]).run().ok();
}

#[test]
fn the_daemon_depends_on_no_callers_environment_directory_or_umask() {
    let sandbox = Sandbox::with_vault();
    sandbox.stop();
    let gone = sandbox.make_directory("project/gone");
    let line = "umask 0; rmdir ../gone; exec keyloan daemon start";
    sandbox
        .command("/bin/sh", &["-c", line])
        .env("LD_PRELOAD", "")
        .env("STRAY", "x")
        .within(&gone)
        .run()
        .ok();
    let pid = sandbox.daemon().unwrap();
    let environment = std::fs::read(format!("/proc/{pid}/environ"));
    if let Ok(environment) = environment {
        let names: Vec<String> = String::from_utf8_lossy(&environment)
            .split('\0')
            .filter_map(|entry| Some(entry.split_once('=')?.0.to_owned()))
            .collect();
        assert_eq!(names, ["HOME", "XDG_RUNTIME_DIR"]);
        assert_eq!(std::fs::read_link(format!("/proc/{pid}/cwd")).unwrap(), Path::new("/"));
    }
    sandbox.unlock().ok();
    sandbox.set_approver(approver::ALLOW);
    sandbox.keyloan(&["item", "set", "a", "b"]).stdin("c").run().ok();
    let mode = |path: &Path| {
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(path).unwrap().permissions())
    };
    for file in std::fs::read_dir(sandbox.vault().join("items")).unwrap() {
        assert_eq!(mode(&file.unwrap().path()) & 0o777, 0o600);
    }
    assert_eq!(mode(&sandbox.log()) & 0o777, 0o600);
    assert_eq!(mode(&sandbox.socket()) & 0o777, 0o600);
}

#[test]
fn it_works_without_home_and_without_xdg_directories() {
    let sandbox = Sandbox::with_vault();
    sandbox.stop();
    let bare = |arguments: &[&str]| sandbox.keyloan(arguments).without("XDG_RUNTIME_DIR");
    bare(&["daemon", "start"]).run().ok();
    assert!(sandbox.path("home/.local/state/keyloan/run/control.sock").exists());
    bare(&["daemon", "stop"]).run().ok();
    // Without HOME the user database decides; the test user's home there does not exist.
    let without = sandbox.keyloan(&["daemon", "start"]).without("HOME").without("XDG_RUNTIME_DIR").run();
    if keyloan_e2e::sandbox::user().is_some() {
        without.refused(3, "/home/keyloan-test");
    }
}

#[test]
fn the_log_is_followed_as_it_grows() {
    let sandbox = Sandbox::with_token(b"tok");
    let out = sandbox.path("project/followed");
    let line = format!("exec keyloan log --follow >{}", out.display());
    let mut follower = sandbox.command("/bin/sh", &["-c", &line]).start();
    let followed = |text: &str| std::fs::read_to_string(&out).is_ok_and(|shown| shown.contains(text));
    eventually("the beginning is shown", || followed("vault created"));
    sandbox.with_secrets(&["--", "true"]).run().ok();
    eventually("a new loan is shown", || followed("lent: TWINE_PASSWORD TWINE_USERNAME to pid"));
    follower.kill().unwrap();
    follower.wait().unwrap();
}

#[test]
fn command_lines_are_sealed_in_the_log_and_shown_after_a_yes() {
    let sandbox = Sandbox::with_token(b"tok");
    sandbox.with_secrets(&["--", "true", "--password", "typed-as-argument"]).run().ok();
    let log = std::fs::read_to_string(sandbox.log()).unwrap();
    assert!(!log.contains("typed-as-argument"));
    assert!(!sandbox.keyloan(&["log"]).run().ok().text().contains("typed-as-argument"));
    let shown = sandbox.keyloan(&["log", "--commands"]).run().ok().text();
    assert!(shown.contains("true --password typed-as-argument"), "{shown}");
    sandbox.set_approver(approver::DENY);
    sandbox.keyloan(&["log", "--commands"]).run().refused(6, "declined");
}

#[test]
fn a_command_right_after_the_daemons_stop_finds_a_new_one() {
    let sandbox = Sandbox::with_vault();
    for _ in 0..20 {
        sandbox.keyloan(&["daemon", "stop"]).run().ok();
        sandbox.keyloan(&["daemon", "start"]).run().ok();
        sandbox.unlock().ok();
    }
}
