//! Rows 14 and 16a: the program in which a PIN is typed. The victim is the same pinentry, asked as most programs ask.

use crate::attack;
use crate::memory::READER;
use keyloan_e2e::desktop::Desktop;
use keyloan_e2e::programs::needed;
use keyloan_e2e::sandbox::finished;
use keyloan_e2e::terminal::Terminal;
use keyloan_e2e::{PASSPHRASE, PIN, Sandbox, eventually, window};

/// Long, so that it is found in memory for what it is.
const TYPED: &str = "typed73912084";

/// Asks for a PIN on pipes, with the arguments for a pinentry, and prints nothing before that is answered.
const VICTIM: &str = r#"
import subprocess, sys
p = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
open("victim", "w").write(f"{p.pid}\n")
p.stdout.readline()
p.stdin.write(b"SETTITLE keyloan\nGETPIN\n"); p.stdin.flush()
p.wait()
"#;

/// What another program of the user gets of a process that was typed into, of the ways that Linux offers.
fn meddled(sandbox: &Sandbox, pid: &str) -> Vec<String> {
    attack(sandbox, READER, &[pid, TYPED]).ok().text().lines().map(str::to_owned).collect()
}

fn asked_on(desktop: &Desktop<'_>, sandbox: &Sandbox, pinentry: &str) {
    sandbox.policies(&["approver.command=", &format!("approver.pinentry={pinentry}")]);
    sandbox.keyloan(&["lock"]).run().ok();
    desktop.on(sandbox.keyed(PASSPHRASE, &["unlock", "--passphrase-fd", "3"])).run().ok();
}

#[test]
fn a_window_that_a_pin_is_typed_into_cannot_be_read_answered_for_or_traced() {
    for pinentry in ["/usr/bin/pinentry-gtk-2", "/usr/bin/pinentry-qt"] {
        let sandbox = Sandbox::with_token(b"tok");
        let desktop = Desktop::open(&sandbox);
        let mut victim = desktop.on(sandbox.command(needed("python3"), &["-c", VICTIM, pinentry])).start();
        desktop.window();
        desktop.xdotool(&["type", TYPED]).ok();
        let pid = std::fs::read_to_string(sandbox.path("project/victim")).unwrap().trim().to_owned();
        // What is drawn of it comes after what was typed.
        eventually("all of the victim is had", || {
            meddled(&sandbox, &pid) == ["mem", "environ", "fd", "ptrace", "pidfd_getfd"]
        });
        sandbox.command("/bin/kill", &[&pid]).run().ok();
        victim.wait().unwrap();
        desktop.no_window();

        asked_on(&desktop, &sandbox, pinentry);
        let asking = sandbox.with_secrets(&["--", "true"]).start();
        desktop.window();
        desktop.xdotool(&["type", TYPED]).ok();
        let [pid] = window::pinentries(&sandbox)[..] else { panic!("one pinentry") };
        assert_eq!(meddled(&sandbox, &pid.to_string()), [""; 0], "{pinentry}");
        desktop.press("Escape");
        finished(asking).refused(125, "it was declined");
    }
}

#[test]
fn what_is_typed_on_a_terminal_is_in_no_process_that_the_attacker_can_read() {
    let sandbox = Sandbox::with_token(b"tok");
    sandbox.policy("approver.command=");
    let terminal = Terminal::open(&sandbox);
    let name = terminal.tmux(&["display-message", "-p", "#{pane_tty}"]).ok().text().trim().to_owned();
    // The undefended victim: a stock pinentry for terminals.
    sandbox.write("project/ask", VICTIM);
    terminal.run(&format!("python3 ask /usr/bin/pinentry-curses --ttyname {name} --ttytype screen"));
    terminal.expect("<OK>");
    terminal.type_text(TYPED);
    let pid = std::fs::read_to_string(sandbox.path("project/victim")).unwrap().trim().to_owned();
    eventually("it is found", || meddled(&sandbox, &pid).contains(&"mem".to_owned()));
    sandbox.command("/bin/kill", &[&pid]).run().ok();
    terminal.tmux(&["send-keys", "-R"]).ok();
    terminal.run("reset -I; clear; with-secrets -- true; echo ended $?");
    terminal.expect("PIN to allow");
    std::thread::sleep(std::time::Duration::from_millis(500));
    terminal.type_text(TYPED);
    let by = &sandbox.events("requested").pop().unwrap()["by"];
    assert!(!meddled(&sandbox, &by["pid"].to_string()).contains(&"mem".to_owned()));
    let daemon = sandbox.daemon().unwrap().to_string();
    assert_eq!(meddled(&sandbox, &daemon), [""; 0]);
    let children = sandbox.command(needed("pgrep"), &["-P", &daemon]).run().text();
    assert_eq!(children, "", "no child holds it either");
}

#[test]
fn path_and_pinentry_of_whoever_asks_or_unlocks_start_nothing() {
    let sandbox = Sandbox::with_token(b"tok");
    sandbox.policy("approver.command=");
    let desktop = Desktop::open(&sandbox);
    let mark = sandbox.path("project/mark");
    let evil = format!("#!/bin/sh\necho >{}\n", mark.display());
    sandbox.make_directory("project/evil");
    let names = ["pinentry", "pinentry-qt", "pinentry-gtk-2", "pinentry-gnome3", "notify-send", "keyloand"];
    for name in names {
        sandbox.write_program(&format!("project/evil/{name}"), &evil);
    }
    let mut path = sandbox.path("project/evil").into_os_string();
    path.push(":");
    path.push(&sandbox.environment().iter().find(|(name, _)| *name == "PATH").unwrap().1);
    let own = sandbox.path("project/evil/pinentry");
    let evils = |run: keyloan_e2e::sandbox::Run| {
        let run = ["PINENTRY", "PINENTRY_PROGRAM", "PINENTRY_BINARY"]
            .iter()
            .fold(run, |run, name| run.env(name, &own));
        desktop.on(run).env("PATH", &path).env("PINENTRY_USER_DATA", "USE_CURSES=1")
    };
    // The undefended victims find it by the path, or by the variable.
    for line in ["pinentry-qt </dev/null", "\"$PINENTRY\" </dev/null"] {
        evils(sandbox.command("/bin/sh", &["-c", line])).run().ok();
        assert!(std::fs::remove_file(&mark).is_ok(), "{line}");
    }
    // The daemon itself is started with them, too.
    sandbox.stop();
    evils(sandbox.keyloan(&["daemon", "start"])).run().ok();
    evils(sandbox.keyed(PASSPHRASE, &["unlock", "--passphrase-fd", "3"])).run().ok();
    let asking = evils(sandbox.with_secrets(&["--", "printenv", "TWINE_PASSWORD"])).start();
    desktop.window();
    desktop.answer(PIN);
    assert_eq!(finished(asking).ok().text(), "tok\n");
    assert!(!mark.exists());
}
