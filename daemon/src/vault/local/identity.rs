//! The identity files: the vault's one identity, wrapped by the passphrase and for each further recipient.
//! All of this is slow on purpose or talks to nobody; callers run it off the event loop.

use super::keys::KeyError;
use age::secrecy::SecretString;
use keyloan_protocol::secret::SecretBytes;
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

pub(crate) fn wrap(identity: &str, passphrase: &SecretString) -> Result<Vec<u8>, IdentityError> {
    let mut recipient = age::scrypt::Recipient::new(passphrase.clone());
    recipient.set_work_factor(WORK_FACTOR);
    let text = file_text(identity);
    Ok(age::encrypt(&recipient, text.as_bytes()).map_err(|_| KeyError::Encrypt)?)
}

/// The identity's text. A wrong passphrase and a damaged header look alike to age.
pub(crate) fn unwrap(wrapped: &[u8], passphrase: &SecretString) -> Result<Zeroizing<String>, IdentityError> {
    let mut identity = age::scrypt::Identity::new(passphrase.clone());
    identity.set_max_work_factor(WORK_FACTOR);
    let plaintext = super::keys::decrypt(&identity, wrapped).map_err(|_| IdentityError::Wrong)?;
    let text = str::from_utf8(&plaintext).map_err(|_| KeyError::NotAnIdentity)?;
    let line = text.lines().find(|line| line.starts_with("AGE-SECRET-KEY-1"));
    Ok(Zeroizing::new(line.ok_or(KeyError::NotAnIdentity)?.to_owned()))
}

/// Wraps the identity for a further recipient: another age key, or an ssh key.
pub(crate) fn wrap_for(identity: &str, recipient: &str) -> Result<Vec<u8>, IdentityError> {
    let recipient = recipient.trim();
    let text = file_text(identity);
    let recipient: Box<dyn age::Recipient> = if recipient.starts_with("ssh-") {
        Box::new(age::ssh::Recipient::from_str(recipient).map_err(|_| IdentityError::Recipient)?)
    } else if let Ok(recipient) = age::x25519::Recipient::from_str(recipient) {
        Box::new(recipient)
    } else if recipient.starts_with("age1") {
        return Err(IdentityError::Plugin);
    } else {
        return Err(IdentityError::Recipient);
    };
    let encryptor = age::Encryptor::with_recipients(std::iter::once(recipient.as_ref()))
        .map_err(|_| IdentityError::Recipient)?;
    let mut wrapped = Vec::new();
    let mut writer = encryptor.wrap_output(&mut wrapped).map_err(|_| KeyError::Encrypt)?;
    std::io::Write::write_all(&mut writer, text.as_bytes()).map_err(|_| KeyError::Encrypt)?;
    writer.finish().map_err(|_| KeyError::Encrypt)?;
    Ok(wrapped)
}

/// An identity file as age-keygen writes it, so that `age -d` gives a file that `age -i` takes.
fn file_text(identity: &str) -> Zeroizing<String> {
    const HEADING: &str = "# the identity of a keyloan vault\n";
    let mut text = Zeroizing::new(String::with_capacity(HEADING.len() + identity.len() + 1));
    text.push_str(HEADING);
    text.push_str(identity);
    text.push('\n');
    text
}
