//! Copies of the whole vault: backup and restore, a new identity, another machine's copy. All but the merge hand
//! over or replace everything, so they want the passphrase.

use super::{Act, Beyond, Broker, Client, Refusal, ssh};
use crate::approval::question::{Certainty, Question};
use crate::audit::event::Event;
use crate::audit::sink::Durable;
use crate::clock;
use crate::patience;
use crate::policy::decide::Subject;
use crate::policy::rule::Kind;
use crate::vault::local::backup::{self, By, For, Unpacked, seal};
use crate::vault::local::identity::{self, IdentityError};
use crate::vault::local::keys::Keys;
use crate::vault::local::merge::{Copy, Merge};
use crate::vault::local::{LocalVault, VaultError};
use keyloan_protocol::control::response::Reply;
use keyloan_protocol::secret::SecretBytes;
use std::cell::RefCell;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use zeroize::Zeroizing;

type Done = Result<Reply, Refusal>;

/// Titles that a merge's record names; its numbers follow with the `merged` record.
const NAMES: usize = 20;

/// Recipients of one backup; their names must fit the question.
const RECIPIENTS: usize = 5;

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
        let (is_new, file) = patience::look(move || {
            (file.metadata().is_ok_and(|found| found.is_file() && found.len() == 0), file)
        })
        .await
        .ok_or(Refusal::Input("the backup's file system does not answer"))?;
        if !is_new {
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
        if shown.is_empty() {
            Self::about(&mut question, "opens to", "a passphrase of its own, typed next");
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
        let sealed = self.derive(move || Ok(seal(&archive, &sealed_for)?)).await?;
        let event = Event::BackedUp { items, recipients: shown, by: self.who(&client.requester) };
        self.record(&event, Durable::Now)?;
        // Not within the derivation's place: a disk that does not answer would keep everybody from unlocking.
        let written = tokio::task::spawn_blocking(move || backup::write(file, &sealed));
        written.await.map_err(|_| Refusal::Task)??;
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
        self.no_vault_yet()?;
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
        let read = tokio::task::spawn_blocking(move || backup::read(File::from(file)));
        let sealed = read.await.map_err(|_| Refusal::Task)??;
        let unpacked = self.derive(move || Ok(Unpacked::read(&place, &sealed, &by)?)).await?;
        let mut wrapped = None;
        if new_passphrase {
            let new = self.new_secret(client, new, "new passphrase for the vault", 1).await?;
            let (text, new) = (unpacked.identity().clone(), identity::passphrase(&new)?);
            wrapped = Some(self.derive(move || Ok(identity::wrap(&text, &new)?)).await?);
        }
        // Reading and typing take their time, and another may have made one meanwhile, whose log this is now.
        self.no_vault_yet()?;
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
        let alone = Arc::clone(&self.keeping).lock_owned().await;
        let keys = Keys::generate().map_err(IdentityError::from)?;
        let text = Zeroizing::new(keys.expose_identity().to_owned());
        let mut wrapped = Vec::new();
        for (name, recipient) in self.vault.borrow().index()?.recipients() {
            let file = LocalVault::identity_file(Some(name));
            wrapped.push((file, identity::wrap_for(&text, recipient)?));
        }
        let to_wrap = text.clone();
        let by_passphrase = self.derive(move || Ok(identity::wrap(&to_wrap, &new)?)).await?;
        wrapped.push((LocalVault::identity_file(None), by_passphrase));
        let before = self.vault.borrow_mut().freeze()?;
        let _thaw = Thaw(&self.vault);
        // It goes on when its requester goes away, and the next one finds its half of a vault: that one waits until
        // this has ended, and what it made is gone.
        let rekeyed = tokio::task::spawn_blocking(move || (before.rekey(&text, &wrapped), alone));
        let (rekeyed, _alone) = rekeyed.await.map_err(|_| Refusal::Task)?;
        let rekeyed = rekeyed?;
        self.vault.borrow_mut().check_rekeyed(&rekeyed)?;
        self.record(&Event::Rekeyed { by: self.who(&client.requester) }, Durable::Now)?;
        self.vault.borrow_mut().put_rekeyed(rekeyed, keys)?;
        let counter = self.vault.borrow().counter();
        self.log.borrow_mut().saw_counter(counter);
        Ok(Reply::done(
            "the vault has a new identity; copies and backups made before still open with the old one",
        ))
    }

    pub(crate) async fn merge(&self, client: &Client, other: &Path) -> Done {
        self.open_vault_for(client, "merge another copy into it").await?;
        if !client.requester.shares_our_mounts {
            return Err(Refusal::ForeignMounts);
        }
        // It may lie on a mount that does not answer.
        let slow = || Refusal::Input("the copy's file system is too slow; copy it to this machine first");
        let place = other.to_owned();
        let copy = patience::look(move || Copy::open(&place)).await.ok_or_else(slow)??;
        let day = clock::today();
        let merge = self.vault.borrow().compare(&copy, &day)?;
        if merge.is_empty() {
            return Ok(Reply::Done {
                notes: with_kept(vec!["nothing new is there".to_owned()], &merge.kept),
            });
        }
        let (copy, wanted) = (Arc::new(copy), merge.clone());
        let from = Arc::clone(&copy);
        let files = patience::look(move || from.read(&wanted)).await.ok_or_else(slow)??;
        let of = |kind, title: &String| (kind, Subject::of_item(title, title));
        // What the agent signs with comes in, or is another afterwards.
        let keys = merge.titles_with(&ssh::FIELDS);
        let act = Act {
            subjects: (merge.titles().iter().map(|title| of(Kind::ItemWrite, title)))
                .chain(keys.iter().map(|title| of(Kind::KeyAdd, title)))
                .collect(),
            title: "merge another copy of the vault".to_owned(),
            // The question lists them all; a record is bounded.
            names: merge.titles().into_iter().take(NAMES).collect(),
            beyond: Beyond::Nothing,
        };
        let approved = self
            .authorise(client, act, |question| {
                Self::about(question, "from", &other.display().to_string());
                let conflicts: Vec<String> = merge.conflicts.iter().map(|(_, given)| given.clone()).collect();
                for (label, titles) in [
                    ("adds", &merge.added),
                    ("updates", &merge.updated),
                    ("brings back", &merge.brought_back),
                    ("adds", &conflicts),
                ] {
                    question.list(label, titles, ", ", Certainty::Verified);
                }
            })
            .await?;
        let merged = self.merge_as_shown(&copy, &merge, &files, &day);
        merged.map_err(|refusal| self.failed(&approved, refusal))?;
        let (added, updated) = (merge.added.len() + merge.brought_back.len(), merge.updated.len());
        let conflicts = merge.conflicts.len();
        let event = Event::Merged { request: approved.request, added, updated, conflicts };
        self.record(&event, approved.durable)?;
        let mut notes = vec![format!("merged: {added} added, {updated} updated, {conflicts} conflicts")];
        notes.extend(merge.conflicts.iter().map(|(ours, theirs)| {
            format!("'{ours}' was changed on both sides; the other's is kept as '{theirs}'")
        }));
        Ok(Reply::Done { notes: with_kept(notes, &[&merge.brought_back[..], &merge.kept].concat()) })
    }

    /// Only what was shown is done: where the vault was changed while the question stood, nothing is.
    fn merge_as_shown(
        &self,
        copy: &Copy,
        merge: &Merge,
        files: &[Vec<u8>],
        day: &str,
    ) -> Result<(), Refusal> {
        let anchor = self.log_head()?;
        let mut vault = self.vault.borrow_mut();
        if vault.compare(copy, day)? != *merge {
            return Err(VaultError::Changed.into());
        }
        Ok(vault.merge(merge.clone(), files, &clock::now(), &anchor)?)
    }
}

/// Lets the vault be written to again, however the re-keying ended.
struct Thaw<'a>(&'a RefCell<LocalVault>);

impl Drop for Thaw<'_> {
    fn drop(&mut self) {
        self.0.borrow_mut().thaw();
    }
}

/// What was handed over to open a backup with; else its passphrase is asked for.
pub(crate) struct Opening {
    pub(crate) plain: bool,
    pub(crate) identity: Option<SecretBytes>,
    pub(crate) passphrase: Option<SecretBytes>,
}

fn with_kept(mut notes: Vec<String>, kept: &[String]) -> Vec<String> {
    let told =
        |title: &String| format!("'{title}' was removed on one side and changed on the other; it is kept");
    notes.extend(kept.iter().map(told));
    notes
}
