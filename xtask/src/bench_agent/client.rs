//! A client of an ssh agent, as much of one as measuring takes (RFC 9987; PROTOCOL.agent and PROTOCOL.sshsig of
//! OpenSSH). Nothing of keyloan's own reads or writes for it, so that a fault of that cannot hide here.

use anyhow::{Context, Result, bail};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

const SUCCESS: u8 = 6;
const IDENTITIES: u8 = 12;
const SIGNATURE: u8 = 14;

/// OpenSSH's agent serves at most this many bytes at once, and keyloan too.
const MESSAGE: usize = 256 * 1024;
/// An agent that does not answer by then fails the measurement.
const PATIENCE: Duration = Duration::from_secs(30);

/// A request with its length before it, and what the reply must be.
pub(super) struct Request {
    frame: Vec<u8>,
    reply: u8,
}

impl Request {
    fn of(message: &[u8], reply: u8) -> Self {
        let mut frame = Vec::with_capacity(4 + message.len());
        string(&mut frame, message);
        Self { frame, reply }
    }

    pub(super) fn list() -> Self {
        Self::of(&[11], IDENTITIES)
    }

    pub(super) fn remove_all() -> Self {
        Self::of(&[19], SUCCESS)
    }
}

fn string(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend(bytes);
}

fn strings(out: &mut Vec<u8>, all: &[&[u8]]) {
    for one in all {
        string(out, one);
    }
}

pub(super) struct Connection(UnixStream);

impl Connection {
    pub(super) fn open(socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket)
            .with_context(|| format!("cannot connect to the agent at {}", socket.display()))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self(stream))
    }

    /// One that serves a session with that host, as ssh's does.
    pub(super) fn bound(socket: &Path, session: &Session) -> Result<Self> {
        let mut connection = Self::open(socket)?;
        connection.ask(&session.bind)?;
        Ok(connection)
    }

    pub(super) fn send(&mut self, request: &Request) -> Result<()> {
        Ok(self.0.write_all(&request.frame)?)
    }

    /// What follows the reply's kind, which is a refusal as a rule where it is not the right one.
    pub(super) fn ask(&mut self, request: &Request) -> Result<Vec<u8>> {
        self.send(request)?;
        let mut head = [0; 5];
        self.0.read_exact(&mut head)?;
        let ([length @ .., kind], number) = (head, request.frame[4]);
        let length = usize::try_from(u32::from_be_bytes(length))?;
        if kind != request.reply || length == 0 || length > MESSAGE {
            bail!("the agent answered request {number} by {kind}, {length} bytes");
        }
        let mut reply = vec![0; length - 1];
        self.0.read_exact(&mut reply)?;
        Ok(reply)
    }

    /// The keys that are listed, each with its comment.
    pub(super) fn list(&mut self) -> Result<Vec<(Vec<u8>, String)>> {
        let reply = self.ask(&Request::list())?;
        let mut rest = reply.as_slice();
        let count = number(&mut rest)?;
        let mut identity = || {
            let blob = taken(&mut rest)?.to_vec();
            Ok((blob, String::from_utf8_lossy(taken(&mut rest)?).into_owned()))
        };
        (0..count).map(|_| identity()).collect()
    }
}

fn number(from: &mut &[u8]) -> Result<usize> {
    let (number, rest) = from.split_first_chunk().context("a reply is cut short")?;
    *from = rest;
    Ok(usize::try_from(u32::from_be_bytes(*number))?)
}

fn taken<'a>(from: &mut &'a [u8]) -> Result<&'a [u8]> {
    let length = number(from)?;
    let (string, rest) = from.split_at_checked(length).context("a reply is cut short")?;
    *from = rest;
    Ok(string)
}

/// A key as a request names it.
pub(super) struct Key {
    blob: Vec<u8>,
    /// Its signatures' name, and the flag that asks an RSA key for them.
    algorithm: &'static str,
    flags: u32,
}

impl Key {
    /// The key that an agent lists under that comment.
    pub(super) fn of(agent: &mut Connection, comment: &str) -> Result<Self> {
        let listed = agent.list()?.into_iter().find(|(_, listed)| listed == comment);
        let (blob, _) = listed.with_context(|| format!("the agent does not list the key '{comment}'"))?;
        let (algorithm, flags) = match taken(&mut blob.as_slice())? {
            b"ssh-rsa" => ("rsa-sha2-512", 4),
            b"ssh-ed25519" => ("ssh-ed25519", 0),
            b"ecdsa-sha2-nistp256" => ("ecdsa-sha2-nistp256", 0),
            _ => bail!("the key '{comment}' is of a type that is not measured"),
        };
        Ok(Self { blob, algorithm, flags })
    }

    /// The same bytes always give the same signature (RFC 8032, RFC 8017 section 8.2).
    pub(super) fn is_deterministic(&self) -> bool {
        !self.algorithm.starts_with("ecdsa")
    }

    fn sign(&self, data: &[u8]) -> Request {
        let mut message = vec![13];
        strings(&mut message, &[&self.blob, data]);
        message.extend(self.flags.to_be_bytes());
        Request::of(&message, SIGNATURE)
    }

    /// A login by this key in that session, as ssh asks for it.
    pub(super) fn login(&self, session: &Session) -> Request {
        let mut data = Vec::new();
        string(&mut data, &session.id);
        data.push(50);
        strings(&mut data, &[b"git", b"ssh-connection", b"publickey-hostbound-v00@openssh.com"]);
        data.push(1);
        strings(&mut data, &[self.algorithm.as_bytes(), &self.blob, &session.host]);
        self.sign(&data)
    }

    /// A signature over a file, as `ssh-keygen -Y sign -n file` asks for it.
    pub(super) fn document(&self) -> Request {
        let mut data = b"SSHSIG".to_vec();
        strings(&mut data, &[b"file", b"", b"sha512", &[7; 64]]);
        self.sign(&data)
    }
}

/// An ssh session with a host that signed for it.
pub(super) struct Session {
    id: Vec<u8>,
    host: Vec<u8>,
    bind: Request,
}

impl Session {
    /// An agent that was given the host's key signs in the host's place: agents sign whatever they are asked to.
    pub(super) fn signed_by(agent: &mut Connection, host_key: &str) -> Result<Self> {
        let (id, host) = (vec![0x5e; 32], Key::of(agent, host_key)?);
        let reply = agent.ask(&host.sign(&id))?;
        let signature = taken(&mut reply.as_slice())?;
        let mut bind = vec![27];
        strings(&mut bind, &[b"session-bind@openssh.com", &host.blob, &id, signature]);
        bind.push(0);
        Ok(Self { id, bind: Request::of(&bind, SUCCESS), host: host.blob })
    }
}
