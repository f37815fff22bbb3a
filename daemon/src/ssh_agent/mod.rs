//! The agent's sockets: the daemon's own, and those that stand in for an `ssh-agent` somewhere else, each for as
//! long as whoever brought it lives.

mod session;

use crate::broker::{AgentConnection, AgentSocket, Broker};
use crate::requester::Requester;
use crate::socket::Listening;
use keyloan_platform::peer::Peer;
use std::rc::Rc;
use tokio::net::UnixStream;

/// Connections of one socket at once: a client that says nothing costs three descriptors.
const CONNECTIONS: usize = 2048;

pub(crate) async fn serve(listening: &Listening, broker: &Rc<Broker>) {
    let stand_ins = async {
        let Some(mut sockets) = broker.agent_sockets_brought() else { return };
        while let Some(brought) = sockets.recv().await {
            let broker = Rc::clone(broker);
            tokio::task::spawn_local(async move {
                tokio::select! {
                    () = brought.listening.serve(CONNECTIONS, |socket, peer| {
                        connected(Rc::clone(&broker), Rc::clone(&brought.socket), socket, peer)
                    }) => {}
                    () = brought.until.ended() => {}
                }
                broker.agent_socket_gone(&brought.socket);
                drop(brought.held);
            });
        }
    };
    let own = broker.own_agent_socket();
    let serving = listening
        .serve(CONNECTIONS, |socket, peer| connected(Rc::clone(broker), Rc::clone(&own), socket, peer));
    tokio::join!(serving, stand_ins);
}

async fn connected(broker: Rc<Broker>, at: Rc<AgentSocket>, socket: UnixStream, peer: Peer) {
    // A requester of whom nothing can be said is not served.
    let Some(requester) = Requester::observe(Rc::new(peer)) else { return };
    let mut connection = AgentConnection::new(requester, at);
    // However it ended: the client is gone, and there is nobody to tell.
    let _ = session::serve(&broker, &socket, &mut connection).await;
}
