//! How loans end, and what is said of those that something still holds.

use keyloan_e2e::programs::needed;
use keyloan_e2e::terminal::Terminal;
use keyloan_e2e::{PIN, Running, Sandbox, eventually};

fn loans(sandbox: &Sandbox) -> Vec<serde_json::Value> {
    let loans = sandbox.keyloan(&["loans", "--json"]).run().ok();
    serde_json::from_slice(&loans.stdout).unwrap()
}

/// A command that holds the token and, as far as the line says, leaves children behind.
fn holder(sandbox: &Sandbox, options: &[&str], line: &str) -> Running {
    let before = sandbox.events("lent").len();
    let child = sandbox.with_secrets(&[options, &["--", "sh", "-c", line]].concat()).start();
    eventually("it is lent", || sandbox.events("lent").len() > before);
    Running(child)
}

#[test]
fn a_recalled_loan_is_shown_with_its_holder_until_that_ends() {
    let sandbox = Sandbox::with_token(b"tok");
    let mut held = holder(&sandbox, &[], "exec sleep 1000");
    let pid = held.0.id();
    assert!(loans(&sandbox)[0]["over"].is_null());
    let recalled = sandbox.keyloan(&["recall", "1"]).run().ok();
    let said = format!("loan 1: recalled, still held by pid {pid} (");
    assert!(recalled.stderr.contains(&said), "{}", recalled.stderr);
    assert!(recalled.stderr.contains("renew local://pypi/token where it was issued"), "{}", recalled.stderr);
    let shown = sandbox.keyloan(&["loans"]).run().ok().text();
    assert!(shown.contains(&format!("recalled, still held by pid {pid} (")), "{shown}");
    assert_eq!(sandbox.status()["loans"], 0);
    assert_eq!(sandbox.status()["held"], 1);
    held.end();
    eventually("it is forgotten", || loans(&sandbox).is_empty());
    assert_eq!(sandbox.events("loan_ended").len(), 1, "a loan ends once");
    assert_eq!(sandbox.events("loan_ended")[0]["why"], "recalled");
    sandbox.keyloan(&["recall", "1"]).run().refused(1, "there is no loan '1'");
    sandbox.keyloan(&["recall"]).run().refused(2, "required");
    assert!(sandbox.keyloan(&["recall", "--all"]).run().ok().stderr.contains("nothing is lent"));
}

#[test]
fn kill_ends_the_holders_process_group_even_one_that_will_not() {
    let sandbox = Sandbox::with_token(b"tok");
    for line in ["exec sleep 1000", "trap '' TERM; sleep 1000 & while :; do wait; done", "kill -STOP $$"] {
        sandbox.write_program("project/holder", format!("#!/bin/sh\n{line}\n"));
        let line = "setsid -w with-secrets -- ./holder; echo ended";
        let caller = sandbox.command(needed("sh"), &["-c", line]).start();
        eventually("it is lent", || sandbox.status()["loans"] == 1);
        eventually("it runs", || !loans(&sandbox).is_empty());
        let recalled = sandbox.keyloan(&["recall", "--all", "--kill"]).run().ok();
        assert!(recalled.stderr.contains("nothing holds it any more"), "{}", recalled.stderr);
        assert_eq!(keyloan_e2e::sandbox::finished(caller).text(), "ended\n", "the caller's group lives");
        assert!(loans(&sandbox).is_empty());
    }
}

#[test]
fn what_a_descendant_still_holds_is_said() {
    let sandbox = Sandbox::with_token(b"tok");
    let line = "setsid sleep 1000 </dev/null >/dev/null 2>&1 & echo $! >child";
    let mut held = holder(&sandbox, &[], line);
    held.0.wait().unwrap();
    let child = std::fs::read_to_string(sandbox.path("project/child")).unwrap().trim().to_owned();
    let shown = sandbox.keyloan(&["loans"]).run().ok().text();
    // Whether setsid has become sleep yet is not what is tested.
    let said = format!("the process ended, still held by pid {child} (/");
    assert!(shown.contains(&said), "{shown}");
    // A process without the loan is not taken for a holder, though it has the same value.
    let other = sandbox.command("/bin/sleep", &["1000"]).env("TWINE_PASSWORD", "tok").start();
    let mut other = Running(other);
    assert_eq!(loans(&sandbox)[0]["held_by"].as_array().unwrap().len(), 1);
    sandbox.keyloan(&["recall", "--all", "--kill"]).run().ok();
    eventually("the descendant is ended", || !std::path::Path::new(&format!("/proc/{child}")).exists());
    assert!(other.0.try_wait().unwrap().is_none(), "and nothing else");
    other.end();
}

#[test]
fn a_loan_ends_at_its_time_as_asked_or_as_policy_says() {
    let sandbox = Sandbox::with_token(b"tok");
    let _held = holder(&sandbox, &["--for", "1s"], "exec sleep 1000");
    assert!(loans(&sandbox)[0]["seconds_left"].as_u64().is_some_and(|left| left <= 1));
    eventually("its time is up", || sandbox.events("loan_ended").len() == 1);
    assert_eq!(sandbox.events("loan_ended")[0]["why"], "its time is up");
    assert_eq!(loans(&sandbox)[0]["over"], "its time is up");
    sandbox.policy("loan.time=2h");
    let _longer = holder(&sandbox, &["--for", "3h"], "exec sleep 1000");
    let left = loans(&sandbox)[1]["seconds_left"].as_u64().unwrap();
    assert!((7000..=7200).contains(&left), "policy is the limit: {left}");
    sandbox.with_secrets(&["--for", "soon", "--", "true"]).run().refused(125, "a time is written");
}

#[test]
fn lock_ends_every_loan() {
    let sandbox = Sandbox::with_token(b"tok");
    let _held = holder(&sandbox, &[], "exec sleep 1000");
    sandbox.keyloan(&["lock"]).run().ok();
    assert_eq!(sandbox.events("loan_ended")[0]["why"], "the vault was locked");
    assert_eq!(loans(&sandbox)[0]["over"], "the vault was locked");
    sandbox.unlock().ok();
    sandbox.keyloan(&["log", "--verify"]).run().ok();
}

#[test]
fn a_loan_within_a_loan_is_held_by_both() {
    let sandbox = Sandbox::with_token(b"tok");
    let _held = holder(&sandbox, &[], "exec with-secrets -- sleep 1000");
    eventually("both are lent", || sandbox.events("lent").len() == 2);
    eventually("the inner command runs", || {
        sandbox.keyloan(&["recall", "--all"]).run().ok().stderr.matches("sleep)").count() == 2
    });
}

#[test]
fn a_recall_works_while_a_question_stands() {
    let sandbox = Sandbox::with_token(b"tok");
    let _held = holder(&sandbox, &[], "exec sleep 1000");
    sandbox.policy("approver.command=");
    let terminal = Terminal::open(&sandbox);
    terminal.run("with-secrets -- true; echo ended $?");
    terminal.expect("PIN to allow");
    sandbox.keyloan(&["recall", "--all"]).run().ok();
    terminal.type_text(PIN);
    terminal.press("Enter");
    terminal.expect("ended 0");
}
