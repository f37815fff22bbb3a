//! New keys. An RSA key of 4096 bits takes seconds: not on the event loop.

use super::KeyFault;
use super::key::signing;
use aws_lc_rs::encoding::{AsBigEndian, AsDer, Curve25519SeedBin, EcPrivateKeyBin, Pkcs8V1Der};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use keyloan_protocol::ssh_agent::algorithm::{Curve, KeyType};
use keyloan_protocol::ssh_agent::private_key::PrivateKey;
use keyloan_protocol::ssh_agent::wire::{self, Reader, Writer};

/// What to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyKind {
    Ed25519,
    Ecdsa(Curve),
    Rsa { bits: usize },
}

impl From<Unspecified> for KeyFault {
    fn from(_: Unspecified) -> Self {
        Self::Library
    }
}

pub(crate) fn generate(kind: KeyKind) -> Result<PrivateKey, KeyFault> {
    match kind {
        KeyKind::Ed25519 => ed25519(),
        KeyKind::Ecdsa(curve) => ecdsa(curve),
        KeyKind::Rsa { bits: 2048 } => rsa(KeySize::Rsa2048),
        KeyKind::Rsa { bits: 3072 } => rsa(KeySize::Rsa3072),
        KeyKind::Rsa { bits: 4096 } => rsa(KeySize::Rsa4096),
        KeyKind::Rsa { bits: 8192 } => rsa(KeySize::Rsa8192),
        KeyKind::Rsa { .. } => Err(KeyFault::Size),
    }
}

fn ed25519() -> Result<PrivateKey, KeyFault> {
    let pair = Ed25519KeyPair::generate()?;
    let seed = pair.seed()?;
    let seed: Curve25519SeedBin<'_> = seed.as_be_bytes()?;
    let public = pair.public_key().as_ref();
    private_key(|out| {
        out.text(KeyType::Ed25519.name());
        out.string(public);
        out.nested(|out| {
            out.bytes(seed.as_ref());
            out.bytes(public);
        });
    })
}

fn ecdsa(curve: Curve) -> Result<PrivateKey, KeyFault> {
    let pair = EcdsaKeyPair::generate(signing(curve))?;
    let scalar: EcPrivateKeyBin<'_> = pair.private_key().as_be_bytes()?;
    private_key(|out| {
        out.text(KeyType::Ecdsa(curve).name());
        out.text(curve.name());
        out.string(pair.public_key().as_ref());
        out.mpint(scalar.as_ref());
    })
}

fn rsa(size: KeySize) -> Result<PrivateKey, KeyFault> {
    let pair = RsaKeyPair::generate(size)?;
    let der: Pkcs8V1Der<'_> = pair.as_der()?;
    let [modulus, exponent, d, p, q, iqmp] = numbers(der.as_ref()).ok_or(KeyFault::Library)?;
    private_key(|out| {
        out.text(KeyType::Rsa.name());
        for number in [modulus, exponent, d, iqmp, p, q] {
            out.mpint(number);
        }
    })
}

fn private_key(write: impl Fn(&mut Writer)) -> Result<PrivateKey, KeyFault> {
    PrivateKey::read(&mut Reader::new(&wire::encode(write))).map_err(|_| KeyFault::Library)
}

/// n, e, d, p, q and the inverse of q, out of the PKCS#8 that the library writes (RFC 5208 section 5, around RFC 8017
/// appendix A.1.2): it gives them in no other way.
fn numbers(pkcs8: &[u8]) -> Option<[&[u8]; 6]> {
    const INTEGER: u8 = 0x02;
    const OCTETS: u8 = 0x04;
    const SEQUENCE: u8 = 0x30;
    let outer = &mut element(&mut &*pkcs8, SEQUENCE)?;
    let (_version, _algorithm) = (element(outer, INTEGER)?, element(outer, SEQUENCE)?);
    let key = &mut element(&mut element(outer, OCTETS)?, SEQUENCE)?;
    let _version = element(key, INTEGER)?;
    let mut next = || element(key, INTEGER);
    let [modulus, exponent, d, p, q] = [next()?, next()?, next()?, next()?, next()?];
    let (_dp, _dq) = (next()?, next()?);
    Some([modulus, exponent, d, p, q, next()?])
}

/// The contents of the next element, in DER.
fn element<'a>(rest: &mut &'a [u8], tag: u8) -> Option<&'a [u8]> {
    let (&[found, first], after) = rest.split_first_chunk()?;
    let long = usize::from(first & 0x7f);
    let (length, after) = if first < 0x80 {
        (long, after)
    } else {
        let (bytes, after) = after.split_at_checked(long)?;
        (
            bytes
                .iter()
                .try_fold(0_usize, |length, &byte| length.checked_mul(256)?.checked_add(byte.into()))?,
            after,
        )
    };
    let contents;
    (contents, *rest) = after.split_at_checked(length)?;
    (found == tag).then_some(contents)
}
