//! A new identity for the vault: every file encrypted anew, beside the old vault, and put in its place at once.

use super::index::file_name;
use super::keys::Keys;
use super::making::Making;
use super::{LocalVault, PASSPHRASE, VaultError};
use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};

impl LocalVault {
    /// `wrapped` are the identity files, by the names of the recipients that the index lists, and by the
    /// passphrase's. Until the exchange nothing of the old vault is touched.
    pub(crate) fn rekey(&mut self, keys: Keys, wrapped: &[(String, Vec<u8>)]) -> Result<(), VaultError> {
        let (files, open) = self.parts()?;
        let place = files.root.path().to_owned();
        let making = Making::begin(&place)?;
        let mut new = open.index.one_further();
        for (id, entry) in open.index.all() {
            let name = file_name(id, entry.revision);
            let cause = |cause| VaultError::Key { name: name.clone(), cause };
            let text = open.keys.decrypt(&files.checked(&name, entry)?).map_err(cause)?;
            let bytes = keys.encrypt(&text).map_err(cause)?;
            making.item(&name, &bytes)?;
            let mut entry = entry.clone();
            entry.sha256 = HEXLOWER.encode(&Sha256::digest(&bytes));
            new.place(id.clone(), entry);
        }
        for (name, wrapped) in wrapped {
            making.identity(name, wrapped)?;
        }
        making.index(&new.snapshot(&keys)?)?;
        making.exchange(&place)?;
        self.opened_anew(keys, new)
    }

    /// The name of a recipient's identity file, and of the passphrase's.
    pub(crate) fn identity_file(recipient: Option<&str>) -> String {
        recipient.map_or_else(|| PASSPHRASE.to_owned(), |name| format!("{name}.age"))
    }
}
