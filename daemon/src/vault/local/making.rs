//! A whole vault in the making: beside its place, synced, and only then moved there. A crash before the move
//! leaves the old state, one after it the new; what it left beside is cleared away later.

use super::index::{Index, Kind, file_name};
use super::item_file::Field;
use super::keys::Keys;
use super::{AUDIT_KEY, Files, LocalVault, Open, PASSPHRASE, Revision, VaultError, fresh_id};
use keyloan_platform::private_file::{Directory, Fault, FileError};
use keyloan_protocol::names::FieldName;
use keyloan_protocol::secret::SecretBytes;
use std::path::{Path, PathBuf};

/// Dropped before it is put in place, it is gone.
pub(crate) struct Making {
    path: PathBuf,
    files: Files,
    is_placed: bool,
}

impl Making {
    /// Begins beside the vault's place. What an interrupted one left there is cleared away first.
    pub(super) fn begin(place: &Path) -> Result<Self, VaultError> {
        clear(place)?;
        let path = beside(place);
        match Directory::open_or_create(&path).map_err(VaultError::from).and_then(made_within) {
            Ok(files) => Ok(Self { path, files, is_placed: false }),
            Err(error) => {
                let _ = std::fs::remove_dir_all(&path);
                Err(error)
            }
        }
    }

    pub(super) fn identity(&self, name: &str, wrapped: &[u8]) -> Result<(), VaultError> {
        self.files.identity.create(name, wrapped)?;
        Ok(self.files.identity.sync()?)
    }

    /// On disk only with [`Self::sync`].
    pub(super) fn item(&self, name: &str, bytes: &[u8]) -> Result<(), VaultError> {
        Ok(self.files.items.create_unsynced(name, bytes)?)
    }

    pub(super) fn index(&self, bytes: &[u8]) -> Result<(), VaultError> {
        Ok(self.files.root.create("index.age", bytes)?)
    }

    /// Writes everything to disk, and whatever else waits to be written to that file system: slow, at times.
    pub(super) fn sync(&self) -> Result<(), VaultError> {
        self.files.root.sync_file_system()?;
        Ok(self.files.root.sync()?)
    }

    /// Puts it, synced, where no vault is.
    pub(super) fn put(mut self, place: &Path) -> Result<(), VaultError> {
        // Fails where a vault has come there meanwhile: a directory that is not empty is never replaced.
        std::fs::rename(&self.path, place).map_err(at(place))?;
        self.is_placed = true;
        sync_parent(place)
    }

    /// Puts it, synced, in a vault's place. That one is beside it then, and removed when the new one is opened.
    pub(super) fn exchange(mut self, place: &Path) -> Result<(), VaultError> {
        keyloan_platform::private_file::exchange(&self.path, place)?;
        self.is_placed = true;
        sync_parent(place)
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        if !self.is_placed {
            // What cannot be removed now is cleared away by the next one, or at the next unlock.
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

fn made_within(root: Directory) -> Result<Files, VaultError> {
    for name in ["identity", "items", "journal"] {
        root.child_or_create(name)?;
    }
    Files::within(root)
}

fn beside(place: &Path) -> PathBuf {
    place.with_extension("making")
}

/// Removes what an interrupted change of a whole vault left, and only that: our own directory.
pub(super) fn clear(place: &Path) -> Result<(), VaultError> {
    let path = beside(place);
    let root = match Directory::open(&path) {
        Ok(root) => root,
        Err(error) if error.is_absent() => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let _lock = root.lock()?;
    std::fs::remove_dir_all(&path).map_err(at(&path))?;
    Ok(())
}

fn sync_parent(place: &Path) -> Result<(), VaultError> {
    if let Some(parent) = place.parent() {
        std::fs::File::open(parent).and_then(|parent| parent.sync_all()).map_err(at(parent))?;
    }
    Ok(())
}

pub(super) fn at(path: &Path) -> impl Fn(std::io::Error) -> FileError + '_ {
    |cause| FileError { path: path.to_owned(), fault: Fault::Io(cause) }
}

impl LocalVault {
    /// Makes a new vault with what keyloan seals in it, and opens it.
    pub(crate) fn create(
        &mut self,
        keys: Keys,
        wrapped: &[u8],
        sealed: Vec<(&str, SecretBytes)>,
        now: &str,
    ) -> Result<(), VaultError> {
        if std::fs::symlink_metadata(&self.path).is_ok() {
            return Err(VaultError::Exists(self.path.clone()));
        }
        let making = Making::begin(&self.path)?;
        making.identity(PASSPHRASE, wrapped)?;
        let mut audit_key = vec![0; 32];
        getrandom::fill(&mut audit_key).map_err(|_| VaultError::Random)?;
        let mut new = Index::empty();
        for (title, value) in sealed.into_iter().chain([(AUDIT_KEY, SecretBytes::new(audit_key))]) {
            // "content" is a name like any other.
            let Ok(name) = FieldName::parse("content") else { return Err(VaultError::Random) };
            let fields = [Field { name, public: false, value }];
            let revision = Revision { kind: Kind::Sealed, title, expires: None, fields: &fields, now };
            let (bytes, entry) = revision.sealed(&keys, 1, Vec::new())?;
            let id = fresh_id()?;
            making.item(&file_name(&id, 1), &bytes)?;
            new.place(id, entry);
        }
        let new = new.one_further();
        making.index(&new.snapshot(&keys)?)?;
        making.sync()?;
        making.put(&self.path)?;
        self.opened_anew(keys, new)
    }

    /// Takes hold of the vault that was just put in its place.
    pub(super) fn opened_anew(&mut self, keys: Keys, index: Index) -> Result<(), VaultError> {
        // Whatever was open was another: should the new one not open, nothing is.
        self.lock();
        self.files = None;
        self.files = Some(Files::within(Directory::open(&self.path)?)?);
        self.open = Some(Open { keys, index, audit: None });
        let loaded = self.load_audit_key();
        match loaded {
            // The vault is in its place whether or not what it replaced can be removed now.
            Ok(()) => drop(clear(&self.path)),
            Err(_) => self.lock(),
        }
        loaded
    }
}
