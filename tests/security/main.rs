//! The threat model, row by row. Each attack first succeeds on an undefended victim, so that its failure
//! against keyloan means something. Attacker and victim are the same unprivileged user.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::panic,
    reason = "a test fails where it panics"
)]

mod asking;
mod desktop;
mod files;
mod interpreter;
mod lent;
mod log;
mod memory;
mod prompt;
mod shell;
mod ssh;
mod ssh_binding;
mod ssh_meanwhile;
mod ssh_sockets;
mod ssh_vault;
mod ssh_words;
mod steering;
mod trust;

use keyloan_e2e::programs::needed;
use keyloan_e2e::{Output, Sandbox};

/// Runs a Python program as the attacker.
fn attack(sandbox: &Sandbox, program: &str, arguments: &[&str]) -> Output {
    let all = [&["-c", program], arguments].concat();
    sandbox.command(needed("python3"), &all).run()
}
