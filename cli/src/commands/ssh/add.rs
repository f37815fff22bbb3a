//! `keyloan ssh add FILE`. The daemon reads the file and asks for its passphrase; what is done here is to find what
//! belongs to it and, once the vault has the key, to offer to remove the file. Nothing is ever removed but the file
//! that was read, and only behind a reply that says that its key is stored.

use super::{all_keys, described, key_of_line, keys_in, public_file};
use crate::args::ssh::Add;
use crate::client;
use crate::commands::trust::unreadable;
use crate::exit::Failure;
use crate::output;
use keyloan_protocol::control::Message;
use keyloan_protocol::control::error_kind::ErrorKind;
use keyloan_protocol::control::request::Request;
use keyloan_protocol::control::response::SshKey;
use keyloan_protocol::names::{ItemName, quoted};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, IsTerminal, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

const ACT: &str = "store an ssh key";

pub(super) fn add(add: Add) -> Result<(), Failure> {
    let called = add.file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if called.ends_with("-cert.pub") {
        return certify(add);
    }
    if add.file.extension() == Some("pub".as_ref()) {
        let private = quoted(&add.file.with_extension("").display().to_string());
        return Err(Failure::usage(ACT, "that is the public half; the private key's file is wanted")
            .hint(&format!("keyloan ssh add {private}")));
    }
    let file = open(&add.file)?;
    let certificate_file = beside(&add.file, "-cert.pub");
    let certificate = match open(&certificate_file) {
        Ok(file) => Some(file),
        Err(_) if fs::symlink_metadata(&certificate_file).is_err() => None,
        Err(failure) => return Err(failure),
    };
    let item = match add.name {
        Some(name) => name,
        None => ItemName::parse(called).map_err(|error| {
            Failure::usage(ACT, format!("the file's name is no name in the vault: {error}"))
                .hint("give one: --name NAME")
        })?,
    };
    let mut descriptors = vec![file.as_fd()];
    descriptors.extend(certificate.as_ref().map(AsFd::as_fd));
    let message = Message::new(Request::SshAdd { item, comment: add.comment });
    let message = client::with_secret(ACT, message, "passphrase", add.passphrase_fd)?;
    let stored = keys_in(ACT, client::ask_with(ACT, &message, &descriptors)?)?;
    let stored = stored.first().ok_or_else(|| client::unexpected(ACT))?;
    tell(stored);
    if certificate.is_some() && stored.certificate.is_none() {
        output::note(&format!("{} is not for this key, and was left out", certificate_file.display()));
    }
    let removal = Removal { path: &add.file, file: &file, key: stored };
    match (add.keep, add.remove_file) {
        (true, _) => Ok(()),
        (_, true) => removal.remove(),
        _ => removal.offer(),
    }
}

fn tell(stored: &SshKey) {
    let name = stored.item.as_ref().map(ItemName::as_str).unwrap_or_default();
    let certificate = if stored.certificate.is_some() { ", with a certificate" } else { "" };
    output::note(&format!("stored as '{name}': {}{certificate}", described(stored)));
}

/// Puts a certificate beside the key that it is for.
fn certify(add: Add) -> Result<(), Failure> {
    let act = "store a certificate";
    if add.remove_file {
        return Err(Failure::usage(act, "a certificate's file is no secret, and is not removed"));
    }
    let file = open(&add.file)?;
    let item = match add.name {
        Some(name) => name,
        None => certified_key(act, &add.file)?,
    };
    let message = Message::new(Request::SshAdd { item, comment: None });
    let stored = keys_in(act, client::ask_with(act, &message, &[file.as_fd()])?)?;
    tell(stored.first().ok_or_else(|| client::unexpected(act))?);
    Ok(())
}

fn certified_key(act: &str, path: &Path) -> Result<ItemName, Failure> {
    let text = public_file::read(path).map_err(|error| unreadable(act, path, &error))?;
    let certificate = text.as_deref().and_then(key_of_line).filter(|key| key.certificate().is_some());
    let certificate =
        certificate.ok_or_else(|| Failure::usage(act, format!("{} holds no certificate", path.display())))?;
    let keys = all_keys(act)?;
    let is_for =
        |key: &&SshKey| key_of_line(&key.public).is_some_and(|key| certificate.is_or_certifies(&key));
    let found = keys.iter().filter(|key| key.item.is_some()).find(is_for);
    found.and_then(|key| key.item.clone()).ok_or_else(|| {
        Failure::new(ErrorKind::NotFound, act, "the vault has no key that it is for").hint("keyloan ssh list")
    })
}

/// Without waiting for a pipe's other end: the daemon refuses what is no file.
fn open(path: &Path) -> Result<File, Failure> {
    let opened = OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open(path);
    opened.map_err(|error| unreadable(ACT, path, &error))
}

/// The file of the same name with something behind it.
fn beside(path: &Path, more: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(more);
    name.into()
}

/// A file whose key the vault has now.
struct Removal<'a> {
    path: &'a Path,
    /// What the daemon read.
    file: &'a File,
    key: &'a SshKey,
}

impl Removal<'_> {
    fn offer(&self) -> Result<(), Failure> {
        let shown = quoted(&self.path.display().to_string());
        if let Err(cause) = self.is_removable() {
            output::note(&format!("{shown} still holds the key, and is not removed: {cause}"));
            return Ok(());
        }
        if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
            let line = format!("{shown} still holds the key, for every program of yours to read");
            output::note(&format!("{line}; --remove-file removes it, and so does: rm {shown}"));
            return Ok(());
        }
        output::note(&format!("{shown} still holds the key, for every program of yours to read"));
        let text =
            "keyloan: remove it? the vault then has the only copy (keyloan backup makes another) [y/N] ";
        let _ = io::stderr().write_all(text.as_bytes());
        let mut answer = String::new();
        let read = io::stdin().lock().read_line(&mut answer);
        if read.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes") {
            return self.remove();
        }
        output::note(&format!("{shown} stays"));
        Ok(())
    }

    fn remove(&self) -> Result<(), Failure> {
        let act = "remove the key's file";
        self.is_removable().map_err(|cause| Failure::usage(act, cause))?;
        // What IdentityFile of ~/.ssh/config names, ssh finds by the file with the public half.
        let public = beside(self.path, ".pub");
        if fs::symlink_metadata(&public).is_err() {
            public_file::write(act, &public, &self.key.public)?;
        }
        fs::remove_file(self.path).map_err(|error| unreadable(act, self.path, &error))?;
        output::note(&format!(
            "removed {}; {} stays, and ssh finds the key in the agent by it",
            self.path.display(),
            public.display()
        ));
        Ok(())
    }

    /// The path names the file that was read, and nothing else does.
    fn is_removable(&self) -> Result<(), String> {
        let failed = |error: io::Error| format!("{}: {error}", self.path.display());
        let named = fs::symlink_metadata(self.path).map_err(failed)?;
        if named.is_symlink() {
            let to = fs::canonicalize(self.path).map_err(failed)?;
            return Err(format!("it is a symbolic link to {}", to.display()));
        }
        let read = self.file.metadata().map_err(failed)?;
        if (named.dev(), named.ino()) != (read.dev(), read.ino()) {
            return Err("it is another file by now".to_owned());
        }
        if named.nlink() > 1 {
            return Err("the file has another name, too, and would stay under that".to_owned());
        }
        Ok(())
    }
}
