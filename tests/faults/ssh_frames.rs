//! The agent's socket: messages that lie, keys that are none, clients that never end. Each time the daemon lives on
//! and serves who is honest.

use keyloan_e2e::agent::{Client, FAILURE, Host, SUCCESS, document, encoded, framed, login};
use keyloan_e2e::sshd::Ssh;
use keyloan_e2e::{Sandbox, approver, eventually};
use keyloan_protocol::ssh_agent::key::PublicKey;
use keyloan_protocol::ssh_agent::message::SignFlags;
use keyloan_protocol::ssh_agent::session_bind::Extension;
use keyloan_protocol::ssh_agent::wire::{Reader, Writer};
use keyloan_protocol::ssh_agent::{message, session_bind};

const SESSION: &[u8] = b"a session";

/// An agent with the key `work` in the vault, that asks nobody.
fn agent(sandbox: &Sandbox) -> Ssh<'_> {
    let ssh = Ssh::of(sandbox);
    ssh.answered_by(approver::ALLOW, &["ssh.login=allow", "ssh.signature=allow", "ssh.other=allow"]);
    ssh.key("work", &["ed25519"]);
    ssh.store("work", &[]);
    ssh
}

/// The connection is as good as before.
#[track_caller]
fn still_serves(client: &mut Client, key: &PublicKey) {
    assert!(client.list().iter().any(|identity| identity.blob == key.blob()));
}

fn query() -> Vec<u8> {
    encoded(|out| {
        out.u8(27);
        out.text(session_bind::QUERY);
    })
}

/// One message of each kind that has more than a number, all of which an agent takes in this order, but for the tokens.
fn messages(ssh: &Ssh<'_>) -> Vec<Vec<u8>> {
    let key = ssh.public_key("work");
    for name in ["extra", "host"] {
        let _ = std::fs::remove_file(ssh.path(name));
    }
    ssh.key("extra", &["ecdsa"]);
    let (fields, extra) = (ssh.private_fields("extra"), ssh.public_key("extra"));
    let (_agent, plain) = ssh.plain_agent();
    let bind = Host::new(ssh, &plain, "host").session(SESSION, true);
    let bind = message::Request::Extension(Extension::SessionBind(bind)).encode().unwrap();
    let of = |number: u8, write: &dyn Fn(&mut Writer)| {
        encoded(|out| {
            out.u8(number);
            write(out);
        })
    };
    vec![
        bind[4..].to_vec(),
        of(13, &|out| {
            out.string(key.blob());
            out.string(&login(SESSION, "root", &key, None));
            out.u32(0);
        }),
        of(17, &|out| {
            out.bytes(&fields);
            out.text("comment");
        }),
        of(25, &|out| {
            out.bytes(&fields);
            out.text("comment");
            out.bytes(b"\x01\0\0\x0e\x10");
        }),
        of(18, &|out| out.string(extra.blob())),
        of(20, &|out| {
            out.text("/usr/lib/evil.so");
            out.text("1234");
        }),
        of(26, &|out| {
            out.text("/usr/lib/evil.so");
            out.text("1234");
            out.bytes(b"\x02");
        }),
        of(22, &|out| out.text("lock")),
        of(23, &|out| out.text("lock")),
        query(),
    ]
}

#[test]
fn frames_of_no_length_and_of_too_much_end_the_connection_before_anything_is_kept() {
    let sandbox = Sandbox::with_vault();
    let ssh = agent(&sandbox);
    let (key, pid) = (ssh.public_key("work"), sandbox.daemon().unwrap());
    let memory = || {
        let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("VmSize:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
    };
    still_serves(&mut ssh.agent(), &key);
    let before = memory();
    for length in [0, 256 * 1024 + 1, 1 << 30, u32::MAX] {
        let mut clients: Vec<_> = (0..4).map(|_| ssh.agent()).collect();
        for client in &mut clients {
            assert_eq!(client.exchange(&length.to_be_bytes()), None, "{length}");
        }
    }
    assert!(memory() < before + 256 * 1024, "{before} kB became {}", memory());
    // The longest that is one is answered.
    let mut client = ssh.agent();
    let mut longest = vec![0; 256 * 1024];
    longest[0] = 200;
    assert_eq!(client.ask(&longest).as_deref(), Some(FAILURE));
    still_serves(&mut client, &key);
    assert_eq!(sandbox.daemon(), Some(pid));
}

#[test]
fn a_message_cut_at_any_byte_fails_and_the_connection_lives_on() {
    let sandbox = Sandbox::with_vault();
    let ssh = agent(&sandbox);
    let key = ssh.public_key("work");
    let mut client = ssh.agent();
    for message in messages(&ssh) {
        for end in 1..message.len() {
            assert_eq!(client.ask(&message[..end]).as_deref(), Some(FAILURE), "{end} of {message:?}");
        }
        let longer = [&message[..], b"\0"].concat();
        assert_eq!(client.ask(&longer).as_deref(), Some(FAILURE), "{longer:?}");
        still_serves(&mut client, &key);
    }
    assert_eq!(client.list().len(), 1);
    for message in messages(&ssh) {
        // A bind that was cut, and a whole one that says so, make a connection from elsewhere, which may less.
        let whole = ssh.agent().ask(&message).unwrap();
        assert_eq!(whole == FAILURE, [20, 26].contains(&message[0]), "{message:?}");
    }
    still_serves(&mut client, &key);
}

#[test]
fn a_frame_cut_at_any_byte_by_a_client_that_goes_is_no_request() {
    let sandbox = Sandbox::with_vault();
    let ssh = agent(&sandbox);
    let key = ssh.public_key("work");
    let cut = "import socket,sys\n\
        for line in sys.stdin:\n\
        \x20data=bytes.fromhex(line)\n\
        \x20for n in range(len(data)):\n\
        \x20\x20s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.sendall(data[:n]); s.shutdown(1)\n\
        \x20\x20assert s.recv(100) == b'', n\n";
    let lines: String =
        messages(&ssh).iter().map(|message| keyloan_e2e::agent::hex(&framed(message)) + "\n").collect();
    let python = keyloan_e2e::programs::needed("python3");
    sandbox.command(python, &["-c", cut, &ssh.socket()]).stdin(lines).run().ok();
    let mut client = ssh.agent();
    still_serves(&mut client, &key);
    assert_eq!(client.list().len(), 1);
    assert!(sandbox.events("signed").is_empty());
}

#[test]
fn a_changed_byte_anywhere_harms_nobody() {
    let sandbox = Sandbox::with_vault();
    let ssh = agent(&sandbox);
    let (key, pid) = (ssh.public_key("work"), sandbox.daemon().unwrap());
    let mut noise = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        noise ^= noise << 13;
        noise ^= noise >> 7;
        noise ^= noise << 17;
        noise.to_be_bytes()[3]
    };
    let mut client = ssh.agent();
    // Locked by a changed message it would have to be unlocked with an unknown word.
    for message in messages(&ssh).into_iter().filter(|message| ![22, 23].contains(&message[0])) {
        for at in 1..message.len() {
            let mut changed = message.clone();
            changed[at] ^= next() | 1;
            let reply = client.ask(&changed).unwrap();
            assert!([5, 6, 14, 29].contains(&reply[0]), "{reply:?}");
        }
    }
    for length in 1..400 {
        let mut random: Vec<u8> = (0..length).map(|_| next()).collect();
        random[0] = [11, 13, 17, 18, 20, 23, 25, 26, 27, 0, 255][length % 11];
        assert!(client.ask(&random).is_some());
    }
    still_serves(&mut client, &key);
    assert_eq!(sandbox.daemon(), Some(pid));
}

#[test]
fn what_is_not_known_fails_and_what_is_sent_ahead_is_answered_in_order() {
    let sandbox = Sandbox::with_vault();
    let ssh = agent(&sandbox);
    let key = ssh.public_key("work");
    let mut client = ssh.agent();
    // 9 removes keys of the first protocol, of which there are none; ssh-add -D sends it.
    for number in (0..=255).filter(|number| ![9, 11, 19].contains(number)) {
        assert_eq!(client.ask(&[number]).as_deref(), Some(FAILURE), "{number}");
        if ![13, 17, 18, 20, 22, 23, 25, 26, 27].contains(&number) {
            assert_eq!(
                client.ask(&[&[number], &b"and more"[..]].concat()).as_deref(),
                (number != 9).then_some(FAILURE)
            );
        }
    }
    for name in ["", "unknown@example.org", "session-bind@openssh.com", "QUERY", "query\0"] {
        let extension = encoded(|out| {
            out.u8(27);
            out.text(name);
        });
        assert_eq!(client.ask(&extension).as_deref(), Some(FAILURE), "{name}");
    }
    still_serves(&mut client, &key);
    // After a bind without a form this one may be from elsewhere, and may not empty the agent.
    assert_eq!(client.ask(&[19]).as_deref(), Some(FAILURE));
    let mut client = ssh.agent();
    let ahead = [framed(&query()), framed(&[200]), framed(&[19]), framed(&[11])].concat();
    assert!(client.exchange(&ahead).unwrap().starts_with(b"\x1d\0\0\0\x05query"));
    assert_eq!(client.exchange(b"").as_deref(), Some(FAILURE));
    assert_eq!(client.exchange(b"").as_deref(), Some(SUCCESS));
    assert_eq!(client.exchange(b"").unwrap()[0], 12);
    for byte in &framed(&[11])[..4] {
        assert!(client.send(&[*byte]));
    }
    assert_eq!(client.exchange(&[11]).unwrap()[0], 12);
    still_serves(&mut client, &key);
}

/// A message that adds a key under constraints.
fn constrained(fields: &[u8], constraints: &[u8]) -> Vec<u8> {
    encoded(|out| {
        out.u8(25);
        out.bytes(fields);
        out.text("comment");
        out.bytes(constraints);
    })
}

fn extension(name: &str, contents: &[u8]) -> Vec<u8> {
    encoded(|out| {
        out.u8(255);
        out.text(name);
        out.bytes(contents);
    })
}

#[test]
fn constraints_that_are_unknown_repeated_or_impossible_are_refused() {
    let sandbox = Sandbox::with_vault();
    let ssh = agent(&sandbox);
    ssh.key("extra", &["ed25519"]);
    let (fields, key) = (ssh.private_fields("extra"), ssh.public_key("work"));
    let mut client = ssh.agent();
    let restrict = |contents: &[u8]| extension("restrict-destination-v00@openssh.com", &framed(contents));
    let nowhere = framed(&encoded(|out| {
        for _ in 0..2 {
            out.nested(|out| (0..3).for_each(|_| out.text("")));
        }
        out.text("");
    }));
    for constraints in [
        b"".to_vec(),
        b"\x03".to_vec(),
        b"\x04\0\0\0\x05".to_vec(),
        b"\x02\x02".to_vec(),
        b"\x01\0\0\0\x05\x01\0\0\0\x05".to_vec(),
        b"\x01\0\0".to_vec(),
        extension("unknown@example.org", b""),
        extension("", b""),
        extension("sk-provider@openssh.com", &framed(b"internal")),
        extension("associated-certs-v00@openssh.com", b"\0\0\0\0\0"),
        restrict(b""),
        restrict(b"\0"),
        restrict(&nowhere),
        restrict(&[&nowhere[..], &nowhere].concat()),
    ] {
        let reply = client.ask(&constrained(&fields, &constraints));
        assert_eq!(reply.as_deref(), Some(FAILURE), "{constraints:?}");
    }
    assert_eq!(client.list().len(), 1, "a key must not be freer than its owner asked for");
    assert_eq!(client.ask(&constrained(&fields, b"\x02\x01\0\0\0\x64")).as_deref(), Some(SUCCESS));
    assert_eq!(client.list().len(), 2);
    still_serves(&mut client, &key);
}

/// The strings of a private key's fields after its name.
fn parts(fields: &[u8], count: usize) -> Vec<Vec<u8>> {
    let mut reader = Reader::new(fields);
    (0..count).map(|_| reader.string().unwrap().to_vec()).collect()
}

fn joined(parts: &[Vec<u8>]) -> Vec<u8> {
    encoded(|out| parts.iter().for_each(|part| out.string(part)))
}

#[test]
fn keys_whose_halves_do_not_match_and_weak_ones_are_refused() {
    let sandbox = Sandbox::with_vault();
    let ssh = agent(&sandbox);
    let mut client = ssh.agent();
    let add = |client: &mut Client, fields: &[u8]| {
        let message = encoded(|out| {
            out.u8(17);
            out.bytes(fields);
            out.text("comment");
        });
        client.ask(&message).unwrap()
    };
    for (kind, count, swapped) in [
        (&["ed25519"][..], 3, &[1][..]),
        (&["ed25519"], 3, &[2]),
        (&["ecdsa", "-b", "256"], 4, &[2]),
        (&["ecdsa", "-b", "521"], 4, &[3]),
        (&["rsa"], 7, &[1]),
        (&["rsa"], 7, &[3]),
        (&["rsa"], 7, &[4]),
        (&["rsa"], 7, &[5, 6]),
    ] {
        for name in ["one", "two"] {
            let _ = std::fs::remove_file(ssh.path(name));
            ssh.key(name, kind);
        }
        let mut one = parts(&ssh.private_fields("one"), count);
        let two = parts(&ssh.private_fields("two"), count);
        for at in swapped {
            one[*at].clone_from(&two[*at]);
        }
        assert_eq!(add(&mut client, &joined(&one)), FAILURE, "{kind:?} with another's {swapped:?}");
        assert_eq!(add(&mut client, &joined(&two)), SUCCESS, "{kind:?}");
        // A secret of the wrong length, or none.
        for short in [Vec::new(), two[count - 1][..two[count - 1].len() - 1].to_vec()] {
            let mut cut = two.clone();
            cut[count - 1] = short;
            assert_eq!(add(&mut client, &joined(&cut)), FAILURE, "{kind:?}");
        }
    }
    ssh.key("weak", &["rsa", "-b", "1024"]);
    let weak = std::fs::read(ssh.path("weak.pub")).unwrap();
    assert!(!weak.is_empty());
    ssh.add(&["-q", &ssh.path("weak").display().to_string()]).refused(1, "agent refused operation");
    let mut signer = ssh.agent();
    let rsa = ssh.public_key("two");
    let blob = document("file", &[7; 64]);
    // So many were refused that some are only counted: the next that is written down is this one.
    eventually("it is written down", || {
        assert!(signer.sign(&rsa, &blob, SignFlags::NONE).is_none(), "that would be with SHA-1");
        let refused = sandbox.events("agent_refused").pop();
        refused.is_some_and(|event| event["cause"].to_string().contains("SHA-1"))
    });
    assert!(signer.sign(&rsa, &blob, SignFlags::RSA_SHA256).is_some());
    assert!(signer.sign(&rsa, &blob, SignFlags::RSA_SHA512).is_some());
}
