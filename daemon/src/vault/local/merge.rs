//! Another copy of this vault, changed on another machine, brought together with this one. Nothing of either is
//! lost: what only one side changed is taken, what both changed is kept twice and told. A copy that is merely
//! older brings nothing back, and what keyloan seals for itself (policy, PIN, trust) is never taken.

use super::index::{Anchor, Change, Entry, Kind, file_name};
use super::records::Records;
use super::{Files, LocalVault, Revision, VaultError, item_file};
use keyloan_platform::private_file::Directory;
use std::collections::{BTreeSet, HashSet};
use std::path::Path;

/// The other copy as it lies on disk. Reading it needs no key and may be slow: it is done off the event loop.
pub(crate) struct Copy {
    records: Records,
    items: Directory,
}

impl Copy {
    pub(crate) fn open(at: &Path) -> Result<Self, VaultError> {
        let root = Directory::open(at)?;
        Ok(Self { records: Records::read(&root, &root.child("journal")?)?, items: root.child("items")? })
    }

    /// The files that a merge takes, each as its index has it.
    pub(crate) fn read(&self, merge: &Merge) -> Result<Vec<Vec<u8>>, VaultError> {
        let file = |step: &Step| {
            Files::checked_in(&self.items, &file_name(&step.id, step.theirs.revision), &step.theirs)
        };
        merge.steps.iter().map(file).collect()
    }
}

/// What a merge would do.
#[derive(Default, Clone, PartialEq, Eq)]
pub(crate) struct Merge {
    steps: Vec<Step>,
    pub(crate) added: Vec<String>,
    pub(crate) updated: Vec<String>,
    /// Removed here, and there as it was not known here when it was removed.
    pub(crate) brought_back: Vec<String>,
    /// Changed on both sides: the title here, and the one that the other's is to get.
    pub(crate) conflicts: Vec<(String, String)>,
    /// Removed there and changed here.
    pub(crate) kept: Vec<String>,
}

#[derive(Clone, PartialEq, Eq)]
struct Step {
    id: String,
    theirs: Entry,
    ours: Option<Entry>,
    /// A further item of this title; otherwise theirs becomes ours as it is.
    apart: Option<String>,
}

impl Step {
    /// The title that it writes.
    fn title(&self) -> &str {
        self.apart.as_ref().unwrap_or(&self.theirs.title)
    }
}

impl Merge {
    pub(crate) fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Every title that the merge writes.
    pub(crate) fn titles(&self) -> Vec<String> {
        self.steps.iter().map(|step| step.title().to_owned()).collect()
    }

    /// The titles, there and as they are here, of what has a field of such a name on either side.
    pub(crate) fn titles_with(&self, names: &[&str]) -> BTreeSet<String> {
        let has = |entry: &Entry| entry.fields.iter().any(|field| names.contains(&field.name.as_str()));
        let steps = self.steps.iter().filter(|step| has(&step.theirs) || step.ours.as_ref().is_some_and(has));
        let titles = steps.flat_map(|step| {
            let replaced = step.ours.as_ref().filter(|_| step.apart.is_none());
            std::iter::once(step.title()).chain(replaced.map(|ours| ours.title.as_str()))
        });
        titles.map(str::to_owned).collect()
    }
}

impl LocalVault {
    /// Compares another copy with this vault and changes nothing.
    pub(crate) fn compare(&self, copy: &Copy, day: &str) -> Result<Merge, VaultError> {
        let open = self.open.as_ref().ok_or(VaultError::Locked)?;
        let ours = &open.index;
        let (theirs, _) = copy.records.index(&open.keys)?;
        let mut merge = Merge::default();
        let mut given: HashSet<String> = HashSet::new();
        for (id, entry) in theirs.all().filter(|(_, entry)| entry.kind == Kind::Item) {
            let here = ours.entry(id);
            let is_known = here.is_some_and(|here| here.sha256 == entry.sha256 || entry.is_before(here));
            if is_known || (here.is_none() && ours.removed(id, entry)) {
                continue;
            }
            let taken = |title: &str| {
                ours.find(Kind::Item, title).is_some_and(|(held, _)| held != id) || given.contains(title)
            };
            let is_conflict = here.is_some_and(|here| !here.is_before(entry));
            let apart = (is_conflict || taken(&entry.title)).then(|| {
                let free = |title: &str| !taken(title) && theirs.find(Kind::Item, title).is_none();
                free_title(&entry.title, day, free)
            });
            let title = entry.title.clone();
            match (&apart, here) {
                (Some(given), _) => merge.conflicts.push((title, given.clone())),
                (None, Some(_)) => merge.updated.push(title),
                (None, None) if ours.was_removed(id) => merge.brought_back.push(title),
                (None, None) => merge.added.push(title),
            }
            given.insert(apart.as_ref().unwrap_or(&entry.title).clone());
            merge.steps.push(Step { id: id.clone(), theirs: entry.clone(), ours: here.cloned(), apart });
        }
        let gone_there =
            |(id, entry): &(&String, &Entry)| theirs.was_removed(id) && !theirs.removed(id, entry);
        let kept = ours.all().filter(|(_, entry)| entry.kind == Kind::Item).filter(gone_there);
        merge.kept.extend(kept.map(|(_, entry)| entry.title.clone()));
        Ok(merge)
    }

    /// Does what [`Self::compare`] found, an item at a time, with the files as [`Copy::read`] gave them: an
    /// interruption leaves some items merged, and the next merge does the rest.
    pub(crate) fn merge(
        &mut self,
        merge: Merge,
        files: &[Vec<u8>],
        now: &str,
        anchor: &Anchor,
    ) -> Result<(), VaultError> {
        for (step, bytes) in merge.steps.into_iter().zip(files) {
            let anchor = Some(anchor.clone());
            let Some(title) = &step.apart else {
                self.take(&step.id, step.theirs, bytes, anchor)?;
                continue;
            };
            let name = || step.theirs.title.clone();
            let cause = |cause| VaultError::Key { name: name(), cause };
            let text = self.keys()?.decrypt(bytes).map_err(cause)?;
            let form = |cause| VaultError::ItemForm { title: name(), cause };
            let item = item_file::decode(&text).map_err(form)?;
            let expires = item.expires.as_deref();
            let new = Revision { kind: Kind::Item, title, expires, fields: &item.fields, now };
            self.put(None, new, anchor.clone())?;
            let revision = step.theirs.sha256.short();
            self.record(Change::Seen { id: step.id, revision }, anchor, None)?;
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
        self.check_writable()?;
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
fn free_title(title: &str, day: &str, free: impl Fn(&str) -> bool) -> String {
    let first = format!("{title} (merged {day})");
    let more = (2..).map(|number: u32| format!("{title} (merged {day}, {number})"));
    std::iter::once(first).chain(more).find(|wanted| free(wanted)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_title_that_either_side_has_is_not_given_again() {
        let taken = ["pypi (merged 2026-11-21)", "pypi (merged 2026-11-21, 2)"];
        let given = free_title("pypi", "2026-11-21", |title| !taken.contains(&title));
        assert_eq!(given, "pypi (merged 2026-11-21, 3)");
    }
}
