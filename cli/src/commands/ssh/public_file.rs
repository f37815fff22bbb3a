//! Files of public keys, for everybody to read. Another key's is never overwritten.

use super::key_of_line;
use crate::exit::Failure;
use keyloan_platform::private_file::Fresh;
use std::fs::{File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// The longest line that is looked at: a key of 8192 bits with a certificate is far shorter.
const LINE: u64 = 64 * 1024;

/// Gives whether the file is new; one with the same key stays as it is.
pub(super) fn write(act: &str, path: &Path, line: &str) -> Result<bool, Failure> {
    let failed = |error: io::Error| Failure::usage(act, format!("{}: {error}", path.display()));
    match make(path, line) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let held = read(path).map_err(failed)?;
            let same =
                held.as_deref().and_then(key_of_line).is_some_and(|held| Some(held) == key_of_line(line));
            let cause = || format!("{} is there already, and is not this key", path.display());
            if same { Ok(false) } else { Err(Failure::usage(act, cause())) }
        }
        Err(error) => Err(failed(error)),
    }
}

fn make(path: &Path, line: &str) -> io::Result<()> {
    let fresh = Fresh::beside(path)?;
    fresh.file().write_all(format!("{line}\n").as_bytes())?;
    fresh.file().set_permissions(Permissions::from_mode(0o644))?;
    fresh.file().sync_all()?;
    fresh.keep()
}

/// `None` for what is no text, or longer than a line of a key.
pub(super) fn read(path: &Path) -> io::Result<Option<String>> {
    let file = File::open(path)?;
    let mut text = Vec::new();
    if !file.metadata()?.is_file() {
        return Ok(None);
    }
    file.take(LINE + 1).read_to_end(&mut text)?;
    Ok(String::from_utf8(text).ok().filter(|text| text.len() as u64 <= LINE))
}
