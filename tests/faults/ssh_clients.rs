//! Clients of the agent that are many, slow, gone or somebody else's.

use keyloan_e2e::programs::needed;
use keyloan_e2e::sshd::Ssh;
use keyloan_e2e::{Running, Sandbox, approver, eventually};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

fn agent<'a>(sandbox: &'a Sandbox, answer: &str) -> Ssh<'a> {
    let ssh = Ssh::of(sandbox);
    ssh.answered_by(approver::ALLOW, &[]);
    ssh.key("work", &["ed25519"]);
    ssh.store("work", &[]);
    if answer != approver::ALLOW {
        ssh.answered_by(answer, &[]);
    }
    ssh
}

#[track_caller]
fn is_served(ssh: &Ssh<'_>) {
    assert_eq!(ssh.add(&["-L"]).ok().text().trim(), ssh.public("work"));
}

/// Connects as often as its second argument says, sends on each what the third says, tells, and waits.
const MANY: &str = r#"
import resource, socket, sys
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE); resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
held = []
for _ in range(int(sys.argv[2])):
    s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); held.append(s)
    # One that the daemon has no descriptors to look at is closed at once.
    try: s.sendall(bytes.fromhex(sys.argv[3]))
    except BrokenPipeError: pass
print("all", flush=True)
sys.stdin.read()
"#;

/// As many clients, for as long as this is kept.
fn crowd(ssh: &Ssh<'_>, count: usize, said: &str) -> Running {
    let arguments = ["-c", MANY, &ssh.socket(), &count.to_string(), said];
    let mut child = ssh.sandbox.command(needed("python3"), &arguments).start();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    if line != "all\n" {
        let mut told = String::new();
        std::io::Read::read_to_string(child.stderr.as_mut().unwrap(), &mut told).unwrap();
        panic!("not all of them are there: {told}");
    }
    Running(child)
}

#[test]
fn a_thousand_clients_that_say_nothing_keep_nobody_waiting() {
    let sandbox = Sandbox::with_vault();
    let ssh = agent(&sandbox, approver::ALLOW);
    let _silent = crowd(&ssh, 1000, "");
    is_served(&ssh);
    let _half = crowd(&ssh, 500, "000000");
    is_served(&ssh);
    assert_eq!(sandbox.status()["vault"], "unlocked");
}

#[test]
fn a_message_that_comes_a_byte_a_second_ends_its_connection() {
    let sandbox = Sandbox::with_vault();
    let ssh = agent(&sandbox, approver::ALLOW);
    let slow = "import socket,sys,time\n\
        s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])\n\
        try:\n\x20for byte in b'\\0\\0\\0\\xff'+b'\\x0d'*200:\n\x20\x20s.sendall(bytes([byte])); time.sleep(1)\n\
        except OSError: print('closed')\n";
    let ended = sandbox.command(needed("python3"), &["-c", slow, &ssh.socket()]).run().ok();
    assert_eq!(ended.text(), "closed\n");
    is_served(&ssh);
}

#[test]
fn clients_that_ask_and_go_leave_no_question() {
    let sandbox = Sandbox::with_vault();
    let ssh = agent(&sandbox, approver::HANG);
    let key = ssh.public_key("work");
    let sign = keyloan_e2e::agent::encoded(|out| {
        out.u8(13);
        out.string(key.blob());
        out.string(&keyloan_e2e::agent::login(b"session", "root", &key, None));
        out.u32(0);
    });
    let said = keyloan_e2e::agent::hex(&keyloan_e2e::agent::framed(&sign));
    for _ in 0..5 {
        let mut asking = crowd(&ssh, 10, &said);
        eventually("they ask", || sandbox.status()["pending"].as_u64().unwrap() >= 10);
        asking.end();
        eventually("nobody is asked any more", || sandbox.status()["pending"] == 0);
    }
    is_served(&ssh);
    // More than may wait are refused, and the others wait on.
    let _asking = crowd(&ssh, 40, &said);
    eventually("as many as may", || sandbox.status()["pending"].as_u64().unwrap() >= 16);
    is_served(&ssh);
    assert!(sandbox.events("signed").is_empty());
}

#[test]
fn a_daemon_without_descriptors_waits_and_serves_again() {
    assert!(keyloan_e2e::sandbox::user().is_some(), "only root sees the daemon's descriptors: run as root");
    let sandbox = Sandbox::with_vault();
    let ssh = agent(&sandbox, approver::ALLOW);
    sandbox.stop();
    let limited = sandbox.command("/bin/sh", &["-c", "ulimit -n 60; exec keyloand run"]).start();
    let _limited = Running(limited);
    eventually("the daemon listens", || ssh.add(&["-l"]).status == 0);
    let pid = sandbox.daemon().unwrap();
    let open = || std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    let mut crowd = crowd(&ssh, 100, "");
    eventually("no descriptor is left", || open() >= 58);
    crowd.end();
    eventually("it serves again", || ssh.add(&["-l"]).status == 0);
    assert_eq!(sandbox.daemon(), Some(pid));
}

#[test]
fn another_user_is_refused_even_at_an_open_socket() {
    assert!(keyloan_e2e::sandbox::user().is_some(), "this test needs a second user: run the tests as root");
    let sandbox = Sandbox::with_vault();
    let ssh = agent(&sandbox, approver::ALLOW);
    for (path, mode) in
        [("", 0o711), ("run", 0o711), ("run/keyloan", 0o711), ("run/keyloan/agent.sock", 0o666)]
    {
        std::fs::set_permissions(sandbox.path(path), std::fs::Permissions::from_mode(mode)).unwrap();
    }
    let speak = "import socket,sys; s=socket.socket(socket.AF_UNIX); s.settimeout(10); s.connect(sys.argv[1])\n\
                 print('connected', flush=True)\n\
                 s.sendall(bytes([0,0,0,1,11])); print(s.recv(100))";
    let speak_as = |uid: u32| {
        let mut command = Command::new(needed("setpriv"));
        command.args([&format!("--reuid={uid}"), "--clear-groups", "--"]).arg(needed("python3"));
        let output = command.args(["-c", speak, &ssh.socket()]).stdin(Stdio::null()).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let own = keyloan_e2e::sandbox::user().unwrap().0.as_raw();
    assert!(speak_as(own).contains("ssh-ed25519"));
    for stranger in [65534, 0] {
        let said = speak_as(stranger);
        assert!(said.starts_with("connected") && !said.contains("ssh-ed25519"), "{stranger}: {said}");
    }
    is_served(&ssh);
}
