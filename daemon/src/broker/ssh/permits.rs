//! What a signature would permit and with whose key, as questions, rules and the log have it.

use super::AgentConnection;
use super::added::AddedKey;
use super::keys::VaultKey;
use super::named::Host;
use crate::approval::question::Certainty;
use crate::broker::Beyond;
use crate::hosts::pins::Pins;
use crate::policy::decide::Subject;
use crate::policy::rule::Kind;
use crate::signing;
use keyloan_protocol::control::request::Confirm;
use keyloan_protocol::ssh_agent::algorithm::SignatureAlgorithm;
use keyloan_protocol::ssh_agent::key::PublicKey;
use keyloan_protocol::ssh_agent::to_be_signed::{Document, Login};
use sha2::{Digest, Sha256};
use std::path::PathBuf;
use std::rc::Rc;

/// Where the key that is to sign is kept.
pub(super) enum Holder {
    Vault(Box<VaultKey>),
    Added(Rc<AddedKey>),
    Upstream(PathBuf),
}

impl Holder {
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Vault(key) => key.item.to_string(),
            Self::Added(key) => format!("added: {}", String::from_utf8_lossy(&key.comment)),
            Self::Upstream(path) => format!("of the agent at {}", path.display()),
        }
    }

    fn is_confirmed_always(&self) -> bool {
        match self {
            Self::Vault(key) => key.confirm == Confirm::Always,
            Self::Added(key) => key.confirm,
            Self::Upstream(_) => false,
        }
    }
}

/// What a signature would permit.
pub(super) enum Permits {
    Login(Box<Login>, Place),
    Document(Document),
    /// Nobody can say.
    Other {
        sha256: String,
    },
}

/// Where a login goes.
pub(super) enum Place {
    /// By a session that the host itself signed.
    Bound(PublicKey, Host),
    /// The client did not say.
    Unknown,
}

impl Permits {
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Login(..) => Kind::SshLogin,
            Self::Document(_) => Kind::SshSignature,
            Self::Other { .. } => Kind::SshOther,
        }
    }

    pub(super) fn title(&self) -> &'static str {
        match self {
            Self::Login(..) => "log in with an ssh key",
            Self::Document(document) if document.namespace == "git" => "sign a commit or tag with an ssh key",
            Self::Document(_) => "sign a file with an ssh key",
            Self::Other { .. } => "sign bytes that keyloan does not understand with an ssh key",
        }
    }

    /// Whether a human who was shown the other would not have taken it for this.
    pub(super) fn contradicts(&self, shown: &Self, pins: &Pins) -> bool {
        match (self, shown) {
            (Self::Login(_, Place::Bound(_, host)), Self::Login(_, Place::Bound(_, shown))) => {
                host.contradicts(shown, pins)
            }
            _ => false,
        }
    }

    /// The certificate that lets a login in, whichever key the client has it signed with.
    pub(super) fn certificate(&self) -> Option<&PublicKey> {
        match self {
            Self::Login(login, _) => Some(&login.key).filter(|key| key.certificate().is_some()),
            _ => None,
        }
    }

    /// The host of a login: its key's fingerprint, and how sure its name is.
    pub(super) fn host(&self) -> (Option<String>, Option<Certainty>) {
        match self {
            Self::Login(_, Place::Bound(key, host)) => {
                (Some(signing::fingerprint(key)), Some(host.shown().1))
            }
            _ => (None, None),
        }
    }

    /// `git@github.com`, `git` for the log.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Login(login, Place::Bound(_, host)) => format!("{}@{}", shown_user(login), host.shown().0),
            Self::Login(login, Place::Unknown) => format!("{}@ an unknown host", shown_user(login)),
            Self::Document(document) => format!("namespace {}", document.namespace),
            Self::Other { sha256 } => format!("bytes with SHA-256 {sha256}"),
        }
    }
}

/// What a yes to an ssh session was for, and covers when it is asked for again: the same login to a host that has a
/// name, and not by way of another.
pub(super) struct Covered {
    login: Login,
    key: PublicKey,
    algorithm: SignatureAlgorithm,
}

impl Covered {
    pub(super) fn of(permits: &Permits, key: &PublicKey, algorithm: SignatureAlgorithm) -> Option<Self> {
        match permits {
            Permits::Login(login, Place::Bound(_, host)) if host.is_named() => {
                Some(Self { login: Login::clone(login), key: key.clone(), algorithm })
            }
            _ => None,
        }
    }

    pub(super) fn is_for(&self, permits: &Permits, key: &PublicKey, algorithm: SignatureAlgorithm) -> bool {
        match permits {
            Permits::Login(login, Place::Bound(_, host)) => {
                host.is_named() && **login == self.login && *key == self.key && algorithm == self.algorithm
            }
            _ => false,
        }
    }
}

/// Why what comes by way of another host is asked whatever the policy allows.
pub(super) const FORWARDED: &str = "what another host forwards is always asked";

/// Why a login of a client that is bound to nothing is.
const NOWHERE: &str = "a login to a host that the client does not name is always asked";

/// Why one with a key that was stored or added so is.
const CONFIRMED: &str = "the key is confirmed at every use";

/// The rule for what a yes covers.
const COVERED: &str = "the yes to this ssh session";

/// What a rule, or a grant, looks at.
pub(super) fn subject(
    connection: &AgentConnection,
    holder: &Holder,
    permits: &Permits,
    key: &PublicKey,
) -> Subject {
    let mut subject = Subject {
        what: format!("{} with {} {}", permits.shown(), holder.shown(), signing::fingerprint(key)),
        forwarded: connection.binding.may_be_forwarded(),
        given: Some(given_key(connection, key)),
        ..Subject::default()
    };
    // A yes for the bare key is none for what a certificate of it lets in, or the other way round. Not its id and its
    // time: one made for each login has others.
    if let Some(certificate) = permits.certificate().and_then(PublicKey::certificate) {
        let by = signing::fingerprint(&certificate.authority);
        let users = certificate.principals.join(", ");
        subject.what = format!("{}, by a certificate for '{users}' signed by {by}", subject.what);
    }
    if let Holder::Vault(key) = holder {
        subject.item = Some(key.item.to_string());
    }
    match permits {
        Permits::Login(_, Place::Bound(key, host)) => {
            subject.host_key = Some(signing::fingerprint(key));
            subject.hosts = host.pinned().to_vec();
        }
        Permits::Document(document) => subject.namespace = Some(document.namespace.clone()),
        Permits::Login(_, Place::Unknown) | Permits::Other { .. } => {}
    }
    subject
}

/// A key that another host had used is not one that was used here.
pub(super) fn given_key(connection: &AgentConnection, key: &PublicKey) -> String {
    let by = if connection.binding.may_be_forwarded() { " by way of another host" } else { "" };
    format!("{}{by}", signing::fingerprint(key))
}

/// The account as it stands before a host: one that has more than a name in it is quoted, and holds no quote itself, so
/// that it ends where it ends.
pub(super) fn shown_user(login: &Login) -> String {
    let plain = |c: char| c.is_alphanumeric() || "._-+$".contains(c);
    let is_name = !login.user.is_empty() && login.user.chars().all(plain);
    if is_name { login.user.clone() } else { format!("'{}'", login.user.replace('\'', r"\u{27}")) }
}

pub(super) fn sha256(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(&Sha256::digest(bytes))
}

pub(super) fn beyond(
    connection: &AgentConnection,
    holder: &Holder,
    permits: &Permits,
    covered: bool,
) -> Beyond {
    let is_nowhere = matches!(permits, Permits::Login(_, Place::Unknown));
    match always_asked(connection.binding.may_be_forwarded(), is_nowhere, holder.is_confirmed_always()) {
        Some(why) => Beyond::Always(why),
        None if covered => Beyond::Covered(COVERED),
        None => Beyond::Nothing,
    }
}

/// Why a signature is asked for whatever the policy allows, where it is.
pub(in crate::broker) fn always_asked(
    is_forwarded: bool,
    is_nowhere: bool,
    is_confirmed: bool,
) -> Option<&'static str> {
    let reasons = [(is_forwarded, FORWARDED), (is_nowhere, NOWHERE), (is_confirmed, CONFIRMED)];
    reasons.into_iter().find(|(is_so, _)| *is_so).map(|(_, why)| why)
}
