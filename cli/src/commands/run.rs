//! `with-secrets` and `keyloan run`: asks, receives, and becomes the command.

use crate::args::Run;
use crate::client::{self, Connection};
use crate::commands::trust::unreadable;
use crate::environment;
use crate::exit::Failure;
use crate::files;
use crate::mask;
use crate::output;
use keyloan_platform::exec;
use keyloan_platform::lent_files::{LoanName, VARIABLE};
use keyloan_platform::process;
use keyloan_platform::search::{FILE, Search};
use keyloan_protocol::control::request::{Lend, Request};
use keyloan_protocol::control::response::{LentFile, Plan, Reply};
use keyloan_protocol::control::{Message, Value};
use keyloan_protocol::env_vars;
use keyloan_protocol::secret::SecretBytes;
use std::ffi::{CString, OsString};
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// keyloan failed before the command was run; the command's own statuses are below 125 (POSIX env).
const FAILED: u8 = 125;

const ACT: &str = "lend credentials";

pub(crate) fn run(run: &Run) -> ExitCode {
    let done = if run.dry_run { dry_run(run).map(|()| ExitCode::SUCCESS) } else { lend(run) };
    done.unwrap_or_else(|failure| failure.report())
}

/// Without `--mask` returns only when the command did not run. The daemon is called first and waited for last: between the two
/// it wakes and works while this side looks for the command and puts its environment together.
fn lend(run: &Run) -> Result<ExitCode, Failure> {
    let failed = |failure: Failure| failure.with_status(FAILED);
    let connection = Connection::existing(ACT).map_err(failed)?;
    let command = run.command.first().map(OsString::as_os_str).unwrap_or_default();
    // A command that cannot run is not worth a question.
    let program =
        exec::find(command, &environment::path()).map_err(|error| Failure::not_run(command, &error))?;
    let mut connection = match connection {
        Some(connection) => connection,
        None => Connection::open(ACT).map_err(failed)?,
    };
    request(run, Some(&program), &mut connection).map_err(failed)?;
    let arguments = run.command.iter().map(|argument| c_string(argument.as_bytes().to_vec()));
    let arguments = arguments.collect::<Result<Vec<_>, _>>().map_err(failed)?;
    let mut environment = kept(run.clean_env).map_err(failed)?;
    let mut reply = connection.reply().map_err(failed)?;
    let values = std::mem::take(&mut reply.values);
    if run.mask {
        // The daemon has looked at this process by now. It will hold values, and not for a moment only.
        process::make_undumpable().map_err(|error| failed(Failure::usage("protect this process", error)))?;
    }
    let Reply::Lent { loan, notes, files, literals } = reply.body else {
        return Err(failed(client::unexpected(ACT)));
    };
    for note in &notes {
        output::note(note);
    }
    let lent = Lent { loan, files: &files, values: &values, stays: run.mask };
    add(&mut environment, &lent).map_err(failed)?;
    let command = mask::Command { program, arguments, environment };
    if run.mask {
        drop(connection);
        return mask::run(command, values, &literals);
    }
    // The values now stand in the environment to be; exec replaces all of this memory.
    Err(command.become_program())
}

fn request(run: &Run, program: Option<&Path>, connection: &mut Connection) -> Result<(), Failure> {
    let here = here(ACT)?;
    let search = searched(ACT, &here)?;
    let lend = Lend {
        sets: run.sets.clone(),
        only: run.only.clone(),
        manifest_at: search.file.as_ref().map(|found| found.at),
        dry_run: run.dry_run,
        clean_env: run.clean_env,
        seconds: run.time.map(|time| time.duration().as_secs()),
    };
    let mut message = with_directories(Message::new(Request::Lend(lend)), &search);
    if let Some(program) = program {
        let program = absolute(&here, program);
        message = message.with("program", SecretBytes::copy_of(program.as_os_str().as_bytes()));
    }
    let mut argv = Vec::new();
    for argument in &run.command {
        argv.extend_from_slice(argument.as_bytes());
        argv.push(0);
    }
    message = message.with("argv", SecretBytes::new(argv));
    match &search.file {
        Some(found) => connection.send(&message, &[found.descriptor.as_fd()]),
        None => connection.send(&message, &[]),
    }
}

pub(super) fn here(act: &str) -> Result<PathBuf, Failure> {
    std::env::current_dir().map_err(|error| Failure::usage(act, format!("the current directory: {error}")))
}

pub(super) fn searched(act: &str, here: &Path) -> Result<Search, Failure> {
    Search::upwards(here).map_err(|error| unreadable(act, &here.join(FILE), &error))
}

pub(super) fn with_directories(mut message: Message<Request>, search: &Search) -> Message<Request> {
    for directory in &search.directories {
        message = message.with("directory", SecretBytes::copy_of(directory.as_os_str().as_bytes()));
    }
    message
}

/// Without `./` in the middle, so that the question shows where the program really lies.
fn absolute(here: &Path, program: &Path) -> PathBuf {
    here.join(program).components().collect()
}

/// What the command keeps of this environment: all of it, but for what `--clean-env` drops.
fn kept(clean: bool) -> Result<Vec<CString>, Failure> {
    environment::all()
        .filter(|(name, _)| {
            // What a shell that was lent to hands on is never warned of, and nothing for the command.
            let is_of_a_shell = |name: &str| name.starts_with("KEYLOAN_") && name != "KEYLOAN_LOAN";
            let drops =
                |name: &str| env_vars::steers(name) && (!env_vars::is_everyday(name) || is_of_a_shell(name));
            !(clean && name.to_str().is_some_and(drops))
        })
        .map(|(name, value)| entry(name.as_bytes(), value.as_bytes()))
        .collect()
}

/// What the daemon gave for one command.
struct Lent<'a> {
    loan: u64,
    files: &'a [LentFile],
    values: &'a [Value],
    /// This process does not become the command.
    stays: bool,
}

/// Puts what was lent in the place of variables of the same name, and the loan's name with it.
fn add(environment: &mut Vec<CString>, lent: &Lent<'_>) -> Result<(), Failure> {
    let name = LoanName::own(lent.loan).map_err(|error| Failure::usage(ACT, error))?;
    // A value whose name holds a slash is a file's content.
    for value in lent.values.iter().filter(|value| !value.name.contains('/')) {
        put(environment, value.name.as_bytes(), value.bytes.expose())?;
    }
    if !lent.files.is_empty() {
        for (variable, path) in files::make(&name, lent.files, lent.values, lent.stays)? {
            put(environment, variable.as_bytes(), path.as_bytes())?;
        }
    }
    let outer = take(environment, VARIABLE.as_bytes()).filter(|outer| outer.len() < 1024);
    let names = match outer {
        Some(outer) => [&outer, ":", &name.to_string()].concat(),
        None => name.to_string(),
    };
    put(environment, VARIABLE.as_bytes(), names.as_bytes())
}

fn put(environment: &mut Vec<CString>, name: &[u8], value: &[u8]) -> Result<(), Failure> {
    take(environment, name);
    environment.push(entry(name, value)?);
    Ok(())
}

/// Takes a variable out; its value, where that is text.
fn take(environment: &mut Vec<CString>, name: &[u8]) -> Option<String> {
    let is = |entry: &CString| entry.as_bytes().strip_prefix(name).is_some_and(|rest| rest.starts_with(b"="));
    let taken = environment.iter().find(|entry| is(entry)).and_then(|entry| entry.to_str().ok());
    let taken = taken.map(|entry| entry[name.len() + 1..].to_owned());
    environment.retain(|entry| !is(entry));
    taken
}

fn entry(name: &[u8], value: &[u8]) -> Result<CString, Failure> {
    let mut entry = Vec::with_capacity(name.len() + value.len() + 2);
    entry.extend_from_slice(name);
    entry.push(b'=');
    entry.extend_from_slice(value);
    c_string(entry)
}

fn c_string(bytes: Vec<u8>) -> Result<CString, Failure> {
    // The error would hold the bytes; only its place is told.
    CString::new(bytes).map_err(|error| {
        Failure::usage(ACT, format!("a NUL at byte {} of an argument or value", error.nul_position()))
    })
}

fn dry_run(run: &Run) -> Result<(), Failure> {
    let program = match run.command.first() {
        Some(command) => exec::find(command, &environment::path()).ok(),
        None => None,
    };
    let mut connection = Connection::open(ACT)?;
    request(run, program.as_deref(), &mut connection)?;
    let Reply::Plan(plan) = connection.reply()?.body else { return Err(client::unexpected(ACT)) };
    let steering = steering();
    if run.json {
        #[derive(serde::Serialize)]
        struct Shown<'a> {
            #[serde(flatten)]
            plan: &'a Plan,
            program: Option<String>,
            steering: &'a [String],
        }
        let program = program.map(|program| program.display().to_string());
        return output::json(&Shown { plan: &plan, program, steering: &steering });
    }
    for variable in &plan.variables {
        output::line(&format!("{}  from {}, asked for by {}", variable.name, variable.from, variable.set))?;
    }
    for note in &plan.notes {
        output::line(&format!("note: {note}"))?;
    }
    match (&program, run.command.first()) {
        (Some(program), _) => output::line(&format!("to: {}", program.display()))?,
        (None, Some(command)) => output::line(&format!("to: {} (not found)", command.display()))?,
        (None, None) => {}
    }
    if !steering.is_empty() {
        let fate = if run.clean_env { "dropped by --clean-env" } else { "--clean-env drops them" };
        output::line(&format!("steering the command: {} ({fate})", steering.join(", ")))?;
    }
    output::line(&format!("decision: {} ({})", plan.decision, plan.decided_by))
}

/// Variables of this environment that would redirect the command.
fn steering() -> Vec<String> {
    let mut names: Vec<String> = environment::all()
        .filter_map(|(name, _)| String::from_utf8(name.into_vec()).ok())
        .filter(|name| env_vars::steers(name) && !env_vars::is_everyday(name))
        .collect();
    names.sort_unstable();
    names
}
