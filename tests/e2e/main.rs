//! What keyloan is for, with real programs. One story a module.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::panic,
    reason = "a test fails where it panics"
)]

mod approve;
mod approver;
mod architecture;
mod copies;
mod daemon;
mod desktop;
mod files;
mod first_loan;
mod git_ssh;
mod grants;
mod loans;
mod logind;
mod looks;
mod mask;
mod mask_processes;
mod mask_terminal;
mod phrase;
mod policy;
mod publish;
mod recovery;
mod service;
mod shell_before;
mod shell_completion;
mod shell_loans;
mod shell_settings;
mod shell_terms;
mod show;
mod ssh_add;
mod ssh_agent_lib;
mod ssh_certified;
mod ssh_clients;
mod ssh_files;
mod ssh_first_use;
mod ssh_forwarded;
mod ssh_keys;
mod ssh_linked;
mod ssh_linked_bounds;
mod ssh_locked;
mod ssh_login;
mod ssh_many;
mod ssh_oracle;
mod ssh_stand_in;
mod ssh_upstream;
mod terminal;
mod unlock_keyring;
mod vault;
mod vault_bitwarden;
mod vault_bitwarden_bad;
mod vault_cache;
mod vault_command;
mod vault_copy;
mod vault_count;
mod vault_keepass;
mod vault_keyring;
mod vault_limits;
mod vault_links;
mod vault_onepassword;
mod vault_onepassword_bad;
mod vault_onepassword_connect;
mod vault_openbao;
mod vault_openbao_faults;
mod vault_openbao_leases;
mod vault_pass;
mod vault_rbw;
mod vault_search;
mod wayland;
mod ways;
