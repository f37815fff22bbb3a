//! The calls of the Secret Service API that keyloan makes: `org.freedesktop.secrets` on the session bus.
//!
//! Nothing here ever calls `Unlock` or `Prompt`: a desktop's own question would come from nobody whom the person asked.

use super::Fault;
use super::naming::Attributes;
use super::session::{ALGORITHM, Agreed, Half};
use crate::vault::linked::runner::together;
use keyloan_protocol::secret::SecretBytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::HashMap;
use zbus::zvariant::{DynamicType, OwnedObjectPath, OwnedValue, Type, Value};
use zbus::{Connection, Message};

const NAME: &str = "org.freedesktop.secrets";
const ROOT: &str = "/org/freedesktop/secrets";
const SERVICE: &str = "org.freedesktop.Secret.Service";
const COLLECTION: &str = "org.freedesktop.Secret.Collection";
const ITEM: &str = "org.freedesktop.Secret.Item";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";

/// Where new items go on a desktop, and what programs mean by "the keyring".
const DEFAULT: &str = "default";
/// In the place of an object that is not there.
const NONE: &str = "/";
/// Each is one call for its names.
const ITEMS: usize = 10_000;
/// Calls under way at once: a bus counts those of one connection.
const AT_ONCE: usize = 64;

/// One item, without its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) path: OwnedObjectPath,
    pub(super) label: String,
    pub(super) attributes: Attributes,
}

/// A collection that is not locked.
pub(super) struct Collection<'a> {
    bus: &'a Connection,
    path: OwnedObjectPath,
}

/// A session in which values are encrypted. It ends with the connection.
pub(super) struct Session {
    path: OwnedObjectPath,
    agreed: Agreed,
}

/// As it goes over the bus: session, vector, value, type of content.
type Secret = (OwnedObjectPath, Vec<u8>, Vec<u8>, String);

impl<'a> Collection<'a> {
    /// The one of this name: an alias, or a label. Without one, the desktop's default.
    pub(super) async fn open(bus: &'a Connection, name: Option<&str>) -> Result<Self, Fault> {
        let path = match (alias(bus, name.unwrap_or(DEFAULT)).await?, name) {
            (Some(path), _) => path,
            (None, Some(name)) => labelled(bus, name).await?,
            (None, None) => {
                return Err(Fault::Broken(
                    "it has no default keyring: nothing was ever kept in it".to_owned(),
                ));
            }
        };
        let collection = Self { bus, path };
        let locked: bool = property(bus, &collection.path, COLLECTION, "Locked").await?;
        if locked { Err(self::locked()) } else { Ok(collection) }
    }

    pub(super) async fn items(&self) -> Result<Vec<Item>, Fault> {
        let paths: Vec<OwnedObjectPath> = property(self.bus, &self.path, COLLECTION, "Items").await?;
        self.described(paths).await
    }

    /// Those that have all these attributes.
    pub(super) async fn search(&self, attributes: &Attributes) -> Result<Vec<Item>, Fault> {
        let found = call(self.bus, &self.path, COLLECTION, "SearchItems", &(attributes,)).await?;
        self.described(answer(&found)?).await
    }

    /// An item that went away in between is left out.
    async fn described(&self, paths: Vec<OwnedObjectPath>) -> Result<Vec<Item>, Fault> {
        if paths.len() > ITEMS {
            return Err(Fault::Broken(format!("it holds more than {ITEMS} items")));
        }
        let mut items = Vec::with_capacity(paths.len());
        for some in paths.chunks(AT_ONCE) {
            for item in together(some.iter().map(|path| self.describe(path)).collect()).await {
                items.extend(item?);
            }
        }
        Ok(items)
    }

    async fn describe(&self, path: &OwnedObjectPath) -> Result<Option<Item>, Fault> {
        let described = match called(self.bus, path, PROPERTIES, "GetAll", &(ITEM,)).await {
            Err(error) if is_gone(&error) => return Ok(None),
            described => described.map_err(|error| fault(&error))?,
        };
        let mut all: HashMap<String, OwnedValue> = answer(&described)?;
        let mut take = |name: &str| all.remove(name).ok_or_else(senseless);
        let label = String::try_from(take("Label")?).map_err(|_| senseless())?;
        let attributes: HashMap<String, String> = take("Attributes")?.try_into().map_err(|_| senseless())?;
        Ok(Some(Item { path: path.clone(), label, attributes: attributes.into_iter().collect() }))
    }

    /// The values of these items, by one call. Those that it does not give out are missing.
    pub(super) async fn values(
        &self,
        session: &Session,
        items: &[&OwnedObjectPath],
    ) -> Result<HashMap<OwnedObjectPath, SecretBytes>, Fault> {
        let body = &(items, &session.path);
        let given = call(self.bus, &root(), SERVICE, "GetSecrets", body).await?;
        let given: HashMap<OwnedObjectPath, Secret> = answer(&given)?;
        let open = |(path, (_, iv, value, _)): (OwnedObjectPath, Secret)| {
            let value = session.agreed.open(&iv, value);
            Ok((path, value.ok_or_else(|| Fault::Broken("a value does not decrypt".to_owned()))?))
        };
        given.into_iter().map(open).collect()
    }

    /// Exchanges the value of an item.
    pub(super) async fn set(
        &self,
        session: &Session,
        item: &OwnedObjectPath,
        value: &SecretBytes,
    ) -> Result<(), Fault> {
        let secret = session.secret(value)?;
        call(self.bus, item, ITEM, "SetSecret", &(secret,)).await.map(drop)
    }

    /// Never in the place of an item that is there.
    pub(super) async fn create(
        &self,
        session: &Session,
        label: &str,
        attributes: &Attributes,
        value: &SecretBytes,
    ) -> Result<(), Fault> {
        let attributes: HashMap<&str, &str> =
            attributes.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        let properties = HashMap::from([
            ("org.freedesktop.Secret.Item.Label", Value::from(label)),
            ("org.freedesktop.Secret.Item.Attributes", Value::from(attributes)),
        ]);
        let body = (properties, session.secret(value)?, false);
        let made = call(self.bus, &self.path, COLLECTION, "CreateItem", &body).await?;
        let (item, _prompt): (OwnedObjectPath, OwnedObjectPath) = answer(&made)?;
        if item.as_str() == NONE { Err(locked()) } else { Ok(()) }
    }
}

impl Session {
    pub(super) async fn open(bus: &Connection) -> Result<Self, Fault> {
        let half =
            Half::new().ok_or_else(|| Fault::Broken("there is no random number to be had".to_owned()))?;
        let body = (ALGORITHM, Value::from(half.public()));
        let opened = match called(bus, &root(), SERVICE, "OpenSession", &body).await {
            Err(zbus::Error::MethodError(name, ..)) if name.as_str().ends_with(".NotSupported") => {
                return Err(Fault::Broken("it does not encrypt what it sends".to_owned()));
            }
            opened => opened.map_err(|error| fault(&error))?,
        };
        let (theirs, path): (OwnedValue, OwnedObjectPath) = answer(&opened)?;
        let theirs: Vec<u8> = theirs.try_into().map_err(|_| senseless())?;
        let agreed = half.agree(&theirs).ok_or_else(senseless)?;
        Ok(Self { path, agreed })
    }

    fn secret(&self, value: &SecretBytes) -> Result<Secret, Fault> {
        let sealed = self.agreed.seal(value);
        let (iv, sealed) = sealed.ok_or_else(|| Fault::Broken("the value cannot be encrypted".to_owned()))?;
        // Programs that show a value go by this.
        let kind = match std::str::from_utf8(value.expose()) {
            Ok(_) => "text/plain; charset=utf8",
            Err(_) => "application/octet-stream",
        };
        Ok((self.path.clone(), iv, sealed, kind.to_owned()))
    }
}

async fn alias(bus: &Connection, name: &str) -> Result<Option<OwnedObjectPath>, Fault> {
    let path: OwnedObjectPath = answer(&call(bus, &root(), SERVICE, "ReadAlias", &(name,)).await?)?;
    Ok((path.as_str() != NONE).then_some(path))
}

async fn labelled(bus: &Connection, name: &str) -> Result<OwnedObjectPath, Fault> {
    let paths: Vec<OwnedObjectPath> = property(bus, &root(), SERVICE, "Collections").await?;
    let label = |path| async move {
        let label: String = property(bus, &path, COLLECTION, "Label").await?;
        Ok::<_, Fault>((label == name).then_some(path))
    };
    let found: Vec<_> = together(paths.into_iter().take(AT_ONCE).map(label).collect()).await;
    let found: Vec<_> = found.into_iter().collect::<Result<_, _>>()?;
    let mut found = found.into_iter().flatten();
    match (found.next(), found.next()) {
        (Some(path), None) => Ok(path),
        (None, _) => Err(Fault::Broken(format!("there is no keyring '{name}'"))),
        (Some(_), Some(_)) => Err(Fault::Broken(format!("'{name}' is more than one keyring"))),
    }
}

fn root() -> OwnedObjectPath {
    OwnedObjectPath::from(zbus::zvariant::ObjectPath::from_static_str_unchecked(ROOT))
}

async fn property<T>(
    bus: &Connection,
    path: &OwnedObjectPath,
    interface: &str,
    name: &str,
) -> Result<T, Fault>
where
    T: TryFrom<OwnedValue>,
{
    let value = call(bus, path, PROPERTIES, "Get", &(interface, name)).await?;
    answer::<OwnedValue>(&value)?.try_into().map_err(|_| senseless())
}

async fn call(
    bus: &Connection,
    path: &OwnedObjectPath,
    interface: &str,
    member: &str,
    body: &(impl Serialize + DynamicType),
) -> Result<Message, Fault> {
    called(bus, path, interface, member, body).await.map_err(|error| fault(&error))
}

async fn called(
    bus: &Connection,
    path: &OwnedObjectPath,
    interface: &str,
    member: &str,
    body: &(impl Serialize + DynamicType),
) -> zbus::Result<Message> {
    bus.call_method(Some(NAME), path, Some(interface), member, body).await
}

fn answer<T: DeserializeOwned + Type>(message: &Message) -> Result<T, Fault> {
    message.body().deserialize().map_err(|_| senseless())
}

fn is_gone(error: &zbus::Error) -> bool {
    let zbus::Error::MethodError(name, ..) = error else { return false };
    matches!(
        name.as_str(),
        "org.freedesktop.Secret.Error.NoSuchObject"
            | "org.freedesktop.DBus.Error.UnknownObject"
            | "org.freedesktop.DBus.Error.UnknownMethod"
    )
}

/// By the error's name alone: its text is the service's, and may say anything.
fn fault(error: &zbus::Error) -> Fault {
    let zbus::Error::MethodError(name, ..) = error else {
        return Fault::Unreachable("the session bus ended the connection".to_owned());
    };
    match name.as_str() {
        "org.freedesktop.Secret.Error.IsLocked" => locked(),
        _ if is_gone(error) => Fault::Broken("it changed while it was read".to_owned()),
        "org.freedesktop.DBus.Error.AccessDenied" => Fault::Refused("it refuses to answer".to_owned()),
        "org.freedesktop.DBus.Error.ServiceUnknown" | "org.freedesktop.DBus.Error.NameHasNoOwner" => absent(),
        name if name.starts_with("org.freedesktop.DBus.Error.Spawn.") => absent(),
        "org.freedesktop.DBus.Error.NoReply" => Fault::Unreachable("it ended while it was asked".to_owned()),
        _ => Fault::Broken("it answers with an error".to_owned()),
    }
}

fn absent() -> Fault {
    Fault::Unreachable("no program keeps a keyring on the session bus".to_owned())
}

fn senseless() -> Fault {
    Fault::Broken("what it answers makes no sense".to_owned())
}

fn locked() -> Fault {
    Fault::Locked("the desktop has not opened this keyring".to_owned())
}
