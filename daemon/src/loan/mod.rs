//! What is out, and with whom. Pure: time is passed in.

pub(crate) mod table;
