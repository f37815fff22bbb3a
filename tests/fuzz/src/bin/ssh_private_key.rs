//! Private keys as clients add them, and as files of keys hold them.
#![no_main]

use keyloan_protocol::ssh_agent::private_key::PrivateKey;
use keyloan_protocol::ssh_agent::wire::{self, Reader};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut reader = Reader::new(data);
    let Ok(key) = PrivateKey::read(&mut reader) else { return };
    let read = &data[..data.len() - reader.unread().len()];
    assert_eq!(*wire::encode(|out| key.write(out)), read);
    keyloan_fuzz::public_key(key.public().blob());
    let plain = wire::encode(|out| key.write_plain(out));
    let mut reader = Reader::new(&plain);
    let again = PrivateKey::read(&mut reader).expect("a key without its certificate is one");
    assert!(reader.is_empty() && again.public().certificate().is_none());
    assert!(key.public().is_or_certifies(again.public()));
    assert_eq!(wire::encode(|out| again.write(out)), plain);
});
