//! The data types of RFC 4251 section 5, read from and written to one message.
//!
//! A reader cannot see past the bytes it was made from, and whoever reads says with [`Reader::end`] that nothing
//! may follow: a field that swallows its neighbours, or bytes that nobody looked at, are errors. A writer runs
//! twice, first counting, so that its buffer is made once at full size and growth leaves no copy of a secret.

use zeroize::Zeroizing;

/// Why a well-framed message, or a part of it, is not what the protocol says. Holds nothing of the bytes. The
/// agent answers FAILURE and the connection lives on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("a field is longer than what holds it")]
    Truncated,
    #[error("bytes follow the last field")]
    Trailing,
    #[error("a text is not UTF-8, or holds a NUL")]
    Text,
    #[error("a field that may not be empty is")]
    Empty,
    #[error("an integer is not positive, or not in its shortest form")]
    Integer,
    #[error("too many elements in a list")]
    TooMany,
    #[error("a message of type {0} is not expected here")]
    MessageType(u8),
    #[error("unknown signature flags")]
    Flags,
    #[error("a key of a type that is not supported")]
    KeyType,
    #[error("an ECDSA key on another curve than its type says")]
    Curve,
    #[error("the public half of a key has a wrong length or form")]
    PublicKey,
    #[error("an RSA key whose size or exponent is not supported")]
    Rsa,
    #[error("the private half of a key has a wrong length or form")]
    PrivateKey,
    #[error("the halves of a key, or a key and its certificate, do not belong together")]
    Mismatch,
    #[error("a certificate where a plain key is wanted, or the other way round")]
    Certificate,
    #[error("a certificate of an unknown kind")]
    CertificateKind,
    #[error("an option of a certificate is repeated")]
    RepeatedOption,
    #[error("a constraint that is unknown, or not known for this kind of key")]
    Constraint,
    #[error("a constraint is repeated")]
    RepeatedConstraint,
    #[error("a destination without a host or without its keys")]
    Destination,
    #[error("a signature algorithm that is not supported")]
    SignatureAlgorithm,
    #[error("a signature has a wrong length or form, or is not of its key's type")]
    Signature,
}

/// Reads fields one after another from the bytes of one message, or of one string in it.
#[derive(Clone, Copy)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// What was not read yet; it is not read by this either.
    pub const fn unread(&self) -> &'a [u8] {
        self.rest
    }

    /// Reads all that is left.
    pub fn remainder(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// Nothing may follow.
    pub const fn end(&self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed::Trailing) }
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(Malformed::Truncated)?;
        self.rest = rest;
        Ok(*taken)
    }

    pub fn u8(&mut self) -> Result<u8, Malformed> {
        self.array().map(u8::from_be_bytes)
    }

    /// Every value but 0 is true.
    pub fn boolean(&mut self) -> Result<bool, Malformed> {
        self.u8().map(|byte| byte != 0)
    }

    pub fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    pub fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_be_bytes)
    }

    pub fn string(&mut self) -> Result<&'a [u8], Malformed> {
        #[cfg(test)]
        tests::LENGTHS.with_borrow_mut(|lengths| {
            if let Some(lengths) = lengths {
                lengths.push(self.rest.as_ptr().addr());
            }
        });
        let length = usize::try_from(self.u32()?).map_err(|_| Malformed::Truncated)?;
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(Malformed::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    /// A reader of the inside of a string.
    pub fn nested(&mut self) -> Result<Self, Malformed> {
        self.string().map(Self::new)
    }

    /// A string in UTF-8. NUL is refused: programs in C would see a shorter name than a prompt shows.
    pub fn text(&mut self) -> Result<&'a str, Malformed> {
        let text = std::str::from_utf8(self.string()?).map_err(|_| Malformed::Text)?;
        if text.contains('\0') { Err(Malformed::Text) } else { Ok(text) }
    }

    /// The magnitude of a positive mpint, big-endian, without leading zeros. Zero, negative numbers and longer
    /// forms than RFC 4251 section 5 allows are refused, so that a key has one encoding only.
    pub fn mpint(&mut self) -> Result<&'a [u8], Malformed> {
        match self.string()? {
            [0, magnitude @ ..] if magnitude.first().is_some_and(|&first| first >= 0x80) => Ok(magnitude),
            magnitude @ [1..=0x7f, ..] => Ok(magnitude),
            _ => Err(Malformed::Integer),
        }
    }
}

/// The length of a magnitude in bits.
pub(super) fn bits(magnitude: &[u8]) -> usize {
    let Some((first, rest)) = magnitude.split_first() else { return 0 };
    let first = usize::try_from(u8::BITS.saturating_sub(first.leading_zeros())).unwrap_or(0);
    rest.len().saturating_mul(8).saturating_add(first)
}

/// Writes fields one after another. See [`encode`].
pub struct Writer {
    length: usize,
    /// Absent while counting.
    out: Option<Zeroizing<Vec<u8>>>,
}

/// How many bytes `write` writes.
pub(super) fn length(write: impl Fn(&mut Writer)) -> usize {
    let mut counting = Writer { length: 0, out: None };
    write(&mut counting);
    counting.length
}

/// What `write` writes, in a buffer that never grew.
pub fn encode(write: impl Fn(&mut Writer)) -> Zeroizing<Vec<u8>> {
    let out = Some(Zeroizing::new(Vec::with_capacity(length(&write))));
    let mut writer = Writer { length: 0, out };
    write(&mut writer);
    writer.out.unwrap_or_default()
}

/// The same for what is no secret.
pub(super) fn encode_public(write: impl Fn(&mut Writer)) -> Vec<u8> {
    std::mem::take(&mut *encode(write))
}

impl Writer {
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.length = self.length.saturating_add(bytes.len());
        if let Some(out) = &mut self.out {
            out.extend_from_slice(bytes);
        }
    }

    pub fn u8(&mut self, value: u8) {
        self.bytes(&[value]);
    }

    pub fn boolean(&mut self, value: bool) {
        self.u8(value.into());
    }

    pub fn u32(&mut self, value: u32) {
        self.bytes(&value.to_be_bytes());
    }

    pub fn u64(&mut self, value: u64) {
        self.bytes(&value.to_be_bytes());
    }

    /// A length that does not fit is written as the largest; such a message is beyond every cap.
    pub(super) fn prefix(&mut self, length: usize) {
        self.u32(u32::try_from(length).unwrap_or(u32::MAX));
    }

    pub fn string(&mut self, bytes: &[u8]) {
        self.prefix(bytes.len());
        self.bytes(bytes);
    }

    pub fn text(&mut self, text: &str) {
        self.string(text.as_bytes());
    }

    /// A string that holds what `write` writes.
    pub fn nested(&mut self, write: impl Fn(&mut Self)) {
        self.prefix(length(&write));
        write(self);
    }

    /// A magnitude as an mpint; leading zeros are left out.
    pub fn mpint(&mut self, magnitude: &[u8]) {
        let zeros = magnitude.iter().take_while(|&&byte| byte == 0).count();
        let magnitude = magnitude.get(zeros..).unwrap_or_default();
        let sign = magnitude.first().is_some_and(|&first| first >= 0x80);
        self.prefix(magnitude.len().saturating_add(usize::from(sign)));
        if sign {
            self.u8(0);
        }
        self.bytes(magnitude);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::cell::RefCell;

    thread_local! {
        /// Where the lengths of the strings stood that this thread read, while a test wants to know.
        pub(in crate::ssh_agent) static LENGTHS: RefCell<Option<Vec<usize>>> = const { RefCell::new(None) };
    }

    #[test]
    fn integers_have_one_form_and_are_positive() {
        // The examples of RFC 4251 section 5, and forms that it forbids.
        for (bytes, magnitude) in [
            (b"\0\0\0\x02\0\x80".as_slice(), Ok(b"\x80".as_slice())),
            (b"\0\0\0\x08\x09\xa3\x78\xf9\xb2\xe3\x32\xa7", Ok(b"\x09\xa3\x78\xf9\xb2\xe3\x32\xa7")),
            (b"\0\0\0\0", Err(Malformed::Integer)),
            (b"\0\0\0\x01\0", Err(Malformed::Integer)),
            (b"\0\0\0\x02\0\x7f", Err(Malformed::Integer)),
            (b"\0\0\0\x03\0\0\x80", Err(Malformed::Integer)),
            (b"\0\0\0\x02\xed\xcc", Err(Malformed::Integer)),
            (b"\0\0\0\x03\x01\x02", Err(Malformed::Truncated)),
        ] {
            assert_eq!(Reader::new(bytes).mpint(), magnitude, "{bytes:?}");
            if let Ok(magnitude) = magnitude {
                let padded = [b"\0\0\0".as_slice(), magnitude].concat();
                assert_eq!(*encode(|out| out.mpint(&padded)), bytes);
            }
        }
    }

    #[test]
    fn a_length_beyond_the_message_is_an_error_and_allocates_nothing() {
        assert_eq!(Reader::new(b"\x40\0\0\0abc").string(), Err(Malformed::Truncated));
        assert_eq!(Reader::new(b"\xff\xff\xff\xffabc").string(), Err(Malformed::Truncated));
        assert_eq!(Reader::new(b"\0\0\0").string(), Err(Malformed::Truncated));
    }

    #[test]
    fn a_name_that_c_would_cut_short_is_refused() {
        assert_eq!(Reader::new(b"\0\0\0\x04root").text(), Ok("root"));
        assert_eq!(Reader::new(b"\0\0\0\x06root\0x").text(), Err(Malformed::Text));
        assert_eq!(Reader::new(b"\0\0\0\x02\xc3\x28").text(), Err(Malformed::Text));
    }

    #[test]
    fn a_buffer_is_made_at_its_full_size() {
        let out = encode(|out| {
            out.u8(1);
            out.nested(|out| {
                out.text("ab");
                out.nested(|out| out.u64(7));
            });
        });
        assert_eq!(*out, b"\x01\0\0\0\x12\0\0\0\x02ab\0\0\0\x08\0\0\0\0\0\0\0\x07");
        assert_eq!(out.len(), out.capacity());
    }

    #[test]
    fn bits_are_counted_from_the_highest_that_is_set() {
        assert_eq!((bits(b""), bits(b"\x01"), bits(b"\x80"), bits(b"\x01\0\0")), (0, 1, 8, 17));
    }
}
