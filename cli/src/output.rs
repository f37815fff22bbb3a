//! What goes to standard output. A closed pipe ends the command, as it does every other.

use crate::exit::Failure;
use keyloan_protocol::control::error_kind::ErrorKind;
use serde::Serialize;
use std::io::{self, IsTerminal, Write};

/// Writes bytes exactly.
pub(crate) fn bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new(ErrorKind::NotFound, "write to standard output", error))
        }
        _ => Ok(()),
    }
}

pub(crate) fn line(line: &str) -> Result<(), Failure> {
    bytes(format!("{line}\n").as_bytes())
}

pub(crate) fn json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| Failure::new(ErrorKind::Bug, "print JSON", error))?;
    line(&text)
}

pub(crate) fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// What is going on, for a person who watches: said on a terminal only.
pub(crate) fn progress(text: &str) {
    if io::stderr().is_terminal() {
        note(text);
    }
}

/// A remark for the person, on standard error: standard output belongs to results.
pub(crate) fn note(text: &str) {
    let _ = io::stderr().write_all(format!("keyloan: {text}\n").as_bytes());
}
