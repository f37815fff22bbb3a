//! Bad input and broken surroundings: a clear message, nothing lost, nothing released.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::panic,
    reason = "a test fails where it panics"
)]

mod commands;
mod frames;
mod manifest;
mod stuck;
mod vault;
