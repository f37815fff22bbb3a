//! The same keys, files and signatures in the hands of `ssh-keygen`, both ways. Random keys by the thousand: what
//! goes wrong with a short scalar or a leading zero goes wrong once in hundreds.

use super::public_line::{public_line, read_public_line};
use super::{KeyKind, SigningKey, certificate_is_signed, fingerprint, generate, key_file, samples, verify};
use data_encoding::BASE64;
use key_file::KeyFileError;
use keyloan_platform::private_file::Directory;
use keyloan_protocol::secret::SecretBytes;
use keyloan_protocol::ssh_agent::algorithm::{Curve, SignatureAlgorithm};
use keyloan_protocol::ssh_agent::signature::Signature;
use keyloan_protocol::ssh_agent::wire::{Reader, encode};
use sha2::{Digest, Sha512};
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

const NAMESPACE: &str = "keyloan";

struct Scratch(Directory);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(self.0.path());
    }
}

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("keyloan-signing-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Self(Directory::open_or_create(&path).unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn put(&self, name: &str, bytes: &[u8]) {
        let _ = fs::remove_file(self.path(name));
        self.0.create_unsynced(name, bytes).unwrap();
    }

    fn get(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap()
    }

    /// What `ssh-keygen` prints, or nothing if it fails.
    #[expect(clippy::disallowed_methods, reason = "the stock program that the keys are compared with")]
    fn keygen(&self, arguments: &[&str], input: &[u8]) -> Option<String> {
        let mut child = Command::new("ssh-keygen")
            .args(arguments)
            .current_dir(self.0.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // It may end without having read.
        let _ = child.stdin.take().unwrap().write_all(input);
        let output = child.wait_with_output().unwrap();
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
    }

    /// A new key of theirs, in `key` and `key.pub`.
    fn new_key(&self, kind: KeyKind, comment: &str, more: &[&str]) {
        for name in ["key", "key.pub"] {
            let _ = fs::remove_file(self.path(name));
        }
        let (name, bits) = match kind {
            KeyKind::Ed25519 => ("ed25519", 256),
            KeyKind::Ecdsa(curve) => ("ecdsa", curve.bits()),
            KeyKind::Rsa { bits } => ("rsa", bits),
        };
        let bits = bits.to_string();
        let common = ["-q", "-f", "key", "-t", name, "-b", &bits, "-C", comment];
        self.keygen(&[&common, more].concat(), b"").unwrap();
    }
}

/// PROTOCOL.sshsig section 3.
fn to_be_signed(message: &[u8]) -> Vec<u8> {
    let rest = encode(|out| {
        out.text(NAMESPACE);
        out.text("");
        out.text("sha512");
        out.string(&Sha512::digest(message));
    });
    [b"SSHSIG".as_slice(), &rest].concat()
}

/// PROTOCOL.sshsig section 2.
fn armoured(key: &SigningKey, signature: &Signature) -> String {
    let rest = encode(|out| {
        out.u32(1);
        out.string(key.public().blob());
        out.text(NAMESPACE);
        out.text("");
        out.text("sha512");
        out.string(&signature.encode());
    });
    let base64 = BASE64.encode(&[b"SSHSIG".as_slice(), &rest].concat());
    format!("-----BEGIN SSH SIGNATURE-----\n{base64}\n-----END SSH SIGNATURE-----\n")
}

fn signature_in(armoured: &str) -> Signature {
    let base64: String = armoured.lines().filter(|line| !line.starts_with("-----")).collect();
    let blob = BASE64.decode(base64.as_bytes()).unwrap();
    let mut reader = Reader::new(blob.strip_prefix(b"SSHSIG").unwrap());
    assert_eq!(reader.u32(), Ok(1));
    for _ in ["key", "namespace", "reserved", "hash"] {
        reader.string().unwrap();
    }
    Signature::parse(reader.string().unwrap()).unwrap()
}

/// Keys of ours: `ssh-keygen` reads the file and verifies the signature.
fn ours_to_theirs(kind: KeyKind, count: usize) {
    let scratch = Scratch::new(&format!("ours-{kind:?}"));
    let algorithms = samples::algorithms(kind);
    for number in 0..count {
        let message = format!("message {number}");
        let made = generate(kind).unwrap();
        let file = key_file::write(&made, message.as_bytes()).unwrap();
        scratch.put("key", file.expose());
        let line = scratch.keygen(&["-y", "-f", "key"], b"").unwrap();
        assert_eq!(line.trim_end(), public_line(made.public(), message.as_bytes()));
        let (read, comment) = key_file::read(file.expose(), None).unwrap();
        assert_eq!(samples::numbers(&read), samples::numbers(&made));
        assert_eq!(comment, message.as_bytes());
        let key = SigningKey::open(&read).unwrap();
        let algorithm = algorithms[number % algorithms.len()];
        let signature = key.sign(algorithm, &to_be_signed(message.as_bytes())).unwrap();
        scratch.put("signature", armoured(&key, &signature).as_bytes());
        let check = ["-Y", "check-novalidate", "-n", NAMESPACE, "-s", "signature"];
        assert!(scratch.keygen(&check, message.as_bytes()).is_some(), "{kind:?} {number}");
        if number == 0 {
            assert!(scratch.keygen(&check, b"another message").is_none());
        }
    }
}

/// Keys of theirs: the same public half, and signatures verify both ways.
fn theirs_to_ours(kind: KeyKind, count: usize) {
    let scratch = Scratch::new(&format!("theirs-{kind:?}"));
    for number in 0..count {
        let message = format!("message {number}");
        scratch.new_key(kind, &message, &["-N", ""]);
        let line = String::from_utf8(scratch.get("key.pub")).unwrap();
        let (read, comment) = key_file::read(&scratch.get("key"), None).unwrap();
        assert_eq!(public_line(read.public(), &comment), line.trim_end());
        let (public, comment) = read_public_line(&line).unwrap();
        assert_eq!((&public, comment), (read.public(), message.clone()));
        let key = SigningKey::open(&read).unwrap();
        for algorithm in samples::algorithms(kind) {
            let signature = key.sign(algorithm, message.as_bytes()).unwrap();
            assert!(verify(&public, message.as_bytes(), &signature), "{kind:?} {number}");
        }
        let made = scratch.keygen(&["-Y", "sign", "-f", "key", "-n", NAMESPACE], message.as_bytes()).unwrap();
        assert!(
            verify(&public, &to_be_signed(message.as_bytes()), &signature_in(&made)),
            "{kind:?} {number}"
        );
        if number == 0 {
            let told = scratch.keygen(&["-l", "-f", "key.pub"], b"").unwrap();
            assert_eq!(told.split(' ').nth(1), Some(fingerprint(&public).as_str()));
        }
    }
}

#[test]
fn a_thousand_ed25519_keys_are_the_same_to_ssh_keygen() {
    ours_to_theirs(KeyKind::Ed25519, 500);
    theirs_to_ours(KeyKind::Ed25519, 500);
}

#[test]
fn a_thousand_nistp256_keys_are_the_same_to_ssh_keygen() {
    ours_to_theirs(KeyKind::Ecdsa(Curve::Nistp256), 500);
    theirs_to_ours(KeyKind::Ecdsa(Curve::Nistp256), 500);
}

#[test]
fn a_thousand_nistp384_keys_are_the_same_to_ssh_keygen() {
    ours_to_theirs(KeyKind::Ecdsa(Curve::Nistp384), 500);
    theirs_to_ours(KeyKind::Ecdsa(Curve::Nistp384), 500);
}

#[test]
fn a_thousand_nistp521_keys_are_the_same_to_ssh_keygen() {
    ours_to_theirs(KeyKind::Ecdsa(Curve::Nistp521), 500);
    theirs_to_ours(KeyKind::Ecdsa(Curve::Nistp521), 500);
}

#[test]
fn rsa_keys_of_ours_are_the_same_to_ssh_keygen() {
    for (bits, count) in [(2048, 110), (3072, 6), (4096, 4)] {
        ours_to_theirs(KeyKind::Rsa { bits }, count);
    }
}

#[test]
fn rsa_keys_of_theirs_are_the_same_here() {
    for (bits, count) in [(2048, 70), (2056, 2), (2049, 2), (3072, 4), (4096, 2)] {
        theirs_to_ours(KeyKind::Rsa { bits }, count);
    }
}

#[test]
fn certificates_of_ssh_keygen_are_verified_but_for_sha1() {
    let scratch = Scratch::new("certificates");
    for kind in samples::KINDS {
        scratch.new_key(kind, "authority", &["-N", ""]);
        fs::rename(scratch.path("key"), scratch.path("authority")).unwrap();
        scratch.new_key(kind, "subject", &["-N", ""]);
        let algorithms: &[&[&str]] = match kind {
            KeyKind::Rsa { .. } => &[&["-t", "rsa-sha2-256"], &["-t", "rsa-sha2-512"], &["-t", "ssh-rsa"]],
            _ => &[&[]],
        };
        for algorithm in algorithms {
            let common = ["-q", "-s", "authority", "-h", "-I", "web", "-n", "host.example"];
            scratch.keygen(&[&common, *algorithm, &["key.pub"]].concat(), b"").unwrap();
            let line = String::from_utf8(scratch.get("key-cert.pub")).unwrap();
            let (public, comment) = read_public_line(&line).unwrap();
            assert_eq!(comment, "subject");
            assert_eq!(public_line(&public, comment.as_bytes()), line.trim_end());
            let certificate = public.certificate().unwrap();
            let sha1 = certificate.signature.algorithm() == SignatureAlgorithm::RsaSha1;
            assert_eq!(sha1, algorithm.contains(&"ssh-rsa"));
            assert_eq!(certificate_is_signed(certificate), !sha1, "{kind:?} {algorithm:?}");
            assert_eq!(
                fingerprint(&public),
                fingerprint(key_file::read(&scratch.get("key"), None).unwrap().0.public())
            );
        }
    }
}

#[test]
fn encrypted_files_open_with_their_passphrase_alone_whatever_the_cipher() {
    let scratch = Scratch::new("encrypted");
    let (right, wrong) = (SecretBytes::copy_of(b"pass phrase"), SecretBytes::copy_of(b"pass phrasf"));
    let none = SecretBytes::copy_of(b"");
    for cipher in [
        "aes256-ctr",
        "aes192-ctr",
        "aes128-ctr",
        "aes256-cbc",
        "aes192-cbc",
        "aes128-cbc",
        "aes256-gcm@openssh.com",
        "aes128-gcm@openssh.com",
        "chacha20-poly1305@openssh.com",
    ] {
        for kind in samples::KINDS {
            scratch.new_key(kind, "comment", &["-Z", cipher, "-a", "1", "-N", "pass phrase"]);
            let file = scratch.get("key");
            let (key, comment) = key_file::read(&file, Some(&right)).unwrap();
            let line = String::from_utf8(scratch.get("key.pub")).unwrap();
            assert_eq!(public_line(key.public(), &comment), line.trim_end(), "{cipher}");
            assert!(SigningKey::open(&key).is_ok());
            let fault = |passphrase| key_file::read(&file, passphrase).err();
            assert_eq!(fault(Some(&wrong)), Some(KeyFileError::WrongPassphrase), "{cipher}");
            assert_eq!(fault(Some(&none)), Some(KeyFileError::WrongPassphrase));
            assert_eq!(fault(None), Some(KeyFileError::WantsPassphrase));
        }
    }
    let aes = ["-q", "-p", "-Z", "aes256-ctr", "-P", "pass phrase", "-N", "pass phrase", "-f", "key"];
    scratch.new_key(KeyKind::Ed25519, "comment", &["-Z", "3des-cbc", "-a", "1", "-N", "pass phrase"]);
    let fault = key_file::read(&scratch.get("key"), Some(&right)).err().unwrap();
    assert_eq!(fault, KeyFileError::Encryption);
    assert!(fault.to_string().contains("`ssh-keygen -p -Z aes256-ctr -f FILE`"));
    scratch.keygen(&aes, b"").unwrap();
    // As it is without any options.
    assert!(key_file::read(&scratch.get("key"), Some(&right)).is_ok());
}

#[test]
fn a_file_in_an_old_format_is_read_once_it_was_converted_as_the_message_says() {
    let scratch = Scratch::new("old");
    let convert = ["-q", "-p", "-P", "", "-N", "", "-f", "key"];
    for (kind, format, name) in [
        (KeyKind::Rsa { bits: 2048 }, "PEM", "PKCS #1"),
        (KeyKind::Rsa { bits: 2048 }, "PKCS8", "PKCS #8"),
        (KeyKind::Ecdsa(Curve::Nistp521), "PEM", "SEC 1"),
        (KeyKind::Ecdsa(Curve::Nistp521), "PKCS8", "PKCS #8"),
    ] {
        scratch.new_key(kind, "comment", &["-m", format, "-N", ""]);
        let fault = key_file::read(&scratch.get("key"), None).err().unwrap();
        assert_eq!(fault, KeyFileError::OldFormat(name));
        assert!(fault.to_string().contains("`ssh-keygen -p -f FILE`"));
        scratch.keygen(&convert, b"").unwrap();
        assert!(key_file::read(&scratch.get("key"), None).is_ok());
    }
}

#[test]
fn a_dsa_key_is_unsupported() {
    let scratch = Scratch::new("dsa");
    scratch.keygen(&["-q", "-t", "dsa", "-N", "", "-f", "key"], b"").unwrap();
    assert_eq!(key_file::read(&scratch.get("key"), None).err(), Some(KeyFileError::Unsupported));
}
