//! `keyloan item copy`: values from one vault to another. One yes names both ends of each; the record is in the log
//! before anything is read; and what stands in a copy's place stays, unless it was asked to replace it.

use super::items::changing;
use super::leases::Leases;
use super::{Act, Approved, Beyond, Broker, Client, Refusal, ssh};
use crate::approval::question::{Certainty, Question};
use crate::audit::event::Event;
use crate::policy::decide::Subject;
use crate::policy::rule::Kind;
use crate::vault::linked::Fault;
use crate::vault::linked::links::{Links, NoVault};
use crate::vault::local::index;
use crate::vault::local::item_file::Field;
use keyloan_protocol::control::response::Reply;
use keyloan_protocol::limits;
use keyloan_protocol::names::{FieldName, ItemName, VaultName};
use keyloan_protocol::reference::Reference;
use keyloan_protocol::secret::SecretBytes;
use std::rc::Rc;
use std::slice;

type Done = Result<Reply, Refusal>;

const EMPTY: &str = "it is empty, and a value has at least 1 byte";

/// One value on its way.
struct Copying {
    from: Reference,
    to: Reference,
    /// What is there may go, and the question says so.
    replaces: bool,
}

impl Copying {
    fn subjects(&self) -> Vec<(Kind, Subject)> {
        let Self { from, to, .. } = self;
        let what = format!("copy {from} to {to}");
        let mut subjects = vec![(Kind::ItemRead, Subject::of_item(&what, &from.subject()))];
        if to.vault.is_local() {
            subjects.extend(changing(&to.item, &what, Some(&to.field)));
        } else {
            subjects.push((Kind::ItemWrite, Subject::of_item(&what, &to.subject())));
        }
        subjects
    }

    fn describe(&self, question: &mut Question) {
        // What a linked vault has is known only after the yes.
        let sure = |at: &Reference| if at.vault.is_local() { Certainty::Verified } else { Certainty::Asked };
        question.line("copies", &self.from.to_string(), sure(&self.from));
        let instead = if self.replaces { ", in the place of what is there" } else { "" };
        question.line("to", &format!("{}{instead}", self.to), sure(&self.to));
    }
}

impl Broker {
    pub(crate) async fn item_copy(
        &self,
        client: &Client,
        from: Reference,
        to: Reference,
        replace: bool,
    ) -> Done {
        self.open_vault_for(client, &format!("copy '{from}'")).await?;
        let links = self.links()?;
        let (from, to) = (links.own(&from)?, links.own(&to)?);
        self.copy(client, &links, vec![Copying { from, to, replaces: replace }]).await
    }

    /// Every field that the vault lists, into the local vault: there they are stored at once or not at all.
    pub(crate) async fn item_copy_whole(
        &self,
        client: &Client,
        (vault, item): (VaultName, ItemName),
        (to_vault, to): (VaultName, ItemName),
        replace: bool,
    ) -> Done {
        if !to_vault.is_local() {
            return Err(Refusal::Input(
                "a whole item is copied to the local vault alone; elsewhere, field by field",
            ));
        }
        self.open_vault_for(client, &format!("copy the item '{item}'")).await?;
        let links = self.links()?;
        let fields = if vault.is_local() {
            let vault = self.vault.borrow();
            let (_, entry) = vault.index()?.find(index::Kind::Item, item.as_str()).unzip();
            let no_item = || Refusal::NotFound { what: "item", name: item.to_string() };
            entry.ok_or_else(no_item)?.fields.iter().map(|field| field.name.clone()).collect()
        } else {
            self.listed(client, &vault, &[item.as_str()]).await?.fields
        };
        if fields.is_empty() {
            return Err(Refusal::Link(format!(
                "which fields '{item}' has is known only when it is read; copy each by its name"
            )));
        }
        let copying = |field: FieldName| {
            let from = Reference { vault: vault.clone(), item: item.clone(), field: field.clone() };
            let (from, to) = (links.own(&from)?, Reference::local(to.clone(), field));
            Ok(Copying { from, to, replaces: replace })
        };
        let all: Vec<Copying> = fields.into_iter().map(copying).collect::<Result<_, NoVault>>()?;
        self.copy(client, &links, all).await
    }

    /// All of them go to one item of the local vault, or there is one of them.
    async fn copy(&self, client: &Client, links: &Rc<Links>, mut all: Vec<Copying>) -> Done {
        for Copying { from, to, replaces } in &mut all {
            if from == to {
                return Err(Refusal::Input("a value is not copied to where it is"));
            }
            if from.vault.is_local() {
                self.entry_field(&from.item, &from.field)?;
            }
            if to.vault.is_local() {
                let is_there = self.entry_field(&to.item, &to.field).is_ok();
                if is_there && !*replaces {
                    return Err(Refusal::Holds(to.to_string()));
                }
                *replaces = is_there;
            }
        }
        let act = Act {
            subjects: all.iter().flat_map(Copying::subjects).collect(),
            title: "copy from one vault to another".to_owned(),
            names: all.iter().map(|Copying { from, to, .. }| format!("{from} to {to}")).collect(),
            beyond: Beyond::Nothing,
        };
        let describe = |question: &mut Question| all.iter().for_each(|copying| copying.describe(question));
        let approved = self.authorise(client, act, describe).await?;
        let copied = self.copy_approved(client, &approved, links, &all).await;
        let copied = copied.map_err(|refusal| self.failed(&approved, refusal))?;
        let changed = |copying: &&Copying| Event::ItemChanged {
            request: approved.request,
            item: copying.to.subject(),
            field: Some(copying.to.field.to_string()),
            action: "copied",
        };
        let changed: Vec<Event> = copied.iter().map(changed).collect();
        self.record_all(&changed.iter().collect::<Vec<_>>(), approved.durable)?;
        let mut notes: Vec<String> =
            copied.iter().map(|copying| format!("copied: {} to {}", copying.from, copying.to)).collect();
        let left = all.iter().filter(|copying| !copied.iter().any(|done| std::ptr::eq(*done, *copying)));
        notes.extend(left.map(|copying| format!("not copied: {}: {EMPTY}", copying.from)));
        Ok(Reply::Done { notes })
    }

    /// Those that were copied: what is empty stays where it is.
    async fn copy_approved<'a>(
        &self,
        client: &Client,
        approved: &Approved,
        links: &Rc<Links>,
        all: &'a [Copying],
    ) -> Result<Vec<&'a Copying>, Refusal> {
        self.still_linked(links)?;
        if let Some(Copying { to, replaces: false, .. }) = all.first()
            && !to.vault.is_local()
        {
            self.check_free(client, links, to).await?;
        }
        let from: Vec<&Reference> = all.iter().map(|copying| &copying.from).collect();
        let mut values = self.values(client, approved, &from).await?;
        let mut copied = Vec::with_capacity(all.len());
        for copying in all {
            let value = values.remove(&copying.from).ok_or(Refusal::Task)?;
            if !value.is_empty() {
                copied.push((copying, value));
            } else if all.len() == 1 {
                return Err(Refusal::Link(format!("{}: {EMPTY}", copying.from)));
            }
        }
        self.still_linked(links)?;
        match copied.first() {
            Some((Copying { to, .. }, value)) if !to.vault.is_local() => {
                self.write_linked(client, approved, links, to, value).await?;
                Ok(copied.into_iter().map(|(copying, _)| copying).collect())
            }
            Some((Copying { to, .. }, _)) => {
                let done = copied.iter().map(|(copying, _)| *copying).collect();
                self.put(&to.item, copied)?;
                Ok(done)
            }
            None => Err(Refusal::Link(format!("every field of it is empty; {EMPTY}"))),
        }
    }

    /// Another vault of that name is not the one that the yes was for.
    fn still_linked(&self, links: &Rc<Links>) -> Result<(), Refusal> {
        if Rc::ptr_eq(links, &self.links()?) { Ok(()) } else { Err(Refusal::LinksChanged) }
    }

    /// Only the vault itself knows what is there. What it says is given to nobody.
    async fn check_free(&self, client: &Client, links: &Links, to: &Reference) -> Result<(), Refusal> {
        let asked = self.asked(client, links.meant(&to.vault)?)?;
        // Looking may make an account.
        let mut leases = Leases::none(&self.leases);
        leases.watch(&asked);
        let held = asked.within(asked.vault.read(&asked.call, slice::from_ref(to))).await;
        if leases.first().is_some() {
            let cause = format!("{to} is made anew each time, and is no place for a value");
            return Err(asked.refusal(Fault::Refused(cause)));
        }
        match held.map_err(|fault| asked.refusal(fault))?.pop() {
            Some(Err(Fault::NoItem(_) | Fault::NoField { .. })) => Ok(()),
            Some(Err(fault)) => Err(asked.refusal(fault)),
            Some(Ok(_)) => Err(Refusal::Holds(to.to_string())),
            None => Err(Refusal::Task),
        }
    }

    fn put(&self, item: &ItemName, copied: Vec<(&Copying, SecretBytes)>) -> Result<(), Refusal> {
        let mut fields = Vec::with_capacity(copied.len());
        let is_key = FieldName::parse(ssh::PRIVATE_KEY).is_ok_and(|key| self.entry_field(item, &key).is_ok());
        for (Copying { to, replaces, .. }, value) in copied {
            if value.len() > limits::FIELD_VALUE {
                return Err(Refusal::Input("a value has at most 1 MiB"));
            }
            if is_key {
                ssh::check_limit(&to.field, false, &value)?;
            }
            // It may have come there while the question stood, which said nothing of it.
            if !replaces && self.entry_field(&to.item, &to.field).is_ok() {
                return Err(Refusal::Holds(to.to_string()));
            }
            fields.push(Field { name: to.field.clone(), public: false, value });
        }
        self.write_fields(item, fields)
    }
}
