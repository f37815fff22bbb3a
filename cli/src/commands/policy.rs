//! `keyloan policy show|explain|set`.

use crate::args::{Json, Policy};
use crate::client;
use crate::exit::Failure;
use crate::output;
use keyloan_protocol::control::Message;
use keyloan_protocol::control::request::Request;
use keyloan_protocol::control::response::{Explained, Reply};
use keyloan_protocol::names::escaped;

pub(crate) fn policy(policy: Policy) -> Result<(), Failure> {
    match policy {
        Policy::Show => {
            let act = "show the policy";
            let reply = client::ask(act, &Message::new(Request::PolicyShow))?;
            let Reply::Policy { settings } = reply.body else { return Err(client::unexpected(act)) };
            settings.iter().try_for_each(|setting| output::line(setting))
        }
        Policy::Explain { request, format } => explain(request, &format),
        Policy::Set { settings, passphrase } => {
            let act = "change the policy";
            let message = Message::new(Request::PolicySet { settings });
            let message = client::with_secret(act, message, "passphrase", passphrase.passphrase_fd)?;
            client::tell(act, &message)
        }
    }
}

fn explain(request: String, format: &Json) -> Result<(), Failure> {
    let act = "explain the policy";
    let reply = client::ask(act, &Message::new(Request::PolicyExplain { request }))?;
    let Reply::Explained(explained) = reply.body else { return Err(client::unexpected(act)) };
    if format.json {
        return output::json(&explained);
    }
    let Explained { verdict, rule, met, grants } = explained;
    output::line(&format!("{verdict}: {}", escaped(&rule, 1000)))?;
    for other in met.iter().filter(|other| **other != rule) {
        output::line(&format!("  also met: {}", escaped(other, 1000)))?;
    }
    if !grants.is_empty() {
        output::line(&format!("  a yes may also cover: {}", grants.join(", ")))?;
    }
    Ok(())
}
