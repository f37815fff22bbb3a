//! The test harness: a private home of an unprivileged user, a daemon that ends with its test, approver
//! doubles, real terminals.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::missing_panics_doc,
    reason = "a harness: what goes wrong here fails the test that uses it"
)]

pub mod agent;
pub mod approver;
pub mod bitwarden;
pub mod desktop;
pub mod keepass;
pub mod keyring;
pub mod linked;
pub mod notification;
pub mod onepassword;
pub mod openbao;
pub mod pass;
pub mod programs;
pub mod sandbox;
pub mod shell;
pub mod ssh;
pub mod sshd;
pub mod terminal;
pub mod wayland;
pub mod window;
pub mod wire;

pub use sandbox::{Output, PASSPHRASE, PIN, Running, Sandbox};

use std::time::{Duration, Instant};

/// Waits for something to become true; fails the test with the name of what was awaited.
pub fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !check() {
        assert!(Instant::now() < deadline, "it never came about: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
