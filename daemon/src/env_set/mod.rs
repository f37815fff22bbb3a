//! Which variables a command is to get: read from `.keyloan.toml` (`manifest`) and from items, and put
//! together (`plan`) without reading any secret.

pub(crate) mod manifest;
pub(crate) mod plan;
mod planned;
