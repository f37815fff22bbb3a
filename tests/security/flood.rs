//! Row 16: asking until somebody is tired enough to say yes; and guessing the PIN.

use keyloan_e2e::keyring::Keyring;
use keyloan_e2e::sandbox::Run;
use keyloan_e2e::terminal::Terminal;
use keyloan_e2e::{PASSPHRASE, Sandbox, eventually};

const PROMPT: &str = "PIN to allow, Enter alone to decline:";

fn asked_on_terminals() -> Sandbox {
    let sandbox = Sandbox::with_token(b"tok");
    sandbox.policy("approver.command=");
    sandbox
}

/// Asks until this way of asking is open again.
fn until_asked(terminal: &Terminal<'_>) {
    eventually("this way of asking opens again", || {
        terminal.run("clear; with-secrets -- true; echo ended $?");
        eventually("it asks or refuses", || {
            let screen = terminal.screen();
            screen.contains(PROMPT) || screen.contains("ended 125")
        });
        terminal.screen().contains(PROMPT)
    });
}

#[test]
fn who_was_refused_twice_is_not_asked_for_again_at_once() {
    let sandbox = asked_on_terminals();
    let terminal = Terminal::open(&sandbox);
    // The undefended victim asks for as long as it takes.
    terminal.run("until read -p 'allow? ' a; [ \"$a\" = y ]; do :; done; echo worn-$((40+2))");
    for answer in ["n", "n", "y"] {
        terminal.expect("allow?");
        terminal.type_text(answer);
        terminal.press("Enter");
    }
    terminal.expect("worn-42");
    for n in 1..=2 {
        terminal.run(&format!("clear; with-secrets -- true; echo ended-{n} $?"));
        terminal.expect(PROMPT);
        terminal.press("Enter");
        terminal.expect(&format!("ended-{n} 125"));
    }
    terminal.run("clear; with-secrets -- true; echo ended-3 $?");
    let shown = terminal.expect("ended-3 125");
    assert!(shown.contains("it may ask again in") && !shown.contains(PROMPT), "{shown}");
    // Another terminal is another person's.
    let other = Terminal::sized(&sandbox, "other", 150, 50);
    other.run("with-secrets -- true; echo ended $?");
    other.expect(PROMPT);
}

#[test]
fn who_dies_and_comes_back_is_not_asked_for_without_end() {
    let sandbox = asked_on_terminals();
    let terminal = Terminal::open(&sandbox);
    for _ in 0..2 {
        terminal.run("clear; timeout --foreground -s KILL 30 with-secrets -- true & fg; echo gone $?");
        terminal.expect(PROMPT);
        let asking = sandbox.events("requested").last().unwrap()["by"]["pid"].as_i64().unwrap();
        sandbox.command("kill", &["-KILL", &asking.to_string()]).run().ok();
        terminal.expect("gone 1");
    }
    terminal.run("clear; with-secrets -- true; echo ended $?");
    assert!(terminal.expect("ended 125").contains("it may ask again in"));
}

#[test]
fn five_wrong_pins_where_it_was_unlocked_lock_everything() {
    let sandbox = asked_on_terminals();
    let keyring = Keyring::open(&sandbox);
    let on_desktop = |run: Run| keyring.on(run).env("DISPLAY", ":7").run();
    on_desktop(sandbox.keyed(PASSPHRASE, &["unlock", "--here", "--passphrase-fd", "3"])).ok();
    sandbox.keyed(PASSPHRASE, &["recipient", "keyring", "--passphrase-fd", "3"]).run().ok();
    sandbox.keyloan(&["lock"]).run().ok();
    on_desktop(sandbox.keyloan(&["unlock", "--keyring"])).ok();
    let terminal = Terminal::open(&sandbox);
    terminal.run("keyloan lock; keyloan unlock; echo unlocked $?");
    terminal.expect("Passphrase, Enter alone to decline:");
    terminal.type_text(PASSPHRASE);
    terminal.press("Enter");
    terminal.expect("unlocked 0");
    let wrong = |count: usize| {
        for _ in 0..count {
            let before = sandbox.events("pin_failed").len();
            terminal.type_text("0000");
            terminal.press("Enter");
            eventually("the wrong PIN is written down", || sandbox.events("pin_failed").len() > before);
        }
    };
    terminal.run("clear; with-secrets -- true; echo ended $?");
    terminal.expect(PROMPT);
    wrong(3);
    terminal.expect("ended 125");
    assert_eq!(sandbox.status()["vault"], "unlocked");
    until_asked(&terminal);
    wrong(2);
    assert!(terminal.expect("ended 125").contains("everything is locked"));
    assert_eq!(sandbox.status()["vault"], "locked");
    assert_eq!(sandbox.events("locked").pop().unwrap()["why"], "five wrong PINs");
    // Behind a key that any program may use nobody goes on guessing.
    on_desktop(sandbox.keyloan(&["unlock", "--keyring"])).refused(2, "only the passphrase opens the vault");
    sandbox.unlock().ok();
    sandbox.keyloan(&["lock"]).run().ok();
    on_desktop(sandbox.keyloan(&["unlock", "--keyring"])).ok();
}

#[test]
fn wrong_pins_elsewhere_do_not_close_the_place_of_the_unlock() {
    let sandbox = asked_on_terminals();
    let home = Terminal::open(&sandbox);
    home.run("keyloan lock; keyloan unlock; echo unlocked $?");
    home.expect("Passphrase, Enter alone to decline:");
    home.type_text(PASSPHRASE);
    home.press("Enter");
    home.expect("unlocked 0");
    // The second closes it for longer than it takes to make a third.
    let [first, second, third] =
        ["first", "second", "third"].map(|name| Terminal::sized(&sandbox, name, 150, 50));
    for elsewhere in [&first, &second] {
        until_asked(elsewhere);
        for _ in 0..3 {
            let before = sandbox.events("pin_failed").len();
            elsewhere.type_text("0000");
            elsewhere.press("Enter");
            eventually("the wrong PIN is written down", || sandbox.events("pin_failed").len() > before);
        }
        elsewhere.expect("ended 125");
    }
    // One more terminal has no tries of its own, and the one of the unlock has lost none.
    third.run("with-secrets -- true; echo ended $?");
    let shown = third.expect("ended 125");
    assert!(shown.contains("after wrong PINs"), "{shown}");
    home.run("clear; with-secrets -- true; echo ended $?");
    home.expect(PROMPT);
    assert_eq!(sandbox.status()["vault"], "unlocked");
}
