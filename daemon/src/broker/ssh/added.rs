//! Keys that clients added over a socket. They are kept in memory, each sealed with a key in protected pages, until
//! they are removed, their time is over, their socket goes or the daemon ends.

use super::keys::open;
use super::permits::FORWARDED;
use super::sockets::{AgentConnection, AgentSocket};
use super::{AgentRefusal, Broker};
use crate::approval::question::Certainty;
use crate::audit::event::Event;
use crate::binding::destination::permits_list;
use crate::broker::sealing::{Sealed, Sealing};
use crate::broker::{Act, Beyond, Refusal};
use crate::clock;
use crate::policy::decide::Subject;
use crate::policy::rule::Kind;
use crate::signing::public_line::public_line;
use crate::signing::{self, KeyFault, SigningKey};
use keyloan_protocol::control::request::Confirm;
use keyloan_protocol::control::response::{KeySource, SshKey};
use keyloan_protocol::limits;
use keyloan_protocol::names::escaped;
use keyloan_protocol::ssh_agent::constraint::Destination;
use keyloan_protocol::ssh_agent::key::PublicKey;
use keyloan_protocol::ssh_agent::message::{Add, Identity};
use keyloan_protocol::ssh_agent::private_key::PrivateKey;
use keyloan_protocol::ssh_agent::wire::{self, Reader};
use keyloan_protocol::time_span::TimeSpan;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

pub(super) struct AddedKey {
    pub(super) public: PublicKey,
    pub(super) comment: Vec<u8>,
    pub(super) confirm: bool,
    pub(super) destinations: Option<Vec<Destination>>,
    /// Time since boot.
    pub(super) expires: Option<Duration>,
    /// The socket it was added at.
    socket: u64,
    sealed: Sealed,
}

impl AddedKey {
    /// It may not be used where this connection is bound to.
    fn is_hidden_from(&self, connection: &AgentConnection) -> bool {
        !permits_list(self.destinations.as_deref(), &connection.binding, clock::unix_seconds())
    }
}

impl AddedKey {
    /// What it is kept by while it is ready to sign.
    fn name(&self) -> Vec<u8> {
        name_of(self.socket, &self.public)
    }
}

fn name_of(socket: u64, key: &PublicKey) -> Vec<u8> {
    [format!("added {socket} ").as_bytes(), key.blob()].concat()
}

/// The longest comment, in bytes: two thousand keys at each of sixty-five sockets have one.
const COMMENT: usize = 1024;

#[derive(Default)]
pub(super) struct Added {
    keys: Vec<Rc<AddedKey>>,
    /// Made anew with each daemon.
    sealing: Option<Sealing>,
}

impl Added {
    fn of(&self, socket: &AgentSocket) -> impl Iterator<Item = &Rc<AddedKey>> {
        let now = clock::since_boot();
        let lives = move |key: &&Rc<AddedKey>| key.expires.is_none_or(|expires| now < expires);
        self.keys.iter().filter(move |key| key.socket == socket.id).filter(lives)
    }

    fn sealing(&mut self) -> Option<&Sealing> {
        if self.sealing.is_none() {
            self.sealing = Sealing::new();
        }
        self.sealing.as_ref()
    }

    fn forget(&mut self, goes: impl Fn(&AddedKey) -> bool) -> usize {
        let before = self.keys.len();
        self.keys.retain(|key| !goes(key));
        before - self.keys.len()
    }

    pub(super) fn forget_expired(&mut self) {
        let now = clock::since_boot();
        self.forget(|key| key.expires.is_some_and(|expires| expires <= now));
    }

    pub(super) fn forget_of(&mut self, socket: u64) {
        self.forget(|key| key.socket == socket);
    }
}

impl Broker {
    pub(super) async fn add_key(&self, connection: &mut AgentConnection, add: Add) -> Result<(), Refusal> {
        let Add { key, comment, constraints } = add;
        let constraints = constraints.unwrap_or_default();
        if key.public().key_type().is_sk() || constraints.sk_provider.is_some() {
            return Err(AgentRefusal::Provider.into());
        }
        if comment.len() > COMMENT {
            return Err(AgentRefusal::Comment.into());
        }
        let is_known = |held: &Rc<AddedKey>| held.public == *key.public();
        {
            let added = self.ssh.added.borrow();
            if added.of(&connection.at).any(|held| is_known(held) && held.is_hidden_from(connection)) {
                return Err(AgentRefusal::Destination.into());
            }
            let mut others = added.of(&connection.at).filter(|held| !is_known(held));
            if others.nth(limits::SSH_KEYS - 1).is_some() {
                return Err(AgentRefusal::Full.into());
            }
        }
        // Some arithmetic for each key; with RSA too much for the loop that serves everybody.
        let checked = tokio::task::spawn_blocking(move || SigningKey::open(&key).map(|_| key)).await;
        let key = checked.map_err(|_| Refusal::Task)?.map_err(AgentRefusal::from)?;
        let public = key.public().clone();
        let lifetime = constraints.lifetime.map(|seconds| Duration::from_secs(seconds.into()));
        let lifetime = lifetime.or(connection.at.lifetime);
        let gate = self.gate(&connection.client).await?;
        if !connection.client.requester.look_again() {
            return Err(AgentRefusal::Gone.into());
        }
        let may_be_forwarded = connection.binding.may_be_forwarded();
        let hops = self.describe_hops(connection).await;
        let replaces = self.find_added(connection, &public).is_some();
        let act = Act {
            subjects: vec![(Kind::KeyAdd, Subject::of(&signing::fingerprint(&public)))],
            title: "add an ssh key to the agent".to_owned(),
            names: vec![signing::fingerprint(&public)],
            beyond: if may_be_forwarded { Beyond::Always(FORWARDED) } else { Beyond::Nothing },
        };
        let shown = format!("{} {}", public.name(), signing::fingerprint(&public));
        let approved = self
            .authorise_behind(gate, &connection.client, act, None, |question| {
                for (label, text, certainty) in &hops {
                    question.line(label, text, *certainty);
                }
                Self::about(question, "key", &shown);
                question.line("comment", &String::from_utf8_lossy(&comment), Certainty::Claimed);
                let time = lifetime.map_or("until it is removed or the daemon ends".to_owned(), |time| {
                    format!("for {}", TimeSpan::of(time))
                });
                Self::about(question, "stays", &time);
                if constraints.confirm {
                    Self::about(question, "confirm", "every use");
                }
                if replaces {
                    Self::about(question, "replaces", "the same key, with whatever it was added with before");
                }
                for destination in constraints.destinations.iter().flatten() {
                    question.line("only for", &shown_hop(destination), Certainty::Claimed);
                }
            })
            .await?;
        self.not_locked_meanwhile(connection).map_err(|refusal| self.failed(&approved, refusal))?;
        let mut added = self.ssh.added.borrow_mut();
        let sealed = added
            .sealing()
            .and_then(|sealing| sealing.seal(wire::encode(|out| key.write(out))))
            .ok_or(KeyFault::Library);
        let sealed = sealed.map_err(|fault| self.failed(&approved, AgentRefusal::from(fault).into()))?;
        self.ssh.opened.borrow_mut().close(&name_of(connection.at.id, &public));
        let key = signing::fingerprint(&public);
        self.record(&Event::AgentKeyAdded { request: approved.request, key }, approved.durable)?;
        let key = Rc::new(AddedKey {
            public,
            comment,
            confirm: constraints.confirm,
            destinations: constraints.destinations,
            expires: lifetime.map(|time| clock::since_boot() + time),
            socket: connection.at.id,
            sealed,
        });
        // Added again, it stays in its place and has what it was added with last, as with OpenSSH's agent.
        match added.keys.iter_mut().find(|held| held.socket == key.socket && held.public == key.public) {
            Some(held) => *held = key,
            None => added.keys.push(key),
        }
        Ok(())
    }

    /// Less can be used afterwards, so nobody is asked. The vault's keys stay, and what is not shown to a host that a
    /// connection was forwarded by is not its to remove.
    pub(super) fn remove_added(&self, connection: &AgentConnection, key: &PublicKey) -> Result<(), Refusal> {
        self.ssh.opened.borrow_mut().close(&name_of(connection.at.id, key));
        let goes = |held: &AddedKey| {
            held.socket == connection.at.id && held.public == *key && !held.is_hidden_from(connection)
        };
        match self.ssh.added.borrow_mut().forget(goes) {
            0 => Err(AgentRefusal::NoKey.into()),
            _ => Ok(()),
        }
    }

    pub(super) fn remove_all_added(&self, connection: &AgentConnection) {
        self.ssh.opened.borrow_mut().close_all();
        self.ssh.added.borrow_mut().forget_of(connection.at.id);
    }

    /// SIGUSR1.
    pub(crate) fn forget_added_keys(&self) {
        self.ssh.opened.borrow_mut().close_all();
        self.ssh.added.borrow_mut().forget(|_| true);
    }

    /// Those that may be used where this connection is bound to.
    pub(super) fn added_identities(&self, connection: &AgentConnection) -> Vec<Identity> {
        let added = self.ssh.added.borrow();
        let permitted = |key: &&Rc<AddedKey>| !key.is_hidden_from(connection);
        let identity =
            |key: &Rc<AddedKey>| Identity { blob: key.public.blob().to_vec(), comment: key.comment.clone() };
        added.of(&connection.at).filter(permitted).map(identity).collect()
    }

    pub(super) fn added_summaries(&self) -> Vec<SshKey> {
        let now = clock::since_boot();
        let summary = |key: &Rc<AddedKey>| SshKey {
            item: None,
            from: KeySource::Added,
            public: public_line(&key.public, &key.comment),
            certificate: None,
            fingerprint: signing::fingerprint(&key.public),
            bits: key.public.bits(),
            hosts: Vec::new(),
            confirm: if key.confirm { Confirm::Always } else { Confirm::Session },
            expires: key.expires.map(|expires| expires.saturating_sub(now).as_secs()),
            private_in: None,
            certified_by: None,
        };
        self.ssh.added.borrow().keys.iter().map(summary).collect()
    }

    pub(super) fn find_added(&self, connection: &AgentConnection, key: &PublicKey) -> Option<Rc<AddedKey>> {
        self.ssh.added.borrow().of(&connection.at).find(|held| held.public == *key).cloned()
    }

    pub(super) async fn open_added_key(&self, key: &AddedKey) -> Result<Arc<SigningKey>, Refusal> {
        let name = key.name();
        if let Some(opened) = self.ssh.opened.borrow_mut().find(&name) {
            return Ok(opened);
        }
        let private = {
            let added = self.ssh.added.borrow();
            let bytes = added.sealing.as_ref().and_then(|sealing| sealing.open(&key.sealed));
            let private = bytes.and_then(|bytes| PrivateKey::read(&mut Reader::new(&bytes)).ok());
            private.ok_or(AgentRefusal::NoKey)?
        };
        let opened = open(private).await?;
        self.ssh.opened.borrow_mut().keep(&name, &opened);
        Ok(opened)
    }
}

/// `from github.com to git@example.org`
fn shown_hop(hop: &Destination) -> String {
    let user = hop.user.as_deref().map(|user| format!("{user}@")).unwrap_or_default();
    let from = hop.from.as_ref().map(|host| format!(" from {}", host.name)).unwrap_or_default();
    escaped(&format!("{user}{}{from}", hop.to.name), 300)
}
