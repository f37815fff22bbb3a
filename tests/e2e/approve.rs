//! `keyloan approve`: a terminal that answers what others ask.

use keyloan_e2e::programs::needed;
use keyloan_e2e::sshd::Ssh;
use keyloan_e2e::terminal::Terminal;
use keyloan_e2e::{PASSPHRASE, PIN, Sandbox, eventually};

const ON_BOARD: &str = "a allow, with the PIN";
const OWN: &str = "PIN to allow, Enter alone to decline:";

/// A vault with a token and a trusted file, and no approver program.
fn asked_on_terminals() -> Sandbox {
    let sandbox = Sandbox::with_token(b"tok");
    sandbox.policy("approver.command=");
    sandbox
}

/// A terminal of that size that answers.
fn board<'a>(sandbox: &'a Sandbox, name: &str, columns: usize, rows: usize) -> Terminal<'a> {
    let terminal = Terminal::sized(sandbox, name, columns, rows);
    terminal.run("keyloan approve; echo ended $?");
    terminal.expect("Passphrase, Enter alone to decline:");
    terminal.type_text(PASSPHRASE);
    terminal.press("Enter");
    terminal.expect("nothing is asked here");
    terminal
}

/// Presses `a` until the PIN is wanted: the first presses may come before the question has settled.
fn wants_pin(board: &Terminal<'_>) {
    eventually("the PIN is wanted", || {
        board.type_text("a");
        board.screen().contains("PIN to allow, Enter alone goes back:")
    });
    // An `a` that came too late for the key was typed into the PIN.
    board.press("C-u");
}

fn allow(board: &Terminal<'_>, pin: &str) {
    wants_pin(board);
    board.type_text(pin);
    board.press("Enter");
}

/// The pid of the client that holds the terminal.
fn client(sandbox: &Sandbox) -> String {
    sandbox.events("approver_enrolled").last().unwrap()["by"]["pid"].to_string()
}

#[test]
fn a_question_stands_whole_on_the_enrolled_terminal_and_the_pin_allows_it_there() {
    let sandbox = asked_on_terminals();
    let board = board(&sandbox, "board", 80, 30);
    assert!(sandbox.status()["questions"].as_str().unwrap().starts_with("keyloan approve on pts/"));
    let asking = Terminal::open(&sandbox);
    asking.run("with-secrets -- printenv TWINE_PASSWORD");
    let shown = board.expect(ON_BOARD);
    for part in [
        "keyloan approve on pts/",
        "; the vault locks after ",
        "\nkeyloan: lend 2 variables to a command\n",
        "  lends     TWINE_PASSWORD  from local://pypi/token",
        "(verified)",
        "  command   printenv TWINE_PASSWORD  (claimed)",
        "  asked by  ",
        "  may cover the same to the same program, whatever its arguments, for ",
        "  PIN+c     covers that until it ends",
        "nothing else waits",
        " asked: lend 2 variables to a command: TWINE_PASSWORD",
    ] {
        assert!(shown.contains(part), "'{part}' is not in:\n{shown}");
    }
    assert!(
        asking.screen().contains("waiting for a yes from keyloan approve on pts/"),
        "{}",
        asking.screen()
    );
    allow(&board, PIN);
    asking.expect("\ntok\n");
    let shown = board.expect(" ended: the process ended");
    assert!(shown.contains(" approved: PIN on pts/") && shown.contains(" lent: TWINE_PASSWORD"), "{shown}");
    assert!(!shown.contains(PIN), "{shown}");
    assert!(shown.contains("nothing is asked here"), "{shown}");
    let decided = sandbox.events("decided");
    assert!(decided.last().unwrap()["approver"].as_str().unwrap().ends_with(" (keyloan approve)"));
    // What was typed went to no shell, and the terminal is as it was.
    board.type_text("q");
    let shown = board.expect("ended 0");
    assert!(shown.contains("answers no more: left") && !shown.contains("asked: lend"), "{shown}");
    board.run("echo typing $((40+2)) is visible");
    board.expect("typing 42 is visible");
    assert_eq!((sandbox.events("approver_enrolled").len(), sandbox.events("approver_left").len()), (1, 1));
}

#[test]
fn what_is_offered_is_given_behind_the_pin_and_a_wrong_pin_gives_nothing() {
    let sandbox = asked_on_terminals();
    let board = board(&sandbox, "board", 80, 24);
    let asking = Terminal::open(&sandbox);
    asking.run("sh -c 'for i in 1 2; do with-secrets -- printenv TWINE_PASSWORD 2>/dev/null; done; :'");
    board.expect(ON_BOARD);
    allow(&board, "0000");
    board.expect("That is not the PIN.");
    allow(&board, &format!("{PIN}+c"));
    asking.expect("\ntok\ntok\n");
    let shown = board.expect(" covered: grant 1");
    assert!(shown.contains(" granted: env: "), "{shown}");
    board.expect("grant 1 ended");
    assert_eq!((sandbox.events("pin_failed").len(), sandbox.events("lent").len()), (1, 2));
}

#[test]
fn one_key_denies_and_another_denies_everything_for_a_time() {
    let sandbox = asked_on_terminals();
    let board = board(&sandbox, "board", 80, 24);
    let asking = Terminal::open(&sandbox);
    let ask = || asking.run("with-secrets -- true; echo ended $?");
    let until_ended = |key: &str| {
        board.expect(ON_BOARD);
        eventually("it is denied", || {
            board.type_text(key);
            asking.screen().contains("ended 125")
        });
    };
    ask();
    until_ended("d");
    assert!(asking.screen().contains("it was declined"));
    ask();
    // An arrow to the left is `ESC [ D`, and is none of them.
    board.expect(ON_BOARD);
    std::thread::sleep(std::time::Duration::from_millis(400));
    board.press("Left");
    until_ended("D");
    board.expect("Everything is denied for another ");
    assert!(sandbox.status()["questions"].as_str().unwrap().starts_with("are denied for another 5 min"));
    ask();
    asking.expect("everything is denied for another ");
    asking.expect("hint: end that with the passphrase: keyloan unlock");
    // After two noes in a row who asked is held back; the passphrase ends that, too.
    sandbox.unlock().ok();
    board.expect("D deny all for 5 min");
    ask();
    until_ended("d");
    assert!(asking.screen().contains("it was declined"));
    assert!(sandbox.events("lent").is_empty());
}

#[test]
fn three_that_wait_are_listed_in_order_and_answered_one_after_another() {
    let sandbox = Sandbox::with_token(b"tok");
    let ssh = Ssh::of(&sandbox);
    let key = ssh.key("work", &["ed25519"]);
    ssh.store("work", &[]);
    sandbox.policy("approver.command=");
    let board = board(&sandbox, "board", 100, 40);
    let lend = Terminal::sized(&sandbox, "lend", 80, 24);
    lend.run("with-secrets -- printenv TWINE_PASSWORD");
    board.expect(ON_BOARD);
    let file = sandbox.write("project/file", "text").display().to_string();
    let signing = ssh.client("ssh-keygen", &["-Y", "sign", "-n", "file", "-f", &key, &file]).start();
    board.expect("1 more waits:");
    let get = Terminal::sized(&sandbox, "get", 80, 24);
    get.run("keyloan item get pypi token");
    board.expect("2 more wait:");
    let read = Terminal::sized(&sandbox, "read", 80, 24);
    read.run("with-secrets -- printenv TWINE_USERNAME");
    let shown = board.expect("3 more wait:");
    let listed: Vec<&str> =
        shown.lines().skip_while(|line| !line.starts_with("3 more")).skip(1).take(3).collect();
    for (at, (line, title)) in
        listed.iter().zip(["sign a file", "give out a value", "lend 2 variables"]).enumerate()
    {
        assert!(line.starts_with(&format!("  {}  ", at + 1)) && line.contains(title), "{line} in\n{shown}");
        assert!(line.contains("(pid "), "{line}");
    }
    allow(&board, PIN);
    lend.expect("\ntok\n");
    assert!(board.expect("2 more wait:").contains("SHA256:"));
    allow(&board, PIN);
    keyloan_e2e::sandbox::finished(signing).ok();
    board.expect(" signed: ");
    board.expect("1 more waits:");
    allow(&board, PIN);
    get.expect("\ntok");
    board.expect("nothing else waits");
    allow(&board, PIN);
    read.expect("\n__token__\n");
    board.expect("nothing is asked here");
}

#[test]
fn a_requester_that_ends_takes_its_question_and_what_was_typed_for_it_along() {
    let sandbox = asked_on_terminals();
    let board = board(&sandbox, "board", 80, 24);
    let mut first = sandbox.with_secrets(&["--", "true"]).start();
    board.expect(ON_BOARD);
    let mut second = sandbox.with_secrets(&["--only", "TWINE_USERNAME", "--", "true"]).start();
    board.expect("1 more waits:");
    wants_pin(&board);
    board.type_text("47");
    first.kill().unwrap();
    first.wait().unwrap();
    let shown = board.expect("nothing else waits");
    assert!(shown.contains("lend 1 variable") && shown.contains(ON_BOARD), "{shown}");
    // The rest of a PIN for another question.
    board.type_text("11");
    board.press("Enter");
    allow(&board, "11");
    board.expect("That is not the PIN.");
    second.kill().unwrap();
    second.wait().unwrap();
    board.expect("nothing is asked here");
    assert!(sandbox.events("lent").is_empty());
}

#[test]
fn a_question_longer_than_the_terminal_is_turned_to_its_end_before_it_can_be_allowed() {
    let sandbox = asked_on_terminals();
    let board = board(&sandbox, "board", 60, 10);
    let asking = Terminal::open(&sandbox);
    asking.run("with-secrets -- printenv TWINE_PASSWORD");
    board.expect("-- page 1 of ");
    eventually("it is to be read first", || {
        board.type_text("a");
        board.screen().contains("Read it to its end first: n turns the page.")
    });
    assert!(!board.screen().contains("asked by"));
    board.type_text("nnnnnn");
    let is_last = || {
        let shown = board.screen();
        let mark = shown.lines().find_map(|line| line.strip_prefix("-- page ")).unwrap().to_owned();
        let numbers: Vec<&str> = mark.split(' ').collect();
        numbers[0] == numbers[2]
    };
    eventually("it is turned to its end", is_last);
    assert!(board.screen().contains("ends"), "{}", board.screen());
    board.type_text("p");
    eventually("it turns back", || !is_last());
    allow(&board, PIN);
    asking.expect("\ntok\n");
    // It grows with the terminal, and says so where there is no room at all.
    board.tmux(&["resize-window", "-x", "60", "-y", "6"]).ok();
    board.expect("too small");
    board.tmux(&["resize-window", "-x", "70", "-y", "30"]).ok();
    board.expect("happened lately");
}

#[test]
fn when_the_terminal_ends_what_stands_there_goes_to_the_requesters_own_or_is_refused() {
    let sandbox = asked_on_terminals();
    let first = board(&sandbox, "board", 80, 24);
    let asking = Terminal::open(&sandbox);
    asking.run("with-secrets -- printenv TWINE_PASSWORD");
    first.expect(ON_BOARD);
    let pid = client(&sandbox);
    sandbox.command("/bin/kill", &["-KILL", &pid]).run().ok();
    asking.expect(OWN);
    assert_eq!(sandbox.events("approver_left").len(), 1);
    first.run("echo typing $((40+2)) is visible");
    first.expect("typing 42 is visible");
    asking.type_text(PIN);
    asking.press("Enter");
    asking.expect("\ntok\n");
    // The terminal itself goes, and whoever asks has none.
    let second = board(&sandbox, "second", 80, 24);
    let nowhere = sandbox.with_secrets(&["--", "true"]).start();
    second.expect(ON_BOARD);
    drop(second);
    keyloan_e2e::sandbox::finished(nowhere).refused(125, "there is no way to ask");
    assert_eq!(sandbox.events("approver_left").len(), 2);
}

#[test]
fn a_client_that_is_stopped_gives_its_terminal_back() {
    let sandbox = asked_on_terminals();
    let board = board(&sandbox, "board", 80, 24);
    let pid = client(&sandbox);
    sandbox.command("/bin/kill", &["-STOP", &pid]).run().ok();
    eventually("it answers no more", || sandbox.events("approver_left").len() == 1);
    board.run("echo typing $((40+2)) is visible");
    board.expect("typing 42 is visible");
    board.run("fg");
    board.expect("the request comes from the background of its terminal");
}

#[test]
fn another_terminal_takes_over_and_the_lock_ends_it() {
    let sandbox = asked_on_terminals();
    let surface = Terminal::open(&sandbox);
    surface.run("keyloan lock; keyloan unlock");
    surface.expect("Passphrase, Enter alone to decline:");
    surface.type_text(PASSPHRASE);
    surface.press("Enter");
    surface.expect("the vault is unlocked");
    let first = board(&sandbox, "board", 80, 24);
    assert!(surface.expect("answers from now on (keyloan approve)").contains("keyloan: pts/"));
    let nowhere = sandbox.with_secrets(&["--", "true"]).start();
    first.expect(ON_BOARD);
    // The passphrase is handed over: to type it would wait for the question that stands.
    let second = Terminal::sized(&sandbox, "second", 100, 40);
    sandbox.write("passphrase", PASSPHRASE);
    second.run("keyloan approve --passphrase-fd 3 3<../passphrase; echo ended $?");
    second.expect(ON_BOARD);
    assert!(first.expect("ended 0").contains("answers instead from now on"), "{}", first.screen());
    allow(&second, PIN);
    keyloan_e2e::sandbox::finished(nowhere).ok();
    sandbox.keyloan(&["lock"]).run().ok();
    assert!(second.expect("ended 0").contains("answers no more: the vault was locked"));
    surface.expect("answers no more (keyloan approve)");
    // It opens the vault where that is locked.
    second.run("keyloan approve; echo ended $?");
    let shown = second.expect("Passphrase, Enter alone to decline:");
    assert!(shown.contains("unlock the vault, and answer on this terminal what keyloan asks"), "{shown}");
    second.type_text(PASSPHRASE);
    second.press("Enter");
    second.expect("nothing is asked here");
    assert_eq!(sandbox.status()["vault"], "unlocked");
}

#[test]
fn a_popup_of_tmux_answers_and_goes_away() {
    let sandbox = asked_on_terminals();
    let screen = Terminal::sized(&sandbox, "outer", 100, 40);
    let inner = sandbox.path("run/inner").display().to_string();
    // A popup is drawn for a client that looks, so the inner tmux is looked at in the outer one.
    screen.run(&format!("env -u TMUX tmux -f /dev/null -S {inner} new-session 'bash --norc -i'"));
    screen.expect("[0] 0:bash*");
    let popup = ["-S", &inner, "display-popup", "-w", "90", "-h", "32", "-E", "keyloan approve"];
    let mut popup = sandbox.command(needed("tmux"), &popup).start();
    screen.expect("Passphrase, Enter alone to decline:");
    screen.type_text(PASSPHRASE);
    screen.press("Enter");
    screen.expect("nothing is asked here");
    let asking = sandbox.with_secrets(&["--", "true"]).start();
    let shown = screen.expect(ON_BOARD);
    assert!(shown.contains("(claimed)") && shown.contains("nothing else waits"), "{shown}");
    allow(&screen, PIN);
    keyloan_e2e::sandbox::finished(asking).ok();
    screen.expect("nothing is asked here");
    screen.type_text("q");
    popup.wait().unwrap();
    eventually("it is gone", || !screen.screen().contains("keyloan approve on pts/"));
    sandbox.command(needed("tmux"), &["-S", &inner, "kill-server"]).run().ok();
}
