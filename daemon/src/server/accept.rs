//! Listening. Another user is refused at accept, whatever the mode of the socket; running out of
//! descriptors makes the daemon wait, not end.

use super::connection;
use crate::broker::Broker;
use keyloan_platform::peer::{self, Peer};
use keyloan_platform::private_file::{Directory, DirectoryLock, FileError};
use keyloan_platform::process;
use keyloan_platform::service;
use nix::sys::stat::{Mode, umask};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener as StdListener;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

const NAME: &str = "control.sock";

/// Connections served at once; each may announce a frame of some megabytes.
const CONNECTIONS: usize = 512;

#[derive(Debug, thiserror::Error)]
pub(crate) enum ListenError {
    #[error("{0}")]
    Directory(#[from] FileError),
    #[error("cannot listen at {path}: {cause}")]
    Socket { path: String, cause: io::Error },
}

/// The socket and the directory it is in, which is locked for as long as the daemon lives.
pub(crate) struct Listening {
    listener: UnixListener,
    /// Not a service manager's, which would miss it.
    is_own: bool,
    directory: Directory,
    _lock: DirectoryLock,
}

/// Takes the runtime directory and binds the socket in it. `Ok(None)` when another daemon has it.
pub(crate) fn listen(path: &std::path::Path) -> Result<Option<Listening>, ListenError> {
    let directory = Directory::open_or_create(path)?;
    let lock = match directory.lock() {
        Ok(lock) => lock,
        Err(error) if matches!(error.fault, keyloan_platform::private_file::Fault::InUse) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let failed = |cause| ListenError::Socket { path: path.join(NAME).display().to_string(), cause };
    let handed_over = service::listener().map_err(failed)?;
    let is_own = handed_over.is_none();
    let bound = match handed_over {
        Some(listener) if service::path_of(&listener).is_some_and(|at| at == path.join(NAME)) => listener,
        Some(_) => return Err(failed(io::Error::other("the service manager's socket is another"))),
        None => {
            // With the lock held, a socket here is a dead daemon's.
            directory.remove(NAME)?;
            let before = umask(Mode::from_bits_truncate(0o177));
            let bound = StdListener::bind(directory.socket_path(NAME));
            umask(before);
            bound.map_err(failed)?
        }
    };
    bound.set_nonblocking(true).map_err(failed)?;
    peer::name_senders(bound.as_fd()).map_err(failed)?;
    let listener = UnixListener::from_std(bound).map_err(failed)?;
    Ok(Some(Listening { listener, is_own, directory, _lock: lock }))
}

impl Listening {
    /// Accepts until the broker is told to stop.
    pub(crate) async fn serve(&self, broker: &Rc<Broker>) {
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            match self.listener.accept().await {
                Ok((socket, _)) => {
                    let Some(peer) = admitted(&socket) else { continue };
                    let broker = Rc::clone(broker);
                    tokio::task::spawn_local(async move {
                        connection::serve(&broker, socket, peer).await;
                        drop(place);
                    });
                }
                // Descriptors have run out, or the client is gone already; both pass.
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    /// Takes the socket away, so that nobody connects to a daemon that is ending.
    pub(crate) fn close(&self) {
        if self.is_own {
            let _ = self.directory.remove(NAME);
        }
    }
}

/// The peer, if it is this user and still there.
fn admitted(socket: &UnixStream) -> Option<Peer> {
    peer::name_senders(socket.as_fd()).ok()?;
    let peer = Peer::of(socket.as_fd()).ok()?;
    (peer.uid == process::effective_uid()).then_some(peer)
}
