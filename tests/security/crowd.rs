//! Row 16: floods from many connections and from many terminals; copies of a request, to share its yes.

use crate::attack;
use crate::ssh::{HERE, both};
use keyloan_e2e::agent::{Host, login};
use keyloan_e2e::desktop::Desktop;
use keyloan_e2e::programs::{bin, needed};
use keyloan_e2e::sandbox::{Running, finished};
use keyloan_e2e::terminal::Terminal;
use keyloan_e2e::{PASSPHRASE, PIN, Sandbox, approver, eventually, wire};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read};

const PROMPT: &str = "PIN to allow, Enter alone to decline:";
const ON_BOARD: &str = "a allow, with the PIN";
const GET: &str = r#"{"version":1,"body":{"item_get":{"item":"pypi","field":"token"}}}"#;

fn asked_on_terminals(policy: &[&str]) -> Sandbox {
    let sandbox = Sandbox::with_token(b"tok");
    sandbox.policies(&[&["approver.command="], policy].concat());
    sandbox.write("passphrase", PASSPHRASE);
    sandbox
}

fn board(sandbox: &Sandbox) -> Terminal<'_> {
    let terminal = Terminal::sized(sandbox, "board", 100, 60);
    terminal.run("keyloan approve --passphrase-fd 3 3<../passphrase; echo ended $?");
    terminal.expect("nothing is asked here");
    terminal
}

/// The terminal of the last unlock.
fn home(sandbox: &Sandbox) -> Terminal<'_> {
    let terminal = Terminal::sized(sandbox, "home", 150, 50);
    terminal.run("keyloan unlock --here --passphrase-fd 3 3<../passphrase; echo unlocked $?");
    terminal.expect("unlocked 0");
    terminal
}

fn press_until(board: &Terminal<'_>, key: &str, what: &str, mut done: impl FnMut() -> bool) {
    eventually(what, || {
        board.type_text(key);
        done()
    });
}

fn allow(board: &Terminal<'_>) {
    press_until(board, "a", "the PIN is wanted", || {
        board.screen().contains("PIN to allow, Enter alone goes back:")
    });
    board.press("C-u");
    board.type_text(PIN);
    board.press("Enter");
}

/// Asks on 64 connections at once, each anew as soon as it is answered, until its input ends. Says when so many were
/// answered, and at the end what came how often.
const FLOOD: &str = r#"
import collections, json, selectors, socket, sys
path, frame, enough = sys.argv[1], sys.argv[2].encode(), int(sys.argv[3])
frame = (4 + len(frame)).to_bytes(4, "big") + len(frame).to_bytes(4, "big") + frame
select, came, total = selectors.DefaultSelector(), collections.Counter(), 0
def ask():
    s = socket.socket(socket.AF_UNIX); s.connect(path); s.sendall(frame)
    select.register(s, selectors.EVENT_READ)
for _ in range(64): ask()
select.register(sys.stdin, selectors.EVENT_READ)
while True:
    for key, _ in select.select():
        s = key.fileobj
        if s is sys.stdin:
            print(json.dumps(came), flush=True); sys.exit()
        try: data = s.recv(65536)
        except OSError: data = b""
        if data and b'"error"' not in data: continue
        select.unregister(s); s.close()
        came[json.loads(data[8:])["body"]["error"]["cause"] if data else "closed"] += 1
        total += 1
        if total == enough: print("enough", flush=True)
        ask()
"#;

/// The flood in full swing, with its standard output.
fn flood(sandbox: &Sandbox, enough: u32) -> (Running, BufReader<std::process::ChildStdout>) {
    let socket = sandbox.socket().display().to_string();
    let arguments = ["-c", FLOOD, &socket, GET, &enough.to_string()];
    let mut flood = Running(sandbox.command(needed("python3"), &arguments).start());
    let mut out = BufReader::new(flood.0.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    assert_eq!(line, "enough\n");
    (flood, out)
}

fn pending(sandbox: &Sandbox) -> u64 {
    sandbox.status()["pending"].as_u64().unwrap()
}

/// Kilobytes.
fn resident(sandbox: &Sandbox) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", sandbox.daemon().unwrap())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// A queue as one writes it first: everybody gets a number and waits.
const NAIVE: &str = r#"
import os, socket, sys
waiting = []
s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(1000)
if os.fork() == 0:
    for _ in range(900):
        c = socket.socket(socket.AF_UNIX); c.connect(sys.argv[1]); c.send(b"q"); waiting.append(c)
    c = socket.socket(socket.AF_UNIX); c.connect(sys.argv[1]); c.send(b"q")
    print("the honest one is number", int(c.recv(99)), flush=True)
    os._exit(0)
for _ in range(901):
    c, _ = s.accept(); c.recv(1); waiting.append(c); c.send(b"%d" % len(waiting))
os.wait()
"#;

#[test]
fn thousands_of_requests_leave_one_question_a_short_queue_and_everybody_else_a_turn() {
    let sandbox = asked_on_terminals(&[]);
    let victim = sandbox.path("run/naive.sock").display().to_string();
    assert_eq!(attack(&sandbox, NAIVE, &[&victim]).ok().text(), "the honest one is number 901\n");
    let board = board(&sandbox);
    let before = resident(&sandbox);
    let asked = sandbox.events("requested").len();
    let (mut flood, mut out) = flood(&sandbox, 5000);
    assert_eq!(pending(&sandbox), 17, "one stands, sixteen wait");
    let shown = board.expect(ON_BOARD);
    assert!(
        shown.matches("keyloan: give out a value").count() == 1 && shown.contains("16 more wait:"),
        "{shown}"
    );
    sandbox
        .keyloan(&["item", "get", "pypi", "token"])
        .run()
        .refused(6, "16 questions from there are waiting already");
    let refused = sandbox.with_secrets(&["--", "true"]).run();
    refused.refused(125, "hint: see what waits, and deny it: keyloan approve");
    assert!(resident(&sandbox) < before + 16 * 1024, "{before} kB were {} kB", resident(&sandbox));
    // What was refused is counted in the log, not told one by one.
    assert!(sandbox.events("requested").len() < asked + 100);
    eventually("it is counted", || {
        sandbox.events("turned_away").iter().filter_map(|event| event["count"].as_u64()).sum::<u64>() > 1000
    });
    // The next turn is that of another place.
    let honest = Terminal::open(&sandbox);
    honest.run("with-secrets -- printenv TWINE_PASSWORD; echo ended $?");
    eventually("it waits", || pending(&sandbox) == 18);
    press_until(&board, "d", "the other's turn comes", || {
        board.screen().contains("keyloan: lend 2 variables")
    });
    allow(&board);
    honest.expect("tok\nended 0");
    // One key ends it for five minutes.
    press_until(&board, "D", "all is denied", || {
        board.screen().contains("Everything is denied for another ")
    });
    eventually("nothing waits", || pending(&sandbox) == 0);
    assert!(!board.screen().contains(ON_BOARD), "{}", board.screen());
    drop(flood.0.stdin.take());
    let mut told = String::new();
    out.read_to_string(&mut told).unwrap();
    let came: serde_json::Map<String, Value> = serde_json::from_str(&told).unwrap();
    let is_clear = |cause: &String| {
        [
            "16 questions from there are waiting",
            "it was declined",
            "the last questions from there",
            "everything is denied",
        ]
        .iter()
        .any(|known| cause.starts_with(known))
    };
    assert!(came.keys().all(is_clear), "{came:?}");
    assert!(sandbox.events("released").is_empty());
}

/// Runs a command on that many terminals of its own, says once all run, and what they showed when its input ends; with
/// `each` the next begins when the one before has ended.
const PTYS: &str = r#"
import os, pty, sys
count, each, argv = int(sys.argv[1]), sys.argv[2] == "each", sys.argv[3:]
fds, shown = [], b""
def read(fd):
    out = b""
    try:
        while piece := os.read(fd, 65536): out += piece
    except OSError: pass
    return out
for _ in range(count):
    pid, fd = pty.fork()
    if pid == 0: os.execvp(argv[0], argv)
    fds.append(fd)
    if each: shown += read(fd)
print("started", flush=True)
sys.stdout.buffer.write(shown)
if not each: sys.stdin.read()
"#;

#[test]
fn terminals_without_number_do_not_keep_the_place_of_the_unlock_from_its_turn() {
    // Nobody answers there, so each question stands for as long as it may.
    let sandbox = asked_on_terminals(&["deadline=10s"]);
    let home = home(&sandbox);
    let with_secrets = bin().join("with-secrets").display().to_string();
    let mut crowd = Running(
        sandbox.command(needed("python3"), &["-c", PTYS, "40", "all", &with_secrets, "--", "true"]).start(),
    );
    eventually("they fill the queue", || pending(&sandbox) == 33);
    // Another terminal is one of many.
    let other = Terminal::sized(&sandbox, "other", 150, 50);
    other.run("with-secrets -- true; echo ended $?");
    let shown = other.expect("ended 125");
    assert!(shown.contains("too many questions are waiting already"), "{shown}");
    home.run("clear; with-secrets -- printenv TWINE_PASSWORD; echo ended $?");
    home.expect(PROMPT);
    home.type_text(PIN);
    home.press("Enter");
    home.expect("tok\nended 0");
    assert!(pending(&sandbox) > 20);
    // Whoever has the passphrase makes another terminal that place.
    other.run(
        "clear; keyloan unlock --here --passphrase-fd 3 3<../passphrase; with-secrets -- true; echo ended $?",
    );
    other.expect(PROMPT);
    crowd.end();
    eventually("who has died waits no more", || pending(&sandbox) == 1);
    other.press("Enter");
    other.expect("ended 125");
}

#[test]
fn what_is_typed_on_terminals_without_number_keeps_no_other_terminal_waiting() {
    let sandbox = asked_on_terminals(&["item.write=allow"]);
    // The victim of `thousands_of_requests…`: everybody waits in one row.
    let keyloan = bin().join("keyloan").display().to_string();
    let crowd = |argv: &[&str]| {
        let arguments = [&["-c", PTYS, "40", "all", &keyloan], argv].concat();
        Running(sandbox.command(needed("python3"), &arguments).start())
    };
    let mut values = crowd(&["item", "set", "x", "y"]);
    eventually("they all type", || pending(&sandbox) == 40);
    let mut passphrases = crowd(&["unlock"]);
    eventually("they all type", || pending(&sandbox) == 80);
    let other = Terminal::sized(&sandbox, "other", 150, 50);
    other.run("with-secrets -- printenv TWINE_PASSWORD; echo ended $?");
    other.expect(PROMPT);
    other.type_text(PIN);
    other.press("Enter");
    other.expect("tok\nended 0");
    passphrases.end();
    values.end();
    eventually("who has died types no more", || pending(&sandbox) == 0);
    // On one terminal one follows the other, or one would be typed into the other.
    let set = |item: &str| format!("keyloan item set {item} field </dev/tty");
    other.run(&format!("clear; sh -c '{} & {} & wait'; echo ended $?", set("a"), set("b")));
    for (left, shown) in [(2, 1), (1, 2)] {
        eventually("one stands, the other waits", || {
            pending(&sandbox) == left && other.screen().matches("(not shown):").count() == shown
        });
        other.type_text("value");
        other.press("Enter");
    }
    other.expect("ended 0");
    sandbox.policy("item.read=allow");
    for item in ["a", "b"] {
        assert_eq!(sandbox.keyloan(&["item", "get", item, "field"]).run().ok().text(), "value");
    }
}

/// Counts noes by terminal, as one does first; its human is tired of it at the fifth question.
const BY_TERMINAL: &str = r#"
noes=noes$(tty | tr / _); count=$(cat "$noes" 2>/dev/null || echo 0)
[ "$count" -ge 2 ] && { echo refused; exit; }
asked=$(($(cat asked 2>/dev/null || echo 0) + 1)); echo $asked >asked
if [ $asked -ge 5 ]; then echo worn-out; else echo $((count + 1)) >"$noes"; fi
"#;

#[test]
fn a_new_terminal_for_every_question_does_not_wear_whoever_answers_out() {
    let sandbox = asked_on_terminals(&[]);
    sandbox.write("project/victim", BY_TERMINAL);
    let ptys = |count: &str, argv: &[&str]| {
        let arguments = [&["-c", PTYS, count, "each"], argv].concat();
        sandbox.command(needed("python3"), &arguments).start()
    };
    assert!(finished(ptys("5", &["sh", "victim"])).ok().text().contains("worn-out"));
    let home = home(&sandbox);
    let board = board(&sandbox);
    let with_secrets = bin().join("with-secrets").display().to_string();
    let mut crowd = ptys("5", &[&with_secrets, "--", "true"]);
    drop(crowd.stdin.take());
    press_until(&board, "d", "they are refused unasked", || crowd.try_wait().unwrap().is_some());
    let shown = finished(crowd).ok().text();
    assert_eq!(shown.matches("it was declined").count(), 3, "{shown}");
    assert_eq!(shown.matches("only the terminal").count(), 2, "{shown}");
    // Others without a try of their own are held back too.
    sandbox
        .with_secrets(&["--", "true"])
        .run()
        .refused(125, "hint: the passphrase ends that, too: keyloan unlock");
    home.run("clear; with-secrets -- true; echo ended $?");
    board.expect(ON_BOARD);
    press_until(&board, "d", "it is denied", || home.screen().contains("ended 125"));
    sandbox.with_secrets(&["--", "true"]).run().refused(125, "so for ");
    sandbox.unlock().ok();
    let mut honest = sandbox.with_secrets(&["--", "true"]).start();
    board.expect(ON_BOARD);
    honest.kill().unwrap();
    honest.wait().unwrap();
}

/// The victim is that of the test before: whether a PIN or a passphrase is wanted makes no difference to it.
#[test]
fn nor_do_windows_for_the_passphrase() {
    let sandbox = asked_on_terminals(&["approver.pinentry=/usr/bin/pinentry-gtk-2"]);
    let desktop = Desktop::open(&sandbox);
    sandbox.keyloan(&["lock"]).run().ok();
    desktop.on(sandbox.keyed(PASSPHRASE, &["unlock", "--passphrase-fd", "3"])).run().ok();
    sandbox.keyloan(&["lock"]).run().ok();
    let with_secrets = bin().join("with-secrets").display().to_string();
    let arguments = ["-c", PTYS, "5", "each", &with_secrets, "--", "true"];
    let mut crowd = sandbox.command(needed("python3"), &arguments).start();
    eventually("they are refused unasked", || {
        if desktop.find().is_some() {
            desktop.window();
            desktop.press("Escape");
        }
        crowd.try_wait().unwrap().is_some()
    });
    let shown = finished(crowd).ok().text();
    assert_eq!(shown.matches("it was declined").count(), 3, "{shown}");
    assert_eq!(shown.matches("only the terminal").count(), 2, "{shown}");
    assert_eq!(desktop.find(), None);
    // Who types the passphrase of his own accord is not held back.
    let own = Terminal::open(&sandbox);
    own.run("keyloan unlock; echo ended $?");
    own.expect("Passphrase, Enter alone to decline:");
    own.type_text(PASSPHRASE);
    own.press("Enter");
    own.expect("ended 0");
}

/// A broker that answers equal requests with the one answer.
const JOINS: &str = r#"
import socket, sys
s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(9)
asking = {}
clients = []
for _ in range(2):
    c = socket.socket(socket.AF_UNIX); c.connect(sys.argv[1]); c.send(sys.argv[2].encode()); clients.append(c)
    d, _ = s.accept(); asking.setdefault(d.recv(4096), []).append(d)
for n, alike in enumerate(asking.values()):
    for d in alike: d.send(b"yes %d " % n)
print(*(c.recv(9).decode() for c in clients))
"#;

#[test]
fn a_copy_of_a_request_that_is_asked_is_a_question_of_its_own() {
    let sandbox = Sandbox::with_vault();
    let victim = sandbox.path("run/joins.sock").display().to_string();
    assert_eq!(attack(&sandbox, JOINS, &[&victim, GET]).ok().text(), "yes 0  yes 0 \n");
    let (ssh, _agent, [plain, _]) = both(&sandbox, &[]);
    sandbox.keyloan(&["item", "set", "pypi", "token"]).stdin("tok").run().ok();
    let bind = Host::new(&ssh, &plain, "host").session(HERE, false);
    ssh.append("home/.ssh/known_hosts", &format!("git.example.org {}\n", ssh.public("host")));
    let (go, kept) = (sandbox.path("run/go"), sandbox.path("run/kept"));
    let waiting = format!("#!/bin/sh\nwhile ! test -e {}; do sleep 0.05; done\n", go.display());
    ssh.answered_by(approver::keeping(&kept).replacen("#!/bin/sh\n", &waiting, 1), &[]);
    // Twice the same value, byte by byte, from two processes.
    std::thread::scope(|scope| {
        let exchange = || wire::exchange(&sandbox, &wire::frame(GET, b""));
        let both = [scope.spawn(exchange), scope.spawn(exchange)];
        eventually("both ask", || pending(&sandbox) == 2);
        std::fs::write(&go, "").unwrap();
        for got in both {
            assert!(got.join().unwrap().ends_with(b"tok"));
        }
    });
    assert_eq!(approver::questions(&kept).len(), 2);
    std::fs::remove_file(&go).unwrap();
    // The same login in the same session: what another connection copies is another question, what comes again over
    // its own is the same sign-in.
    let key = ssh.public_key("work");
    let blob = login(HERE, "git", &key, Some(&bind.host_key));
    let mut clients = [ssh.agent(), ssh.agent()];
    for client in &mut clients {
        assert!(client.bind(&bind));
        client.ask_to_sign(&key, &blob);
        client.ask_to_sign(&key, &blob);
    }
    eventually("both ask", || pending(&sandbox) == 2);
    std::fs::write(&go, "").unwrap();
    for client in &mut clients {
        for _ in 0..2 {
            assert_eq!(client.reply().unwrap()[0], 14);
        }
    }
    assert_eq!((approver::questions(&kept).len(), sandbox.events("signed").len()), (4, 4));
}

#[test]
fn a_question_that_nobody_answers_ends_and_what_waited_behind_it_comes_up() {
    let sandbox = asked_on_terminals(&["deadline=10s"]);
    let [first, second] = ["first", "second"].map(|name| Terminal::sized(&sandbox, name, 150, 50));
    first.run("with-secrets -- true; echo ended $?");
    first.expect(PROMPT);
    second.run("with-secrets -- printenv TWINE_PASSWORD; echo ended $?");
    eventually("it waits", || pending(&sandbox) == 2);
    assert!(first.expect("ended 125").contains("nobody answered within 10 seconds"));
    second.expect(PROMPT);
    second.type_text(PIN);
    second.press("Enter");
    second.expect("tok\nended 0");
}
