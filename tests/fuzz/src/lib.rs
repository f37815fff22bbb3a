//! What several targets share: what "written again as the same bytes" means for each of the types.
//!
//! A target is a file in `src/bin`; `cargo xtask fuzz` finds it there. Each says what must hold of every input, not
//! only that nothing panics. What a target gets is what stands on the wire behind the length of a frame, so that no
//! effort is lost on lengths; how lengths are read has its own tests.
#![forbid(unsafe_code)]

use keyloan_protocol::ssh_agent::frame;
use keyloan_protocol::ssh_agent::key::PublicKey;
use keyloan_protocol::ssh_agent::signature::Signature;

/// A frame's message.
pub fn message(frame: &[u8]) -> &[u8] {
    let (prefix, message) = frame.split_first_chunk().expect("a frame has a length");
    assert_eq!(frame::length(*prefix), Ok(message.len()), "a frame announces another length than it has");
    message
}

/// A key's blob is the key: nothing of it is lost, nothing else is the same key.
pub fn public_key(blob: &[u8]) {
    let Ok(key) = PublicKey::parse(blob) else { return };
    assert_eq!(key.blob(), blob);
    let plain = PublicKey::parse(&key.plain_blob()).expect("the key in a key is one");
    assert!(plain.certificate().is_none() && key.is_or_certifies(&plain));
    assert_eq!(plain.material(), key.material());
    assert!(PublicKey::plain(key.material()).expect("its numbers are in order") == plain);
    match key.certificate() {
        None => assert!(plain == key, "a key with two blobs"),
        Some(certificate) => {
            assert!(plain != key);
            assert!(blob.starts_with(&certificate.signed), "the authority signed something else");
            assert!(certificate.authority.certificate().is_none());
            let signature = certificate.signature.encode();
            assert_eq!(blob.len(), certificate.signed.len() + 4 + signature.len());
            assert!(blob.ends_with(&signature));
        }
    }
}

/// A signature has one blob.
pub fn signature(blob: &[u8]) {
    if let Ok(signature) = Signature::parse(blob) {
        assert_eq!(signature.encode(), blob);
    }
}
