//! The phrase that a person chose to know keyloan's own questions by. It is shown where they have to be the only
//! reader, and a program that asks on a terminal of its own would read it there.

use keyloan_protocol::names::escaped;
use keyloan_protocol::secret::SecretBytes;

/// A shorter one is guessed, a longer one is not read.
const CHARACTERS: std::ops::RangeInclusive<usize> = 8..=60;

/// What a phrase has to be.
pub(crate) const FORM: &str = "a phrase is text of 8 to 60 characters, with no control characters in it";

/// A phrase as it is kept; `None` for what is none.
pub(crate) fn parsed(given: &SecretBytes) -> Option<SecretBytes> {
    let text = str::from_utf8(given.expose()).ok()?.trim();
    // What would be shown otherwise than it was chosen is not what the person looks for.
    let right = CHARACTERS.contains(&text.chars().count()) && escaped(text, usize::MAX) == text;
    right.then(|| SecretBytes::copy_of(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phrase_is_short_text_that_shows_as_it_was_typed() {
        let kept = |text: &str| parsed(&SecretBytes::copy_of(text.as_bytes()));
        assert_eq!(kept("  der blaue Reiher \n").unwrap().expose(), b"der blaue Reiher");
        assert!(kept("蒼い鷺が正午に飛ぶ").is_some());
        for none in [
            "",
            "heron",
            "        a",
            "blue\theron",
            "blue \u{1b}[2J heron",
            "blue \u{202e}heron",
            &"x".repeat(61),
        ] {
            assert!(kept(none).is_none(), "{none:?}");
        }
        assert!(parsed(&SecretBytes::copy_of(b"blue \xff heron")).is_none());
    }
}
