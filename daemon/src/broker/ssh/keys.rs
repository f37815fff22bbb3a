//! The vault's ssh keys: an item with the fields `private_key` (an OpenSSH file) and, public, `public_key` (a line
//! of one), `certificate`, `hosts` and `confirm`. In place of the first there may be, public, where it is in a linked
//! vault. What is public of them stays known while the vault is locked, and
//! lies beside it in the file `public`, in the clear, where a daemon finds it that has not seen the vault open. Any
//! program of the user can write to that file: it says what is listed, never what is signed with.

use super::elsewhere::Elsewhere;
use super::recipe::Recipe;
use super::{AgentRefusal, Broker};
use crate::audit::event::Event;
use crate::audit::sink::Durable;
use crate::broker::{Approved, Client, Refusal};
use crate::clock;
use crate::hosts::pins;
use crate::signing::public_line::read_public_line;
use crate::signing::{SigningKey, key_file};
use crate::vault::local::LocalVault;
use crate::vault::local::index::{Entry, Kind};
use keyloan_protocol::control::request::Confirm;
use keyloan_protocol::names::{FieldName, ItemName};
use keyloan_protocol::secret::SecretBytes;
use keyloan_protocol::ssh_agent::algorithm::KeyType;
use keyloan_protocol::ssh_agent::key::PublicKey;
use keyloan_protocol::ssh_agent::private_key::PrivateKey;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::path::PathBuf;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;

pub(in crate::broker) const PRIVATE_KEY: &str = "private_key";
pub(in crate::broker) const PRIVATE_KEY_IN: &str = "private_key_in";
pub(super) const PASSPHRASE_IN: &str = "passphrase_in";
pub(super) const PUBLIC_KEY: &str = "public_key";
pub(super) const CERTIFICATE: &str = "certificate";
pub(super) const HOSTS: &str = "hosts";
pub(super) const CONFIRM: &str = "confirm";

pub(super) const CERTIFIED_BY: &str = "certified_by";

/// Those that the agent reads.
pub(in crate::broker) const FIELDS: [&str; 8] =
    [PRIVATE_KEY, PRIVATE_KEY_IN, PASSPHRASE_IN, PUBLIC_KEY, CERTIFICATE, HOSTS, CONFIRM, CERTIFIED_BY];

/// Hosts that one key is for (a count), and the bytes of the longest, with a port.
const MOST_HOSTS: usize = 64;
const LONGEST_HOST: usize = 270;

/// The word of a `confirm` field.
pub(super) const ALWAYS: &str = "always";

/// A key stays ready to sign for this long after it did; until then it lies in its item's file, encrypted.
const IDLE: Duration = Duration::from_secs(10);

/// What is public of a key in the vault.
#[derive(Clone, PartialEq)]
pub(super) struct VaultKey {
    pub(super) item: ItemName,
    pub(super) public: PublicKey,
    pub(super) comment: Vec<u8>,
    pub(super) certificate: Option<PublicKey>,
    pub(super) hosts: Vec<String>,
    pub(super) confirm: Confirm,
    /// Where the private half is, if not in the vault itself.
    pub(super) elsewhere: Option<Elsewhere>,
}

/// The fields of one key as the file `public` has them.
#[derive(PartialEq, Eq, Serialize, Deserialize)]
struct Written {
    item: ItemName,
    public_key: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    private_key_in: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    passphrase_in: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    certificate: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hosts: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    confirm: Option<String>,
}

impl Written {
    /// What the index says of an item, if it is a key.
    fn of(entry: &Entry) -> Option<Self> {
        let field = |name: &str| entry.fields.iter().find(|field| field.name.as_str() == name);
        let value = |name: &str| field(name)?.value.clone();
        let is_here = field(PRIVATE_KEY).is_some();
        let elsewhere = |name| value(name).filter(|_| !is_here);
        if !is_here && value(PRIVATE_KEY_IN).is_none() {
            return None;
        }
        // What limits a key is read beside the locked vault. Where it cannot be, nothing would limit it.
        if [HOSTS, CONFIRM].into_iter().filter_map(field).any(|limit| limit.value.is_none()) {
            return None;
        }
        Some(Self {
            item: ItemName::parse(&entry.title).ok()?,
            public_key: value(PUBLIC_KEY)?,
            private_key_in: elsewhere(PRIVATE_KEY_IN),
            passphrase_in: elsewhere(PASSPHRASE_IN),
            certificate: value(CERTIFICATE),
            hosts: value(HOSTS),
            confirm: value(CONFIRM),
        })
    }

    /// `None` where it is none that we know, or is for hosts that nobody could have set. A certificate that is not for
    /// the key is left out.
    fn key(&self) -> Option<VaultKey> {
        let hosts: Vec<String> =
            self.hosts.iter().flat_map(|hosts| hosts.split_whitespace()).map(str::to_owned).collect();
        // Any program can write that file, and every pattern costs time with every list.
        if hosts.len() > MOST_HOSTS || hosts.iter().any(|host| host.len() > LONGEST_HOST) {
            return None;
        }
        let (public, comment) = read_public_line(&self.public_key).ok()?;
        let elsewhere = match &self.private_key_in {
            Some(key) => Some(Elsewhere::parse(key, self.passphrase_in.as_deref())?),
            None => None,
        };
        let certificate = self.certificate.as_deref().and_then(|line| read_public_line(line).ok());
        let certificate = certificate.map(|(key, _)| key).filter(|key| key.is_or_certifies(&public));
        public.certificate().is_none().then(|| VaultKey {
            item: self.item.clone(),
            public,
            comment: comment.into_bytes(),
            certificate,
            hosts,
            confirm: if self.confirm.as_deref().map(str::trim_end) == Some(ALWAYS) {
                Confirm::Always
            } else {
                Confirm::Session
            },
            elsewhere,
        })
    }
}

/// Refuses what would leave a key without the limit that somebody means to set, or without a place in lists.
pub(in crate::broker) fn check_limit(
    field: &FieldName,
    public: bool,
    value: &SecretBytes,
) -> Result<(), Refusal> {
    let text = str::from_utf8(value.expose()).unwrap_or_default();
    match field.as_str() {
        HOSTS | CONFIRM if !public => Err(Refusal::Input(
            "the hosts and the confirm of an ssh key are public: keyloan ssh set, or item set --public",
        )),
        HOSTS => check_hosts(&text.split_whitespace().map(str::to_owned).collect::<Vec<_>>()),
        PRIVATE_KEY_IN | PASSPHRASE_IN if !public || Elsewhere::parse(text, None).is_none() => {
            Err(Refusal::Input("where a private half is, is a public field with a linked vault's reference"))
        }
        CERTIFIED_BY if !public || Recipe::parse(text).is_none() => {
            Err(Refusal::Input("who certifies an ssh key is set by keyloan ssh certify"))
        }
        CONFIRM if ![ALWAYS, "session"].contains(&text.trim_end()) => {
            Err(Refusal::Input("the confirm of an ssh key is 'always' or 'session'"))
        }
        _ => Ok(()),
    }
}

pub(super) fn check_hosts(hosts: &[String]) -> Result<(), Refusal> {
    let is_pattern = |host: &String| pins::host_name(&host.replace(['*', '?'], "x")).is_some();
    if hosts.is_empty() || hosts.len() > MOST_HOSTS || !hosts.iter().all(is_pattern) {
        return Err(Refusal::Input("a key has at most 64 hosts, each a name that may hold * and ?"));
    }
    Ok(())
}

/// The keys that the vault offers, as of some change of it.
#[derive(Default)]
pub(super) struct Ring {
    pub(super) keys: Rc<Vec<VaultKey>>,
    /// For which of them certificates are made, as the vault said when it was last open.
    pub(super) recipes: Rc<Vec<(ItemName, Recipe)>>,
    /// The agents behind this one, as the policy named them when it was last open.
    pub(super) upstream: Vec<PathBuf>,
    /// The vault's counter when that was read, and whether the file beside it says the same.
    read_at: Option<u64>,
    is_written: bool,
    /// The file was read for want of an open vault.
    from_file: bool,
}

impl Broker {
    /// The vault's keys as they are now, or were when it was last open.
    pub(super) fn vault_keys(&self) -> Rc<Vec<VaultKey>> {
        self.keep_ring();
        Rc::clone(&self.ssh.ring.borrow().keys)
    }

    /// Follows the vault: the ring in memory, and the file beside it.
    pub(super) fn keep_ring(&self) {
        let mut vault = self.vault.borrow_mut();
        let mut ring = self.ssh.ring.borrow_mut();
        let Ok(index) = vault.index() else {
            if ring.read_at.is_none() && !ring.from_file {
                ring.from_file = true;
                let written = read_file(&mut vault).unwrap_or_default();
                ring.keys = Rc::new(written.iter().filter_map(Written::key).collect());
            }
            return;
        };
        let counter = index.counter();
        if ring.read_at == Some(counter) && ring.is_written {
            return;
        }
        let entries = index.entries(Kind::Item);
        let written: Vec<Written> = entries.iter().copied().filter_map(Written::of).collect();
        ring.keys = Rc::new(written.iter().filter_map(Written::key).collect());
        ring.recipes = Rc::new(entries.into_iter().filter_map(recipe).collect());
        ring.read_at = Some(counter);
        let found = read_file(&mut vault);
        ring.is_written = found.as_ref() == Some(&written) || write_file(&mut vault, &written);
    }

    /// Keys that are ready to sign go; what is public of them stays as it is now.
    pub(in crate::broker) fn lock_keys(&self) {
        self.keep_ring();
        self.upstream_paths();
        self.ssh.opened.borrow_mut().close_all();
    }

    /// Compares the file beside a vault that was just opened with what the vault says itself.
    pub(in crate::broker) fn check_public_file(&self) -> Result<(), Refusal> {
        let mut vault = self.vault.borrow_mut();
        let index = vault.index()?;
        let written: Vec<Written> = index.entries(Kind::Item).into_iter().filter_map(Written::of).collect();
        let differs = read_file(&mut vault).is_some_and(|found| found != written);
        drop(vault);
        self.ssh.ring.borrow_mut().read_at = None;
        self.ssh.ring.borrow_mut().upstream = self.with_policy(|policy| policy.upstream.clone())?;
        if differs {
            self.record(&Event::PublicKeysReplaced, Durable::Soon)?;
        }
        self.keep_ring();
        Ok(())
    }

    /// The vault's key, ready to sign. Its item, or the vault that has its private half, is read where that was not done
    /// a moment ago.
    pub(super) async fn open_vault_key(
        &self,
        client: &Client,
        approved: &Approved,
        key: &VaultKey,
    ) -> Result<Arc<SigningKey>, Refusal> {
        // Not by the public half: another item may claim the same.
        let name = format!("item {}", key.item);
        // Where the item is another key now, what is opened below takes its place.
        let held = self.ssh.opened.borrow_mut().find(name.as_bytes());
        if let Some(opened) = held.filter(|opened| *opened.public() == key.public) {
            return Ok(opened);
        }
        // What many programs sign with at once is opened for one of them.
        let turn = self.ssh.opened.borrow_mut().turn(name.as_bytes());
        let _turn = turn.lock().await;
        let held = self.ssh.opened.borrow_mut().find(name.as_bytes());
        if let Some(opened) = held.filter(|opened| *opened.public() == key.public) {
            return Ok(opened);
        }
        let opened = if let Some(elsewhere) = &key.elsewhere {
            self.open_key_elsewhere(client, approved, key, elsewhere).await?
        } else {
            let fields = self.vault.borrow().read(Kind::Item, key.item.as_str())?;
            let gone = || Refusal::NoField { item: key.item.to_string(), field: PRIVATE_KEY.to_owned() };
            let fields = fields.ok_or_else(gone)?;
            let field = fields.iter().find(|field| field.name.as_str() == PRIVATE_KEY).ok_or_else(gone)?;
            let (private, _) = key_file::read(field.value.expose(), None)?;
            let opened = open(private).await?;
            if *opened.public() != key.public {
                return Err(AgentRefusal::Mismatch(key.item.to_string()).into());
            }
            opened
        };
        self.ssh.opened.borrow_mut().keep(name.as_bytes(), &opened);
        Ok(opened)
    }
}

fn recipe(entry: &Entry) -> Option<(ItemName, Recipe)> {
    let field = entry.fields.iter().find(|field| field.name.as_str() == CERTIFIED_BY)?;
    Some((ItemName::parse(&entry.title).ok()?, Recipe::parse(field.value.as_deref()?)?))
}

/// Makes a key ready to sign. What that takes of an RSA key is too much for the loop that serves everybody.
pub(super) async fn open(private: PrivateKey) -> Result<Arc<SigningKey>, Refusal> {
    let is_rsa = private.public().key_type() == KeyType::Rsa;
    let open = move || SigningKey::open(&private);
    let opened =
        if is_rsa { tokio::task::spawn_blocking(open).await.map_err(|_| Refusal::Task)? } else { open() };
    Ok(Arc::new(opened.map_err(AgentRefusal::from)?))
}

/// Keys that were used a moment ago. Dropping one wipes it.
#[derive(Default)]
pub(super) struct Opened {
    keys: HashMap<Vec<u8>, (Arc<SigningKey>, Duration)>,
    /// Who opens one now, and who waits for that.
    turns: HashMap<Vec<u8>, Weak<Mutex<()>>>,
}

impl Opened {
    fn turn(&mut self, name: &[u8]) -> Rc<Mutex<()>> {
        self.turns.retain(|_, turn| turn.strong_count() > 0);
        let turn = self.turns.get(name).and_then(Weak::upgrade).unwrap_or_default();
        self.turns.insert(name.to_vec(), Rc::downgrade(&turn));
        turn
    }

    pub(super) fn find(&mut self, name: &[u8]) -> Option<Arc<SigningKey>> {
        let (key, used) = self.keys.get_mut(name)?;
        *used = clock::since_boot();
        Some(Arc::clone(key))
    }

    pub(super) fn keep(&mut self, name: &[u8], key: &Arc<SigningKey>) {
        self.keys.insert(name.to_vec(), (Arc::clone(key), clock::since_boot()));
    }

    pub(super) fn close(&mut self, name: &[u8]) {
        self.keys.remove(name);
    }

    pub(super) fn close_all(&mut self) {
        self.keys.clear();
    }

    pub(super) fn close_idle(&mut self) {
        let now = clock::since_boot();
        self.keys.retain(|_, (_, used)| now.saturating_sub(*used) < IDLE);
    }
}

fn read_file(vault: &mut LocalVault) -> Option<Vec<Written>> {
    serde_json::from_slice(&vault.read_public().ok()??).ok()
}

/// Where it cannot be written now it is tried again at the next look.
fn write_file(vault: &mut LocalVault, keys: &[Written]) -> bool {
    serde_json::to_vec(keys).is_ok_and(|bytes| vault.replace_public(&bytes).is_ok())
}
