//! `keyloan status`.

use crate::args::Json;
use crate::client::{self, Connection};
use crate::exit::Failure;
use crate::output;
use keyloan_platform::paths::Paths;
use keyloan_protocol::control::Message;
use keyloan_protocol::control::request::Request;
use keyloan_protocol::control::response::{Reply, Status, Tier, VaultState};
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
            let items = items.unwrap_or_default();
            let noun = if items == 1 { "item" } else { "items" };
            format!("unlocked, {items} {noun}; locks itself after {idle} idle minutes")
        }
    };
    let tier = match status.tier {
        Tier::BestEffort => "best effort: other programs of yours cannot read its memory once it runs",
        Tier::Setgid => "setgid: the kernel refuses tracing from its first instruction",
        Tier::OwnUser => "own user: the daemon belongs to another user",
    };
    let log = if status.log_works { "" } else { "  (broken: nothing is lent)" };
    let loans = match status.held {
        0 => format!("{} out", status.loans),
        held => format!("{} out, {held} ended and still held (keyloan loans)", status.loans),
    };
    let mut text = format!(
        "daemon     {} (pid {}, protocol {})\nvault      {vault}\n           {}\nprotection {tier}\n\
         keys       {}\nquestions  {}\nloans      {}, {} questions waiting\nlog        {}{log}\n",
        status.daemon_version,
        status.pid,
        status.protocol_version,
        status.vault_path,
        status.key_memory,
        status.questions,
        loans,
        status.pending,
        status.log_path,
    );
    if let Ok(paths) = Paths::discover() {
        let _ =
            writeln!(text, "ssh        {}  (keyloan ssh env)", paths.runtime.join("agent.sock").display());
    }
    for kept in &status.kept {
        let _ = writeln!(text, "kept       {kept}");
    }
    for warning in &status.warnings {
        let _ = writeln!(text, "warning    {warning}");
    }
    text
}
