//! `keyloan status` and `keyloan loans`.

use crate::args::Json;
use crate::client::{self, Connection};
use crate::exit::Failure;
use crate::output;
use keyloan_protocol::control::Message;
use keyloan_protocol::control::request::Request;
use keyloan_protocol::control::response::{LoanSummary, Reply, Status, Tier, VaultState};
use keyloan_protocol::names::{VarName, escaped};
use std::fmt::Write;

pub(crate) fn status(format: &Json) -> Result<(), Failure> {
    let act = "show the status";
    let Some(mut connection) = Connection::existing(act)? else {
        if format.json {
            return output::line("{\n  \"daemon\": \"not running\"\n}");
        }
        return output::line("daemon     not running (it starts by itself when it is needed)");
    };
    connection.send(&Message::new(Request::Status), &[])?;
    let Reply::Status(status) = connection.reply()?.body else { return Err(client::unexpected(act)) };
    if format.json { output::json(&status) } else { output::bytes(text(&status).as_bytes()) }
}

fn text(status: &Status) -> String {
    let vault = match (status.vault, status.items) {
        (VaultState::Absent, _) => "none yet; make it: keyloan init".to_owned(),
        (VaultState::Locked, _) => "locked; open it: keyloan unlock".to_owned(),
        (VaultState::Unlocked, items) => {
            let idle = status.locks_in_seconds.unwrap_or_default().div_ceil(60);
            format!("unlocked, {} items; locks itself after {idle} idle minutes", items.unwrap_or_default())
        }
    };
    let tier = match status.tier {
        Tier::BestEffort => "best effort: other programs of yours cannot read its memory once it runs",
        Tier::Setgid => "setgid: the kernel refuses tracing from its first instruction",
        Tier::OwnUser => "own user: the daemon belongs to another user",
    };
    let log = if status.log_works { "" } else { "  (broken: nothing is lent)" };
    let mut text = format!(
        "daemon     {} (pid {}, protocol {})\nvault      {vault}\n           {}\nprotection {tier}\n\
         keys       {}\nquestions  {}\nloans      {} out, {} questions waiting\nlog        {}{log}\n",
        status.daemon_version,
        status.pid,
        status.protocol_version,
        status.vault_path,
        status.key_memory,
        status.questions,
        status.loans,
        status.pending,
        status.log_path,
    );
    for warning in &status.warnings {
        let _ = writeln!(text, "warning    {warning}");
    }
    text
}

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

fn describe(loan: &LoanSummary) -> String {
    let names: Vec<&str> = loan.variables.iter().map(VarName::as_str).collect();
    format!(
        "{}  {}  to {} (pid {}) in {} since {}",
        loan.id,
        names.join(" "),
        escaped(&loan.program, 200),
        loan.pid,
        escaped(&loan.directory, 200),
        loan.since
    )
}
