//! Bitwarden by `rbw`, whose agent keeps the account open and asks for the master password itself when its user says
//! `rbw unlock`. keyloan asks an agent that is there and open: it starts none, which would have no desktop to ask on, and
//! unlocks none. One process for the names, and one an item.
//!
//! Items are called as those of the kind `bitwarden`; what `rbw` keeps in `data` are fields by its own names.

use super::bitwarden::item::{self, Items};
use super::links::Link;
use super::pinned::Pinned;
use super::runner::{Ended, Order, together};
use super::{Call, Doing, Fault, LinkedVault, Listed, Read};
use keyloan_platform::process::effective_uid;
use keyloan_protocol::limits;
use keyloan_protocol::reference::Reference;
use keyloan_protocol::secret::SecretBytes;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::time::timeout;

/// Nobody is asked anything.
const DEADLINE: Duration = Duration::from_secs(10);
/// Processes at once.
const AT_ONCE: usize = 4;
/// The names of a large vault.
const NAMES: usize = 16 * 1024 * 1024;
/// An item; JSON writes a byte as six at most.
const ITEM: usize = 8 * limits::FIELD_VALUE;

const RUNTIME: &str = "XDG_RUNTIME_DIR";

pub(super) struct Rbw {
    program: Pinned,
    profile: Option<String>,
    runtime: Option<PathBuf>,
}

impl Rbw {
    pub(super) fn open(link: &Link) -> Result<Self, Fault> {
        let profile = link.setting("profile").map(str::to_owned);
        if profile.as_ref().is_some_and(|profile| profile.contains('/')) {
            return Err(Fault::Broken("profile takes a name without '/'".to_owned()));
        }
        let runtime = link.setting("runtime").map(|_| link.path("runtime")).transpose()?;
        Ok(Self { program: link.program("rbw")?.clone(), profile, runtime })
    }

    fn runtime(&self, call: &Call) -> PathBuf {
        let desktop = call.desktop.iter().find(|(name, _)| *name == RUNTIME);
        let found = self.runtime.clone().or_else(|| desktop.map(|(_, path)| PathBuf::from(path)));
        found.unwrap_or_else(|| PathBuf::from(format!("/run/user/{}", effective_uid())))
    }

    /// As the crate `directories` makes one of a name.
    fn folder(&self) -> String {
        let profile = self.profile.as_ref().map(|profile| format!("-{profile}")).unwrap_or_default();
        format!("rbw{profile}").to_lowercase().split_whitespace().collect()
    }

    async fn run(&self, call: &Call, arguments: &[&str], most: usize) -> Result<Ended, Fault> {
        let runtime = self.runtime(call);
        let mut variables = vec![(RUNTIME, runtime.clone().into_os_string())];
        variables.extend(self.profile.as_ref().map(|profile| ("RBW_PROFILE", OsString::from(profile))));
        let connected =
            timeout(DEADLINE, UnixStream::connect(runtime.join(self.folder()).join("socket"))).await;
        if !connected.is_ok_and(|connected| connected.is_ok()) {
            return Err(Fault::Locked("rbw's agent does not run".to_owned()));
        }
        let arguments = arguments.iter().map(OsString::from).collect();
        let program = &self.program;
        Order { program, arguments, variables, input: None, most, deadline: DEADLINE }.run().await
    }

    async fn is_open(&self, call: &Call) -> Result<(), Fault> {
        match self.run(call, &["unlocked"], 1024).await?.status {
            0 => Ok(()),
            1 => Err(locked()),
            status => Err(self.failed(status)),
        }
    }

    /// All items, with nothing but what names them.
    async fn names(&self, call: &Call) -> Result<Items, Fault> {
        // Not by lines: a title may hold a line end, and what looks like another item behind it.
        let ended = self.run(call, &["list", "--raw"], NAMES).await?;
        if ended.status != 0 {
            return Err(self.said(&ended));
        }
        let garbage =
            || Fault::Broken(format!("{} does not answer as rbw does", self.program.path.display()));
        let list: Vec<Value> = serde_json::from_slice(ended.output.expose()).map_err(|_| garbage())?;
        let (mut items, mut folders) = (Vec::new(), HashMap::new());
        for listed in list {
            let folder = listed["folder"].as_str();
            items.push(json!({ "id": listed["id"], "name": listed["name"], "folderId": folder }));
            folders.extend(folder.map(|folder| (folder.to_owned(), folder.to_owned())));
        }
        Ok(Items::by_names(items, folders))
    }

    /// An item whole, with the shape that `bw` gives one.
    async fn item(&self, call: &Call, id: &str) -> Result<Value, Fault> {
        let ended = self.run(call, &["get", "--raw", id], ITEM).await?;
        if ended.status != 0 {
            return Err(self.said(&ended));
        }
        let raw = serde_json::from_slice(ended.output.expose()).ok().filter(Value::is_object);
        let garbage =
            || Fault::Broken(format!("{} does not answer as rbw does", self.program.path.display()));
        Ok(shaped(raw.ok_or_else(garbage)?))
    }

    fn failed(&self, status: i32) -> Fault {
        Fault::Broken(format!("{} ended with status {status}", self.program.path.display()))
    }

    fn said(&self, ended: &Ended) -> Fault {
        let text = String::from_utf8_lossy(ended.errors.expose());
        let says = |words: &str| text.contains(words);
        if says("agent is locked") || says("database is locked") {
            locked()
        } else if says("no entry found") {
            Fault::Refused("an item was removed meanwhile".to_owned())
        } else if says("please run `rbw config set email") || says("not logged in") {
            Fault::SignedOut
        } else {
            self.failed(ended.status)
        }
    }
}

fn locked() -> Fault {
    Fault::Locked("rbw's agent was not unlocked".to_owned())
}

/// `data` are fields of one kind or another; only secure notes have none.
fn shaped(mut raw: Value) -> Value {
    let data = raw["data"].take();
    if data.as_object().is_none_or(serde_json::Map::is_empty) {
        raw["type"] = item::SECURE_NOTE.into();
    }
    for field in raw["fields"].as_array_mut().into_iter().flatten() {
        if field["type"] == "linked" {
            field["type"] = item::LINKED.into();
        }
    }
    raw["identity"] = data;
    raw
}

impl LinkedVault for Rbw {
    fn state<'a>(&'a self, call: &'a Call) -> Doing<'a, ()> {
        Box::pin(self.is_open(call))
    }

    fn list<'a>(&'a self, call: &'a Call) -> Doing<'a, Vec<Listed>> {
        Box::pin(async {
            self.is_open(call).await?;
            let listed = self.names(call).await?.list();
            // Which fields there are is known only with their values.
            Ok(listed.into_iter().map(|(item, _)| Listed { item, fields: Vec::new() }).collect())
        })
    }

    fn read<'a>(&'a self, call: &'a Call, wanted: &'a [Reference]) -> Doing<'a, Vec<Read>> {
        Box::pin(async {
            self.is_open(call).await?;
            let names = self.names(call).await?;
            let id = |reference: &Reference| names.named(&reference.item).map(item::id);
            let found: Vec<Result<&str, Fault>> = wanted.iter().map(id).collect();
            let mut ids: Vec<&str> = found.iter().flatten().copied().collect();
            ids.sort_unstable();
            ids.dedup();
            let mut items: HashMap<&str, Value> = HashMap::new();
            for some in ids.chunks(AT_ONCE) {
                let read = together(some.iter().map(|id| self.item(call, id)).collect()).await;
                for (id, item) in some.iter().zip(read) {
                    items.insert(id, item?);
                }
            }
            let one = |(reference, id): (&Reference, Result<&str, Fault>)| match items.get(id?) {
                Some(item) => item::field(item, reference),
                None => Err(Fault::no_item(reference)),
            };
            Ok(wanted.iter().zip(found).map(one).collect::<Vec<Result<SecretBytes, Fault>>>())
        })
    }

    fn patience(&self) -> Duration {
        DEADLINE * 6
    }

    fn hint(&self, fault: &Fault) -> Option<String> {
        let profile =
            self.profile.as_ref().map(|profile| format!("RBW_PROFILE={profile} ")).unwrap_or_default();
        let command = match fault {
            Fault::Locked(_) => "unlock",
            Fault::SignedOut => "login",
            _ => return None,
        };
        Some(format!("{profile}{} {command}", self.program.path.display()))
    }
}
