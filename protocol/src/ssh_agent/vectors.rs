//! What OpenSSH's programs said and heard, recorded by `vectors/ssh_agent/record.py`: every message is understood,
//! is written again as the same bytes, and is refused when it is cut short or one of its lengths is another.

use super::algorithm::SignatureAlgorithm;
use super::key::PublicKey;
use super::message::{Reply, Request, Sign};
use super::private_key::Secret;
use super::session_bind::{Extension, SessionBind};
use super::signature::Signature;
use super::to_be_signed::{DocumentHash, Login, ToBeSigned};
use super::wire::{Malformed, tests::LENGTHS};
use super::{certificate::CertificateKind, frame};
use std::path::{Path, PathBuf};

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors/ssh_agent")
}

/// A message without its length.
fn message(name: &str) -> Vec<u8> {
    let frame = std::fs::read(directory().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    let (prefix, message) = frame.split_first_chunk().unwrap();
    assert_eq!(frame::length(*prefix), Ok(message.len()), "{name}");
    message.to_vec()
}

fn messages() -> Vec<(String, Vec<u8>)> {
    let entries = std::fs::read_dir(directory()).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<String> = entries.map(|name| name.into_string().unwrap()).collect();
    names.retain(|name| Path::new(name).extension().is_some_and(|extension| extension == "bin"));
    names.sort();
    assert!(names.len() > 75, "{} vectors", names.len());
    names.into_iter().map(|name| (name.clone(), message(&name))).collect()
}

/// Understands a message with all that is in it, and writes it again.
fn again(message: &[u8]) -> Result<Vec<u8>, Malformed> {
    let frame = if matches!(message.first(), Some(5 | 6 | 12 | 14 | 28 | 29)) {
        let reply = Reply::parse(message)?;
        match &reply {
            Reply::Identities(identities) => identities.iter().try_for_each(|identity| {
                assert_eq!(identity.key()?.blob(), identity.blob);
                Ok(())
            })?,
            Reply::Signature(blob) => assert_eq!(Signature::parse(blob)?.encode(), *blob),
            _ => {}
        }
        reply.encode()
    } else {
        Request::parse(message)?.encode()
    };
    Ok(frame.unwrap()[frame::PREFIX..].to_vec())
}

/// Another name is another extension.
fn is_unknown_extension(message: &[u8]) -> bool {
    matches!(Request::parse(message), Ok(Request::Extension(Extension::Other { .. })))
}

/// Nothing is known of the inside of these, or they may end early because constraints end with the message.
fn may_be_shorter(message: &[u8]) -> bool {
    match Request::parse(message) {
        Ok(Request::Add(add)) => add.constraints.is_some(),
        Ok(Request::AddToken(add)) => add.constraints.is_some(),
        _ => is_unknown_extension(message),
    }
}

/// Every message with one byte of one length changed. `parse` is run once to learn where the lengths are.
fn with_wrong_lengths(message: &[u8], parse: impl Fn(&[u8]), check: impl Fn(&[u8])) -> usize {
    LENGTHS.set(Some(Vec::new()));
    parse(message);
    let start = message.as_ptr().addr();
    let places = LENGTHS.take().into_iter().flatten().filter_map(|place| place.checked_sub(start));
    let mut places: Vec<usize> = places.filter(|&place| place < message.len()).collect();
    places.sort_unstable();
    places.dedup();
    let mut changed = message.to_vec();
    for at in places.iter().flat_map(|&place| place..place + 4) {
        for byte in (0..=255).filter(|&byte| byte != message[at]) {
            changed[at] = byte;
            check(&changed);
        }
        changed[at] = message[at];
    }
    places.len()
}

fn sign(name: &str) -> Sign {
    let Ok(Request::Sign(sign)) = Request::parse(&message(name)) else { panic!("{name} signs nothing") };
    sign
}

fn login(name: &str) -> (Sign, Login) {
    let sign = sign(name);
    let ToBeSigned::Login(login) = ToBeSigned::parse(&sign.data, &sign.key) else {
        panic!("{name}: no login")
    };
    (sign, login)
}

fn bind(name: &str) -> SessionBind {
    match Request::parse(&message(name)) {
        Ok(Request::Extension(Extension::SessionBind(bind))) => bind,
        _ => panic!("{name} binds nothing"),
    }
}

#[test]
fn every_message_is_understood_and_written_again_as_the_same_bytes() {
    for (name, message) in messages() {
        assert_eq!(again(&message).unwrap_or_else(|fault| panic!("{name}: {fault}")), message, "{name}");
    }
}

#[test]
fn no_message_is_understood_when_it_is_cut_short_or_followed_by_anything() {
    for (name, message) in messages() {
        for cut in 0..message.len() {
            if let Ok(understood) = again(&message[..cut]) {
                assert!(may_be_shorter(&message), "{name} cut to {cut}");
                assert_eq!(understood, message[..cut], "{name} cut to {cut}");
            }
        }
        let opaque = matches!(message[0], 9) || name.starts_with("unknown-extension");
        assert!(opaque || again(&[message.as_slice(), b"\0"].concat()).is_err(), "{name}");
    }
}

#[test]
fn no_message_is_understood_with_one_byte_of_a_length_changed() {
    let mut lengths = 0;
    for (name, message) in messages() {
        lengths += with_wrong_lengths(
            &message,
            |message| assert!(again(message).is_ok()),
            |changed| assert!(again(changed).is_err() || is_unknown_extension(changed), "{name}"),
        );
        if let Ok(Reply::Identities(identities)) = Reply::parse(&message) {
            for identity in identities {
                lengths += with_wrong_lengths(
                    &identity.blob,
                    |blob| assert!(PublicKey::parse(blob).is_ok()),
                    |changed| assert!(PublicKey::parse(changed).is_err(), "{name}"),
                );
            }
        }
    }
    assert!(lengths > 1000, "{lengths}");
}

#[test]
fn whatever_is_understood_is_written_again_as_the_same_bytes() {
    for (name, message) in messages() {
        let mut changed = message.clone();
        // Of the long list of keys only the beginning: each costs the reading of all.
        for at in 1..message.len().min(4000) {
            for byte in [message[at] ^ 1, message[at] ^ 0x80] {
                changed[at] = byte;
                if let Ok(mut understood) = again(&changed) {
                    // A boolean that is neither 0 nor 1.
                    if understood[at] == 1 && byte > 1 {
                        understood[at] = byte;
                    }
                    // Of what is obsolete only the number is kept.
                    assert!(understood == changed || message[0] == 9, "{name} at {at}: {byte}");
                }
            }
            changed[at] = message[at];
        }
    }
}

#[test]
fn a_login_names_the_session_and_the_host_that_the_connection_was_bound_to() {
    for (name, algorithm) in [
        ("login-ed25519", SignatureAlgorithm::Ed25519),
        ("login-ecdsa", SignatureAlgorithm::Ecdsa(super::algorithm::Curve::Nistp521)),
        ("login-rsa-sha512", SignatureAlgorithm::RsaSha512),
        ("login-rsa-sha256", SignatureAlgorithm::RsaSha256),
        ("login-rsa-sha1", SignatureAlgorithm::RsaSha1),
        ("login-certificate", SignatureAlgorithm::RsaSha512),
        ("login-certified-host", SignatureAlgorithm::Ed25519),
    ] {
        let (sign, login) = login(&format!("{name}.sign.bin"));
        let bind = bind(&format!("{name}.extension.bin"));
        assert_eq!((login.algorithm, sign.flags.algorithm(&sign.key)), (algorithm, algorithm), "{name}");
        assert_eq!((login.user.as_str(), &login.key), ("keyloan-test", &sign.key), "{name}");
        assert_eq!(
            (login.session_id, login.host_key.as_ref()),
            (bind.session_id, Some(&bind.host_key)),
            "{name}"
        );
        assert!(!bind.forwarding, "{name}");
        let Ok(Reply::Signature(blob)) = Reply::parse(&message(&format!("{name}.signature.bin"))) else {
            panic!("{name} was not signed")
        };
        assert_eq!(Signature::parse(&blob).map(|signature| signature.algorithm()), Ok(algorithm), "{name}");
    }
    let certificate = bind("login-certified-host.extension.bin").host_key;
    assert_eq!(certificate.certificate().unwrap().kind, CertificateKind::Host);
    assert_eq!(login("login-unbound.sign.bin").1.host_key, None);
}

#[test]
fn a_forwarded_connection_is_bound_to_each_host_on_its_way() {
    let binds =
        ["extension", "extension-2", "extension-3"].map(|kind| bind(&format!("login-forwarded.{kind}.bin")));
    assert_eq!(binds.each_ref().map(|bind| bind.forwarding), [false, true, false]);
    assert_eq!(binds[0].session_id, binds[1].session_id);
    assert_eq!(login("login-forwarded.sign-2.bin").1.session_id, binds[2].session_id);
}

#[test]
fn a_blob_with_anything_else_than_a_whole_login_or_document_is_neither() {
    for (name, message) in messages().into_iter().filter(|(name, _)| name.contains(".sign")) {
        let Ok(Request::Sign(Sign { key, data, .. })) = Request::parse(&message) else { continue };
        if name.starts_with("test") {
            assert_eq!(ToBeSigned::parse(&data, &key), ToBeSigned::Other);
            continue;
        }
        assert_ne!(ToBeSigned::parse(&data, &key), ToBeSigned::Other, "{name}");
        for cut in 0..data.len() {
            assert_eq!(ToBeSigned::parse(&data[..cut], &key), ToBeSigned::Other, "{name} cut to {cut}");
        }
        let longer = [data.as_slice(), b"\0"].concat();
        assert_eq!(ToBeSigned::parse(&longer, &key), ToBeSigned::Other, "{name}");
        let parse = |data: &[u8]| assert_ne!(ToBeSigned::parse(data, &key), ToBeSigned::Other);
        let check =
            |changed: &[u8]| assert_eq!(ToBeSigned::parse(changed, &key), ToBeSigned::Other, "{name}");
        assert!(with_wrong_lengths(&data, parse, check) > 2, "{name}");
        let other = PublicKey::parse(&bind("login-ed25519.extension.bin").host_key.plain_blob()).unwrap();
        let signs = ToBeSigned::parse(&data, &other);
        assert!(matches!(signs, ToBeSigned::Other | ToBeSigned::Document(_)), "{name}");
    }
}

#[test]
fn a_plain_key_may_sign_the_login_of_a_certificate_for_it() {
    let (sign, login) = login("login-certificate.sign.bin");
    let plain = PublicKey::parse(&sign.key.plain_blob()).unwrap();
    assert_eq!(ToBeSigned::parse(&sign.data, &plain), ToBeSigned::Login(login));
}

#[test]
fn documents_are_named_with_their_hash() {
    let document = |name| {
        let sign = sign(name);
        match ToBeSigned::parse(&sign.data, &sign.key) {
            ToBeSigned::Document(document) => document,
            _ => panic!("{name} is no document"),
        }
    };
    let (git, file) = (document("document-git.sign.bin"), document("document-file.sign.bin"));
    assert!(git.namespace == "git" && matches!(git.hash, DocumentHash::Sha512(_)));
    assert!(file.namespace == "file" && matches!(file.hash, DocumentHash::Sha256(_)));
}

#[test]
fn scalars_that_are_shorter_than_their_curve_are_filled_up() {
    for (name, size, zeros) in [("256", 32, 1), ("384", 48, 1), ("521", 66, 2)] {
        let message = message(&format!("ecdsa-{name}-short.add.bin"));
        let Ok(Request::Add(add)) = Request::parse(&message) else { panic!("{name} is not added") };
        let Secret::Ecdsa { scalar } = add.key.secret() else { panic!("{name} is no ECDSA key") };
        assert_eq!(scalar.len(), size);
        assert!(scalar.expose()[..zeros].iter().all(|&byte| byte == 0));
    }
}

#[test]
fn constraints_are_those_that_were_asked_for() {
    let constraints = |name: &str| {
        let Ok(Request::Add(add)) = Request::parse(&message(name)) else { panic!("{name} adds nothing") };
        add.constraints.unwrap()
    };
    assert_eq!(constraints("lifetime.add-constrained.bin").lifetime, Some(3600));
    assert!(constraints("confirm.add-constrained.bin").confirm);
    assert_eq!(constraints("sk-ecdsa.add-constrained.bin").sk_provider.as_deref(), Some("internal"));
    let hops = constraints("hops.add-constrained.bin");
    assert!(hops.confirm && hops.lifetime == Some(1));
    let [first, second] = <[_; 2]>::try_from(hops.destinations.unwrap()).unwrap();
    assert_eq!((first.from, first.user, first.to.name.as_str()), (None, None, "alpha"));
    assert_eq!(first.to.keys.iter().map(|key| key.is_authority).collect::<Vec<_>>(), [false; 3]);
    assert_eq!(second.from.unwrap(), first.to);
    assert_eq!((second.user.as_deref(), second.to.name.as_str()), (Some("root"), "beta"));
    assert_eq!(second.to.keys.iter().map(|key| key.is_authority).collect::<Vec<_>>(), [true]);
    let Ok(Request::AddToken(token)) = Request::parse(&message("associated.add-token-constrained.bin"))
    else {
        panic!("no token is added")
    };
    let associated = token.constraints.unwrap().certificates.unwrap();
    assert!(associated.only && associated.certificates.len() == 2);
}

#[test]
fn a_lock_cannot_swallow_the_request_after_it() {
    let mut sent = [message("lock.lock.bin"), message("empty.list.bin")].concat();
    let own = message("lock.lock.bin").len();
    assert!(Request::parse(&sent[..own]).is_ok());
    sent[4] += 1;
    assert_eq!(Request::parse(&sent[..own]).err(), Some(Malformed::Truncated));
}
