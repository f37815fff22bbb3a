//! `keyloan ssh generate|list|export|set`.

use super::{all_keys, described, keys_in, public_file};
use crate::args::Json;
use crate::args::ssh::{Export, Generate, Set};
use crate::client;
use crate::exit::Failure;
use crate::output;
use keyloan_platform::process;
use keyloan_protocol::control::Message;
use keyloan_protocol::control::error_kind::ErrorKind;
use keyloan_protocol::control::request::{Confirm, Request};
use keyloan_protocol::control::response::{KeySource, SshKey};
use keyloan_protocol::names::{ItemName, escaped};
use keyloan_protocol::time_span::TimeSpan;
use std::path::Path;
use std::time::Duration;

pub(super) fn generate(generate: Generate) -> Result<(), Failure> {
    let act = "make an ssh key";
    let request = Request::SshGenerate {
        item: generate.name,
        key: generate.key.into(),
        comment: generate.comment.unwrap_or_else(process::user_at_host),
    };
    let keys = keys_in(act, client::ask(act, &Message::new(request))?)?;
    keys.iter().try_for_each(|key| output::line(&key.public))
}

pub(super) fn set(set: Set) -> Result<(), Failure> {
    let act = "change an ssh key's settings";
    let hosts = (set.any_host || !set.hosts.is_empty()).then_some(set.hosts);
    let confirm = set.confirm.map(Into::into);
    let request = Request::SshSet { item: set.name, hosts, confirm, comment: set.comment };
    let keys = keys_in(act, client::ask(act, &Message::new(request))?)?;
    keys.iter().try_for_each(|key| output::line(&listed(key)))
}

pub(super) fn list(format: &Json) -> Result<(), Failure> {
    let keys = all_keys("list the ssh keys")?;
    if format.json {
        return output::json(&keys);
    }
    if keys.is_empty() {
        output::note("there are no ssh keys; store one: keyloan ssh add FILE");
    }
    keys.iter().try_for_each(|key| output::line(&listed(key)))
}

/// A line that names the key, and one for each thing that is not as usual.
pub(super) fn listed(key: &SshKey) -> String {
    let name = match (&key.item, key.from) {
        (Some(item), _) => item.as_str(),
        (None, KeySource::Upstream) => "(another agent's)",
        (None, _) => "(added)",
    };
    let mut lines = vec![format!("{name}  {}", described(key))];
    lines.extend(key.private_in.as_ref().map(|at| escaped(&format!("private half in {at}"), 1000)));
    lines.extend(key.certified_by.as_ref().map(|by| escaped(&format!("certificates by {by}"), 1000)));
    lines.extend(key.certificate.as_ref().map(|_| "with a certificate".to_owned()));
    if !key.hosts.is_empty() {
        lines.push(format!("for {} only", escaped(&key.hosts.join(" "), 1000)));
    }
    if key.confirm == Confirm::Always {
        lines.push("asked for at every signature".to_owned());
    }
    let left = key.expires.map(|seconds| TimeSpan::of(Duration::from_secs(seconds)));
    lines.extend(left.map(|left| format!("for another {left}")));
    lines.join("\n   ")
}

pub(super) fn export(export: &Export) -> Result<(), Failure> {
    let act = "export an ssh key";
    let keys = all_keys(act)?;
    let (Some(name), None) = (&export.name, &export.all) else {
        return export_all(act, &keys, export.all.as_deref().unwrap_or(Path::new(".")));
    };
    let line = line_of(act, &keys, name, export.certificate)?;
    match &export.output {
        None => output::line(line),
        Some(file) => wrote(file, public_file::write(act, file, line)?),
    }
}

fn line_of<'a>(
    act: &str,
    keys: &'a [SshKey],
    name: &ItemName,
    certificate: bool,
) -> Result<&'a str, Failure> {
    let gone = |what| Failure::new(ErrorKind::NotFound, act, what).hint("keyloan ssh list");
    let key = keys.iter().find(|key| key.item.as_ref() == Some(name));
    let key = key.ok_or_else(|| gone(format!("there is no ssh key '{name}'")))?;
    if certificate {
        key.certificate.as_deref().ok_or_else(|| gone(format!("the key '{name}' has no certificate")))
    } else {
        Ok(&key.public)
    }
}

fn export_all(act: &str, keys: &[SshKey], directory: &Path) -> Result<(), Failure> {
    for key in keys {
        let Some(item) = &key.item else { continue };
        // A name may hold what a file's cannot.
        let file = directory.join(format!("{}.pub", item.as_str().replace('/', "_")));
        wrote(&file, public_file::write(act, &file, &key.public)?)?;
    }
    Ok(())
}

fn wrote(file: &Path, is_new: bool) -> Result<(), Failure> {
    let what = if is_new { "" } else { "  (it is there already)" };
    output::line(&format!("{}{what}", file.display()))
}
