//! Everything that `bw serve` can do wrong, by a double of it (`tests/doubles/bw.js`).

use keyloan_e2e::bitwarden::{link, runs, started};
use keyloan_e2e::sandbox::Output;
use keyloan_e2e::{Running, Sandbox, approver, eventually};
use std::path::PathBuf;

const DOUBLE: &str = include_str!("../doubles/bw.js");

fn get(sandbox: &Sandbox, reference: &str) -> Output {
    sandbox.keyloan(&["item", "get", reference]).run()
}

fn mode(sandbox: &Sandbox, mode: &str) {
    sandbox.write("app/mode", mode);
}

fn double(sandbox: &Sandbox) -> PathBuf {
    sandbox.make_directory("app");
    sandbox.write_program("home/bw", DOUBLE)
}

/// The double, linked while it does nothing wrong.
fn linked() -> Sandbox {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let program = double(&sandbox);
    link(&sandbox, "bw", &program, "app", Some("master"), &[]).ok();
    sandbox
}

#[test]
fn a_bw_that_fails_is_told_apart_in_keyloans_own_words_and_started_again() {
    let sandbox = linked();
    for (wrong, status, said) in [
        ("garbage", 7, "does not answer as bw serve does"),
        ("other json", 7, "does not answer as bw serve does"),
        ("no list", 7, "does not answer as bw serve does"),
        ("a wrong list", 1, "there is no item 'web'"),
        ("gigabyte", 7, "its answer is longer than 32768 KiB"),
        ("die", 7, "was killed"),
        ("die midway", 7, "was killed"),
        ("unknown", 7, "for a reason that keyloan does not know"),
        ("locked", 7, "it was locked meanwhile"),
    ] {
        mode(&sandbox, wrong);
        let refused = get(&sandbox, "bw://web/password").refused(status, said);
        assert!(!refused.stderr.contains("s3cret") && refused.stdout.is_empty(), "{}", refused.stderr);
        mode(&sandbox, "");
        assert_eq!(get(&sandbox, "bw://web/password").ok().text(), "p", "after {wrong}");
    }
    let log = std::fs::read_to_string(sandbox.log()).unwrap();
    assert!(!log.contains("s3cret"));
    let peak = std::fs::read_to_string(format!("/proc/{}/status", sandbox.daemon().unwrap())).unwrap();
    let peak = peak.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap().trim().to_owned();
    let peak: u64 = peak.trim_end_matches(" kB").parse().unwrap();
    assert!(peak < 300_000, "{peak} kB");
}

#[test]
fn a_bw_that_does_not_even_serve_is_told_apart_too() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let program = double(&sandbox);
    for (wrong, said) in [
        ("exit", "ended with status 3"),
        ("silent exit", "ended with status 0 instead of serving"),
        ("too old", "is too old"),
        ("gigabyte of greeting", "/bw"),
    ] {
        mode(&sandbox, wrong);
        let refused = link(&sandbox, "bw", &program, "app", Some("master"), &[]).refused(7, said);
        assert!(!refused.stderr.contains("s3cret"), "{}", refused.stderr);
        let last = *started(&sandbox).last().unwrap();
        eventually("it is gone", || !runs(last));
    }
    mode(&sandbox, "signed out");
    link(&sandbox, "bw", &program, "app", Some("master"), &[]).refused(7, "not signed in");
    let added = link(&sandbox, "bw", &program, "app", None, &[]).ok();
    assert!(added.stderr.contains("it is not signed in"), "{}", added.stderr);
    let nowhere = sandbox.path("home/nowhere");
    link(&sandbox, "other", &nowhere, "app", None, &[]).refused(7, "there is no such program");
    let garbage = sandbox.write_program("home/garbage", "\x7fELF nothing");
    link(&sandbox, "other", &garbage, "app", None, &[]).refused(7, "instead of serving");
    let minutes = link(&sandbox, "other", &program, "app", None, &["minutes=never"]);
    minutes.refused(7, "minutes takes a number up to 1440");
}

#[test]
fn a_server_that_limits_costs_no_reading_and_a_changed_program_is_not_run() {
    let sandbox = linked();
    sandbox.keyloan(&["lock"]).run().ok();
    sandbox.unlock().ok();
    mode(&sandbox, "limited");
    assert_eq!(get(&sandbox, "bw://web/password").ok().text(), "p");
    let arguments = std::fs::read_to_string(sandbox.path("run/arguments")).unwrap();
    assert_eq!(arguments, r#"["serve","--hostname","fd+connected://0"]"#, "no password is among them");
    sandbox.keyloan(&["lock"]).run().ok();
    sandbox.unlock().ok();
    sandbox.write_program("home/bw", format!("{DOUBLE}\n// evil\n"));
    let before = started(&sandbox).len();
    get(&sandbox, "bw://web/password").refused(7, "was changed after the vault was added");
    assert_eq!(started(&sandbox).len(), before);
}

#[test]
fn a_bw_that_hangs_keeps_nothing_else_waiting_and_is_ended() {
    let sandbox = linked();
    mode(&sandbox, "hang");
    let mut hanging = Running(sandbox.keyloan(&["item", "get", "bw://web/password"]).start());
    sandbox.keyloan(&["item", "set", "own", "token"]).stdin("v").run().ok();
    assert_eq!(get(&sandbox, "local://own/token").ok().text(), "v");
    // Who goes away does not have to be waited for; the process that hangs is ended in its time.
    hanging.end();
    let last = *started(&sandbox).last().unwrap();
    get(&sandbox, "bw://web/password").refused(7, "did not answer within 20 s");
    eventually("it is gone", || !runs(last));
    mode(&sandbox, "");
    assert_eq!(get(&sandbox, "bw://web/password").ok().text(), "p");
}
