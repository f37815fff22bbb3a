//! Which part of the broker serves which request.

use crate::broker::{
    Broker, Client, Desktop, Elsewhere, Found, KeyChange, KeyFiles, NewLink, Opening, Recipe, Refusal, Unlock,
};
use crate::requester::Claimed;
use keyloan_protocol::control::request::{Lend, Request};
use keyloan_protocol::control::response::Reply;
use keyloan_protocol::control::{Message, Value};
use keyloan_protocol::limits;
use keyloan_protocol::reference::Reference;
use keyloan_protocol::secret::SecretBytes;
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::rc::Rc;

pub(super) async fn handle(
    broker: &Rc<Broker>,
    mut client: Client,
    mut message: Message<Request>,
    descriptors: Vec<OwnedFd>,
) -> Message<Reply> {
    client.requester.claimed = Claimed {
        program: message.take("program").as_ref().map(path),
        argv: message.take("argv"),
        clean_env: matches!(&message.body, Request::Lend(lend) if lend.clean_env),
    };
    let served = serve(broker, &client, message, descriptors).await;
    served.unwrap_or_else(|refusal| Message::new(Reply::Error(refusal.reply())))
}

#[expect(clippy::too_many_lines, reason = "one arm for each request")]
async fn serve(
    broker: &Rc<Broker>,
    client: &Client,
    mut message: Message<Request>,
    mut descriptors: Vec<OwnedFd>,
) -> Result<Message<Reply>, Refusal> {
    let passphrase = typed(&mut message, "passphrase")?;
    let pin = typed(&mut message, "pin")?;
    let new = typed(&mut message, "new")?;
    let phrase = typed(&mut message, "phrase")?;
    let value = message.take("value");
    let identity = message.take("identity");
    let desktop = Desktop::from_values(|name| message.take(name));
    let secrets = secrets(&mut message)?;
    let path_value = message.take("path").as_ref().map(path);
    let reply = match message.body {
        Request::Lend(lend) => {
            let found = searched(&mut message.values, descriptors.pop(), &lend)?;
            return broker.lend(client, lend, found).await;
        }
        Request::LendShell(lend) => {
            let found = searched(&mut message.values, descriptors.pop(), &lend)?;
            return broker.lend_shell(client, lend, found).await;
        }
        Request::Names { manifest_at } => {
            let found = Found { directories: directories(&mut message.values)?, manifest: descriptors.pop() };
            broker.names(client, manifest_at, found).await?
        }
        Request::ItemTotp { item, field, vault } => {
            return broker.item_totp(client, vault, item, field).await;
        }
        Request::RecoveryKey => return broker.recovery_key(client, passphrase).await,
        Request::ItemGenerate { item, field, alphabet, length } => {
            broker.item_generate(client, item, field, alphabet, length).await?
        }
        Request::ItemExpires { item, day } => broker.item_expires(client, item, day).await?,
        Request::Backup { recipients } => {
            let file = descriptors.pop().ok_or(Refusal::Input("no file was passed"))?;
            broker.backup(client, passphrase, new, recipients, file).await?
        }
        Request::Restore { plain, new_passphrase } => {
            let file = descriptors.pop().ok_or(Refusal::Input("no file was passed"))?;
            let opening = Opening { plain, identity, passphrase };
            broker.restore(client, opening, new_passphrase, new, file).await?
        }
        Request::Rekey => broker.rekey(client, passphrase, new).await?,
        Request::Merge => {
            let other = path_value.ok_or(Refusal::Input("no path was passed"))?;
            broker.merge(client, &other).await?
        }
        Request::ItemGet { item, field, vault } => return broker.item_get(client, vault, item, field).await,
        Request::Status => broker.status(),
        Request::Init => broker.init(client, passphrase, pin, phrase, desktop).await?,
        Request::Unlock { here, desktop: in_window, accept_rollback, keyring } => {
            let how = Unlock { here, in_window, accept_older: accept_rollback, keyring, desktop };
            broker.unlock(client, passphrase, how).await?
        }
        Request::Approve => broker.approve(client, passphrase).await?,
        Request::Lock => {
            broker.lock("asked");
            Reply::done("the vault is locked")
        }
        Request::Passwd => broker.passwd(client, passphrase, new).await?,
        Request::Pin => broker.pin(client, passphrase, pin).await?,
        Request::Phrase { remove } => broker.change_phrase(client, passphrase, phrase, remove).await?,
        Request::RecipientAdd { name, recipient } => {
            broker.recipient_add(client, passphrase, name, recipient).await?
        }
        Request::RecipientKeyring => broker.keyring_key(client, passphrase).await?,
        Request::RecipientList => broker.recipients(client).await?,
        Request::RecipientRemove { name } => broker.recipient_remove(client, passphrase, name).await?,
        Request::ItemSet { item, field, vault: Some(vault), public } => {
            broker.linked_set(client, Reference { vault, item, field }, public, value).await?
        }
        Request::ItemSet { item, field, public, vault: None } => {
            broker.item_set(client, item, field, public, value).await?
        }
        Request::VaultAdd { name, kind, settings, searched, replace } => {
            let link = NewLink { name, kind, settings, searched, replace, secrets };
            broker.vault_add(client, passphrase, link).await?
        }
        Request::VaultList => broker.vault_list(client).await?,
        Request::VaultRemove { name } => broker.vault_remove(client, passphrase, name).await?,
        Request::VaultTest { names } => broker.vault_test(client, names).await?,
        Request::VaultItems { name } => broker.vault_items(client, name).await?,
        Request::ItemList => broker.item_list(client).await?,
        Request::ItemShow { item, vault: Some(vault) } => broker.linked_show(client, vault, item).await?,
        Request::ItemShow { item, vault: None } => broker.item_show(client, item).await?,
        Request::ItemRemove { item, field } => broker.item_remove(client, item, field).await?,
        Request::ItemMove { from, to } => broker.item_move(client, from, to).await?,
        Request::ItemCopy { from, to, replace } => broker.item_copy(client, from, to, replace).await?,
        Request::ItemCopyWhole { from, to, replace } => {
            broker.item_copy_whole(client, from, to, replace).await?
        }
        Request::Loans => broker.list_loans().await,
        Request::Grants => broker.list_grants(),
        Request::Revoke { grant } => broker.revoke(grant)?,
        Request::Recall { loan, kill } => broker.recall(loan, kill).await?,
        Request::Trust => {
            let descriptor = descriptors.pop().ok_or(Refusal::Input("no file was passed"))?;
            broker.trust(client, descriptor).await?
        }
        Request::Untrust => {
            let path = path_value.ok_or(Refusal::Input("no path was passed"))?;
            broker.untrust(client, &path.to_string_lossy()).await?
        }
        Request::PolicyShow => broker.policy_show(client).await?,
        Request::PolicyExplain { request } => broker.policy_explain(client, &request).await?,
        Request::PolicySet { settings } => broker.policy_set(client, passphrase, settings).await?,
        Request::Log { verify: true, .. } => broker.verify_log().await?,
        Request::Log { follow, commands, .. } => broker.show_log(client, follow, commands).await?,
        Request::SshAdd { item, comment } => {
            let certificate = (descriptors.len() > 1).then(|| descriptors.pop()).flatten();
            let first = descriptors.pop().ok_or(Refusal::Input("no file was passed"))?;
            broker.ssh_add(client, item, comment, KeyFiles { first, certificate }, passphrase).await?
        }
        Request::SshGenerate { item, key, comment } => {
            broker.ssh_generate(client, item, key, comment).await?
        }
        Request::SshLink { item, key, passphrase, public } => {
            broker.ssh_link(client, item, Elsewhere { key, passphrase }, public.as_deref()).await?
        }
        Request::SshLinkVault { vault, items } => broker.ssh_link_vault(client, &vault, &items).await?,
        Request::SshCertify { item, by } => {
            let recipe = by.map(|by| Recipe {
                vault: by.vault,
                role: by.role,
                hosts: by.hosts,
                principals: by.principals,
                seconds: by.seconds,
                authority: by.authority.unwrap_or_default(),
            });
            broker.ssh_certified_by(client, item, recipe).await?
        }
        Request::SshSet { item, hosts, confirm, comment } => {
            broker.ssh_set(client, item, KeyChange { hosts, confirm, comment }).await?
        }
        Request::SshKeys => broker.ssh_keys().await,
        Request::SshHosts => broker.ssh_hosts(client).await?,
        Request::SshPin { host, key, authority } => {
            broker.ssh_pin(client, &host, key.as_deref(), authority).await?
        }
        Request::SshUnpin { host } => broker.ssh_unpin(client, &host).await?,
        Request::SshServe { lifetime } => {
            let socket = descriptors.pop().ok_or(Refusal::Input("no socket was passed"))?;
            broker.serve_agent_socket(client, socket, descriptors, lifetime)?
        }
        Request::Stop => {
            broker.stop.notify_one();
            Reply::done("the daemon is stopping")
        }
    };
    Ok(Message::new(reply))
}

/// What a link is to be opened with.
fn secrets(message: &mut Message<Request>) -> Result<Vec<(String, SecretBytes)>, Refusal> {
    let mut secrets: Vec<(String, SecretBytes)> = Vec::new();
    while let Some(at) = message.values.iter().position(|value| value.name.starts_with("secret.")) {
        let value = message.values.remove(at);
        if value.bytes.len() > limits::FIELD_VALUE {
            return Err(Refusal::Input("a value has at most 1 MiB"));
        }
        let key = value.name["secret.".len()..].to_owned();
        if secrets.iter().any(|(held, _)| *held == key) {
            return Err(Refusal::Input("a secret is given twice"));
        }
        secrets.push((key, value.bytes));
    }
    Ok(secrets)
}

/// A passphrase or a PIN from the tail.
fn typed(message: &mut Message<Request>, name: &str) -> Result<Option<SecretBytes>, Refusal> {
    match message.take(name) {
        Some(secret) if secret.len() > limits::PASSPHRASE => {
            Err(Refusal::Input("a passphrase or PIN has at most 1024 bytes"))
        }
        secret => Ok(secret),
    }
}

/// What the client found on its way up, nearest first.
fn searched(values: &mut Vec<Value>, manifest: Option<OwnedFd>, lend: &Lend) -> Result<Found, Refusal> {
    let directories = directories(values)?;
    if lend.sets.len() > limits::SETS || lend.only.len() > limits::ONLY {
        return Err(Refusal::Input("at most 64 sets and 1024 variables are named at once"));
    }
    Ok(Found { directories, manifest })
}

fn directories(values: &mut Vec<Value>) -> Result<Vec<PathBuf>, Refusal> {
    let mut directories = Vec::new();
    while let Some(directory) = values.iter().position(|value| value.name == "directory") {
        directories.push(path(&values.remove(directory).bytes));
    }
    if directories.len() > limits::DIRECTORIES {
        return Err(Refusal::Input("too many directories were searched"));
    }
    Ok(directories)
}

fn path(bytes: &SecretBytes) -> PathBuf {
    OsString::from_vec(bytes.expose().to_vec()).into()
}
