//! The person's terminal. Its settings are changed only while this job is in its foreground, and put back
//! before anybody else gets to see it: at the end, at a stop, on failures.

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::sys::termios::{self, LocalFlags, SetArg, SpecialCharacterIndices as Key, Termios};
use nix::unistd::{getpgrp, getsid, tcgetpgrp};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

pub(super) struct Console {
    /// Opened by us, so that it can be made not to block: what was inherited is shared with the shell.
    terminal: OwnedFd,
    /// What to put back; there is one exactly while keys pass unprocessed.
    before: Option<Termios>,
}

impl Console {
    /// The session's terminal. Another one is never ours to take: whoever is in its foreground reads its keys.
    pub(super) fn find() -> Option<Self> {
        let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let terminal = open("/dev/tty", flags, Mode::empty()).ok()?;
        Some(Self { terminal, before: None })
    }

    /// Whether a stream leads to the session's terminal.
    pub(super) fn is(stream: BorrowedFd<'_>) -> bool {
        // tcgetsid(3) fails for a terminal that is not the caller's own.
        termios::tcgetsid(stream).is_ok_and(|session| Ok(session) == getsid(None))
    }

    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.terminal.as_fd()
    }

    pub(super) fn settings(&self) -> io::Result<Termios> {
        Ok(termios::tcgetattr(&self.terminal)?)
    }

    pub(super) fn in_foreground(&self) -> bool {
        tcgetpgrp(&self.terminal) == Ok(getpgrp())
    }

    pub(super) fn is_taken(&self) -> bool {
        self.before.is_some()
    }

    /// Lets keys pass as they are. With `shared`, others of a pipeline print here too and need their newlines
    /// processed. Done again after a stop that we did not see coming, for the shell set the terminal up for itself.
    pub(super) fn take(&mut self, shared: bool) {
        if !self.in_foreground() {
            self.before = None;
            return;
        }
        let before = self.before.take().map_or_else(|| termios::tcgetattr(&self.terminal), Ok);
        let Ok(before) = before else { return };
        let mut raw = before.clone();
        termios::cfmakeraw(&mut raw);
        if shared {
            raw.output_flags = before.output_flags;
        }
        if termios::tcsetattr(&self.terminal, SetArg::TCSADRAIN, &raw).is_ok() {
            self.before = Some(before);
        }
    }

    /// Gives another terminal the settings that will be put back here.
    pub(super) fn settle(&self, other: BorrowedFd<'_>) -> bool {
        self.before.as_ref().is_some_and(|before| termios::tcsetattr(other, SetArg::TCSANOW, before).is_ok())
    }

    /// Puts the settings back, unless others have the terminal: they brought their own.
    pub(super) fn give_back(&mut self) {
        let Some(before) = self.before.take() else { return };
        if self.in_foreground() {
            let _ = termios::tcsetattr(&self.terminal, SetArg::TCSADRAIN, &before);
        }
    }
}

/// Whether a terminal makes signals for its whole foreground of one of these keys, termios(3).
pub(super) fn interrupt(terminal: BorrowedFd<'_>, keys: &[u8]) -> bool {
    let Ok(settings) = termios::tcgetattr(terminal) else { return false };
    let is = |key: u8, index: Key| key != 0 && key == settings.control_chars[index as usize];
    settings.local_flags.contains(LocalFlags::ISIG)
        && keys.iter().any(|key| is(*key, Key::VINTR) || is(*key, Key::VQUIT))
}

impl Drop for Console {
    fn drop(&mut self) {
        self.give_back();
    }
}
