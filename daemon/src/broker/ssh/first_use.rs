//! Keeping the name of a host with its key by the yes to a login there, as `keyloan ssh hosts pin` does by a yes of its
//! own. What would be kept is settled before anybody is asked: the one name that the question shows, and the key that
//! signed the session. Where that cannot be kept afterwards, nobody logs in.

use super::named::Host;
use super::permits::{Permits, Place};
use super::{AgentConnection, AgentRefusal, Broker};
use crate::approval::offer::{Also, Offer};
use crate::broker::{Act, Approved, Beyond, Client, Refusal};
use crate::clock;
use crate::hosts::pins;
use crate::policy::decide::{Judgement, Subject};
use crate::policy::rule::{Kind, Verdict};
use keyloan_protocol::names::quoted;
use keyloan_protocol::ssh_agent::key::PublicKey;

pub(super) struct FirstUse {
    name: String,
    key: PublicKey,
    host: Host,
    judgement: Judgement,
}

impl FirstUse {
    pub(super) fn offer(&self) -> Offer {
        let words = format!("allows it, and keeps the name {} with this host key", quoted(&self.name));
        Offer { also: Also::Pin, words }
    }
}

impl Broker {
    /// Where there is one name to keep, and whoever answers the question may say so of it.
    pub(super) async fn first_use(
        &self,
        connection: &AgentConnection,
        permits: &Permits,
        verdict: Verdict,
    ) -> Result<Option<FirstUse>, Refusal> {
        let Permits::Login(_, Place::Bound(key, host)) = permits else { return Ok(None) };
        // Any program can write a second name for a key into known_hosts.
        let Host::KnownHosts(names) = host else { return Ok(None) };
        let [name] = &names[..] else { return Ok(None) };
        if connection.binding.may_be_forwarded() || key.certificate().is_some() {
            return Ok(None);
        }
        let Some(name) = pins::host_name(name) else { return Ok(None) };
        let judgement = self.judge(&connection.client.requester, &act(&name)).await?;
        // A program has no PIN.
        let is_programs = verdict == Verdict::Ask && self.with_policy(|policy| policy.approver.is_some())?;
        let is_offered = match judgement.verdict {
            Verdict::Allow(_) | Verdict::Ask => true,
            Verdict::AskPin => !is_programs,
            Verdict::Deny => false,
        };
        Ok(is_offered.then(|| FirstUse { name, key: key.clone(), host: host.clone(), judgement }))
    }

    /// Keeps what was offered, if it and the policy are what they were.
    pub(super) async fn keep_first_use(
        &self,
        client: &Client,
        first: &FirstUse,
        approved: &Approved,
    ) -> Result<(), Refusal> {
        let judgement = self.judge(&client.requester, &act(&first.name)).await?;
        if judgement.verdict.strictness() > first.judgement.verdict.strictness() {
            return Err(Refusal::Denied { rule: judgement.rule });
        }
        // Looked for in the files as they are now, not as a connection that signs often remembers them.
        let host = self.name_host(client, &first.key).await.host;
        if host != first.host && host.pinned() != [first.name.as_str()] {
            return Err(AgentRefusal::NamedAnew.into());
        }
        self.keep_pins(&first.name, std::slice::from_ref(&first.key), false, true, approved)?;
        if let Some((rule, limit)) = judgement.limit() {
            self.uses.borrow_mut().count(rule, limit, clock::since_boot());
        }
        Ok(())
    }
}

fn act(name: &str) -> Act {
    Act {
        subjects: vec![(Kind::Trust, Subject::of(name))],
        title: "keep a host's name with its key".to_owned(),
        names: vec![name.to_owned()],
        beyond: Beyond::Nothing,
    }
}
