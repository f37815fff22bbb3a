//! Vaults that people have elsewhere: what every kind of them can do, and how that fails.
//!
//! A vault is read only behind an approval that is in the log; the broker sees to that. What it is asked for at once
//! is one batch. Nothing here is kept from one request to the next but what a kind itself must keep (a process of its
//! own, a token), and that goes when the local vault is locked.

mod bitwarden;
pub(crate) mod certificates;
mod command;
mod http;
mod keepass;
#[cfg(target_os = "linux")]
mod keyring;
mod lease;
pub(crate) mod links;
mod onepassword;
mod openbao;
mod pass;
pub(crate) mod pinned;
mod rbw;
mod runner;

pub(crate) use lease::Lease;

pub(crate) use keepass::apart::{ARGUMENT as OPEN_KEEPASS, serve as open_keepass};

use crate::patience::Unread;
use crate::vault::linked::links::Link;
use keyloan_protocol::names::{FieldName, ItemName, VaultName};
use keyloan_protocol::reference::Reference;
use keyloan_protocol::secret::SecretBytes;
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::ffi::OsString;
use std::path::PathBuf;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

/// What a vault is doing. Dropped when the requester goes away or the time is up, and with it every process that was
/// started for it.
pub(crate) type Doing<'a, T> = Pin<Box<dyn Future<Output = Result<T, Fault>> + 'a>>;

/// A linked vault. Whoever implements it reads `docs/vaults.md` first.
pub(crate) trait LinkedVault {
    /// How it is, found out without asking a person and without reading a value: `Ok` where it would answer.
    fn state<'a>(&'a self, call: &'a Call) -> Doing<'a, ()>;

    /// The names of its items, and of their fields where those are known without reading values.
    fn list<'a>(&'a self, call: &'a Call) -> Doing<'a, Vec<Listed>>;

    /// Whether `list` names every field of an item: then one without `vars` is no set.
    fn lists_fields(&self) -> bool {
        false
    }

    /// The values of all references, in their order, in as few processes or requests as the vault allows. What is
    /// wrong with the vault fails all of it; what is wrong with one reference fails that one.
    fn read<'a>(&'a self, call: &'a Call, wanted: &'a [Reference]) -> Doing<'a, Vec<Read>>;

    /// Stores a value, where the kind allows that.
    fn write<'a>(&'a self, _call: &'a Call, _at: &'a Reference, _value: &'a SecretBytes) -> Doing<'a, ()> {
        Box::pin(async { Err(Fault::Unable("keyloan does not write to a vault of this kind".to_owned())) })
    }

    /// The ssh keys it holds, by their public halves. A private half is read by `read`, like any value, when the agent
    /// signs with it.
    fn ssh_keys<'a>(&'a self, _call: &'a Call) -> Doing<'a, Vec<SshKey>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    /// What the link is to keep of what was found when it was tried: more settings of its own making.
    fn learned(&self) -> Result<Vec<(&'static str, String)>, Fault> {
        Ok(Vec::new())
    }

    /// Whether a value is still the same in a while: a one-time password and what is made for one loan are not, and are
    /// never kept.
    fn lasts(&self, _at: &Reference) -> bool {
        true
    }

    /// A certificate for an ssh key, `ssh-ed25519-cert-v01@openssh.com AAAA…`, without a line end. Nothing is believed
    /// of it: whoever uses it checks that it is for this key, for the login, and for the time that was asked for.
    fn certificate<'a>(&'a self, _call: &'a Call, _ask: &'a CertificateAsk) -> Doing<'a, String> {
        Box::pin(async { Err(Fault::Unable("a vault of this kind makes no ssh certificates".to_owned())) })
    }

    /// Exchanges secrets that are good once for those that are to be kept, when the vault is linked.
    fn settle<'a>(&'a self, _call: &'a mut Call) -> Doing<'a, ()> {
        Box::pin(async { Ok(()) })
    }

    /// Ends what `read` noted in `Call::leases`, wherever it was noted.
    fn revoke<'a>(&'a self, _call: &'a Call, _lease: &'a Lease) -> Doing<'a, ()> {
        Box::pin(async { Ok(()) })
    }

    /// Ends what it has with its server: the local vault was locked, or the link changed.
    fn sign_out(&self) -> Doing<'_, ()> {
        Box::pin(async { Ok(()) })
    }

    /// How long it may take; longer where a person may be asked by the vault itself.
    fn patience(&self) -> Duration {
        Duration::from_secs(20)
    }

    /// How long a search for titles may take. It comes before the question, and nobody wants to wait for that.
    fn search(&self) -> Duration {
        Duration::from_secs(5)
    }

    /// What to do about a fault of this kind of vault, as a command where there is one; [`hint`] knows the rest.
    fn hint(&self, fault: &Fault) -> Option<String>;
}

pub(crate) type Read = Result<SecretBytes, Fault>;

/// What comes with a request: nothing of it is the requester's word.
#[derive(Default)]
pub(crate) struct Call {
    /// Those of the link, as the local vault keeps them.
    pub(crate) secrets: Secrets,
    /// Where a program of the vault's own may ask the person: the variables of the desktop that the local vault was
    /// unlocked from, and the requester's terminal as the kernel has it.
    pub(crate) desktop: Vec<(&'static str, OsString)>,
    pub(crate) terminal: Option<PathBuf>,
    /// What is made for this call and is to be ended with the loan, noted before it is asked for.
    pub(crate) leases: RefCell<Vec<Rc<Lease>>>,
}

#[derive(Default)]
pub(crate) struct Secrets(Vec<(String, SecretBytes)>);

impl Secrets {
    pub(crate) fn new(secrets: Vec<(String, SecretBytes)>) -> Self {
        Self(secrets)
    }

    /// To be written down.
    pub(crate) fn into_inner(self) -> Vec<(String, SecretBytes)> {
        self.0
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Puts a secret in the place of the one of that name.
    pub(crate) fn put(&mut self, key: &str, secret: SecretBytes) {
        self.take(key);
        self.0.push((key.to_owned(), secret));
    }

    pub(crate) fn take(&mut self, key: &str) -> Option<SecretBytes> {
        let at = self.0.iter().position(|(held, _)| held == key)?;
        Some(self.0.remove(at).1)
    }

    pub(crate) fn expose(&self, key: &str) -> Option<&SecretBytes> {
        self.0.iter().find(|(held, _)| held == key).map(|(_, secret)| secret)
    }
}

/// An item's names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Listed {
    pub(crate) item: ItemName,
    pub(crate) fields: Vec<FieldName>,
}

/// An ssh key, whose private half is a field.
#[derive(Serialize, Deserialize)]
pub(crate) struct SshKey {
    pub(crate) item: ItemName,
    /// What `read` gives for it is a private key in OpenSSH's own format.
    pub(crate) field: FieldName,
    /// The field of the item with the passphrase, where that is encrypted.
    pub(crate) passphrase: Option<FieldName>,
    /// `ssh-ed25519 AAAA… comment`.
    pub(crate) public: String,
}

/// What a certificate is wanted for: one login.
pub(crate) struct CertificateAsk {
    /// The vault's own name for who may be given one: `ROLE`, of the engine that the link names.
    pub(crate) role: String,
    /// `ssh-ed25519 AAAA…`, with or without a comment.
    pub(crate) public: String,
    /// The users that it lets in; none for those that the role has by itself.
    pub(crate) principals: Vec<String>,
    /// How long it is good for.
    pub(crate) ttl: Duration,
}

/// Why a vault did not do what it was asked for. Texts are keyloan's own words with names and paths in them; what a
/// vault or its program printed is never part of one, since it may hold values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub(crate) enum Fault {
    #[error("not signed in")]
    SignedOut,
    #[error("locked: {0}")]
    Locked(String),
    #[error("there is no item '{0}'")]
    NoItem(String),
    /// Only the whole name is one, since rules know items by that.
    #[error("there is no item '{item}', only some with that title")]
    Titled { item: String, candidates: Vec<String> },
    #[error("there is no field '{field}' in item '{item}'")]
    NoField { item: String, field: String },
    #[error("the newest version of '{0}' was deleted there")]
    Deleted(String),
    #[error("'{what}' is more than one thing there")]
    Ambiguous { what: String, candidates: Vec<String> },
    #[error("{0}")]
    Refused(String),
    #[error("{0}")]
    Unreachable(String),
    #[error("asked too often; it answers again {until}")]
    RateLimited { until: String },
    #[error("{0}")]
    Broken(String),
    /// Its program is not the one that was pinned.
    #[error("{0} was changed after the vault was added, so it is not run")]
    Changed(String),
    /// Nothing is wrong; this kind of vault, or its link, does not do that.
    #[error("{0}")]
    Unable(String),
}

impl Fault {
    /// For programs.
    pub(crate) fn key(&self) -> &'static str {
        match self {
            Self::SignedOut => "signed_out",
            Self::Locked(_) => "locked",
            Self::NoItem(_) | Self::NoField { .. } | Self::Titled { .. } | Self::Deleted(_) => "not_found",
            Self::Ambiguous { .. } => "ambiguous",
            Self::Refused(_) => "refused",
            Self::Unreachable(_) => "unreachable",
            Self::RateLimited { .. } => "rate_limited",
            Self::Broken(_) => "broken",
            Self::Changed(_) => "changed",
            Self::Unable(_) => "unable",
        }
    }

    /// It is about what was asked for, and not about the vault.
    pub(crate) fn is_about_the_item(&self) -> bool {
        matches!(
            self,
            Self::NoItem(_)
                | Self::NoField { .. }
                | Self::Titled { .. }
                | Self::Deleted(_)
                | Self::Ambiguous { .. }
        )
    }

    pub(crate) fn no_item(reference: &Reference) -> Self {
        Self::NoItem(reference.item.to_string())
    }

    pub(crate) fn no_field(reference: &Reference) -> Self {
        Self::NoField { item: reference.item.to_string(), field: reference.field.to_string() }
    }
}

impl From<Unread> for Fault {
    fn from(unread: Unread) -> Self {
        match unread {
            Unread::Silent(_) | Unread::Busy(_) => Self::Unreachable(unread.to_string()),
            _ => Self::Broken(unread.to_string()),
        }
    }
}

/// What to do about a fault, as a command where there is one.
pub(crate) fn hint(name: &VaultName, vault: &dyn LinkedVault, fault: &Fault) -> Option<String> {
    match fault {
        Fault::NoItem(_) => Some(format!("keyloan item list --vault {name}")),
        Fault::Changed(_) => Some(format!("if that was you: keyloan vault add --replace {name}")),
        Fault::Unable(_) => Some("docs/vaults.md says what each kind can do".to_owned()),
        fault => vault.hint(fault),
    }
}

/// Files that a link has its program run, and that are pinned like that.
pub(crate) async fn scripts(link: &Link) -> Result<Vec<PathBuf>, Fault> {
    if link.kind == "command" { command::scripts(link).await } else { Ok(Vec::new()) }
}

/// A vault by its link. What costs anything is left until it is asked for something.
pub(crate) fn open(link: &Link) -> Result<Rc<dyn LinkedVault>, Fault> {
    match link.kind.as_str() {
        "pass" => Ok(Rc::new(pass::Pass::open(link)?)),
        "keepass" => Ok(Rc::new(keepass::KeePass::open(link)?)),
        "openbao" => Ok(Rc::new(openbao::OpenBao::open(link)?)),
        "command" => Ok(Rc::new(command::Command::open(link)?)),
        #[cfg(target_os = "linux")]
        "keyring" => Ok(Rc::new(keyring::Keyring::open(link)?)),
        #[cfg(not(target_os = "linux"))]
        "keyring" => Err(Fault::Unable("keyloan reads the keyrings of Linux desktops alone".to_owned())),
        "bitwarden" => Ok(Rc::new(bitwarden::Bitwarden::open(link)?)),
        "rbw" => Ok(Rc::new(rbw::Rbw::open(link)?)),
        "onepassword" => onepassword::open(link),
        other => Err(Fault::Broken(format!("this keyloan does not know vaults of the kind '{other}'"))),
    }
}
