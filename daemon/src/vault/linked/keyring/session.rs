//! What a value is encrypted with on its way over the bus: Secret Service API 0.2, "Transfer of Secrets",
//! `dh-ietf1024-sha256-aes128-cbc-pkcs7`. It keeps values from who only listens; neither side proves who it is.

use aws_lc_rs::cipher::{
    AES_128, DecryptionContext, PaddedBlockDecryptingKey, PaddedBlockEncryptingKey, UnboundCipherKey,
};
use aws_lc_rs::iv::FixedLength;
use crypto_bigint::modular::{FixedMontyForm, FixedMontyParams};
use crypto_bigint::{Odd, U1024};
use hkdf::Hkdf;
use keyloan_protocol::secret::SecretBytes;
use sha2::Sha256;
use zeroize::Zeroizing;

pub(super) const ALGORITHM: &str = "dh-ietf1024-sha256-aes128-cbc-pkcs7";

/// Bytes of a number of the group.
const LENGTH: usize = 128;
const BLOCK: usize = 16;

/// RFC 2409, 6.2: the second Oakley group. Its generator is 2.
const PRIME: &str = "FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74\
                     020BBEA63B139B22514A08798E3404DDEF9519B3CD3A431B302B0A6DF25F1437\
                     4FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7ED\
                     EE386BFB5A899FA5AE9F24117C4B1FE649286651ECE65381FFFFFFFFFFFFFFFF";

/// The daemon's half of an agreement.
pub(super) struct Half {
    group: FixedMontyParams<{ U1024::LIMBS }>,
    private: Zeroizing<U1024>,
}

/// What both sides agreed on.
pub(super) struct Agreed(Zeroizing<[u8; BLOCK]>);

impl Half {
    pub(super) fn new() -> Option<Self> {
        let mut random = Zeroizing::new([0; LENGTH]);
        getrandom::fill(random.as_mut_slice()).ok()?;
        let group = FixedMontyParams::new(Odd::<U1024>::from_be_hex(PRIME));
        Some(Self { group, private: Zeroizing::new(U1024::from_be_slice(random.as_slice())) })
    }

    pub(super) fn public(&self) -> Vec<u8> {
        self.power(&U1024::from_u8(2)).to_be_bytes().as_ref().to_vec()
    }

    /// `None` for a number that would make the result known to everybody.
    pub(super) fn agree(&self, theirs: &[u8]) -> Option<Agreed> {
        let mut padded = [0; LENGTH];
        padded[LENGTH.checked_sub(theirs.len())?..].copy_from_slice(theirs);
        let theirs = U1024::from_be_slice(&padded);
        let last = self.group.modulus().as_ref().wrapping_sub(&U1024::ONE);
        if theirs <= U1024::ONE || theirs >= last {
            return None;
        }
        let common = Zeroizing::new(self.power(&theirs));
        let common = Zeroizing::new(common.to_be_bytes().as_ref().to_vec());
        let mut key = Zeroizing::new([0; BLOCK]);
        Hkdf::<Sha256>::new(None, &common).expand(&[], key.as_mut_slice()).ok()?;
        Some(Agreed(key))
    }

    /// In constant time.
    fn power(&self, base: &U1024) -> U1024 {
        FixedMontyForm::new(base, &self.group).pow(&*self.private).retrieve()
    }
}

impl Agreed {
    /// `None` where it was not encrypted with this key.
    pub(super) fn open(&self, iv: &[u8], value: Vec<u8>) -> Option<SecretBytes> {
        let mut value = Zeroizing::new(value);
        let iv: [u8; BLOCK] = iv.try_into().ok()?;
        let key = UnboundCipherKey::new(&AES_128, self.0.as_slice()).ok()?;
        let key = PaddedBlockDecryptingKey::cbc_pkcs7(key).ok()?;
        let context = DecryptionContext::Iv128(FixedLength::from(iv));
        Some(SecretBytes::copy_of(key.decrypt(&mut value, context).ok()?))
    }

    /// The vector and the encrypted value.
    pub(super) fn seal(&self, value: &SecretBytes) -> Option<(Vec<u8>, Vec<u8>)> {
        let mut text = Zeroizing::new(Vec::with_capacity(value.len() + BLOCK));
        text.extend_from_slice(value.expose());
        let key = UnboundCipherKey::new(&AES_128, self.0.as_slice()).ok()?;
        let context = PaddedBlockEncryptingKey::cbc_pkcs7(key).ok()?.encrypt(&mut *text).ok()?;
        let iv: &[u8] = (&context).try_into().ok()?;
        Some((iv.to_vec(), std::mem::take(&mut *text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_halves_read_what_the_other_wrote() {
        let (ours, theirs) = (Half::new().unwrap(), Half::new().unwrap());
        let mine = ours.agree(&theirs.public()).unwrap();
        let yours = theirs.agree(&ours.public()).unwrap();
        for value in [b"".to_vec(), b"tok".to_vec(), vec![0xff; 16], vec![7; 1 << 20]] {
            let (iv, sealed) = mine.seal(&SecretBytes::copy_of(&value)).unwrap();
            assert!(value.is_empty() || !sealed.windows(value.len()).any(|part| part == value));
            assert!(yours.open(&iv, sealed).unwrap().expose() == value);
        }
    }

    #[test]
    fn what_the_other_side_sends_is_not_believed() {
        let half = Half::new().unwrap();
        let prime = data_encoding::HEXUPPER.decode(PRIME.as_bytes()).unwrap();
        let mut last = prime.clone();
        last[LENGTH - 1] -= 1;
        for bad in [&[][..], &[0], &[1], &prime, &last, &[0xff; LENGTH], &[1; LENGTH + 1]] {
            assert!(half.agree(bad).is_none());
        }
        let agreed = half.agree(&[2]).unwrap();
        let (iv, sealed) = agreed.seal(&SecretBytes::copy_of(b"tok")).unwrap();
        for (iv, sealed) in [
            (&iv[1..], sealed.clone()),
            (&iv[..], sealed[1..].to_vec()),
            (&iv[..], Vec::new()),
            (&iv[..], vec![0; 1 << 10]),
        ] {
            assert!(agreed.open(iv, sealed).is_none());
        }
    }
}
