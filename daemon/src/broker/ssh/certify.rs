//! Certificates that a linked vault makes for one login. A connection that its host has signed for, to a host that a
//! recipe names, is asked about once, before its keys are listed; the certificate stands first there, and both go with
//! the connection. The same yes covers the login with it, as one of the users that the question named: the client says
//! only afterwards as whom it logs in. No question comes up for other hosts, for what another host forwards, or for a
//! client that is bound to nothing (`ssh-add -l`).

use super::keys::{CERTIFIED_BY, VaultKey};
use super::named::Host;
use super::permits::{Permits, Place, always_asked, given_key};
use super::question::{Lines, named_key};
use super::recipe::{self, Recipe};
use super::store::public_field;
use super::{AgentConnection, AgentRefusal, Broker};
use crate::approval::question::Certainty;
use crate::audit::event::Event;
use crate::broker::{Act, Approved, Beyond, Client, Refusal};
use crate::clock;
use crate::journal::{self, Level};
use crate::policy::decide::Subject;
use crate::policy::rule::Kind;
use crate::signing;
use crate::signing::public_line::{public_line, read_public_line};
use crate::vault::linked::CertificateAsk;
use keyloan_protocol::control::request::Confirm;
use keyloan_protocol::control::response::Reply;
use keyloan_protocol::names::{ItemName, escaped};
use keyloan_protocol::ssh_agent::key::PublicKey;
use keyloan_protocol::ssh_agent::message::Identity;
use keyloan_protocol::ssh_agent::to_be_signed::Login;
use keyloan_protocol::time_span::TimeSpan;
use std::rc::Rc;

/// What a connection has of this.
#[derive(Default)]
pub(super) enum Certified {
    #[default]
    Unasked,
    /// A no, or a vault that makes none, holds for the connection.
    Not,
    Made(Box<Made>),
}

pub(super) struct Made {
    item: ItemName,
    pub(super) certificate: PublicKey,
    comment: Vec<u8>,
    /// Those that the question named; none where the role says who they are.
    users: Vec<String>,
    /// Whom the question named.
    host_key: PublicKey,
    host: Host,
    /// A lock, or another policy, ends what the yes covers.
    era: u64,
    /// The login that it was used for: the yes was to one.
    used: Option<Login>,
}

impl Certified {
    /// The item whose key a certificate was made for.
    pub(super) fn item_of(&self, key: &PublicKey) -> Option<&ItemName> {
        match self {
            Self::Made(made) if made.certificate == *key => Some(&made.item),
            _ => None,
        }
    }

    /// Whether the yes to the certificate is one to this login with it. OpenSSH's client has such a login signed by the
    /// plain key, where it was offered that as well.
    pub(super) fn covers(&self, permits: &Permits, key: &PublicKey, era: u64) -> bool {
        let Self::Made(made) = self else { return false };
        match permits {
            Permits::Login(login, Place::Bound(host_key, host)) => {
                made.era == era
                    && made.certificate.is_or_certifies(key)
                    && *host_key == made.host_key
                    && *host == made.host
                    && login.key == made.certificate
                    && made.users.contains(&login.user)
                    && made.used.as_ref().is_none_or(|used| *used == **login)
            }
            _ => false,
        }
    }

    pub(super) fn note_used(&mut self, permits: &Permits) {
        if let (Self::Made(made), Permits::Login(login, _)) = (self, permits)
            && made.certificate == login.key
        {
            made.used = Some(Login::clone(login));
        }
    }
}

impl Broker {
    /// A certificate for the login that the connection is bound to, where one is made for that host and allowed.
    pub(super) async fn certified_identity(&self, connection: &mut AgentConnection) -> Option<Identity> {
        if matches!(connection.certified, Certified::Unasked)
            && let Some((key, recipe, host_key, host)) = self.wanted_certificate(connection).await
        {
            connection.certified = Certified::Not;
            // Why there is none is in the log where anybody was asked; ssh has no word for it, and gets the other keys.
            match self.make_certificate(connection, &key, &recipe, host_key, host).await {
                Ok(made) => connection.certified = Certified::Made(Box::new(made)),
                Err(refusal) => {
                    let text = format!("no certificate was made for the key '{}': {refusal}", key.item);
                    journal::say(Level::Warning, &escaped(&text, 500));
                }
            }
        }
        let now = clock::unix_seconds();
        let Certified::Made(made) = &connection.certified else { return None };
        let is_valid = made.certificate.certificate().is_some_and(|certificate| certificate.is_valid_at(now));
        is_valid.then(|| Identity { blob: made.certificate.blob().to_vec(), comment: made.comment.clone() })
    }

    /// What would have to be made, if anything.
    async fn wanted_certificate(
        &self,
        connection: &mut AgentConnection,
    ) -> Option<(VaultKey, Recipe, PublicKey, Host)> {
        let keys = self.vault_keys();
        let recipes = Rc::clone(&self.ssh.ring.borrow().recipes);
        if recipes.is_empty() || !self.is_open() || connection.binding.may_be_forwarded() {
            return None;
        }
        let host_key = connection.binding.last_host()?.clone();
        let host = self.host_of(connection, &host_key).await;
        let found =
            recipes.iter().filter(|(_, recipe)| host.is_among(&recipe.hosts)).find_map(|(item, recipe)| {
                let is_it = |key: &&VaultKey| {
                    key.item == *item && (key.hosts.is_empty() || host.is_among(&key.hosts))
                };
                Some((keys.iter().find(is_it)?.clone(), recipe.clone()))
            });
        found.map(|(key, recipe)| (key, recipe, host_key, host))
    }

    async fn make_certificate(
        &self,
        connection: &mut AgentConnection,
        key: &VaultKey,
        recipe: &Recipe,
        host_key: PublicKey,
        host: Host,
    ) -> Result<Made, Refusal> {
        let requester = &mut connection.client.requester;
        if !(requester.look_again_for_record() && requester.look_again()) {
            return Err(AgentRefusal::Gone.into());
        }
        let always = always_asked(false, false, key.confirm == Confirm::Always);
        let place = host.shown().0;
        let fingerprint = signing::fingerprint(&key.public);
        let subject = Subject {
            what: format!(
                "a certificate by {}, role {}, for {} as {} at {place}",
                recipe.vault,
                recipe.role,
                key.item,
                recipe.shown_principals()
            ),
            item: Some(key.item.to_string()),
            host_key: Some(signing::fingerprint(&host_key)),
            hosts: host.pinned().to_vec(),
            given: Some(given_key(connection, &key.public)),
            ..Subject::default()
        };
        let mut act = Act {
            subjects: vec![(Kind::SshLogin, subject)],
            title: "log in with a certificate made for this login".to_owned(),
            names: vec![
                format!("{} {fingerprint}", key.item),
                recipe.shown(),
                format!("{} at {place}", recipe.shown_principals()),
            ],
            beyond: always.map_or(Beyond::Nothing, Beyond::Always),
        };
        self.add_forbidden(&connection.client.requester, key.elsewhere.as_ref(), &mut act).await?;
        let judgement = self.judge(&connection.client.requester, &act).await?;
        let asks = judgement.verdict.asks();
        let mut lines: Lines = host_lines(&host_key, &host);
        lines.extend(recipe.lines());
        lines.push(("key", key.item.to_string(), Certainty::Verified));
        lines.push(("key is", named_key(&key.public), Certainty::Verified));
        // The yes covers a signature with it.
        if let Some(elsewhere) = &key.elsewhere {
            lines.push(("private", elsewhere.shown(), Certainty::Asked));
        }
        if asks {
            lines.extend(self.command_line(connection).await);
        }
        let approved = self
            .authorise_judged(&connection.client, act, judgement, |question| {
                for (label, text, certainty) in &lines {
                    question.line(label, text, *certainty);
                }
            })
            .await?;
        let made = self.ask_for_certificate(&connection.client, &approved, key, recipe).await;
        let made = made.and_then(|certificate| self.not_locked_meanwhile(connection).map(|()| certificate));
        let certificate = made.map_err(|refusal| self.failed(&approved, refusal))?;
        self.record(&made_event(&approved, recipe, &certificate), approved.durable)?;
        let (item, comment, era) = (key.item.clone(), key.comment.clone(), self.era());
        let users = recipe.principals.clone();
        Ok(Made { item, certificate, comment, users, host_key, host, era, used: None })
    }

    /// What the vault signs for this key, if it is right, and key and recipe are still what they were.
    async fn ask_for_certificate(
        &self,
        client: &Client,
        approved: &Approved,
        key: &VaultKey,
        recipe: &Recipe,
    ) -> Result<PublicKey, Refusal> {
        let line = self.certificate_line(client, approved, key, recipe).await?;
        let keys = self.vault_keys();
        let is_still = keys.iter().any(|held| held == key)
            && self.ssh.ring.borrow().recipes.iter().any(|(item, held)| *item == key.item && held == recipe);
        if !is_still {
            return Err(AgentRefusal::NoKey.into());
        }
        let checked = recipe.check(&line, &key.public, clock::unix_seconds());
        Ok(checked.map_err(AgentRefusal::from)?)
    }

    async fn certificate_line(
        &self,
        client: &Client,
        _approved: &Approved,
        key: &VaultKey,
        recipe: &Recipe,
    ) -> Result<String, Refusal> {
        let links = self.links()?;
        let asked = self.asked(client, links.meant(&recipe.vault)?)?;
        let ask = CertificateAsk {
            role: recipe.role.clone(),
            public: public_line(&key.public, b""),
            principals: recipe.principals.clone(),
            ttl: recipe.lasts(),
        };
        let line = asked.within(asked.vault.certificate(&asked.call, &ask)).await;
        let line = line.map_err(|fault| asked.refusal(fault))?;
        if Rc::ptr_eq(&links, &self.links()?) { Ok(line) } else { Err(Refusal::LinksChanged) }
    }

    /// Says that certificates are made for a key, or are not any more. Without the authority's key, the one that the
    /// vault signs with now is kept.
    pub(crate) async fn ssh_certified_by(
        &self,
        client: &Client,
        item: ItemName,
        recipe: Option<Recipe>,
    ) -> Result<Reply, Refusal> {
        self.open_vault_for(client, "say who certifies an ssh key").await?;
        let key = self.key_named(&item)?;
        let Some(mut recipe) = recipe else {
            let shown = vec![("then", "no certificates are made for it".to_owned())];
            return self.change_key(client, item, shown, Vec::new(), &[CERTIFIED_BY]).await;
        };
        if let Some(fault) = recipe.fault() {
            return Err(Refusal::Input(fault));
        }
        recipe.vault = self.links()?.meant(&recipe.vault)?.name.clone();
        let mut shown = vec![
            ("by", recipe.shown()),
            ("for hosts", recipe.hosts.join(" ")),
            ("for users", recipe.shown_principals()),
            ("valid for", TimeSpan::of(recipe.lasts()).to_string()),
        ];
        if recipe.authority.is_empty() {
            shown.push(("signed by", "the key that the vault has now, learned from a first one".to_owned()));
            return self.learn_authority(client, &key, recipe, shown).await;
        }
        let authority = read_public_line(&recipe.authority).map(|(key, _)| key);
        let authority = authority.ok().filter(|key| key.certificate().is_none());
        let authority = authority.ok_or(Refusal::Input("the authority is no line of a public key"))?;
        shown.push(("signed by", named_key(&authority)));
        recipe.authority = public_line(&authority, b"");
        let field = public_field(CERTIFIED_BY, &recipe.text()?)?;
        self.change_key(client, item, shown, vec![field], &[]).await
    }

    async fn learn_authority(
        &self,
        client: &Client,
        key: &VaultKey,
        mut recipe: Recipe,
        shown: Vec<(&'static str, String)>,
    ) -> Result<Reply, Refusal> {
        let approved = self.may_change_key(client, &key.item, &shown).await?;
        let learned = async {
            let line = self.certificate_line(client, &approved, key, &recipe).await?;
            let authority = recipe::authority(&line).map_err(AgentRefusal::from)?;
            recipe.authority = public_line(&authority, b"");
            let made = recipe.check(&line, &key.public, clock::unix_seconds()).map_err(AgentRefusal::from)?;
            self.record(&made_event(&approved, &recipe, &made), approved.durable)?;
            public_field(CERTIFIED_BY, &recipe.text()?)
        };
        let field = learned.await.map_err(|refusal| self.failed(&approved, refusal))?;
        self.put_key_fields(&key.item, vec![field], &[], &approved)
    }
}

impl Recipe {
    /// `team, role deploy`
    pub(super) fn shown(&self) -> String {
        format!("{}, role {}", self.vault, self.role)
    }

    pub(super) fn shown_principals(&self) -> String {
        match self.principals.as_slice() {
            [] => "whomever the role says".to_owned(),
            [one] => one.clone(),
            several => format!("any of {}", several.join(", ")),
        }
    }

    /// For lists.
    pub(super) fn summary(&self) -> String {
        let authority = self.authority_key().as_ref().map(signing::fingerprint).unwrap_or_default();
        format!("{} for {}, signed by {authority}", self.shown(), self.hosts.join(" "))
    }

    fn lines(&self) -> Lines {
        let lasts = TimeSpan::of(self.lasts());
        let mut lines = vec![
            ("made by", self.shown(), Certainty::Asked),
            ("lets in", self.shown_principals(), Certainty::Asked),
            ("valid for", lasts.to_string(), Certainty::Asked),
        ];
        if self.principals.is_empty() {
            lines.push(("then", "the login with it is asked for by itself".to_owned(), Certainty::Verified));
        }
        lines
    }

    fn text(&self) -> Result<String, Refusal> {
        serde_json::to_string(self).map_err(|_| Refusal::Task)
    }
}

fn made_event(approved: &Approved, recipe: &Recipe, made: &PublicKey) -> Event {
    let certificate = made.certificate();
    Event::CertificateMade {
        request: approved.request,
        key: signing::fingerprint(made),
        by: recipe.shown(),
        users: certificate.map(|made| made.principals.clone()).unwrap_or_default(),
        id: certificate.map(|made| String::from_utf8_lossy(&made.key_id).into_owned()).unwrap_or_default(),
        serial: certificate.map_or(0, |made| made.serial),
        signed_by: certificate.map(|made| signing::fingerprint(&made.authority)).unwrap_or_default(),
        until: certificate.map(|made| clock::shown(made.valid_before)).unwrap_or_default(),
        given: approved.given.clone(),
    }
}

fn host_lines(host_key: &PublicKey, host: &Host) -> Lines {
    let (name, certainty) = host.shown();
    vec![("to", name, certainty), ("host key", named_key(host_key), Certainty::Verified)]
}
