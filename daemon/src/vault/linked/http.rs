//! Talking to a vault's server: HTTP/1.1 over TLS, over a Unix socket, or, to this machine alone, in the clear. The
//! address is the link's. Nothing of the environment is believed (`HTTPS_PROXY`, `SSL_CERT_FILE`), no redirect is
//! followed, no answer is longer than was expected.
//!
//! Requests and answers hold secrets: what carries them is freed to an allocator that wipes.

use super::Fault;
use super::certificates::{self, Ca};
use crate::patience;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Bytes};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{self, HeaderValue};
use hyper::{Method, Uri};
use hyper_util::rt::TokioIo;
use keyloan_protocol::limits;
use keyloan_protocol::names::escaped;
use keyloan_protocol::secret::SecretBytes;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{CertificateError, ClientConfig, RootCertStore};
use std::cell::Cell;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::OnceCell;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// To be connected; what it is asked then has the vault's own patience.
const CONNECT: Duration = Duration::from_secs(10);

/// The most bytes of all answers to one request of keyloan's: what is lent at once has 7 MiB.
const TOGETHER: usize = 4 * limits::FRAME;

/// Where systems keep the certificates of those that sign others, in the order of a look.
const ROOTS: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// A server, connected to as often as needed.
pub(super) struct Server {
    at: At,
    named: Rc<Named>,
}

struct Named {
    /// What a request says in `Host`.
    host: HeaderValue,
    /// Before every path, without a slash at its end.
    prefix: String,
    shown: String,
}

enum At {
    Tls {
        host: String,
        port: u16,
        ca: Option<Ca>,
        config: OnceCell<Arc<ClientConfig>>,
    },
    /// To this machine alone.
    Plain {
        address: IpAddr,
        port: u16,
    },
    /// Connected already, to be taken once.
    Given(Cell<Option<UnixStream>>),
}

pub(super) struct Ask<'a> {
    pub(super) method: Method,
    /// Path and query, encoded.
    pub(super) path: &'a str,
    pub(super) headers: &'a [(&'static str, &'a SecretBytes)],
    pub(super) json: Option<SecretBytes>,
    /// The longest answer, in bytes.
    pub(super) most: usize,
}

pub(super) struct Answer {
    pub(super) status: u16,
    /// `Retry-After` in seconds, where the server said so: its words are not passed on.
    pub(super) retry_after: Option<u32>,
    pub(super) body: SecretBytes,
}

pub(super) struct Connection {
    server: Rc<Named>,
    requests: SendRequest<Full<Bytes>>,
    /// Ended with this.
    _task: Task,
}

struct Task(tokio::task::JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Server {
    /// `https://HOST[:PORT][/PATH]`, or `http://` with an address of this machine. With `ca`, a file, nobody else's
    /// signature counts.
    pub(super) fn parse(address: &str, ca: Option<Ca>) -> Result<Self, Fault> {
        let bad = |cause: &str| Fault::Broken(format!("the address '{}' {cause}", escaped(address, 200)));
        let uri: Uri = address.parse().map_err(|_| bad("is none"))?;
        let authority = uri.authority().ok_or_else(|| bad("names no server"))?;
        if authority.as_str().contains('@') || uri.query().is_some() {
            return Err(bad("holds more than a server and a path"));
        }
        // What is no port would be taken for none, and another server than the one that was named gets the token.
        let port = match authority.as_str().strip_prefix(authority.host()) {
            Some("") => None,
            rest => {
                let port = rest.and_then(|rest| rest.strip_prefix(':')?.parse::<u16>().ok());
                Some(port.filter(|port| *port != 0).ok_or_else(|| bad("has a port that is none"))?)
            }
        };
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let at = match uri.scheme_str() {
            Some("https") => At::Tls { host, port: port.unwrap_or(443), ca, config: OnceCell::new() },
            Some("http") => match host.parse::<IpAddr>() {
                Ok(address) if address.is_loopback() => At::Plain { address, port: port.unwrap_or(80) },
                _ => return Err(bad("is not encrypted: http goes to 127.0.0.1 or [::1] alone, else https")),
            },
            _ => return Err(bad("begins neither with https:// nor with http://")),
        };
        let host = HeaderValue::from_str(authority.as_str()).map_err(|_| bad("is none"))?;
        let prefix = uri.path().trim_end_matches('/').to_owned();
        let named = Named { host, prefix, shown: authority.to_string() };
        Ok(Self { at, named: Rc::new(named) })
    }

    /// What speaks HTTP at the other end of this.
    pub(super) fn given(stream: UnixStream, host: &'static str, shown: String) -> Self {
        let at = At::Given(Cell::new(Some(stream)));
        let named = Named { host: HeaderValue::from_static(host), prefix: String::new(), shown };
        Self { at, named: Rc::new(named) }
    }

    pub(super) async fn connect(&self) -> Result<Connection, Fault> {
        let late = |_| Err(self.unreachable(&format!("it did not answer within {} s", CONNECT.as_secs())));
        timeout(CONNECT, self.connect_now()).await.unwrap_or_else(late)
    }

    async fn connect_now(&self) -> Result<Connection, Fault> {
        let failed = |error: io::Error| self.unreachable(&cause(&error));
        match &self.at {
            At::Given(stream) => {
                let stream = stream.take().ok_or_else(|| self.unreachable("the connection broke"))?;
                self.spoken(stream).await
            }
            At::Plain { address, port } => {
                self.spoken(TcpStream::connect((*address, *port)).await.map_err(failed)?).await
            }
            At::Tls { host, port, ca, config } => {
                let config = config.get_or_try_init(|| tls(ca.as_ref())).await?;
                let name = ServerName::try_from(host.clone())
                    .map_err(|_| Fault::Broken(format!("{} is no server's name", self.named.shown)))?;
                let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(failed)?;
                let connector = TlsConnector::from(Arc::clone(config));
                let stream = connector.connect(name, stream).await;
                self.spoken(stream.map_err(|error| self.untrusted(&error))?).await
            }
        }
    }

    async fn spoken(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
    ) -> Result<Connection, Fault> {
        let shaken = http1::handshake(TokioIo::new(stream)).await;
        let (requests, connection) = shaken.map_err(|_| self.unreachable("it does not speak HTTP"))?;
        let task = tokio::task::spawn_local(async move {
            // Whoever waits for an answer is told.
            let _ = connection.await;
        });
        Ok(Connection { server: Rc::clone(&self.named), requests, _task: Task(task) })
    }

    fn unreachable(&self, cause: &str) -> Fault {
        self.named.unreachable(cause)
    }

    fn untrusted(&self, error: &io::Error) -> Fault {
        use CertificateError as Of;
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        let cause = match inner {
            Some(rustls::Error::InvalidCertificate(of)) => match of {
                Of::Expired | Of::ExpiredContext { .. } => "its certificate has expired",
                Of::NotValidYet | Of::NotValidYetContext { .. } => "its certificate is not valid yet",
                // The second is one that has the name of somebody who is.
                Of::UnknownIssuer | Of::BadSignature => {
                    "its certificate is signed by nobody who is trusted here"
                }
                Of::NotValidForName | Of::NotValidForNameContext { .. } => {
                    "its certificate is for another name"
                }
                Of::Revoked => "its certificate was revoked",
                _ => "its certificate is not acceptable",
            },
            Some(rustls::Error::AlertReceived(_)) => "it refused the connection",
            Some(_) => "it does not speak TLS as it should",
            None => return self.unreachable(&cause(error)),
        };
        Fault::Refused(format!("{}: {cause}", self.named.shown))
    }
}

impl Named {
    fn unreachable(&self, cause: &str) -> Fault {
        Fault::Unreachable(format!("{}: {cause}", self.shown))
    }
}

impl Answer {
    /// With those before it, which came to so much.
    pub(super) fn added(self, heard: &mut usize) -> Result<Self, Fault> {
        *heard = heard.saturating_add(self.body.len());
        let cause = || format!("its answers have more than {} MiB together", TOGETHER / 1024 / 1024);
        if *heard > TOGETHER { Err(Fault::Refused(cause())) } else { Ok(self) }
    }

    /// What it means that it was asked too often.
    pub(super) fn rate_limited(&self) -> Fault {
        let until = self.retry_after.map_or_else(|| "later".to_owned(), |seconds| format!("in {seconds} s"));
        Fault::RateLimited { until }
    }
}

impl Connection {
    /// The server has ended it.
    pub(super) fn is_over(&self) -> bool {
        self.requests.is_closed()
    }

    pub(super) async fn send(&mut self, ask: Ask<'_>) -> Result<Answer, Fault> {
        let server = Rc::clone(&self.server);
        let broken = |cause: &str| Fault::Broken(format!("{}: {cause}", server.shown));
        let mut request = hyper::Request::builder()
            .method(ask.method)
            .uri(format!("{}{}", server.prefix, ask.path))
            .header(header::HOST, server.host.clone())
            .header(header::ACCEPT, "application/json");
        for (name, value) in ask.headers {
            let value = HeaderValue::from_bytes(value.expose());
            let mut value = value.map_err(|_| Fault::Broken(format!("{name} cannot hold that value")))?;
            value.set_sensitive(true);
            request = request.header(*name, value);
        }
        if ask.json.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let body = ask.json.map(|json| Bytes::copy_from_slice(json.expose())).unwrap_or_default();
        let request = request.body(Full::new(body)).map_err(|_| broken("the request cannot be written"))?;
        let lost = |_| server.unreachable("the connection broke");
        self.requests.ready().await.map_err(lost)?;
        let answer = self.requests.send_request(request).await.map_err(lost)?;
        let (head, mut body) = answer.into_parts();
        let too_long = || broken(&format!("its answer is longer than {} KiB", ask.most / 1024));
        if body.size_hint().lower() > ask.most as u64 {
            return Err(too_long());
        }
        let mut read = Vec::new();
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(lost)?.into_data() else { continue };
            if read.len() + data.len() > ask.most {
                return Err(too_long());
            }
            read.extend_from_slice(&data);
        }
        let retry_after = head.headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
        let retry_after = retry_after.and_then(|text| text.parse().ok());
        Ok(Answer { status: head.status.as_u16(), retry_after, body: SecretBytes::new(read) })
    }
}

fn cause(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "nobody listens there".to_owned(),
        io::ErrorKind::UnexpectedEof => "the connection broke".to_owned(),
        _ => escaped(&error.to_string(), 200),
    }
}

async fn tls(ca: Option<&Ca>) -> Result<Arc<ClientConfig>, Fault> {
    let roots = if let Some(ca) = ca {
        roots(&ca.path, &ca.text().await?)?
    } else {
        let system = ROOTS.iter().map(Path::new).find(|path| path.exists());
        let none = "this system has no list of certificates; give the link one (ca=FILE)";
        let system = system.ok_or_else(|| Fault::Broken(none.to_owned()))?;
        roots(system, &patience::file(system, certificates::LONGEST).await?)?
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|_| Fault::Broken("this build has no TLS".to_owned()))?;
    Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
}

/// Whose signatures count.
fn roots(path: &Path, text: &[u8]) -> Result<RootCertStore, Fault> {
    let mut roots = RootCertStore::empty();
    let found: Vec<_> = CertificateDer::pem_slice_iter(text).filter_map(Result::ok).collect();
    let (added, _) = roots.add_parsable_certificates(found);
    if added == 0 {
        Err(Fault::Broken(format!("{}: it holds no certificate", path.display())))
    } else {
        Ok(roots)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_encrypted_stays_on_this_machine() {
        for good in
            ["https://vault.example/", "https://127.0.0.1:8200", "http://127.0.0.1:8200", "http://[::1]:80/v"]
        {
            assert!(Server::parse(good, None).is_ok(), "{good}");
        }
        for bad in [
            "http://vault.example:8200",
            "http://localhost:8200",
            "http://127.0.0.1.evil.example",
            "http://10.0.0.1",
            "ftp://127.0.0.1",
            "vault.example",
            "/v1",
            "https://user@vault.example",
            "https://vault.example/?a=b",
            "",
        ] {
            assert!(Server::parse(bad, None).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_port_that_is_none_does_not_become_another() {
        for bad in [
            "http://127.0.0.1:82000",
            "https://vault.example:65536/team",
            "https://vault.example:",
            "https://vault.example:0",
            "https://[::1]:99999",
        ] {
            let cause = Server::parse(bad, None).err().unwrap().to_string();
            assert!(cause.contains("has a port that is none"), "{cause}");
        }
        let server = Server::parse("https://[::1]:65535/team", None).unwrap();
        assert!(matches!(server.at, At::Tls { port: 65535, .. }));
    }

    #[test]
    fn a_path_in_the_address_comes_before_every_other() {
        let server = Server::parse("https://vault.example/team/", None).unwrap();
        assert_eq!(server.named.prefix, "/team");
    }
}
