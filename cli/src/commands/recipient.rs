//! `keyloan recipient add|list|rm`.

use crate::args::Recipient;
use crate::client;
use crate::exit::Failure;
use crate::output;
use keyloan_protocol::control::Message;
use keyloan_protocol::control::request::Request;
use keyloan_protocol::control::response::Reply;

pub(crate) fn recipient(recipient: Recipient) -> Result<(), Failure> {
    match recipient {
        Recipient::Add { name, recipient, passphrase } => {
            let act = "add a recipient";
            let message = Message::new(Request::RecipientAdd { name, recipient });
            let message = client::with_secret(act, message, "passphrase", passphrase.passphrase_fd)?;
            client::tell(act, &message)
        }
        Recipient::Rm { name, passphrase } => {
            let act = "remove a recipient";
            let message = Message::new(Request::RecipientRemove { name });
            let message = client::with_secret(act, message, "passphrase", passphrase.passphrase_fd)?;
            client::tell(act, &message)
        }
        Recipient::Keyring(passphrase) => {
            let act = "let the keyring open the vault";
            let message = Message::new(Request::RecipientKeyring);
            let message = client::with_secret(act, message, "passphrase", passphrase.passphrase_fd)?;
            client::tell(act, &message)
        }
        Recipient::List(format) => {
            let act = "list the recipients";
            let reply = client::ask(act, &Message::new(Request::RecipientList))?;
            let Reply::Recipients { recipients } = reply.body else {
                return Err(client::unexpected(act));
            };
            if format.json {
                return output::json(&recipients);
            }
            recipients.iter().try_for_each(|held| output::line(&format!("{}  {}", held.name, held.recipient)))
        }
    }
}
