//! Who is asked, and who where that one is not there: `approver.order`, and askpass programs.

use keyloan_e2e::approver::{ALLOW, DENY};
use keyloan_e2e::desktop::Desktop;
use keyloan_e2e::sandbox::finished;
use keyloan_e2e::terminal::Terminal;
use keyloan_e2e::{PASSPHRASE, PIN, Sandbox, eventually};

const OWN: &str = "PIN to allow, Enter alone to decline:";
const GNOME: &str = "/usr/lib/openssh/gnome-ssh-askpass";
const ASK: &str = "with-secrets -- printenv TWINE_PASSWORD; echo ended $?";

/// A vault with a token and a trusted file, without an approver program, with these settings.
fn asked(settings: &[&str]) -> Sandbox {
    let sandbox = Sandbox::with_token(b"tok");
    sandbox.policies(&[&["approver.command="], settings].concat());
    sandbox
}

fn unlocked_on(sandbox: &Sandbox, desktop: &Desktop<'_>) {
    sandbox.keyloan(&["lock"]).run().ok();
    desktop.on(sandbox.keyed(PASSPHRASE, &["unlock", "--passphrase-fd", "3"])).run().ok();
}

fn questions(sandbox: &Sandbox) -> String {
    sandbox.status()["questions"].as_str().unwrap().to_owned()
}

fn decided_by(sandbox: &Sandbox) -> String {
    sandbox.events("decided").last().unwrap()["approver"].as_str().unwrap().to_owned()
}

#[test]
fn the_first_way_that_is_there_is_asked_and_one_that_is_not_named_never() {
    let sandbox = asked(&["approver.order=terminal window", "approver.pinentry=/usr/bin/pinentry-gtk-2"]);
    let desktop = Desktop::open(&sandbox);
    unlocked_on(&sandbox, &desktop);
    assert!(
        questions(&sandbox)
            .starts_with("the requester's own terminal, with the PIN; else a window on display :"),
        "{}",
        questions(&sandbox)
    );
    let terminal = Terminal::open(&sandbox);
    terminal.run(ASK);
    terminal.expect(OWN);
    terminal.type_text(PIN);
    terminal.press("Enter");
    terminal.expect("\nended 0");
    assert_eq!(desktop.find(), None);
    // There is no terminal, so it is the window.
    let asking = sandbox.with_secrets(&["--", "printenv", "TWINE_PASSWORD"]).start();
    desktop.window();
    desktop.answer(PIN);
    assert_eq!(finished(asking).ok().text(), "tok\n");
    // Without the window nobody is left, although there is a desktop.
    sandbox.policy("approver.order=terminal");
    sandbox.with_secrets(&["--", "true"]).run().refused(
        125,
        "there is no way to ask: none of those in approver.order (terminal) is there\n\
         hint: keyloan status says which there are",
    );
    // And without the terminal not the terminal.
    sandbox.policy("approver.order=approve");
    assert!(questions(&sandbox).starts_with("nowhere, so they are refused"), "{}", questions(&sandbox));
    terminal.press("C-l");
    terminal.run(ASK);
    let shown = terminal.expect("\nended 125");
    assert!(shown.contains("approver.order (approve)") && !shown.contains("PIN to allow"), "{shown}");
}

#[test]
fn a_no_and_a_failure_are_final_whatever_stands_behind() {
    let sandbox = asked(&["approver.order=program terminal"]);
    let terminal = Terminal::open(&sandbox);
    let program = sandbox.set_approver(DENY);
    terminal.run(ASK);
    let shown = terminal.expect("\nended 125");
    assert!(shown.contains("it was declined") && !shown.contains("PIN to allow"), "{shown}");
    // Changed since it was set: that is no program that is absent.
    std::fs::write(program, ALLOW).unwrap();
    terminal.press("C-l");
    terminal.run(&format!("clear; {ASK}"));
    let shown = terminal.expect("\nended 125");
    assert!(shown.contains("it was changed after it was set") && !shown.contains("PIN to allow"), "{shown}");
    // Without it the terminal is the next.
    sandbox.policy("approver.command=");
    terminal.run(&format!("clear; {ASK}"));
    terminal.expect(OWN);
    terminal.press("Enter");
    terminal.expect("\nended 125");
}

#[test]
fn the_enrolled_terminal_can_stand_before_the_approver_program() {
    let sandbox = asked(&["approver.order=approve program"]);
    sandbox.set_approver(ALLOW);
    let ask = || sandbox.with_secrets(&["--", "printenv", "TWINE_PASSWORD"]);
    assert_eq!(ask().run().ok().text(), "tok\n");
    assert!(decided_by(&sandbox).starts_with("approver program /"), "{}", decided_by(&sandbox));
    let board = Terminal::open(&sandbox);
    board.run("keyloan approve");
    board.expect("Passphrase, Enter alone to decline:");
    board.type_text(PASSPHRASE);
    board.press("Enter");
    board.expect("nothing is asked here");
    assert!(questions(&sandbox).starts_with("keyloan approve on pts/"), "{}", questions(&sandbox));
    let asking = ask().start();
    board.expect("a allow, with the PIN");
    eventually("it is denied there", || {
        board.type_text("d");
        sandbox.status()["pending"] == 0
    });
    finished(asking).refused(125, "it was declined");
    // The terminal that is left is absent, for the question that stands there, too.
    let asking = ask().start();
    board.expect("a allow, with the PIN");
    board.press("C-c");
    assert_eq!(finished(asking).ok().text(), "tok\n");
    assert!(decided_by(&sandbox).starts_with("approver program /"), "{}", decided_by(&sandbox));
}

#[test]
fn only_to_leave_out_the_last_ways_needs_no_passphrase() {
    let sandbox = asked(&[]);
    let set = |order: &str| sandbox.keyloan(&["policy", "set", &format!("approver.order={order}")]).run();
    let no_passphrase = "there is no way to ask";
    set("terminal").refused(6, no_passphrase);
    set("approve program window terminal").refused(6, no_passphrase);
    set("program approve window terminal askpass").refused(6, no_passphrase);
    set("program approve window").ok();
    set("program approve").ok();
    set("program approve window").refused(6, no_passphrase);
    set("").refused(6, no_passphrase);
    let shown = sandbox.keyloan(&["policy", "show"]).run().ok().text();
    assert!(shown.contains("approver.order=program approve\n"), "{shown}");
    let askpass = ["policy", "set", &format!("approver.askpass={GNOME}")];
    sandbox.keyloan(&askpass).run().refused(6, no_passphrase);
}

/// The window of Debian's askpass program.
fn askpass_window(desktop: &Desktop<'_>) {
    eventually("the askpass program's window opens", || {
        desktop.xdotool(&["search", "--onlyvisible", "--name", "^OpenSSH"]).status == 0
    });
    // What is answered within 300 ms does not count.
    std::thread::sleep(std::time::Duration::from_millis(700));
}

#[test]
fn an_askpass_program_takes_the_pin_in_its_window() {
    let askpass = format!("approver.askpass={GNOME}");
    let sandbox = asked(&["approver.order=askpass terminal", &askpass]);
    let desktop = Desktop::open(&sandbox);
    let ask = || sandbox.with_secrets(&["--", "printenv", "TWINE_PASSWORD"]);
    // No desktop was passed on with the last unlock, so it is not there.
    ask().run().refused(125, "none of those in approver.order (askpass terminal) is there");
    unlocked_on(&sandbox, &desktop);
    let wanted = format!("the askpass program {GNOME} on display {}, with the PIN", desktop.display);
    assert_eq!(questions(&sandbox), wanted);

    let asking = ask().start();
    askpass_window(&desktop);
    desktop.answer(PIN);
    assert_eq!(finished(asking).ok().text(), "tok\n");
    assert_eq!(decided_by(&sandbox), format!("PIN in a window of {GNOME} on display {}", desktop.display));

    // A wrong one asks again; a right one covers what stands behind it.
    let asking = ask().start();
    askpass_window(&desktop);
    desktop.answer("1234");
    eventually("it is written down", || sandbox.events("pin_failed").len() == 1);
    askpass_window(&desktop);
    desktop.answer(&format!("{PIN}+c"));
    assert_eq!(finished(asking).ok().text(), "tok\n");
    assert_eq!(sandbox.events("granted").len(), 1, "the offer behind the PIN");

    for no in ["Escape", "Return"] {
        let asking = ask().start();
        askpass_window(&desktop);
        desktop.press(no);
        finished(asking).refused(125, "it was declined");
        // A yes in between, or two noes would close this way for a while.
        let asking = ask().start();
        askpass_window(&desktop);
        desktop.answer(PIN);
        finished(asking).ok();
    }

    // A requester that dies takes its window along.
    let mut asking = ask().start();
    askpass_window(&desktop);
    asking.kill().unwrap();
    asking.wait().unwrap();
    eventually("the window closes", || {
        desktop.xdotool(&["search", "--onlyvisible", "--name", "^OpenSSH"]).status != 0
    });
}

#[test]
fn an_askpass_program_gets_the_question_and_nothing_of_the_requester() {
    let sandbox = asked(&["approver.order=askpass"]);
    let kept = sandbox.path("project/kept");
    let program = format!(
        "#!/bin/sh\n{{ printf '%s\\n' \"$#\" \"$1\"; env; }} >{}\nsleep 1; echo {PIN}\n",
        kept.display()
    );
    let program = sandbox.write_program("project/askpass", program);
    sandbox.policy(&format!("approver.askpass={}", program.display()));
    let desktop = Desktop::open(&sandbox);
    unlocked_on(&sandbox, &desktop);
    let ask =
        || sandbox.with_secrets(&["--", "printenv", "TWINE_PASSWORD"]).env("SSH_ASKPASS_PROMPT", "confirm");
    assert_eq!(ask().run().ok().text(), "tok\n");
    let text = std::fs::read_to_string(&kept).unwrap();
    for part in [
        "1\nkeyloan: lend 2 variables to a command\n\n• lends:  TWINE_PASSWORD  from local://pypi/token",
        "(verified)\n",
        "• command:  printenv TWINE_PASSWORD  (claimed)\n",
        "• asked by:  ",
        "\n• PIN+c     ",
        "\n\nPIN to allow, nothing to decline:\n",
        "\nHOME=/\n",
        &format!("DISPLAY={}\n", desktop.display),
    ] {
        assert!(text.contains(part), "'{part}' is not in:\n{text}");
    }
    assert!(!text.contains("SSH_ASKPASS_PROMPT") && !text.contains("KEYLOAN"), "{text}");

    // Other endings are no; each is followed by a yes, or two of them would close this way.
    for (ending, said) in [
        (format!("sleep 1; echo {PIN}; exit 1"), "it was declined"),
        ("sleep 1".to_owned(), "it was declined"),
        ("sleep 1; yes".to_owned(), "longer than a PIN"),
        // What comes at once was not typed by anybody.
        (format!("echo {PIN}"), "it was declined"),
    ] {
        let set = |ending: &str| {
            sandbox.write_program("project/askpass", format!("#!/bin/sh\n{ending}\n"));
            sandbox.policy(&format!("approver.askpass={}", program.display()));
        };
        set(&ending);
        ask().run().refused(125, said);
        set(&format!("sleep 1; echo {PIN}"));
        ask().run().ok();
    }
    std::fs::write(&program, format!("#!/bin/sh\necho {PIN}\n")).unwrap();
    let path = program.display();
    let said = format!(
        "the askpass program {path}: it was changed after it was set\n\
         hint: if you changed it yourself, set it again: keyloan policy set approver.askpass={path}"
    );
    ask().run().refused(125, &said);
    let absent = ["policy", "set", "approver.askpass=/nonexistent", "--passphrase-fd", "3"];
    sandbox.keyed(PASSPHRASE, &absent).run().refused(2, "/nonexistent cannot be set: No such file");
}
