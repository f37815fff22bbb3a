//! A signature blob: `string algorithm | string …`. Its lengths are right; whether it verifies is not known here.

use super::algorithm::{Curve, SignatureAlgorithm};
use super::key::PublicKey;
use super::wire::{self, Malformed, Reader, Writer, bits};
use crate::limits;

/// Integers are magnitudes: big-endian, without leading zeros.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signature {
    /// RFC 8709 section 6.
    Ed25519([u8; 64]),
    /// RFC 5656 section 3.1.2.
    Ecdsa { curve: Curve, r: Vec<u8>, s: Vec<u8> },
    /// RFC 8332 section 3, and RFC 4253 section 6.6 for SHA-1.
    Rsa { hash: RsaHash, signature: Vec<u8> },
    /// PROTOCOL.u2f: what the security key signed includes flags and counter.
    SkEd25519 { signature: [u8; 64], flags: u8, counter: u32 },
    /// PROTOCOL.u2f.
    SkEcdsa { r: Vec<u8>, s: Vec<u8>, flags: u8, counter: u32 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RsaHash {
    Sha1,
    Sha256,
    Sha512,
}

impl Signature {
    pub fn parse(blob: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(blob);
        let algorithm = SignatureAlgorithm::named(reader.text()?).ok_or(Malformed::SignatureAlgorithm)?;
        let signature = match algorithm {
            SignatureAlgorithm::Ed25519 => Self::Ed25519(ed25519(&mut reader)?),
            SignatureAlgorithm::Ecdsa(curve) => {
                let (r, s) = ecdsa(&mut reader, curve)?;
                Self::Ecdsa { curve, r, s }
            }
            SignatureAlgorithm::RsaSha1 => rsa(&mut reader, RsaHash::Sha1)?,
            SignatureAlgorithm::RsaSha256 => rsa(&mut reader, RsaHash::Sha256)?,
            SignatureAlgorithm::RsaSha512 => rsa(&mut reader, RsaHash::Sha512)?,
            SignatureAlgorithm::SkEd25519 => {
                let signature = ed25519(&mut reader)?;
                Self::SkEd25519 { signature, flags: reader.u8()?, counter: reader.u32()? }
            }
            SignatureAlgorithm::SkEcdsa => {
                let (r, s) = ecdsa(&mut reader, Curve::Nistp256)?;
                Self::SkEcdsa { r, s, flags: reader.u8()?, counter: reader.u32()? }
            }
        };
        reader.end()?;
        Ok(signature)
    }

    pub const fn algorithm(&self) -> SignatureAlgorithm {
        match self {
            Self::Ed25519(_) => SignatureAlgorithm::Ed25519,
            Self::Ecdsa { curve, .. } => SignatureAlgorithm::Ecdsa(*curve),
            Self::Rsa { hash: RsaHash::Sha1, .. } => SignatureAlgorithm::RsaSha1,
            Self::Rsa { hash: RsaHash::Sha256, .. } => SignatureAlgorithm::RsaSha256,
            Self::Rsa { hash: RsaHash::Sha512, .. } => SignatureAlgorithm::RsaSha512,
            Self::SkEd25519 { .. } => SignatureAlgorithm::SkEd25519,
            Self::SkEcdsa { .. } => SignatureAlgorithm::SkEcdsa,
        }
    }

    /// Whether a key of this type makes such signatures.
    pub fn is_of(&self, key: &PublicKey) -> bool {
        self.algorithm().key_type() == key.key_type()
    }

    pub fn encode(&self) -> Vec<u8> {
        wire::encode_public(|out| self.write(out))
    }

    fn write(&self, out: &mut Writer) {
        let integers = |out: &mut Writer, r: &[u8], s: &[u8]| {
            out.nested(|out| {
                out.mpint(r);
                out.mpint(s);
            });
        };
        out.text(self.algorithm().name());
        match self {
            Self::Ed25519(signature) => out.string(signature),
            Self::Ecdsa { r, s, .. } => integers(out, r, s),
            Self::Rsa { signature, .. } => out.string(signature),
            Self::SkEd25519 { signature, flags, counter } => {
                out.string(signature);
                out.u8(*flags);
                out.u32(*counter);
            }
            Self::SkEcdsa { r, s, flags, counter } => {
                integers(out, r, s);
                out.u8(*flags);
                out.u32(*counter);
            }
        }
    }
}

fn ed25519(reader: &mut Reader<'_>) -> Result<[u8; 64], Malformed> {
    reader.string()?.try_into().map_err(|_| Malformed::Signature)
}

fn ecdsa(reader: &mut Reader<'_>, curve: Curve) -> Result<(Vec<u8>, Vec<u8>), Malformed> {
    let mut inner = reader.nested()?;
    let (r, s) = (inner.mpint()?, inner.mpint()?);
    inner.end()?;
    if bits(r) > curve.bits() || bits(s) > curve.bits() {
        return Err(Malformed::Signature);
    }
    Ok((r.to_vec(), s.to_vec()))
}

/// Shorter than the modulus is taken: some implementations leave leading zeros out, and OpenSSH takes that too.
fn rsa(reader: &mut Reader<'_>, hash: RsaHash) -> Result<Signature, Malformed> {
    let signature = reader.string()?;
    if signature.is_empty() || signature.len() > limits::RSA_BITS.end().div_ceil(8) {
        return Err(Malformed::Signature);
    }
    Ok(Signature::Rsa { hash, signature: signature.to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_of_every_algorithm_come_back_as_they_were() {
        let (short, high) = (vec![1], vec![0xff; 32]);
        for signature in [
            Signature::Ed25519([7; 64]),
            Signature::Ecdsa { curve: Curve::Nistp256, r: short.clone(), s: high.clone() },
            Signature::Ecdsa {
                curve: Curve::Nistp521,
                r: [vec![1], vec![0xff; 65]].concat(),
                s: vec![0x80; 65],
            },
            Signature::Rsa { hash: RsaHash::Sha1, signature: vec![0; 256] },
            Signature::Rsa { hash: RsaHash::Sha256, signature: vec![1; 255] },
            Signature::Rsa { hash: RsaHash::Sha512, signature: vec![1; 1024] },
            Signature::SkEd25519 { signature: [7; 64], flags: 1, counter: u32::MAX },
            Signature::SkEcdsa { r: high, s: short, flags: 5, counter: 0 },
        ] {
            let blob = signature.encode();
            assert_eq!(Signature::parse(&blob), Ok(signature));
            for cut in 0..blob.len() {
                assert!(Signature::parse(&blob[..cut]).is_err());
            }
            assert_eq!(Signature::parse(&[blob.as_slice(), b"\0"].concat()), Err(Malformed::Trailing));
        }
    }

    #[test]
    fn a_signature_of_the_wrong_size_is_refused() {
        for (signature, fault) in [
            (Signature::Rsa { hash: RsaHash::Sha256, signature: vec![1; 1025] }, Malformed::Signature),
            (Signature::Rsa { hash: RsaHash::Sha256, signature: vec![] }, Malformed::Signature),
            (Signature::Ecdsa { curve: Curve::Nistp256, r: vec![1; 33], s: vec![1] }, Malformed::Signature),
            (Signature::Ecdsa { curve: Curve::Nistp521, r: vec![2; 66], s: vec![1] }, Malformed::Signature),
            (Signature::Ecdsa { curve: Curve::Nistp256, r: vec![0], s: vec![1] }, Malformed::Integer),
        ] {
            assert_eq!(Signature::parse(&signature.encode()), Err(fault));
        }
        let short = wire::encode(|out| {
            out.text("ssh-ed25519");
            out.string(&[0; 63]);
        });
        assert_eq!(Signature::parse(&short), Err(Malformed::Signature));
        let unknown = wire::encode(|out| {
            out.text("ssh-dss");
            out.string(&[0; 40]);
        });
        assert_eq!(Signature::parse(&unknown), Err(Malformed::SignatureAlgorithm));
    }
}
