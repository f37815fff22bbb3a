//! macOS: what has a counterpart. There is no pidfd and no locked memory file; callers treat their
//! absence as the lower protection that it is.

use crate::memory::Protection;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::ptr::NonNull;

pub(crate) fn peer_credentials(socket: BorrowedFd<'_>) -> io::Result<(u32, i32)> {
    use nix::sys::socket::{getsockopt, sockopt};
    let credentials = getsockopt(&socket, sockopt::LocalPeerCred)?;
    Ok((credentials.uid(), getsockopt(&socket, sockopt::LocalPeerPid)?))
}

#[expect(clippy::unnecessary_wraps, reason = "the same signature on every system")]
pub(crate) fn peer_pidfd(_socket: BorrowedFd<'_>) -> io::Result<Option<OwnedFd>> {
    Ok(None)
}

pub(crate) fn is_alive(_pidfd: BorrowedFd<'_>) -> bool {
    false
}

#[expect(clippy::unnecessary_wraps, reason = "the same signature on every system")]
pub(crate) fn name_senders(_socket: BorrowedFd<'_>) -> io::Result<()> {
    Ok(())
}

/// Fails closed until the daemon denies tracing here (`PT_DENY_ATTACH`).
pub(crate) fn make_undumpable() -> io::Result<()> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "keyloand cannot protect its memory on this system yet"))
}

/// Nothing here needs it until memory can be protected.
pub(crate) fn has_one_thread() -> bool {
    false
}

/// There are none.
pub(crate) fn real_time_signals() -> std::ops::Range<i32> {
    0..0
}

pub(crate) fn in_first_user_namespace() -> bool {
    true
}

pub(crate) fn map_locked(_length: usize) -> io::Result<(NonNull<u8>, Protection)> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "no locked memory on this system yet"))
}

pub(crate) fn unmap(_mapping: NonNull<u8>, _length: usize) {}

pub(crate) fn path_of(descriptor: BorrowedFd<'_>) -> io::Result<PathBuf> {
    let mut path = PathBuf::new();
    nix::fcntl::fcntl(descriptor, nix::fcntl::FcntlArg::F_GETPATH(&mut path))?;
    Ok(path)
}

pub(crate) fn path_within(_directory: BorrowedFd<'_>, path: &Path, name: &str) -> PathBuf {
    path.join(name)
}

pub(crate) fn is_in_memory(_directory: BorrowedFd<'_>) -> bool {
    false
}

pub(crate) fn sealed_file(_name: &str, _content: &[u8]) -> io::Result<OwnedFd> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "this system has no sealed memory files"))
}

pub(crate) fn high_descriptor(file: &OwnedFd) -> io::Result<OwnedFd> {
    file.try_clone()
}

pub(crate) fn pidfd(_pid: i32) -> io::Result<OwnedFd> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "this system has no pidfd"))
}

pub(crate) fn close_inherited() -> io::Result<()> {
    Ok(())
}

pub(crate) fn sync_file_system(_directory: BorrowedFd<'_>) -> io::Result<()> {
    nix::unistd::sync();
    Ok(())
}

pub(crate) fn exchange(_one: &Path, _other: &Path) -> io::Result<()> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "directories cannot be exchanged on this system yet"))
}

/// A hard link replaces nothing; the first name stays.
pub(crate) fn rename_without_replacing(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::hard_link(from, to)
}

pub(crate) fn give_back_what_is_freed() {}
