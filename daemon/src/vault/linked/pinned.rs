//! The programs of vaults, pinned when a vault is added. One that only root can change is pinned by its path. Any other,
//! such as one that npm installed, is pinned by its SHA-256 as well, and runs only while it is what it was then.
//!
//! What a script loads besides is not pinned, and neither is a program that is exchanged in the instant before it starts:
//! whoever can do either can also trace it. A pin keeps a program from being replaced for good without a word.

use super::Fault;
use crate::patience::{self, Unread};
use data_encoding::HEXLOWER;
use keyloan_platform::program::{is_nobody_elses, is_roots};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs::Metadata;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The longest program whose hash is taken; one that holds an interpreter of its own is some hundred megabytes.
const MOST: u64 = 512 * 1024 * 1024;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pinned {
    pub(crate) path: PathBuf,
    /// Where others than root can change it.
    pub(crate) sha256: Option<String>,
    /// What its `HOME` is. Not this daemon's: that is whoever's who started it.
    pub(crate) home: Option<PathBuf>,
}

impl Pinned {
    /// A program as it is now.
    pub(crate) async fn of(path: &Path) -> Result<Self, Fault> {
        let found = path.to_owned();
        let looked = patience::look_or_say(move || look(&found)).await;
        let sha256 = looked.unwrap_or_else(|late| Err(Unread::late(late, path).into()))?;
        Ok(Self { path: path.to_owned(), sha256, home: keyloan_platform::paths::home() })
    }

    /// Fails where it is not what was pinned.
    pub(super) async fn check(&self) -> Result<(), Fault> {
        let now = Self::of(&self.path).await?;
        // What root has taken over since is root's word.
        if now.sha256.is_none() || now.sha256 == self.sha256 {
            return Ok(());
        }
        Err(Fault::Changed(self.path.display().to_string()))
    }
}

/// Whether a file that is not root's alone to change would run if a program were told to: by itself, or by what its first
/// line names.
pub(super) async fn is_to_be_run(path: &Path) -> Result<bool, Fault> {
    let at = path.to_owned();
    let looked = patience::look_or_say(move || {
        let is_executable = |found: Metadata| found.is_file() && found.permissions().mode() & 0o111 != 0;
        if is_roots(&at) {
            return false;
        }
        if std::fs::metadata(&at).is_ok_and(is_executable) {
            return true;
        }
        let mut first = [0; 2];
        patience::regular(&at, MOST)
            .is_ok_and(|mut file| file.read_exact(&mut first).is_ok() && first == *b"#!")
    });
    looked.await.map_err(|late| Unread::late(late, path).into())
}

fn look(path: &Path) -> Result<Option<String>, Fault> {
    let broken = |cause: &str| Fault::Broken(format!("{}: {cause}", path.display()));
    if !path.is_absolute() {
        return Err(broken("a program is named by its whole path"));
    }
    if is_roots(path) {
        return Ok(None);
    }
    if !path.exists() {
        return Err(broken("there is no such program"));
    }
    if !is_nobody_elses(path) {
        return Err(broken("somebody else could change it, or a directory on the way to it"));
    }
    let mut file = patience::regular(path, MOST)?;
    let mut hash = Sha256::new();
    let mut first = Vec::new();
    let mut piece = vec![0; 256 * 1024];
    let mut length = 0;
    loop {
        let read = match file.read(&mut piece) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(broken(&error.to_string())),
        };
        if length == 0 {
            first.extend_from_slice(&piece[..read.min(256)]);
        }
        hash.update(&piece[..read]);
        length += read as u64;
        if length > MOST {
            return Err(broken("it is longer than a program is"));
        }
    }
    if let Some(interpreter) = interpreter(&first)
        && !is_roots(&interpreter)
    {
        return Err(broken(&format!(
            "it is a script whose interpreter {} is not root's alone to change",
            interpreter.display()
        )));
    }
    Ok(Some(HEXLOWER.encode(&hash.finalize())))
}

fn interpreter(first: &[u8]) -> Option<PathBuf> {
    let line = first.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let line = String::from_utf8_lossy(line);
    Some(PathBuf::from(line.trim().split([' ', '\t']).next()?))
}
