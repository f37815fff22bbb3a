//! The control socket: who may connect (`accept`), one request a connection (`connection`), and which part
//! of the broker serves it (`dispatch`).

pub(crate) mod accept;
mod connection;
mod dispatch;
