//! A question, before it is known who will be asked: what will happen, to whom, with what, who asks, and how
//! sure each line is. All text in it may come from an attacker and is escaped here, once.

use crate::requester::Requester;
use keyloan_protocol::env_vars;
use keyloan_protocol::names::escaped;
use serde::Serialize;
use std::fmt::Write as _;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// How sure a line is. Observed things inform; none of them approves by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Certainty {
    /// By the kernel's credentials or the vault's own index.
    Verified,
    /// Read from `/proc` of the live process; code in that process can dress up.
    Seen,
    /// Said by the requester.
    Claimed,
}

impl Certainty {
    fn word(self) -> &'static str {
        match self {
            Self::Verified => "verified",
            Self::Seen => "seen",
            Self::Claimed => "claimed",
        }
    }
}

#[derive(Serialize)]
pub(crate) struct Line {
    pub(crate) label: &'static str,
    pub(crate) text: String,
    pub(crate) certainty: Certainty,
}

#[derive(Serialize)]
pub(crate) struct Question {
    pub(crate) title: String,
    pub(crate) lines: Vec<Line>,
}

/// The longest line shown; a screen has some dozens of lines and a person less patience.
const WIDTH: usize = 700;
/// Whoever describes an act keeps below this, so that who asks is never cut away.
pub(crate) const LINES: usize = 60;

impl Question {
    pub(crate) fn new(title: &str) -> Self {
        Self { title: escaped(title, WIDTH), lines: Vec::new() }
    }

    pub(crate) fn line(&mut self, label: &'static str, text: &str, certainty: Certainty) {
        self.lines.push(Line { label, text: escaped(text, WIDTH), certainty });
    }

    /// Who asks: program chain, directory, terminal.
    pub(crate) fn asked_by(&mut self, requester: &Requester) {
        let mut chain = String::new();
        for program in &requester.chain() {
            let shown = program
                .as_ref()
                .map_or_else(|| "AN UNREADABLE PROGRAM".to_owned(), |program| program.display().to_string());
            let _ = write!(chain, "{}{shown}", if chain.is_empty() { "" } else { " ← " });
        }
        self.line("asked by", &format!("{chain} (pid {})", requester.peer.pid), Certainty::Seen);
        if let Some(directory) = requester.seen_directory() {
            self.line("in", &directory.display().to_string(), Certainty::Seen);
        }
        if let Some(terminal) = requester.terminal_name() {
            self.line("terminal", &terminal, Certainty::Seen);
        }
    }

    /// What would steer the command elsewhere: its environment, and where its program lies.
    pub(crate) fn warn_of_steering(&mut self, requester: &Requester) {
        let mut steering: Vec<String> = requester
            .environment_names()
            .iter()
            .filter_map(|name| name.to_str())
            .filter(|name| env_vars::steers(name) && !env_vars::is_everyday(name))
            .map(str::to_owned)
            .collect();
        steering.sort_unstable();
        if !steering.is_empty() {
            let names = steering.join(", ");
            if requester.claimed.clean_env {
                self.line("dropped", &format!("{names}, by --clean-env"), Certainty::Claimed);
            } else {
                self.line(
                    "warning",
                    &format!("the environment steers the command: {names}"),
                    Certainty::Seen,
                );
            }
        }
        let Some(program) = &requester.claimed.program else { return };
        if let Some(directory) = requester.seen_directory()
            && program.starts_with(directory)
        {
            self.line("warning", "the program lies in the directory it is started from", Certainty::Claimed);
        }
        if let Some(parent) = program.parent().filter(|_| requester.shares_our_mounts)
            && others_may_write(parent)
        {
            let text = format!("others may write to {}", parent.display());
            self.line("warning", &text, Certainty::Seen);
        }
    }

    /// The text for a terminal.
    pub(crate) fn text(&self) -> String {
        let mut text = format!("\nkeyloan: {}\n", self.title);
        for line in self.lines.iter().take(LINES) {
            let _ = writeln!(text, "  {:<9} {}  ({})", line.label, line.text, line.certainty.word());
        }
        if self.lines.len() > LINES {
            let _ = writeln!(text, "  … and {} further lines", self.lines.len() - LINES);
        }
        text
    }
}

fn others_may_write(directory: &Path) -> bool {
    std::fs::metadata(directory).is_ok_and(|found| found.mode() & 0o022 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_shown_can_repaint_the_screen() {
        let mut question = Question::new("lend 1 variable");
        question.line("command", "twine \u{1b}[2J\u{202e}upload\nPIN:", Certainty::Claimed);
        let text = question.text();
        assert!(text.contains("twine \\u{1b}[2J\\u{202e}upload\\u{a}PIN:  (claimed)"), "{text}");
        assert_eq!(text.matches('\n').count(), 3);
    }

    #[test]
    fn a_flood_of_lines_is_cut_with_a_mark() {
        let mut question = Question::new("x");
        for _ in 0..100 {
            question.line("lends", "A", Certainty::Verified);
        }
        assert!(question.text().ends_with("… and 40 further lines\n"));
    }
}
