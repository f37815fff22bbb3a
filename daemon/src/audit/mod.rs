//! The audit log: what was asked, decided, lent and ended, one JSON record a line, each chained to the one
//! before. A record that cannot be written means that nothing happens.

mod backwards;
pub(crate) mod event;
pub(crate) mod given;
pub(crate) mod sink;
pub(crate) mod verify;
