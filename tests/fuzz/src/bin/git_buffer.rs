//! Commits and tags that a signature is asked for.
#![no_main]
#![allow(dead_code, reason = "a file of the daemon, of which only the parser is of interest")]

#[path = "../../../../daemon/src/git_buffer.rs"]
#[rustfmt::skip]
mod git_buffer;

use git_buffer::{Kind, Signed};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some(signed) = Signed::parse(data) else { return };
    let text = std::str::from_utf8(data).expect("what is understood is UTF-8");
    let name = match &signed.kind {
        Kind::Commit => "",
        Kind::Tag { name } => name,
    };
    for said in [&signed.person, &signed.subject, name] {
        assert!(text.contains(said) && !said.contains(['\n', '\0']));
    }
});
