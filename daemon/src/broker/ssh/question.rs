//! The words of a question for a signature: what it permits, where, with which key.

use super::permits::{Holder, Permits, Place, shown_user};
use super::store::shown_certificate;
use super::{AgentConnection, Broker};
use crate::approval::question::Certainty;
use crate::git_buffer::{self, Signed};
use crate::patience;
use crate::signing;
use keyloan_platform::process;
use keyloan_protocol::names::quoted;
use keyloan_protocol::secret::SecretBytes;
use keyloan_protocol::ssh_agent::key::PublicKey;
use keyloan_protocol::ssh_agent::to_be_signed::{Document, DocumentHash};

/// Characters of a subject or an author's name that are shown.
const TEXT: usize = 200;

pub(super) type Lines = Vec<(&'static str, String, Certainty)>;

impl Broker {
    pub(super) async fn describe_signature(
        &self,
        connection: &mut AgentConnection,
        holder: &Holder,
        permits: &Permits,
        key: &PublicKey,
        can_be_kept: bool,
    ) -> Lines {
        let mut lines = match permits {
            Permits::Login(login, Place::Bound(host_key, host)) => {
                let (name, certainty) = host.shown();
                let mut lines = vec![
                    ("to", format!("{}@{name}", shown_user(login)), certainty),
                    ("host key", named_key(host_key), Certainty::Verified),
                ];
                if let Some(name) = host.could_be_pinned().filter(|_| self.is_open()) {
                    let way = format!("not yet: keyloan ssh hosts pin {}", quoted(name));
                    let text = if can_be_kept { "not yet".to_owned() } else { way };
                    lines.push(("pinned", text, Certainty::Verified));
                }
                lines
            }
            Permits::Login(login, Place::Unknown) => {
                let text = format!("{}@ UNKNOWN: the client does not say which host", shown_user(login));
                vec![("to", text, Certainty::Claimed)]
            }
            Permits::Other { sha256 } => vec![
                ("bytes", "neither a login nor a signature over a file".to_owned(), Certainty::Verified),
                ("hash", format!("SHA-256 {sha256}"), Certainty::Verified),
            ],
            Permits::Document(document) => self.describe_document(connection, document).await,
        };
        lines.extend(self.describe_hops(connection).await);
        let certainty = match holder {
            // The name may be what somebody wrote beside the locked vault; it is compared before it signs.
            Holder::Vault(_) if self.is_open() => Certainty::Verified,
            _ => Certainty::Claimed,
        };
        lines.push(("key", holder.shown(), certainty));
        lines.push(("key is", named_key(key), Certainty::Verified));
        if let Some(certificate) = permits.certificate() {
            lines.push(("by", shown_certificate(certificate), Certainty::Verified));
        }
        if let Holder::Vault(held) = holder
            && let Some(elsewhere) = &held.elsewhere
        {
            let certainty = if self.is_open() { Certainty::Asked } else { Certainty::Claimed };
            lines.push(("private", elsewhere.shown(), certainty));
        }
        lines.extend(self.command_line(connection).await);
        lines
    }

    /// What the client was started with.
    pub(super) async fn command_line(&self, connection: &mut AgentConnection) -> Lines {
        let pid = connection.client.requester.peer.pid;
        let command = patience::look(move || process::command_line(pid)).await.flatten();
        connection.client.requester.claimed.argv = command.map(SecretBytes::new);
        // A question for the passphrase shows it by itself.
        let shown = connection.client.requester.shown_command().filter(|_| self.is_open());
        shown.into_iter().map(|command| ("command", command, Certainty::Claimed)).collect()
    }

    /// Who else may be asking.
    pub(super) async fn describe_hops(&self, connection: &AgentConnection) -> Lines {
        let mut lines = Lines::new();
        if connection.binding.is_failed() {
            let text = "perhaps: the client could not prove where it comes from or goes to";
            lines.push(("forwarded", text.to_owned(), Certainty::Seen));
        }
        for hop in connection.binding.hops() {
            let (name, certainty) = self.name_host(&connection.client, hop).await.host.shown();
            lines.push(("forwarded", format!("from {name}, and so asked for by anybody there"), certainty));
            lines.push(("from key", named_key(hop), Certainty::Verified));
        }
        lines
    }

    async fn describe_document(&self, connection: &AgentConnection, document: &Document) -> Lines {
        let mut lines = vec![("for", format!("namespace {}", document.namespace), Certainty::Verified)];
        let requester = &connection.client.requester;
        let directory = requester.seen_directory().map(std::path::Path::to_owned);
        let (pid, hash) = (requester.peer.pid, document.hash);
        let is_git = document.namespace == "git";
        let look = move || {
            let directory = directory?;
            let repository = git_buffer::repository(&directory);
            let command = process::command_line(pid)?;
            Some((repository, git_buffer::find(&command, &directory, &hash)))
        };
        let (repository, signed) =
            if is_git { patience::look(look).await.flatten().unwrap_or_default() } else { (None, None) };
        if let Some(repository) = repository {
            lines.push(("in", format!("repository {}", repository.display()), Certainty::Seen));
        }
        match signed {
            Some(signed) => lines.extend(signed_lines(&signed)),
            None => lines.push(("hash", shown_hash(&document.hash), Certainty::Verified)),
        }
        lines
    }
}

/// The content is what will be signed: its hash is the one in the request.
fn signed_lines(signed: &Signed) -> Lines {
    let mut lines = Lines::new();
    let who = match &signed.kind {
        git_buffer::Kind::Commit => "author",
        git_buffer::Kind::Tag { name } => {
            lines.push(("tag", name.clone(), Certainty::Verified));
            "tagger"
        }
    };
    lines.push((who, shortened(&signed.person), Certainty::Verified));
    lines.push(("subject", shortened(&signed.subject), Certainty::Verified));
    lines
}

/// The beginning of a long text, with its length: its hash was compared, and a subject that fills the screen is no
/// reason not to sign.
fn shortened(text: &str) -> String {
    let count = text.chars().count();
    if count <= TEXT {
        return text.to_owned();
    }
    let beginning: String = text.chars().take(TEXT).collect();
    format!("{beginning}… ({count} characters)")
}

pub(super) fn named_key(key: &PublicKey) -> String {
    let certified = if key.certificate().is_some() { ", by a certificate" } else { "" };
    format!("{} {}{certified}", key.key_type().name(), signing::fingerprint(key))
}

fn shown_hash(hash: &DocumentHash) -> String {
    let (name, bytes) = match hash {
        DocumentHash::Sha256(bytes) => ("SHA-256", bytes.as_slice()),
        DocumentHash::Sha512(bytes) => ("SHA-512", bytes.as_slice()),
    };
    format!("{name} {}", data_encoding::HEXLOWER.encode(bytes))
}
