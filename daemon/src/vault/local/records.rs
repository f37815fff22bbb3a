//! The index as it lies on disk: a snapshot and the records since, read without any key.

use super::index::{self, Index, IndexError, JOURNAL_FILES, is_journal_name, journal_name};
use super::keys::Keys;
use super::{VaultError, is_temporary, item_file};
use keyloan_platform::private_file::Directory;

pub(super) struct Records {
    snapshot: Vec<u8>,
    /// By name, in order.
    journal: Vec<(String, Vec<u8>)>,
    /// What interrupted writes left beside the journal's files.
    unfinished: Vec<String>,
}

impl Records {
    /// Each file of the journal may have megabytes, and who can write to the directory may put any number there, or
    /// hand over another copy to be merged; so more than keyloan ever leaves are not read.
    pub(super) fn read(root: &Directory, journal: &Directory) -> Result<Self, VaultError> {
        let names = journal.names()?;
        let unfinished = names.iter().filter(|name| is_temporary(name)).cloned().collect();
        let names: Vec<String> = names.into_iter().filter(|name| is_journal_name(name)).collect();
        if names.len() > JOURNAL_FILES {
            return Err(VaultError::Journal { path: journal.path().to_owned(), found: names.len() });
        }
        let snapshot = root.read("index.age", index::MOST)?;
        let missing = || VaultError::Missing(root.path().join("index.age").display().to_string());
        let snapshot = snapshot.ok_or_else(missing)?;
        let mut records = Self { snapshot, journal: Vec::with_capacity(names.len()), unfinished };
        for name in names {
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
        let mut idle: Vec<&str> = self.unfinished.iter().map(String::as_str).collect();
        for (name, bytes) in &self.journal {
            if *name <= folded {
                idle.push(name.as_str());
            } else {
                index.follow(keys, name, bytes)?;
            }
        }
        Ok((index, idle))
    }
}
