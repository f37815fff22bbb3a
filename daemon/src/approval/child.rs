//! Children that answer for a human: which files may be run, how they are heard, and their end. A child and
//! all it started end with its question.

pub(crate) use keyloan_platform::program::{Group, is_roots};

use keyloan_platform::sealed::{self, Reader};
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::process::Stdio;
use tokio::net::UnixStream;
use tokio::process::{Child, Command};

/// Starts a program with our end of a socket pair; the other is its standard input and output. A pipe could be
/// opened through `/proc` by the same user, who would put another question in place of this one, or write the
/// answer himself; a socket cannot. The environment is empty but for `variables` and a home directory that is
/// nobody's: interpreters and toolkits load code from the user's own, where any program of the user writes.
#[expect(clippy::disallowed_methods, reason = "the spawner of whatever answers for a human")]
pub(super) fn start(
    program: &Path,
    arguments: &[OsString],
    variables: impl Iterator<Item = (&'static str, OsString)>,
) -> io::Result<(Child, UnixStream)> {
    let (ours, theirs) = UnixStream::pair()?;
    let theirs = theirs.into_std()?;
    theirs.set_nonblocking(false)?;
    let theirs = OwnedFd::from(theirs);
    let child = Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(variables)
        .env("HOME", "/")
        .current_dir("/")
        .stdin(Stdio::from(theirs.try_clone()?))
        .stdout(Stdio::from(theirs))
        .stderr(Stdio::null())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()?;
    Ok((child, ours))
}

/// Starts a program that secrets are typed into, so that no other program of the user reads its memory, traces it or
/// takes its end of the socket: a copy that nobody may read runs undumpable. Root's files are read here, and nothing
/// that could keep the daemon waiting. A script, whose interpreter has to read it, runs as it is.
pub(super) fn start_guarded(
    program: &Path,
    variables: impl Iterator<Item = (&'static str, OsString)>,
) -> io::Result<(Child, UnixStream)> {
    let bytes = std::fs::read(program)?;
    if bytes.starts_with(b"#!") {
        return start(program, &[], variables);
    }
    match sealed::copy(&bytes, Reader::Kernel) {
        Ok(copy) => start(Path::new(&format!("/proc/self/fd/{}", copy.as_raw_fd())), &[], variables),
        Err(error) if error.kind() == io::ErrorKind::Unsupported => start(program, &[], variables),
        Err(error) => Err(error),
    }
}
