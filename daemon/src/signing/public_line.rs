//! The one line of a `.pub` file, of a plain key or a certificate.

use data_encoding::BASE64;
use keyloan_protocol::ssh_agent::key::PublicKey;
use keyloan_protocol::ssh_agent::wire::Malformed;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PublicLineError {
    #[error("it is not the line of an ssh public key: a type, the key in base64, a comment")]
    NotALine,
    #[error("the type before the key is not that of the key")]
    Type,
    #[error(transparent)]
    Key(#[from] Malformed),
}

/// Without a line break at its end. Control characters in the comment are replaced: a line break in it would
/// make a second line, with a key of somebody else's, in `authorized_keys`.
pub(crate) fn public_line(key: &PublicKey, comment: &[u8]) -> String {
    let mut line = format!("{} {}", key.name(), BASE64.encode(key.blob()));
    if !comment.is_empty() {
        line.push(' ');
        let comment = String::from_utf8_lossy(comment);
        line.extend(comment.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }));
    }
    line
}

/// The key and its comment.
pub(crate) fn read_public_line(line: &str) -> Result<(PublicKey, String), PublicLineError> {
    let mut words = line.trim().splitn(3, [' ', '\t']);
    let (Some(name), Some(base64)) = (words.next(), words.next()) else {
        return Err(PublicLineError::NotALine);
    };
    let comment = words.next().unwrap_or_default().trim_start();
    if comment.contains(['\n', '\r']) {
        return Err(PublicLineError::NotALine);
    }
    let blob = BASE64.decode(base64.as_bytes()).map_err(|_| PublicLineError::NotALine)?;
    let key = PublicKey::parse(&blob)?;
    if key.name() == name { Ok((key, comment.to_owned())) } else { Err(PublicLineError::Type) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keyloan_protocol::ssh_agent::key::Material;

    fn key() -> PublicKey {
        PublicKey::plain(&Material::Ed25519([1; 32])).unwrap()
    }

    #[test]
    fn a_line_comes_back_with_its_comment() {
        for comment in ["", "me@host", "two words  and more", "caf\u{e9}"] {
            let line = public_line(&key(), comment.as_bytes());
            assert_eq!(read_public_line(&line), Ok((key(), comment.to_owned())));
            assert_eq!(read_public_line(&format!("{line}\r\n")), Ok((key(), comment.to_owned())));
        }
    }

    #[test]
    fn a_comment_cannot_add_a_line() {
        let line = public_line(&key(), b"me\nssh-ed25519 AAAA\r\x1b[2J\xff");
        assert!(line.ends_with("me\u{fffd}ssh-ed25519 AAAA\u{fffd}\u{fffd}[2J\u{fffd}"));
        assert!(!line.contains(char::is_control));
    }

    #[test]
    fn what_is_no_such_line_is_refused() {
        let line = public_line(&key(), b"");
        let (name, base64) = line.split_once(' ').unwrap();
        for (text, fault) in [
            (String::new(), PublicLineError::NotALine),
            (name.to_owned(), PublicLineError::NotALine),
            (format!("{name} {base64}="), PublicLineError::NotALine),
            (format!("{line} me\n{line} you"), PublicLineError::NotALine),
            (format!("ssh-rsa {base64}"), PublicLineError::Type),
            (format!("{name} AAAA"), PublicLineError::Key(Malformed::Truncated)),
        ] {
            assert_eq!(read_public_line(&text), Err(fault), "{text}");
        }
    }
}
