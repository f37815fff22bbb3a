//! Asking on a terminal. The daemon opens it by the device number that the kernel gives for the requester,
//! and reads it itself: no child process ever holds the PIN or the passphrase. Never a plain Enter or `y`:
//! both can be pushed into a terminal by any program of the user.

use super::No;
use crate::readiness;
use crate::requester::Requester;
use keyloan_platform::process;
use keyloan_platform::terminal::{self, HiddenInput};
use keyloan_protocol::limits;
use keyloan_protocol::secret::SecretBytes;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use zeroize::Zeroizing;

/// What is typed within this time after a question came up was not typed as an answer to it.
pub(super) const SETTLE: Duration = Duration::from_millis(300);

/// A terminal with its echo off for as long as this lives.
pub(crate) struct Screen {
    io: AsyncFd<OwnedFd>,
    hidden: HiddenInput,
}

/// What ended the typing.
pub(crate) enum Typed {
    Line(SecretBytes),
    /// Ctrl-C, Escape, or Ctrl-D on an empty line.
    Cancelled,
}

impl Screen {
    /// The requester's own terminal, if it has one and is in its foreground.
    pub(crate) fn of(requester: &Requester) -> Result<Self, No> {
        if requester.terminal == 0 {
            return Err(No::Unaskable);
        }
        if requester.serves_another_host {
            return Err(No::Overheard);
        }
        in_front(requester)?;
        let descriptor = terminal::open(requester.terminal, requester.peer.uid).map_err(No::Terminal)?;
        let hidden = HiddenInput::begin(descriptor).map_err(No::Terminal)?;
        let io = hidden.descriptor().and_then(readiness::watch).map_err(No::Terminal)?;
        Ok(Self { io, hidden })
    }

    /// Very many where the terminal does not say.
    pub(crate) fn columns(&self) -> usize {
        terminal::columns(self.io.get_ref().as_fd()).unwrap_or(usize::MAX)
    }

    /// Few where the terminal does not say.
    pub(crate) fn rows(&self) -> usize {
        terminal::rows(self.io.get_ref().as_fd()).unwrap_or(24)
    }

    pub(crate) async fn write(&self, text: &str) -> io::Result<()> {
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            let mut ready = self.io.writable().await?;
            match ready.try_io(|terminal| Ok(nix::unistd::write(terminal, rest)?)) {
                Ok(written) => rest = &rest[written?..],
                Err(_would_block) => {}
            }
        }
        Ok(())
    }

    /// Writes what there is room for, for whoever cannot wait.
    pub(crate) fn write_now(&self, text: &str) {
        let _ = nix::unistd::write(self.io.get_ref(), text.as_bytes());
    }

    /// What was typed, as it comes. A terminal that is gone is an error.
    pub(crate) async fn read(&self, typed: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.io.readable().await?;
            match ready.try_io(|terminal| Ok(nix::unistd::read(terminal, typed)?)) {
                Ok(Ok(0)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => return read,
                Err(_would_block) => {}
            }
        }
    }

    /// Lets a question stand a moment and throws away what was typed before it could be read.
    pub(crate) async fn settle(&self) -> io::Result<()> {
        tokio::time::sleep(SETTLE).await;
        self.hidden.forget_typed()
    }

    /// One line of a passphrase's length at most, unseen.
    pub(crate) async fn read_line(&self, prompt: &str) -> io::Result<Typed> {
        self.read_line_of(prompt, limits::PASSPHRASE).await
    }

    /// One line of at most so many bytes, unseen. Backspace and Ctrl-U work as people expect. A longer line is
    /// read to its end, so that none of it goes to whoever reads the terminal next, and is an error.
    pub(crate) async fn read_line_of(&self, prompt: &str, most: usize) -> io::Result<Typed> {
        self.write(prompt).await?;
        let mut line = HiddenLine::of(most);
        let mut typed = Zeroizing::new([0_u8; 64]);
        loop {
            let read = self.read(typed.as_mut()).await?;
            for byte in &typed[..read] {
                if let Some(ended) = line.take(*byte) {
                    self.write("\n").await?;
                    return ended;
                }
            }
        }
    }
}

/// Whether a process is in the foreground of the terminal that it asked from: one in the background would put its
/// question into what is typed for another.
pub(crate) fn in_front(requester: &Requester) -> Result<(), No> {
    let stat = process::stat(requester.peer.pid).ok_or(No::Unaskable)?;
    if stat.terminal != requester.terminal || !requester.peer.is_alive() {
        return Err(No::Unaskable);
    }
    if stat.group == stat.foreground { Ok(()) } else { Err(No::Background) }
}

/// A line that is being typed; wiped when it is dropped.
pub(crate) struct HiddenLine {
    line: Zeroizing<Vec<u8>>,
    most: usize,
    too_long: bool,
}

impl HiddenLine {
    pub(crate) fn of(most: usize) -> Self {
        // Made once at its full size: growing would leave copies behind.
        Self { line: Zeroizing::new(Vec::with_capacity(most)), most, too_long: false }
    }

    /// Takes one byte more, and says how the line ended if that ended it.
    pub(crate) fn take(&mut self, byte: u8) -> Option<io::Result<Typed>> {
        match byte {
            b'\r' | b'\n' if self.too_long => {
                return Some(Err(io::Error::other(format!("more than {} bytes were typed", self.most))));
            }
            b'\r' | b'\n' => return Some(Ok(Typed::Line(SecretBytes::copy_of(&self.line)))),
            0x03 | 0x1b => return Some(Ok(Typed::Cancelled)),
            0x04 if self.line.is_empty() => return Some(Ok(Typed::Cancelled)),
            0x7f | 0x08 => erase_one(&mut self.line),
            0x15 => {
                self.line.clear();
                self.too_long = false;
            }
            0x00..=0x1f => {}
            byte if self.line.len() < self.most => self.line.push(byte),
            _ => self.too_long = true,
        }
        None
    }
}

/// Takes the last character away, however many bytes it has.
fn erase_one(line: &mut Vec<u8>) {
    while let Some(byte) = line.pop() {
        if byte & 0b1100_0000 != 0b1000_0000 {
            break;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backspace_takes_a_whole_character() {
        let mut line = "aü".as_bytes().to_vec();
        erase_one(&mut line);
        assert_eq!(line, b"a");
        erase_one(&mut line);
        erase_one(&mut line);
        assert_eq!(line, b"");
    }
}
