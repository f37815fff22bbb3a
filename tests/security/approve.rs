//! Rows 11 to 16c where a terminal answers: `keyloan approve`.

use crate::attack;
use keyloan_e2e::terminal::Terminal;
use keyloan_e2e::{PASSPHRASE, PIN, Sandbox, eventually, wire};

const ON_BOARD: &str = "a allow, with the PIN";
const IDLE: &str = "nothing is asked here";

fn asked_on_terminals() -> Sandbox {
    let sandbox = Sandbox::with_token(b"tok");
    sandbox.policy("approver.command=");
    sandbox.write("passphrase", PASSPHRASE);
    sandbox
}

fn board<'a>(sandbox: &'a Sandbox, name: &str) -> Terminal<'a> {
    let terminal = Terminal::sized(sandbox, name, 80, 24);
    terminal.run("keyloan approve --passphrase-fd 3 3<../passphrase; echo ended $?");
    terminal.expect(IDLE);
    terminal
}

#[test]
fn nothing_answers_without_the_passphrase() {
    let sandbox = asked_on_terminals();
    let frame = wire::frame(r#"{"version":1,"body":"approve"}"#, b"");
    let answer = wire::exchange(&sandbox, &frame);
    assert!(String::from_utf8_lossy(&answer).contains("there is no way to ask"));
    sandbox.keyloan(&["approve"]).run().refused(6, "there is no way to ask");
    // A terminal of the attacker's own, whose keys are its own too.
    let terminal = Terminal::open(&sandbox);
    sandbox.write("guess", "guess");
    for descriptor in ["--passphrase-fd 3 3<../guess", ""] {
        terminal.run(&format!("keyloan approve {descriptor}; echo ended $?"));
        if descriptor.is_empty() {
            for _ in 0..3 {
                terminal.expect("Passphrase, Enter alone to decline:");
                terminal.tmux(&["send-keys", "-R"]).ok();
                terminal.type_text("guess");
                terminal.press("Enter");
            }
        }
        terminal.expect("ended 6");
    }
    // Nor the PIN, which is for less.
    sandbox.write("guess", PIN);
    terminal.run("keyloan approve --passphrase-fd 3 3<../guess; echo ended $?");
    terminal.expect("ended 6");
    assert!(sandbox.events("approver_enrolled").is_empty());
    assert_eq!(sandbox.events("unlock_failed").len(), 5);
    sandbox.with_secrets(&["--", "true"]).run().refused(125, "there is no way to ask");
}

#[test]
fn keys_pushed_into_the_terminal_that_answers_allow_nothing() {
    let sandbox = asked_on_terminals();
    let board = Terminal::sized(&sandbox, "board", 80, 24);
    let push = |keys: &[&str]| drop(board.tmux(&[&["send-keys"], keys].concat()).ok());
    // The undefended victim: a prompt that takes y or Enter.
    for keys in [["y", "Enter"], ["", "Enter"]] {
        board.run("read -p 'allow? [Y/n] ' a; [ \"$a\" != n ] && echo approved-$((40+2))");
        // Not the line that was typed, which says it too.
        eventually("it asks", || board.screen().lines().any(|line| line.starts_with("allow? [Y/n]")));
        push(&keys);
        board.expect("approved-42");
    }
    board.run("keyloan approve --passphrase-fd 3 3<../passphrase; echo ended $?");
    board.expect(IDLE);
    let asking = Terminal::open(&sandbox);
    asking.run("with-secrets -- printenv TWINE_PASSWORD; echo ended $?");
    board.expect(ON_BOARD);
    std::thread::sleep(std::time::Duration::from_millis(400));
    for keys in
        [&["y", "Enter"][..], &["Enter"], &["Y", "E", "S", "Enter"], &["Space", "Tab", "Enter"], &["a"]]
    {
        push(keys);
    }
    board.expect("PIN to allow, Enter alone goes back:");
    push(&["Enter"]);
    board.expect(ON_BOARD);
    push(&["a", "y", "Enter"]);
    board.expect("That is not the PIN.");
    // To send the question elsewhere allows nothing either.
    push(&["q"]);
    asking.expect("PIN to allow, Enter alone to decline:");
    asking.press("Enter");
    asking.expect("ended 125");
    assert!(sandbox.events("lent").is_empty());
}

#[test]
fn what_was_typed_before_a_question_stood_is_no_answer_to_it() {
    let sandbox = asked_on_terminals();
    let board = board(&sandbox, "board");
    for typed in [format!("a{PIN}"), "d".to_owned()] {
        board.type_text(&typed);
        board.press("Enter");
    }
    let mut asking = sandbox.with_secrets(&["--", "true"]).start();
    board.expect(ON_BOARD);
    std::thread::sleep(std::time::Duration::from_millis(600));
    assert!(board.screen().contains(ON_BOARD), "{}", board.screen());
    asking.kill().unwrap();
    asking.wait().unwrap();
    board.expect(IDLE);
    assert!(sandbox.events("approved").iter().all(|event| event["request"] != 3));
}

#[test]
fn a_question_painted_over_the_real_one_does_not_stay() {
    const FORGED: &str = "keyloan: lend nothing of value";
    let sandbox = asked_on_terminals();
    let board = Terminal::sized(&sandbox, "board", 80, 24);
    board.run("tty >tty; cat");
    eventually("it runs", || {
        std::fs::read_to_string(sandbox.path("project/tty")).is_ok_and(|tty| tty.ends_with('\n'))
    });
    let paint = format!("printf '\\033[3;1H\\033[2K{FORGED}' >$(cat tty)");
    let paint = || drop(sandbox.command("/bin/sh", &["-c", &paint]).run().ok());
    // The undefended victim: what is written over its screen stays there.
    paint();
    board.expect(FORGED);
    eventually("the shell is back", || {
        board.press("C-c");
        board.screen().contains("ready>")
    });
    board.run("keyloan approve --passphrase-fd 3 3<../passphrase; echo ended $?");
    board.expect(IDLE);
    let asking = sandbox.with_secrets(&["--", "true"]).start();
    board.expect(ON_BOARD);
    paint();
    eventually("the real one is back", || {
        let shown = board.screen();
        shown.contains("\nkeyloan: lend 2 variables to a command\n") && !shown.contains(FORGED)
    });
    board.type_text("q");
    keyloan_e2e::sandbox::finished(asking).refused(125, "there is no way to ask");
}

#[test]
fn a_program_with_escapes_in_its_path_repaints_nothing() {
    const FORGED: &str = "\u{1b}[2J\u{1b}[H\u{202e}x";
    let sandbox = asked_on_terminals();
    let own = sandbox.make_directory(&format!("project/{FORGED}")).join("with-secrets");
    sandbox.command("/bin/cp", &[&keyloan_e2e::programs::bin().join("keyloan"), &own]).run().ok();
    // The undefended victim shows the path as it is.
    let victim = Terminal::open(&sandbox);
    victim.run("echo before; echo */with-secrets; echo after");
    eventually("it is repainted", || {
        let shown = victim.screen();
        shown.contains("after") && !shown.contains("before")
    });
    let board = board(&sandbox, "board");
    let mut first = sandbox.command(&own, &["--", "true"]).start();
    board.expect(ON_BOARD);
    let mut second = sandbox.command(&own, &["--", "true"]).start();
    let shown = board.expect("1 more waits:");
    assert!(shown.starts_with("keyloan approve on pts/"), "{shown}");
    assert!(shown.matches("\\u{1b}[2J\\u{1b}[H\\u{202e}x").count() >= 1, "{shown}");
    for child in [&mut first, &mut second] {
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

/// Says what of a process another program of the user can read or take.
const READER: &str = r#"
import ctypes, sys
pid = int(sys.argv[1])
libc = ctypes.CDLL(None, use_errno=True)
for name in ("environ", "mem"):
    try:
        open(f"/proc/{pid}/{name}", "rb").close(); print(name)
    except OSError: pass
if libc.syscall(438, libc.syscall(434, pid, 0), 3, 0) >= 0: print("take")
"#;

#[test]
fn the_client_that_holds_the_terminal_cannot_be_read_and_its_connection_not_taken() {
    let sandbox = asked_on_terminals();
    let reads = |pid: String| attack(&sandbox, READER, &[&pid]).ok().text();
    let mut victim = sandbox.command("/bin/sh", &["-c", "exec 3</dev/null; exec sleep 60"]).start();
    eventually("the victim runs", || reads(victim.id().to_string()) == "environ\nmem\ntake\n");
    victim.kill().unwrap();
    victim.wait().unwrap();
    let _board = board(&sandbox, "board");
    let client = || sandbox.events("approver_enrolled")[0]["by"]["pid"].to_string();
    eventually("it cannot be read", || reads(client()).is_empty());
}
