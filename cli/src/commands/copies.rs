//! Copies of the whole vault: backup, restore, re-keying, the recovery key, another machine's copy.

use crate::args::{Backup, Passphrase, Passwd, Restore};
use crate::client;
use crate::commands::keeper;
use crate::exit::Failure;
use crate::output;
use keyloan_platform::private_file;
use keyloan_protocol::control::Message;
use keyloan_protocol::control::request::Request;
use keyloan_protocol::limits;
use keyloan_protocol::secret::SecretBytes;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use zeroize::Zeroizing;

/// The file has its name only once it is whole.
pub(crate) fn backup(backup: &Backup) -> Result<(), Failure> {
    let act = "back up the vault";
    let failed = |error: io::Error| Failure::usage(act, format!("{}: {error}", backup.file.display()));
    let fresh = private_file::Fresh::beside(&backup.file).map_err(failed)?;
    let message = Message::new(Request::Backup { recipients: backup.recipients.clone() });
    let message = client::with_secret(act, message, "passphrase", backup.passphrase.passphrase_fd)?;
    let message = client::with_secret(act, message, "new", backup.own_passphrase_fd)?;
    let reply = client::ask_with(act, &message, &[fresh.file().as_fd()])?;
    fresh.keep().map_err(failed)?;
    client::notes(act, reply)
}

pub(crate) fn restore(restore: &Restore) -> Result<(), Failure> {
    let act = "restore a backup";
    let plain = restore.file.as_os_str() == "-";
    let request = Request::Restore { plain, new_passphrase: restore.new_passphrase };
    let mut message = Message::new(request);
    message = client::with_secret(act, message, "passphrase", restore.backup_passphrase_fd)?;
    message = client::with_secret(act, message, "new", restore.new_passphrase_fd)?;
    if let Some(identity) = &restore.identity {
        message = message.with("identity", identity_file(act, identity)?);
    }
    let reply = if plain {
        client::ask_with(act, &message, &[io::stdin().as_fd()])?
    } else {
        let failed = |error| Failure::usage(act, format!("{}: {error}", restore.file.display()));
        let file = File::open(&restore.file).map_err(failed)?;
        client::ask_with(act, &message, &[file.as_fd()])?
    };
    client::notes(act, reply)
}

fn identity_file(act: &str, path: &Path) -> Result<SecretBytes, Failure> {
    let failed = |error| Failure::usage(act, format!("{}: {error}", path.display()));
    let mut file = File::open(path).map_err(failed)?;
    let mut bytes = Zeroizing::new(vec![0; limits::IDENTITY + 1]);
    let mut length = 0;
    while length < bytes.len() {
        match file.read(&mut bytes[length..]).map_err(failed)? {
            0 => return Ok(SecretBytes::copy_of(&bytes[..length])),
            more => length += more,
        }
    }
    Err(Failure::usage(act, format!("{}: longer than an identity file is", path.display())))
}

pub(crate) fn rekey(rekey: &Passwd) -> Result<(), Failure> {
    keeper::change_passphrase("re-key the vault", Request::Rekey, rekey)
}

/// A page to print or to copy by hand.
pub(crate) fn recovery_key(passphrase: &Passphrase) -> Result<(), Failure> {
    let act = "make a recovery key";
    let message = Message::new(Request::RecoveryKey);
    let message = client::with_secret(act, message, "passphrase", passphrase.passphrase_fd)?;
    let mut reply = client::ask(act, &message)?;
    let key = reply.take("value").ok_or_else(|| client::unexpected(act))?;
    let mut page = Zeroizing::new(Vec::with_capacity(2048));
    page.extend_from_slice(
        b"Recovery key of a keyloan vault\n\n\
          Whoever has this page and the vault's files can read all of it. Keep it on paper.\n\n",
    );
    for (group, characters) in key.expose().chunks(5).enumerate() {
        page.extend_from_slice(if group % 8 == 0 { b"    " } else { b" " });
        page.extend_from_slice(characters);
        if group % 8 == 7 {
            page.push(b'\n');
        }
    }
    page.extend_from_slice(
        b"\n\nWhen the passphrase is lost, type the key in its place (spaces and case do not matter):\n\n    \
          keyloan passwd\n\n\
          Without keyloan, with the key in a file key.txt, without spaces and in capitals:\n\n    \
          age -d -i key.txt -o identity.txt ~/.local/share/keyloan/vault/identity/recovery.age\n",
    );
    output::bytes(&page)
}

pub(crate) fn merge(directory: &Path) -> Result<(), Failure> {
    let act = "merge another copy of the vault";
    let failed = |error: io::Error| Failure::usage(act, format!("{}: {error}", directory.display()));
    let directory = directory.canonicalize().map_err(failed)?;
    let path = SecretBytes::copy_of(directory.as_os_str().as_bytes());
    client::tell(act, &Message::new(Request::Merge).with("path", path))
}
