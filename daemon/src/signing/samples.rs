//! Keys for the tests of this module, taken apart and put together again.

use super::KeyKind;
use keyloan_protocol::ssh_agent::algorithm::{Curve, KeyType, SignatureAlgorithm};
use keyloan_protocol::ssh_agent::key::Material;
use keyloan_protocol::ssh_agent::private_key::{PrivateKey, Secret};
use keyloan_protocol::ssh_agent::signature::Signature;
use keyloan_protocol::ssh_agent::wire::{self, Malformed, Reader, Writer};

pub(super) const KINDS: [KeyKind; 5] = [
    KeyKind::Ed25519,
    KeyKind::Ecdsa(Curve::Nistp256),
    KeyKind::Ecdsa(Curve::Nistp384),
    KeyKind::Ecdsa(Curve::Nistp521),
    KeyKind::Rsa { bits: 2048 },
];

pub(super) fn algorithms(kind: KeyKind) -> Vec<SignatureAlgorithm> {
    match kind {
        KeyKind::Ed25519 => vec![SignatureAlgorithm::Ed25519],
        KeyKind::Ecdsa(curve) => vec![SignatureAlgorithm::Ecdsa(curve)],
        KeyKind::Rsa { .. } => vec![SignatureAlgorithm::RsaSha256, SignatureAlgorithm::RsaSha512],
    }
}

/// The numbers of a key, the public ones first, in the order of a private key.
pub(super) fn numbers(key: &PrivateKey) -> Vec<Vec<u8>> {
    let mut numbers = match key.public().material() {
        Material::Ed25519(public) => vec![public.to_vec()],
        Material::Ecdsa { point, .. } => vec![point.clone()],
        Material::Rsa { e, n } => vec![n.clone(), e.clone()],
        _ => unreachable!(),
    };
    match key.secret() {
        Secret::Ed25519 { seed } => numbers.push(seed.expose().to_vec()),
        Secret::Ecdsa { scalar } => numbers.push(scalar.expose().to_vec()),
        Secret::Rsa { d, iqmp, p, q } => {
            numbers.extend([d, iqmp, p, q].map(|number| number.expose().to_vec()));
        }
        Secret::SecurityKey { .. } => unreachable!(),
    }
    numbers
}

/// The key of these numbers, whether they belong together or not.
pub(super) fn private_key(kind: KeyKind, numbers: &[Vec<u8>]) -> Result<PrivateKey, Malformed> {
    let bytes = wire::encode(|out| match kind {
        KeyKind::Ed25519 => {
            out.text(KeyType::Ed25519.name());
            out.string(&numbers[0]);
            out.string(&[numbers[1].as_slice(), &numbers[0]].concat());
        }
        KeyKind::Ecdsa(curve) => {
            out.text(KeyType::Ecdsa(curve).name());
            out.text(curve.name());
            out.string(&numbers[0]);
            out.mpint(&numbers[1]);
        }
        KeyKind::Rsa { .. } => {
            out.text(KeyType::Rsa.name());
            for number in numbers {
                out.mpint(number);
            }
        }
    });
    PrivateKey::read(&mut Reader::new(&bytes))
}

pub(super) fn security_key() -> PrivateKey {
    let bytes = wire::encode(|out: &mut Writer| {
        out.text(KeyType::SkEd25519.name());
        out.string(&[1; 32]);
        out.text("ssh:");
        out.u8(1);
        out.string(b"handle");
        out.string(b"");
    });
    PrivateKey::read(&mut Reader::new(&bytes)).unwrap()
}

/// With one bit flipped in each of its numbers.
pub(super) fn altered(signature: &Signature, byte: usize) -> Signature {
    let mut altered = signature.clone();
    match &mut altered {
        Signature::Ed25519(bytes) => bytes[byte] ^= 1,
        Signature::Ecdsa { r, s, .. } => {
            r[byte.min(25)] ^= 1;
            s[byte.min(25)] ^= 1;
        }
        Signature::Rsa { signature, .. } => signature[byte] ^= 1,
        _ => unreachable!(),
    }
    altered
}
