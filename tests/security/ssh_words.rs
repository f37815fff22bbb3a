//! Row 21: the words of a question, where somebody chooses what they say. The undefended victim is whoever reads text
//! of others as it comes; OpenSSH's agent shows none of this to anybody.

use crate::ssh::{HERE, both};
use keyloan_e2e::agent::{Client, Host, document, encoded, framed, hex, login};
use keyloan_e2e::programs::needed;
use keyloan_e2e::{Sandbox, eventually};
use keyloan_protocol::ssh_agent::message::SignFlags;

#[test]
fn an_account_whose_name_looks_like_a_host_ends_where_it_ends() {
    let sandbox = Sandbox::with_vault();
    let (ssh, _agent, sockets) = both(&sandbox, &[]);
    let key = ssh.public_key("work");
    let mut host = Host::new(&ssh, &sockets[0], "host");
    ssh.append("home/.ssh/known_hosts", &format!("evil.example.org {}\n", ssh.public("host")));
    let bind = host.session(HERE, false);
    for (user, shown) in [
        ("git", "git"),
        ("first.last-2", "first.last-2"),
        ("git@trusted.example.org", "'git@trusted.example.org'"),
        ("git@trusted.example.org  (verified) ", "'git@trusted.example.org  (verified) '"),
        ("git@trusted.example.org    (verified)", "'git@trusted.example.org␣␣␣␣(verified)'"),
        ("git'@trusted.example.org '", "'git\\u{27}@trusted.example.org \\u{27}'"),
        ("git@trusted.example.org\n", "'git@trusted.example.org\\u{a}'"),
        ("a b", "'a b'"),
        ("", "''"),
    ] {
        let mut client = ssh.agent();
        assert!(client.bind(&bind));
        let asked = ssh.questions().len();
        assert!(client.sign(&key, &login(HERE, user, &key, Some(&host.key)), SignFlags::NONE).is_some());
        let question = &ssh.questions()[asked];
        question.says("to", &format!("{shown}@evil.example.org"), "known_hosts");
        let (text, _) = question.line("to").unwrap();
        // What stands in quotes holds none, so that the last one ends it.
        assert!(matches!(text.matches('\'').count(), 0 | 2), "{text}");
    }
}

#[test]
fn a_commit_with_a_very_long_subject_is_signed_and_shown_by_its_beginning() {
    let sandbox = Sandbox::with_vault();
    let (ssh, _agent, _) = both(&sandbox, &[]);
    let key = ssh.public_key("work");
    for (length, is_long) in [(200, false), (201, true), (5_000, true)] {
        let subject = "x".repeat(length);
        let person = "Ada <ada@example.org> 1700000000 +0000";
        let tree = "4b825dc642cb6eb9a060e54bf8d69288fbee4904";
        let text = format!("tree {tree}\nauthor {person}\ncommitter {person}\n\n{subject}\n\nbody\n");
        let file = sandbox.write("project/buffer", text).display().to_string();
        let sum = sandbox.command("/usr/bin/sha512sum", &[&file]).run().ok().text();
        let hash = hash_in(&sum);
        let words = ["-Y", "sign", "-n", "git", "-f", "key", file.as_str()];
        let mut client = Client::dressed_up(&sandbox, &ssh.socket(), &words);
        assert!(client.sign(&key, &document("git", &hash), SignFlags::NONE).is_some());
        let question = ssh.questions().pop().unwrap();
        let beginning = "x".repeat(200);
        let shown = if is_long { format!("{beginning}… ({length} characters)") } else { subject };
        question.says("subject", &shown, "verified");
        question.says("author", "Ada <ada@example.org>", "verified");
    }
}

/// The hash at the beginning of what `sha512sum` prints.
fn hash_in(sum: &str) -> [u8; 64] {
    let mut hash = [0; 64];
    for (at, byte) in hash.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&sum[2 * at..2 * at + 2], 16).unwrap();
    }
    hash
}

#[test]
fn the_number_of_the_process_stands_at_the_one_that_asks() {
    let sandbox = Sandbox::with_vault();
    let (ssh, _agent, _) = both(&sandbox, &[]);
    let key = format!("{}.pub", ssh.path("work").display());
    let sign = format!("echo $$; ssh-keygen -q -Y sign -f {key} -n file </dev/null & echo $!; wait");
    let printed = ssh.client("sh", &["-c", &sign]).run().ok().text();
    let pids: Vec<&str> = printed.lines().take(2).collect();
    let question = ssh.questions().pop().unwrap();
    let (chain, _) = question.line("asked by").unwrap();
    // Which of the lines comes first is no matter: the shell's number is in the chain nowhere.
    let asks =
        pids.iter().filter(|pid| chain.starts_with(&format!("/usr/bin/ssh-keygen (pid {pid}) ← "))).count();
    assert_eq!((asks, chain.matches("(pid ").count()), (1, 1), "{chain}");
}

/// Connects, is answered, and becomes another program that goes on with the socket.
const BECOMES: &str = r"
import os, socket, sys
s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])
s.sendall(bytes.fromhex(sys.argv[2])); s.recv(4096)
os.dup2(s.fileno(), 3); os.set_inheritable(3, True)
os.execv(sys.argv[3], [sys.argv[3], '-c', sys.argv[4]])
";

#[test]
fn a_client_that_became_another_program_is_shown_with_the_one_it_was() {
    let sandbox = Sandbox::with_vault();
    let (ssh, _agent, _) = both(&sandbox, &["key.add=ask"]);
    let key = ssh.public_key("work");
    ssh.key("gift", &["ed25519"]);
    let sign = encoded(|out| {
        out.u8(13);
        out.string(key.blob());
        out.string(&login(HERE, "git", &key, None));
        out.u32(0);
    });
    let add = keyloan_e2e::agent::adding(&ssh.private_fields("gift"), "gift");
    let python = std::fs::canonicalize(needed("python3")).unwrap().display().to_string();
    let bash = std::fs::canonicalize(needed("bash")).unwrap().display().to_string();
    let (list, socket) = (hex(&framed(&[11])), ssh.socket());
    for message in [&sign, &add] {
        let digits = hex(&framed(message));
        let bytes: Vec<&str> = (0..digits.len()).step_by(2).map(|at| &digits[at..at + 2]).collect();
        let line = format!("printf '\\x{}' >&3; read -rn1 -u3; :", bytes.join("\\x"));
        let arguments = ["-c", BECOMES, &socket, &list, &bash, &line];
        let asked = ssh.questions().len();
        sandbox.command(&python, &arguments).run().ok();
        eventually("somebody was asked", || ssh.questions().len() == asked + 1);
        let question = ssh.questions().pop().unwrap();
        let (chain, _) = question.line("asked by").unwrap();
        assert!(chain.starts_with(&format!("{bash} (pid ")), "{chain}");
        question.says("warning", &format!("it was {python} when it connected"), "seen");
        // One that stayed what it was has no warning.
        let asked = ssh.questions().len();
        ssh.agent().ask(message).unwrap();
        assert!(ssh.questions()[asked].line("warning").is_none());
    }
}
