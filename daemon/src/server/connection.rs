//! One connection: one request, its replies, and the end of both when the client goes.

use super::dispatch;
use crate::broker::{Broker, Client};
use crate::requester::Requester;
use crate::socket::{self, Broken};
use keyloan_platform::descriptors;
use keyloan_platform::peer::Peer;
use keyloan_protocol::control::error_kind::ErrorKind;
use keyloan_protocol::control::request::Request;
use keyloan_protocol::control::response::{ErrorReply, Reply, ShellLent};
use keyloan_protocol::control::{self, Message};
use keyloan_protocol::frame::{self, FrameError};
use keyloan_protocol::version;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::{Semaphore, SemaphorePermit, mpsc};
use tokio::time::timeout;
use zeroize::Zeroizing;

/// A request must have arrived whole within this time.
const REQUEST: Duration = Duration::from_secs(10);
/// A reply must have been taken within this time.
const REPLY: Duration = Duration::from_secs(10);

/// Nearly all requests are shorter. Of longer ones, which may have megabytes, so many are held at once, and others wait
/// so long: all connections together could bring more than there is memory.
const LONG: usize = 64 * 1024;
static LONG_ONES: Semaphore = Semaphore::const_new(16);
const ROOM: Duration = Duration::from_secs(5);

/// A request as it arrived.
struct Arrived {
    message: Message<Request>,
    descriptors: Vec<OwnedFd>,
    room: Option<SemaphorePermit<'static>>,
}

pub(crate) async fn serve(broker: &Rc<Broker>, socket: UnixStream, peer: Peer) {
    // A requester of whom nothing can be said is not served. What it becomes before it has asked, a question tells.
    let Some(requester) = Requester::observe(Rc::new(peer)) else { return };
    let arrived = match timeout(REQUEST, receive(&socket, &requester.peer)).await {
        Ok(Ok(arrived)) => arrived,
        Ok(Err(Broken::Ended)) | Err(_) => return,
        Ok(Err(broken)) => {
            delivered(&socket, &Message::new(protocol_error(&broken))).await;
            return;
        }
    };
    let _room = arrived.room;
    let (replies, mut queued) = mpsc::channel(4);
    let client = Client { requester, replies };
    let handled = dispatch::handle(broker, client, arrived.message, arrived.descriptors);
    tokio::pin!(handled);
    let last = loop {
        tokio::select! {
            biased;
            Some(reply) = queued.recv() => {
                if !delivered(&socket, &reply).await {
                    return;
                }
            }
            last = &mut handled => break last,
            // The requester went away, or says more than one request: its question closes with it.
            () = anything_more(&socket) => return,
        }
    };
    while let Ok(reply) = queued.try_recv() {
        if !delivered(&socket, &reply).await {
            break;
        }
    }
    let loan = match &last.body {
        Reply::Lent { loan, .. } | Reply::ShellLent(ShellLent { loan, .. }) => Some(*loan),
        _ => None,
    };
    if !delivered(&socket, &last).await
        && let Some(loan) = loan
    {
        broker.undelivered(loan);
    }
}

async fn delivered(socket: &UnixStream, reply: &Message<Reply>) -> bool {
    if let Ok(bytes) = control::encode(reply) {
        return sent(socket, &bytes).await;
    }
    // Said, rather than a connection that ends without a word. What was to be said is not delivered.
    let cause = "the answer is longer than one message".to_owned();
    let error = ErrorReply { kind: ErrorKind::Protocol, cause, hint: None, details: Vec::new() };
    if let Ok(bytes) = control::encode(&Message::new(Reply::Error(error))) {
        sent(socket, &bytes).await;
    }
    false
}

async fn sent(socket: &UnixStream, bytes: &[u8]) -> bool {
    matches!(timeout(REPLY, socket::send(socket, bytes)).await, Ok(Ok(())))
}

/// Resolves when the client says something more or is gone.
async fn anything_more(socket: &UnixStream) {
    let mut byte = [0];
    while socket.readable().await.is_ok() {
        let more = socket.try_io(Interest::READABLE, || descriptors::receive(socket.as_fd(), &mut byte));
        if !more.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
            return;
        }
    }
}

async fn receive(socket: &UnixStream, peer: &Peer) -> Result<Arrived, Broken> {
    let mut descriptors = Vec::new();
    // Most requests arrive whole in the first piece.
    let mut first = Zeroizing::new([0; 4096]);
    let mut begun = 0;
    while begun < frame::PREFIX {
        begun += socket::receive(socket, peer, &mut first[begun..], &mut descriptors).await?;
    }
    let (prefix, rest) = first[..begun].split_at(frame::PREFIX);
    let lengths = frame::lengths(prefix.try_into().unwrap_or_default())?;
    let length = lengths.header + lengths.tail;
    let room = if length > LONG {
        let room = timeout(ROOM, LONG_ONES.acquire()).await;
        Some(room.ok().and_then(Result::ok).ok_or(Broken::Crowded)?)
    } else {
        None
    };
    let mut body = Zeroizing::new(vec![0; length]);
    let (head, mut open) = body.split_at_mut_checked(rest.len()).ok_or(Broken::More)?;
    head.copy_from_slice(rest);
    while !open.is_empty() {
        let more = socket::receive(socket, peer, open, &mut descriptors).await?;
        open = &mut open[more..];
    }
    let (header, tail) = body.split_at(lengths.header);
    Ok(Arrived { message: control::decode(header, tail)?, descriptors, room })
}

fn protocol_error(broken: &Broken) -> Reply {
    let hint = match broken {
        Broken::Frame(FrameError::Header(frame::HeaderFault::Version(_))) => Some(format!(
            "this daemon speaks protocol version {}; stop it and let the newer keyloan start its own: \
             keyloan daemon stop",
            version::CONTROL
        )),
        _ => None,
    };
    Reply::Error(ErrorReply {
        kind: ErrorKind::Protocol,
        cause: broken.to_string(),
        hint,
        details: Vec::new(),
    })
}
