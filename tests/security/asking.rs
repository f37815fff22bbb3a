//! Rows 7, 8, 10, 17: who is at the other end.

use crate::attack;
use keyloan_e2e::programs::{bin, needed};
use keyloan_e2e::{PASSPHRASE, Sandbox, wire};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

/// Connects as one process and lets another speak: the parent connects, a child that has become an innocent
/// program sends. Prints what comes back.
const HANDED_ON: &str = r#"
import os, socket, sys
s = socket.socket(socket.AF_UNIX); s.settimeout(10); s.connect(sys.argv[1]); s.set_inheritable(True)
frame = bytes.fromhex(sys.argv[2])
if os.fork() == 0:
    os.execv("/usr/bin/env", ["env", "python3", "-c",
        f"import socket; socket.socket(fileno={s.fileno()}).sendall({frame!r})"])
os.wait()
try: print(s.recv(65536).decode("latin1"))
except OSError as error: print("nothing:", error)
"#;

/// A server that asks only for the uid of who connected, as most do, and answers anybody of that uid.
const NAIVE: &str = r#"
import os, socket, struct, sys
s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); os.chmod(sys.argv[1], 0o666); s.listen(); print("ready", flush=True)
c, _ = s.accept()
pid, uid, gid = struct.unpack("3i", c.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
c.recv(4096); c.sendall(b"the secret")
"#;

fn status_frame() -> Vec<u8> {
    wire::frame(r#"{"version":1,"body":"status"}"#, b"")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

#[test]
fn a_connection_handed_to_another_process_is_refused() {
    let sandbox = Sandbox::with_vault();
    let naive = sandbox.path("run/naive").display().to_string();
    let mut victim = sandbox.command(needed("python3"), &["-c", NAIVE, &naive]).start();
    keyloan_e2e::eventually("the naive server listens", || std::path::Path::new(&naive).exists());
    let frame = hex(&status_frame());
    keyloan_e2e::eventually("the naive server answers whoever speaks", || {
        attack(&sandbox, HANDED_ON, &[&naive, &frame]).text().contains("the secret")
    });
    let _ = victim.wait();
    let socket = sandbox.socket().display().to_string();
    let answer = attack(&sandbox, HANDED_ON, &[&socket, &frame]).ok().text();
    assert!(answer.contains("comes from another process than the connection"), "{answer}");
}

#[test]
fn another_user_is_refused_even_at_an_open_socket() {
    assert!(keyloan_e2e::sandbox::user().is_some(), "this test needs a second user: run the tests as root");
    let sandbox = Sandbox::with_vault();
    for directory in ["", "run", "run/keyloan"] {
        std::fs::set_permissions(sandbox.path(directory), std::fs::Permissions::from_mode(0o711)).unwrap();
    }
    let speak = "import socket,sys; s=socket.socket(socket.AF_UNIX); s.settimeout(10); s.connect(sys.argv[1])\n\
                 s.sendall(bytes.fromhex(sys.argv[2])); print(s.recv(65536).decode('latin1'))";
    let stranger = |socket: &str| {
        let mut command = Command::new(needed("setpriv"));
        command.args([
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "/usr/bin/python3",
            "-c",
            speak,
            socket,
        ]);
        let out = command.arg(hex(&status_frame())).output().unwrap();
        String::from_utf8(out.stdout).unwrap()
    };
    let naive = sandbox.path("run/keyloan/naive").display().to_string();
    let mut victim = sandbox.command(needed("python3"), &["-c", NAIVE, &naive]).start();
    keyloan_e2e::eventually("a stranger is answered by a naive server", || {
        stranger(&naive).contains("the secret")
    });
    let _ = victim.wait();
    std::fs::set_permissions(sandbox.socket(), std::fs::Permissions::from_mode(0o666)).unwrap();
    assert_eq!(stranger(sandbox.socket().to_str().unwrap()), "", "the daemon hangs up without a word");
}

#[test]
fn a_squatted_socket_gets_no_passphrase() {
    assert!(keyloan_e2e::sandbox::user().is_some(), "this test needs a second user: run the tests as root");
    let sandbox = Sandbox::with_vault();
    sandbox.stop();
    // Root, another user to the client, listens in the client's own directory and keeps what it hears.
    let listener = std::os::unix::net::UnixListener::bind(sandbox.socket()).unwrap();
    std::fs::set_permissions(sandbox.socket(), std::fs::Permissions::from_mode(0o666)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let heard = || {
        let Ok((mut stream, _)) = listener.accept() else { return Vec::new() };
        let mut bytes = Vec::new();
        stream.set_nonblocking(false).unwrap();
        let _ = std::io::Read::read_to_end(&mut stream, &mut bytes);
        bytes
    };
    let mut naive = Command::new(needed("python3"));
    naive.args(["-c", "import socket,sys; s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.sendall(sys.argv[2].encode())"]);
    naive.arg(sandbox.socket()).arg(PASSPHRASE).stdin(Stdio::null());
    assert!(naive.status().unwrap().success());
    assert_eq!(heard(), PASSPHRASE.as_bytes(), "a client that does not look tells it everything");
    sandbox.unlock().refused(3, "listens at keyloan's socket; nothing was sent");
    assert_eq!(heard(), b"");
}

#[test]
fn a_runtime_directory_that_is_a_link_or_open_to_others_is_not_used() {
    let sandbox = Sandbox::with_vault();
    sandbox.stop();
    let real = sandbox.path("run/keyloan");
    std::fs::set_permissions(&real, std::fs::Permissions::from_mode(0o755)).unwrap();
    sandbox.keyloan(&["status"]).run().refused(3, "is open to others (mode 0755)");
    std::fs::remove_dir_all(&real).unwrap();
    let elsewhere = sandbox.make_directory("elsewhere");
    std::os::unix::fs::symlink(&elsewhere, &real).unwrap();
    sandbox.keyloan(&["status"]).run().refused(3, "is a symbolic link");
}

#[test]
fn the_daemon_is_never_searched_for_in_the_path() {
    let sandbox = Sandbox::with_vault();
    sandbox.stop();
    let evil = sandbox.make_directory("project/evil");
    let mark = sandbox.path("project/mark").display().to_string();
    sandbox.write_program("project/evil/keyloand", format!("#!/bin/sh\necho ran >{mark}\n"));
    let path = format!("{}:{}:/usr/bin:/bin", evil.display(), bin().display());
    // The shell, which does search, runs the attacker's.
    sandbox.command("/bin/sh", &["-c", "keyloand run"]).env("PATH", &path).run().ok();
    assert!(std::fs::remove_file(&mark).is_ok());
    sandbox.keyloan(&["daemon", "start"]).env("PATH", &path).within(&evil).run().ok();
    assert!(!std::path::Path::new(&mark).exists());
    assert!(sandbox.daemon().is_some());
}
