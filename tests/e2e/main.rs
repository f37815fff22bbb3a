//! What keyloan is for, with real programs. One story a module.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::panic,
    reason = "a test fails where it panics"
)]

mod architecture;
mod copies;
mod daemon;
mod desktop;
mod files;
mod first_loan;
mod loans;
mod mask;
mod mask_processes;
mod mask_terminal;
mod publish;
mod recovery;
mod service;
mod ssh_agent_lib;
mod terminal;
mod vault;
