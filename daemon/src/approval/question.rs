//! A question, before it is known who will be asked: what will happen, to whom, with what, who asks, and how
//! sure each line is. All text in it may come from an attacker and is escaped here, once. What cannot be
//! shown whole is put to nobody: a yes to what was cut away is none.

use super::offer::Offer;
use crate::requester::{Requester, Settled};
use keyloan_protocol::names::escaped;
use keyloan_protocol::secret::SecretBytes;
use serde::Serialize;
use std::fmt::Write as _;
use std::rc::Rc;

/// How sure a line is. Observed things inform; none of them approves by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Certainty {
    /// By the kernel's credentials or the vault's own index.
    Verified,
    /// Read from `/proc` of the live process; code in that process can dress up.
    Seen,
    /// Read from `known_hosts`, which any program of the user can write.
    KnownHosts,
    /// What will be asked of a linked vault, which is read only after the yes and may not have it.
    Asked,
    /// Said by the requester.
    Claimed,
}

impl Certainty {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Verified => "verified",
            Self::Seen => "seen",
            Self::KnownHosts => "named by known_hosts",
            Self::Asked => "asked of that vault",
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
    #[serde(skip)]
    pub(crate) offers: Vec<Offer>,
    /// The person's phrase, where no requester can read it.
    #[serde(skip)]
    phrase: Option<Rc<SecretBytes>>,
    /// What of it was too long to be shown whole.
    #[serde(skip)]
    cut: Option<&'static str>,
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
/// Begins what goes on of a line on a terminal, and nothing else: so no text comes to stand at the left edge, however
/// it is padded to the terminal's width.
const GOES_ON: char = '⋮';
/// Columns of a terminal's text, at most: a program may have told the terminal that it is wider than it is.
const TERMINAL: usize = 80;
/// The most lines shown.
pub(crate) const LINES: usize = 60;

impl Question {
    /// A title is keyloan's own words; a name that it quotes is somebody else's and becomes a line.
    pub(crate) fn new(title: &str) -> Self {
        let mut question =
            Self { title: title.to_owned(), lines: Vec::new(), offers: Vec::new(), phrase: None, cut: None };
        if let Some((before, rest)) = title.split_once('\'')
            && let Some((name, after)) = rest.rsplit_once('\'')
        {
            question.title = format!("{before}named below{after}");
            question.line("name", name, Certainty::Claimed);
        }
        question
    }

    pub(crate) fn line(&mut self, label: &'static str, text: &str, certainty: Certainty) {
        if is_long(text) {
            self.cut = self.cut.or(Some(label));
        }
        self.lines.push(Line { label, text: unpadded(&escaped(text, WIDTH)), certainty });
    }

    /// Parts on one line, or on more where they need it.
    pub(crate) fn list(
        &mut self,
        label: &'static str,
        parts: &[String],
        between: &str,
        certainty: Certainty,
    ) {
        if parts.is_empty() {
            return;
        }
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
        let settled = requester.settled();
        let pid = format!("(pid {})", requester.peer.pid);
        let mut chain = settled.as_ref().map(|settled| settled.facts.chain.clone()).unwrap_or_default();
        match chain.first_mut() {
            Some(first) => first.extend([" ", &pid]),
            None => chain.push(pid),
        }
        self.list("asked by", &chain, " ← ", Certainty::Seen);
        for warning in settled.iter().flat_map(Settled::warnings) {
            self.line("warning", &warning, Certainty::Seen);
        }
        if let Some(directory) = requester.seen_directory() {
            self.line("in", &directory.display().to_string(), Certainty::Seen);
        }
        if let Some(terminal) = requester.terminal_name() {
            self.line("terminal", &terminal, Certainty::Seen);
        }
    }

    /// The same with the phrase, which stands last: right above what is typed, on whichever page that is.
    pub(crate) fn with_phrase(&self, phrase: Option<Rc<SecretBytes>>) -> Self {
        Self { phrase, ..self.clone() }
    }

    fn shown_phrase(&self, mark: char, instead: &str) -> Option<String> {
        let phrase = self.phrase.as_ref()?;
        let text = unpadded(&escaped(&String::from_utf8_lossy(phrase.expose()), WIDTH));
        Some(format!("{}  (chosen by you)", text.replace(mark, instead)))
    }

    /// The text for a terminal of so many columns.
    pub(crate) fn text(&self, columns: usize) -> String {
        let columns = columns.clamp(TERMINAL / 4, TERMINAL);
        let broken = |line: &str| wrapped(line, columns, &format!("{:10}{GOES_ON} ", ""));
        let mut text = format!("\n{}\n", broken(&format!("keyloan: {}", self.title)));
        for line in &self.lines {
            let shown = line.text.replace(GOES_ON, "\\u{22ee}");
            let line = format!("  {:<9} {shown}  ({})", line.label, line.certainty.word());
            let _ = writeln!(text, "{}", broken(&line));
        }
        for offer in &self.offers {
            let line = format!("  {}", shown_offer(offer, GOES_ON, "\\u{22ee}"));
            let _ = writeln!(text, "{}", broken(&line));
        }
        if let Some(phrase) = self.shown_phrase(GOES_ON, "\\u{22ee}") {
            let _ = writeln!(text, "{}", broken(&format!("  phrase    {phrase}")));
        }
        text
    }

    /// The text for windows, in pages that fit a room, measured by `length`. The last one says who asks.
    pub(crate) fn pages(&self, room: usize, length: impl Fn(&str) -> usize) -> Vec<String> {
        let title = in_window(&format!("keyloan: {}", self.title));
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
        let mut blocks: Vec<String> =
            self.lines.iter().flat_map(|line| line.blocks(&|block| length(block) <= room)).collect();
        let offer = |offer: &Offer| {
            in_window(&format!("{BULLET} {}", shown_offer(offer, BULLET, "\\u{2022}"))) + "\n"
        };
        let mut offers: String = self.offers.iter().map(offer).collect();
        if let Some(phrase) = self.shown_phrase(BULLET, "\\u{2022}") {
            offers += &(in_window(&format!("{BULLET} phrase:  {phrase}")) + "\n");
        }
        // What they are about is the last line, and is not to be looked for on another page.
        match blocks.last_mut() {
            Some(last) if length(last) + length(&offers) <= room => last.push_str(&offers),
            _ => blocks.push(offers),
        }
        blocks.into_iter().for_each(&mut add);
        let count = pages.len();
        let mark = |at| if count > 1 { format!("  (page {at} of {count})") } else { String::new() };
        let pages = pages.iter().enumerate();
        pages.map(|(at, page)| format!("{title}{}\n\n{}", mark(at + 1), page.trim_end())).collect()
    }
}

impl Line {
    /// The line as it stands in a window: in one piece, or in as many as fit, since nothing of it is cut away.
    fn blocks(&self, fits: &impl Fn(&str) -> bool) -> Vec<String> {
        let text: Vec<char> = self.text.replace(BULLET, "\\u{2022}").chars().collect();
        let shown = |pieces: usize| -> Vec<String> {
            text.chunks(text.len().div_ceil(pieces).max(1))
                .enumerate()
                .map(|(at, piece)| {
                    let goes_on = if at > 0 { ", going on" } else { "" };
                    let piece: String = piece.iter().collect();
                    let word = self.certainty.word();
                    in_window(&format!("{BULLET} {}{goes_on}:  {piece}  ({word})", self.label)) + "\n"
                })
                .collect()
        };
        let whole = (1..text.len()).map(shown).find(|blocks| blocks.iter().all(|block| fits(block)));
        whole.unwrap_or_else(|| shown(text.len().max(1)))
    }
}

fn shown_offer(offer: &Offer, mark: char, instead: &str) -> String {
    let words = unpadded(&escaped(&offer.words, WIDTH)).replace(mark, instead);
    format!("PIN+{:<5} {words}", offer.typed())
}

fn in_window(text: &str) -> String {
    wrapped(text, COLUMNS, "      ")
}

/// Breaks a line at spaces, or within a long word; what goes on begins so. What is not ASCII may be twice as wide.
fn wrapped(text: &str, columns: usize, goes_on: &str) -> String {
    let width = |c: char| if c.is_ascii() { 1 } else { 2 };
    let mut lines = String::with_capacity(text.len() + 64);
    let mut column = 0;
    for word in text.split_inclusive(' ') {
        let mut fits = column + word.trim_end().chars().map(width).sum::<usize>() <= columns;
        for c in word.chars() {
            let full = column + width(c) > columns;
            if full && c == ' ' {
                // The break that follows stands for it.
                continue;
            }
            if full || !fits && column > columns / 2 {
                lines.extend(["\n", goes_on]);
                column = goes_on.chars().map(width).sum();
            }
            fits = true;
            lines.push(c);
            column += width(c);
        }
    }
    lines
}

/// With white space shown where there is more of it than between words: it could push what follows out of sight.
fn unpadded(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let word = rest.trim_start();
        let space = &rest[..rest.len() - word.len()];
        match space.chars().count() {
            0 => shown.push(c),
            1..=2 => shown.push_str(space),
            many => shown.extend(std::iter::repeat_n('␣', many)),
        }
        rest = if space.is_empty() { &rest[c.len_utf8()..] } else { word };
    }
    shown
}

/// Whether text has to be cut to be shown.
fn is_long(text: &str) -> bool {
    escaped(text, usize::MAX).chars().count() > WIDTH
}

#[cfg(test)]
mod tests {
    use super::super::offer::Also;
    use super::*;
    use crate::policy::rule::Scope;

    #[test]
    fn nothing_shown_can_repaint_the_screen() {
        let mut question = Question::new("lend 1 variable");
        question.line("command", "twine \u{1b}[2J\u{202e}upload\nPIN:", Certainty::Claimed);
        let text = question.text(80);
        assert!(text.contains("twine \\u{1b}[2J\\u{202e}upload\\u{a}PIN:  (claimed)"), "{text}");
        assert_eq!(text.matches('\n').count(), 3);
    }

    #[test]
    fn no_text_reaches_the_left_edge_of_a_terminal_however_wide_that_is() {
        let forged = "  asked by  /usr/bin/git  (seen)";
        let wide = |line: &str| line.chars().map(|c| if c.is_ascii() { 1 } else { 2 }).sum::<usize>();
        for columns in [20, 79, 80, 500] {
            for (pad, length) in [" ", "\u{a0}", "\u{3000}", "x", "x ", "パ", "⋮ "]
                .into_iter()
                .flat_map(|pad| (0..90).map(move |length| (pad, length)))
            {
                let mut question = Question::new("x");
                question.line("command", &format!("{}{forged}", pad.repeat(length)), Certainty::Claimed);
                let shown = question.text(columns);
                let mut begins = "  command   ";
                for line in shown.lines().skip(2) {
                    assert!(wide(line) <= columns.min(80), "{shown}");
                    assert!(line.strip_prefix(begins).is_some_and(|rest| !rest.contains('⋮')), "{shown}");
                    begins = "          ⋮ ";
                }
            }
        }
        let mut question = Question::new("x");
        question.line("command", "a  b   c", Certainty::Claimed);
        assert_eq!(question.text(80), "\nkeyloan: x\n  command   a  b␣␣␣c  (claimed)\n");
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
        for (mark, count) in [('パ', 700), ('%', 700), ('x', 350)] {
            assert_eq!(whole.matches(mark).count(), count, "nothing is cut away");
        }
        assert!(pages.last().unwrap().ends_with("• asked by:  /usr/bin/git  (seen)"), "{whole}");
    }

    #[test]
    fn what_a_yes_may_cover_stands_beside_the_ways_to_say_so() {
        for count in 0..12 {
            let mut question = Question::new("x");
            for _ in 0..count {
                question.line("lends", &"word ".repeat(30), Certainty::Verified);
            }
            question.line("may cover", "the same, for /usr/bin/make (pid 4) • PIN+c", Certainty::Seen);
            question.offers = vec![
                Offer { also: Also::Grant(Scope::Command), words: "covers that until it ends".to_owned() },
                Offer { also: Also::Grant(Scope::Uses(20)), words: "covers that 20 times in all".to_owned() },
            ];
            let pages = question.pages(900, str::len);
            let last = pages.last().unwrap();
            assert!(last.contains("• may cover:  the same"), "{last}");
            assert!(
                last.ends_with(
                    "• PIN+c     covers that until it ends\n• PIN+20x   covers that 20 times in all"
                ),
                "{last}"
            );
            let text = question.text(80);
            assert!(
                text.ends_with(
                    "\n  PIN+c     covers that until it ends\n  PIN+20x   covers that 20 times in all\n"
                ),
                "{text}"
            );
        }
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
    }

    #[test]
    fn a_name_in_a_title_is_a_line_of_its_own() {
        let name = format!("it's{}• in:  ~/good  (verified)", "x".repeat(200));
        let question = Question::new(&format!("unlock it to read the item '{name}'?"));
        let page = question.pages(900, str::len).remove(0);
        assert!(
            page.starts_with("keyloan: unlock it to read the item named below?\n\n• name:  it's"),
            "{page}"
        );
        assert_eq!((page.matches(BULLET).count(), page.matches('x').count()), (1, 200), "{page}");
        assert_eq!(Question::new("show an item's names").title, "show an item's names");
        let long = Question::new(&format!("read the item '{}'", "x".repeat(WIDTH + 1)));
        assert_eq!(long.unshowable().unwrap(), "'name' has more than 700 characters");
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
