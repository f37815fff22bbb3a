//! The control socket: one request a connection (`connection`), and which part of the broker serves it
//! (`dispatch`).

mod connection;
mod dispatch;

use crate::broker::Broker;
use crate::socket::Listening;
use std::rc::Rc;

/// Connections served at once; each may announce a frame of some megabytes.
const CONNECTIONS: usize = 512;

pub(crate) async fn serve(listening: &Listening, broker: &Rc<Broker>) {
    listening
        .serve(CONNECTIONS, |socket, peer| {
            let broker = Rc::clone(broker);
            async move { connection::serve(&broker, socket, peer).await }
        })
        .await;
}
