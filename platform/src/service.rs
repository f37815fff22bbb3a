//! What a service manager hands to a daemon: a socket that it listens on already, a place to tell how the daemon
//! fares, a journal. The protocols of `sd_listen_fds`(3), `sd_notify`(3) and `systemd.exec`(5), which are a few
//! variables and datagrams.
#![expect(clippy::disallowed_methods, reason = "this is the one loader of those variables")]

use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
use std::path::PathBuf;
use std::time::Duration;

/// The first descriptor that is handed over, `sd_listen_fds`(3).
const FIRST: i32 = 3;
/// Far more than this daemon has sockets.
const MOST: i32 = 16;

/// What the manager wants to be told, and where.
pub struct Manager {
    socket: UnixDatagram,
    to: SocketAddr,
}

fn text(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn is_for_this_process(name: &str) -> bool {
    text(name).is_some_and(|pid| pid == std::process::id().to_string())
}

/// The sockets that the manager listens on for this daemon.
pub fn listeners() -> io::Result<Vec<UnixListener>> {
    if !is_for_this_process("LISTEN_PID") {
        return Ok(Vec::new());
    }
    let count = text("LISTEN_FDS").map_or(Ok(0), |count| count.parse());
    let count: i32 = count.map_err(|_| io::Error::other("LISTEN_FDS is no number"))?;
    (FIRST..FIRST.saturating_add(count.min(MOST))).map(listener).collect()
}

fn listener(number: i32) -> io::Result<UnixListener> {
    let descriptor = crate::descriptors::handed_over(number)?;
    if nix::sys::socket::getsockopt(&descriptor, nix::sys::socket::sockopt::AcceptConn)? {
        Ok(UnixListener::from(descriptor))
    } else {
        Err(io::Error::other("the descriptor from the service manager is no listening socket"))
    }
}

impl Manager {
    /// `None` where nobody wants to be told.
    pub fn find() -> Option<Self> {
        let place = text("NOTIFY_SOCKET")?;
        let to = match place.strip_prefix('@') {
            #[cfg(target_os = "linux")]
            Some(name) => {
                use std::os::linux::net::SocketAddrExt;
                SocketAddr::from_abstract_name(name).ok()?
            }
            #[cfg(not(target_os = "linux"))]
            Some(_) => return None,
            None => SocketAddr::from_pathname(&place).ok()?,
        };
        let socket = UnixDatagram::unbound().ok()?;
        // A manager that does not read must not keep the daemon waiting.
        socket.set_nonblocking(true).ok()?;
        Some(Self { socket, to })
    }

    /// `READY=1`, `STOPPING=1`, `WATCHDOG=1`. Whether it arrives is the manager's affair.
    pub fn tell(&self, state: &str) {
        let _ = self.socket.send_to_addr(state.as_bytes(), &self.to);
    }
}

/// Half the time after which the manager takes a silent daemon for dead, `sd_watchdog_enabled`(3).
pub fn watchdog() -> Option<Duration> {
    if text("WATCHDOG_PID").is_some() && !is_for_this_process("WATCHDOG_PID") {
        return None;
    }
    let microseconds: u64 = text("WATCHDOG_USEC")?.parse().ok().filter(|time| *time > 0)?;
    Some(Duration::from_micros(microseconds) / 2)
}

/// Whether standard error goes to the journal, `systemd.exec`(5): the variable names the device and inode of the
/// stream, since it may have been inherited by a program whose standard error is another.
pub fn logs_to_the_journal() -> bool {
    let Some(stream) = text("JOURNAL_STREAM") else { return false };
    let found =
        io::stderr().as_fd().try_clone_to_owned().map(std::fs::File::from).and_then(|file| file.metadata());
    found.is_ok_and(|found| stream == format!("{}:{}", found.dev(), found.ino()))
}

/// Where an inherited listening socket is bound.
pub fn path_of(listener: &UnixListener) -> Option<PathBuf> {
    listener.local_addr().ok()?.as_pathname().map(PathBuf::from)
}
