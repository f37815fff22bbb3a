//! `.keyloan.toml`: references, never values. Every fault is found at once and told by line and column;
//! nothing of the file is repeated but its keys, since a secret may have been pasted into it.

use keyloan_protocol::env_vars;
use keyloan_protocol::names::{SetName, VarName, escaped, nearest};
use keyloan_protocol::reference::Reference;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Where a variable's value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// Written in the file; no secret.
    Literal(String),
    Reference(Reference),
}

pub(crate) type Set = Vec<(VarName, Source)>;

#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) env: Option<Set>,
    pub(crate) sets: BTreeMap<SetName, Set>,
}

/// A fault and its place, both counted from 1, columns in characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    line: usize,
    column: usize,
    cause: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "line {}, column {}: {}", self.line, self.column, self.cause)
    }
}

pub(crate) fn parse(text: &str) -> Result<Manifest, Vec<Fault>> {
    let mut reader = Reader { text, faults: Vec::new() };
    let manifest = match DeTable::parse(text) {
        Ok(table) => reader.manifest(table.get_ref()),
        Err(error) => {
            let at = error.span().unwrap_or(0..0);
            // Only the kind of fault: what surrounds it may be a value.
            reader.fault(&at, format!("not TOML: {}", error.message().lines().next().unwrap_or_default()));
            Manifest::default()
        }
    };
    if reader.faults.is_empty() { Ok(manifest) } else { Err(reader.faults) }
}

struct Reader<'a> {
    text: &'a str,
    faults: Vec<Fault>,
}

type Table<'a> = DeTable<'a>;
type Value<'a> = Spanned<DeValue<'a>>;

impl Reader<'_> {
    fn fault(&mut self, at: &Range<usize>, cause: String) {
        let before = self.text.get(..at.start).unwrap_or(self.text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        self.faults.push(Fault { line, column, cause });
    }

    fn manifest(&mut self, table: &Table<'_>) -> Manifest {
        let mut manifest = Manifest::default();
        for (key, value) in table {
            match &*key.get_ref().to_string() {
                "env" => manifest.env = self.table(value, "env").map(|table| self.set(table)),
                "files" => self.no_files(key.span()),
                "sets" => {
                    if let Some(table) = self.table(value, "sets") {
                        manifest.sets = self.sets(table);
                    }
                }
                other => self.unknown(key.span(), other, &["env", "files", "sets"]),
            }
        }
        manifest
    }

    fn sets(&mut self, table: &Table<'_>) -> BTreeMap<SetName, Set> {
        let mut sets = BTreeMap::new();
        for (key, value) in table {
            let name = key.get_ref().to_string();
            let Ok(name) = SetName::parse(&name) else {
                self.fault(&key.span(), "this cannot be the name of a set".to_owned());
                continue;
            };
            let Some(table) = self.table(value, "a set") else { continue };
            let mut set = Set::new();
            for (key, value) in table {
                match &*key.get_ref().to_string() {
                    "env" => {
                        if let Some(table) = self.table(value, "env") {
                            set = self.set(table);
                        }
                    }
                    "files" => self.no_files(key.span()),
                    other => self.unknown(key.span(), other, &["env", "files"]),
                }
            }
            sets.insert(name, set);
        }
        sets
    }

    fn set(&mut self, table: &Table<'_>) -> Set {
        let mut set = Set::new();
        for (key, value) in table {
            let name = key.get_ref().to_string();
            match VarName::parse(&name) {
                Err(error) => self.fault(&key.span(), error.to_string()),
                Ok(name) if env_vars::steers(name.as_str()) => {
                    let cause = format!("{name} steers what runs or where it talks; a set may not lend it");
                    self.fault(&key.span(), cause);
                }
                Ok(name) => {
                    if let Some(source) = self.source(&name, value) {
                        set.push((name, source));
                    }
                }
            }
        }
        set
    }

    fn source(&mut self, name: &VarName, value: &Value<'_>) -> Option<Source> {
        match value.get_ref() {
            DeValue::String(text) => match Reference::parse(text) {
                Ok(reference) => return Some(Source::Reference(reference)),
                Err(error) => self.fault(
                    &value.span(),
                    format!("{name}: {error}; a value that is no secret is written {{ value = \"…\" }}"),
                ),
            },
            DeValue::Table(table) => {
                let literal = table.get("value").map(Spanned::get_ref);
                for (key, _) in table {
                    let key_name = key.get_ref().to_string();
                    if key_name != "value" {
                        self.unknown(key.span(), &key_name, &["value"]);
                    }
                }
                match literal {
                    Some(DeValue::String(text)) if text.contains('\0') => {
                        self.fault(&value.span(), format!("{name}: no environment can carry a NUL"));
                    }
                    Some(DeValue::String(text)) => return Some(Source::Literal(text.to_string())),
                    _ => self.fault(&value.span(), format!("{name}: {{ value = \"…\" }} is wanted")),
                }
            }
            _ => self.fault(
                &value.span(),
                format!("{name}: a reference (\"VAULT://ITEM/FIELD\") or {{ value = \"…\" }} is wanted"),
            ),
        }
        None
    }

    fn table<'v>(&mut self, value: &'v Value<'_>, name: &str) -> Option<&'v Table<'v>>
    where
        Self: 'v,
    {
        if let DeValue::Table(table) = value.get_ref() {
            return Some(table);
        }
        self.fault(&value.span(), format!("{name} must be a table"));
        None
    }

    fn unknown(&mut self, at: Range<usize>, key: &str, known: &[&str]) {
        let shown = escaped(key, 60);
        let cause = match nearest(key, known) {
            Some(near) => format!("unknown key '{shown}'; '{near}'?"),
            None => format!("unknown key '{shown}' (known: {})", known.join(", ")),
        };
        self.fault(&at, cause);
    }

    fn no_files(&mut self, at: Range<usize>) {
        self.fault(&at, "this version of keyloan lends variables only, no files".to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(text: &str) -> Vec<String> {
        parse(text).unwrap_err().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn references_literals_and_named_sets_are_read() {
        let manifest = parse(
            "[env]\nTWINE_USERNAME = { value = \"__token__\" }\nTWINE_PASSWORD = \"local://pypi/token\"\n\
             [sets.deploy.env]\nAWS_SECRET_ACCESS_KEY = \"bw://aws-deploy/secret\"\n",
        )
        .unwrap();
        let env = manifest.env.unwrap();
        assert!(env.iter().any(|(name, source)| name.as_str() == "TWINE_USERNAME"
            && *source == Source::Literal("__token__".to_owned())));
        let reference = Reference::parse("bw://aws-deploy/secret").unwrap();
        let deploy = &manifest.sets[&SetName::parse("deploy").unwrap()];
        assert_eq!(deploy[0].1, Source::Reference(reference));
    }

    #[test]
    fn every_fault_is_told_by_line_and_column_at_once() {
        let told =
            faults("[evn]\nA = 1\n[env]\nLD_PRELOAD = \"local://a/b\"\n\"B-C\" = \"local://a/b\"\nD = 7\n");
        assert_eq!(told.len(), 4, "{told:?}");
        assert!(told.iter().any(|fault| fault == "line 1, column 2: unknown key 'evn'; 'env'?"), "{told:?}");
        assert!(told.iter().any(|fault| fault.starts_with("line 4, column 1: LD_PRELOAD steers")));
        assert!(told.iter().any(|fault| fault.starts_with("line 5, column 1: a variable's name")));
        assert!(told.iter().any(|fault| fault.starts_with("line 6, column 5: D: a reference")));
    }

    #[test]
    fn a_secret_pasted_into_the_file_is_not_repeated() {
        for text in [
            "[env]\nA = \"hunter2secret\"\n",
            "[env]\nA = hunter2secret\n",
            "[env]\nA = { value = hunter2secret }\n",
        ] {
            let told = faults(text).join("\n");
            assert!(told.starts_with("line 2, column "), "{told}");
            assert!(!told.contains("hunter2"), "{told}");
        }
    }
}
