//! `.keyloan.toml`: references, never values. Every fault is found at once and told by line and column;
//! nothing of the file is repeated but its keys, since a secret may have been pasted into it.

use keyloan_protocol::control::response::FileForm;
use keyloan_protocol::env_vars;
use keyloan_protocol::names::{FileName, SetName, VarName, escaped, nearest};
use keyloan_protocol::reference::Reference;
use keyloan_protocol::time_span::TimeSpan;
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
    /// Lent as files; one, but for a directory.
    Files(FileForm, Vec<(FileName, Reference)>),
}

pub(crate) type Set = Vec<(VarName, Source)>;

#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Manifest {
    /// `[env]` and `[files]`: the default set; `None` where the file has neither.
    pub(crate) default: Option<Set>,
    pub(crate) sets: BTreeMap<SetName, Set>,
    /// `[shell]` of the default set (no name), and of named ones.
    pub(crate) shells: BTreeMap<Option<SetName>, Terms>,
}

/// How long a shell may keep a set.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Terms {
    pub(crate) time: Option<TimeSpan>,
    /// Only while it is in the directory of the file, or below.
    pub(crate) until_leaving: bool,
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
    reader.faults.sort_by_key(|fault| (fault.line, fault.column));
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
        if table.contains_key("env") || table.contains_key("files") {
            manifest.default = Some(self.env_and_files(table));
        }
        for (key, value) in table {
            match &*key.get_ref().to_string() {
                "env" | "files" => {}
                "shell" => {
                    manifest.shells.insert(None, self.terms(value));
                }
                "sets" => {
                    if let Some(table) = self.table(value, "sets") {
                        manifest.sets = self.sets(table, &mut manifest.shells);
                    }
                }
                other => self.unknown(key.span(), other, &["env", "files", "sets", "shell"]),
            }
        }
        manifest
    }

    /// The variables of the tables `env` and `files` that stand side by side.
    fn env_and_files(&mut self, table: &Table<'_>) -> Set {
        let mut set = Set::new();
        if let Some(env) = table.get("env").and_then(|value| self.table(value, "env")) {
            self.variables(env, &mut set, Self::value);
        }
        if let Some(files) = table.get("files").and_then(|value| self.table(value, "files")) {
            self.variables(files, &mut set, Self::files);
        }
        set
    }

    /// `[shell]`.
    fn terms(&mut self, value: &Value<'_>) -> Terms {
        let mut terms = Terms::default();
        let Some(table) = self.table(value, "shell") else { return terms };
        self.known_keys(table, &["time", "until-leaving"]);
        match table.get("time").map(|time| (time, time.get_ref())) {
            None => {}
            Some((at, DeValue::String(text))) => match TimeSpan::parse(text) {
                Ok(time) => terms.time = Some(time),
                Err(error) => self.fault(&at.span(), format!("time: {error}")),
            },
            Some((at, _)) => self.fault(&at.span(), "time: a text such as \"30m\" is wanted".to_owned()),
        }
        match table.get("until-leaving").map(|leaving| (leaving, leaving.get_ref())) {
            None => {}
            Some((_, DeValue::Boolean(leaving))) => terms.until_leaving = *leaving,
            Some((at, _)) => self.fault(&at.span(), "until-leaving: true or false is wanted".to_owned()),
        }
        terms
    }

    fn sets(
        &mut self,
        table: &Table<'_>,
        shells: &mut BTreeMap<Option<SetName>, Terms>,
    ) -> BTreeMap<SetName, Set> {
        let mut sets = BTreeMap::new();
        for (key, value) in table {
            let name = key.get_ref().to_string();
            let Ok(name) = SetName::parse(&name) else {
                self.fault(&key.span(), "this cannot be the name of a set".to_owned());
                continue;
            };
            let Some(table) = self.table(value, "a set") else { continue };
            for (key, value) in table {
                match &*key.get_ref().to_string() {
                    "env" | "files" => {}
                    "shell" => {
                        shells.insert(Some(name.clone()), self.terms(value));
                    }
                    other => self.unknown(key.span(), other, &["env", "files", "shell"]),
                }
            }
            let set = self.env_and_files(table);
            sets.insert(name, set);
        }
        sets
    }

    fn variables(
        &mut self,
        table: &Table<'_>,
        set: &mut Set,
        source: fn(&mut Self, &VarName, &Value<'_>) -> Option<Source>,
    ) {
        for (key, value) in table {
            let name = match VarName::parse(key.get_ref().as_ref()) {
                Ok(name) => name,
                Err(error) => {
                    self.fault(&key.span(), error.to_string());
                    continue;
                }
            };
            if set.iter().any(|(other, _)| *other == name) {
                self.fault(&key.span(), format!("{name} is in env and in files"));
            } else if let Some(source) = source(self, &name, value) {
                let is_file = matches!(source, Source::Files(..));
                match refusal(&name, is_file) {
                    Some(cause) => self.fault(&key.span(), cause),
                    None => set.push((name, source)),
                }
            }
        }
    }

    /// A variable of `env`.
    fn value(&mut self, name: &VarName, value: &Value<'_>) -> Option<Source> {
        match value.get_ref() {
            DeValue::String(text) => match Reference::parse(text) {
                Ok(reference) => return Some(Source::Reference(reference)),
                Err(error) => self.fault(
                    &value.span(),
                    format!("{name}: {error}; a value that is no secret is written {{ value = \"…\" }}"),
                ),
            },
            DeValue::Table(table) => {
                self.known_keys(table, &["value"]);
                match table.get("value").map(Spanned::get_ref) {
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

    /// A variable of `files`.
    fn files(&mut self, name: &VarName, value: &Value<'_>) -> Option<Source> {
        let DeValue::Table(table) = value.get_ref() else {
            let reference = self.reference(name, value)?;
            let file = FileName::parse(name.as_str()).ok()?;
            return Some(Source::Files(FileForm::Descriptor, vec![(file, reference)]));
        };
        let form = match table.get("as").map(Spanned::get_ref) {
            Some(DeValue::String(form)) if form == "path" => FileForm::Path,
            Some(DeValue::String(form)) if form == "dir" => FileForm::Directory,
            _ => {
                self.fault(&value.span(), format!("{name}: as = \"path\" or as = \"dir\" is wanted"));
                return None;
            }
        };
        let parts = if form == FileForm::Path {
            self.known_keys(table, &["ref", "as", "name"]);
            let Some(reference) = table.get("ref") else {
                self.fault(&value.span(), format!("{name}: ref = \"VAULT://ITEM/FIELD\" is wanted"));
                return None;
            };
            let file = match table.get("name") {
                Some(given) => self.file_name(name, given)?,
                None => FileName::parse(name.as_str()).ok()?,
            };
            vec![(file, self.reference(name, reference)?)]
        } else {
            self.known_keys(table, &["files", "as"]);
            let Some(DeValue::Table(files)) = table.get("files").map(Spanned::get_ref) else {
                let cause = format!("{name}: files = {{ \"NAME\" = \"VAULT://ITEM/FIELD\" }} is wanted");
                self.fault(&value.span(), cause);
                return None;
            };
            let mut parts = Vec::new();
            for (key, value) in files {
                match FileName::parse(key.get_ref().as_ref()) {
                    Ok(file) => parts.extend(self.reference(name, value).map(|reference| (file, reference))),
                    Err(error) => self.fault(&key.span(), format!("{name}: {error}")),
                }
            }
            if files.is_empty() {
                self.fault(&value.span(), format!("{name}: a directory without files"));
            }
            parts
        };
        Some(Source::Files(form, parts))
    }

    fn reference(&mut self, name: &VarName, value: &Value<'_>) -> Option<Reference> {
        let parsed = match value.get_ref() {
            DeValue::String(text) => Reference::parse(text).map_err(|error| error.to_string()),
            _ => Err("a reference (\"VAULT://ITEM/FIELD\") is wanted".to_owned()),
        };
        parsed.map_err(|cause| self.fault(&value.span(), format!("{name}: {cause}"))).ok()
    }

    fn file_name(&mut self, name: &VarName, value: &Value<'_>) -> Option<FileName> {
        let parsed = match value.get_ref() {
            DeValue::String(text) => FileName::parse(text).map_err(|error| error.to_string()),
            _ => Err("name takes the name of a file".to_owned()),
        };
        parsed.map_err(|cause| self.fault(&value.span(), format!("{name}: {cause}"))).ok()
    }

    fn known_keys(&mut self, table: &Table<'_>, known: &[&str]) {
        for (key, _) in table {
            let name = key.get_ref().to_string();
            if !known.contains(&&*name) {
                self.unknown(key.span(), &name, known);
            }
        }
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
}

/// Why a variable may not be lent in this way, though it is one.
fn refusal(name: &VarName, is_file: bool) -> Option<String> {
    if is_file {
        let cause = format!("{name} steers what runs or where it talks; no file may be lent in it");
        return (!env_vars::may_name_a_file(name.as_str())).then_some(cause);
    }
    let hint = if env_vars::may_name_a_file(name.as_str()) { "; [files] may" } else { "" };
    let cause = format!("{name} steers what runs or where it talks; a set may not lend it{hint}");
    env_vars::steers(name.as_str()).then_some(cause)
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
        let env = manifest.default.unwrap();
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
    fn a_set_says_how_long_a_shell_keeps_it() {
        let text =
            "[env]\n[shell]\ntime = \"2h\"\n[sets.deploy.env]\n[sets.deploy.shell]\nuntil-leaving = true\n";
        let shells = parse(text).unwrap().shells;
        let terms = |time: Option<&str>, until_leaving| Terms {
            time: time.map(|time| TimeSpan::parse(time).unwrap()),
            until_leaving,
        };
        assert_eq!(shells[&None], terms(Some("2h"), false));
        assert_eq!(shells[&Some(SetName::parse("deploy").unwrap())], terms(None, true));
        for (text, said) in [
            ("[shell]\ntime = 15\n", "line 2, column 8: time: a text such as"),
            ("[shell]\ntime = \"soon\"\n", "line 2, column 8: time: a time is written"),
            ("[shell]\nuntil-leaving = \"yes\"\n", "true or false"),
            ("[shell]\ntiem = \"1h\"\n", "unknown key 'tiem'; 'time'?"),
            ("shell = 1\n", "shell must be a table"),
        ] {
            assert!(faults(text).iter().any(|fault| fault.contains(said)), "{text}: {:?}", faults(text));
        }
    }

    #[test]
    fn files_are_read_in_their_three_forms() {
        let text = "[files]\nA = \"local://a/b\"\nKUBECONFIG = { ref = \"local://k/c\", as = \"path\", \
                    name = \"config\" }\nDOCKER_CONFIG = { as = \"dir\", files = { \"config.json\" = \
                    \"local://d/c\" } }\n";
        let set = parse(text).unwrap().default.unwrap();
        let shape = |name: &str| match &set.iter().find(|(held, _)| held.as_str() == name).unwrap().1 {
            Source::Files(form, parts) => (*form, parts[0].0.to_string(), parts[0].1.to_string()),
            other => panic!("{other:?}"),
        };
        assert_eq!(shape("A"), (FileForm::Descriptor, "A".to_owned(), "local://a/b".to_owned()));
        assert_eq!(shape("KUBECONFIG"), (FileForm::Path, "config".to_owned(), "local://k/c".to_owned()));
        let docker = (FileForm::Directory, "config.json".to_owned(), "local://d/c".to_owned());
        assert_eq!(shape("DOCKER_CONFIG"), docker);
        for (text, said) in [
            ("[files]\nLD_PRELOAD = \"local://a/b\"\n", "no file may be lent in it"),
            ("[files]\nA = { ref = \"local://a/b\", as = \"fd\" }\n", "as = \"path\" or"),
            ("[files]\nA = { as = \"path\" }\n", "ref = "),
            ("[files]\nA = { ref = \"local://a/b\", as = \"path\", name = \"../x\" }\n", "without '/'"),
            ("[files]\nA = { as = \"dir\", files = { \"..\" = \"local://a/b\" } }\n", "neither '.'"),
            ("[env]\nKUBECONFIG = \"local://a/b\"\n", "may not lend it; [files] may"),
            ("[env]\nA = \"local://a/b\"\n[files]\nA = \"local://a/b\"\n", "A is in env and in files"),
        ] {
            assert!(faults(text).iter().any(|fault| fault.contains(said)), "{text}: {:?}", faults(text));
        }
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
