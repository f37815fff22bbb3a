//! The same question in other places: the enrolled terminal, a window, a notification.

use crate::page::{golden, keep_screen};
use crate::steady::{BOARD, COLUMNS, WINDOW, steady, steady_line};
use keyloan_e2e::desktop::Desktop;
use keyloan_e2e::notification::Notifications;
use keyloan_e2e::terminal::Terminal;
use keyloan_e2e::{PASSPHRASE, PIN, Sandbox, eventually, window};

fn asked_elsewhere() -> Sandbox {
    let sandbox = Sandbox::with_token(b"tok");
    sandbox.write("project/.keyloan.toml", "[env]\nTWINE_PASSWORD = \"local://pypi/token\"\n");
    sandbox.keyloan(&["trust"]).run().ok();
    sandbox.policy("approver.command=");
    sandbox
}

/// A terminal where `keyloan approve` runs.
pub(crate) struct Board<'a> {
    sandbox: &'a Sandbox,
    pub(crate) terminal: Terminal<'a>,
}

impl<'a> Board<'a> {
    pub(crate) fn open(sandbox: &'a Sandbox) -> Self {
        let terminal = Terminal::sized(sandbox, "board", COLUMNS, 40);
        terminal.run("keyloan approve");
        terminal.expect("Passphrase, Enter alone to decline:");
        terminal.type_text(PASSPHRASE);
        terminal.press("Enter");
        terminal.expect("nothing is asked here");
        Self { sandbox, terminal }
    }

    /// Compares the question that stands there.
    #[track_caller]
    pub(crate) fn shows(&self, name: &str) {
        let screen = self.terminal.expect("a allow, with the PIN");
        let question = screen.lines().skip_while(|line| !line.starts_with("keyloan: "));
        let question: Vec<&str> = question.take_while(|line| !line.trim().is_empty()).collect();
        golden(name, &steady(self.sandbox, &BOARD, &question.join("\n")));
    }

    pub(crate) fn allow(&self) {
        allow(&self.terminal);
    }

    pub(crate) fn leave(&self) {
        self.terminal.type_text("q");
        eventually("it is left", || !self.sandbox.events("approver_left").is_empty());
    }
}

fn allow(board: &Terminal<'_>) {
    eventually("the PIN is wanted", || {
        board.type_text("a");
        board.screen().contains("PIN to allow, Enter alone goes back:")
    });
    board.press("C-u");
    board.type_text(PIN);
    board.press("Enter");
}

/// A time of day.
fn steady_times(line: &str) -> String {
    let is_time = |word: &str| {
        word.len() == 8
            && word.chars().enumerate().all(|(at, c)| if at % 3 == 2 { c == ':' } else { c.is_ascii_digit() })
    };
    let words: Vec<&str> =
        line.split(' ').map(|word| if is_time(word) { "12:34:56" } else { word }).collect();
    words.join(" ")
}

/// All of a screen; of the rows that are free one is shown.
fn steady_screen(sandbox: &Sandbox, screen: &str) -> String {
    let mut parts: Vec<String> = Vec::new();
    for part in
        screen.split("\n\n").map(|part| part.trim_matches('\n')).filter(|part| !part.trim().is_empty())
    {
        if part.starts_with("keyloan: ") {
            parts.push(steady(sandbox, &BOARD, part));
            continue;
        }
        let lines = part.lines().map(|line| {
            let line = steady_times(steady_line(sandbox, line).trim_end());
            // Where it is cut hangs on the length of what varies.
            match line.find(", by /").filter(|_| line.ends_with('…')) {
                Some(at) => format!("{}, by /usr/lo…", &line[..at]),
                None => line,
            }
        });
        parts.push(lines.collect::<Vec<_>>().join("\n"));
    }
    parts.join("\n\n")
}

#[test]
fn the_enrolled_terminal() {
    let sandbox = asked_elsewhere();
    let board = Board::open(&sandbox).terminal;
    let shown = |text: &str| steady_screen(&sandbox, &board.expect(text));
    golden("board-empty", &shown("nothing is asked here"));
    let asking = Terminal::sized(&sandbox, "asking", COLUMNS, 24);
    asking.run("with-secrets -- printenv TWINE_PASSWORD");
    board.expect("a allow, with the PIN");
    let waiting = Terminal::sized(&sandbox, "waiting", COLUMNS, 24);
    waiting.run("keyloan item get pypi token");
    golden("board", &shown("1 more wait"));
    keep_screen("board", &board.screen());
    allow(&board);
    asking.expect("\ntok\n");
}

/// The text that a pinentry shows: of those in its memory the one that is there most often, unescaped.
fn shown_in_window(sandbox: &Sandbox) -> String {
    let mut texts = window::texts(sandbox, "keyloan: lend ");
    texts.retain(|text| text.contains("• lends:") && text.contains("PIN+c") && !text.contains("%0A"));
    let count = |text: &String| texts.iter().filter(|other| *other == text).count();
    texts.iter().max_by_key(|text| count(text)).unwrap().clone()
}

#[test]
fn a_window_and_its_notification() {
    let sandbox = asked_elsewhere();
    let desktop = Desktop::open(&sandbox);
    let notifications = Notifications::serve(&sandbox, &desktop);
    sandbox.policy("approver.pinentry=/usr/bin/pinentry-gtk-2");
    sandbox.keyloan(&["lock"]).run().ok();
    desktop.on(sandbox.keyed(PASSPHRASE, &["unlock", "--passphrase-fd", "3"])).run().ok();
    sandbox.policy("item.read=deny");
    sandbox.keyloan(&["item", "get", "pypi", "token"]).run();
    eventually("it is announced", || notifications.shown() == 1);
    let sent = notifications.sent().pop().unwrap();
    golden("notification-refused", &steady_line(&sandbox, &format!("{}\n\n{}", sent.title, sent.body)));
    eventually("it goes", || notifications.shown() == 0);

    let terminal = Terminal::sized(&sandbox, "asking", COLUMNS, 24);
    terminal.run("with-secrets -- printenv TWINE_PASSWORD");
    desktop.window();
    golden("window", &steady(&sandbox, &WINDOW, &shown_in_window(&sandbox)));
    eventually("it is announced", || notifications.shown() == 1);
    let sent = notifications.sent().pop().unwrap();
    golden("notification", &steady_line(&sandbox, &format!("{}\n\n{}", sent.title, sent.body)));
    desktop.answer(PIN);
    terminal.expect("\ntok\n");
}
