//! A terminal that the kernel names: opened by its device, never by what a requester says.

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use nix::sys::termios::{self, FlushArg, LocalFlags, SetArg, SpecialCharacterIndices, Termios};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::PathBuf;

/// The path of a terminal's device number, `None` for what is no pseudo terminal or console.
pub fn path_of_device(device: u64) -> Option<PathBuf> {
    // The encoding of new_decode_dev() in Linux: minor in bits 0-7 and 20-31, major in 8-19.
    let major = (device >> 8) & 0xfff;
    let minor = (device & 0xff) | ((device >> 12) & 0xf_ff00);
    match major {
        136..=143 => Some(format!("/dev/pts/{}", minor + ((major - 136) << 20)).into()),
        4 if minor < 64 => Some(format!("/dev/tty{minor}").into()),
        4 => Some(format!("/dev/ttyS{}", minor - 64).into()),
        _ => None,
    }
}

/// How many characters stand beside each other; `None` where nobody told the terminal.
pub fn columns(terminal: BorrowedFd<'_>) -> Option<usize> {
    crate::pty::size(terminal).map(|size| size.ws_col.into()).filter(|columns| *columns > 0)
}

/// How many lines stand below each other; `None` where nobody told the terminal.
pub fn rows(terminal: BorrowedFd<'_>) -> Option<usize> {
    crate::pty::size(terminal).map(|size| size.ws_row.into()).filter(|rows| *rows > 0)
}

/// A terminal whose echo is off until this is dropped.
pub struct HiddenInput {
    descriptor: OwnedFd,
    before: Termios,
}

/// Opens the terminal with that device number for reading and writing, without making it ours. Refuses
/// when the file at its path is another device or another user's.
pub fn open(device: u64, owner: u32) -> io::Result<OwnedFd> {
    let path = path_of_device(device)
        .ok_or_else(|| io::Error::new(io::ErrorKind::Unsupported, "no terminal keyloan can open"))?;
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    let descriptor = nix::fcntl::open(&path, flags, Mode::empty())?;
    let file = std::fs::File::from(descriptor);
    let found = file.metadata()?;
    let same_device = nix::libc::makedev(
        u32::try_from((device >> 8) & 0xfff).map_err(io::Error::other)? as _,
        u32::try_from((device & 0xff) | ((device >> 12) & 0xf_ff00)).map_err(io::Error::other)? as _,
    );
    if !found.file_type().is_char_device() || found.rdev() != same_device as u64 {
        return Err(io::Error::other("the terminal's path names another device"));
    }
    if found.uid() != owner {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "the terminal belongs to another user"));
    }
    Ok(file.into())
}

impl HiddenInput {
    /// Turns echo, line editing and signals off: Ctrl-C arrives as a byte, so that the terminal is put back
    /// before the requester and its shell go on. What was typed ahead is thrown away: it was no answer to this.
    pub fn begin(descriptor: OwnedFd) -> io::Result<Self> {
        let before = termios::tcgetattr(&descriptor)?;
        let mut quiet = before.clone();
        quiet
            .local_flags
            .remove(LocalFlags::ECHO | LocalFlags::ECHONL | LocalFlags::ICANON | LocalFlags::ISIG);
        quiet.control_chars[SpecialCharacterIndices::VMIN as usize] = 1;
        quiet.control_chars[SpecialCharacterIndices::VTIME as usize] = 0;
        set(&descriptor, &quiet)?;
        Ok(Self { descriptor, before })
    }

    /// Another descriptor of the terminal, to read and write through.
    pub fn descriptor(&self) -> io::Result<OwnedFd> {
        self.descriptor.try_clone()
    }

    /// Throws away what was typed and not read.
    pub fn forget_typed(&self) -> io::Result<()> {
        Ok(termios::tcflush(&self.descriptor, FlushArg::TCIFLUSH)?)
    }
}

impl Drop for HiddenInput {
    fn drop(&mut self) {
        // Nothing is left to do when the terminal is gone.
        let _ = set(&self.descriptor, &self.before);
    }
}

/// Changes a terminal at once and throws away what was typed before. `TCSAFLUSH` would wait for everybody's
/// output first, and so for a program whose output nobody reads, tcsetattr(3p).
fn set(descriptor: &OwnedFd, settings: &Termios) -> io::Result<()> {
    termios::tcsetattr(descriptor, SetArg::TCSANOW, settings)?;
    Ok(termios::tcflush(descriptor, FlushArg::TCIFLUSH)?)
}

/// Turns echo, line editing and signals of this process's terminal on again: for a client whose daemon died
/// while it asked there.
pub fn make_usable() {
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let Ok(terminal) = nix::fcntl::open("/dev/tty", flags, Mode::empty()) else { return };
    if let Ok(mut settings) = termios::tcgetattr(&terminal) {
        settings.local_flags.insert(LocalFlags::ECHO | LocalFlags::ICANON | LocalFlags::ISIG);
        let _ = termios::tcsetattr(&terminal, SetArg::TCSANOW, &settings);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_whose_output_nobody_reads_keeps_nobody_waiting() {
        use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
        use std::os::fd::AsFd;
        let pty = nix::pty::openpty(None, None).unwrap();
        let slave = pty.slave.try_clone().unwrap();
        let writer = std::thread::spawn(move || while nix::unistd::write(&slave, &[b'x'; 4096]).is_ok() {});
        // Once there is no room the writer sleeps in its write, and holds the terminal's lock for writing.
        let mut room = [PollFd::new(pty.slave.as_fd(), PollFlags::POLLOUT)];
        while poll(&mut room, PollTimeout::ZERO).unwrap() > 0 {
            std::thread::yield_now();
        }
        let (done, ended) = std::sync::mpsc::channel();
        let slave = pty.slave.try_clone().unwrap();
        let asker = std::thread::spawn(move || {
            drop(HiddenInput::begin(slave).unwrap());
            done.send(()).unwrap();
        });
        let ended = ended.recv_timeout(std::time::Duration::from_secs(20));
        // With its other end closed nothing waits any more.
        drop(pty.master);
        assert!(ended.is_ok(), "it waits for what another program writes");
        asker.join().unwrap();
        writer.join().unwrap();
    }

    #[test]
    fn device_numbers_become_the_paths_the_kernel_gave_them() {
        assert_eq!(path_of_device((136 << 8) | 3), Some("/dev/pts/3".into()));
        assert_eq!(path_of_device((136 << 8) | 0x2c | (1 << 20)), Some("/dev/pts/300".into()));
        assert_eq!(path_of_device((4 << 8) | 1), Some("/dev/tty1".into()));
        assert_eq!(path_of_device(0), None);
    }
}
