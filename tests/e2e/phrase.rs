//! The phrase by which a person knows keyloan's own questions: where it is shown, and where it is not.

use crate::desktop::keep_picture;
use keyloan_e2e::desktop::Desktop;
use keyloan_e2e::sandbox::finished;
use keyloan_e2e::terminal::Terminal;
use keyloan_e2e::{Output, PASSPHRASE, PIN, Sandbox};

const PHRASE: &str = "blue heron at noon";
const LINE: &str = "  phrase    blue heron at noon  (chosen by you)";
const PROMPT: &str = "PIN to allow, Enter alone to decline:";
const PASSPHRASE_PROMPT: &str = "Passphrase, Enter alone to decline:";
const ASK: &str = "with-secrets -- printenv TWINE_PASSWORD; echo ended $?";

fn change(sandbox: &Sandbox, phrase: &str) -> Output {
    let phrase = sandbox.write("phrase", phrase).display().to_string();
    let line = format!("exec \"$0\" phrase --passphrase-fd 3 --phrase-fd 4 3<../passphrase 4<{phrase}");
    sandbox.write("passphrase", PASSPHRASE);
    let keyloan = keyloan_e2e::programs::bin().join("keyloan").display().to_string();
    sandbox.command("/bin/sh", &["-c", &line, &keyloan]).run()
}

/// A vault with that phrase, a token and no approver program.
fn with_phrase() -> Sandbox {
    let sandbox = Sandbox::with_token(b"tok");
    sandbox.policy("approver.command=");
    change(&sandbox, PHRASE).ok();
    sandbox
}

/// Types the passphrase there, so that it is the terminal of the last unlock.
fn unlock_here(terminal: &Terminal<'_>) {
    terminal.run("keyloan unlock --here");
    terminal.expect(PASSPHRASE_PROMPT);
    terminal.type_text(PASSPHRASE);
    terminal.press("Enter");
    terminal.expect("unlocked already");
}

fn deny(terminal: &Terminal<'_>) {
    terminal.press("Enter");
    terminal.expect("ended 125");
}

/// The line right above what is typed is the phrase's.
#[track_caller]
fn stands_last(shown: &str, prompt: &str) {
    let rows: Vec<&str> = shown.lines().collect();
    let at = rows.iter().position(|row| row.contains(prompt)).unwrap();
    assert_eq!(rows[at - 1].trim_end(), LINE, "{shown}");
    assert_eq!(shown.matches(PHRASE).count(), 1, "{shown}");
}

#[test]
fn a_phrase_chosen_at_init_is_the_last_line_of_questions_on_that_terminal_and_on_no_other() {
    let sandbox = Sandbox::empty();
    let terminal = Terminal::sized(&sandbox, "first", 80, 40);
    terminal.run("keyloan init");
    for (prompt, answer) in [
        ("passphrase for the vault:", PASSPHRASE),
        ("same again:", PASSPHRASE),
        ("PIN for approvals:", PIN),
        ("same again:", PIN),
        ("own questions to show", "heron"),
        ("That is none: a phrase is text of 8 to 60 characters", PHRASE),
    ] {
        terminal.expect(prompt);
        terminal.tmux(&["send-keys", "-R"]).ok();
        terminal.type_text(answer);
        terminal.press("Enter");
    }
    // What was typed unseen is shown, or nobody knew what it is.
    assert!(terminal.expect("and unlocked").contains(LINE));
    let ask = "keyloan item set pypi token 2>/dev/null <<<value; echo ended $?";
    terminal.run(ask);
    stands_last(&terminal.expect(PROMPT), PROMPT);
    terminal.press("Enter");
    terminal.expect("ended 6");
    let other = Terminal::sized(&sandbox, "other", 80, 40);
    other.run(ask);
    let shown = other.expect(PROMPT);
    assert!(!shown.contains("phrase") && shown.contains("asked by"), "{shown}");
    other.type_text(PIN);
    other.press("Enter");
    other.expect("ended 0");
    let log = std::fs::read_to_string(sandbox.log()).unwrap();
    assert!(!log.contains(PHRASE));
}

#[test]
fn the_terminal_that_answers_and_the_question_for_the_passphrase_show_it() {
    let sandbox = with_phrase();
    let home = Terminal::sized(&sandbox, "home", 80, 40);
    unlock_here(&home);
    home.run("keyloan policy set item.read=allow; echo ended $?");
    stands_last(&home.expect(PASSPHRASE_PROMPT), PASSPHRASE_PROMPT);
    home.press("Enter");
    home.expect("ended 6");
    let board = Terminal::sized(&sandbox, "board", 60, 12);
    board.run("keyloan approve");
    assert!(!board.expect(PASSPHRASE_PROMPT).contains("phrase    "), "it is proved to nobody yet");
    board.type_text(PASSPHRASE);
    board.press("Enter");
    board.expect("nothing is asked here");
    let asking = sandbox.with_secrets(&["--", "true"]).start();
    // On whichever page the PIN is typed, and on no other.
    assert!(!board.expect("-- page 1 of ").contains("phrase    "));
    board.type_text("nnnnnn");
    let shown = board.expect(LINE.trim_end());
    let rows: Vec<&str> = shown.lines().collect();
    let at = rows.iter().position(|row| row.starts_with(LINE)).unwrap();
    assert!(rows[at + 1].starts_with("-- page "), "{shown}");
    keyloan_e2e::eventually("the PIN is wanted", || {
        board.type_text("a");
        board.screen().contains("PIN to allow, Enter alone goes back:")
    });
    board.press("C-u");
    board.type_text(PIN);
    board.press("Enter");
    finished(asking).ok();
}

#[test]
fn while_the_vault_is_locked_nobody_knows_it() {
    let sandbox = with_phrase();
    let home = Terminal::sized(&sandbox, "home", 80, 40);
    unlock_here(&home);
    sandbox.keyloan(&["lock"]).run().ok();
    home.run(ASK);
    let shown = home.expect(PASSPHRASE_PROMPT);
    assert!(!shown.contains("phrase    "), "{shown}");
    home.type_text(PASSPHRASE);
    home.press("Enter");
    stands_last(&home.expect(PROMPT), PROMPT);
    deny(&home);
}

#[test]
fn it_is_changed_and_removed_with_the_passphrase_alone() {
    let sandbox = with_phrase();
    let home = Terminal::sized(&sandbox, "home", 80, 40);
    unlock_here(&home);
    let yes = || {
        home.run(ASK);
        let shown = home.expect(PROMPT);
        home.type_text(PIN);
        home.press("Enter");
        home.expect("ended 0");
        shown
    };
    sandbox.write("guess", "guess");
    home.run("keyloan phrase --remove --passphrase-fd 3 3<../guess; echo ended $?");
    home.expect("ended 6");
    for none in ["heron", "blue \u{1b}[2J heron", &"x".repeat(61)] {
        change(&sandbox, none).refused(2, "a phrase is text of 8 to 60 characters");
    }
    change(&sandbox, PASSPHRASE).refused(2, "neither the passphrase nor the PIN");
    stands_last(&yes(), PROMPT);
    home.run("keyloan phrase; echo ended $?");
    home.expect(PASSPHRASE_PROMPT);
    home.type_text(PASSPHRASE);
    home.press("Enter");
    home.expect("the new phrase (Enter keeps");
    home.type_text("ein grüner Specht");
    home.press("Enter");
    home.expect("ended 0");
    let shown = yes();
    assert!(shown.contains("  phrase    ein grüner Specht  (chosen by you)\n"), "{shown}");
    sandbox.keyed(PASSPHRASE, &["phrase", "--remove", "--passphrase-fd", "3"]).run().ok();
    let shown = yes();
    assert!(!shown.contains("phrase"), "{shown}");
    assert_eq!(sandbox.events("phrase_changed").len(), 3);
}

#[test]
fn it_stays_with_the_vault() {
    let sandbox = with_phrase();
    let keyloan = keyloan_e2e::programs::bin().join("keyloan").display().to_string();
    let line = "exec \"$0\" rekey --passphrase-fd 3 --new-passphrase-fd 4 3<../passphrase 4<../passphrase";
    sandbox.command("/bin/sh", &["-c", line, &keyloan]).run().ok();
    sandbox.stop();
    sandbox.unlock().ok();
    let home = Terminal::sized(&sandbox, "home", 80, 40);
    unlock_here(&home);
    home.run(ASK);
    stands_last(&home.expect(PROMPT), PROMPT);
    deny(&home);
}

#[test]
fn a_window_shows_it_where_the_pin_is_typed() {
    for pinentry in ["gtk-2", "qt"] {
        let sandbox = with_phrase();
        sandbox.policy(&format!("approver.pinentry=/usr/bin/pinentry-{pinentry}"));
        sandbox.keyloan(&["lock"]).run().ok();
        let desktop = Desktop::open(&sandbox);
        desktop.on(sandbox.keyed(PASSPHRASE, &["unlock", "--passphrase-fd", "3"])).run().ok();
        // One page, whatever the test was started by.
        let asking = sandbox.with_secrets(&["--only", "TWINE_PASSWORD", "--", "true"]).start();
        let seen = desktop.window();
        keep_picture(&desktop, &seen, &format!("phrase-{pinentry}"));
        desktop.answer(PIN);
        finished(asking).ok();
    }
}
