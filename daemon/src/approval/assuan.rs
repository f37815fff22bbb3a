//! The Assuan protocol as a pinentry speaks it, the client's side: one command, then its answer. A line has
//! at most 1000 bytes, both ways; a pinentry hangs up on a longer one. What arrives may be a PIN, so each
//! buffer is made once at its full size and wiped.

use keyloan_protocol::limits;
use keyloan_protocol::secret::SecretBytes;
use std::io;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use zeroize::Zeroizing;

/// The longest line without its end, `ASSUAN_LINELENGTH` of libassuan.
const LINE: usize = 1000;
/// Lines before the one that ends an answer.
const LINES: usize = 32;
/// What stands for text that was cut off.
const MARK: &str = " …";

#[derive(Debug, thiserror::Error)]
pub(crate) enum AssuanError {
    #[error("it ended without an answer")]
    Ended,
    #[error("it does not keep to the Assuan protocol")]
    Form,
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// How a command ended. Only `Ok` can be a yes.
pub(super) enum Answer {
    /// With the data that came before it.
    Ok(SecretBytes),
    /// The code without its source, as in gpg-error.h.
    Error(u32),
}

pub(super) struct Assuan {
    socket: UnixStream,
    held: Zeroizing<Vec<u8>>,
    filled: usize,
    /// The bytes of the line read last, its end included.
    taken: usize,
}

impl Assuan {
    pub(super) fn new(socket: UnixStream) -> Self {
        Self { socket, held: Zeroizing::new(vec![0; LINE + 2]), filled: 0, taken: 0 }
    }

    /// Sends a command and waits for its answer. A text too long for a line is cut with a mark.
    pub(super) async fn command(&mut self, name: &str, text: &str) -> Result<Answer, AssuanError> {
        let line = line(name, text);
        self.socket.write_all(line.as_bytes()).await?;
        self.answer().await
    }

    /// The answer to a command, or the greeting.
    pub(super) async fn answer(&mut self) -> Result<Answer, AssuanError> {
        let mut data = Zeroizing::new(Vec::with_capacity(limits::PASSPHRASE));
        for _ in 0..LINES {
            let line = self.line().await?;
            let (word, rest) = match line.iter().position(|byte| *byte == b' ') {
                Some(end) => (&line[..end], &line[end + 1..]),
                None => (line, &[][..]),
            };
            match word {
                b"OK" => return Ok(Answer::Ok(SecretBytes::copy_of(&data))),
                b"ERR" => {
                    let code = rest.split(|byte| *byte == b' ').next().unwrap_or_default();
                    let code = str::from_utf8(code).ok().and_then(|code| code.parse::<u32>().ok());
                    return Ok(Answer::Error(code.ok_or(AssuanError::Form)? & 0xffff));
                }
                b"D" => decode(rest, &mut data)?,
                // Status and comments.
                [b'S'] | [b'#', ..] => {}
                _ => return Err(AssuanError::Form),
            }
        }
        Err(AssuanError::Form)
    }

    async fn line(&mut self) -> Result<&[u8], AssuanError> {
        self.held.copy_within(self.taken..self.filled, 0);
        self.filled -= self.taken;
        self.taken = 0;
        let end = loop {
            if let Some(end) = self.held[..self.filled].iter().position(|byte| *byte == b'\n') {
                break end;
            }
            if self.filled == self.held.len() {
                return Err(AssuanError::Form);
            }
            match self.socket.read(&mut self.held[self.filled..]).await? {
                0 => return Err(AssuanError::Ended),
                read => self.filled += read,
            }
        };
        self.taken = end + 1;
        Ok(&self.held[..end])
    }
}

/// The bytes that a text takes in a line.
pub(super) fn length(text: &str) -> usize {
    text.bytes().map(|byte| if must_escape(byte) { 3 } else { 1 }).sum()
}

/// The bytes that a command leaves for its text.
pub(super) const fn room(command: &str) -> usize {
    LINE - command.len() - 1
}

fn must_escape(byte: u8) -> bool {
    matches!(byte, b'%' | b'\r' | b'\n')
}

fn line(name: &str, text: &str) -> String {
    let mut line = String::with_capacity(LINE + 1);
    line.push_str(name);
    if !text.is_empty() {
        line.push(' ');
    }
    let most = if length(text) <= room(name) { LINE } else { LINE - MARK.len() };
    for c in text.chars() {
        let mut bytes = [0; 4];
        let shown: &str = match c {
            '%' => "%25",
            '\r' => "%0D",
            '\n' => "%0A",
            c => c.encode_utf8(&mut bytes),
        };
        if line.len() + shown.len() > most {
            line.push_str(MARK);
            break;
        }
        line.push_str(shown);
    }
    line.push('\n');
    line
}

/// Adds the bytes of a data line, as long as they fit.
fn decode(encoded: &[u8], data: &mut Vec<u8>) -> Result<(), AssuanError> {
    let mut rest = encoded;
    while let Some((&byte, after)) = rest.split_first() {
        let (byte, after) = match (byte, after) {
            (b'%', [high, low, after @ ..]) => {
                let digit =
                    |digit: u8| char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
                let pair = digit(*high).zip(digit(*low)).ok_or(AssuanError::Form)?;
                (pair.0 << 4 | pair.1, after)
            }
            (b'%', _) => return Err(AssuanError::Form),
            plain => plain,
        };
        if data.len() == data.capacity() {
            return Err(AssuanError::Form);
        }
        data.push(byte);
        rest = after;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a client that sends one command makes of these bytes.
    async fn answer_to(said: &[u8]) -> Result<Answer, AssuanError> {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(said).await.unwrap();
        drop(theirs);
        Assuan::new(ours).answer().await
    }

    #[tokio::test]
    async fn an_answer_is_its_data_and_how_it_ended() {
        let Ok(Answer::Ok(data)) = answer_to(b"# hello\nS STATUS x\nD 4%257\nD 11%0A\nOK done\n").await
        else {
            panic!("it is a yes")
        };
        assert_eq!(data.expose(), b"4%711\n");
        assert!(matches!(answer_to(b"D 4711\nERR 83886179 cancelled\n").await, Ok(Answer::Error(99))));
    }

    #[tokio::test]
    async fn whatever_is_not_plainly_ok_is_no_yes() {
        for said in [
            b"OKAY\n".as_slice(),
            b"ok\n",
            b"ERR\n",
            b"ERR OK\n",
            b"INQUIRE PIN\nOK\n",
            b"\nOK\n",
            b"D %4\nOK\n",
            b"D %zz\nOK\n",
        ] {
            assert!(matches!(answer_to(said).await, Err(AssuanError::Form)), "{}", said.escape_ascii());
        }
        for said in [b"".as_slice(), b"OK", b"D 4711\n"] {
            assert!(matches!(answer_to(said).await, Err(AssuanError::Ended)), "{}", said.escape_ascii());
        }
    }

    #[tokio::test]
    async fn an_answer_without_end_is_refused() {
        let line = [b"D ".as_slice(), &[b'x'; 900], b"\n"].concat();
        let much = [line.as_slice(), &line, b"OK\n"].concat();
        assert!(matches!(answer_to(&much).await, Err(AssuanError::Form)));
        assert!(matches!(answer_to(&[b'x'; 2000]).await, Err(AssuanError::Form)));
        assert!(matches!(answer_to(&b"S x\n".repeat(100)).await, Err(AssuanError::Form)));
    }

    #[test]
    fn a_line_is_escaped_and_has_at_most_1000_bytes() {
        assert_eq!(line("SETDESC", "100 %\r\nü"), "SETDESC 100 %25%0D%0Aü\n");
        assert_eq!(line("GETPIN", ""), "GETPIN\n");
        let fits = "x".repeat(room("SETDESC"));
        assert_eq!(line("SETDESC", &fits).len(), LINE + 1);
        assert!(!line("SETDESC", &fits).contains(MARK));
        for text in ["x", "ü", "パ", "%", "\n"] {
            let line = line("SETDESC", &text.repeat(2000));
            assert!(line.len() <= LINE + 1 && line.len() > LINE - 8, "{}", line.len());
            assert!(line.ends_with(" …\n"), "{line}");
        }
    }
}
