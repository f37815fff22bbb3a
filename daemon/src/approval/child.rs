//! Children that answer for a human: which files may be run, how they are heard, and their end. A child and
//! all it started end with its question.

use keyloan_platform::sealed::{self, Reader};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
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

/// A file that only root can change, and so can everything on both ways to it: whoever can change one
/// answers in its name.
pub(crate) fn is_roots(program: &Path) -> bool {
    let Ok(real) = std::fs::canonicalize(program) else { return false };
    let roots = |path: &Path| {
        std::fs::metadata(path).is_ok_and(|found| found.uid() == 0 && found.mode() & 0o022 == 0)
    };
    // Both ways: the links' directories, and the file's own.
    program.is_absolute() && real.is_file() && real.ancestors().chain(program.ancestors()).all(roots)
}

/// A child's process group, ended when this is dropped.
pub(super) struct Group(pub(super) Option<u32>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(pid) = self.0.and_then(|pid| i32::try_from(pid).ok()) {
            let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_on_a_way_that_others_can_write_to_is_nobodys() {
        assert!(is_roots(Path::new("/bin/sh")));
        for bad in ["/tmp/sh", "bin/sh", "/usr/bin/../../tmp", "/bin", "/nowhere"] {
            assert!(!is_roots(Path::new(bad)), "{bad}");
        }
        let link = std::env::temp_dir().join(format!("keyloan-link-{}", std::process::id()));
        let _ = std::fs::remove_file(&link);
        std::os::unix::fs::symlink("/bin/sh", &link).unwrap();
        assert!(!is_roots(&link), "a link to root's file where others write is theirs to turn");
        std::fs::remove_file(&link).unwrap();
    }
}
