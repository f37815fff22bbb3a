//! What crosses a keyloan socket: types and bytes, no I/O, no async.
//!
//! `docs/protocol.md` is the prose of this crate and `vectors/` its bytes; a change to either is a
//! change of the contract.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    warn(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)
)]

pub mod control;
pub mod env_vars;
pub mod frame;
pub mod limits;
pub mod names;
pub mod reference;
pub mod secret;
pub mod shell_vars;
pub mod ssh_agent;
pub mod time_span;
pub mod vault_kinds;
pub mod version;
