//! The keys of an open vault, in protected pages. What is copied out of them lives for one operation and
//! is wiped.

use age::secrecy::ExposeSecret;
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use keyloan_platform::memory::{KeyPages, Protection, Slot};
use sha2::Sha256;
use std::io;
use std::str::FromStr;
use zeroize::Zeroizing;

pub(crate) type HmacSha256 = Hmac<Sha256>;

/// A MAC or a chain value, SHA-256 wide.
pub(crate) type Digest = [u8; 32];

pub(crate) struct Keys {
    pages: KeyPages,
    identity: Slot,
    index: Slot,
    recipient: age::x25519::Recipient,
}

impl Keys {
    /// Takes an identity in its text form (`AGE-SECRET-KEY-1…`), as the identity files hold it.
    pub(crate) fn from_text(text: &str) -> Result<Self, KeyError> {
        let identity = age::x25519::Identity::from_str(text).map_err(|_| KeyError::NotAnIdentity)?;
        let mut pages = KeyPages::new().map_err(KeyError::Pages)?;
        let mut mac_key = Zeroizing::new([0_u8; 32]);
        // age does not say who wrote a file; this key, derived from the identity, does.
        Hkdf::<Sha256>::new(None, text.as_bytes())
            .expand(b"keyloan index v1", mac_key.as_mut())
            .map_err(|_| KeyError::NotAnIdentity)?;
        Ok(Self {
            identity: pages.store(text.as_bytes()).map_err(KeyError::Pages)?,
            index: pages.store(mac_key.as_ref()).map_err(KeyError::Pages)?,
            recipient: identity.to_public(),
            pages,
        })
    }

    pub(crate) fn generate() -> Result<Self, KeyError> {
        let text = age::x25519::Identity::generate().to_string();
        Self::from_text(text.expose_secret())
    }

    pub(crate) fn protection(&self) -> Protection {
        self.pages.protection()
    }

    /// The identity's text form, to be wrapped for a recipient.
    pub(crate) fn expose_identity(&self) -> &str {
        str::from_utf8(self.pages.expose(self.identity)).unwrap_or_default()
    }

    /// Whether an identity's text is this one's, in constant time.
    pub(crate) fn is_identity(&self, text: &str) -> bool {
        subtle::ConstantTimeEq::ct_eq(self.pages.expose(self.identity), text.as_bytes()).into()
    }

    pub(crate) fn mac(&self, domain: &[u8], body: &[u8]) -> Digest {
        mac(self.pages.expose(self.index), &[domain, body])
    }

    /// Keeps a further key (the audit key) in the same pages.
    pub(crate) fn store(&mut self, key: &[u8]) -> io::Result<Slot> {
        self.pages.store(key)
    }

    pub(crate) fn expose(&self, slot: Slot) -> &[u8] {
        self.pages.expose(slot)
    }

    pub(crate) fn encrypt(&self, plaintext: &[u8]) -> Result<Vec<u8>, KeyError> {
        age::encrypt(&self.recipient, plaintext).map_err(|_| KeyError::Encrypt)
    }

    /// Opens what was encrypted to this identity. The error does not tell a foreign file from a damaged one:
    /// age cannot.
    pub(crate) fn decrypt(&self, ciphertext: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let identity =
            age::x25519::Identity::from_str(self.expose_identity()).map_err(|_| KeyError::NotAnIdentity)?;
        decrypt(&identity, ciphertext)
    }
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyError {
    #[error("it does not hold an age identity")]
    NotAnIdentity,
    #[error("it is damaged, or was not made for this vault")]
    Decrypt,
    #[error("encryption failed")]
    Encrypt,
    #[error("no memory for keys: {0}")]
    Pages(io::Error),
}

/// HMAC-SHA256 over the parts, each preceded by its length, so that no two lists of parts give one input.
pub(crate) fn mac(key: &[u8], parts: &[&[u8]]) -> Digest {
    // HMAC takes a key of any length.
    let Ok(mut mac) = <HmacSha256 as Mac>::new_from_slice(key) else { return [0; 32] };
    for part in parts {
        mac.update(&(part.len() as u64).to_be_bytes());
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

/// Decrypts into one buffer of the ciphertext's size (it is never smaller), so that growing it leaves no
/// copy behind.
pub(crate) fn decrypt(
    identity: &dyn age::Identity,
    ciphertext: &[u8],
) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    use std::io::Read;
    let decryptor = age::Decryptor::new_buffered(ciphertext).map_err(|_| KeyError::Decrypt)?;
    let mut reader = decryptor.decrypt(std::iter::once(identity)).map_err(|_| KeyError::Decrypt)?;
    let mut plaintext = Zeroizing::new(vec![0; ciphertext.len()]);
    let mut length = 0;
    loop {
        match reader.read(&mut plaintext[length..]).map_err(|_| KeyError::Decrypt)? {
            0 => break,
            more => length += more,
        }
    }
    plaintext.truncate(length);
    Ok(plaintext)
}
