//! Extensions of the agent protocol (RFC 9987, "Extension Mechanism"): `session-bind@openssh.com` (PROTOCOL.agent
//! section 1), by which ssh tells the agent which session a connection serves, and `query`.

use super::key::PublicKey;
use super::signature::Signature;
use super::wire::{Malformed, Reader, Writer};
use crate::limits;
use crate::secret::SecretBytes;

pub const SESSION_BIND: &str = "session-bind@openssh.com";
pub const QUERY: &str = "query";

/// The contents of an extension request.
pub enum Extension {
    /// Which extensions are there?
    Query,
    SessionBind(SessionBind),
    /// Not known here; an upstream agent may know it.
    Other {
        name: String,
        contents: SecretBytes,
    },
}

/// "This connection serves that session". Believed only once the signature is verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionBind {
    /// Plain or a certificate, as the server showed it.
    pub host_key: PublicKey,
    /// The exchange hash of the first key exchange (RFC 4253 section 7.2); never empty.
    pub session_id: Vec<u8>,
    /// By the host key, over the session id. Of an algorithm that the host key can make.
    pub signature: Signature,
    /// The connection comes from that host, by agent forwarding, rather than going to it.
    pub forwarding: bool,
}

impl Extension {
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        match reader.text()? {
            QUERY => Ok(Self::Query),
            "" => Err(Malformed::Empty),
            SESSION_BIND => Ok(Self::SessionBind(SessionBind::read(reader)?)),
            name => {
                let contents = SecretBytes::copy_of(reader.remainder());
                Ok(Self::Other { name: name.to_owned(), contents })
            }
        }
    }

    pub(super) fn write(&self, out: &mut Writer) {
        match self {
            Self::Query => out.text(QUERY),
            Self::SessionBind(bind) => {
                out.text(SESSION_BIND);
                out.string(bind.host_key.blob());
                out.string(&bind.session_id);
                out.string(&bind.signature.encode());
                out.boolean(bind.forwarding);
            }
            Self::Other { name, contents } => {
                out.text(name);
                out.bytes(contents.expose());
            }
        }
    }
}

impl SessionBind {
    fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let host_key = PublicKey::parse(reader.string()?)?;
        let session_id = reader.string()?.to_vec();
        let signature = Signature::parse(reader.string()?)?;
        let forwarding = reader.boolean()?;
        if session_id.is_empty() {
            return Err(Malformed::Empty);
        }
        if !signature.is_of(&host_key) {
            return Err(Malformed::Signature);
        }
        Ok(Self { host_key, session_id, signature, forwarding })
    }
}

/// The contents of the reply to `query`: names one after another.
pub fn query_reply(names: &[&str]) -> Vec<u8> {
    super::wire::encode_public(|out| names.iter().for_each(|name| out.text(name)))
}

/// Reads them.
pub fn parse_query_reply(contents: &[u8]) -> Result<Vec<String>, Malformed> {
    let mut reader = Reader::new(contents);
    let mut names = Vec::new();
    while !reader.is_empty() {
        if names.len() >= limits::NAME {
            return Err(Malformed::TooMany);
        }
        names.push(reader.text()?.to_owned());
    }
    Ok(names)
}
