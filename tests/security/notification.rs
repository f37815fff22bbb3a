//! Row 16b: notifications announce and never approve.

use keyloan_e2e::desktop::Desktop;
use keyloan_e2e::notification::Notifications;
use keyloan_e2e::programs::needed;
use keyloan_e2e::sandbox::finished;
use keyloan_e2e::sshd::Ssh;
use keyloan_e2e::terminal::Terminal;
use keyloan_e2e::{PASSPHRASE, Running, Sandbox, eventually};

/// A program that takes a click on its notification for a yes.
const VICTIM: &str =
    "[ \"$(notify-send --wait --action=default=Allow -- 'allow?' '')\" = default ] && echo approved";

fn unlocked_on(desktop: &Desktop<'_>, sandbox: &Sandbox, pinentry: &str) {
    sandbox.policy("approver.command=");
    sandbox.policy(&format!("approver.pinentry={pinentry}"));
    sandbox.keyloan(&["lock"]).run().ok();
    desktop.on(sandbox.keyed(PASSPHRASE, &["unlock", "--passphrase-fd", "3"])).run().ok();
}

#[test]
fn a_notification_says_that_a_question_waits_and_a_forged_click_on_it_is_no_yes() {
    let sandbox = Sandbox::with_token(b"tok");
    let desktop = Desktop::open(&sandbox);
    let notifications = Notifications::serve(&sandbox, &desktop);
    let victim = desktop.on(sandbox.command(needed("sh"), &["-c", VICTIM])).start();
    eventually("the victim asks", || notifications.shown() == 1);
    notifications.dunst(&["action", "0"]).ok();
    assert_eq!(finished(victim).ok().text(), "approved\n", "anybody clicks");

    unlocked_on(&desktop, &sandbox, "/usr/bin/pinentry-gtk-2");
    let lend = || sandbox.with_secrets(&["--", "printenv", "TWINE_PASSWORD"]).start();
    let asking = lend();
    desktop.window();
    eventually("it is announced", || notifications.shown() == 1);
    let sent = notifications.sent();
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].title, "keyloan: a question waits");
    let body = format!("in a window on display {}: lend 2 variables to a command", desktop.display);
    assert_eq!(sent[0].body, body);
    assert!(sent[0].actions.is_empty(), "{sent:?}");
    desktop.press("Escape");
    finished(asking).refused(125, "it was declined");
    eventually("it goes with the question", || notifications.shown() == 0);

    let asking = lend();
    desktop.window();
    eventually("it is announced", || notifications.shown() == 1);
    // Through the server, and past it: what the server would say, said by anybody.
    notifications.dunst(&["action", "0"]).ok();
    let bus = format!("--address={}", desktop.bus());
    let signal = ["/org/freedesktop/Notifications", "org.freedesktop.Notifications", "ActionInvoked", "us"];
    for id in 1..20_u32 {
        let id = id.to_string();
        let emit = [&[&bus, "emit"], &signal[..], &[&id, "default"]].concat();
        sandbox.command(needed("busctl"), &emit).run().ok();
    }
    notifications.dunst(&["close-all"]).ok();
    eventually("it is clicked away", || notifications.shown() == 0);
    assert_eq!(sandbox.status()["pending"], 1, "the question stands");
    desktop.press("Escape");
    finished(asking).refused(125, "it was declined");
    assert!(sandbox.events("lent").is_empty());
}

#[test]
fn a_question_on_another_terminal_and_a_client_that_waits_for_the_vault_are_announced() {
    let sandbox = Sandbox::with_token(b"tok");
    let desktop = Desktop::open(&sandbox);
    let notifications = Notifications::serve(&sandbox, &desktop);
    let ssh = Ssh::of(&sandbox);
    let key = ssh.key("work", &["ed25519"]);
    ssh.store("work", &[]);
    // No window can be opened there.
    unlocked_on(&desktop, &sandbox, "/usr/bin/pinentry-curses");
    let terminal = Terminal::open(&sandbox);
    terminal.run("with-secrets -- true; echo ended $?");
    terminal.expect("PIN to allow");
    eventually("it is announced", || notifications.shown() == 1);
    let body = notifications.sent().pop().unwrap().body;
    assert!(body.starts_with("on pts/") && body.ends_with(": lend 2 variables to a command"), "{body}");
    terminal.press("Enter");
    terminal.expect("ended 125");
    eventually("it goes with the question", || notifications.shown() == 0);

    sandbox.keyloan(&["lock"]).run().ok();
    let public = format!("{key}.pub");
    let file = sandbox.write("project/file", "text").display().to_string();
    let sign = ["-Y", "sign", "-n", "file", "-f", &public, &file];
    let mut waiting = Running(ssh.client("ssh-keygen", &sign).start());
    eventually("that it waits is said", || notifications.shown() == 1);
    let body = notifications.sent().pop().unwrap().body;
    assert_eq!(body, "an ssh client waits for the vault; to open it: keyloan unlock");
    waiting.end();
    eventually("it goes with the client", || notifications.shown() == 0);
}

#[test]
fn a_terminal_that_answers_from_now_on_is_told_where_it_was_asked_before() {
    let sandbox = Sandbox::with_token(b"tok");
    let desktop = Desktop::open(&sandbox);
    let notifications = Notifications::serve(&sandbox, &desktop);
    unlocked_on(&desktop, &sandbox, "/usr/bin/pinentry-gtk-2");
    let terminal = Terminal::open(&sandbox);
    for lock in [false, true] {
        if lock {
            sandbox.keyloan(&["lock"]).run().ok();
        }
        sandbox.write("passphrase", PASSPHRASE);
        terminal.run("clear; keyloan approve --passphrase-fd 3 3<../passphrase; echo ended $?");
        terminal.expect("nothing is asked here");
        let count = 1 + usize::from(lock);
        eventually("it is told", || notifications.sent().len() == count);
        let told = notifications.sent().pop().unwrap();
        assert_eq!(told.title, "keyloan: a terminal answers");
        assert!(told.body.ends_with("answers from now on (keyloan approve)"), "{}", told.body);
        assert!(told.actions.is_empty());
        terminal.type_text("q");
        terminal.expect("ended 0");
    }
}

#[test]
fn a_flood_of_refusals_makes_one_notification_without_a_word_of_the_requesters() {
    let sandbox = Sandbox::with_token(b"tok");
    let desktop = Desktop::open(&sandbox);
    let notifications = Notifications::serve(&sandbox, &desktop);
    sandbox.policy("item.write=deny");
    unlocked_on(&desktop, &sandbox, "/usr/bin/pinentry-gtk-2");
    let name = "<b>x</b> <a href=\"https:/evil.example\">&amp;\\033[2J";
    for _ in 0..30 {
        sandbox.keyloan(&["item", "set", name, "field"]).stdin("x").run().refused(5, "item.write=deny");
    }
    eventually("one is shown", || notifications.shown() == 1);
    let sent = notifications.sent();
    assert_eq!(sent.len(), 1, "{sent:?}");
    assert_eq!(sent[0].title, "keyloan: a rule refused a request");
    assert_eq!(sent[0].body, "store a value in the vault (item.write=deny)", "no text of the requester");
    assert!(sent[0].actions.is_empty());
    // Questions that nobody lets stand are announced to nobody, and on a slow machine to nobody often.
    let started = std::time::Instant::now();
    for _ in 0..10 {
        let mut asking = sandbox.with_secrets(&["--", "true"]).start();
        eventually("it is asked", || sandbox.status()["pending"] == 1);
        asking.kill().unwrap();
        asking.wait().unwrap();
        eventually("it is over", || sandbox.status()["pending"] == 0);
        sandbox.unlock().ok();
    }
    let most = 1 + started.elapsed().as_secs() / 5;
    assert!(notifications.sent().len() as u64 <= most, "{:?}", notifications.sent());
}

#[test]
fn without_a_bus_or_a_server_a_question_is_asked_as_ever() {
    let sandbox = Sandbox::with_token(b"tok");
    let mut desktop = Desktop::open(&sandbox);
    unlocked_on(&desktop, &sandbox, "/usr/bin/pinentry-curses");
    desktop.log_out();
    let terminal = Terminal::open(&sandbox);
    terminal.run("with-secrets -- printenv TWINE_PASSWORD; echo ended $?");
    terminal.expect("PIN to allow");
    std::thread::sleep(std::time::Duration::from_secs(2));
    terminal.type_text(keyloan_e2e::PIN);
    terminal.press("Enter");
    terminal.expect("ended 0");
}
