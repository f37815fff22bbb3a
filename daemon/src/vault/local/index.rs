//! What the vault knows without opening an item: names, public fields, the hash of each item's file, and
//! a counter that only rises. Kept as a snapshot and at most [`JOURNAL`] changes since, each chained to
//! the change before by its MAC, so that a record cannot be forged, swapped, left out or put back.

use super::keys::{Digest, KeyError, Keys};
use data_encoding::HEXLOWER;
use keyloan_protocol::names::{FieldName, ItemName, VarName};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, HashMap};
use subtle::ConstantTimeEq;

/// Changes kept beside the snapshot before they are folded into it.
pub(crate) const JOURNAL: usize = 64;

/// The most files of changes that lie there at once: a fold that fails is tried again at each further change, and
/// after a crash in the middle of one its files are there beside those of later changes.
pub(crate) const JOURNAL_FILES: usize = 2 * JOURNAL;

/// The longest snapshot: some hundred thousand items.
pub(crate) const MOST: usize = 256 * 1024 * 1024;

const SNAPSHOT: &str = "keyloan-index 1";
const CHANGE: &str = "keyloan-change 1";

#[derive(Debug, thiserror::Error)]
pub(crate) enum IndexError {
    #[error("{0} was not written by the holder of this vault's key")]
    Forged(String),
    #[error("{0} does not have the form of an index")]
    Form(String),
    #[error("{0} does not follow the record before it: one was removed, swapped or put back")]
    Order(String),
    #[error("another item has the title '{0}'")]
    Title(String),
    #[error("the title '{0}' would pass for the name of another vault's item")]
    Elsewhere(String),
    #[error("{name}: {cause}")]
    Key { name: String, cause: KeyError },
}

/// Two kinds of content: what people keep, and what keyloan seals for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    Item,
    Sealed,
}

/// A SHA-256, in hexadecimal where it is written down: a third as large in memory, ten thousand times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct FileHash(Digest);

impl FileHash {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Enough of it to tell revisions of one item apart.
    pub(crate) fn short(self) -> String {
        HEXLOWER.encode(&self.0[..6])
    }
}

impl TryFrom<String> for FileHash {
    type Error = &'static str;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        let bytes = HEXLOWER.decode(text.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or("no SHA-256 in hexadecimal")
    }
}

impl From<FileHash> for String {
    fn from(hash: FileHash) -> Self {
        HEXLOWER.encode(&hash.0)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) kind: Kind,
    pub(crate) title: String,
    pub(crate) revision: u64,
    /// SHA-256 of the item's file as it lies on disk.
    pub(crate) sha256: FileHash,
    /// No vector: read from JSON, one of a single field would keep room for four, ten thousand times.
    pub(crate) fields: Box<[EntryField]>,
    /// RFC 3339.
    pub(crate) changed: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) expires: Option<String>,
    /// The beginnings of the hashes of earlier revisions, the latest last: what tells, when two copies of a vault
    /// are merged, whether one's revision came before the other's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) before: Vec<String>,
}

/// Earlier revisions remembered of an item.
const BEFORE: usize = 256;

impl Entry {
    /// The revisions before one that follows this.
    pub(crate) fn history(&self) -> Vec<String> {
        let mut before = self.before.clone();
        before.push(self.sha256.short());
        before.split_off(before.len().saturating_sub(BEFORE))
    }

    /// Whether this came before another revision of the same item, as far as that remembers.
    pub(crate) fn is_before(&self, other: &Self) -> bool {
        other.before.contains(&self.sha256.short())
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EntryField {
    pub(crate) name: FieldName,
    pub(crate) length: usize,
    pub(crate) public: bool,
    /// The value of a public field that is text.
    pub(crate) value: Option<String>,
    /// The names in a `vars` field, so that a question can show them before the value is read.
    #[serde(default)]
    pub(crate) variables: Vec<VarName>,
    /// Why a `vars` field cannot be lent.
    #[serde(default)]
    pub(crate) fault: Option<String>,
}

/// The audit log's head as the vault remembers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Anchor {
    pub(crate) sequence: u64,
    pub(crate) chain: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Change {
    Put {
        id: String,
        entry: Entry,
    },
    Remove {
        id: String,
    },
    /// A revision of another copy that was kept as an item of its own; it is not taken a second time.
    Seen {
        id: String,
        revision: String,
    },
    AddRecipient {
        name: String,
        recipient: String,
    },
    RemoveRecipient {
        name: String,
    },
    Anchor(Anchor),
}

#[derive(Serialize, Deserialize)]
struct Record {
    counter: u64,
    /// The MAC of the change before this one, hexadecimal.
    previous: String,
    change: Change,
    anchor: Option<Anchor>,
}

#[derive(Default, Clone, Serialize, Deserialize)]
struct Snapshot {
    counter: u64,
    /// The MAC of the last change folded in, hexadecimal; the next one names it.
    last: String,
    entries: BTreeMap<String, Entry>,
    recipients: BTreeMap<String, String>,
    anchor: Option<Anchor>,
    /// Items that were removed, and what they were then: a copy of the vault that still has them does not bring
    /// them back.
    #[serde(default)]
    removed: BTreeMap<String, Vec<String>>,
}

/// The index in memory.
#[derive(Clone)]
pub(crate) struct Index {
    content: Snapshot,
    titles: HashMap<(Kind, String), String>,
    /// Changes whose files are in the journal.
    pub(crate) pending: usize,
}

impl Index {
    pub(crate) fn empty() -> Self {
        Self { content: Snapshot::default(), titles: HashMap::new(), pending: 0 }
    }

    pub(crate) fn open(keys: &Keys, bytes: &[u8]) -> Result<Self, IndexError> {
        let (content, _): (Snapshot, _) = unseal(keys, SNAPSHOT, "index.age", bytes)?;
        let titles = content
            .entries
            .iter()
            .map(|(id, entry)| ((entry.kind, entry.title.clone()), id.clone()))
            .collect();
        Ok(Self { content, titles, pending: 0 })
    }

    /// Everything as one snapshot. Once it is on disk the changes beside it are of no use; until their
    /// files are gone they are passed over by their counter.
    pub(crate) fn snapshot(&self, keys: &Keys) -> Result<Vec<u8>, IndexError> {
        Ok(seal(keys, SNAPSHOT, "index.age", &self.content)?.0)
    }

    /// The same content, one change further: what a vault in the making begins with.
    pub(crate) fn one_further(&self) -> Self {
        let mut content = self.content.clone();
        content.counter += 1;
        Self { content, titles: self.titles.clone(), pending: 0 }
    }

    /// Puts an entry in without a record: for a vault in the making.
    pub(crate) fn place(&mut self, id: String, entry: Entry) {
        self.titles.insert((entry.kind, entry.title.clone()), id.clone());
        self.content.entries.insert(id, entry);
    }

    /// The bytes of the record of a change, and what makes it so once they are on disk.
    pub(crate) fn prepare(
        &self,
        keys: &Keys,
        change: Change,
        anchor: Option<Anchor>,
    ) -> Result<Prepared, IndexError> {
        if let Change::Put { id, entry } = &change
            && self.find(entry.kind, &entry.title).is_some_and(|(held, _)| held != id)
        {
            // The one of the two that is not found by its title could never be read or removed again.
            return Err(IndexError::Title(entry.title.clone()));
        }
        if let Change::Put { entry: Entry { kind: Kind::Item, title, .. }, .. } = &change
            && ItemName::local(title).is_err()
        {
            return Err(IndexError::Elsewhere(title.clone()));
        }
        let counter = self.content.counter + 1;
        let record = Record { counter, previous: self.content.last.clone(), change, anchor };
        let (bytes, mac) = seal(keys, CHANGE, &journal_name(counter), &record)?;
        Ok(Prepared { bytes, name: journal_name(counter), record, mac })
    }

    pub(crate) fn commit(&mut self, prepared: Prepared) {
        self.apply(prepared.record, prepared.mac);
    }

    /// Reads the record that follows; refuses any other.
    pub(crate) fn follow(&mut self, keys: &Keys, name: &str, bytes: &[u8]) -> Result<(), IndexError> {
        let (record, mac): (Record, Digest) = unseal(keys, CHANGE, name, bytes)?;
        let expected = self.content.counter + 1;
        if record.counter != expected
            || journal_name(expected) != name
            || record.previous != self.content.last
        {
            return Err(IndexError::Order(format!("journal/{name}")));
        }
        self.apply(record, mac);
        Ok(())
    }

    fn apply(&mut self, record: Record, mac: Digest) {
        match record.change {
            Change::Put { id, entry } => {
                if let Some(old) = self.content.entries.get(&id) {
                    self.titles.remove(&(old.kind, old.title.clone()));
                }
                self.titles.insert((entry.kind, entry.title.clone()), id.clone());
                self.content.entries.insert(id, entry);
            }
            Change::Remove { id } => {
                if let Some(old) = self.content.entries.remove(&id) {
                    self.content.removed.insert(id, old.history());
                    self.titles.remove(&(old.kind, old.title));
                }
            }
            Change::Seen { id, revision } => match self.content.entries.get_mut(&id) {
                Some(entry) => entry.before.push(revision),
                None => self.content.removed.entry(id).or_default().push(revision),
            },
            Change::AddRecipient { name, recipient } => {
                self.content.recipients.insert(name, recipient);
            }
            Change::RemoveRecipient { name } => {
                self.content.recipients.remove(&name);
            }
            Change::Anchor(anchor) => self.content.anchor = Some(anchor),
        }
        if record.anchor.is_some() {
            self.content.anchor = record.anchor;
        }
        self.content.counter = record.counter;
        self.content.last = HEXLOWER.encode(&mac);
        self.pending += 1;
    }

    pub(crate) fn counter(&self) -> u64 {
        self.content.counter
    }

    pub(crate) fn anchor(&self) -> Option<&Anchor> {
        self.content.anchor.as_ref()
    }

    pub(crate) fn forget_anchor(&mut self) {
        self.content.anchor = None;
    }

    pub(crate) fn recipients(&self) -> &BTreeMap<String, String> {
        &self.content.recipients
    }

    /// Whether an item was removed here when it was as this entry has it, or after that.
    pub(crate) fn removed(&self, id: &str, entry: &Entry) -> bool {
        self.content.removed.get(id).is_some_and(|history| history.contains(&entry.sha256.short()))
    }

    /// Whether an item was here once and is not any more.
    pub(crate) fn was_removed(&self, id: &str) -> bool {
        self.content.removed.contains_key(id) && !self.content.entries.contains_key(id)
    }

    pub(crate) fn entry(&self, id: &str) -> Option<&Entry> {
        self.content.entries.get(id)
    }

    /// The entry that a file of this name belongs to.
    pub(crate) fn by_file(&self, name: &str) -> Option<&Entry> {
        let (id, rest) = name.split_once('.')?;
        self.entry(id).filter(|entry| rest == format!("{}.age", entry.revision))
    }

    /// Every entry with its id.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&String, &Entry)> {
        self.content.entries.iter()
    }

    pub(crate) fn find(&self, kind: Kind, title: &str) -> Option<(&str, &Entry)> {
        let id = self.titles.get(&(kind, title.to_owned()))?;
        self.content.entries.get(id).map(|entry| (id.as_str(), entry))
    }

    /// Every entry of a kind, by title.
    pub(crate) fn entries(&self, kind: Kind) -> Vec<&Entry> {
        let mut entries: Vec<&Entry> =
            self.content.entries.values().filter(|entry| entry.kind == kind).collect();
        entries.sort_unstable_by(|a, b| a.title.cmp(&b.title));
        entries
    }

    /// The names of the item files that this index stands for.
    pub(crate) fn files(&self) -> impl Iterator<Item = String> {
        self.content.entries.iter().map(|(id, entry)| file_name(id, entry.revision))
    }
}

pub(crate) struct Prepared {
    pub(crate) bytes: Vec<u8>,
    pub(crate) name: String,
    record: Record,
    mac: Digest,
}

pub(crate) fn file_name(id: &str, revision: u64) -> String {
    format!("{id}.{revision}.age")
}

pub(crate) fn journal_name(counter: u64) -> String {
    format!("{counter:020}.age")
}

/// Whether a file of the journal is one of a change: twenty digits, as [`journal_name`] writes them.
pub(crate) fn is_journal_name(name: &str) -> bool {
    let digits = name.strip_suffix(".age").unwrap_or_default();
    digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// Encrypts `TITLE MAC\nJSON`.
fn seal<T: Serialize>(
    keys: &Keys,
    title: &str,
    name: &str,
    content: &T,
) -> Result<(Vec<u8>, Digest), IndexError> {
    let body = serde_json::to_vec(content).map_err(|_| IndexError::Form(name.to_owned()))?;
    let mac = keys.mac(title.as_bytes(), &body);
    let mut text = format!("{title} {}\n", HEXLOWER.encode(&mac)).into_bytes();
    text.extend_from_slice(&body);
    let bytes = keys.encrypt(&text).map_err(|cause| IndexError::Key { name: name.to_owned(), cause })?;
    Ok((bytes, mac))
}

fn unseal<T: DeserializeOwned>(
    keys: &Keys,
    title: &str,
    name: &str,
    bytes: &[u8],
) -> Result<(T, Digest), IndexError> {
    let text = keys.decrypt(bytes).map_err(|cause| IndexError::Key { name: name.to_owned(), cause })?;
    let form = || IndexError::Form(name.to_owned());
    let end = text.iter().position(|byte| *byte == b'\n').ok_or_else(form)?;
    let (first, body) = (&text[..end], &text[end + 1..]);
    let written = first
        .strip_prefix(title.as_bytes())
        .and_then(|rest| rest.strip_prefix(b" "))
        .and_then(|mac| HEXLOWER.decode(mac).ok())
        .ok_or_else(form)?;
    let mac = keys.mac(title.as_bytes(), body);
    if !bool::from(mac.as_slice().ct_eq(&written)) {
        return Err(IndexError::Forged(name.to_owned()));
    }
    Ok((serde_json::from_slice(body).map_err(|_| form())?, mac))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(title: &str) -> Entry {
        Entry {
            kind: Kind::Item,
            title: title.to_owned(),
            revision: 1,
            sha256: FileHash::of(b""),
            fields: Box::default(),
            changed: String::new(),
            expires: None,
            before: Vec::new(),
        }
    }

    fn put(title: &str) -> Change {
        Change::Put { id: format!("id-{title}"), entry: entry(title) }
    }

    #[test]
    fn records_are_followed_in_their_order_and_no_other() {
        let keys = Keys::generate().unwrap();
        let mut index = Index::empty();
        let snapshot = index.snapshot(&keys).unwrap();
        let mut records = Vec::new();
        for title in ["a", "b", "c"] {
            let prepared = index.prepare(&keys, put(title), None).unwrap();
            records.push((prepared.name.clone(), prepared.bytes.clone()));
            index.commit(prepared);
        }
        let mut again = Index::open(&keys, &snapshot).unwrap();
        for (name, bytes) in &records {
            again.follow(&keys, name, bytes).unwrap();
        }
        assert_eq!((again.counter(), again.entries(Kind::Item).len()), (3, 3));

        let mut gap = Index::open(&keys, &snapshot).unwrap();
        gap.follow(&keys, &records[0].0, &records[0].1).unwrap();
        assert!(matches!(gap.follow(&keys, &records[2].0, &records[2].1), Err(IndexError::Order(_))));
        assert!(matches!(gap.follow(&keys, &records[1].0, &records[0].1), Err(IndexError::Order(_))));
    }

    #[test]
    fn a_title_that_would_pass_for_another_vaults_item_is_not_written_whoever_brings_it() {
        let keys = Keys::generate().unwrap();
        let refused = Index::empty().prepare(&keys, put("pass://web/pypi"), None);
        assert!(matches!(refused, Err(IndexError::Elsewhere(_))));
    }

    #[test]
    fn an_index_encrypted_to_the_vault_by_someone_else_is_forged() {
        let keys = Keys::generate().unwrap();
        let body = serde_json::to_vec(&Snapshot::default()).unwrap();
        let mut text = format!("{SNAPSHOT} {}\n", "00".repeat(32)).into_bytes();
        text.extend_from_slice(&body);
        // Anyone who knows the public half can encrypt; only the holder of the identity can write the MAC.
        let forged = keys.encrypt(&text).unwrap();
        assert!(matches!(Index::open(&keys, &forged), Err(IndexError::Forged(_))));
        let foreign = Index::empty().snapshot(&Keys::generate().unwrap()).unwrap();
        assert!(matches!(Index::open(&keys, &foreign), Err(IndexError::Key { .. })));
    }
}
