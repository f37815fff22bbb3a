//! Asking linked vaults: one batch a vault and request, all vaults at once, each for its own time. A request that ends
//! takes what it asked for with it.

use super::kept::Kept;
use super::leases::Leases;
use super::refusal::VaultFailed;
use super::{Act, Approved, Beyond, Broker, Client, Refusal};
use crate::approval::question::Certainty;
use crate::audit::event::Event;
use crate::clock::timeout;
use crate::env_set::plan::{self, PlanError};
use crate::policy::decide::Subject;
use crate::policy::rule::Kind;
use crate::vault::linked::links::{self, Link, Links};
use crate::vault::linked::{self, Call, Fault, LinkedVault, Read, Secrets};
use crate::vault::local;
use crate::vault::local::index;
use crate::vault::local::item_file::Field;
use keyloan_protocol::control::response::Reply;
use keyloan_protocol::limits;
use keyloan_protocol::names::VaultName;
use keyloan_protocol::reference::Reference;
use keyloan_protocol::secret::SecretBytes;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::time::Duration;
use tokio::task::JoinSet;

/// Above the vault's own time, so that the vault says first what took so long.
const GRACE: Duration = Duration::from_secs(5);

/// Vaults as they were opened, and values of theirs that are kept, until the local one is locked or their link changes.
#[derive(Default)]
pub(super) struct Opened {
    vaults: RefCell<HashMap<VaultName, Rc<dyn LinkedVault>>>,
    pub(super) kept: RefCell<Kept>,
}

impl Opened {
    pub(super) fn close(&self) -> Vec<Rc<dyn LinkedVault>> {
        self.kept.borrow_mut().forget_all();
        self.vaults.take().into_values().collect()
    }

    pub(super) fn forget(&self, name: &VaultName) -> Option<Rc<dyn LinkedVault>> {
        self.kept.borrow_mut().forget(name);
        self.vaults.borrow_mut().remove(name)
    }
}

/// A vault with what it is asked with.
pub(super) struct Asked {
    pub(super) name: VaultName,
    pub(super) vault: Rc<dyn LinkedVault>,
    pub(super) call: Rc<Call>,
}

impl Asked {
    pub(super) fn refusal(&self, fault: Fault) -> Refusal {
        Refusal::Linked(Box::new(self.failed(fault, Vec::new())))
    }

    pub(super) fn failed(&self, fault: Fault, others: Vec<Fault>) -> VaultFailed {
        let hint = linked::hint(&self.name, &*self.vault, &fault);
        VaultFailed { vault: self.name.clone(), fault, hint, others }
    }

    /// Waits for the vault no longer than it may take.
    pub(super) async fn within<T>(&self, doing: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
        in_time(self.vault.patience() + GRACE, doing).await
    }

    async fn read(&self, wanted: Vec<Reference>) -> Result<Vec<(Reference, SecretBytes)>, Refusal> {
        let read = self.within(self.vault.read(&self.call, &wanted)).await;
        let read: Vec<Read> = read.map_err(|fault| self.refusal(fault))?;
        let (mut values, mut faults) = (Vec::with_capacity(read.len()), Vec::new());
        for (reference, value) in wanted.into_iter().zip(read) {
            match value {
                Ok(value) if value.len() > limits::FIELD_VALUE => {
                    let cause = format!("{reference} has {} bytes; a value has at most 1 MiB", value.len());
                    faults.push(Fault::Refused(cause));
                }
                Ok(value) => values.push((reference, value)),
                Err(fault) => faults.push(fault),
            }
        }
        let mut faults = faults.into_iter();
        let Some(first) = faults.next() else { return Ok(values) };
        Err(Refusal::Linked(Box::new(self.failed(first, faults.collect()))))
    }
}

/// A vault by its own name alone.
pub(super) fn named<'a>(links: &'a Links, name: &VaultName) -> Result<&'a Link, Refusal> {
    let other = |link: &Link| Refusal::Link(format!("the vault of 1Password is called '{}' here", link.name));
    let meant = || links.meant(name).map_or_else(Refusal::from, other);
    links.named(name).ok_or_else(meant)
}

/// A vault that cannot even be asked.
pub(super) fn failed(vault: &VaultName, fault: Fault, hint: Option<String>) -> Refusal {
    Refusal::Linked(Box::new(VaultFailed { vault: vault.clone(), fault, hint, others: Vec::new() }))
}

pub(super) async fn in_time<T>(
    limit: Duration,
    doing: impl Future<Output = Result<T, Fault>>,
) -> Result<T, Fault> {
    let late = || Err(Fault::Unreachable("it did not answer in time".to_owned()));
    timeout(limit, doing).await.unwrap_or_else(|_| late())
}

impl Broker {
    pub(super) fn links(&self) -> Result<Rc<Links>, Refusal> {
        Ok(Rc::clone(&self.unsealed.borrow().as_ref().ok_or(Refusal::Locked)?.links))
    }

    pub(super) fn sealed_links(&self) -> Result<Vec<Field>, Refusal> {
        Ok(self.vault.borrow().read(index::Kind::Sealed, local::VAULTS)?.unwrap_or_default())
    }

    /// A linked vault, with the secrets of its link. Secrets and what is open go by its name: a link from before a
    /// question, which may have been replaced meanwhile, would be given the secrets of the new one, and stay in its place.
    pub(super) fn asked(&self, client: &Client, link: &Link) -> Result<Asked, Refusal> {
        if self.links()?.named(&link.name) != Some(link) {
            return Err(Refusal::LinksChanged);
        }
        let secrets = links::secrets(self.sealed_links()?, &link.name);
        let mut opened = self.linked.vaults.borrow_mut();
        let vault = if let Some(vault) = opened.get(&link.name) {
            Rc::clone(vault)
        } else {
            let vault = linked::open(link).map_err(|fault| failed(&link.name, fault, None))?;
            opened.insert(link.name.clone(), Rc::clone(&vault));
            vault
        };
        Ok(Asked { name: link.name.clone(), vault, call: Rc::new(self.call(client, secrets)) })
    }

    pub(super) fn call(&self, client: &Client, secrets: Vec<(String, SecretBytes)>) -> Call {
        Call {
            secrets: Secrets::new(secrets),
            desktop: self.desktop().map(|desktop| desktop.variables().collect()).unwrap_or_default(),
            terminal: keyloan_platform::terminal::path_of_device(client.requester.terminal),
            ..Call::default()
        }
    }

    /// The same, for what is not a loan, and so has no end that a lease could end with.
    pub(super) async fn read_linked(
        &self,
        client: &Client,
        approved: &Approved,
        wanted: &[&Reference],
    ) -> Result<HashMap<Reference, SecretBytes>, Refusal> {
        let (values, leases) = self.read_for_loan(client, approved, wanted).await?;
        let Some(vault) = leases.first() else { return Ok(values) };
        let cause = "what it makes anew for each loan ends with the loan, and this is none".to_owned();
        let hint = Some("lend it to a command: with-secrets".to_owned());
        Err(failed(vault, Fault::Refused(cause), hint))
    }

    /// The values behind references of linked vaults, and what ends with the loan. The first vault that fails ends it
    /// for all.
    pub(super) async fn read_for_loan(
        &self,
        client: &Client,
        approved: &Approved,
        wanted: &[&Reference],
    ) -> Result<(HashMap<Reference, SecretBytes>, Leases), Refusal> {
        let links = self.links()?;
        let since = self.linked.kept.borrow().since();
        let mut values = HashMap::with_capacity(wanted.len());
        // Dropped after all that reads.
        let mut leases = Leases::none(&self.leases);
        let mut batches: BTreeMap<&VaultName, (&Link, Vec<Reference>)> = BTreeMap::new();
        for reference in wanted {
            let link = links.meant(&reference.vault)?;
            if let Some(value) = self.kept_value(approved, link, reference) {
                values.insert((*reference).clone(), value);
                continue;
            }
            let (_, batch) = batches.entry(&link.name).or_insert_with(|| (link, Vec::new()));
            if !batch.contains(reference) {
                batch.push((*reference).clone());
            }
        }
        let mut reading = JoinSet::new();
        for (link, batch) in batches.into_values() {
            let asked = self.asked(client, link)?;
            leases.watch(&asked);
            reading.spawn_local(async move { asked.read(batch).await.map(|read| (asked, read)) });
        }
        let (mut read, mut bytes) = (Vec::new(), 0);
        while let Some(one) = reading.join_next().await {
            let (asked, one) = one.map_err(|_| Refusal::Task)??;
            bytes += one.iter().map(|(_, value)| value.len()).sum::<usize>();
            if let Some(fault) = plan::too_much(bytes) {
                return Err(PlanError::Faults(vec![fault]).into());
            }
            read.push((asked, one));
        }
        // What a vault said while it was unlinked, or the local one locked, is not given out any more.
        if !Rc::ptr_eq(&links, &self.links()?) {
            return Err(Refusal::LinksChanged);
        }
        for (asked, read) in read {
            self.keep(&asked, &read, since);
            values.extend(read);
        }
        Ok((values, leases))
    }

    /// Values of any vaults, the local one too.
    pub(super) async fn values(
        &self,
        client: &Client,
        approved: &Approved,
        wanted: &[&Reference],
    ) -> Result<HashMap<Reference, SecretBytes>, Refusal> {
        let elsewhere = wanted.iter().copied().filter(|reference| !reference.vault.is_local());
        let mut values = self.read_linked(client, approved, &elsewhere.collect::<Vec<_>>()).await?;
        for reference in wanted.iter().filter(|reference| reference.vault.is_local()) {
            let fields = self.vault.borrow().read(index::Kind::Item, reference.item.as_str())?;
            let held = fields.and_then(|fields| fields.into_iter().find(|held| held.name == reference.field));
            let gone = || Refusal::NoField { item: reference.subject(), field: reference.field.to_string() };
            values.insert((*reference).clone(), held.ok_or_else(gone)?.value);
        }
        Ok(values)
    }

    /// [`Broker::give`] for a linked vault.
    pub(super) async fn give_linked<T>(
        &self,
        client: &Client,
        title: &'static str,
        reference: Reference,
        make: impl FnOnce(SecretBytes) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        self.open_vault_for(client, &format!("read '{reference}'")).await?;
        let reference = self.links()?.own(&reference)?;
        let shown = reference.to_string();
        let subject = Subject {
            given: Some(format!("{}/{}", reference.subject(), reference.field)),
            ..Subject::of_item(&format!("{title}: {shown}"), &reference.subject())
        };
        let act = Act {
            subjects: vec![(Kind::ItemRead, subject)],
            title: title.to_owned(),
            names: vec![shown.clone()],
            beyond: Beyond::Nothing,
        };
        let approved =
            self.authorise(client, act, |question| question.line("gives", &shown, Certainty::Asked)).await?;
        let read = self.read_linked(client, &approved, &[&reference]).await;
        let value = read.and_then(|mut values| values.remove(&reference).ok_or(Refusal::Task));
        let given = value.and_then(make).map_err(|refusal| self.failed(&approved, refusal))?;
        let released = Event::Released { request: approved.request, given: approved.given.clone() };
        self.record(&released, approved.durable)?;
        Ok(given)
    }

    pub(super) async fn write_linked(
        &self,
        client: &Client,
        _approved: &Approved,
        links: &Links,
        to: &Reference,
        value: &SecretBytes,
    ) -> Result<(), Refusal> {
        let asked = self.asked(client, links.meant(&to.vault)?)?;
        // All of the vault's, since one value may have several names there; before, as this may be dropped halfway, and
        // after, for what was read meanwhile. Also where it failed: it may be half done.
        self.linked.kept.borrow_mut().forget(&asked.name);
        let written = asked.within(asked.vault.write(&asked.call, to, value)).await;
        self.linked.kept.borrow_mut().forget(&asked.name);
        written.map_err(|fault| asked.refusal(fault))
    }

    pub(crate) async fn linked_set(
        &self,
        client: &Client,
        reference: Reference,
        public: bool,
        value: Option<SecretBytes>,
    ) -> Result<Reply, Refusal> {
        if reference.vault.is_local() {
            return self.item_set(client, reference.item, reference.field, public, value).await;
        }
        if public {
            return Err(Refusal::Input("only the local vault has public fields"));
        }
        self.open_vault_for(client, &format!("store a value as '{reference}'")).await?;
        let reference = self.links()?.own(&reference)?;
        let value = match value {
            Some(value) => value,
            None => self.typed_value(client, &format!("value of {reference}")).await?,
        };
        if value.is_empty() || value.len() > limits::FIELD_VALUE {
            return Err(Refusal::Input("a value has at least 1 byte and at most 1 MiB"));
        }
        let shown = reference.to_string();
        let act = Act {
            subjects: vec![(Kind::ItemWrite, Subject::of_item(&shown, &reference.subject()))],
            title: "store a value in a linked vault".to_owned(),
            names: vec![shown.clone()],
            beyond: Beyond::Nothing,
        };
        let about = format!("{shown}, {} bytes", value.len());
        let approved =
            self.authorise(client, act, |question| question.line("stores", &about, Certainty::Asked)).await?;
        let stored = async {
            let links = self.links()?;
            self.write_linked(client, &approved, &links, &reference, &value).await
        };
        stored.await.map_err(|refusal| self.failed(&approved, refusal))?;
        let changed = Event::ItemChanged {
            request: approved.request,
            item: reference.subject(),
            field: Some(reference.field.to_string()),
            action: "stored",
        };
        self.record(&changed, approved.durable)?;
        Ok(Reply::done(format!("stored: {shown}")))
    }
}
