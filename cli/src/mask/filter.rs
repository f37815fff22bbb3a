//! Replaces what must not be shown in a stream that arrives in pieces. What it says is the same wherever the
//! pieces are cut: leftmost pattern first, of those that begin there the longest. Held back is only what could
//! still become a pattern; a pause in the stream lets that go, as itself or, from half of a pattern on, hidden.

use super::patterns::{Patterns, Walk};
use std::rc::Rc;
use zeroize::{Zeroize, Zeroizing};

pub(super) const MARK: &[u8] = b"***";

/// Read at once.
pub(super) const PIECE: usize = 64 * 1024;

pub(super) struct Filter {
    patterns: Rc<Patterns>,
    /// What is held back, then room for a piece. Never grows.
    text: Zeroizing<Vec<u8>>,
    held: usize,
    /// How far what is held back is known; there is one exactly while something is held back.
    walk: Option<Walk>,
    /// Of what is held back, so many bytes went out in a pause already, as themselves or as a mark.
    gone: usize,
    /// The last of that went out as a mark.
    marked: bool,
}

impl Filter {
    pub(super) fn new(patterns: &Rc<Patterns>) -> Self {
        let text = Zeroizing::new(vec![0; patterns.longest() + PIECE]);
        Self { patterns: Rc::clone(patterns), text, held: 0, walk: None, gone: 0, marked: false }
    }

    /// Room that `out` needs in any case: nothing becomes longer, for a mark is shorter than any pattern.
    pub(super) fn room(&self) -> usize {
        self.text.len() + MARK.len()
    }

    /// Where the next piece goes.
    pub(super) fn space(&mut self) -> &mut [u8] {
        let held = self.held;
        &mut self.text[held..held + PIECE]
    }

    /// Takes so many bytes that were put into `space`.
    pub(super) fn take(&mut self, length: usize, out: &mut Vec<u8>) {
        self.go_on(self.held + length, false, out);
    }

    /// Nothing more will come.
    pub(super) fn end(&mut self, out: &mut Vec<u8>) {
        self.go_on(self.held, true, out);
    }

    /// Whether something waits that has not gone out yet.
    pub(super) fn holds(&self) -> bool {
        self.held > self.gone
    }

    /// Nothing came for a while: a prompt that looks like the beginning of a value must not wait for ever.
    /// What follows is still compared, so that at most the first half of a value is ever shown. That holds for a
    /// value within the beginning of another, too, so every place is looked at.
    pub(super) fn pause(&mut self, out: &mut Vec<u8>) {
        if self.walk.is_none() {
            return;
        }
        let mut hidden = 0;
        for at in 0..self.held {
            let (walk, _) = self.patterns.walk(None, &self.text[at..self.held]);
            hidden = hidden.max(if self.patterns.is_half(&walk) { self.held } else { at + walk.best });
            if at < self.gone {
                continue;
            }
            if at < hidden {
                self.mark(out);
            } else {
                out.push(self.text[at]);
                self.marked = false;
            }
        }
        self.gone = self.held;
    }

    fn mark(&mut self, out: &mut Vec<u8>) {
        if !self.marked {
            out.extend_from_slice(MARK);
        }
        self.marked = true;
    }

    fn go_on(&mut self, end: usize, ending: bool, out: &mut Vec<u8>) {
        let mut at = 0;
        let mut secret = self.walk.is_some();
        let mut begun = self.walk.take();
        loop {
            let start = match begun {
                Some(_) => at,
                None => match self.patterns.next_beginning(&self.text[at..end]) {
                    Some(ahead) => at + ahead,
                    None => end,
                },
            };
            self.say(at..start, out);
            at = start;
            if at == end {
                break;
            }
            let (walk, open) = self.patterns.walk(begun.take(), &self.text[at..end]);
            secret |= walk.depth >= MARK.len();
            if open && !ending {
                self.walk = Some(walk);
                break;
            }
            if walk.best > 0 {
                // What went out whole in a pause has its mark.
                if self.gone < walk.best {
                    self.mark(out);
                }
                self.gone = self.gone.saturating_sub(walk.best);
                at += walk.best;
            } else {
                self.say(at..at + 1, out);
                at += 1;
            }
            self.marked &= self.gone > 0;
        }
        self.text.copy_within(at..end, 0);
        self.held = end - at;
        if secret {
            self.text[self.held..end].zeroize();
        }
    }

    /// Lets text go, but for what of it went out before.
    fn say(&mut self, part: std::ops::Range<usize>, out: &mut Vec<u8>) {
        let before = self.gone.min(part.len());
        self.gone -= before;
        self.marked &= self.gone > 0;
        if !part.is_empty() {
            out.extend_from_slice(&self.text[part.start + before..part.end]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATTERNS: &[&[u8]] = &[b"abababab", b"ababababcabab", b"babababa", b"babbabbabb", b"ccccccccc"];

    /// What is said when the text comes whole, by the plainest means.
    fn reference(patterns: &[&[u8]], text: &[u8]) -> Vec<u8> {
        let mut said = Vec::new();
        let mut at = 0;
        while at < text.len() {
            let here = patterns.iter().filter(|pattern| text[at..].starts_with(pattern));
            if let Some(length) = here.map(|pattern| pattern.len()).max() {
                said.extend_from_slice(MARK);
                at += length;
            } else {
                said.push(text[at]);
                at += 1;
            }
        }
        said
    }

    struct Fed {
        filter: Filter,
        out: Vec<u8>,
    }

    impl Fed {
        fn new(patterns: &[&[u8]]) -> Self {
            Self { filter: Filter::new(&Rc::new(Patterns::plain(patterns))), out: Vec::new() }
        }

        fn feed(&mut self, piece: &[u8]) {
            self.filter.space()[..piece.len()].copy_from_slice(piece);
            self.filter.take(piece.len(), &mut self.out);
        }

        /// What goes out for a piece and the pause after it.
        fn paused(&mut self, piece: &[u8]) -> String {
            self.out.clear();
            self.feed(piece);
            self.filter.pause(&mut self.out);
            String::from_utf8(self.out.clone()).unwrap()
        }
    }

    /// Each bit of `cuts` that is set is a border between two pieces.
    fn in_pieces(fed: &mut Fed, text: &[u8], cuts: usize) -> Vec<u8> {
        let mut from = 0;
        for at in 1..=text.len() {
            if at == text.len() || cuts >> (at - 1) & 1 == 1 {
                fed.feed(&text[from..at]);
                from = at;
            }
        }
        fed.filter.end(&mut fed.out);
        std::mem::take(&mut fed.out)
    }

    #[test]
    fn every_cut_of_a_text_says_what_the_whole_says() {
        let mut fed = Fed::new(PATTERNS);
        for text in [
            b"abababab".as_slice(),
            b"xabababab",
            b"ababababcaba",
            b"ababababcabab",
            b"bababababa",
            b"aabababababab",
            b"babbababababx",
            b"ccccccccccccc",
            b"cababababcab",
            b"abababa",
        ] {
            for cuts in 0..1 << (text.len() - 1) {
                let said = in_pieces(&mut fed, text, cuts);
                assert_eq!(said, reference(PATTERNS, text), "{cuts:b} {}", String::from_utf8_lossy(text));
            }
        }
    }

    #[test]
    fn every_text_of_two_letters_says_what_the_reference_says() {
        let mut fed = Fed::new(PATTERNS);
        for bits in 0..1_usize << 15 {
            let text: Vec<u8> = (0..15).map(|at| b"ab"[bits >> at & 1]).collect();
            for cuts in [0, 1 << 6, 0b10_0010_0100_1000, usize::MAX] {
                assert_eq!(in_pieces(&mut fed, &text, cuts), reference(PATTERNS, &text), "{cuts:b} {bits:b}");
            }
        }
    }

    #[test]
    fn only_what_may_become_a_pattern_is_held_back() {
        let mut fed = Fed::new(&[b"secret-value"]);
        fed.feed(b"the sec");
        assert_eq!(fed.out, b"the ");
        fed.feed(b"ond secret-valu");
        assert_eq!(fed.out, b"the second ");
        fed.feed(b"e");
        assert_eq!(fed.out, b"the second ***");
        fed.feed(b" secret-et");
        assert_eq!(fed.out, b"the second *** secret-et");
        assert!(!fed.filter.holds());
    }

    /// Each piece with what goes out for it and the pause after it.
    fn says(patterns: &[&[u8]], pieces: &[(&str, &str)]) {
        let mut fed = Fed::new(patterns);
        for (at, (piece, said)) in pieces.iter().enumerate() {
            assert_eq!(fed.paused(piece.as_bytes()), *said, "piece {at}, {piece}");
        }
    }

    #[test]
    fn a_pause_lets_less_than_half_a_value_go_and_hides_the_rest() {
        let hidden = [("> 012", "> 012"), ("3", "3"), ("4", "***"), ("5", ""), ("6789!", "!")];
        let again = [("01", "01"), ("23456789", "***")];
        let others = [("012", "012"), ("0123", "0123"), ("01234", "***"), ("x", "x")];
        says(&[b"0123456789"], &[&hidden[..], &again, &others].concat());
    }

    #[test]
    fn a_pause_between_a_value_and_a_longer_one_hides_both() {
        let shorter = [("password", "***"), ("-a", "-a"), ("!", "!")];
        let longer = [("password-a", "***-a"), ("nd-a", "***"), ("-lot-more.", ".")];
        says(&[b"password", b"password-and-a-lot-more"], &[shorter, longer].concat());
    }

    #[test]
    fn a_pause_within_a_value_hides_the_other_value_that_stands_there() {
        // At each X the mark of the shorter one is there already.
        let other = [("0123456789ab", "012***b"), ("X", "X")];
        let whole = [("0123456", "012***"), ("789a", ""), ("bcdefgh", ""), ("ijklmnopqrstuvwxyz.", ".")];
        let begun = [("012345", "012345"), ("6", "***"), ("X", "X")];
        let patterns: &[&[u8]] = &[b"0123456789abcdefghijklmnopqrstuvwxyz", b"3456789a"];
        says(patterns, &[&other[..], &whole, &begun].concat());
    }

    #[test]
    fn no_text_of_two_letters_shows_a_value_wherever_it_pauses() {
        let mut fed = Fed::new(PATTERNS);
        for bits in 0..1_usize << 15 {
            let text: Vec<u8> = (0..15).map(|at| b"ab"[bits >> at & 1]).collect();
            for pieces in [1, 2, 3, 5, 7] {
                let mut said = String::new();
                text.chunks(pieces).for_each(|piece| said += &fed.paused(piece));
                fed.out.clear();
                fed.filter.end(&mut fed.out);
                said += str::from_utf8(&fed.out).unwrap();
                let shown = PATTERNS.iter().any(|pattern| said.contains(str::from_utf8(pattern).unwrap()));
                assert!(!shown, "{} by {pieces}: {said}", String::from_utf8_lossy(&text));
            }
        }
    }

    #[test]
    fn what_was_hidden_is_wiped() {
        let mut fed = Fed::new(&[b"secret-value"]);
        fed.feed(b"a secret-value and sec");
        fed.feed(b"ond text");
        assert!(!fed.filter.text.windows(6).any(|window| window == b"secret"));
    }
}
