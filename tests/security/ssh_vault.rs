//! Row 21: what the vault and `known_hosts` say of keys and hosts, where somebody else writes there; and agents behind
//! this one. OpenSSH's agent has neither vault nor names: it signs in all these cases, and asks nobody.

use crate::ssh::{ELSEWHERE, HERE, both};
use keyloan_e2e::agent::{Client, Host, document, hex, login};
use keyloan_e2e::programs::needed;
use keyloan_e2e::sshd::Ssh;
use keyloan_e2e::{Running, Sandbox, eventually};
use keyloan_protocol::ssh_agent::key::PublicKey;
use keyloan_protocol::ssh_agent::message::{Identity, Reply, SignFlags};

const HOST: &str = "git.example.org";

/// A host of that key, which `known_hosts` calls [`HOST`].
fn known(ssh: &Ssh<'_>, plain: &str, name: &str) -> Host {
    let host = Host::new(ssh, plain, name);
    ssh.append("home/.ssh/known_hosts", &format!("{HOST} {}\n", ssh.public(name)));
    host
}

/// A connection that is bound to the host, and a login there.
fn bound(ssh: &Ssh<'_>, host: &mut Host, key: &PublicKey) -> (Client, Vec<u8>) {
    let mut client = ssh.agent();
    assert!(client.bind(&host.session(HERE, false)));
    (client, login(HERE, "git", key, Some(&host.key)))
}

#[test]
fn a_key_that_is_confirmed_always_is_so_although_the_file_beside_the_locked_vault_does_not_say_it() {
    let sandbox = Sandbox::with_vault();
    let (ssh, _agent, [plain, _]) = both(&sandbox, &["ssh.login=allow"]);
    ssh.key("strict", &["ed25519"]);
    ssh.store("strict", &[("confirm", "always")]);
    let key = ssh.public_key("strict");
    let mut host = known(&ssh, &plain, "host");
    let (_, data) = bound(&ssh, &mut host, &key);
    sandbox.stop();
    let public = sandbox.vault().join("public");
    let honest = std::fs::read_to_string(&public).unwrap();
    let forged = honest.replace(r#","confirm":"always""#, "");
    assert_ne!(forged, honest);
    std::fs::write(&public, forged).unwrap();
    sandbox.keyloan(&["daemon", "start"]).run().ok();
    // Before the vault is open there is nothing else to believe.
    assert_eq!(sandbox.ssh_keys()[0]["confirm"], "session");
    let (mut client, _) = bound(&ssh, &mut host, &key);
    client.ask_to_sign(&key, &data);
    // Nobody can be asked: it waits. What comes after it is served.
    assert_eq!(ssh.agent().list().len(), 1);
    assert!(ssh.questions().is_empty() && sandbox.events("signed").is_empty());
    sandbox.unlock().ok();
    assert_eq!(client.reply().unwrap()[0], 14);
    let [question] = &ssh.questions()[..] else { panic!("{:?}", ssh.questions()) };
    question.says("key", "strict", "verified");
    assert_eq!(sandbox.events("decided").pop().unwrap()["rule"], "the key is confirmed at every use");
    assert_eq!(sandbox.events("public_keys_replaced").len(), 1);
    assert_eq!(std::fs::read_to_string(&public).unwrap(), honest);
}

#[test]
fn another_key_under_a_pinned_name_is_said_to_be_one_and_not_advised_to_be_pinned() {
    let sandbox = Sandbox::with_vault();
    let (ssh, _agent, [plain, _]) = both(&sandbox, &[]);
    let key = ssh.public_key("work");
    let mut evil = known(&ssh, &plain, "evil");
    Host::new(&ssh, &plain, "honest");
    let (mut client, data) = bound(&ssh, &mut evil, &key);
    // Whoever writes known_hosts gives names, as long as nobody has said better.
    assert!(client.sign(&key, &data, SignFlags::NONE).is_some());
    let question = ssh.questions().pop().unwrap();
    question.says("to", &format!("git@{HOST}"), "known_hosts");
    question.says("pinned", "not yet", "verified");
    sandbox.keyloan(&["ssh", "hosts", "pin", HOST, "--key", &ssh.public("honest")]).run().ok();
    let question = ssh.questions().pop().unwrap();
    assert!(question.line("BESIDE").is_none());
    let (mut client, data) = bound(&ssh, &mut evil, &key);
    assert!(client.sign(&key, &data, SignFlags::NONE).is_some());
    let question = ssh.questions().pop().unwrap();
    let text = format!("git@a host that known_hosts calls {HOST}, WHICH IS PINNED WITH OTHER KEYS");
    question.says("to", &text, "known_hosts");
    assert!(question.line("pinned").is_none());
    // It is not covered by a yes either, having no name.
    assert!(client.sign(&key, &data, SignFlags::NONE).is_some());
    assert_eq!(ssh.questions().len(), 4);
    // Pinning it all the same is shown for what it is.
    sandbox.keyloan(&["ssh", "hosts", "pin", HOST, "--key", &ssh.public("evil")]).run().ok();
    let question = ssh.questions().pop().unwrap();
    let held = format!("ssh-ed25519 {}, which it is pinned with already", ssh.fingerprint("honest"));
    question.says("BESIDE", &held, "verified");
    question.says("key", &format!("ssh-ed25519 {}", ssh.fingerprint("evil")), "verified");
    // And so is forgetting, after which known_hosts would say the name again.
    sandbox.policy("trust=deny");
    sandbox.keyloan(&["ssh", "hosts", "unpin", HOST]).run().refused(5, "trust=deny");
    sandbox.policy("trust=ask");
    let asked = ssh.questions().len();
    sandbox.keyloan(&["ssh", "hosts", "unpin", HOST]).run().ok();
    let question = &ssh.questions()[asked];
    assert_eq!(question.title(), "forget a host's keys");
    question.says("host", HOST, "verified");
}

#[test]
fn who_may_write_items_but_add_no_keys_changes_none_by_their_fields() {
    let sandbox = Sandbox::with_vault();
    let (ssh, _agent, _) = both(&sandbox, &[]);
    ssh.key("stored", &["ed25519"]);
    ssh.store("stored", &[("hosts", HOST), ("confirm", "always")]);
    sandbox.policy("key.add=deny");
    let before = sandbox.ssh_keys();
    for field in ["hosts", "confirm", "public_key"] {
        sandbox.keyloan(&["item", "rm", "stored", field]).run().refused(5, "key.add=deny");
    }
    for field in ["private_key", "public_key", "certificate"] {
        for flag in [&["--public"][..], &[]] {
            let arguments = [&["item", "set"], flag, &["stored", field]].concat();
            sandbox.keyloan(&arguments).stdin("value").run().refused(5, "key.add=deny");
        }
    }
    for (field, value) in [("hosts", "*"), ("confirm", "session")] {
        let arguments = ["item", "set", "--public", "stored", field];
        sandbox.keyloan(&arguments).stdin(value).run().refused(5, "key.add=deny");
    }
    assert_eq!(sandbox.ssh_keys(), before);
    sandbox.keyloan(&["item", "set", "stored", "note"]).stdin("value").run().ok();
    sandbox.policy("key.add=ask");
    let asked = ssh.questions().len();
    let set = |field: &str, value: &str| {
        sandbox.keyloan(&["item", "set", "--public", "stored", field]).stdin(value).run().ok();
    };
    set("hosts", "*.example.org");
    set("confirm", "session");
    let [hosts, confirm] = &ssh.questions()[asked..] else { panic!("{:?}", ssh.questions()) };
    hosts.says("value", "*.example.org", "verified");
    confirm.says("value", "session", "verified");
}

#[test]
fn an_item_with_somebody_elses_public_half_signs_with_nobodys_key() {
    let sandbox = Sandbox::with_vault();
    let (ssh, _agent, [plain, _]) = both(&sandbox, &["ssh.login=allow"]);
    for name in ["stored", "other"] {
        ssh.key(name, &["ed25519"]);
    }
    let mut host = known(&ssh, &plain, "host");
    let key = ssh.public_key("stored");
    let (mut client, data) = bound(&ssh, &mut host, &key);
    let other = std::fs::read(ssh.path("other")).unwrap();
    for (private, cause) in [(&b"nonsense"[..], "key"), (&other, "is not that of its public half")] {
        ssh.store("stored", &[]);
        assert!(client.sign(&key, &data, SignFlags::NONE).is_some(), "it is ready to sign");
        sandbox.keyloan(&["item", "set", "claims", "private_key"]).stdin(private).run().ok();
        let set = sandbox.keyloan(&["item", "set", "--public", "claims", "public_key"]);
        set.stdin(ssh.public("stored")).run().ok();
        sandbox.keyloan(&["item", "rm", "stored"]).run().ok();
        assert_eq!(ssh.agent().list().len(), 2, "it is offered, as the vault says it is one");
        let signed = sandbox.events("signed").len();
        assert!(client.sign(&key, &data, SignFlags::NONE).is_none());
        assert_eq!(sandbox.events("signed").len(), signed);
        let failed = sandbox.events("failed").pop().unwrap();
        assert!(failed["cause"].as_str().unwrap().contains(cause), "{failed}");
        sandbox.keyloan(&["item", "rm", "claims"]).run().ok();
    }
}

#[test]
fn an_item_that_is_another_key_now_signs_with_that_at_once_and_with_the_old_one_never() {
    let sandbox = Sandbox::with_vault();
    let ssh = Ssh::asked(&sandbox, &["ssh.signature=allow"]);
    let (_agent, plain) = ssh.plain_agent();
    let text = document("file", &[7; 64]);
    // Ed25519 signs the same text the same way every time (RFC 8032): the victim, whose keys stay, tells what is right.
    let [old, new] = ["old", "new"].map(|name| {
        let file = ssh.key(name, &["ed25519"]);
        ssh.client_of(&plain, "ssh-add", &["-q", &file]).run().ok();
        let key = ssh.public_key(name);
        let right = Client::connect(&sandbox, &plain).sign(&key, &text, SignFlags::NONE).unwrap();
        (key, right)
    });
    // One connection for all: it has no memory of its own.
    let mut client = ssh.agent();
    let mut sign = |key: &PublicKey| client.sign(key, &text, SignFlags::NONE);
    let put = |item: &str, name: &str| {
        let private = std::fs::read(ssh.path(name)).unwrap();
        sandbox.keyloan(&["item", "set", item, "private_key"]).stdin(private).run().ok();
        let set = sandbox.keyloan(&["item", "set", "--public", item, "public_key"]);
        set.stdin(ssh.public(name)).run().ok();
    };
    put("item", "old");
    assert_eq!((sign(&old.0), sign(&new.0)), (Some(old.1.clone()), None));
    put("item", "new");
    assert_eq!((sign(&new.0), sign(&old.0)), (Some(new.1.clone()), None));
    // Under another name it is the same, and its name is free for another.
    sandbox.keyloan(&["item", "mv", "item", "moved"]).run().ok();
    assert_eq!((sign(&new.0), sign(&old.0)), (Some(new.1.clone()), None));
    put("item", "old");
    assert_eq!((sign(&old.0), sign(&new.0)), (Some(old.1.clone()), Some(new.1.clone())));
    sandbox.keyloan(&["item", "rm", "item"]).run().ok();
    assert_eq!((sign(&old.0), sign(&new.0)), (None, Some(new.1.clone())));
    sandbox.keyloan(&["item", "rm", "moved"]).run().ok();
    assert_eq!((sign(&old.0), sign(&new.0)), (None, None));
    for (name, (key, right), gone) in [("old", &old, &new), ("new", &new, &old)] {
        let file = ssh.path(name).display().to_string();
        sandbox.keyloan(&["ssh", "add", "--name", "item", &file]).run().ok();
        assert_eq!((sign(key).as_ref(), sign(&gone.0)), (Some(right), None), "{name}");
        sandbox.keyloan(&["item", "rm", "item"]).run().ok();
    }
}

#[test]
fn a_key_for_more_or_longer_hosts_than_can_be_set_is_not_listed_from_the_file_beside_the_locked_vault() {
    let sandbox = Sandbox::with_vault();
    let (ssh, _agent, [plain, _]) = both(&sandbox, &[]);
    ssh.add(&["-D"]).ok();
    ssh.key("honest", &["ed25519"]);
    ssh.store("honest", &[]);
    // A connection with a name has every pattern looked at.
    let bind = known(&ssh, &plain, "host").session(HERE, false);
    sandbox.stop();
    let public = sandbox.vault().join("public");
    let honest: serde_json::Value = serde_json::from_slice(&std::fs::read(&public).unwrap()).unwrap();
    let most = (0..63).map(|number| format!("h{number}")).collect::<Vec<_>>().join(" ");
    let longest = format!("*{}", "a".repeat(269));
    let endless = format!("{}b ", "*a".repeat(134)).repeat(200_000 / 270);
    for (hosts, is_listed) in [
        (format!("{HOST} {most}"), true),
        (format!("{HOST} {most} one-more"), false),
        (format!("{HOST} {longest}"), true),
        (format!("{HOST} {longest}a"), false),
        (format!("{HOST} {endless}"), false),
        (format!("{HOST} {}", "*a".repeat(50_000)), false),
    ] {
        sandbox.stop();
        let mut keys = honest.clone();
        let line = ssh.public("work");
        let forged = serde_json::json!({"item": "forged", "public_key": line, "hosts": hosts});
        keys.as_array_mut().unwrap().push(forged);
        std::fs::write(&public, keys.to_string()).unwrap();
        sandbox.keyloan(&["daemon", "start"]).run().ok();
        let items: Vec<_> = sandbox.ssh_keys().iter().map(|key| key["item"].to_string()).collect();
        let (both, one) = (["\"honest\"", "\"forged\""], ["\"honest\""]);
        let expected: &[&str] = if is_listed { &both } else { &one };
        assert_eq!(items, expected, "{} bytes", hosts.len());
        let mut client = ssh.agent();
        assert!(client.bind(&bind));
        let offered: Vec<_> = client.list().into_iter().map(|identity| identity.blob).collect();
        let (honest, forged) = (ssh.public_blob("honest"), ssh.public_blob("work"));
        let expected = if is_listed { vec![forged, honest] } else { vec![honest] };
        assert_eq!(offered, expected, "{} bytes", hosts.len());
    }
    sandbox.unlock().ok();
    assert_eq!(sandbox.ssh_keys().len(), 1);
}

/// Lists what its second argument says, and answers to every signature with its third.
const UPSTREAM: &str = r"
import socket, sys, threading
s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen()
def serve(c):
    while True:
        head = c.recv(4, socket.MSG_WAITALL)
        if len(head) < 4: return
        kind = c.recv(int.from_bytes(head, 'big'), socket.MSG_WAITALL)[0]
        c.sendall(bytes.fromhex({11: sys.argv[2], 13: sys.argv[3]}.get(kind, '0000000105')))
while True: threading.Thread(target=serve, args=(s.accept()[0],), daemon=True).start()
";

#[test]
fn a_wrong_signature_of_an_agent_behind_is_passed_on_to_nobody() {
    let sandbox = Sandbox::with_vault();
    let (ssh, _agent, [plain, _]) = both(&sandbox, &["ssh.login=allow"]);
    let mut host = known(&ssh, &plain, "host");
    for name in ["behind", "another"] {
        let file = ssh.key(name, &["ed25519"]);
        ssh.client_of(&plain, "ssh-add", &["-q", &file]).run().ok();
    }
    let key = ssh.public_key("behind");
    let (_, data) = bound(&ssh, &mut host, &key);
    let mut signer = Client::connect(&sandbox, &plain);
    let identity = Identity { blob: key.blob().to_vec(), comment: b"behind".to_vec() };
    let list = hex(&Reply::Identities(vec![identity]).encode().unwrap());
    let elsewhere = login(ELSEWHERE, "git", &key, Some(&host.key));
    for (number, (name, signed)) in
        [("behind", &data), ("behind", &elsewhere), ("another", &data)].into_iter().enumerate()
    {
        let signature = signer.sign(&ssh.public_key(name), signed, SignFlags::NONE).unwrap();
        let reply = hex(&Reply::Signature(signature.encode()).encode().unwrap());
        let path = sandbox.path(&format!("run/upstream-{number}")).display().to_string();
        let program = sandbox.command(needed("python3"), &["-c", UPSTREAM, &path, &list, &reply]);
        let _upstream = Running(program.start());
        eventually("it listens", || std::path::Path::new(&path).exists());
        sandbox.policy(&format!("ssh.upstream={path}"));
        // Whoever asks it without keyloan gets what it gives.
        let given = Client::connect(&sandbox, &path).sign(&key, &data, SignFlags::NONE).unwrap();
        assert_eq!(given, signature);
        let (mut client, _) = bound(&ssh, &mut host, &key);
        let is_right = number == 0;
        assert_eq!(client.sign(&key, &data, SignFlags::NONE).is_some(), is_right, "{number}");
        let failed = sandbox.events("failed");
        assert_eq!(failed.len(), number);
        assert!(failed.iter().all(|event| event["cause"] == "the other agent: its signature is wrong"));
    }
    assert_eq!(sandbox.events("signed").len(), 1);
}
