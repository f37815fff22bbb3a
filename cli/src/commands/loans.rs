//! `keyloan loans` and `keyloan recall`.

use crate::args::{Json, Recall};
use crate::client::{self, Connection};
use crate::exit::Failure;
use crate::output;
use keyloan_protocol::control::Message;
use keyloan_protocol::control::request::Request;
use keyloan_protocol::control::response::{LoanSummary, Reply};
use keyloan_protocol::names::{VarName, escaped};
use keyloan_protocol::time_span::TimeSpan;
use std::time::Duration;

pub(crate) fn loans(format: &Json) -> Result<(), Failure> {
    let act = "list the loans";
    let loans = match Connection::existing(act)? {
        None => Vec::new(),
        Some(mut connection) => {
            connection.send(&Message::new(Request::Loans), &[])?;
            match connection.reply()?.body {
                Reply::Loans { loans } => loans,
                _ => return Err(client::unexpected(act)),
            }
        }
    };
    if format.json {
        return output::json(&loans);
    }
    if loans.is_empty() {
        output::note("nothing is lent");
    }
    loans.iter().try_for_each(|loan| output::line(&describe(loan)))
}

pub(crate) fn recall(recall: &Recall) -> Result<(), Failure> {
    let act = "recall a loan";
    let Some(mut connection) = Connection::existing(act)? else {
        output::note("no daemon runs, so nothing is lent");
        return Ok(());
    };
    connection.send(&Message::new(Request::Recall { loan: recall.id, kill: recall.kill }), &[])?;
    let Reply::Recalled { recalled, held } = connection.reply()?.body else {
        return Err(client::unexpected(act));
    };
    if recalled.is_empty() {
        output::note("nothing is lent");
    }
    for id in recalled {
        let end = held.iter().find(|loan| loan.id == id).and_then(ending);
        let end = end.unwrap_or_else(|| "recalled; nothing holds it any more".to_owned());
        output::note(&format!("loan {id}: {end}"));
    }
    Ok(())
}

/// How a loan is over, and who holds it all the same.
fn ending(loan: &LoanSummary) -> Option<String> {
    let over = loan.over.as_ref()?;
    let holders: Vec<String> = loan
        .held_by
        .iter()
        .map(|holding| format!("pid {} ({})", holding.pid, escaped(&holding.program, 200)))
        .collect();
    let held_by = if holders.is_empty() { "nobody seen".to_owned() } else { holders.join(", ") };
    let renew = match loan.references.as_slice() {
        [] => String::new(),
        references => {
            format!("; to take it back, renew {} where it was issued", escaped(&references.join(", "), 400))
        }
    };
    Some(format!("{over}, still held by {held_by}{renew}"))
}

fn describe(loan: &LoanSummary) -> String {
    let names: Vec<&str> = loan.variables.iter().map(VarName::as_str).collect();
    let to = format!(
        "{}  {}\n   to {} (pid {}) in {} since {}",
        loan.id,
        names.join(" "),
        escaped(&loan.program, 200),
        loan.pid,
        escaped(&loan.directory, 200),
        loan.since
    );
    if let Some(end) = ending(loan) {
        return format!("{to}\n   {end}");
    }
    match loan.seconds_left {
        Some(left) => format!("{to}, for another {}", TimeSpan::of(Duration::from_secs(left))),
        None => to,
    }
}
