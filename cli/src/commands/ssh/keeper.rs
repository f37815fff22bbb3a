//! The process behind a pid that `ssh-agent` prints. It listens on a socket and hands it to the daemon, which serves
//! it for as long as this process lives; its end is the end of that socket, and of what was added there. While no
//! daemon serves, it watches the socket itself and calls one when a client comes.

use super::agent::ACT;
use crate::client::{self, Connection};
use crate::exit::Failure;
use keyloan_platform::paths::Paths;
use keyloan_platform::private_file::Directory;
use keyloan_platform::process;
use keyloan_platform::signals::{self, SIGHUP, SIGINT, SIGTERM, SIGUSR1, Signals};
use keyloan_protocol::control::Message;
use keyloan_protocol::control::request::Request;
use keyloan_protocol::control::response::Reply;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::{Mode, umask};
use std::ffi::OsString;
use std::fs;
use std::io::{self, PipeReader, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

/// What this program is called as to keep a socket.
pub(crate) const KEEPER: &str = "keyloan-agent-keeper";

/// `SSH_AGENTC_REMOVE_ALL_IDENTITIES`, RFC 9987, in its frame.
const REMOVE_ALL: [u8; 5] = [0, 0, 0, 1, 19];

/// A path that fits into a socket's address, unix(7).
const SUN_PATH: usize = 107;

/// What a socket is to be like.
pub(super) struct Wanted {
    /// Absolute.
    pub(super) at: Option<PathBuf>,
    /// Of keys that are added, in seconds.
    pub(super) lifetime: Option<u32>,
}

/// A socket that is served.
pub(super) struct Kept {
    pub(super) pid: u32,
    pub(super) path: PathBuf,
}

/// Starts a keeper that is no child of this process, so that the command which this process may become has none that
/// it did not start. It ends with the process of `holder`, or when it is told to.
pub(super) fn start(wanted: &Wanted, holder: Option<OwnedFd>) -> Result<Kept, Failure> {
    let failed = |error: io::Error| Failure::usage(ACT, error);
    let (mut said, say) = io::pipe().map_err(failed)?;
    let mut arguments: Vec<OsString> = vec![
        "start".into(),
        if holder.is_some() { "held" } else { "free" }.into(),
        wanted.lifetime.unwrap_or_default().to_string().into(),
    ];
    arguments.extend(wanted.at.as_ref().map(|path| path.clone().into_os_string()));
    let input = holder.map_or_else(Stdio::null, Stdio::from);
    let started = keeper(&arguments, input, Stdio::from(say)).and_then(|mut child| child.wait());
    started.map_err(failed)?;
    let mut text = Vec::new();
    (&mut said).take(64 * 1024).read_to_end(&mut text).map_err(failed)?;
    let space = text.iter().position(|byte| *byte == b' ').unwrap_or(text.len());
    let (first, rest) = text.split_at(space);
    let rest = rest.get(1..).unwrap_or_default();
    match str::from_utf8(first).ok().and_then(|pid| pid.parse().ok()) {
        Some(pid) => Ok(Kept { pid, path: OsString::from_vec(rest.to_vec()).into() }),
        None if rest.is_empty() => Err(Failure::usage(ACT, "the keeper of the socket did not start")),
        None => Err(Failure::usage(ACT, String::from_utf8_lossy(rest))),
    }
}

/// Of this process the keeper gets the programs' paths, and what it is to listen at.
#[expect(clippy::disallowed_methods, reason = "the spawner of the keeper")]
fn keeper(arguments: &[OsString], input: Stdio, output: Stdio) -> io::Result<std::process::Child> {
    use std::os::unix::process::CommandExt;
    Command::new(std::env::current_exe()?)
        .arg0(KEEPER)
        .args(arguments)
        .env_clear()
        .envs(Paths::environment())
        .stdin(input)
        .stdout(output)
        .stderr(Stdio::null())
        .spawn()
}

/// Called as [`KEEPER`]: `start …` leaves a `keep …` behind, which says on standard output where it listens, or why
/// it does not, and closes it.
pub(crate) fn run(arguments: &[OsString]) -> ExitCode {
    let done = match arguments {
        [what, rest @ ..] if what == "start" => leave_behind(rest),
        [what, holder, lifetime, at @ ..] if what == "keep" => {
            let lifetime = lifetime.to_str().and_then(|lifetime| lifetime.parse().ok());
            let wanted = Wanted {
                at: at.first().map(PathBuf::from),
                lifetime: lifetime.filter(|lifetime| *lifetime > 0),
            };
            keep_for(&wanted, holder == "held")
        }
        _ => Err(io::ErrorKind::InvalidInput.into()),
    };
    if done.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn leave_behind(arguments: &[OsString]) -> io::Result<()> {
    process::detach()?;
    let mut all = vec![OsString::from("keep")];
    all.extend_from_slice(arguments);
    keeper(&all, Stdio::inherit(), Stdio::inherit()).map(drop)
}

fn keep_for(wanted: &Wanted, is_held: bool) -> io::Result<()> {
    signals::unblock_all()?;
    let input = io::stdin();
    let holder = is_held.then(|| input.as_fd());
    let kept = keep(wanted, holder, |kept| {
        let mut text = format!("{} ", kept.pid).into_bytes();
        text.extend_from_slice(kept.path.as_os_str().as_bytes());
        say(&text).map_err(|error| Failure::usage(ACT, error))
    });
    kept.map_err(|failure| {
        // Nobody reads it where the socket was served for a while.
        let _ = say(format!("- {}", failure.cause()).as_bytes());
        io::ErrorKind::Other.into()
    })
}

/// The one thing that is said to whoever started this process; behind it the pipe is closed.
fn say(text: &[u8]) -> io::Result<()> {
    io::stdout().write_all(text)?;
    io::stdout().flush()?;
    let null = fs::OpenOptions::new().write(true).open("/dev/null")?;
    Ok(nix::unistd::dup2_stdout(null)?)
}

/// Listens, has the daemon serve, tells, and stays until the holder's end or a signal.
pub(super) fn keep(
    wanted: &Wanted,
    holder: Option<BorrowedFd<'_>>,
    tell: impl FnOnce(&Kept) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::usage(ACT, error);
    let caught = Signals::catch(&[SIGTERM, SIGINT, SIGHUP, SIGUSR1]).map_err(failed)?;
    let socket = Socket::bind(wanted.at.as_deref())?;
    let served = hand_over(&socket, wanted.lifetime)?;
    tell(&Kept { pid: std::process::id(), path: socket.path.clone() })?;
    stay(&socket, wanted.lifetime, &caught, holder, served).map_err(failed)
}

fn stay(
    socket: &Socket,
    lifetime: Option<u32>,
    caught: &Signals,
    holder: Option<BorrowedFd<'_>>,
    served: PipeReader,
) -> io::Result<()> {
    let mut served = Some(served);
    loop {
        // Either the daemon's end, or a client that nobody serves.
        let watched = served.as_ref().map_or_else(|| socket.listener.as_fd(), AsFd::as_fd);
        let mut waited =
            vec![PollFd::new(caught.as_fd(), PollFlags::POLLIN), PollFd::new(watched, PollFlags::POLLIN)];
        waited.extend(holder.map(|holder| PollFd::new(holder, PollFlags::POLLIN)));
        match poll(&mut waited, PollTimeout::NONE) {
            Err(nix::errno::Errno::EINTR) => continue,
            other => other?,
        };
        let is_ready = |at: usize| waited.get(at).and_then(PollFd::any).unwrap_or(false);
        let (has_signal, is_watched, is_over) = (is_ready(0), is_ready(1), is_ready(2));
        if is_over {
            return Ok(());
        }
        while let Some(signal) = has_signal.then(|| caught.next()).flatten() {
            if signal.signal != SIGUSR1 {
                return Ok(());
            }
            // As OpenSSH's agent: the keys that were added go. The daemon's end is noticed by itself.
            let _ = UnixStream::connect(&socket.path).and_then(|mut agent| agent.write_all(&REMOVE_ALL));
        }
        if is_watched {
            served = match served {
                Some(_) => None,
                None => hand_over(socket, lifetime).ok().or_else(|| {
                    // The client must not wait for a daemon that does not start.
                    drop(socket.listener.accept());
                    None
                }),
            };
        }
    }
}

/// Has the daemon serve the socket. The pipe ends when it does so no longer.
fn hand_over(socket: &Socket, lifetime: Option<u32>) -> Result<PipeReader, Failure> {
    let (served, held) = io::pipe().map_err(|error| Failure::usage(ACT, error))?;
    let mut connection = Connection::open(ACT)?;
    let message = Message::new(Request::SshServe { lifetime });
    connection.send(&message, &[held.as_fd(), socket.listener.as_fd()])?;
    drop(held);
    match connection.reply()?.body {
        Reply::Done { .. } => Ok(served),
        _ => Err(client::unexpected(ACT)),
    }
}

/// A listening socket, 0600, that is gone when this is dropped.
struct Socket {
    listener: UnixListener,
    path: PathBuf,
    /// Its device and inode: what another program put in its place stays.
    identity: (u64, u64),
    /// Made for it alone.
    directory: Option<PathBuf>,
}

impl Socket {
    fn bind(at: Option<&Path>) -> Result<Self, Failure> {
        if let Some(path) = at {
            return Self::listen(path.to_owned(), None);
        }
        let name = format!("agent.{}", std::process::id());
        let paths = Paths::discover().map_err(Failure::unreachable)?;
        let directory = Directory::open_or_create(&paths.runtime).map_err(Failure::unreachable)?;
        let path = paths.runtime.join(&name);
        if path.as_os_str().len() <= SUN_PATH {
            // Left by a process that had this pid and was killed.
            directory.remove(&name).map_err(Failure::unreachable)?;
            return Self::listen(path, None);
        }
        // As OpenSSH's: fresh, with a name that nobody can foresee, and 0700.
        let fresh = nix::unistd::mkdtemp("/tmp/ssh-XXXXXXXXXX");
        let fresh = fresh.map_err(|error| Failure::usage(ACT, format!("/tmp: {}", error.desc())))?;
        Self::listen(fresh.join(&name), Some(fresh))
    }

    fn listen(path: PathBuf, directory: Option<PathBuf>) -> Result<Self, Failure> {
        let failed = |error: io::Error| Failure::usage(ACT, format!("{}: {error}", path.display()));
        let before = umask(Mode::from_bits_truncate(0o177));
        let bound = UnixListener::bind(&path);
        umask(before);
        let listener = bound.inspect_err(|_| drop(directory.as_ref().map(fs::remove_dir))).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let identity = fs::symlink_metadata(&path).map(|found| (found.dev(), found.ino())).map_err(failed)?;
        Ok(Self { listener, path, identity, directory })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let found = fs::symlink_metadata(&self.path).map(|found| (found.dev(), found.ino()));
        if found.is_ok_and(|found| found == self.identity) {
            let _ = fs::remove_file(&self.path);
        }
        if let Some(directory) = &self.directory {
            let _ = fs::remove_dir(directory);
        }
    }
}
