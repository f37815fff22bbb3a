//! The policy as it is stored, and what `keyloan policy set` is given: nothing of it may be read back as more.
#![no_main]
#![allow(dead_code, reason = "a module of the daemon, of which only the parser is of interest")]

#[path = "../../../../daemon/src/policy/mod.rs"]
mod policy;

use policy::compare::loosens;
use policy::parse::{Setting, read, request, setting};
use policy::print::print;
use policy::rule::{ApproverProgram, Policy};

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Some(policy) = setting(text).ok().and_then(with) {
        is_read_back(&policy);
    }
    if let Ok(policy) = read(text) {
        is_read_back(&policy);
    }
    // What nobody made is judged as what somebody did.
    if let Ok((kind, subject, seen)) = request(text) {
        let _ = policy::decide::decide(&Policy::default(), &[(kind, subject)], &seen);
    }
});

fn is_read_back(policy: &Policy) {
    let lines = print(policy);
    let again = read(&lines.join("\n")).expect("what is written is understood");
    assert_eq!(print(&again), lines);
    assert!(!loosens(policy, &again) && !loosens(&again, policy), "{lines:?}");
}

/// A policy of that setting alone.
fn with(setting: Setting) -> Option<Policy> {
    let mut policy = Policy::default();
    let pinned = |path| ApproverProgram { path, sha256: "ab".repeat(32) };
    match setting {
        Setting::Approver(path) => policy.approver = path.map(pinned),
        Setting::Askpass(path) => policy.askpass = path.map(pinned),
        setting => policy.set(setting).ok()?,
    }
    Some(policy)
}
