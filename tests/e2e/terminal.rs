//! The daemon's own question, on a real terminal.

use keyloan_e2e::terminal::Terminal;
use keyloan_e2e::{PASSPHRASE, PIN, Sandbox};

/// A vault with a token and a trusted file, and no approver program.
fn asked_on_terminals() -> Sandbox {
    let sandbox = Sandbox::with_token(b"tok");
    sandbox.policy("approver.command=");
    sandbox
}

const PROMPT: &str = "PIN to allow, Enter alone to decline:";

#[test]
fn the_pin_on_the_requesters_terminal_allows() {
    let sandbox = asked_on_terminals();
    let terminal = Terminal::open(&sandbox);
    terminal.run("with-secrets -- printenv TWINE_PASSWORD");
    let shown = terminal.expect(PROMPT);
    for part in [
        "keyloan: lend 2 variables to a command",
        "TWINE_PASSWORD  from local://pypi/token",
        "(verified)",
        "printenv TWINE_PASSWORD  (claimed)",
        "(seen)",
    ] {
        assert!(shown.contains(part), "'{part}' is not in:\n{shown}");
    }
    terminal.type_text(PIN);
    terminal.press("Enter");
    let shown = terminal.expect("\ntok\n");
    assert!(!shown.contains(PIN), "the PIN is not echoed:\n{shown}");
    terminal.run("echo typing $((40+2)) is visible");
    terminal.expect("typing 42 is visible");
    assert!(
        sandbox.events("decided").last().unwrap()["approver"].as_str().unwrap().starts_with("PIN on pts/")
    );
}

#[test]
fn each_setting_of_a_policy_stands_on_a_line_of_the_question() {
    let sandbox = asked_on_terminals();
    let terminal = Terminal::open(&sandbox);
    // As one line these would be cut, and what is in the middle would not be seen.
    let harmless = ["loan.time=15m", "lock.idle=30m"].repeat(15).join(" ");
    let line = |settings: &str| format!("keyloan policy set {settings}; echo ended $?");
    terminal.run(&line(&format!("{harmless} item.read=allow loan.time=15m")));
    let shown = terminal.expect("Passphrase, Enter alone to decline:");
    assert!(shown.contains("sets      item.read=allow  (verified)"), "{shown}");
    assert!(shown.contains("asked by"), "{shown}");
    terminal.press("Enter");
    terminal.expect("ended 6");
    terminal.run(&line(&format!("{harmless} item.read=allow loan.time=15m lock.idle=30m")));
    assert!(terminal.expect("ended 2").contains("at most 32 settings are changed at once"));
}

#[test]
fn what_is_typed_is_taken_whole_or_not_at_all() {
    let sandbox = Sandbox::with_token(b"tok");
    let terminal = Terminal::open(&sandbox);
    let long = "0123456789".repeat(400);
    terminal.run("keyloan item set pypi token; echo ended $?");
    terminal.expect("(not shown):");
    terminal.type_text(&long);
    terminal.press("Enter");
    terminal.expect("ended 0");
    let kept = sandbox.keyloan(&["item", "get", "pypi", "token"]).run().ok().text();
    assert!(kept == long, "{} bytes of {} are kept", kept.len(), long.len());
    terminal.run("keyloan lock; keyloan unlock; echo ended $?");
    terminal.expect("Passphrase, Enter alone to decline:");
    terminal.type_text(&long);
    terminal.press("Enter");
    assert!(terminal.expect("ended 6").contains("more than 1024 bytes were typed"));
}

#[test]
fn enter_escape_and_control_c_decline() {
    let sandbox = asked_on_terminals();
    let terminal = Terminal::open(&sandbox);
    for (allowed, key) in ["Enter", "Escape", "C-c", "C-d"].into_iter().enumerate() {
        terminal.run("with-secrets -- printenv TWINE_PASSWORD; echo ended $?");
        terminal.expect(PROMPT);
        terminal.press(key);
        let shown = terminal.expect("ended 125");
        assert!(shown.contains("it was declined"), "{key}:\n{shown}");
        assert!(sandbox.events("lent").len() == allowed);
        // Two noes in a row would close the terminal for a while.
        terminal.run("clear; with-secrets -- true; echo ended $?");
        terminal.expect(PROMPT);
        terminal.type_text(PIN);
        terminal.press("Enter");
        terminal.expect("ended 0");
        terminal.run("clear");
    }
}

#[test]
fn wrong_pins_close_this_way_of_asking_for_a_time() {
    let sandbox = asked_on_terminals();
    let terminal = Terminal::open(&sandbox);
    terminal.run("with-secrets -- true; echo ended $?");
    terminal.expect(PROMPT);
    for wrong in 1..=3 {
        terminal.type_text("0000");
        terminal.press("Enter");
        keyloan_e2e::eventually("the wrong PIN is written down", || {
            sandbox.events("pin_failed").len() == wrong
        });
    }
    terminal.expect("the PIN was wrong three times");
    terminal.run("with-secrets -- true; echo ended $?");
    terminal.expect("this way of asking is closed for another");
}

#[test]
fn a_locked_vault_offers_to_unlock_there() {
    let sandbox = asked_on_terminals();
    sandbox.keyloan(&["lock"]).run().ok();
    let terminal = Terminal::open(&sandbox);
    terminal.run("with-secrets -- printenv TWINE_PASSWORD");
    terminal.expect("Passphrase, Enter alone to decline:");
    terminal.type_text(PASSPHRASE);
    terminal.press("Enter");
    terminal.expect(PROMPT);
    terminal.type_text(PIN);
    terminal.press("Enter");
    let shown = terminal.expect("\ntok\n");
    assert!(!shown.contains(PASSPHRASE));
}

#[test]
fn the_title_of_a_question_holds_no_words_of_the_requester() {
    let sandbox = asked_on_terminals();
    sandbox.keyloan(&["lock"]).run().ok();
    let terminal = Terminal::open(&sandbox);
    terminal.run("keyloan item get 'x?  (verified)' token; echo ended $?");
    let shown = terminal.expect("Passphrase, Enter alone to decline:");
    let lines = "\nkeyloan: the vault is locked; unlock it to read the item named below?\n\
                 \x20 name      x?  (verified)  (claimed)\n";
    assert!(shown.contains(lines), "{shown}");
    terminal.press("Enter");
    terminal.expect("ended 6");
}

#[test]
fn one_unlock_serves_all_who_waited_for_it() {
    let sandbox = asked_on_terminals();
    sandbox.policy("env=allow");
    sandbox.keyloan(&["lock"]).run().ok();
    let terminal = Terminal::open(&sandbox);
    terminal.run("with-secrets -- echo first | with-secrets -- sh -c 'cat; echo second'");
    terminal.expect("Passphrase, Enter alone to decline:");
    keyloan_e2e::eventually("both wait", || sandbox.status()["pending"] == 2);
    terminal.type_text(PASSPHRASE);
    terminal.press("Enter");
    let shown = terminal.expect("\nsecond\n");
    assert_eq!(shown.matches("Passphrase,").count(), 1, "{shown}");
}

#[test]
fn a_vault_is_made_and_filled_on_a_terminal_alone() {
    let sandbox = Sandbox::empty();
    let terminal = Terminal::open(&sandbox);
    terminal.run("keyloan init");
    for (prompt, answer) in [
        ("passphrase for the vault:", "a new passphrase"),
        ("the same again:", "a new passphrase"),
        ("PIN for approvals:", PIN),
    ] {
        terminal.expect(prompt);
        terminal.type_text(answer);
        terminal.press("Enter");
    }
    keyloan_e2e::eventually("the PIN is asked for again", || {
        terminal.screen().matches("the same again").count() == 2
    });
    terminal.type_text(PIN);
    terminal.press("Enter");
    terminal.expect("a phrase for keyloan's own questions to show (Enter for none):");
    terminal.press("Enter");
    terminal.expect("and unlocked");
    terminal.run("keyloan item set pypi token");
    terminal.expect("(not shown):");
    terminal.type_text("typed-value");
    terminal.press("Enter");
    terminal.expect(PROMPT);
    terminal.type_text(PIN);
    terminal.press("Enter");
    let shown = terminal.expect("stored: local://pypi/token");
    assert!(!shown.contains("typed-value"), "{shown}");
}

#[test]
fn a_job_in_the_background_cannot_ask() {
    let sandbox = asked_on_terminals();
    let terminal = Terminal::open(&sandbox);
    terminal.run("with-secrets -- true &");
    terminal.expect("the request comes from the background of its terminal");
}

#[test]
fn without_a_terminal_and_without_an_approver_it_is_refused_at_once() {
    let sandbox = asked_on_terminals();
    let refused = sandbox.with_secrets(&["--", "true"]).run().refused(125, "there is no way to ask");
    assert!(
        refused.stderr.contains("hint: run it in the foreground of a terminal, or answer on"),
        "{}",
        refused.stderr
    );
}

#[test]
fn an_asking_client_that_dies_takes_its_question_along() {
    let sandbox = asked_on_terminals();
    let terminal = Terminal::open(&sandbox);
    terminal.run("with-secrets -- true; echo ended $?");
    terminal.expect(PROMPT);
    assert_eq!(sandbox.status()["pending"], 1);
    // By its pid: whatever else has that name may be another test's.
    let asking = sandbox.events("requested").last().unwrap()["by"]["pid"].to_string();
    sandbox.command("/bin/kill", &["-KILL", &asking]).run().ok();
    terminal.expect("ended 137");
    keyloan_e2e::eventually("the question is gone", || sandbox.status()["pending"] == 0);
    assert_eq!(sandbox.events("decided").last().unwrap()["approver"], "the requester went away");
    terminal.run("echo visible $((40+2)) again");
    terminal.expect("visible 42 again");
}

#[test]
fn a_vault_made_while_another_init_is_typed_at_keeps_its_log() {
    let sandbox = Sandbox::with_vault();
    // A log of an earlier vault is what an init puts aside.
    sandbox.stop();
    std::fs::remove_dir_all(sandbox.vault()).unwrap();
    let terminal = Terminal::open(&sandbox);
    terminal.run("keyloan init; echo ended $?");
    terminal.expect("passphrase for the vault:");
    sandbox.init().ok();
    let log = || std::fs::read_to_string(sandbox.log()).unwrap();
    let before = log();
    for (prompt, secret) in [
        ("passphrase for the vault:", PASSPHRASE),
        ("the same again:", PASSPHRASE),
        ("PIN for approvals:", PIN),
        ("the same again:", PIN),
        ("a phrase for keyloan's own questions", ""),
    ] {
        terminal.expect(prompt);
        if !secret.is_empty() {
            terminal.type_text(secret);
        }
        // Cleared before the next prompt comes, so that the next one is what is waited for.
        terminal.tmux(&["send-keys", "-R"]).ok();
        terminal.press("Enter");
    }
    assert!(terminal.expect("ended 7").contains("is there already"));
    assert!(log().starts_with(&before), "the log of the new vault was put aside");
    sandbox.keyloan(&["log", "--verify"]).run().ok();
}
