//! Linux: what nix and libc do not offer safely, or not at all.
#![expect(unsafe_code, reason = "system calls that have no safe wrapper; each use says why it is sound")]

use crate::memory::Protection;
use nix::libc;
use std::fs;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::{NonNull, null_mut};

/// socket(7), Linux 6.5; not in libc yet.
const SO_PEERPIDFD: libc::c_int = 77;

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

pub(crate) fn peer_credentials(socket: BorrowedFd<'_>) -> io::Result<(u32, i32)> {
    let credentials = nix::sys::socket::getsockopt(&socket, nix::sys::socket::sockopt::PeerCredentials)?;
    Ok((credentials.uid(), credentials.pid()))
}

pub(crate) fn peer_pidfd(socket: BorrowedFd<'_>) -> io::Result<Option<OwnedFd>> {
    let mut descriptor: RawFd = -1;
    let mut length = libc::socklen_t::try_from(size_of::<RawFd>()).unwrap_or(4);
    // SAFETY: the option writes one int into `descriptor`, whose size `length` states.
    check(unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_PEERPIDFD,
            (&raw mut descriptor).cast(),
            &raw mut length,
        )
    })?;
    // SAFETY: on success the kernel made this descriptor for us alone.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(descriptor) }))
}

/// A pidfd is readable once its process has ended, `pidfd_open`(2).
pub(crate) fn is_alive(pidfd: BorrowedFd<'_>) -> bool {
    let mut wanted = [nix::poll::PollFd::new(pidfd, nix::poll::PollFlags::POLLIN)];
    matches!(nix::poll::poll(&mut wanted, nix::poll::PollTimeout::ZERO), Ok(0))
}

pub(crate) fn name_senders(socket: BorrowedFd<'_>) -> io::Result<()> {
    nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::PassCred, &true)?;
    Ok(())
}

/// prctl(2) `PR_SET_DUMPABLE` 0: no core dump, `/proc/PID` owned by root, no tracing by the same user.
pub(crate) fn make_undumpable() -> io::Result<()> {
    // SAFETY: takes integers only.
    check(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) })?;
    // SAFETY: takes integers only.
    if check(unsafe { libc::prctl(libc::PR_GET_DUMPABLE, 0, 0, 0, 0) })? != 0 {
        return Err(io::Error::other("the process stayed dumpable"));
    }
    Ok(())
}

/// The directory has an entry for each thread, `proc_pid_task`(5).
pub(crate) fn has_one_thread() -> bool {
    fs::read_dir("/proc/self/task").is_ok_and(|threads| threads.count() == 1)
}

/// Those that the C library does not keep for itself, signal(7).
pub(crate) fn real_time_signals() -> std::ops::RangeInclusive<i32> {
    libc::SIGRTMIN()..=libc::SIGRTMAX()
}

/// Whether this process runs in the first user namespace: its map covers every id, onto itself.
pub(crate) fn in_first_user_namespace() -> bool {
    fs::read_to_string("/proc/self/uid_map")
        .is_ok_and(|map| map.split_whitespace().eq(["0", "0", "4294967295"]))
}

/// A page-aligned mapping for keys: `memfd_secret`(2), else locked and excluded from dumps, else plain.
pub(crate) fn map_locked(length: usize) -> io::Result<(NonNull<u8>, Protection)> {
    if let Ok(mapping) = map_secret(length) {
        return Ok((mapping, Protection::Secret));
    }
    // SAFETY: a fresh anonymous mapping at an address of the kernel's choice.
    let mapping = checked_mapping(unsafe {
        libc::mmap(
            null_mut(),
            length,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    })?;
    // SAFETY: the range is the mapping made above.
    let locked = unsafe { libc::mlock(mapping.as_ptr().cast(), length) } == 0;
    // SAFETY: the range is the mapping made above.
    let hidden = unsafe { libc::madvise(mapping.as_ptr().cast(), length, libc::MADV_DONTDUMP) } == 0;
    Ok((mapping, if locked && hidden { Protection::Locked } else { Protection::Plain }))
}

fn map_secret(length: usize) -> io::Result<NonNull<u8>> {
    // SAFETY: takes one flag, gives a descriptor.
    let descriptor = unsafe { libc::syscall(libc::SYS_memfd_secret, libc::O_CLOEXEC) };
    let descriptor = check(libc::c_int::try_from(descriptor).unwrap_or(-1))?;
    // SAFETY: the descriptor is new and ours.
    let descriptor = unsafe { OwnedFd::from_raw_fd(descriptor) };
    nix::unistd::ftruncate(&descriptor, i64::try_from(length).map_err(io::Error::other)?)?;
    // SAFETY: a fresh shared mapping of the descriptor, which is `length` bytes long; it outlives the
    // descriptor by itself.
    checked_mapping(unsafe {
        libc::mmap(
            null_mut(),
            length,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
            descriptor.as_raw_fd(),
            0,
        )
    })
}

fn checked_mapping(address: *mut libc::c_void) -> io::Result<NonNull<u8>> {
    if address == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(address.cast()).ok_or_else(|| io::Error::other("a mapping at address 0"))
}

pub(crate) fn unmap(mapping: NonNull<u8>, length: usize) {
    // SAFETY: called once, when the only owner of the mapping is dropped.
    unsafe { libc::munmap(mapping.as_ptr().cast(), length) };
}

/// The path an open descriptor has now, from the kernel.
pub(crate) fn path_of(descriptor: BorrowedFd<'_>) -> io::Result<std::path::PathBuf> {
    fs::read_link(format!("/proc/self/fd/{}", descriptor.as_raw_fd()))
}

/// A path through which a name in an opened directory is reached, whatever its own path became.
pub(crate) fn path_within(
    directory: BorrowedFd<'_>,
    _path: &std::path::Path,
    name: &str,
) -> std::path::PathBuf {
    format!("/proc/self/fd/{}/{name}", directory.as_raw_fd()).into()
}

/// Whether a directory is on tmpfs(5).
pub(crate) fn is_in_memory(directory: BorrowedFd<'_>) -> bool {
    use nix::sys::statfs::{TMPFS_MAGIC, fstatfs};
    fstatfs(directory).is_ok_and(|found| found.filesystem_type() == TMPFS_MAGIC)
}

/// A file in memory with this content, mode 0400, that can be neither written nor resized, `memfd_create`(2).
pub(crate) fn sealed_file(name: &str, content: &[u8]) -> io::Result<OwnedFd> {
    use nix::fcntl::{FcntlArg, SealFlag, fcntl};
    use nix::sys::memfd::{MFdFlags, memfd_create};
    use std::io::Write;
    let flags = MFdFlags::MFD_ALLOW_SEALING | MFdFlags::MFD_CLOEXEC;
    // Not executable, where the kernel knows that flag (Linux 6.3).
    let unexecutable = flags | MFdFlags::from_bits_retain(libc::MFD_NOEXEC_SEAL);
    let descriptor = memfd_create(name, unexecutable).or_else(|_| memfd_create(name, flags))?;
    let mut file = fs::File::from(descriptor);
    file.write_all(content)?;
    nix::sys::stat::fchmod(&file, nix::sys::stat::Mode::S_IRUSR)?;
    let seals =
        SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SEAL;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(file.into())
}

/// The same file at a descriptor that programs do not use for themselves, close-on-exec.
pub(crate) fn high_descriptor(file: &OwnedFd) -> io::Result<OwnedFd> {
    use nix::sys::resource::{Resource, getrlimit};
    let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let lowest = RawFd::try_from(soft.min(1024) / 4 * 3).unwrap_or(3).max(3);
    let number = nix::fcntl::fcntl(file, nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(lowest))?;
    // SAFETY: the kernel has just made this descriptor for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// A descriptor that is readable once the process has ended, `pidfd_open`(2).
pub(crate) fn pidfd(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: takes integers, gives a descriptor.
    let descriptor = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let descriptor = check(libc::c_int::try_from(descriptor).unwrap_or(-1))?;
    // SAFETY: the descriptor is new and ours.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Closes every descriptor above standard error, `close_range`(2).
pub(crate) fn close_inherited() -> io::Result<()> {
    // SAFETY: called by a program that owns no descriptor above these; it takes integers only.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) };
    check(libc::c_int::try_from(closed).unwrap_or(-1)).map(drop)
}

pub(crate) fn sync_file_system(directory: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: takes a descriptor only.
    check(unsafe { libc::syncfs(directory.as_raw_fd()) }).map(drop)
}

/// `renameat2`(2). The call itself: musl has no function for it.
fn rename(one: &std::path::Path, other: &std::path::Path, flags: libc::c_uint) -> io::Result<()> {
    use std::os::unix::ffi::OsStrExt;
    let path = |path: &std::path::Path| std::ffi::CString::new(path.as_os_str().as_bytes());
    let (one, other) = (path(one)?, path(other)?);
    // SAFETY: both are strings ended by NUL that live beyond the call.
    let done = unsafe {
        libc::syscall(
            libc::SYS_renameat2,
            libc::AT_FDCWD,
            one.as_ptr(),
            libc::AT_FDCWD,
            other.as_ptr(),
            flags,
        )
    };
    check(libc::c_int::try_from(done).unwrap_or(-1)).map(drop)
}

pub(crate) fn exchange(one: &std::path::Path, other: &std::path::Path) -> io::Result<()> {
    rename(one, other, libc::RENAME_EXCHANGE)
}

/// Where a file system knows no such rename, a hard link does not replace anything either; the first name stays.
pub(crate) fn rename_without_replacing(from: &std::path::Path, to: &std::path::Path) -> io::Result<()> {
    match rename(from, to, libc::RENAME_NOREPLACE) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => fs::hard_link(from, to),
        done => done,
    }
}

pub(crate) fn give_back_what_is_freed() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes integers only; before any other thread runs.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 128 * 1024);
    }
}
