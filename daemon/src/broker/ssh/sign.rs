//! A signature, from request to reply. What it would permit is worked out before anybody is asked, and asked for
//! again of the vault where that was opened on the way.

use super::added::AddedKey;
use super::keys::VaultKey;
use super::named::Host;
use super::{AgentConnection, AgentRefusal, Broker};
use crate::approval::question::Certainty;
use crate::audit::event::Event;
use crate::binding::Destination;
use crate::binding::destination::permits_login;
use crate::broker::opening::Gate;
use crate::broker::{Act, Beyond, Refusal};
use crate::clock;
use crate::hosts::pins::Pins;
use crate::policy::rule::{Kind, Verdict};
use crate::signing;
use keyloan_protocol::control::request::Confirm;
use keyloan_protocol::ssh_agent::algorithm::{KeyType, SignatureAlgorithm};
use keyloan_protocol::ssh_agent::key::PublicKey;
use keyloan_protocol::ssh_agent::message::{Identity, Sign};
use keyloan_protocol::ssh_agent::to_be_signed::{Document, Login, ToBeSigned};
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
    fn kind(&self) -> Kind {
        match self {
            Self::Login(..) => Kind::SshLogin,
            Self::Document(_) => Kind::SshSignature,
            Self::Other { .. } => Kind::SshOther,
        }
    }

    fn title(&self) -> &'static str {
        match self {
            Self::Login(..) => "log in with an ssh key",
            Self::Document(document) if document.namespace == "git" => "sign a commit or tag with an ssh key",
            Self::Document(_) => "sign a file with an ssh key",
            Self::Other { .. } => "sign bytes that keyloan does not understand with an ssh key",
        }
    }

    /// Whether a human who was shown the other would not have taken it for this.
    fn contradicts(&self, shown: &Self, pins: &Pins) -> bool {
        match (self, shown) {
            (Self::Login(_, Place::Bound(_, host)), Self::Login(_, Place::Bound(_, shown))) => {
                host.contradicts(shown, pins)
            }
            _ => false,
        }
    }

    /// The host of a login: its key's fingerprint, and how sure its name is.
    fn host(&self) -> (Option<String>, Option<Certainty>) {
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

/// RSA keys up to this size sign on the loop that serves everybody: 0.2 ms, of which another thread would save the
/// others three quarters, and costs a quarter more. With 4096 bits it is 1.4 ms, and the others are served meanwhile.
const AT_ONCE: usize = 2048;

/// What a yes to an ssh session was for, and covers when it is asked for again: the same login to a host that has a
/// name, and not by way of another.
pub(super) struct Covered {
    login: Login,
    key: PublicKey,
    algorithm: SignatureAlgorithm,
}

impl Covered {
    fn of(permits: &Permits, key: &PublicKey, algorithm: SignatureAlgorithm) -> Option<Self> {
        match permits {
            Permits::Login(login, Place::Bound(_, host)) if host.is_named() => {
                Some(Self { login: Login::clone(login), key: key.clone(), algorithm })
            }
            _ => None,
        }
    }

    fn is_for(&self, permits: &Permits, key: &PublicKey, algorithm: SignatureAlgorithm) -> bool {
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

/// The rule for what a yes covers.
const COVERED: &str = "the yes to this ssh session";

impl Broker {
    pub(super) async fn sign(
        &self,
        connection: &mut AgentConnection,
        sign: Sign,
    ) -> Result<Vec<u8>, Refusal> {
        if !connection.client.requester.look_again_for_record() {
            return Err(AgentRefusal::Gone.into());
        }
        let gate = self.gate(&connection.client).await?;
        let holder = self.holder(connection, &sign.key).await?;
        let algorithm = sign.flags.algorithm(&sign.key);
        if algorithm == SignatureAlgorithm::RsaSha1 {
            return Err(AgentRefusal::Sha1.into());
        }
        let permits = self.permits(connection, &holder, &sign).await?;
        let covered =
            connection.covered.as_ref().is_some_and(|covered| covered.is_for(&permits, &sign.key, algorithm));
        let fingerprint = signing::fingerprint(&sign.key);
        let act = Act {
            kinds: vec![permits.kind()],
            title: permits.title().to_owned(),
            names: vec![format!("{} {fingerprint}", holder.shown()), permits.shown()],
            beyond: beyond(connection, &holder, &permits, covered),
        };
        let was_closed = matches!(gate, Gate::Closed(..));
        let asks = was_closed || self.judge(&act)?.verdict == Verdict::Ask;
        // A human is shown what is there now.
        if asks && !connection.client.requester.look_again() {
            return Err(AgentRefusal::Gone.into());
        }
        let lines = if asks {
            self.describe_signature(connection, &holder, &permits, &sign.key).await
        } else {
            Vec::new()
        };
        let approved = self
            .authorise_behind(gate, &connection.client, act, |question| {
                for (label, text, certainty) in &lines {
                    question.line(label, text, *certainty);
                }
            })
            .await?;
        // While somebody was asked, the key may have gone, and what was known of it while the vault was locked may be
        // what somebody wrote beside that.
        let (holder, permits) = if asks {
            let again = self.still(connection, (&holder, &permits), &sign, was_closed).await;
            again.map_err(|refusal| self.failed(&approved, refusal))?
        } else {
            (holder, permits)
        };
        let covered = if asks { Covered::of(&permits, &sign.key, algorithm) } else { None };
        let signature = self.make_signature(connection, &holder, sign, algorithm).await;
        // Another agent may have taken a minute for it.
        let signature =
            signature.and_then(|signature| self.not_locked_meanwhile(connection).map(|()| signature));
        let signature = signature.map_err(|refusal| self.failed(&approved, refusal))?;
        let (host_key, host_is) = permits.host();
        let (request, permits) = (approved.request, permits.shown());
        let signed = Event::Signed { request, key: fingerprint, permits, host_key, host_is };
        self.record(&signed, approved.durable)?;
        connection.binding.note_signed();
        connection.signed = Some(approved.request);
        if covered.is_some() {
            connection.covered = covered;
        }
        Ok(signature)
    }

    async fn holder(&self, connection: &mut AgentConnection, key: &PublicKey) -> Result<Holder, Refusal> {
        let is_it = |held: &&VaultKey| held.public == *key || held.certificate.as_ref() == Some(key);
        if let Some(held) = self.vault_keys().iter().find(is_it) {
            return Ok(Holder::Vault(Box::new(held.clone())));
        }
        if let Some(held) = self.find_added(connection, key) {
            return Ok(Holder::Added(held));
        }
        let paths = if connection.sees_upstream() { self.upstream_paths() } else { Vec::new() };
        let path = connection.upstream.holder(&paths, key.blob()).await;
        path.map(Holder::Upstream).ok_or_else(|| AgentRefusal::NoKey.into())
    }

    /// The key and what it permits as they are now; refused where the key is gone or is not the one that was shown, or
    /// the vault calls the host otherwise.
    async fn still(
        &self,
        connection: &mut AgentConnection,
        (asked, shown): (&Holder, &Permits),
        sign: &Sign,
        was_closed: bool,
    ) -> Result<(Holder, Permits), Refusal> {
        if !connection.client.requester.peer.is_alive() {
            return Err(AgentRefusal::Gone.into());
        }
        self.not_locked_meanwhile(connection)?;
        let holder = self.holder(connection, &sign.key).await?;
        let same = match (asked, &holder) {
            // What was listed beside the locked vault has the same name there, or it was not what was shown.
            (Holder::Vault(asked), Holder::Vault(held)) => asked.item == held.item,
            (Holder::Added(asked), Holder::Added(held)) => Rc::ptr_eq(asked, held),
            (Holder::Upstream(asked), Holder::Upstream(held)) => asked == held,
            _ => false,
        };
        if !same {
            return Err(AgentRefusal::NoKey.into());
        }
        let permits = self.permits(connection, &holder, sign).await?;
        let pins = self.pins().ok_or(AgentRefusal::Locked)?;
        if was_closed && permits.contradicts(shown, &pins) {
            return Err(AgentRefusal::Renamed.into());
        }
        Ok((holder, permits))
    }

    /// What the bytes are, where they would be used, and whether this key may be used there at all.
    async fn permits(
        &self,
        connection: &mut AgentConnection,
        holder: &Holder,
        sign: &Sign,
    ) -> Result<Permits, AgentRefusal> {
        let destinations = match holder {
            Holder::Added(key) => key.destinations.clone(),
            _ => None,
        };
        let login = match ToBeSigned::parse(&sign.data, &sign.key) {
            ToBeSigned::Login(login) => login,
            // As OpenSSH: a key for certain destinations is for logins only.
            _ if destinations.is_some() => return Err(AgentRefusal::Destination),
            ToBeSigned::Document(document) => return Ok(Permits::Document(document)),
            ToBeSigned::Other => return Ok(Permits::Other { sha256: sha256(&sign.data) }),
        };
        let hostbound = login.host_key.is_some();
        let now = clock::unix_seconds();
        let hops = destinations.as_deref();
        if !permits_login(hops, &connection.binding, &login.user, hostbound, now) {
            return Err(AgentRefusal::Destination);
        }
        let bound = match connection.binding.login(&login)? {
            Destination::Bound { host_key } => Some(host_key.clone()),
            Destination::Unknown => None,
        };
        let place = match bound {
            Some(key) => {
                let host = self.host_of(connection, &key).await;
                Place::Bound(key, host)
            }
            None => Place::Unknown,
        };
        if matches!(place, Place::Bound(_, Host::Revoked)) {
            return Err(AgentRefusal::Revoked);
        }
        if matches!(place, Place::Bound(_, Host::Slow)) {
            return Err(AgentRefusal::Slow);
        }
        if let Holder::Vault(key) = holder
            && !key.hosts.is_empty()
            && !matches!(&place, Place::Bound(_, host) if host.is_among(&key.hosts))
        {
            return Err(AgentRefusal::Host(key.item.to_string()));
        }
        Ok(Permits::Login(Box::new(login), place))
    }

    async fn make_signature(
        &self,
        connection: &mut AgentConnection,
        holder: &Holder,
        sign: Sign,
        algorithm: SignatureAlgorithm,
    ) -> Result<Vec<u8>, Refusal> {
        let key = match holder {
            Holder::Vault(key) => self.open_vault_key(key).await?,
            Holder::Added(key) => self.open_added_key(key).await?,
            Holder::Upstream(path) => {
                return Ok(connection.upstream.sign(path, sign).await.map_err(AgentRefusal::from)?);
            }
        };
        let bits = sign.key.bits();
        let make = move || key.sign(algorithm, &sign.data).map(|signature| signature.encode());
        let signature = match algorithm.key_type() {
            KeyType::Rsa if bits > AT_ONCE => {
                tokio::task::spawn_blocking(make).await.map_err(|_| Refusal::Task)?
            }
            _ => make(),
        };
        Ok(signature.map_err(AgentRefusal::from)?)
    }

    /// Keys of the vault for a list: those for the host that the connection is bound to first, those for others not
    /// at all, so that no server has had enough before the right one comes.
    pub(super) async fn vault_identities(&self, connection: &mut AgentConnection) -> Vec<Identity> {
        let keys = self.vault_keys();
        let last = connection.binding.last_host().cloned();
        let host = match last {
            Some(key) if keys.iter().any(|key| !key.hosts.is_empty()) => {
                Some(self.host_of(connection, &key).await)
            }
            _ => None,
        };
        let is_for = |key: &VaultKey| host.as_ref().is_some_and(|host| host.is_among(&key.hosts));
        let first = keys.iter().filter(|key| !key.hosts.is_empty() && is_for(key));
        let rest = keys.iter().filter(|key| key.hosts.is_empty());
        // To a client that is bound to nothing, a person's ssh-add as a rule, all are shown.
        let is_unbound = host.is_none() && !connection.binding.is_failed();
        let others = keys.iter().filter(|key| is_unbound && !key.hosts.is_empty());
        first.chain(rest).chain(others).flat_map(identities_of).collect()
    }
}

/// A key, behind its certificate while that is valid: servers that know the authority need no more.
fn identities_of(key: &VaultKey) -> impl Iterator<Item = Identity> {
    let now = clock::unix_seconds();
    let is_valid =
        move |key: &&PublicKey| key.certificate().is_some_and(|certificate| certificate.is_valid_at(now));
    let blobs = key.certificate.iter().filter(is_valid).chain(std::iter::once(&key.public));
    blobs.map(|public| Identity { blob: public.blob().to_vec(), comment: key.comment.clone() })
}

/// The account as it stands before a host: one that has more than a name in it is quoted, and holds no quote itself, so
/// that it ends where it ends.
pub(super) fn shown_user(login: &Login) -> String {
    let plain = |c: char| c.is_alphanumeric() || "._-+$".contains(c);
    let is_name = !login.user.is_empty() && login.user.chars().all(plain);
    if is_name { login.user.clone() } else { format!("'{}'", login.user.replace('\'', r"\u{27}")) }
}

fn sha256(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(&Sha256::digest(bytes))
}

fn beyond(connection: &AgentConnection, holder: &Holder, permits: &Permits, covered: bool) -> Beyond {
    if connection.binding.may_be_forwarded() {
        return Beyond::Always(FORWARDED);
    }
    if matches!(permits, Permits::Login(_, Place::Unknown)) {
        return Beyond::Always("a login to a host that the client does not name is always asked");
    }
    if holder.is_confirmed_always() {
        return Beyond::Always("the key is confirmed at every use");
    }
    if covered {
        return Beyond::Covered(COVERED);
    }
    Beyond::Nothing
}
