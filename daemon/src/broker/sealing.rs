//! Secrets that stay in memory for a while: each sealed with a key of this process that lies in protected pages. What
//! gets at other memory, as a core or swap would, has the sealed bytes and not the key.

use chacha20poly1305::aead::{AeadInPlace, KeyInit};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use keyloan_platform::memory::{KeyPages, Slot};
use zeroize::Zeroizing;

pub(super) struct Sealing {
    pages: KeyPages,
    slot: Slot,
}

pub(super) struct Sealed {
    nonce: XNonce,
    bytes: Vec<u8>,
}

impl Sealed {
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    #[cfg(test)]
    pub(super) fn holds(&self, text: &[u8]) -> bool {
        self.bytes.windows(text.len()).any(|bytes| bytes == text)
    }
}

impl Sealing {
    pub(super) fn new() -> Option<Self> {
        let mut key = Zeroizing::new([0; 32]);
        getrandom::fill(key.as_mut()).ok()?;
        let mut pages = KeyPages::new().ok()?;
        let slot = pages.store(key.as_ref()).ok()?;
        Some(Self { pages, slot })
    }

    fn cipher(&self) -> Option<XChaCha20Poly1305> {
        XChaCha20Poly1305::new_from_slice(self.pages.expose(self.slot)).ok()
    }

    /// Overwritten in place by what they are sealed to.
    pub(super) fn seal(&self, mut bytes: Zeroizing<Vec<u8>>) -> Option<Sealed> {
        let mut nonce = XNonce::default();
        getrandom::fill(&mut nonce).ok()?;
        self.cipher()?.encrypt_in_place(&nonce, b"", &mut *bytes).ok()?;
        Some(Sealed { nonce, bytes: std::mem::take(&mut *bytes) })
    }

    pub(super) fn open(&self, sealed: &Sealed) -> Option<Zeroizing<Vec<u8>>> {
        let mut bytes = Zeroizing::new(sealed.bytes.clone());
        self.cipher()?.decrypt_in_place(&sealed.nonce, b"", &mut *bytes).ok()?;
        Some(bytes)
    }
}
