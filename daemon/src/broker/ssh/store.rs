//! Keys that come into the vault: from a file, or made there.

use super::keys::{ALWAYS, CERTIFICATE, CONFIRM, HOSTS, PRIVATE_KEY, PUBLIC_KEY, VaultKey, check_hosts};
use super::{AgentRefusal, Broker};
use crate::approval::question::{Certainty, Question};
use crate::audit::event::Event;
use crate::broker::items::check_title;
use crate::broker::{Act, Approved, Beyond, Client, Refusal};
use crate::clock;
use crate::patience;
use crate::policy::decide::Subject;
use crate::policy::rule::Kind;
use crate::signing::key_file::{self, KeyFileError};
use crate::signing::public_line::{public_line, read_public_line};
use crate::signing::{self, KeyKind, SigningKey};
use crate::vault::local::index;
use crate::vault::local::item_file::Field;
use keyloan_protocol::control::request::{Confirm, NewKey};
use keyloan_protocol::control::response::Reply;
use keyloan_protocol::limits;
use keyloan_protocol::names::{FieldName, ItemName};
use keyloan_protocol::secret::SecretBytes;
use keyloan_protocol::ssh_agent::algorithm::Curve;
use keyloan_protocol::ssh_agent::key::PublicKey;
use keyloan_protocol::ssh_agent::private_key::PrivateKey;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use zeroize::Zeroizing;

/// Bytes of a comment.
pub(super) const COMMENT: usize = 256;

/// The files that `ssh add` was given.
pub(crate) struct KeyFiles {
    /// A private key's, or a certificate's alone.
    pub(crate) first: OwnedFd,
    pub(crate) certificate: Option<OwnedFd>,
}

/// What `ssh set` changes.
pub(crate) struct KeyChange {
    pub(crate) hosts: Option<Vec<String>>,
    pub(crate) confirm: Option<Confirm>,
    pub(crate) comment: Option<String>,
}

impl Broker {
    pub(crate) async fn ssh_add(
        &self,
        client: &Client,
        item: ItemName,
        comment: Option<String>,
        files: KeyFiles,
        passphrase: Option<SecretBytes>,
    ) -> Result<Reply, Refusal> {
        self.open_vault_for(client, "store an ssh key").await?;
        let text = read_file(files.first).await?;
        if let Some(certificate) = as_certificate(&text) {
            return self.ssh_certify(client, item, certificate?).await;
        }
        let certificate = match files.certificate {
            Some(file) => as_certificate(&read_file(file).await?).transpose()?,
            None => None,
        };
        let (key, held) = self.read_key_file(client, text, passphrase).await?;
        let comment = comment.map_or(held, String::into_bytes);
        // A certificate that lies beside a key is not always for it any more.
        let certificate = certificate.filter(|certificate| certificate.is_or_certifies(key.public()));
        self.store_key(client, item, "store an ssh key in the vault", key, comment, certificate).await
    }

    pub(crate) async fn ssh_generate(
        &self,
        client: &Client,
        item: ItemName,
        kind: NewKey,
        comment: String,
    ) -> Result<Reply, Refusal> {
        self.open_vault_for(client, "make an ssh key").await?;
        let kind = match kind {
            NewKey::Ed25519 => KeyKind::Ed25519,
            NewKey::Nistp256 => KeyKind::Ecdsa(Curve::Nistp256),
            NewKey::Nistp384 => KeyKind::Ecdsa(Curve::Nistp384),
            NewKey::Nistp521 => KeyKind::Ecdsa(Curve::Nistp521),
            NewKey::Rsa(bits) => KeyKind::Rsa { bits: usize::try_from(bits).unwrap_or_default() },
        };
        let key = self.derive(move || Ok(signing::generate(kind).map_err(AgentRefusal::from)?)).await?;
        self.store_key(client, item, "make an ssh key in the vault", key, comment.into_bytes(), None).await
    }

    /// Opens a key's file, asking for its passphrase where it has one that was not given.
    async fn read_key_file(
        &self,
        client: &Client,
        text: Zeroizing<Vec<u8>>,
        passphrase: Option<SecretBytes>,
    ) -> Result<(PrivateKey, Vec<u8>), Refusal> {
        let passphrase = match key_file::read(&text, None) {
            Err(KeyFileError::WantsPassphrase) => match passphrase {
                Some(passphrase) => passphrase,
                None => self.typed_value(client, "passphrase of the key's file").await?,
            },
            read => return Ok(read?),
        };
        self.derive(move || Ok(key_file::read(&text, Some(&passphrase))?)).await
    }

    async fn store_key(
        &self,
        client: &Client,
        item: ItemName,
        title: &str,
        key: PrivateKey,
        comment: Vec<u8>,
        certificate: Option<PublicKey>,
    ) -> Result<Reply, Refusal> {
        check_title(&item)?;
        if self.vault.borrow().index()?.find(index::Kind::Item, item.as_str()).is_some() {
            return Err(Refusal::Exists(item.to_string()));
        }
        if comment.len() > COMMENT || comment.iter().any(u8::is_ascii_control) {
            return Err(Refusal::Input("a comment has at most 256 bytes, and no control characters"));
        }
        let public = key.public().clone();
        if let Some(held) = self.vault_keys().iter().find(|held| held.public == public) {
            return Err(AgentRefusal::Held(held.item.to_string()).into());
        }
        let checked = tokio::task::spawn_blocking(move || SigningKey::open(&key).map(|_| key)).await;
        let key = checked.map_err(|_| Refusal::Task)?.map_err(AgentRefusal::from)?;
        let act = Act {
            subjects: written(&item),
            title: title.to_owned(),
            names: vec![format!("{item} {}", signing::fingerprint(&public))],
            beyond: Beyond::Nothing,
        };
        let approved = self
            .authorise(client, act, |question| {
                Self::about(question, "item", item.as_str());
                let shown = format!("{} {}", public.key_type().name(), signing::fingerprint(&public));
                Self::about(question, "key", &shown);
                question.line("comment", &String::from_utf8_lossy(&comment), Certainty::Claimed);
                if let Some(certificate) = &certificate {
                    Self::about(question, "with", &shown_certificate(certificate));
                }
            })
            .await?;
        let mut fields = vec![public_field(PUBLIC_KEY, &public_line(&public, &comment))?];
        if let Some(certificate) = &certificate {
            fields.push(public_field(CERTIFICATE, &public_line(certificate, &comment))?);
        }
        let value = key_file::write(&key, &comment).map_err(AgentRefusal::from)?;
        fields.push(Field { name: field_name(PRIVATE_KEY)?, public: false, value });
        self.write_key(&item, &fields, &approved, "stored")?;
        let keys = self.vault_keys();
        let keys = keys.iter().filter(|key| key.item == item).map(VaultKey::summary).collect();
        Ok(Reply::SshKeys { keys })
    }

    /// A newer certificate for a key that the vault holds.
    async fn ssh_certify(
        &self,
        client: &Client,
        item: ItemName,
        certificate: PublicKey,
    ) -> Result<Reply, Refusal> {
        let key = self.key_named(&item)?;
        if !certificate.is_or_certifies(&key.public) {
            return Err(AgentRefusal::Certificate(item.to_string()).into());
        }
        let shown = shown_certificate(&certificate);
        let line = public_field(CERTIFICATE, &public_line(&certificate, &key.comment))?;
        self.change_key(client, item, vec![("certificate", shown)], vec![line], &[]).await
    }

    pub(crate) async fn ssh_set(
        &self,
        client: &Client,
        item: ItemName,
        change: KeyChange,
    ) -> Result<Reply, Refusal> {
        self.open_vault_for(client, "change an ssh key's settings").await?;
        let key = self.key_named(&item)?;
        let (mut shown, mut fields, mut gone) = (Vec::new(), Vec::new(), Vec::new());
        match change.hosts {
            Some(hosts) if hosts.is_empty() => {
                shown.push(("hosts", "any".to_owned()));
                gone.push(HOSTS);
            }
            Some(hosts) => {
                check_hosts(&hosts)?;
                shown.push(("hosts", hosts.join(" ")));
                fields.push(public_field(HOSTS, &hosts.join(" "))?);
            }
            None => {}
        }
        match change.confirm {
            Some(Confirm::Always) => {
                shown.push(("confirm", "every signature".to_owned()));
                fields.push(public_field(CONFIRM, ALWAYS)?);
            }
            Some(Confirm::Session) => {
                shown.push(("confirm", "once for each ssh session".to_owned()));
                gone.push(CONFIRM);
            }
            None => {}
        }
        if let Some(comment) = change.comment {
            if comment.len() > COMMENT || comment.contains(char::is_control) {
                return Err(Refusal::Input("a comment has at most 256 bytes, and no control characters"));
            }
            fields.push(public_field(PUBLIC_KEY, &public_line(&key.public, comment.as_bytes()))?);
            shown.push(("comment", comment));
        }
        if shown.is_empty() {
            return Err(Refusal::Input("nothing is to be changed"));
        }
        self.change_key(client, item, shown, fields, &gone).await
    }

    pub(super) async fn change_key(
        &self,
        client: &Client,
        item: ItemName,
        shown: Vec<(&'static str, String)>,
        fields: Vec<Field>,
        gone: &[&str],
    ) -> Result<Reply, Refusal> {
        let approved = self.may_change_key(client, &item, &shown).await?;
        self.put_key_fields(&item, fields, gone, &approved)
    }

    pub(super) async fn may_change_key(
        &self,
        client: &Client,
        item: &ItemName,
        shown: &[(&'static str, String)],
    ) -> Result<Approved, Refusal> {
        let act = Act {
            subjects: written(item),
            title: "change an ssh key's settings".to_owned(),
            names: vec![item.to_string()],
            beyond: Beyond::Nothing,
        };
        let describe = |question: &mut Question| {
            Self::about(question, "item", item.as_str());
            for (label, text) in shown {
                Self::about(question, label, text);
            }
        };
        self.authorise(client, act, describe).await
    }

    /// Writes fields in the place of those that are gone, and leaves the others as they are.
    pub(super) fn put_key_fields(
        &self,
        item: &ItemName,
        fields: Vec<Field>,
        gone: &[&str],
        approved: &Approved,
    ) -> Result<Reply, Refusal> {
        let held = self.vault.borrow().read(index::Kind::Item, item.as_str());
        let held = held.map_err(|error| self.failed(approved, error.into()))?.unwrap_or_default();
        let stays = |held: &Field| {
            !gone.contains(&held.name.as_str()) && fields.iter().all(|field| field.name != held.name)
        };
        let mut all: Vec<Field> = held.into_iter().filter(stays).collect();
        all.extend(fields);
        self.write_key(item, &all, approved, "changed")?;
        let keys = self.vault_keys();
        let keys = keys.iter().filter(|key| key.item == *item).map(VaultKey::summary).collect();
        Ok(Reply::SshKeys { keys })
    }

    pub(super) fn write_key(
        &self,
        item: &ItemName,
        fields: &[Field],
        approved: &Approved,
        action: &'static str,
    ) -> Result<(), Refusal> {
        let write = || -> Result<(), Refusal> {
            let anchor = Some(self.log_head()?);
            let mut vault = self.vault.borrow_mut();
            Ok(vault.write(index::Kind::Item, item.as_str(), fields, &clock::now(), anchor)?)
        };
        write().map_err(|refusal| self.failed(approved, refusal))?;
        let changed =
            Event::ItemChanged { request: approved.request, item: item.to_string(), field: None, action };
        Ok(self.record(&changed, approved.durable)?)
    }

    pub(super) fn key_named(&self, item: &ItemName) -> Result<VaultKey, Refusal> {
        let keys = self.vault_keys();
        let gone = || Refusal::NotFound { what: "ssh key", name: item.to_string() };
        keys.iter().find(|key| key.item == *item).cloned().ok_or_else(gone)
    }
}

/// What storing a key touches.
pub(super) fn written(item: &ItemName) -> Vec<(Kind, Subject)> {
    [Kind::ItemWrite, Kind::KeyAdd]
        .map(|kind| (kind, Subject::of_item(item.as_str(), item.as_str())))
        .to_vec()
}

/// A certificate where the text is a public line; an error where the line is no certificate.
fn as_certificate(text: &[u8]) -> Option<Result<PublicKey, Refusal>> {
    let (key, _) = read_public_line(str::from_utf8(text).ok()?.trim()).ok()?;
    let certified = key.certificate().is_some_and(signing::certificate_is_signed);
    Some(if certified { Ok(key) } else { Err(AgentRefusal::PublicHalf.into()) })
}

/// `certificate 'id' for git, root until 2027-01-31T00:00:00Z`
pub(super) fn shown_certificate(key: &PublicKey) -> String {
    let Some(certificate) = key.certificate() else { return String::new() };
    let principals = if certificate.principals.is_empty() {
        "any user".to_owned()
    } else {
        certificate.principals.join(", ")
    };
    let id = String::from_utf8_lossy(&certificate.key_id);
    let (until, by) = (clock::shown(certificate.valid_before), signing::fingerprint(&certificate.authority));
    format!("certificate '{id}' for {principals} until {until}, signed by {by}")
}

/// Reads a key's file, which may lie on a mount that does not answer.
async fn read_file(file: OwnedFd) -> Result<Zeroizing<Vec<u8>>, Refusal> {
    let read = move || {
        let file = File::from(file);
        if !file.metadata().ok()?.is_file() {
            return None;
        }
        let mut text = Zeroizing::new(Vec::with_capacity(limits::IDENTITY + 1));
        file.take(limits::IDENTITY as u64 + 1).read_to_end(&mut text).ok()?;
        (text.len() <= limits::IDENTITY).then_some(text)
    };
    let text = patience::look(read).await.flatten();
    text.ok_or(Refusal::Input("the key's file cannot be read, or is no file, or longer than 64 KiB"))
}

pub(super) fn public_field(name: &str, text: &str) -> Result<Field, Refusal> {
    Ok(Field { name: field_name(name)?, public: true, value: SecretBytes::copy_of(text.as_bytes()) })
}

/// Our own names are names.
fn field_name(name: &str) -> Result<FieldName, Refusal> {
    FieldName::parse(name).map_err(|_| Refusal::Task)
}
