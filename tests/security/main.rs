//! The threat model, row by row. Each attack first succeeds on an undefended victim, so that its failure
//! against keyloan means something. Attacker and victim are the same unprivileged user.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::panic,
    reason = "a test fails where it panics"
)]

mod approve;
mod asking;
mod askpass;
mod clock;
mod crowd;
mod crowd_memory;
mod desktop;
mod files;
mod first_use;
mod flood;
mod hasty;
mod identity;
mod injection;
mod interpreter;
mod keyring;
mod lent;
mod log;
mod loosened;
mod memory;
mod notification;
mod phrase;
mod pids;
mod pinentry;
mod policy;
mod prompt;
mod shell;
mod shell_names;
mod shell_planted;
mod ssh;
mod ssh_binding;
mod ssh_first_use;
mod ssh_meanwhile;
mod ssh_sockets;
mod ssh_unlock;
mod ssh_vault;
mod ssh_words;
mod steering;
mod trust;
mod vaults;
mod vaults_command;
mod vaults_keepass;
mod vaults_pass;
mod wayland;

use keyloan_e2e::programs::needed;
use keyloan_e2e::{Output, Sandbox};

/// Runs a Python program as the attacker.
fn attack(sandbox: &Sandbox, program: &str, arguments: &[&str]) -> Output {
    let all = [&["-c", program], arguments].concat();
    sandbox.command(needed("python3"), &all).run()
}
