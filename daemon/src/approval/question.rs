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
/// Columns of a window's text: a longer line would push the window over the screen's edge, buttons and all.
const COLUMNS: usize = 60;
/// Lines on one page of a window, so that it fits on a small screen.
const PAGE: usize = 24;
/// Begins a line of a window and nothing else: toolkits break long lines where they like, and what then
/// stands at the left edge must not pass for a line of ours.
const BULLET: char = '•';
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

    /// The text for windows, in pages that fit a room, measured by `length`. The last one says who asks.
    pub(crate) fn pages(&self, room: usize, length: impl Fn(&str) -> usize) -> Vec<String> {
        let title = wrapped(&format!("keyloan: {}", escaped(&self.title, 2 * COLUMNS)));
        let room = room.saturating_sub(length(&title) + length("  (page 00 of 00)\n\n"));
        let mut pages = vec![String::new()];
        let mut add = |block: String| match pages.last_mut() {
            Some(page)
                if page.is_empty()
                    || length(page) + length(&block) <= room
                        && page.lines().count() + block.lines().count() <= PAGE =>
            {
                page.push_str(&block);
            }
            _ => pages.push(block),
        };
        for line in self.lines.iter().take(LINES) {
            let text = line.text.replace(BULLET, "\\u{2022}");
            let shown = |most| {
                let text = escaped(&text, most);
                wrapped(&format!("{BULLET} {}:  {text}  ({})", line.label, line.certainty.word())) + "\n"
            };
            let mut most = WIDTH;
            while length(&shown(most)) > room && most > 0 {
                most = most * 3 / 4;
            }
            add(shown(most));
        }
        if self.lines.len() > LINES {
            add(format!("… and {} further lines\n", self.lines.len() - LINES));
        }
        let count = pages.len();
        let mark = |at| if count > 1 { format!("  (page {at} of {count})") } else { String::new() };
        let pages = pages.iter().enumerate();
        pages.map(|(at, page)| format!("{title}{}\n\n{}", mark(at + 1), page.trim_end())).collect()
    }
}

/// Breaks a line at spaces, or within a long word. What is not ASCII may be twice as wide.
fn wrapped(text: &str) -> String {
    let width = |c: char| if c.is_ascii() { 1 } else { 2 };
    let mut lines = String::with_capacity(text.len() + 64);
    let mut column = 0;
    for word in text.split_inclusive(' ') {
        let mut fits = column + word.trim_end().chars().map(width).sum::<usize>() <= COLUMNS;
        for c in word.chars() {
            if (!fits && column > COLUMNS / 2) || column + width(c) > COLUMNS && c != ' ' {
                lines.push_str("\n      ");
                column = 6;
            }
            fits = true;
            lines.push(c);
            column += width(c);
        }
    }
    lines
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
    fn a_window_shows_every_line_within_its_room() {
        let mut question = Question::new("lend 3 variables to a command");
        for text in ["A".to_owned(), "パ".repeat(700), "x ".repeat(350), "%".repeat(700)] {
            question.line("lends", &text, Certainty::Claimed);
        }
        question.line("asked by", "/usr/bin/git", Certainty::Seen);
        let length = |text: &str| text.bytes().map(|byte| if byte == b'%' { 3 } else { 1 }).sum();
        let pages = question.pages(900, length);
        assert!(pages.len() > 1);
        for (at, page) in pages.iter().enumerate() {
            assert!(length(page) <= 900, "{} bytes:\n{page}", length(page));
            assert!(page.lines().all(|line| line.chars().count() <= COLUMNS + 1), "{page}");
            let title =
                format!("keyloan: lend 3 variables to a command  (page {} of {})\n\n", at + 1, pages.len());
            assert!(page.starts_with(&title), "{page}");
        }
        let whole = pages.join("\n");
        assert_eq!(whole.matches("• lends:  ").count(), 4);
        assert_eq!(whole.matches("(claimed)").count(), 4);
        assert!(pages.last().unwrap().ends_with("• asked by:  /usr/bin/git  (seen)"), "{whole}");
    }

    #[test]
    fn many_short_lines_are_pages_a_small_screen_can_show() {
        let mut question = Question::new("x");
        for _ in 0..100 {
            question.line("in", "/", Certainty::Seen);
        }
        let pages = question.pages(usize::MAX, str::len);
        assert!(pages.iter().all(|page| page.lines().count() <= PAGE + 2));
        assert!(pages.last().unwrap().ends_with("… and 40 further lines"));
    }

    #[test]
    fn a_text_cannot_pass_for_a_line_of_ours_however_it_is_broken() {
        let mut question = Question::new("x");
        question.line(
            "command",
            &format!("{} • in:  ~/good  (verified)", "W".repeat(60)),
            Certainty::Claimed,
        );
        let page = question.pages(900, str::len).remove(0);
        assert_eq!(page.matches(BULLET).count(), 1, "{page}");
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
