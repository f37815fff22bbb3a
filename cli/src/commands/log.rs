//! `keyloan log`: the audit log for people, as it is stored, or checked.

use crate::args::Log;
use crate::client::{self, Connection};
use crate::exit::Failure;
use crate::output;
use keyloan_protocol::control::Message;
use keyloan_protocol::control::request::Request;
use keyloan_protocol::control::response::Reply;
use keyloan_protocol::names::escaped;
use serde_json::Value;

pub(crate) fn log(log: &Log) -> Result<(), Failure> {
    let act = "show the log";
    let request = Request::Log { follow: log.follow, verify: log.verify, commands: log.commands };
    let mut connection = Connection::open(act)?;
    connection.send(&Message::new(request), &[])?;
    loop {
        let mut reply = connection.reply()?;
        match reply.body {
            Reply::LogLines => {
                let lines = reply.take("lines").ok_or_else(|| client::unexpected(act))?;
                if log.json {
                    output::bytes(lines.expose())?;
                } else {
                    let lines = lines.expose().split(|byte| *byte == b'\n');
                    lines.filter(|line| !line.is_empty()).try_for_each(|line| output::line(&told(line)))?;
                }
            }
            Reply::Verified(verified) if verified.findings.is_empty() => {
                let how = if verified.keyed {
                    "with the vault's key"
                } else {
                    "their order only; unlock the vault to check who wrote them"
                };
                return output::line(&format!("{} records are unchanged ({how})", verified.records));
            }
            Reply::Verified(verified) => {
                return Err(Failure::findings(
                    "vouch for the log",
                    "it is not as it was written",
                    verified.findings,
                ));
            }
            Reply::Done { .. } => return Ok(()),
            _ => return Err(client::unexpected(act)),
        }
    }
}

/// One record as a sentence: when, what, and the facts that matter to a reader.
fn told(line: &[u8]) -> String {
    let Ok(record) = serde_json::from_slice::<Value>(line) else {
        return "(a line that is no record)".to_owned();
    };
    let text = |key: &str| record.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let number = |key: &str| record.get(key).and_then(Value::as_u64).unwrap_or_default();
    let names = || {
        let names = record.get("names").and_then(Value::as_array).into_iter().flatten();
        names.filter_map(Value::as_str).collect::<Vec<_>>().join(" ")
    };
    let by = || {
        let field =
            |key: &str| record.pointer(&format!("/by/{key}")).and_then(Value::as_str).unwrap_or_default();
        let command = field("command");
        let command = if command.contains(' ') { format!(": {command}") } else { String::new() };
        let program =
            record.pointer("/by/programs/1").or(record.pointer("/by/programs/0")).and_then(Value::as_str);
        format!("by {} in {}{command}", program.unwrap_or("an unknown program"), field("cwd"))
    };
    let request = number("request");
    let said = match text("event").as_str() {
        "requested" => format!("{request} asked: {} {} {}", text("act"), names(), by()),
        "decided" => {
            let who = text("approver");
            let who = if who.is_empty() { String::new() } else { format!(": {who}") };
            format!("{request} {} ({}){who}", text("decision"), text("rule"))
        }
        "approved" => format!("{request} may go ahead"),
        "granted" => format!(
            "{request} granted {}: {} for {} ({})",
            number("grant"),
            text("covers"),
            text("holder"),
            scope(&text("scope"))
        ),
        "grant_ended" => format!("grant {} ended: {}", number("grant"), text("why")),
        "lent" => format!("{request} lent: {} to pid {} (loan {})", names(), number("pid"), number("loan")),
        "released" => format!("{request} given out"),
        "failed" => format!("{request} failed: {}", text("cause")),
        "undelivered" => format!("loan {} was never received", number("loan")),
        "loan_ended" => format!("loan {} ended: {}", number("loan"), text("why")),
        "item_changed" => format!("{request} {}: {} {}", text("action"), text("item"), text("field")),
        "agent_key_added" => format!("{request} added to the ssh agent: {}", text("key")),
        "signed" => format!("{request} signed: {} with {}", text("permits"), text("key")),
        "certificate_made" => {
            let users: Vec<&str> =
                record["users"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            let (key, by, until) = (text("key"), text("by"), text("until"));
            format!("{request} certified: {key} as {} by {by}, until {until}", users.join(", "))
        }
        "agent_refused" => format!("the ssh agent refused {}: {} {}", text("what"), text("cause"), by()),
        "public_keys_replaced" => {
            "the list of public keys beside the vault was not the vault's, and was written anew".to_owned()
        }
        "host_changed" => format!("{request} {}: {}", text("action"), text("host")),
        "trust_changed" => format!("{request} {}: {}", text("action"), text("path")),
        "policy_changed" => {
            let settings = record.get("settings").and_then(Value::as_array).into_iter().flatten();
            format!("policy set: {}", settings.filter_map(Value::as_str).collect::<Vec<_>>().join(" "))
        }
        "recipient_changed" => format!("recipient {} {}", text("name"), text("action")),
        "turned_away" => format!("{} more were refused unasked: there were too many", number("count")),
        "locked" => format!("locked: {}", text("why")),
        "pin_failed" => format!("wrong PIN, {} in a row, {}", number("failures"), by()),
        "approver_enrolled" => format!("a terminal answers from now on, {}", by()),
        "approver_left" => format!("it answers no more, {}", by()),
        "unlock_failed" => format!("wrong passphrase {}", by()),
        "keyring_used" => format!("the key in the keyring was taken {}", by()),
        "unlocked" => format!("unlocked {}", by()),
        "repaired" => format!("a record of {} bytes, cut short by a crash, was removed", number("bytes")),
        "mismatched" => {
            format!(
                "the log has {} records where the vault remembers {}",
                number("found"),
                number("expected")
            )
        }
        "adopted" => format!("records {} to {} were written while locked", number("from"), number("to")),
        other => other.replace('_', " "),
    };
    format!("{}  {}", text("time"), escaped(said.trim(), 1000))
}

/// What a yes covers, in words: `command`, `10m`, `20x`, `terminal-10m` in the log.
fn scope(text: &str) -> String {
    match text.strip_prefix("terminal-") {
        Some(time) => format!("whatever asks on that terminal, for {time}"),
        None if text == "command" => "until that ends".to_owned(),
        None => match text.strip_suffix('x') {
            Some(uses) => format!("{uses} times in all"),
            None => format!("for {text}"),
        },
    }
}
