//! The keyring of a desktop (Secret Service API 0.2: GNOME's, KDE's, KeePassXC's) as a linked vault.
//!
//! One link is one collection, the desktop's default unless the link names another. Each request has a connection of its
//! own to the session bus. A locked collection stays locked: the desktop's own question is never raised.
//!
//! Fields of an item: `password` is its value; each attribute is a field of its own, which no program hides. An item with
//! the attribute `keyloan=vars` is a set of variables, and its value is the field `vars`.

mod bus;
mod metered;
mod naming;
mod service;
mod session;

use self::naming::{Attributes, Named};
use self::service::{Collection, Item, Session};
use super::links::Link;
use super::{Call, Doing, Fault, LinkedVault, Listed, Read};
use keyloan_protocol::names::{FieldName, ItemName};
use keyloan_protocol::reference::Reference;
use keyloan_protocol::secret::SecretBytes;
use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;
use zbus::Connection;
use zbus::zvariant::OwnedObjectPath;

const PASSWORD: &str = "password";
const VARS: &str = "vars";
/// The attribute that says what keyloan takes a value for, and the one that tells what keyloan made apart.
const MARK: &str = "keyloan";
const TITLE: &str = "item";

/// Nobody is asked anything.
const DEADLINE: Duration = Duration::from_secs(10);

/// Named when a name means several items.
const CANDIDATES: usize = 20;

pub(super) struct Keyring {
    bus: Option<PathBuf>,
    collection: Option<String>,
}

impl Keyring {
    pub(super) fn open(link: &Link) -> Result<Self, Fault> {
        let bus = link.setting("bus").map(|_| link.path("bus")).transpose()?;
        Ok(Self { bus, collection: link.setting("collection").map(str::to_owned) })
    }

    async fn connected(&self, call: &Call) -> Result<Connection, Fault> {
        bus::connected(self.bus.as_deref(), &call.desktop).await
    }

    async fn collection<'a>(&self, bus: &'a Connection) -> Result<Collection<'a>, Fault> {
        Collection::open(bus, self.collection.as_deref()).await
    }
}

impl LinkedVault for Keyring {
    fn state<'a>(&'a self, call: &'a Call) -> Doing<'a, ()> {
        Box::pin(async { self.collection(&self.connected(call).await?).await.map(drop) })
    }

    fn list<'a>(&'a self, call: &'a Call) -> Doing<'a, Vec<Listed>> {
        Box::pin(async {
            let bus = self.connected(call).await?;
            Ok(listed(&self.collection(&bus).await?.items().await?))
        })
    }

    fn read<'a>(&'a self, call: &'a Call, wanted: &'a [Reference]) -> Doing<'a, Vec<Read>> {
        Box::pin(async {
            let bus = self.connected(call).await?;
            let collection = self.collection(&bus).await?;
            let found = found(&collection, wanted).await?;
            let mut paths: Vec<&OwnedObjectPath> = Vec::new();
            for (reference, item) in wanted.iter().zip(&found) {
                if let Ok(item) = item
                    && is_value(reference, item)
                    && !paths.contains(&&item.path)
                {
                    paths.push(&item.path);
                }
            }
            let values = if paths.is_empty() {
                HashMap::new()
            } else {
                collection.values(&Session::open(&bus).await?, &paths).await?
            };
            Ok(wanted
                .iter()
                .zip(&found)
                .map(|(reference, item)| field(reference, item.as_ref(), &values))
                .collect())
        })
    }

    fn write<'a>(&'a self, call: &'a Call, at: &'a Reference, value: &'a SecretBytes) -> Doing<'a, ()> {
        Box::pin(async {
            if !matches!(at.field.as_str(), PASSWORD | VARS) {
                let cause =
                    "attributes of a keyring's item can be read by every program, so keyloan writes none";
                return Err(Fault::Unable(cause.to_owned()));
            }
            let bus = self.connected(call).await?;
            let collection = self.collection(&bus).await?;
            let mut found = found(&collection, std::slice::from_ref(at)).await?;
            let session = Session::open(&bus).await?;
            match found.pop() {
                Some(Ok(item)) if is_value(at, &item) => collection.set(&session, &item.path, value).await,
                Some(Ok(_)) => Err(Fault::no_field(at)),
                Some(Err(Fault::NoItem(_))) => {
                    let (label, attributes) = new(at)?;
                    collection.create(&session, &label, &attributes, value).await
                }
                Some(Err(fault)) => Err(fault),
                None => Err(Fault::no_item(at)),
            }
        })
    }

    fn patience(&self) -> Duration {
        DEADLINE
    }

    fn hint(&self, fault: &Fault) -> Option<String> {
        match fault {
            Fault::Locked(_) => Some("open the keyring on your desktop; keyloan does not ask for that".to_owned()),
            Fault::Unreachable(_) if self.bus.is_none() => Some(
                "the bus is that of the desktop that the local vault was unlocked from: keyloan unlock --here".to_owned(),
            ),
            _ => None,
        }
    }
}

/// The items that references name. Names are asked for once, however many references go by them.
async fn found(collection: &Collection<'_>, wanted: &[Reference]) -> Result<Vec<Result<Item, Fault>>, Fault> {
    let mut all: Option<Vec<Item>> = None;
    let mut searched: HashMap<&ItemName, Vec<Item>> = HashMap::new();
    let mut found = Vec::with_capacity(wanted.len());
    for reference in wanted {
        let item = match naming::parsed(&reference.item) {
            None => {
                let cause = format!("'{}' is no list of attributes: ?KEY=VALUE&KEY=VALUE", reference.item);
                Err(Fault::Refused(cause))
            }
            Some(Named::Label(label)) => {
                let all = match &mut all {
                    Some(all) => all,
                    None => all.insert(collection.items().await?),
                };
                the_one(&all.iter().filter(|item| item.label == label).collect::<Vec<_>>(), reference)
            }
            Some(Named::Attributes(attributes)) => {
                if !searched.contains_key(&reference.item) {
                    searched.insert(&reference.item, collection.search(&attributes).await?);
                }
                the_one(&searched.get(&reference.item).into_iter().flatten().collect::<Vec<_>>(), reference)
            }
        };
        found.push(item);
    }
    Ok(found)
}

fn the_one(found: &[&Item], reference: &Reference) -> Result<Item, Fault> {
    match found {
        [] => Err(Fault::no_item(reference)),
        [one] => Ok((*one).clone()),
        several => {
            let names = several.iter().filter_map(|item| naming::written(&item.attributes));
            let mut candidates: Vec<String> = names.map(String::from).collect();
            candidates.sort_unstable();
            candidates.dedup();
            candidates.truncate(CANDIDATES);
            Err(Fault::Ambiguous { what: reference.item.to_string(), candidates })
        }
    }
}

/// The reference is for the item's value, and not for an attribute.
fn is_value(reference: &Reference, item: &Item) -> bool {
    match reference.field.as_str() {
        PASSWORD => true,
        VARS => item.attributes.get(MARK).is_some_and(|mark| mark == VARS),
        _ => false,
    }
}

fn field(
    reference: &Reference,
    item: Result<&Item, &Fault>,
    values: &HashMap<OwnedObjectPath, SecretBytes>,
) -> Read {
    let item = item.map_err(Clone::clone)?;
    if is_value(reference, item) {
        let value = values.get(&item.path).map(|value| SecretBytes::copy_of(value.expose()));
        let cause = || format!("'{}' is not given out: it was locked or removed meanwhile", reference.item);
        return value.ok_or_else(|| Fault::Refused(cause()));
    }
    let attribute = item.attributes.get(reference.field.as_str());
    let attribute = attribute.ok_or_else(|| Fault::no_field(reference))?;
    Ok(SecretBytes::copy_of(attribute.as_bytes()))
}

/// The label and the attributes of an item that is made by this name. By these attributes every program finds it.
fn new(at: &Reference) -> Result<(String, Attributes), Fault> {
    let mark = (MARK.to_owned(), at.field.to_string());
    match naming::parsed(&at.item) {
        Some(Named::Label(label)) => {
            let title = (TITLE.to_owned(), label.to_owned());
            Ok((label.to_owned(), Attributes::from([mark, title])))
        }
        Some(Named::Attributes(mut attributes)) => {
            let label = attributes.values().map(String::as_str).collect::<Vec<_>>().join(" ");
            if at.field.as_str() == VARS {
                attributes.extend([mark]);
            }
            Ok((label, attributes))
        }
        None => Err(Fault::no_item(at)),
    }
}

/// By their labels; by their attributes where a label is that of several, or cannot be written.
fn listed(items: &[Item]) -> Vec<Listed> {
    let mut labels: HashMap<&str, usize> = HashMap::new();
    for item in items {
        *labels.entry(&item.label).or_default() += 1;
    }
    let name = |item: &Item| {
        let label = ItemName::parse(&item.label).ok().filter(|label| !label.as_str().starts_with('?'));
        let label = label.filter(|_| labels.get(item.label.as_str()) == Some(&1));
        label.or_else(|| naming::written(&item.attributes))
    };
    let one = |item: &Item| {
        let mut fields = vec![PASSWORD];
        if item.attributes.get(MARK).is_some_and(|mark| mark == VARS) {
            fields.push(VARS);
        }
        fields.extend(
            item.attributes.keys().map(String::as_str).filter(|key| !matches!(*key, PASSWORD | VARS)),
        );
        let fields = fields.into_iter().filter_map(|field| FieldName::parse(field).ok()).collect();
        Some(Listed { item: name(item)?, fields })
    };
    let mut listed: Vec<Listed> = items.iter().filter_map(one).collect();
    listed.sort_unstable_by(|a, b| a.item.cmp(&b.item));
    listed
}
