//! What must not be shown: each lent value and the forms it takes when a program encodes it whole. Sorted, so
//! that a trie is walked without one: memory stays at the sum of their lengths, some twenty times the values,
//! where an automaton would take thirty bytes for each of these bytes.

use data_encoding::{BASE64_NOPAD, BASE64URL_NOPAD, Encoding, HEXLOWER, HEXUPPER};
use keyloan_protocol::control::Value;
use keyloan_protocol::names::VarName;
use keyloan_protocol::secret::SecretBytes;
use std::ops::Range;
use zeroize::Zeroizing;

/// A shorter value would hide text that merely looks like it. Every encoded form is longer than its value.
pub(super) const SHORTEST: usize = 8;

pub(super) struct Patterns {
    sorted: Vec<SecretBytes>,
    longest: usize,
    /// One bit for each hash of a pattern's first [`SHORTEST`] bytes: where it is 0, none begins.
    beginnings: Zeroizing<Vec<u64>>,
    shift: u32,
}

/// How far text agrees with patterns.
#[derive(Clone)]
pub(super) struct Walk {
    /// Bytes of text that were looked at.
    pub(super) depth: usize,
    /// The longest pattern that the text holds whole; 0 for none.
    pub(super) best: usize,
    /// The patterns that may still follow, all longer than `depth`.
    open: Range<usize>,
}

impl Patterns {
    /// Takes the secrets among the values; gives also the names of those that are too short to hide.
    pub(super) fn of<'a>(values: &'a [Value], literals: &[VarName]) -> (Self, Vec<&'a str>) {
        let mut too_short = Vec::new();
        let mut forms = Vec::new();
        for value in values {
            if literals.iter().any(|literal| literal.as_str() == value.name) {
                continue;
            }
            // Command substitution drops newlines at the end (POSIX XCU 2.6.3): with them it would not be found.
            let bytes = value.bytes.expose();
            let bytes =
                &bytes[..bytes.iter().rposition(|byte| !b"\r\n".contains(byte)).map_or(0, |at| at + 1)];
            match bytes.len() {
                0 => {}
                1..SHORTEST => too_short.push(value.name.as_str()),
                _ => add_forms(bytes, &mut forms),
            }
        }
        (Self::sorted(forms), too_short)
    }

    fn sorted(mut patterns: Vec<SecretBytes>) -> Self {
        patterns.retain(|pattern| pattern.len() >= SHORTEST);
        patterns.sort_unstable_by(|a, b| a.expose().cmp(b.expose()));
        patterns.dedup_by(|a, b| a.expose() == b.expose());
        // Sparse enough that few places of other text are looked at twice, small enough to stay in a cache.
        let bits = (patterns.len() * 64).next_power_of_two().clamp(1 << 15, 1 << 20).trailing_zeros();
        let mut built = Self {
            longest: patterns.iter().map(SecretBytes::len).max().unwrap_or(0),
            sorted: Vec::new(),
            beginnings: Zeroizing::new(vec![0; 1 << (bits - 6)]),
            shift: 64 - bits,
        };
        for pattern in &patterns {
            let bit = built.hash(&pattern.expose()[..SHORTEST]);
            built.beginnings[bit >> 6] |= 1 << (bit & 63);
        }
        built.sorted = patterns;
        built
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sorted.is_empty()
    }

    pub(super) fn longest(&self) -> usize {
        self.longest
    }

    /// The first place where a pattern may begin, as far as its first bytes tell.
    pub(super) fn next_beginning(&self, text: &[u8]) -> Option<usize> {
        if self.sorted.is_empty() {
            return None;
        }
        let whole = text.windows(SHORTEST).position(|window| {
            let bit = self.hash(window);
            self.beginnings[bit >> 6] >> (bit & 63) & 1 == 1
        });
        // The last places have too few bytes for the table.
        let last = (text.len() + 1).saturating_sub(SHORTEST);
        whole.or_else(|| (last..text.len()).find(|at| self.walk(None, &text[*at..]).1))
    }

    #[inline]
    fn hash(&self, beginning: &[u8]) -> usize {
        let word = beginning.try_into().map_or(0, u64::from_le_bytes);
        // The constant of Fibonacci hashing: the upper bits depend on all bytes.
        // At most twenty bits are left, so it fits.
        usize::try_from(word.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> self.shift).unwrap_or(0)
    }

    /// Walks on over `text`, which begins where the walk began. True while more text could make a pattern whole.
    pub(super) fn walk(&self, begun: Option<Walk>, text: &[u8]) -> (Walk, bool) {
        let mut walk = begun.unwrap_or(Walk { depth: 0, best: 0, open: 0..self.sorted.len() });
        while walk.depth < text.len() && !walk.open.is_empty() {
            // What the first and the last agree in, all between them do.
            let first = self.sorted[walk.open.start].expose();
            let last = self.sorted[walk.open.end - 1].expose();
            walk.depth += agreement(&first[walk.depth..], &last[walk.depth..], &text[walk.depth..]);
            if walk.depth == first.len() {
                // The shorter of two that agree is sorted first.
                walk.best = walk.depth;
                walk.open.start += 1;
                continue;
            }
            if walk.depth == text.len() {
                break;
            }
            let byte = text[walk.depth];
            let place = |pattern: &SecretBytes| pattern.expose()[walk.depth];
            let open = &self.sorted[walk.open.clone()];
            let below = open.partition_point(|pattern| place(pattern) < byte);
            let same = open[below..].partition_point(|pattern| place(pattern) == byte);
            walk.open = walk.open.start + below..walk.open.start + below + same;
        }
        let open = !walk.open.is_empty();
        (walk, open)
    }

    /// Whether the text looked at is half of a pattern that may follow, or more.
    pub(super) fn is_half(&self, walk: &Walk) -> bool {
        self.sorted[walk.open.clone()].iter().any(|pattern| walk.depth >= pattern.len().div_ceil(2))
    }
}

/// How many bytes three texts have in common at their beginnings.
fn agreement(one: &[u8], two: &[u8], three: &[u8]) -> usize {
    const BLOCK: usize = 64;
    let most = one.len().min(two.len()).min(three.len());
    let mut at = 0;
    // By blocks first: values with much in common may be long.
    while at + BLOCK <= most
        && one[at..at + BLOCK] == three[at..at + BLOCK]
        && two[at..at + BLOCK] == three[at..at + BLOCK]
    {
        at += BLOCK;
    }
    while at < most && one[at] == three[at] && two[at] == three[at] {
        at += 1;
    }
    at
}

/// The value, and what it becomes in a terminal, base64, hexadecimal and a URL.
fn add_forms(value: &[u8], forms: &mut Vec<SecretBytes>) {
    forms.push(SecretBytes::copy_of(value));
    // ONLCR of a terminal (termios(3)); a carriage return that is there already gets another newline only.
    forms.push(replaced(value, |byte| if byte == b'\n' { b"\r\n" } else { b"" }));
    for before in 0..3 {
        for encoding in [BASE64_NOPAD, BASE64URL_NOPAD] {
            forms.push(base64(&encoding, before, value));
        }
    }
    for encoding in [HEXLOWER, HEXUPPER] {
        let mut hex = Zeroizing::new(vec![0; encoding.encode_len(value.len())]);
        encoding.encode_mut(value, &mut hex);
        forms.push(SecretBytes::copy_of(&hex));
    }
    // RFC 3986 2.3 to the letter; with what Python's quote() and JavaScript's encodeURIComponent() keep.
    for kept in ["", "/", "!'()*"] {
        forms.push(url(value, kept.as_bytes(), b"0123456789ABCDEF"));
        forms.push(url(value, kept.as_bytes(), b"0123456789abcdef"));
    }
}

/// With each byte that has a replacement replaced.
fn replaced(value: &[u8], replacement: impl Fn(u8) -> &'static [u8]) -> SecretBytes {
    let length = value.iter().map(|byte| replacement(*byte).len().max(1)).sum();
    let mut form = Zeroizing::new(Vec::with_capacity(length));
    for byte in value {
        match replacement(*byte) {
            b"" => form.push(*byte),
            other => form.extend_from_slice(other),
        }
    }
    SecretBytes::copy_of(&form)
}

/// The characters that the value alone determines, with so many bytes before it and any after it: those whose
/// six bits all lie within the value's (RFC 4648 4).
fn base64(encoding: &Encoding, before: usize, value: &[u8]) -> SecretBytes {
    let mut text = Zeroizing::new(vec![0; before + value.len()]);
    text[before..].copy_from_slice(value);
    let mut encoded = Zeroizing::new(vec![0; encoding.encode_len(text.len())]);
    encoding.encode_mut(&text, &mut encoded);
    SecretBytes::copy_of(&encoded[(before * 8).div_ceil(6)..text.len() * 8 / 6])
}

fn url(value: &[u8], kept: &[u8], digits: &[u8; 16]) -> SecretBytes {
    let mut form = Zeroizing::new(Vec::with_capacity(value.len() * 3));
    for byte in value {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(byte) || kept.contains(byte) {
            form.push(*byte);
        } else {
            form.extend([b'%', digits[usize::from(byte >> 4)], digits[usize::from(byte & 15)]]);
        }
    }
    SecretBytes::copy_of(&form)
}

#[cfg(test)]
impl Patterns {
    /// Patterns as they are, for tests of what finds them.
    pub(super) fn plain(patterns: &[&[u8]]) -> Self {
        Self::sorted(patterns.iter().map(|pattern| SecretBytes::copy_of(pattern)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(name: &str, bytes: &[u8]) -> Value {
        Value::new(name, SecretBytes::copy_of(bytes))
    }

    fn hides(patterns: &Patterns, text: &[u8]) -> bool {
        (0..text.len()).any(|at| patterns.walk(None, &text[at..]).0.best > 0)
    }

    #[test]
    fn every_form_of_a_value_is_hidden_wherever_it_stands() {
        let value = b"s3cr=t/\xff\xfe?>\nand more";
        let values = [secret("A", value)];
        let (patterns, too_short) = Patterns::of(&values, &[]);
        assert!(too_short.is_empty());
        for before in ["", "x", "xy", "xyz", "xyz1"] {
            for after in ["", "1", "12", "123"] {
                let text = [before.as_bytes(), value, after.as_bytes()].concat();
                for encoding in [BASE64_NOPAD, BASE64URL_NOPAD, HEXLOWER, HEXUPPER] {
                    assert!(hides(&patterns, encoding.encode(&text).as_bytes()), "{before} {after}");
                }
            }
        }
        for form in ["s3cr%3Dt%2F%FF%FE%3F%3E%0Aand%20more", "s3cr%3dt/%ff%fe%3f%3e%0aand%20more"] {
            assert!(hides(&patterns, form.as_bytes()), "{form}");
        }
        assert!(hides(&patterns, b"s3cr=t/\xff\xfe?>\r\nand more"));
        assert!(!hides(&patterns, b"s3cr=t/\xff\xfe?>\nand mor"));
    }

    #[test]
    fn base64_holds_only_what_the_value_determines() {
        let form = |before| base64(&BASE64_NOPAD, before, b"12345678");
        assert_eq!(form(0).expose(), b"MTIzNDU2Nz");
        assert_eq!(form(1).expose(), b"EyMzQ1Njc4");
        assert_eq!(form(2).expose(), b"xMjM0NTY3O");
    }

    #[test]
    fn literals_are_shown_and_short_values_are_named() {
        let values = [
            secret("A", b"a literal"),
            secret("B", b"1234567\n"),
            secret("C", b"12345678"),
            secret("D", b""),
        ];
        let (patterns, too_short) = Patterns::of(&values, &[VarName::parse("A").unwrap()]);
        assert_eq!(too_short, ["B"]);
        assert!(
            !hides(&patterns, b"a literal") && !hides(&patterns, b"1234567") && hides(&patterns, b"12345678")
        );
    }

    #[test]
    fn the_newline_at_a_values_end_need_not_be_printed() {
        let values = [secret("A", b"line one\nline two\r\n")];
        assert!(hides(&Patterns::of(&values, &[]).0, b"line one\nline two$"));
    }

    #[test]
    fn the_longest_pattern_is_found_and_longer_ones_are_awaited() {
        let patterns = Patterns::plain(&[b"password", b"password-long", b"pass-others"]);
        let walk = |text: &[u8]| {
            let (walk, open) = patterns.walk(None, text);
            (walk.best, open)
        };
        assert_eq!(walk(b"pass"), (0, true));
        assert_eq!(walk(b"password"), (8, true));
        assert_eq!(walk(b"password-l"), (8, true));
        assert_eq!(walk(b"password-lo!"), (8, false));
        assert_eq!(walk(b"password-long"), (13, false));
        assert_eq!(walk(b"past"), (0, false));
    }

    #[test]
    fn a_megabyte_of_values_takes_memory_in_proportion() {
        let values: Vec<Value> =
            (0_u8..8).map(|at| secret(&format!("V{at}"), &vec![b'a' + at; 128 * 1024])).collect();
        let (patterns, _) = Patterns::of(&values, &[]);
        let held: usize = patterns.sorted.iter().map(SecretBytes::len).sum();
        assert!(held < 21 * 1024 * 1024, "{held}");
        assert!(hides(&patterns, &vec![b'c'; 128 * 1024]));
    }
}
