//! Items as `bw` writes them in JSON: what they are called, and what their fields hold.
//!
//! An item has one name at a time, so that a rule for it cannot be passed by asking for it by another: its title where no
//! other item has that; else its folder and its title, `FOLDER/TITLE`, where no other item has those or is titled so; else
//! its id.

use super::{Fault, Read, SshKey};
use keyloan_protocol::names::{FieldName, ItemName};
use keyloan_protocol::reference::Reference;
use keyloan_protocol::secret::SecretBytes;
use serde_json::{Value, json};
use std::collections::HashMap;

pub(in super::super) const SECURE_NOTE: u64 = 2;
/// Of custom fields: one that is shown as dots, and one that only points to another field.
const HIDDEN: u64 = 1;
pub(in super::super) const LINKED: u64 = 3;

const PRIVATE_KEY: &str = "privateKey";
const VARS: &str = "vars";
const NOTES: &str = "notes";
/// Of logins, besides their web addresses.
const LOGIN: [&str; 3] = ["username", "password", "totp"];
/// Other kinds of items; what they hold is called as `bw` calls it.
const PARTS: [&str; 3] = ["sshKey", "card", "identity"];

/// Named when a name means several items.
const CANDIDATES: usize = 20;

/// The items of an account, and its folders where names need them.
pub(in super::super) struct Items {
    items: Vec<Value>,
    /// Their names by their ids, where they were asked for.
    folders: HashMap<String, String>,
}

impl Items {
    /// Of `data` of the answer for items.
    pub(super) fn new(items: Value) -> Result<Self, Fault> {
        Ok(Self { items: list(items)?, folders: HashMap::new() })
    }

    /// With `data` of that for folders.
    pub(super) fn with_folders(mut self, folders: Value) -> Result<Self, Fault> {
        let named = |folder: &Value| Some((text(folder, "id")?.to_owned(), text(folder, "name")?.to_owned()));
        self.folders = list(folders)?.iter().filter_map(named).collect();
        Ok(self)
    }

    /// Of what names them alone.
    pub(in super::super) fn by_names(items: Vec<Value>, folders: HashMap<String, String>) -> Self {
        Self { items, folders }
    }

    /// Whether these names can be understood by titles alone.
    pub(super) fn are_titles<'a>(&self, mut wanted: impl Iterator<Item = &'a ItemName>) -> bool {
        wanted.all(|name| self.titled(name.as_str()).count() == 1)
    }

    /// Whether each item has a title of its own.
    pub(super) fn are_all_titles(&self) -> bool {
        let mut seen = std::collections::HashSet::new();
        self.items.iter().all(|item| seen.insert(text(item, "name")))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    fn titled(&self, title: &str) -> impl Iterator<Item = &Value> {
        self.items.iter().filter(move |item| text(item, "name") == Some(title))
    }

    /// What an item is called. An item's title never passes for another's id.
    fn name(&self, item: &Value) -> Option<ItemName> {
        let id = || ItemName::parse(text(item, "id")?).ok();
        let Some(title) = text(item, "name").filter(|title| !is_id(title)) else { return id() };
        let alone = self.titled(title).count() == 1;
        if let Ok(name) = ItemName::parse(title)
            && alone
        {
            return Some(name);
        }
        let path = self.path(item).filter(|path| {
            let others = self.items.iter().filter(|other| self.path(other).as_ref() == Some(path));
            others.count() == 1 && self.titled(path).next().is_none()
        });
        path.and_then(|path| ItemName::parse(&path).ok()).or_else(id)
    }

    fn path(&self, item: &Value) -> Option<String> {
        Some(format!("{}/{}", self.folder(item)?, text(item, "name")?))
    }

    fn folder(&self, item: &Value) -> Option<&str> {
        let id = text(item, "folderId")?;
        self.folders.get(id).filter(|_| !id.is_empty()).map(String::as_str)
    }

    pub(in super::super) fn named(&self, name: &ItemName) -> Result<&Value, Fault> {
        let wanted = name.as_str();
        let titled: Vec<&Value> = self.titled(wanted).collect();
        match titled.as_slice() {
            [one] if !is_id(wanted) => return Ok(one),
            [] | [_] => {}
            several => {
                let mut candidates: Vec<String> =
                    several.iter().filter_map(|item| self.name(item)).map(String::from).collect();
                candidates.truncate(CANDIDATES);
                return Err(Fault::Ambiguous { what: wanted.to_owned(), candidates });
            }
        }
        let is_it = |item: &&Value| self.name(item).is_some_and(|name| name.as_str() == wanted);
        self.items.iter().find(is_it).ok_or_else(|| Fault::NoItem(wanted.to_owned()))
    }

    pub(super) fn read(&self, reference: &Reference) -> Read {
        field(self.named(&reference.item)?, reference)
    }

    pub(in super::super) fn list(&self) -> Vec<(ItemName, Vec<FieldName>)> {
        let one = |item: &Value| {
            let mut fields: Vec<FieldName> = Vec::new();
            for (name, _) in fields_of(item) {
                if let Ok(name) = FieldName::parse(name)
                    && !fields.contains(&name)
                {
                    fields.push(name);
                }
            }
            Some((self.name(item)?, fields))
        };
        let mut listed: Vec<_> = self.items.iter().filter_map(one).collect();
        listed.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        listed
    }
}

impl Items {
    /// Bitwarden keeps ssh keys in OpenSSH's own format, without a passphrase. One whose private half `read` would not give
    /// is left out.
    pub(super) fn ssh_keys(&self) -> Vec<SshKey> {
        let one = |item: &Value| {
            let key = item.get("sshKey")?;
            text(key, PRIVATE_KEY).filter(|private| !private.is_empty())?;
            let public = text(key, "publicKey")?.trim();
            let whole = !public.is_empty() && !public.contains(char::is_control);
            let field = FieldName::parse(PRIVATE_KEY).ok()?;
            let public = public.to_owned();
            whole.then_some(SshKey { item: self.name(item)?, field, passphrase: None, public })
        };
        self.items.iter().filter_map(one).collect()
    }
}

fn list(mut answer: Value) -> Result<Vec<Value>, Fault> {
    match answer["data"].take() {
        Value::Array(items) => Ok(items),
        _ => Err(Fault::Broken("it does not answer as bw serve does".to_owned())),
    }
}

fn text<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    value.get(key).and_then(Value::as_str)
}

/// Of an item; empty where it is none of `bw`'s.
pub(in super::super) fn id(item: &Value) -> &str {
    text(item, "id").filter(|id| is_id(id)).unwrap_or_default()
}

pub(in super::super) fn is_id(text: &str) -> bool {
    let groups: Vec<usize> = text.split('-').map(str::len).collect();
    groups == [8, 4, 4, 4, 12] && text.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit())
}

/// Names and values, in the order in which a name counts.
fn fields_of(item: &Value) -> Vec<(&str, &str)> {
    let mut fields: Vec<(&str, &str)> = Vec::new();
    fields.extend(LOGIN.iter().filter_map(|name| Some((*name, text(item.get("login")?, name)?))));
    for part in PARTS {
        let part = item.get(part).and_then(Value::as_object).into_iter().flatten();
        fields.extend(part.filter_map(|(name, value)| Some((name.as_str(), value.as_str()?))));
    }
    fields.extend(text(item, NOTES).map(|notes| (NOTES, notes)));
    fields.extend(custom(item).map(|field| (text(field, "name").unwrap_or_default(), value_of(field))));
    if let Some(set) = text(item, NOTES).filter(|notes| is_set(item, notes))
        && !fields.iter().any(|(name, _)| *name == VARS)
    {
        fields.push((VARS, set));
    }
    fields
}

/// A secure note that begins with what cannot be a password: that could pass for a variable's name, and names are
/// written down.
fn is_set(item: &Value, notes: &str) -> bool {
    let first = notes.lines().next().unwrap_or_default().trim_ascii();
    item["type"].as_u64() == Some(SECURE_NOTE) && (first.is_empty() || first.starts_with('#'))
}

fn custom(item: &Value) -> impl Iterator<Item = &Value> {
    let fields = item.get("fields").and_then(Value::as_array).into_iter().flatten();
    fields.filter(|field| field["type"].as_u64() != Some(LINKED) && text(field, "name").is_some())
}

fn value_of(field: &Value) -> &str {
    text(field, "value").unwrap_or_default()
}

pub(in super::super) fn field(item: &Value, reference: &Reference) -> Read {
    let wanted = reference.field.as_str();
    let fields = fields_of(item);
    let found: Vec<&str> =
        fields.iter().filter(|(name, _)| *name == wanted).map(|(_, value)| *value).collect();
    let added = custom(item).filter(|field| text(field, "name") == Some(wanted)).count();
    match found.as_slice() {
        [] => Err(Fault::no_field(reference)),
        // Bitwarden's own comes before those that people added.
        [one, ..] if found.len() == 1 || added < found.len() => Ok(SecretBytes::copy_of(one.as_bytes())),
        _ => Err(Fault::Ambiguous { what: format!("{}/{wanted}", reference.item), candidates: Vec::new() }),
    }
}

/// The item with a value in a field; a field that is not there becomes a hidden one.
pub(super) fn with_field(item: &Value, reference: &Reference, value: &str) -> Result<Value, Fault> {
    let wanted = reference.field.as_str();
    let mut item = item.clone();
    if LOGIN.contains(&wanted) && item["login"].is_object() {
        item["login"][wanted] = value.into();
        return Ok(item);
    }
    if wanted == NOTES {
        item[NOTES] = value.into();
        return Ok(item);
    }
    if PARTS.iter().any(|part| item[*part].get(wanted).is_some()) {
        let cause = format!("keyloan changes no '{wanted}' of Bitwarden's; use its own program");
        return Err(Fault::Unable(cause));
    }
    if !item["fields"].is_array() {
        item["fields"] = json!([]);
    }
    let fields = item["fields"].as_array_mut().into_iter().flatten();
    let mut named: Vec<&mut Value> = fields.filter(|field| text(field, "name") == Some(wanted)).collect();
    match named.as_mut_slice() {
        [] => {
            if let Some(fields) = item["fields"].as_array_mut() {
                fields.push(json!({ "name": wanted, "value": value, "type": HIDDEN }));
            }
        }
        [one] if one["type"].as_u64() != Some(LINKED) => one["value"] = value.into(),
        _ => {
            let what = format!("{}/{wanted}", reference.item);
            return Err(Fault::Ambiguous { what, candidates: Vec::new() });
        }
    }
    Ok(item)
}

/// A login that has nothing yet.
pub(super) fn new(title: &ItemName) -> Value {
    json!({
        "type": 1, "name": title.as_str(), "notes": null, "favorite": false, "reprompt": 0, "fields": [],
        "login": { "uris": [], "username": null, "password": null, "totp": null },
    })
}

/// Whether that is what an answer says the field holds.
pub(super) fn holds(item: &Value, reference: &Reference, value: &str) -> bool {
    field(item, reference).is_ok_and(|found| found.expose() == value.as_bytes())
}

#[cfg(test)]
#[path = "item_tests.rs"]
mod tests;
