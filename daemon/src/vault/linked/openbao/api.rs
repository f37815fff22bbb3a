//! Requests to an OpenBao or Vault server, and what its answers mean. Its words are classified and never passed on.

use crate::vault::linked::Fault;
use crate::vault::linked::http::{Answer, Ask, Connection, Server};
use hyper::Method;
use keyloan_protocol::limits;
use keyloan_protocol::secret::SecretBytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::rc::Rc;

pub(super) struct Api {
    pub(super) server: Server,
    pub(super) namespace: Option<SecretBytes>,
}

/// Requests one after another, over as few connections as the server allows.
pub(super) struct Talk {
    api: Rc<Api>,
    connection: Option<Connection>,
    heard: usize,
}

/// What every answer is made of.
#[derive(Deserialize, Default)]
pub(super) struct Body<'a> {
    #[serde(borrow, default)]
    pub(super) data: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) auth: Option<&'a RawValue>,
    #[serde(default)]
    pub(super) lease_id: Option<String>,
    #[serde(default)]
    pub(super) errors: Option<Vec<String>>,
}

/// A version of an item of KV, version 2. Without `data` it was deleted.
#[derive(Deserialize)]
pub(super) struct Versioned<'a> {
    #[serde(borrow, default)]
    pub(super) data: Option<&'a RawValue>,
    pub(super) metadata: Metadata,
}

#[derive(Deserialize)]
pub(super) struct Metadata {
    pub(super) version: u64,
}

/// Names and values as the server wrote them: numbers keep all their digits.
pub(super) type Fields<'a> = BTreeMap<String, &'a RawValue>;

impl Api {
    pub(super) fn talk(self: &Rc<Self>) -> Talk {
        Talk { api: Rc::clone(self), connection: None, heard: 0 }
    }
}

impl Talk {
    /// A server may end a connection after any answer.
    pub(super) async fn connected(&mut self) -> Result<&mut Connection, Fault> {
        if self.connection.as_ref().is_none_or(Connection::is_over) {
            self.connection = Some(self.api.server.connect().await?);
        }
        self.connection.as_mut().ok_or_else(garbage)
    }

    pub(super) async fn send(
        &mut self,
        method: Method,
        path: &str,
        token: Option<&SecretBytes>,
        json: Option<SecretBytes>,
    ) -> Result<Answer, Fault> {
        let api = Rc::clone(&self.api);
        let connection = self.connected().await?;
        // An agent in front of the server may want it, since no other program sends it by accident.
        let genuine = SecretBytes::copy_of(b"true");
        let mut headers = vec![("x-vault-request", &genuine)];
        headers.extend(token.map(|token| ("x-vault-token", token)));
        headers.extend(api.namespace.as_ref().map(|namespace| ("x-vault-namespace", namespace)));
        let path = format!("/v1/{path}");
        let ask = Ask { method, path: &path, headers: &headers, json, most: limits::FRAME };
        connection.send(ask).await?.added(&mut self.heard)
    }
}

/// Whether an answer is one of success.
pub(super) fn is_good(answer: &Answer) -> bool {
    matches!(answer.status, 200..=299)
}

/// What is wrong, where an answer is none of success; `about` names what was asked for.
pub(super) fn fault(answer: &Answer, about: &str) -> Fault {
    match answer.status {
        400 => Fault::Refused(format!("{about}: the server takes that for a bad request")),
        403 => Fault::Refused(format!("{about}: permission denied, no policy of the token allows that")),
        404 | 405 => Fault::Refused(format!("{about}: the server has nothing of that kind there")),
        429 => answer.rate_limited(),
        301..=308 => {
            Fault::Refused("the server sends to another one, which keyloan does not follow".to_owned())
        }
        472 | 473 => Fault::Unreachable("the server stands by for another one".to_owned()),
        503 if says(answer, "sealed") => Fault::Locked("the server is sealed".to_owned()),
        502..=504 => Fault::Unreachable(format!("nothing is behind the address (status {})", answer.status)),
        500..=599 => Fault::Broken(format!("{about}: the server failed (status {})", answer.status)),
        status => Fault::Broken(format!("{about}: the server answered with status {status}")),
    }
}

/// Whether one of the errors of an answer has this word.
pub(super) fn says(answer: &Answer, word: &str) -> bool {
    let errors = body(answer).ok().and_then(|body| body.errors).unwrap_or_default();
    errors.iter().any(|error| error.contains(word))
}

pub(super) fn body(answer: &Answer) -> Result<Body<'_>, Fault> {
    if answer.body.is_empty() {
        return Ok(Body::default());
    }
    serde_json::from_slice(answer.body.expose()).map_err(|_| garbage())
}

pub(super) fn part<'a, T: Deserialize<'a>>(part: Option<&'a RawValue>) -> Result<T, Fault> {
    part.and_then(|part| serde_json::from_str(part.get()).ok()).ok_or_else(garbage)
}

/// A value as text: a string as it is, anything else as the JSON that it is; nothing for `null`.
pub(super) fn text(value: &RawValue) -> Result<Option<SecretBytes>, Fault> {
    match value.get() {
        "null" => Ok(None),
        quoted if quoted.starts_with('"') => {
            let plain: String = serde_json::from_str(quoted).map_err(|_| garbage())?;
            Ok(Some(SecretBytes::new(plain.into_bytes())))
        }
        json => Ok(Some(SecretBytes::copy_of(json.as_bytes()))),
    }
}

pub(super) fn json(value: &impl serde::Serialize) -> Result<SecretBytes, Fault> {
    serde_json::to_vec(value).map(SecretBytes::new).map_err(|_| garbage())
}

pub(super) fn garbage() -> Fault {
    Fault::Broken("what answers there is no OpenBao and no Vault".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        let retry_after = (status == 429).then_some(7);
        Answer { status, retry_after, body: SecretBytes::copy_of(body.as_bytes()) }
    }

    #[test]
    fn answers_are_classified_and_never_quoted() {
        for (status, body, key) in [
            (400, r#"{"errors":["s3cret"]}"#, "refused"),
            (403, r#"{"errors":["1 error occurred:\n\t* permission denied\n\n"]}"#, "refused"),
            (404, r#"{"errors":["no handler for route \"s3cret\". route entry not found."]}"#, "refused"),
            (429, r#"{"errors":["request path \"s3cret\": rate limit quota exceeded"]}"#, "rate_limited"),
            (307, "", "refused"),
            (473, "", "unreachable"),
            (503, r#"{"errors":["Vault is sealed"]}"#, "locked"),
            (503, "<html>s3cret</html>", "unreachable"),
            (500, r#"{"errors":["s3cret"]}"#, "broken"),
            (418, "s3cret", "broken"),
        ] {
            let fault = fault(&answer(status, body), "ci/pypi");
            assert_eq!(fault.key(), key, "{status}: {fault}");
            assert!(!fault.to_string().contains("s3cret"), "{fault}");
        }
        assert_eq!(fault(&answer(429, ""), "x").to_string(), "asked too often; it answers again in 7 s");
    }

    #[test]
    fn values_are_text_as_the_server_wrote_them() {
        let fields: Fields = serde_json::from_str(
            r#"{"a":"t\u00f6k \"1\"\n","n":12345678901234567890.10,"o":{"x": [1]},"e":"","z":null}"#,
        )
        .unwrap();
        let shown = |key: &str| {
            text(fields[key]).unwrap().map(|text| String::from_utf8(text.expose().to_vec()).unwrap())
        };
        assert_eq!(shown("a").unwrap(), "tök \"1\"\n");
        assert_eq!(shown("n").unwrap(), "12345678901234567890.10");
        assert_eq!(shown("o").unwrap(), r#"{"x": [1]}"#);
        assert_eq!(shown("e").unwrap(), "");
        assert_eq!(shown("z"), None);
    }
}
