//! Names that people give: parsed once at the edge, then trusted.

use crate::limits;
use std::fmt;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("a name is empty")]
    Empty,
    #[error("a name is longer than {} bytes", limits::NAME)]
    TooLong,
    #[error("a name holds a control character")]
    Control,
    #[error("a name begins or ends with white space")]
    Space,
    #[error("a name holds a character that is not allowed here (letters, digits, '-', '_' and '.' are)")]
    Plain,
    #[error("the title of an item of the built-in vault holds no '://'")]
    Elsewhere,
    #[error("a vault's name must be lower-case letters, digits, '-' and '_', at most 64")]
    Vault,
    #[error("a file's name is at most 255 bytes without '/', and neither '.' nor '..'")]
    File,
    #[error("a variable's name must be letters, digits and '_', and not begin with a digit")]
    Variable,
}

/// Any script, no control characters, no white space at the ends, at most [`limits::NAME`] bytes.
fn check(text: &str) -> Result<(), NameError> {
    if text.is_empty() {
        Err(NameError::Empty)
    } else if text.len() > limits::NAME {
        Err(NameError::TooLong)
    } else if text.chars().any(char::is_control) {
        Err(NameError::Control)
    } else if text.trim() != text {
        Err(NameError::Space)
    } else {
        Ok(())
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $check:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            pub fn parse(text: &str) -> Result<Self, NameError> {
                $check(text)?;
                Ok(Self(text.to_owned()))
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $type {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                Self::parse(&text)
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> Self {
                name.0
            }
        }
    };
}

name!(
    /// The title of an item, in any script: `pypi`, `~/coverage`, `Umgebung/Köln`.
    ItemName,
    check
);
name!(
    /// The name of a field of an item.
    FieldName,
    check
);
name!(
    /// What `-s NAME` takes: a set of `.keyloan.toml` or the title of an item.
    SetName,
    check
);
name!(
    /// The name of a vault, as it stands before `://`: lower-case letters, digits, `-`, `_`.
    VaultName,
    check_vault
);
name!(
    /// The name of a file that keyloan makes: a recipient's. ASCII letters, digits, `-`, `_`, `.`.
    PlainName,
    check_plain
);
name!(
    /// The name of a file in a directory: what POSIX calls a filename (XBD 3.170), without control characters.
    FileName,
    check_file
);
name!(
    /// The name of an environment variable, as POSIX shells take it (XBD 8.1).
    VarName,
    check_variable
);

impl ItemName {
    /// The title of an item of the built-in vault. With `://` in it, rules and grants for an item of another vault
    /// (`pass://web/x`) would be for this one, too.
    pub fn local(text: &str) -> Result<Self, NameError> {
        if text.contains("://") { Err(NameError::Elsewhere) } else { Self::parse(text) }
    }
}

impl VaultName {
    /// The built-in vault, which is always there and never another.
    pub const LOCAL: &str = "local";

    pub fn local() -> Self {
        Self(Self::LOCAL.to_owned())
    }

    pub fn is_local(&self) -> bool {
        self.0 == Self::LOCAL
    }
}

fn check_vault(text: &str) -> Result<(), NameError> {
    check(text)?;
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_');
    if text.len() <= 64 && text.chars().all(plain) { Ok(()) } else { Err(NameError::Vault) }
}

fn check_plain(text: &str) -> Result<(), NameError> {
    check(text)?;
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if text.starts_with('.') || !text.chars().all(allowed) { Err(NameError::Plain) } else { Ok(()) }
}

fn check_file(text: &str) -> Result<(), NameError> {
    check(text)?;
    if matches!(text, "." | "..") || text.contains('/') || text.len() > 255 {
        return Err(NameError::File);
    }
    Ok(())
}

fn check_variable(text: &str) -> Result<(), NameError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if text.is_empty() || text.starts_with(|c: char| c.is_ascii_digit()) || !text.chars().all(allowed) {
        return Err(NameError::Variable);
    }
    check(text)
}

/// The known word nearest to a mistyped one, where it is near enough to have been meant.
pub fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let distance = |known: &str| strsim::damerau_levenshtein(word, known);
    let near = known.iter().copied().min_by_key(|known| distance(known))?;
    (distance(near) <= 3 && distance(near) < near.len()).then_some(near)
}

/// Untrusted text for a terminal or a prompt: control characters, line breaks and the invisible and
/// direction-changing characters of Unicode become visible escapes (threats: prompts repainted by what
/// they show). At most `most` characters are kept, from both ends.
pub fn escaped(text: &str, most: usize) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || is_invisible(c) {
            shown.extend(c.escape_unicode());
        } else {
            shown.push(c);
        }
    }
    let count = shown.chars().count();
    if count <= most {
        return shown;
    }
    let half = most.saturating_sub(3).checked_div(2).unwrap_or(0);
    let head: String = shown.chars().take(half).collect();
    let tail: String = shown.chars().skip(count.saturating_sub(half)).collect();
    format!("{head} … {tail}")
}

/// A word as a shell takes it, for commands that people copy: what could repaint the screen is escaped, and the
/// whole quoted where it is more than a plain word.
pub fn quoted(text: &str) -> String {
    let shown = escaped(text, usize::MAX);
    let plain = |c: char| c.is_alphanumeric() || "/._-+:,@%~=".contains(c);
    if !shown.is_empty() && !shown.starts_with('~') && shown.chars().all(plain) {
        return shown;
    }
    format!("'{}'", shown.replace('\'', r"'\''"))
}

/// Characters that hide or reorder what is read: zero-width, bidi controls, line separators, tags, variation
/// selectors, and letters that fonts show as nothing (fillers of Hangul, vowels of Khmer, the empty Braille cell).
fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180e}'
        | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}'
        | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'
        | '\u{e0100}'..='\u{e01ef}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_any_script_are_taken_and_control_characters_are_not() {
        for good in ["pypi", "~/coverage", "Zugangsdaten für Köln", "パスワード", "🔑"] {
            assert_eq!(ItemName::parse(good).unwrap().as_str(), good);
        }
        for (bad, why) in [
            ("", NameError::Empty),
            ("a\nb", NameError::Control),
            ("a\u{1b}[2J", NameError::Control),
            (" a", NameError::Space),
        ] {
            assert_eq!(ItemName::parse(bad), Err(why));
        }
        assert_eq!(ItemName::parse(&"x".repeat(257)), Err(NameError::TooLong));
    }

    #[test]
    fn a_recipient_cannot_be_named_out_of_its_directory() {
        for bad in ["..", ".hidden", "a/b", "ü", ""] {
            assert!(PlainName::parse(bad).is_err(), "{bad}");
        }
        assert!(PlainName::parse("yubikey-5.2").is_ok());
    }

    #[test]
    fn variables_are_what_a_shell_takes() {
        for bad in ["", "1A", "A-B", "A B", "A=B", "Ä"] {
            assert_eq!(VarName::parse(bad), Err(NameError::Variable), "{bad}");
        }
        assert!(VarName::parse("_TWINE_PASSWORD2").is_ok());
    }

    #[test]
    fn what_a_person_copies_into_a_shell_is_one_word_there() {
        assert_eq!(quoted("/home/m/café/.keyloan.toml"), "/home/m/café/.keyloan.toml");
        assert_eq!(quoted("/a b/$(evil);c"), "'/a b/$(evil);c'");
        assert_eq!(quoted("/it's\u{1b}[2J"), r"'/it'\''s\u{1b}[2J'");
        assert_eq!((quoted(""), quoted("~x")), ("''".to_owned(), "'~x'".to_owned()));
    }

    #[test]
    fn what_could_repaint_a_prompt_is_shown_as_an_escape() {
        assert_eq!(escaped("a\u{1b}[31m\nb\u{202e}c", 80), "a\\u{1b}[31m\\u{a}b\\u{202e}c");
        let unseen = "\u{34f}\u{115f}\u{1160}\u{17b4}\u{17b5}\u{2800}\u{3164}\u{fe00}\u{fe0f}\u{ffa0}\u{e0100}\u{e01ef}";
        for c in unseen.chars() {
            assert_eq!(escaped(&format!("a{c}b"), 80), format!("a{}b", c.escape_unicode()));
        }
        let long = escaped(&"x".repeat(1000), 21);
        assert_eq!(long, "xxxxxxxxx … xxxxxxxxx");
    }
}
