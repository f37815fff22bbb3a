//! What is running, and how well it is protected.

use super::Broker;
use crate::vault::local::index::Kind;
use keyloan_platform::process;
use keyloan_protocol::control::response::{Reply, Status, Tier};

impl Broker {
    pub(crate) fn status(&self) -> Reply {
        let vault_state = self.vault.borrow_mut().state();
        let vault = self.vault.borrow();
        let log = self.log.borrow();
        let approver = self.with_policy(|policy| policy.approver.clone()).ok().flatten();
        let mut warnings = Vec::new();
        if !process::in_first_user_namespace() {
            warnings.push(
                "the daemon runs inside a user namespace; whoever made that can read its memory".to_owned(),
            );
        }
        if !log.works() {
            warnings.push("the audit log is broken, so every request is refused".to_owned());
        }
        if self.log_mismatched.get() {
            warnings.push(
                "the audit log was not the one that the vault remembers: it was cut, replaced or put back; look \
                 at it with: keyloan log --verify"
                    .to_owned(),
            );
        }
        let keys = vault.keys().ok().map(|keys| keys.protection().describe());
        Reply::Status(Status {
            daemon_version: env!("CARGO_PKG_VERSION").to_owned(),
            protocol_version: keyloan_protocol::version::CONTROL,
            pid: std::process::id(),
            vault: vault_state,
            vault_path: vault.path().display().to_string(),
            items: vault.index().ok().map(|index| index.entries(Kind::Item).len()),
            locks_in_seconds: self.idle_left().map(|left| left.as_secs()),
            tier: Tier::BestEffort,
            warnings,
            key_memory: keys.unwrap_or("none in use").to_owned(),
            questions: approver.map_or_else(
                || "the requester's own terminal, with the PIN".to_owned(),
                |program| format!("the approver program {}", program.path.display()),
            ),
            loans: self.loans.borrow().out().count(),
            held: self.loans.borrow().all().filter(|(_, loan)| loan.over.is_some()).count(),
            pending: self.queue.pending(),
            log_path: log.path().display().to_string(),
            log_works: log.works(),
        })
    }
}
