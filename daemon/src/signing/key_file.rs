//! Files of private keys in OpenSSH's own format: PROTOCOL.key.
//!
//! What is in a file belongs to whoever wrote it: the time that it asks for is capped, and its two public halves
//! must be one.

use super::KeyFault;
use bcrypt_pbkdf::bcrypt_pbkdf_with_memory;
use data_encoding::BASE64;
use keyloan_protocol::limits;
use keyloan_protocol::secret::SecretBytes;
use keyloan_protocol::ssh_agent::key::PublicKey;
use keyloan_protocol::ssh_agent::private_key::PrivateKey;
use keyloan_protocol::ssh_agent::wire::{self, Malformed, Reader};
use ssh_cipher::Cipher;
use zeroize::Zeroizing;

const BEGIN: &[u8] = b"-----BEGIN OPENSSH PRIVATE KEY-----";
const END: &[u8] = b"-----END OPENSSH PRIVATE KEY-----";
const MAGIC: &[u8] = b"openssh-key-v1\0";
const COLUMNS: usize = 70;
/// Of a file without encryption.
const BLOCK: usize = 8;
/// Of what bcrypt's derivation gives.
const BCRYPT_BLOCK: usize = 32;
/// `ssh-keygen` writes 16 or 24 unless told otherwise. This many take some seven seconds.
const ROUNDS: u32 = 1024;

/// Why a file does not give a key. Holds nothing of what is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum KeyFileError {
    #[error("the key is encrypted: its passphrase is wanted")]
    WantsPassphrase,
    #[error("the passphrase is wrong")]
    WrongPassphrase,
    #[error("the key is in an older format ({0}); `ssh-keygen -p -f FILE` converts it")]
    OldFormat(&'static str),
    #[error("the key is in PuTTY's format; `puttygen FILE -O private-openssh-new -o NEW` converts it")]
    Putty,
    #[error("it is not a file of an ssh private key")]
    NotAKey,
    #[error("keys of this type are not supported")]
    Unsupported,
    #[error(
        "the key is encrypted in a way that is not supported; `ssh-keygen -p -Z aes256-ctr -f FILE` changes that"
    )]
    Encryption,
    #[error(
        "the passphrase is stretched {0} times, more than {ROUNDS}; `ssh-keygen -p -a 100 -f FILE` changes that"
    )]
    Rounds(u32),
    #[error("it does not hold one key, but {0}")]
    Several(u32),
    #[error("the two public halves in it are not the same")]
    Mismatch,
    #[error("the file is damaged: {0}")]
    Damaged(Malformed),
}

impl From<Malformed> for KeyFileError {
    fn from(fault: Malformed) -> Self {
        match fault {
            Malformed::KeyType => Self::Unsupported,
            Malformed::Mismatch => Self::Mismatch,
            _ => Self::Damaged(fault),
        }
    }
}

/// What stands in a file in the clear though its key may be encrypted: the public half, and whether it is.
pub(crate) fn public_half(text: &[u8]) -> Result<(PublicKey, bool), KeyFileError> {
    let file = decoded(text)?;
    let mut outer = Reader::new(file.strip_prefix(MAGIC).ok_or(KeyFileError::NotAKey)?);
    let (cipher, _, _) = (outer.text()?, outer.text()?, outer.string()?);
    match outer.u32()? {
        1 => Ok((PublicKey::parse(outer.string()?)?, cipher != Cipher::None.as_str())),
        count => Err(KeyFileError::Several(count)),
    }
}

/// The key and its comment. A passphrase for a file that is not encrypted is not looked at.
pub(crate) fn read(
    text: &[u8],
    passphrase: Option<&SecretBytes>,
) -> Result<(PrivateKey, Vec<u8>), KeyFileError> {
    let file = decoded(text)?;
    let mut outer = Reader::new(file.strip_prefix(MAGIC).ok_or(KeyFileError::NotAKey)?);
    let (cipher, kdf, mut options) = (outer.text()?, outer.text()?, outer.nested()?);
    match outer.u32()? {
        1 => {}
        count => return Err(KeyFileError::Several(count)),
    }
    let public = PublicKey::parse(outer.string()?)?;
    let mut section = Zeroizing::new(outer.string()?.to_vec());
    let tag = outer.remainder();
    let encrypted = cipher != Cipher::None.as_str();
    if encrypted {
        let cipher = Cipher::new(cipher).map_err(|_| KeyFileError::Encryption)?;
        if kdf != "bcrypt" {
            return Err(KeyFileError::Encryption);
        }
        let (salt, rounds) = (options.string()?, options.u32()?);
        options.end()?;
        let passphrase = passphrase.ok_or(KeyFileError::WantsPassphrase)?;
        decrypt(cipher, salt, rounds, passphrase, &mut section, tag)?;
    } else if kdf != "none" || !options.is_empty() || !tag.is_empty() {
        return Err(KeyFileError::Encryption);
    }
    let mut inner = Reader::new(&section);
    // Of a mode without a tag this is what tells the right passphrase.
    if inner.u32()? != inner.u32()? {
        return Err(if encrypted { KeyFileError::WrongPassphrase } else { Malformed::PrivateKey.into() });
    }
    let key = PrivateKey::read(&mut inner)?;
    let comment = inner.string()?.to_vec();
    // 1, 2, 3 and so on.
    if !inner.remainder().iter().enumerate().all(|(place, &byte)| usize::from(byte) == place + 1) {
        return Err(Malformed::Trailing.into());
    }
    if *key.public() != public {
        return Err(KeyFileError::Mismatch);
    }
    Ok((key, comment))
}

/// The file as `ssh-keygen` writes it, not encrypted and without a certificate.
pub(crate) fn write(key: &PrivateKey, comment: &[u8]) -> Result<SecretBytes, KeyFault> {
    // PROTOCOL.key wants a random number, twice.
    let mut check = [0; 4];
    getrandom::fill(&mut check).map_err(|_| KeyFault::Library)?;
    let section = wire::encode(|out| {
        out.bytes(&check);
        out.bytes(&check);
        key.write_plain(out);
        out.string(comment);
    });
    let padding = section.len().next_multiple_of(BLOCK) - section.len();
    let file = wire::encode(|out| {
        out.bytes(MAGIC);
        out.text(Cipher::None.as_str());
        out.text("none");
        out.string(b"");
        out.u32(1);
        out.string(&key.public().plain_blob());
        out.nested(|out| {
            out.bytes(&section);
            (1..).take(padding).for_each(|byte| out.u8(byte));
        });
    });
    let mut base64 = Zeroizing::new(vec![0; BASE64.encode_len(file.len())]);
    BASE64.encode_mut(&file, &mut base64);
    let lines = base64.len() + base64.len().div_ceil(COLUMNS);
    let mut text = Vec::with_capacity(BEGIN.len() + 1 + lines + END.len() + 1);
    for line in [BEGIN].into_iter().chain(base64.chunks(COLUMNS)).chain([END]) {
        text.extend_from_slice(line);
        text.push(b'\n');
    }
    Ok(SecretBytes::new(text))
}

/// What is between the first line and the last one.
fn decoded(text: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyFileError> {
    let text = text.trim_ascii();
    if text.len() > limits::IDENTITY {
        return Err(KeyFileError::NotAKey);
    }
    let Some(lines) = text.strip_prefix(BEGIN).and_then(|rest| rest.strip_suffix(END)) else {
        return Err(other_format(text));
    };
    let mut base64 = Zeroizing::new(Vec::with_capacity(lines.len()));
    base64.extend(lines.iter().filter(|byte| !byte.is_ascii_whitespace()));
    let most = BASE64.decode_len(base64.len()).map_err(|_| KeyFileError::NotAKey)?;
    let mut file = Zeroizing::new(vec![0; most]);
    let length = BASE64.decode_mut(&base64, &mut file).map_err(|_| KeyFileError::NotAKey)?;
    file.truncate(length);
    Ok(file)
}

fn other_format(text: &[u8]) -> KeyFileError {
    let first = text.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default().trim_ascii_end();
    match first {
        b"-----BEGIN RSA PRIVATE KEY-----" => KeyFileError::OldFormat("PKCS #1"),
        b"-----BEGIN EC PRIVATE KEY-----" => KeyFileError::OldFormat("SEC 1"),
        b"-----BEGIN PRIVATE KEY-----" | b"-----BEGIN ENCRYPTED PRIVATE KEY-----" => {
            KeyFileError::OldFormat("PKCS #8")
        }
        b"-----BEGIN DSA PRIVATE KEY-----" => KeyFileError::Unsupported,
        _ if first.starts_with(b"PuTTY-User-Key-File-") => KeyFileError::Putty,
        _ => KeyFileError::NotAKey,
    }
}

fn decrypt(
    cipher: Cipher,
    salt: &[u8],
    rounds: u32,
    passphrase: &SecretBytes,
    section: &mut [u8],
    tag: &[u8],
) -> Result<(), KeyFileError> {
    if rounds > ROUNDS {
        return Err(KeyFileError::Rounds(rounds));
    }
    if rounds == 0 || salt.is_empty() {
        return Err(KeyFileError::Encryption);
    }
    if passphrase.is_empty() {
        return Err(KeyFileError::WrongPassphrase);
    }
    let (key_size, iv_size) = cipher.key_and_iv_size().ok_or(KeyFileError::Encryption)?;
    let mut derived = Zeroizing::new(vec![0; key_size + iv_size]);
    let mut memory = Zeroizing::new(vec![0; derived.len().next_multiple_of(BCRYPT_BLOCK)]);
    bcrypt_pbkdf_with_memory(passphrase.expose(), salt, rounds, &mut derived, &mut memory)
        .map_err(|_| KeyFileError::Encryption)?;
    let (key, iv) = derived.split_at(key_size);
    let tag = match tag {
        [] if !cipher.has_tag() => None,
        _ => Some(tag.try_into().map_err(|_| Malformed::Trailing)?),
    };
    match cipher.decrypt(key, iv, section, tag) {
        Ok(()) => Ok(()),
        Err(ssh_cipher::Error::Crypto) => Err(KeyFileError::WrongPassphrase),
        Err(_) => Err(KeyFileError::Encryption),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{KeyKind, SigningKey, generate, samples};
    use super::*;
    use keyloan_protocol::ssh_agent::algorithm::Curve;
    use keyloan_protocol::ssh_agent::wire::Writer;

    const KIND: KeyKind = KeyKind::Ecdsa(Curve::Nistp256);

    struct Parts {
        cipher: &'static str,
        kdf: &'static str,
        rounds: u32,
        count: u32,
        public: Option<PublicKey>,
        checks: [u32; 2],
        padding: &'static [u8],
        tag: &'static [u8],
    }

    impl Default for Parts {
        fn default() -> Self {
            Self {
                cipher: "none",
                kdf: "none",
                rounds: 0,
                count: 1,
                public: None,
                checks: [7, 7],
                padding: &[1, 2, 3],
                tag: b"",
            }
        }
    }

    impl Parts {
        fn fault(&self) -> Option<KeyFileError> {
            let key = generate(KIND).unwrap();
            let blob = self.public.as_ref().unwrap_or(key.public()).blob();
            let file = wire::encode(|out: &mut Writer| {
                out.bytes(MAGIC);
                out.text(self.cipher);
                out.text(self.kdf);
                out.nested(|out| {
                    if self.kdf != "none" {
                        out.string(b"salt");
                        out.u32(self.rounds);
                    }
                });
                out.u32(self.count);
                out.string(blob);
                out.nested(|out| {
                    self.checks.into_iter().for_each(|check| out.u32(check));
                    key.write_plain(out);
                    out.string(b"comment");
                    out.bytes(self.padding);
                });
                out.bytes(self.tag);
            });
            let text = [BEGIN, b"\n", BASE64.encode(&file).as_bytes(), b"\n", END].concat();
            read(&text, Some(&SecretBytes::copy_of(b"pass"))).err()
        }
    }

    #[test]
    fn a_file_that_breaks_the_rules_is_refused_before_it_costs_anything() {
        let other = Some(generate(KIND).unwrap().public().clone());
        let aes = || Parts { cipher: "aes256-ctr", kdf: "bcrypt", rounds: 1, ..Parts::default() };
        for (parts, fault) in [
            (Parts::default(), None),
            (Parts { padding: b"", ..Parts::default() }, None),
            (Parts { padding: &[1, 2, 4], ..Parts::default() }, Some(Malformed::Trailing.into())),
            (Parts { count: 0, ..Parts::default() }, Some(KeyFileError::Several(0))),
            (Parts { count: 2, ..Parts::default() }, Some(KeyFileError::Several(2))),
            (Parts { public: other, ..Parts::default() }, Some(KeyFileError::Mismatch)),
            (Parts { checks: [7, 8], ..Parts::default() }, Some(Malformed::PrivateKey.into())),
            (Parts { tag: b"more", ..Parts::default() }, Some(KeyFileError::Encryption)),
            (Parts { kdf: "bcrypt", ..Parts::default() }, Some(KeyFileError::Encryption)),
            (Parts { kdf: "none", ..aes() }, Some(KeyFileError::Encryption)),
            (Parts { cipher: "aes512-ctr", ..aes() }, Some(KeyFileError::Encryption)),
            (Parts { rounds: 0, ..aes() }, Some(KeyFileError::Encryption)),
            (Parts { rounds: u32::MAX, ..aes() }, Some(KeyFileError::Rounds(u32::MAX))),
            (Parts { tag: b"more", ..aes() }, Some(Malformed::Trailing.into())),
            (Parts { cipher: "aes256-gcm@openssh.com", ..aes() }, Some(Malformed::Trailing.into())),
            (aes(), Some(KeyFileError::WrongPassphrase)),
        ] {
            assert_eq!(parts.fault(), fault);
        }
    }

    #[test]
    fn a_written_file_has_the_columns_of_ssh_keygen_and_comes_back_with_any_line_ends() {
        for kind in samples::KINDS {
            for comment in [b"".as_slice(), b"me", b"caf\xe9\n\0"] {
                let key = generate(kind).unwrap();
                let text = write(&key, comment).unwrap();
                let lines: Vec<_> = text.expose().split(|&byte| byte == b'\n').collect();
                let [first, middle @ .., partial, last, b""] = lines.as_slice() else { unreachable!() };
                assert_eq!((*first, *last), (BEGIN, END));
                assert!(middle.iter().all(|line| line.len() == 70) && (1..=70).contains(&partial.len()));
                for line_end in [b"\n".as_slice(), b"\r\n"] {
                    let (read, found) = read(&lines.join(line_end), None).unwrap();
                    assert_eq!(samples::numbers(&read), samples::numbers(&key));
                    assert_eq!(found, comment);
                    assert!(SigningKey::open(&read).is_ok());
                }
            }
        }
    }

    #[test]
    fn other_files_are_told_apart_by_their_first_line() {
        for (text, fault) in [
            (b"PuTTY-User-Key-File-3: ssh-ed25519\r\nEncryption: none\r\n".as_slice(), KeyFileError::Putty),
            (
                b"-----BEGIN RSA PRIVATE KEY-----\r\nProc-Type: 4,ENCRYPTED\r\n",
                KeyFileError::OldFormat("PKCS #1"),
            ),
            (b"-----BEGIN ENCRYPTED PRIVATE KEY-----\n", KeyFileError::OldFormat("PKCS #8")),
            (b"-----BEGIN DSA PRIVATE KEY-----\n", KeyFileError::Unsupported),
            (b"-----BEGIN CERTIFICATE-----\n", KeyFileError::NotAKey),
            (b"ssh-ed25519 AAAA me\n", KeyFileError::NotAKey),
            (b"", KeyFileError::NotAKey),
            (BEGIN, KeyFileError::NotAKey),
            (&[BEGIN, b"\n====\n", END].concat(), KeyFileError::NotAKey),
            (&[BEGIN, b"\nAAAA\n", END].concat(), KeyFileError::NotAKey),
            (&[BEGIN, &b"A".repeat(70 * 1024), END].concat(), KeyFileError::NotAKey),
        ] {
            assert_eq!(read(text, None).err(), Some(fault));
        }
    }

    #[test]
    fn a_file_cut_short_or_with_a_flipped_bit_gives_an_error_or_another_key_and_never_a_mixed_one() {
        let key = generate(KeyKind::Ed25519).unwrap();
        let text = write(&key, b"me").unwrap();
        for length in 0..text.len() - 1 {
            assert!(read(&text.expose()[..length], None).is_err());
        }
        let file = decoded(text.expose()).unwrap();
        for bit in 0..file.len() * 8 {
            let mut wrong = file.to_vec();
            wrong[bit / 8] ^= 1 << (bit % 8);
            let text = [BEGIN, BASE64.encode(&wrong).as_bytes(), END].concat();
            // In the seed it takes arithmetic to see it.
            if let Ok((read, comment)) = read(&text, None) {
                assert!(SigningKey::open(&read).is_err() || comment != b"me");
            }
        }
    }
}
