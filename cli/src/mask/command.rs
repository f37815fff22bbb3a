//! The command, from a fork to its exec: it finds everything as if there were no keyloan, but for the ends of
//! pipes or the terminal in the place of what is filtered.

use crate::exit::Failure;
use keyloan_platform::exec;
use keyloan_platform::pty;
use keyloan_platform::signals::Blocked;
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout};
use std::ffi::{CString, OsStr};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use zeroize::Zeroize;

pub(crate) struct Command {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<CString>,
    /// Holds the values.
    pub(crate) environment: Vec<CString>,
}

/// What stands in the place of the standard streams; `None` where that is what was inherited.
#[derive(Default)]
pub(super) struct Standard {
    pub(super) input: Option<OwnedFd>,
    pub(super) output: Option<OwnedFd>,
    pub(super) errors: Option<OwnedFd>,
}

impl Command {
    /// In a forked child, with all signals blocked since before the fork and their dispositions put back.
    pub(super) fn run(&self, standard: &Standard, blocked: Blocked) -> ! {
        let placed = [
            standard.input.as_ref().map(dup2_stdin),
            standard.output.as_ref().map(dup2_stdout),
            standard.errors.as_ref().map(dup2_stderr),
        ];
        if placed.into_iter().flatten().any(|placed| placed.is_err()) {
            pty::end(super::FAILED);
        }
        drop(blocked);
        let failure = self.become_program();
        let _ = failure.report();
        pty::end(failure.status())
    }

    /// Returns only why it cannot be done.
    pub(crate) fn become_program(&self) -> Failure {
        let error = exec::become_program(&self.program, &self.arguments, &self.environment);
        let called = self.arguments.first().map(|called| OsStr::from_bytes(called.to_bytes()));
        Failure::not_run(called.unwrap_or_default(), &error)
    }

    /// In a process that only watches it.
    pub(super) fn wipe(self) {
        for entry in self.environment {
            entry.into_bytes_with_nul().zeroize();
        }
    }
}
