//! The links: which vaults there are besides the local one, where, and by which programs. Kept sealed in the local
//! vault, with what each needs to be opened: in a file beside it any program of the user could turn a link to a program
//! of its own.

use super::Fault;
use super::pinned::Pinned;
use crate::vault::local::item_file::Field;
use keyloan_protocol::control::response::{LinkedVault, PinnedProgram};
use keyloan_protocol::names::{FieldName, VaultName};
use keyloan_protocol::reference::{ONE_PASSWORD, Reference};
use keyloan_protocol::secret::SecretBytes;
use keyloan_protocol::vault_kinds::{self, Is};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The kind that references of the form `op://…` belong to.
const KIND_OF_ONE_PASSWORD: &str = "onepassword";

/// The most vaults: each is a field or more of one sealed item.
pub(crate) const MOST: usize = 16;

/// The field that holds the links; every other one a secret, `NAME/KEY`.
const LINKS: &str = "links";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Link {
    pub(crate) name: VaultName,
    pub(crate) kind: String,
    /// Its titles are searched for directories.
    pub(crate) searched: bool,
    #[serde(default)]
    pub(crate) settings: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) programs: BTreeMap<String, Pinned>,
}

/// In the order in which they were added, which is that of searches.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Links(Vec<Link>);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoVault {
    #[error("there is no vault '{name}' (there is: {known})")]
    Unknown { name: String, known: String },
    #[error("'op' is one of several vaults of 1Password; write the name of one in its place ({0})")]
    Ambiguous(String),
}

impl Link {
    pub(crate) fn setting(&self, key: &str) -> Option<&str> {
        self.settings.get(key).map(String::as_str)
    }

    /// A setting that every link of the kind has.
    pub(crate) fn path(&self, key: &str) -> Result<PathBuf, Fault> {
        let path = self.setting(key).map(PathBuf::from).filter(|path| path.is_absolute());
        path.ok_or_else(|| Fault::Broken(format!("its link names no {key}")))
    }

    pub(crate) fn program(&self, key: &str) -> Result<&Pinned, Fault> {
        self.programs.get(key).ok_or_else(|| Fault::Broken(format!("its link names no program {key}")))
    }

    /// The home directory of its programs, where that is not the user's own: whoever started this daemon chose it.
    pub(crate) fn chosen_home(&self) -> Option<&Path> {
        let home = self.programs.values().find_map(|program| program.home.as_deref())?;
        (keyloan_platform::paths::recorded_home().as_deref() != Some(home)).then_some(home)
    }

    /// For lists, which any program of the user may ask for: secrets and variables by their names alone.
    pub(crate) fn summary(&self, secrets: Vec<String>) -> LinkedVault {
        let kind = vault_kinds::kind(&self.kind);
        let shown = |(key, value): (&String, &String)| {
            let setting = kind.and_then(|kind| kind.setting(key));
            let names = || value.split_whitespace().filter_map(|one| Some(one.split_once('=')?.0));
            let value = match setting.map(|setting| setting.is) {
                Some(Is::Variables) => names().collect::<Vec<_>>().join(" "),
                _ => value.clone(),
            };
            (key.clone(), value)
        };
        let program = |program: &Pinned| PinnedProgram {
            path: program.path.display().to_string(),
            sha256: program.sha256.clone(),
        };
        LinkedVault {
            name: self.name.clone(),
            kind: self.kind.clone(),
            searched: self.searched,
            settings: self.settings.iter().map(shown).collect(),
            programs: self.programs.values().map(program).collect(),
            secrets,
        }
    }
}

impl Links {
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Link> {
        self.0.iter()
    }

    /// Those whose titles count.
    pub(crate) fn searched(&self) -> impl Iterator<Item = &Link> {
        self.0.iter().filter(|link| link.searched)
    }

    pub(crate) fn named(&self, name: &VaultName) -> Option<&Link> {
        self.0.iter().find(|link| link.name == *name)
    }

    /// The link that a reference means.
    pub(crate) fn meant(&self, name: &VaultName) -> Result<&Link, NoVault> {
        if let Some(link) = self.named(name) {
            return Ok(link);
        }
        let of_one_password: Vec<&Link> =
            self.0.iter().filter(|link| link.kind == KIND_OF_ONE_PASSWORD).collect();
        match of_one_password.as_slice() {
            [one] if name.as_str() == ONE_PASSWORD => Ok(one),
            [_, ..] if name.as_str() == ONE_PASSWORD => Err(NoVault::Ambiguous(names(of_one_password))),
            _ => {
                let known = [VaultName::LOCAL.to_owned()]
                    .into_iter()
                    .chain(self.0.iter().map(|link| link.name.to_string()));
                let known = known.collect::<Vec<_>>().join(", ");
                Err(NoVault::Unknown { name: name.to_string(), known })
            }
        }
    }

    /// A reference under the link's own name: `op://…` is `work://…` where that is the vault of 1Password, for rules and
    /// grants as well.
    pub(crate) fn own(&self, reference: &Reference) -> Result<Reference, NoVault> {
        if reference.vault.is_local() {
            return Ok(reference.clone());
        }
        let vault = self.meant(&reference.vault)?.name.clone();
        Ok(Reference { vault, ..reference.clone() })
    }

    /// Adds a link, or puts it in the place of the one of that name.
    #[must_use]
    pub(crate) fn with(&self, link: Link) -> Self {
        let mut links = self.clone();
        match links.0.iter_mut().find(|held| held.name == link.name) {
            Some(held) => *held = link,
            None => links.0.push(link),
        }
        links
    }

    #[must_use]
    pub(crate) fn without(&self, name: &VaultName) -> Self {
        Self(self.0.iter().filter(|link| link.name != *name).cloned().collect())
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

fn names(links: Vec<&Link>) -> String {
    links.into_iter().map(|link| link.name.as_str()).collect::<Vec<_>>().join(", ")
}

/// The links from the fields of the sealed item that keeps them.
pub(crate) fn read(fields: &[Field]) -> Option<Links> {
    let links = fields.iter().find(|field| field.name.as_str() == LINKS)?;
    serde_json::from_slice(links.value.expose()).ok()
}

/// The secrets of one link, out of these fields.
pub(crate) fn secrets(fields: Vec<Field>, name: &VaultName) -> Vec<(String, SecretBytes)> {
    let own = |field: Field| {
        let (vault, key) = field.name.as_str().split_once('/')?;
        (vault == name.as_str()).then(|| (key.to_owned(), field.value))
    };
    fields.into_iter().filter_map(own).collect()
}

/// Fields that hold these links, the secrets that other links have there already, and those of one link; nothing where
/// one of these cannot be written down.
pub(crate) fn fields(
    links: &Links,
    held: Vec<Field>,
    of: &VaultName,
    secrets: Vec<(String, SecretBytes)>,
) -> Option<Vec<Field>> {
    let others = held.into_iter().filter(|field| {
        let vault = field.name.as_str().split_once('/').map(|(vault, _)| vault);
        vault.is_some_and(|vault| vault != of.as_str())
    });
    let text = serde_json::to_vec(links).ok()?;
    let mut fields =
        vec![Field { name: FieldName::parse(LINKS).ok()?, public: false, value: SecretBytes::new(text) }];
    fields.extend(others);
    for (key, value) in secrets {
        fields.push(Field { name: FieldName::parse(&format!("{of}/{key}")).ok()?, public: false, value });
    }
    Some(fields)
}

/// A path as people write it: absolute, or in their home directory.
pub(crate) fn absolute(text: &str, home: Option<&Path>) -> Option<PathBuf> {
    let path = match text.strip_prefix("~/") {
        Some(rest) => home?.join(rest),
        None => PathBuf::from(text),
    };
    path.is_absolute().then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(name: &str, kind: &str) -> Link {
        Link {
            name: VaultName::parse(name).unwrap(),
            kind: kind.to_owned(),
            searched: false,
            settings: BTreeMap::new(),
            programs: BTreeMap::new(),
        }
    }

    fn meant(links: &[(&str, &str)], name: &str) -> Result<String, NoVault> {
        let links = links.iter().fold(Links::default(), |links, (name, kind)| links.with(link(name, kind)));
        links.meant(&VaultName::parse(name).unwrap()).map(|link| link.name.to_string())
    }

    #[test]
    fn op_is_the_vault_of_1password_whatever_it_is_called() {
        assert_eq!(meant(&[("work", "onepassword"), ("pass", "pass")], "op").unwrap(), "work");
        assert_eq!(meant(&[("work", "onepassword"), ("op", "onepassword")], "op").unwrap(), "op");
        let several = meant(&[("work", "onepassword"), ("home", "onepassword")], "op").unwrap_err();
        assert!(several.to_string().contains("work, home"), "{several}");
        let none = meant(&[("pass", "pass")], "op").unwrap_err();
        assert_eq!(none.to_string(), "there is no vault 'op' (there is: local, pass)");
    }

    #[test]
    fn rules_know_one_item_of_1password_by_one_name() {
        let links = Links::default().with(link("work", "onepassword"));
        let subject = |text| links.own(&Reference::parse(text).unwrap()).unwrap().subject();
        assert_eq!(subject("op://Private/pypi/token"), "work://Private/pypi");
        assert_eq!(subject("work://Private/pypi/token"), "work://Private/pypi");
        assert_eq!(subject("local://pypi/token"), "pypi");
    }

    #[test]
    fn secrets_of_other_links_stay_and_those_of_a_removed_one_go() {
        let name = |text| VaultName::parse(text).unwrap();
        let secret = |text: &str| vec![("token".to_owned(), SecretBytes::copy_of(text.as_bytes()))];
        let links = Links::default().with(link("a", "pass")).with(link("b", "pass"));
        let one = fields(&links, Vec::new(), &name("a"), secret("1")).unwrap();
        let two = fields(&links, one, &name("b"), secret("2")).unwrap();
        assert_eq!(read(&two), Some(links.clone()));
        let left = fields(&links.without(&name("a")), two, &name("a"), Vec::new()).unwrap();
        assert_eq!(left.len(), 2);
        assert_eq!(secrets(left, &name("b"))[0].1.expose(), b"2");
    }
}
