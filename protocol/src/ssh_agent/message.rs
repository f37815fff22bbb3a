//! The messages themselves (RFC 9987, "Protocol Messages" and "Message Numbers"), read and written in both
//! directions: keyloan is an agent to its clients and a client to other agents.

use super::algorithm::{KeyType, SignatureAlgorithm};
use super::constraint::{Constraints, Subject};
use super::frame::{self, FrameError};
use super::key::PublicKey;
use super::private_key::PrivateKey;
use super::session_bind::Extension;
use super::wire::{Malformed, Reader, Writer};
use crate::limits;
use crate::secret::SecretBytes;
use zeroize::Zeroizing;

const LIST: u8 = 11;
const SIGN: u8 = 13;
const ADD: u8 = 17;
const REMOVE: u8 = 18;
const REMOVE_ALL: u8 = 19;
const ADD_TOKEN: u8 = 20;
const LOCK: u8 = 22;
const UNLOCK: u8 = 23;
const ADD_CONSTRAINED: u8 = 25;
const ADD_TOKEN_CONSTRAINED: u8 = 26;
const EXTENSION: u8 = 27;

const FAILURE: u8 = 5;
const SUCCESS: u8 = 6;
const IDENTITIES: u8 = 12;
const SIGNATURE: u8 = 14;
const EXTENSION_FAILURE: u8 = 28;
const EXTENSION_RESPONSE: u8 = 29;

/// What a client asks for. Holds secrets: no `Debug`, no `Clone`.
pub enum Request {
    List,
    Sign(Sign),
    Add(Box<Add>),
    /// Keys of a PKCS#11 token; read so that it can be refused by name.
    AddToken(AddToken),
    Remove(PublicKey),
    RemoveAll,
    Lock(SecretBytes),
    Unlock(SecretBytes),
    Extension(Extension),
    /// A request of version 1 of the ssh protocol, by its number. `ssh-add -D` still sends one.
    Obsolete(u8),
    /// By its number; what followed is not kept.
    Unknown(u8),
}

pub struct Sign {
    pub key: PublicKey,
    pub data: Vec<u8>,
    pub flags: SignFlags,
}

/// RFC 9987, "Signature Flags": which hash an RSA key signs with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignFlags(u32);

pub struct Add {
    pub key: PrivateKey,
    /// Free text, shown to people; may not be UTF-8.
    pub comment: Vec<u8>,
    /// Absent where the message is of the kind that cannot have any.
    pub constraints: Option<Constraints>,
}

pub struct AddToken {
    pub provider: String,
    pub pin: SecretBytes,
    /// As in [`Add`].
    pub constraints: Option<Constraints>,
}

impl SignFlags {
    pub const NONE: Self = Self(0);
    pub const RSA_SHA256: Self = Self(2);
    pub const RSA_SHA512: Self = Self(4);

    /// An agent fails where it does not support the flags that are asked for.
    pub const fn parse(flags: u32) -> Result<Self, Malformed> {
        match flags {
            0 | 2 | 4 | 6 => Ok(Self(flags)),
            _ => Err(Malformed::Flags),
        }
    }

    /// The algorithm that they ask this key for. Of two hashes the first counts, as for OpenSSH; other keys than RSA
    /// have one algorithm only.
    pub const fn algorithm(self, key: &PublicKey) -> SignatureAlgorithm {
        match key.key_type() {
            KeyType::Rsa if self.0 & Self::RSA_SHA256.0 != 0 => SignatureAlgorithm::RsaSha256,
            KeyType::Rsa if self.0 & Self::RSA_SHA512.0 != 0 => SignatureAlgorithm::RsaSha512,
            KeyType::Rsa => SignatureAlgorithm::RsaSha1,
            KeyType::Ed25519 => SignatureAlgorithm::Ed25519,
            KeyType::Ecdsa(curve) => SignatureAlgorithm::Ecdsa(curve),
            KeyType::SkEd25519 => SignatureAlgorithm::SkEd25519,
            KeyType::SkEcdsa => SignatureAlgorithm::SkEcdsa,
        }
    }
}

impl Request {
    /// Reads a message without its length. An error is answered with FAILURE.
    pub fn parse(message: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(message);
        let request = match reader.u8()? {
            LIST => Self::List,
            SIGN => Self::Sign(Sign {
                key: PublicKey::parse(reader.string()?)?,
                data: reader.string()?.to_vec(),
                flags: SignFlags::parse(reader.u32()?)?,
            }),
            number @ (ADD | ADD_CONSTRAINED) => {
                let key = PrivateKey::read(&mut reader)?;
                // OpenSSH refuses a NUL too. With it a comment could reach over the constraints behind it.
                let comment = Some(reader.string()?).filter(|comment| !comment.contains(&0));
                let comment = comment.ok_or(Malformed::Text)?.to_vec();
                let subject = Subject::Key { is_sk: key.public().key_type().is_sk() };
                let constrained = number == ADD_CONSTRAINED;
                let constraints = constrained.then(|| Constraints::read(&mut reader, subject)).transpose()?;
                Self::Add(Box::new(Add { key, comment, constraints }))
            }
            number @ (ADD_TOKEN | ADD_TOKEN_CONSTRAINED) => {
                let provider = reader.text()?.to_owned();
                let pin = SecretBytes::copy_of(reader.string()?);
                let constrained = number == ADD_TOKEN_CONSTRAINED;
                let constraints =
                    constrained.then(|| Constraints::read(&mut reader, Subject::Token)).transpose()?;
                Self::AddToken(AddToken { provider, pin, constraints })
            }
            REMOVE => Self::Remove(PublicKey::parse(reader.string()?)?),
            REMOVE_ALL => Self::RemoveAll,
            LOCK => Self::Lock(SecretBytes::copy_of(reader.string()?)),
            UNLOCK => Self::Unlock(SecretBytes::copy_of(reader.string()?)),
            EXTENSION => Self::Extension(Extension::read(&mut reader)?),
            number @ (1 | 3 | 7 | 8 | 9 | 24) => return Ok(Self::Obsolete(number)),
            number => return Ok(Self::Unknown(number)),
        };
        reader.end()?;
        Ok(request)
    }

    /// The whole frame.
    pub fn encode(&self) -> Result<Zeroizing<Vec<u8>>, FrameError> {
        frame::encode(|out| self.write(out))
    }

    fn write(&self, out: &mut Writer) {
        out.u8(self.number());
        match self {
            Self::List | Self::RemoveAll | Self::Obsolete(_) | Self::Unknown(_) => {}
            Self::Sign(sign) => {
                out.string(sign.key.blob());
                out.string(&sign.data);
                out.u32(sign.flags.0);
            }
            Self::Add(add) => {
                add.key.write(out);
                out.string(&add.comment);
                add.constraints.iter().for_each(|constraints| constraints.write(out));
            }
            Self::AddToken(add) => {
                out.text(&add.provider);
                out.string(add.pin.expose());
                add.constraints.iter().for_each(|constraints| constraints.write(out));
            }
            Self::Remove(key) => out.string(key.blob()),
            Self::Lock(passphrase) | Self::Unlock(passphrase) => out.string(passphrase.expose()),
            Self::Extension(extension) => extension.write(out),
        }
    }

    fn number(&self) -> u8 {
        match self {
            Self::List => LIST,
            Self::Sign(_) => SIGN,
            Self::Add(add) if add.constraints.is_some() => ADD_CONSTRAINED,
            Self::Add(_) => ADD,
            Self::AddToken(add) if add.constraints.is_some() => ADD_TOKEN_CONSTRAINED,
            Self::AddToken(_) => ADD_TOKEN,
            Self::Remove(_) => REMOVE,
            Self::RemoveAll => REMOVE_ALL,
            Self::Lock(_) => LOCK,
            Self::Unlock(_) => UNLOCK,
            Self::Extension(_) => EXTENSION,
            Self::Obsolete(number) | Self::Unknown(number) => *number,
        }
    }
}

/// What an agent answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    Success,
    Failure,
    Identities(Vec<Identity>),
    /// A signature blob as it came, for [`super::signature::Signature::parse`].
    Signature(Vec<u8>),
    /// The extension is known, and failed.
    ExtensionFailure,
    /// The name of the extension that is answered, and its answer.
    Extension {
        name: String,
        contents: Vec<u8>,
    },
}

/// A key in a list, as it came: an upstream agent may hold keys of types that are not known here, and one such key
/// must not hide the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub blob: Vec<u8>,
    /// Free text, shown to people; may not be UTF-8.
    pub comment: Vec<u8>,
}

impl Identity {
    pub fn key(&self) -> Result<PublicKey, Malformed> {
        PublicKey::parse(&self.blob)
    }
}

impl Reply {
    /// Reads a message without its length, from an upstream agent.
    pub fn parse(message: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(message);
        let reply = match reader.u8()? {
            SUCCESS => Self::Success,
            // 30 and 102 are older failures; OpenSSH's clients know them.
            FAILURE | 30 | 102 => Self::Failure,
            IDENTITIES => Self::Identities(identities(&mut reader)?),
            SIGNATURE => Self::Signature(reader.string()?.to_vec()),
            EXTENSION_FAILURE => Self::ExtensionFailure,
            EXTENSION_RESPONSE => {
                let name = reader.text()?.to_owned();
                Self::Extension { name, contents: reader.remainder().to_vec() }
            }
            number => return Err(Malformed::MessageType(number)),
        };
        reader.end()?;
        Ok(reply)
    }

    /// The whole frame.
    pub fn encode(&self) -> Result<Zeroizing<Vec<u8>>, FrameError> {
        frame::encode(|out| self.write(out))
    }

    fn write(&self, out: &mut Writer) {
        match self {
            Self::Success => out.u8(SUCCESS),
            Self::Failure => out.u8(FAILURE),
            Self::Identities(identities) => {
                out.u8(IDENTITIES);
                out.prefix(identities.len());
                for identity in identities {
                    out.string(&identity.blob);
                    out.string(&identity.comment);
                }
            }
            Self::Signature(blob) => {
                out.u8(SIGNATURE);
                out.string(blob);
            }
            Self::ExtensionFailure => out.u8(EXTENSION_FAILURE),
            Self::Extension { name, contents } => {
                out.u8(EXTENSION_RESPONSE);
                out.text(name);
                out.bytes(contents);
            }
        }
    }
}

fn identities(reader: &mut Reader<'_>) -> Result<Vec<Identity>, Malformed> {
    let count = usize::try_from(reader.u32()?).map_err(|_| Malformed::TooMany)?;
    if count > limits::SSH_KEYS {
        return Err(Malformed::TooMany);
    }
    let mut identity =
        || Ok(Identity { blob: reader.string()?.to_vec(), comment: reader.string()?.to_vec() });
    (0..count).map(|_| identity()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::key::Material;
    use super::super::session_bind;
    use super::super::wire;
    use super::*;

    fn fault(write: impl Fn(&mut Writer)) -> Option<Malformed> {
        Request::parse(&wire::encode(write)).err()
    }

    #[test]
    fn what_is_not_known_is_no_error_but_is_told_apart() {
        for number in 0..=255 {
            let request = Request::parse(&[number]);
            match number {
                1 | 3 | 7 | 8 | 9 | 24 => assert!(matches!(request, Ok(Request::Obsolete(n)) if n == number)),
                11 | 19 => assert!(matches!(request, Ok(Request::List | Request::RemoveAll))),
                13 | 17 | 18 | 20 | 22 | 23 | 25 | 26 | 27 => {
                    assert_eq!(request.err(), Some(Malformed::Truncated));
                }
                _ => assert!(matches!(request, Ok(Request::Unknown(n)) if n == number)),
            }
            let known = [5, 6, 12, 14, 28, 29, 30, 102].contains(&number);
            assert_eq!(Reply::parse(&[number]) == Err(Malformed::MessageType(number)), !known);
        }
        assert_eq!(Request::parse(b"").err(), Some(Malformed::Truncated));
        for reply in [Reply::Failure, Reply::Success, Reply::ExtensionFailure] {
            assert_eq!(Reply::parse(&reply.encode().unwrap()[4..]), Ok(reply));
        }
    }

    #[test]
    fn flags_choose_the_hash_of_rsa_keys_only() {
        let rsa = Material::Rsa { e: vec![3], n: vec![0xff; 256] };
        let rsa = PublicKey::plain(&rsa).unwrap();
        let ed25519 = PublicKey::plain(&Material::Ed25519([1; 32])).unwrap();
        for (flags, algorithm) in [
            (0, SignatureAlgorithm::RsaSha1),
            (2, SignatureAlgorithm::RsaSha256),
            (4, SignatureAlgorithm::RsaSha512),
            (6, SignatureAlgorithm::RsaSha256),
        ] {
            let flags = SignFlags::parse(flags).unwrap();
            assert_eq!(flags.algorithm(&rsa), algorithm);
            assert_eq!(flags.algorithm(&ed25519), SignatureAlgorithm::Ed25519);
        }
        for flags in [1, 3, 8, 0x8000_0004, u32::MAX] {
            assert_eq!(SignFlags::parse(flags), Err(Malformed::Flags));
        }
    }

    #[test]
    fn a_message_that_cannot_have_constraints_has_none() {
        let add = |number: u8, comment: &'static [u8], constraint: &'static [u8]| {
            fault(|out| {
                out.u8(number);
                out.text("ssh-ed25519");
                out.string(&[1; 32]);
                out.string(&[1; 64]);
                out.string(comment);
                out.bytes(constraint);
            })
        };
        assert_eq!(add(17, b"caf\xe9", b""), None);
        assert_eq!(add(25, b"caf\xe9", b"\x02"), None);
        assert_eq!(add(17, b"", b"\x02"), Some(Malformed::Trailing));
        assert_eq!(add(25, b"", b""), Some(Malformed::Empty));
        assert_eq!(add(17, b"a\0b", b""), Some(Malformed::Text));
    }

    #[test]
    fn a_list_is_no_longer_than_clients_take_and_than_the_message_says() {
        let identity = Identity { blob: b"of a kind to come".to_vec(), comment: b"caf\xe9".to_vec() };
        let list = Reply::Identities(vec![identity; 2]);
        let frame = list.encode().unwrap();
        assert_eq!(Reply::parse(&frame[4..]), Ok(list));
        let announced =
            |count: u32| Reply::parse(&[b"\x0c".as_slice(), &count.to_be_bytes(), &frame[9..]].concat());
        assert_eq!(announced(1), Err(Malformed::Trailing));
        assert_eq!(announced(3), Err(Malformed::Truncated));
        assert_eq!(announced(2049), Err(Malformed::TooMany));
        assert_eq!(announced(u32::MAX), Err(Malformed::TooMany));
    }

    #[test]
    fn the_extensions_that_are_there_are_listed() {
        let names = [session_bind::QUERY, session_bind::SESSION_BIND];
        let contents = session_bind::query_reply(&names);
        let reply = Reply::Extension { name: session_bind::QUERY.to_owned(), contents: contents.clone() };
        let frame = reply.encode().unwrap();
        assert_eq!(frame[4..15], *b"\x1d\0\0\0\x05query\0");
        assert_eq!(Reply::parse(&frame[4..]), Ok(reply));
        assert_eq!(session_bind::parse_query_reply(&contents).unwrap(), names);
    }
}
