//! What is running, and how well it is protected.

use super::Broker;
use crate::clock;
use crate::vault::local::LocalVault;
use crate::vault::local::index::{Entry, Kind};
use keyloan_platform::process;
use keyloan_protocol::control::response::{Reply, Status, Tier};
use keyloan_protocol::names::escaped;

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
        if self.log_mismatched.get() {
            warnings.push(
                "the audit log was not the one that the vault remembers: it was cut, replaced or put back; look \
                 at it with: keyloan log --verify"
                    .to_owned(),
            );
        }
        for name in vault.unlisted_recipients() {
            warnings.push(format!(
                "identity/{name} in the vault is none that keyloan made or finished making; remove it"
            ));
        }
        warnings.extend(reminders(&vault));
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
            loans: self.loans.borrow().out().count(),
            kept: self.shown_kept(),
            held: self.loans.borrow().all().filter(|(_, loan)| loan.over.is_some()).count(),
            pending: self.queue.pending(),
            log_path: log.path().display().to_string(),
            log_works: log.works(),
        })
    }
}

/// Days before its expiry from which an item is told of.
const REMIND: i64 = 14;

fn reminders(vault: &LocalVault) -> Vec<String> {
    let (today, soon) = (clock::today(), clock::day_after(REMIND));
    let entries = vault.index().map(|index| index.entries(Kind::Item)).unwrap_or_default();
    let told = |entry: &&Entry| {
        let day = entry.expires.as_ref().filter(|day| **day <= soon)?;
        let verb = if *day < today { "expired" } else { "expires" };
        Some(format!("item '{}' {verb} on {day}", escaped(&entry.title, 200)))
    };
    entries.iter().filter_map(told).collect()
}
