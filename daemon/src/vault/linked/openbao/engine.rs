//! What lies in the engines of a server: fields of KV, version 1 and 2, and what any other engine makes when it is read.

use super::Signed;
use super::api::{self, Fields, Versioned};
use super::paths::{Place, encoded};
use crate::vault::linked::http::Answer;
use crate::vault::linked::{Fault, Listed, Read};
use hyper::Method;
use keyloan_protocol::limits;
use keyloan_protocol::names::{FieldName, ItemName};
use keyloan_protocol::reference::Reference;
use keyloan_protocol::secret::SecretBytes;
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, VecDeque};
use std::fmt;

/// The most items and folders of a list, found or still to be looked into: each folder is a request.
const ITEMS: usize = 20_000;
const FOLDERS: usize = 1000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Engine {
    Kv1,
    Kv2,
    /// Its answers may be leases.
    Other,
}

#[derive(Deserialize)]
struct Mounted {
    path: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    options: Option<Options>,
}

#[derive(Deserialize)]
struct Options {
    #[serde(default)]
    version: Option<String>,
}

#[derive(Deserialize)]
struct Keys {
    #[serde(deserialize_with = "some")]
    keys: Vec<String>,
}

#[derive(Serialize)]
struct NewVersion<'a> {
    options: CheckAndSet,
    data: &'a Fields<'a>,
}

#[derive(Serialize)]
struct CheckAndSet {
    cas: u64,
}

impl Signed<'_> {
    /// What an engine is: asked for once.
    async fn engine(&mut self, mount: &str) -> Result<Engine, Fault> {
        let known = self.vault.engines.borrow().get(mount).copied();
        if let Some(engine) = known {
            return Ok(engine);
        }
        let answer = self.get(&format!("sys/internal/ui/mounts/{}", encoded(mount))).await?;
        if matches!(answer.status, 403 | 404) {
            return Err(Fault::Refused(format!(
                "there is no engine '{mount}', or no policy of the token reaches into it"
            )));
        }
        if !api::is_good(&answer) {
            return Err(api::fault(&answer, &format!("the engine '{mount}'")));
        }
        let mounted: Mounted = api::part(api::body(&answer)?.data)?;
        // The name of something within an engine would give its items a second one.
        if mounted.path.trim_end_matches('/') != mount {
            return Err(Fault::Refused(format!("'{mount}' is no engine, but lies in one")));
        }
        let version = mounted.options.and_then(|options| options.version);
        let engine = match (mounted.kind.as_str(), version.as_deref()) {
            ("kv" | "generic", Some("2")) => Engine::Kv2,
            ("kv" | "generic", _) => Engine::Kv1,
            _ => Engine::Other,
        };
        self.vault.engines.borrow_mut().insert(mount.to_owned(), engine);
        Ok(engine)
    }

    /// Every item once, however many of its fields are wanted.
    pub(super) async fn read(&mut self, wanted: &[Reference]) -> Result<Vec<Read>, Fault> {
        let mut items: Vec<&ItemName> = Vec::new();
        let mut of: HashMap<&ItemName, Vec<usize>> = HashMap::new();
        for (at, reference) in wanted.iter().enumerate() {
            let places = of.entry(&reference.item).or_default();
            if places.is_empty() {
                items.push(&reference.item);
            }
            places.push(at);
        }
        let mut read: Vec<Option<Read>> = wanted.iter().map(|_| None).collect();
        for item in items {
            let places = of.remove(item).unwrap_or_default();
            let fields: Vec<&FieldName> = places.iter().map(|at| &wanted[*at].field).collect();
            match self.read_item(item, &fields).await {
                Ok(values) => {
                    for (at, value) in places.into_iter().zip(values) {
                        read[at] = Some(value);
                    }
                }
                Err(fault) if fault.is_about_the_item() => {
                    for at in places {
                        read[at] = Some(Err(fault.clone()));
                    }
                }
                Err(fault) => return Err(fault),
            }
        }
        read.into_iter().map(|read| read.ok_or_else(api::garbage)).collect()
    }

    async fn read_item(&mut self, item: &ItemName, wanted: &[&FieldName]) -> Result<Vec<Read>, Fault> {
        let vault = self.vault;
        let place = vault.mounts.place(item.as_str())?;
        let engine = self.engine(place.mount).await?;
        let answer = match engine {
            Engine::Kv1 | Engine::Kv2 => self.get(&place.at(engine)).await?,
            Engine::Other => self.make(item, &place.at(engine)).await?,
        };
        if !api::is_good(&answer) {
            return Err(missing(&answer, item));
        }
        let body = api::body(&answer)?;
        let data = if engine == Engine::Kv2 {
            let version: Versioned = api::part(body.data)?;
            version
                .data
                .filter(|data| data.get() != "null")
                .ok_or_else(|| Fault::Deleted(item.to_string()))?
        } else {
            body.data.ok_or_else(api::garbage)?
        };
        let fields: Fields = api::part(Some(data))?;
        let value = |field: &&FieldName| {
            let no_field = || Fault::NoField { item: item.to_string(), field: field.to_string() };
            api::text(fields.get(field.as_str()).ok_or_else(no_field)?)?.ok_or_else(no_field)
        };
        Ok(wanted.iter().map(value).collect())
    }

    /// Changes one field and keeps the others: in version 2 of KV only if nobody else has changed the item meanwhile.
    pub(super) async fn write(&mut self, at: &Reference, value: &SecretBytes) -> Result<(), Fault> {
        let value = str::from_utf8(value.expose());
        let value = value.map_err(|_| Fault::Refused("the server keeps text only, in UTF-8".to_owned()))?;
        let value = serde_json::value::to_raw_value(value).map_err(|_| api::garbage())?;
        let vault = self.vault;
        let place = vault.mounts.place(at.item.as_str())?;
        let engine = self.engine(place.mount).await?;
        if engine == Engine::Other {
            return Err(Fault::Unable(format!("what the engine '{}' makes is not written", place.mount)));
        }
        let path = place.at(engine);
        let answer = self.get(&path).await?;
        let gone = answer.status == 404;
        if !gone && !api::is_good(&answer) {
            return Err(api::fault(&answer, at.item.as_str()));
        }
        let body = api::body(&answer)?;
        let (mut fields, cas) = match (engine, body.data) {
            (_, None) if gone => {
                // A wrong engine is 404 as well.
                if body.errors.is_none_or(|errors| !errors.is_empty()) {
                    return Err(api::fault(&answer, at.item.as_str()));
                }
                (Fields::new(), 0)
            }
            (Engine::Kv2, data) => {
                let version: Versioned = api::part(data)?;
                let live = version.data.filter(|data| data.get() != "null");
                let fields = live.map(|data| api::part(Some(data))).transpose()?.unwrap_or_default();
                (fields, version.metadata.version)
            }
            (_, data) => (api::part(data)?, 0),
        };
        fields.insert(at.field.to_string(), &value);
        let json = match engine {
            Engine::Kv2 => api::json(&NewVersion { options: CheckAndSet { cas }, data: &fields })?,
            _ => api::json(&fields)?,
        };
        let written = self.send(Method::POST, &path, Some(json)).await?;
        match written.status {
            400 if api::says(&written, "check-and-set") => Err(Fault::Refused(format!(
                "somebody else changed '{}' meanwhile; nothing was written",
                at.item
            ))),
            _ if api::is_good(&written) => Ok(()),
            _ => Err(api::fault(&written, at.item.as_str())),
        }
    }

    /// The items of every KV engine, folder by folder; a folder that may not be listed is left out.
    pub(super) async fn list(&mut self) -> Result<Vec<Listed>, Fault> {
        let vault = self.vault;
        let mut listed = Vec::new();
        let mut folders = 0;
        let too_many = || {
            Fault::Refused(format!(
                "it has more than {ITEMS} items, or {FOLDERS} folders, and that is not listed"
            ))
        };
        for mount in vault.mounts.all() {
            let below = match self.engine(mount).await? {
                Engine::Kv2 => "/metadata",
                Engine::Kv1 => "",
                Engine::Other => continue,
            };
            let mut left = VecDeque::from([String::new()]);
            while let Some(folder) = left.pop_front() {
                folders += 1;
                let path = format!("{}{below}/{}?list=true", encoded(mount), encoded(&folder));
                let answer = self.get(&path).await?;
                match answer.status {
                    404 => continue,
                    403 if !folder.is_empty() => continue,
                    _ if !api::is_good(&answer) => {
                        return Err(api::fault(&answer, &format!("the list of '{mount}'")));
                    }
                    _ => {}
                }
                let Keys { keys } = api::part(api::body(&answer)?.data)?;
                for key in keys {
                    // Before each, since one answer holds a million of them.
                    if folders + left.len() >= FOLDERS || listed.len() >= ITEMS {
                        return Err(too_many());
                    }
                    let path = format!("{folder}{key}");
                    if key.ends_with('/') {
                        // Nothing below a longer one has a name that could be asked for.
                        if path.len() <= limits::NAME {
                            left.push_back(path);
                        }
                    } else if let Some(item) = vault.mounts.item(mount, &path)
                        && let Ok(item) = ItemName::parse(&item)
                    {
                        listed.push(Listed { item, fields: Vec::new() });
                    }
                }
            }
        }
        Ok(listed)
    }
}

/// As many names as are listed at all, and one more.
fn some<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    struct Some;
    impl<'de> Visitor<'de> for Some {
        type Value = Vec<String>;

        fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
            to.write_str("names")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut names: A) -> Result<Self::Value, A::Error> {
            let mut some = Vec::new();
            while some.len() <= ITEMS
                && let Option::Some(name) = names.next_element()?
            {
                some.push(name);
            }
            while names.next_element::<IgnoredAny>()?.is_some() {}
            Ok(some)
        }
    }
    from.deserialize_seq(Some)
}

impl Place<'_> {
    /// For a request.
    fn at(&self, engine: Engine) -> String {
        let data = if engine == Engine::Kv2 { "/data" } else { "" };
        format!("{}{data}/{}", encoded(self.mount), encoded(self.path))
    }
}

/// Why an item was not given out.
fn missing(answer: &Answer, item: &ItemName) -> Fault {
    if answer.status != 404 {
        return api::fault(answer, item.as_str());
    }
    let Ok(body) = api::body(answer) else { return api::garbage() };
    match (body.data, body.errors) {
        // Its history is there.
        (Some(_), _) => Fault::Deleted(item.to_string()),
        (None, Some(errors)) if errors.is_empty() => Fault::NoItem(item.to_string()),
        (None, _) => api::fault(answer, item.as_str()),
    }
}
