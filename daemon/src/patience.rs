//! Looking at what somebody else chose. A file on a mount that does not answer, or a process whose memory
//! another process serves (userfaultfd(2)), keeps whoever looks waiting for ever; that must not be the daemon.

use nix::fcntl::{OFlag, openat};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

/// How long a look may take.
pub(crate) const LIMIT: Duration = Duration::from_secs(2);

/// Looks under way at once. One that never returns keeps its place, so that not every thread ends up in one.
static PLACES: Semaphore = Semaphore::const_new(32);

/// Looks off the event loop; `None` where that takes too long, which callers take for the worst.
pub(crate) async fn look<T: Send + 'static>(at: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    look_or_say(at).await.ok()
}

/// Why nothing was seen in time. What somebody else keeps busy is not said to be the fault of what was to be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Late {
    Busy,
    Silent,
}

impl Late {
    /// Of a file whose path is said elsewhere.
    pub(crate) fn cause(self) -> &'static str {
        match self {
            Self::Busy => "the daemon is busy with looks that do not end; try again",
            Self::Silent => "its file system does not answer",
        }
    }
}

pub(crate) async fn look_or_say<T: Send + 'static>(
    at: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Late> {
    among(&PLACES, at).await
}

async fn among<T: Send + 'static>(
    places: &'static Semaphore,
    at: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Late> {
    let until = Instant::now() + LIMIT;
    let Ok(Ok(place)) = timeout_at(until, places.acquire()).await else { return Err(Late::Busy) };
    let looking = tokio::task::spawn_blocking(move || {
        let _place = place;
        at()
    });
    timeout_at(until, looking).await.map_err(|_| Late::Silent)?.map_err(|_| Late::Silent)
}

/// Why a file that somebody else chose was not read. Paths alone are named, never what stands there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unread {
    #[error("the file system of {} does not answer", .0.display())]
    Silent(PathBuf),
    #[error("{} was not looked at: {}", .0.display(), Late::Busy.cause())]
    Busy(PathBuf),
    #[error("{}: it is a link or behind one, which is not followed there", .0.display())]
    Link(PathBuf),
    #[error("{}: it is no regular file, or too long", .0.display())]
    Unfit(PathBuf),
    #[error("{}: {}", .0.display(), .1)]
    Io(PathBuf, io::Error),
}

impl Unread {
    pub(crate) fn late(late: Late, path: &Path) -> Self {
        match late {
            Late::Busy => Self::Busy(path.to_owned()),
            Late::Silent => Self::Silent(path.to_owned()),
        }
    }

    pub(crate) fn is_missing(&self) -> bool {
        let missing = [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory];
        matches!(self, Self::Io(_, error) if missing.contains(&error.kind()))
    }
}

/// A pipe in a file's place would keep whoever opens it waiting, and a terminal become the daemon's own.
const CAREFULLY: OFlag = OFlag::O_NONBLOCK.union(OFlag::O_NOCTTY);

/// A regular file of no more than this many bytes. It may still take for ever: for [`look`] alone.
pub(crate) fn regular(path: &Path, most: u64) -> Result<File, Unread> {
    let opened = std::fs::OpenOptions::new().read(true).custom_flags(CAREFULLY.bits()).open(path);
    fit(opened.map_err(|error| Unread::Io(path.to_owned(), error))?, path, most)
}

/// A file's content, whole.
pub(crate) async fn file(path: &Path, most: u64) -> Result<Vec<u8>, Unread> {
    let at = path.to_owned();
    let read = look_or_say(move || content(regular(&at, most)?, &at, most)).await;
    read.unwrap_or_else(|late| Err(Unread::late(late, path)))
}

/// The same of a file in a directory, by a name in which no part is a link, and each is as the directory lists it. A file
/// system that takes `PYPI` for `pypi`, or one form of Unicode for another, would give the file several names.
pub(crate) async fn file_in(directory: &Path, name: &str, most: u64) -> Result<Vec<u8>, Unread> {
    let (directory, name, path) = (directory.to_owned(), name.to_owned(), directory.join(name));
    let at = path.clone();
    let read = look_or_say(move || {
        let failed = |error: nix::Error| match error {
            nix::Error::ELOOP => Unread::Link(at.clone()),
            error => Unread::Io(at.clone(), error.into()),
        };
        let mut file = File::open(&directory).map_err(|error| Unread::Io(directory.clone(), error))?;
        let mut above = directory.clone();
        for part in name.split('/') {
            if !has(&above, part).map_err(|error| Unread::Io(above.clone(), error))? {
                return Err(Unread::Io(at.clone(), io::ErrorKind::NotFound.into()));
            }
            above.push(part);
            let flags = CAREFULLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            file = openat(&file, part, flags, nix::sys::stat::Mode::empty()).map_err(failed)?.into();
        }
        content(fit(file, &at, most)?, &at, most)
    });
    read.await.unwrap_or_else(|late| Err(Unread::late(late, &path)))
}

/// Whether a directory lists this name, byte for byte.
fn has(directory: &Path, name: &str) -> io::Result<bool> {
    for entry in std::fs::read_dir(directory)? {
        if entry?.file_name().as_bytes() == name.as_bytes() {
            return Ok(true);
        }
    }
    Ok(false)
}

fn fit(file: File, path: &Path, most: u64) -> Result<File, Unread> {
    let found = file.metadata().map_err(|error| Unread::Io(path.to_owned(), error))?;
    if found.is_file() && found.len() <= most { Ok(file) } else { Err(Unread::Unfit(path.to_owned())) }
}

/// Made at full size at once: it may be a key.
fn content(file: File, path: &Path, most: u64) -> Result<Vec<u8>, Unread> {
    let failed = |error| Unread::Io(path.to_owned(), error);
    let length = file.metadata().map_err(failed)?.len();
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0) + 1);
    file.take(most + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 <= most { Ok(bytes) } else { Err(Unread::Unfit(path.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn a_name_is_what_the_directory_lists() {
        let root = Path::new("/");
        for (name, is_there) in
            [("etc", true), ("ETC", false), ("etc/passwd", false), (".", false), ("et", false)]
        {
            assert_eq!(has(root, name).unwrap(), is_there, "{name}");
        }
    }

    static ONE: Semaphore = Semaphore::const_new(1);

    #[test]
    fn a_look_that_found_no_place_is_told_from_one_that_did_not_end() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (go, waits) = mpsc::channel::<()>();
        runtime.block_on(async {
            let late = among(&ONE, move || waits.recv()).await;
            assert_eq!(late.unwrap_err(), Late::Silent);
            assert_eq!(among(&ONE, || ()).await.unwrap_err(), Late::Busy, "it keeps its place");
        });
        drop(go);
        let unread = Unread::late(Late::Busy, Path::new("/a/b"));
        assert!(unread.to_string().contains("the daemon is busy"), "{unread}");
    }
}
