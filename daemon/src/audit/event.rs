//! What the log tells. Past tense; names, paths and numbers, never a value.

use super::given::Given;
use crate::approval::question::Certainty;
use crate::requester::Requester;
use crate::vault::local::keys::mac;
use chacha20poly1305::aead::{Aead, KeyInit};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use data_encoding::{BASE64, HEXLOWER};
use keyloan_protocol::secret::SecretBytes;
use serde::Serialize;
use zeroize::Zeroizing;

const NONCE: usize = 24;

#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Event {
    DaemonStarted {
        version: &'static str,
        pid: u32,
    },
    DaemonStopped,
    VaultCreated,
    Unlocked {
        by: Who,
    },
    /// The key in the desktop's keyring was taken to open the vault.
    KeyringUsed {
        by: Who,
    },
    /// Questions go to another place from here on.
    SurfaceMoved {
        by: Who,
    },
    /// A terminal answers what is asked from here on.
    ApproverEnrolled {
        by: Who,
    },
    /// It does no more; `Locked` says the same.
    ApproverLeft {
        by: Who,
    },
    UnlockFailed {
        by: Who,
    },
    Locked {
        why: &'static str,
    },
    PinFailed {
        by: Who,
        failures: u32,
    },
    Requested {
        request: u64,
        act: String,
        names: Vec<String>,
        by: Who,
    },
    Decided {
        request: u64,
        decision: &'static str,
        rule: String,
        approver: Option<String>,
    },
    Approved {
        request: u64,
        names: Vec<String>,
    },
    /// The yes covers more than its request.
    Granted {
        request: u64,
        grant: u64,
        scope: String,
        covers: String,
        holder: String,
    },
    GrantEnded {
        grant: u64,
        why: &'static str,
    },
    Lent {
        request: u64,
        loan: u64,
        names: Vec<String>,
        pid: i32,
        #[serde(skip_serializing_if = "Option::is_none")]
        given: Option<Given>,
    },
    Released {
        request: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        given: Option<Given>,
    },
    Failed {
        request: u64,
        cause: String,
    },
    Undelivered {
        loan: u64,
    },
    LoanEnded {
        loan: u64,
        why: &'static str,
    },
    /// What a linked vault had made for a loan, or for a request that came to nothing, is ended there.
    LeaseEnded {
        #[serde(skip_serializing_if = "Option::is_none")]
        loan: Option<u64>,
        vault: String,
        item: String,
    },
    /// It could not be ended, and is good for as long as the vault has said.
    LeaseLeft {
        #[serde(skip_serializing_if = "Option::is_none")]
        loan: Option<u64>,
        vault: String,
        item: String,
        cause: String,
    },
    /// Lent files could not be removed when their loan ended.
    FilesLeft {
        loan: u64,
    },
    ItemChanged {
        request: u64,
        item: String,
        field: Option<String>,
        action: &'static str,
    },
    /// A key that a client added over the agent's socket, by its fingerprint.
    AgentKeyAdded {
        request: u64,
        key: String,
    },
    Signed {
        request: u64,
        key: String,
        permits: String,
        /// By which the login is made, where that is not the bare key.
        #[serde(skip_serializing_if = "Option::is_none")]
        certificate: Option<String>,
        /// The fingerprint of the host's key, and how sure its name is.
        #[serde(skip_serializing_if = "Option::is_none")]
        host_key: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        host_is: Option<Certainty>,
        #[serde(skip_serializing_if = "Option::is_none")]
        given: Option<Given>,
    },
    /// A linked vault made a certificate for one login.
    CertificateMade {
        request: u64,
        /// The fingerprint of the key that it is for.
        key: String,
        by: String,
        /// Whom it lets in, what the authority calls it and its number there, and whose signature it has.
        users: Vec<String>,
        id: String,
        serial: u64,
        signed_by: String,
        until: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        given: Option<Given>,
    },
    /// The client was gone when its signature was sent.
    SignatureUndelivered {
        request: u64,
    },
    /// A request over the agent's socket that no policy was asked for.
    AgentRefused {
        what: &'static str,
        cause: String,
        by: Who,
    },
    /// The file of public keys beside the vault was not the vault's own, and was written anew.
    PublicKeysReplaced,
    HostChanged {
        request: u64,
        host: String,
        action: &'static str,
    },
    TrustChanged {
        request: u64,
        path: String,
        sha256: Option<String>,
        action: &'static str,
    },
    PolicyChanged {
        settings: Vec<String>,
        by: Who,
    },
    /// A linked vault was added, changed or removed.
    VaultChanged {
        name: String,
        kind: String,
        action: &'static str,
        by: Who,
    },
    RecipientChanged {
        name: String,
        action: &'static str,
        by: Who,
    },
    PassphraseChanged {
        by: Who,
    },
    PinChanged {
        by: Who,
    },
    PhraseChanged {
        by: Who,
    },
    BackedUp {
        items: usize,
        recipients: Vec<String>,
        by: Who,
    },
    Restored {
        items: usize,
        by: Who,
    },
    Rekeyed {
        by: Who,
    },
    Merged {
        request: u64,
        added: usize,
        updated: usize,
        conflicts: usize,
    },
    /// Records written while the vault was locked, now vouched for by its key.
    Adopted {
        from: u64,
        to: u64,
    },
    /// The end of the log was a record cut short by a crash; it was removed.
    Repaired {
        bytes: u64,
    },
    /// The log is not what the vault remembers.
    Mismatched {
        expected: u64,
        found: u64,
    },
    /// So many requests more than the last that was written down were refused without a question: there were too many.
    TurnedAway {
        count: u64,
    },
}

/// The requester, for the log.
#[derive(Clone, Serialize)]
pub(crate) struct Who {
    pub(crate) pid: i32,
    pub(crate) uid: u32,
    /// Program files, the requester's and its parent's.
    pub(crate) programs: Vec<String>,
    pub(crate) cwd: Option<String>,
    pub(crate) terminal: Option<String>,
    /// HMAC-SHA256 of the claimed command line, to tell equal ones without reading them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) command_hash: Option<String>,
    /// The claimed command line, encrypted: people put tokens there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) command: Option<String>,
}

impl Who {
    /// The requester as the log tells it. The command line is kept only where the vault's key is at hand.
    pub(crate) fn from(requester: &Requester, key: Option<&[u8]>) -> Self {
        let argv = requester.claimed.argv.as_ref().map(SecretBytes::expose);
        let hash =
            |argv| HEXLOWER.encode(&mac(key.unwrap_or_default(), &[b"keyloan command hash v1", argv])[..16]);
        let path = |path: &std::path::Path| path.display().to_string();
        let program =
            |program: &Option<std::path::PathBuf>| program.as_deref().map_or_else(String::new, path);
        Self {
            pid: requester.peer.pid,
            uid: requester.peer.uid,
            programs: requester.programs.iter().map(program).collect(),
            cwd: requester.cwd.as_deref().map(path),
            terminal: requester.terminal_name(),
            command_hash: argv.filter(|_| key.is_some()).map(hash),
            command: key.zip(argv).and_then(|(key, argv)| encrypt_command(key, argv)),
        }
    }
}

/// The longest command line kept; what is longer is kept by its head.
const COMMAND: usize = 16 * 1024;

fn cipher(key: &[u8]) -> XChaCha20Poly1305 {
    let key = Zeroizing::new(mac(key, &[b"keyloan commands v1"]));
    XChaCha20Poly1305::new(key.as_slice().into())
}

/// A random nonce of 192 bits, then XChaCha20-Poly1305, in base64.
fn encrypt_command(key: &[u8], argv: &[u8]) -> Option<String> {
    let mut sealed = vec![0; NONCE];
    getrandom::fill(&mut sealed).ok()?;
    let nonce = *XNonce::from_slice(&sealed);
    sealed.extend(cipher(key).encrypt(&nonce, &argv[..argv.len().min(COMMAND)]).ok()?);
    Some(BASE64.encode(&sealed))
}

/// The command line of a record; each argument is followed by a NUL.
pub(crate) fn decrypt_command(key: &[u8], sealed: &str) -> Option<Zeroizing<Vec<u8>>> {
    let sealed = BASE64.decode(sealed.as_bytes()).ok()?;
    let (nonce, sealed) = sealed.split_at_checked(NONCE)?;
    cipher(key).decrypt(XNonce::from_slice(nonce), sealed).ok().map(Zeroizing::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_is_read_back_with_its_key_only() {
        let sealed = encrypt_command(&[1; 32], b"curl\0-H\0token\0").unwrap();
        assert!(!sealed.contains("token"));
        assert_eq!(*decrypt_command(&[1; 32], &sealed).unwrap(), b"curl\0-H\0token\0");
        assert!(decrypt_command(&[2; 32], &sealed).is_none());
    }
}
