//! The policy as it is stored, and what `keyloan policy set` is given: nothing of it may be read back as more.
#![no_main]
#![allow(dead_code, reason = "a module of the daemon, of which only the parser is of interest")]

#[path = "../../../../daemon/src/policy/mod.rs"]
mod policy;

use policy::parse::{Setting, print, read, setting};
use policy::rule::{ApproverProgram, Policy};

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(setting) = setting(text) {
        is_read_back(&with(setting));
    }
    if let Ok(policy) = read(text) {
        is_read_back(&policy);
    }
});

fn is_read_back(policy: &Policy) {
    let lines = print(policy);
    let again = read(&lines.join("\n")).expect("what is written is understood");
    assert_eq!(print(&again), lines);
}

/// A policy of that setting alone.
fn with(setting: Setting) -> Policy {
    let mut policy = Policy::default();
    match setting {
        Setting::Verdict(kind, verdict) => drop(policy.verdicts.insert(kind, verdict)),
        Setting::Approver(path) => {
            policy.approver = path.map(|path| ApproverProgram { path, sha256: "ab".repeat(32) });
        }
        Setting::Pinentry(path) => policy.pinentry = path,
        Setting::Upstream(paths) => policy.upstream = paths,
        Setting::LockIdle(time) => policy.lock_idle = time,
        Setting::LoanTime(time) => policy.loan_time = time,
    }
    policy
}
