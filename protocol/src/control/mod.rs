//! The control protocol: one request, then one or more replies, on a connection of its own.

pub mod error_kind;
pub mod request;
pub mod response;

use crate::frame::{self, FrameError, HeaderFault};
use crate::secret::SecretBytes;
use crate::{limits, version};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// A value in the tail, named by the header. Secrets, and every byte string that may not be UTF-8,
/// travel this way.
pub struct Value {
    pub name: String,
    pub bytes: SecretBytes,
}

impl Value {
    pub fn new(name: &str, bytes: SecretBytes) -> Self {
        Self { name: name.to_owned(), bytes }
    }
}

/// A request or a reply with its values.
pub struct Message<B> {
    pub body: B,
    pub values: Vec<Value>,
}

impl<B> Message<B> {
    pub fn new(body: B) -> Self {
        Self { body, values: Vec::new() }
    }

    #[must_use]
    pub fn with(mut self, name: &str, bytes: SecretBytes) -> Self {
        self.values.push(Value::new(name, bytes));
        self
    }

    /// Takes the first value of that name out.
    pub fn take(&mut self, name: &str) -> Option<SecretBytes> {
        let at = self.values.iter().position(|value| value.name == name)?;
        Some(self.values.remove(at).bytes)
    }
}

#[derive(Serialize)]
struct HeaderOut<'a, B> {
    version: u32,
    body: &'a B,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    values: Vec<ValueLength>,
}

#[derive(Deserialize)]
struct HeaderIn<B> {
    body: B,
    #[serde(default)]
    values: Vec<ValueLength>,
}

#[derive(Deserialize)]
struct VersionOnly {
    version: u32,
}

#[derive(Serialize, Deserialize)]
struct ValueLength {
    name: String,
    length: usize,
}

/// The bytes of one message.
pub fn encode<B: Serialize>(message: &Message<B>) -> Result<Zeroizing<Vec<u8>>, FrameError> {
    let values = message
        .values
        .iter()
        .map(|value| ValueLength { name: value.name.clone(), length: value.bytes.len() })
        .collect();
    let header = serde_json::to_vec(&HeaderOut { version: version::CONTROL, body: &message.body, values })
        .map_err(|_| FrameError::Header(HeaderFault::NotJson))?;
    let tail: Vec<&[u8]> = message.values.iter().map(|value| value.bytes.expose()).collect();
    frame::encode(&header, &tail)
}

/// Reads what follows a frame's lengths. The version is looked at first, so that a peer of another
/// version is told so and not that its request is unknown.
pub fn decode<B: DeserializeOwned>(header: &[u8], tail: &[u8]) -> Result<Message<B>, FrameError> {
    let fault = |error: &serde_json::Error| {
        FrameError::Header(if error.is_data() { HeaderFault::Unknown } else { HeaderFault::NotJson })
    };
    let VersionOnly { version } = serde_json::from_slice(header).map_err(|error| fault(&error))?;
    if version != version::CONTROL {
        return Err(FrameError::Header(HeaderFault::Version(version)));
    }
    let header: HeaderIn<B> = serde_json::from_slice(header).map_err(|error| fault(&error))?;
    if header.values.len() > limits::VALUES {
        return Err(FrameError::TooManyValues { announced: header.values.len() });
    }
    let mut rest = tail;
    let mut values = Vec::with_capacity(header.values.len());
    for value in header.values {
        let (bytes, after) = rest.split_at_checked(value.length).ok_or(FrameError::ValuesDisagree)?;
        values.push(Value { name: value.name, bytes: SecretBytes::copy_of(bytes) });
        rest = after;
    }
    if !rest.is_empty() {
        return Err(FrameError::ValuesDisagree);
    }
    Ok(Message { body: header.body, values })
}

#[cfg(test)]
mod tests {
    use super::error_kind::ErrorKind;
    use super::request::{Lend, Request};
    use super::response::{ErrorReply, Reply};
    use super::*;
    use crate::names::{FieldName, ItemName, SetName, VarName};
    use std::path::Path;

    fn vector(name: &str) -> Vec<u8> {
        std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors").join(name)).unwrap()
    }

    fn split(frame: &[u8]) -> (&[u8], &[u8]) {
        let lengths = frame::lengths(frame[..frame::PREFIX].try_into().unwrap()).unwrap();
        let body = &frame[frame::PREFIX..];
        assert_eq!(body.len(), lengths.header + lengths.tail);
        body.split_at(lengths.header)
    }

    fn same_bytes<B: Serialize>(name: &str, message: &Message<B>) {
        let bytes = encode(message).unwrap();
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors").join(name);
        assert_eq!(*bytes, std::fs::read(&path).unwrap_or_default(), "{} is another message", path.display());
    }

    fn lend() -> Message<Request> {
        let lend = Lend {
            sets: vec![SetName::parse("deploy").unwrap()],
            only: vec![VarName::parse("TWINE_PASSWORD").unwrap()],
            manifest_at: Some(0),
            dry_run: false,
            clean_env: false,
            seconds: None,
        };
        Message::new(Request::Lend(lend))
            .with("directory", SecretBytes::copy_of(b"/home/m/caf\xe9"))
            .with("program", SecretBytes::copy_of(b"/usr/bin/twine"))
            .with("argv", SecretBytes::copy_of(b"twine\0upload\0"))
    }

    #[test]
    fn the_vectors_are_what_is_sent() {
        same_bytes("request-lend.bin", &lend());
        same_bytes("request-status.bin", &Message::new(Request::Status));
        let set = Request::ItemSet {
            item: ItemName::parse("pypi").unwrap(),
            field: FieldName::parse("token").unwrap(),
            public: false,
            vault: None,
        };
        let set = Message::new(set).with("value", SecretBytes::copy_of(b"tok"));
        same_bytes("request-item-set.bin", &set);
        let literals = vec![VarName::parse("TWINE_USERNAME").unwrap()];
        let lent = Message::new(Reply::Lent { loan: 7, notes: vec![], files: vec![], literals })
            .with("TWINE_USERNAME", SecretBytes::copy_of(b"__token__"))
            .with("TWINE_PASSWORD", SecretBytes::copy_of(b"tok"));
        same_bytes("reply-lent.bin", &lent);
        let error = ErrorReply {
            kind: ErrorKind::Locked,
            cause: "the vault is locked".to_owned(),
            hint: Some("keyloan unlock".to_owned()),
            details: vec![],
        };
        same_bytes("reply-error.bin", &Message::new(Reply::Error(error)));
    }

    #[test]
    fn the_vectors_are_understood() {
        let frame = vector("request-lend.bin");
        let (header, tail) = split(&frame);
        let mut read: Message<Request> = decode(header, tail).unwrap();
        assert_eq!(read.take("directory").unwrap().expose(), b"/home/m/caf\xe9");
        assert_eq!(read.take("argv").unwrap().expose(), b"twine\0upload\0");
        let Request::Lend(lend) = read.body else { unreachable!("another request") };
        assert_eq!(lend.sets[0].as_str(), "deploy");
    }

    #[test]
    fn a_loan_told_by_an_older_daemon_has_no_literals() {
        let older = br#"{"version":1,"body":{"lent":{"loan":7,"notes":[]}}}"#;
        let read: Message<Reply> = decode(older, b"").unwrap();
        assert!(matches!(read.body, Reply::Lent { loan: 7, literals, .. } if literals.is_empty()));
    }

    #[test]
    fn unknown_fields_are_ignored_and_unknown_requests_refused() {
        let known = br#"{"version":1,"body":"status","later":true}"#;
        assert!(decode::<Request>(known, b"").is_ok());
        let unknown = br#"{"version":1,"body":{"explode":{}}}"#;
        assert_eq!(decode::<Request>(unknown, b"").err(), Some(FrameError::Header(HeaderFault::Unknown)));
        assert_eq!(decode::<Request>(b"{", b"").err(), Some(FrameError::Header(HeaderFault::NotJson)));
    }

    #[test]
    fn another_version_is_said_even_when_its_body_is_unknown() {
        let newer = br#"{"version":9,"body":{"explode":{}}}"#;
        assert_eq!(decode::<Request>(newer, b"").err(), Some(FrameError::Header(HeaderFault::Version(9))));
    }

    #[test]
    fn values_must_fill_the_tail_exactly() {
        let header = br#"{"version":1,"body":"status","values":[{"name":"a","length":2}]}"#;
        for tail in [b"".as_slice(), b"a", b"abc"] {
            assert_eq!(decode::<Request>(header, tail).err(), Some(FrameError::ValuesDisagree));
        }
        let header =
            br#"{"version":1,"body":"status","values":[{"name":"a","length":18446744073709551615}]}"#;
        assert_eq!(decode::<Request>(header, b"ab").err(), Some(FrameError::ValuesDisagree));
    }
}
