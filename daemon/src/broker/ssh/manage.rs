//! Lists for people, and the names of hosts that the vault keeps.

use super::keys::VaultKey;
use super::{AgentRefusal, Broker};
use crate::audit::event::Event;
use crate::broker::refusal::KNOWN_HOST;
use crate::broker::{Act, Approved, Beyond, Client, Refusal};
use crate::clock;
use crate::hosts::pins::{self, Pin, Pins};
use crate::patience;
use crate::policy::decide::Subject;
use crate::policy::rule::Kind;
use crate::signing;
use crate::signing::public_line::{public_line, read_public_line};
use crate::vault::local;
use keyloan_protocol::control::response::{self, KeySource, Reply, SshKey};
use keyloan_protocol::names::quoted;
use keyloan_protocol::secret::SecretBytes;
use keyloan_protocol::ssh_agent::key::PublicKey;
use std::sync::Arc;

impl VaultKey {
    pub(super) fn summary(&self) -> SshKey {
        SshKey {
            item: Some(self.item.clone()),
            from: KeySource::Vault,
            public: public_line(&self.public, &self.comment),
            certificate: self.certificate.as_ref().map(|key| public_line(key, &self.comment)),
            fingerprint: signing::fingerprint(&self.public),
            bits: self.public.bits(),
            hosts: self.hosts.clone(),
            confirm: self.confirm,
            expires: None,
            private_in: self.elsewhere.as_ref().map(|elsewhere| elsewhere.key.to_string()),
            certified_by: None,
        }
    }
}

impl Broker {
    /// Public halves; no approval, and none of the vault's is missing while that is locked.
    pub(crate) async fn ssh_keys(&self) -> Reply {
        let mut keys: Vec<SshKey> = self.vault_keys().iter().map(VaultKey::summary).collect();
        for (item, recipe) in self.ssh.ring.borrow().recipes.iter() {
            let own = keys.iter_mut().filter(|key| key.item.as_ref() == Some(item));
            own.for_each(|key| key.certified_by = Some(recipe.summary()));
        }
        keys.extend(self.added_summaries());
        keys.extend(self.upstream_summaries().await);
        Reply::SshKeys { keys }
    }

    pub(crate) async fn ssh_hosts(&self, client: &Client) -> Result<Reply, Refusal> {
        self.open_vault_for(client, "list its hosts").await?;
        let unsealed = self.unsealed.borrow();
        let pins = &unsealed.as_ref().ok_or(Refusal::Locked)?.pins;
        let shown = |pin: &Pin| response::SshPin {
            host: pin.name.clone(),
            key: pin.key.clone(),
            fingerprint: pin.public_key().as_ref().map(signing::fingerprint).unwrap_or_default(),
            authority: pin.authority,
        };
        Ok(Reply::SshHosts { pins: pins.entries().iter().map(shown).collect() })
    }

    pub(crate) async fn ssh_pin(
        &self,
        client: &Client,
        host: &str,
        key: Option<&str>,
        authority: bool,
    ) -> Result<Reply, Refusal> {
        self.open_vault_for(client, "keep a host's name with its key").await?;
        let host = pins::host_name(host)
            .ok_or(Refusal::Input("a host is written host, [host]:port or as an address"))?;
        let keys: Vec<PublicKey> = if let Some(line) = key {
            let read = read_public_line(line);
            vec![read.map_err(|_| Refusal::Input("that is no line of a public key"))?.0]
        } else {
            let known = self.ssh.known_hosts.look().await;
            let name = host.clone();
            let find = move || known.iter().flat_map(|known| known.keys_of(&name)).collect();
            let slow = Refusal::Input("known_hosts takes too long to look through; give the key with --key");
            patience::look(find).await.ok_or(slow)?
        };
        if keys.is_empty() {
            return Err(Refusal::NotFound { what: KNOWN_HOST, name: host });
        }
        let held: Vec<String> = {
            let pins = self.pins().ok_or(Refusal::Locked)?;
            let entries = pins.entries().iter().filter(|pin| pin.name == host);
            let others = entries.filter_map(Pin::public_key).filter(|key| !keys.contains(key));
            others.map(|key| format!("{} {}", key.name(), signing::fingerprint(&key))).collect()
        };
        let act = Act {
            subjects: vec![(Kind::Trust, Subject::of(&host))],
            title: "keep a host's name with its key".to_owned(),
            names: vec![host.clone()],
            beyond: Beyond::Nothing,
        };
        let approved = self
            .authorise(client, act, |question| {
                Self::about(question, "host", &host);
                for key in &keys {
                    let whose = if authority { " certifies its keys" } else { "" };
                    let shown = format!("{} {}{whose}", key.name(), signing::fingerprint(key));
                    Self::about(question, "key", &shown);
                }
                for held in &held {
                    Self::about(question, "BESIDE", &format!("{held}, which it is pinned with already"));
                }
                Self::about(question, "then", "a login there is shown under this name as verified");
            })
            .await?;
        let kept = self.keep_pins(&host, &keys, authority, false, &approved);
        kept.map_err(|refusal| self.failed(&approved, refusal))?;
        let keys = if keys.len() == 1 { "one key".to_owned() } else { format!("{} keys", keys.len()) };
        Ok(Reply::done(format!("{host} is pinned with {keys}")))
    }

    /// Keeps a name with these keys, and writes it down; with `alone`, only if nobody gave it another meanwhile.
    pub(super) fn keep_pins(
        &self,
        host: &str,
        keys: &[PublicKey],
        authority: bool,
        alone: bool,
        approved: &Approved,
    ) -> Result<(), Refusal> {
        let now = clock::now();
        self.change_pins(|pins| {
            let is_it =
                |pin: &Pin| pin.name == host && pin.public_key().is_some_and(|key| keys.contains(&key));
            if alone && pins.holds(host) && !pins.entries().iter().any(is_it) {
                return Err(AgentRefusal::NamedAnew);
            }
            let mut added = keys.iter().map(|key| pins.add(host, key, authority, &now).map(drop));
            added.try_for_each(|added| added).map_err(AgentRefusal::from)
        })?;
        let (request, host) = (approved.request, host.to_owned());
        Ok(self.record(&Event::HostChanged { request, host, action: "pinned" }, approved.durable)?)
    }

    /// Asked for: while a name is pinned, `known_hosts` cannot give it to another key.
    pub(crate) async fn ssh_unpin(&self, client: &Client, host: &str) -> Result<Reply, Refusal> {
        self.open_vault_for(client, "forget a host").await?;
        let gone = || Refusal::NotFound { what: "pinned host", name: host.to_owned() };
        let host = pins::host_name(host).ok_or_else(gone)?;
        if !self.pins().ok_or(Refusal::Locked)?.entries().iter().any(|pin| pin.name == host) {
            return Err(gone());
        }
        let act = Act {
            subjects: vec![(Kind::Trust, Subject::of(&host))],
            title: "forget a host's keys".to_owned(),
            names: vec![host.clone()],
            beyond: Beyond::Nothing,
        };
        let approved = self
            .authorise(client, act, |question| {
                Self::about(question, "host", &host);
                Self::about(question, "then", "its name is whatever known_hosts says");
            })
            .await?;
        let kept = self.change_pins(|pins| {
            pins.remove(&host);
            Ok(())
        });
        kept.map_err(|refusal| self.failed(&approved, refusal))?;
        let request = approved.request;
        let changed = Event::HostChanged { request, host: host.clone(), action: "forgotten" };
        self.record(&changed, approved.durable)?;
        Ok(Reply::done(format!("{} is not pinned any more", quoted(&host))))
    }

    /// Changes the list on disk, and in memory only with it.
    fn change_pins(&self, change: impl FnOnce(&mut Pins) -> Result<(), AgentRefusal>) -> Result<(), Refusal> {
        let mut unsealed = self.unsealed.borrow_mut();
        let unsealed = unsealed.as_mut().ok_or(Refusal::Locked)?;
        let mut changed = Pins::clone(&unsealed.pins);
        change(&mut changed)?;
        let bytes = SecretBytes::new(changed.bytes());
        self.vault.borrow_mut().seal(local::HOSTS, bytes, &clock::now())?;
        unsealed.pins = Arc::new(changed);
        Ok(())
    }
}
