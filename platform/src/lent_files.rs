//! Credentials lent as files. None of them ever lies on a disk: a sealed file in memory that the holder
//! inherits, or a private directory on a file system in memory that goes with the loan.

use crate::paths::Paths;
use crate::private_file::{Directory, FileError};
use crate::{process, sys};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum LentFileError {
    #[error("there is no file system in memory for it (neither the runtime directory nor /dev/shm is one)")]
    NoMemory,
    #[error("{0}")]
    File(#[from] FileError),
    #[error("a file in memory: {0}")]
    Sealed(io::Error),
    #[error("this process is not in /proc")]
    NoProcess,
    #[error("{0}")]
    Watcher(io::Error),
}

/// Names of loans, separated by `:`, of which a process has the environment. No secret.
pub const VARIABLE: &str = "KEYLOAN_LOAN";

/// Where lent directories are.
pub struct Place(Directory);

/// The name of one loan beyond the daemon: its number and the one process that holds it. Its files are called
/// so, and [`VARIABLE`] carries it to every process that inherits what was lent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoanName {
    loan: u64,
    pid: i32,
    started: u64,
}

impl LoanName {
    pub fn new(loan: u64, pid: i32, started: u64) -> Self {
        Self { loan, pid, started }
    }

    /// The name for this process, before it becomes the holder.
    pub fn own(loan: u64) -> Result<Self, LentFileError> {
        let pid = nix::unistd::getpid().as_raw();
        let stat = process::stat(pid).ok_or(LentFileError::NoProcess)?;
        Ok(Self { loan, pid, started: stat.started })
    }

    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let name = Self {
            loan: parts.next()?.parse().ok()?,
            pid: parts.next()?.parse().ok()?,
            started: parts.next()?.parse().ok()?,
        };
        (name.to_string() == text).then_some(name)
    }

    pub fn pid(&self) -> i32 {
        self.pid
    }

    fn holder_lives(&self) -> bool {
        process::stat(self.pid).is_some_and(|stat| stat.started == self.started)
    }
}

impl std::fmt::Display for LoanName {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}-{}-{}", self.loan, self.pid, self.started)
    }
}

impl Place {
    /// The runtime directory where that is in memory, else one of the user's own in `/dev/shm`; made where it is
    /// not there.
    pub fn open(paths: &Paths) -> Result<Self, LentFileError> {
        let runtime = Directory::open_or_create(&paths.runtime)?;
        if sys::is_in_memory(runtime.descriptor()) {
            return Ok(Self(runtime.child_or_create("files")?));
        }
        let shared = Directory::open_or_create(&shared())
            .map_err(|error| if error.is_absent() { LentFileError::NoMemory } else { error.into() })?;
        if sys::is_in_memory(shared.descriptor()) { Ok(Self(shared)) } else { Err(LentFileError::NoMemory) }
    }

    /// The same, where it was made before.
    pub fn existing(paths: &Paths) -> Result<Option<Self>, LentFileError> {
        let runtime = Directory::open(&paths.runtime)?;
        let found = if sys::is_in_memory(runtime.descriptor()) {
            runtime.child("files")
        } else {
            Directory::open(&shared())
        };
        match found {
            Ok(found) => Ok(Some(Self(found))),
            Err(error) if error.is_absent() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// An empty directory for one loan.
    pub fn make(&self, name: &LoanName) -> Result<Directory, LentFileError> {
        Ok(self.0.child_or_create(&name.to_string())?)
    }

    /// Removes the files of a loan; it is no error when there are none.
    pub fn remove(&self, name: &LoanName) -> io::Result<()> {
        match std::fs::remove_dir_all(self.0.path().join(name.to_string())) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Removes the files of all loans of one process.
    pub fn remove_of(&self, pid: i32, started: u64) -> Result<(), LentFileError> {
        let of = |name: &LoanName| name.pid == pid && name.started == started;
        for name in self.0.names()?.iter().filter_map(|name| LoanName::parse(name)).filter(of) {
            let _ = self.remove(&name);
        }
        Ok(())
    }

    /// Removes what holders that have ended left while nobody watched.
    pub fn sweep(&self) -> Result<(), LentFileError> {
        for name in self.0.names()?.iter().filter_map(|name| LoanName::parse(name)) {
            if !name.holder_lives() {
                // What cannot be removed now is tried again at the next start.
                let _ = self.remove(&name);
            }
        }
        Ok(())
    }
}

fn shared() -> PathBuf {
    format!("/dev/shm/keyloan-{}", process::effective_uid()).into()
}

/// A file in memory that nobody can change, mode 0400, inherited by the program that this process becomes.
pub struct Sealed(OwnedFd);

impl Sealed {
    pub fn new(name: &LoanName, content: &[u8]) -> Result<Self, LentFileError> {
        let file = sys::sealed_file(&format!("keyloan-{name}"), content).map_err(LentFileError::Sealed)?;
        let file = sys::high_descriptor(&file).map_err(LentFileError::Sealed)?;
        Ok(Self(file))
    }

    /// The path by which the holder and its children reach it. `/proc/self` would name the child in a child.
    pub fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", nix::unistd::getpid(), self.0.as_raw_fd()).into()
    }

    /// From here on the descriptor is inherited; it belongs to the program that follows.
    pub fn hand_over(self) -> io::Result<RawFd> {
        use std::os::fd::IntoRawFd;
        nix::fcntl::fcntl(&self.0, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty()))?;
        Ok(self.0.into_raw_fd())
    }
}

/// Whether an environment names this loan.
pub fn names_loan(environment: &[u8], name: &LoanName) -> bool {
    let name = name.to_string();
    environment
        .split(|byte| *byte == 0)
        .filter_map(|entry| entry.strip_prefix(VARIABLE.as_bytes())?.strip_prefix(b"="))
        .any(|value| value.split(|byte| *byte == b':').any(|held| held == name.as_bytes()))
}

/// Whether a process has a lent file of this name open.
pub fn holds(pid: i32, name: &LoanName) -> bool {
    let wanted = format!("/memfd:keyloan-{name} (deleted)");
    let Ok(descriptors) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    descriptors
        .flatten()
        .any(|entry| std::fs::read_link(entry.path()).is_ok_and(|link| link.as_os_str() == wanted.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_back_and_nothing_else_is_one() {
        let name = LoanName::new(3, 42, 987);
        assert_eq!(LoanName::parse(&name.to_string()), Some(name));
        assert!(names_loan(b"A=b\0KEYLOAN_LOAN=1-2-3:3-42-987\0", &LoanName::new(3, 42, 987)));
        assert!(!names_loan(b"A=b\0KEYLOAN_LOAN=1-2-3:3-42-98\0", &LoanName::new(3, 42, 987)));
        for text in ["", "3-42", "3-42-987-1", "03-42-987", "a-b-c", "../x"] {
            assert_eq!(LoanName::parse(text), None, "{text}");
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_sealed_file_is_read_by_its_path_and_written_by_nobody() {
        let name = LoanName::own(1).unwrap();
        let sealed = Sealed::new(&name, b"secret").unwrap();
        assert!(sealed.0.as_raw_fd() > 100);
        assert_eq!(std::fs::read(sealed.path()).unwrap(), b"secret");
        let path = sealed.path();
        assert!(
            std::fs::OpenOptions::new()
                .append(true)
                .open(&path)
                .and_then(|mut file| {
                    use std::io::Write;
                    file.write_all(b"x")
                })
                .is_err()
        );
        assert!(holds(nix::unistd::getpid().as_raw(), &name));
    }
}
