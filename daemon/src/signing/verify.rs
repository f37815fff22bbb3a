//! Whether a signature was made with a key. Nothing is verified with SHA-1.

use aws_lc_rs::rsa::PublicKeyComponents;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, ED25519,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA512, UnparsedPublicKey,
};
use keyloan_protocol::ssh_agent::algorithm::Curve;
use keyloan_protocol::ssh_agent::certificate::Certificate;
use keyloan_protocol::ssh_agent::key::{Material, PublicKey};
use keyloan_protocol::ssh_agent::signature::{RsaHash, Signature};
use sha2::{Digest, Sha256};

/// Of a certificate the key in it is what counts. Of a security key, whether somebody touched it is in the
/// signature's flags, for whoever wants to know.
pub(crate) fn verify(key: &PublicKey, data: &[u8], signature: &Signature) -> bool {
    match (key.material(), signature) {
        (Material::Ed25519(public), Signature::Ed25519(signature)) => ed25519(public, data, signature),
        (Material::Ecdsa { curve, point }, Signature::Ecdsa { curve: made_on, r, s }) => {
            curve == made_on && ecdsa(*curve, point, data, r, s)
        }
        (Material::Rsa { e, n }, Signature::Rsa { hash, signature }) => rsa(e, n, data, *hash, signature),
        (Material::SkEd25519 { public, application }, Signature::SkEd25519 { signature, flags, counter }) => {
            ed25519(public, &signed_by_security_key(application, *flags, *counter, data), signature)
        }
        (Material::SkEcdsa { point, application }, Signature::SkEcdsa { r, s, flags, counter }) => {
            let signed = signed_by_security_key(application, *flags, *counter, data);
            ecdsa(Curve::Nistp256, point, &signed, r, s)
        }
        _ => false,
    }
}

/// Whether the authority that the certificate names signed it. Whether that authority is trusted, and the
/// certificate within its time, is another question.
pub(crate) fn certificate_is_signed(certificate: &Certificate) -> bool {
    verify(&certificate.authority, &certificate.signed, &certificate.signature)
}

fn ed25519(public: &[u8; 32], data: &[u8], signature: &[u8; 64]) -> bool {
    UnparsedPublicKey::new(&ED25519, public).verify(data, signature).is_ok()
}

fn ecdsa(curve: Curve, point: &[u8], data: &[u8], r: &[u8], s: &[u8]) -> bool {
    let algorithm = match curve {
        Curve::Nistp256 => &ECDSA_P256_SHA256_FIXED,
        Curve::Nistp384 => &ECDSA_P384_SHA384_FIXED,
        Curve::Nistp521 => &ECDSA_P521_SHA512_FIXED,
    };
    let (Some(r), Some(s)) = (padded(r, curve.bytes()), padded(s, curve.bytes())) else { return false };
    UnparsedPublicKey::new(algorithm, point).verify(data, &[r, s].concat()).is_ok()
}

/// A signature shorter than the modulus lacks leading zeros, as some implementations leave them out.
fn rsa(e: &[u8], n: &[u8], data: &[u8], hash: RsaHash, signature: &[u8]) -> bool {
    let parameters = match hash {
        RsaHash::Sha1 => return false,
        RsaHash::Sha256 => &RSA_PKCS1_2048_8192_SHA256,
        RsaHash::Sha512 => &RSA_PKCS1_2048_8192_SHA512,
    };
    let Some(signature) = padded(signature, n.len()) else { return false };
    PublicKeyComponents { n, e }.verify(parameters, data, &signature).is_ok()
}

/// PROTOCOL.u2f, "SSH U2F Signatures".
fn signed_by_security_key(application: &str, flags: u8, counter: u32, data: &[u8]) -> Vec<u8> {
    let mut signed = Sha256::digest(application).to_vec();
    signed.push(flags);
    signed.extend(counter.to_be_bytes());
    signed.extend(Sha256::digest(data));
    signed
}

fn padded(magnitude: &[u8], length: usize) -> Option<Vec<u8>> {
    let mut padded = vec![0; length.checked_sub(magnitude.len())?];
    padded.extend_from_slice(magnitude);
    Some(padded)
}

#[cfg(test)]
mod tests {
    use super::super::{KeyFault, KeyKind, SigningKey, generate, samples};
    use super::*;
    use keyloan_protocol::ssh_agent::algorithm::{KeyType, SignatureAlgorithm};
    use keyloan_protocol::ssh_agent::wire::{self, Writer};

    fn opened(kind: KeyKind) -> SigningKey {
        generate(kind).and_then(|key| SigningKey::open(&key)).unwrap()
    }

    /// A certificate for a host, its name after what was signed.
    fn certificate(
        authority: &SigningKey,
        algorithm: SignatureAlgorithm,
        signed_id: &str,
        id: &str,
    ) -> PublicKey {
        let subject = opened(KeyKind::Ed25519);
        let fields = |out: &mut Writer, id: &str| {
            let Material::Ed25519(public) = subject.public().material() else { unreachable!() };
            out.text(KeyType::Ed25519.certificate_name());
            out.string(b"nonce");
            out.string(public);
            out.u64(1);
            out.u32(2);
            out.text(id);
            out.nested(|out| out.text("host.example"));
            out.u64(0);
            out.u64(u64::MAX);
            out.string(b"");
            out.string(b"");
            out.string(b"");
            out.string(authority.public().blob());
        };
        let signature = authority.sign(algorithm, &wire::encode(|out| fields(out, signed_id))).unwrap();
        let blob = wire::encode(|out| {
            fields(out, id);
            out.string(&signature.encode());
        });
        PublicKey::parse(&blob).unwrap()
    }

    #[test]
    fn a_certificate_is_signed_by_its_authority_over_every_byte() {
        for kind in samples::KINDS {
            let authority = opened(kind);
            for algorithm in samples::algorithms(kind) {
                let right = certificate(&authority, algorithm, "web", "web");
                assert!(certificate_is_signed(right.certificate().unwrap()), "{algorithm:?}");
                let wrong = certificate(&authority, algorithm, "web", "wed");
                assert!(!certificate_is_signed(wrong.certificate().unwrap()), "{algorithm:?}");
                let mut stranger = right.certificate().unwrap().clone();
                stranger.authority = opened(kind).public().clone();
                assert!(!certificate_is_signed(&stranger), "{algorithm:?}");
            }
        }
    }

    #[test]
    fn the_key_in_a_certificate_is_the_one_that_verifies() {
        let authority = opened(KeyKind::Ed25519);
        let certificate = certificate(&authority, SignatureAlgorithm::Ed25519, "web", "web");
        let signature = authority.sign(SignatureAlgorithm::Ed25519, b"text").unwrap();
        assert!(verify(authority.public(), b"text", &signature));
        assert!(!verify(&certificate, b"text", &signature));
    }

    #[test]
    fn rsa_signatures_may_lack_leading_zeros_but_never_use_sha1() {
        let key = opened(KeyKind::Rsa { bits: 2048 });
        // One signature in 256 begins with a zero.
        let (text, short) = (0_u32..)
            .find_map(|count| {
                let text = count.to_be_bytes();
                match key.sign(SignatureAlgorithm::RsaSha256, &text) {
                    Ok(Signature::Rsa { signature, .. }) if signature[0] == 0 => Some((text, signature)),
                    _ => None,
                }
            })
            .unwrap();
        let of = |hash, signature: &[u8]| Signature::Rsa { hash, signature: signature.to_vec() };
        assert!(verify(key.public(), &text, &of(RsaHash::Sha256, &short)));
        assert!(verify(key.public(), &text, &of(RsaHash::Sha256, &short[1..])));
        assert!(!verify(key.public(), &text, &of(RsaHash::Sha256, &[&[0], short.as_slice()].concat())));
        assert!(!verify(key.public(), &text, &of(RsaHash::Sha512, &short)));
        assert!(!verify(key.public(), &text, &of(RsaHash::Sha1, &short)));
    }

    #[test]
    fn a_security_key_signs_flags_and_counter_too() {
        let (flags, counter, application) = (1, 7, "ssh:".to_owned());
        let signed =
            [Sha256::digest("ssh:").as_slice(), &[1, 0, 0, 0, 7], Sha256::digest("text").as_slice()].concat();
        let key = opened(KeyKind::Ed25519);
        let (Material::Ed25519(public), Ok(Signature::Ed25519(signature))) =
            (key.public().material(), key.sign(SignatureAlgorithm::Ed25519, &signed))
        else {
            unreachable!()
        };
        let on_key = |application: &str| {
            PublicKey::plain(&Material::SkEd25519 { public: *public, application: application.to_owned() })
                .unwrap()
        };
        let made = |flags, counter| Signature::SkEd25519 { signature, flags, counter };
        assert!(verify(&on_key("ssh:"), b"text", &made(flags, counter)));
        assert!(!verify(&on_key("ssh:other"), b"text", &made(flags, counter)));
        assert!(!verify(&on_key("ssh:"), b"text", &made(flags, counter + 1)));
        assert!(!verify(&on_key("ssh:"), b"text", &made(0, counter)));
        assert!(!verify(key.public(), b"text", &made(flags, counter)));

        let key = opened(KeyKind::Ecdsa(Curve::Nistp256));
        let (Material::Ecdsa { point, .. }, Ok(Signature::Ecdsa { r, s, .. })) =
            (key.public().material(), key.sign(SignatureAlgorithm::Ecdsa(Curve::Nistp256), &signed))
        else {
            unreachable!()
        };
        let on_key = PublicKey::plain(&Material::SkEcdsa { point: point.clone(), application }).unwrap();
        let made = |counter| Signature::SkEcdsa { r: r.clone(), s: s.clone(), flags, counter };
        assert!(verify(&on_key, b"text", &made(counter)));
        assert!(!verify(&on_key, b"text", &made(counter + 1)));
    }

    #[test]
    fn rsa_keys_are_made_in_four_sizes() {
        assert_eq!(generate(KeyKind::Rsa { bits: 3072 }).unwrap().public().bits(), 3072);
        assert_eq!(generate(KeyKind::Rsa { bits: 2049 }).err(), Some(KeyFault::Size));
    }
}
