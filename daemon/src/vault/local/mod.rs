//! The built-in vault: a directory of age files.
//!
//! Invariants: an item's file is never overwritten; a change is on disk, synced, before it is believed; a
//! crash at any instant leaves the old state or the new one. One process holds the directory at a time.
//!
//! `identity/` the wrapped identity · `items/ID.REVISION.age` · `index.age` a snapshot · `journal/` the
//! changes since.

pub(crate) mod backup;
pub(crate) mod identity;
pub(crate) mod index;
pub(crate) mod item_file;
pub(crate) mod keys;
pub(crate) mod making;
pub(crate) mod merge;
mod public;
mod records;
mod rekey;

use data_encoding::HEXLOWER;
use index::{Anchor, Change, Entry, EntryField, FileHash, Index, IndexError, Kind};
use item_file::{Field, ItemFileError};
use keyloan_platform::memory::Slot;
use keyloan_platform::private_file::{Directory, DirectoryLock, FileError};
use keyloan_protocol::control::response::VaultState;
use keyloan_protocol::env_vars;
use keyloan_protocol::names::{FieldName, PlainName};
use keyloan_protocol::secret::SecretBytes;
use keys::{KeyError, Keys};
use records::Records;
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub(crate) enum VaultError {
    #[error("the vault is locked")]
    Locked,
    #[error("there is no vault yet at {}", .0.display())]
    Absent(PathBuf),
    #[error("{} is there already; keyloan does not touch it", .0.display())]
    Exists(PathBuf),
    #[error("{0}")]
    File(#[from] FileError),
    #[error("{0}")]
    Index(#[from] IndexError),
    #[error("item '{title}': {cause}")]
    ItemForm { title: String, cause: ItemFileError },
    #[error("item '{title}': its file {name} is missing")]
    ItemMissing { title: String, name: String },
    #[error("item '{title}': its file {name} is not the one that was written (changed, swapped or put back)")]
    ItemForged { title: String, name: String },
    #[error("{name}: {cause}")]
    Key { name: String, cause: KeyError },
    #[error("{0} is missing")]
    Missing(String),
    #[error("the vault is older than its log: change {found} where the log has seen change {remembered}")]
    RolledBack { found: u64, remembered: u64 },
    #[error("{} was moved or replaced while it was in use", .0.display())]
    Moved(PathBuf),
    #[error("there is an item '{0}' already")]
    Taken(String),
    #[error("the vault is being encrypted anew; try again in a moment")]
    Frozen,
    #[error("{} holds {found} changes; keyloan leaves at most {} there", .path.display(), index::JOURNAL_FILES)]
    Journal { path: PathBuf, found: usize },
    #[error("the vault was changed meanwhile; try again")]
    Changed,
    #[error("the backup: {0}")]
    Backup(&'static str),
    #[error("the backup's file: {0}")]
    BackupFile(std::io::Error),
    #[error("{0}")]
    Identity(identity::IdentityError),
    #[error("no random numbers from the system")]
    Random,
}

struct Files {
    root: Directory,
    identity: Directory,
    items: Directory,
    journal: Directory,
    _lock: DirectoryLock,
}

struct Open {
    keys: Keys,
    index: Index,
    /// The key of the audit log's chain.
    audit: Option<Slot>,
}

/// Titles of what keyloan seals for itself.
pub(crate) const POLICY: &str = "policy";
pub(crate) const PIN: &str = "pin";
pub(crate) const TRUST: &str = "trust";
pub(crate) const HOSTS: &str = "hosts";
pub(crate) const PHRASE: &str = "phrase";
pub(crate) const VAULTS: &str = "vaults";
const AUDIT_KEY: &str = "audit-key";

/// The identity wrapped by the passphrase.
const PASSPHRASE: &str = "passphrase.age";

pub(crate) struct LocalVault {
    path: PathBuf,
    files: Option<Files>,
    open: Option<Open>,
    /// All of it is being encrypted anew: what was written meanwhile would be lost.
    frozen: bool,
}

/// What a new revision of an item is to hold.
#[derive(Clone, Copy)]
struct Revision<'a> {
    kind: Kind,
    title: &'a str,
    expires: Option<&'a str>,
    fields: &'a [Field],
    now: &'a str,
}

impl Revision<'_> {
    /// The item's file and the index's entry for it.
    fn sealed(
        &self,
        keys: &Keys,
        revision: u64,
        before: Vec<String>,
    ) -> Result<(Vec<u8>, Entry), VaultError> {
        let title = || self.title.to_owned();
        let text = item_file::encode(self.title, self.expires, self.fields)
            .map_err(|cause| VaultError::ItemForm { title: title(), cause })?;
        let bytes = keys.encrypt(&text).map_err(|cause| VaultError::Key { name: title(), cause })?;
        let entry = Entry {
            kind: self.kind,
            title: title(),
            revision,
            sha256: FileHash::of(&bytes),
            fields: self.fields.iter().map(describe).collect(),
            changed: self.now.to_owned(),
            expires: self.expires.map(str::to_owned),
            before,
        };
        Ok((bytes, entry))
    }
}

/// What the log remembers of the vault, to notice one that was put back.
#[derive(Clone, Copy)]
pub(crate) struct Remembered {
    pub(crate) counter: u64,
    pub(crate) accept_older: bool,
}

impl LocalVault {
    pub(crate) fn at(path: &Path) -> Self {
        Self { path: path.to_owned(), files: None, open: None, frozen: false }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn state(&mut self) -> VaultState {
        if matches!(self.attach(), Err(VaultError::Absent(_))) {
            return VaultState::Absent;
        }
        if self.open.is_some() { VaultState::Unlocked } else { VaultState::Locked }
    }

    /// Takes the vault's directory for this process, where there is one.
    fn attach(&mut self) -> Result<&Files, VaultError> {
        if self.files.as_ref().is_some_and(|files| !files.root.is_in_place()) {
            self.lock();
            self.files = None;
        }
        if self.files.is_none() {
            let root = Directory::open(&self.path).map_err(|error| {
                if error.is_absent() { VaultError::Absent(self.path.clone()) } else { error.into() }
            })?;
            self.files = Some(Files::within(root)?);
        }
        self.files.as_ref().ok_or_else(|| VaultError::Absent(self.path.clone()))
    }

    /// The identity wrapped by the passphrase, to be unwrapped off the event loop.
    pub(crate) fn wrapped_identity(&mut self) -> Result<Vec<u8>, VaultError> {
        let bytes = self.attach()?.identity.read(PASSPHRASE, identity::MOST)?;
        bytes.ok_or_else(|| VaultError::Missing("identity/passphrase.age".to_owned()))
    }

    /// Opens the vault: the snapshot, then every change since, each checked.
    pub(crate) fn unlock(&mut self, keys: Keys, remembered: Remembered) -> Result<(), VaultError> {
        let files = self.attach()?;
        let records = Records::read(&files.root, &files.journal)?;
        let (index, idle) = records.index(&keys)?;
        for name in idle {
            // Left by a crash: not yet a record, or one that the snapshot already holds.
            files.journal.remove(name)?;
        }
        let found = index.counter();
        if found < remembered.counter && !remembered.accept_older {
            return Err(VaultError::RolledBack { found, remembered: remembered.counter });
        }
        // What no index stands for is the rest of an interrupted change. Where the log cannot vouch that
        // this index is the latest, nothing is removed: it may be a newer one's.
        if remembered.counter > 0 && found >= remembered.counter {
            let known: std::collections::HashSet<String> = index.files().collect();
            for name in files.items.names()? {
                if !known.contains(&name) {
                    files.items.remove(&name)?;
                }
            }
        }
        self.open = Some(Open { keys, index, audit: None });
        if let Err(error) = self.load_audit_key() {
            self.lock();
            return Err(error);
        }
        // A full disk must not keep people from their credentials; the journal stays as it is then, and so does
        // what an interrupted change of the whole vault left.
        let _ = self.fold();
        let _ = making::clear(&self.path);
        Ok(())
    }

    fn load_audit_key(&mut self) -> Result<(), VaultError> {
        let missing = || VaultError::Missing(format!("the sealed {AUDIT_KEY}"));
        let key = self.sealed(AUDIT_KEY)?.ok_or_else(missing)?;
        let open = self.open.as_mut().ok_or(VaultError::Locked)?;
        let pages = |cause| VaultError::Key { name: AUDIT_KEY.to_owned(), cause: KeyError::Pages(cause) };
        open.audit = Some(open.keys.store(key.expose()).map_err(pages)?);
        Ok(())
    }

    /// The key of the audit log's chain, while the vault is open.
    pub(crate) fn audit_key(&self) -> Option<&[u8]> {
        let open = self.open.as_ref()?;
        Some(open.keys.expose(open.audit?))
    }

    /// Forgets the keys; dropping them wipes their pages.
    pub(crate) fn lock(&mut self) {
        self.open = None;
    }

    pub(crate) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    pub(crate) fn keys(&self) -> Result<&Keys, VaultError> {
        Ok(&self.open.as_ref().ok_or(VaultError::Locked)?.keys)
    }

    pub(crate) fn index(&self) -> Result<&Index, VaultError> {
        Ok(&self.open.as_ref().ok_or(VaultError::Locked)?.index)
    }

    /// The counter of changes, 0 while it is not known.
    pub(crate) fn counter(&self) -> u64 {
        self.open.as_ref().map_or(0, |open| open.index.counter())
    }

    fn parts(&mut self) -> Result<(&Files, &mut Open), VaultError> {
        if self.frozen {
            return Err(VaultError::Frozen);
        }
        let open = self.open.as_mut().ok_or(VaultError::Locked)?;
        let files = self.files.as_ref().ok_or_else(|| VaultError::Absent(self.path.clone()))?;
        if files.root.is_in_place() { Ok((files, open)) } else { Err(VaultError::Moved(self.path.clone())) }
    }

    /// Fails where nothing can be written now, so that nothing is recorded that will not be.
    pub(crate) fn check_writable(&mut self) -> Result<(), VaultError> {
        let (_, open) = self.parts()?;
        // A journal longer than that would not be read again.
        if open.index.pending >= index::JOURNAL_FILES { self.fold() } else { Ok(()) }
    }

    /// Reads an item's fields; `None` when there is no such item.
    pub(crate) fn read(&self, kind: Kind, title: &str) -> Result<Option<Vec<Field>>, VaultError> {
        let open = self.open.as_ref().ok_or(VaultError::Locked)?;
        let files = self.files.as_ref().ok_or_else(|| VaultError::Absent(self.path.clone()))?;
        let Some((id, entry)) = open.index.find(kind, title) else { return Ok(None) };
        let name = index::file_name(id, entry.revision);
        let bytes = files.checked(&name, entry)?;
        let text = open.keys.decrypt(&bytes).map_err(|cause| VaultError::Key { name, cause })?;
        let form = |cause| VaultError::ItemForm { title: title.to_owned(), cause };
        let item = item_file::decode(&text).map_err(form)?;
        if item.title != title {
            return Err(VaultError::ItemForged {
                title: title.to_owned(),
                name: index::file_name(id, entry.revision),
            });
        }
        Ok(Some(item.fields))
    }

    /// Writes an item whole: a new revision, then the record that makes it the item, then the old
    /// revision goes.
    pub(crate) fn write(
        &mut self,
        kind: Kind,
        title: &str,
        fields: &[Field],
        now: &str,
        anchor: Option<Anchor>,
    ) -> Result<(), VaultError> {
        let old = self.index()?.find(kind, title).map(|(id, entry)| (id.to_owned(), entry.clone()));
        let expires = old.as_ref().and_then(|(_, entry)| entry.expires.clone());
        self.put(old, Revision { kind, title, expires: expires.as_deref(), fields, now }, anchor)
    }

    fn put(
        &mut self,
        old: Option<(String, Entry)>,
        new: Revision<'_>,
        anchor: Option<Anchor>,
    ) -> Result<(), VaultError> {
        self.check_writable()?;
        let (files, open) = self.parts()?;
        let (id, mut revision) = match &old {
            Some((id, entry)) => (id.clone(), entry.revision + 1),
            None => (fresh_id()?, 1),
        };
        // A file of an interrupted change may hold the name; no revision is ever overwritten.
        while files.items.holds(&index::file_name(&id, revision)) {
            revision += 1;
        }
        let before = old.as_ref().map(|(_, entry)| entry.history()).unwrap_or_default();
        let (bytes, entry) = new.sealed(&open.keys, revision, before)?;
        let name = index::file_name(&id, revision);
        files.items.create(&name, &bytes)?;
        files.items.sync()?;
        self.record(Change::Put { id, entry }, anchor, Some(&name))?;
        if let Some((id, entry)) = old {
            self.forget_file(&index::file_name(&id, entry.revision));
        }
        Ok(())
    }

    /// Removes a file that no record stands for any more. The change stands already: where this fails, the
    /// next unlock clears the file away.
    fn forget_file(&self, name: &str) {
        if let Some(files) = &self.files {
            let _ = files.items.remove(name);
        }
    }

    /// Removes an item; false when there was none.
    pub(crate) fn remove(&mut self, title: &str, anchor: Option<Anchor>) -> Result<bool, VaultError> {
        let Some((id, name)) = self
            .index()?
            .find(Kind::Item, title)
            .map(|(id, entry)| (id.to_owned(), index::file_name(id, entry.revision)))
        else {
            return Ok(false);
        };
        self.record(Change::Remove { id }, anchor, None)?;
        self.forget_file(&name);
        Ok(true)
    }

    /// Gives an item another title. Its file is written anew, since the title stands in it too.
    pub(crate) fn rename(
        &mut self,
        from: &str,
        to: &str,
        now: &str,
        anchor: Option<Anchor>,
    ) -> Result<bool, VaultError> {
        if self.index()?.find(Kind::Item, to).is_some() {
            return Err(VaultError::Taken(to.to_owned()));
        }
        self.rewrite(from, now, anchor, |entry| (to.to_owned(), entry.expires.clone()))
    }

    /// Sets or removes the day from which an item is of no use.
    pub(crate) fn set_expiry(
        &mut self,
        title: &str,
        expires: Option<&str>,
        now: &str,
        anchor: Option<Anchor>,
    ) -> Result<bool, VaultError> {
        self.rewrite(title, now, anchor, |entry| (entry.title.clone(), expires.map(str::to_owned)))
    }

    /// Writes an item with another title or expiry and the same fields; false when there is none.
    fn rewrite(
        &mut self,
        title: &str,
        now: &str,
        anchor: Option<Anchor>,
        change: impl FnOnce(&Entry) -> (String, Option<String>),
    ) -> Result<bool, VaultError> {
        let Some(fields) = self.read(Kind::Item, title)? else { return Ok(false) };
        let old = self.index()?.find(Kind::Item, title).map(|(id, entry)| (id.to_owned(), entry.clone()));
        let Some((title, expires)) = old.as_ref().map(|(_, entry)| change(entry)) else { return Ok(false) };
        let kind = Kind::Item;
        let new = Revision { kind, title: &title, expires: expires.as_deref(), fields: &fields, now };
        self.put(old, new, anchor)?;
        Ok(true)
    }

    /// A document that keyloan seals for itself: policy, PIN verifier, trust list, audit key.
    pub(crate) fn sealed(&self, title: &str) -> Result<Option<SecretBytes>, VaultError> {
        let fields = self.read(Kind::Sealed, title)?;
        Ok(fields.and_then(|fields| fields.into_iter().next()).map(|field| field.value))
    }

    pub(crate) fn seal(&mut self, title: &str, value: SecretBytes, now: &str) -> Result<(), VaultError> {
        // "content" is a name like any other.
        let Ok(name) = FieldName::parse("content") else { return Err(VaultError::Random) };
        self.write(Kind::Sealed, title, &[Field { name, public: false, value }], now, None)
    }

    /// Writes down where the audit log ends.
    pub(crate) fn anchor(&mut self, anchor: Anchor) -> Result<(), VaultError> {
        self.record(Change::Anchor(anchor), None, None)
    }

    pub(crate) fn replace_wrapped_identity(&mut self, wrapped: &[u8]) -> Result<(), VaultError> {
        Ok(self.parts()?.0.identity.replace(PASSPHRASE, wrapped)?)
    }

    /// Adds a recipient, or with `replacing` gives one of that name another key.
    pub(crate) fn add_recipient(
        &mut self,
        name: &PlainName,
        recipient: &str,
        wrapped: &[u8],
        replacing: bool,
    ) -> Result<(), VaultError> {
        let file = format!("{name}.age");
        let (files, _) = self.parts()?;
        let before = files.identity.read(&file, identity::MOST)?;
        if before.is_some() && !replacing {
            return Err(VaultError::Exists(files.identity.path().join(file)));
        }
        let replaced = files.identity.replace(&file, wrapped);
        let change = Change::AddRecipient { name: name.to_string(), recipient: recipient.to_owned() };
        let recorded = replaced.map_err(VaultError::from).and_then(|()| self.record(change, None, None));
        if recorded.is_err()
            && let Some(files) = &self.files
        {
            // Whoever is told that it failed must not find that it opened the vault all the same.
            match before {
                Some(before) => files.identity.replace(&file, &before)?,
                None => files.identity.remove(&file).and_then(|()| files.identity.sync())?,
            }
        }
        recorded
    }

    /// Removes a recipient; false when there was none, neither in the index nor as a file.
    pub(crate) fn remove_recipient(&mut self, name: &PlainName) -> Result<bool, VaultError> {
        let file = format!("{name}.age");
        self.check_writable()?;
        let (files, open) = self.parts()?;
        let listed = open.index.recipients().contains_key(name.as_str());
        if file == PASSPHRASE || !(listed || files.identity.holds(&file)) {
            return Ok(false);
        }
        files.identity.remove(&file)?;
        files.identity.sync()?;
        if listed {
            self.record(Change::RemoveRecipient { name: name.to_string() }, None, None)?;
        }
        Ok(true)
    }

    /// Identity files that the index does not know: an interrupted change, or somebody else's.
    pub(crate) fn unlisted_recipients(&self) -> Vec<String> {
        let (Some(open), Some(files)) = (&self.open, &self.files) else { return Vec::new() };
        let names = files.identity.names().unwrap_or_default();
        let known = |name: &str| {
            let recipient = name.strip_suffix(".age").unwrap_or_default();
            name == PASSPHRASE || is_temporary(name) || open.index.recipients().contains_key(recipient)
        };
        names.into_iter().filter(|name| !known(name)).collect()
    }

    /// The identity as it is wrapped for a recipient.
    pub(crate) fn wrapped_for(&mut self, name: &str) -> Result<Option<Vec<u8>>, VaultError> {
        Ok(self.attach()?.identity.read(&format!("{name}.age"), identity::MOST)?)
    }

    /// Commits a change. Where that fails, `fresh` (the item file it was for) goes again; where even that
    /// is uncertain the vault locks, and the next unlock reads what the disk holds.
    fn record(
        &mut self,
        change: Change,
        anchor: Option<Anchor>,
        fresh: Option<&str>,
    ) -> Result<(), VaultError> {
        self.check_writable()?;
        let (files, open) = self.parts()?;
        let prepared = open.index.prepare(&open.keys, change, anchor)?;
        if let Err(error) = files.journal.replace(&prepared.name, &prepared.bytes) {
            let undone = files.journal.remove(&prepared.name).and_then(|()| files.journal.sync());
            match (undone, fresh) {
                (Ok(()), Some(fresh)) => files.items.remove(fresh)?,
                (Ok(()), None) => {}
                (Err(_), _) => self.lock(),
            }
            return Err(error.into());
        }
        open.index.commit(prepared);
        if open.index.pending >= index::JOURNAL {
            // The change stands already; a fold that fails now is tried again at the next.
            let _ = self.fold();
        }
        Ok(())
    }

    fn fold(&mut self) -> Result<(), VaultError> {
        let (files, open) = self.parts()?;
        if open.index.pending == 0 {
            return Ok(());
        }
        let (before, pending) = (open.index.counter(), open.index.pending);
        files.root.replace("index.age", &open.index.snapshot(&open.keys)?)?;
        for counter in (before + 1).saturating_sub(pending as u64)..=before {
            files.journal.remove(&index::journal_name(counter))?;
        }
        open.index.pending = 0;
        Ok(())
    }
}

impl Files {
    fn within(root: Directory) -> Result<Self, VaultError> {
        let lock = root.lock()?;
        Ok(Self {
            identity: root.child("identity")?,
            items: root.child("items")?,
            journal: root.child("journal")?,
            root,
            _lock: lock,
        })
    }

    /// An item's file, if it is the one that was written.
    pub(super) fn checked(&self, name: &str, entry: &Entry) -> Result<Vec<u8>, VaultError> {
        Self::checked_in(&self.items, name, entry)
    }

    pub(super) fn checked_in(items: &Directory, name: &str, entry: &Entry) -> Result<Vec<u8>, VaultError> {
        let title = || entry.title.clone();
        let bytes = items
            .read(name, item_file::MOST)?
            .ok_or_else(|| VaultError::ItemMissing { title: title(), name: name.to_owned() })?;
        if FileHash::of(&bytes) == entry.sha256 {
            Ok(bytes)
        } else {
            Err(VaultError::ItemForged { title: title(), name: name.to_owned() })
        }
    }
}

/// What the index says of a field.
fn describe(field: &Field) -> EntryField {
    let is_vars = field.name.as_str() == "vars";
    let parsed = is_vars.then(|| env_vars::parse_vars(field.value.expose()));
    let (variables, fault) = match parsed {
        Some(Ok(variables)) => (variables.into_iter().map(|(name, _)| name).collect(), None),
        Some(Err(error)) => (Vec::new(), Some(error.to_string())),
        None => (Vec::new(), None),
    };
    let text = str::from_utf8(field.value.expose()).ok();
    EntryField {
        name: field.name.clone(),
        length: field.value.len(),
        public: field.public,
        value: text.filter(|text| field.public && text.len() <= 4096).map(str::to_owned),
        variables,
        fault,
    }
}

fn is_temporary(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|extension| extension == "new")
}

fn fresh_id() -> Result<String, VaultError> {
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(|_| VaultError::Random)?;
    Ok(HEXLOWER.encode(&id))
}
