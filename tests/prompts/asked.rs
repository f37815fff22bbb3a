//! A person at a terminal of 80 columns, who reads what is asked there and says yes.

use crate::page::{golden, keep_screen};
use crate::steady::{COLUMNS, TERMINAL, steady};
use keyloan_e2e::terminal::Terminal;
use keyloan_e2e::{PASSPHRASE, PIN, Sandbox};

const PIN_LINE: &str = "PIN to allow, Enter alone to decline:";
const PASSPHRASE_LINE: &str = "Passphrase, Enter alone to decline:";

pub(crate) struct Person<'a> {
    pub(crate) sandbox: &'a Sandbox,
    pub(crate) terminal: Terminal<'a>,
}

impl<'a> Person<'a> {
    /// In a sandbox where nothing else answers any more.
    pub(crate) fn of(sandbox: &'a Sandbox) -> Self {
        sandbox.policy("approver.command=");
        Self { sandbox, terminal: Terminal::sized(sandbox, "person", COLUMNS, 70) }
    }

    /// Runs a line that asks, compares what comes up, says yes and waits for the line's end.
    #[track_caller]
    pub(crate) fn says_yes(&self, name: &str, line: &str) {
        self.is_asked(name, line);
        self.answer(if self.shows(PIN_LINE) { PIN } else { PASSPHRASE });
        self.terminal.expect("ended-0");
    }

    /// The same where the yes is not the end, or what was asked for cannot come about here.
    #[track_caller]
    pub(crate) fn turns_away(&self, name: &str, line: &str) {
        self.is_asked(name, line);
        self.terminal.press("C-c");
        self.terminal.expect("ended-");
    }

    #[track_caller]
    pub(crate) fn is_asked(&self, name: &str, line: &str) {
        self.terminal.run(&format!("clear; {line}; echo ended-$?"));
        self.terminal.expect("alone to decline:");
        keep_screen(name, &self.terminal.screen());
        golden(name, &steady(self.sandbox, &TERMINAL, &self.question()));
        // What is typed within 0.3 seconds of a question does not count.
        std::thread::sleep(std::time::Duration::from_millis(400));
    }

    pub(crate) fn answer(&self, text: &str) {
        self.terminal.type_text(text);
        self.terminal.press("Enter");
    }

    /// Runs a line that asks nothing.
    #[track_caller]
    pub(crate) fn runs(&self, line: &str) {
        self.terminal.run(&format!("clear; {line}; echo ended-$?"));
        self.terminal.expect("ended-0");
    }

    fn shows(&self, text: &str) -> bool {
        self.terminal.screen().contains(text)
    }

    /// From the title to where the answer is typed.
    fn question(&self) -> String {
        let screen = self.terminal.screen();
        let lines: Vec<&str> = screen.lines().collect();
        let end =
            lines.iter().rposition(|line| line.contains(PIN_LINE) || line.contains(PASSPHRASE_LINE)).unwrap();
        let start = lines[..end].iter().rposition(|line| line.starts_with("keyloan: ")).unwrap();
        lines[start..=end].join("\n")
    }
}
