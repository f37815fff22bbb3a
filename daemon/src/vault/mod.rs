//! The places that store items: the built-in vault, and those that people have elsewhere, one file or folder a kind.

pub(crate) mod linked;
pub(crate) mod local;
