//! `keyloan shell SHELL`, and what its functions call.
//!
//! Values go to the shell through a pipe, each name and each value ended by a NUL, which neither can hold; the shell
//! assigns them as they are and evaluates nothing. The first record is the exit status, since a shell cannot ask what
//! became of a process that it reads from; the last is `=`, so that a half of what was lent is known for one.

use crate::args::{ShellLend, ShellName};
use crate::client::{self, Connection};
use crate::commands::run::{here, searched, with_directories};
use crate::exit::Failure;
use crate::files;
use crate::output;
use clap::ValueEnum;
use keyloan_platform::lent_files::LoanName;
use keyloan_platform::process;
use keyloan_protocol::control::Value;
use keyloan_protocol::control::request::{Lend, Request};
use keyloan_protocol::control::response::{Reply, ShellLent};
use keyloan_protocol::control::{Message, error_kind::ErrorKind};
use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::process::ExitCode;
use zeroize::Zeroizing;

const ACT: &str = "lend credentials to this shell";

/// The last record. No variable has this name.
const END: &[u8] = b"=";

/// The shell of `keyloan shell SHELL`, where the arguments are this and nothing else.
pub(crate) fn named(mut arguments: impl Iterator<Item = OsString>) -> Option<ShellName> {
    if arguments.next()? != "shell" {
        return None;
    }
    let shell = ShellName::from_str(arguments.next()?.to_str()?, false).ok()?;
    arguments.next().is_none().then_some(shell)
}

pub(crate) fn shell(shell: ShellName) -> Result<(), Failure> {
    output::bytes(match shell {
        ShellName::Bash => include_bytes!("../../../shell/hooks/keyloan.bash"),
        ShellName::Zsh => include_bytes!("../../../shell/hooks/keyloan.zsh"),
        ShellName::Fish => include_bytes!("../../../shell/hooks/keyloan.fish"),
    })?;
    completions(shell)
}

/// The completions alone; the rest of the integration brings them as well.
pub(crate) fn completions(shell: ShellName) -> Result<(), Failure> {
    output::bytes(match shell {
        ShellName::Bash => include_bytes!("../../../shell/completions/keyloan.bash"),
        ShellName::Zsh => include_bytes!("../../../shell/completions/keyloan.zsh"),
        ShellName::Fish => include_bytes!("../../../shell/completions/keyloan.fish"),
    })
}

/// Help and errors go to standard error: standard output is read by the shell.
pub(crate) fn usage(error: &clap::Error) -> ExitCode {
    let _ = std::io::stderr().write_all(error.render().to_string().as_bytes());
    let status = if error.use_stderr() { 2 } else { 0 };
    let _ = say_status(status);
    ExitCode::from(status)
}

pub(crate) fn lend(ask: &ShellLend) -> ExitCode {
    let failed = match pipe().and_then(|mut pipe| lend_through(ask, &mut pipe)) {
        Ok(()) => return ExitCode::SUCCESS,
        Err(failure) => failure,
    };
    let _ = say_status(failed.status());
    failed.report()
}

fn say_status(status: u8) -> Result<(), Failure> {
    pipe()?.write_all(format!("{status}\0").as_bytes()).map_err(|error| Failure::usage(ACT, error))
}

/// Standard output, which a shell reads. A file would keep the values, a terminal show them.
fn pipe() -> Result<File, Failure> {
    let out = std::io::stdout().as_fd().try_clone_to_owned().map(File::from);
    match out.and_then(|out| Ok((out.metadata()?.file_type().is_fifo(), out))) {
        Ok((true, out)) => Ok(out),
        Ok((false, _)) => Err(Failure::usage(ACT, "standard output is no pipe")
            .hint("the shell's function does this: opvars, after eval \"$(keyloan shell bash)\"")),
        Err(error) => Err(Failure::usage(ACT, error)),
    }
}

fn lend_through(ask: &ShellLend, pipe: &mut File) -> Result<(), Failure> {
    let search = searched(ACT, &here(ACT)?)?;
    let lend = Lend {
        sets: ask.sets.clone(),
        only: ask.only.clone(),
        manifest_at: search.file.as_ref().map(|found| found.at),
        dry_run: false,
        clean_env: false,
        seconds: ask.time.map(|time| time.duration().as_secs()),
    };
    let message = with_directories(Message::new(Request::LendShell(lend)), &search);
    let mut connection = Connection::open(ACT)?;
    match &search.file {
        Some(found) => connection.send(&message, &[found.descriptor.as_fd()])?,
        None => connection.send(&message, &[])?,
    }
    let Message { body, values } = connection.reply()?;
    let Reply::ShellLent(lent) = body else { return Err(client::unexpected(ACT)) };
    // A loan that its shell does not take is ended by the daemon.
    hand_over(&lent, &values, pipe)
}

fn hand_over(lent: &ShellLent, values: &[Value], pipe: &mut File) -> Result<(), Failure> {
    // The daemon has looked at this process by now.
    process::make_undumpable().map_err(|error| Failure::usage("protect this process", error))?;
    for note in &lent.notes {
        output::note(note);
    }
    let name = LoanName::new(lent.loan, lent.pid, lent.started);
    let mut files = Vec::new();
    if !lent.files.is_empty() {
        files = files::make(&name, &lent.files, values, true)?;
    }
    let records = records(lent, &name, values, &files);
    pipe.write_all(&records).map_err(|error| Failure::new(ErrorKind::Bug, ACT, error))
}

/// Made at full size once: growing would leave copies.
fn records(
    lent: &ShellLent,
    name: &LoanName,
    values: &[Value],
    files: &[(String, OsString)],
) -> Zeroizing<Vec<u8>> {
    // The marker of a daemon that was killed stays, so the shell looks for the daemon, too, where it can be seen.
    let is_it = process::stat(lent.daemon).is_some_and(|stat| stat.started == lent.daemon_started);
    let daemon = is_it.then(|| format!("/proc/{}", lent.daemon));
    let (name, until) = (name.to_string(), lent.until_leaving.as_deref().unwrap_or_default());
    let head: [&[u8]; 5] = [
        b"0",
        lent.marker.as_bytes(),
        daemon.as_ref().unwrap_or(&lent.marker).as_bytes(),
        name.as_bytes(),
        until.as_bytes(),
    ];
    // A value whose name holds a slash is a file's content.
    let variables = values.iter().filter(|value| !value.name.contains('/'));
    let variables = variables.flat_map(|value| [value.name.as_bytes(), value.bytes.expose()]);
    let files = files.iter().flat_map(|(name, path)| [name.as_bytes(), path.as_bytes()]);
    let all: Vec<&[u8]> = head.into_iter().chain(variables).chain(files).chain([END]).collect();
    let mut records = Zeroizing::new(Vec::with_capacity(all.iter().map(|record| record.len() + 1).sum()));
    for record in all {
        records.extend_from_slice(record);
        records.push(0);
    }
    records
}
