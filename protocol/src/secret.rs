//! Bytes that must leave no copy behind. No `Debug`, `Display`, `Clone` or `Serialize`; reading them is
//! a call to `expose`, which can be searched for.

use zeroize::Zeroizing;

/// A secret byte string, overwritten when dropped.
pub struct SecretBytes(secrecy::SecretSlice<u8>);

impl SecretBytes {
    /// Takes the bytes over. A vector with spare capacity is copied into one without, and wiped, because
    /// shrinking it in place could leave bytes behind in freed heap.
    pub fn new(bytes: Vec<u8>) -> Self {
        let bytes = Zeroizing::new(bytes);
        Self::copy_of(&bytes)
    }

    pub fn copy_of(bytes: &[u8]) -> Self {
        Self(Box::<[u8]>::from(bytes).into())
    }

    /// The bytes, for as long as the borrow lasts.
    pub fn expose(&self) -> &[u8] {
        secrecy::ExposeSecret::expose_secret(&self.0)
    }

    pub fn len(&self) -> usize {
        self.expose().len()
    }

    pub fn is_empty(&self) -> bool {
        self.expose().is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_come_back_whatever_the_capacity_was() {
        let mut bytes = Vec::with_capacity(100);
        bytes.extend_from_slice(b"tok\0\xff");
        let secret = SecretBytes::new(bytes);
        assert_eq!(secret.expose(), b"tok\0\xff");
        assert_eq!((secret.len(), secret.is_empty()), (5, false));
    }
}
