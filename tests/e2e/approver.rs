//! The kind `approver`: whether anything may be made to answer at all.

use keyloan_e2e::terminal::Terminal;
use keyloan_e2e::{PASSPHRASE, Sandbox, approver};

const PROMPT: &str = "Passphrase, Enter alone to decline:";

fn keyed(sandbox: &Sandbox, settings: &[&str]) -> keyloan_e2e::Output {
    sandbox.keyed(PASSPHRASE, &[&["policy", "set", "--passphrase-fd", "3"], settings].concat()).run()
}

fn explained(sandbox: &Sandbox) -> String {
    sandbox.keyloan(&["policy", "explain", "approver"]).run().ok().text().lines().next().unwrap().to_owned()
}

#[test]
fn a_denied_approver_is_refused_before_a_passphrase_is_asked() {
    let sandbox = Sandbox::with_vault();
    assert_eq!(explained(&sandbox), "ask: approver=ask");
    // Stricter, so nobody is asked; what it forbids is refused to whoever knows the passphrase, too.
    sandbox.keyloan(&["policy", "set", "approver=deny"]).run().ok();
    assert_eq!(explained(&sandbox), "deny: approver=deny");
    let terminal = Terminal::open(&sandbox);
    terminal.run("keyloan approve; echo ended $?");
    let shown = terminal.expect("ended 5");
    assert!(
        shown.contains("the policy forbids it (approver=deny)") && !shown.contains("Passphrase"),
        "{shown}"
    );
    let program = sandbox.write_program("approver", approver::ALLOW).display().to_string();
    for setting in [&format!("approver.command={program}"), "approver.pinentry=/usr/bin/pinentry-qt"] {
        keyed(&sandbox, &[setting]).refused(5, "the policy forbids it (approver=deny)");
        // Not with what would allow it in the same breath either.
        keyed(&sandbox, &["approver=ask", setting]).refused(5, "the policy forbids it");
    }
    let denied = sandbox.events("decided");
    assert!(denied.len() == 5 && denied.iter().all(|decided| decided["decision"] == "denied"), "{denied:?}");
    sandbox.keyloan(&["policy", "set", "approver=ask"]).run().refused(6, "there is no way to ask");
    keyed(&sandbox, &["approver=ask"]).ok();
    keyed(&sandbox, &[&format!("approver.command={program}")]).ok();
    assert!(sandbox.events("approver_enrolled").is_empty());
}

#[test]
fn nothing_but_the_passphrase_says_who_answers() {
    let sandbox = Sandbox::with_vault();
    for setting in
        ["approver=allow", "approver=allow 5/1h", "approver=ask-pin", "approver[program=/bin/x]=ask-pin"]
    {
        keyed(&sandbox, &[setting])
            .refused(2, "approver takes ask (that is the passphrase), deny, or nothing");
    }
    keyed(&sandbox, &["approver[item=a]=deny"]).refused(2, "a request for approver has no item");
}

#[test]
fn a_rule_about_a_program_forbids_that_one_alone() {
    let sandbox = Sandbox::with_vault();
    sandbox.keyloan(&["policy", "set", "approver[program=*/bash]=deny"]).run().refused(2, "condition");
    sandbox.keyloan(&["policy", "set", "approver[program=/usr/bin/bash]=deny"]).run().ok();
    assert_eq!(explained(&sandbox), "ask: approver=ask");
    let terminal = Terminal::open(&sandbox);
    terminal.run("keyloan approve; echo ended $?");
    terminal.expect("ended 5");
    let by = "approver[program=/usr/bin/bash]";
    let explained = sandbox.keyloan(&["policy", "explain", by]).run().ok().text();
    assert!(explained.starts_with(&format!("deny: {by}=deny")), "{explained}");
}

#[test]
fn a_terminal_that_answers_does_so_no_more_when_that_is_denied() {
    let sandbox = Sandbox::with_vault();
    sandbox.write("passphrase", PASSPHRASE);
    let board = Terminal::sized(&sandbox, "board", 80, 24);
    board.run("keyloan approve --passphrase-fd 3 3<../passphrase; echo ended $?");
    board.expect("nothing is asked here");
    sandbox.keyloan(&["policy", "set", "approver=deny"]).run().ok();
    assert!(board.expect("ended 0").contains("answers no more: the policy forbids it"));
    // Of a locked vault nobody knows the rule before it is open.
    sandbox.keyloan(&["lock"]).run().ok();
    board.run("keyloan approve; echo ended $?");
    board.expect(PROMPT);
    board.type_text(PASSPHRASE);
    board.press("Enter");
    assert!(board.expect("ended 5").contains("the policy forbids it"));
    assert_eq!(sandbox.events("approver_enrolled").len(), 1);
}
