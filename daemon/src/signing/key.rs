//! A private key that was opened, ready to sign any number of times.
//!
//! Its numbers lie in memory of the library, which overwrites what it frees.

use super::{KeyFault, rsa};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeyPair as RsaKeyPair;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED_SIGNING,
    EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, RSA_PKCS1_SHA256, RSA_PKCS1_SHA512,
    RsaSignatureEncoding,
};
use keyloan_protocol::ssh_agent::algorithm::{Curve, SignatureAlgorithm};
use keyloan_protocol::ssh_agent::key::{Material, PublicKey};
use keyloan_protocol::ssh_agent::private_key::{PrivateKey, Secret};
use keyloan_protocol::ssh_agent::signature::{RsaHash, Signature};

/// A key pair whose halves belong together. No `Debug`, no `Clone`.
pub(crate) struct SigningKey {
    public: PublicKey,
    pair: Pair,
}

enum Pair {
    Ed25519(Ed25519KeyPair),
    Ecdsa(Curve, EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

impl SigningKey {
    pub(crate) fn open(key: &PrivateKey) -> Result<Self, KeyFault> {
        let pair = match (key.public().material(), key.secret()) {
            (Material::Ed25519(half), Secret::Ed25519 { seed }) => {
                Ed25519KeyPair::from_seed_and_public_key(seed.expose(), half).map(Pair::Ed25519)
            }
            (Material::Ecdsa { curve, point }, Secret::Ecdsa { scalar }) => {
                EcdsaKeyPair::from_private_key_and_public_key(signing(*curve), scalar.expose(), point)
                    .map(|pair| Pair::Ecdsa(*curve, pair))
            }
            (Material::Rsa { e, n }, Secret::Rsa { d, iqmp, p, q }) => {
                rsa::open((n, e), d, [p, q], iqmp).map(Pair::Rsa)
            }
            (_, Secret::SecurityKey { .. }) => return Err(KeyFault::SecurityKey),
            _ => return Err(KeyFault::Inconsistent),
        };
        Ok(Self { public: key.public().clone(), pair: pair.map_err(|_| KeyFault::Inconsistent)? })
    }

    /// With its certificate, if it was opened with one.
    pub(crate) const fn public(&self) -> &PublicKey {
        &self.public
    }

    pub(crate) fn sign(&self, algorithm: SignatureAlgorithm, data: &[u8]) -> Result<Signature, KeyFault> {
        match (&self.pair, algorithm) {
            (Pair::Ed25519(pair), SignatureAlgorithm::Ed25519) => {
                let signature = pair.try_sign(data).map_err(|_| KeyFault::Library)?;
                signature.as_ref().try_into().map(Signature::Ed25519).map_err(|_| KeyFault::Library)
            }
            (Pair::Ecdsa(curve, pair), SignatureAlgorithm::Ecdsa(wanted)) if *curve == wanted => {
                let signature = pair.sign(&SystemRandom::new(), data).map_err(|_| KeyFault::Library)?;
                let halves = signature.as_ref().split_at_checked(curve.bytes()).ok_or(KeyFault::Library)?;
                Ok(Signature::Ecdsa { curve: *curve, r: magnitude(halves.0), s: magnitude(halves.1) })
            }
            (Pair::Rsa(pair), SignatureAlgorithm::RsaSha256) => {
                sign_rsa(pair, &RSA_PKCS1_SHA256, RsaHash::Sha256, data)
            }
            (Pair::Rsa(pair), SignatureAlgorithm::RsaSha512) => {
                sign_rsa(pair, &RSA_PKCS1_SHA512, RsaHash::Sha512, data)
            }
            (Pair::Rsa(_), SignatureAlgorithm::RsaSha1) => Err(KeyFault::Sha1),
            _ => Err(KeyFault::Algorithm),
        }
    }
}

/// The curve says the hash: RFC 5656 section 6.2.1.
pub(super) const fn signing(curve: Curve) -> &'static EcdsaSigningAlgorithm {
    match curve {
        Curve::Nistp256 => &ECDSA_P256_SHA256_FIXED_SIGNING,
        Curve::Nistp384 => &ECDSA_P384_SHA384_FIXED_SIGNING,
        Curve::Nistp521 => &ECDSA_P521_SHA512_FIXED_SIGNING,
    }
}

fn sign_rsa(
    pair: &RsaKeyPair,
    encoding: &'static RsaSignatureEncoding,
    hash: RsaHash,
    data: &[u8],
) -> Result<Signature, KeyFault> {
    let mut signature = vec![0; pair.public_modulus_len()];
    pair.sign(encoding, &SystemRandom::new(), data, &mut signature).map_err(|_| KeyFault::Library)?;
    Ok(Signature::Rsa { hash, signature })
}

fn magnitude(number: &[u8]) -> Vec<u8> {
    number.iter().copied().skip_while(|&byte| byte == 0).collect()
}

#[cfg(test)]
mod tests {
    use super::super::samples::{self, numbers, private_key};
    use super::super::{KeyKind, generate, verify};
    use super::*;

    #[test]
    fn keys_of_every_type_sign_what_verifies_and_nothing_else_does() {
        for kind in samples::KINDS {
            let key = SigningKey::open(&generate(kind).unwrap()).unwrap();
            let other = SigningKey::open(&generate(kind).unwrap()).unwrap();
            for algorithm in samples::algorithms(kind) {
                let signature = key.sign(algorithm, b"text").unwrap();
                assert_eq!(signature.algorithm(), algorithm);
                assert_eq!(Signature::parse(&signature.encode()).as_ref(), Ok(&signature));
                assert!(verify(key.public(), b"text", &signature), "{algorithm:?}");
                assert!(!verify(key.public(), b"test", &signature), "{algorithm:?}");
                assert!(!verify(other.public(), b"text", &signature), "{algorithm:?}");
                for byte in [0, 20, 31] {
                    let altered = samples::altered(&signature, byte);
                    assert!(!verify(key.public(), b"text", &altered), "{algorithm:?} {byte}");
                }
            }
        }
    }

    #[test]
    fn a_key_signs_with_no_algorithm_of_another_type_and_never_with_sha1() {
        let algorithms = samples::KINDS.map(samples::algorithms);
        for (kind, own) in samples::KINDS.into_iter().zip(&algorithms) {
            let key = SigningKey::open(&generate(kind).unwrap()).unwrap();
            for algorithm in algorithms.iter().flatten().filter(|algorithm| !own.contains(algorithm)) {
                assert_eq!(key.sign(*algorithm, b"text").err(), Some(KeyFault::Algorithm));
            }
            let sha1 = if matches!(kind, KeyKind::Rsa { .. }) { KeyFault::Sha1 } else { KeyFault::Algorithm };
            assert_eq!(key.sign(SignatureAlgorithm::RsaSha1, b"text").err(), Some(sha1));
            assert_eq!(key.sign(SignatureAlgorithm::SkEd25519, b"text").err(), Some(KeyFault::Algorithm));
        }
    }

    #[test]
    fn the_public_half_of_another_key_is_refused_for_every_type() {
        for kind in samples::KINDS {
            let (one, other) = (numbers(&generate(kind).unwrap()), numbers(&generate(kind).unwrap()));
            assert!(SigningKey::open(&private_key(kind, &one).unwrap()).is_ok());
            // Of an RSA key the exponent is the same for both.
            let mut mixed = one.clone();
            mixed[0].clone_from(&other[0]);
            let fault = private_key(kind, &mixed).map(|key| SigningKey::open(&key).err());
            assert_eq!(fault.unwrap(), Some(KeyFault::Inconsistent), "{kind:?}");
        }
    }

    #[test]
    fn a_flipped_bit_in_any_number_of_a_key_is_refused() {
        for kind in samples::KINDS {
            let right = numbers(&generate(kind).unwrap());
            for number in 0..right.len() {
                let mut reached = 0;
                for bit in 0..right[number].len() * 8 {
                    // Every bit of the short ones; of the long ones enough.
                    if right[number].len() > 140 && bit % 97 != 0 {
                        continue;
                    }
                    let mut wrong = right.clone();
                    wrong[number][bit / 8] ^= 1 << (bit % 8);
                    // What is wrong without arithmetic does not come this far.
                    let Ok(key) = private_key(kind, &wrong) else { continue };
                    let fault = SigningKey::open(&key).err();
                    assert_eq!(fault, Some(KeyFault::Inconsistent), "{kind:?} {number} {bit}");
                    reached += 1;
                }
                assert!(reached > 5, "{kind:?} {number}");
            }
        }
    }

    #[test]
    fn a_scalar_above_the_order_of_the_curve_is_refused_though_its_point_is_right() {
        let base = concat!(
            "046b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296",
            "4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5"
        );
        let point = data_encoding::HEXLOWER.decode(base.as_bytes()).unwrap();
        let order = b"ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632552";
        let above = data_encoding::HEXLOWER.decode(order).unwrap();
        let kind = KeyKind::Ecdsa(Curve::Nistp256);
        let open = |scalar: Vec<u8>| {
            SigningKey::open(&private_key(kind, &[point.clone(), scalar]).unwrap()).map(|_| ())
        };
        assert_eq!(open(vec![1]), Ok(()));
        assert_eq!(open(above), Err(KeyFault::Inconsistent));
    }

    #[test]
    fn a_key_in_a_security_key_cannot_be_opened() {
        assert_eq!(SigningKey::open(&samples::security_key()).err(), Some(KeyFault::SecurityKey));
    }
}
