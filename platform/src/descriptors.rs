//! Messages with descriptors and the kernel's word on their sender.
#![expect(unsafe_code, reason = "descriptors arrive as numbers and must be owned")]

use nix::cmsg_space;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// The most descriptors one message may carry; further ones are closed by the kernel.
const MOST: usize = 4;

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
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Received> {
    #[cfg(target_os = "linux")]
    let mut control = cmsg_space!([RawFd; MOST], nix::libc::ucred);
    #[cfg(not(target_os = "linux"))]
    let mut control = cmsg_space!([RawFd; MOST]);
    #[cfg(target_os = "linux")]
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    #[cfg(not(target_os = "linux"))]
    let flags = MsgFlags::empty();
    let mut parts = [IoSliceMut::new(buffer)];
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut control), flags)?;
    let mut received = Received { length: message.bytes, descriptors: Vec::new(), sender: None };
    let truncated = message.flags.contains(MsgFlags::MSG_CTRUNC);
    for control in message.cmsgs()? {
        match control {
            ControlMessageOwned::ScmRights(numbers) => {
                for number in numbers {
                    // SAFETY: the kernel has just made these descriptors in this process, for this message.
                    received.descriptors.push(unsafe { OwnedFd::from_raw_fd(number) });
                }
            }
            #[cfg(target_os = "linux")]
            ControlMessageOwned::ScmCredentials(sender) => received.sender = Some(sender.pid()),
            _ => {}
        }
    }
    if truncated {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "more descriptors than a message may carry"));
    }
    Ok(received)
}
