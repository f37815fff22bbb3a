//! Lent files on this side: made just before this process becomes the command, and removed after it even if
//! the daemon has died meanwhile.

use crate::client;
use crate::exit::Failure;
use keyloan_platform::lent_files::{LentFileError, LoanName, Place, Sealed};
use keyloan_platform::paths::Paths;
use keyloan_platform::private_file::Directory;
use keyloan_platform::process;
use keyloan_protocol::control::Value;
use keyloan_protocol::control::response::{FileForm, LentFile};
use keyloan_protocol::names::FileName;
use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

const ACT: &str = "lend a file";

/// What this program is called as to wait for a holder's end.
pub(crate) const WATCHER: &str = "keyloan-files-watcher";

/// Makes the files and gives each variable the path of its own. A process that stays as the command's parent shows
/// nobody its descriptors, so what would have been a file in memory is one with a path then. What could not be made is removed by the daemon,
/// for this process ends then.
pub(crate) fn make(
    name: &LoanName,
    files: &[LentFile],
    values: &[Value],
    stays: bool,
) -> Result<Vec<(String, OsString)>, Failure> {
    let failed = |error: LentFileError| Failure::usage(ACT, error);
    let content = |value: &str| {
        let value = values.iter().find(|held| held.name == value);
        value.map(|value| value.bytes.expose()).ok_or_else(|| client::unexpected(ACT))
    };
    let mut lent = Vec::with_capacity(files.len());
    let mut sealed = Vec::new();
    let mut directory = None;
    for file in files {
        let mut parts = file.parts.iter().map(|part| Ok((&part.name, content(&part.value)?)));
        let path = if file.form == FileForm::Descriptor && !stays {
            let (_, content) = parts.next().ok_or_else(|| client::unexpected(ACT))??;
            let made = Sealed::new(name, content).map_err(failed)?;
            let path = made.path();
            sealed.push(made);
            path
        } else {
            let directory = match &directory {
                Some(directory) => directory,
                None => directory.insert(begin_directory(name).map_err(failed)?),
            };
            let parts = parts.collect::<Result<Vec<_>, _>>()?;
            in_directory(directory, file, &parts).map_err(failed)?
        };
        lent.push((file.variable.to_string(), path.into_os_string()));
    }
    // Only now, so that the watcher has not inherited them.
    for sealed in sealed {
        sealed.hand_over().map_err(|error| Failure::usage(ACT, error))?;
    }
    Ok(lent)
}

fn begin_directory(name: &LoanName) -> Result<Directory, LentFileError> {
    let paths = Paths::discover().map_err(|_| LentFileError::NoMemory)?;
    let place = Place::open(&paths)?;
    // Before there is anything to remove: from here on somebody will.
    start_watcher(name).map_err(LentFileError::Watcher)?;
    place.make(name)
}

fn in_directory(
    directory: &Directory,
    file: &LentFile,
    parts: &[(&FileName, &[u8])],
) -> Result<PathBuf, LentFileError> {
    let own = directory.child_or_create(file.variable.as_str())?;
    for (name, content) in parts {
        own.create(name.as_str(), content)?;
    }
    let only = parts.first().filter(|_| file.form != FileForm::Directory);
    Ok(only.map_or_else(|| own.path().to_owned(), |(name, _)| own.path().join(name.as_str())))
}

/// Starts the watcher by way of a process that ends at once, so that the command has no child it did not start.
/// Of this process it gets the programs' paths and a descriptor that tells its end; no environment, no value.
fn start_watcher(name: &LoanName) -> io::Result<()> {
    let holder = process::pidfd(name.pid())?;
    let status = watcher(&["start", &name.to_string()], Stdio::from(holder))?.wait()?;
    if status.success() { Ok(()) } else { Err(io::Error::other("the watcher of lent files did not start")) }
}

#[expect(clippy::disallowed_methods, reason = "the spawner of the watcher")]
fn watcher(arguments: &[&str], holder: Stdio) -> io::Result<std::process::Child> {
    use std::os::unix::process::CommandExt;
    Command::new(std::env::current_exe()?)
        .arg0(WATCHER)
        .args(arguments)
        .env_clear()
        .envs(Paths::environment())
        .stdin(holder)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
}

/// Called as [`WATCHER`]: `start NAME` leaves a `wait NAME` behind, which removes the files once the process of
/// the pidfd on standard input has ended. The daemon does the same; this is for when it has died.
pub(crate) fn watch(arguments: &[OsString]) -> ExitCode {
    let done = match arguments {
        [what, name] if what == "start" => start(name),
        [what, name] if what == "wait" => wait(name),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    };
    if done.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn start(name: &OsString) -> io::Result<()> {
    let name = name.to_str().ok_or(io::ErrorKind::InvalidInput)?;
    process::detach()?;
    watcher(&["wait", name], Stdio::inherit()).map(drop)
}

fn wait(name: &OsString) -> io::Result<()> {
    let name = name.to_str().and_then(LoanName::parse).ok_or(io::ErrorKind::InvalidInput)?;
    process::wait_for_end(io::stdin().as_fd())?;
    let paths = Paths::discover().map_err(io::Error::other)?;
    match Place::existing(&paths).map_err(io::Error::other)? {
        Some(place) => place.remove(&name),
        None => Ok(()),
    }
}
