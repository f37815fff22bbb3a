//! Values that keyloan makes: generated ones, which nobody sees, and one-time passwords.

use super::{Broker, Client, Refusal};
use crate::clock;
use crate::generate;
use crate::totp::Totp;
use keyloan_protocol::control::Message;
use keyloan_protocol::control::request::Alphabet;
use keyloan_protocol::control::response::Reply;
use keyloan_protocol::limits;
use keyloan_protocol::names::{FieldName, ItemName, VaultName};
use keyloan_protocol::reference::Reference;
use keyloan_protocol::secret::SecretBytes;

/// The fewest characters: 40 bits and more, but for digits, whose use says how many.
const FEWEST: usize = 12;
const FEWEST_DIGITS: usize = 4;

impl Broker {
    pub(crate) async fn item_generate(
        &self,
        client: &Client,
        item: ItemName,
        field: FieldName,
        alphabet: Alphabet,
        length: usize,
    ) -> Result<Reply, Refusal> {
        let fewest = if alphabet == Alphabet::Digits { FEWEST_DIGITS } else { FEWEST };
        if !(fewest..=limits::GENERATED).contains(&length) {
            return Err(Refusal::Input("a generated value has 12 to 1024 characters, or 4 to 1024 digits"));
        }
        let value = generate::value(alphabet, length).ok_or(Refusal::Task)?;
        self.item_set(client, item, field, false, Some(value)).await
    }

    /// The code of this moment: read after the yes, so that it is not old when it is given out.
    pub(crate) async fn item_totp(
        &self,
        client: &Client,
        vault: Option<VaultName>,
        item: ItemName,
        field: FieldName,
    ) -> Result<Message<Reply>, Refusal> {
        let code = |key: SecretBytes| Ok(Totp::parse(&key)?.code(clock::unix_seconds()));
        let title = "give out a one-time password";
        let (code, seconds) = match vault.filter(|vault| !vault.is_local()) {
            Some(vault) => self.give_linked(client, title, Reference { vault, item, field }, code).await?,
            None => self.give(client, title, &item, &field, code).await?,
        };
        let code = SecretBytes::copy_of(code.as_bytes());
        Ok(Message::new(Reply::Code { seconds }).with("value", code))
    }
}
