//! Questions in windows: real pinentries on a real X server, answered by keys.

use keyloan_e2e::desktop::{Desktop, Seen};
use keyloan_e2e::sandbox::finished;
use keyloan_e2e::terminal::Terminal;
use keyloan_e2e::{PASSPHRASE, PIN, Sandbox};
use std::path::PathBuf;

const GTK: &str = "/usr/bin/pinentry-gtk-2";
const QT: &str = "/usr/bin/pinentry-qt";
const GNOME3: &str = "/usr/bin/pinentry-gnome3";

/// Pictures for people who judge how a question looks.
pub(crate) fn pictures() -> PathBuf {
    let default = || PathBuf::from(env!("CARGO_TARGET_TMPDIR")).with_file_name("screenshots");
    std::env::var_os("KEYLOAN_SCREENSHOTS").map_or_else(default, PathBuf::from)
}

/// A vault with a token and a trusted file, locked; windows are this pinentry's.
fn asked_by(pinentry: &str) -> Sandbox {
    let sandbox = Sandbox::with_token(b"tok");
    sandbox.policy("approver.command=");
    sandbox.policy(&format!("approver.pinentry={pinentry}"));
    sandbox.keyloan(&["lock"]).run().ok();
    sandbox
}

/// Unlocks as a person does who has no terminal.
fn unlocked(sandbox: &Sandbox, desktop: &Desktop<'_>) -> Seen {
    let unlocking = desktop.on(sandbox.keyloan(&["unlock"])).start();
    let seen = desktop.window();
    desktop.answer(PASSPHRASE);
    assert!(finished(unlocking).ok().stderr.contains("the vault is unlocked"));
    seen
}

#[track_caller]
pub(crate) fn keep_picture(desktop: &Desktop<'_>, seen: &Seen, name: &str) {
    let picture = desktop.screenshot(seen, &pictures(), name);
    let bytes = std::fs::read(&picture).unwrap();
    assert!(bytes.starts_with(b"\x89PNG"), "{}", picture.display());
    let number = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
    assert_eq!((number(16), number(20)), (seen.width, seen.height));
    assert!(seen.whole && seen.width > 300 && seen.height > 150, "all of it is on the screen: {seen:?}");
}

/// The whole story with one pinentry.
fn story(pinentry: &str, name: &str) {
    let sandbox = asked_by(pinentry);
    let desktop = Desktop::open(&sandbox);
    let ask = || sandbox.with_secrets(&["--", "printenv", "TWINE_PASSWORD"]);
    // Two noes in a row would close this way of asking for a while.
    let allow = || {
        let asking = ask().start();
        desktop.window();
        desktop.answer(PIN);
        finished(asking).ok();
        desktop.no_window();
    };

    let unlocking = desktop.on(sandbox.keyloan(&["unlock"])).start();
    let seen = desktop.window();
    keep_picture(&desktop, &seen, &format!("{name}-unlock"));
    desktop.answer("wrong");
    keyloan_e2e::eventually("it is written down", || sandbox.events("unlock_failed").len() == 1);
    desktop.window();
    desktop.answer(PASSPHRASE);
    assert!(finished(unlocking).ok().stderr.contains("the vault is unlocked"));
    let questions = sandbox.status()["questions"].as_str().unwrap().to_owned();
    let wanted = format!("a window on display {} ({pinentry}), with the PIN", desktop.display);
    assert!(questions.starts_with(&wanted), "{questions}");

    // Allowed by the PIN, for a requester that knows of no desktop.
    let asking = ask().start();
    let seen = desktop.window();
    keep_picture(&desktop, &seen, &format!("{name}-lend"));
    desktop.answer(PIN);
    assert_eq!(finished(asking).ok().text(), "tok\n");
    let by = sandbox.events("decided").last().unwrap()["approver"].as_str().unwrap().to_owned();
    assert_eq!(by, format!("PIN in a window on display {}", desktop.display));
    desktop.no_window();

    // Escape, the window's own button, and Enter without a PIN decline.
    for no in ["Escape", "closing", "Return"] {
        let asking = ask().start();
        let seen = desktop.window();
        if no == "closing" {
            desktop.close(&seen);
        } else {
            desktop.press(no);
        }
        finished(asking).refused(125, "it was declined");
        desktop.no_window();
        allow();
    }

    // A requester that dies takes its window along.
    let mut asking = ask().start();
    desktop.window();
    asking.kill().unwrap();
    asking.wait().unwrap();
    desktop.no_window();
    assert_eq!(sandbox.events("decided").last().unwrap()["approver"], "the requester went away");
    allow();

    let asking = ask().start();
    for wrong in 1..=3 {
        let seen = desktop.window();
        if wrong == 2 {
            keep_picture(&desktop, &seen, &format!("{name}-wrong-pin"));
        }
        desktop.answer("0000");
        keyloan_e2e::eventually("the wrong PIN is written down", || {
            sandbox.events("pin_failed").len() == wrong
        });
    }
    finished(asking).refused(125, "the PIN was wrong three times");
    desktop.no_window();
    ask().run().refused(125, "this way of asking is closed for another");
    assert_eq!(sandbox.events("lent").len(), 5);
}

#[test]
fn the_whole_story_in_a_window_of_gtk() {
    story(GTK, "gtk-2");
}

#[test]
fn the_whole_story_in_a_window_of_qt() {
    story(QT, "qt");
}

#[test]
fn the_whole_story_in_a_window_of_gnome() {
    story(GNOME3, "gnome3");
}

#[test]
fn what_is_too_long_for_a_window_comes_in_pages_and_none_passes_the_screens_edge() {
    for (pinentry, name) in [(GTK, "gtk-2"), (QT, "qt"), (GNOME3, "gnome3")] {
        let sandbox = asked_by(pinentry);
        let desktop = Desktop::open(&sandbox);
        unlocked(&sandbox, &desktop);
        let long = format!("<b>{}</b> • in:  ~/good  (verified)", "W".repeat(200));
        let words = "many words & more ".repeat(20);
        let asking = sandbox.with_secrets(&["--", "echo", &long, &words]).start();
        let mut seen = desktop.window();
        keep_picture(&desktop, &seen, &format!("{name}-long-1"));
        for page in 2..=3 {
            desktop.press("alt+n");
            // No two of these pages are of one size.
            keyloan_e2e::eventually("the next page opens", || {
                desktop.find().is_some_and(|next| next != seen)
            });
            seen = desktop.window();
            keep_picture(&desktop, &seen, &format!("{name}-long-{page}"));
        }
        desktop.answer(PIN);
        assert!(finished(asking).ok().text().ends_with("many words & more \n"));
    }
}

#[test]
fn an_unlock_on_a_terminal_of_the_desktop_sends_later_questions_to_the_desktop() {
    let sandbox = asked_by(GTK);
    let desktop = Desktop::open(&sandbox);
    let terminal = Terminal::open(&sandbox);
    terminal.run(&desktop.exports());
    terminal.run("keyloan unlock");
    let shown = terminal.expect("Passphrase, Enter alone to decline:");
    assert!(shown.contains(&format!("then asks on display {}  (claimed)", desktop.display)), "{shown}");
    assert_eq!(desktop.find(), None);
    terminal.type_text(PASSPHRASE);
    terminal.press("Enter");
    terminal.expect("the vault is unlocked");
    terminal.run("with-secrets -- printenv TWINE_PASSWORD");
    desktop.window();
    terminal.expect("waiting for a yes from a window on your desktop");
    desktop.answer(PIN);
    terminal.expect("\ntok\n");
    // Locked again, the passphrase is asked for there, too.
    sandbox.keyloan(&["lock"]).run().ok();
    let asking = sandbox.with_secrets(&["--", "printenv", "TWINE_PASSWORD"]).start();
    desktop.window();
    desktop.answer(PASSPHRASE);
    keyloan_e2e::eventually("it is unlocked", || sandbox.status()["vault"] == "unlocked");
    desktop.window();
    desktop.answer(PIN);
    assert_eq!(finished(asking).ok().text(), "tok\n");
    // A decline is a decline: the terminal is not asked then.
    terminal.run("with-secrets -- printenv TWINE_PASSWORD; echo ended $?");
    desktop.window();
    desktop.press("Escape");
    let shown = terminal.expect("ended 125");
    assert!(shown.contains("it was declined") && !shown.contains("PIN to allow"), "{shown}");
}

#[test]
fn where_no_window_can_be_opened_the_terminal_is_asked() {
    for pinentry in [GTK, QT, GNOME3] {
        let sandbox = asked_by(pinentry);
        let mut desktop = Desktop::open(&sandbox);
        unlocked(&sandbox, &desktop);
        desktop.log_out();
        sandbox.with_secrets(&["--", "true"]).run().refused(125, "no window can be opened");
        let terminal = Terminal::open(&sandbox);
        terminal.run("with-secrets -- printenv TWINE_PASSWORD");
        terminal.expect("PIN to allow, Enter alone to decline:");
        terminal.type_text(PIN);
        terminal.press("Enter");
        terminal.expect("\ntok\n");
    }
}

#[test]
fn unlock_takes_a_window_on_demand_and_moves_questions_on_demand() {
    let sandbox = asked_by(GTK);
    sandbox
        .keyloan(&["unlock", "--desktop"])
        .run()
        .refused(2, "there is no desktop here: neither DISPLAY nor WAYLAND_DISPLAY is set");
    let desktop = Desktop::open(&sandbox);
    let terminal = Terminal::open(&sandbox);
    terminal.run(&desktop.exports());
    terminal.run("keyloan unlock --desktop");
    desktop.window();
    desktop.answer(PASSPHRASE);
    terminal.expect("the vault is unlocked");
    let other = Desktop::open(&sandbox);
    let questions = || sandbox.status()["questions"].as_str().unwrap().to_owned();
    let unlock = |arguments: &[&str]| other.on(sandbox.keyed(PASSPHRASE, arguments)).run().ok();
    unlock(&["unlock", "--passphrase-fd", "3"]);
    assert!(questions().contains(&desktop.display), "an open vault's questions stay: {}", questions());
    unlock(&["unlock", "--here", "--passphrase-fd", "3"]);
    assert!(questions().contains(&other.display), "{}", questions());
}

#[test]
fn a_new_vault_asks_on_the_desktop_it_was_made_on_with_a_pinentry_that_is_there() {
    let sandbox = Sandbox::empty();
    let desktop = Desktop::open(&sandbox);
    let init = ["init", "--passphrase-fd", "3", "--pin-fd", "4"];
    desktop.on(sandbox.keyed(PASSPHRASE, &init)).run().ok();
    let questions = sandbox.status()["questions"].as_str().unwrap().to_owned();
    assert!(questions.contains(&format!("display {} (/usr/bin/pinentry-", desktop.display)), "{questions}");
    let storing = sandbox.keyloan(&["item", "set", "pypi", "token"]).stdin("tok").start();
    desktop.window();
    desktop.answer(PIN);
    finished(storing).ok();
}
