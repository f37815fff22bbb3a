//! A database of KeePass or KeePassXC, opened with a password, a key file, or both, which are kept in the local vault.
//!
//! An item is named by its groups and its title, `Internet/GitHub`, and by nothing else. Fields are `title`, `username`,
//! `password`, `url`, `notes`, those that people added, and attachments by their names. A change is made to the file as
//! it is now, and put in its place only if that is still the same and nothing that keyloan does not understand would be
//! lost.
//!
//! A file whose key takes less to derive than that of the linked one is not tried, and no file often with wrong passwords:
//! both would make a fast oracle of the daemon for whoever has a copy of the database.

pub(super) mod apart;
mod database;
mod header;
mod ssh;
mod tries;

use super::links::Link;
use super::{Call, Doing, Fault, LinkedVault, Listed, Read, SshKey};
use crate::clock::since_boot;
use crate::patience::{self, regular};
use apart::{Act, Said};
use database::Key;
use header::Derivation;
use keyloan_platform::private_file::Fresh;
use keyloan_protocol::names::VaultName;
use keyloan_protocol::reference::Reference;
use keyloan_protocol::secret::SecretBytes;
use sha2::{Digest, Sha256};
use std::cell::{Cell, RefCell};
use std::io::{Read as _, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{Mutex, OwnedMutexGuard, Semaphore};
use tries::Tries;

/// The longest database, and the longest key file.
const MOST: u64 = 64 * 1024 * 1024;
const KEY_FILE: u64 = 1024 * 1024;

/// What a link keeps: the derivation of the database that it was made for.
const DERIVATION: &str = "derivation";

/// Databases opened at once in the whole daemon: each takes as much memory as it says. Places go to those that came first,
/// and a database has at most one waiting, so that a flood for one does not keep another from its turn.
static PLACES: Semaphore = Semaphore::const_new(2);

pub(super) struct KeePass {
    name: VaultName,
    database: PathBuf,
    keyfile: Option<PathBuf>,
    /// As the link has it; nothing where the link is being made.
    at_least: Option<Derivation>,
    /// Of the file that was opened last.
    opened: RefCell<Option<Derivation>>,
    tries: Tries,
    /// One request at a time: what is read, changed and written back is the same file. A file system that does not
    /// answer keeps this, and nothing that others want.
    one: Arc<Mutex<()>>,
    /// When the last opening began that went well.
    began: Cell<Option<Duration>>,
}

impl KeePass {
    pub(super) fn open(link: &Link) -> Result<Self, Fault> {
        let at_least = link.setting(DERIVATION).map(Derivation::parse);
        let unread = || Fault::Broken("its link has no derivation that keyloan knows".to_owned());
        Ok(Self {
            name: link.name.clone(),
            database: link.path("database")?,
            keyfile: link.setting("keyfile").map(PathBuf::from),
            at_least: at_least.map(|read| read.ok_or_else(unread)).transpose()?,
            opened: RefCell::default(),
            tries: Tries::default(),
            one: Arc::default(),
            began: Cell::default(),
        })
    }

    /// Opens the database as it is now and has something done with it. As long as the guard is held, nothing else is done
    /// with this one.
    async fn ask(
        &self,
        call: &Call,
        act: Act,
        value: Option<&SecretBytes>,
    ) -> Result<(Said, Vec<u8>, OwnedMutexGuard<()>), Fault> {
        let asked = since_boot();
        let one = Arc::clone(&self.one).lock_owned().await;
        // Those who only want to know whether it opens share an answer that is no older than their question.
        if matches!(act, Act::Open) && self.began.get().is_some_and(|began| began >= asked) {
            return Ok((Said::Opened, Vec::new(), one));
        }
        let began = since_boot();
        let bytes = patience::file(&self.database, MOST).await?;
        let key = self.key(call).await?;
        let derivation = header::check(&bytes)?.derivation;
        if self.at_least.as_ref().is_some_and(|least| !derivation.is_as_dear_as(least)) {
            let cause = "its key takes less to derive than when it was linked, as a guesser's would";
            return Err(Fault::Refused(cause.to_owned()));
        }
        self.tries.may_begin(since_boot())?;
        let place = PLACES.acquire().await.map_err(|_| lost())?;
        let attempt = self.tries.begin(since_boot())?;
        let said = apart::ask(act, &bytes, &key, value, &attempt).await?;
        drop(place);
        attempt.take_back();
        self.began.set(Some(began));
        *self.opened.borrow_mut() = Some(derivation);
        Ok((said, bytes, one))
    }

    async fn key(&self, call: &Call) -> Result<Key, Fault> {
        let keyfile = match &self.keyfile {
            Some(path) => Some(SecretBytes::new(patience::file(path, KEY_FILE).await?)),
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
    Fault::Broken("what opens it did something else than it was asked for".to_owned())
}

/// Says that a request has ended, whatever a thread still does for it.
#[derive(Default)]
struct Ended(Arc<AtomicBool>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Puts new content in a file's place if that is still the one that was read, by its hash, and somebody still waits.
fn exchange(path: &Path, read: &[u8], new: &[u8], ended: &AtomicBool) -> Result<(), Fault> {
    let failed = |error: std::io::Error| Fault::Broken(format!("{}: {error}", path.display()));
    // A link is followed, so that the file behind it changes and not the link.
    let path = &path.canonicalize().map_err(failed)?;
    let fresh = Fresh::instead_of(path).map_err(failed)?;
    fresh.file().write_all(new).map_err(failed)?;
    fresh.file().sync_all().map_err(failed)?;
    let mut now = Vec::with_capacity(read.len() + 1);
    regular(path, MOST)?.take(MOST).read_to_end(&mut now).map_err(failed)?;
    if Sha256::digest(now) != Sha256::digest(read) {
        let cause = "another program changed the database meanwhile; nothing was written, try again";
        return Err(Fault::Refused(cause.to_owned()));
    }
    if ended.load(Ordering::SeqCst) {
        return Err(Fault::Refused("whoever wanted it is gone; nothing was written".to_owned()));
    }
    fresh.replace().map_err(failed)
}

impl LinkedVault for KeePass {
    fn state<'a>(&'a self, call: &'a Call) -> Doing<'a, ()> {
        Box::pin(async { self.ask(call, Act::Open, None).await.map(drop) })
    }

    fn list<'a>(&'a self, call: &'a Call) -> Doing<'a, Vec<Listed>> {
        Box::pin(async {
            match self.ask(call, Act::List, None).await?.0 {
                Said::Listed(listed) => Ok(listed),
                _ => Err(lost()),
            }
        })
    }

    fn lists_fields(&self) -> bool {
        true
    }

    fn read<'a>(&'a self, call: &'a Call, wanted: &'a [Reference]) -> Doing<'a, Vec<Read>> {
        Box::pin(async {
            match self.ask(call, Act::Read(wanted.to_vec()), None).await?.0 {
                Said::Read(read) if read.len() == wanted.len() => Ok(read),
                _ => Err(lost()),
            }
        })
    }

    fn write<'a>(&'a self, call: &'a Call, at: &'a Reference, value: &'a SecretBytes) -> Doing<'a, ()> {
        Box::pin(async {
            let (said, bytes, one) = self.ask(call, Act::Write(at.clone()), Some(value)).await?;
            let new = match said {
                Said::Written(new) => new,
                Said::Not(fault) => return Err(fault),
                _ => return Err(lost()),
            };
            let (path, ended) = (self.database.clone(), Ended::default());
            let is_over = Arc::clone(&ended.0);
            let work = move || {
                let _one = one;
                exchange(&path, &bytes, new.expose(), &is_over)
            };
            tokio::task::spawn_blocking(work).await.map_err(|_| lost())?
        })
    }

    fn ssh_keys<'a>(&'a self, call: &'a Call) -> Doing<'a, Vec<SshKey>> {
        Box::pin(async {
            match self.ask(call, Act::SshKeys, None).await?.0 {
                Said::SshKeys(keys) => Ok(keys),
                _ => Err(lost()),
            }
        })
    }

    fn learned(&self) -> Result<Vec<(&'static str, String)>, Fault> {
        let opened = self.opened.borrow();
        let unopened = || Fault::Locked("it was not opened".to_owned());
        Ok(vec![(DERIVATION, opened.as_ref().ok_or_else(unopened)?.to_string())])
    }

    fn patience(&self) -> Duration {
        // The database says how long its key takes, and others may come first.
        Duration::from_secs(60)
    }

    fn hint(&self, fault: &Fault) -> Option<String> {
        let what = match fault {
            Fault::Locked(cause) if cause.starts_with(tries::TOO_OFTEN) => {
                return Some(
                    "wait as long as it says; if you know of no failures, look into keyloan log".to_owned(),
                );
            }
            Fault::Locked(_) => "type the password anew",
            Fault::Refused(_) => "if it was you who changed what its key takes",
            _ => return None,
        };
        Some(format!("{what}: keyloan vault add --replace {}", self.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_changed_meanwhile_or_that_nobody_waits_for_is_left_alone() {
        let directory = std::env::temp_dir().join(format!("keyloan-keepass-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("db.kdbx");
        let put = |content: &[u8]| {
            let mut file =
                std::fs::File::options().write(true).create(true).truncate(true).open(&path).unwrap();
            file.write_all(content).unwrap();
        };
        let (going, gone) = (AtomicBool::new(false), AtomicBool::new(true));
        put(b"somebody else's");
        assert!(matches!(exchange(&path, b"as read", b"new", &going), Err(Fault::Refused(_))));
        assert_eq!(std::fs::read(&path).unwrap(), b"somebody else's");
        assert!(matches!(exchange(&path, b"somebody else's", b"new", &gone), Err(Fault::Refused(_))));
        assert_eq!(std::fs::read(&path).unwrap(), b"somebody else's");
        exchange(&path, b"somebody else's", b"new", &going).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 1, "nothing is left beside it");
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
