//! Ssh certificates: what is asked of the ssh engine, and what is taken from it. The server is a double of one answer
//! for each path.

use super::*;
use crate::vault::linked::Secrets;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, channel};
use tokio::task::LocalSet;

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ/VWUCSOBLB1zJA3q5yYKOAKc5qzPrVSfNDQAQhUFPJ me";
const CERTIFICATE: &str = "ssh-ed25519-cert-v01@openssh.com AAAAIHNzaC1lZDI1NTE5LWNlcnQtdjAxQG9wZW5zc2guY29t";

/// Answers the lookup of the token, and whatever comes then with `status` and `body`; tells the requests.
fn double(status: u16, body: String) -> (String, Receiver<(String, String)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (told, requests) = channel();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        loop {
            let (mut first, mut length) = (String::new(), 0);
            if reader.read_line(&mut first).unwrap_or(0) == 0 {
                return;
            }
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
                if line.trim().is_empty() {
                    break;
                }
            }
            let mut content = vec![0; length];
            reader.read_exact(&mut content).unwrap();
            let is_lookup = first.contains("/v1/auth/token/lookup-self ");
            let (status, body) =
                if is_lookup { (200, r#"{"data":{"ttl":0}}"#) } else { (status, body.as_str()) };
            let answer = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            stream.write_all(answer.as_bytes()).unwrap();
            let _ = told.send((first, String::from_utf8(content).unwrap()));
        }
    });
    (address, requests)
}

fn asked(address: &str, ask: &CertificateAsk) -> Result<String, Fault> {
    let link = Link {
        name: VaultName::parse("team").unwrap(),
        kind: "openbao".to_owned(),
        searched: false,
        settings: BTreeMap::from([("address".to_owned(), address.to_owned())]),
        programs: BTreeMap::new(),
    };
    let token = SecretBytes::copy_of(b"token");
    let call = Call { secrets: Secrets::new(vec![("token".to_owned(), token)]), ..Call::default() };
    let vault = OpenBao::open(&link).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, vault.certificate(&call, ask))
}

fn ask(role: &str, principals: &[&str]) -> CertificateAsk {
    CertificateAsk {
        role: role.to_owned(),
        public: KEY.to_owned(),
        principals: principals.iter().map(ToString::to_string).collect(),
        ttl: std::time::Duration::from_secs(90),
    }
}

#[test]
fn a_certificate_is_asked_for_with_key_users_and_time() {
    let body = format!(r#"{{"data":{{"serial_number":"c73f26d2340276aa","signed_key":"{CERTIFICATE}\n"}}}}"#);
    let (address, requests) = double(200, body);
    assert_eq!(asked(&address, &ask("deploy", &["root", "git"])).unwrap(), CERTIFICATE);
    let sent = requests.iter().nth(1).unwrap();
    assert!(sent.0.starts_with("POST /v1/ssh/sign/deploy "), "{}", sent.0);
    let json: serde_json::Value = serde_json::from_str(&sent.1).unwrap();
    let wanted = serde_json::json!({
        "public_key": KEY, "valid_principals": "root,git", "ttl": "90s", "cert_type": "user",
    });
    assert_eq!(json, wanted);
}

#[test]
fn what_is_no_certificate_and_what_is_no_role_are_refused() {
    for (status, body, key) in [
        (200, r#"{"data":{"signed_key":"ssh-ed25519 AAAA"}}"#.to_owned(), "broken"),
        (200, format!(r#"{{"data":{{"signed_key":"{CERTIFICATE}\n{CERTIFICATE}"}}}}"#), "broken"),
        (200, "{}".to_owned(), "broken"),
        (400, r#"{"errors":["unknown role: deploy"]}"#.to_owned(), "refused"),
        (403, r#"{"errors":["permission denied"]}"#.to_owned(), "refused"),
        (503, r#"{"errors":["Vault is sealed"]}"#.to_owned(), "locked"),
    ] {
        let (address, _requests) = double(status, body.clone());
        assert_eq!(asked(&address, &ask("deploy", &[])).unwrap_err().key(), key, "{body}");
    }
    for role in ["", "a/../b", "..", "a/b"] {
        assert!(asked("http://127.0.0.1:1", &ask(role, &[])).is_err());
    }
}

#[test]
fn a_user_is_one_name() {
    let (address, _requests) = double(200, "{}".to_owned());
    let refused = asked(&address, &ask("deploy", &["git,root"])).unwrap_err();
    assert_eq!(refused.to_string(), "'git,root' is no user's name");
}
