//! What a client wants to have signed. Only a blob that matches its format to the last byte is called a login or a
//! file's signature; all else is [`ToBeSigned::Other`], for which nobody can say what a signature would permit.

use super::algorithm::SignatureAlgorithm;
use super::key::PublicKey;
use super::wire::{Malformed, Reader};

const USERAUTH_REQUEST: u8 = 50;
const SERVICE: &str = "ssh-connection";
const SSHSIG: &[u8] = b"SSHSIG";

/// Told apart by the first bytes: `SSHS` would be a session id of more than a gigabyte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToBeSigned {
    Login(Login),
    Document(Document),
    Other,
}

/// A login with a public key: RFC 4252 section 7, and OpenSSH's PROTOCOL section 3.1 with the host key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// Never empty.
    pub session_id: Vec<u8>,
    /// The account at the host.
    pub user: String,
    /// As the login names it. What is signed with is up to the flags of the request; old clients of OpenSSH name
    /// `ssh-rsa-cert-v01@openssh.com` whatever the hash.
    pub algorithm: SignatureAlgorithm,
    /// The key that was asked to sign, or a certificate for it.
    pub key: PublicKey,
    /// The key that the host showed, of `publickey-hostbound-v00@openssh.com`.
    pub host_key: Option<PublicKey>,
}

/// The hash of a file or a commit: PROTOCOL.sshsig section 3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// What the signature is for, `git` or `file`; never empty.
    pub namespace: String,
    pub hash: DocumentHash,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DocumentHash {
    Sha256([u8; 32]),
    Sha512([u8; 64]),
}

impl ToBeSigned {
    /// What `key` is asked to sign.
    pub fn parse(data: &[u8], key: &PublicKey) -> Self {
        let understood = match data.strip_prefix(SSHSIG) {
            Some(rest) => Document::read(Reader::new(rest)).map(Self::Document),
            None => Login::read(Reader::new(data), key).map(Self::Login),
        };
        understood.unwrap_or(Self::Other)
    }
}

impl Login {
    /// The key in the blob must be the one that signs. A certificate for it is as good: ssh signs with a plain key of
    /// the agent when the certificate is only in a file.
    fn read(mut reader: Reader<'_>, signer: &PublicKey) -> Result<Self, Malformed> {
        let session_id = reader.string()?.to_vec();
        if session_id.is_empty() {
            return Err(Malformed::Empty);
        }
        match reader.u8()? {
            USERAUTH_REQUEST => {}
            other => return Err(Malformed::MessageType(other)),
        }
        let user = reader.text()?.to_owned();
        let (service, method) = (reader.text()?, reader.text()?);
        let has_signature = reader.u8()?;
        let algorithm = reader.text()?;
        let key = PublicKey::parse(reader.string()?)?;
        let host_key = match method {
            "publickey" => None,
            "publickey-hostbound-v00@openssh.com" => Some(PublicKey::parse(reader.string()?)?),
            _ => return Err(Malformed::Text),
        };
        reader.end()?;
        if service != SERVICE || has_signature != 1 {
            return Err(Malformed::Text);
        }
        let algorithm = SignatureAlgorithm::of_login(algorithm, key.certificate().is_some())
            .filter(|algorithm| algorithm.key_type() == key.key_type())
            .ok_or(Malformed::SignatureAlgorithm)?;
        if !key.is_or_certifies(signer) {
            return Err(Malformed::Mismatch);
        }
        Ok(Self { session_id, user, algorithm, key, host_key })
    }
}

impl Document {
    /// Reads what follows the magic. The reserved field must be empty: who knows what it will come to mean.
    fn read(mut reader: Reader<'_>) -> Result<Self, Malformed> {
        let namespace = reader.text()?.to_owned();
        let reserved = reader.string()?;
        let (name, hash) = (reader.text()?, reader.string()?);
        reader.end()?;
        if namespace.is_empty() {
            return Err(Malformed::Empty);
        }
        if !reserved.is_empty() {
            return Err(Malformed::Trailing);
        }
        let hash = match name {
            "sha256" => hash.try_into().map(DocumentHash::Sha256).ok(),
            "sha512" => hash.try_into().map(DocumentHash::Sha512).ok(),
            _ => None,
        };
        Ok(Self { namespace, hash: hash.ok_or(Malformed::Signature)? })
    }
}

#[cfg(test)]
mod tests {
    use super::super::key::Material;
    use super::super::wire;
    use super::*;

    struct Parts<'a> {
        session_id: &'a [u8],
        number: u8,
        service: &'a str,
        method: &'a str,
        has_signature: u8,
        algorithm: &'a str,
    }

    const LOGIN: Parts<'_> = Parts {
        session_id: b"id",
        number: 50,
        service: "ssh-connection",
        method: "publickey",
        has_signature: 1,
        algorithm: "ssh-ed25519",
    };

    fn is_login(parts: &Parts<'_>) -> bool {
        let key = PublicKey::plain(&Material::Ed25519([1; 32])).unwrap();
        let data = wire::encode(|out| {
            out.string(parts.session_id);
            out.u8(parts.number);
            out.text("root");
            out.text(parts.service);
            out.text(parts.method);
            out.u8(parts.has_signature);
            out.text(parts.algorithm);
            out.string(key.blob());
        });
        matches!(ToBeSigned::parse(&data, &key), ToBeSigned::Login(_))
    }

    #[test]
    fn a_login_says_exactly_what_a_login_says() {
        assert!(is_login(&LOGIN));
        for parts in [
            Parts { session_id: b"", ..LOGIN },
            Parts { number: 51, ..LOGIN },
            Parts { service: "ssh-userauth", ..LOGIN },
            Parts { method: "hostbased", ..LOGIN },
            // Without the host key that it announces.
            Parts { method: "publickey-hostbound-v00@openssh.com", ..LOGIN },
            Parts { has_signature: 0, ..LOGIN },
            Parts { has_signature: 2, ..LOGIN },
            Parts { algorithm: "ssh-rsa", ..LOGIN },
            Parts { algorithm: "ssh-ed25519-cert-v01@openssh.com", ..LOGIN },
            Parts { algorithm: "none", ..LOGIN },
        ] {
            assert!(!is_login(&parts));
        }
    }

    #[test]
    fn a_document_has_a_namespace_and_a_hash_of_the_right_length() {
        let key = PublicKey::plain(&Material::Ed25519([1; 32])).unwrap();
        for (magic, namespace, reserved, hash, length, right) in [
            ("SSHSIG", "git", "", "sha512", 64, true),
            ("SSHSIG", "git", "", "sha256", 32, true),
            ("SSHSIG", "git", "", "sha256", 64, false),
            ("SSHSIG", "git", "", "sha512", 32, false),
            ("SSHSIG", "git", "", "sha384", 48, false),
            ("SSHSIG", "git", "later", "sha512", 64, false),
            ("SSHSIG", "", "", "sha512", 64, false),
            ("SSHSIF", "git", "", "sha512", 64, false),
        ] {
            let data = wire::encode(|out| {
                out.bytes(magic.as_bytes());
                for text in [namespace, reserved, hash] {
                    out.text(text);
                }
                out.string(&vec![7; length]);
            });
            let signed = ToBeSigned::parse(&data, &key);
            assert_eq!(
                matches!(signed, ToBeSigned::Document(_)),
                right,
                "{magic} {namespace} {hash} {length}"
            );
        }
    }
}
