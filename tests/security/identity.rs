//! Rows 7 to 9: what a question says of who asks, and how a program tries to look like another.

use crate::attack;
use keyloan_e2e::approver::{self, Question};
use keyloan_e2e::programs::{bin, needed};
use keyloan_e2e::{Sandbox, wire};
use std::path::PathBuf;

/// Asked by a program that keeps the questions in this file.
fn asked() -> (Sandbox, PathBuf) {
    let sandbox = Sandbox::with_token(b"tok");
    sandbox.keyloan(&["item", "set", "set", "vars"]).stdin("A=b\n").run().ok();
    let kept = sandbox.path("project/questions");
    sandbox.set_approver(approver::keeping(&kept));
    (sandbox, kept)
}

#[track_caller]
fn last(kept: &std::path::Path) -> Question {
    approver::questions(kept).pop().unwrap()
}

fn with_secrets() -> String {
    bin().join("with-secrets").display().to_string()
}

/// The frame of a request to lend what `project` has, as the client sends it.
fn lend_frame(sandbox: &Sandbox) -> String {
    let directory = sandbox.path("project").display().to_string();
    let header = format!(
        r#"{{"version":1,"body":{{"lend":{{"sets":["set"]}}}},"values":[{{"name":"directory","length":{}}}]}}"#,
        directory.len()
    );
    data_encoding::HEXLOWER.encode(&wire::frame(&header, directory.as_bytes()))
}

#[test]
fn a_program_named_like_a_line_of_proc_hides_nobody_behind_it() {
    const NAMED: &str = r#"
import ctypes, os, subprocess, sys
ctypes.CDLL(None).prctl(15, b") R 1 1 1 0 (", 0, 0, 0)
stat = open(f"/proc/{os.getpid()}/stat").read()
print(stat.split()[3], int(stat[stat.rindex(")") + 2:].split()[1]) == os.getppid())
subprocess.run(sys.argv[1:], check=True)
"#;
    let (sandbox, kept) = asked();
    let (python, run) = (needed("python3").display().to_string(), with_secrets());
    let script = ["-c", "\"$@\"; exit $?", "sh", &python, "-c", NAMED, &run, "--", "true"];
    // Who counts fields from the front takes what it is named for its parent.
    let naive = sandbox.command(needed("sh"), &script).run().ok().text();
    assert_eq!(naive, "1 True\n");
    let question = last(&kept);
    let (chain, certainty) = question.line("asked by").unwrap();
    let programs: Vec<&str> = chain.split(" ← ").collect();
    let named = |at: usize, name: &str| programs[at].starts_with(name);
    assert!(named(1, "/usr/bin/python3") && named(2, "/usr/bin/dash"), "{chain}");
    assert_eq!(certainty, "seen");
    assert!(question.line("warning").is_none(), "{question:?}");
}

/// Connects, says half of its request, and becomes an innocent program that says the rest.
const BECOMES: &str = r#"
import os, socket, sys
s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.set_inheritable(True)
frame = bytes.fromhex(sys.argv[2]); s.sendall(frame[:9])
# Connections are accepted in their order: when this one is answered, so is that one.
t = socket.socket(socket.AF_UNIX); t.connect(sys.argv[1]); t.sendall(bytes.fromhex(sys.argv[3])); t.recv(1)
rest = "".join(f"\\x{byte:02x}" for byte in frame[9:])
os.execv("/usr/bin/bash", ["bash", "-c", f"printf '{rest}' >&{s.fileno()}; cat <&{s.fileno()}; :"])
"#;

/// Says which program each of two connections is from once it has spoken, as who looks then sees it.
const LOOKER: &str = r#"
import os, socket, struct, sys
s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen()
c, _ = s.accept(); d, _ = s.accept()
d.recv(1); d.sendall(b"x")
said = c.recv(9)
while len(said) < 50: said += c.recv(4096)
pid = struct.unpack("3i", c.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
print(os.readlink(f"/proc/{pid}/exe"), flush=True); c.sendall(b"x")
"#;

#[test]
fn a_program_that_becomes_another_after_it_connected_is_said_to_be_one() {
    let (sandbox, kept) = asked();
    let frame = lend_frame(&sandbox);
    let status = data_encoding::HEXLOWER.encode(&wire::frame(r#"{"version":1,"body":"status"}"#, b""));
    let naive = sandbox.path("run/looker").display().to_string();
    let victim = sandbox.command(needed("python3"), &["-c", LOOKER, &naive]).start();
    keyloan_e2e::eventually("it listens", || std::path::Path::new(&naive).exists());
    attack(&sandbox, BECOMES, &[&naive, &frame, &status]);
    assert_eq!(keyloan_e2e::sandbox::finished(victim).ok().text(), "/usr/bin/bash\n");
    attack(&sandbox, BECOMES, &[sandbox.socket().to_str().unwrap(), &frame, &status]);
    let question = last(&kept);
    let (chain, _) = question.line("asked by").unwrap();
    assert!(chain.starts_with("/usr/bin/bash (pid "), "{chain}");
    let (warning, certainty) = question.line("warning").unwrap();
    assert!(warning.starts_with("it was /usr/bin/python3") && warning.ends_with(" when it connected"));
    assert_eq!(certainty, "seen");
}

#[test]
fn a_program_whose_parents_have_ended_is_not_given_others() {
    const TWICE: &str = r"
import os, subprocess, sys, time
r, w = os.pipe()
if os.fork() == 0:
    parent = os.getpid()
    if os.fork() == 0:
        while os.getppid() == parent: time.sleep(0.001)
        os.write(w, str(os.getppid()).encode())
        os.execv(sys.argv[1], sys.argv[1:])
    os._exit(0)
os.wait(); os.close(w); print(os.read(r, 20).decode())
";
    let (sandbox, kept) = asked();
    let foster = attack(&sandbox, TWICE, &[&with_secrets(), "--", "true"]).ok().text();
    keyloan_e2e::eventually("it asked", || !approver::questions(&kept).is_empty());
    let question = last(&kept);
    let (chain, _) = question.line("asked by").unwrap();
    let parent = chain.split(" ← ").nth(1).unwrap();
    match foster.trim() {
        "1" => assert_eq!(parent, "nobody who is still there"),
        other => {
            let command = format!("readlink /proc/{other}/exe || echo AN UNREADABLE PROGRAM");
            let exe = sandbox.command(needed("sh"), &["-c", &command]).run().text();
            assert_eq!(parent, exe.trim());
        }
    }
}

#[test]
fn a_requester_in_namespaces_of_its_own_is_said_to_be_in_a_container() {
    let (sandbox, kept) = asked();
    let run = with_secrets();
    let ask = |options: &[&str]| {
        let all = [options, &[run.as_str(), "-s", "set", "--", "true"]].concat();
        // A directory of its own mounts is refused before anybody is asked.
        sandbox.command(needed("unshare"), &all).within(&sandbox.path("run")).run();
        last(&kept)
    };
    for (options, said) in [
        (&["-Ur"][..], "user"),
        (&["-Urp", "--fork"], "user, pid"),
        (&["-Urpm", "--fork", "--mount-proc"], "user, pid, mount"),
    ] {
        let question = ask(options);
        let warning = format!("it runs in a container of its own (other namespaces: {said})");
        question.says("warning", &warning, "seen");
        assert_eq!(question.line("in").is_some(), !said.contains("mount"), "{question:?}");
    }
}

/// Within a pid namespace of its own a program may send in the name of another there (`scm_check_creds` of the kernel
/// asks for `CAP_SYS_ADMIN` in the user namespace of that pid namespace): one connects and becomes an innocent program,
/// another speaks for it.
const FORGED: &str = r#"
import os, socket, struct, sys
s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.set_inheritable(True)
me = os.getpid()
if os.fork() == 0:
    named = struct.pack("3i", me, 0, 0)
    s.sendmsg([bytes.fromhex(sys.argv[2])], [(socket.SOL_SOCKET, 2, named)])
    os._exit(0)
os.wait()
os.execv("/usr/bin/bash", ["bash", "-c", f"cat <&{s.fileno()}; :"])
"#;

#[test]
fn who_speaks_in_the_name_of_another_within_a_container_is_seen_to_be_in_one() {
    let (sandbox, kept) = asked();
    let before = approver::questions(&kept).len();
    let frame = lend_frame(&sandbox);
    let socket = sandbox.socket().display().to_string();
    // Outside of a container the kernel does not let it.
    attack(&sandbox, FORGED, &[&socket, &frame]);
    assert_eq!(approver::questions(&kept).len(), before);
    let inside = ["-Urp", "--fork", "/usr/bin/python3", "-c", FORGED, &socket, &frame];
    sandbox.command(needed("unshare"), &inside).run();
    let questions = approver::questions(&kept);
    assert_eq!(questions.len(), before + 1);
    let text = questions[before].0.to_string();
    assert!(text.contains("in a container of its own (other namespaces: user, pid)"), "{text}");
}

#[test]
fn a_command_line_of_a_megabyte_is_shown_short_and_as_text() {
    let (sandbox, kept) = asked();
    let argument = "\u{1b}[2J\u{202e}\r\n  asked by  /usr/bin/git  (seen) \u{9b}A".repeat(2000);
    let run = with_secrets();
    let mut all = vec![run.as_str(), "--", "true"];
    all.resize(3 + 12, &argument);
    let bytes: usize = all[2..].iter().map(|argument| argument.len() + 1).sum();
    assert!(bytes > 1_000_000);
    // The undefended victim shows it as it is.
    let naive =
        sandbox.command(needed("sh"), &["-c", "printf 'command %s' \"$1\"", "sh", &argument]).run().ok();
    assert!(naive.text().contains("\u{1b}[2J"));
    sandbox.command(&run, &all[1..]).run().ok();
    let question = last(&kept);
    let (shown, certainty) = question.line("command").unwrap();
    assert_eq!(certainty, "claimed");
    assert!(shown.chars().count() <= 700, "{}", shown.len());
    assert!(shown.contains(&format!("({bytes} bytes, sha256 ")), "{shown}");
    assert!(!shown.contains(|c: char| c.is_control() || c == '\u{202e}'), "{shown:?}");
    assert_eq!(
        question.0["lines"].as_array().unwrap().iter().filter(|line| line["label"] == "asked by").count(),
        1
    );
}
