//! Further keys that open the vault's files: recipients, and the recovery key, which is one of them.

use super::{Broker, Client, Refusal};
use crate::approval::question::Question;
use crate::audit::event::Event;
use crate::audit::sink::Durable;
use crate::vault::local::identity::{self, IdentityError};
use keyloan_protocol::control::Message;
use keyloan_protocol::control::response::{Recipient, Reply};
use keyloan_protocol::names::PlainName;
use keyloan_protocol::secret::SecretBytes;
use zeroize::Zeroizing;

type Done = Result<Reply, Refusal>;

/// The recipient that the recovery key belongs to.
const RECOVERY: &str = "recovery";

impl Broker {
    pub(crate) async fn recipient_add(
        &self,
        client: &Client,
        passphrase: Option<SecretBytes>,
        name: PlainName,
        recipient: String,
    ) -> Done {
        self.open_vault_for(client, "add a recipient").await?;
        // One that cannot be used is not worth a question.
        identity::recipient(&recipient)?;
        let mut question = Question::new("let a further key open the vault's files");
        Self::about(&mut question, "name", name.as_str());
        Self::about(&mut question, "opens to", &identity::shown(&recipient));
        self.prove_passphrase(client, passphrase, &question).await?;
        let _alone = self.keeping.lock().await;
        let wrapped = identity::wrap_for(self.vault.borrow().keys()?.expose_identity(), &recipient)?;
        self.recipient_changed(client, &name, "added")?;
        self.vault.borrow_mut().add_recipient(&name, recipient.trim(), &wrapped, false)?;
        Ok(Reply::done(format!("whoever holds the private half of '{name}' can now open the vault's files")))
    }

    pub(crate) async fn recipient_remove(
        &self,
        client: &Client,
        passphrase: Option<SecretBytes>,
        name: PlainName,
    ) -> Done {
        self.open_vault_for(client, "remove a recipient").await?;
        let question = Question::new(&format!("remove the recipient '{name}'"));
        self.prove_passphrase(client, passphrase, &question).await?;
        let _alone = self.keeping.lock().await;
        self.recipient_changed(client, &name, "removed")?;
        if !self.vault.borrow_mut().remove_recipient(&name)? {
            return Err(Refusal::NotFound { what: "recipient", name: name.to_string() });
        }
        Ok(Reply::done(format!("copies of the vault made before can still be opened by '{name}'")))
    }

    pub(crate) async fn recipients(&self, client: &Client) -> Done {
        self.open_vault_for(client, "list its recipients").await?;
        let vault = self.vault.borrow();
        let recipients = vault.index()?.recipients().iter();
        let recipients = recipients
            .map(|(name, recipient)| Recipient { name: name.clone(), recipient: recipient.clone() });
        Ok(Reply::Recipients { recipients: recipients.collect() })
    }

    pub(crate) async fn recovery_key(
        &self,
        client: &Client,
        passphrase: Option<SecretBytes>,
    ) -> Result<Message<Reply>, Refusal> {
        let Ok(name) = PlainName::parse(RECOVERY) else { return Err(Refusal::Task) };
        self.open_vault_for(client, "make a recovery key").await?;
        let mut question = Question::new("make a recovery key for the vault");
        Self::about(&mut question, "opens to", "whoever reads what is printed, without the passphrase");
        self.prove_passphrase(client, passphrase, &question).await?;
        let _alone = self.keeping.lock().await;
        let (key, recipient) = identity::recovery_key();
        let wrapped = identity::wrap_for(self.vault.borrow().keys()?.expose_identity(), &recipient)?;
        self.recipient_changed(client, &name, "added")?;
        // A crash between this and the page costs the old key, and nobody has seen the new one: the passphrase opens
        // the vault still, and makes a further one.
        self.vault.borrow_mut().add_recipient(&name, &recipient, &wrapped, true)?;
        Ok(Message::new(Reply::Value).with("value", key))
    }

    pub(super) fn recipient_changed(
        &self,
        client: &Client,
        name: &PlainName,
        action: &'static str,
    ) -> Result<(), Refusal> {
        let by = self.who(&client.requester);
        let event = Event::RecipientChanged { name: name.to_string(), action, by };
        Ok(self.record(&event, Durable::Now)?)
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
}
