//! Another implementation of the agent protocol, `ssh-agent-lib`: its client at keyloan's socket, and its codec on
//! what OpenSSH's programs said. Nothing of it is in the programs; `docs/dependencies.md` says why.

use keyloan_e2e::{Running, Sandbox, approver, programs};
use keyloan_protocol::ssh_agent::constraint::{Constraints, Destination};
use keyloan_protocol::ssh_agent::message::{Reply, Request};
use keyloan_protocol::ssh_agent::session_bind;
use ssh_agent_lib::blocking::Client;
use ssh_agent_lib::proto::extension::{
    DestinationConstraint, MessageExtension, QueryResponse, RestrictDestination, SessionBind,
};
use ssh_agent_lib::proto::{
    AddIdentity, AddIdentityConstrained, Extension, KeyConstraint, PrivateCredential, PublicCredential,
    RemoveIdentity, Request as TheirRequest, Response, SignRequest, Unparsed,
};
use ssh_agent_lib::ssh_encoding::{Decode, Encode};
use ssh_agent_lib::ssh_key::{HashAlg, PublicKey, SshSig};
use std::io::{Read, Result, Write};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ChildStdout};

/// The agent's socket admits its own user only, so a small program of that user carries the bytes.
struct Carrier {
    to: ChildStdin,
    from: ChildStdout,
    _program: Running,
}

const CARRY: &str = "import os,socket,sys,threading\n\
    s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])\n\
    def back():\n\
    \x20while True:\n\
    \x20\x20piece=s.recv(65536)\n\
    \x20\x20if not piece: os._exit(0)\n\
    \x20\x20os.write(1,piece)\n\
    threading.Thread(target=back).start()\n\
    while True:\n\
    \x20piece=os.read(0,65536)\n\
    \x20if not piece: os._exit(0)\n\
    \x20s.sendall(piece)\n";

impl Read for Carrier {
    fn read(&mut self, bytes: &mut [u8]) -> Result<usize> {
        self.from.read(bytes)
    }
}

impl Write for Carrier {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        self.to.write(bytes)
    }

    fn flush(&mut self) -> Result<()> {
        self.to.flush()
    }
}

fn client(sandbox: &Sandbox) -> Client<Carrier> {
    let socket = sandbox.path("run/keyloan/agent.sock");
    let arguments = ["-c".as_ref(), CARRY.as_ref(), socket.as_os_str()];
    let mut program = sandbox.command(programs::needed("python3"), &arguments).start();
    let (to, from) = (program.stdin.take().unwrap(), program.stdout.take().unwrap());
    Client::new(Carrier { to, from, _program: Running(program) })
}

/// An agent that takes keys and signs files without a question.
fn agent() -> Sandbox {
    let sandbox = Sandbox::with_vault();
    sandbox.policy("key.add=allow");
    sandbox.policy("ssh.signature=allow");
    sandbox
}

fn vectors() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../protocol/vectors/ssh_agent")
}

/// A message without its length.
fn vector(name: &str) -> Vec<u8> {
    let frame = std::fs::read(vectors().join(name)).unwrap();
    frame[4..].to_vec()
}

/// A key that `ssh-add` added, and its public half, as the library understands them.
fn recorded(name: &str) -> (AddIdentity, PublicCredential) {
    let Ok(TheirRequest::AddIdentity(add)) = TheirRequest::decode(&mut vector(name).as_slice()) else {
        panic!("{name} is not understood")
    };
    let PrivateCredential::Key { privkey, .. } = &add.credential else { panic!("{name} is a certificate") };
    let public = ssh_agent_lib::ssh_key::public::KeyData::try_from(privkey).unwrap();
    (add, PublicCredential::Key(public))
}

fn encoded(value: &impl Encode) -> Vec<u8> {
    let mut bytes = Vec::new();
    value.encode(&mut bytes).unwrap();
    bytes
}

/// Whether the agent signs a file, with a signature that the library believes.
fn signs(client: &mut Client<Carrier>, key: &PublicCredential) -> bool {
    let PublicCredential::Key(public) = key else { panic!("a plain key is wanted") };
    let data = SshSig::signed_data("file", HashAlg::Sha512, b"what is signed").unwrap();
    let Ok(signature) = client.sign(SignRequest { credential: key.clone(), data, flags: 0 }) else {
        return false;
    };
    let signature = SshSig::new(public.clone(), "file", HashAlg::Sha512, signature).unwrap();
    let public = PublicKey::from(public.clone());
    assert!(public.verify("file", b"what else", &signature).is_err());
    public.verify("file", b"what is signed", &signature).unwrap();
    true
}

fn listed(client: &mut Client<Carrier>) -> Vec<PublicCredential> {
    client.request_identities().unwrap().into_iter().map(|identity| identity.credential).collect()
}

#[test]
fn keys_that_a_foreign_client_adds_are_listed_sign_and_are_removed() {
    let sandbox = agent();
    let mut client = client(&sandbox);
    assert_eq!(listed(&mut client), []);
    let (ed25519, p256) = (recorded("ed25519.add.bin"), recorded("ecdsa-256.add.bin"));
    assert!(!signs(&mut client, &ed25519.1));
    for (add, _) in [&ed25519, &p256] {
        client.add_identity(add.clone()).unwrap();
    }
    assert_eq!(listed(&mut client), [ed25519.1.clone(), p256.1.clone()]);
    assert!(signs(&mut client, &ed25519.1) && signs(&mut client, &p256.1));
    client.remove_identity(RemoveIdentity { credential: ed25519.1.clone() }).unwrap();
    assert!(client.remove_identity(RemoveIdentity { credential: ed25519.1.clone() }).is_err());
    assert!(!signs(&mut client, &ed25519.1) && signs(&mut client, &p256.1));
    client.remove_all_identities().unwrap();
    assert_eq!(listed(&mut client), []);
}

#[test]
fn constraints_of_a_foreign_client_hold_and_an_unknown_one_is_refused() {
    let sandbox = agent();
    sandbox.set_approver(approver::DENY);
    let mut client = client(&sandbox);
    let (identity, public) = recorded("ed25519.add.bin");
    let unknown = Extension { name: "unknown@example.com".to_owned(), details: Unparsed::from(vec![1]) };
    let mut add = |constraints| {
        let identity = identity.clone();
        client.add_identity_constrained(AddIdentityConstrained { identity, constraints }).is_ok()
    };
    assert!(!add(vec![KeyConstraint::Extension(unknown)]));
    assert!(add(vec![KeyConstraint::Lifetime(3600)]));
    assert!(signs(&mut client, &public));
    // Whatever the policy allows, who added it wants to be asked; and the answer is no.
    let constraints = vec![KeyConstraint::Lifetime(3600), KeyConstraint::Confirm];
    client.add_identity_constrained(AddIdentityConstrained { identity, constraints }).unwrap();
    assert!(!signs(&mut client, &public));
}

#[test]
fn a_locked_agent_shows_a_foreign_client_nothing_until_its_passphrase_comes() {
    let sandbox = agent();
    let mut client = client(&sandbox);
    let (identity, public) = recorded("ed25519.add.bin");
    client.add_identity(identity.clone()).unwrap();
    client.lock("the passphrase".to_owned()).unwrap();
    assert_eq!(listed(&mut client), []);
    assert!(!signs(&mut client, &public));
    assert!(client.add_identity(identity).is_err());
    assert!(client.unlock("another".to_owned()).is_err());
    client.unlock("the passphrase".to_owned()).unwrap();
    assert_eq!(listed(&mut client), std::slice::from_ref(&public));
    assert!(signs(&mut client, &public));
}

/// RFC 9987 gives names one after another; the library's own type wants a string around them, so it reads them as
/// texts here.
#[test]
fn a_foreign_client_is_told_which_extensions_there_are() {
    let sandbox = agent();
    let mut client = client(&sandbox);
    let ask = |name: &str| Extension { name: name.to_owned(), details: Unparsed::from(Vec::new()) };
    let reply = client.extension(ask(QueryResponse::NAME)).unwrap().unwrap();
    assert_eq!(reply.name, "query");
    assert!(reply.parse_message::<QueryResponse>().is_err(), "the library was mended: use its type");
    let mut rest = reply.details.as_ref();
    let names = [String::decode(&mut rest).unwrap(), String::decode(&mut rest).unwrap()];
    assert!(rest.is_empty());
    assert_eq!(names, ["query", SessionBind::NAME]);
    assert!(client.extension(ask("unknown@example.com")).is_err());
    // The connection lives on.
    assert_eq!(listed(&mut client), []);
}

/// What the library does not understand of what OpenSSH's programs said, and what is in it.
const WRONG: &[(&str, &str)] = &[
    ("associated.add-token-constrained.bin", "a constraint without a string around its fields"),
    ("document-git.identities.bin", "a certificate that is valid for ever"),
    ("ecdsa-256-short.add-certificate.bin", "a private number shorter than its curve"),
    ("ecdsa-256-short.add.bin", "a private number shorter than its curve"),
    ("ecdsa-384-short.add-certificate.bin", "a private number shorter than its curve"),
    ("ecdsa-384-short.add.bin", "a private number shorter than its curve"),
    ("ecdsa-521-short.add-certificate.bin", "a private number shorter than its curve"),
    ("ecdsa-521-short.add.bin", "a private number shorter than its curve"),
    ("ed25519.add-certificate.bin", "a certificate that is valid for ever"),
    ("everything.obsolete.bin", "a request of version 1, which ssh-add still sends"),
    ("full.identities.bin", "a certificate that is valid for ever"),
    ("lifetime.add-constrained-certificate.bin", "a certificate that is valid for ever"),
    ("login-rsa-sha1.signature.bin", "an RSA signature with SHA-1"),
    ("sk-ecdsa.add-constrained-certificate.bin", "a certificate of a security key"),
    ("sk-ed25519.add-constrained-certificate.bin", "a certificate of a security key"),
];

#[test]
fn both_understand_what_openssh_said_and_write_it_as_openssh_did() {
    let mut wrong = Vec::new();
    let mut compared = 0;
    for entry in std::fs::read_dir(vectors()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if Path::new(&name).extension().is_none_or(|extension| extension != "bin") {
            continue;
        }
        let message = vector(&name);
        match theirs(&message) {
            Some((theirs, written)) => {
                assert_eq!(written, message, "{name}: the library writes something else");
                assert_same(&name, &message, theirs);
                compared += 1;
            }
            None => wrong.push(name),
        }
    }
    wrong.sort();
    let known: Vec<&str> = WRONG.iter().map(|(name, _)| *name).collect();
    assert_eq!(wrong, known, "the library understands more than before, or less");
    assert!(compared > 60, "{compared}");
}

enum Theirs {
    Request(TheirRequest),
    Response(Response),
}

/// What the library makes of a message, and how it writes that; nothing if it refuses it.
fn theirs(message: &[u8]) -> Option<(Theirs, Vec<u8>)> {
    let mut rest = message;
    let understood = if matches!(message[0], 5 | 6 | 12 | 14 | 28 | 29) {
        let response = Response::decode(&mut rest).ok()?;
        let written = encoded(&response);
        (Theirs::Response(response), written)
    } else {
        let request = TheirRequest::decode(&mut rest).ok()?;
        let written = encoded(&request);
        (Theirs::Request(request), written)
    };
    assert!(rest.is_empty());
    Some(understood)
}

/// Field for field.
fn assert_same(name: &str, message: &[u8], theirs: Theirs) {
    match theirs {
        Theirs::Response(theirs) => assert_same_reply(name, &Reply::parse(message).unwrap(), &theirs),
        Theirs::Request(theirs) => assert_same_request(name, &Request::parse(message).unwrap(), &theirs),
    }
}

fn assert_same_reply(name: &str, ours: &Reply, theirs: &Response) {
    match (ours, theirs) {
        (Reply::Success, Response::Success) | (Reply::Failure, Response::Failure) => {}
        (Reply::Signature(ours), Response::SignResponse(theirs)) => {
            assert_eq!(*ours, encoded(theirs), "{name}");
        }
        (Reply::Identities(ours), Response::IdentitiesAnswer(theirs)) => {
            assert_eq!(ours.len(), theirs.len(), "{name}");
            for (ours, theirs) in ours.iter().zip(theirs) {
                assert_eq!(ours.blob, encoded(&theirs.credential), "{name}");
                assert_eq!(ours.comment, theirs.comment.as_bytes(), "{name}");
            }
        }
        _ => panic!("{name}: another reply"),
    }
}

fn assert_same_request(name: &str, ours: &Request, theirs: &TheirRequest) {
    match (ours, theirs) {
        (Request::List, TheirRequest::RequestIdentities)
        | (Request::RemoveAll, TheirRequest::RemoveAllIdentities) => {}
        (Request::Sign(ours), TheirRequest::SignRequest(theirs)) => {
            assert_eq!(ours.key.blob(), encoded(&theirs.credential), "{name}");
            assert_eq!(ours.data, theirs.data, "{name}");
        }
        (Request::Remove(ours), TheirRequest::RemoveIdentity(theirs)) => {
            assert_eq!(ours.blob(), encoded(&theirs.credential), "{name}");
        }
        (Request::Add(ours), TheirRequest::AddIdentity(theirs)) => {
            assert!(ours.constraints.is_none());
            assert_same_key(name, &ours.key.public().plain_blob(), &ours.comment, theirs);
        }
        (Request::Add(ours), TheirRequest::AddIdConstrained(theirs)) => {
            assert_same_key(name, &ours.key.public().plain_blob(), &ours.comment, &theirs.identity);
            assert_same_constraints(name, ours.constraints.as_ref().unwrap(), &theirs.constraints);
        }
        (Request::AddToken(ours), TheirRequest::AddSmartcardKey(theirs)) => {
            assert_eq!(ours.provider, theirs.id, "{name}");
        }
        (Request::AddToken(ours), TheirRequest::AddSmartcardKeyConstrained(theirs)) => {
            assert_eq!(ours.provider, theirs.key.id, "{name}");
            assert_same_constraints(name, ours.constraints.as_ref().unwrap(), &theirs.constraints);
        }
        (Request::Lock(ours), TheirRequest::Lock(theirs))
        | (Request::Unlock(ours), TheirRequest::Unlock(theirs)) => {
            assert_eq!(ours.expose(), theirs.as_bytes(), "{name}");
        }
        (Request::Extension(ours), TheirRequest::Extension(theirs)) => {
            assert_same_extension(name, ours, theirs);
        }
        _ => panic!("{name}: another request"),
    }
}

fn assert_same_key(name: &str, ours: &[u8], comment: &[u8], theirs: &AddIdentity) {
    let (public, theirs) = match &theirs.credential {
        PrivateCredential::Key { privkey, comment } => {
            (ssh_agent_lib::ssh_key::public::KeyData::try_from(privkey).unwrap(), comment)
        }
        PrivateCredential::Cert { certificate, comment, .. } => (certificate.public_key().clone(), comment),
    };
    assert_eq!(ours, encoded(&public), "{name}");
    assert_eq!(comment, theirs.as_bytes(), "{name}");
}

fn assert_same_constraints(name: &str, ours: &Constraints, theirs: &[KeyConstraint]) {
    let mut count = 0;
    for theirs in theirs {
        count += 1;
        match theirs {
            KeyConstraint::Lifetime(seconds) => assert_eq!(ours.lifetime, Some(*seconds), "{name}"),
            KeyConstraint::Confirm => assert!(ours.confirm, "{name}"),
            KeyConstraint::Extension(extension) => {
                let Ok(Some(theirs)) = extension.parse_key_constraint::<RestrictDestination>() else {
                    assert_eq!(extension.name, "sk-provider@openssh.com", "{name}");
                    assert_eq!(ours.sk_provider.as_ref().unwrap().as_bytes(), extension.details.as_ref());
                    continue;
                };
                let ours = ours.destinations.as_ref().unwrap();
                assert_eq!(ours.len(), theirs.constraints.len(), "{name}");
                ours.iter()
                    .zip(&theirs.constraints)
                    .for_each(|(ours, theirs)| assert_same_hop(name, ours, theirs));
            }
        }
    }
    let of_ours =
        [ours.lifetime.is_some(), ours.confirm, ours.sk_provider.is_some(), ours.destinations.is_some()];
    assert_eq!(count, of_ours.into_iter().filter(|there| *there).count(), "{name}");
}

fn assert_same_hop(name: &str, ours: &Destination, theirs: &DestinationConstraint) {
    assert_eq!(ours.user.as_deref().unwrap_or_default(), theirs.to.username, "{name}");
    let from = ours.from.as_ref().map_or("", |from| from.name.as_str());
    assert_eq!((from, &ours.to.name), (theirs.from.hostname.as_str(), &theirs.to.hostname), "{name}");
    let keys = ours.from.iter().flat_map(|from| &from.keys).chain(&ours.to.keys);
    let theirs: Vec<_> = theirs.from.keys.iter().chain(&theirs.to.keys).collect();
    let ours: Vec<_> = keys.map(|key| (key.key.blob().to_vec(), key.is_authority)).collect();
    assert_eq!(
        ours,
        theirs.iter().map(|key| (encoded(&key.keyblob), key.is_ca)).collect::<Vec<_>>(),
        "{name}"
    );
}

fn assert_same_extension(name: &str, ours: &session_bind::Extension, theirs: &Extension) {
    match ours {
        session_bind::Extension::Query => assert_eq!(theirs.name, "query"),
        session_bind::Extension::Other { name: ours, contents } => {
            assert_eq!((ours, contents.expose()), (&theirs.name, theirs.details.as_ref()), "{name}");
        }
        session_bind::Extension::SessionBind(ours) => {
            let theirs = theirs.parse_message::<SessionBind>();
            if ours.host_key.certificate().is_some() {
                // The library looks for a plain key where the certificate is.
                assert!(theirs.is_err(), "{name}: the library was mended");
                return;
            }
            let theirs = theirs.unwrap().unwrap();
            assert_eq!(ours.host_key.blob(), encoded(&theirs.host_key), "{name}");
            assert_eq!(ours.session_id, theirs.session_id, "{name}");
            assert_eq!(ours.signature.encode(), encoded(&theirs.signature), "{name}");
            assert_eq!(ours.forwarding, theirs.is_forwarding, "{name}");
            assert_eq!(theirs.verify_signature().is_ok(), name != "forged-bind.extension.bin", "{name}");
        }
    }
}
