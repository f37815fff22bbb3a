//! `keyloan trust` and `keyloan untrust`; also the opening of `.keyloan.toml`.

use crate::args::PathArgument;
use crate::client;
use crate::exit::Failure;
use keyloan_platform::search::{self, FILE, Search};
use keyloan_protocol::control::Message;
use keyloan_protocol::control::error_kind::ErrorKind;
use keyloan_protocol::control::request::Request;
use keyloan_protocol::secret::SecretBytes;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

pub(crate) fn trust(argument: &PathArgument) -> Result<(), Failure> {
    let act = "trust a file";
    let path = chosen(act, argument)?;
    let file = search::open_file(&path).map_err(|error| unreadable(act, &path, &error))?;
    let reply = client::ask_with(act, &Message::new(Request::Trust), &[file.as_fd()])?;
    client::notes(act, reply)
}

pub(crate) fn untrust(argument: &PathArgument) -> Result<(), Failure> {
    let act = "forget a file";
    let path = chosen(act, argument)?;
    // The file may be gone already; its directory's real path is enough then.
    let directory = path.parent().unwrap_or(Path::new("/"));
    let path = directory.canonicalize().map_or(path.clone(), |directory| directory.join(FILE));
    let path = SecretBytes::copy_of(path.as_os_str().as_bytes());
    client::tell(act, &Message::new(Request::Untrust).with("path", path))
}

/// The file that is meant: given, in a given directory, or the nearest.
fn chosen(act: &str, argument: &PathArgument) -> Result<PathBuf, Failure> {
    let here = std::env::current_dir().map_err(|error| Failure::usage(act, error))?;
    if let Some(path) = &argument.path {
        let path = here.join(path);
        return Ok(if path.is_dir() { path.join(FILE) } else { path });
    }
    let search = Search::upwards(&here).map_err(|error| unreadable(act, &here.join(FILE), &error))?;
    search
        .file
        .and_then(|found| search.directories.get(found.at).map(|directory| directory.join(FILE)))
        .ok_or_else(|| Failure::new(ErrorKind::NotFound, act, "there is no .keyloan.toml here or above"))
}

pub(crate) fn unreadable(act: &str, path: &Path, error: &io::Error) -> Failure {
    let kind = match error.kind() {
        io::ErrorKind::NotFound => ErrorKind::NotFound,
        _ => ErrorKind::Usage,
    };
    Failure::new(kind, act, format!("{}: {error}", path.display()))
}
