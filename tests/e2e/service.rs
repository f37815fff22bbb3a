//! Under a service manager: the units, socket activation by the real `systemd-socket-activate`, and what is told
//! to the manager, received here in its place.

use keyloan_e2e::programs::{bin, needed};
use keyloan_e2e::{Running, Sandbox, eventually};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Listens at keyloan's socket until somebody connects, and then becomes the daemon, as the socket unit does.
fn activated(sandbox: &Sandbox, environment: &[&str]) -> Running {
    sandbox.make_directory("run/keyloan");
    let socket = sandbox.socket().display().to_string();
    let daemon = bin().join("keyloand").display().to_string();
    let agent = sandbox.agent_socket();
    let mut arguments = vec!["-l", &socket, "-l", &agent];
    for variable in environment {
        arguments.extend(["-E", variable]);
    }
    arguments.extend(["-E", "HOME", "-E", "XDG_RUNTIME_DIR", &daemon, "run"]);
    let mut command = Command::new(needed("systemd-socket-activate"));
    command.args(&arguments);
    let service = Running(sandbox.prepared(command).start());
    eventually("it listens", || sandbox.socket().exists());
    service
}

#[test]
fn the_units_are_what_systemd_takes() {
    let sandbox = Sandbox::empty();
    let units = sandbox.make_directory("units");
    for name in ["keyloan.socket", "keyloan.service"] {
        let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../daemon/systemd").join(name);
        let text = std::fs::read_to_string(unit).unwrap();
        let here = bin().join("keyloand").display().to_string();
        sandbox.write(&format!("units/{name}"), text.replace("%h/.local/bin/keyloand", &here));
    }
    let verify = |name: &str| {
        let unit = units.join(name).display().to_string();
        sandbox.command(needed("systemd-analyze"), &["--user", "--man=no", "verify", &unit]).run()
    };
    assert_eq!(verify("keyloan.service").ok().stderr, "");
    sandbox.write("units/wrong.service", "[Running]\nExecStart=relative\n");
    assert_ne!(verify("wrong.service").status, 0, "a wrong unit is noticed");
}

#[test]
fn the_first_command_starts_the_daemon_and_its_socket_outlives_it() {
    let sandbox = Sandbox::with_token(b"tok");
    sandbox.stop();
    let service = activated(&sandbox, &[]);
    // An ssh client is a first command like any other.
    assert!(sandbox.ssh_add(&sandbox.agent_socket(), &["-l"]).text().contains("no identities"));
    sandbox.unlock().ok();
    sandbox.with_secrets(&["--", "printenv", "TWINE_PASSWORD"]).run().ok();
    assert_eq!(sandbox.daemon().unwrap().unsigned_abs(), service.0.id(), "it is the one that was activated");
    // The approver program, which has just run, was handed no socket of the manager's.
    let kept = sandbox.path("project/descriptors");
    let look =
        format!("#!/bin/sh\nls -l /proc/$$/fd >{}\necho '{{\"decision\":\"allow\"}}'\n", kept.display());
    sandbox.set_approver(&look);
    sandbox.with_secrets(&["--", "true"]).run().ok();
    let listed = std::fs::read_to_string(&kept).unwrap();
    assert!(!listed.contains(" 3 -> socket:") && !listed.contains(" 4 -> socket:"), "{listed}");
    assert!(sandbox.ssh_add(&sandbox.agent_socket(), &["-l"]).text().contains("no identities"));
    sandbox.stop();
    for socket in [sandbox.socket(), sandbox.agent_socket().into()] {
        assert!(socket.exists(), "the manager's socket is not the daemon's to remove");
    }
}

#[test]
fn a_socket_that_is_not_keyloans_is_refused() {
    let sandbox = Sandbox::with_vault();
    sandbox.stop();
    let other = sandbox.path("run/other.sock").display().to_string();
    let daemon = bin().join("keyloand").display().to_string();
    let mut command = Command::new(needed("systemd-socket-activate"));
    command.args(["-l", &other, "-E", "HOME", "-E", "XDG_RUNTIME_DIR", &daemon, "run"]);
    let service = sandbox.prepared(command).start();
    eventually("it listens", || Path::new(&other).exists());
    let connect = format!("import socket; socket.socket(socket.AF_UNIX).connect('{other}')");
    sandbox.command(needed("python3"), &["-c", &connect]).run().ok();
    let ended = keyloan_e2e::sandbox::finished(service);
    assert!(ended.stderr.contains("the service manager's socket is another"), "{}", ended.stderr);
}

#[test]
fn the_manager_is_told_that_it_listens_lives_and_stops() {
    let sandbox = Sandbox::with_vault();
    sandbox.stop();
    let place = sandbox.path("run/notify");
    let manager = UnixDatagram::bind(&place).unwrap();
    std::fs::set_permissions(&place, std::fs::Permissions::from_mode(0o777)).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let told = || {
        let mut state = [0; 64];
        let length = manager.recv(&mut state).unwrap();
        String::from_utf8_lossy(&state[..length]).into_owned()
    };
    let notify = format!("NOTIFY_SOCKET={}", place.display());
    let _service = activated(&sandbox, &[&notify, "WATCHDOG_USEC=200000"]);
    sandbox.unlock().ok();
    assert_eq!(told(), "READY=1");
    for _ in 0..3 {
        assert_eq!(told(), "WATCHDOG=1");
    }
    // A daemon that stands still says nothing: that is what the watchdog is for.
    let pid = nix::unistd::Pid::from_raw(sandbox.daemon().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).unwrap();
    manager.set_nonblocking(true).unwrap();
    while manager.recv(&mut [0; 64]).is_ok() {}
    std::thread::sleep(Duration::from_millis(500));
    assert!(manager.recv(&mut [0; 64]).is_err(), "a stopped daemon is silent");
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGCONT).unwrap();
    manager.set_nonblocking(false).unwrap();
    sandbox.keyloan(&["daemon", "stop"]).run().ok();
    while told() != "STOPPING=1" {}
}

#[test]
fn what_it_says_goes_to_the_journal_where_there_is_one() {
    let sandbox = Sandbox::with_vault();
    sandbox.stop();
    let said = sandbox.write("project/said", "");
    let found = std::fs::metadata(&said).unwrap();
    let stream = std::os::unix::fs::MetadataExt::dev(&found);
    let stream = format!("{stream}:{}", std::os::unix::fs::MetadataExt::ino(&found));
    let daemon = bin().join("keyloand").display().to_string();
    let line = format!("exec {daemon} run 2>>{}", said.display());
    let run = sandbox.command(needed("sh"), &["-c", &line]).env("JOURNAL_STREAM", &stream);
    let _daemon = Running(run.start());
    eventually("it listens", || sandbox.socket().exists());
    sandbox.keyed("wrong", &["unlock", "--passphrase-fd", "3"]).run();
    sandbox.unlock().ok();
    sandbox.keyloan(&["lock"]).run().ok();
    sandbox.stop();
    let told = std::fs::read_to_string(&said).unwrap();
    let expected = "<6>listening\n<4>a passphrase was wrong\n<6>unlocked\n<6>locked: asked\n\
                    <6>stopped; nothing is unlocked any more\n";
    assert_eq!(told, expected);
}
