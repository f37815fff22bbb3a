//! Row 16: what costs its maker nothing, in a loop: changes of the policy that nobody is asked for, and requests that a
//! rule refuses. The victims are the same without a bound, as the log's size and the vault's show.

use crate::attack;
use keyloan_e2e::{PASSPHRASE, Sandbox, wire};

/// Writes a line for each, as one does first.
const UNBOUNDED: &str = r#"
import os, sys
for n in range(200):
    with open(sys.argv[1], "a") as log: log.write("changed\n"); log.flush(); os.fsync(log.fileno())
print(open(sys.argv[1]).read().count("changed"))
"#;

fn said(sandbox: &Sandbox, body: &str) -> String {
    let frame = wire::frame(&format!(r#"{{"version":1,"body":{body}}}"#), b"");
    String::from_utf8_lossy(&wire::exchange(sandbox, &frame)).into_owned()
}

fn set(sandbox: &Sandbox, setting: &str) -> String {
    said(sandbox, &format!(r#"{{"policy_set":{{"settings":["{setting}"]}}}}"#))
}

#[test]
fn a_loop_of_changes_that_nobody_is_asked_for_ends() {
    let sandbox = Sandbox::with_token(b"tok");
    let victim = sandbox.path("run/victim").display().to_string();
    assert_eq!(attack(&sandbox, UNBOUNDED, &[&victim]).ok().text(), "200\n");
    let changes = || sandbox.events("policy_changed").len();
    let before = changes();
    for _ in 0..50 {
        let said = set(&sandbox, "env=ask");
        assert!(said.contains("nothing changes"), "{said}");
    }
    assert_eq!(changes(), before);
    let refused =
        (0..200).find(|n| set(&sandbox, &format!("env[item=i{n}]=deny")).contains("8 times within"));
    assert!(refused.is_some(), "{} changes in a loop", changes() - before);
    assert_eq!(changes() - before, refused.unwrap());
    // Whoever has the passphrase is not kept out.
    sandbox.keyed(PASSPHRASE, &["policy", "set", "deadline=30s", "--passphrase-fd", "3"]).run().ok();
}

#[test]
fn no_program_is_looked_at_for_whoever_proves_nothing() {
    let sandbox = Sandbox::with_vault();
    let tried = |setting: &str| sandbox.keyloan(&["policy", "set", setting]).run();
    // The victim is the answer itself: what says that a file is not there has looked.
    for setting in ["approver.command", "approver.askpass", "approver.pinentry"] {
        tried(&format!("{setting}=/nonexistent/program")).refused(6, "there is no way to ask");
    }
    let keyed =
        |setting: &str| sandbox.keyed(PASSPHRASE, &["policy", "set", setting, "--passphrase-fd", "3"]).run();
    keyed("approver.command=/nonexistent/program").refused(2, "No such file");
    keyed("approver.pinentry=/nonexistent/program").refused(2, "it is not there");
    sandbox.keyloan(&["policy", "set", "approver=deny"]).run().ok();
    for setting in ["approver.command", "approver.askpass", "approver.pinentry"] {
        tried(&format!("{setting}=/nonexistent/program")).refused(5, "approver=deny");
    }
}

#[test]
fn a_loop_of_requests_that_a_rule_refuses_is_counted_and_not_written_down_each() {
    const GET: &str = r#"{"item_get":{"item":"pypi","field":"token"}}"#;
    let sandbox = Sandbox::with_token(b"tok");
    sandbox.policies(&["item.read=deny", "approver=deny"]);
    let approver = r#"{"policy_set":{"settings":["approver.command=/bin/true"]}}"#;
    for body in [GET, approver] {
        let count = || {
            let counted = sandbox.events("turned_away");
            let counted: u64 = counted.iter().filter_map(|event| event["count"].as_u64()).sum();
            (counted, sandbox.events("requested").len() as u64)
        };
        let before = count();
        let mut made = 0;
        keyloan_e2e::eventually("they are counted", || {
            for _ in 0..100 {
                assert!(said(&sandbox, body).contains("the policy forbids it"));
            }
            made += 100;
            count().0 > before.0
        });
        keyloan_e2e::eventually("none is lost", || {
            let now = count();
            now.0 - before.0 + now.1 - before.1 == made
        });
    }
}
