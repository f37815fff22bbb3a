//! Puts sets together: what would be lent, from where and why. Reads names only; every fault of all sets is
//! told at once.

pub(crate) use super::planned::{From, Plan, Planned, Sought, Titled, Unread, VARS};

use super::manifest::{Manifest, Source, Terms};
use crate::vault::linked::links::Links;
use crate::vault::local::index::{Entry, EntryField, Index, Kind};
use keyloan_protocol::env_vars;
use keyloan_protocol::limits;
use keyloan_protocol::names::{FieldName, ItemName, SetName, VarName, escaped};
use keyloan_protocol::reference::Reference;
use keyloan_protocol::time_span::TimeSpan;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// For which a shell keeps a set that says nothing of it: a shell stays open for weeks, and forgets nothing by itself.
const SHELL_TIME: Duration = Duration::from_secs(15 * 60);

/// All values of one loan travel in one frame, below its header's room.
const TOGETHER: usize = limits::FRAME - limits::HEADER;

#[derive(Debug, thiserror::Error)]
pub(crate) enum PlanError {
    #[error("{} is not trusted", .0.display())]
    Untrusted(PathBuf),
    #[error("{} was changed after it was trusted", .0.display())]
    Changed(PathBuf),
    #[error("nothing is set for this directory")]
    Nothing,
    #[error("not everything that is asked for can be lent")]
    Faults(Vec<String>),
}

/// The `.keyloan.toml` that the client passed.
pub(crate) struct File {
    pub(crate) path: PathBuf,
    /// The directory of the search that it was found in, nearest 0.
    pub(crate) at: usize,
    /// Its content, or what is wrong with it.
    pub(crate) manifest: Result<Manifest, Vec<String>>,
    pub(crate) trust: Result<(), PlanError>,
}

pub(crate) struct Search<'a> {
    pub(crate) index: &'a Index,
    pub(crate) links: &'a Links,
    /// What linked vaults have of the titles that are searched for, in the order of the vaults.
    pub(crate) elsewhere: Vec<Titled>,
    pub(crate) home: Option<PathBuf>,
    /// Nearest first.
    pub(crate) directories: Vec<PathBuf>,
    pub(crate) file: Option<File>,
}

impl Search<'_> {
    /// The plan for named sets, left to right, or for the directory's own set.
    pub(crate) fn plan(&self, sets: &[SetName], only: &[VarName]) -> Result<Plan, PlanError> {
        let mut draft = Draft::default();
        if sets.is_empty() {
            self.default_set(&mut draft)?;
        }
        for (at, name) in sets.iter().enumerate() {
            // Later sets win, so of a set that is named twice the last is the one.
            if !sets[at + 1..].contains(name) {
                self.named_set(name, &mut draft)?;
            }
        }
        draft.keep_only(only);
        draft.name_vaults(self.links);
        draft.check_references(self.index, self.links);
        if draft.faults.is_empty() { Ok(draft.plan) } else { Err(PlanError::Faults(draft.faults)) }
    }

    /// Nearest directory first; in one directory the file before the item.
    fn default_set(&self, draft: &mut Draft) -> Result<(), PlanError> {
        for (at, directory) in self.directories.iter().enumerate() {
            if let Some(file) = self.file.as_ref().filter(|file| file.at == at) {
                let manifest = file.usable()?;
                if let Some(set) = &manifest.default {
                    draft.add_set(set, "", &file.path);
                    draft.add_terms(manifest.shells.get(&None), &file.path);
                    return Ok(());
                }
            }
            if let Some(entry) = self.titled(directory) {
                draft.add_item(entry);
                return Ok(());
            }
            if let Some(titled) = self.titled_elsewhere(&self.titles(directory)) {
                return draft.add_unread(titled);
            }
        }
        Err(PlanError::Nothing)
    }

    /// What linked vaults are to be searched for: directories that lie nearer than whatever is set here, or sets that
    /// are no items here.
    pub(crate) fn sought_elsewhere(&self, sets: &[SetName]) -> Vec<Sought> {
        if sets.is_empty() {
            let has_set = |at: usize, directory: &Path| {
                let in_file = |file: &File| {
                    let unusable = file.trust.is_err() || file.manifest.is_err();
                    unusable || file.manifest.as_ref().is_ok_and(|manifest| manifest.default.is_some())
                };
                self.file.as_ref().is_some_and(|file| file.at == at && in_file(file))
                    || self.titled(directory).is_some()
            };
            let nearer =
                self.directories.iter().enumerate().take_while(|(at, directory)| !has_set(*at, directory));
            let titles = nearer.map(|(_, directory)| self.titles(directory));
            return titles.map(|titles| Sought { titles, is_enough: true, is_in_file: false }).collect();
        }
        let in_file = |name: &SetName| {
            let file = self.file.as_ref().and_then(|file| file.manifest.as_ref().ok());
            file.is_some_and(|manifest| manifest.sets.contains_key(name))
        };
        let sought = sets.iter().map(|name| Sought {
            titles: self.titles_of_set(name),
            is_enough: false,
            is_in_file: in_file(name),
        });
        sought.filter(|sought| !sought.titles.iter().any(|title| self.with_vars(title).is_some())).collect()
    }

    fn named_set(&self, name: &SetName, draft: &mut Draft) -> Result<(), PlanError> {
        let titles = self.titles_of_set(name);
        let item = titles.iter().find_map(|title| self.with_vars(title));
        let elsewhere = self.titled_elsewhere(&titles);
        let in_file = self
            .file
            .as_ref()
            .filter(|file| file.manifest.as_ref().is_ok_and(|manifest| manifest.sets.contains_key(name)));
        let is_both = |file: &File, of: &str| {
            let file = file.path.display();
            format!("'{name}' is a set of {file} and the title of an item{of}; rename one of them")
        };
        match (in_file, item, elsewhere) {
            (Some(file), Some(_), _) => draft.faults.push(is_both(file, "")),
            (Some(file), None, Some(titled)) => {
                draft.faults.push(is_both(file, &format!(" of the vault '{}'", titled.vault)));
            }
            (Some(file), None, None) => {
                let manifest = file.usable()?;
                if let Some(set) = manifest.sets.get(name) {
                    draft.add_set(set, &format!("sets.{name}."), &file.path);
                    draft.add_terms(manifest.shells.get(&Some(name.clone())), &file.path);
                }
            }
            (None, Some(entry), _) => draft.add_item(entry),
            (None, None, Some(titled)) => draft.add_unread(titled)?,
            (None, None, None) => {
                // A broken file may be what hides the set.
                if let Some(file) = &self.file {
                    file.usable()?;
                }
                draft.faults.push(format!(
                    "there is no set '{name}', neither in a file nor as an item with a '{VARS}' field"
                ));
            }
        }
        Ok(())
    }

    /// A directory's path as titles have it: the home written as `~`, or in full.
    fn titles(&self, directory: &Path) -> Vec<String> {
        let short = self
            .home
            .as_ref()
            .and_then(|home| directory.strip_prefix(home).ok())
            .filter(|rest| !rest.as_os_str().is_empty())
            .and_then(Path::to_str)
            .map(|rest| format!("~/{rest}"));
        short.into_iter().chain(directory.to_str().map(str::to_owned)).collect()
    }

    fn titled(&self, directory: &Path) -> Option<&Entry> {
        self.titles(directory).iter().find_map(|title| self.with_vars(title))
    }

    /// A shell makes a path of the title `~/coverage` before anybody sees it.
    fn titles_of_set(&self, name: &SetName) -> Vec<String> {
        let path = Path::new(name.as_str());
        if path.is_absolute() { self.titles(path) } else { vec![name.to_string()] }
    }

    fn titled_elsewhere(&self, titles: &[String]) -> Option<&Titled> {
        self.elsewhere.iter().find(|titled| titles.iter().any(|title| title == titled.item.as_str()))
    }

    fn with_vars(&self, title: &str) -> Option<&Entry> {
        let (_, entry) = self.index.find(Kind::Item, title)?;
        entry.fields.iter().any(|field| field.name.as_str() == VARS).then_some(entry)
    }
}

impl File {
    fn usable(&self) -> Result<&Manifest, PlanError> {
        match &self.trust {
            Ok(()) => {}
            Err(PlanError::Changed(path)) => return Err(PlanError::Changed(path.clone())),
            Err(_) => return Err(PlanError::Untrusted(self.path.clone())),
        }
        let named = |fault: &String| format!("{}: {fault}", self.path.display());
        self.manifest.as_ref().map_err(|faults| PlanError::Faults(faults.iter().map(named).collect()))
    }
}

#[derive(Default)]
struct Draft {
    plan: Plan,
    faults: Vec<String>,
    /// Sets so far.
    at: usize,
}

impl Draft {
    /// Later sets win.
    fn add(&mut self, planned: Planned) {
        self.plan.variables.retain(|other| other.name != planned.name);
        self.plan.variables.push(planned);
    }

    /// A set in a linked vault, which is read only behind a yes.
    fn add_unread(&mut self, titled: &Titled) -> Result<(), PlanError> {
        self.at += 1;
        let field = FieldName::parse(VARS).map_err(|_| PlanError::Nothing)?;
        let reference = Reference { vault: titled.vault.clone(), item: titled.item.clone(), field };
        self.plan.unread.push(Unread { reference, at: self.at });
        Ok(())
    }

    /// `table` is the path to the tables `env` and `files` in the file.
    fn add_set(&mut self, set: &[(VarName, Source)], table: &str, file: &Path) {
        self.at += 1;
        for (name, source) in set {
            let (from, key) = match source {
                Source::Literal(text) => (From::Literal(text.clone()), "env"),
                Source::Reference(reference) => (From::Field(reference.clone()), "env"),
                Source::Files(form, parts) => (From::Files(*form, parts.clone()), "files"),
            };
            let set = format!("[{table}{key}] of {}", file.display());
            self.add(Planned { name: name.clone(), from, set, at: self.at });
        }
    }

    /// Of several sets the strictest terms hold for all.
    fn add_terms(&mut self, terms: Option<&Terms>, file: &Path) {
        let time = terms.and_then(|terms| terms.time).map_or(SHELL_TIME, TimeSpan::duration);
        self.plan.shell_time = Some(self.plan.shell_time.map_or(time, |shortest| shortest.min(time)));
        if terms.is_some_and(|terms| terms.until_leaving) {
            self.plan.until_leaving = file.parent().map(Path::to_owned);
        }
    }

    /// Each vault by its own name. One that there is not is told with all other faults.
    fn name_vaults(&mut self, links: &Links) {
        for reference in self.plan.variables.iter_mut().flat_map(Planned::references_mut) {
            if let Ok(own) = links.own(reference) {
                *reference = own;
            }
        }
    }

    /// What is wrong with the references, and with all of them together, as far as the index can tell.
    fn check_references(&mut self, index: &Index, links: &Links) {
        let (mut bytes, mut values) = (0, 0);
        for planned in &self.plan.variables {
            values += 1;
            for reference in planned.references() {
                values += 1;
                match field(index, links, reference) {
                    Err(cause) => {
                        let shown = escaped(&reference.to_string(), 2 * limits::NAME);
                        self.faults.push(format!("{}: {shown}: {cause}", planned.name));
                    }
                    Ok(None) => {}
                    Ok(Some(field)) => {
                        bytes += field.length;
                        if !planned.is_file() {
                            self.faults.extend(too_long(&planned.name, field.length));
                        }
                    }
                }
            }
        }
        self.faults.extend(too_much(bytes));
        if values > limits::VALUES {
            self.faults.push(format!("{values} values; one loan holds at most {}", limits::VALUES));
        }
    }

    fn add_item(&mut self, entry: &Entry) {
        self.at += 1;
        let title = escaped(&entry.title, limits::NAME);
        let Ok(item) = ItemName::parse(&entry.title) else { return };
        self.add_terms(None, Path::new(""));
        for field in entry.fields.iter().filter(|field| field.name.as_str() == VARS) {
            if let Some(fault) = &field.fault {
                self.faults.push(format!("item '{title}', field '{VARS}': {fault}"));
            }
            for name in &field.variables {
                if env_vars::steers(name.as_str()) {
                    self.plan.notes.push(format!(
                        "{name} of item '{title}' is not lent: it steers what runs or where it talks"
                    ));
                    continue;
                }
                let set = format!("item '{title}'");
                self.add(Planned { name: name.clone(), from: From::Vars(item.clone()), set, at: self.at });
            }
        }
    }

    fn keep_only(&mut self, only: &[VarName]) {
        if only.is_empty() {
            return;
        }
        // Whoever names what they want is not told what else they will not get.
        self.plan.notes.clear();
        for name in only {
            let may_come = !self.plan.unread.is_empty();
            if !may_come && !self.plan.variables.iter().any(|planned| planned.name == *name) {
                self.faults.push(format!("no set that was asked for has {name}"));
            }
        }
        self.plan.variables.retain(|planned| only.contains(&planned.name));
        self.plan.only = only.to_vec();
    }
}

/// What the local vault's index says of a field; nothing where another vault has it, which is not read for a plan.
fn field<'a>(
    index: &'a Index,
    links: &Links,
    reference: &Reference,
) -> Result<Option<&'a EntryField>, String> {
    if !reference.vault.is_local() {
        return links.meant(&reference.vault).map(|_| None).map_err(|error| error.to_string());
    }
    let (_, entry) = index
        .find(Kind::Item, reference.item.as_str())
        .ok_or_else(|| format!("there is no item '{}'", reference.item))?;
    entry.fields.iter().find(|field| field.name == reference.field).map(Some).ok_or_else(|| {
        let fields: Vec<&str> = entry.fields.iter().map(|field| field.name.as_str()).collect();
        format!("the item has no such field (it has: {})", fields.join(", "))
    })
}

/// Why values of this length together cannot be lent.
pub(crate) fn too_much(bytes: usize) -> Option<String> {
    (bytes > TOGETHER).then(|| format!("{bytes} bytes or more in all; one loan holds at most {TOGETHER}"))
}

/// Why a value of this length cannot be put into an environment.
pub(crate) fn too_long(name: &VarName, length: usize) -> Option<String> {
    let room = limits::ENVIRONMENT_STRING - name.as_str().len() - 2;
    (length > room).then(|| {
        format!("{name}: the value has {length} bytes; the system passes at most {room} in one variable")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env_set::manifest;
    use crate::vault::linked::links::Link;
    use keyloan_protocol::names::VaultName;
    use std::collections::BTreeMap;

    #[test]
    fn an_item_of_1password_is_planned_under_its_vaults_own_name() {
        let link = Link {
            name: VaultName::parse("work").unwrap(),
            kind: "onepassword".to_owned(),
            searched: false,
            settings: BTreeMap::new(),
            programs: BTreeMap::new(),
        };
        let text = "[env]\nA = \"op://Private/pypi/token\"\n[files]\nB = \"op://Private/pypi/key\"\n";
        let manifest = manifest::parse(text).map_err(|_| Vec::new());
        let file = File { path: PathBuf::from("/p/.keyloan.toml"), at: 0, manifest, trust: Ok(()) };
        let search = Search {
            index: &Index::empty(),
            links: &Links::default().with(link),
            elsewhere: Vec::new(),
            home: None,
            directories: vec![PathBuf::from("/p")],
            file: Some(file),
        };
        let plan = search.plan(&[], &[]).unwrap();
        assert_eq!(plan.references(), ["work://Private/pypi/key", "work://Private/pypi/token"]);
    }
}
