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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signing::public_line::public_line;
    use crate::signing::{KeyKind, SigningKey, generate};
    use keyloan_protocol::ssh_agent::algorithm::{KeyType, SignatureAlgorithm};
    use keyloan_protocol::ssh_agent::key::Material;
    use keyloan_protocol::ssh_agent::wire::{self, Writer};

    const NOW: u64 = 1_000_000;

    struct Signed {
        after: u64,
        before: u64,
        users: &'static [&'static str],
        option: Option<&'static str>,
    }

    const RIGHT: Signed = Signed { after: NOW - 30, before: NOW + 300, users: &["git"], option: None };

    impl Signed {
        fn line(&self, authority: &SigningKey) -> String {
            let body = |out: &mut Writer| {
                out.text(KeyType::Ed25519.certificate_name());
                for bytes in [&b"nonce"[..], &[3; 32]] {
                    out.string(bytes);
                }
                out.u64(1);
                out.u32(1);
                out.text("id");
                out.nested(|out| self.users.iter().for_each(|user| out.text(user)));
                out.u64(self.after);
                out.u64(self.before);
                out.nested(|out| {
                    self.option.iter().for_each(|name| {
                        out.text(name);
                        out.nested(|out| out.text("10.0.0.0/8"));
                    });
                });
                out.string(b"");
                out.string(b"");
                out.string(authority.public().blob());
            };
            let signature = authority.sign(SignatureAlgorithm::Ed25519, &wire::encode(body)).unwrap();
            let blob = wire::encode(|out| {
                body(out);
                out.string(&signature.encode());
            });
            public_line(&PublicKey::parse(&blob).unwrap(), b"")
        }
    }

    fn authority() -> SigningKey {
        SigningKey::open(&generate(KeyKind::Ed25519).unwrap()).unwrap()
    }

    fn recipe(authority: &SigningKey, principals: &[&str]) -> Recipe {
        Recipe {
            vault: VaultName::parse("team").unwrap(),
            role: "dev".to_owned(),
            hosts: vec!["*.example.org".to_owned()],
            principals: principals.iter().map(|&name| name.to_owned()).collect(),
            seconds: 300,
            authority: public_line(authority.public(), b""),
        }
    }

    fn key(byte: u8) -> PublicKey {
        PublicKey::plain(&Material::Ed25519([byte; 32])).unwrap()
    }

    #[test]
    fn a_certificate_is_taken_up_to_what_was_asked_for_and_not_beyond() {
        let authority = authority();
        let fault = |signed: Signed, users: &[&str]| {
            recipe(&authority, users).check(&signed.line(&authority), &key(3), NOW).err()
        };
        assert_eq!(fault(RIGHT, &[]), None);
        assert_eq!(fault(RIGHT, &["git", "root"]), None);
        assert_eq!(fault(Signed { before: NOW + 300 + SKEW, after: NOW, ..RIGHT }, &[]), None);
        assert_eq!(fault(Signed { option: Some("source-address"), ..RIGHT }, &[]), None);
        let too_long = Some(CertificateFault::TooLong);
        assert_eq!(fault(Signed { before: NOW + 301 + SKEW, ..RIGHT }, &[]), too_long);
        assert_eq!(fault(Signed { before: u64::MAX, ..RIGHT }, &[]), too_long);
        let time = Some(CertificateFault::Time);
        assert_eq!(fault(Signed { after: NOW + 1, ..RIGHT }, &[]), time);
        assert_eq!(fault(Signed { before: NOW, ..RIGHT }, &[]), time);
        assert_eq!(fault(Signed { users: &[], ..RIGHT }, &[]), Some(CertificateFault::AnyUser));
        let other = Some(CertificateFault::Principal("root".to_owned()));
        assert_eq!(fault(Signed { users: &["git", "root"], ..RIGHT }, &["git"]), other);
        let option = Some(CertificateFault::Option("force-command".to_owned()));
        assert_eq!(fault(Signed { option: Some("force-command"), ..RIGHT }, &[]), option);
    }

    #[test]
    fn a_certificate_by_another_authority_or_for_another_key_is_none() {
        let (authority, stranger) = (authority(), authority());
        let check = |line: &str, byte| recipe(&authority, &[]).check(line, &key(byte), NOW).err();
        assert_eq!(check(&RIGHT.line(&stranger), 3), Some(CertificateFault::Authority));
        assert_eq!(check(&RIGHT.line(&authority), 4), Some(CertificateFault::OtherKey));
        assert_eq!(check(&public_line(&key(3), b""), 3), Some(CertificateFault::Form));
        assert_eq!(check("", 3), Some(CertificateFault::Form));
    }

    #[test]
    fn what_is_kept_reads_back_and_what_nobody_could_have_set_does_not() {
        let right = recipe(&authority(), &["git"]);
        let text = |recipe: &Recipe| serde_json::to_string(recipe).unwrap();
        assert_eq!(Recipe::parse(&text(&right)), Some(right.clone()));
        for wrong in [
            Recipe { vault: VaultName::local(), ..right.clone() },
            Recipe { role: "-x".to_owned(), ..right.clone() },
            Recipe { role: "a/b".to_owned(), ..right.clone() },
            Recipe { hosts: Vec::new(), ..right.clone() },
            Recipe { principals: vec!["a,b".to_owned()], ..right.clone() },
            Recipe { principals: vec!["a".to_owned(); MOST + 1], ..right.clone() },
            Recipe { seconds: LONGEST + 1, ..right.clone() },
            Recipe { seconds: 0, ..right.clone() },
            Recipe { authority: String::new(), ..right },
        ] {
            assert_eq!(Recipe::parse(&text(&wrong)), None);
        }
    }
}
