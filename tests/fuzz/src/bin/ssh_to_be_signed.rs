//! What clients want to have signed. The input is what a request to sign holds: a key, then the data.
//!
//! Whatever a question calls a login or a document is that, to the last byte, or its signature could be used
//! for something else.
#![no_main]

use keyloan_protocol::ssh_agent::key::PublicKey;
use keyloan_protocol::ssh_agent::to_be_signed::{Document, DocumentHash, Login, ToBeSigned};
use keyloan_protocol::ssh_agent::wire::{self, Reader};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut reader = Reader::new(data);
    let (Ok(blob), Ok(data)) = (reader.string(), reader.string()) else { return };
    let Ok(key) = PublicKey::parse(blob) else { return };
    match ToBeSigned::parse(data, &key) {
        ToBeSigned::Login(login) => is_login(&login, data, &key),
        ToBeSigned::Document(document) => is_document(&document, data),
        ToBeSigned::Other => {}
    }
});

fn is_login(login: &Login, data: &[u8], signer: &PublicKey) {
    assert!(!login.session_id.is_empty() && login.key.is_or_certifies(signer));
    assert_eq!(login.algorithm.key_type(), signer.key_type());
    let method = match login.host_key {
        Some(_) => "publickey-hostbound-v00@openssh.com",
        None => "publickey",
    };
    let before = wire::encode(|out| {
        out.string(&login.session_id);
        out.u8(50);
        for text in [&login.user, "ssh-connection", method] {
            out.text(text);
        }
        out.boolean(true);
    });
    let after = wire::encode(|out| {
        out.string(login.key.blob());
        login.host_key.iter().for_each(|key| out.string(key.blob()));
    });
    // Between the two stands one text, for which old clients have several spellings.
    let between = data.strip_prefix(before.as_slice()).and_then(|rest| rest.strip_suffix(after.as_slice()));
    let mut between = Reader::new(between.expect("a login is written otherwise"));
    assert!(between.text().is_ok() && between.is_empty());
}

fn is_document(document: &Document, data: &[u8]) {
    let (name, hash) = match &document.hash {
        DocumentHash::Sha256(hash) => ("sha256", hash.as_slice()),
        DocumentHash::Sha512(hash) => ("sha512", hash.as_slice()),
    };
    let written = wire::encode(|out| {
        out.bytes(b"SSHSIG");
        out.text(&document.namespace);
        out.string(b"");
        out.text(name);
        out.string(hash);
    });
    assert!(!document.namespace.is_empty() && *written == data);
}
