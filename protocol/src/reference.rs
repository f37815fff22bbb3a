//! `VAULT://ITEM/FIELD`: where a value is kept. The last segment is the field, all before it the item,
//! which may hold `/`; a `/` within a field's name is written `%2F` (and a `%` there `%25`).
//!
//! `op://VAULT/ITEM/[SECTION/]FIELD` is 1Password's own form, and reads the same: the vault's name `op` stands for
//! the linked vault of that kind, whatever it is called here; the item is `VAULT/ITEM` or `VAULT/ITEM/SECTION`, or the
//! path of a directory (`op://~/coverage/vars`).

use crate::names::{FieldName, ItemName, NameError, VaultName};
use std::fmt;

/// The vault of references in 1Password's own form.
pub const ONE_PASSWORD: &str = "op";

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    #[error("not a reference: VAULT://ITEM/FIELD is wanted")]
    Shape,
    #[error("not an item: VAULT://ITEM is wanted")]
    Item,
    #[error("not a reference: op://VAULT/ITEM/FIELD or op://VAULT/ITEM/SECTION/FIELD is wanted")]
    OnePassword,
    #[error("the vault's name must be lower-case letters, digits, '-' and '_'")]
    Vault,
    #[error("'%' in a field is written %25 and '/' is written %2F")]
    Escape,
    #[error(transparent)]
    Name(#[from] NameError),
}

/// A parsed reference. `Display` gives the text back that parses to the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Reference {
    pub vault: VaultName,
    pub item: ItemName,
    pub field: FieldName,
}

impl Reference {
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        let (vault, rest) = text.split_once("://").ok_or(ReferenceError::Shape)?;
        let (item, field) = rest.rsplit_once('/').ok_or(ReferenceError::Shape)?;
        let vault = VaultName::parse(vault).map_err(|_| ReferenceError::Vault)?;
        if vault.as_str() == ONE_PASSWORD {
            let segments: Vec<&str> = item.split('/').collect();
            // An item titled with a directory's path is named by that alone.
            let is_directory = item.starts_with("~/") || item.starts_with('/');
            let is_full = matches!(segments.len(), 2 | 3) && !segments.contains(&"");
            if !is_directory && !is_full {
                return Err(ReferenceError::OnePassword);
            }
        }
        let item = if vault.is_local() { ItemName::local(item)? } else { ItemName::parse(item)? };
        Ok(Self { vault, item, field: FieldName::parse(&unescape(field)?)? })
    }

    /// `VAULT://ITEM`: all of an item.
    pub fn parse_item(text: &str) -> Result<(VaultName, ItemName), ReferenceError> {
        let (vault, item) = text.split_once("://").ok_or(ReferenceError::Item)?;
        let vault = VaultName::parse(vault).map_err(|_| ReferenceError::Vault)?;
        Ok((vault, ItemName::parse(item)?))
    }

    /// Of the built-in vault.
    pub fn local(item: ItemName, field: FieldName) -> Self {
        Self { vault: VaultName::local(), item, field }
    }

    /// What rules and grants call the item: its title where it is the local vault's, else with the vault's own name
    /// before it.
    pub fn subject(&self) -> String {
        subject(&self.vault, &self.item)
    }
}

/// An item as rules and grants name it: `work`, `pass://web/x`.
pub fn subject(vault: &VaultName, item: &ItemName) -> String {
    if vault.is_local() { item.to_string() } else { format!("{vault}://{item}") }
}

fn unescape(field: &str) -> Result<String, ReferenceError> {
    let mut parts = field.split('%');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (escaped, rest) = if let Some(rest) = part.strip_prefix("2F").or_else(|| part.strip_prefix("2f"))
        {
            ('/', rest)
        } else if let Some(rest) = part.strip_prefix("25") {
            ('%', rest)
        } else {
            return Err(ReferenceError::Escape);
        };
        plain.push(escaped);
        plain.push_str(rest);
    }
    Ok(plain)
}

impl fmt::Display for Reference {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let field = self.field.as_str().replace('%', "%25").replace('/', "%2F");
        write!(out, "{}://{}/{}", self.vault, self.item, field)
    }
}

impl TryFrom<String> for Reference {
    type Error = ReferenceError;
    fn try_from(text: String) -> Result<Self, ReferenceError> {
        Self::parse(&text)
    }
}

impl From<Reference> for String {
    fn from(reference: Reference) -> Self {
        reference.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_read_and_print_alike() {
        for (text, item, field) in [
            ("local://pypi-coverage/token", "pypi-coverage", "token"),
            ("local://~/coverage/vars", "~/coverage", "vars"),
            ("bw://web/x/user%2Fname%25", "web/x", "user/name%"),
            ("op://Work/gcp/key.json", "Work/gcp", "key.json"),
            ("op://~/src/a/b/c/vars", "~/src/a/b/c", "vars"),
            ("op:///srv/x/vars", "/srv/x", "vars"),
            ("op://Work/gcp/prod keys/key.json", "Work/gcp/prod keys", "key.json"),
            (
                "op://Work/github/one-time password?attribute=otp",
                "Work/github",
                "one-time password?attribute=otp",
            ),
        ] {
            let reference = Reference::parse(text).unwrap();
            assert_eq!((reference.item.as_str(), reference.field.as_str()), (item, field));
            assert_eq!(reference.to_string(), text);
        }
    }

    #[test]
    fn what_is_no_reference_is_refused() {
        for bad in [
            "tok",
            "local:/a/b",
            "local://a",
            "://a/b",
            "Local://a/b",
            "local:///b",
            "local://a/",
            "local://a/b%2",
            "op://gcp/key",
            "op://Work//key",
            "op://a/b/c/d/e",
            "local://a\n/b",
            "local://pass://a/b",
        ] {
            assert!(Reference::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_whole_item_is_named_with_its_vault() {
        let (vault, item) = Reference::parse_item("pass://web/pypi").unwrap();
        assert_eq!((vault.as_str(), item.as_str()), ("pass", "web/pypi"));
        for bad in ["pypi", "pass:web", "pass://", "Pass://x", "pass://a\nb"] {
            assert!(Reference::parse_item(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_rule_for_an_item_of_the_local_vault_is_none_for_its_namesake_elsewhere() {
        let subject = |text| Reference::parse(text).unwrap().subject();
        assert_eq!(subject("local://pypi/token"), "pypi");
        assert_eq!(subject("pass://pypi/token"), "pass://pypi");
    }
}
