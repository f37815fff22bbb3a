//! Which vaults are linked: `keyloan vault`. Every change wants the passphrase, under a question that shows what is
//! linked and which programs that will run.

use super::linked::{Asked, failed, in_time, named};
use super::{Broker, Client, Refusal};
use crate::approval::question::Question;
use crate::audit::event::Event;
use crate::audit::sink::Durable;
use crate::clock;
use crate::vault::linked::certificates;
use crate::vault::linked::links::{self, Link, Links};
use crate::vault::linked::pinned::Pinned;
use crate::vault::linked::{self, Fault};
use crate::vault::local;
use crate::vault::local::index;
use keyloan_protocol::control::Message;
use keyloan_protocol::control::response::{LinkedVault, Reply, VaultReport};
use keyloan_protocol::names::VaultName;
use keyloan_protocol::reference::ONE_PASSWORD;
use keyloan_protocol::secret::SecretBytes;
use keyloan_protocol::vault_kinds::{self, Is, Kind, Needed, Secret};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

type Done = Result<Reply, Refusal>;

/// One link is worked out at a time.
static HASHING: Semaphore = Semaphore::const_new(1);

/// What is asked for with `vault add`.
pub(crate) struct NewLink {
    pub(crate) name: VaultName,
    /// Without one, that of the link that is replaced.
    pub(crate) kind: Option<String>,
    pub(crate) settings: BTreeMap<String, String>,
    pub(crate) searched: Option<bool>,
    pub(crate) replace: bool,
    pub(crate) secrets: Vec<(String, SecretBytes)>,
}

impl NewLink {
    /// The link, and its kind. What is not given stays as it was in the one that is replaced.
    async fn link(&self, old: Option<&Link>) -> Result<(Link, &'static Kind), Refusal> {
        let name = self.kind.as_deref().or(old.map(|old| old.kind.as_str()));
        let name = name.ok_or(Refusal::Input("the kind of vault is missing"))?;
        let kind = vault_kinds::kind(name).ok_or_else(|| {
            let known: Vec<&str> = vault_kinds::KINDS.iter().map(|kind| kind.name).collect();
            Refusal::Link(format!("there is no kind of vault '{name}' (there is: {})", known.join(", ")))
        })?;
        // A hash goes on when its time is up, and takes a place from whatever else is to be looked at.
        let _alone = HASHING.acquire().await.map_err(|_| Refusal::Task)?;
        let old = old.filter(|old| old.kind == kind.name);
        let secret = |key: &str| kind.setting(key).is_some_and(|setting| setting.is == Is::Secret);
        for key in self.settings.keys() {
            if kind.setting(key).is_none() {
                let known: Vec<&str> = kind.settings.iter().map(|setting| setting.key).collect();
                let known = known.join(", ");
                return Err(Refusal::Link(format!("{name} has no setting '{key}' (it has: {known})")));
            }
            if secret(key) {
                return Err(Refusal::Link(format!(
                    "{key} is a secret: typed unseen, or given with --secret-fd {key}=N"
                )));
            }
        }
        let home = keyloan_platform::paths::home();
        let mut link = Link {
            name: self.name.clone(),
            kind: kind.name.to_owned(),
            searched: self.searched.or(old.map(|old| old.searched)).unwrap_or(kind.searched),
            settings: BTreeMap::new(),
            programs: BTreeMap::new(),
        };
        for setting in kind.settings.iter().filter(|setting| setting.is != Is::Secret) {
            let held = old.and_then(|old| match setting.is {
                Is::Program => old.programs.get(setting.key)?.path.to_str(),
                _ => old.setting(setting.key),
            });
            let given = self.settings.get(setting.key).map(String::as_str).filter(|value| !value.is_empty());
            let value = match (given.or(held), setting.needed) {
                (Some(value), _) | (None, Needed::Else(value)) => value,
                (None, Needed::Unless(other, value)) if !link.settings.contains_key(other) => value,
                (None, Needed::No | Needed::Unless(..)) => continue,
                (None, Needed::Always) => {
                    return Err(Refusal::Link(format!("{name} needs {}=… ({})", setting.key, setting.asks)));
                }
            };
            let absolute = || {
                let path = links::absolute(value, home.as_deref());
                path.ok_or_else(|| Refusal::Link(format!("{}: a whole path is wanted", setting.key)))
            };
            let key = setting.key.to_owned();
            match setting.is {
                Is::Program => {
                    let pinned = Pinned::of(&absolute()?).await.map_err(|fault| self.refused(fault))?;
                    link.programs.insert(key, pinned);
                }
                Is::File => {
                    let sha256 = certificates::sha256(&absolute()?).await;
                    let sha256 = sha256.map_err(|fault| self.refused(fault))?;
                    link.settings.insert(key.clone() + "-sha256", sha256);
                    link.settings.insert(key, absolute()?.display().to_string());
                }
                Is::Path => {
                    link.settings.insert(key, absolute()?.display().to_string());
                }
                _ => {
                    link.settings.insert(key, value.to_owned());
                }
            }
        }
        for script in linked::scripts(&link).await.map_err(|fault| self.refused(fault))? {
            let pinned = Pinned::of(&script).await.map_err(|fault| self.refused(fault))?;
            link.programs.insert(script.display().to_string(), pinned);
        }
        let known = kind.secrets(&link.settings);
        if let Some((key, _)) = self.secrets.iter().find(|(key, _)| known.iter().all(|one| one.key != *key)) {
            return Err(Refusal::Link(format!("{name} has no secret '{key}'")));
        }
        Ok((link, kind))
    }

    fn refused(&self, fault: Fault) -> Refusal {
        failed(&self.name, fault, None)
    }
}

impl Broker {
    pub(crate) async fn vault_list(&self, client: &Client) -> Done {
        self.open_vault_for(client, "list the linked vaults").await?;
        let links = self.links()?;
        let fields = self.sealed_links()?;
        let secrets = |link: &Link| {
            let own = fields.iter().filter_map(|field| {
                let (vault, key) = field.name.as_str().split_once('/')?;
                (vault == link.name.as_str()).then(|| key.to_owned())
            });
            own.collect()
        };
        let local = LinkedVault {
            name: VaultName::local(),
            kind: VaultName::LOCAL.to_owned(),
            searched: true,
            settings: BTreeMap::new(),
            programs: Vec::new(),
            secrets: Vec::new(),
            keeps_seconds: None,
            kept: 0,
        };
        let vaults = links.iter().map(|link| LinkedVault {
            keeps_seconds: self.keeps(&link.name).map(|time| time.as_secs()),
            kept: self.linked.kept.borrow().count(&link.name),
            ..link.summary(secrets(link))
        });
        Ok(Reply::Vaults { vaults: std::iter::once(local).chain(vaults).collect() })
    }

    pub(crate) async fn vault_add(
        &self,
        client: &Client,
        passphrase: Option<SecretBytes>,
        mut new: NewLink,
    ) -> Done {
        self.open_vault_for(client, "link a vault").await?;
        let links = self.links()?;
        let old = links.named(&new.name);
        if new.name.is_local() {
            return Err(Refusal::Input("'local' is the built-in vault, and no other can have its name"));
        }
        match old {
            Some(_) if !new.replace => {
                return Err(Refusal::Link(format!(
                    "there is a vault '{}' already (--replace changes it)",
                    new.name
                )));
            }
            None if new.replace => named(&links, &new.name).map(drop)?,
            None if links.len() >= links::MOST => {
                return Err(Refusal::Input("no more than 16 vaults can be linked"));
            }
            _ => {}
        }
        let action = if old.is_some() { "changed" } else { "added" };
        let title = if old.is_some() { "change how a vault is linked" } else { "link a vault" };
        // Its program's hash, of megabytes, is taken for nobody who could not go on. The question shows it.
        let is_asked = passphrase.is_none() && client.requester.terminal != 0;
        if !is_asked {
            self.prove_passphrase(client, passphrase, &Question::new(title)).await?;
        }
        let (mut link, kind) = new.link(old).await?;
        if link.name.as_str() == ONE_PASSWORD && kind.name != "onepassword" {
            return Err(Refusal::Input("'op' is 1Password's, and no other vault can have its name"));
        }
        if is_asked {
            let mut question = question(title, &link);
            for rule in self.rules_for(&link.name)? {
                Self::about(&mut question, "under the rule", &rule);
            }
            self.prove_passphrase(client, None, &question).await?;
        }
        let known = kind.secrets(&link.settings);
        let mut secrets = self.kept_secrets(old.filter(|old| old.kind == link.kind), &new.secrets)?;
        secrets.retain(|(key, _)| known.iter().any(|one| one.key == *key));
        let given: Vec<String> = new.secrets.iter().map(|(key, _)| key.clone()).collect();
        secrets.append(&mut new.secrets);
        self.ask_for_secrets(client, &known, &link.name, &given, &mut secrets).await?;
        let vault = linked::open(&link).map_err(|fault| new.refused(fault))?;
        let signed_in = self.leases.tried(&vault);
        let mut call = self.call(client, secrets);
        let settled = in_time(vault.patience(), vault.settle(&mut call)).await;
        let asked = Asked { name: link.name.clone(), vault, call: Rc::new(call) };
        let tried = match settled {
            Ok(()) => asked.within(asked.vault.state(&asked.call)).await,
            Err(fault) => Err(fault),
        };
        drop(signed_in);
        let note = match tried {
            Ok(()) => format!("{action}: {}, and it answers", link.name),
            // What it was given to be opened with is not the right one.
            Err(fault @ (Fault::Locked(_) | Fault::SignedOut)) if asked.call.secrets.is_empty() => {
                format!("{action}: {}; it is {fault}", link.name)
            }
            Err(fault) => return Err(asked.refusal(fault)),
        };
        let learned = asked.vault.learned().map_err(|fault| new.refused(fault))?;
        link.settings.extend(learned.into_iter().map(|(key, value)| (key.to_owned(), value)));
        self.change_links(
            client,
            &links,
            links.with(link.clone()),
            &link,
            Rc::into_inner(asked.call).ok_or(Refusal::Task)?.secrets.into_inner(),
            action,
        )?;
        Ok(Reply::done(note))
    }

    /// The secrets of a link that are not given anew.
    fn kept_secrets(
        &self,
        old: Option<&Link>,
        given: &[(String, SecretBytes)],
    ) -> Result<Vec<(String, SecretBytes)>, Refusal> {
        let Some(old) = old else { return Ok(Vec::new()) };
        let mut kept = links::secrets(self.sealed_links()?, &old.name);
        kept.retain(|(key, _)| !given.iter().any(|(other, _)| other == key));
        Ok(kept)
    }

    /// Those that are not given are typed on the requester's terminal, unseen. Without one, only what is needed is missed.
    async fn ask_for_secrets(
        &self,
        client: &Client,
        known: &[Secret],
        name: &VaultName,
        given: &[String],
        secrets: &mut Vec<(String, SecretBytes)>,
    ) -> Result<(), Refusal> {
        let has_terminal = client.requester.terminal != 0;
        for Secret { key: wanted, asks, needed } in known.iter().filter(|known| !known.asks.is_empty()) {
            let held = secrets.iter().position(|(key, _)| key == wanted);
            let what = format!("{asks} of {name}");
            let typed = match (held, needed) {
                _ if given.contains(wanted) => continue,
                (Some(_), _) if has_terminal => {
                    self.typed_or_nothing(client, &what, "not shown; nothing to keep it").await?
                }
                (None, Needed::Always) if has_terminal => Some(self.typed_value(client, &what).await?),
                (None, Needed::Always) => {
                    let how = format!("--secret-fd {wanted}=N");
                    return Err(Refusal::Link(format!("{name} cannot be opened without {wanted} ({how})")));
                }
                (None, _) if has_terminal => {
                    self.typed_or_nothing(client, &what, "not shown; nothing for none").await?
                }
                _ => continue,
            };
            if let Some(typed) = typed {
                secrets.retain(|(key, _)| key != wanted);
                secrets.push((wanted.clone(), typed));
            }
        }
        Ok(())
    }

    pub(crate) async fn vault_remove(
        &self,
        client: &Client,
        passphrase: Option<SecretBytes>,
        name: VaultName,
    ) -> Done {
        self.open_vault_for(client, "unlink a vault").await?;
        if name.is_local() {
            return Err(Refusal::Input("'local' is the built-in vault and stays"));
        }
        let links = self.links()?;
        let link = named(&links, &name)?;
        self.prove_passphrase(client, passphrase, &question("unlink a vault", link)).await?;
        self.change_links(client, &links, links.without(&name), link, Vec::new(), "removed")?;
        Ok(Reply::done(format!("removed: {name}; what is in it stays where it is")))
    }

    /// Writes the links down and goes by them from here on.
    fn change_links(
        &self,
        client: &Client,
        before: &Rc<Links>,
        after: Links,
        link: &Link,
        secrets: Vec<(String, SecretBytes)>,
        action: &'static str,
    ) -> Result<(), Refusal> {
        if !Rc::ptr_eq(before, &self.links()?) {
            return Err(Refusal::LinksChanged);
        }
        let fields = links::fields(&after, self.sealed_links()?, &link.name, secrets);
        let fields = fields.ok_or(Refusal::Input("this link cannot be written down"))?;
        self.vault.borrow_mut().check_writable()?;
        let (name, kind) = (link.name.to_string(), link.kind.clone());
        let by = self.who(&client.requester);
        self.record(&Event::VaultChanged { name, kind, action, by }, Durable::Now)?;
        self.vault.borrow_mut().write(index::Kind::Sealed, local::VAULTS, &fields, &clock::now(), None)?;
        if let Some(unsealed) = self.unsealed.borrow_mut().as_mut() {
            unsealed.links = Rc::new(after);
        }
        self.leases.end_of(&link.name);
        self.linked.forget(&link.name).into_iter().for_each(|vault| self.leases.sign_out(vault));
        self.close_linked_keys();
        // A yes was given to what the name stood for then.
        self.end_all_grants("the vaults were changed");
        Ok(())
    }

    /// How vaults are, each told as soon as it is known.
    pub(crate) async fn vault_test(&self, client: &Client, names: Vec<VaultName>) -> Done {
        // Each costs its secrets read and a program run, without a yes: once, whatever a request has of names.
        let names: BTreeSet<VaultName> = names.into_iter().collect();
        if names.len() > links::MOST + 1 {
            return Err(Refusal::Input("at most 17 vaults can be looked at, and no more can be linked"));
        }
        self.open_vault_for(client, "look at the linked vaults").await?;
        let links = self.links()?;
        let all = names.is_empty();
        let report = |name: &VaultName, state: Result<(), (Fault, Option<String>)>| VaultReport {
            name: name.clone(),
            state: state.as_ref().map_or_else(|(fault, _)| fault.key(), |()| "ready").to_owned(),
            cause: state.as_ref().err().map(|(fault, _)| fault.to_string()),
            hint: state.err().and_then(|(_, hint)| hint),
        };
        let mut testing = JoinSet::new();
        if all || names.contains(&VaultName::local()) {
            let local = report(&VaultName::local(), Ok(()));
            testing.spawn_local(async move { local });
        }
        let linked = names.iter().filter(|name| !name.is_local());
        let meant: Vec<&Link> = linked.map(|name| links.meant(name)).collect::<Result<_, _>>()?;
        for link in links.iter().filter(|link| all || meant.contains(link)) {
            match self.asked(client, link) {
                Ok(asked) => {
                    testing.spawn_local(async move {
                        let state = asked.within(asked.vault.state(&asked.call)).await;
                        let state = state.map_err(|fault| {
                            let hint = linked::hint(&asked.name, &*asked.vault, &fault);
                            (fault, hint)
                        });
                        report(&asked.name, state)
                    });
                }
                Err(Refusal::Linked(failed)) => {
                    let told = report(&link.name, Err((failed.fault, failed.hint)));
                    testing.spawn_local(async move { told });
                }
                Err(refusal) => return Err(refusal),
            }
        }
        while let Some(tested) = testing.join_next().await {
            let states = vec![tested.map_err(|_| Refusal::Task)?];
            // A client that is gone is noticed by its connection.
            let _ = client.replies.send(Message::new(Reply::VaultStates { states, more: true })).await;
        }
        Ok(Reply::VaultStates { states: Vec::new(), more: false })
    }
}

fn question(title: &str, link: &Link) -> Question {
    let mut question = Question::new(title);
    Broker::about(&mut question, "name", link.name.as_str());
    Broker::about(&mut question, "kind", &link.kind);
    for (key, value) in &link.settings {
        Broker::about(&mut question, "setting", &format!("{key} {value}"));
    }
    for program in link.programs.values() {
        let pinned = match &program.sha256 {
            Some(hash) => format!("{}, while its SHA-256 is {hash}", program.path.display()),
            None => program.path.display().to_string(),
        };
        Broker::about(&mut question, "runs", &pinned);
    }
    if let Some(home) = link.chosen_home() {
        Broker::about(&mut question, "with the home", &home.display().to_string());
    }
    if link.searched {
        Broker::about(&mut question, "searched", "for items titled with a directory's path");
    }
    question
}
