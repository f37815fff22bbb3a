//! Files that are the user's alone: reached through opened directories, never through a symbolic link,
//! and only when owner and mode are right.

use crate::{process, sys};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, Flock, FlockArg, OFlag, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
#[error("{}: {fault}", path.display())]
pub struct FileError {
    pub path: PathBuf,
    pub fault: Fault,
}

#[derive(Debug, thiserror::Error)]
pub enum Fault {
    #[error("is a symbolic link, which keyloan does not follow here")]
    Symlink,
    #[error("is not a {0}")]
    Kind(&'static str),
    #[error("belongs to user {found}, not to {wanted}")]
    Owner { found: u32, wanted: u32 },
    #[error("is open to others (mode {found:04o}); make it private with: chmod go= {}", path.display())]
    Mode { found: u32, path: PathBuf },
    #[error("is longer than {0} bytes")]
    TooLong(usize),
    #[error("is in use by another keyloan daemon")]
    InUse,
    #[error("{0}")]
    Io(io::Error),
}

impl FileError {
    pub fn is_absent(&self) -> bool {
        matches!(&self.fault, Fault::Io(error) if error.kind() == io::ErrorKind::NotFound)
    }
}

fn failed(path: &Path) -> impl Fn(Errno) -> FileError + '_ {
    move |error| {
        let fault = match error {
            Errno::ELOOP => Fault::Symlink,
            error => Fault::Io(error.into()),
        };
        FileError { path: path.to_owned(), fault }
    }
}

fn io_failed(path: &Path) -> impl Fn(io::Error) -> FileError + '_ {
    move |error| FileError { path: path.to_owned(), fault: Fault::Io(error) }
}

const DIRECTORY: OFlag =
    OFlag::O_DIRECTORY.union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC).union(OFlag::O_RDONLY);

/// An opened directory of ours, mode 0700.
#[derive(Debug)]
pub struct Directory {
    descriptor: OwnedFd,
    path: PathBuf,
}

impl Directory {
    /// Opens an existing directory.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        Self::opened(nix::fcntl::open(path, DIRECTORY, Mode::empty()), path)
    }

    /// Opens a directory, making it and its parents (each 0700) where they are not there.
    pub fn open_or_create(path: &Path) -> Result<Self, FileError> {
        match Self::open(path) {
            Err(error) if error.is_absent() => {}
            other => return other,
        }
        if let Some(parent) = path.parent() {
            make_parents(parent)?;
        }
        make_directory(AT_FDCWD, path, path)?;
        Self::open(path)
    }

    pub fn child(&self, name: &str) -> Result<Self, FileError> {
        let path = self.path.join(name);
        Self::opened(openat(&self.descriptor, name, DIRECTORY, Mode::empty()), &path)
    }

    pub fn child_or_create(&self, name: &str) -> Result<Self, FileError> {
        make_directory(self.descriptor.as_fd(), Path::new(name), &self.path.join(name))?;
        self.child(name)
    }

    fn opened(descriptor: nix::Result<OwnedFd>, path: &Path) -> Result<Self, FileError> {
        let descriptor = descriptor.map_err(|error| {
            // O_DIRECTORY and O_NOFOLLOW together report a symbolic link as "not a directory".
            if error == Errno::ENOTDIR {
                let link = std::fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink());
                let fault = if link { Fault::Symlink } else { Fault::Kind("directory") };
                return FileError { path: path.to_owned(), fault };
            }
            failed(path)(error)
        })?;
        let found = fstat(&descriptor).map_err(failed(path))?;
        check(&found, SFlag::S_IFDIR, "directory", path)?;
        Ok(Self { descriptor, path: path.to_owned() })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }

    /// Takes the directory for this process alone. The lock is on the directory itself, so nobody can
    /// unlink it and lock another; it ends with the process.
    pub fn lock(&self) -> Result<DirectoryLock, FileError> {
        let again = openat(&self.descriptor, ".", DIRECTORY, Mode::empty()).map_err(failed(&self.path))?;
        Flock::lock(again, FlockArg::LockExclusiveNonblock).map(DirectoryLock).map_err(|(_, error)| {
            let fault = if error == Errno::EWOULDBLOCK { Fault::InUse } else { Fault::Io(error.into()) };
            FileError { path: self.path.clone(), fault }
        })
    }

    /// Whether the directory is still the one at its path.
    pub fn is_in_place(&self) -> bool {
        let identity = |found: FileStat| (found.st_dev, found.st_ino);
        let here = fstat(&self.descriptor).map(identity);
        here.is_ok() && here == nix::sys::stat::lstat(&self.path).map(identity)
    }

    /// Reads a whole file of at most `most` bytes; `None` when there is none.
    pub fn read(&self, name: &str, most: usize) -> Result<Option<Vec<u8>>, FileError> {
        let path = self.path.join(name);
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        let file = match openat(&self.descriptor, name, flags, Mode::empty()) {
            Ok(descriptor) => File::from(descriptor),
            Err(Errno::ENOENT) => return Ok(None),
            Err(error) => return Err(failed(&path)(error)),
        };
        let found = fstat(&file).map_err(failed(&path))?;
        check(&found, SFlag::S_IFREG, "regular file", &path)?;
        let length = usize::try_from(found.st_size).unwrap_or(usize::MAX);
        if length > most {
            return Err(FileError { path, fault: Fault::TooLong(most) });
        }
        let mut bytes = Vec::with_capacity(length + 1);
        let limit = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1);
        file.take(limit).read_to_end(&mut bytes).map_err(io_failed(&path))?;
        if bytes.len() > most {
            return Err(FileError { path, fault: Fault::TooLong(most) });
        }
        Ok(Some(bytes))
    }

    /// Makes a file that was not there, with its content synced. On failure nothing is left of it.
    pub fn create(&self, name: &str, bytes: &[u8]) -> Result<(), FileError> {
        self.make(name, bytes, true)
    }

    /// The same without waiting for the disk: for many files that [`Self::sync_file_system`] follows.
    pub fn create_unsynced(&self, name: &str, bytes: &[u8]) -> Result<(), FileError> {
        self.make(name, bytes, false)
    }

    fn make(&self, name: &str, bytes: &[u8], synced: bool) -> Result<(), FileError> {
        let path = self.path.join(name);
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let descriptor =
            openat(&self.descriptor, name, flags, Mode::S_IRUSR | Mode::S_IWUSR).map_err(failed(&path))?;
        let mut file = File::from(descriptor);
        let written = file.write_all(bytes).and_then(|()| if synced { file.sync_all() } else { Ok(()) });
        if let Err(error) = written {
            let _ = unlinkat(&self.descriptor, name, UnlinkatFlags::NoRemoveDir);
            return Err(io_failed(&path)(error));
        }
        Ok(())
    }

    /// Writes all of the file system that the directory is on to disk, `syncfs`(2).
    pub fn sync_file_system(&self) -> Result<(), FileError> {
        sys::sync_file_system(self.descriptor.as_fd()).map_err(io_failed(&self.path))
    }

    /// Puts new content in a file's place: the old or the new is there at any instant, never a mixture.
    pub fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), FileError> {
        let fresh = format!("{name}.new");
        self.remove(&fresh)?;
        self.create(&fresh, bytes)?;
        nix::fcntl::renameat(&self.descriptor, fresh.as_str(), &self.descriptor, name)
            .map_err(failed(&self.path.join(name)))?;
        self.sync()
    }

    /// Removes a file; it is no error when there is none.
    pub fn remove(&self, name: &str) -> Result<(), FileError> {
        match unlinkat(&self.descriptor, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(error) => Err(failed(&self.path.join(name))(error)),
        }
    }

    /// Writes the directory's entries to disk.
    pub fn sync(&self) -> Result<(), FileError> {
        nix::unistd::fsync(&self.descriptor).map_err(failed(&self.path))
    }

    /// The names in the directory that are UTF-8 (keyloan makes no others), sorted.
    pub fn names(&self) -> Result<Vec<String>, FileError> {
        let again = openat(&self.descriptor, ".", DIRECTORY, Mode::empty()).map_err(failed(&self.path))?;
        let mut names = Vec::new();
        for entry in nix::dir::Dir::from_fd(again).map_err(failed(&self.path))? {
            let entry = entry.map_err(failed(&self.path))?;
            match entry.file_name().to_str() {
                Ok("." | "..") | Err(_) => {}
                Ok(name) => names.push(name.to_owned()),
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Opens a file for appending, making it where it is not there.
    pub fn append(&self, name: &str) -> Result<File, FileError> {
        let path = self.path.join(name);
        let flags = OFlag::O_RDWR | OFlag::O_APPEND | OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let descriptor =
            openat(&self.descriptor, name, flags, Mode::S_IRUSR | Mode::S_IWUSR).map_err(failed(&path))?;
        let found = fstat(&descriptor).map_err(failed(&path))?;
        check(&found, SFlag::S_IFREG, "regular file", &path)?;
        Ok(File::from(descriptor))
    }

    /// The length of an opened file, if it is still the one of that name.
    pub fn length_in_place(&self, name: &str, file: &File) -> Option<u64> {
        let identity = |found: &FileStat| (found.st_dev, found.st_ino);
        let here = fstat(file).ok()?;
        let there = fstatat(&self.descriptor, name, AtFlags::AT_SYMLINK_NOFOLLOW).ok()?;
        (identity(&here) == identity(&there)).then(|| u64::try_from(here.st_size).ok())?
    }

    /// Whether something of that name is there, of whatever kind.
    pub fn holds(&self, name: &str) -> bool {
        fstatat(&self.descriptor, name, AtFlags::AT_SYMLINK_NOFOLLOW).is_ok()
    }

    /// A path to a name in this directory for bind and connect, which take no descriptor and no more than
    /// some hundred bytes (`sun_path`, unix(7)). The directory is the user's alone, so nobody else can put
    /// another in its place; a path that is too long goes through the descriptor.
    pub fn socket_path(&self, name: &str) -> PathBuf {
        const SUN_PATH: usize = 100;
        let path = self.path.join(name);
        if path.as_os_str().len() < SUN_PATH {
            return path;
        }
        sys::path_within(self.descriptor.as_fd(), &self.path, name)
    }
}

/// A new file, 0600, that gets its name when it is whole and never takes another's. Dropped before that, it is
/// gone.
pub struct Fresh {
    file: File,
    making: PathBuf,
    place: PathBuf,
}

impl Fresh {
    pub fn beside(place: &Path) -> io::Result<Self> {
        use std::os::unix::fs::OpenOptionsExt;
        if std::fs::symlink_metadata(place).is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let name = place.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let mut part = name.to_owned();
        part.push(format!(".{}.part", std::process::id()));
        let making = place.with_file_name(part);
        let file = File::options().write(true).create_new(true).mode(0o600).open(&making)?;
        Ok(Self { file, making, place: place.to_owned() })
    }

    /// For a file that is to take the place of one that is there, with that one's permissions.
    pub fn instead_of(place: &Path) -> io::Result<Self> {
        use std::os::unix::fs::OpenOptionsExt;
        let mode = std::fs::symlink_metadata(place)?.permissions();
        let mut part = place.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
        part.push(format!(".{}.part", std::process::id()));
        let making = place.with_file_name(part);
        // What an interrupted change left.
        let _ = std::fs::remove_file(&making);
        let file = File::options().write(true).create_new(true).mode(0o600).open(&making)?;
        file.set_permissions(mode)?;
        Ok(Self { file, making, place: place.to_owned() })
    }

    pub fn file(&self) -> &File {
        &self.file
    }

    /// Takes the place of what is there, in one instant.
    pub fn replace(self) -> io::Result<()> {
        self.file.sync_all()?;
        std::fs::rename(&self.making, &self.place)?;
        let parent = self.place.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
    }

    /// Never replaces what is there.
    pub fn keep(self) -> io::Result<()> {
        sys::rename_without_replacing(&self.making, &self.place)?;
        let parent = self.place.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        // Kept, it has its own name; else nothing of it is of use.
        let _ = std::fs::remove_file(&self.making);
    }
}

/// Puts each of two directories in the other's place at one instant.
pub fn exchange(one: &Path, other: &Path) -> Result<(), FileError> {
    sys::exchange(one, other).map_err(io_failed(other))
}

/// Held for as long as this process owns the directory.
#[derive(Debug)]
pub struct DirectoryLock(#[expect(dead_code, reason = "dropping it unlocks")] Flock<OwnedFd>);

fn make_directory(at: BorrowedFd<'_>, name: &Path, path: &Path) -> Result<(), FileError> {
    match mkdirat(at, name, Mode::S_IRWXU) {
        Ok(()) => {
            // The caller's umask may have taken bits away; without them nothing could be made inside.
            let made = openat(at, name, DIRECTORY, Mode::empty()).map_err(failed(path))?;
            fchmod(&made, Mode::S_IRWXU).map_err(failed(path))
        }
        Err(Errno::EEXIST) => Ok(()),
        Err(error) => Err(failed(path)(error)),
    }
}

fn make_parents(path: &Path) -> Result<(), FileError> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io_failed(path))
}

/// Kind, owner, and nothing for others.
fn check(found: &FileStat, kind: SFlag, name: &'static str, path: &Path) -> Result<(), FileError> {
    let wrong = |fault| Err(FileError { path: path.to_owned(), fault });
    if SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT != kind {
        return wrong(Fault::Kind(name));
    }
    let wanted = process::effective_uid();
    if found.st_uid != wanted {
        return wrong(Fault::Owner { found: found.st_uid, wanted });
    }
    #[cfg_attr(target_os = "linux", expect(clippy::useless_conversion, reason = "16 bits wide on macOS"))]
    let mode = u32::from(found.st_mode) & 0o7777;
    if mode & 0o077 != 0 {
        return wrong(Fault::Mode { found: mode, path: path.to_owned() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("keyloan-files-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::DirBuilder::new().create(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
        path
    }

    #[test]
    fn a_symbolic_link_in_place_of_a_file_or_directory_is_refused() {
        let base = scratch("links");
        let directory = Directory::open(&base).unwrap();
        directory.create("real", b"content").unwrap();
        symlink(base.join("real"), base.join("link")).unwrap();
        assert!(matches!(directory.read("link", 100).unwrap_err().fault, Fault::Symlink));
        assert!(matches!(directory.append("link").unwrap_err().fault, Fault::Symlink));
        directory.child_or_create("inside").unwrap();
        symlink(base.join("inside"), base.join("inside-link")).unwrap();
        assert!(matches!(directory.child("inside-link").unwrap_err().fault, Fault::Symlink));
        assert!(matches!(Directory::open(&base.join("inside-link")).unwrap_err().fault, Fault::Symlink));
        std::fs::remove_dir_all(base).unwrap();
    }

    #[test]
    fn what_others_may_read_is_refused_with_the_way_to_mend_it() {
        let base = scratch("modes");
        let directory = Directory::open(&base).unwrap();
        directory.create("file", b"x").unwrap();
        std::fs::set_permissions(base.join("file"), std::fs::Permissions::from_mode(0o640)).unwrap();
        let error = directory.read("file", 100).unwrap_err().to_string();
        assert!(error.contains("mode 0640") && error.contains("chmod go= "), "{error}");
        std::fs::set_permissions(&base, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert!(matches!(Directory::open(&base).unwrap_err().fault, Fault::Mode { found: 0o755, .. }));
        std::fs::remove_dir_all(base).unwrap();
    }

    #[test]
    fn a_file_is_replaced_whole_and_read_up_to_its_limit() {
        let base = scratch("replace");
        let directory = Directory::open(&base).unwrap();
        directory.replace("file", b"old").unwrap();
        directory.replace("file", b"new!").unwrap();
        assert_eq!(directory.read("file", 4).unwrap().unwrap(), b"new!");
        assert!(matches!(directory.read("file", 3).unwrap_err().fault, Fault::TooLong(3)));
        assert_eq!(directory.read("absent", 3).unwrap(), None);
        assert_eq!(directory.names().unwrap(), ["file"]);
        std::fs::remove_dir_all(base).unwrap();
    }

    #[test]
    fn a_directory_is_locked_once_and_known_by_what_it_is() {
        let base = scratch("lock");
        let directory = Directory::open(&base).unwrap();
        let held = directory.lock().unwrap();
        assert!(matches!(Directory::open(&base).unwrap().lock().unwrap_err().fault, Fault::InUse));
        drop(held);
        directory.lock().unwrap();
        let moved = base.with_extension("moved");
        std::fs::rename(&base, &moved).unwrap();
        assert!(!directory.is_in_place());
        std::fs::remove_dir_all(moved).unwrap();
    }
}
