//! OpenSSH's own agent says what replies must be: the same messages go to both, and the bytes that come back are
//! compared. Signatures with ECDSA are random, and all that keyloan refuses on purpose is left out here; that is in
//! `tests/security`.

use keyloan_e2e::agent::{Client, FAILURE, Host, document, encoded, locking, login};
use keyloan_e2e::sshd::Ssh;
use keyloan_e2e::{Running, Sandbox, approver};
use keyloan_protocol::ssh_agent::key::PublicKey;
use keyloan_protocol::ssh_agent::message::Request;
use keyloan_protocol::ssh_agent::session_bind::{Extension, SessionBind};

/// OpenSSH's socket and keyloan's, which asks nobody.
fn both(sandbox: &Sandbox) -> (Ssh<'_>, Running, [String; 2]) {
    let ssh = Ssh::of(sandbox);
    ssh.answered_by(approver::ALLOW, &["ssh.login=allow", "ssh.signature=allow", "ssh.other=allow"]);
    let (agent, plain) = ssh.plain_agent();
    let sockets = [plain, ssh.socket()];
    (ssh, agent, sockets)
}

fn add(fields: &[u8], comment: &str, constraints: &[u8]) -> Vec<u8> {
    encoded(|out| {
        out.u8(if constraints.is_empty() { 17 } else { 25 });
        out.bytes(fields);
        out.text(comment);
        out.bytes(constraints);
    })
}

fn about(number: u8, key: &PublicKey) -> Vec<u8> {
    encoded(|out| {
        out.u8(number);
        out.string(key.blob());
    })
}

fn sign(key: &PublicKey, data: &[u8], flags: u32) -> Vec<u8> {
    encoded(|out| {
        out.u8(13);
        out.string(key.blob());
        out.string(data);
        out.u32(flags);
    })
}

fn binding(bind: &SessionBind) -> Vec<u8> {
    Request::Extension(Extension::SessionBind(bind.clone())).encode().unwrap()[4..].to_vec()
}

/// `ssh-add -h`: to a host of this key, from another or from here.
fn destined(from: Option<&PublicKey>, user: &str, to: &PublicKey) -> Vec<u8> {
    let host = |out: &mut keyloan_protocol::ssh_agent::wire::Writer, user: &str, key: Option<&PublicKey>| {
        out.nested(|out| {
            out.text(user);
            out.text(if key.is_some() { "name" } else { "" });
            out.text("");
            if let Some(key) = key {
                out.string(key.blob());
                out.u8(0);
            }
        });
    };
    encoded(|out| {
        out.u8(255);
        out.text("restrict-destination-v00@openssh.com");
        out.nested(|out| {
            out.nested(|out| {
                host(out, "", from);
                host(out, user, Some(to));
                out.text("");
            });
        });
    })
}

#[test]
fn a_session_is_answered_byte_for_byte_as_by_openssh() {
    let sandbox = Sandbox::with_vault();
    let (ssh, _agent, sockets) = both(&sandbox);
    ssh.key("authority", &["ed25519"]);
    for (name, kind) in
        [("ed", &["ed25519"][..]), ("rsa", &["rsa"]), ("ec", &["ecdsa"]), ("ec521", &["ecdsa", "-b", "521"])]
    {
        ssh.key(name, kind);
    }
    let [ed, rsa, ec, ec521] = ["ed", "rsa", "ec", "ec521"].map(|name| ssh.private_fields(name));
    let [ed_key, rsa_key, ec_key] = ["ed", "rsa", "ec"].map(|name| ssh.public_key(name));
    let file = document("file", &[7; 64]);
    let long = vec![b'x'; 200 * 1024];
    let mut clients = sockets.each_ref().map(|socket| Client::connect(&sandbox, socket));
    for (number, message) in [
        vec![11],
        vec![19],
        about(18, &ed_key),
        sign(&ed_key, &file, 0),
        add(&ed, "first", b""),
        add(&rsa, "caf\u{e9}", b""),
        add(&ec, "", b""),
        add(&ec521, "third", b"\x02"),
        vec![11],
        sign(&ed_key, &file, 0),
        sign(&ed_key, b"any bytes", 0),
        sign(&ed_key, b"", 0),
        sign(&ed_key, &long, 0),
        sign(&ed_key, &file, 4),
        sign(&rsa_key, &file, 2),
        sign(&rsa_key, &file, 4),
        sign(&rsa_key, &file, 6),
        sign(&rsa_key, &long, 2),
        // Added again: where it was, under its new name.
        add(&ed, "renamed", b""),
        vec![11],
        add(&ed, "for an hour", b"\x01\0\0\x0e\x10"),
        vec![11],
        about(18, &ec_key),
        about(18, &ec_key),
        vec![11],
        locking(23, "not locked"),
        locking(22, "word"),
        vec![11],
        locking(22, "again"),
        sign(&ed_key, &file, 0),
        add(&ec, "ec", b""),
        about(18, &ed_key),
        vec![19],
        locking(23, "wrong"),
        locking(23, ""),
        vec![11],
        locking(23, "word"),
        vec![11],
        // Unknown, obsolete, and without what belongs to them.
        vec![0],
        // Not 9: OpenSSH's agent takes it for the removal of all keys, not of those of the first protocol.
        vec![1],
        vec![5],
        vec![6],
        vec![12],
        vec![14],
        vec![128],
        vec![255],
        vec![13],
        vec![17],
        vec![18],
        // Not 22 and 23: without a passphrase these end OpenSSH's agent.
        vec![25],
        vec![27],
        encoded(|out| {
            out.u8(27);
            out.text("unknown@example.org");
        }),
        add(&ec, "unknown constraint", b"\x03"),
        add(&ec, "no time", b"\x01\0\0"),
        add(&ec, "unknown extension", b"\xff\0\0\0\x01x"),
        vec![11],
        vec![19],
        vec![11],
    ]
    .iter()
    .enumerate()
    {
        let [theirs, ours] = clients.each_mut().map(|client| client.ask(message));
        assert_eq!(ours, theirs, "message {number}: {:?}", &message[..message.len().min(80)]);
    }
}

struct Noise(u64);

impl Noise {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 20).unwrap() % limit
    }
}

/// Connections that are bound this way and that, and keys for destinations, added and removed from each of them.
#[test]
fn random_sessions_are_answered_as_by_openssh() {
    let sandbox = Sandbox::with_vault();
    let (ssh, _agent, sockets) = both(&sandbox);
    let (_notary, notary) = {
        // Beside the agent that is compared, since hosts' keys are in it.
        let before = std::fs::rename(&sockets[0], sandbox.path("run/compared.sock"));
        before.unwrap();
        ssh.plain_agent()
    };
    let sockets = [sandbox.path("run/compared.sock").display().to_string(), sockets[1].clone()];
    let mut hosts = ["host-a", "host-b"].map(|name| Host::new(&ssh, &notary, name));
    let sessions: [&[u8]; 2] = [b"first session", b"second session"];
    let mut binds = Vec::new();
    for host in &mut hosts {
        for session in sessions {
            binds.extend([false, true].map(|forwarding| host.session(session, forwarding)));
        }
    }
    let names = ["one", "two", "three"];
    let keys = names.map(|name| {
        ssh.key(name, &["ed25519"]);
        (ssh.public_key(name), ssh.private_fields(name))
    });
    let [a, b] = [&hosts[0].key, &hosts[1].key];
    let constraints = [
        destined(None, "", a),
        destined(None, "root", a),
        destined(None, "", b),
        [destined(None, "", a), b"\x01\0\0\x0e\x10".to_vec()].concat(),
        destined(Some(a), "", b),
    ];
    let mut noise = Noise(0x2545_f491_4f6c_dd1d);
    let mut counts = [0; 2];
    for _ in 0..12 {
        let mut connections: Vec<_> = (0..4)
            .map(|_| (sockets.each_ref().map(|socket| Client::connect(&sandbox, socket)), false))
            .collect();
        for step in 0..60 {
            let (clients, signed) = &mut connections[noise.below(4)];
            let (key, fields) = &keys[noise.below(3)];
            let message = match noise.below(12) {
                0..3 => vec![11],
                3 => about(18, key),
                // Whatever is in the way of a bind after a signature, is so on purpose.
                4..7 if !*signed => binding(&binds[noise.below(binds.len())]),
                7 | 8 => {
                    add(fields, ["", "comment"][noise.below(2)], &constraints[noise.below(constraints.len())])
                }
                _ => {
                    let host = [None, Some(a), Some(b)][noise.below(3)];
                    let user = ["root", "ada"][noise.below(2)];
                    sign(key, &login(sessions[noise.below(2)], user, key, host), 0)
                }
            };
            let [theirs, ours] = clients.each_mut().map(|client| client.ask(&message).unwrap());
            assert_eq!(ours, theirs, "step {step}: {message:?}");
            *signed |= ours[0] == 14;
            counts[usize::from(ours == FAILURE)] += 1;
        }
        // By another: OpenSSH's agent lets a host that the agent was forwarded to empty it.
        let [theirs, ours] = sockets.each_ref().map(|socket| Client::connect(&sandbox, socket).ask(&[19]));
        assert_eq!(ours, theirs);
    }
    assert!(counts.iter().all(|count| *count > 100), "too much of one kind: {counts:?}");
}
