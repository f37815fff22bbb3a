//! Messages with descriptors and the kernel's word on their sender.
#![expect(unsafe_code, reason = "descriptors arrive as numbers and must be owned")]

use nix::libc;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// The most descriptors one message may carry.
const MOST: usize = 4;

/// Room for all that the kernel can deliver at once, so that every descriptor is owned, and closed, here:
/// `SCM_MAX_FD` is 253, unix(7), of 4 bytes each, and the sender takes no more than 64 with its header.
const CONTROL: usize = (16 + 4 * 254 + 64) / 8;

/// Another descriptor for one that the caller of this program opened and named by its number.
pub fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    if number < 0 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: borrowed for this one call, which fails where the number names nothing.
    let named = unsafe { BorrowedFd::borrow_raw(number) };
    named.try_clone_to_owned()
}

/// Takes a descriptor that the caller of this program opened for it, close-on-exec from here on. To be called once
/// a number, before anything else could have opened it.
pub(crate) fn handed_over(number: RawFd) -> io::Result<OwnedFd> {
    // Fails where the number names nothing.
    drop(inherited(number)?);
    // SAFETY: it is open, and whoever calls this says that nothing else owns it.
    let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
    nix::fcntl::fcntl(&descriptor, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC))?;
    Ok(descriptor)
}

/// Closes what this process inherited, and holds for a command that a fork has just made: a pipe ends only when
/// nobody keeps it open. Those are the descriptors that pass an exec; all of our own are close-on-exec.
pub fn close_inheritable() -> io::Result<()> {
    use nix::fcntl::{FcntlArg, fcntl};
    let open = std::fs::read_dir("/proc/self/fd")?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    for number in open.collect::<Vec<RawFd>>() {
        // SAFETY: borrowed for this one call, which fails where the number names nothing.
        let flags = fcntl(unsafe { BorrowedFd::borrow_raw(number) }, FcntlArg::F_GETFD);
        if number > libc::STDERR_FILENO && flags == Ok(0) {
            // SAFETY: nothing in this process owns it.
            unsafe { libc::close(number) };
        }
    }
    Ok(())
}

/// Waits until the other end of the first is closed, or something can be had of the second; whether it was the first.
pub fn ends_before(first: BorrowedFd<'_>, second: BorrowedFd<'_>) -> io::Result<bool> {
    use nix::errno::Errno;
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let mut both = [PollFd::new(first, PollFlags::POLLIN), PollFd::new(second, PollFlags::POLLIN)];
    loop {
        match poll(&mut both, PollTimeout::NONE) {
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
            Ok(_) => return Ok(both[0].any() == Some(true)),
        }
    }
}

/// What one `recvmsg`(2) brought.
pub struct Received {
    /// Bytes; 0 is the end.
    pub length: usize,
    pub descriptors: Vec<OwnedFd>,
    /// The sender's pid where [`crate::peer::name_senders`] was asked for.
    pub sender: Option<i32>,
}

/// Sends bytes with descriptors; gives how many bytes went.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let numbers: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&numbers)];
    let control: &[ControlMessage<'_>] = if numbers.is_empty() { &[] } else { &rights };
    // Rust's start-up code ignores SIGPIPE, so a peer that is gone is an error here and no signal.
    let sent = sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(bytes)], control, MsgFlags::empty(), None)?;
    Ok(sent)
}

/// Receives into `buffer`. Descriptors are close-on-exec; with more than `MOST` the message is an error.
///
/// Not by nix, which gives nothing at all of a message that was cut (`MSG_CTRUNC`): the descriptors that did
/// arrive would stay open for ever.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Received> {
    let mut control = [0_u64; CONTROL];
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: a msghdr of zeros is one that points at nothing.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control) as _;
    #[cfg(target_os = "linux")]
    let flags = libc::MSG_CMSG_CLOEXEC;
    #[cfg(not(target_os = "linux"))]
    let flags = 0;
    // SAFETY: the message points at `part` and `control` with their true lengths, and both outlive the call.
    let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags) };
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    let mut received = Received { length, descriptors: Vec::new(), sender: None };
    // SAFETY: the kernel has written whole headers into `control` and their length into the message.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    while !header.is_null() {
        // SAFETY: `header` is one of those headers, and what follows it is `cmsg_len` less its own length.
        let (kind, data) = unsafe {
            let size = ((*header).cmsg_len as usize).saturating_sub(libc::CMSG_LEN(0) as usize);
            let data = std::slice::from_raw_parts(libc::CMSG_DATA(header), size);
            (((*header).cmsg_level, (*header).cmsg_type), data)
        };
        // Descriptors are numbers of this size, and a `ucred` begins with one: the pid.
        let mut numbers = data.as_chunks().0.iter().map(|number| RawFd::from_ne_bytes(*number));
        if kind == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
            // SAFETY: the kernel has just made these descriptors in this process, for this message.
            received.descriptors.extend(numbers.map(|number| unsafe { OwnedFd::from_raw_fd(number) }));
        } else if is_sender(kind) {
            received.sender = numbers.next();
        }
        // SAFETY: as for the first header.
        header = unsafe { libc::CMSG_NXTHDR(&raw const message, header) };
    }
    if message.msg_flags & libc::MSG_CTRUNC != 0 || received.descriptors.len() > MOST {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "more descriptors than a message may carry"));
    }
    Ok(received)
}

#[cfg(target_os = "linux")]
fn is_sender(kind: (libc::c_int, libc::c_int)) -> bool {
    kind == (libc::SOL_SOCKET, libc::SCM_CREDENTIALS)
}

#[cfg(not(target_os = "linux"))]
fn is_sender(_kind: (libc::c_int, libc::c_int)) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn what_is_refused_is_closed_however_much_it_is() {
        for count in [1, MOST, MOST + 1, 100, 253] {
            let (here, there) = UnixStream::pair().unwrap();
            crate::peer::name_senders(there.as_fd()).unwrap();
            let (mut left_open, passed) = io::pipe().unwrap();
            let flags = nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK);
            nix::fcntl::fcntl(&left_open, flags).unwrap();
            send(here.as_fd(), b"x", &vec![passed.as_fd(); count]).unwrap();
            drop(passed);
            let received = receive(there.as_fd(), &mut [0; 8]);
            assert_eq!(received.is_ok(), count <= MOST, "{count}");
            if let Ok(received) = received {
                assert_eq!((received.length, received.descriptors.len()), (1, count));
                #[cfg(target_os = "linux")]
                assert_eq!(received.sender, i32::try_from(std::process::id()).ok());
            }
            // The end of the pipe comes once nobody has its other end open; until then a read would block.
            assert_eq!(left_open.read(&mut [0; 1]).unwrap(), 0);
        }
    }
}
