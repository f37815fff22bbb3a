//! The agent's protocol without an ssh client: raw frames, for clients that lie. The socket admits its own user only,
//! so a small program of that user does the talking.

use crate::programs::needed;
use crate::sandbox::Sandbox;
use crate::sshd::Ssh;
use data_encoding::{BASE64, HEXLOWER};
use keyloan_protocol::ssh_agent::key::PublicKey;
use keyloan_protocol::ssh_agent::message::{Identity, Reply, Request, Sign, SignFlags};
use keyloan_protocol::ssh_agent::session_bind::{Extension, SessionBind};
use keyloan_protocol::ssh_agent::signature::Signature;
use keyloan_protocol::ssh_agent::wire::{self, Reader, Writer};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout};

pub const FAILURE: &[u8] = b"\x05";
pub const SUCCESS: &[u8] = b"\x06";

/// Sends each line's bytes, and reads one reply; with `+` before it only sends, with `?` only reads.
const TALKER: &str = r"
import socket, sys
s = socket.socket(socket.AF_UNIX); s.settimeout(30); s.connect(sys.argv[1])
def read(n):
    out = b''
    while len(out) < n:
        piece = s.recv(n - len(out))
        if not piece: raise OSError
        out += piece
    return out
for line in sys.stdin:
    line = line.strip()
    try:
        s.sendall(bytes.fromhex(line.lstrip('+?')))
        print('sent' if line.startswith('+') else read(int.from_bytes(read(4), 'big')).hex(), flush=True)
    except TimeoutError: print('silence', flush=True)
    except OSError: print('closed', flush=True)
";

/// One connection.
pub struct Client {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Client {
    pub fn connect(sandbox: &Sandbox, socket: &str) -> Self {
        Self::dressed_up(sandbox, socket, &[])
    }

    /// A client with more words on its command line, which nobody looks at but the agent.
    pub fn dressed_up(sandbox: &Sandbox, socket: &str, words: &[&str]) -> Self {
        let all = [&["-c", TALKER, socket], words].concat();
        let mut child = sandbox.command(needed("python3"), &all).start();
        let (to, from) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self { child, to, from: BufReader::new(from) }
    }

    fn line(&mut self, before: &str, bytes: &[u8]) -> String {
        writeln!(self.to, "{before}{}", hex(bytes)).unwrap();
        let mut said = String::new();
        self.from.read_line(&mut said).unwrap();
        assert_ne!(said.trim(), "silence", "the agent neither answered nor closed: {}", hex(bytes));
        said.trim().to_owned()
    }

    /// Sends bytes as they are; whether the connection still took them.
    pub fn send(&mut self, bytes: &[u8]) -> bool {
        self.line("+", bytes) == "sent"
    }

    /// Sends bytes as they are and reads one reply; none when the agent closes.
    pub fn exchange(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        match self.line("", bytes).as_str() {
            "closed" => None,
            reply => Some(HEXLOWER.decode(reply.as_bytes()).unwrap()),
        }
    }

    /// Reads the reply to what was sent.
    pub fn reply(&mut self) -> Option<Vec<u8>> {
        match self.line("?", b"").as_str() {
            "closed" => None,
            reply => Some(HEXLOWER.decode(reply.as_bytes()).unwrap()),
        }
    }

    /// One message, framed; its reply without the length.
    pub fn ask(&mut self, message: &[u8]) -> Option<Vec<u8>> {
        self.exchange(&framed(message))
    }

    pub fn request(&mut self, request: &Request) -> Option<Vec<u8>> {
        self.exchange(&request.encode().unwrap())
    }

    #[track_caller]
    pub fn list(&mut self) -> Vec<Identity> {
        match Reply::parse(&self.request(&Request::List).expect("the agent answers")) {
            Ok(Reply::Identities(identities)) => identities,
            other => panic!("{other:?}"),
        }
    }

    /// A signature, if the agent makes one.
    pub fn sign(&mut self, key: &PublicKey, data: &[u8], flags: SignFlags) -> Option<Signature> {
        let sign = Sign { key: key.clone(), data: data.to_vec(), flags };
        match Reply::parse(&self.request(&Request::Sign(sign))?).unwrap() {
            Reply::Signature(blob) => Some(Signature::parse(&blob).unwrap()),
            _ => None,
        }
    }

    /// Asks for a signature and leaves, for the time being, its reply.
    pub fn ask_to_sign(&mut self, key: &PublicKey, data: &[u8]) {
        let sign = Sign { key: key.clone(), data: data.to_vec(), flags: SignFlags::NONE };
        assert!(self.send(&Request::Sign(sign).encode().unwrap()));
    }

    /// Whether the agent took the bind.
    pub fn bind(&mut self, bind: &SessionBind) -> bool {
        let request = Request::Extension(Extension::SessionBind(bind.clone()));
        self.request(&request).as_deref() == Some(SUCCESS)
    }
}

impl Ssh<'_> {
    pub fn agent(&self) -> Client {
        Client::connect(self.sandbox, &self.socket())
    }

    /// The public half of a key file.
    pub fn public_key(&self, name: &str) -> PublicKey {
        PublicKey::parse(&self.public_blob(name)).unwrap()
    }

    /// The same as bytes, of whatever type and size it is.
    pub fn public_blob(&self, name: &str) -> Vec<u8> {
        base64(self.public(name).split(' ').nth(1).unwrap())
    }

    /// The fields of a private key as the agent's protocol has them, from OpenSSH's own file (PROTOCOL.key): the name
    /// and the numbers, without a comment.
    pub fn private_fields(&self, name: &str) -> Vec<u8> {
        let text = std::fs::read_to_string(self.path(name)).unwrap();
        let lines: String = text.lines().filter(|line| !line.starts_with('-')).collect();
        let bytes = base64(&lines);
        let mut reader = Reader::new(bytes.strip_prefix(b"openssh-key-v1\0").unwrap());
        for _ in 0..3 {
            reader.string().unwrap();
        }
        reader.u32().unwrap();
        reader.string().unwrap();
        let private = reader.string().unwrap();
        let mut fields = Reader::new(private.get(8..).unwrap());
        let before = fields.unread().len();
        keyloan_protocol::ssh_agent::private_key::PrivateKey::read(&mut fields).unwrap();
        let length = before - fields.unread().len();
        private.get(8..8 + length).unwrap().to_vec()
    }
}

/// A host that signs sessions: OpenSSH's agent with its key, since that signs anything.
pub struct Host {
    pub key: PublicKey,
    pub agent: Client,
}

impl Host {
    /// Puts the key `name`, which is made, into the agent at `socket`.
    pub fn new(ssh: &Ssh<'_>, socket: &str, name: &str) -> Self {
        let file = ssh.key(name, &["ed25519"]);
        ssh.client_of(socket, "ssh-add", &["-q", &file]).run().ok();
        Self { key: ssh.public_key(name), agent: Client::connect(ssh.sandbox, socket) }
    }

    pub fn session(&mut self, session_id: &[u8], forwarding: bool) -> SessionBind {
        let signature = self.agent.sign(&self.key, session_id, SignFlags::NONE).unwrap();
        SessionBind { host_key: self.key.clone(), session_id: session_id.to_vec(), signature, forwarding }
    }
}

/// What ssh has signed to log in: RFC 4252 section 7, with the host's key where one is given.
pub fn login(session_id: &[u8], user: &str, key: &PublicKey, host_key: Option<&PublicKey>) -> Vec<u8> {
    let method = if host_key.is_some() { "publickey-hostbound-v00@openssh.com" } else { "publickey" };
    encoded(|out| {
        out.string(session_id);
        out.u8(50);
        for text in [user, "ssh-connection", method] {
            out.text(text);
        }
        out.u8(1);
        out.text(key.name());
        out.string(key.blob());
        if let Some(host_key) = host_key {
            out.string(host_key.blob());
        }
    })
}

/// What `ssh-keygen -Y sign` has signed: PROTOCOL.sshsig section 3.
pub fn document(namespace: &str, hash: &[u8; 64]) -> Vec<u8> {
    encoded(|out| {
        out.bytes(b"SSHSIG");
        for text in [namespace, "", "sha512"] {
            out.text(text);
        }
        out.string(hash);
    })
}

/// `ssh-add -x` and, with 23, `ssh-add -X`.
pub fn locking(number: u8, passphrase: &str) -> Vec<u8> {
    encoded(|out| {
        out.u8(number);
        out.text(passphrase);
    })
}

/// `ssh-add` of a key without constraints.
pub fn adding(fields: &[u8], comment: &str) -> Vec<u8> {
    encoded(|out| {
        out.u8(17);
        out.bytes(fields);
        out.text(comment);
    })
}

pub fn encoded(write: impl Fn(&mut Writer)) -> Vec<u8> {
    wire::encode(write).to_vec()
}

pub fn framed(message: &[u8]) -> Vec<u8> {
    [&u32::try_from(message.len()).unwrap().to_be_bytes(), message].concat()
}

pub fn hex(bytes: &[u8]) -> String {
    HEXLOWER.encode(bytes)
}

fn base64(text: &str) -> Vec<u8> {
    BASE64.decode(text.as_bytes()).unwrap()
}
