//! One agent connection: frames in, replies out, one after another. What is wrong inside a frame is answered with
//! FAILURE and the connection lives on; what is wrong with a frame ends it, since nobody knows where the next one
//! begins. While a human is asked, the client is watched: its question closes when it goes.

use crate::broker::{AgentConnection, Broker};
use crate::readiness;
use crate::socket::{self, Broken};
use keyloan_platform::peer::Peer;
use keyloan_protocol::limits;
use keyloan_protocol::ssh_agent::frame::{self, PREFIX};
use keyloan_protocol::ssh_agent::message::{Reply, Request};
use std::rc::Rc;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::time::timeout;
use zeroize::Zeroizing;

/// A frame that has begun must have arrived whole within this time.
const FRAME: Duration = Duration::from_secs(10);
/// A reply must have been taken within this time.
const REPLY: Duration = Duration::from_secs(10);
/// What is read at once; nearly every request is shorter.
const PIECE: usize = 4096;

pub(super) async fn serve(
    broker: &Rc<Broker>,
    socket: &UnixStream,
    connection: &mut AgentConnection,
) -> Result<(), Broken> {
    let peer = connection.peer();
    let mut inbox = Inbox { socket, peer: Rc::clone(&peer), arrived: Zeroizing::default() };
    loop {
        let message = inbox.message().await?;
        let reply = if let Ok(request) = Request::parse(&message) {
            drop(message);
            // In memory of its own, for as long as it takes: a client that is silent needs little.
            let answer = Box::pin(broker.answer(connection, request));
            tokio::select! {
                biased;
                reply = answer => reply,
                broken = inbox.watch() => return Err(broken),
                () = ended(&peer) => return Err(Broken::Ended),
            }
        } else {
            connection.note_malformed(&message);
            Reply::Failure
        };
        // No reply of ours is longer than a frame but a list, which is cut before.
        let Ok(frame) = reply.encode() else { return Ok(()) };
        // Whoever holds the socket of a client that has ended is not who was asked for.
        let is_alive = peer.is_alive();
        let sent = async { if is_alive { socket::send(socket, &frame).await } else { Err(Broken::Ended) } };
        let sent = timeout(REPLY, sent).await.unwrap_or(Err(Broken::Slow));
        if sent.is_err() && matches!(reply, Reply::Signature(_)) {
            broker.signature_undelivered(connection);
        }
        sent?;
    }
}

/// The client's end, where its socket lives on with another process.
async fn ended(peer: &Peer) {
    let process = peer.pidfd().and_then(|process| process.try_clone_to_owned().ok());
    match process.and_then(|process| readiness::watch(process).ok()) {
        Some(process) => drop(process.readable().await),
        None => std::future::pending().await,
    }
}

/// What has arrived and was not served yet: requests may be sent ahead.
struct Inbox<'a> {
    socket: &'a UnixStream,
    peer: Rc<Peer>,
    /// Wiped; growing it leaves nothing behind, since the heap forgets what is freed.
    arrived: Zeroizing<Vec<u8>>,
}

impl Inbox<'_> {
    /// The next message without its length. An idle client may be silent for as long as it likes.
    async fn message(&mut self) -> Result<Zeroizing<Vec<u8>>, Broken> {
        if self.arrived.is_empty() {
            self.more().await?;
        }
        timeout(FRAME, self.rest_of_message()).await.map_err(|_| Broken::Slow)?
    }

    async fn rest_of_message(&mut self) -> Result<Zeroizing<Vec<u8>>, Broken> {
        let prefix = loop {
            match self.arrived.first_chunk::<PREFIX>() {
                Some(prefix) => break *prefix,
                None => self.more().await?,
            }
        };
        let end = PREFIX + frame::length(prefix)?;
        while self.arrived.len() < end {
            self.more().await?;
        }
        let message = Zeroizing::new(self.arrived[PREFIX..end].to_vec());
        // In one piece as a rule, and then nothing is left and nothing is kept.
        *self.arrived = self.arrived[end..].to_vec();
        Ok(message)
    }

    async fn more(&mut self) -> Result<(), Broken> {
        loop {
            self.socket.readable().await?;
            // Not held while it waits: of a thousand clients nearly all do.
            let mut piece = Zeroizing::new([0; PIECE]);
            if let Some(length) =
                socket::try_receive(self.socket, &self.peer, piece.as_mut(), &mut Vec::new())?
            {
                self.arrived.extend_from_slice(&piece[..length]);
                return Ok(());
            }
        }
    }

    /// Ends when the client does. Requests that it sends ahead wait here, up to the size of one.
    async fn watch(&mut self) -> Broken {
        while self.arrived.len() <= PREFIX + limits::SSH_MESSAGE {
            if let Err(broken) = self.more().await {
                return broken;
            }
        }
        Broken::Ahead
    }
}
