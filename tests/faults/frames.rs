//! Frames that are too long, too short, lie, never end, or speak another version.

use keyloan_e2e::{Sandbox, wire};
use std::io::Write;
use std::os::unix::net::UnixListener;

fn answer(sandbox: &Sandbox, bytes: &[u8]) -> String {
    let answer = wire::exchange(sandbox, bytes);
    String::from_utf8_lossy(answer.get(8..).unwrap_or_default()).into_owned()
}

#[test]
fn every_kind_of_broken_frame_is_answered_and_harms_nobody() {
    let sandbox = Sandbox::with_vault();
    let status = r#"{"version":1,"body":"status"}"#;
    let lying = {
        let mut bytes = wire::frame(status, b"");
        bytes[7] += 1;
        bytes
    };
    let too_long = [&u32::MAX.to_be_bytes()[..], &8_u32.to_be_bytes()].concat();
    let twice = [wire::frame(status, b""), wire::frame(status, b"")].concat();
    for (bytes, said) in [
        (vec![0; 8], "shorter than the header"),
        (too_long, "a frame announces 4294967295 bytes"),
        (lying, "shorter than the header"),
        (wire::frame("{", b""), "not JSON"),
        (wire::frame("[]", b""), "unknown request"),
        (wire::frame(r#"{"version":1,"body":{"explode":{}}}"#, b""), "unknown request"),
        (wire::frame(r#"{"version":1,"body":{"item_show":{"item":"a\u001b"}}}"#, b""), "unknown request"),
        (wire::frame(status, b"surplus"), "do not add up"),
        (
            wire::frame(r#"{"version":1,"body":"status","values":[{"name":"a","length":9}]}"#, b"a"),
            "do not add up",
        ),
        (wire::frame(r#"{"version":2,"body":"status"}"#, b""), "protocol version 2"),
        (twice, "more follows a request"),
    ] {
        let answer = answer(&sandbox, &bytes);
        assert!(
            answer.contains("\"kind\":\"protocol\"") && answer.contains(said),
            "'{said}' is not in {answer}"
        );
    }
    assert!(answer(&sandbox, &wire::frame(status, b"")).contains("\"vault\":\"unlocked\""));
}

#[test]
fn a_frame_cut_at_any_byte_is_no_request() {
    let sandbox = Sandbox::with_token(b"tok");
    sandbox.policy("item.read=allow");
    let whole = wire::frame(r#"{"version":1,"body":{"item_get":{"item":"pypi","field":"token"}}}"#, b"");
    assert!(answer(&sandbox, &whole).ends_with("tok"));
    // A client that says part of a request and goes: the socket is closed for writing by its end.
    let cut = "import socket,sys; data=sys.stdin.buffer.read()\n\
        for n in range(len(data)):\n\
        \x20s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.sendall(data[:n]); s.shutdown(1)\n\
        \x20assert s.recv(100) == b'', n\n";
    let socket = sandbox.socket().display().to_string();
    let python = keyloan_e2e::programs::needed("python3");
    sandbox.command(python, &["-c", cut, &socket]).stdin(&whole).run().ok();
    assert_eq!(sandbox.events("released").len(), 1);
}

#[test]
fn a_client_that_never_ends_its_request_is_let_go() {
    let sandbox = Sandbox::with_vault();
    let half = &wire::frame(r#"{"version":1,"body":"status"}"#, b"")[..20];
    assert_eq!(wire::exchange(&sandbox, half), b"", "after ten seconds, without an answer");
}

#[test]
fn a_daemon_of_another_version_is_recognised() {
    let sandbox = Sandbox::with_vault();
    sandbox.stop();
    let listener = UnixListener::bind(sandbox.socket()).unwrap();
    if let Some((uid, gid)) = keyloan_e2e::sandbox::user() {
        nix::unistd::chown(&sandbox.socket(), Some(uid), Some(gid)).unwrap();
    }
    drop(listener);
    std::fs::remove_file(sandbox.socket()).unwrap();
    // A daemon of a later version: a double that answers every request in version 2.
    let double = "import socket,sys\n\
        s=socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen()\n\
        c,_=s.accept(); c.recv(65536); c.sendall(bytes.fromhex(sys.argv[2])); c.close()\n";
    let reply = wire::frame(r#"{"version":2,"body":{"renamed":{}}}"#, b"");
    let hex = reply.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
    let socket = sandbox.socket().display().to_string();
    let python = keyloan_e2e::programs::needed("python3");
    let mut later = sandbox.command(python, &["-c", double, &socket, &hex]).start();
    keyloan_e2e::eventually("the double listens", || sandbox.socket().exists());
    let mut refused = sandbox.keyloan(&["item", "list"]).run();
    if refused.stderr.contains("was started") || refused.status == 0 {
        refused = sandbox.keyloan(&["item", "list"]).run();
    }
    let refused = refused.refused(3, "the daemon's answer");
    assert!(refused.stderr.contains("protocol version 2"), "{}", refused.stderr);
    assert!(
        refused.stderr.contains("hint: the daemon that runs is of another version"),
        "{}",
        refused.stderr
    );
    let _ = later.kill();
    later.wait().unwrap();
}

#[test]
fn a_client_that_vanishes_before_its_loan_arrives_leaves_no_loan() {
    let sandbox = Sandbox::with_token(b"tok");
    let ready = sandbox.path("project/ready").display().to_string();
    let go = sandbox.path("project/go").display().to_string();
    let waiting = format!(
        "#!/bin/sh\n: >{ready}\nwhile [ ! -e {go} ]; do sleep 0.05; done\necho '{{\"decision\":\"allow\"}}'\n"
    );
    sandbox.set_approver(&waiting);
    let mut client = sandbox.with_secrets(&["--", "true"]).start();
    keyloan_e2e::eventually("the question is asked", || std::path::Path::new(&ready).exists());
    client.kill().unwrap();
    client.wait().unwrap();
    keyloan_e2e::eventually("the question is gone", || sandbox.status()["pending"] == 0);
    std::fs::File::create(&go).unwrap().flush().unwrap();
    assert!(sandbox.events("lent").is_empty());
    assert_eq!(sandbox.status()["loans"], 0);
}

/// Passes descriptors with the first byte of a request, as many as its second argument says.
const PASSING: &str = r#"
import array, os, socket, sys
s = socket.socket(socket.AF_UNIX); s.settimeout(15); s.connect(sys.argv[1])
passed = array.array("i", [0] * int(sys.argv[2]))
s.sendmsg([b"\0"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, passed)])
try: print(s.recv(65536).decode("latin1"))
except OSError as error: print("nothing:", error)
"#;

#[test]
fn descriptors_that_nobody_asked_for_do_not_stay_open() {
    assert!(keyloan_e2e::sandbox::user().is_some(), "only root sees the daemon's descriptors: run as root");
    let sandbox = Sandbox::with_vault();
    let daemon = format!("/proc/{}/fd", sandbox.daemon().unwrap());
    let open = || std::fs::read_dir(&daemon).unwrap().count();
    let before = open();
    let socket = sandbox.socket().display().to_string();
    let python = keyloan_e2e::programs::needed("python3");
    for count in ["5", "100", "253"] {
        let passing = sandbox.command(&python, &["-c", PASSING, &socket, count]);
        assert!(passing.run().ok().text().contains("more descriptors than a message may carry"));
    }
    keyloan_e2e::eventually("they are closed", || open() <= before);
}
