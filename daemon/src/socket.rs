//! The two sockets, in a directory that one daemon holds: who may connect, and how many at once. Another user is
//! refused at accept, whatever the mode of the socket; running out of descriptors makes the daemon wait, not end.

use keyloan_platform::descriptors;
use keyloan_platform::peer::{self, Peer};
use keyloan_platform::private_file::{Directory, DirectoryLock, Fault, FileError};
use keyloan_platform::process;
use keyloan_platform::service;
use keyloan_protocol::limits;
use nix::sys::socket::{SockType, getsockopt, sockopt};
use nix::sys::stat::{Mode, umask};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener as StdListener, UnixStream as StdStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;

const CONTROL: &str = "control.sock";
pub(crate) const AGENT: &str = "agent.sock";

/// Between two tries where the system has no descriptor left.
const PAUSE: Duration = Duration::from_millis(20);

#[derive(Debug, thiserror::Error)]
pub(crate) enum ListenError {
    #[error("{0}")]
    Directory(#[from] FileError),
    #[error("cannot listen at {path}: {cause}")]
    Socket { path: String, cause: io::Error },
}

/// Both sockets and their directory, which is locked for as long as the daemon lives.
pub(crate) struct Sockets {
    pub(crate) control: Listening,
    pub(crate) agent: Listening,
    directory: Directory,
    _lock: DirectoryLock,
}

/// A socket that is listened on.
pub(crate) struct Listening {
    listener: UnixListener,
    /// Its name in the directory, unless it is a service manager's, which would miss it.
    name: Option<&'static str>,
}

/// Takes the runtime directory and binds the sockets in it. `Ok(None)` when another daemon has it.
pub(crate) fn listen(path: &Path) -> Result<Option<Sockets>, ListenError> {
    let directory = Directory::open_or_create(path)?;
    let lock = match directory.lock() {
        Ok(lock) => lock,
        Err(error) if matches!(error.fault, Fault::InUse) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let failed =
        |name: &str, cause| ListenError::Socket { path: path.join(name).display().to_string(), cause };
    let mut handed_over = service::listeners().map_err(|cause| failed(CONTROL, cause))?;
    let mut bind = |name: &'static str| {
        let is_this =
            |listener: &StdListener| service::path_of(listener).is_some_and(|at| at == path.join(name));
        let theirs = handed_over.iter().position(is_this).map(|at| handed_over.swap_remove(at));
        let own = theirs.is_none().then_some(name);
        let bound = if let Some(listener) = theirs {
            listener
        } else {
            // With the lock held, a socket here is a dead daemon's.
            directory.remove(name)?;
            let before = umask(Mode::from_bits_truncate(0o177));
            let bound = StdListener::bind(directory.socket_path(name));
            umask(before);
            bound.map_err(|cause| failed(name, cause))?
        };
        Listening::of(bound, own).map_err(|cause| failed(name, cause))
    };
    let (control, agent) = (bind(CONTROL)?, bind(AGENT)?);
    if !handed_over.is_empty() {
        return Err(failed(CONTROL, io::Error::other("the service manager's socket is another")));
    }
    Ok(Some(Sockets { control, agent, directory, _lock: lock }))
}

impl Sockets {
    /// Takes the sockets away, so that nobody connects to a daemon that is ending.
    pub(crate) fn close(&self) {
        for name in [self.control.name, self.agent.name].into_iter().flatten() {
            let _ = self.directory.remove(name);
        }
    }
}

impl Listening {
    fn of(listener: StdListener, name: Option<&'static str>) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        peer::name_senders(listener.as_fd())?;
        Ok(Self { listener: UnixListener::from_std(listener)?, name })
    }

    /// Accepts for ever, so many connections at once. They end with this.
    pub(crate) async fn serve<F>(&self, most: usize, handle: impl Fn(UnixStream, Peer) -> F)
    where
        F: Future<Output = ()> + 'static,
    {
        serve(most, async || self.listener.accept().await.map(|(socket, _)| Some(socket)), handle).await;
    }
}

/// A socket that somebody else made and listens on. Whoever shares it can make it block (`O_NONBLOCK` is of the open
/// file, `fcntl`(2)), so a thread of its own accepts there.
pub(crate) struct Handed {
    accepted: Mutex<mpsc::Receiver<StdStream>>,
    /// Its closing ends the thread.
    _alive: OwnedFd,
}

/// Accepted and not yet served, of one handed-over socket.
const AHEAD: usize = 16;

impl Handed {
    /// Fails where it is no socket of this kind that listens. `count` is held for as long as the thread is there.
    pub(crate) fn over(socket: OwnedFd, count: Arc<()>) -> io::Result<Self> {
        let listens = getsockopt(&socket, sockopt::AcceptConn)?;
        let listener = StdListener::from(socket);
        if !listens
            || getsockopt(&listener, sockopt::SockType)? != SockType::Stream
            || listener.local_addr().is_err()
        {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        peer::name_senders(listener.as_fd())?;
        let (alive, ended) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
        let (send, accepted) = mpsc::channel(AHEAD);
        std::thread::Builder::new().spawn(move || {
            accept_for(&listener, &alive, &send);
            drop((listener, count));
        })?;
        Ok(Self { accepted: Mutex::new(accepted), _alive: ended })
    }

    /// As [`Listening::serve`].
    pub(crate) async fn serve<F>(&self, most: usize, handle: impl Fn(UnixStream, Peer) -> F)
    where
        F: Future<Output = ()> + 'static,
    {
        let mut accepted = self.accepted.lock().await;
        let accept = async || match accepted.recv().await {
            Some(socket) => {
                socket.set_nonblocking(true)?;
                UnixStream::from_std(socket).map(Some)
            }
            None => Ok(None),
        };
        serve(most, accept, handle).await;
    }
}

/// Accepts until the other end of the pipe is closed, or the socket cannot be accepted from any more.
fn accept_for(listener: &StdListener, alive: &OwnedFd, send: &mpsc::Sender<StdStream>) {
    while let Ok(false) = descriptors::ends_before(alive.as_fd(), listener.as_fd()) {
        match listener.accept() {
            Ok((socket, _)) => {
                if send.blocking_send(socket).is_err() {
                    return;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => return,
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}

async fn serve<F>(
    most: usize,
    mut accept: impl AsyncFnMut() -> io::Result<Option<UnixStream>>,
    handle: impl Fn(UnixStream, Peer) -> F,
) where
    F: Future<Output = ()> + 'static,
{
    let mut served = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = served.join_next() => {}
            accepted = accept(), if served.len() < most => match accepted {
                Ok(Some(socket)) => {
                    if let Some(peer) = admitted(&socket) {
                        served.spawn_local(handle(socket, peer));
                    }
                }
                Ok(None) => return,
                // Descriptors have run out, or the client is gone already; both pass.
                Err(_) => tokio::time::sleep(PAUSE).await,
            },
        }
    }
}

/// The peer, if it is this user and still there.
fn admitted(socket: &UnixStream) -> Option<Peer> {
    peer::name_senders(socket.as_fd()).ok()?;
    let peer = Peer::of(socket.as_fd()).ok()?;
    (peer.uid == process::effective_uid()).then_some(peer)
}

/// Why a connection ended before its time.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    #[error("the connection ended")]
    Ended,
    #[error("the message comes from another process than the connection")]
    Sender,
    #[error("more than {} descriptors came with a message", limits::DESCRIPTORS)]
    Descriptors,
    #[error("more follows a request than it announces; a connection is for one request")]
    More,
    #[error("more was sent ahead than one request")]
    Ahead,
    #[error("it took too long")]
    Slow,
    #[error("too many long requests are served at once")]
    Crowded,
    #[error(transparent)]
    Frame(#[from] keyloan_protocol::frame::FrameError),
    #[error(transparent)]
    AgentFrame(#[from] keyloan_protocol::ssh_agent::frame::FrameError),
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Receives what is there, at least a byte, from the process that connected: a socket that was handed on to
/// another program does not speak for it. A process that has ended has no successor: its pid may be another's.
pub(crate) async fn receive(
    socket: &UnixStream,
    peer: &Peer,
    buffer: &mut [u8],
    descriptors: &mut Vec<OwnedFd>,
) -> Result<usize, Broken> {
    loop {
        socket.readable().await?;
        if let Some(length) = try_receive(socket, peer, buffer, descriptors)? {
            return Ok(length);
        }
    }
}

/// As [`receive`]; `None` where there is nothing now.
pub(crate) fn try_receive(
    socket: &UnixStream,
    peer: &Peer,
    buffer: &mut [u8],
    descriptors: &mut Vec<OwnedFd>,
) -> Result<Option<usize>, Broken> {
    match socket.try_io(Interest::READABLE, || descriptors::receive(socket.as_fd(), buffer)) {
        Ok(received) if received.length == 0 => Err(Broken::Ended),
        Ok(received) => {
            if received.sender.is_some_and(|sender| sender != peer.pid) || !peer.is_alive() {
                return Err(Broken::Sender);
            }
            descriptors.extend(received.descriptors);
            if descriptors.len() > limits::DESCRIPTORS {
                return Err(Broken::Descriptors);
            }
            Ok(Some(received.length))
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error.into()),
    }
}

pub(crate) async fn send(socket: &UnixStream, bytes: &[u8]) -> Result<(), Broken> {
    let mut rest = bytes;
    while !rest.is_empty() {
        socket.writable().await?;
        match socket.try_io(Interest::WRITABLE, || descriptors::send(socket.as_fd(), rest, &[])) {
            Ok(sent) => rest = &rest[sent..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
