//! The identity files: the vault's one identity, wrapped by the passphrase and for each further recipient.
//! All of this is slow on purpose or talks to nobody; callers run it off the event loop.

use super::keys::KeyError;
use age::secrecy::SecretString;
use data_encoding::{BASE64, BASE64_NOPAD};
use keyloan_protocol::secret::SecretBytes;
use sha2::{Digest as _, Sha256};
use std::str::FromStr;
use zeroize::Zeroizing;

/// scrypt's log2 N. Fixed here, since the crate would measure the machine instead: 2^17 takes a third of a
/// second and 128 MiB on the machines this was written for.
const WORK_FACTOR: u8 = 17;

/// The longest identity file; a wrapped identity is a few hundred bytes.
pub(crate) const MOST: usize = 64 * 1024;

#[derive(Debug, thiserror::Error)]
pub(crate) enum IdentityError {
    #[error("the passphrase is not the right one (or identity/passphrase.age is damaged)")]
    Wrong,
    #[error("this is not the vault's recovery key")]
    RecoveryKey,
    #[error("this is no identity that opens age files (AGE-SECRET-KEY-1…, or an OpenSSH private key)")]
    Unreadable,
    #[error(
        "this ssh key has a passphrase of its own; open the file with: age -d -i KEY FILE | keyloan restore -"
    )]
    Encrypted,
    #[error("a passphrase must be text (UTF-8)")]
    NotText,
    #[error("a passphrase is empty")]
    Empty,
    #[error("this is no recipient keyloan can wrap a key for (age1…, ssh-ed25519 … or ssh-rsa …)")]
    Recipient,
    #[error("a hardware token's recipient needs its age plugin; wrap the key with the age program instead")]
    Plugin,
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// A passphrase as age wants it.
pub(crate) fn passphrase(bytes: &SecretBytes) -> Result<SecretString, IdentityError> {
    if bytes.is_empty() {
        return Err(IdentityError::Empty);
    }
    let text = str::from_utf8(bytes.expose()).map_err(|_| IdentityError::NotText)?;
    Ok(SecretString::from(text.to_owned()))
}

/// Encrypts by a passphrase, with the work factor that is fixed here.
pub(crate) fn by_passphrase(passphrase: &SecretString) -> age::scrypt::Recipient {
    let mut recipient = age::scrypt::Recipient::new(passphrase.clone());
    recipient.set_work_factor(WORK_FACTOR);
    recipient
}

/// Decrypts what [`by_passphrase`] encrypted; a file that would take longer is refused.
pub(crate) fn with_passphrase(passphrase: &SecretString) -> age::scrypt::Identity {
    let mut identity = age::scrypt::Identity::new(passphrase.clone());
    identity.set_max_work_factor(WORK_FACTOR);
    identity
}

/// Another age key, or an ssh key, as a recipient.
pub(crate) fn recipient(text: &str) -> Result<Box<dyn age::Recipient + Send>, IdentityError> {
    let text = text.trim();
    if text.starts_with("ssh-") {
        Ok(Box::new(age::ssh::Recipient::from_str(text).map_err(|_| IdentityError::Recipient)?))
    } else if let Ok(recipient) = age::x25519::Recipient::from_str(text) {
        Ok(Box::new(recipient))
    } else if text.starts_with("age1") {
        Err(IdentityError::Plugin)
    } else {
        Err(IdentityError::Recipient)
    }
}

/// The private halves in an identity file: age's own, or an ssh key without a passphrase.
pub(crate) fn identities(text: &str) -> Result<Vec<Box<dyn age::Identity>>, IdentityError> {
    if text.contains("-----BEGIN") {
        let identity =
            age::ssh::Identity::from_buffer(text.as_bytes(), None).map_err(|_| IdentityError::Unreadable)?;
        return match identity {
            age::ssh::Identity::Unencrypted(_) => Ok(vec![Box::new(identity)]),
            _ => Err(IdentityError::Encrypted),
        };
    }
    let lines = text.lines().filter(|line| line.starts_with("AGE-SECRET-KEY-1"));
    let keys = lines.map(|line| age::x25519::Identity::from_str(line.trim()));
    let keys = keys.collect::<Result<Vec<_>, _>>().map_err(|_| IdentityError::Unreadable)?;
    if keys.is_empty() {
        return Err(IdentityError::Unreadable);
    }
    Ok(keys.into_iter().map(|key| Box::new(key) as Box<dyn age::Identity>).collect())
}

/// A new key that opens the vault when the passphrase is lost: its text, and the recipient it belongs to.
pub(crate) fn recovery_key() -> (SecretBytes, String) {
    use age::secrecy::ExposeSecret;
    let key = age::x25519::Identity::generate();
    (SecretBytes::copy_of(key.to_string().expose_secret().as_bytes()), key.to_public().to_string())
}

/// A recipient for people: an ssh key by its fingerprint, since the key itself fills a screen.
pub(crate) fn shown(recipient: &str) -> String {
    let mut words = recipient.split_whitespace();
    match (words.next(), words.next().and_then(|blob| BASE64.decode(blob.as_bytes()).ok())) {
        (Some(kind), Some(blob)) if kind.starts_with("ssh-") => {
            format!("{kind} SHA256:{}", BASE64_NOPAD.encode(&Sha256::digest(blob)))
        }
        _ => recipient.trim().to_owned(),
    }
}

/// What was typed, if it is a recovery key: in any case, with the spaces that it is printed with.
pub(crate) fn typed_recovery_key(typed: &SecretBytes) -> Option<Zeroizing<String>> {
    let text = str::from_utf8(typed.expose()).ok()?;
    let mut key = Zeroizing::new(String::with_capacity(text.len()));
    key.extend(text.chars().filter(|c| !c.is_whitespace()).map(|c| c.to_ascii_uppercase()));
    key.starts_with("AGE-SECRET-KEY-1").then_some(key)
}

/// The identity, wrapped for the recovery key.
pub(crate) fn unwrap_by_key(wrapped: &[u8], key: &str) -> Result<Zeroizing<String>, IdentityError> {
    let key = age::x25519::Identity::from_str(key).map_err(|_| IdentityError::RecoveryKey)?;
    let plaintext = super::keys::decrypt(&key, wrapped).map_err(|_| IdentityError::RecoveryKey)?;
    identity_line(&plaintext)
}

pub(crate) fn wrap(identity: &str, passphrase: &SecretString) -> Result<Vec<u8>, IdentityError> {
    let text = file_text(identity);
    Ok(age::encrypt(&by_passphrase(passphrase), text.as_bytes()).map_err(|_| KeyError::Encrypt)?)
}

/// The identity's text. A wrong passphrase and a damaged header look alike to age.
pub(crate) fn unwrap(wrapped: &[u8], passphrase: &SecretString) -> Result<Zeroizing<String>, IdentityError> {
    let plaintext =
        super::keys::decrypt(&with_passphrase(passphrase), wrapped).map_err(|_| IdentityError::Wrong)?;
    identity_line(&plaintext)
}

pub(super) fn identity_line(plaintext: &[u8]) -> Result<Zeroizing<String>, IdentityError> {
    let text = str::from_utf8(plaintext).map_err(|_| KeyError::NotAnIdentity)?;
    let line = text.lines().find(|line| line.starts_with("AGE-SECRET-KEY-1"));
    Ok(Zeroizing::new(line.ok_or(KeyError::NotAnIdentity)?.to_owned()))
}

/// Wraps the identity for a further recipient: another age key, or an ssh key.
pub(crate) fn wrap_for(identity: &str, to: &str) -> Result<Vec<u8>, IdentityError> {
    let to = recipient(to)?;
    let to: &dyn age::Recipient = to.as_ref();
    let encryptor =
        age::Encryptor::with_recipients(std::iter::once(to)).map_err(|_| IdentityError::Recipient)?;
    let text = file_text(identity);
    let mut wrapped = Vec::new();
    let mut writer = encryptor.wrap_output(&mut wrapped).map_err(|_| KeyError::Encrypt)?;
    std::io::Write::write_all(&mut writer, text.as_bytes()).map_err(|_| KeyError::Encrypt)?;
    writer.finish().map_err(|_| KeyError::Encrypt)?;
    Ok(wrapped)
}

/// An identity file as age-keygen writes it, so that `age -d` gives a file that `age -i` takes.
pub(super) fn file_text(identity: &str) -> Zeroizing<String> {
    const HEADING: &str = "# the identity of a keyloan vault\n";
    let mut text = Zeroizing::new(String::with_capacity(HEADING.len() + identity.len() + 1));
    text.push_str(HEADING);
    text.push_str(identity);
    text.push('\n');
    text
}
