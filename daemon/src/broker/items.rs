//! The items of the local vault: what `keyloan item` asks for.

use super::{Act, Beyond, Broker, Client, Refusal, ssh};
use crate::audit::event::Event;
use crate::clock;
use crate::policy::decide::Subject;
use crate::policy::rule::Kind;
use crate::vault::local::index::{self, Entry};
use crate::vault::local::item_file::Field;
use keyloan_protocol::control::Message;
use keyloan_protocol::control::response::{FieldSummary, ItemSummary, Reply};
use keyloan_protocol::limits;
use keyloan_protocol::names::{FieldName, ItemName, VaultName};
use keyloan_protocol::reference::Reference;
use keyloan_protocol::secret::SecretBytes;
use serde::Serialize;

type Done = Result<Reply, Refusal>;

/// A public value up to this length is shown before it is stored.
const SHOWN: usize = 500;

/// JSON of names sent in one reply, far below what a header holds.
const PIECE: usize = 128 * 1024;

fn no_item(item: &ItemName) -> Refusal {
    Refusal::NotFound { what: "item", name: item.to_string() }
}

/// What would pass for the name of another vault's item is nobody's title.
pub(super) fn check_title(item: &ItemName) -> Result<(), Refusal> {
    ItemName::local(item.as_str()).map(drop).map_err(Refusal::Title)
}

fn no_field(item: &ItemName, field: &FieldName) -> Refusal {
    Refusal::NoField { item: item.to_string(), field: field.to_string() }
}

/// What changing a field touches, or removing a whole item, of which nothing is left to sign with.
pub(super) fn changing(item: &ItemName, what: &str, field: Option<&FieldName>) -> Vec<(Kind, Subject)> {
    // The last are what the agent signs with, or asks for before it does.
    let adds_key = field.is_some_and(|field| ssh::FIELDS.contains(&field.as_str()));
    let kinds = std::iter::once(Kind::ItemWrite).chain(adds_key.then_some(Kind::KeyAdd));
    kinds.map(|kind| (kind, Subject::of_item(what, item.as_str()))).collect()
}

impl Broker {
    pub(crate) async fn item_set(
        &self,
        client: &Client,
        item: ItemName,
        field: FieldName,
        public: bool,
        value: Option<SecretBytes>,
    ) -> Done {
        check_title(&item)?;
        self.open_vault_for(client, &format!("store a value in the item '{item}'")).await?;
        let value = match value {
            Some(value) => value,
            None => self.typed_value(client, &format!("value of {field} in {item}")).await?,
        };
        if value.is_empty() {
            return Err(Refusal::Input("a value has at least 1 byte"));
        }
        if value.len() > limits::FIELD_VALUE {
            return Err(Refusal::Input("a value has at most 1 MiB"));
        }
        let has = |name: &str| {
            let vault = self.vault.borrow();
            let (_, entry) = vault.index()?.find(index::Kind::Item, item.as_str()).unzip();
            Ok::<_, Refusal>(
                entry.is_some_and(|entry| entry.fields.iter().any(|held| held.name.as_str() == name)),
            )
        };
        if has(ssh::PRIVATE_KEY)? || has(ssh::PRIVATE_KEY_IN)? {
            ssh::check_limit(&field, public, &value)?;
        }
        let replaces = has(field.as_str())?;
        let action = if replaces { "replaced" } else { "stored" };
        let shown = public.then(|| String::from_utf8_lossy(value.expose()).into_owned());
        let act = Act {
            subjects: changing(&item, &format!("{item}/{field}"), Some(&field)),
            title: format!("{} a value in the vault", if replaces { "replace" } else { "store" }),
            names: vec![format!("{item}/{field}")],
            beyond: Beyond::Nothing,
        };
        let about = format!("{field} of item {item}, {} bytes", value.len());
        let approved = self
            .authorise(client, act, |question| {
                Self::about(question, if replaces { "replaces" } else { "stores" }, &about);
                if let Some(shown) = shown.filter(|shown| shown.len() <= SHOWN) {
                    Self::about(question, "value", shown.trim_end());
                }
                if public {
                    Self::about(question, "public", "any program of yours will be shown the value, unasked");
                }
            })
            .await?;
        let written = self.write_fields(&item, vec![Field { name: field.clone(), public, value }]);
        written.map_err(|refusal| self.failed(&approved, refusal))?;
        let changed = Event::ItemChanged {
            request: approved.request,
            item: item.to_string(),
            field: Some(field.to_string()),
            action,
        };
        self.record(&changed, approved.durable)?;
        let reference = Reference::local(item, field);
        Ok(Reply::done(format!("{action}: {reference}")))
    }

    pub(super) fn write_fields(&self, item: &ItemName, new: Vec<Field>) -> Result<(), Refusal> {
        let anchor = Some(self.log_head()?);
        let mut vault = self.vault.borrow_mut();
        let mut fields = vault.read(index::Kind::Item, item.as_str())?.unwrap_or_default();
        for field in new {
            match fields.iter_mut().find(|held| held.name == field.name) {
                Some(held) => *held = field,
                None => fields.push(field),
            }
        }
        Ok(vault.write(index::Kind::Item, item.as_str(), &fields, &clock::now(), anchor)?)
    }

    pub(crate) async fn item_get(
        &self,
        client: &Client,
        vault: Option<VaultName>,
        item: ItemName,
        field: FieldName,
    ) -> Result<Message<Reply>, Refusal> {
        const TITLE: &str = "give out a value";
        let value = match vault.filter(|vault| !vault.is_local()) {
            Some(vault) => self.give_linked(client, TITLE, Reference { vault, item, field }, Ok).await?,
            None => self.give(client, TITLE, &item, &field, Ok).await?,
        };
        Ok(Message::new(Reply::Value).with("value", value))
    }

    /// A field's value, or what `make` makes of it after the yes: the way of everything that is read.
    pub(super) async fn give<T>(
        &self,
        client: &Client,
        title: &'static str,
        item: &ItemName,
        field: &FieldName,
        make: impl FnOnce(SecretBytes) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        self.open_vault_for(client, &format!("read the item '{item}'")).await?;
        self.entry_field(item, field)?;
        let act = Act {
            subjects: vec![(
                Kind::ItemRead,
                Subject {
                    given: Some(format!("{item}/{field}")),
                    ..Subject::of_item(&format!("{title}: {item}/{field}"), item.as_str())
                },
            )],
            title: title.to_owned(),
            names: vec![format!("{item}/{field}")],
            beyond: Beyond::Nothing,
        };
        let about = format!("{field} of item {item}");
        let approved = self.authorise(client, act, |question| Self::about(question, "gives", &about)).await?;
        let read = || {
            let fields = self.vault.borrow().read(index::Kind::Item, item.as_str())?;
            let held = fields.and_then(|fields| fields.into_iter().find(|held| held.name == *field));
            make(held.ok_or_else(|| no_field(item, field))?.value)
        };
        let given = read().map_err(|refusal| self.failed(&approved, refusal))?;
        self.record(
            &Event::Released { request: approved.request, given: approved.given.clone() },
            approved.durable,
        )?;
        Ok(given)
    }

    pub(super) fn entry_field(&self, item: &ItemName, field: &FieldName) -> Result<(), Refusal> {
        let vault = self.vault.borrow();
        let (_, entry) =
            vault.index()?.find(index::Kind::Item, item.as_str()).ok_or_else(|| no_item(item))?;
        let held = entry.fields.iter().any(|held| held.name == *field);
        if held { Ok(()) } else { Err(no_field(item, field)) }
    }

    /// Names and public fields; no approval, as they are no secret to the user's own programs.
    pub(crate) async fn item_list(&self, client: &Client) -> Done {
        self.open_vault_for(client, "list its items").await?;
        let items: Vec<ItemSummary> = {
            let vault = self.vault.borrow();
            vault.index()?.entries(index::Kind::Item).into_iter().filter_map(summary).collect()
        };
        Ok(in_pieces(client, items, |items, more| Reply::Items { items, more }).await)
    }

    pub(crate) async fn item_show(&self, client: &Client, item: ItemName) -> Done {
        self.open_vault_for(client, "show an item's names").await?;
        let vault = self.vault.borrow();
        let (_, entry) =
            vault.index()?.find(index::Kind::Item, item.as_str()).ok_or_else(|| no_item(&item))?;
        Ok(Reply::Items { items: summary(entry).into_iter().collect(), more: false })
    }

    pub(crate) async fn item_remove(
        &self,
        client: &Client,
        item: ItemName,
        field: Option<FieldName>,
    ) -> Done {
        self.open_vault_for(client, &format!("remove the item '{item}'")).await?;
        match &field {
            Some(field) => self.entry_field(&item, field)?,
            None if self.vault.borrow().index()?.find(index::Kind::Item, item.as_str()).is_none() => {
                return Err(no_item(&item));
            }
            None => {}
        }
        let name = field.as_ref().map_or_else(|| item.to_string(), |field| format!("{item}/{field}"));
        let act = Act {
            subjects: changing(&item, &name, field.as_ref()),
            title: "remove from the vault".to_owned(),
            names: vec![name.clone()],
            beyond: Beyond::Nothing,
        };
        let approved =
            self.authorise(client, act, |question| Self::about(question, "removes", &name)).await?;
        let removed = self.remove_field(&item, field.as_ref());
        removed.map_err(|refusal| self.failed(&approved, refusal))?;
        let changed = Event::ItemChanged {
            request: approved.request,
            item: item.to_string(),
            field: field.map(String::from),
            action: "removed",
        };
        self.record(&changed, approved.durable)?;
        Ok(Reply::done(format!("removed: {name}")))
    }

    fn remove_field(&self, item: &ItemName, field: Option<&FieldName>) -> Result<(), Refusal> {
        let anchor = Some(self.log_head()?);
        let mut vault = self.vault.borrow_mut();
        if let Some(field) = field {
            let fields = vault.read(index::Kind::Item, item.as_str())?.ok_or_else(|| no_item(item))?;
            let left: Vec<Field> = fields.into_iter().filter(|held| held.name != *field).collect();
            if !left.is_empty() {
                return Ok(vault.write(index::Kind::Item, item.as_str(), &left, &clock::now(), anchor)?);
            }
        }
        if vault.remove(item.as_str(), anchor)? { Ok(()) } else { Err(no_item(item)) }
    }

    /// The day from which a credential is of no use, so that `status` reminds of it.
    pub(crate) async fn item_expires(&self, client: &Client, item: ItemName, day: Option<String>) -> Done {
        if day.as_deref().is_some_and(|day| clock::day(day).is_none()) {
            return Err(Refusal::Input("a day is written 2027-01-31"));
        }
        self.open_vault_for(client, &format!("note when the item '{item}' expires")).await?;
        if self.vault.borrow().index()?.find(index::Kind::Item, item.as_str()).is_none() {
            return Err(no_item(&item));
        }
        let when = day.as_deref().map_or_else(|| "never".to_owned(), |day| format!("on {day}"));
        let act = Act {
            subjects: vec![(Kind::ItemWrite, Subject::of_item(&format!("{item} {when}"), item.as_str()))],
            title: "note when an item expires".to_owned(),
            names: vec![item.to_string()],
            beyond: Beyond::Nothing,
        };
        let about = format!("{item} expires {when}");
        let approved = self.authorise(client, act, |question| Self::about(question, "notes", &about)).await?;
        let anchor = Some(self.log_head().map_err(|refusal| self.failed(&approved, refusal))?);
        let noted = self.vault.borrow_mut().set_expiry(item.as_str(), day.as_deref(), &clock::now(), anchor);
        if !noted.map_err(|error| self.failed(&approved, error.into()))? {
            return Err(self.failed(&approved, no_item(&item)));
        }
        let changed = Event::ItemChanged {
            request: approved.request,
            item: item.to_string(),
            field: None,
            action: "given an expiry",
        };
        self.record(&changed, approved.durable)?;
        Ok(Reply::done(about))
    }

    pub(crate) async fn item_move(&self, client: &Client, from: ItemName, to: ItemName) -> Done {
        check_title(&to)?;
        self.open_vault_for(client, &format!("rename the item '{from}'")).await?;
        let taken = |name: &ItemName| -> Result<bool, Refusal> {
            Ok(self.vault.borrow().index()?.find(index::Kind::Item, name.as_str()).is_some())
        };
        if !taken(&from)? {
            return Err(no_item(&from));
        }
        if taken(&to)? {
            return Err(Refusal::Exists(to.to_string()));
        }
        let about = format!("{from} becomes {to}");
        let act = Act {
            subjects: [&from, &to]
                .map(|item| (Kind::ItemWrite, Subject::of_item(item.as_str(), item.as_str())))
                .to_vec(),
            title: "rename an item".to_owned(),
            names: vec![from.to_string(), to.to_string()],
            beyond: Beyond::Nothing,
        };
        let approved =
            self.authorise(client, act, |question| Self::about(question, "renames", &about)).await?;
        let anchor = Some(self.log_head().map_err(|refusal| self.failed(&approved, refusal))?);
        let moved = self.vault.borrow_mut().rename(from.as_str(), to.as_str(), &clock::now(), anchor);
        let moved = moved.map_err(Refusal::from);
        if !moved.map_err(|refusal| self.failed(&approved, refusal))? {
            return Err(self.failed(&approved, no_item(&from)));
        }
        let changed = Event::ItemChanged {
            request: approved.request,
            item: to.to_string(),
            field: None,
            action: "renamed",
        };
        self.record(&changed, approved.durable)?;
        Ok(Reply::done(format!("renamed: {about}")))
    }
}

/// Sends a long list but for its last piece: a header holds a thousand names or more, but not ten thousand.
pub(super) async fn in_pieces<T: Serialize>(
    client: &Client,
    all: impl IntoIterator<Item = T>,
    reply: impl Fn(Vec<T>, bool) -> Reply,
) -> Reply {
    let (mut piece, mut length) = (Vec::new(), 0);
    for one in all {
        length += serde_json::to_vec(&one).map_or(0, |json| json.len());
        piece.push(one);
        if length > PIECE {
            // A client that is gone is noticed by its connection.
            let _ = client.replies.send(Message::new(reply(std::mem::take(&mut piece), true))).await;
            length = 0;
        }
    }
    reply(piece, false)
}

fn summary(entry: &Entry) -> Option<ItemSummary> {
    let item = ItemName::parse(&entry.title).ok()?;
    let fields = entry.fields.iter().map(|field| FieldSummary {
        reference: Reference::local(item.clone(), field.name.clone()).to_string(),
        field: field.name.clone(),
        length: field.length,
        value: field.value.clone(),
        public: field.public,
        variables: field.variables.clone(),
    });
    Some(ItemSummary {
        fields: fields.collect(),
        changed: entry.changed.clone(),
        expires: entry.expires.clone(),
        item: item.clone(),
    })
}
