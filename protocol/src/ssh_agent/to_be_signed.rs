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
