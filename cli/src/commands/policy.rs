//! `keyloan policy show|set`.

use crate::args::Policy;
use crate::client;
use crate::exit::Failure;
use crate::output;
use keyloan_protocol::control::Message;
use keyloan_protocol::control::request::Request;
use keyloan_protocol::control::response::Reply;

pub(crate) fn policy(policy: Policy) -> Result<(), Failure> {
    match policy {
        Policy::Show => {
            let act = "show the policy";
            let reply = client::ask(act, &Message::new(Request::PolicyShow))?;
            let Reply::Policy { settings } = reply.body else { return Err(client::unexpected(act)) };
            settings.iter().try_for_each(|setting| output::line(setting))
        }
        Policy::Set { settings, passphrase } => {
            let act = "change the policy";
            let message = Message::new(Request::PolicySet { settings });
            let message = client::with_secret(act, message, "passphrase", passphrase.passphrase_fd)?;
            client::tell(act, &message)
        }
    }
}
