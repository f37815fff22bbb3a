//! A question, before it is known who will be asked: what will happen, to whom, with what, who asks, and how
//! sure each line is. All text in it may come from an attacker and is escaped here, once. What cannot be
//! shown whole is put to nobody: a yes to what was cut away is none.

use crate::requester::Requester;
use keyloan_protocol::names::escaped;
use serde::Serialize;
use std::fmt::Write as _;

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

#[derive(Clone, Serialize)]
pub(crate) struct Line {
    pub(crate) label: &'static str,
    pub(crate) text: String,
    pub(crate) certainty: Certainty,
}

#[derive(Clone, Serialize)]
pub(crate) struct Question {
    pub(crate) title: String,
    pub(crate) lines: Vec<Line>,
    /// What of it was too long to be shown whole.
    #[serde(skip)]
    cut: Option<&'static str>,
}

/// The longest line shown; a screen has some dozens of lines and a person less patience.
const WIDTH: usize = 700;
/// The most lines shown.
pub(crate) const LINES: usize = 60;

impl Question {
    pub(crate) fn new(title: &str) -> Self {
        Self { title: escaped(title, WIDTH), lines: Vec::new(), cut: is_long(title).then_some("title") }
    }

    pub(crate) fn line(&mut self, label: &'static str, text: &str, certainty: Certainty) {
        if is_long(text) {
            self.cut = self.cut.or(Some(label));
        }
        self.lines.push(Line { label, text: escaped(text, WIDTH), certainty });
    }

    /// Parts on one line, or on more where they need it.
    pub(crate) fn list(
        &mut self,
        label: &'static str,
        parts: &[String],
        between: &str,
        certainty: Certainty,
    ) {
        let mut text = String::new();
        for part in parts {
            let longer = if text.is_empty() { part.clone() } else { format!("{text}{between}{part}") };
            if text.is_empty() || !is_long(&longer) {
                text = longer;
            } else {
                self.line(label, &text, certainty);
                text.clone_from(part);
            }
        }
        self.line(label, &text, certainty);
    }

    /// Why it cannot be put to anybody.
    pub(crate) fn unshowable(&self) -> Option<String> {
        if self.lines.len() > LINES {
            return Some(format!("there are {} lines, and {LINES} are shown", self.lines.len()));
        }
        self.cut.map(|label| format!("'{label}' has more than {WIDTH} characters"))
    }

    /// Who asks: program chain, directory, terminal.
    pub(crate) fn asked_by(&mut self, requester: &Requester) {
        let mut chain: Vec<String> = requester
            .chain()
            .iter()
            .map(|program| match program {
                Some(program) => program.display().to_string(),
                None => "AN UNREADABLE PROGRAM".to_owned(),
            })
            .collect();
        let pid = format!("(pid {})", requester.peer.pid);
        match chain.last_mut() {
            Some(last) => last.extend([" ", &pid]),
            None => chain.push(pid),
        }
        self.list("asked by", &chain, " ← ", Certainty::Seen);
        if let Some(directory) = requester.seen_directory() {
            self.line("in", &directory.display().to_string(), Certainty::Seen);
        }
        if let Some(terminal) = requester.terminal_name() {
            self.line("terminal", &terminal, Certainty::Seen);
        }
    }

    /// The text for a terminal.
    pub(crate) fn text(&self) -> String {
        let mut text = format!("\nkeyloan: {}\n", self.title);
        for line in &self.lines {
            let _ = writeln!(text, "  {:<9} {}  ({})", line.label, line.text, line.certainty.word());
        }
        text
    }
}

/// Whether text has to be cut to be shown.
fn is_long(text: &str) -> bool {
    escaped(text, usize::MAX).chars().count() > WIDTH
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
    fn what_cannot_be_shown_whole_is_said() {
        let mut question = Question::new("x");
        for _ in 0..LINES {
            question.line("lends", &"A".repeat(WIDTH), Certainty::Verified);
        }
        assert_eq!(question.unshowable(), None);
        question.line("lends", "A", Certainty::Verified);
        assert_eq!(question.unshowable().unwrap(), "there are 61 lines, and 60 are shown");
        let mut question = Question::new("x");
        // Short as it was sent, long as it is shown.
        question.line("content", &"\u{202e}".repeat(100), Certainty::Verified);
        assert_eq!(question.unshowable().unwrap(), "'content' has more than 700 characters");
        assert!(Question::new(&"x".repeat(WIDTH + 1)).unshowable().is_some());
    }

    #[test]
    fn a_list_takes_the_lines_it_needs_and_loses_nothing() {
        let mut question = Question::new("x");
        let parts: Vec<String> = (0..300).map(|number| format!("PART_{number}")).collect();
        question.list("warning", &parts, ", ", Certainty::Seen);
        assert_eq!((question.unshowable(), question.lines.len()), (None, 5));
        let texts: Vec<&str> = question.lines.iter().map(|line| line.text.as_str()).collect();
        assert_eq!(texts.join(", "), parts.join(", "));
    }
}
