//! A key in the desktop's keyring that opens the vault: made only where its user wants one. Every program that can ask
//! the open keyring can use it, so it opens the vault and stands for the passphrase in nothing else: it changes no
//! policy, and questions are asked where they were.

use super::linked::{Asked, failed};
use super::{Broker, Client, Desktop, Refusal};
use crate::approval::question::Question;
use crate::audit::event::Event;
use crate::audit::sink::Durable;
use crate::vault::linked::links::Link;
use crate::vault::linked::{self, Call, Fault};
use crate::vault::local::identity;
use data_encoding::HEXLOWER;
use keyloan_protocol::control::response::Reply;
use keyloan_protocol::names::{FieldName, ItemName, PlainName, VaultName};
use keyloan_protocol::reference::Reference;
use keyloan_protocol::secret::SecretBytes;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::rc::Rc;
use zeroize::Zeroizing;

/// The recipient that the key belongs to.
const KEYRING: &str = "keyring";

const PRICE: &str = "every program of yours that can ask the open keyring: unasked, and whatever the policy says, it can \
                     read all that is in the vault";

impl Broker {
    pub(crate) async fn keyring_key(
        &self,
        client: &Client,
        passphrase: Option<SecretBytes>,
    ) -> Result<Reply, Refusal> {
        let Ok(name) = PlainName::parse(KEYRING) else { return Err(Refusal::Task) };
        self.open_vault_for(client, "let the desktop's keyring open it").await?;
        let mut question = Question::new("let the desktop's keyring open the vault");
        Self::about(&mut question, "opens to", PRICE);
        self.prove_passphrase(client, passphrase, &question).await?;
        let _alone = self.keeping.lock().await;
        let (key, recipient) = identity::recovery_key();
        // The bus of the desktop that the passphrase was proved from: the requester's own would be given the key.
        let asked = own_keyring(self.desktop().as_ref())?;
        let at = self.key_in_keyring()?;
        // A key that nothing is encrypted to yet opens nothing.
        let stored = asked.within(asked.vault.write(&asked.call, &at, &key)).await;
        stored.map_err(|fault| asked.refusal(fault))?;
        let wrapped = identity::wrap_for(self.vault.borrow().keys()?.expose_identity(), &recipient)?;
        self.recipient_changed(client, &name, "added")?;
        self.vault.borrow_mut().add_recipient(&name, &recipient, &wrapped, true)?;
        Ok(Reply::done("the keyring opens the vault now: keyloan unlock --keyring".to_owned()))
    }

    /// The vault's identity, by the key in the keyring of the desktop that the requester names: one that is not the
    /// right one gives no key that opens anything.
    pub(super) async fn identity_by_keyring(
        &self,
        client: &Client,
        desktop: Option<&Desktop>,
    ) -> Result<Zeroizing<String>, Refusal> {
        // Five wrong PINs want the passphrase, or a program would go on guessing behind this key.
        if self.guessed.get() {
            return Err(Refusal::Input("after five wrong PINs only the passphrase opens the vault"));
        }
        let wrapped = self.vault.borrow_mut().wrapped_for(KEYRING)?;
        let none = || Refusal::NotFound { what: "recipient", name: KEYRING.to_owned() };
        let wrapped = wrapped.ok_or_else(none)?;
        let asked = own_keyring(desktop.or(self.desktop().as_ref()))?;
        let at = self.key_in_keyring()?;
        let read = asked.within(asked.vault.read(&asked.call, std::slice::from_ref(&at))).await;
        let read = read.and_then(|mut read| read.pop().unwrap_or_else(|| Err(Fault::no_item(&at))));
        let key = read.map_err(|fault| asked.refusal(fault))?;
        let opened = str::from_utf8(key.expose()).ok().map(|key| identity::unwrap_by_key(&wrapped, key));
        if let Some(Ok(identity)) = opened {
            self.record(&Event::KeyringUsed { by: self.who(&client.requester) }, Durable::Now)?;
            return Ok(identity);
        }
        self.record(&Event::UnlockFailed { by: self.who(&client.requester) }, Durable::Now)?;
        Err(asked.refusal(Fault::Refused("what it gives does not open the vault".to_owned())))
    }

    /// One for each vault, so that two of them do not take each other's place.
    fn key_in_keyring(&self) -> Result<Reference, Refusal> {
        let vault = HEXLOWER.encode(&Sha256::digest(self.paths.vault.as_os_str().as_bytes())[..8]);
        let item = ItemName::parse(&format!("?application=keyloan&vault={vault}"));
        let field = FieldName::parse("password");
        match (item, field) {
            (Ok(item), Ok(field)) => Ok(Reference { vault: name()?, item, field }),
            _ => Err(Refusal::Task),
        }
    }
}

fn name() -> Result<VaultName, Refusal> {
    VaultName::parse(KEYRING).map_err(|_| Refusal::Task)
}

/// The keyring as a vault, whether or not it is linked.
fn own_keyring(desktop: Option<&Desktop>) -> Result<Asked, Refusal> {
    let name = name()?;
    let (settings, programs) = (BTreeMap::new(), BTreeMap::new());
    let link = Link { name: name.clone(), kind: KEYRING.to_owned(), searched: false, settings, programs };
    let vault = linked::open(&link).map_err(|fault| failed(&name, fault, None))?;
    let desktop = desktop.map(|desktop| desktop.variables().collect()).unwrap_or_default();
    Ok(Asked { name, vault, call: Rc::new(Call { desktop, ..Call::default() }) })
}
