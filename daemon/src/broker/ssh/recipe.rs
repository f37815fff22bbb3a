//! Which certificates are made for a key, by whom and for which hosts; and what has to be right about one before it is
//! used. Nothing that the vault says is believed: a certificate that lasts long, or lets other users in, is worth more
//! than what somebody said yes to.

use super::keys::check_hosts;
use crate::signing::certificate_is_signed;
use crate::signing::public_line::read_public_line;
use keyloan_protocol::names::VaultName;
use keyloan_protocol::ssh_agent::certificate::CertificateKind;
use keyloan_protocol::ssh_agent::key::PublicKey;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How far the clock of whoever signs may be ahead of ours.
const SKEW: u64 = 60;
/// What is made for one login need not last longer.
const LONGEST: u64 = 24 * 3600;
/// Users of one certificate (a count), and the bytes of a name.
const MOST: usize = 16;
const NAME: usize = 128;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Recipe {
    pub(crate) vault: VaultName,
    /// The vault's own name for what it signs.
    pub(crate) role: String,
    pub(crate) hosts: Vec<String>,
    /// Users that it lets in; none for those that the role has by itself.
    #[serde(default)]
    pub(crate) principals: Vec<String>,
    pub(crate) seconds: u64,
    /// The line of the key that signs. What any other signed is not used.
    pub(crate) authority: String,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CertificateFault {
    #[error("what the vault gave is no ssh certificate")]
    Form,
    #[error("it is for another key")]
    OtherKey,
    #[error("it is for a host, and not for a user")]
    Kind,
    #[error("it is signed by another authority than the one that was kept, or not at all")]
    Authority,
    #[error("it is not valid now")]
    Time,
    #[error("it is valid for longer than was asked for")]
    TooLong,
    #[error("it is for any user")]
    AnyUser,
    #[error("it lets in '{0}', which was not asked for")]
    Principal(String),
    #[error("it wants '{0}' of the server, which is not what was agreed to")]
    Option(String),
}

impl Recipe {
    /// From the field that keeps it.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let recipe: Self = serde_json::from_str(text).ok()?;
        let is_right = recipe.fault().is_none() && recipe.authority_key().is_some();
        is_right.then_some(recipe)
    }

    /// What is wrong with what somebody gave. A name may become a word of a command line.
    pub(super) fn fault(&self) -> Option<&'static str> {
        let is_name = |name: &String| {
            let plain =
                !name.starts_with('-') && !name.contains([',', '/']) && !name.contains(char::is_control);
            !name.is_empty() && name.len() <= NAME && plain && name.trim() == name
        };
        if self.vault.is_local() {
            return Some("the local vault makes no certificates");
        }
        if check_hosts(&self.hosts).is_err() {
            return Some("certificates are for at most 64 hosts, each a name that may hold * and ?");
        }
        if !is_name(&self.role) || self.principals.len() > MOST || !self.principals.iter().all(is_name) {
            return Some(
                "a role or a user has at most 128 bytes, without ',' and '/'; there are at most 16 users",
            );
        }
        (self.seconds == 0 || self.seconds > LONGEST).then_some("a certificate is made for at most 24h")
    }

    pub(super) fn authority_key(&self) -> Option<PublicKey> {
        let (key, _) = read_public_line(&self.authority).ok()?;
        key.certificate().is_none().then_some(key)
    }

    pub(super) fn lasts(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }

    /// The certificate of a line, if it is for this key and says no more than was asked for.
    pub(super) fn check(&self, line: &str, key: &PublicKey, now: u64) -> Result<PublicKey, CertificateFault> {
        let certified = read(line)?;
        let certificate = certified.certificate().ok_or(CertificateFault::Form)?;
        if !certified.is_or_certifies(key) {
            return Err(CertificateFault::OtherKey);
        }
        if certificate.kind != CertificateKind::User {
            return Err(CertificateFault::Kind);
        }
        if self.authority_key().as_ref() != Some(&certificate.authority)
            || !certificate_is_signed(certificate)
        {
            return Err(CertificateFault::Authority);
        }
        if !certificate.is_valid_at(now) {
            return Err(CertificateFault::Time);
        }
        if certificate.valid_before > now.saturating_add(self.seconds).saturating_add(SKEW) {
            return Err(CertificateFault::TooLong);
        }
        if certificate.principals.is_empty() {
            return Err(CertificateFault::AnyUser);
        }
        let is_other = |name: &&String| !self.principals.is_empty() && !self.principals.contains(name);
        if let Some(other) = certificate.principals.iter().find(is_other) {
            return Err(CertificateFault::Principal(other.clone()));
        }
        // One that only says where a login may come from takes nothing from anybody.
        let mut options = certificate.critical_options.iter();
        match options.find(|option| option.name != "source-address") {
            Some(option) => Err(CertificateFault::Option(option.name.clone())),
            None => Ok(certified),
        }
    }
}

/// The authority that signed the certificate of a line.
pub(super) fn authority(line: &str) -> Result<PublicKey, CertificateFault> {
    let certified = read(line)?;
    certified.certificate().map(|certificate| certificate.authority.clone()).ok_or(CertificateFault::Form)
}

fn read(line: &str) -> Result<PublicKey, CertificateFault> {
    read_public_line(line).map(|(key, _)| key).map_err(|_| CertificateFault::Form)
}
