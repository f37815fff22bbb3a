//! The whole vault in one age file, and back. Opened with `age -d`, it is a tar archive: the vault's identity, and
//! its files as they lie in the vault, so that the recovery page works on it as it does on a vault.
//!
//! `README` · `identity.txt` · `vault/index.age` · `vault/identity/NAME.age` · `vault/items/ID.REVISION.age`

use super::index::{self, FileHash, Index, file_name};
use super::item_file;
use super::keys::{KeyError, Keys};
use super::making::Making;
use super::{LocalVault, PASSPHRASE, VaultError, identity};
use age::secrecy::SecretString;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use zeroize::Zeroizing;

const README: &str = "A backup of a keyloan vault. Give it back with: keyloan restore FILE\n\
    Without keyloan: identity.txt opens every file in vault/ with: age -d -i identity.txt FILE\n";

/// Who can open a backup.
pub(crate) enum For {
    Passphrase(SecretString),
    Recipients(Vec<Box<dyn age::Recipient + Send>>),
}

/// What opens a backup.
pub(crate) enum By {
    Passphrase(SecretString),
    /// The text of an identity file.
    Identity(Zeroizing<String>),
    /// It was opened before: a tar archive.
    Nothing,
}

/// A file of the archive: its name and its content.
type Named = (String, Zeroizing<Vec<u8>>);

/// A vault read from a backup, checked, beside its place.
pub(crate) struct Unpacked {
    making: Making,
    identity: Zeroizing<String>,
    index: Index,
    /// The identity as the backup's own passphrase wraps it.
    wrapped: Vec<u8>,
}

impl LocalVault {
    /// The archive that a backup holds, and how many items are in it. Every item is checked on the way, so that
    /// no damage is kept for good.
    pub(crate) fn archive(&self) -> Result<(Zeroizing<Vec<u8>>, usize), VaultError> {
        let open = self.open.as_ref().ok_or(VaultError::Locked)?;
        let files = self.files.as_ref().ok_or_else(|| VaultError::Absent(self.path.clone()))?;
        let mut archive = Archive(tar::Builder::new(Vec::new()));
        archive.add("README", README.as_bytes())?;
        archive.add("identity.txt", identity::file_text(open.keys.expose_identity()).as_bytes())?;
        archive.add("vault/index.age", &open.index.snapshot(&open.keys)?)?;
        for name in files.identity.names()? {
            if let Some(wrapped) = files.identity.read(&name, identity::MOST)? {
                archive.add(&format!("vault/identity/{name}"), &wrapped)?;
            }
        }
        let mut items = 0;
        for (id, entry) in open.index.all() {
            let name = file_name(id, entry.revision);
            archive.add(&format!("vault/items/{name}"), &files.checked(&name, entry)?)?;
            items += usize::from(entry.kind == index::Kind::Item);
        }
        Ok((Zeroizing::new(archive.0.into_inner().map_err(VaultError::BackupFile)?), items))
    }

    /// Puts an unpacked vault where none is, and opens it. `wrapped` is the identity by a new passphrase; without
    /// it the passphrase stays the one that the vault had.
    pub(crate) fn restore(
        &mut self,
        unpacked: Unpacked,
        wrapped: Option<&[u8]>,
    ) -> Result<usize, VaultError> {
        let Unpacked { making, identity, index, wrapped: old } = unpacked;
        let cause = |cause| VaultError::Key { name: "identity.txt".to_owned(), cause };
        let keys = Keys::from_text(&identity).map_err(cause)?;
        making.identity(PASSPHRASE, wrapped.unwrap_or(&old))?;
        if std::fs::symlink_metadata(&self.path).is_ok() {
            return Err(VaultError::Exists(self.path.clone()));
        }
        making.put(&self.path)?;
        let items = index.entries(index::Kind::Item).len();
        self.opened_anew(keys, index)?;
        Ok(items)
    }
}

impl Unpacked {
    pub(crate) fn identity(&self) -> &Zeroizing<String> {
        &self.identity
    }

    /// Reads a backup into a vault beside its place; slow, and without any vault being open.
    pub(crate) fn read(place: &Path, from: &[u8], by: &By) -> Result<Self, VaultError> {
        let is_sealed = from.starts_with(b"age-encryption.org/v1");
        match (is_sealed, by) {
            (false, By::Nothing) => Self::unpack(place, from),
            (false, _) => Err(VaultError::Backup("it is not an age file")),
            (true, By::Nothing) => Err(VaultError::Backup("it is encrypted")),
            (true, By::Passphrase(passphrase)) => {
                Self::open(place, from, &identity::with_passphrase(passphrase))
            }
            (true, By::Identity(text)) => {
                let identities = identity::identities(text).map_err(VaultError::Identity)?;
                let decryptor = age::Decryptor::new_buffered(from).map_err(|_| wrong())?;
                let keys = identities.iter().map(|one| one.as_ref() as &dyn age::Identity);
                Self::unpack(place, decryptor.decrypt(keys).map_err(|_| wrong())?)
            }
        }
    }

    fn open(place: &Path, from: &[u8], identity: &dyn age::Identity) -> Result<Self, VaultError> {
        let decryptor = age::Decryptor::new_buffered(from).map_err(|_| wrong())?;
        Self::unpack(place, decryptor.decrypt(std::iter::once(identity)).map_err(|_| wrong())?)
    }

    fn unpack(place: &Path, from: impl Read) -> Result<Self, VaultError> {
        let form = || VaultError::Backup("it is not a backup that keyloan made, or it is damaged");
        let mut archive = tar::Archive::new(from);
        let mut entries = archive.entries().map_err(|_| form())?;
        let mut next = || -> Result<Option<Named>, VaultError> {
            let Some(entry) = entries.next() else { return Ok(None) };
            let mut entry = entry.map_err(|_| form())?;
            let name = String::from_utf8(entry.path_bytes().into_owned()).map_err(|_| form())?;
            let length = usize::try_from(entry.size()).map_err(|_| form())?;
            if entry.header().entry_type() != tar::EntryType::Regular || length > index::MOST {
                return Err(form());
            }
            let mut content = Zeroizing::new(vec![0; length]);
            entry.read_exact(&mut content).map_err(|_| form())?;
            Ok(Some((name, content)))
        };
        let mut expect = |wanted: &str| match next()? {
            Some((name, content)) if name == wanted => Ok(content),
            _ => Err(form()),
        };
        expect("README")?;
        let text = expect("identity.txt")?;
        let text = identity::identity_line(&text).map_err(VaultError::Identity)?;
        let keys = Keys::from_text(&text).map_err(|_| form())?;
        let snapshot = expect("vault/index.age")?;
        let mut index = Index::open(&keys, &snapshot)?;
        // The log that this vault remembers is another machine's.
        index.forget_anchor();
        let making = Making::begin(place)?;
        making.index(&index.snapshot(&keys)?)?;
        let mut wrapped = None;
        let mut missing: BTreeSet<String> = index.files().collect();
        while let Some((name, content)) = next()? {
            if let Some(name) = name.strip_prefix("vault/items/") {
                let entry = index.by_file(name).ok_or_else(form)?;
                if FileHash::of(&content) != entry.sha256 || content.len() > item_file::MOST {
                    return Err(VaultError::ItemForged { title: entry.title.clone(), name: name.to_owned() });
                }
                making.item(name, &content)?;
                missing.remove(name);
            } else if name == format!("vault/identity/{PASSPHRASE}") {
                wrapped = Some(content.to_vec());
            } else if let Some(recipient) =
                name.strip_prefix("vault/identity/").and_then(|name| name.strip_suffix(".age"))
            {
                if index.recipients().contains_key(recipient) {
                    making.identity(&Self::file(recipient), &content)?;
                }
            } else {
                return Err(form());
            }
        }
        if !missing.is_empty() {
            return Err(VaultError::Backup("it ends too early: items are missing"));
        }
        making.sync()?;
        Ok(Self { making, identity: text, index, wrapped: wrapped.ok_or_else(form)? })
    }

    fn file(recipient: &str) -> String {
        LocalVault::identity_file(Some(recipient))
    }
}

fn wrong() -> VaultError {
    VaultError::Key { name: "the backup".to_owned(), cause: KeyError::Decrypt }
}

/// Encrypts an archive. Slow where it is for a passphrase.
pub(crate) fn seal(archive: &[u8], sealed_for: &For) -> Result<Vec<u8>, VaultError> {
    let by_passphrase;
    let recipients: Vec<&dyn age::Recipient> = match sealed_for {
        For::Passphrase(passphrase) => {
            by_passphrase = identity::by_passphrase(passphrase);
            vec![&by_passphrase]
        }
        For::Recipients(recipients) => recipients.iter().map(|one| one.as_ref() as _).collect(),
    };
    let encryptor = age::Encryptor::with_recipients(recipients.into_iter())
        .map_err(|_| VaultError::Backup("it cannot be encrypted to these recipients"))?;
    let sealed = || -> io::Result<Vec<u8>> {
        // age adds a header, and 16 bytes to every 64 KiB.
        let mut sealed = Vec::with_capacity(archive.len() + archive.len() / 4096 + 16 * 1024);
        let mut writer = encryptor.wrap_output(&mut sealed)?;
        writer.write_all(archive)?;
        writer.finish()?;
        Ok(sealed)
    };
    sealed().map_err(VaultError::BackupFile)
}

pub(crate) fn write(mut to: File, sealed: &[u8]) -> Result<(), VaultError> {
    to.write_all(sealed).and_then(|()| to.sync_all()).map_err(VaultError::BackupFile)
}

/// The longest backup: it is held in memory while it is opened.
const MOST: u64 = 1024 * 1024 * 1024;

/// Reads a backup as it lies on disk, or comes out of a pipe.
pub(crate) fn read(from: File) -> Result<Zeroizing<Vec<u8>>, VaultError> {
    let mut sealed = Zeroizing::new(Vec::new());
    from.take(MOST + 1).read_to_end(&mut sealed).map_err(VaultError::BackupFile)?;
    if sealed.len() as u64 > MOST { Err(VaultError::Backup("it is longer than 1 GiB")) } else { Ok(sealed) }
}

/// Files of one mode and no date: two backups of one state hold the same archive.
struct Archive(tar::Builder<Vec<u8>>);

impl Archive {
    fn add(&mut self, name: &str, content: &[u8]) -> Result<(), VaultError> {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o600);
        self.0.append_data(&mut header, name, content).map_err(VaultError::BackupFile)
    }
}
