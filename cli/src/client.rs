//! The way to the daemon: found beside this program, started when it does not run, and believed only when it
//! is this user's.

use crate::exit::Failure;
use crate::output;
use keyloan_platform::descriptors;
use keyloan_platform::paths::Paths;
use keyloan_platform::peer::Peer;
use keyloan_platform::private_file::Directory;
use keyloan_platform::{peer, process, terminal};
use keyloan_protocol::control::error_kind::ErrorKind;
use keyloan_protocol::control::request::Request;
use keyloan_protocol::control::response::Reply;
use keyloan_protocol::control::{self, Message};
use keyloan_protocol::frame::{self, FrameError, HeaderFault};
use keyloan_protocol::limits;
use keyloan_protocol::secret::SecretBytes;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use zeroize::Zeroizing;

/// Two seconds in all.
const STARTS: u32 = 40;
const BETWEEN_STARTS: Duration = Duration::from_millis(50);

pub(crate) struct Connection {
    socket: UnixStream,
    act: String,
    /// Received and not yet understood.
    held: Zeroizing<Vec<u8>>,
    /// It may be asking somebody on this terminal.
    patient: bool,
}

/// Asks and takes the one reply. `act` completes "cannot …".
pub(crate) fn ask(act: &str, message: &Message<Request>) -> Result<Message<Reply>, Failure> {
    ask_with(act, message, &[])
}

pub(crate) fn ask_with(
    act: &str,
    message: &Message<Request>,
    descriptors: &[BorrowedFd<'_>],
) -> Result<Message<Reply>, Failure> {
    let mut connection = Connection::open(act)?;
    connection.send(message, descriptors)?;
    connection.reply()
}

/// For requests that are answered by notes.
pub(crate) fn tell(act: &str, message: &Message<Request>) -> Result<(), Failure> {
    notes(act, ask(act, message)?)
}

pub(crate) fn notes(act: &str, reply: Message<Reply>) -> Result<(), Failure> {
    let Reply::Done { notes } = reply.body else { return Err(unexpected(act)) };
    for note in &notes {
        output::note(note);
    }
    Ok(())
}

pub(crate) fn unexpected(act: &str) -> Failure {
    Failure::new(ErrorKind::Protocol, act, "the daemon gave an answer to another question")
}

impl Connection {
    /// Connects, starting the daemon where none runs.
    pub(crate) fn open(act: &str) -> Result<Self, Failure> {
        if let Some(connection) = Self::existing(act)? {
            return Ok(connection);
        }
        for _ in 0..STARTS {
            start()?;
            if let Some(connection) = Self::existing(act)? {
                return Ok(connection);
            }
            // Another daemon still holds the directories, and listens no more: it is ending. Its end cannot be waited
            // for: flock(2) names no holder, and whoever waits for the lock has it for a moment, in which the daemon
            // that another client starts takes it for a running one's and ends.
            std::thread::sleep(BETWEEN_STARTS);
        }
        Err(Failure::unreachable("it was started, and is gone again"))
    }

    /// Connects to a running daemon; `None` when there is none.
    pub(crate) fn existing(act: &str) -> Result<Option<Self>, Failure> {
        let paths = Paths::discover().map_err(Failure::unreachable)?;
        // The directory is checked before anything in it is believed (threats: a squatted socket).
        let directory = match Directory::open(&paths.runtime) {
            Ok(directory) => directory,
            Err(error) if error.is_absent() => return Ok(None),
            Err(error) => return Err(Failure::unreachable(error)),
        };
        let socket = match UnixStream::connect(directory.socket_path("control.sock")) {
            Ok(socket) => socket,
            Err(error)
                if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(Failure::unreachable(error)),
        };
        let listener = peer::listener_uid(socket.as_fd()).map_err(Failure::unreachable)?;
        if listener != process::effective_uid() {
            let cause = format!("user {listener} listens at keyloan's socket; nothing was sent");
            return Err(Failure::unreachable(cause));
        }
        Ok(Some(Self { socket, act: act.to_owned(), held: Zeroizing::default(), patient: true }))
    }

    /// Who listens.
    pub(crate) fn peer(&self) -> Option<Peer> {
        Peer::of(self.socket.as_fd()).ok()
    }

    /// For who would rather go without an answer.
    pub(crate) fn wait_at_most(&mut self, time: Duration) {
        self.patient = false;
        let _ = self.socket.set_read_timeout(Some(time));
        let _ = self.socket.set_write_timeout(Some(time));
    }

    pub(crate) fn send(
        &mut self,
        message: &Message<Request>,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), Failure> {
        let bytes = control::encode(message).map_err(|error| Failure::usage(&self.act, error))?;
        let mut rest = bytes.as_slice();
        let mut descriptors = descriptors;
        while !rest.is_empty() {
            match descriptors::send(self.socket.as_fd(), rest, descriptors) {
                Ok(sent) => {
                    rest = &rest[sent..];
                    descriptors = &[];
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The daemon may have refused before it took everything; what it said can be read.
                Err(_) => return Ok(()),
            }
        }
        Ok(())
    }

    /// The next reply that is not "somebody is being asked".
    pub(crate) fn reply(&mut self) -> Result<Message<Reply>, Failure> {
        loop {
            let reply = self.receive()?;
            match reply.body {
                Reply::Waiting { on } => {
                    output::progress(&format!("waiting for a yes from {on}"));
                }
                Reply::Error(error) => return Err(Failure::refused(&self.act, error)),
                _ => return Ok(reply),
            }
        }
    }

    fn receive(&mut self) -> Result<Message<Reply>, Failure> {
        while self.held.len() < frame::PREFIX {
            self.read_more()?;
        }
        let (prefix, _) = self.held.split_at(frame::PREFIX);
        let lengths = frame::lengths(prefix.try_into().unwrap_or_default())
            .map_err(|error| self.misunderstood(error))?;
        let whole = frame::PREFIX + lengths.header + lengths.tail;
        while self.held.len() < whole {
            self.read_more()?;
        }
        let (header, tail) = self.held[frame::PREFIX..whole].split_at(lengths.header);
        let message = control::decode(header, tail).map_err(|error| self.misunderstood(error))?;
        // What follows is the next reply.
        self.held = Zeroizing::new(self.held[whole..].to_vec());
        Ok(message)
    }

    /// Reads a further piece into a new buffer; the old one is wiped.
    fn read_more(&mut self) -> Result<(), Failure> {
        let mut longer = Zeroizing::new(vec![0; (2 * self.held.len()).max(4096)]);
        let held = self.held.len();
        longer[..held].copy_from_slice(&self.held);
        let read = loop {
            match self.socket.read(&mut longer[held..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        let cause = match read {
            Ok(0) => "the daemon closed the connection".to_owned(),
            Ok(more) => {
                longer.truncate(held + more);
                self.held = longer;
                return Ok(());
            }
            Err(error) => error.to_string(),
        };
        // Should it have died while it asked on this terminal, echo would stay off.
        if self.patient {
            terminal::make_usable();
        }
        Err(Failure::new(ErrorKind::Protocol, &self.act, cause).hint("keyloan status; keyloan log"))
    }

    fn misunderstood(&self, error: FrameError) -> Failure {
        let failure = Failure::new(ErrorKind::Protocol, &self.act, format!("the daemon's answer: {error}"));
        match error {
            FrameError::Header(HeaderFault::Version(_)) => failure.hint(
                "the daemon that runs is of another version than this keyloan; end it: keyloan daemon stop",
            ),
            _ => failure,
        }
    }
}

/// The daemon's program: beside this one by its real path, never searched for.
pub(crate) fn daemon_program() -> Result<PathBuf, Failure> {
    let own = std::env::current_exe().map_err(Failure::unreachable)?;
    let own = own.canonicalize().unwrap_or(own);
    let program = own.with_file_name("keyloand");
    if program.is_file() {
        return Ok(program);
    }
    Err(Failure::unreachable(format!("there is no {}", program.display()))
        .hint("install keyloan and keyloand into one directory: cargo xtask install"))
}

/// Starts the daemon and waits until it listens. Where several clients start one at once, one daemon stays.
#[expect(clippy::disallowed_methods, reason = "the spawner of the daemon")]
fn start() -> Result<(), Failure> {
    let program = daemon_program()?;
    let mut child = std::process::Command::new(&program)
        .arg("run")
        .env_clear()
        .envs(Paths::environment())
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| Failure::unreachable(format!("{}: {error}", program.display())))?;
    // It closes its standard error once it listens; before that it says there what is wrong.
    let mut said = String::new();
    if let Some(errors) = child.stderr.take() {
        let _ = errors.take(64 * 1024).read_to_string(&mut said);
    }
    let said = said.trim();
    if said.is_empty() { Ok(()) } else { Err(Failure::unreachable(said.trim_start_matches("keyloand: "))) }
}

/// Reads a passphrase or PIN from a descriptor that the caller opened, to its end or its first newline.
pub(crate) fn secret_from(act: &str, descriptor: i32) -> Result<SecretBytes, Failure> {
    let unreadable = |error: io::Error| Failure::usage(act, format!("descriptor {descriptor}: {error}"));
    let mut file = File::from(descriptors::inherited(descriptor).map_err(unreadable)?);
    let mut bytes = Zeroizing::new(vec![0; limits::PASSPHRASE + 2]);
    let mut length = 0;
    while length < bytes.len() {
        match file.read(&mut bytes[length..]).map_err(unreadable)? {
            0 => break,
            more => length += more,
        }
    }
    let line = bytes[..length].split(|byte| *byte == b'\n').next().unwrap_or_default();
    if line.len() > limits::PASSPHRASE {
        return Err(Failure::usage(act, "a passphrase or PIN has at most 1024 bytes"));
    }
    Ok(SecretBytes::copy_of(line))
}

/// The same for an option.
pub(crate) fn with_secret(
    act: &str,
    message: Message<Request>,
    name: &str,
    descriptor: Option<i32>,
) -> Result<Message<Request>, Failure> {
    match descriptor {
        Some(descriptor) => Ok(message.with(name, secret_from(act, descriptor)?)),
        None => Ok(message),
    }
}
