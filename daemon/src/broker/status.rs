//! What is running, and how well it is protected.

use super::Broker;
use crate::vault::local::index::Kind;
use keyloan_platform::process;
use keyloan_protocol::control::response::{LoanSummary, Reply, Status, Tier};

impl Broker {
    pub(crate) fn status(&self) -> Reply {
        let vault_state = self.vault.borrow_mut().state();
        let vault = self.vault.borrow();
        let log = self.log.borrow();
        let mut warnings = Vec::new();
        if !process::in_first_user_namespace() {
            warnings.push(
                "the daemon runs inside a user namespace; whoever made that can read its memory".to_owned(),
            );
        }
        if !log.works() {
            warnings.push("the audit log is broken, so every request is refused".to_owned());
        }
        let anchored = vault.index().ok().and_then(|index| index.anchor().cloned());
        if let Some(anchor) = anchored.filter(|anchor| anchor.sequence > log.sequence()) {
            warnings.push(format!(
                "the audit log has {} records where the vault remembers {}: it was cut",
                log.sequence(),
                anchor.sequence
            ));
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
            questions: self.where_questions_go(),
            loans: self.loans.borrow().count(),
            pending: self.queue.pending(),
            log_path: log.path().display().to_string(),
            log_works: log.works(),
        })
    }

    pub(crate) fn list_loans(&self) -> Reply {
        let loans = self.loans.borrow();
        let loans = loans.out().map(|(id, loan)| LoanSummary {
            id,
            pid: loan.pid.unsigned_abs(),
            program: loan.program.clone(),
            variables: loan.variables.clone(),
            since: loan.since.clone(),
            directory: loan.directory.clone(),
        });
        Reply::Loans { loans: loans.collect() }
    }
}
