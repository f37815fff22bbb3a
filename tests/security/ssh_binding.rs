//! Row 21: what a connection is bound to, and what a yes to it covers. The undefended victim is OpenSSH's own agent.

use crate::ssh::{ELSEWHERE, HERE, both};
use keyloan_e2e::agent::{Client, FAILURE, Host, SUCCESS, adding, encoded, locking, login};
use keyloan_e2e::sshd::Ssh;
use keyloan_e2e::{Running, Sandbox, eventually};
use keyloan_protocol::ssh_agent::message::{Request, SignFlags};
use keyloan_protocol::ssh_agent::session_bind::{Extension, SessionBind};

const HOP: &str = "hop.example.org";
const INNER: &str = "inner.example.org";

/// The agents of [`both`], and keys that are for [`INNER`] only: `limited` in the vault, `destined` added, and one of an
/// agent behind keyloan's. The key `inner` is that host's.
struct Kept<'a> {
    ssh: Ssh<'a>,
    sockets: [String; 2],
    _agents: [Running; 2],
}

fn kept(sandbox: &Sandbox) -> Kept<'_> {
    let (ssh, agent, sockets) = both(sandbox, &["ssh.login=allow"]);
    let (behind, upstream) = ssh.plain_agent_at(&sandbox.path("run/behind.sock").display().to_string());
    sandbox.policy(&format!("ssh.upstream={upstream}"));
    let key = ssh.key("behind", &["ed25519"]);
    ssh.client_of(&upstream, "ssh-add", &["-q", &key]).run().ok();
    ssh.key("limited", &["ed25519"]);
    ssh.store("limited", &[("hosts", INNER)]);
    ssh.key("inner", &["ed25519"]);
    ssh.append("home/.ssh/known_hosts", &format!("{INNER} {}\n", ssh.public("inner")));
    let (hosts, key) = (ssh.known_hosts().display().to_string(), ssh.key("destined", &["ed25519"]));
    for socket in &sockets {
        ssh.client_of(socket, "ssh-add", &["-q", "-H", &hosts, "-h", INNER, &key]).run().ok();
    }
    Kept { ssh, sockets, _agents: [agent, behind] }
}

impl Kept<'_> {
    fn inner(&self) -> Host {
        let file = self.ssh.path("inner").display().to_string();
        self.ssh.client_of(&self.sockets[0], "ssh-add", &["-q", &file]).run().ok();
        Host { key: self.ssh.public_key("inner"), agent: Client::connect(self.ssh.sandbox, &self.sockets[0]) }
    }

    /// Comments of the keys that a connection is shown.
    fn listed(client: &mut Client) -> Vec<String> {
        let comment = |identity: &keyloan_protocol::ssh_agent::message::Identity| {
            String::from_utf8_lossy(&identity.comment).into_owned()
        };
        client.list().iter().map(comment).collect()
    }
}

/// A bind by a host whose key is RSA of 1024 bits, made as ssh makes it.
fn weak_bind(kept: &Kept<'_>, session: &[u8], forwarding: bool) -> Vec<u8> {
    let file = kept.ssh.key("weak", &["rsa", "-b", "1024"]);
    kept.ssh.client_of(&kept.sockets[0], "ssh-add", &["-q", &file]).run().ok();
    let blob = kept.ssh.public_blob("weak");
    let sign = encoded(|out| {
        out.u8(13);
        out.string(&blob);
        out.string(session);
        out.u32(4);
    });
    let reply = Client::connect(kept.ssh.sandbox, &kept.sockets[0]).ask(&sign).unwrap();
    assert_eq!(reply[0], 14);
    encoded(|out| {
        out.u8(27);
        out.text("session-bind@openssh.com");
        out.string(&blob);
        out.string(session);
        out.bytes(&reply[1..]);
        out.boolean(forwarding);
    })
}

fn binding(bind: &SessionBind) -> Vec<u8> {
    Request::Extension(Extension::SessionBind(bind.clone())).encode().unwrap()[4..].to_vec()
}

#[test]
fn a_bind_that_failed_is_not_forgotten_when_one_of_another_host_follows() {
    let sandbox = Sandbox::with_vault();
    let kept = kept(&sandbox);
    let (ssh, key) = (&kept.ssh, kept.ssh.public_key("work"));
    let mut inner = kept.inner();
    let onward = inner.session(ELSEWHERE, false);
    let blob = login(ELSEWHERE, "root", &key, Some(&onward.host_key));
    let destined = ssh.public_key("destined");
    let for_destined = login(ELSEWHERE, "root", &destined, Some(&onward.host_key));
    // A hop whose bind does not verify: what follows on the forwarded connection is the hop's to choose.
    let mut unproven = Host::new(ssh, &kept.sockets[0], "hop").session(HERE, true);
    unproven.session_id.push(0);
    let mut victim = Client::connect(&sandbox, &kept.sockets[0]);
    assert!(!victim.bind(&unproven) && victim.bind(&onward));
    assert!(victim.sign(&destined, &for_destined, SignFlags::NONE).is_some(), "it passes for a local login");
    // Without anything that fails keyloan does it, too, and asks nobody.
    let mut local = ssh.agent();
    assert!(local.bind(&onward));
    assert_eq!(Kept::listed(&mut local), ["limited", "work", "destined", "behind"]);
    assert!(local.sign(&destined, &for_destined, SignFlags::NONE).is_some());
    assert!(local.sign(&key, &blob, SignFlags::NONE).is_some());
    assert!(ssh.questions().is_empty());
    for (first, is_locked) in [
        (binding(&unproven), false),
        (weak_bind(&kept, HERE, true), false),
        (binding(&Host::new(ssh, &kept.sockets[0], "hop-2").session(HERE, true)), true),
    ] {
        let mut client = ssh.agent();
        if is_locked {
            assert_eq!(ssh.agent().ask(&locking(22, "word")).as_deref(), Some(SUCCESS));
        }
        assert_eq!(client.ask(&first).as_deref(), Some(FAILURE));
        if is_locked {
            assert_eq!(ssh.agent().ask(&locking(23, "word")).as_deref(), Some(SUCCESS));
        }
        client.bind(&onward);
        assert_eq!(Kept::listed(&mut client), ["work"], "nothing that is for certain places");
        let asked = ssh.questions().len();
        for name in ["limited", "destined", "behind"] {
            let key = ssh.public_key(name);
            let data = login(ELSEWHERE, "root", &key, Some(&onward.host_key));
            assert!(client.sign(&key, &data, SignFlags::NONE).is_none(), "{name}");
        }
        assert_eq!(ssh.questions().len(), asked);
        assert!(client.sign(&key, &blob, SignFlags::NONE).is_some());
        let question = &ssh.questions()[asked];
        let text = "perhaps: the client could not prove where it comes from or goes to";
        question.says("forwarded", text, "seen");
        question.says("to", "root@ UNKNOWN: the client does not say which host", "claimed");
    }
}

#[test]
fn a_host_with_a_key_that_is_too_small_forwards_nothing_in_silence() {
    let sandbox = Sandbox::with_vault();
    let kept = kept(&sandbox);
    let ssh = &kept.ssh;
    ssh.key("door", &["ed25519"]);
    ssh.key(&format!("host-{HOP}"), &["rsa", "-b", "1024"]);
    ssh.append("home/.ssh/known_hosts", &format!("{HOP} {}\n", ssh.public(&format!("host-{HOP}"))));
    let _hop = ssh.server_with(HOP, &[ssh.public("door")], "RequiredRSASize 1024");
    let target = ssh.server("target.example.org", &["work", "behind"].map(|name| ssh.public(name)));
    let limited = ssh.server("limited.example.org", &["limited", "destined"].map(|name| ssh.public(name)));
    let door = format!("-oIdentityFile={}", ssh.path("door").display());
    let through = |socket: &str, name: &str| {
        let there = format!("ssh -F {} {name} true", ssh.path("config").display());
        let arguments = ["-oRequiredRSASize=1024", "-oIdentitiesOnly=yes", &door, "-A", HOP, &there];
        ssh.client_of(socket, "ssh", &arguments).run().status == 0
    };
    assert!(through(&kept.sockets[0], &target.name), "OpenSSH's agent asks nobody");
    assert!(ssh.questions().is_empty());
    assert!(through(&kept.sockets[1], &target.name));
    let [question] = &ssh.questions()[..] else { panic!("{:?}", ssh.questions()) };
    assert!(question.line("forwarded").unwrap().0.starts_with("perhaps"), "{question:?}");
    question.says("key", "added: work", "claimed");
    assert_eq!(target.accepted(), 2);
    // Keys for certain places do not get there that way.
    assert!(!through(&kept.sockets[1], &limited.name));
    assert_eq!((limited.accepted(), ssh.questions().len()), (0, 1));
    let names = ["limited", "destined"].map(|name| ssh.fingerprint(name));
    assert!(!names.iter().any(|name| limited.log().contains(name)), "{}", limited.log());
}

#[test]
fn a_yes_covers_the_same_login_and_no_other() {
    let sandbox = Sandbox::with_vault();
    let (ssh, _agent, sockets) = both(&sandbox, &["ssh.login=ask"]);
    let key = ssh.public_key("work");
    let second = ssh.key("second", &["ed25519"]);
    ssh.add(&["-q", &second]).ok();
    let mut host = Host::new(&ssh, &sockets[0], "host");
    let mut nameless = Host::new(&ssh, &sockets[0], "nameless");
    ssh.append("home/.ssh/known_hosts", &format!("git.example.org {}\n", ssh.public("host")));
    let bind = host.session(HERE, false);
    let of = |user: &str, name: &str, host: &Host| {
        let key = ssh.public_key(name);
        (login(HERE, user, &key, Some(&host.key)), key)
    };
    // OpenSSH's agent tells nobody, whoever is logged in as.
    let mut victim = Client::connect(&sandbox, &sockets[0]);
    assert!(victim.bind(&bind));
    for user in ["git", "root"] {
        assert!(victim.sign(&key, &of(user, "work", &host).0, SignFlags::NONE).is_some());
    }
    let mut client = ssh.agent();
    assert!(client.bind(&bind));
    for (number, (user, name, questions)) in [
        ("git", "work", 1),
        ("git", "work", 1),
        ("root", "work", 2),
        ("root", "work", 2),
        ("git", "second", 3),
        ("root", "work", 4),
    ]
    .into_iter()
    .enumerate()
    {
        let (data, key) = of(user, name, &host);
        assert!(client.sign(&key, &data, SignFlags::NONE).is_some());
        assert_eq!(ssh.questions().len(), questions, "{number}");
        let decided = sandbox.events("decided").pop().unwrap();
        let covered = number == 1 || number == 3;
        let expected = if covered { "the yes to this ssh session" } else { "ssh.login=ask" };
        assert_eq!(decided["rule"], expected, "{number}");
    }
    // On another connection it covers nothing, and without the host's name, which people judge by, nothing either.
    let mut another = ssh.agent();
    assert!(another.bind(&bind));
    let (data, key) = of("root", "work", &host);
    assert!(another.sign(&key, &data, SignFlags::NONE).is_some());
    assert_eq!(ssh.questions().len(), 5);
    let mut client = ssh.agent();
    assert!(client.bind(&nameless.session(HERE, false)));
    let (data, key) = of("git", "work", &nameless);
    for questions in [6, 7] {
        assert!(client.sign(&key, &data, SignFlags::NONE).is_some());
        assert_eq!(ssh.questions().len(), questions);
    }
}

#[test]
fn a_host_that_the_agent_was_forwarded_to_neither_empties_locks_nor_fills_it() {
    let sandbox = Sandbox::with_vault();
    let (ssh, _agent, sockets) = both(&sandbox, &["key.add=allow"]);
    ssh.key("gift", &["ed25519"]);
    let mut hop = Host::new(&ssh, &sockets[0], "hop");
    ssh.append("home/.ssh/known_hosts", &format!("{HOP} {}\n", ssh.public("hop")));
    let arrived = hop.session(HERE, true);
    let add = adding(&ssh.private_fields("gift"), "gift");
    for (socket, is_victim) in sockets.iter().zip([true, false]) {
        let mut client = Client::connect(&sandbox, socket);
        assert!(client.bind(&arrived));
        let expected = Some(if is_victim { SUCCESS } else { FAILURE });
        assert_eq!(client.ask(&locking(22, "word")).as_deref(), expected);
        if !is_victim {
            // Locked by somebody who may, with a passphrase that the host knows.
            assert_eq!(ssh.agent().ask(&locking(22, "word")).as_deref(), Some(SUCCESS));
        }
        assert_eq!(client.ask(&locking(23, "word")).as_deref(), expected);
        if !is_victim {
            assert!(ssh.agent().list().is_empty());
            assert_eq!(ssh.agent().ask(&locking(23, "word")).as_deref(), Some(SUCCESS));
        }
        assert_eq!(client.ask(&[19]).as_deref(), expected);
        assert_eq!(Client::connect(&sandbox, socket).list().is_empty(), is_victim);
        assert_eq!(client.ask(&add).as_deref(), Some(SUCCESS));
        let asked = ssh.questions();
        assert_eq!(asked.len(), usize::from(!is_victim));
        for question in asked {
            assert_eq!(question.title(), "add an ssh key to the agent");
            question.says(
                "forwarded",
                &format!("from {HOP}, and so asked for by anybody there"),
                "known_hosts",
            );
            question.says("from key", &format!("ssh-ed25519 {}", ssh.fingerprint("hop")), "verified");
            question.says("key", &format!("ssh-ed25519 {}", ssh.fingerprint("gift")), "verified");
        }
    }
    let causes: Vec<_> = sandbox.events("agent_refused").iter().map(|event| event["cause"].clone()).collect();
    assert_eq!(causes.len(), 3, "{causes:?}");
    assert!(
        causes.iter().all(|cause| cause == "a host that forwards the agent may not lock, unlock or empty it")
    );
}

#[test]
fn a_host_that_is_revoked_meanwhile_gets_nothing_on_a_connection_that_is_open() {
    let sandbox = Sandbox::with_vault();
    let (ssh, _agent, sockets) = both(&sandbox, &["ssh.login=allow"]);
    let key = ssh.public_key("work");
    let mut host = Host::new(&ssh, &sockets[0], "host");
    ssh.append("home/.ssh/known_hosts", &format!("git.example.org {}\n", ssh.public("host")));
    let bind = host.session(HERE, false);
    let data = login(HERE, "git", &key, Some(&host.key));
    let mut clients = sockets.each_ref().map(|socket| Client::connect(&sandbox, socket));
    for client in &mut clients {
        assert!(client.bind(&bind) && client.sign(&key, &data, SignFlags::NONE).is_some());
    }
    ssh.append("home/.ssh/known_hosts", &format!("@revoked * {}\n", ssh.public("host")));
    eventually("the connection is refused", || clients[1].sign(&key, &data, SignFlags::NONE).is_none());
    assert!(clients[0].sign(&key, &data, SignFlags::NONE).is_some(), "OpenSSH's agent knows no names");
    let refused = sandbox.events("agent_refused").pop().unwrap();
    assert_eq!(refused["cause"], "known_hosts says that the host's key is revoked");
    assert!(ssh.questions().is_empty());
}
