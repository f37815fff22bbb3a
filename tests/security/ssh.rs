//! Row 21: signatures that are not what they seem. The undefended victim is OpenSSH's own agent, which signs whatever
//! it is given.

use keyloan_e2e::agent::{Client, Host, SUCCESS, adding, document, login};
use keyloan_e2e::sshd::Ssh;
use keyloan_e2e::{Running, Sandbox};
use keyloan_protocol::ssh_agent::message::SignFlags;

pub(crate) const HERE: &[u8] = b"the session with the host that was meant";
pub(crate) const ELSEWHERE: &[u8] = b"a session that somebody else began";

/// The key `work` in both agents, which ask nothing where a rule can say so.
pub(crate) fn both<'a>(sandbox: &'a Sandbox, policy: &[&str]) -> (Ssh<'a>, Running, [String; 2]) {
    let ssh = Ssh::asked(sandbox, policy);
    let key = ssh.key("work", &["ed25519"]);
    let (agent, plain) = ssh.plain_agent();
    let sockets = [plain, ssh.socket()];
    for socket in &sockets {
        ssh.client_of(socket, "ssh-add", &["-q", &key]).run().ok();
    }
    (ssh, agent, sockets)
}

#[test]
fn a_login_for_another_session_or_host_than_the_connections_is_not_signed() {
    let sandbox = Sandbox::with_vault();
    let (ssh, _agent, sockets) = both(&sandbox, &["ssh.login=allow"]);
    let key = ssh.public_key("work");
    let (mut host, mut other) = (Host::new(&ssh, &sockets[0], "host"), Host::new(&ssh, &sockets[0], "other"));
    let bind = host.session(HERE, false);
    let other_key = other.session(ELSEWHERE, false).host_key;
    let attacks = [
        login(ELSEWHERE, "root", &key, None),
        login(ELSEWHERE, "root", &key, Some(&host.key)),
        login(ELSEWHERE, "root", &key, Some(&other_key)),
        login(HERE, "root", &key, Some(&other_key)),
    ];
    for (socket, is_victim) in sockets.iter().zip([true, false]) {
        for attack in &attacks {
            let mut client = Client::connect(&sandbox, socket);
            assert!(client.bind(&bind));
            assert_eq!(client.sign(&key, attack, SignFlags::NONE).is_some(), is_victim);
            // The connection lives on, and does what it was bound for.
            let honest = login(HERE, "root", &key, Some(&host.key));
            assert!(client.sign(&key, &honest, SignFlags::NONE).is_some());
        }
    }
    let causes: Vec<_> =
        sandbox.events("agent_refused").iter().map(|event| event["cause"].to_string()).collect();
    assert_eq!(causes.len(), attacks.len());
    assert!(causes[0].contains("another session") && causes[3].contains("another host"), "{causes:?}");
    assert!(ssh.questions().is_empty());
}

#[test]
fn a_host_that_was_forwarded_to_cannot_log_in_elsewhere_in_silence() {
    let sandbox = Sandbox::with_vault();
    let (ssh, _agent, sockets) = both(&sandbox, &["ssh.login=allow", "ssh.signature=allow"]);
    let key = ssh.public_key("work");
    let (mut hop, mut target) = (Host::new(&ssh, &sockets[0], "hop"), Host::new(&ssh, &sockets[0], "target"));
    let (arrived, onward) = (hop.session(HERE, true), target.session(ELSEWHERE, false));
    let blob = login(ELSEWHERE, "root", &key, Some(&target.key));
    for (socket, is_victim) in sockets.iter().zip([true, false]) {
        for binds in [&[&arrived][..], &[&arrived, &onward]] {
            let asked = ssh.questions().len();
            let mut client = Client::connect(&sandbox, socket);
            assert!(binds.iter().all(|bind| client.bind(bind)));
            assert!(client.sign(&key, &blob, SignFlags::NONE).is_some());
            let asked = ssh.questions().split_off(asked);
            assert_eq!(asked.len(), usize::from(!is_victim), "the victim signs and nobody is told");
            for question in asked {
                assert!(question.line("forwarded").unwrap().0.contains("asked for by anybody there"));
                question.says("from key", &format!("ssh-ed25519 {}", ssh.fingerprint("hop")), "verified");
            }
        }
    }
    // It cannot say later that it does not forward: what it is told first stays.
    let mut client = ssh.agent();
    assert!(client.bind(&arrived) && client.bind(&hop.session(HERE, false)));
    let asked = ssh.questions().len();
    let blob = login(HERE, "root", &key, Some(&hop.key));
    assert!(client.sign(&key, &blob, SignFlags::NONE).is_some());
    assert!(ssh.questions()[asked].line("forwarded").is_some());
}

#[test]
fn a_bind_that_the_host_did_not_sign_names_no_host() {
    let sandbox = Sandbox::with_vault();
    let (ssh, _agent, sockets) = both(&sandbox, &["ssh.login=allow"]);
    let key = ssh.public_key("work");
    let mut host = Host::new(&ssh, &sockets[0], "host");
    ssh.append("home/.ssh/known_hosts", &format!("trusted.example.org {}\n", ssh.public("host")));
    // Signed by somebody else, and for another session.
    let mut other = Host::new(&ssh, &sockets[0], "other");
    let mut stolen = other.session(HERE, false);
    stolen.host_key = host.key.clone();
    let mut replayed = host.session(ELSEWHERE, false);
    replayed.session_id = HERE.to_vec();
    for forged in [&stolen, &replayed] {
        let mut client = ssh.agent();
        assert!(!client.bind(forged));
        let asked = ssh.questions().len();
        let blob = login(HERE, "root", &key, Some(&host.key));
        client.sign(&key, &blob, SignFlags::NONE);
        let question = &ssh.questions()[asked];
        question.says("to", "root@ UNKNOWN: the client does not say which host", "claimed");
        assert!(question.line("forwarded").unwrap().0.starts_with("perhaps"), "{question:?}");
    }
    let mut client = ssh.agent();
    assert!(client.bind(&host.session(HERE, false)));
    let asked = ssh.questions().len();
    assert!(client.sign(&key, &login(HERE, "root", &key, None), SignFlags::NONE).is_some());
    assert_eq!(ssh.questions().len(), asked);
}

#[test]
fn what_was_signed_before_a_bind_does_not_look_as_if_it_was_for_that_host() {
    let sandbox = Sandbox::with_vault();
    let (ssh, _agent, sockets) = both(&sandbox, &["ssh.login=allow"]);
    let key = ssh.public_key("work");
    let mut host = Host::new(&ssh, &sockets[0], "host");
    let bind = host.session(HERE, false);
    for (socket, is_victim) in sockets.iter().zip([true, false]) {
        let mut client = Client::connect(&sandbox, socket);
        assert!(client.sign(&key, &login(ELSEWHERE, "root", &key, None), SignFlags::NONE).is_some());
        assert_eq!(client.bind(&bind), is_victim);
    }
    let mut client = ssh.agent();
    let mut second = Host::new(&ssh, &sockets[0], "second");
    assert!(client.bind(&bind));
    assert!(!client.bind(&second.session(ELSEWHERE, false)), "a login goes to one place");
    let mut client = ssh.agent();
    assert!(client.bind(&host.session(HERE, true)));
    assert!(!client.bind(&second.session(HERE, false)), "a session is with one host");
}

/// A commit's buffer as git writes it.
const HARMLESS: &str = "tree 4b825dc642cb6eb9a060e54bf8d69288fbee4904\n\
    author Ada <ada@example.org> 1700000000 +0000\ncommitter Ada <ada@example.org> 1700000000 +0000\n\nFix a typo\n";

#[test]
fn a_client_that_names_one_file_and_has_another_signed_is_not_believed() {
    let sandbox = Sandbox::with_vault();
    let (ssh, _agent, sockets) = both(&sandbox, &[]);
    let key = ssh.public_key("work");
    sandbox.make_directory("project/.git");
    let file = sandbox.write("project/buffer", HARMLESS).display().to_string();
    let evil = document("git", &[0xe7; 64]);
    // Who asks OpenSSH's agent is told of nothing at all; who believes command lines would read "Fix a typo".
    let mut victim = Client::connect(&sandbox, &sockets[0]);
    assert!(victim.sign(&key, &evil, SignFlags::NONE).is_some());
    let words = ["-Y", "sign", "-n", "git", "-f", "key", file.as_str()];
    let mut client = Client::dressed_up(&sandbox, &sockets[1], &words);
    assert!(client.sign(&key, &evil, SignFlags::NONE).is_some());
    let question = ssh.questions().pop().unwrap();
    assert!(question.line("subject").is_none() && question.line("author").is_none(), "{question:?}");
    question.says("hash", &format!("SHA-512 {}", "e7".repeat(64)), "verified");
    question.says("in", &format!("repository {}", sandbox.path("project").display()), "seen");
    // With the file's own hash it is what it says.
    let sum = sandbox.command("/usr/bin/sha512sum", &[&file]).run().ok().text();
    let mut hash = [0; 64];
    for (at, byte) in hash.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&sum[2 * at..2 * at + 2], 16).unwrap();
    }
    assert!(client.sign(&key, &document("git", &hash), SignFlags::NONE).is_some());
    let question = ssh.questions().pop().unwrap();
    question.says("subject", "Fix a typo", "verified");
    question.says("author", "Ada <ada@example.org>", "verified");
    // A link or a pipe in its place shows nothing, and keeps nobody waiting.
    for make in ["ln -s", "cp -l"] {
        let line = format!("mv {file} {file}.kept; {make} {file}.kept {file}");
        sandbox.command("/bin/sh", &["-c", &line]).run().ok();
        client.sign(&key, &document("git", &hash), SignFlags::NONE);
        let shown = ssh.questions().pop().unwrap().line("subject").is_some();
        assert_eq!(shown, make == "cp -l");
        sandbox.command("/bin/sh", &["-c", &format!("rm {file}; mv {file}.kept {file}")]).run().ok();
    }
    sandbox.command("/bin/sh", &["-c", &format!("rm {file}; mkfifo {file}")]).run().ok();
    assert!(client.sign(&key, &document("git", &hash), SignFlags::NONE).is_some());
    assert!(ssh.questions().pop().unwrap().line("subject").is_none());
}

#[test]
fn what_is_no_login_and_no_file_is_not_signed() {
    let sandbox = Sandbox::with_vault();
    let (ssh, _agent, sockets) = both(&sandbox, &["ssh.login=allow", "ssh.signature=allow"]);
    let key = ssh.public_key("work");
    ssh.key("other", &["ed25519"]);
    let other = ssh.public_key("other");
    let mut longer = login(HERE, "root", &key, None);
    longer.push(0);
    let mut file = document("file", &[7; 64]);
    file.push(0);
    let empty_namespace = document("", &[7; 64]);
    for attack in [
        b"any bytes".to_vec(),
        Vec::new(),
        login(b"", "root", &key, None),
        // For another key than the one that signs.
        login(HERE, "root", &other, None),
        longer,
        file,
        empty_namespace,
    ] {
        let signed =
            |socket: &str| Client::connect(&sandbox, socket).sign(&key, &attack, SignFlags::NONE).is_some();
        assert!(signed(&sockets[0]), "OpenSSH's agent signs {attack:?}");
        assert!(!signed(&sockets[1]), "{attack:?}");
    }
    assert!(ssh.questions().is_empty());
}

#[test]
fn names_that_carry_control_characters_are_shown_as_text() {
    let sandbox = Sandbox::with_vault();
    let (ssh, _agent, sockets) = both(&sandbox, &["key.add=ask"]);
    let key = ssh.public_key("work");
    let evil = "x\u{1b}[2J\nkey: harmless\u{202e}\r";
    let fields = ssh.private_fields("work");
    let mut client = Client::connect(&sandbox, &sockets[1]);
    assert_eq!(client.ask(&adding(&fields, evil)).as_deref(), Some(SUCCESS));
    client.sign(&key, &login(HERE, evil, &key, None), SignFlags::NONE);
    client.sign(&key, &document(evil, &[7; 64]), SignFlags::NONE);
    let asked = ssh.questions();
    assert_eq!(asked.len(), 4, "one of them for the key that was there before");
    for question in &asked[1..] {
        let text = question.0.to_string();
        assert!(text.contains("harmless"), "{text}");
        for line in question.0["lines"].as_array().unwrap() {
            let shown = line["text"].as_str().unwrap();
            assert!(!shown.contains(|c: char| c.is_control() || c == '\u{202e}'), "{shown:?}");
        }
    }
    // The log is read on terminals, too.
    let log = std::fs::read_to_string(sandbox.log()).unwrap();
    assert!(!log.contains('\u{1b}') && log.lines().all(|line| line.starts_with('{')));
    let shown = sandbox.keyloan(&["log"]).run().ok().text();
    assert!(shown.contains("harmless"), "{shown}");
    assert!(!shown.contains(|c: char| c.is_control() && c != '\n' || c == '\u{202e}'), "{shown:?}");
}

#[test]
fn known_hosts_cannot_give_the_name_of_a_pinned_host_to_another() {
    let sandbox = Sandbox::with_vault();
    let ssh = Ssh::asked(&sandbox, &["ssh.login=allow", "trust=allow"]);
    for (name, fields) in [("work", &[("hosts", "*.example.org")][..]), ("any", &[])] {
        ssh.key(name, &["ed25519"]);
        ssh.store(name, fields);
    }
    let admitted = [ssh.public("work")];
    let (honest, evil) =
        (ssh.server("git.example.org", &admitted), ssh.server("evil.example.com", &admitted));
    let line = ssh.public("host-evil.example.com");
    // ssh itself believes whoever writes to known_hosts, and so does an agent that has nothing better.
    for (alias, pinned) in
        [("git.example.org", false), ("git.example.org", true), ("[git.example.org]:2222", true)]
    {
        if pinned {
            let key = ssh.public("host-git.example.org");
            sandbox.keyloan(&["ssh", "hosts", "pin", "git.example.org", "--key", &key]).run().ok();
        }
        sandbox.write("home/.ssh/known_hosts", format!("{alias} {line}\n"));
        let came = evil.accepted();
        let named = format!("-oHostKeyAlias={alias}");
        let tried = ssh.ssh(&[&named, "evil.example.com", "true"]);
        assert_eq!((tried.status == 0, evil.accepted() - came), (!pinned, usize::from(!pinned)), "{alias}");
    }
    // A key for any host is asked for with the truth.
    sandbox.policy("ssh.login=ask");
    sandbox.write("home/.ssh/known_hosts", format!("git.example.org {line}\n"));
    ssh.ssh(&["-oHostKeyAlias=git.example.org", "evil.example.com", "true"])
        .refused(255, "Permission denied");
    assert!(ssh.questions().is_empty(), "no key that is admitted was offered");
    let open = ssh.server_with("evil.example.com", &[ssh.public("any")], "");
    let port = format!("-p{}", open.port);
    ssh.ssh(&["-oHostKeyAlias=git.example.org", &port, "evil.example.com", "true"]).ok();
    let question = ssh.questions().pop().unwrap();
    let (text, certainty) = question.line("to").unwrap();
    assert!(text.ends_with("git.example.org, WHICH IS PINNED WITH OTHER KEYS"), "{text}");
    assert_eq!(certainty, "known_hosts");
    assert_eq!(honest.accepted(), 0);
}
