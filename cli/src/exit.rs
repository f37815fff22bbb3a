//! How a command ends that could not do what was asked.

use crate::environment;
use keyloan_platform::exec::ExecError;
use keyloan_protocol::control::error_kind::ErrorKind;
use keyloan_protocol::control::response::ErrorReply;
use keyloan_protocol::names::{escaped, quoted};
use std::ffi::OsStr;
use std::fmt::{Display, Write as _};
use std::io::Write;
use std::process::ExitCode;

/// `keyloan: cannot ACT: CAUSE`, what else is wrong, and a hint.
#[derive(Debug)]
pub(crate) struct Failure {
    act: String,
    cause: String,
    details: Vec<String>,
    hint: Option<String>,
    status: u8,
}

impl Failure {
    pub(crate) fn new(kind: ErrorKind, act: &str, cause: impl Display) -> Self {
        Self {
            act: act.to_owned(),
            cause: cause.to_string(),
            details: Vec::new(),
            hint: None,
            status: kind.exit_status(),
        }
    }

    pub(crate) fn usage(act: &str, cause: impl Display) -> Self {
        Self::new(ErrorKind::Usage, act, cause)
    }

    /// Exit status 8: something was found.
    pub(crate) fn findings(act: &str, cause: &str, findings: Vec<String>) -> Self {
        Self { details: findings, status: 8, ..Self::new(ErrorKind::Vault, act, cause) }
    }

    /// A command that was not run; the statuses are those of POSIX (XCU 2.8.2).
    pub(crate) fn not_run(command: &OsStr, error: &ExecError) -> Self {
        let act = format!("run {}", command.display());
        let failure = Self::usage(&act, error).with_status(error.exit_status());
        if !matches!(error, ExecError::NotFound) || command.as_encoded_bytes().contains(&b'/') {
            return failure;
        }
        // Aliases and functions live in the shell alone; there is no program of that name to become.
        let (shell, option) = environment::known_shell().unwrap_or(("bash", "-ic"));
        let line = quoted(&escaped(&command.to_string_lossy(), 200));
        failure.hint(&format!(
            "if it is an alias or a function of your shell: with-secrets -- {shell} {option} {line}"
        ))
    }

    pub(crate) fn unreachable(cause: impl Display) -> Self {
        Self::new(ErrorKind::Protocol, "reach the daemon", cause)
    }

    pub(crate) fn refused(act: &str, error: ErrorReply) -> Self {
        Self {
            act: act.to_owned(),
            cause: error.cause,
            details: error.details,
            hint: error.hint,
            status: error.kind.exit_status(),
        }
    }

    #[must_use]
    pub(crate) fn hint(mut self, hint: &str) -> Self {
        self.hint = Some(hint.to_owned());
        self
    }

    #[must_use]
    pub(crate) fn with_status(mut self, status: u8) -> Self {
        self.status = status;
        self
    }

    pub(crate) fn cause(&self) -> &str {
        &self.cause
    }

    pub(crate) fn status(&self) -> u8 {
        self.status
    }

    /// Says it on standard error and gives the status.
    pub(crate) fn report(&self) -> ExitCode {
        let mut text = format!("keyloan: cannot {}: {}\n", self.act, self.cause);
        for detail in &self.details {
            let _ = writeln!(text, "  {detail}");
        }
        if let Some(hint) = &self.hint {
            let _ = writeln!(text, "hint: {hint}");
        }
        // Whoever closed standard error does not want to know.
        let _ = std::io::stderr().write_all(text.as_bytes());
        ExitCode::from(self.status)
    }
}
