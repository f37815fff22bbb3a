//! Any program that prints a value: for vaults that keyloan does not know. It is run by its pinned path with arguments
//! from a template, never by a shell. What it is given to run is pinned as well.

use super::links::Link;
use super::pinned::{self, Pinned};
use super::runner::{AT_ONCE, Ended, Order, in_rounds};
use super::{Call, CertificateAsk, Doing, Fault, LinkedVault, Listed, Read};
use keyloan_protocol::limits;
use keyloan_protocol::names::ItemName;
use keyloan_protocol::reference::Reference;
use keyloan_protocol::secret::SecretBytes;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;
use zeroize::Zeroizing;

/// The output of a whole batch.
const BATCH: usize = limits::FRAME;
const SECONDS: std::ops::RangeInclusive<u64> = 1..=300;

/// Programs that run what their arguments name even where that does not look like a program, without the number of their
/// version.
const INTERPRETERS: [&str; 26] = [
    "ash", "awk", "bash", "bun", "busybox", "dash", "deno", "env", "fish", "gawk", "guile", "java", "ksh",
    "lua", "mawk", "mksh", "node", "nodejs", "perl", "php", "python", "ruby", "Rscript", "sh", "tclsh",
    "zsh",
];

pub(super) struct Command {
    program: Pinned,
    scripts: Vec<Pinned>,
    read: Template,
    batch: Option<Template>,
    list: Option<Template>,
    test: Option<Template>,
    certificate: Option<Template>,
    missing: Option<i32>,
    environment: Vec<(String, String)>,
    /// Variables that hold the link's secrets.
    secrets: Vec<String>,
    deadline: Duration,
}

/// Arguments, in which `{item}` and the like stand for names.
#[derive(Debug, PartialEq, Eq)]
struct Template(Vec<String>);

impl Template {
    /// Words, or a list in JSON where one has white space in it.
    fn parse(text: &str) -> Result<Self, Fault> {
        if text.trim_start().starts_with('[') {
            let words = serde_json::from_str(text);
            return words
                .map(Self)
                .map_err(|_| Fault::Broken("a template that begins with [ is a JSON list".to_owned()));
        }
        Ok(Self(text.split_whitespace().map(str::to_owned).collect()))
    }

    fn filled(&self, reference: &Reference) -> Result<Vec<OsString>, Fault> {
        self.put(&[("{item}", reference.item.as_str()), ("{field}", reference.field.as_str())])
    }

    fn put(&self, names: &[(&str, &str)]) -> Result<Vec<OsString>, Fault> {
        let fill = |word: &String| {
            // What a name holds is no template.
            let (mut filled, mut rest) = (String::new(), word.as_str());
            while let Some(at) = rest.find('{') {
                let (before, from) = rest.split_at(at);
                filled.push_str(before);
                let found = names.iter().find(|(name, _)| from.starts_with(name));
                let (value, length) = found.map_or(("{", 1), |(name, value)| (*value, name.len()));
                filled.push_str(value);
                rest = &from[length..];
            }
            filled.push_str(rest);
            if filled.starts_with('-') && !word.starts_with('-') {
                let cause = "a name that begins with '-' would pass for an option of the program";
                return Err(Fault::Refused(cause.to_owned()));
            }
            Ok(OsString::from(filled))
        };
        self.0.iter().map(fill).collect()
    }

    fn plain(&self) -> Vec<OsString> {
        self.0.iter().map(OsString::from).collect()
    }
}

impl Command {
    pub(super) fn open(link: &Link) -> Result<Self, Fault> {
        let optional = |key: &str| link.setting(key).map(Template::parse).transpose();
        let wrong = |key: &str, what: &str| Fault::Broken(format!("{key} takes {what}"));
        let missing = link.setting("missing").map(str::parse).transpose();
        let seconds: u64 = link.setting("seconds").unwrap_or("20").parse().unwrap_or(0);
        if !SECONDS.contains(&seconds) {
            return Err(wrong("seconds", "a number from 1 to 300"));
        }
        let variable = |text: &str| {
            let split = text.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
            split.ok_or_else(|| wrong("environment", "NAME=value, with spaces between"))
        };
        let environment = link.setting("environment").unwrap_or_default().split_whitespace();
        let secrets: Vec<String> =
            link.setting("secrets").unwrap_or_default().split_whitespace().map(str::to_owned).collect();
        if !secrets.iter().all(|name| is_variable(name)) {
            return Err(wrong("secrets", "names of variables of the program's own, with spaces between"));
        }
        let scripts = link.programs.iter().filter(|(key, _)| *key != "program");
        Ok(Self {
            program: link.program("program")?.clone(),
            scripts: scripts.map(|(_, pinned)| pinned.clone()).collect(),
            read: optional("read")?.ok_or_else(|| wrong("read", "the program's arguments"))?,
            batch: optional("batch")?,
            list: optional("list")?,
            test: optional("test")?,
            certificate: optional("certificate")?,
            missing: missing.map_err(|_| wrong("missing", "a status"))?,
            environment: environment.map(variable).collect::<Result<_, _>>()?,
            secrets,
            deadline: Duration::from_secs(seconds),
        })
    }

    async fn check(&self) -> Result<(), Fault> {
        for script in &self.scripts {
            script.check().await?;
        }
        Ok(())
    }

    async fn run(
        &self,
        call: &Call,
        arguments: Vec<OsString>,
        input: Option<&SecretBytes>,
        most: usize,
    ) -> Result<Ended, Fault> {
        self.check().await?;
        let variables = self.environment.iter();
        let mut variables: Vec<(&str, OsString)> =
            variables.map(|(name, value)| (name.as_str(), OsString::from(value))).collect();
        for name in &self.secrets {
            let missing = || Fault::Locked(format!("no {name} is known for it"));
            let secret = call.secrets.expose(name).ok_or_else(missing)?;
            variables.push((name, OsStr::from_bytes(secret.expose()).to_owned()));
        }
        let deadline = self.deadline;
        Order { program: &self.program, arguments, variables, input, most, deadline }.run().await
    }

    fn failed(&self, status: i32) -> Fault {
        Fault::Refused(format!("{} ended with status {status}", self.program.path.display()))
    }

    async fn one(&self, call: &Call, reference: &Reference) -> Read {
        let ended = self.run(call, self.read.filled(reference)?, None, limits::FIELD_VALUE + 1).await?;
        match ended.status {
            // An empty value is a line end; nothing at all is a program that wrote elsewhere.
            0 if ended.output.is_empty() => {
                Err(Fault::Broken(format!("{} printed nothing", self.program.path.display())))
            }
            0 => {
                let value = ended.output.expose();
                // Every other program ends what it prints with a line end; one that is part of a value comes in pairs.
                Ok(SecretBytes::copy_of(value.strip_suffix(b"\n").unwrap_or(value)))
            }
            status if Some(status) == self.missing => Err(Fault::no_item(reference)),
            status => Err(self.failed(status)),
        }
    }

    /// All at once: `ITEM NUL FIELD NUL` for each on standard input, and back, in the same order, `+VALUE NUL`, or `-NUL`
    /// for what is not there.
    async fn many(&self, call: &Call, batch: &Template, wanted: &[Reference]) -> Result<Vec<Read>, Fault> {
        let length = wanted.iter().map(|one| one.item.as_str().len() + one.field.as_str().len() + 2).sum();
        let mut input = Zeroizing::new(Vec::with_capacity(length));
        for reference in wanted {
            for name in [reference.item.as_str(), reference.field.as_str()] {
                input.extend_from_slice(name.as_bytes());
                input.push(0);
            }
        }
        let ended = self.run(call, batch.plain(), Some(&SecretBytes::copy_of(&input)), BATCH).await?;
        if ended.status != 0 {
            return Err(self.failed(ended.status));
        }
        let garbage = || {
            Fault::Broken(format!("{} does not answer as docs/vaults.md has it", self.program.path.display()))
        };
        let answers = ended.output.expose().strip_suffix(b"\0").ok_or_else(garbage)?;
        let answers: Vec<&[u8]> = answers.split(|byte| *byte == 0).collect();
        if answers.len() != wanted.len() {
            return Err(garbage());
        }
        let read = |(answer, reference): (&&[u8], &Reference)| match answer.split_first() {
            Some((b'+', value)) => Ok(Ok(SecretBytes::copy_of(value))),
            Some((b'-', [])) => Ok(Err(Fault::no_item(reference))),
            _ => Err(garbage()),
        };
        answers.iter().zip(wanted).map(read).collect()
    }
}

impl LinkedVault for Command {
    fn state<'a>(&'a self, call: &'a Call) -> Doing<'a, ()> {
        Box::pin(async {
            let Some(test) = &self.test else {
                self.check().await?;
                return self.program.check().await;
            };
            let ended = self.run(call, test.plain(), None, limits::FIELD_VALUE).await?;
            if ended.status == 0 { Ok(()) } else { Err(self.failed(ended.status)) }
        })
    }

    fn list<'a>(&'a self, call: &'a Call) -> Doing<'a, Vec<Listed>> {
        Box::pin(async {
            let cannot = || Fault::Unable("its link does not say how it lists: list=ARGUMENTS".to_owned());
            let ended = self.run(call, self.list.as_ref().ok_or_else(cannot)?.plain(), None, BATCH).await?;
            if ended.status != 0 {
                return Err(self.failed(ended.status));
            }
            let lines = ended.output.expose().split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
            let item = |line: &[u8]| ItemName::parse(str::from_utf8(line).ok()?).ok();
            let listed = lines.filter_map(item).map(|item| Listed { item, fields: Vec::new() });
            Ok(listed.collect())
        })
    }

    fn read<'a>(&'a self, call: &'a Call, wanted: &'a [Reference]) -> Doing<'a, Vec<Read>> {
        Box::pin(async {
            if let Some(batch) = &self.batch {
                return self.many(call, batch, wanted).await;
            }
            in_rounds(wanted, AT_ONCE, |reference| self.one(call, reference)).await
        })
    }

    fn certificate<'a>(&'a self, call: &'a Call, ask: &'a CertificateAsk) -> Doing<'a, String> {
        Box::pin(async {
            let cannot = "its link does not say how it makes certificates: certificate=ARGUMENTS";
            let template = self.certificate.as_ref().ok_or_else(|| Fault::Unable(cannot.to_owned()))?;
            let (principals, seconds) = (ask.principals.join(","), ask.ttl.as_secs().to_string());
            let names =
                [("{role}", ask.role.as_str()), ("{principals}", &principals), ("{seconds}", &seconds)];
            let line = SecretBytes::copy_of(format!("{}\n", ask.public).as_bytes());
            let ended = self.run(call, template.put(&names)?, Some(&line), limits::IDENTITY).await?;
            if ended.status != 0 {
                return Err(self.failed(ended.status));
            }
            Ok(String::from_utf8_lossy(ended.output.expose()).trim().to_owned())
        })
    }

    fn patience(&self) -> Duration {
        // One program for all, or some rounds of four; more than that is the vault that does not answer.
        self.deadline * 4
    }

    fn hint(&self, fault: &Fault) -> Option<String> {
        let path = self.program.path.display();
        matches!(fault, Fault::Refused(_)).then(|| format!("try the program by itself: {path}"))
    }
}

/// The files that its arguments have a program run. What an interpreter is given is one in any form; any other program
/// may be a wrapper (`timeout`, `nice`, `find`), so whatever could be run there counts.
pub(super) async fn scripts(link: &Link) -> Result<Vec<PathBuf>, Fault> {
    let program = link.programs.get("program").and_then(|program| program.path.file_name()?.to_str());
    let version = |c: char| c.is_ascii_digit() || c == '.' || c == '-';
    let is_interpreter = program.is_some_and(|name| INTERPRETERS.contains(&name.trim_end_matches(version)));
    // All settings, since one that is no template has no word that is a path.
    let words =
        link.settings.values().filter_map(|text| Template::parse(text).ok()).flat_map(|template| template.0);
    let mut scripts: Vec<PathBuf> = words.filter(|word| word.starts_with('/')).map(PathBuf::from).collect();
    scripts.sort_unstable();
    scripts.dedup();
    if !is_interpreter {
        let mut run = Vec::with_capacity(scripts.len());
        for path in scripts {
            if pinned::is_to_be_run(&path).await? {
                run.push(path);
            }
        }
        scripts = run;
    }
    Ok(scripts)
}

/// Not one that says what the program itself is or loads.
fn is_variable(name: &str) -> bool {
    let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && !name.starts_with(|c: char| c.is_ascii_digit());
    is_name && !["HOME", "PATH", "LANG"].contains(&name) && !name.starts_with("LD_")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(template: &str, reference: &str) -> Result<Vec<OsString>, Fault> {
        Template::parse(template)?.filled(&Reference::parse(reference).unwrap())
    }

    #[test]
    fn names_are_put_in_whole_and_once() {
        let words = |template, reference| filled(template, reference).unwrap();
        assert_eq!(words("show {item} -f={field}", "c://web/it's x/a b"), ["show", "web/it's x", "-f=a b"]);
        assert_eq!(words("{item}", "c://{field}/x"), ["{field}"]);
        assert_eq!(words("[\"a b\",\"{x}{item}\"]", "c://$(id)/x"), ["a b", "{x}$(id)"]);
    }

    #[test]
    fn a_name_does_not_pass_for_an_option() {
        assert!(matches!(filled("{item}", "c://--delete/x"), Err(Fault::Refused(_))));
        assert!(matches!(filled("x {field}", "c://a/-f"), Err(Fault::Refused(_))));
        assert!(matches!(filled("show {item}/{field}", "c://--config=x/y"), Err(Fault::Refused(_))));
        assert!(matches!(filled("{field}:{item}", "c://a/-f"), Err(Fault::Refused(_))));
        assert!(filled("--item={item}", "c://-a/x").is_ok());
    }
}
