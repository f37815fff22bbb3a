//! What a certificate says beside the key in it (PROTOCOL.certkeys). Nothing here is believed yet: the signature is
//! verified elsewhere, over exactly the bytes in [`Certificate::signed`].

use super::key::PublicKey;
use super::signature::Signature;
use super::wire::{Malformed, Reader};
use crate::limits;

/// The fields of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    pub serial: u64,
    pub kind: CertificateKind,
    /// Free text of the authority, for logs; may not be UTF-8.
    pub key_id: Vec<u8>,
    /// Names of users, or of hosts; none means any.
    pub principals: Vec<String>,
    /// Seconds since 1970.
    pub valid_after: u64,
    /// Seconds since 1970, the first at which it is no longer valid; `u64::MAX` is for ever.
    pub valid_before: u64,
    /// Whoever does not know one of these must refuse the certificate.
    pub critical_options: Vec<CertificateOption>,
    pub extensions: Vec<CertificateOption>,
    /// A plain key.
    pub authority: PublicKey,
    pub signature: Signature,
    /// The exact bytes that the authority signed: the blob up to and with the authority's key.
    pub signed: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CertificateKind {
    User,
    Host,
}

/// A critical option or an extension. The form of the data depends on the name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateOption {
    pub name: String,
    pub data: Vec<u8>,
}

impl Certificate {
    /// Reads what follows the key in `blob`.
    pub(super) fn read(reader: &mut Reader<'_>, nonce: &[u8], blob: &[u8]) -> Result<Self, Malformed> {
        // Without it a collision of the hash under the signature could be prepared.
        if nonce.is_empty() {
            return Err(Malformed::Empty);
        }
        let serial = reader.u64()?;
        let kind = match reader.u32()? {
            1 => CertificateKind::User,
            2 => CertificateKind::Host,
            _ => return Err(Malformed::CertificateKind),
        };
        let key_id = reader.string()?.to_vec();
        let principals = principals(reader.nested()?)?;
        let (valid_after, valid_before) = (reader.u64()?, reader.u64()?);
        let critical_options = options(reader.nested()?)?;
        let extensions = options(reader.nested()?)?;
        // "Currently unused and ignored".
        reader.string()?;
        let authority = PublicKey::parse_plain(reader.string()?)?;
        let signed = blob.len().checked_sub(reader.unread().len()).and_then(|length| blob.get(..length));
        let signed = signed.ok_or(Malformed::Truncated)?.to_vec();
        let signature = Signature::parse(reader.string()?)?;
        if !signature.is_of(&authority) {
            return Err(Malformed::Signature);
        }
        Ok(Self {
            serial,
            kind,
            key_id,
            principals,
            valid_after,
            valid_before,
            critical_options,
            extensions,
            authority,
            signature,
            signed,
        })
    }

    /// Whether it is within its time, in seconds since 1970.
    pub const fn is_valid_at(&self, now: u64) -> bool {
        self.valid_after <= now && (now < self.valid_before || self.valid_before == u64::MAX)
    }
}

fn principals(mut list: Reader<'_>) -> Result<Vec<String>, Malformed> {
    let mut principals = Vec::new();
    while !list.is_empty() {
        if principals.len() >= limits::SSH_PRINCIPALS {
            return Err(Malformed::TooMany);
        }
        principals.push(list.text()?.to_owned());
    }
    Ok(principals)
}

/// Kept in their order. A name twice is refused, or two readers could each believe another of them. The options that
/// PROTOCOL.certkeys defines hold one string or nothing; what others hold is not known.
fn options(mut list: Reader<'_>) -> Result<Vec<CertificateOption>, Malformed> {
    let mut options: Vec<CertificateOption> = Vec::new();
    let mut seen = std::collections::HashSet::new();
    while !list.is_empty() {
        let name = list.text()?;
        if !seen.insert(name) {
            return Err(Malformed::RepeatedOption);
        }
        let data = list.string()?;
        let mut inside = Reader::new(data);
        match name {
            "force-command" | "source-address" => {
                inside.text()?;
                inside.end()?;
            }
            "no-touch-required" | "verify-required" => inside.end()?,
            _ if name.starts_with("permit-") => inside.end()?,
            _ => {}
        }
        options.push(CertificateOption { name: name.to_owned(), data: data.to_vec() });
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::super::algorithm::KeyType;
    use super::super::key::Material;
    use super::super::wire::{self, Writer};
    use super::*;

    struct Parts {
        nonce: &'static [u8],
        kind: u32,
        principals: usize,
        options: &'static [&'static str],
        authority: Vec<u8>,
        signature: Signature,
    }

    impl Default for Parts {
        fn default() -> Self {
            let authority = PublicKey::plain(&Material::Ed25519([1; 32])).unwrap().blob().to_vec();
            let signature = Signature::Ed25519([2; 64]);
            Self { nonce: b"n", kind: 1, principals: 1, options: &["force-command"], authority, signature }
        }
    }

    impl Parts {
        fn signed(&self, out: &mut Writer) {
            out.text(KeyType::Ed25519.certificate_name());
            out.string(self.nonce);
            out.string(&[3; 32]);
            out.u64(7);
            out.u32(self.kind);
            out.string(b"caf\xe9");
            out.nested(|out| (0..self.principals).for_each(|_| out.text("root")));
            out.u64(5);
            out.u64(u64::MAX);
            out.nested(|out| {
                for name in self.options {
                    out.text(name);
                    out.nested(|out| out.text("true"));
                }
            });
            out.string(b"");
            out.string(b"later");
            out.string(&self.authority);
        }

        fn parse(&self) -> Result<PublicKey, Malformed> {
            PublicKey::parse(&wire::encode(|out| {
                self.signed(out);
                out.string(&self.signature.encode());
            }))
        }
    }

    #[test]
    fn a_certificate_that_lasts_for_ever_says_what_was_signed() {
        let parts = Parts::default();
        let key = parts.parse().unwrap();
        let certificate = key.certificate().unwrap();
        assert_eq!(certificate.signed, *wire::encode(|out| parts.signed(out)));
        assert_eq!((certificate.serial, certificate.kind), (7, CertificateKind::User));
        assert_eq!(certificate.key_id, b"caf\xe9");
        assert_eq!(certificate.principals, ["root"]);
        assert_eq!(certificate.critical_options[0].name, "force-command");
        assert!(
            !certificate.is_valid_at(4) && certificate.is_valid_at(5) && certificate.is_valid_at(u64::MAX)
        );
        assert_eq!(key.plain_blob(), PublicKey::plain(&Material::Ed25519([3; 32])).unwrap().blob());
        assert!(key.is_or_certifies(&PublicKey::parse(&key.plain_blob()).unwrap()));
        assert!(!PublicKey::parse(&key.plain_blob()).unwrap().is_or_certifies(&key));
    }

    #[test]
    fn certificates_that_break_the_rules_are_refused() {
        let chained = Parts::default().parse().unwrap().blob().to_vec();
        let other = Signature::SkEd25519 { signature: [0; 64], flags: 0, counter: 0 };
        for (parts, fault) in [
            (Parts { nonce: b"", ..Parts::default() }, Malformed::Empty),
            (Parts { kind: 3, ..Parts::default() }, Malformed::CertificateKind),
            (Parts { principals: 257, ..Parts::default() }, Malformed::TooMany),
            (Parts { options: &["a", "b", "a"], ..Parts::default() }, Malformed::RepeatedOption),
            (Parts { authority: chained, ..Parts::default() }, Malformed::Certificate),
            (Parts { signature: other, ..Parts::default() }, Malformed::Signature),
        ] {
            assert_eq!(parts.parse(), Err(fault));
        }
        assert_eq!(Parts { principals: 256, ..Parts::default() }.parse().map(|_| ()), Ok(()));
    }
}
