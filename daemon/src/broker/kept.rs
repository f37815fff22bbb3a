//! Values of linked vaults that are kept for a time, where the policy says so. They stand in for the vault's answer and
//! for nothing else: each use has its own approval and its own record. They are forgotten at their time, on the clock
//! that goes on during suspend, with the local vault's lock, and with any change of the policy, of the link, or of a
//! value in that vault that goes by keyloan.

use super::linked::Asked;
use super::sealing::{Sealed, Sealing};
use super::{Approved, Broker};
use crate::clock;
use crate::vault::linked::links::Link;
use keyloan_protocol::names::VaultName;
use keyloan_protocol::reference::Reference;
use keyloan_protocol::secret::SecretBytes;
use keyloan_protocol::time_span::TimeSpan;
use std::collections::HashMap;
use std::time::Duration;
use zeroize::Zeroizing;

/// What all of them take together, in bytes: what is more is read each time.
const TOGETHER: usize = 8 * 1024 * 1024;

/// What a sealed value takes besides itself: its tag.
const TAG: usize = 16;

#[derive(Default)]
pub(super) struct Kept {
    /// A new key after each lock.
    sealing: Option<Sealing>,
    /// By their links' names.
    values: HashMap<Reference, Value>,
    /// How often something was forgotten before its time: what was read before that is not kept after it.
    changes: u64,
}

struct Value {
    sealed: Sealed,
    /// Since boot.
    until: Duration,
}

/// When a read began.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Since(u64);

impl Kept {
    pub(super) fn since(&self) -> Since {
        Since(self.changes)
    }

    pub(super) fn forget_all(&mut self) {
        *self = Self { changes: self.changes + 1, ..Self::default() };
    }

    pub(super) fn forget(&mut self, vault: &VaultName) {
        self.changes += 1;
        self.values.retain(|reference, _| reference.vault != *vault);
    }

    pub(super) fn forget_expired(&mut self, now: Duration) {
        self.values.retain(|_, value| now < value.until);
    }

    pub(super) fn count(&self, vault: &VaultName) -> usize {
        self.values.keys().filter(|reference| reference.vault == *vault).count()
    }

    fn get(&self, reference: &Reference, now: Duration) -> Option<SecretBytes> {
        let value = self.values.get(reference).filter(|value| now < value.until)?;
        let bytes = self.sealing.as_ref()?.open(&value.sealed)?;
        Some(SecretBytes::copy_of(&bytes))
    }

    fn keep(&mut self, reference: Reference, value: &SecretBytes, until: Duration) {
        let length: usize = self.values.values().map(|value| value.sealed.len()).sum();
        if length + value.len() + TAG > TOGETHER {
            return;
        }
        if self.sealing.is_none() {
            self.sealing = Sealing::new();
        }
        // At its full size from the first: one that grows leaves a copy.
        let mut bytes = Zeroizing::new(Vec::with_capacity(value.len() + TAG));
        bytes.extend_from_slice(value.expose());
        // Without protected pages it is read again.
        if let Some(sealed) = self.sealing.as_ref().and_then(|sealing| sealing.seal(bytes)) {
            self.values.insert(reference, Value { sealed, until });
        }
    }
}

impl Broker {
    /// How long values of this vault are kept, if they are.
    pub(super) fn keeps(&self, vault: &VaultName) -> Option<Duration> {
        self.with_policy(|policy| policy.vault_cache.get(vault).copied()).ok().flatten()
    }

    /// For `status`, the links that the policy has values kept of.
    pub(super) fn shown_kept(&self) -> Vec<String> {
        let Ok(links) = self.links() else { return Vec::new() };
        let shown = |link: &Link| {
            let (time, count) = (self.keeps(&link.name)?, self.linked.kept.borrow().count(&link.name));
            Some(format!("values of {} are kept for {}; {count} now", link.name, TimeSpan::of(time)))
        };
        links.iter().filter_map(shown).collect()
    }

    pub(super) fn kept_value(
        &self,
        _approved: &Approved,
        link: &Link,
        wanted: &Reference,
    ) -> Option<SecretBytes> {
        self.keeps(&link.name)?;
        self.linked.kept.borrow().get(&kept_as(&link.name, wanted), clock::since_boot())
    }

    /// Keeps what was just read, unless something was forgotten since.
    pub(super) fn keep(&self, asked: &Asked, read: &[(Reference, SecretBytes)], since: Since) {
        let mut kept = self.linked.kept.borrow_mut();
        let Some(time) = self.keeps(&asked.name).filter(|_| kept.since() == since) else { return };
        let until = clock::since_boot().saturating_add(time);
        for (reference, value) in read.iter().filter(|(reference, _)| asked.vault.lasts(reference)) {
            kept.keep(kept_as(&asked.name, reference), value, until);
        }
    }
}

/// Whatever the vault was called in the reference.
fn kept_as(vault: &VaultName, reference: &Reference) -> Reference {
    Reference { vault: vault.clone(), ..reference.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn reference(text: &str) -> Reference {
        Reference::parse(text).unwrap()
    }

    fn get(kept: &Kept, at: &str, now: Duration) -> Option<Vec<u8>> {
        kept.get(&reference(at), now).map(|value| value.expose().to_vec())
    }

    #[test]
    fn a_value_is_kept_until_its_time_and_no_longer() {
        let mut kept = Kept::default();
        kept.keep(reference("bw://a/b"), &SecretBytes::copy_of(b"tok"), MINUTE);
        assert_eq!(get(&kept, "bw://a/b", Duration::from_millis(59_999)), Some(b"tok".to_vec()));
        assert_eq!(get(&kept, "bw://a/b", MINUTE), None);
        assert_eq!(get(&kept, "bw://a/c", Duration::ZERO), None);
        kept.forget_expired(MINUTE);
        assert_eq!(get(&kept, "bw://a/b", Duration::ZERO), None, "it is gone, not only passed over");
    }

    #[test]
    fn what_changes_forgets_and_outdates_what_is_being_read() {
        let mut kept = Kept::default();
        for at in ["bw://a/b", "pass://a/b"] {
            kept.keep(reference(at), &SecretBytes::copy_of(b"tok"), MINUTE);
        }
        let since = kept.since();
        kept.forget(&VaultName::parse("bw").unwrap());
        assert!(kept.since() != since);
        assert_eq!(get(&kept, "bw://a/b", Duration::ZERO), None);
        assert!(get(&kept, "pass://a/b", Duration::ZERO).is_some());
        let since = kept.since();
        kept.forget_all();
        assert!(kept.since() != since && kept.values.is_empty() && kept.sealing.is_none());
    }

    #[test]
    fn values_are_sealed_and_no_more_are_kept_than_there_is_room_for() {
        let mut kept = Kept::default();
        let value = SecretBytes::new(vec![b'x'; 1024 * 1024]);
        for at in 0..20 {
            kept.keep(reference(&format!("bw://{at}/b")), &value, MINUTE);
        }
        let count = kept.count(&VaultName::parse("bw").unwrap());
        assert_eq!(count, 7, "with their tags");
        for held in kept.values.values() {
            assert!(!held.sealed.holds(b"xxxxxxxx"));
        }
    }
}
