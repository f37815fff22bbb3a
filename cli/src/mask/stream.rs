//! One stream of the command on its way out: read, filtered, written. It never reads before what it read last
//! is written, so that a slow reader slows the command, as a pipe or a terminal does.

use super::filter::{Filter, PIECE};
use super::patterns::Patterns;
use nix::errno::Errno;
use nix::libc::PIPE_BUF;
use nix::poll::{PollFd, PollFlags};
use nix::sys::stat::{SFlag, fstat};
use nix::unistd::{read, write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

/// Silence after which a held-back tail goes out: too short for a person to wait, long enough for a program
/// that writes a value in pieces.
const PAUSE: Duration = Duration::from_millis(50);

pub(super) struct Stream {
    /// `None` after its end.
    source: Option<OwnedFd>,
    sink: OwnedFd,
    filter: Filter,
    /// Filtered; `written` bytes of it are out.
    out: Zeroizing<Vec<u8>>,
    written: usize,
    /// Bytes a write may take. poll(2) says of a pipe only that this many go without waiting, and waiting would
    /// keep signals and keys from the command.
    most: usize,
    /// When what is held back goes out.
    due: Option<Instant>,
    /// Why nothing can be written any more.
    failed: Option<Errno>,
    lasting: bool,
}

impl Stream {
    pub(super) fn new(source: OwnedFd, sink: OwnedFd, patterns: &Rc<Patterns>) -> Self {
        let filter = Filter::new(patterns);
        let out = Zeroizing::new(Vec::with_capacity(filter.room()));
        let most = if is_kind(sink.as_fd(), SFlag::S_IFIFO) { PIPE_BUF } else { usize::MAX };
        let source = Some(source);
        Self { source, sink, filter, out, written: 0, most, due: None, failed: None, lasting: false }
    }

    /// Goes on reading, and throws away, when nothing can be written: the source is needed for other things.
    #[must_use]
    pub(super) fn lasting(mut self) -> Self {
        self.lasting = true;
        self
    }

    pub(super) fn is_done(&self) -> bool {
        self.source.is_none() && !self.waits()
    }

    /// Whether something is filtered and not written.
    pub(super) fn waits(&self) -> bool {
        self.written < self.out.len()
    }

    pub(super) fn due(&self) -> Option<Instant> {
        if self.waits() { None } else { self.due }
    }

    pub(super) fn failed(&self) -> Option<Errno> {
        self.failed
    }

    /// What poll(2) is to wait for.
    pub(super) fn wants(&self) -> Option<PollFd<'_>> {
        if self.waits() {
            return Some(PollFd::new(self.sink.as_fd(), PollFlags::POLLOUT));
        }
        self.source.as_ref().map(|source| PollFd::new(source.as_fd(), PollFlags::POLLIN))
    }

    /// What was waited for has come. Gives how many bytes were read.
    pub(super) fn go_on(&mut self, now: Instant) -> usize {
        if self.waits() {
            self.write(now);
            return 0;
        }
        let Some(source) = &self.source else { return 0 };
        match read(source, &mut self.filter.space()[..PIECE]) {
            Ok(length @ 1..) => {
                self.out.clear();
                self.written = 0;
                self.filter.take(length, &mut self.out);
                self.due = self.filter.holds().then(|| now + PAUSE);
                if self.failed.is_some() {
                    self.out.clear();
                }
                length
            }
            Err(Errno::EAGAIN | Errno::EINTR) => 0,
            // A terminal whose other side is closed ends with EIO, tty_ioctl(4).
            Ok(_) | Err(_) => {
                self.end();
                0
            }
        }
    }

    /// Nothing more is read; what is held back is let go.
    pub(super) fn end(&mut self) {
        if self.source.take().is_none() {
            return;
        }
        self.due = None;
        if !self.waits() {
            self.out.clear();
            self.written = 0;
        }
        self.filter.end(&mut self.out);
        if self.failed.is_some() {
            self.out.clear();
        }
    }

    /// The time has come for what is held back.
    pub(super) fn pause(&mut self) {
        self.due = None;
        if !self.waits() && self.failed.is_none() {
            self.out.clear();
            self.written = 0;
            self.filter.pause(&mut self.out);
        }
    }

    fn write(&mut self, now: Instant) {
        let rest = &self.out[self.written..];
        match write(&self.sink, &rest[..rest.len().min(self.most)]) {
            Ok(length) => self.written += length,
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(error) => {
                self.failed = Some(error);
                self.written = self.out.len();
                if !self.lasting {
                    // The command's next write fails with SIGPIPE, as it would have without us.
                    self.source = None;
                }
            }
        }
        if !self.waits() && self.filter.holds() {
            // The source was not looked at while the sink was waited for.
            self.due = Some(now + PAUSE);
        }
    }
}

pub(super) fn is_kind(descriptor: BorrowedFd<'_>, kind: SFlag) -> bool {
    fstat(descriptor).is_ok_and(|found| SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT == kind)
}
