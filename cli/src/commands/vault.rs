//! `keyloan vault list|add|remove|test`.

use crate::args::vault::{Add, Vault};
use crate::client::{self, Connection};
use crate::exit::Failure;
use crate::output;
use keyloan_protocol::control::Message;
use keyloan_protocol::control::error_kind::ErrorKind;
use keyloan_protocol::control::request::Request;
use keyloan_protocol::control::response::{LinkedVault, Reply, VaultReport};
use keyloan_protocol::names::{VaultName, escaped};
use keyloan_protocol::time_span::TimeSpan;
use keyloan_protocol::vault_kinds::{self, Is, Needed};
use std::collections::BTreeMap;
use std::io::{self, BufRead, IsTerminal, Write};
use std::time::Duration;

pub(crate) fn vault(vault: Vault) -> Result<(), Failure> {
    match vault {
        Vault::List(format) => list(format.json),
        Vault::Add(add) => self::add(add),
        Vault::Remove { name, passphrase } => {
            let act = "unlink a vault";
            let message = Message::new(Request::VaultRemove { name });
            let message = client::with_secret(act, message, "passphrase", passphrase.passphrase_fd)?;
            client::tell(act, &message)
        }
        Vault::Test { names, format } => test(names, format.json),
    }
}

fn add(add: Add) -> Result<(), Failure> {
    let act = "link a vault";
    let mut settings: BTreeMap<String, String> = add.settings.into_iter().collect();
    let kind = add.kind.or_else(|| (!add.replace).then(|| add.name.to_string()));
    if let Some(kind) = kind.as_deref().and_then(vault_kinds::kind)
        && !add.replace
        && io::stdin().is_terminal()
    {
        ask(kind, &mut settings).map_err(|error| Failure::usage(act, format!("standard input: {error}")))?;
    }
    let searched = (add.search || add.no_search).then_some(add.search);
    let request = Request::VaultAdd { name: add.name, kind, settings, searched, replace: add.replace };
    let mut message = Message::new(request);
    for (key, descriptor) in &add.secret_fd {
        let descriptor = descriptor
            .parse()
            .map_err(|_| Failure::usage(act, format!("--secret-fd {key}=N takes a descriptor's number")))?;
        message = message.with(&format!("secret.{key}"), client::secret_from(act, descriptor)?);
    }
    let message = client::with_secret(act, message, "passphrase", add.passphrase.passphrase_fd)?;
    client::tell(act, &message)
}

/// Asks for what is not given. Secrets are the daemon's to ask for.
fn ask(kind: &vault_kinds::Kind, settings: &mut BTreeMap<String, String>) -> io::Result<()> {
    for setting in kind.settings.iter().filter(|setting| setting.is != Is::Secret) {
        if settings.contains_key(setting.key) || setting.asks.is_empty() {
            continue;
        }
        let else_this = match setting.needed {
            Needed::Always => String::new(),
            Needed::Unless(other, _) if settings.contains_key(other) => continue,
            Needed::Else(value) | Needed::Unless(_, value) => format!(" [{value}]"),
            Needed::No => " [none]".to_owned(),
        };
        io::stderr().write_all(format!("keyloan: {}{else_this}: ", setting.asks).as_bytes())?;
        let mut line = String::new();
        io::stdin().lock().read_line(&mut line)?;
        let line = line.trim();
        if !line.is_empty() {
            settings.insert(setting.key.to_owned(), line.to_owned());
        }
    }
    Ok(())
}

fn list(json: bool) -> Result<(), Failure> {
    let act = "list the linked vaults";
    let Reply::Vaults { vaults } = client::ask(act, &Message::new(Request::VaultList))?.body else {
        return Err(client::unexpected(act));
    };
    if json {
        return output::json(&vaults);
    }
    for LinkedVault { name, kind, searched, settings, programs, secrets, keeps_seconds, kept } in &vaults {
        let mut about = vec![if name.is_local() { "built in".to_owned() } else { kind.clone() }];
        about.extend(settings.iter().map(|(key, value)| format!("{key}={}", escaped(value, 300))));
        about.extend(programs.iter().map(|program| {
            let hash = program.sha256.as_ref().map(|hash| format!(" (sha256 {})", escaped(hash, 64)));
            format!("runs {}{}", escaped(&program.path, 300), hash.unwrap_or_default())
        }));
        about.extend(secrets.iter().map(|key| format!("{key} is kept")));
        if *searched && !name.is_local() {
            about.push("searched for directories".to_owned());
        }
        if let Some(seconds) = keeps_seconds {
            let time = TimeSpan::of(Duration::from_secs(*seconds));
            about.push(format!("values are kept for {time} ({kept} now)"));
        }
        output::line(&format!("{name}  {}", about.join(", ")))?;
    }
    Ok(())
}

/// Each as it answers; with `json` when all have.
fn test(names: Vec<VaultName>, json: bool) -> Result<(), Failure> {
    let act = "test the vaults";
    let mut connection = Connection::open(act)?;
    connection.send(&Message::new(Request::VaultTest { names }), &[])?;
    let mut all: Vec<VaultReport> = Vec::new();
    loop {
        let Reply::VaultStates { states, more } = connection.reply()?.body else {
            return Err(client::unexpected(act));
        };
        if !json {
            states.iter().try_for_each(show)?;
        }
        all.extend(states);
        if !more {
            break;
        }
    }
    if json {
        output::json(&all)?;
    }
    let ill = all.iter().filter(|report| report.state != "ready").count();
    if ill == 0 {
        return Ok(());
    }
    Err(Failure::new(ErrorKind::Vault, act, format!("{ill} of {} would not answer", all.len())))
}

fn show(report: &VaultReport) -> Result<(), Failure> {
    let VaultReport { name, state, cause, hint } = report;
    let cause = cause.as_ref().map(|cause| format!(": {}", escaped(cause, 1000))).unwrap_or_default();
    output::line(&format!("{name}  {}{cause}", state.replace('_', " ")))?;
    match hint {
        Some(hint) => output::line(&format!("  hint: {}", escaped(hint, 1000))),
        None => Ok(()),
    }
}
