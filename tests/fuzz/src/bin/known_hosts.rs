//! `known_hosts`, which any program of the user can write.
#![no_main]
#![allow(dead_code, reason = "modules of the daemon, of which only the parser is of interest")]

#[path = "../../../../daemon/src/hosts/mod.rs"]
mod hosts;
#[path = "../../../../daemon/src/patience.rs"]
mod patience;

use hosts::known_hosts::{KnownHosts, Naming};
use keyloan_protocol::ssh_agent::key::{Material, PublicKey};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let known = KnownHosts::parse(data);
    // The key that the seeds name.
    let asked = PublicKey::plain(&Material::Ed25519(*b"the key of the seeds of a fuzzer")).expect("a key");
    let keys = known.keys_of("a.example");
    for key in keys.iter().chain([&asked]) {
        assert!(key.certificate().is_none());
        if let Naming::Named(names) = known.names_of(key, &["a.example", "10.0.0.1"], 0) {
            assert!(!names.is_empty() && names.len() <= 32);
            let visible = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
            assert!(names.iter().all(|name| visible(&name.text)), "a name that cannot be shown");
        }
    }
});
