//! `.keyloan.toml`: it comes with a project that somebody else wrote.
#![no_main]
#![allow(dead_code, reason = "a file of the daemon, of which only the parser is of interest")]

#[path = "../../../../daemon/src/env_set/manifest.rs"]
mod manifest;

libfuzzer_sys::fuzz_target!(|text: &str| {
    let Err(faults) = manifest::parse(text) else { return };
    assert!(!faults.is_empty());
    for fault in faults {
        let said = fault.to_string();
        assert!(!said.chars().any(char::is_control), "a fault repaints the terminal: {said:?}");
    }
});
