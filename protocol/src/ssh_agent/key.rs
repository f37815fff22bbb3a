//! Public keys as blobs (RFC 4253 section 6.6, RFC 5656 section 3.1, RFC 8709 section 4, PROTOCOL.u2f,
//! PROTOCOL.certkeys). A [`PublicKey`] is of a supported type and its lengths are right; each key has one blob
//! only, so comparing blobs compares keys. Whether a point lies on its curve is for whoever computes with it.

use super::algorithm::{Curve, KeyType};
use super::certificate::Certificate;
use super::wire::{self, Malformed, Reader, Writer, bits};
use crate::limits;
use std::hash::{Hash, Hasher};

/// A public key, plain or in a certificate.
#[derive(Debug, Clone)]
pub struct PublicKey {
    blob: Vec<u8>,
    material: Material,
    certificate: Option<Box<Certificate>>,
}

/// The numbers of a public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Material {
    Ed25519([u8; 32]),
    /// The point is uncompressed: SEC 1 section 2.3.3.
    Ecdsa {
        curve: Curve,
        point: Vec<u8>,
    },
    /// Magnitudes: big-endian, without leading zeros.
    Rsa {
        e: Vec<u8>,
        n: Vec<u8>,
    },
    /// `application` is what the security key bound the key to, `ssh:` unless somebody chose another.
    SkEd25519 {
        public: [u8; 32],
        application: String,
    },
    SkEcdsa {
        point: Vec<u8>,
        application: String,
    },
}

impl PublicKey {
    /// Reads a blob as a whole.
    pub fn parse(blob: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(blob);
        let (key_type, certified) = KeyType::named(reader.text()?).ok_or(Malformed::KeyType)?;
        let (material, certificate) = if certified {
            let nonce = reader.string()?;
            let material = Material::read(&mut reader, key_type)?;
            (material, Some(Box::new(Certificate::read(&mut reader, nonce, blob)?)))
        } else {
            (Material::read(&mut reader, key_type)?, None)
        };
        reader.end()?;
        Ok(Self { blob: blob.to_vec(), material, certificate })
    }

    /// Reads a blob that must be a plain key: a certificate's authority (chains are not supported, says
    /// PROTOCOL.certkeys) or a destination.
    pub(super) fn parse_plain(blob: &[u8]) -> Result<Self, Malformed> {
        // Looked at before the rest, so that authorities within authorities cannot exhaust the stack.
        match KeyType::named(Reader::new(blob).text()?) {
            Some((_, true)) => Err(Malformed::Certificate),
            _ => Self::parse(blob),
        }
    }

    /// The plain key of these numbers, if they are in order.
    pub fn plain(material: &Material) -> Result<Self, Malformed> {
        Self::parse(&material.blob())
    }

    /// The exact bytes of the key, with its certificate if it has one.
    pub fn blob(&self) -> &[u8] {
        &self.blob
    }

    /// The exact bytes of the key without its certificate: what a fingerprint is the hash of.
    pub fn plain_blob(&self) -> Vec<u8> {
        self.material.blob()
    }

    pub const fn material(&self) -> &Material {
        &self.material
    }

    pub fn certificate(&self) -> Option<&Certificate> {
        self.certificate.as_deref()
    }

    pub const fn key_type(&self) -> KeyType {
        self.material.key_type()
    }

    /// The name that the blob opens with.
    pub const fn name(&self) -> &'static str {
        match self.certificate {
            Some(_) => self.key_type().certificate_name(),
            None => self.key_type().name(),
        }
    }

    /// Whether it is that key, or a certificate for that key.
    pub fn is_or_certifies(&self, key: &Self) -> bool {
        self == key || (key.certificate.is_none() && self.material == key.material)
    }

    /// The size that people know a key by.
    pub fn bits(&self) -> usize {
        match &self.material {
            Material::Ed25519(_) | Material::SkEd25519 { .. } | Material::SkEcdsa { .. } => 256,
            Material::Ecdsa { curve, .. } => curve.bits(),
            Material::Rsa { n, .. } => bits(n),
        }
    }
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.blob == other.blob
    }
}

impl Eq for PublicKey {}

impl Hash for PublicKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.blob.hash(state);
    }
}

impl Material {
    pub const fn key_type(&self) -> KeyType {
        match self {
            Self::Ed25519(_) => KeyType::Ed25519,
            Self::Ecdsa { curve, .. } => KeyType::Ecdsa(*curve),
            Self::Rsa { .. } => KeyType::Rsa,
            Self::SkEd25519 { .. } => KeyType::SkEd25519,
            Self::SkEcdsa { .. } => KeyType::SkEcdsa,
        }
    }

    /// The fields after the name, in the order of a public key.
    pub(super) fn read(reader: &mut Reader<'_>, key_type: KeyType) -> Result<Self, Malformed> {
        match key_type {
            KeyType::Ed25519 => Ok(Self::Ed25519(ed25519(reader)?)),
            KeyType::Ecdsa(curve) => Ok(Self::Ecdsa { curve, point: point(reader, curve)? }),
            KeyType::Rsa => {
                let (e, n) = (reader.mpint()?, reader.mpint()?);
                Self::rsa(e, n)
            }
            KeyType::SkEd25519 => {
                let public = ed25519(reader)?;
                Ok(Self::SkEd25519 { public, application: reader.text()?.to_owned() })
            }
            KeyType::SkEcdsa => {
                let point = point(reader, Curve::Nistp256)?;
                Ok(Self::SkEcdsa { point, application: reader.text()?.to_owned() })
            }
        }
    }

    /// Sizes and what is odd: all that can be said without arithmetic.
    pub(super) fn rsa(e: &[u8], n: &[u8]) -> Result<Self, Malformed> {
        let right = limits::RSA_BITS.contains(&bits(n))
            && (2..=limits::RSA_EXPONENT_BITS).contains(&bits(e))
            && is_odd(n)
            && is_odd(e);
        if right { Ok(Self::Rsa { e: e.to_vec(), n: n.to_vec() }) } else { Err(Malformed::Rsa) }
    }

    /// The fields after the name, in the order of a public key.
    pub(super) fn write(&self, out: &mut Writer) {
        match self {
            Self::Ed25519(public) => out.string(public),
            Self::Ecdsa { curve, point } => {
                out.text(curve.name());
                out.string(point);
            }
            Self::Rsa { e, n } => {
                out.mpint(e);
                out.mpint(n);
            }
            Self::SkEd25519 { public, application } => {
                out.string(public);
                out.text(application);
            }
            Self::SkEcdsa { point, application } => {
                out.text(Curve::Nistp256.name());
                out.string(point);
                out.text(application);
            }
        }
    }

    fn blob(&self) -> Vec<u8> {
        wire::encode_public(|out| {
            out.text(self.key_type().name());
            self.write(out);
        })
    }
}

pub(super) fn is_odd(magnitude: &[u8]) -> bool {
    magnitude.last().is_some_and(|last| last & 1 == 1)
}

fn ed25519(reader: &mut Reader<'_>) -> Result<[u8; 32], Malformed> {
    reader.string()?.try_into().map_err(|_| Malformed::PublicKey)
}

/// A curve's name and a point on it. RFC 5656 section 3.1 lets compressed points be refused; OpenSSH does.
fn point(reader: &mut Reader<'_>, curve: Curve) -> Result<Vec<u8>, Malformed> {
    if reader.text()? != curve.name() {
        return Err(Malformed::Curve);
    }
    match reader.string()? {
        point @ [4, coordinates @ ..] if coordinates.len() == curve.bytes().saturating_mul(2) => {
            Ok(point.to_vec())
        }
        _ => Err(Malformed::PublicKey),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rsa(e: &[u8], bytes: usize, first: u8, last: u8) -> Result<PublicKey, Malformed> {
        let mut n = vec![0; bytes];
        (n[0], n[bytes - 1]) = (first, last);
        PublicKey::plain(&Material::Rsa { e: e.to_vec(), n })
    }

    #[test]
    fn rsa_keys_are_taken_from_2048_to_8192_bits_with_an_odd_exponent() {
        assert_eq!(rsa(&[1, 0, 1], 256, 0x80, 1).map(|key| key.bits()), Ok(2048));
        assert_eq!(rsa(&[3], 1024, 0xff, 1).map(|key| key.bits()), Ok(8192));
        for (e, bytes, first, last) in [
            ([1, 0, 1].as_slice(), 256, 0x7f, 1),
            (&[1, 0, 1], 1025, 1, 1),
            (&[1, 0, 1], 256, 0x80, 2),
            (&[1], 256, 0x80, 1),
            (&[2], 256, 0x80, 1),
            (&[2, 0, 0, 0, 1], 256, 0x80, 1),
        ] {
            assert_eq!(rsa(e, bytes, first, last), Err(Malformed::Rsa), "{e:?} {bytes} {first:x} {last}");
        }
    }

    #[test]
    fn points_are_uncompressed_on_the_curve_that_the_type_names() {
        let key = |curve: Curve, length: usize, form: u8| {
            PublicKey::plain(&Material::Ecdsa { curve, point: [vec![form], vec![9; length]].concat() })
        };
        assert_eq!(key(Curve::Nistp521, 132, 4).map(|key| key.bits()), Ok(521));
        assert_eq!(key(Curve::Nistp256, 32, 2), Err(Malformed::PublicKey));
        assert_eq!(key(Curve::Nistp256, 64, 6), Err(Malformed::PublicKey));
        assert_eq!(key(Curve::Nistp384, 64, 4), Err(Malformed::PublicKey));
        let other = wire::encode(|out| {
            out.text("ecdsa-sha2-nistp256");
            out.text("nistp384");
            out.string(&[4; 97]);
        });
        assert_eq!(PublicKey::parse(&other), Err(Malformed::Curve));
    }

    #[test]
    fn what_follows_a_key_is_not_overlooked() {
        let key = PublicKey::plain(&Material::Ed25519([1; 32])).unwrap();
        assert_eq!(PublicKey::parse(&[key.blob(), b"\0"].concat()), Err(Malformed::Trailing));
    }
}
