//! A wall clock that is moved while something runs out. The wall clock of the daemon and of the victim, and no other
//! clock of theirs, is one of libfaketime, which reads from a file how far it is off.

use keyloan_e2e::sandbox::Run;
use keyloan_e2e::terminal::Terminal;
use keyloan_e2e::{PIN, Running, Sandbox, eventually};

const PROMPT: &str = "PIN to allow, Enter alone to decline:";

/// Of Debian's libfaketime, for programs with threads; `$LIB` is for the loader, ld.so(8).
const LIBRARY: &str = "/usr/$LIB/faketime/libfaketimeMT.so.1";

/// Says yes for five minutes after a yes, and no for five minutes after a no, as programs do that keep a file's time.
const VICTIM: &str = "since() { echo $(($(date +%s) - $(cat $1 2>/dev/null || echo 0))); }\n\
                      [ $(since yes) -lt 300 ] && echo allowed\n\
                      [ $(since no) -ge 300 ] && echo asks\n:";

fn under(sandbox: &Sandbox, run: Run) -> Run {
    run.env("LD_PRELOAD", LIBRARY)
        .env("FAKETIME_TIMESTAMP_FILE", sandbox.path("wall"))
        .env("FAKETIME_NO_CACHE", "1")
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
}

/// The vault's daemon anew, with a wall clock that can be moved; asked on terminals.
fn with_wall_clock(policies: &[&str]) -> (Sandbox, Running) {
    let sandbox = Sandbox::with_token(b"tok");
    sandbox.policies(&[&["approver.command="], policies].concat());
    sandbox.stop();
    sandbox.write("wall", "+0");
    let run = sandbox.command("/bin/sh", &["-c", "exec keyloand run"]);
    let daemon = Running(under(&sandbox, run).start());
    eventually("the daemon listens", || sandbox.socket().exists());
    sandbox.unlock().ok();
    (sandbox, daemon)
}

fn victim(sandbox: &Sandbox) -> String {
    under(sandbox, sandbox.command("/bin/sh", &["-c", VICTIM])).run().ok().text()
}

/// Moves the clock of all that reads it.
fn move_clock(sandbox: &Sandbox, by: &str) {
    std::fs::rename(sandbox.write("wall.new", by), sandbox.path("wall")).unwrap();
}

/// The daemon's clock goes with it: what it wrote down last is years away from what it wrote down first.
fn assert_moved(sandbox: &Sandbox) {
    let text = std::fs::read_to_string(sandbox.log()).unwrap();
    let year = |line: &str| {
        serde_json::from_str::<serde_json::Value>(line).unwrap()["time"].to_string()[..5].to_owned()
    };
    assert_ne!(year(text.lines().next().unwrap()), year(text.lines().last().unwrap()));
}

fn stamp(sandbox: &Sandbox, name: &str) {
    let line = format!("date +%s >{name}");
    under(sandbox, sandbox.command("/bin/sh", &["-c", &line])).run().ok();
}

fn refused(terminal: &Terminal<'_>, why: &str) {
    terminal.run("clear; with-secrets -- true; echo ended $?");
    let shown = terminal.expect("ended 125");
    assert!(shown.contains(why) && !shown.contains(PROMPT), "{shown}");
}

#[test]
fn a_clock_put_back_prolongs_no_yes_no_question_and_no_open_vault() {
    let (sandbox, _daemon) = with_wall_clock(&["grants=10m", "deadline=15s", "lock.idle=5m"]);
    let terminal = Terminal::open(&sandbox);
    terminal.run("sh -c 'with-secrets -- true; echo given $?; sleep 1000'");
    terminal.expect(PROMPT);
    terminal.type_text(&format!("{PIN}+10m"));
    terminal.press("Enter");
    terminal.expect("given 0");
    stamp(&sandbox, "yes");
    let left = || {
        let text = sandbox.keyloan(&["grants", "--json"]).run().ok().text();
        let at = text.find("\"seconds_left\"").unwrap();
        let digits = text[at..].chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit);
        digits.collect::<String>().parse::<u64>().unwrap()
    };
    let before = left();
    let other = Terminal::sized(&sandbox, "other", 150, 50);
    other.run("with-secrets -- true; echo ended $?");
    other.expect(PROMPT);
    move_clock(&sandbox, "-1000d");
    assert!(victim(&sandbox).contains("allowed"), "for a thousand days and five minutes");
    // Not after a thousand days and fifteen seconds.
    assert!(other.expect("ended 125").contains("nobody answered within 15 seconds"));
    assert_moved(&sandbox);
    assert!(left() < before);
    assert!(sandbox.status()["locks_in_seconds"].as_u64().unwrap() <= 300);
}

#[test]
fn a_clock_put_forward_ends_no_pause_after_two_noes_and_no_limit() {
    let (sandbox, _daemon) = with_wall_clock(&["item.read=allow 1/1h"]);
    sandbox.keyloan(&["item", "get", "pypi", "token"]).run().ok();
    let terminal = Terminal::open(&sandbox);
    stamp(&sandbox, "no");
    assert_eq!(victim(&sandbox), "", "it is closed");
    for _ in 0..2 {
        terminal.run("clear; with-secrets -- true; echo ended $?");
        terminal.expect(PROMPT);
        terminal.press("Enter");
        terminal.expect("ended 125");
    }
    move_clock(&sandbox, "+1000d");
    refused(&terminal, "it may ask again in");
    assert_moved(&sandbox);
    assert_eq!(victim(&sandbox), "asks\n", "it is open again");
    sandbox.keyloan(&["item", "get", "pypi", "token"]).run().refused(6, "there is no way to ask");
}

#[test]
fn a_clock_put_forward_opens_no_way_that_wrong_pins_closed() {
    let (sandbox, _daemon) = with_wall_clock(&[]);
    let [guessing, other] = ["guessing", "other"].map(|name| Terminal::sized(&sandbox, name, 150, 50));
    stamp(&sandbox, "no");
    guessing.run("with-secrets -- true; echo ended $?");
    guessing.expect(PROMPT);
    for count in 1..=3 {
        guessing.type_text("0000");
        guessing.press("Enter");
        eventually("the wrong PIN is written down", || sandbox.events("pin_failed").len() == count);
    }
    move_clock(&sandbox, "+1000d");
    refused(&other, "after wrong PINs this way of asking is closed");
    assert_moved(&sandbox);
    assert_eq!(victim(&sandbox), "asks\n", "it is open again");
}
