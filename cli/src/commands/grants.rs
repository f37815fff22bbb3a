//! `keyloan grants` and `keyloan revoke`.

use crate::args::{Json, Revoke};
use crate::client::{self, Connection};
use crate::exit::Failure;
use crate::output;
use keyloan_protocol::control::Message;
use keyloan_protocol::control::request::Request;
use keyloan_protocol::control::response::{GrantSummary, Reply};
use keyloan_protocol::names::escaped;
use keyloan_protocol::time_span::TimeSpan;
use std::time::Duration;

pub(crate) fn grants(format: &Json) -> Result<(), Failure> {
    let act = "list the grants";
    let grants = match Connection::existing(act)? {
        None => Vec::new(),
        Some(mut connection) => {
            connection.send(&Message::new(Request::Grants), &[])?;
            match connection.reply()?.body {
                Reply::Grants { grants } => grants,
                _ => return Err(client::unexpected(act)),
            }
        }
    };
    if format.json {
        return output::json(&grants);
    }
    if grants.is_empty() {
        output::note("no yes covers more than it was asked for");
    }
    grants.iter().try_for_each(|grant| output::line(&describe(grant)))
}

pub(crate) fn revoke(revoke: &Revoke) -> Result<(), Failure> {
    let act = "revoke a grant";
    let Some(mut connection) = Connection::existing(act)? else {
        output::note("no daemon runs, so nothing is granted");
        return Ok(());
    };
    connection.send(&Message::new(Request::Revoke { grant: revoke.id }), &[])?;
    match connection.reply()?.body {
        Reply::Done { notes } => {
            for note in &notes {
                output::note(note);
            }
            Ok(())
        }
        _ => Err(client::unexpected(act)),
    }
}

/// `3  ssh.signature: namespace git with work SHA256:… for /usr/bin/git (pid 41), 8m left`
fn describe(grant: &GrantSummary) -> String {
    let time =
        grant.seconds_left.map(|seconds| format!("{} left", TimeSpan::of(Duration::from_secs(seconds))));
    let uses = grant.uses_left.map(|uses| format!("{uses} times more"));
    let ends = time.or(uses).unwrap_or_else(|| "until that ends".to_owned());
    let (covers, holder) = (escaped(&grant.covers, 300), escaped(&grant.holder, 200));
    format!("{}  {covers} for {holder}, {ends}", grant.grant)
}
