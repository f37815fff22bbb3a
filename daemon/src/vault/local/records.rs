//! The index as it lies on disk: a snapshot and the records since, read without any key.

use super::index::{self, Index, IndexError, journal_name};
use super::keys::Keys;
use super::{VaultError, is_temporary, item_file};
use keyloan_platform::private_file::Directory;

pub(super) struct Records {
    snapshot: Vec<u8>,
    /// By name, in order.
    journal: Vec<(String, Vec<u8>)>,
}

impl Records {
    pub(super) fn read(root: &Directory, journal: &Directory) -> Result<Self, VaultError> {
        let snapshot = root.read("index.age", index::MOST)?;
        let missing = || VaultError::Missing(root.path().join("index.age").display().to_string());
        let mut records = Self { snapshot: snapshot.ok_or_else(missing)?, journal: Vec::new() };
        for name in journal.names()? {
            let bytes = journal.read(&name, item_file::MOST)?.unwrap_or_default();
            records.journal.push((name, bytes));
        }
        Ok(records)
    }

    /// The index, every record of it checked, and the names of journal files that it does not need: they hold no
    /// record yet, or one that the snapshot has already.
    pub(super) fn index(&self, keys: &Keys) -> Result<(Index, Vec<&str>), IndexError> {
        let mut index = Index::open(keys, &self.snapshot)?;
        let folded = journal_name(index.counter());
        let mut idle = Vec::new();
        for (name, bytes) in &self.journal {
            if is_temporary(name) || *name <= folded {
                idle.push(name.as_str());
            } else {
                index.follow(keys, name, bytes)?;
            }
        }
        Ok((index, idle))
    }
}
