//! Bad input and broken surroundings: a clear message, nothing lost, nothing released.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails where it panics, and the matrix prints its table"
)]

mod commands;
mod extremes;
mod frames;
mod manifest;
mod matrix;
mod ssh_clients;
mod ssh_frames;
mod stuck;
mod vault;
