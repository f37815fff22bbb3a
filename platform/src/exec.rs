//! Becoming another program, exactly as it would have been without us.

use nix::errno::Errno;
use std::ffi::{CStr, CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Why a command could not be run; the exit status follows POSIX (XCU 2.8.2).
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    #[error("command not found")]
    NotFound,
    #[error("it is a directory")]
    Directory,
    #[error("{0}")]
    NotExecutable(std::io::Error),
}

impl ExecError {
    pub fn exit_status(&self) -> u8 {
        match self {
            Self::NotFound => 127,
            Self::Directory | Self::NotExecutable(_) => 126,
        }
    }
}

/// Finds a command as execvp(3) does: a name with `/` is a path, others are searched in `path`.
pub fn find(command: &OsStr, path: &OsStr) -> Result<PathBuf, ExecError> {
    if command.is_empty() {
        return Err(ExecError::NotFound);
    }
    if command.as_bytes().contains(&b'/') {
        return usable(Path::new(command)).map(|()| command.into());
    }
    let mut refused = None;
    for directory in path.as_bytes().split(|byte| *byte == b':') {
        // An empty entry is the current directory, XBD 8.3.
        let directory = if directory.is_empty() { b"." } else { directory };
        let candidate = Path::new(OsStr::from_bytes(directory)).join(command);
        match usable(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(ExecError::NotFound) => {}
            Err(error) => refused = refused.or(Some(error)),
        }
    }
    Err(refused.unwrap_or(ExecError::NotFound))
}

fn usable(candidate: &Path) -> Result<(), ExecError> {
    let found = std::fs::metadata(candidate).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => ExecError::NotFound,
        _ => ExecError::NotExecutable(error),
    })?;
    if found.is_dir() {
        return Err(ExecError::Directory);
    }
    nix::unistd::access(candidate, nix::unistd::AccessFlags::X_OK)
        .map_err(|error| ExecError::NotExecutable(error.into()))
}

/// Replaces this process. Returns only the reason why it could not. A file that the kernel does not
/// know how to run goes to `/bin/sh`, as execvp(3) does.
pub fn become_program(program: &Path, arguments: &[CString], environment: &[CString]) -> ExecError {
    original::restore();
    let not_executable = |error: Errno| match error {
        Errno::ENOENT => ExecError::NotFound,
        error => ExecError::NotExecutable(error.into()),
    };
    let Ok(path) = CString::new(program.as_os_str().as_bytes()) else { return ExecError::NotFound };
    let Err(error) = nix::unistd::execve(&path, arguments, environment);
    if error != Errno::ENOEXEC {
        return not_executable(error);
    }
    let shell = c"/bin/sh";
    let mut script: Vec<&CStr> = vec![c"sh", &path];
    script.extend(arguments.iter().skip(1).map(CString::as_c_str));
    let Err(error) = nix::unistd::execve(shell, &script, environment);
    not_executable(error)
}

/// Rust's start-up code ignores SIGPIPE, and an ignored signal stays ignored across exec. What it was
/// before is remembered by a function that runs ahead of that code, and put back for the command.
#[cfg(target_os = "linux")]
mod original {
    #![expect(unsafe_code, reason = "start-up functions and signal dispositions have no safe interface")]

    use nix::libc;
    use std::sync::atomic::{AtomicBool, Ordering};

    static PIPE_WAS_IGNORED: AtomicBool = AtomicBool::new(false);

    // SAFETY: the section holds pointers to functions without arguments that are read; libc calls them once,
    // before main and before any other thread.
    #[unsafe(link_section = ".init_array")]
    #[used]
    static REMEMBER: extern "C" fn() = remember;

    extern "C" fn remember() {
        let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: reads the disposition into `action`, which is large enough; zeroes are a valid value.
        let ignored = unsafe {
            libc::sigaction(libc::SIGPIPE, std::ptr::null(), action.as_mut_ptr()) == 0
                && action.assume_init().sa_sigaction == libc::SIG_IGN
        };
        PIPE_WAS_IGNORED.store(ignored, Ordering::Relaxed);
    }

    pub(super) fn restore() {
        let action = if PIPE_WAS_IGNORED.load(Ordering::Relaxed) { libc::SIG_IGN } else { libc::SIG_DFL };
        // SAFETY: both are dispositions that run no code of ours.
        unsafe { libc::signal(libc::SIGPIPE, action) };
    }
}

#[cfg(not(target_os = "linux"))]
mod original {
    pub(super) fn restore() {
        use nix::sys::signal::{SigHandler, Signal};
        #[expect(unsafe_code, reason = "the default disposition runs no code of ours")]
        // SAFETY: as the reason says.
        let _ = unsafe { nix::sys::signal::signal(Signal::SIGPIPE, SigHandler::SigDfl) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_found_as_execvp_finds_them() {
        let path = OsStr::new("/nonexistent:/usr/bin:/bin");
        assert!(find(OsStr::new("sh"), path).unwrap().ends_with("bin/sh"));
        assert!(matches!(find(OsStr::new("no-such-command"), path), Err(ExecError::NotFound)));
        assert!(matches!(find(OsStr::new(""), path), Err(ExecError::NotFound)));
        assert!(matches!(find(OsStr::new("/"), path), Err(ExecError::Directory)));
        assert_eq!(find(OsStr::new("/etc/passwd"), path).unwrap_err().exit_status(), 126);
    }
}
