//! `keyloan ssh agent`: what scripts know of `ssh-agent`(1), its options and what it prints. Who serves is the
//! daemon; what runs under the pid that is printed only keeps the socket.

use super::keeper::{self, Kept, Wanted};
use super::shell::{self, Lines};
use crate::args::ssh::{Agent, Shell};
use crate::client::Connection;
use crate::environment;
use crate::exit::Failure;
use crate::mask::Command;
use crate::output;
use keyloan_platform::{exec, process};
use keyloan_protocol::control::error_kind::ErrorKind;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

pub(super) const ACT: &str = "stand in for ssh-agent";
const SOCKET: &str = "SSH_AUTH_SOCK";
const PID: &str = "SSH_AGENT_PID";

pub(crate) fn agent(agent: &Agent) -> Result<(), Failure> {
    let shell = if agent.csh || !agent.sh && shell::of_person(environment::shell().as_deref()) == Shell::Csh {
        Shell::Csh
    } else {
        Shell::Sh
    };
    if agent.kill {
        return end_agent(shell);
    }
    let command = agent.command.first().map(OsString::as_os_str);
    // What cannot be run needs no agent.
    let program = command.map(|command| {
        exec::find(command, &environment::path()).map_err(|error| Failure::not_run(command, &error))
    });
    let program = program.transpose()?;
    // Whatever is wrong with the daemon is told here, where a person reads it.
    Connection::open(ACT)?;
    let at = match &agent.at {
        Some(path) => {
            let here = std::env::current_dir().map_err(|error| Failure::usage(ACT, error))?;
            Some(here.join(path))
        }
        None => None,
    };
    let wanted = Wanted { at, lifetime: agent.lifetime.filter(|lifetime| *lifetime > 0) };
    if agent.foreground || agent.debug {
        return keeper::keep(&wanted, None, |kept| {
            let lines = Lines::new(ACT, shell).set(SOCKET, kept.path.as_os_str())?;
            output::bytes(&lines.echo(&format!("Agent pid {}", kept.pid)).bytes())
        });
    }
    let Some(program) = program else {
        let kept = keeper::start(&wanted, None)?;
        let lines = Lines::new(ACT, shell).set(SOCKET, kept.path.as_os_str())?;
        let pid = kept.pid.to_string();
        let lines = lines.set(PID, OsStr::new(&pid))?.echo(&format!("Agent pid {pid}"));
        return output::bytes(&lines.bytes());
    };
    let own = process::own_pidfd().map_err(|error| Failure::usage(ACT, error))?;
    let kept = keeper::start(&wanted, Some(own))?;
    let arguments = agent.command.iter().map(|argument| c_string(argument.as_bytes().to_vec()));
    let arguments = arguments.collect::<Result<Vec<_>, _>>()?;
    Err(Command { program, arguments, environment: with(&kept)? }.become_program())
}

/// The environment of a command that finds the agent.
fn with(kept: &Kept) -> Result<Vec<CString>, Failure> {
    let own = [(SOCKET, kept.path.clone().into_os_string()), (PID, kept.pid.to_string().into())];
    let others = environment::all().filter(|(name, _)| name != SOCKET && name != PID);
    let own = own.into_iter().map(|(name, value)| (OsString::from(name), value));
    let entry = |(name, value): (OsString, OsString)| {
        let mut entry = name.into_vec();
        entry.push(b'=');
        entry.extend_from_slice(value.as_bytes());
        c_string(entry)
    };
    others.chain(own).map(entry).collect()
}

fn c_string(bytes: Vec<u8>) -> Result<CString, Failure> {
    CString::new(bytes).map_err(|_| Failure::usage(ACT, "a NUL in an argument"))
}

/// Ends the keeper of one socket. Never the daemon, whose pid somebody may have put there.
fn end_agent(shell: Shell) -> Result<(), Failure> {
    let failed = |cause: &str| Failure::new(ErrorKind::NotFound, "end the agent", cause);
    let pid = environment::agent_pid().ok_or_else(|| failed("SSH_AGENT_PID is not set"))?;
    let number: Option<i32> = pid.to_str().and_then(|pid| pid.parse().ok()).filter(|pid| *pid > 1);
    let number = number.ok_or_else(|| failed("SSH_AGENT_PID is no process"))?;
    // Its command line; which program file it runs, the daemon lets nobody see.
    let command = process::command_line(number).unwrap_or_default();
    let called = command.split(|byte| *byte == 0).next().unwrap_or_default();
    if called.rsplit(|byte| *byte == b'/').next() == Some(b"keyloand") {
        return Err(
            failed("SSH_AGENT_PID is the daemon, which serves others too").hint("keyloan daemon stop")
        );
    }
    kill(Pid::from_raw(number), Signal::SIGTERM)
        .map_err(|error| failed(&format!("process {number}: {}", error.desc())))?;
    let lines = Lines::new(ACT, shell).unset(SOCKET).unset(PID);
    output::bytes(&lines.echo(&format!("Agent pid {number} killed")).bytes())
}
