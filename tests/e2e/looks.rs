//! How windows and notifications look and what keys and clicks do to them: with real presses, on a real X server. The
//! pictures are kept for people to judge.

use crate::desktop::{keep_picture, pictures};
use keyloan_e2e::desktop::{Desktop, Seen};
use keyloan_e2e::notification::Notifications;
use keyloan_e2e::sandbox::finished;
use keyloan_e2e::{PASSPHRASE, PIN, Sandbox, eventually};
use std::process::Child;

/// A pinentry, and where its buttons are: so far from the right and the lower edge of its window.
struct Look {
    name: &'static str,
    program: &'static str,
    yes: (u32, u32),
    no: (u32, u32),
}

const LOOKS: [Look; 2] = [
    Look { name: "gtk-2", program: "/usr/bin/pinentry-gtk-2", yes: (60, 26), no: (160, 26) },
    Look { name: "qt", program: "/usr/bin/pinentry-qt", yes: (140, 23), no: (55, 23) },
];

fn asked_by(look: &Look) -> Sandbox {
    let sandbox = Sandbox::with_token(b"tok");
    sandbox.policy("approver.command=");
    sandbox.policy(&format!("approver.pinentry={}", look.program));
    sandbox
}

fn unlocked_on(desktop: &Desktop<'_>, sandbox: &Sandbox) {
    sandbox.keyloan(&["lock"]).run().ok();
    desktop.on(sandbox.keyed(PASSPHRASE, &["unlock", "--passphrase-fd", "3"])).run().ok();
}

fn lend(sandbox: &Sandbox, words: &[&str]) -> Child {
    sandbox.with_secrets(&[&["--", "echo"], words].concat()).start()
}

fn click(desktop: &Desktop<'_>, seen: &Seen, (right, bottom): (u32, u32)) {
    let (x, y) = ((seen.width - right).to_string(), (seen.height - bottom).to_string());
    desktop.xdotool(&["mousemove", "--window", &seen.id, &x, &y, "click", "1"]).ok();
}

/// Two noes in a row would close this way of asking for a while.
fn allow(desktop: &Desktop<'_>, sandbox: &Sandbox) {
    let asking = lend(sandbox, &["allowed"]);
    desktop.window();
    desktop.answer(PIN);
    assert_eq!(finished(asking).ok().text(), "allowed\n");
    desktop.no_window();
}

#[test]
fn a_click_on_allow_wants_the_pin_and_one_on_deny_denies_even_with_it() {
    for look in &LOOKS {
        let sandbox = asked_by(look);
        let desktop = Desktop::open(&sandbox);
        unlocked_on(&desktop, &sandbox);
        let asking = lend(&sandbox, &["clicked"]);
        let seen = desktop.window();
        desktop.xdotool(&["type", PIN]).ok();
        keep_picture(&desktop, &seen, &format!("{}-pin-typed", look.name));
        click(&desktop, &seen, look.yes);
        assert_eq!(finished(asking).ok().text(), "clicked\n", "{}", look.name);
        desktop.no_window();

        for (typed, button) in [("", look.yes), (PIN, look.no), ("", look.no)] {
            let asking = lend(&sandbox, &["clicked"]);
            let seen = desktop.window();
            if !typed.is_empty() {
                desktop.xdotool(&["type", typed]).ok();
            }
            click(&desktop, &seen, button);
            finished(asking).refused(125, "it was declined");
            desktop.no_window();
            allow(&desktop, &sandbox);
        }
        assert_eq!(sandbox.events("lent").len(), 4);
    }
}

#[test]
fn on_a_page_enter_and_escape_deny_and_only_its_button_turns_it() {
    for look in &LOOKS {
        let sandbox = asked_by(look);
        let desktop = Desktop::open(&sandbox);
        unlocked_on(&desktop, &sandbox);
        let long = "word ".repeat(110);
        for key in ["Return", "Escape"] {
            let asking = lend(&sandbox, &[&long, &long]);
            desktop.window();
            desktop.press(key);
            finished(asking).refused(125, "it was declined");
            desktop.no_window();
            allow(&desktop, &sandbox);
        }
        let asking = lend(&sandbox, &[&long, &long]);
        let mut seen = desktop.window();
        let mut pages = 1;
        // The last one has the PIN's entry in place of the button.
        loop {
            click(&desktop, &seen, look.yes);
            eventually("the next page opens, or the question is over", || {
                desktop.find().is_none_or(|next| next != seen)
            });
            if sandbox.status()["pending"] == 0 {
                break;
            }
            seen = desktop.window();
            pages += 1;
        }
        assert!(pages > 1, "{}", look.name);
        finished(asking).refused(125, "it was declined");
    }
}

#[test]
fn an_enter_that_was_meant_for_something_else_does_nothing() {
    for look in &LOOKS {
        let sandbox = asked_by(look);
        let desktop = Desktop::open(&sandbox);
        unlocked_on(&desktop, &sandbox);
        let mut survived = 0;
        // On a machine that is slow enough the key is late, and an answer; it is none that allows.
        for _ in 0..10 {
            let asking = lend(&sandbox, &["late"]);
            // In one go, as soon as the window is there.
            let find = ["search", "--sync", "--onlyvisible", "--name", "^keyloan$"];
            let press = ["mousemove", "--window", "%1", "30", "10", "key", "--window", "0", "Return"];
            desktop.xdotool(&[&find[..], &press].concat());
            std::thread::sleep(std::time::Duration::from_millis(500));
            if sandbox.status()["pending"] == 1 {
                survived += 1;
                desktop.window();
                desktop.answer(PIN);
                assert_eq!(finished(asking).ok().text(), "late\n");
                break;
            }
            finished(asking).refused(125, "it was declined");
            allow(&desktop, &sandbox);
        }
        assert_eq!(survived, 1, "{}: an early Enter never did nothing", look.name);
    }
}

#[test]
fn what_looks_like_markup_takes_as_much_room_as_what_does_not() {
    for look in &LOOKS {
        let sandbox = asked_by(look);
        let desktop = Desktop::open(&sandbox);
        unlocked_on(&desktop, &sandbox);
        let markup = "<b>bold</b><br>&amp;<h1>Allowed</h1><!--".to_owned();
        let mut seen = Vec::new();
        for (name, text) in [("markup", markup.clone()), ("no-markup", markup.replace(['<', '>', '&'], "+"))]
        {
            let asking = sandbox.with_secrets(&["--only", "TWINE_PASSWORD", "--", "echo", &text]).start();
            let window = desktop.window();
            keep_picture(&desktop, &window, &format!("{}-{name}", look.name));
            seen.push(window);
            desktop.answer(PIN);
            assert_eq!(finished(asking).ok().text().trim(), text.trim());
            desktop.no_window();
        }
        // But for a line that a longer pid takes; without its line ends it would be half as high.
        assert!(
            seen[0].height.abs_diff(seen[1].height) < 40,
            "{}: it was taken for markup: {seen:?}",
            look.name
        );
    }
}

#[test]
fn a_notification_is_on_the_screen_beside_the_window() {
    let sandbox = asked_by(&LOOKS[0]);
    let desktop = Desktop::open(&sandbox);
    let notifications = Notifications::serve(&sandbox, &desktop);
    unlocked_on(&desktop, &sandbox);
    let asking = lend(&sandbox, &["announced"]);
    desktop.window();
    eventually("it is announced", || notifications.shown() == 1);
    let picture = desktop.picture_of_all(&pictures(), "notification");
    assert!(std::fs::read(picture).unwrap().starts_with(b"\x89PNG"));
    desktop.answer(PIN);
    finished(asking).ok();
}
