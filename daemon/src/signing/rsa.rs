//! RSA key pairs from the numbers that ssh keeps, and back.
//!
//! ssh keeps neither `dP` nor `dQ`. They are computed in constant time; the library then checks every number
//! against the others (n = p·q, d·e ≡ 1 modulo both primes less one, dP, dQ, and the inverse of q).

use aws_lc_rs::error::{KeyRejected, Unspecified};
use aws_lc_rs::rsa::{KeyPair, KeyPairComponents, PublicKeyComponents};
use crypto_bigint::{BoxedUint, NonZero};
use keyloan_protocol::secret::SecretBytes;
use zeroize::Zeroizing;

pub(super) fn open(
    (modulus, exponent): (&[u8], &[u8]),
    d: &SecretBytes,
    primes: [&SecretBytes; 2],
    iqmp: &SecretBytes,
) -> Result<KeyPair, KeyRejected> {
    let [Some(d_modulo_p), Some(d_modulo_q)] = primes.map(|prime| modulo_less_one(d, prime)) else {
        return Err(KeyRejected::from(Unspecified));
    };
    let [p, q] = primes.map(SecretBytes::expose);
    KeyPair::from_components(&KeyPairComponents {
        public_key: PublicKeyComponents { n: modulus, e: exponent },
        d: d.expose(),
        p,
        q,
        dP: d_modulo_p.expose(),
        dQ: d_modulo_q.expose(),
        qInv: iqmp.expose(),
    })
}

/// `d mod (prime - 1)`; none if the prime is not above 1. Time depends on the lengths alone.
fn modulo_less_one(d: &SecretBytes, prime: &SecretBytes) -> Option<SecretBytes> {
    let number = |bytes: &SecretBytes| {
        let bits = u32::try_from(bytes.len()).ok()?.checked_mul(8)?;
        BoxedUint::from_be_slice(bytes.expose(), bits).ok().map(Zeroizing::new)
    };
    let (d, prime) = (number(d)?, number(prime)?);
    let less_one = prime.wrapping_sub(BoxedUint::one());
    let less_one = Zeroizing::new(Option::<NonZero<BoxedUint>>::from(NonZero::new(less_one))?);
    let remainder = Zeroizing::new(d.rem(&less_one));
    Some(SecretBytes::new(remainder.to_be_bytes().into_vec()))
}

#[cfg(test)]
mod tests {
    use super::super::samples::{numbers, private_key};
    use super::super::{KeyFault, KeyKind, SigningKey, generate, verify};
    use super::*;
    use crypto_bigint::Odd;
    use keyloan_protocol::ssh_agent::algorithm::SignatureAlgorithm;

    const KIND: KeyKind = KeyKind::Rsa { bits: 2048 };

    /// The numbers n, e, d, iqmp, p, q of a new key.
    fn key() -> [Vec<u8>; 6] {
        numbers(&generate(KIND).unwrap()).try_into().unwrap()
    }

    fn big(bytes: &[u8]) -> BoxedUint {
        BoxedUint::from_be_slice_vartime(bytes)
    }

    fn opened(numbers: &[Vec<u8>]) -> Result<SigningKey, KeyFault> {
        SigningKey::open(&private_key(KIND, numbers).unwrap())
    }

    #[test]
    fn the_primes_may_stand_in_either_order_but_their_inverse_must_fit() {
        let [modulus, exponent, d, iqmp, p, q] = key();
        let swapped = [modulus.clone(), exponent.clone(), d.clone(), iqmp, q.clone(), p.clone()];
        assert_eq!(opened(&swapped).err(), Some(KeyFault::Inconsistent));
        let prime = Odd::new(big(&q)).unwrap();
        let inverse = big(&p).rem(prime.as_nz_ref()).invert_odd_mod(&prime).unwrap();
        let key = opened(&[modulus, exponent, d, inverse.to_be_bytes().into_vec(), q, p]).unwrap();
        let signature = key.sign(SignatureAlgorithm::RsaSha512, b"text").unwrap();
        assert!(verify(key.public(), b"text", &signature));
    }

    #[test]
    fn an_exponent_for_other_primes_is_refused() {
        let (one, other) = (key(), key());
        for number in 2..6 {
            let mut mixed = one.clone();
            mixed[number].clone_from(&other[number]);
            assert_eq!(opened(&mixed).err(), Some(KeyFault::Inconsistent), "{number}");
        }
        // p and q of another key, with their inverse, under this one's modulus.
        let mut mixed = one.clone();
        mixed[3..].clone_from_slice(&other[3..]);
        assert_eq!(opened(&mixed).err(), Some(KeyFault::Inconsistent));
    }

    #[test]
    fn the_remainder_is_that_of_plain_division() {
        let secret = |number: u32| SecretBytes::new(number.to_be_bytes().to_vec());
        for (d, prime) in [(1_000_000, 1009), (5, 1009), (1008, 1009), (u32::MAX, 3)] {
            let remainder = modulo_less_one(&secret(d), &secret(prime)).unwrap();
            assert_eq!(big(remainder.expose()), BoxedUint::from(d % (prime - 1)));
        }
        assert!(modulo_less_one(&secret(5), &secret(1)).is_none());
    }
}
