//! All that is computed with ssh keys: signatures, their verification, new keys, and the files keys are kept in.
//!
//! A private key is used only after its halves were seen to belong together: a signature under one public key with
//! the private number of another gives the private number away (Ed25519), and a wrong CRT number gives away the
//! factors of an RSA key. No cryptographic primitive is implemented here.

mod generate;
mod key;
pub(crate) mod key_file;
pub(crate) mod public_line;
mod rsa;
mod verify;

#[cfg(test)]
mod interop;
#[cfg(test)]
mod samples;

pub(crate) use generate::{KeyKind, generate};
pub(crate) use key::SigningKey;
pub(crate) use verify::{certificate_is_signed, verify};

use data_encoding::BASE64_NOPAD;
use keyloan_protocol::ssh_agent::key::PublicKey;
use sha2::{Digest, Sha256};

/// Why a key cannot be used as asked. Says nothing of its numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum KeyFault {
    #[error("the private half is kept in a security key")]
    SecurityKey,
    #[error("the halves of the key do not belong together, or it is no such key at all")]
    Inconsistent,
    #[error("a key of another type makes such signatures")]
    Algorithm,
    #[error("signatures with SHA-1 are not made: collisions can be computed")]
    Sha1,
    #[error("RSA keys are made with 2048, 3072, 4096 or 8192 bits")]
    Size,
    #[error("the cryptographic library failed")]
    Library,
}

/// As `ssh-keygen -l` shows it; of a certificate, that of the key in it.
pub(crate) fn fingerprint(key: &PublicKey) -> String {
    format!("SHA256:{}", BASE64_NOPAD.encode(&Sha256::digest(key.plain_blob())))
}
