//! Names of host keys: what a person pinned (`pins`, sealed in the vault) and what `known_hosts` says (`known_hosts`,
//! read by `files`). Any program of the user can write `known_hosts`, so what the two say is never mixed.
//!
//! Of a certificate only its fields are looked at here: whoever asks has verified the signature of its authority.

pub(crate) mod files;
pub(crate) mod known_hosts;
pub(crate) mod pattern;
pub(crate) mod pins;

use data_encoding::BASE64;
use keyloan_protocol::ssh_agent::algorithm::SignatureAlgorithm;
use keyloan_protocol::ssh_agent::certificate::{Certificate, CertificateKind};
use keyloan_protocol::ssh_agent::key::PublicKey;

/// The certificate of a host key, if it says something of a host at that time (seconds since 1970). As in OpenSSH's
/// `sshkey_cert_check_host`: no critical option is defined for hosts, so each is one that is not understood, and an
/// authority's signature with SHA-1 could be a collision that somebody prepared.
pub(crate) fn certificate_at(host_key: &PublicKey, now: u64) -> Option<&Certificate> {
    host_key.certificate().filter(|certificate| {
        certificate.kind == CertificateKind::Host
            && certificate.is_valid_at(now)
            && certificate.critical_options.is_empty()
            && certificate.signature.algorithm() != SignatureAlgorithm::RsaSha1
    })
}

/// A plain key as its type and its blob in base64; the type must be the blob's own.
fn key_of_line(key_type: &[u8], base64: &[u8]) -> Option<PublicKey> {
    let key = PublicKey::parse(&BASE64.decode(base64).ok()?).ok()?;
    (key.certificate().is_none() && key.name().as_bytes() == key_type).then_some(key)
}

fn line_of_key(key: &PublicKey) -> String {
    format!("{} {}", key.key_type().name(), BASE64.encode(&key.plain_blob()))
}

#[cfg(test)]
pub(crate) mod tests {
    use keyloan_protocol::ssh_agent::key::{Material, PublicKey};
    use keyloan_protocol::ssh_agent::signature::Signature;
    use keyloan_protocol::ssh_agent::wire;

    /// Bytes that look random and are the same each time (xorshift).
    pub(crate) struct Noise(pub(crate) u64);

    impl Noise {
        pub(crate) fn next(&mut self) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0
        }

        pub(crate) fn below(&mut self, limit: usize) -> usize {
            usize::try_from(self.next() % u64::try_from(limit).unwrap()).unwrap()
        }
    }

    pub(crate) fn key(number: u8) -> PublicKey {
        PublicKey::plain(&Material::Ed25519([number; 32])).unwrap()
    }

    /// A certificate that nobody signed.
    pub(crate) struct Certified<'a> {
        pub(crate) key: u8,
        pub(crate) authority: u8,
        /// 2 for a host.
        pub(crate) kind: u32,
        pub(crate) principals: &'a [&'a str],
        pub(crate) valid: (u64, u64),
        pub(crate) critical: &'a [&'a str],
    }

    /// Of key 1 by authority 2, from 100 to 200.
    pub(crate) const CERTIFIED: Certified<'_> = Certified {
        key: 1,
        authority: 2,
        kind: 2,
        principals: &["a.example"],
        valid: (100, 200),
        critical: &[],
    };

    impl Certified<'_> {
        pub(crate) fn make(&self) -> PublicKey {
            let blob = wire::encode(|out| {
                out.text("ssh-ed25519-cert-v01@openssh.com");
                out.text("nonce");
                out.string(&[self.key; 32]);
                out.u64(0);
                out.u32(self.kind);
                out.text("id");
                out.nested(|out| self.principals.iter().for_each(|principal| out.text(principal)));
                out.u64(self.valid.0);
                out.u64(self.valid.1);
                out.nested(|out| {
                    for name in self.critical {
                        out.text(name);
                        out.text("");
                    }
                });
                out.text("");
                out.text("");
                out.string(key(self.authority).blob());
                out.string(&Signature::Ed25519([0; 64]).encode());
            });
            PublicKey::parse(&blob).unwrap()
        }
    }

    #[test]
    fn a_certificate_says_something_of_a_host_only_in_its_time_and_without_conditions() {
        let says = |certified: Certified<'_>, now| super::certificate_at(&certified.make(), now).is_some();
        assert!(
            !says(CERTIFIED, 99) && says(CERTIFIED, 100) && says(CERTIFIED, 199) && !says(CERTIFIED, 200)
        );
        assert!(!says(Certified { kind: 1, ..CERTIFIED }, 150));
        assert!(!says(Certified { critical: &["verify-required"], ..CERTIFIED }, 150));
        assert!(super::certificate_at(&key(1), 150).is_none());
    }

    #[test]
    fn a_key_is_read_back_from_its_line_and_only_under_its_own_type() {
        let line = super::line_of_key(&key(7));
        let (key_type, base64) = line.split_once(' ').unwrap();
        assert_eq!(super::key_of_line(key_type.as_bytes(), base64.as_bytes()), Some(key(7)));
        assert_eq!(super::key_of_line(b"ssh-rsa", base64.as_bytes()), None);
        assert_eq!(super::key_of_line(key_type.as_bytes(), &base64.as_bytes()[1..]), None);
    }
}
