//! `VAULT://ITEM/FIELD`: where a value is kept. The last segment is the field, all before it the item,
//! which may hold `/`; a `/` within a field's name is written `%2F` (and a `%` there `%25`).

use crate::names::{FieldName, ItemName, NameError};
use std::fmt;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    #[error("not a reference: VAULT://ITEM/FIELD is wanted")]
    Shape,
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
    pub vault: String,
    pub item: ItemName,
    pub field: FieldName,
}

impl Reference {
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        let (vault, rest) = text.split_once("://").ok_or(ReferenceError::Shape)?;
        let (item, field) = rest.rsplit_once('/').ok_or(ReferenceError::Shape)?;
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_');
        if vault.is_empty() || !vault.chars().all(plain) {
            return Err(ReferenceError::Vault);
        }
        Ok(Self {
            vault: vault.to_owned(),
            item: ItemName::parse(item)?,
            field: FieldName::parse(&unescape(field)?)?,
        })
    }
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
        ] {
            assert!(Reference::parse(bad).is_err(), "{bad}");
        }
    }
}
