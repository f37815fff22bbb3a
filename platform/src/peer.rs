//! Who is at the other end of a Unix socket: credentials and a pidfd, both from the kernel.
//!
//! Each message's sender is compared by its pid (`SCM_CREDENTIALS`) with a process that is known to live, whose pid
//! nobody else has. A pidfd with each message (`SCM_PIDFD`) would add nothing: whoever may send in another's name, with
//! `CAP_SYS_ADMIN` over its pid namespace, gets a pidfd of that other too, since the kernel makes it from the same pid.
//!
//! A pid alone can be reused between `SO_PEERCRED` and the look at `/proc`; the pidfd names the process
//! that connected and nothing else, so whoever reads `/proc` asks it afterwards whether it still lives.

use crate::sys;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The process that connected (or, on the client's side, that listens).
#[derive(Debug)]
pub struct Peer {
    pub uid: u32,
    pub pid: i32,
    pidfd: Option<OwnedFd>,
}

impl Peer {
    /// Fails with `ESRCH` when the process is gone already, since nothing can then be said of it.
    pub fn of(socket: BorrowedFd<'_>) -> io::Result<Self> {
        let (uid, pid) = sys::peer_credentials(socket)?;
        if pid <= 0 {
            return Err(io::Error::from_raw_os_error(nix::libc::ESRCH));
        }
        let pidfd = sys::peer_pidfd(socket)?;
        Ok(Self { uid, pid, pidfd })
    }

    /// Readable once the process has ended. Absent where the system has no such thing (macOS).
    pub fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        self.pidfd.as_ref().map(AsFd::as_fd)
    }

    pub fn is_alive(&self) -> bool {
        match &self.pidfd {
            Some(pidfd) => sys::is_alive(pidfd.as_fd()),
            None => nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.pid), None).is_ok(),
        }
    }
}

/// The uid of whoever listens on a socket this process connected to.
pub fn listener_uid(socket: BorrowedFd<'_>) -> io::Result<u32> {
    Ok(sys::peer_credentials(socket)?.0)
}

/// Asks the kernel to name the sender of each message on this socket.
pub fn name_senders(socket: BorrowedFd<'_>) -> io::Result<()> {
    sys::name_senders(socket)
}
