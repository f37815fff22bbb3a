//! Row 13: input that nobody typed, put into the terminal of a question by other ways than `tmux send-keys`. The
//! undefended victim is a prompt that takes y.

use crate::attack;
use keyloan_e2e::programs::needed;
use keyloan_e2e::terminal::Terminal;
use keyloan_e2e::{PASSPHRASE, PIN, Sandbox, eventually};

const PROMPT: &str = "PIN to allow, Enter alone to decline:";
const ASK: &str = "read -p 'allow? ' a; [ \"$a\" = y ] && echo approved-$((40+2))";

fn asked_on_terminals() -> Sandbox {
    let sandbox = Sandbox::with_token(b"tok");
    sandbox.policy("approver.command=");
    sandbox
}

/// It ends with a no: by what was pushed in, or, where the question still stands after a wrong PIN, by a person's Enter.
fn declined(terminal: &Terminal<'_>) {
    eventually("it is declined", || {
        std::thread::sleep(std::time::Duration::from_millis(200));
        let over = terminal.screen().contains("ended 125");
        if !over {
            terminal.press("Enter");
        }
        over
    });
}

/// A person allows something, which ends the pause after two noes and the count of wrong PINs.
fn allowed(terminal: &Terminal<'_>) {
    terminal.run("clear; with-secrets -- true; echo ended $?");
    terminal.expect(PROMPT);
    terminal.type_text(PIN);
    terminal.press("Enter");
    terminal.expect("ended 0");
}

/// Puts the text into the input of its own terminal, as `TIOCSTI` of `ioctl_tty`(2) lets it.
const PUSH: &str = r#"
import fcntl, sys, termios, time
time.sleep(float(sys.argv[1]))
with open("/dev/tty") as terminal:
    for byte in sys.argv[2].encode(): fcntl.ioctl(terminal, termios.TIOCSTI, bytes([byte]))
open("pushed", "w").write("pushed")
"#;

#[test]
fn bytes_pushed_into_its_own_terminal_by_a_job_in_the_background_do_not_approve() {
    let sandbox = asked_on_terminals();
    sandbox.write("project/push", PUSH);
    let terminal = Terminal::open(&sandbox);
    let legacy = std::fs::read_to_string("/proc/sys/dev/tty/legacy_tiocsti");
    let pushed = sandbox.path("project/pushed");
    if legacy.is_ok_and(|legacy| legacy.trim() == "0") {
        // A kernel that refuses it to everybody: that it does is all that is left to show.
        terminal.run("python3 push 0 y; echo ended $?");
        terminal.expect("ended 1");
        return assert!(!pushed.exists());
    }
    terminal.run(&format!("python3 push 1 $'y\\n' & {ASK}"));
    terminal.expect("approved-42");
    for typed in ["\n", "y\n\n", "yes\n0000\n\n"] {
        let _ = std::fs::remove_file(&pushed);
        terminal.run(&format!(
            "clear; python3 push 1.5 $'{}' & with-secrets -- printenv TWINE_PASSWORD; echo ended $?",
            typed.escape_default()
        ));
        terminal.expect(PROMPT);
        eventually("it pushed them", || pushed.exists());
        declined(&terminal);
        allowed(&terminal);
    }
    assert_eq!(sandbox.events("lent").len(), 3, "what a person allowed, and nothing else");
}

/// Takes the other end of a terminal from the program that drives it (`pidfd_getfd`(2)) and writes into it.
const STEAL: &str = r#"
import ctypes, fcntl, os, sys
pid, terminal, text = int(sys.argv[1]), sys.argv[2], sys.argv[3].encode()
libc = ctypes.CDLL(None, use_errno=True)
pidfd = libc.syscall(434, pid, 0)
for name in os.listdir(f"/proc/{pid}/fd"):
    if os.readlink(f"/proc/{pid}/fd/{name}") not in ("/dev/ptmx", "/dev/pts/ptmx"): continue
    taken = libc.syscall(438, pidfd, int(name), 0)
    number = ctypes.c_uint()
    # TIOCGPTN: which terminal it is the other end of.
    assert libc.ioctl(taken, ctypes.c_ulong(0x80045430), ctypes.byref(number)) == 0
    if f"/dev/pts/{number.value}" == terminal: os.write(taken, text); print("written")
"#;

#[test]
fn bytes_written_into_the_stolen_other_end_of_the_terminal_do_not_approve() {
    let sandbox = asked_on_terminals();
    let terminal = Terminal::open(&sandbox);
    let at = |format: &str| terminal.tmux(&["display-message", "-p", format]).ok().text().trim().to_owned();
    let (server, name) = (at("#{pid}"), at("#{pane_tty}"));
    let write = |text: &str| {
        let written = attack(&sandbox, STEAL, &[&server, &name, text]).ok().text();
        assert_eq!(written, "written\n");
    };
    terminal.run(ASK);
    eventually("it asks", || terminal.screen().lines().any(|line| line.starts_with("allow?")));
    write("y\r");
    terminal.expect("approved-42");
    for text in ["\r", "y\r\r", "\u{1b}", "\u{3}"] {
        terminal.run("clear; with-secrets -- printenv TWINE_PASSWORD; echo ended $?");
        terminal.expect(PROMPT);
        // After that time what is typed counts.
        std::thread::sleep(std::time::Duration::from_millis(500));
        write(text);
        declined(&terminal);
        allowed(&terminal);
    }
    assert_eq!(sandbox.events("lent").len(), 4, "what a person allowed, and nothing else");
}

#[test]
fn what_is_written_to_the_terminal_of_a_question_is_no_answer() {
    let sandbox = asked_on_terminals();
    let terminal = Terminal::open(&sandbox);
    let name = terminal.tmux(&["display-message", "-p", "#{pane_tty}"]).ok().text();
    // Terminals answer some sequences as if somebody had typed (here: where is the cursor?). The victim takes any
    // answer but an empty one for a yes.
    let ask_it = || sandbox.command("/bin/sh", &["-c", "printf '\\033[6n' >$0", name.trim()]).run().ok();
    terminal.run("read -n 1 -p 'press any key to allow ' a && echo approved-$((40+2))");
    eventually("it asks", || terminal.screen().lines().any(|line| line.starts_with("press any key")));
    ask_it();
    terminal.expect("approved-42");
    terminal.run("clear; with-secrets -- printenv TWINE_PASSWORD; echo ended $?");
    terminal.expect(PROMPT);
    std::thread::sleep(std::time::Duration::from_millis(500));
    ask_it();
    // The answer begins with Escape, and that declines.
    terminal.expect("ended 125");
    assert!(sandbox.events("lent").is_empty());
}

/// Asks on the terminal that whoever asks names, as a pinentry asked by `gpg-agent` does.
const NAIVE: &str =
    "exec <\"$GPG_TTY\" >\"$GPG_TTY\"; printf 'allow? '; read a; [ \"$a\" = y ] && echo approved-42";

#[test]
fn a_requester_that_names_the_attackers_terminal_is_not_asked_there() {
    let sandbox = asked_on_terminals();
    let users = Terminal::open(&sandbox);
    let evils = Terminal::sized(&sandbox, "evil", 100, 40);
    let name = evils.tmux(&["display-message", "-p", "#{pane_tty}"]).ok().text().trim().to_owned();
    evils.run("stty -a >/dev/null; sleep 1000");
    sandbox.write("project/naive", NAIVE);
    users.run(&format!("GPG_TTY={name} setsid -w {} ./naive", needed("sh").display()));
    evils.expect("allow?");
    evils.type_text("y");
    evils.press("Enter");
    evils.expect("approved-42");
    evils.tmux(&["send-keys", "-R"]).ok();
    for variable in ["GPG_TTY", "SSH_TTY", "TTY"] {
        users.run(&format!("clear; {variable}={name} with-secrets -- true <{name} >{name}; echo ended $?"));
        users.expect(PROMPT);
        assert!(!evils.screen().contains("keyloan: lend"), "{}", evils.screen());
        users.type_text(PIN);
        users.press("Enter");
        users.expect("ended 0");
    }
}

#[test]
fn a_terminal_that_gets_the_number_of_the_one_of_the_unlock_is_not_told_and_not_trusted() {
    let sandbox = asked_on_terminals();
    let name = |terminal: &Terminal<'_>| {
        terminal.tmux(&["display-message", "-p", "#{pane_tty}"]).ok().text().trim().to_owned()
    };
    let users = Terminal::sized(&sandbox, "users", 100, 40);
    users.run("keyloan lock; keyloan unlock; echo unlocked $?");
    users.expect("Passphrase, Enter alone to decline:");
    users.type_text(PASSPHRASE);
    users.press("Enter");
    users.expect("unlocked 0");
    let number = name(&users);
    let second = Terminal::sized(&sandbox, "second", 150, 50);
    drop(users);
    // The lowest number that is free is given out next; a test beside this one may be faster.
    let mut opened = Vec::new();
    eventually("the attacker has it", || {
        opened.push(Terminal::sized(&sandbox, &format!("evil-{}", opened.len()), 100, 40));
        opened.last().is_some_and(|last| name(last) == number)
    });
    let evils = opened.last().unwrap();
    // The undefended victim: whoever remembers a terminal by its name tells another one.
    sandbox.command("/bin/sh", &["-c", &format!("echo somebody asks >{number}")]).run().ok();
    evils.expect("somebody asks");
    second.run("with-secrets -- true; echo ended $?");
    second.expect(PROMPT);
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert!(!evils.screen().contains("keyloan: asking on"), "{}", evils.screen());
    second.press("Enter");
    second.expect("ended 125");
    for wrong in 1..=3 {
        if wrong == 1 {
            evils.run("with-secrets -- true; echo ended $?");
            evils.expect(PROMPT);
        }
        evils.type_text("0000");
        evils.press("Enter");
        eventually("the wrong PIN is written down", || sandbox.events("pin_failed").len() == wrong);
    }
    evils.expect("ended 125");
    // They were counted with those of every other terminal.
    second.run("clear; with-secrets -- true; echo ended $?");
    assert!(second.expect("ended 125").contains("after wrong PINs"));
}
