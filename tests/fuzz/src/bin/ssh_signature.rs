//! Signatures: of hosts, of authorities, of other agents.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| keyloan_fuzz::signature(data));
