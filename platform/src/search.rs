//! Looking for `.keyloan.toml` from a directory upwards. The search ends at a repository's root, at a mount,
//! at a change of owner, and before the home directory itself, so that a stranger's clone inside a directory
//! with credentials inherits nothing.

use crate::paths;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use std::fs::{Metadata, symlink_metadata};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The name of the per-directory file.
pub const FILE: &str = ".keyloan.toml";

/// The most directories looked at.
const MOST: usize = 64;

/// What a search found.
pub struct Search {
    /// Nearest first.
    pub directories: Vec<PathBuf>,
    pub file: Option<Found>,
}

/// The nearest file, opened.
pub struct Found {
    /// Its place in the directories.
    pub at: usize,
    pub descriptor: OwnedFd,
}

impl Search {
    /// Fails when the nearest file cannot be opened; a file that is in the way is not passed over.
    pub fn upwards(from: &Path) -> io::Result<Self> {
        let home = paths::home();
        let mut search = Self { directories: Vec::new(), file: None };
        let mut below: Option<Metadata> = None;
        for directory in from.ancestors().take(MOST) {
            // What cannot even be looked at ends the search as a change of owner does.
            let Ok(here) = symlink_metadata(directory) else { break };
            let left = below.is_some_and(|below| below.dev() != here.dev() || below.uid() != here.uid());
            if left || home.as_deref() == Some(directory) {
                break;
            }
            if search.file.is_none() {
                match open_file(&directory.join(FILE)) {
                    Ok(descriptor) => {
                        search.file = Some(Found { at: search.directories.len(), descriptor });
                    }
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
            search.directories.push(directory.to_owned());
            if symlink_metadata(directory.join(".git")).is_ok() {
                break;
            }
            below = Some(here);
        }
        Ok(search)
    }
}

/// Opens the file itself, never what a link points at.
pub fn open_file(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    nix::fcntl::open(path, flags, Mode::empty()).map_err(|error| match error {
        Errno::ELOOP => io::Error::other("it is a symbolic link, which is not followed here"),
        error => error.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_nearest_file_is_found_and_a_repository_ends_the_search() {
        let base = std::env::temp_dir().join(format!("keyloan-search-{}", std::process::id()));
        let _ = fs::remove_dir_all(&base);
        fs::create_dir_all(base.join("clone/src/deep")).unwrap();
        fs::File::options().create(true).append(true).open(base.join(FILE)).unwrap();
        let above = Search::upwards(&base.join("clone/src/deep")).unwrap();
        assert_eq!(above.file.unwrap().at, 3);
        fs::create_dir(base.join("clone/.git")).unwrap();
        let clone = Search::upwards(&base.join("clone/src/deep")).unwrap();
        assert!(clone.file.is_none(), "a clone inherits nothing from the directory around it");
        assert_eq!(clone.directories.len(), 3);
        std::os::unix::fs::symlink("/etc/passwd", base.join("clone/src").join(FILE)).unwrap();
        assert!(Search::upwards(&base.join("clone/src/deep")).is_err(), "a link is not followed");
        fs::remove_dir_all(base).unwrap();
    }
}
