//! `keyloan ssh link|certify`: keys and certificates of linked vaults.

use super::{keys, keys_in, public_file};
use crate::args::ssh::{Certify, Link};
use crate::client;
use crate::commands::trust::unreadable;
use crate::exit::Failure;
use crate::output;
use keyloan_protocol::control::Message;
use keyloan_protocol::control::request::{CertifiedBy, Request};
use keyloan_protocol::names::ItemName;
use keyloan_protocol::reference::Reference;
use std::path::Path;

pub(super) fn link(link: Link) -> Result<(), Failure> {
    let act = "link an ssh key";
    let item = |word: &String| {
        ItemName::parse(word).map_err(|error| Failure::usage(act, format!("'{word}': {error}")))
    };
    let request = if let Some(vault) = link.vault {
        Request::SshLinkVault { vault, items: link.words.iter().map(item).collect::<Result<_, _>>()? }
    } else {
        let (reference, name) = match link.words.as_slice() {
            [reference] => (reference, None),
            [reference, name] => (reference, Some(item(name)?)),
            _ => return Err(Failure::usage(act, "one reference is wanted, and at most one name")),
        };
        let key = Reference::parse(reference)
            .map_err(|error| Failure::usage(act, format!("'{reference}': {error}")))?;
        let item = name.unwrap_or_else(|| key.item.clone());
        let public = link.public.as_deref().map(|path| line(act, path)).transpose()?;
        Request::SshLink { item, key, passphrase: link.passphrase, public }
    };
    tell(act, request)
}

pub(super) fn certify(certify: Certify) -> Result<(), Failure> {
    let act = "say who certifies an ssh key";
    let authority = certify.authority.as_deref().map(|path| line(act, path)).transpose()?;
    let by = certify.vault.zip(certify.role).map(|(vault, role)| CertifiedBy {
        vault,
        role,
        hosts: certify.hosts,
        principals: certify.principals,
        seconds: certify.ttl.duration().as_secs(),
        authority,
    });
    tell(act, Request::SshCertify { item: certify.name, by })
}

fn tell(act: &str, request: Request) -> Result<(), Failure> {
    let changed = keys_in(act, client::ask(act, &Message::new(request))?)?;
    changed.iter().try_for_each(|key| output::line(&keys::listed(key)))
}

fn line(act: &str, path: &Path) -> Result<String, Failure> {
    let text = public_file::read(path).map_err(|error| unreadable(act, path, &error))?;
    text.ok_or_else(|| Failure::usage(act, format!("{} holds no public key", path.display())))
}
