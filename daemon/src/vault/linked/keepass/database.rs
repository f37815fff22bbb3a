//! What is in a database: items by their names, fields, and a change to one of them.

use super::super::{Fault, Listed, Read};
use super::header::{self, Version};
use keepass::config::DatabaseVersion;
use keepass::db::{EntryId, EntryRef, GroupId};
use keepass::error::{CryptographyError, DatabaseKeyError, DatabaseOpenError};
use keepass::{Database, DatabaseKey};
use keyloan_protocol::names::{FieldName, ItemName};
use keyloan_protocol::reference::Reference;
use keyloan_protocol::secret::SecretBytes;
use std::collections::BTreeSet;
use zeroize::Zeroizing;

/// KeePass's own names of what everybody has.
const STANDARD: [(&str, &str); 5] = [
    ("title", "Title"),
    ("username", "UserName"),
    ("password", "Password"),
    ("url", "URL"),
    ("notes", "Notes"),
];

/// The most items that an error names.
const SHOWN: usize = 20;

/// Groups above one another.
const DEEP: usize = 64;

pub(super) struct Key {
    pub(super) password: Option<SecretBytes>,
    pub(super) keyfile: Option<SecretBytes>,
}

impl Key {
    pub(super) fn copy(&self) -> Self {
        let copy = |secret: &Option<SecretBytes>| secret.as_ref().map(|it| SecretBytes::copy_of(it.expose()));
        Self { password: copy(&self.password), keyfile: copy(&self.keyfile) }
    }

    fn database_key(&self) -> Result<DatabaseKey, Fault> {
        let mut key = DatabaseKey::new();
        if let Some(password) = &self.password {
            let text = str::from_utf8(password.expose());
            key = key.with_password(text.map_err(|_| Fault::Locked("its password is no text".to_owned()))?);
        }
        if let Some(keyfile) = &self.keyfile {
            let read = key.with_keyfile(&mut keyfile.expose());
            key = read.map_err(|_| Fault::Broken("its key file cannot be read".to_owned()))?;
        }
        Ok(key)
    }
}

pub(super) struct Opened {
    pub(super) database: Database,
    key: Key,
    version: Version,
}

impl Opened {
    pub(super) fn read(bytes: &[u8], key: Key) -> Result<Self, Fault> {
        let version = header::check(bytes)?.version;
        let database = Database::parse(bytes, key.database_key()?).map_err(|error| fault(&error))?;
        Ok(Self { database, key, version })
    }

    pub(super) fn list(&self) -> Vec<Listed> {
        let mut listed: Vec<Listed> = self
            .paths()
            .into_iter()
            .filter_map(|(path, id)| {
                let entry = self.database.entry(id)?;
                let keys = entry.fields.keys().map(|key| shown(key));
                let names = keys.chain(entry.attachments_named().map(|(name, _)| name));
                let mut fields: Vec<FieldName> =
                    names.filter_map(|name| FieldName::parse(name).ok()).collect();
                fields.sort_unstable();
                Some(Listed { item: ItemName::parse(&path).ok()?, fields })
            })
            .collect();
        listed.sort_unstable_by(|a, b| a.item.cmp(&b.item));
        listed
    }

    pub(super) fn field(&self, reference: &Reference) -> Read {
        self.field_among(&self.paths(), reference)
    }

    /// The same, among items that were looked up for several.
    pub(super) fn field_among(&self, paths: &[(String, EntryId)], reference: &Reference) -> Read {
        let entry = self.entry(paths, reference)?;
        let wanted = reference.field.as_str();
        // Whoever adds a field of the name under which another is known would decide what is lent.
        if standard(wanted) != wanted && entry.get(wanted).is_some() && entry.get(standard(wanted)).is_some()
        {
            let candidates = vec![wanted.to_owned(), standard(wanted).to_owned()];
            return Err(Fault::Ambiguous { what: wanted.to_owned(), candidates });
        }
        let value = entry.get(wanted).or_else(|| entry.get(standard(wanted)));
        match (value, entry.attachment_by_name(wanted)) {
            (Some(value), _) => Ok(SecretBytes::copy_of(value.as_bytes())),
            (None, Some(attachment)) => Ok(SecretBytes::copy_of(attachment.data.get())),
            (None, None) => Err(Fault::no_field(reference)),
        }
    }

    /// The item of this name, with all its groups. Its title alone would be a second name, which no rule knows.
    fn entry(&self, paths: &[(String, EntryId)], reference: &Reference) -> Result<EntryRef<'_>, Fault> {
        let wanted = reference.item.as_str();
        let found: Vec<&(String, EntryId)> = paths.iter().filter(|(path, _)| path == wanted).collect();
        let names = |of: &[&(String, EntryId)]| of.iter().take(SHOWN).map(|(path, _)| path.clone()).collect();
        let titled =
            |id: EntryId| self.database.entry(id).is_some_and(|entry| entry.get_title() == Some(wanted));
        match found.as_slice() {
            [(_, id)] => self.database.entry(*id).ok_or_else(|| Fault::no_item(reference)),
            [] => {
                let others: Vec<&(String, EntryId)> = paths.iter().filter(|(_, id)| titled(*id)).collect();
                if others.is_empty() {
                    return Err(Fault::no_item(reference));
                }
                Err(Fault::Titled { item: wanted.to_owned(), candidates: names(&others) })
            }
            several => Err(Fault::Ambiguous { what: wanted.to_owned(), candidates: names(several) }),
        }
    }

    /// Every item with its groups but the root, and without what was thrown away.
    pub(super) fn paths(&self) -> Vec<(String, EntryId)> {
        let thrown_away: Option<GroupId> = self.database.recycle_bin().map(|group| group.id());
        let mut paths = Vec::new();
        let mut open: Vec<(GroupId, String, usize)> = vec![(self.database.root().id(), String::new(), 0)];
        while let Some((id, prefix, depth)) = open.pop() {
            let Some(group) = self.database.group(id) else { continue };
            for entry in group.entries() {
                paths.push((format!("{prefix}{}", entry.get_title().unwrap_or_default()), entry.id()));
            }
            for child in group.groups().filter(|child| Some(child.id()) != thrown_away && depth < DEEP) {
                open.push((child.id(), format!("{prefix}{}/", child.name), depth + 1));
            }
        }
        paths
    }

    /// The bytes of the database with a field set, and everything else as it was in these.
    pub(super) fn with_field(
        mut self,
        reference: &Reference,
        value: &SecretBytes,
        before: &[u8],
        again: Key,
    ) -> Result<Vec<u8>, Fault> {
        if self.version != Version::Four {
            let cause =
                "it is a KDBX 3 database, which keyloan only reads (KeePassXC converts it, in its settings)";
            return Err(Fault::Unable(cause.to_owned()));
        }
        let text = str::from_utf8(value.expose()).ok().filter(|text| {
            // What XML cannot hold would make the whole file unreadable.
            !text.chars().any(|c| {
                c.is_control() && !matches!(c, '\n' | '\t' | '\r') || matches!(c, '\u{fffe}' | '\u{ffff}')
            })
        });
        let cause = "KeePass keeps text without control characters";
        let text = Zeroizing::new(text.ok_or_else(|| Fault::Refused(cause.to_owned()))?.to_owned());
        let id = match self.entry(&self.paths(), reference) {
            Ok(entry) => entry.id(),
            Err(Fault::NoItem(_) | Fault::Titled { .. }) => self.added(reference)?,
            Err(fault) => return Err(fault),
        };
        let wanted = reference.field.as_str();
        let mut entry = self.database.entry_mut(id).ok_or_else(|| Fault::no_item(reference))?;
        if entry.as_ref().attachment_by_name(wanted).is_some() {
            return Err(Fault::Refused(format!(
                "'{wanted}' is an attachment of that item, which keyloan only reads"
            )));
        }
        let key = if entry.fields.contains_key(wanted) { wanted } else { standard(wanted) };
        // What people see in lists stays as it is; anything else is a secret.
        let is_plain = match entry.fields.get(key) {
            Some(held) => !held.is_protected(),
            None => matches!(key, "Title" | "UserName" | "URL" | "Notes"),
        };
        entry.edit_tracking(|entry| {
            if is_plain {
                entry.set_unprotected(key, text.as_str());
            } else {
                entry.set_protected(key, text.as_str());
            }
        });
        // The crate writes 4.1 alone, which KeePass has known since 2.48 and KeePassXC since 2.7.
        self.database.config.version = DatabaseVersion::KDB4(1);
        let unsaved = |_| Fault::Broken("the database cannot be put together".to_owned());
        let mut bytes = Vec::with_capacity(before.len() + 64 * 1024);
        self.database.save(&mut bytes, self.key.database_key()?).map_err(unsaved)?;
        if self.field(reference)?.expose() != Self::read(&bytes, again)?.field(reference)?.expose() {
            return Err(Fault::Broken("what would be written does not read back as it should".to_owned()));
        }
        let lost = self.lost(before, &bytes)?;
        if lost.is_empty() {
            return Ok(bytes);
        }
        let lost = lost.into_iter().collect::<Vec<_>>().join(", ");
        Err(Fault::Refused(format!(
            "the database holds what keyloan does not understand and would lose: {lost}"
        )))
    }

    /// A new item, in a group that is there.
    fn added(&mut self, reference: &Reference) -> Result<EntryId, Fault> {
        let name = reference.item.as_str();
        let (groups, title) =
            name.rsplit_once('/').map_or((None, name), |(groups, title)| (Some(groups), title));
        let path: Vec<&str> = groups.into_iter().flat_map(|groups| groups.split('/')).collect();
        let mut root = self.database.root_mut();
        let no_group = || Fault::Refused(format!("there is no group '{}'", groups.unwrap_or_default()));
        let add = |group: &mut keepass::db::GroupMut<'_>| {
            let mut entry = group.add_entry();
            entry.set_unprotected("Title", title);
            entry.as_ref().id()
        };
        if path.is_empty() {
            return Ok(add(&mut root));
        }
        root.group_by_path_mut(&path).as_mut().map(add).ok_or_else(no_group)
    }

    /// Kinds of elements that the old file has and the new one has not.
    fn lost(&self, before: &[u8], after: &[u8]) -> Result<BTreeSet<String>, Fault> {
        let elements = |mut bytes: &[u8]| -> Result<BTreeSet<String>, Fault> {
            let xml =
                Database::get_xml(&mut bytes, self.key.database_key()?).map_err(|error| fault(&error))?;
            Ok(elements(&Zeroizing::new(xml)))
        };
        let (before, after) = (elements(before)?, elements(after)?);
        Ok(before.difference(&after).cloned().collect())
    }
}

/// The names of the elements that hold something.
fn elements(xml: &[u8]) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for tag in xml.split(|byte| *byte == b'<').skip(1) {
        let end = tag.iter().position(|byte| matches!(byte, b'>' | b'/' | b' ')).unwrap_or(tag.len());
        let holds = tag.get(end) != Some(&b'/') && tag.last() != Some(&b'/');
        if let Ok(name) = str::from_utf8(&tag[..end])
            && holds
            && name.starts_with(|c: char| c.is_ascii_alphabetic())
        {
            names.insert(name.to_owned());
        }
    }
    names
}

pub(super) fn standard(name: &str) -> &str {
    STANDARD.iter().find(|(ours, _)| *ours == name).map_or(name, |(_, theirs)| theirs)
}

fn shown(key: &str) -> &str {
    STANDARD.iter().find(|(_, theirs)| *theirs == key).map_or(key, |(ours, _)| ours)
}

/// Nothing of what the crate says is passed on: it quotes what it could not read.
fn fault(error: &DatabaseOpenError) -> Fault {
    match error {
        // A wrong password of KDBX 3 shows as padding that is none.
        DatabaseOpenError::Key(DatabaseKeyError::IncorrectKey)
        | DatabaseOpenError::Cryptography(CryptographyError::InvalidPadding(_)) => {
            Fault::Locked("its password or its key file is not the right one".to_owned())
        }
        _ => Fault::Broken("its file is damaged".to_owned()),
    }
}
