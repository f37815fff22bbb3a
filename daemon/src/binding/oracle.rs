//! OpenSSH's own agent is asked the same: which binds it takes, what it shows of a key with destinations, and what it
//! signs with it.

#![expect(clippy::disallowed_methods, reason = "OpenSSH's programs are started to be compared with")]

use super::destination::{permits_list, permits_login};
use super::*;
use crate::hosts::tests::Noise;
use data_encoding::BASE64_MIME;
use keyloan_protocol::ssh_agent::constraint::{Constraints, Destination as Hop, Host, HostKey};
use keyloan_protocol::ssh_agent::frame;
use keyloan_protocol::ssh_agent::message::{Add, Reply, Request, Sign, SignFlags};
use keyloan_protocol::ssh_agent::private_key::PrivateKey;
use keyloan_protocol::ssh_agent::session_bind::Extension;
use keyloan_protocol::ssh_agent::signature::Signature;
use keyloan_protocol::ssh_agent::to_be_signed::ToBeSigned;
use keyloan_protocol::ssh_agent::wire::{Reader, encode};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::UNIX_EPOCH;

struct Agent {
    child: Child,
    place: PathBuf,
}

impl Agent {
    fn start() -> Self {
        let place = std::env::temp_dir().join(format!("keyloan-agent-{}", std::process::id()));
        let _ = fs::remove_dir_all(&place);
        fs::create_dir_all(&place).unwrap();
        let mut command = Command::new("ssh-agent");
        command
            .arg("-D")
            .arg("-a")
            .arg(place.join("sock"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut agent = Self { child: command.spawn().unwrap(), place };
        while UnixStream::connect(agent.place.join("sock")).is_err() {
            assert!(agent.child.try_wait().unwrap().is_none(), "ssh-agent ended");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        agent
    }

    fn connect(&self) -> UnixStream {
        UnixStream::connect(self.place.join("sock")).unwrap()
    }

    fn keygen(&self, arguments: &[&str]) {
        let mut command = Command::new("ssh-keygen");
        let output = command.arg("-q").args(arguments).current_dir(&self.place).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }

    fn make(&self, name: &str) -> PublicKey {
        self.keygen(&["-t", "ed25519", "-N", "", "-C", "", "-f", name]);
        self.key(name).public().clone()
    }

    /// Reads a key: openssh-key-v1, not encrypted, whose private part is what an agent is sent.
    fn key(&self, name: &str) -> PrivateKey {
        let text = fs::read_to_string(self.place.join(name)).unwrap();
        let base64: String =
            text.lines().filter(|line| !line.starts_with('-')).map(|line| line.to_owned() + "\r\n").collect();
        let bytes = BASE64_MIME.decode(base64.as_bytes()).unwrap();
        let mut reader = Reader::new(bytes.strip_prefix(b"openssh-key-v1\0").unwrap());
        for _ in 0..3 {
            reader.string().unwrap();
        }
        reader.u32().unwrap();
        reader.string().unwrap();
        let mut reader = reader.nested().unwrap();
        reader.u64().unwrap();
        PrivateKey::read(&mut reader).unwrap()
    }

    fn certificate(&self, authority: &str, host: &str, principals: &str, valid: &str) -> PublicKey {
        self.keygen(&[
            "-s",
            authority,
            "-h",
            "-I",
            "id",
            "-n",
            principals,
            "-V",
            valid,
            &format!("{host}.pub"),
        ]);
        let text = fs::read_to_string(self.place.join(format!("{host}-cert.pub"))).unwrap();
        let base64 = text.split(' ').nth(1).unwrap();
        PublicKey::parse(&data_encoding::BASE64.decode(base64.as_bytes()).unwrap()).unwrap()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.place);
    }
}

fn ask(socket: &mut UnixStream, request: &Request) -> Reply {
    socket.write_all(&request.encode().unwrap()).unwrap();
    let mut prefix = [0; frame::PREFIX];
    socket.read_exact(&mut prefix).unwrap();
    let mut message = vec![0; frame::length(prefix).unwrap()];
    socket.read_exact(&mut message).unwrap();
    Reply::parse(&message).unwrap()
}

fn sign(socket: &mut UnixStream, key: &PublicKey, data: &[u8]) -> Option<Signature> {
    let request = Request::Sign(Sign { key: key.clone(), data: data.to_vec(), flags: SignFlags::NONE });
    match ask(socket, &request) {
        Reply::Signature(blob) => Some(Signature::parse(&blob).unwrap()),
        _ => None,
    }
}

fn login_blob(session_id: &[u8], user: &str, key: &PublicKey, host_key: Option<&PublicKey>) -> Vec<u8> {
    let method = if host_key.is_some() { "publickey-hostbound-v00@openssh.com" } else { "publickey" };
    let blob = encode(|out| {
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
    });
    blob.to_vec()
}

fn one<'a, T>(noise: &mut Noise, of: &'a [T]) -> &'a T {
    &of[noise.below(of.len())]
}

/// What hosts there are: the key that each shows, and the plain one that signs for it.
struct World {
    shown: Vec<(PublicKey, PublicKey)>,
    host_keys: Vec<HostKey>,
}

impl World {
    fn make(agent: &Agent) -> Self {
        let mut socket = agent.connect();
        let plain = ["a", "b", "ca", "other"].map(|name| agent.make(name));
        let mut shown: Vec<_> =
            [0, 0, 1].map(|number: usize| (plain[number].clone(), plain[number].clone())).into();
        for (host, authority, principals, valid) in [
            ("a", "ca", "a.example", "always:forever"),
            ("a", "ca", "a.example,b.example", "-1d:+1d"),
            ("b", "ca", "b.example", "always:forever"),
            ("b", "ca", "*.example", "always:forever"),
            ("b", "ca", "b.example", "-2d:-1d"),
            ("b", "other", "b.example", "always:forever"),
        ] {
            let signer = &plain[usize::from(host == "b")];
            shown.push((agent.certificate(authority, host, principals, valid), signer.clone()));
        }
        for name in ["a", "b"] {
            let add = Add { key: agent.key(name), comment: Vec::new(), constraints: None };
            assert_eq!(ask(&mut socket, &Request::Add(Box::new(add))), Reply::Success);
        }
        let host_key = |number: usize, is_authority| HostKey { key: plain[number].clone(), is_authority };
        let host_keys =
            [(0, false), (0, false), (1, false), (1, false), (2, true), (2, true), (2, false), (0, true)];
        Self { shown, host_keys: host_keys.map(|(number, authority)| host_key(number, authority)).into() }
    }

    fn host(&self, noise: &mut Noise) -> Host {
        let name = *one(noise, &["a.example", "b.example", "*.example", "?.example", "*", "c.example"]);
        let keys = (0..=noise.below(2)).map(|_| one(noise, &self.host_keys).clone()).collect();
        Host { name: name.to_owned(), keys }
    }

    /// Hops that mostly allow this way, and some that are made up.
    fn destinations(&self, noise: &mut Noise, way: &[usize]) -> Vec<Hop> {
        let users = [None, None, Some("root"), Some("r*"), Some("g?t")];
        let mut destinations = Vec::new();
        let mut add = |from: Option<Host>, to: Host, noise: &mut Noise| {
            let user = one(noise, &users).map(str::to_owned);
            destinations.push(Hop { from, user, to });
        };
        for (number, to) in way.iter().enumerate().filter(|_| noise.below(8) != 0).collect::<Vec<_>>() {
            let from = number.checked_sub(1).and_then(|before| way.get(before));
            add(from.map(|from| self.host_of(*from)), self.host_of(*to), noise);
        }
        for _ in 0..noise.below(3) {
            let from = (noise.below(2) == 0).then(|| self.host(noise));
            add(from, self.host(noise), noise);
        }
        if destinations.is_empty() {
            destinations.push(Hop { from: None, user: None, to: self.host(noise) });
        }
        destinations
    }

    /// The host that shows that key.
    fn host_of(&self, shown: usize) -> Host {
        let (key, _) = &self.shown[shown];
        let (name, key, is_authority) = match key.certificate() {
            Some(certificate) => (certificate.principals[0].as_str(), &certificate.authority, true),
            None => ("plain", key, false),
        };
        Host { name: name.to_owned(), keys: vec![HostKey { key: key.clone(), is_authority }] }
    }
}

/// How often the two said yes and no.
#[derive(Debug, Default)]
struct Counts {
    bound: [u32; 2],
    shown: [u32; 2],
    signed: [u32; 2],
    /// Signed at the end of one, two and three hops.
    hops: [u32; 3],
}

#[test]
fn openssh_decides_the_same() {
    let agent = Agent::start();
    let world = World::make(&agent);
    let user_key = agent.make("user");
    let mut counts = Counts::default();
    let mut keeper = agent.connect();
    for seed in 1..=1000 {
        let mut noise = Noise(seed);
        // Small seeds look alike at first.
        for _ in 0..8 {
            noise.next();
        }
        let binds = noise.below(5).min(3);
        let way: Vec<usize> = (0..binds).map(|_| noise.below(world.shown.len())).collect();
        let destinations = world.destinations(&mut noise, &way);
        let constraints = Constraints { destinations: Some(destinations.clone()), ..Constraints::default() };
        let add = Add { key: agent.key("user"), comment: Vec::new(), constraints: Some(constraints) };
        assert_eq!(ask(&mut keeper, &Request::Add(Box::new(add))), Reply::Success);
        let mut socket = agent.connect();
        let mut binding = Binding::new();
        for (number, host) in way.iter().enumerate() {
            let (host_key, signer) = world.shown[*host].clone();
            let session_id = vec![u8::try_from(noise.below(16)).unwrap(); 1 + 127 * noise.below(2)];
            let is_right = noise.below(12) != 0;
            let signed: &[u8] = if is_right { &session_id } else { b"another" };
            let signature = sign(&mut keeper, &signer, signed).unwrap();
            let forwarding = (number + 1 < binds) != (noise.below(12) == 0);
            let bind = SessionBind { host_key, session_id, signature, forwarding };
            let extension = Extension::SessionBind(bind.clone());
            let taken = ask(&mut socket, &Request::Extension(extension)) == Reply::Success;
            assert_eq!(binding.bind(bind, is_right).is_ok(), taken);
            counts.bound[usize::from(taken)] += 1;
            if binding.is_failed() {
                // OpenSSH would take another; ours is lost for good.
                break;
            }
        }
        let Reply::Identities(identities) = ask(&mut socket, &Request::List) else { panic!("no list") };
        let shown = identities.iter().any(|identity| identity.blob == user_key.blob());
        let now = UNIX_EPOCH.elapsed().unwrap().as_secs();
        let said = |what: bool| format!("seed {seed}: OpenSSH says {what}");
        let shows = permits_list(Some(&destinations), &binding, now);
        if binding.is_failed() {
            // OpenSSH goes on with the binds that it took, before 9.4 as if the connection were local.
            assert!(!shows);
        } else {
            assert_eq!(shows, shown, "{}", said(shown));
        }
        counts.shown[usize::from(shown)] += 1;

        let last = binding.binds.last().filter(|_| noise.below(8) != 0);
        let session_id = last.map_or(b"none".to_vec(), |bound| bound.session_id.clone());
        let host_key = match noise.below(6) {
            0 => None,
            1 => Some(&one(&mut noise, &world.shown).0),
            _ => last.map(|bound| &bound.host_key),
        };
        let user = *one(&mut noise, &["root", "git"]);
        let blob = login_blob(&session_id, user, &user_key, host_key);
        let ToBeSigned::Login(login) = ToBeSigned::parse(&blob, &user_key) else { panic!("no login") };
        let permitted = binding.login(&login).is_ok()
            && permits_login(Some(&destinations), &binding, user, login.host_key.is_some(), now);
        let signed = sign(&mut socket, &user_key, &blob).is_some();
        if binding.is_failed() {
            assert!(!permitted);
        } else {
            assert_eq!(permitted, signed, "{}", said(signed));
        }
        counts.signed[usize::from(signed)] += 1;
        if signed {
            counts.hops[binding.binds.len() - 1] += 1;
        }
        assert!(sign(&mut socket, &user_key, b"anything else").is_none());
    }
    let Counts { bound, shown, signed, hops } = counts;
    let enough = bound.iter().chain(&shown).chain(&signed).all(|&count| count > 100);
    assert!(enough && hops.iter().all(|&count| count > 20), "{bound:?} {shown:?} {signed:?} {hops:?}");
}
