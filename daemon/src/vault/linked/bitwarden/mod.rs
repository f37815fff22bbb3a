//! Bitwarden, and servers that speak as it does, by its own program `bw`, which is kept open as `bw serve`.
//!
//! `bw` has signed in already; keyloan gives it the master password, and never signs it in or out. The items come all at
//! once, one request for any number of references. Fields of an item: `username`, `password`, `totp` and `notes`, what a
//! card, an identity or an ssh key has by `bw`'s own names, then those that people added. `vars` is one that was added,
//! or the notes of a secure note that begins with an empty line or with `#`.

pub(super) mod item;
mod process;
mod said;
mod serve;

use self::item::Items;
use self::serve::{How, Request, Serve};
use super::links::Link;
use super::{Call, Doing, Fault, LinkedVault, Listed, Read, SshKey};
use crate::vault::linked::certificates::Ca;
use hyper::Method;
use keyloan_protocol::names::{ItemName, VaultName};
use keyloan_protocol::reference::Reference;
use keyloan_protocol::secret::SecretBytes;
use serde_json::Value;
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;
use zeroize::Zeroizing;

/// A day of minutes.
const LONGEST: u64 = 24 * 60;

const ITEMS: &str = "/list/object/items";
const FOLDERS: &str = "/list/object/folders";

pub(super) struct Bitwarden {
    name: VaultName,
    program: String,
    appdata: String,
    how: How,
    serve: RefCell<Rc<Serve>>,
}

impl Bitwarden {
    pub(super) fn open(link: &Link) -> Result<Self, Fault> {
        let minutes = link.setting("minutes").unwrap_or("5").parse::<u64>();
        let minutes = minutes.ok().filter(|minutes| *minutes <= LONGEST);
        let minutes = minutes.ok_or_else(|| Fault::Broken("minutes takes a number up to 1440".to_owned()))?;
        let how = How {
            program: link.program("bw")?.clone(),
            appdata: link.path("appdata")?,
            ca: Ca::of(link)?,
            idle: Duration::from_secs(minutes * 60),
        };
        Ok(Self {
            name: link.name.clone(),
            program: how.program.path.display().to_string(),
            appdata: how.appdata.display().to_string(),
            serve: RefCell::new(Serve::of(how.clone())),
            how,
        })
    }

    async fn ask(&self, call: &Call, request: Request) -> Result<Value, Fault> {
        let serve = {
            let mut serve = self.serve.borrow_mut();
            if serve.has_ended() {
                *serve = Serve::of(self.how.clone());
            }
            Rc::clone(&serve)
        };
        serve.ask(call.secrets.expose("password"), request).await
    }

    async fn get(&self, call: &Call, path: &str, synced: bool, anew: bool) -> Result<Value, Fault> {
        let request = Request { method: Method::GET, path: path.to_owned(), json: None, synced, anew };
        self.ask(call, request).await
    }

    /// The items, with the folders where some name is more than a title of one item.
    async fn look(
        &self,
        call: &Call,
        anew: bool,
        suffice: impl FnOnce(&Items) -> bool,
    ) -> Result<Items, Fault> {
        let items = Items::new(self.get(call, ITEMS, false, anew).await?)?;
        if suffice(&items) {
            return Ok(items);
        }
        items.with_folders(self.get(call, FOLDERS, false, false).await?)
    }

    /// The same for these names; what is missing is looked for again where it may only not have come round.
    async fn items(&self, call: &Call, wanted: &[&ItemName], anew: bool) -> Result<Items, Fault> {
        let suffice = |items: &Items| items.are_titles(wanted.iter().copied());
        let items = self.look(call, anew, suffice).await?;
        let misses = |name: &&ItemName| matches!(items.named(name), Err(Fault::NoItem(_)));
        if !anew && wanted.iter().any(misses) && self.serve.borrow().is_settling() {
            return self.look(call, true, suffice).await;
        }
        Ok(items)
    }

    async fn all(&self, call: &Call) -> Result<Items, Fault> {
        let items = self.look(call, false, Items::are_all_titles).await?;
        if items.is_empty() && self.serve.borrow().is_settling() {
            return self.look(call, true, Items::are_all_titles).await;
        }
        Ok(items)
    }

    async fn put(&self, call: &Call, at: &Reference, value: &str) -> Result<(), Fault> {
        self.get(call, "/status", true, false).await?;
        // Writing what was there before would undo what others changed, or make an item twice.
        let items = self.items(call, &[&at.item], true).await?;
        let (method, path, item) = match items.named(&at.item) {
            Ok(item) => {
                let id = item::id(item);
                if id.is_empty() {
                    return Err(Fault::Broken("it has an item without an id".to_owned()));
                }
                let path = format!("/object/item/{id}");
                (Method::PUT, path, item::with_field(item, at, value)?)
            }
            Err(Fault::NoItem(_)) if item::is_id(at.item.as_str()) => return Err(Fault::no_item(at)),
            Err(Fault::NoItem(_)) => {
                (Method::POST, serve::CREATE.to_owned(), item::with_field(&item::new(&at.item), at, value)?)
            }
            Err(fault) => return Err(fault),
        };
        let json = Zeroizing::new(serde_json::to_vec(&item).map_err(|_| Fault::no_item(at))?);
        let request =
            Request { method, path, json: Some(SecretBytes::copy_of(&json)), synced: false, anew: false };
        let written = self.ask(call, request).await?;
        if !item::holds(&written, at, value) {
            return Err(Fault::Broken("bw did not keep what it was given".to_owned()));
        }
        Ok(())
    }
}

impl LinkedVault for Bitwarden {
    fn state<'a>(&'a self, call: &'a Call) -> Doing<'a, ()> {
        Box::pin(async { self.get(call, "/status", false, false).await.map(drop) })
    }

    fn list<'a>(&'a self, call: &'a Call) -> Doing<'a, Vec<Listed>> {
        Box::pin(async {
            let items = self.all(call).await?;
            Ok(items.list().into_iter().map(|(item, fields)| Listed { item, fields }).collect())
        })
    }

    fn lists_fields(&self) -> bool {
        true
    }

    fn read<'a>(&'a self, call: &'a Call, wanted: &'a [Reference]) -> Doing<'a, Vec<Read>> {
        Box::pin(async {
            let names: Vec<&ItemName> = wanted.iter().map(|reference| &reference.item).collect();
            let items = self.items(call, &names, false).await?;
            Ok(wanted.iter().map(|reference| items.read(reference)).collect())
        })
    }

    fn ssh_keys<'a>(&'a self, call: &'a Call) -> Doing<'a, Vec<SshKey>> {
        Box::pin(async { Ok(self.all(call).await?.ssh_keys()) })
    }

    fn write<'a>(&'a self, call: &'a Call, at: &'a Reference, value: &'a SecretBytes) -> Doing<'a, ()> {
        Box::pin(async {
            let text = str::from_utf8(value.expose());
            let text =
                text.map_err(|_| Fault::Unable("Bitwarden keeps text, and this is none".to_owned()))?;
            self.put(call, at, text).await
        })
    }

    fn patience(&self) -> Duration {
        serve::PATIENCE
    }

    fn hint(&self, fault: &Fault) -> Option<String> {
        let quoted = self.appdata.replace('\'', "'\\''");
        match fault {
            Fault::SignedOut => Some(format!("BITWARDENCLI_APPDATA_DIR='{quoted}' {} login", self.program)),
            Fault::Locked(_) => {
                Some(format!("give keyloan the master password: keyloan vault add --replace {}", self.name))
            }
            Fault::Unreachable(_) | Fault::Broken(_) => {
                Some(format!("try it by itself: BITWARDENCLI_APPDATA_DIR='{quoted}' {} status", self.program))
            }
            _ => None,
        }
    }
}
