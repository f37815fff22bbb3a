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
use super::runner::{Ended, Order, in_rounds};
use super::{Call, Doing, Fault, LinkedVault, Listed, Read};
use crate::clock::since_boot;
use crate::patience::{self, Unread};
use keyloan_protocol::limits;
use keyloan_protocol::names::{FieldName, ItemName};
use keyloan_protocol::reference::Reference;
use keyloan_protocol::secret::SecretBytes;
use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A person may have to find a passphrase or a card.
const DEADLINE: Duration = Duration::from_secs(90);
/// The first file alone: while the agent asks for a passphrase, each further process would have it ask again.
const FIRST: usize = 1;
/// Files and directories of one store, and directories above one another.
const FILES: usize = 100_000;
const DEEP: usize = 32;
/// The longest file: encryption adds little.
const MOST: usize = 2 * limits::FIELD_VALUE;
/// The longest list of keys, the most keys of one, and how many letters a key's name has.
const KEYS_FILE: u64 = 64 * 1024;
const KEYS: usize = 100;
const KEY_NAME: usize = 200;

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
        let name = file_name(item)?;
        let encrypted = patience::file_in(&self.store, &name, MOST as u64).await;
        let encrypted = encrypted.map_err(|unread| match unread {
            unread if unread.is_missing() => Fault::NoItem(item.to_string()),
            unread => Fault::from(unread),
        })?;
        let encrypted = SecretBytes::new(encrypted);
        // What little encrypted text unpacks to could be all of the memory there is.
        let limit = MOST.to_string();
        // The user's gpg.conf may name another place to write to.
        let arguments = ["--max-output", &limit, "--output", "-", "--decrypt"];
        let ended = self.gpg(call, &arguments, Some(&encrypted)).await?;
        judged(&ended, item)?;
        if ended.output.is_empty() {
            return Err(Fault::Broken(format!("gpg gave nothing for '{item}'")));
        }
        Ok(ended.output)
    }

    /// The keys that the store is encrypted to.
    async fn recipients(&self) -> Result<Vec<String>, Fault> {
        let bytes = patience::file_in(&self.store, ".gpg-id", KEYS_FILE).await;
        let bytes = bytes.map_err(|unread| match unread {
            unread if unread.is_missing() => {
                let cause = "is no password store: it has no .gpg-id";
                Fault::Broken(format!("{} {cause}", self.store.display()))
            }
            unread => Fault::from(unread),
        })?;
        let text = String::from_utf8_lossy(&bytes);
        let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
        let names: Vec<String> = lines.filter(|line| !line.is_empty()).map(str::to_owned).collect();
        if names.len() > KEYS || names.iter().any(|name| name.chars().count() > KEY_NAME) {
            let path = self.store.join(".gpg-id");
            return Err(Fault::Broken(format!("{}: it is no list of keys", path.display())));
        }
        Ok(names)
    }
}

impl LinkedVault for Pass {
    fn state<'a>(&'a self, call: &'a Call) -> Doing<'a, ()> {
        Box::pin(async {
            let recipients = self.recipients().await?;
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
            // The store's list is anybody's words; what does not look like a key's name is not shown.
            let shown = if recipients.iter().all(|name| is_name_of_key(name)) {
                recipients.join(", ")
            } else {
                format!("the {} that the store is for", recipients.len())
            };
            Err(Fault::Refused(format!("gpg has no secret key for {shown}")))
        })
    }

    fn list<'a>(&'a self, _call: &'a Call) -> Doing<'a, Vec<Listed>> {
        Box::pin(async {
            let store = self.store.clone();
            let until = since_boot() + patience::LIMIT;
            let listed = patience::look_or_say(move || walk(&store, until)).await;
            listed.unwrap_or_else(|late| Err(Unread::late(late, &self.store).into()))
        })
    }

    fn read<'a>(&'a self, call: &'a Call, wanted: &'a [Reference]) -> Doing<'a, Vec<Read>> {
        Box::pin(async {
            let mut items: Vec<&ItemName> = wanted.iter().map(|reference| &reference.item).collect();
            items.sort_unstable();
            items.dedup();
            let texts = in_rounds(&items, FIRST, |item| self.text(call, item)).await?;
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

/// The file of an item, in the store. Its name does not lead out of that.
fn file_name(item: &ItemName) -> Result<String, Fault> {
    let text = item.as_str();
    if text.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(Fault::NoItem(text.to_owned()));
    }
    Ok(format!("{text}{ENDING}"))
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

/// A key's id, its fingerprint or an address.
fn is_name_of_key(name: &str) -> bool {
    let hex = name.strip_prefix("0x").unwrap_or(name).trim_end_matches('!');
    let is_id = (8..=64).contains(&hex.len()) && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"@._+-".contains(&byte);
    is_id || name.len() <= 100 && name.matches('@').count() == 1 && name.bytes().all(plain)
}

/// Every item, by name. Hidden directories are git's and other programs'. A link is not followed: it could lead out of
/// the store, or round in it for ever, and would give an item a second name.
fn walk(store: &Path, until: Duration) -> Result<Vec<Listed>, Fault> {
    let broken = |cause: String| Fault::Broken(format!("{}: {cause}", store.display()));
    let (mut listed, mut seen) = (Vec::new(), 0);
    let mut open = vec![(store.to_owned(), String::new(), 0)];
    while let Some((directory, prefix, depth)) = open.pop() {
        let entries = match std::fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if depth == 0 => return Err(broken(error.to_string())),
            // What nobody can read cannot be given out, and need not keep the rest.
            Err(_) => continue,
        };
        for entry in entries.flatten() {
            seen += 1;
            if seen > FILES {
                return Err(broken(format!("it holds more than {FILES} files")));
            }
            if since_boot() > until {
                return Err(broken("it takes too long to look through".to_owned()));
            }
            // A name that is not text, or holds a line end, cannot be written in a reference.
            let Some(name) = entry.file_name().to_str().map(str::to_owned) else { continue };
            let Ok(found) = entry.file_type() else { continue };
            if name.starts_with('.') || found.is_symlink() {
                continue;
            }
            if found.is_dir() {
                if depth < DEEP {
                    open.push((entry.path(), format!("{prefix}{name}/"), depth + 1));
                }
            } else if let Some(title) = name.strip_suffix(ENDING)
                && let Ok(item) = ItemName::parse(&format!("{prefix}{title}"))
                && let (Ok(password), Ok(all)) = (FieldName::parse("password"), FieldName::parse("all"))
            {
                listed.push(Listed { item, fields: vec![password, all] });
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
        for bad in ["../x", "a/../../x", "/etc/x", "a//b", "./x"] {
            assert!(file_name(&ItemName::parse(bad).unwrap()).is_err(), "{bad}");
        }
        assert_eq!(file_name(&ItemName::parse("web/x'y").unwrap()).unwrap(), "web/x'y.gpg");
    }

    #[test]
    fn only_what_looks_like_a_keys_name_is_shown() {
        for name in ["me@example.org", "0xDEADBEEF", "0123456789abcdef0123456789abcdef01234567!"] {
            assert!(is_name_of_key(name), "{name}");
        }
        for words in ["root:x:0:0", "a b@c", "beef", "@@", "password"] {
            assert!(!is_name_of_key(words), "{words}");
        }
    }
}
