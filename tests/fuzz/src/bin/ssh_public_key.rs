//! Public keys and certificates: of hosts, of other agents, of files.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| keyloan_fuzz::public_key(data));
