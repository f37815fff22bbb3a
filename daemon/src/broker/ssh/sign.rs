//! A signature, from request to reply. What it would permit is worked out before anybody is asked, and asked for
//! again of the vault where that was opened on the way.

use super::elsewhere::Elsewhere;
use super::first_use::FirstUse;
use super::keys::VaultKey;
use super::named::Host;
use super::permits::{Covered, Holder, Permits, Place, beyond, sha256, subject};
use super::store::shown_certificate;
use super::{AgentConnection, AgentRefusal, Broker};
use crate::audit::event::Event;
use crate::audit::sink::Durable;
use crate::binding::Destination;
use crate::binding::destination::permits_login;
use crate::broker::opening::Gate;
use crate::broker::{Act, Approved, Refusal};
use crate::clock;
use crate::policy::rule::Verdict;
use crate::signing;
use keyloan_protocol::control::request::Confirm;
use keyloan_protocol::ssh_agent::algorithm::{KeyType, SignatureAlgorithm};
use keyloan_protocol::ssh_agent::key::PublicKey;
use keyloan_protocol::ssh_agent::message::{Identity, Sign};
use keyloan_protocol::ssh_agent::to_be_signed::ToBeSigned;
use std::rc::Rc;

/// RSA keys up to this size sign on the loop that serves everybody: 0.2 ms, of which another thread would save the
/// others three quarters, and costs a quarter more. With 4096 bits it is 1.4 ms, and the others are served meanwhile.
const AT_ONCE: usize = 2048;

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
            connection.covered.as_ref().is_some_and(|covered| covered.is_for(&permits, &sign.key, algorithm))
                || connection.certified.covers(&permits, &sign.key, self.era());
        let fingerprint = signing::fingerprint(&sign.key);
        let mut act = act_of(connection, &holder, &permits, &sign.key, covered);
        let was_closed = matches!(gate, Gate::Closed(..));
        let judgement = if was_closed {
            None
        } else {
            self.add_forbidden(&connection.client.requester, elsewhere(&holder), &mut act).await?;
            Some(self.judge(&connection.client.requester, &act).await?)
        };
        let verdict = judgement.as_ref().map(|judgement| judgement.verdict);
        let asks = verdict.is_none_or(Verdict::asks);
        // A human is shown what is there now.
        if asks && !connection.client.requester.look_again() {
            return Err(AgentRefusal::Gone.into());
        }
        let first = match verdict.filter(|_| asks) {
            Some(verdict) => self.first_use(connection, &permits, verdict).await?,
            None => None,
        };
        let lines = if asks {
            self.describe_signature(connection, &holder, &permits, &sign.key, first.is_some()).await
        } else {
            Vec::new()
        };
        let approved = self
            .authorise_behind(gate, &connection.client, act, judgement, |question| {
                for (label, text, certainty) in &lines {
                    question.line(label, text, *certainty);
                }
                question.offers.extend(first.as_ref().map(FirstUse::offer));
            })
            .await?;
        // While somebody was asked, the key may have gone, and what was known of it while the vault was locked may be
        // what somebody wrote beside that.
        let (holder, permits) = if asks {
            let again = self.still(connection, (&holder, &permits), &sign, was_closed).await;
            let (holder, permits) = again.map_err(|refusal| self.failed(&approved, refusal))?;
            // A rule about a pinned name could not be met before the vault was open.
            if was_closed {
                let mut act = act_of(connection, &holder, &permits, &sign.key, false);
                self.add_forbidden(&connection.client.requester, elsewhere(&holder), &mut act).await?;
                let judgement = self.judge(&connection.client.requester, &act).await?;
                if judgement.verdict == Verdict::Deny {
                    return Err(self.failed(&approved, Refusal::Denied { rule: judgement.rule }));
                }
            }
            (holder, permits)
        } else {
            (holder, permits)
        };
        if let Some(first) = first.filter(|_| approved.keeps_host) {
            let kept = self.keep_first_use(&connection.client, &first, &approved).await;
            kept.map_err(|refusal| self.failed(&approved, refusal))?;
        }
        // What a rule or a grant allowed, those allow again for as long as they do.
        let was_asked = asks && matches!(approved.durable, Durable::Now);
        let covered = if was_asked { Covered::of(&permits, &sign.key, algorithm) } else { None };
        let signature = self.make_signature(connection, &approved, &holder, sign, algorithm).await;
        // Another agent may have taken a minute for it.
        let signature =
            signature.and_then(|signature| self.not_locked_meanwhile(connection).map(|()| signature));
        let signature = signature.map_err(|refusal| self.failed(&approved, refusal))?;
        connection.certified.note_used(&permits);
        let (host_key, host_is) = permits.host();
        let (request, given, certificate) =
            (approved.request, approved.given.clone(), permits.certificate().map(shown_certificate));
        let permits = permits.shown();
        let signed =
            Event::Signed { request, key: fingerprint, permits, certificate, host_key, host_is, given };
        self.record(&signed, approved.durable)?;
        connection.binding.note_signed();
        connection.signed = Some(approved.request);
        if covered.is_some() {
            connection.covered = covered;
        }
        Ok(signature)
    }

    async fn holder(&self, connection: &mut AgentConnection, key: &PublicKey) -> Result<Holder, Refusal> {
        let certified = connection.certified.item_of(key);
        let is_it = |held: &&VaultKey| {
            held.public == *key || held.certificate.as_ref() == Some(key) || certified == Some(&held.item)
        };
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

    /// Whether the key of an item is confirmed at every use.
    pub(in crate::broker) fn is_confirmed_always(&self, item: &str) -> bool {
        let is_it = |key: &&VaultKey| key.item.as_str() == item;
        self.vault_keys().iter().find(is_it).is_some_and(|key| key.confirm == Confirm::Always)
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
            (Holder::Vault(asked), Holder::Vault(held)) => {
                asked.item == held.item && asked.elsewhere == held.elsewhere
            }
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
        approved: &Approved,
        holder: &Holder,
        sign: Sign,
        algorithm: SignatureAlgorithm,
    ) -> Result<Vec<u8>, Refusal> {
        let key = match holder {
            Holder::Vault(key) => self.open_vault_key(&connection.client, approved, key).await?,
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

fn elsewhere(holder: &Holder) -> Option<&Elsewhere> {
    match holder {
        Holder::Vault(key) => key.elsewhere.as_ref(),
        _ => None,
    }
}

fn act_of(
    connection: &AgentConnection,
    holder: &Holder,
    permits: &Permits,
    key: &PublicKey,
    covered: bool,
) -> Act {
    Act {
        subjects: vec![(permits.kind(), subject(connection, holder, permits, key))],
        title: permits.title().to_owned(),
        names: vec![format!("{} {}", holder.shown(), signing::fingerprint(key)), permits.shown()],
        beyond: beyond(connection, holder, permits, covered),
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
