//! `keyloan daemon start|stop|run`.

use crate::args::{Daemon, DaemonAction};
use crate::client::{self, Connection};
use crate::exit::Failure;
use crate::output;
use keyloan_platform::exec;
use keyloan_platform::paths::Paths;
use keyloan_platform::peer::Peer;
use keyloan_platform::process;
use keyloan_protocol::control::Message;
use keyloan_protocol::control::error_kind::ErrorKind;
use keyloan_protocol::control::request::Request;
use keyloan_protocol::control::response::Reply;
use std::ffi::CString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::time::Duration;

/// A daemon that looks at a mount which does not answer may not be able to end.
const ENDING: Duration = Duration::from_secs(10);

pub(crate) fn daemon(daemon: &Daemon) -> Result<(), Failure> {
    match daemon.action {
        DaemonAction::Start => start(),
        DaemonAction::Stop => stop(),
        DaemonAction::Run => run(),
    }
}

fn start() -> Result<(), Failure> {
    if Connection::existing("start the daemon")?.is_some() {
        output::note("the daemon runs already");
        return Ok(());
    }
    Connection::open("start the daemon")?;
    output::note("the daemon runs");
    Ok(())
}

fn stop() -> Result<(), Failure> {
    let act = "stop the daemon";
    let Some(mut connection) = Connection::existing(act)? else {
        output::note("no daemon runs");
        return Ok(());
    };
    let process = daemon_of(&connection);
    connection.send(&Message::new(Request::Stop), &[])?;
    let reply = connection.reply()?;
    client::notes(act, reply)?;
    // Until then it holds its sockets and directories, and whoever comes next would meet it.
    if let Some(process) = process
        && let Some(pidfd) = process.pidfd()
        && !process::ends_within(pidfd, ENDING)
    {
        output::note("the daemon has not ended yet");
    }
    Ok(())
}

/// The process that listens, if that is the daemon: a service manager that made the socket would never end.
fn daemon_of(connection: &Connection) -> Option<Peer> {
    let mut asking = Connection::existing("ask for the daemon's pid").ok()??;
    asking.send(&Message::new(Request::Status), &[]).ok()?;
    let Reply::Status(status) = asking.reply().ok()?.body else { return None };
    connection.peer().filter(|peer| u32::try_from(peer.pid) == Ok(status.pid))
}

/// Becomes the daemon, with the environment it would have been started with.
fn run() -> Result<(), Failure> {
    let act = "run the daemon";
    let program = client::daemon_program()?;
    let broken = |_| Failure::usage(act, "a path holds a NUL");
    let path = CString::new(program.as_os_str().as_bytes()).map_err(broken)?;
    let mut environment = Vec::new();
    for (name, value) in Paths::environment() {
        let mut entry = std::ffi::OsString::from(name).into_vec();
        entry.push(b'=');
        entry.extend_from_slice(value.as_bytes());
        environment.push(CString::new(entry).map_err(broken)?);
    }
    let error = exec::become_program(&program, &[path, c"run".to_owned()], &environment);
    Err(Failure::new(ErrorKind::Protocol, act, error))
}
