//! Private keys as they come with an add message (RFC 9987, "Adding Keys to the Agent"; behind a certificate as
//! OpenSSH sends them). The halves belong together as far as that can be seen without arithmetic. No `Debug`, no
//! `Clone`; every private number is wiped when dropped.

use super::algorithm::{Curve, KeyType};
use super::key::{Material, PublicKey, is_odd};
use super::wire::{Malformed, Reader, Writer, bits};
use crate::secret::SecretBytes;
use zeroize::Zeroizing;

/// A private key with its public half, which may be a certificate.
pub struct PrivateKey {
    public: PublicKey,
    secret: Secret,
}

/// The private numbers.
pub enum Secret {
    /// The 32 bytes of RFC 8032 section 5.1.5 from which all else is derived.
    Ed25519 { seed: SecretBytes },
    /// Big-endian, with leading zeros to the size of the curve.
    Ecdsa { scalar: SecretBytes },
    /// Magnitudes: big-endian, without leading zeros. `iqmp` is the inverse of q modulo p.
    Rsa { d: SecretBytes, iqmp: SecretBytes, p: SecretBytes, q: SecretBytes },
    /// What a security key finds its private key with: PROTOCOL.u2f.
    SecurityKey { flags: u8, handle: SecretBytes, reserved: Vec<u8> },
}

impl PrivateKey {
    pub const fn public(&self) -> &PublicKey {
        &self.public
    }

    pub const fn secret(&self) -> &Secret {
        &self.secret
    }

    /// Reads the type and the fields of a key.
    pub fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let (key_type, certified) = KeyType::named(reader.text()?).ok_or(Malformed::KeyType)?;
        let public = if certified {
            let public = PublicKey::parse(reader.string()?)?;
            if public.key_type() != key_type {
                return Err(Malformed::Mismatch);
            }
            if public.certificate().is_none() {
                return Err(Malformed::Certificate);
            }
            repeated_public_half(reader, &public)?;
            public
        } else if key_type == KeyType::Rsa {
            // The other way round than in a public key.
            let (n, e) = (reader.mpint()?, reader.mpint()?);
            PublicKey::plain(&Material::rsa(e, n)?)?
        } else {
            PublicKey::plain(&Material::read(reader, key_type)?)?
        };
        let secret = match public.material() {
            Material::Ed25519(half) => ed25519(reader, half)?,
            Material::Ecdsa { curve, .. } => ecdsa(reader, *curve)?,
            Material::Rsa { n, .. } => rsa(reader, bits(n))?,
            Material::SkEd25519 { .. } | Material::SkEcdsa { .. } => Secret::SecurityKey {
                flags: reader.u8()?,
                handle: SecretBytes::copy_of(reader.string()?),
                reserved: reader.string()?.to_vec(),
            },
        };
        Ok(Self { public, secret })
    }

    /// Writes the type and the fields of a key.
    pub fn write(&self, out: &mut Writer) {
        let material = self.public.material();
        out.text(self.public.name());
        if self.public.certificate().is_some() {
            out.string(self.public.blob());
            write_repeated_public_half(out, material);
        } else {
            write_public_half(out, material);
        }
        self.write_secret(out);
    }

    /// Writes the type and the fields of a key without its certificate: files of private keys hold none.
    pub fn write_plain(&self, out: &mut Writer) {
        let material = self.public.material();
        out.text(self.public.key_type().name());
        write_public_half(out, material);
        self.write_secret(out);
    }

    fn write_secret(&self, out: &mut Writer) {
        let material = self.public.material();
        match &self.secret {
            Secret::Ed25519 { seed } => {
                out.nested(|out| {
                    out.bytes(seed.expose());
                    if let Material::Ed25519(half) = material {
                        out.bytes(half);
                    }
                });
            }
            Secret::Ecdsa { scalar } => out.mpint(scalar.expose()),
            Secret::Rsa { d, iqmp, p, q } => {
                for number in [d, iqmp, p, q] {
                    out.mpint(number.expose());
                }
            }
            Secret::SecurityKey { flags, handle, reserved } => {
                out.u8(*flags);
                out.string(handle.expose());
                out.string(reserved);
            }
        }
    }
}

/// Of an RSA key the other way round than in a public key.
fn write_public_half(out: &mut Writer, material: &Material) {
    if let Material::Rsa { e, n } = material {
        out.mpint(n);
        out.mpint(e);
    } else {
        material.write(out);
    }
}

/// Behind a certificate OpenSSH sends the Ed25519 key once more, for keys in security keys what they are bound to,
/// and nothing of RSA and ECDSA keys.
fn repeated_public_half(reader: &mut Reader<'_>, public: &PublicKey) -> Result<(), Malformed> {
    let same = match public.material() {
        Material::Ed25519(half) => reader.string()? == half,
        Material::SkEd25519 { public: half, application } => {
            reader.string()? == half && reader.text()? == application
        }
        Material::SkEcdsa { application, .. } => reader.text()? == application,
        Material::Ecdsa { .. } | Material::Rsa { .. } => true,
    };
    if same { Ok(()) } else { Err(Malformed::Mismatch) }
}

fn write_repeated_public_half(out: &mut Writer, material: &Material) {
    match material {
        Material::Ed25519(half) => out.string(half),
        Material::SkEd25519 { public: half, application } => {
            out.string(half);
            out.text(application);
        }
        Material::SkEcdsa { application, .. } => out.text(application),
        Material::Ecdsa { .. } | Material::Rsa { .. } => {}
    }
}

/// The seed and, once more, the public half.
fn ed25519(reader: &mut Reader<'_>, public: &[u8; 32]) -> Result<Secret, Malformed> {
    match reader.string()?.split_at_checked(32) {
        Some((seed, repeated)) if repeated == public => {
            Ok(Secret::Ed25519 { seed: SecretBytes::copy_of(seed) })
        }
        Some((_, repeated)) if repeated.len() == 32 => Err(Malformed::Mismatch),
        _ => Err(Malformed::PrivateKey),
    }
}

/// An mpint has no leading zeros, so the scalar may be shorter than its curve: one in 256 is, and for nistp521,
/// whose first byte has one bit, every second.
fn ecdsa(reader: &mut Reader<'_>, curve: Curve) -> Result<Secret, Malformed> {
    let scalar = reader.mpint()?;
    if bits(scalar) > curve.bits() {
        return Err(Malformed::PrivateKey);
    }
    let mut padded = Zeroizing::new(vec![0; curve.bytes()]);
    let zeros = padded.len().checked_sub(scalar.len()).ok_or(Malformed::PrivateKey)?;
    padded.get_mut(zeros..).ok_or(Malformed::PrivateKey)?.copy_from_slice(scalar);
    Ok(Secret::Ecdsa { scalar: SecretBytes::copy_of(&padded) })
}

/// Sizes and what is odd: the primes, and d because it has an inverse modulo an even number.
fn rsa(reader: &mut Reader<'_>, modulus: usize) -> Result<Secret, Malformed> {
    let (d, iqmp) = (reader.mpint()?, reader.mpint()?);
    let (p, q) = (reader.mpint()?, reader.mpint()?);
    let product = bits(p).saturating_add(bits(q));
    let right = (product == modulus || product == modulus.saturating_add(1))
        && bits(p).abs_diff(bits(q)) <= 1
        && bits(d) <= modulus
        && bits(iqmp) <= bits(p)
        && [d, p, q].into_iter().all(is_odd)
        && p != q;
    if !right {
        return Err(Malformed::PrivateKey);
    }
    let [d, iqmp, p, q] = [d, iqmp, p, q].map(SecretBytes::copy_of);
    Ok(Secret::Rsa { d, iqmp, p, q })
}

#[cfg(test)]
mod tests {
    use super::super::wire;
    use super::*;

    /// The fault of a key, or none if it is written again as the same bytes.
    fn fault(write: impl Fn(&mut Writer)) -> Option<Malformed> {
        let bytes = wire::encode(write);
        let mut reader = Reader::new(&bytes);
        match PrivateKey::read(&mut reader) {
            Err(fault) => Some(fault),
            Ok(key) => {
                assert_eq!(reader.end(), Ok(()));
                assert_eq!(wire::encode(|out| key.write(out)), bytes);
                None
            }
        }
    }

    fn ed25519(secret: &'static [u8]) -> impl Fn(&mut Writer) {
        move |out| {
            out.text("ssh-ed25519");
            out.string(&[b'p'; 32]);
            out.string(secret);
        }
    }

    fn nistp521(scalar: &[u8]) -> impl Fn(&mut Writer) {
        move |out| {
            out.text("ecdsa-sha2-nistp521");
            out.text("nistp521");
            out.string(&[4; 133]);
            out.mpint(scalar);
        }
    }

    fn number(bits: usize) -> Vec<u8> {
        let mut number = vec![0xff; bits.div_ceil(8)];
        number[0] >>= (8 - bits % 8) % 8;
        number
    }

    #[test]
    fn an_ed25519_key_repeats_its_public_half() {
        assert_eq!(
            fault(ed25519(b"ssssssssssssssssssssssssssssssssPPPPPPPPPPPPPPPPPPPPPPPPPPPPPPPp")),
            Some(Malformed::Mismatch)
        );
        assert_eq!(fault(ed25519(b"sssssssssssssssssssssssssssssssspppppppppppppppppppppppppppppppp")), None);
        assert_eq!(fault(ed25519(b"ssssssssssssssssssssssssssssssss")), Some(Malformed::PrivateKey));
        assert_eq!(fault(ed25519(b"short")), Some(Malformed::PrivateKey));
    }

    #[test]
    fn scalars_of_every_length_that_their_curve_allows_come_back() {
        for bits in 1..=521 {
            assert_eq!(fault(nistp521(&number(bits))), None, "{bits}");
        }
        assert_eq!(fault(nistp521(&number(522))), Some(Malformed::PrivateKey));
        assert_eq!(fault(nistp521(&number(600))), Some(Malformed::PrivateKey));
        assert_eq!(fault(nistp521(&[0])), Some(Malformed::Integer));
    }

    #[test]
    fn the_numbers_of_an_rsa_key_have_sizes_that_fit() {
        let rsa = |d: Vec<u8>, iqmp: Vec<u8>, p: Vec<u8>, q: Vec<u8>| {
            fault(|out| {
                out.text("ssh-rsa");
                for magnitude in [&number(2048), &vec![1, 0, 1], &d, &iqmp, &p, &q] {
                    out.mpint(magnitude);
                }
            })
        };
        let (p, q) = (number(1024), [number(1016), vec![1]].concat());
        assert_eq!(rsa(number(2040), number(1000), p.clone(), q.clone()), None);
        let wrong = Some(Malformed::PrivateKey);
        assert_eq!(rsa(number(2049), number(1000), p.clone(), q.clone()), wrong);
        assert_eq!(rsa(number(2040), number(1025), p.clone(), q.clone()), wrong);
        assert_eq!(rsa(number(2040), number(1000), p.clone(), p.clone()), wrong);
        assert_eq!(rsa(number(2040), number(1000), p.clone(), number(1000)), wrong);
        assert_eq!(rsa(number(2040), number(1000), number(1048), number(1000)), wrong);
        assert_eq!(rsa([number(2040), vec![2]].concat(), number(1000), p, q), wrong);
    }

    #[test]
    fn a_certificate_must_be_for_the_key_behind_it() {
        let plain = PublicKey::plain(&Material::Ed25519([b'p'; 32])).unwrap();
        let behind = |name: &'static str| {
            fault(|out| {
                out.text(name);
                out.string(plain.blob());
            })
        };
        assert_eq!(behind(KeyType::Ed25519.certificate_name()), Some(Malformed::Certificate));
        assert_eq!(behind(KeyType::Rsa.certificate_name()), Some(Malformed::Mismatch));
        assert_eq!(behind("ssh-dss"), Some(Malformed::KeyType));
    }
}
