//! What keyloan is for, with real programs. One story a module.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::panic,
    reason = "a test fails where it panics"
)]

mod architecture;
mod daemon;
mod desktop;
mod first_loan;
mod publish;
mod recovery;
mod terminal;
mod vault;
