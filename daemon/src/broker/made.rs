//! Values that keyloan makes: generated ones, which nobody sees, and one-time passwords.

use super::items::no_field;
use super::{Act, Broker, Client, Refusal};
use crate::audit::event::Event;
use crate::clock;
use crate::generate;
use crate::policy::rule::Kind;
use crate::totp::Totp;
use crate::vault::local::index;
use keyloan_protocol::control::Message;
use keyloan_protocol::control::request::Alphabet;
use keyloan_protocol::control::response::Reply;
use keyloan_protocol::limits;
use keyloan_protocol::names::{FieldName, ItemName};
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
        item: ItemName,
        field: FieldName,
    ) -> Result<Message<Reply>, Refusal> {
        self.open_vault_for(client, &format!("give out a one-time password of item '{item}'")).await?;
        self.entry_field(&item, &field)?;
        let act = Act {
            kinds: vec![Kind::ItemRead],
            title: "give out a one-time password".to_owned(),
            names: vec![format!("{item}/{field}")],
        };
        let about = format!("the code of now, by {field} of item {item}");
        let approved = self.authorise(client, act, |question| Self::about(question, "gives", &about)).await?;
        let made = || {
            let fields = self.vault.borrow().read(index::Kind::Item, item.as_str())?;
            let held = fields.and_then(|fields| fields.into_iter().find(|held| held.name == field));
            let held = held.ok_or_else(|| no_field(&item, &field))?;
            Ok(Totp::parse(&held.value)?.code(clock::unix_seconds()))
        };
        let (code, seconds) = made().map_err(|refusal| self.failed(&approved, refusal))?;
        self.record(&Event::Released { request: approved.request }, approved.durable)?;
        let code = SecretBytes::copy_of(code.as_bytes());
        Ok(Message::new(Reply::Code { seconds }).with("value", code))
    }
}
