//! A sealed copy of a program: what was hashed is what runs, whatever happens to the file meanwhile.

use std::io;
use std::os::fd::OwnedFd;

/// Who reads a copied program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// A binary is read by the kernel alone. A process that runs a file its user may not read is undumpable
    /// (`would_dump()` in Linux): no program of the same user traces it or takes its descriptors.
    Kernel,
    /// A script is opened by its interpreter, which any program of the user may trace.
    Interpreter,
}

/// A memory file holding `bytes` that nobody can change any more. Its descriptor is not close-on-exec,
/// because a script's interpreter opens it again in the child; the caller drops it after the spawn.
#[cfg(target_os = "linux")]
pub fn copy(mut bytes: &[u8], reader: Reader) -> io::Result<OwnedFd> {
    sealed(&mut bytes, reader, nix::sys::memfd::MFdFlags::empty())
}

#[cfg(target_os = "linux")]
fn sealed(from: &mut impl io::Read, reader: Reader, more: nix::sys::memfd::MFdFlags) -> io::Result<OwnedFd> {
    use nix::fcntl::{FcntlArg, SealFlag, fcntl};
    use nix::sys::memfd::{MFdFlags, memfd_create};
    use nix::sys::stat::{Mode, fchmod};
    let flags = more | MFdFlags::MFD_ALLOW_SEALING | MFdFlags::from_bits_retain(nix::libc::MFD_EXEC);
    let descriptor = memfd_create("keyloan-asking", flags)
        // Before Linux 6.3 there was no such flag, and every memory file was executable.
        .or_else(|_| memfd_create("keyloan-asking", more | MFdFlags::MFD_ALLOW_SEALING))?;
    let mut file = std::fs::File::from(descriptor);
    io::copy(from, &mut file)?;
    if reader == Reader::Kernel {
        fchmod(&file, Mode::S_IXUSR | Mode::S_IXGRP | Mode::S_IXOTH)?;
    }
    let seals =
        SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SEAL;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(file.into())
}

/// A path to this very program, in a copy that nobody may read and that stays what it is: whoever starts it has a child
/// that is undumpable from its first instruction. The copy is made once.
#[cfg(target_os = "linux")]
pub fn own_program() -> io::Result<std::path::PathBuf> {
    use std::os::fd::AsRawFd;
    static COPY: std::sync::OnceLock<OwnedFd> = std::sync::OnceLock::new();
    let copied = if let Some(copied) = COPY.get() {
        copied
    } else {
        let mut program = std::fs::File::open("/proc/self/exe")?;
        let made = sealed(&mut program, Reader::Kernel, nix::sys::memfd::MFdFlags::MFD_CLOEXEC)?;
        COPY.get_or_init(|| made)
    };
    Ok(format!("/proc/self/fd/{}", copied.as_raw_fd()).into())
}

#[cfg(not(target_os = "linux"))]
pub fn own_program() -> io::Result<std::path::PathBuf> {
    std::env::current_exe()
}

#[cfg(not(target_os = "linux"))]
pub fn copy(_bytes: &[u8], _reader: Reader) -> io::Result<OwnedFd> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "this system has no sealed memory files"))
}
