//! The approver program: set with the passphrase, pinned by its hash. What runs is a sealed copy of the
//! bytes that were hashed, with nothing of the user's environment; only a clear yes is a yes.

use super::Covers;
use super::child::{self, Group};
use super::offer::Offer;
use super::question::Question;
use crate::patience;
use crate::policy::rule::ApproverProgram;
use data_encoding::HEXLOWER;
use keyloan_platform::sealed::{self, Reader};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::ffi::OsString;
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::process::Child;

/// The longest program; a static binary is some megabytes.
const MOST: u64 = 64 * 1024 * 1024;
const O_NONBLOCK: nix::fcntl::OFlag = nix::fcntl::OFlag::O_NONBLOCK;
/// The longest answer.
const ANSWER: u64 = 64 * 1024;

#[derive(Debug, thiserror::Error)]
pub(crate) enum ProgramError {
    #[error("{0}")]
    Read(io::Error),
    #[error("it is longer than {} MiB", MOST / 1024 / 1024)]
    TooLong,
    #[error("it was changed after it was set")]
    Changed,
    #[error("it is a script whose interpreter {} is not root's alone to change", .0.display())]
    Interpreter(PathBuf),
    #[error("it cannot be started: {0}")]
    Start(io::Error),
    #[error("it ended without success")]
    Crashed,
    #[error("its answer is not {{\"decision\":\"allow\"}} or {{\"decision\":\"deny\"}}")]
    Garbage,
    #[error("what it printed is longer than a PIN")]
    Long,
}

#[derive(Serialize)]
struct Request<'a> {
    version: u32,
    #[serde(flatten)]
    question: &'a Question,
    /// What a yes can cover; policy offers no more.
    scopes: Vec<String>,
    deadline_seconds: u64,
}

#[derive(Deserialize)]
struct Answer {
    decision: Decision,
    #[serde(default)]
    scope: Option<String>,
}

#[derive(Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum Decision {
    Allow,
    Deny,
}

/// Reads a program and takes its hash, as `policy set approver.command` pins it.
pub(crate) async fn pin(path: PathBuf) -> Result<ApproverProgram, ProgramError> {
    let Loaded { sha256, .. } = load(path.clone()).await?;
    Ok(ApproverProgram { path, sha256 })
}

struct Loaded {
    bytes: Vec<u8>,
    sha256: String,
    interpreter: Option<Interpreter>,
}

/// Reads a program, which may lie on a mount that does not answer, and so may its interpreter.
async fn load(path: PathBuf) -> Result<Loaded, ProgramError> {
    let loaded = patience::look(move || {
        let bytes = read(&path)?;
        let sha256 = HEXLOWER.encode(&Sha256::digest(&bytes));
        Ok(Loaded { interpreter: interpreter(&bytes)?, bytes, sha256 })
    });
    loaded.await.unwrap_or_else(|| Err(ProgramError::Read(io::ErrorKind::TimedOut.into())))
}

/// Asks the program; for a yes, what that covers, of what was offered. It and all its children end when this does,
/// however it ends.
pub(crate) async fn ask(
    program: &ApproverProgram,
    question: &Question,
    deadline: Duration,
) -> Result<Option<Covers>, ProgramError> {
    let (mut child, mut channel) = started(program, &[], std::iter::empty()).await?;
    let _group = Group(child.id());
    let scopes = std::iter::once("once".to_owned()).chain(question.offers.iter().map(Offer::key)).collect();
    let request = Request { version: 1, question, scopes, deadline_seconds: deadline.as_secs() };
    let request = serde_json::to_vec(&request).map_err(|_| ProgramError::Garbage)?;
    // A program may answer without having read; that is no failure.
    let _ = channel.write_all(&request).await;
    let _ = channel.shutdown().await;
    let mut answer = Vec::new();
    match channel.take(ANSWER).read_to_end(&mut answer).await {
        // What ends the answer of a program that left the question unread, unix(7).
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
        read => drop(read.map_err(|_| ProgramError::Garbage)?),
    }
    if !child.wait().await.is_ok_and(|status| status.success()) {
        return Err(ProgramError::Crashed);
    }
    let answer: Answer = serde_json::from_slice(&answer).map_err(|_| ProgramError::Garbage)?;
    // A scope that was not offered is none, and the yes is for the request alone.
    let offer = question.offers.iter().find(|offer| answer.scope.as_deref() == Some(&offer.key()));
    let covers = offer.map_or(Covers::Once, |offer| Covers::Also(offer.clone()));
    Ok((answer.decision == Decision::Allow).then_some(covers))
}

/// Starts a sealed copy of the program that was pinned, with our end of its standard input and output.
pub(super) async fn started(
    program: &ApproverProgram,
    arguments: &[OsString],
    variables: impl Iterator<Item = (&'static str, OsString)>,
) -> Result<(Child, UnixStream), ProgramError> {
    let Loaded { bytes, sha256, interpreter } = load(program.path.clone()).await?;
    if sha256 != program.sha256 {
        return Err(ProgramError::Changed);
    }
    let reader = if interpreter.is_some() { Reader::Interpreter } else { Reader::Kernel };
    let copy = sealed::copy(&bytes, reader).map_err(ProgramError::Start)?;
    let path = format!("/proc/self/fd/{}", copy.as_raw_fd());
    let started = match interpreter {
        Some(Interpreter { program, argument }) => {
            let first = argument.into_iter().chain([path]).map(OsString::from);
            let arguments: Vec<OsString> = first.chain(arguments.iter().cloned()).collect();
            child::start(&program, &arguments, variables)
        }
        None => child::start(Path::new(&path), arguments, variables),
    };
    started.map_err(ProgramError::Start)
}

fn read(path: &Path) -> Result<Vec<u8>, ProgramError> {
    // A pipe in the program's place would keep the daemon waiting for its other end.
    let file = std::fs::OpenOptions::new().read(true).custom_flags(O_NONBLOCK.bits()).open(path);
    let file = file.map_err(ProgramError::Read)?;
    let found = file.metadata().map_err(ProgramError::Read)?;
    if !found.is_file() {
        return Err(ProgramError::Read(io::Error::other("not a regular file")));
    }
    let mut bytes = Vec::new();
    file.take(MOST + 1).read_to_end(&mut bytes).map_err(ProgramError::Read)?;
    if bytes.len() as u64 > MOST { Err(ProgramError::TooLong) } else { Ok(bytes) }
}

#[derive(Debug, PartialEq, Eq)]
struct Interpreter {
    program: PathBuf,
    argument: Option<String>,
}

/// The interpreter of a script, `None` for a binary. It must be root's.
fn interpreter(bytes: &[u8]) -> Result<Option<Interpreter>, ProgramError> {
    let Some(rest) = bytes.strip_prefix(b"#!") else { return Ok(None) };
    let line = rest.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let mut words = line.trim().splitn(2, [' ', '\t']);
    let program = PathBuf::from(words.next().unwrap_or_default());
    let argument = words.next().map(|argument| argument.trim().to_owned());
    if !child::is_roots(&program) {
        return Err(ProgramError::Interpreter(program));
    }
    Ok(Some(Interpreter { program, argument }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_needs_an_interpreter_of_roots() {
        let shell = interpreter(b"#!/bin/sh -e\nexit 0\n").unwrap().unwrap();
        assert_eq!(shell.argument.as_deref(), Some("-e"));
        assert!(shell.program.is_absolute());
        assert!(matches!(interpreter(b"#!/tmp/sh\n"), Err(ProgramError::Interpreter(_))));
        assert!(matches!(interpreter(b"#!sh\n"), Err(ProgramError::Interpreter(_))));
        assert_eq!(interpreter(b"\x7fELF").unwrap(), None);
    }
}
