//! The agent's sockets: the daemon's own, and those that stand in for an `ssh-agent` somewhere else, each for as
//! long as whoever brought it lives.

mod session;

use crate::broker::{AgentConnection, AgentSocket, Broker};
use crate::requester::Requester;
use crate::socket::Listening;
use std::rc::Rc;

/// Connections of one socket at once: a client that says nothing costs three descriptors.
const CONNECTIONS: usize = 2048;

pub(crate) async fn serve(listening: &Listening, broker: &Rc<Broker>) {
    let stand_ins = async {
        while let Some(brought) = broker.agent_socket_brought().await {
            let broker = Rc::clone(broker);
            tokio::task::spawn_local(async move {
                tokio::select! {
                    () = serve_socket(&brought.listening, &broker, &brought.socket) => {}
                    () = brought.until.ended() => {}
                }
                broker.agent_socket_gone(&brought.socket);
                drop(brought.held);
            });
        }
    };
    let own = Rc::new(AgentSocket::own());
    tokio::join!(serve_socket(listening, broker, &own), stand_ins);
}

async fn serve_socket(listening: &Listening, broker: &Rc<Broker>, at: &Rc<AgentSocket>) {
    listening
        .serve(CONNECTIONS, |socket, peer| {
            let (broker, at) = (Rc::clone(broker), Rc::clone(at));
            async move {
                // A requester of whom nothing can be said is not served.
                let Some(requester) = Requester::observe(Rc::new(peer)) else { return };
                let mut connection = AgentConnection::new(requester, at);
                // However it ended: the client is gone, and there is nobody to tell.
                let _ = session::serve(&broker, &socket, &mut connection).await;
            }
        })
        .await;
}
