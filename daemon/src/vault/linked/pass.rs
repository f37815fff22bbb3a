//! `pass`, the standard Unix password manager: a directory of files, each encrypted by gpg to whoever may read it.
//!
//! keyloan walks the directory itself and hands each file to `gpg` on standard input, one process a file, since gpg
//! decrypts several files only into files. The passphrase is the business of gpg-agent and of whatever pinentry that
//! has. Nothing binds a file to its name: whoever can write the store can put one file in another's place.
//!
//! Fields of an item: `password` is its first line; `KEY` what follows `KEY:` in a later line; `otpauth` the line that
//! begins so; `all` the text as it is; `vars` likewise where the first line is blank or begins with `#`. A text that begins
//! with a password is no set: the password could pass for a variable's name, and names are written down.

use super::links::Link;
use super::pinned::Pinned;
use super::runner::{Ended, Order, together};
use super::{Call, Doing, Fault, LinkedVault, Listed, Read};
use crate::patience;
use keyloan_protocol::limits;
use keyloan_protocol::names::{FieldName, ItemName};
use keyloan_protocol::reference::Reference;
use keyloan_protocol::secret::SecretBytes;
use std::collections::HashMap;
use std::ffi::OsString;
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A person may have to find a passphrase or a card.
const DEADLINE: Duration = Duration::from_secs(90);
/// Processes at once.
const AT_ONCE: usize = 4;
/// Files of one store, and directories above one another.
const FILES: usize = 100_000;
const DEEP: usize = 32;
/// The longest file: encryption adds little.
const MOST: usize = 2 * limits::FIELD_VALUE;

const ENDING: &str = ".gpg";

pub(super) struct Pass {
    store: PathBuf,
    gpg: Pinned,
    gnupghome: Option<OsString>,
}

impl Pass {
    pub(super) fn open(link: &Link) -> Result<Self, Fault> {
        Ok(Self {
            store: link.path("store")?,
            gpg: link.program("gpg")?.clone(),
            gnupghome: link.setting("gnupghome").map(OsString::from),
        })
    }

    async fn gpg(
        &self,
        call: &Call,
        arguments: &[&str],
        input: Option<&SecretBytes>,
    ) -> Result<Ended, Fault> {
        let mut variables: Vec<(&str, OsString)> = call.desktop.clone();
        variables.extend(self.gnupghome.clone().map(|home| ("GNUPGHOME", home)));
        variables.extend(call.terminal.clone().map(|terminal| ("GPG_TTY", terminal.into())));
        let common = ["--batch", "--quiet", "--no-tty", "--status-fd", "2"];
        let arguments = common.iter().chain(arguments).map(OsString::from).collect();
        Order { program: &self.gpg, arguments, variables, input, most: MOST, deadline: DEADLINE }.run().await
    }

    /// What an item's file says.
    async fn text(&self, call: &Call, item: &ItemName) -> Read {
        let path = self.file(item)?;
        let name = item.to_string();
        let looked = patience::look(move || content(&path, &name)).await;
        let encrypted = looked.unwrap_or_else(|| Err(self.unanswered()))?;
        // What little encrypted text unpacks to could be all of the memory there is.
        let limit = MOST.to_string();
        let ended = self.gpg(call, &["--max-output", &limit, "--decrypt"], Some(&encrypted)).await?;
        judged(&ended, item)?;
        Ok(ended.output)
    }

    /// The file of an item. Its name stays in the store.
    fn file(&self, item: &ItemName) -> Result<PathBuf, Fault> {
        let text = item.as_str();
        if text.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(Fault::NoItem(text.to_owned()));
        }
        Ok(self.store.join(format!("{text}{ENDING}")))
    }

    fn unanswered(&self) -> Fault {
        Fault::Unreachable(format!("the file system of {} does not answer", self.store.display()))
    }

    async fn texts(&self, call: &Call, items: &[&ItemName]) -> Result<Vec<Read>, Fault> {
        let mut texts = Vec::with_capacity(items.len());
        let mut rest = items;
        // The first alone: while the agent asks for a passphrase, each further process would have it ask again.
        let mut at_once = 1;
        while !rest.is_empty() {
            let (some, after) = rest.split_at(at_once.min(rest.len()));
            texts.extend(together(some.iter().map(|item| self.text(call, item)).collect()).await);
            if let Some(Err(fault)) =
                texts.iter().find(|text| matches!(text, Err(fault) if !fault.is_about_the_item()))
            {
                return Err(fault.clone());
            }
            (rest, at_once) = (after, AT_ONCE);
        }
        Ok(texts)
    }
}

impl LinkedVault for Pass {
    fn state<'a>(&'a self, call: &'a Call) -> Doing<'a, ()> {
        Box::pin(async {
            let store = self.store.clone();
            let recipients = patience::look(move || recipients(&store)).await;
            let recipients = recipients.unwrap_or_else(|| Err(self.unanswered()))?;
            let mut arguments = vec!["--with-colons", "--list-secret-keys", "--"];
            arguments.extend(recipients.iter().map(String::as_str));
            let ended = self.gpg(call, &arguments, None).await?;
            let found = ended.output.expose();
            if found.is_empty() && ended.status == 0 {
                return Err(Fault::Broken(format!(
                    "{} is not the gpg that it should be",
                    self.gpg.path.display()
                )));
            }
            if found.starts_with(b"sec:") || found.windows(5).any(|line| line == b"\nsec:") {
                return Ok(());
            }
            Err(Fault::Refused(format!("gpg has no secret key for {}", recipients.join(", "))))
        })
    }

    fn list<'a>(&'a self, _call: &'a Call) -> Doing<'a, Vec<Listed>> {
        Box::pin(async {
            let store = self.store.clone();
            let listed = patience::look(move || walk(&store)).await;
            listed.unwrap_or_else(|| Err(self.unanswered()))
        })
    }

    fn read<'a>(&'a self, call: &'a Call, wanted: &'a [Reference]) -> Doing<'a, Vec<Read>> {
        Box::pin(async {
            let mut items: Vec<&ItemName> = wanted.iter().map(|reference| &reference.item).collect();
            items.sort_unstable();
            items.dedup();
            let texts = self.texts(call, &items).await?;
            let texts: HashMap<&ItemName, Read> = items.into_iter().zip(texts).collect();
            let one = |reference: &Reference| match texts.get(&reference.item) {
                Some(Ok(text)) => field(text.expose(), reference),
                Some(Err(fault)) => Err(fault.clone()),
                None => Err(Fault::no_item(reference)),
            };
            Ok(wanted.iter().map(one).collect())
        })
    }

    fn patience(&self) -> Duration {
        DEADLINE
    }

    fn hint(&self, fault: &Fault) -> Option<String> {
        match fault {
            Fault::Locked(_) => Some(format!(
                "have gpg-agent ask on a desktop or a terminal of its own: gpg --decrypt {}/ITEM{ENDING} >/dev/null",
                self.store.display()
            )),
            Fault::Refused(_) => Some("gpg --list-secret-keys".to_owned()),
            _ => None,
        }
    }
}

/// Reads a file whole; a pipe in its place would keep whoever reads it waiting.
fn content(path: &Path, item: &str) -> Read {
    let broken = |cause: String| Fault::Broken(format!("{}: {cause}", path.display()));
    let opened =
        std::fs::OpenOptions::new().read(true).custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits()).open(path);
    let file = opened.map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => Fault::NoItem(item.to_owned()),
        _ => broken(error.to_string()),
    })?;
    let found = file.metadata().map_err(|error| broken(error.to_string()))?;
    if !found.is_file() || found.len() > MOST as u64 {
        return Err(broken("it is no file that gpg made, or too long".to_owned()));
    }
    let mut bytes = Vec::new();
    file.take(MOST as u64).read_to_end(&mut bytes).map_err(|error| broken(error.to_string()))?;
    Ok(SecretBytes::new(bytes))
}

/// What gpg's status lines say of a decryption (GnuPG's `doc/DETAILS`). The exit status alone does not tell a wrong
/// passphrase from a key that is not there.
fn judged(ended: &Ended, item: &ItemName) -> Result<(), Fault> {
    let text = String::from_utf8_lossy(ended.errors.expose());
    let lines: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("[GNUPG:] ")).collect();
    let said = |word: &str| lines.iter().any(|line| line.split(' ').next() == Some(word));
    if ended.status == 0 && said("DECRYPTION_OKAY") && !said("DECRYPTION_FAILED") {
        return Ok(());
    }
    // gpg-error.h: the code is in the low 16 bits.
    let code = lines.iter().find_map(|line| {
        let code: u32 = line.strip_prefix("ERROR pkdecrypt_failed ")?.split(' ').next()?.parse().ok()?;
        Some(code & 0xffff)
    });
    match code {
        Some(99) => return Err(Fault::Refused("gpg's question for the passphrase was declined".to_owned())),
        Some(11) => {
            return Err(Fault::Locked("the passphrase that gpg was given was not the right one".to_owned()));
        }
        _ => {}
    }
    if said("NO_SECKEY") && !said("KEY_CONSIDERED") {
        return Err(Fault::Refused(format!("gpg has no secret key that opens '{item}'")));
    }
    if said("ENC_TO") && said("DECRYPTION_FAILED") && !said("DECRYPTION_KEY") {
        return Err(Fault::Locked("gpg-agent could not ask for the passphrase".to_owned()));
    }
    Err(Fault::Broken(format!("gpg cannot make sense of '{item}'")))
}

/// The keys that the store is encrypted to.
fn recipients(store: &Path) -> Result<Vec<String>, Fault> {
    let path = store.join(".gpg-id");
    let text = std::fs::read_to_string(&path)
        .map_err(|_| Fault::Broken(format!("{} is no password store: it has no .gpg-id", store.display())))?;
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim().to_owned());
    Ok(lines.filter(|line| !line.is_empty()).collect())
}

/// Every item, by name. Hidden directories are git's and other programs'.
fn walk(store: &Path) -> Result<Vec<Listed>, Fault> {
    let mut listed = Vec::new();
    let mut open = vec![(store.to_owned(), String::new(), 0)];
    while let Some((directory, prefix, depth)) = open.pop() {
        let entries = std::fs::read_dir(&directory)
            .map_err(|error| Fault::Broken(format!("{}: {error}", directory.display())))?;
        for entry in entries.flatten() {
            // A name that is not text, or holds a line end, cannot be written in a reference.
            let Some(name) = entry.file_name().to_str().map(str::to_owned) else { continue };
            if name.starts_with('.') {
                continue;
            }
            let path = entry.path();
            if path.is_dir() {
                if depth < DEEP {
                    open.push((path, format!("{prefix}{name}/"), depth + 1));
                }
            } else if let Some(title) = name.strip_suffix(ENDING)
                && let Ok(item) = ItemName::parse(&format!("{prefix}{title}"))
                && let (Ok(password), Ok(all)) = (FieldName::parse("password"), FieldName::parse("all"))
            {
                listed.push(Listed { item, fields: vec![password, all] });
            }
            if listed.len() > FILES {
                return Err(Fault::Broken(format!("{} holds more than {FILES} items", store.display())));
            }
        }
    }
    listed.sort_unstable_by(|a, b| a.item.cmp(&b.item));
    Ok(listed)
}

/// A field of an item's text.
fn field(text: &[u8], reference: &Reference) -> Read {
    let wanted = reference.field.as_str();
    let mut lines = text.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let first = lines.next().unwrap_or_default();
    let is_otpauth = |line: &&[u8]| line.starts_with(b"otpauth://");
    let named = |line: &'_ [u8]| -> Option<std::ops::Range<usize>> {
        let colon = line.iter().position(|byte| *byte == b':')?;
        (line[..colon].trim_ascii() == wanted.as_bytes() && !is_otpauth(&line))
            .then_some(colon + 1..line.len())
    };
    let found: Vec<&[u8]> = match wanted {
        "all" => return Ok(SecretBytes::copy_of(text)),
        "password" => vec![first],
        "otpauth" => text.split(|byte| *byte == b'\n').filter(is_otpauth).collect(),
        _ => lines.filter_map(|line| Some(line[named(line)?].trim_ascii())).collect(),
    };
    match found.as_slice() {
        [one] => Ok(SecretBytes::copy_of(one)),
        [] if wanted == "vars" && matches!(first.trim_ascii().first(), None | Some(b'#')) => {
            Ok(SecretBytes::copy_of(text))
        }
        [] => Err(Fault::no_field(reference)),
        _ => Err(Fault::Ambiguous { what: reference.to_string(), candidates: Vec::new() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, field_name: &str) -> Result<String, Fault> {
        let reference = Reference::parse(&format!("pass://web/{field_name}")).unwrap();
        field(text.as_bytes(), &reference).map(|value| String::from_utf8(value.expose().to_vec()).unwrap())
    }

    #[test]
    fn the_first_line_is_the_password_and_later_ones_are_fields() {
        let text =
            "s3cret: x\nuser: me\r\nurl:https://a:b\n empty :\notpauth://totp/a:b?secret=X\npin: 1\npin: 2\n";
        assert_eq!(read(text, "password").unwrap(), "s3cret: x");
        assert_eq!(read(text, "user").unwrap(), "me");
        assert_eq!(read(text, "url").unwrap(), "https://a:b");
        assert_eq!(read(text, "empty").unwrap(), "");
        assert_eq!(read(text, "otpauth").unwrap(), "otpauth://totp/a:b?secret=X");
        assert_eq!(read(text, "all").unwrap(), text);
        assert!(matches!(read(text, "s3cret"), Err(Fault::NoField { .. })));
        assert!(matches!(read(text, "pin"), Err(Fault::Ambiguous { .. })));
    }

    #[test]
    fn an_item_is_a_set_of_variables_where_its_first_line_cannot_be_a_password() {
        for set in ["# coverage\nA=1\nB=2\n", "\nA=1\n", " \r\nA=1\n"] {
            assert_eq!(read(set, "vars").unwrap(), set);
        }
        for other in ["QUJDREVGR0g=\n", "A=1\nB=2\n", "pw"] {
            assert!(matches!(read(other, "vars"), Err(Fault::NoField { .. })), "{other}");
        }
        assert_eq!(read("pw\nvars: A=1\n", "vars").unwrap(), "A=1");
    }

    #[test]
    fn a_name_does_not_lead_out_of_the_store() {
        let pass = Pass {
            store: PathBuf::from("/s"),
            gpg: Pinned { path: PathBuf::from("/usr/bin/gpg"), sha256: None },
            gnupghome: None,
        };
        for bad in ["../x", "a/../../x", "/etc/x", "a//b", "./x"] {
            assert!(pass.file(&ItemName::parse(bad).unwrap()).is_err(), "{bad}");
        }
        assert_eq!(pass.file(&ItemName::parse("web/x'y").unwrap()).unwrap(), PathBuf::from("/s/web/x'y.gpg"));
    }
}
