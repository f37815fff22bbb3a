//! Showing and checking the log.

use super::{Act, Beyond, Broker, Client, Refusal};
use crate::audit::event::decrypt_command;
use crate::audit::verify::verify;
use crate::policy::decide::Subject;
use crate::policy::rule::Kind;
use keyloan_protocol::control::Message;
use keyloan_protocol::control::response::Reply;
use keyloan_protocol::secret::SecretBytes;
use std::sync::Arc;
use zeroize::Zeroizing;

/// Of `--commands`.
const SHOWS: &str = "every command line that asked for anything; people type tokens there";

impl Broker {
    /// Sends the log in pieces; with `follow` goes on as it grows, until the client goes.
    pub(crate) async fn show_log(
        &self,
        client: &Client,
        follow: bool,
        commands: bool,
    ) -> Result<Reply, Refusal> {
        let mut approved = None;
        if commands {
            self.open_vault_for(client, "show the command lines in its log").await?;
            let act = Act {
                subjects: vec![(Kind::ItemRead, Subject::of("command lines of the log"))],
                title: "show the command lines in the log".to_owned(),
                names: Vec::new(),
                beyond: Beyond::Nothing,
            };
            approved =
                Some(self.authorise(client, act, |question| Self::about(question, "shows", SHOWS)).await?);
        }
        let (mut reader, mut written) = self.log.borrow().reader()?;
        loop {
            let end = *written.borrow_and_update();
            loop {
                let lines = Zeroizing::new(reader.lines(end)?);
                if lines.is_empty() {
                    break;
                }
                let lines = if approved.is_some() { self.with_commands(&lines) } else { lines };
                let message = Message::new(Reply::LogLines).with("lines", SecretBytes::copy_of(&lines));
                if client.replies.send(message).await.is_err() {
                    return Ok(Reply::Done { notes: Vec::new() });
                }
            }
            if !follow || written.changed().await.is_err() {
                return Ok(Reply::Done { notes: Vec::new() });
            }
        }
    }

    /// Puts the command lines in where their key is at hand.
    fn with_commands(&self, lines: &[u8]) -> Zeroizing<Vec<u8>> {
        let vault = self.vault.borrow();
        let mut shown = Zeroizing::new(Vec::with_capacity(2 * lines.len()));
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            let opened = vault.audit_key().and_then(|key| {
                let mut record: serde_json::Value = serde_json::from_slice(line).ok()?;
                let sealed = record.pointer_mut("/by/command")?;
                let command = decrypt_command(key, sealed.as_str()?)?;
                let command = String::from_utf8_lossy(&command).trim_end_matches('\0').replace('\0', " ");
                *sealed = command.into();
                serde_json::to_vec(&record).ok().map(Zeroizing::new)
            });
            match opened {
                Some(line) => {
                    shown.extend_from_slice(&line);
                    shown.push(b'\n');
                }
                None => shown.extend_from_slice(line),
            }
        }
        shown
    }

    /// Checks the whole log, off the event loop: it may be long. One at a time, as with derivations.
    pub(crate) async fn verify_log(&self) -> Result<Reply, Refusal> {
        let one = Arc::clone(&self.verification).lock_owned().await;
        let (reader, _) = self.log.borrow().reader()?;
        let (end, written) = (self.log.borrow().length_on_disk(), self.log.borrow().length());
        let (key, anchor) = {
            let vault = self.vault.borrow();
            let key = vault.audit_key().map(|key| Zeroizing::new(key.to_vec()));
            (key, vault.index().ok().and_then(|index| index.anchor().cloned()))
        };
        let checked = tokio::task::spawn_blocking(move || {
            let _one = one;
            verify(reader, end, key.as_ref().map(|key| key.as_slice()), anchor.as_ref())
        });
        let mut verified = checked.await.map_err(|_| Refusal::Task)??;
        if end != written {
            let cause = "its length is not what was written: another program wrote to it";
            verified.findings.insert(0, cause.to_owned());
        }
        Ok(Reply::Verified(verified))
    }

    /// Syncs what an allow rule let through without waiting, off the event loop.
    pub(crate) async fn sync_log(&self) {
        // A disk that does not answer is asked once.
        let Ok(_one) = self.syncing.try_lock() else { return };
        let Some(file) = self.log.borrow_mut().unsynced() else { return };
        let synced = tokio::task::spawn_blocking(move || file.sync_data()).await;
        if !matches!(synced, Ok(Ok(()))) {
            self.log.borrow_mut().distrust();
        }
    }
}
