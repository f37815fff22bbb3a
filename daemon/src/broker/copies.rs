//! Copies of the whole vault: backup and restore, a new identity, another machine's copy, the recovery key. All
//! but the merge hand over or replace everything, so they want the passphrase.

use super::{Act, Broker, Client, Refusal};
use crate::approval::question::Question;
use crate::audit::event::Event;
use crate::audit::sink::Durable;
use crate::clock;
use crate::policy::rule::Kind;
use crate::vault::local::backup::{By, For, Unpacked, seal};
use crate::vault::local::identity::{self, IdentityError};
use crate::vault::local::keys::Keys;
use crate::vault::local::{self, LocalVault};
use keyloan_protocol::control::Message;
use keyloan_protocol::control::response::{Reply, VaultState};
use keyloan_protocol::names::PlainName;
use keyloan_protocol::secret::SecretBytes;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;
use zeroize::Zeroizing;

type Done = Result<Reply, Refusal>;

/// The recipient that the recovery key belongs to.
const RECOVERY: &str = "recovery";

/// Recipients of one backup; their names must fit the question.
const RECIPIENTS: usize = 5;

/// Titles that a question about a merge names.
const TITLES: usize = 20;

impl Broker {
    pub(crate) async fn backup(
        &self,
        client: &Client,
        passphrase: Option<SecretBytes>,
        new: Option<SecretBytes>,
        recipients: Vec<String>,
        file: OwnedFd,
    ) -> Done {
        let file = File::from(file);
        if !file.metadata().is_ok_and(|found| found.is_file() && found.len() == 0) {
            return Err(Refusal::Input("a backup is written to a new file"));
        }
        if recipients.len() > RECIPIENTS {
            return Err(Refusal::Input("a backup has at most 5 recipients"));
        }
        self.open_vault_for(client, "back it up").await?;
        let shown: Vec<String> = recipients.iter().map(|one| identity::shown(one)).collect();
        let mut question = Question::new("back up the whole vault");
        for recipient in &shown {
            Self::about(&mut question, "opens to", recipient);
        }
        let keys = recipients.iter().map(|one| identity::recipient(one)).collect::<Result<Vec<_>, _>>()?;
        self.prove_passphrase(client, passphrase, &question).await?;
        let sealed_for = if keys.is_empty() {
            let new = self.new_secret(client, new, "passphrase for the backup", 1).await?;
            For::Passphrase(identity::passphrase(&new)?)
        } else {
            For::Recipients(keys)
        };
        let (archive, items) = self.vault.borrow().archive()?;
        let event = Event::BackedUp { items, recipients: shown, by: self.who(&client.requester) };
        self.record(&event, Durable::Now)?;
        self.derive(move || Ok(seal(file, &archive, &sealed_for)?)).await?;
        Ok(Reply::done(format!("{items} items, the policy and the trusted files are in the backup")))
    }

    pub(crate) async fn restore(
        &self,
        client: &Client,
        opened_by: Opening,
        new_passphrase: bool,
        new: Option<SecretBytes>,
        file: OwnedFd,
    ) -> Done {
        if self.vault.borrow_mut().state() != VaultState::Absent {
            let path = self.vault.borrow().path().to_owned();
            return Err(local::VaultError::Exists(path).into());
        }
        let by = match opened_by {
            Opening { plain: true, .. } => By::Nothing,
            Opening { identity: Some(text), .. } => {
                let text =
                    String::from_utf8(text.expose().to_vec()).map_err(|_| IdentityError::Unreadable)?;
                By::Identity(Zeroizing::new(text))
            }
            Opening { passphrase, .. } => {
                let passphrase = match passphrase {
                    Some(passphrase) => passphrase,
                    None => self.typed_value(client, "passphrase of the backup").await?,
                };
                By::Passphrase(identity::passphrase(&passphrase)?)
            }
        };
        let place = self.vault.borrow().path().to_owned();
        let unpacked = self.derive(move || Ok(Unpacked::read(&place, File::from(file), &by)?)).await?;
        let mut wrapped = None;
        if new_passphrase {
            let new = self.new_secret(client, new, "new passphrase for the vault", 1).await?;
            let (text, new) = (unpacked.identity().clone(), identity::passphrase(&new)?);
            wrapped = Some(self.derive(move || Ok(identity::wrap(&text, &new)?)).await?);
        }
        let moved = self.begin_log_anew()?;
        let items = self.vault.borrow_mut().restore(unpacked, wrapped.as_deref())?;
        let counter = self.vault.borrow().counter();
        self.log.borrow_mut().set_counter(counter);
        self.opened(client)?;
        self.record(&Event::Restored { items, by: self.who(&client.requester) }, Durable::Now)?;
        let path = self.vault.borrow().path().display().to_string();
        let passphrase = if new_passphrase { "the new one" } else { "the one it had" };
        let mut notes =
            vec![format!("{items} items are back; the vault is at {path}, its passphrase is {passphrase}")];
        notes.extend(moved);
        Ok(Reply::Done { notes })
    }

    /// A new identity. Whoever knows the old one can no longer read the vault, but can read every older copy.
    pub(crate) async fn rekey(
        &self,
        client: &Client,
        passphrase: Option<SecretBytes>,
        new: Option<SecretBytes>,
    ) -> Done {
        self.open_vault_for(client, "re-key it").await?;
        let question = Question::new("encrypt the whole vault anew, to a new identity");
        self.prove_passphrase(client, passphrase, &question).await?;
        let new = self.new_secret(client, new, "passphrase for the re-keyed vault", 1).await?;
        let new = identity::passphrase(&new)?;
        let keys = Keys::generate().map_err(IdentityError::from)?;
        let text = Zeroizing::new(keys.expose_identity().to_owned());
        let mut wrapped = Vec::new();
        for (name, recipient) in self.vault.borrow().index()?.recipients() {
            let file = LocalVault::identity_file(Some(name));
            wrapped.push((file, identity::wrap_for(&text, recipient)?));
        }
        let by_passphrase = self.derive(move || Ok(identity::wrap(&text, &new)?)).await?;
        wrapped.push((LocalVault::identity_file(None), by_passphrase));
        self.record(&Event::Rekeyed { by: self.who(&client.requester) }, Durable::Now)?;
        self.vault.borrow_mut().rekey(keys, &wrapped)?;
        let counter = self.vault.borrow().counter();
        self.log.borrow_mut().saw_counter(counter);
        Ok(Reply::done(
            "the vault has a new identity; copies and backups made before still open with the old one",
        ))
    }

    pub(crate) async fn recovery_key(
        &self,
        client: &Client,
        passphrase: Option<SecretBytes>,
    ) -> Result<Message<Reply>, Refusal> {
        let Ok(name) = PlainName::parse(RECOVERY) else { return Err(Refusal::Task) };
        self.open_vault_for(client, "make a recovery key").await?;
        self.prove_passphrase(client, passphrase, &Question::new("make a recovery key for the vault"))
            .await?;
        let (key, recipient) = identity::recovery_key();
        let wrapped = identity::wrap_for(self.vault.borrow().keys()?.expose_identity(), &recipient)?;
        let by = self.who(&client.requester);
        let event = Event::RecipientChanged { name: name.to_string(), action: "added", by };
        self.record(&event, Durable::Now)?;
        let mut vault = self.vault.borrow_mut();
        // The one before is of no use from here on.
        vault.remove_recipient(&name)?;
        vault.add_recipient(&name, &recipient, &wrapped)?;
        Ok(Message::new(Reply::Value).with("value", key))
    }

    /// The identity by the recovery key, where that was typed in the passphrase's place.
    pub(super) fn unwrap_by_recovery_key(
        &self,
        typed: &SecretBytes,
    ) -> Option<Result<Zeroizing<String>, Refusal>> {
        let key = identity::typed_recovery_key(typed)?;
        let wrapped = match self.vault.borrow_mut().wrapped_for(RECOVERY) {
            Ok(wrapped) => wrapped,
            Err(error) => return Some(Err(error.into())),
        };
        let opened = wrapped.ok_or(IdentityError::RecoveryKey);
        Some(opened.and_then(|wrapped| identity::unwrap_by_key(&wrapped, &key)).map_err(Refusal::from))
    }

    pub(crate) async fn merge(&self, client: &Client, other: &Path) -> Done {
        self.open_vault_for(client, "merge another copy into it").await?;
        if !client.requester.shares_our_mounts {
            return Err(Refusal::ForeignMounts);
        }
        let merge = self.vault.borrow().compare(other, &clock::today())?;
        if merge.is_empty() {
            return Ok(Reply::Done {
                notes: with_kept(vec!["nothing new is there".to_owned()], &merge.kept),
            });
        }
        let counts = (merge.added.len(), merge.updated.len(), merge.conflicts.len());
        let names = [&merge.added[..], &merge.updated[..]].concat();
        let act = Act {
            kinds: vec![Kind::ItemWrite],
            title: "merge another copy of the vault".to_owned(),
            names: names.iter().take(TITLES).cloned().collect(),
        };
        let approved = self
            .authorise(client, act, |question| {
                Self::about(question, "from", &other.display().to_string());
                let conflicts: Vec<String> = merge.conflicts.iter().map(|(title, _)| title.clone()).collect();
                for (label, titles) in
                    [("adds", &merge.added), ("updates", &merge.updated), ("conflicts", &conflicts)]
                {
                    name_some(question, label, titles);
                }
            })
            .await?;
        let mut notes =
            vec![format!("merged: {} added, {} updated, {} conflicts", counts.0, counts.1, counts.2)];
        let both = |(ours, theirs): &(String, String)| {
            format!("'{ours}' was changed on both sides; the other's is kept as '{theirs}'")
        };
        notes.extend(merge.conflicts.iter().map(both));
        let kept = merge.kept.clone();
        let anchor = self.log_head().map_err(|refusal| self.failed(&approved, refusal))?;
        let done = self.vault.borrow_mut().merge(merge, &clock::now(), &anchor);
        done.map_err(|error| self.failed(&approved, error.into()))?;
        let request = approved.request;
        let event = Event::Merged { request, added: counts.0, updated: counts.1, conflicts: counts.2 };
        self.record(&event, approved.durable)?;
        Ok(Reply::Done { notes: with_kept(notes, &kept) })
    }
}

/// What was handed over to open a backup with; else its passphrase is asked for.
pub(crate) struct Opening {
    pub(crate) plain: bool,
    pub(crate) identity: Option<SecretBytes>,
    pub(crate) passphrase: Option<SecretBytes>,
}

fn name_some(question: &mut Question, label: &'static str, titles: &[String]) {
    for title in titles.iter().take(TITLES / 2) {
        Broker::about(question, label, title);
    }
    if titles.len() > TITLES / 2 {
        Broker::about(question, label, &format!("{} more", titles.len() - TITLES / 2));
    }
}

fn with_kept(mut notes: Vec<String>, kept: &[String]) -> Vec<String> {
    let told =
        |title: &String| format!("'{title}' was removed on one side and changed on the other; it is kept");
    notes.extend(kept.iter().map(told));
    notes
}
