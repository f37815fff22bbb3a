//! Row 14: the phrase that genuine questions show is worth something only as long as no program can have it shown to
//! itself.

use crate::attack;
use keyloan_e2e::desktop::Desktop;
use keyloan_e2e::terminal::Terminal;
use keyloan_e2e::{PASSPHRASE, Sandbox, approver, eventually, window, wire};

const PHRASE: &str = "blue heron at noon";

fn with_phrase() -> Sandbox {
    let sandbox = Sandbox::with_token(b"tok");
    sandbox.policy("approver.command=");
    let phrase = sandbox.write("phrase", PHRASE).display().to_string();
    let line = format!("exec \"$0\" phrase --passphrase-fd 3 --phrase-fd 4 3<../passphrase 4<{phrase}");
    sandbox.write("passphrase", PASSPHRASE);
    let keyloan = keyloan_e2e::programs::bin().join("keyloan").display().to_string();
    sandbox.command("/bin/sh", &["-c", &line, &keyloan]).run().ok();
    std::fs::remove_file(phrase).unwrap();
    sandbox
}

/// What is asked in every prompt of an undefended victim.
fn plain_prompt(sandbox: &Sandbox) -> String {
    let text =
        format!("#!/bin/sh\nprintf '%s\\nPIN to allow, Enter alone to decline: ' '{PHRASE}'\nread -r pin\n");
    sandbox.write_program("plain", text).display().to_string()
}

/// Runs each line of `sys.argv` in a session of its own on a terminal of the attacker's, and prints what came there up to
/// the prompt. With `again` before it a line comes to the same number of a terminal as the one before.
const READ: &str = r#"
import fcntl, os, pty, select, signal, struct, sys, time
def run(line):
    pid, master = pty.fork()
    if pid == 0:
        os.execv("/bin/sh", ["sh", "-c", line])
    # TIOCGPTN, ioctl_tty(2)
    name, read, until = fcntl.ioctl(master, 0x80045430, bytes(4)), b"", time.time() + 20
    while b"decline: " not in read and b"unlocked" not in read and time.time() < until:
        if select.select([master], [], [], 0.1)[0]:
            try: more = os.read(master, 65536)
            except OSError: break
            if not more: break
            read += more
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(master)
    return name, read.decode(errors="replace")
if sys.argv[1] != "again":
    print(run(sys.argv[1])[1])
else:
    for _ in range(50):
        first, _ = run(sys.argv[2])
        second, read = run(sys.argv[3])
        if first == second:
            print("the same number", read)
            break
"#;

#[test]
fn a_program_that_asks_on_a_terminal_of_its_own_does_not_read_the_phrase() {
    let sandbox = with_phrase();
    let home = Terminal::open(&sandbox);
    home.run("keyloan unlock --here --passphrase-fd 3 3<../passphrase");
    home.expect("unlocked already");
    let plain = plain_prompt(&sandbox);
    assert!(attack(&sandbox, READ, &[&plain]).ok().text().contains(PHRASE));
    for ask in [
        "exec with-secrets -- true",
        "exec keyloan item get pypi token",
        // The question for the passphrase of an open vault, too.
        "exec keyloan policy set env=allow",
        "exec keyloan unlock --here",
        "exec keyloan approve",
        "exec keyloan phrase",
    ] {
        let read = attack(&sandbox, READ, &[ask]).ok().text();
        assert!(read.contains("decline: "), "{ask}: {read}");
        assert!(!read.contains(PHRASE), "{ask}: {read}");
    }
}

#[test]
fn the_number_of_the_terminal_that_was_unlocked_on_is_not_that_terminal() {
    let sandbox = with_phrase();
    let unlock = "exec keyloan unlock --here --passphrase-fd 3 3<../passphrase";
    // The undefended victim knows a terminal by its name.
    let named = sandbox.write("named", "").display().to_string();
    let remember = format!("tty >{named}; echo unlocked");
    let plain = format!("test \"$(tty)\" = \"$(cat {named})\" && exec {}", plain_prompt(&sandbox));
    let read = attack(&sandbox, READ, &["again", &remember, &plain]).ok().text();
    assert!(read.contains(PHRASE), "{read}");
    let read = attack(&sandbox, READ, &["again", unlock, "exec with-secrets -- true"]).ok().text();
    assert!(read.contains("the same number") && read.contains("asked by"), "{read}");
    assert!(!read.contains(PHRASE), "{read}");
}

#[test]
fn neither_an_approver_program_nor_the_socket_nor_the_log_tells_the_phrase() {
    let sandbox = with_phrase();
    let kept = sandbox.path("run/questions");
    // The undefended victim hands over all that it shows.
    sandbox.command("/bin/sh", &["-c", &format!("{} </dev/null >../shown", plain_prompt(&sandbox))]).run();
    assert!(std::fs::read_to_string(sandbox.path("shown")).unwrap().contains(PHRASE));
    sandbox.set_approver(approver::keeping(&kept));
    sandbox.with_secrets(&["--", "true"]).run().ok();
    sandbox.keyloan(&["item", "get", "pypi", "token"]).run().ok();
    let questions = std::fs::read_to_string(&kept).unwrap();
    assert!(questions.contains("asked by") && !questions.contains(PHRASE), "{questions}");
    for body in [r#""status""#, r#""policy_show""#, r#""item_list""#, r#"{"item_show":{"item":"phrase"}}"#] {
        let frame = wire::frame(&format!(r#"{{"version":1,"body":{body}}}"#), b"");
        assert!(!String::from_utf8_lossy(&wire::exchange(&sandbox, &frame)).contains(PHRASE), "{body}");
    }
    for said in [sandbox.keyloan(&["status"]).run(), sandbox.keyloan(&["log", "--json"]).run()] {
        assert!(!said.ok().text().contains(PHRASE));
    }
    let found = sandbox.command("/bin/grep", &["-rlF", PHRASE, "../home", "../run"]).run();
    assert_eq!((found.status, found.text()), (1, String::new()));
}

#[test]
fn a_display_that_a_request_names_never_shows_the_phrase() {
    let sandbox = with_phrase();
    sandbox.policy("approver.pinentry=/usr/bin/pinentry-gtk-2");
    let desktop = Desktop::open(&sandbox);
    let shows = |text: &str| !window::texts(&sandbox, text).is_empty();
    // Any program can ask for the passphrase on a display of its own, though it does not know that.
    let mut asking = desktop.on(sandbox.keyloan(&["unlock", "--desktop"])).start();
    desktop.window();
    assert!(shows("asked by"));
    assert!(!shows(PHRASE));
    asking.kill().unwrap();
    asking.wait().unwrap();
    desktop.no_window();
    // The undefended victim asks wherever it is told to: here the desktop of whoever did know it.
    desktop.on(sandbox.keyed(PASSPHRASE, &["unlock", "--here", "--passphrase-fd", "3"])).run().ok();
    let mut asking = sandbox.with_secrets(&["--", "true"]).start();
    desktop.window();
    eventually("its last page shows it", || {
        desktop.press("alt+n");
        shows(PHRASE)
    });
    asking.kill().unwrap();
    asking.wait().unwrap();
    desktop.no_window();
    // This one hands all that it shows to whoever owns a name on the session bus.
    sandbox.policy("approver.pinentry=/usr/bin/pinentry-gnome3");
    let mut asking = sandbox.with_secrets(&["--", "true"]).start();
    eventually("it has the question", || shows("asked by"));
    assert!(!shows(PHRASE));
    asking.kill().unwrap();
    asking.wait().unwrap();
}
