//! Pseudo terminals, and the children that live on them.
#![expect(unsafe_code, reason = "fork(2) and terminal ioctls have no safe interface")]

use crate::sys;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::libc;
use nix::pty::{Winsize, openpty};
use nix::sys::termios::Termios;
use nix::unistd::{ForkResult, Pid};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Both ends; neither passes an exec, and the master does not block.
pub struct Pty {
    pub master: OwnedFd,
    pub slave: OwnedFd,
}

impl Pty {
    /// A new terminal with such settings, as large as another.
    pub fn open(settings: &Termios, like: BorrowedFd<'_>) -> io::Result<Self> {
        let size = size(like);
        let pair = openpty(size.as_ref(), settings)?;
        // openpty(3) takes no flags; this process has one thread, so nothing is started in between.
        for end in [pair.master.as_fd(), pair.slave.as_fd()] {
            fcntl(end, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
        }
        fcntl(&pair.master, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        Ok(Self { master: pair.master, slave: pair.slave })
    }
}

/// Makes a terminal as large as another. The kernel tells its foreground (SIGWINCH) when that is a change.
pub fn copy_size(from: BorrowedFd<'_>, to: BorrowedFd<'_>) {
    if let Some(size) = size(from) {
        // SAFETY: the request reads a `winsize`. A terminal that is gone needs no size.
        unsafe { libc::ioctl(to.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
    }
}

pub(crate) fn size(of: BorrowedFd<'_>) -> Option<Winsize> {
    let mut size = MaybeUninit::<Winsize>::zeroed();
    // SAFETY: the request fills a `winsize`, and zeroes are a valid one.
    unsafe {
        (libc::ioctl(of.as_raw_fd(), libc::TIOCGWINSZ, size.as_mut_ptr()) == 0).then(|| size.assume_init())
    }
}

/// Makes a terminal this session's own; for its leader, `setsid`(2).
pub fn make_controlling(terminal: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: takes an integer: 0, take it from nobody.
    match unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY as _, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Doubles this process; `None` in the child. Refused where there are several threads: a child has only the
/// one that forked, and what the others held stays held.
pub fn fork() -> io::Result<Option<Pid>> {
    if !sys::has_one_thread() {
        return Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "the process is not known to have one thread",
        ));
    }
    // SAFETY: with one thread the child may do whatever this process may.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(Some(child)),
        ForkResult::Child => Ok(None),
    }
}

/// Ends a forked child that did not become another program: without the exit handlers, which are its parent's.
pub fn end(status: u8) -> ! {
    // SAFETY: takes an integer and does not return.
    unsafe { libc::_exit(status.into()) }
}
