//! Another copy of this vault, changed on another machine, brought together with this one. Nothing of either is
//! lost: what only one side changed is taken, what both changed is kept twice and told. A copy that is merely
//! older brings nothing back, and what keyloan seals for itself (policy, PIN, trust) is never taken.

use super::index::{Anchor, Change, Entry, Index, Kind, file_name, journal_name};
use super::{Files, LocalVault, Revision, VaultError, index, is_temporary, item_file};
use keyloan_platform::private_file::Directory;
use std::path::Path;

/// What a merge would do, by titles.
#[derive(Default)]
pub(crate) struct Merge {
    steps: Vec<Step>,
    pub(crate) added: Vec<String>,
    pub(crate) updated: Vec<String>,
    /// Changed on both sides: the title here, and the one that the other's is to get.
    pub(crate) conflicts: Vec<(String, String)>,
    /// Removed here and changed there, or the reverse; they are kept.
    pub(crate) kept: Vec<String>,
}

struct Step {
    id: String,
    theirs: Entry,
    /// The ciphertext as it lies there, checked against their index.
    bytes: Vec<u8>,
    what: What,
}

enum What {
    /// Their file becomes ours as it is.
    Take,
    /// Their item becomes a further one of this title.
    KeepBoth(String),
}

impl Merge {
    pub(crate) fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }
}

impl LocalVault {
    /// Compares another copy with this vault and changes nothing.
    pub(crate) fn compare(&self, other: &Path, day: &str) -> Result<Merge, VaultError> {
        let open = self.open.as_ref().ok_or(VaultError::Locked)?;
        let ours = &open.index;
        let root = Directory::open(other)?;
        let snapshot = root
            .read("index.age", index::MOST)?
            .ok_or_else(|| VaultError::Missing(format!("{}/index.age", other.display())))?;
        let mut theirs = Index::open(&open.keys, &snapshot)?;
        let journal = root.child("journal")?;
        let folded = theirs.counter();
        for name in journal.names()? {
            if !is_temporary(&name) && name > journal_name(folded) {
                let bytes = journal.read(&name, item_file::MOST)?.unwrap_or_default();
                theirs.follow(&open.keys, &name, &bytes)?;
            }
        }
        let items = root.child("items")?;
        let mut merge = Merge::default();
        for (id, entry) in theirs.all().filter(|(_, entry)| entry.kind == Kind::Item) {
            let here = ours.entry(id);
            if here.is_some_and(|here| here.sha256 == entry.sha256 || entry.is_before(here)) {
                continue;
            }
            if here.is_none() && ours.removed(id, entry) {
                continue;
            }
            let title_is_taken = ours.find(Kind::Item, &entry.title).is_some_and(|(held, _)| held != id);
            let what = if title_is_taken || here.is_some_and(|here| !here.is_before(entry)) {
                What::KeepBoth(free_title(ours, &merge, &entry.title, day))
            } else {
                What::Take
            };
            match (&what, here) {
                (What::KeepBoth(title), _) => merge.conflicts.push((entry.title.clone(), title.clone())),
                (What::Take, Some(_)) => merge.updated.push(entry.title.clone()),
                (What::Take, None) if ours.was_removed(id) => merge.kept.push(entry.title.clone()),
                (What::Take, None) => merge.added.push(entry.title.clone()),
            }
            let bytes = Files::checked_in(&items, &file_name(id, entry.revision), entry)?;
            merge.steps.push(Step { id: id.clone(), theirs: entry.clone(), bytes, what });
        }
        let gone_there =
            |(id, entry): &(&String, &Entry)| theirs.was_removed(id) && !theirs.removed(id, entry);
        let kept = ours.all().filter(|(_, entry)| entry.kind == Kind::Item).filter(gone_there);
        merge.kept.extend(kept.map(|(_, entry)| entry.title.clone()));
        Ok(merge)
    }

    /// Does what [`Self::compare`] found, an item at a time: an interruption leaves some items merged, and the
    /// next merge does the rest.
    pub(crate) fn merge(&mut self, merge: Merge, now: &str, anchor: &Anchor) -> Result<(), VaultError> {
        for step in merge.steps {
            let anchor = Some(anchor.clone());
            match step.what {
                What::Take => self.take(&step.id, step.theirs, &step.bytes, anchor)?,
                What::KeepBoth(title) => {
                    let name = || step.theirs.title.clone();
                    let cause = |cause| VaultError::Key { name: name(), cause };
                    let text = self.keys()?.decrypt(&step.bytes).map_err(cause)?;
                    let form = |cause| VaultError::ItemForm { title: name(), cause };
                    let item = item_file::decode(&text).map_err(form)?;
                    let expires = item.expires.as_deref();
                    let new =
                        Revision { kind: Kind::Item, title: &title, expires, fields: &item.fields, now };
                    self.put(None, new, anchor.clone())?;
                    let revision = index::short(&step.theirs.sha256);
                    self.record(Change::Seen { id: step.id, revision }, anchor, None)?;
                }
            }
        }
        Ok(())
    }

    fn take(
        &mut self,
        id: &str,
        mut entry: Entry,
        bytes: &[u8],
        anchor: Option<Anchor>,
    ) -> Result<(), VaultError> {
        let (files, open) = self.parts()?;
        let old = open.index.entry(id).map(|old| old.revision);
        while files.items.holds(&file_name(id, entry.revision)) {
            entry.revision += 1;
        }
        let name = file_name(id, entry.revision);
        files.items.create(&name, bytes)?;
        files.items.sync()?;
        self.record(Change::Put { id: id.to_owned(), entry }, anchor, Some(&name))?;
        if let Some(old) = old {
            self.forget_file(&file_name(id, old));
        }
        Ok(())
    }
}

/// A title that neither side has: `pypi (merged 2026-11-21)`, and so on.
fn free_title(ours: &Index, merge: &Merge, title: &str, day: &str) -> String {
    let taken = |wanted: &str| {
        ours.find(Kind::Item, wanted).is_some() || merge.conflicts.iter().any(|(_, given)| given == wanted)
    };
    let first = format!("{title} (merged {day})");
    let more = (2..).map(|number: u32| format!("{title} (merged {day}, {number})"));
    std::iter::once(first).chain(more).find(|wanted| !taken(wanted)).unwrap_or_default()
}
