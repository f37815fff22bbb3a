//! `--mask`: hides what was lent in what the command prints. Against accidents: a value in a log, a stack trace,
//! a shared screen. A command that means to show it finds a way.
//!
//! This process, the relay, holds the loan and sees everything the command prints. Where that goes to a
//! terminal the command lives on a pseudo terminal in a session of its own, whose leader is a third process, the
//! monitor: only so can it be stopped, continued and hung up on as on the terminal itself. Otherwise it is a
//! child in the relay's process group.

mod command;
mod console;
mod filter;
mod monitor;
mod patterns;
mod relay;
mod stream;

pub(crate) use command::Command;

use crate::exit::Failure;
use crate::output;
use command::Standard;
use console::Console;
use keyloan_platform::descriptors;
use keyloan_platform::pty::{self, Pty};
use keyloan_platform::signals::{
    self, Blocked, Change, SIGCHLD, SIGCONT, SIGINT, SIGQUIT, SIGTSTP, SIGWINCH, Signals,
};
use keyloan_protocol::control::Value;
use keyloan_protocol::control::error_kind::ErrorKind;
use keyloan_protocol::names::VarName;
use nix::errno::Errno;
use nix::sys::stat::{SFlag, fstat};
use patterns::{Patterns, SHORTEST};
use relay::{Held, Keys, Relay, Session};
use std::io::{self, Stderr, Stdin, Stdout};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::rc::Rc;
use stream::{Stream, is_kind};

/// keyloan failed, not the command.
const FAILED: u8 = 125;

/// Runs the command to its end, and ends as it did.
pub(crate) fn run(command: Command, values: Vec<Value>, literals: &[VarName]) -> Result<ExitCode, Failure> {
    let (patterns, too_short) = Patterns::of(&values, literals);
    if !too_short.is_empty() {
        let names = too_short.join(", ");
        output::note(&format!("too short to be hidden, with less than {SHORTEST} bytes: {names}"));
    }
    drop(values);
    if patterns.is_empty() {
        return Err(command.become_program());
    }
    let failed = |error: io::Error| {
        Failure::new(ErrorKind::Bug, "hide what was lent in what the command prints", error)
            .with_status(FAILED)
    };
    let mut relay = start(command, Rc::new(patterns)).map_err(failed)?;
    let end = relay.run();
    let mut lost = false;
    for error in relay.failures().filter(|error| *error != Errno::EPIPE && *error != Errno::EIO) {
        lost = true;
        output::note(&format!("cannot write what the command printed: {}", io::Error::from(error)));
    }
    // Ctrl-C reaches all of a job, a script that started us too.
    let with_group = relay.was_interrupted_by_key();
    // Puts the terminal and the dispositions back, and wipes.
    drop(relay);
    match end {
        // The command could not know: it wrote to us.
        Some(Change::Exited(0)) if lost => Ok(ExitCode::from(FAILED)),
        Some(Change::Exited(status)) => Ok(ExitCode::from(status)),
        Some(Change::Killed(signal) | Change::Stopped(signal)) => {
            signals::die_by(signal, with_group && matches!(signal, SIGINT | SIGQUIT));
            Ok(ExitCode::from(u8::try_from(128 + signal).unwrap_or(FAILED)))
        }
        None => Err(failed(io::Error::other("the process that watches the command was ended"))),
    }
}

/// The three standard streams as they were inherited.
struct Inherited {
    input: Stdin,
    output: Stdout,
    errors: Stderr,
}

fn start(command: Command, patterns: Rc<Patterns>) -> io::Result<Relay> {
    let inherited = Inherited { input: io::stdin(), output: io::stdout(), errors: io::stderr() };
    let shown = Console::is(inherited.output.as_fd()) || Console::is(inherited.errors.as_fd());
    let console = if shown { Console::find() } else { None };
    match console {
        Some(console) => on_terminal(command, patterns, &inherited, console),
        None => as_child(command, &patterns, &inherited),
    }
}

/// Without a handler these would stop the relay and not the command, or be lost.
const OF_JOBS: [i32; 4] = [SIGCHLD, SIGCONT, SIGTSTP, SIGWINCH];

fn as_child(command: Command, patterns: &Rc<Patterns>, inherited: &Inherited) -> io::Result<Relay> {
    let (standard, streams) = piped(inherited, patterns, |_| None)?;
    let blocked = signals::block_all()?;
    let signals = Signals::catch(&signals::for_others(&OF_JOBS))?;
    let Some(child) = pty::fork()? else {
        signals.restore();
        command.run(&standard, blocked);
    };
    attend(command, standard, blocked)?;
    Ok(Relay { signals, streams, held: Held::Child(child) })
}

fn on_terminal(
    command: Command,
    patterns: Rc<Patterns>,
    inherited: &Inherited,
    console: Console,
) -> io::Result<Relay> {
    let Pty { master, slave } = Pty::open(&console.settings()?, console.descriptor())?;
    let end = |stream: BorrowedFd<'_>| Console::is(stream).then(|| slave.try_clone());
    let (mut standard, mut streams) = piped(inherited, &patterns, end)?;
    standard.input = end(inherited.input.as_fd()).transpose()?;
    let screen = console.descriptor().try_clone_to_owned()?;
    streams.push(Stream::new(master.try_clone()?, screen, &patterns).lasting());
    // In a pipeline, or with a shell that goes on beside it, others may read the terminal as well: then it is
    // taken only when the command asks for it.
    let pipe = |stream: BorrowedFd<'_>| is_kind(stream, SFlag::S_IFIFO) || is_kind(stream, SFlag::S_IFSOCK);
    let shared = standard.input.is_none() || pipe(inherited.output.as_fd()) || pipe(inherited.errors.as_fd());
    let (orders, relay) = UnixStream::pair()?;
    let settled = console.in_foreground();
    let foreground = !shared && settled;
    let blocked = signals::block_all()?;
    let signals = Signals::catch(&signals::for_others(&OF_JOBS))?;
    if pty::fork()?.is_none() {
        // Whoever holds one of these keeps the other side from noticing that the relay is gone; and the patterns are
        // the values, which a monitor has no use for.
        drop((master, streams, orders, patterns));
        signals.restore();
        monitor::run(command, standard, slave, relay, (foreground, blocked));
    }
    drop((slave, relay));
    attend(command, standard, blocked)?;
    let mut session = Session {
        console,
        master,
        orders,
        keys: Keys::new(),
        wanted: !shared,
        shared,
        settled,
        by_key: false,
    };
    if foreground {
        session.console.take(shared);
    }
    Ok(Relay { signals, streams, held: Held::Session(Box::new(session)) })
}

/// A pipe in the place of each stream that does not lead to the terminal.
fn piped(
    inherited: &Inherited,
    patterns: &Rc<Patterns>,
    terminal: impl Fn(BorrowedFd<'_>) -> Option<io::Result<OwnedFd>>,
) -> io::Result<(Standard, Vec<Stream>)> {
    let mut streams = Vec::new();
    let mut end = |stream: BorrowedFd<'_>| {
        if let Some(slave) = terminal(stream) {
            return slave;
        }
        let (reader, writer) = io::pipe()?;
        streams.push(Stream::new(reader.into(), stream.try_clone_to_owned()?, patterns));
        Ok(writer.into())
    };
    let output = end(inherited.output.as_fd())?;
    // `2>&1` keeps the order of what is printed, so one pipe serves both.
    let file = |stream: BorrowedFd<'_>| fstat(stream).map(|found| (found.st_dev, found.st_ino));
    let same = file(inherited.output.as_fd()).is_ok_and(|one| file(inherited.errors.as_fd()) == Ok(one));
    let errors = if same { output.try_clone()? } else { end(inherited.errors.as_fd())? };
    Ok((Standard { input: None, output: Some(output), errors: Some(errors) }, streams))
}

/// The parent's side of a fork: nothing is kept that is the command's.
fn attend(command: Command, standard: Standard, blocked: Blocked) -> io::Result<()> {
    command.wipe();
    drop((standard, blocked));
    descriptors::close_inheritable()?;
    signals::unblock_all()
}
