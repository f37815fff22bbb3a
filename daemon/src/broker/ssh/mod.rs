//! What the agent's sockets ask for. A signature goes the way of every request: requester, policy, approval,
//! record, key, record, reply. Listing what could be asked for needs no approval, as public halves are no secret.

mod added;
mod certify;
mod elsewhere;
mod first_use;
mod keys;
mod manage;
mod named;
mod permits;
mod question;
mod recipe;
mod sign;
mod sockets;
mod store;
mod upstream;

pub(crate) use elsewhere::Elsewhere;
pub(super) use keys::{FIELDS, PRIVATE_KEY, PRIVATE_KEY_IN, check_limit};
pub(super) use permits::always_asked;
pub(crate) use recipe::Recipe;
pub(crate) use sockets::{AgentConnection, AgentSocket};
pub(crate) use store::{KeyChange, KeyFiles};

use super::{Broker, Refusal};
use crate::audit::event::Event;
use crate::audit::sink::Durable;
use crate::binding::BindFault;
use crate::hosts::files::Files;
use crate::hosts::pins::PinError;
use crate::signing::key_file::KeyFileError;
use crate::signing::{self, KeyFault};
use added::Added;
use keyloan_protocol::limits;
use keyloan_protocol::ssh_agent::message::{Identity, Reply, Request};
use keyloan_protocol::ssh_agent::session_bind::{self, Extension, SessionBind};
use keys::{Opened, Ring};
use recipe::CertificateFault;
use sockets::{Brought, STAND_INS};
use std::cell::RefCell;
use std::collections::HashSet;
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::mpsc;

/// What the agent knows besides the vault.
pub(super) struct Agent {
    ring: RefCell<Ring>,
    added: RefCell<Added>,
    opened: RefCell<Opened>,
    known_hosts: Files,
    own: Rc<AgentSocket>,
    /// Held for each socket besides the daemon's own, by the thread that accepts there.
    stand_ins: Arc<()>,
    bring: mpsc::UnboundedSender<Brought>,
    /// Until whoever serves them takes it.
    brought: RefCell<Option<mpsc::UnboundedReceiver<Brought>>>,
}

impl Agent {
    pub(super) fn new() -> Self {
        let (bring, brought) = mpsc::unbounded_channel();
        Self {
            ring: RefCell::default(),
            added: RefCell::default(),
            opened: RefCell::default(),
            known_hosts: Files::new(keyloan_platform::paths::home().as_deref()),
            own: Rc::new(AgentSocket::own()),
            stand_ins: Arc::default(),
            bring,
            brought: RefCell::new(Some(brought)),
        }
    }
}

/// Why the agent did not do what a client asked. The client is told that it failed; this goes into the log.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AgentRefusal {
    #[error("the client is gone")]
    Gone,
    #[error("the agent has no such key")]
    NoKey,
    #[error("the agent is locked (ssh-add -X unlocks it)")]
    Locked,
    #[error("the agent is not locked")]
    NotLocked,
    #[error("an RSA signature with SHA-1 was asked for; keyloan makes none")]
    Sha1,
    #[error("the login: {0}")]
    Binding(#[from] BindFault),
    #[error("known_hosts says that the host's key is revoked")]
    Revoked,
    #[error("known_hosts takes too long to look through, and may say that the host's key is revoked")]
    Slow,
    #[error("the key '{0}' is for certain hosts, and the login goes to another or does not say where")]
    Host(String),
    #[error("the key was added for certain destinations, and this is none of them")]
    Destination,
    #[error("the key: {0}")]
    Key(#[from] KeyFault),
    #[error("the private key '{0}' in the vault is not that of its public half")]
    Mismatch(String),
    #[error("the private key in {at}: {cause}")]
    Elsewhere { at: String, cause: KeyFileError },
    #[error("the private key in {0} is another than the one that was linked; it was changed there")]
    OtherKey(String),
    #[error("the certificate from the vault: {0}")]
    Made(#[from] CertificateFault),
    #[error("the vault holds that key already, as '{0}'")]
    Held(String),
    #[error("the certificate is not for the key '{0}'")]
    Certificate(String),
    #[error("that is the public half; the private key's file is wanted")]
    PublicHalf,
    #[error("the host: {0}")]
    Pin(#[from] PinError),
    #[error("keys of a token, or for a library that speaks to one, are not taken")]
    Provider,
    #[error("the vault calls the host otherwise than known_hosts did while it was locked; try again")]
    Renamed,
    #[error("a host that forwards the agent may not lock, unlock or empty it")]
    Forwarded,
    #[error("the passphrase was not the one that the agent was locked with")]
    WrongPassphrase,
    #[error("{STAND_INS} sockets are served already")]
    Sockets,
    #[error("the comment is longer than 1024 bytes")]
    Comment,
    #[error("the agent holds {} keys already", limits::SSH_KEYS)]
    Full,
    #[error("the other agent: {0}")]
    Upstream(#[from] upstream::UpstreamFault),
    #[error("the socket is none that listens, or not this user's")]
    Socket,
    #[error("nobody unlocked the vault in time")]
    StillLocked,
    #[error(
        "the host has another name, or another key, than the question said, so neither is kept and nobody logs in"
    )]
    NamedAnew,
}

impl Broker {
    /// Serves one request of an agent's client.
    pub(crate) async fn answer(&self, connection: &mut AgentConnection, request: Request) -> Reply {
        if connection.at.is_locked() && !matches!(request, Request::List | Request::Unlock(_)) {
            if matches!(request, Request::Extension(Extension::SessionBind(_))) {
                connection.binding.note_failed();
            }
            return Reply::Failure;
        }
        let is_local = !connection.binding.may_be_forwarded();
        connection.client.requester.serves_another_host = !is_local;
        let done = match request {
            Request::List => return Reply::Identities(self.identities(connection).await),
            Request::Sign(sign) => {
                return match self.sign(connection, sign).await {
                    Ok(signature) => Reply::Signature(signature),
                    Err(refusal) => self.refused(connection, "a signature", &refusal),
                };
            }
            Request::Add(add) => self.add_key(connection, *add).await,
            Request::Remove(key) => self.remove_added(connection, &key),
            Request::RemoveAll | Request::Lock(_) | Request::Unlock(_) if !is_local => {
                Err(AgentRefusal::Forwarded.into())
            }
            Request::RemoveAll => {
                self.remove_all_added(connection);
                Ok(())
            }
            Request::Lock(passphrase) => self.lock_agent(connection, passphrase).await,
            Request::Unlock(passphrase) => self.unlock_agent(connection, passphrase).await,
            Request::Extension(extension) => return self.extension(connection, extension),
            Request::AddToken(_) => Err(AgentRefusal::Provider.into()),
            // Version 1 has no keys here, so none is left of them; ssh-add -D asks for that too.
            Request::Obsolete(9) => Ok(()),
            Request::Obsolete(_) | Request::Unknown(_) => return Reply::Failure,
        };
        match done {
            Ok(()) => Reply::Success,
            Err(refusal) => self.refused(connection, "a change of its keys", &refusal),
        }
    }

    /// Notes that a signature was made and nobody took it.
    pub(crate) fn signature_undelivered(&self, connection: &AgentConnection) {
        if let Some(request) = connection.signed {
            // There is nobody to be told that it could not be noted.
            let _ = self.record(&Event::SignatureUndelivered { request }, Durable::Soon);
        }
    }

    /// Notes why, where no record says it yet.
    fn refused(&self, connection: &AgentConnection, what: &'static str, refusal: &Refusal) -> Reply {
        if matches!(refusal, Refusal::Agent(_)) {
            let by = self.who(&connection.client.requester);
            let cause = refusal.to_string();
            // The refusal does not depend on this record.
            let event = Event::AgentRefused { what, cause, by };
            let _ = match refusal {
                // Each is a guess, and waited for the one before.
                Refusal::Agent(AgentRefusal::WrongPassphrase) => {
                    self.record(&event, Durable::Soon).map_err(Refusal::from)
                }
                _ => self.turn_away(&[&event]),
            };
        }
        Reply::Failure
    }

    fn extension(&self, connection: &mut AgentConnection, extension: Extension) -> Reply {
        match extension {
            Extension::Query => {
                let contents = session_bind::query_reply(&[session_bind::QUERY, session_bind::SESSION_BIND]);
                Reply::Extension { name: session_bind::QUERY.to_owned(), contents }
            }
            Extension::SessionBind(bind) => match bind_session(connection, bind) {
                Ok(()) => Reply::Success,
                Err(refusal) => self.refused(connection, "a session", &refusal),
            },
            // RFC 9987: an extension that is not known fails as any other request does.
            Extension::Other { .. } => Reply::Failure,
        }
    }

    /// The keys that this connection may use, those for its host first. Cut where clients would refuse the list.
    async fn identities(&self, connection: &mut AgentConnection) -> Vec<Identity> {
        if connection.at.is_locked() {
            return Vec::new();
        }
        let mut identities: Vec<Identity> = self.certified_identity(connection).await.into_iter().collect();
        identities.extend(self.vault_identities(connection).await);
        identities.extend(self.added_identities(connection));
        identities.extend(self.upstream_identities(connection).await);
        let mut seen = HashSet::new();
        let is_first: Vec<bool> =
            identities.iter().map(|identity| seen.insert(identity.blob.as_slice())).collect();
        let mut is_first = is_first.into_iter();
        identities.retain(|_| is_first.next() == Some(true));
        // Its type and the count come first. What is too long for the rest hides nothing behind it.
        let mut room = limits::SSH_MESSAGE - 5;
        identities.retain(|identity| {
            let left = room.checked_sub(8 + identity.blob.len() + identity.comment.len());
            room = left.unwrap_or(room);
            left.is_some()
        });
        identities.truncate(limits::SSH_KEYS);
        identities
    }

    /// Closes what idles, forgets what has had its time. Called every few seconds.
    pub(super) fn agent_tick(&self) {
        self.ssh.opened.borrow_mut().close_idle();
        self.ssh.added.borrow_mut().forget_expired();
        self.keep_ring();
    }
}

/// Believes what a client says of its session as far as the host's signature goes.
fn bind_session(connection: &mut AgentConnection, bind: SessionBind) -> Result<(), Refusal> {
    let is_signed = signing::verify(&bind.host_key, &bind.session_id, &bind.signature)
        && bind.host_key.certificate().is_none_or(signing::certificate_is_signed);
    connection.upstream.passes_on(&bind);
    connection.binding.bind(bind, is_signed).map_err(AgentRefusal::from)?;
    Ok(())
}
