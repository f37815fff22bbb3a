//! A new identity for the vault: every file encrypted anew, beside the old vault, and put in its place at once.

use super::index::{FileHash, Index, file_name};
use super::keys::{KeyError, Keys};
use super::making::Making;
use super::{Files, LocalVault, PASSPHRASE, VaultError};
use keyloan_platform::private_file::Directory;
use std::path::PathBuf;
use zeroize::Zeroizing;

/// What the work needs of the vault as it is.
pub(crate) struct Before {
    place: PathBuf,
    index: Index,
    old: Zeroizing<String>,
}

/// The vault with its new identity, synced, beside the old one.
pub(crate) struct Rekeyed {
    making: Making,
    index: Index,
}

impl Before {
    /// Encrypts everything to the new identity, off the event loop. `wrapped` are the identity files by name. Of
    /// the old vault nothing is touched.
    pub(crate) fn rekey(self, new: &str, wrapped: &[(String, Vec<u8>)]) -> Result<Rekeyed, VaultError> {
        let identity = |cause: KeyError| VaultError::Key { name: "identity".to_owned(), cause };
        let old = Keys::from_text(&self.old).map_err(identity)?;
        let new = Keys::from_text(new).map_err(identity)?;
        let items = Directory::open(&self.place)?.child("items")?;
        let making = Making::begin(&self.place)?;
        let mut index = self.index.one_further();
        for (id, entry) in self.index.all() {
            let name = file_name(id, entry.revision);
            let cause = |cause| VaultError::Key { name: name.clone(), cause };
            let text = old.decrypt(&Files::checked_in(&items, &name, entry)?).map_err(cause)?;
            let bytes = new.encrypt(&text).map_err(cause)?;
            making.item(&name, &bytes)?;
            let mut entry = entry.clone();
            entry.sha256 = FileHash::of(&bytes);
            index.place(id.clone(), entry);
        }
        for (name, wrapped) in wrapped {
            making.identity(name, wrapped)?;
        }
        making.index(&index.snapshot(&new)?)?;
        making.sync()?;
        Ok(Rekeyed { making, index })
    }
}

impl LocalVault {
    /// Lets nothing be written until [`Self::thaw`], and gives what a new identity's files are made from.
    pub(crate) fn freeze(&mut self) -> Result<Before, VaultError> {
        let (files, open) = self.parts()?;
        let old = Zeroizing::new(open.keys.expose_identity().to_owned());
        let before = Before { place: files.root.path().to_owned(), index: open.index.clone(), old };
        self.frozen = true;
        Ok(before)
    }

    pub(crate) fn thaw(&mut self) {
        self.frozen = false;
    }

    /// Whether the re-keyed vault can take the old one's place, so that nothing is recorded that will not be.
    pub(crate) fn check_rekeyed(&mut self, rekeyed: &Rekeyed) -> Result<(), VaultError> {
        self.thaw();
        let (_, open) = self.parts()?;
        let fits = rekeyed.index.counter() == open.index.counter() + 1;
        if fits { Ok(()) } else { Err(VaultError::Changed) }
    }

    /// Puts the re-keyed vault in the old one's place, if that is still the one it was made from.
    pub(crate) fn put_rekeyed(&mut self, rekeyed: Rekeyed, keys: Keys) -> Result<(), VaultError> {
        self.check_rekeyed(&rekeyed)?;
        let Rekeyed { making, index } = rekeyed;
        let (files, _) = self.parts()?;
        let place = files.root.path().to_owned();
        making.exchange(&place)?;
        self.opened_anew(keys, index)
    }

    /// The name of a recipient's identity file, and of the passphrase's.
    pub(crate) fn identity_file(recipient: Option<&str>) -> String {
        recipient.map_or_else(|| PASSPHRASE.to_owned(), |name| format!("{name}.age"))
    }
}
