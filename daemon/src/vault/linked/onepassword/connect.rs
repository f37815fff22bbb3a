//! By a Connect server of 1Password's, over HTTPS: names are looked up, each item is one request, all on one connection.
//! What the server is sent in paths are ids, and names only within a filter.

use super::item::{Item, Summary, Vault};
use super::{Form, Place, SETS, is_id, listed};
use crate::vault::linked::certificates::Ca;
use crate::vault::linked::http::{Answer, Ask, Connection, Server};
use crate::vault::linked::links::Link;
use crate::vault::linked::{Call, Doing, Fault, LinkedVault, Listed, Read};
use hyper::Method;
use keyloan_protocol::limits;
use keyloan_protocol::reference::Reference;
use keyloan_protocol::secret::SecretBytes;
use serde::de::DeserializeOwned;
use serde_json::json;
use std::collections::HashMap;
use std::fmt::Write as _;

const MOST: usize = limits::FRAME;
const TOKEN: &str = "token";

pub(super) struct Connect {
    server: Server,
    sets: String,
}

impl Connect {
    pub(super) fn open(link: &Link) -> Result<Self, Fault> {
        let address = link.setting("address").unwrap_or_default();
        let server = Server::parse(address, Ca::of(link)?)?;
        Ok(Self { server, sets: link.setting(SETS).unwrap_or_default().to_owned() })
    }

    async fn session(&self, call: &Call) -> Result<Session, Fault> {
        let no_token = || Fault::Refused("its link has no token for the Connect server".to_owned());
        let token = call.secrets.expose(TOKEN).ok_or_else(no_token)?;
        let bearer = SecretBytes::new([b"Bearer ", token.expose()].concat());
        let connection = self.server.connect().await?;
        Ok(Session { connection, bearer, heard: 0, vaults: HashMap::new(), items: HashMap::new() })
    }
}

/// One connection, and what was found on it.
struct Session {
    connection: Connection,
    bearer: SecretBytes,
    heard: usize,
    vaults: HashMap<String, Result<String, Fault>>,
    items: HashMap<(String, String), Result<Item, Fault>>,
}

impl Session {
    async fn ask(&mut self, method: Method, path: &str, json: Option<SecretBytes>) -> Result<Answer, Fault> {
        let headers = [("authorization", &self.bearer)];
        let ask = Ask { method, path, headers: &headers, json, most: MOST };
        self.connection.send(ask).await?.added(&mut self.heard)
    }

    async fn get<T: DeserializeOwned>(
        &mut self,
        path: &str,
        missing: impl FnOnce() -> Fault,
    ) -> Result<T, Fault> {
        parsed(&self.ask(Method::GET, path, None).await?, missing)
    }

    /// The id of a vault, by that or by its name.
    async fn vault(&mut self, place: &Place) -> Result<String, Fault> {
        if is_id(&place.vault) {
            return Ok(place.vault.clone());
        }
        if let Some(found) = self.vaults.get(&place.vault) {
            return found.clone();
        }
        let path = format!("/v1/vaults?filter={}", filter("name", &place.vault));
        let vaults: Vec<Vault> = self.get(&path, || place.no_item()).await?;
        let ids = vaults.into_iter().filter(|vault| vault.name == place.vault).map(|vault| vault.id);
        let found = one(ids.collect(), &place.vault, "", || place.no_item());
        self.vaults.insert(place.vault.clone(), found.clone());
        found
    }

    /// Once an item, and the items of a batch one after another.
    async fn item(&mut self, place: &Place) -> Result<&Item, Fault> {
        let vault = self.vault(place).await?;
        let key = (vault.clone(), place.item.clone());
        if !self.items.contains_key(&key) {
            let item = match self.fetch(&vault, place).await {
                Err(fault) if !fault.is_about_the_item() => return Err(fault),
                item => item,
            };
            self.items.insert(key.clone(), item);
        }
        self.items[&key].as_ref().map_err(Clone::clone)
    }

    async fn fetch(&mut self, vault: &str, place: &Place) -> Result<Item, Fault> {
        let id = if is_id(&place.item) {
            place.item.clone()
        } else {
            let path = format!("/v1/vaults/{vault}/items?filter={}", filter("title", &place.item));
            let items: Vec<Summary> = self.get(&path, || place.no_item()).await?;
            let ids = items.into_iter().filter(|item| item.title == place.item).map(|item| item.id);
            one(ids.collect(), &place.item, &format!("{}/", place.vault), || place.no_item())?
        };
        let item: Item = self.get(&format!("/v1/vaults/{vault}/items/{id}"), || place.no_item()).await?;
        // It may have been given another title since.
        if item.id == id && item.is(&place.item) { Ok(item) } else { Err(place.no_item()) }
    }

    async fn titles(&mut self, sets: &str) -> Result<Vec<Listed>, Fault> {
        let place = Place { vault: sets.to_owned(), ..Place::default() };
        let vault = match self.vault(&place).await {
            // Nobody has to have a vault of that name.
            Err(Fault::NoItem(_)) => return Ok(Vec::new()),
            vault => vault?,
        };
        let items: Vec<Summary> = self.get(&format!("/v1/vaults/{vault}/items"), || place.no_item()).await?;
        Ok(listed(items, sets))
    }

    /// Changes one field of an item, or adds it, and looks whether that was done.
    async fn store(&mut self, place: &Place, value: &SecretBytes) -> Result<(), Fault> {
        let not_text = |_| Fault::Refused("1Password holds text, and the value is not UTF-8".to_owned());
        let value = str::from_utf8(value.expose()).map_err(not_text)?;
        if place.form != Form::Value {
            return Err(Fault::Unable("only the value of a field can be stored".to_owned()));
        }
        let vault = self.vault(place).await?;
        let item = self.item(place).await?;
        let id = item.id.clone();
        let change = match item.field(place) {
            // RFC 6902: `add` puts a new value in the place of one that is there.
            Ok(field) => {
                let field = field.id.replace('~', "~0").replace('/', "~1");
                json!([{"op": "add", "path": format!("/fields/{field}/value"), "value": value}])
            }
            Err(Fault::NoField { .. }) => {
                let mut field = json!({"label": place.field, "type": "CONCEALED", "value": value});
                if let Some(name) = &place.section {
                    let section = item.section(name).ok_or_else(|| place.no_field())?;
                    field["section"] = json!({"id": section.id});
                }
                json!([{"op": "add", "path": "/fields", "value": field}])
            }
            Err(fault) => return Err(fault),
        };
        let json = serde_json::to_vec(&change).map_err(|_| strange())?;
        let path = format!("/v1/vaults/{vault}/items/{id}");
        let answer = self.ask(Method::PATCH, &path, Some(SecretBytes::new(json))).await?;
        let _: Item = parsed(&answer, || place.no_item())?;
        let now: Item = self.get(&path, || place.no_item()).await?;
        if now.field(place).is_ok_and(|field| field.value().expose() == value.as_bytes()) {
            return Ok(());
        }
        Err(Fault::Broken("the Connect server did not keep the value as it was given".to_owned()))
    }
}

fn parsed<T: DeserializeOwned>(answer: &Answer, missing: impl FnOnce() -> Fault) -> Result<T, Fault> {
    match answer.status {
        200 => serde_json::from_slice(answer.body.expose()).map_err(|_| strange()),
        401 => Err(Fault::Refused("the Connect server does not take the token".to_owned())),
        403 => Err(Fault::Refused(
            "the Connect server's token is not for that, or not for that vault".to_owned(),
        )),
        404 => Err(missing()),
        429 => Err(answer.rate_limited()),
        status @ 500.. => {
            Err(Fault::Unreachable(format!("the Connect server is in trouble itself (status {status})")))
        }
        status => Err(Fault::Broken(format!("the Connect server answered with status {status}"))),
    }
}

fn strange() -> Fault {
    Fault::Broken("the server does not answer as a Connect server does".to_owned())
}

/// The only id there is. One that is none does not get into a path.
fn one(
    mut ids: Vec<String>,
    name: &str,
    before: &str,
    missing: impl FnOnce() -> Fault,
) -> Result<String, Fault> {
    if ids.iter().any(|id| !is_id(id)) {
        return Err(strange());
    }
    match (ids.pop(), ids.is_empty()) {
        (None, _) => Err(missing()),
        (Some(id), true) => Ok(id),
        (Some(last), false) => {
            ids.push(last);
            let candidates = ids.iter().map(|id| format!("{before}{id}")).collect();
            Err(Fault::Ambiguous { what: format!("{before}{name}"), candidates })
        }
    }
}

/// `ATTRIBUTE eq "NAME"` (RFC 7644, 3.4.2.2: a value is a JSON string), encoded for a query.
fn filter(attribute: &str, name: &str) -> String {
    let text = format!("{attribute} eq {}", json!(name));
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
        encoded
    })
}

impl LinkedVault for Connect {
    fn lasts(&self, at: &Reference) -> bool {
        super::lasts(at)
    }

    /// Whether it takes the token.
    fn state<'a>(&'a self, call: &'a Call) -> Doing<'a, ()> {
        Box::pin(async { self.session(call).await?.get::<Vec<Vault>>("/v1/vaults", strange).await.map(drop) })
    }

    fn list<'a>(&'a self, call: &'a Call) -> Doing<'a, Vec<Listed>> {
        Box::pin(async { self.session(call).await?.titles(&self.sets).await })
    }

    fn read<'a>(&'a self, call: &'a Call, wanted: &'a [Reference]) -> Doing<'a, Vec<Read>> {
        Box::pin(async move {
            let mut session = self.session(call).await?;
            let mut read = Vec::with_capacity(wanted.len());
            for reference in wanted {
                let value = match Place::of(reference, &self.sets) {
                    Ok(place) => session.item(&place).await.and_then(|item| item.read(&place)),
                    Err(fault) => Err(fault),
                };
                match value {
                    Err(fault) if !fault.is_about_the_item() => return Err(fault),
                    value => read.push(value),
                }
            }
            Ok(read)
        })
    }

    fn write<'a>(&'a self, call: &'a Call, at: &'a Reference, value: &'a SecretBytes) -> Doing<'a, ()> {
        Box::pin(async move {
            let place = Place::of(at, &self.sets)?;
            self.session(call).await?.store(&place, value).await
        })
    }

    fn hint(&self, fault: &Fault) -> Option<String> {
        let token = "another token: keyloan vault add --replace NAME";
        matches!(fault, Fault::Refused(cause) if cause.contains("token")).then(|| token.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_does_not_end_its_filter() {
        assert_eq!(filter("title", "a b"), "title%20eq%20%22a%20b%22");
        assert_eq!(filter("name", "\" or \\"), "name%20eq%20%22%5C%22%20or%20%5C%5C%22");
        assert_eq!(filter("name", "é&#\n"), "name%20eq%20%22%C3%A9%26%23%5Cn%22");
    }

    #[test]
    fn what_is_no_id_gets_into_no_path() {
        let missing = || Fault::NoItem("x".to_owned());
        let id = "a1".repeat(13);
        assert_eq!(one(vec![id.clone()], "x", "", missing).unwrap(), id);
        assert_eq!(one(vec!["../x".to_owned()], "x", "", missing).unwrap_err().key(), "broken");
        assert_eq!(one(Vec::new(), "x", "", missing).unwrap_err().key(), "not_found");
        let two = one(vec![id.clone(), id], "x", "v/", missing).unwrap_err();
        assert!(matches!(two, Fault::Ambiguous { candidates, .. } if candidates.len() == 2));
    }
}
