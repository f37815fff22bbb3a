//! Golden texts of every kind of question, as they come up on a terminal of 80 columns. They stand in
//! `docs/prompts.md`; with `KEYLOAN_BLESS=1` they are written there anew.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    clippy::panic,
    reason = "a test fails where it panics"
)]

mod asked;
mod opening;
mod page;
mod places;
mod ssh;
mod steady;
mod vault;
mod vaults;
