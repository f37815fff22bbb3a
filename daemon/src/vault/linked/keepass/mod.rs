//! A database of KeePass or KeePassXC, opened with a password, a key file, or both, which are kept in the local vault.
//!
//! An item is named by its groups and its title, `Internet/GitHub`, or by its title alone where no other has it. Fields
//! are `title`, `username`, `password`, `url`, `notes`, those that people added, and attachments by their names. A
//! change is made to the file as it is now, and put in its place only if that is still the same and nothing that
//! keyloan does not understand would be lost.

mod database;
mod header;
mod ssh;

use super::links::Link;
use super::{Call, Doing, Fault, LinkedVault, Listed, Read, SshKey};
use crate::patience;
use database::{Key, Opened};
use keyloan_platform::private_file::Fresh;
use keyloan_protocol::names::VaultName;
use keyloan_protocol::reference::Reference;
use keyloan_protocol::secret::SecretBytes;
use sha2::{Digest, Sha256};
use std::io::{Read as _, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;

/// The longest database, and the longest key file.
const MOST: u64 = 64 * 1024 * 1024;
const KEY_FILE: u64 = 1024 * 1024;

pub(super) struct KeePass {
    name: VaultName,
    database: PathBuf,
    keyfile: Option<PathBuf>,
    /// One derivation of the key at a time: it takes as much memory as the database says. It goes on when its
    /// requester goes away, so the next one waits for its end.
    one: Arc<Mutex<()>>,
}

impl KeePass {
    pub(super) fn open(link: &Link) -> Result<Self, Fault> {
        let keyfile = link.setting("keyfile").map(PathBuf::from);
        Ok(Self { name: link.name.clone(), database: link.path("database")?, keyfile, one: Arc::default() })
    }

    async fn file(&self, path: &Path, most: u64) -> Result<Vec<u8>, Fault> {
        let shown = path.display().to_string();
        let path = path.to_owned();
        let looked = patience::look(move || content(&path, most)).await;
        let unanswered = || Fault::Unreachable(format!("the file system of {shown} does not answer"));
        looked.unwrap_or_else(|| Err(unanswered()))
    }

    /// Opens the database and does something with it, off the event loop.
    async fn with<T: Send + 'static>(
        &self,
        call: &Call,
        act: impl FnOnce(&Opened) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        let bytes = self.file(&self.database, MOST).await?;
        let key = self.key(call).await?;
        let one = Arc::clone(&self.one).lock_owned().await;
        let work = move || {
            let _one = one;
            act(&Opened::read(&bytes, key)?)
        };
        tokio::task::spawn_blocking(work).await.map_err(|_| lost())?
    }

    async fn key(&self, call: &Call) -> Result<Key, Fault> {
        let keyfile = match &self.keyfile {
            Some(path) => Some(SecretBytes::new(self.file(path, KEY_FILE).await?)),
            None => None,
        };
        let password =
            call.secrets.expose("password").map(|password| SecretBytes::copy_of(password.expose()));
        if keyfile.is_none() && password.is_none() {
            return Err(Fault::Locked("neither a password nor a key file is known for it".to_owned()));
        }
        Ok(Key { password, keyfile })
    }
}

fn lost() -> Fault {
    Fault::Broken("a background task ended early".to_owned())
}

fn content(path: &Path, most: u64) -> Result<Vec<u8>, Fault> {
    let broken = |cause: String| Fault::Broken(format!("{}: {cause}", path.display()));
    // A pipe in the file's place would keep whoever reads it waiting.
    let opened =
        std::fs::OpenOptions::new().read(true).custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits()).open(path);
    let file = opened.map_err(|error| broken(error.to_string()))?;
    let found = file.metadata().map_err(|error| broken(error.to_string()))?;
    if !found.is_file() || found.len() > most {
        return Err(broken("it is no regular file, or too long".to_owned()));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(found.len()).unwrap_or(0) + 1);
    file.take(most).read_to_end(&mut bytes).map_err(|error| broken(error.to_string()))?;
    Ok(bytes)
}

/// Puts new content in a file's place if that is still the one that was read, by its hash.
fn exchange(path: &Path, read: &[u8], new: &[u8]) -> Result<(), Fault> {
    let failed = |error: std::io::Error| Fault::Broken(format!("{}: {error}", path.display()));
    // A link is followed, so that the file behind it changes and not the link.
    let path = &path.canonicalize().map_err(failed)?;
    let fresh = Fresh::instead_of(path).map_err(failed)?;
    fresh.file().write_all(new).map_err(failed)?;
    fresh.file().sync_all().map_err(failed)?;
    if Sha256::digest(content(path, MOST)?) != Sha256::digest(read) {
        let cause = "another program changed the database meanwhile; nothing was written, try again";
        return Err(Fault::Refused(cause.to_owned()));
    }
    fresh.replace().map_err(failed)
}

impl LinkedVault for KeePass {
    fn state<'a>(&'a self, call: &'a Call) -> Doing<'a, ()> {
        Box::pin(self.with(call, |_| Ok(())))
    }

    fn list<'a>(&'a self, call: &'a Call) -> Doing<'a, Vec<Listed>> {
        Box::pin(self.with(call, |opened| Ok(opened.list())))
    }

    fn lists_fields(&self) -> bool {
        true
    }

    fn read<'a>(&'a self, call: &'a Call, wanted: &'a [Reference]) -> Doing<'a, Vec<Read>> {
        let wanted = wanted.to_vec();
        Box::pin(
            self.with(call, move |opened| {
                Ok(wanted.iter().map(|reference| opened.field(reference)).collect())
            }),
        )
    }

    fn write<'a>(&'a self, call: &'a Call, at: &'a Reference, value: &'a SecretBytes) -> Doing<'a, ()> {
        Box::pin(async {
            let bytes = self.file(&self.database, MOST).await?;
            let (key, again) = (self.key(call).await?, self.key(call).await?);
            let (path, at) = (self.database.clone(), at.clone());
            let value = SecretBytes::copy_of(value.expose());
            let one = Arc::clone(&self.one).lock_owned().await;
            let work = move || {
                let _one = one;
                let new = Opened::read(&bytes, key)?.with_field(&at, &value, &bytes, again)?;
                exchange(&path, &bytes, &new)
            };
            tokio::task::spawn_blocking(work).await.map_err(|_| lost())?
        })
    }

    fn ssh_keys<'a>(&'a self, call: &'a Call) -> Doing<'a, Vec<SshKey>> {
        Box::pin(self.with(call, |opened| Ok(opened.ssh_keys())))
    }

    fn patience(&self) -> Duration {
        // The database says how long its key takes.
        Duration::from_secs(60)
    }

    fn hint(&self, fault: &Fault) -> Option<String> {
        matches!(fault, Fault::Locked(_))
            .then(|| format!("type the password anew: keyloan vault add --replace {}", self.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_changed_meanwhile_is_left_alone() {
        let directory = std::env::temp_dir().join(format!("keyloan-keepass-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("db.kdbx");
        let put = |content: &[u8]| {
            let mut file =
                std::fs::File::options().write(true).create(true).truncate(true).open(&path).unwrap();
            file.write_all(content).unwrap();
        };
        put(b"somebody else's");
        assert!(matches!(exchange(&path, b"as read", b"new"), Err(Fault::Refused(_))));
        assert_eq!(std::fs::read(&path).unwrap(), b"somebody else's");
        exchange(&path, b"somebody else's", b"new").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 1, "nothing is left beside it");
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
