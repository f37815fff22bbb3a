//! What a plan holds: variables by name and where each comes from, never a value.

use keyloan_protocol::control::response::FileForm;
use keyloan_protocol::names::{FileName, ItemName, VarName, VaultName};
use keyloan_protocol::reference::Reference;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

/// The field of an item that holds a whole set.
pub(crate) const VARS: &str = "vars";

#[derive(Debug)]
pub(crate) struct Planned {
    pub(crate) name: VarName,
    pub(crate) from: From,
    /// Which set asks for it, and where that is written.
    pub(crate) set: String,
    /// Which of the sets that is: later ones win.
    pub(crate) at: usize,
}

/// A whole set in a linked vault: what it is called is known, which variables it has only when it is read.
#[derive(Debug)]
pub(crate) struct Unread {
    pub(crate) reference: Reference,
    pub(crate) at: usize,
}

/// What linked vaults are searched for: a directory or a named set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sought {
    /// Any of them means it.
    pub(crate) titles: Vec<String>,
    /// Where it is found, nothing behind it is wanted any more.
    pub(crate) is_enough: bool,
    /// It is a set of the directory's file, and wanted only to say that it is another one as well.
    pub(crate) is_in_file: bool,
}

/// An item of a linked vault that has the title of a directory or a set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Titled {
    pub(crate) vault: VaultName,
    pub(crate) item: ItemName,
}

#[derive(Debug)]
pub(crate) enum From {
    Literal(String),
    Field(Reference),
    /// A line of an item's `vars`.
    Vars(ItemName),
    /// A line of a set of a linked vault, which has been read.
    Line(Reference),
    /// Lent as files.
    Files(FileForm, Vec<(FileName, Reference)>),
}

impl Planned {
    pub(crate) fn is_file(&self) -> bool {
        matches!(self.from, From::Files(..))
    }

    /// The references whose values are lent in this variable.
    pub(crate) fn references(&self) -> Vec<&Reference> {
        match &self.from {
            From::Field(reference) | From::Line(reference) => vec![reference],
            From::Files(_, parts) => parts.iter().map(|(_, reference)| reference).collect(),
            From::Literal(_) | From::Vars(_) => Vec::new(),
        }
    }

    /// The same, to be changed.
    pub(crate) fn references_mut(&mut self) -> Vec<&mut Reference> {
        match &mut self.from {
            From::Field(reference) | From::Line(reference) => vec![reference],
            From::Files(_, parts) => parts.iter_mut().map(|(_, reference)| reference).collect(),
            From::Literal(_) | From::Vars(_) => Vec::new(),
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) variables: Vec<Planned>,
    /// Sets whose variables are not known yet.
    pub(crate) unread: Vec<Unread>,
    /// Where not empty, only these are lent.
    pub(crate) only: Vec<VarName>,
    /// Sentences for the person, about what is left out.
    pub(crate) notes: Vec<String>,
    /// The shortest time for which one of the sets lets a shell keep it; one that says none does so for the usual time.
    pub(crate) shell_time: Option<Duration>,
    /// The directory that a shell may not leave with it.
    pub(crate) until_leaving: Option<PathBuf>,
    /// What a shell takes for its own is left out.
    pub(crate) for_shell: bool,
}

impl Plan {
    /// Items of whose `vars` field some variables are lent, each once.
    pub(crate) fn items_with_variables(&self) -> BTreeSet<&ItemName> {
        let items = self.variables.iter().filter_map(|planned| match &planned.from {
            From::Vars(item) => Some(item),
            _ => None,
        });
        items.collect()
    }

    /// Every reference that is lent, for people, in order.
    pub(crate) fn references(&self) -> Vec<String> {
        let one = |planned: &Planned| match &planned.from {
            From::Vars(item) => vec![format!("local://{item}/{VARS}")],
            _ => planned.references().iter().map(ToString::to_string).collect(),
        };
        let unread = self.unread.iter().map(|unread| unread.reference.to_string());
        let mut all: Vec<String> = self.variables.iter().flat_map(one).chain(unread).collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}
