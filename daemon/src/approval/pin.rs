//! The approval PIN: kept as an Argon2id verifier in the sealed vault. A wrong one closes this way of asking
//! for a growing time, so that it cannot be guessed by whoever holds a terminal.

use crate::clock;
use argon2::password_hash::rand_core::OsRng;
use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};
use keyloan_protocol::secret::SecretBytes;
use std::time::Duration;

/// The shortest PIN; shorter ones fall to the tries that the delays leave.
pub(crate) const SHORTEST: usize = 4;

/// Tries within one question.
pub(crate) const TRIES: u32 = 3;

fn argon2() -> Argon2<'static> {
    // OWASP's minimum for Argon2id: 19 MiB, two passes.
    let params = Params::new(19 * 1024, 2, 1, None).unwrap_or_default();
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
}

/// The verifier of a PIN as a PHC string. Slow on purpose.
pub(crate) fn verifier(pin: &SecretBytes) -> Option<SecretBytes> {
    let salt = SaltString::generate(&mut OsRng);
    let hash = argon2().hash_password(pin.expose(), &salt).ok()?;
    Some(SecretBytes::new(hash.to_string().into_bytes()))
}

/// Whether a PIN is the one. Slow on purpose.
pub(crate) fn is_right(pin: &SecretBytes, verifier: &SecretBytes) -> bool {
    let Ok(text) = str::from_utf8(verifier.expose()) else { return false };
    let Ok(hash) = PasswordHash::new(text) else { return false };
    argon2().verify_password(pin.expose(), &hash).is_ok()
}

/// Wrong PINs in a row, and until when the way is closed. Kept in memory: a restart of the daemon locks the
/// vault, and then the passphrase is wanted.
#[derive(Default)]
pub(crate) struct Gate {
    failures: u32,
    closed_until: Duration,
}

impl Gate {
    /// Seconds until another PIN is taken, 0 for none.
    pub(crate) fn closed_for(&self) -> u64 {
        self.closed_until
            .saturating_sub(clock::since_boot())
            .as_millis()
            .div_ceil(1000)
            .try_into()
            .unwrap_or(0)
    }

    /// Counts a wrong PIN. The first two may be slips; from the third on the time doubles, up to an hour.
    pub(crate) fn wrong(&mut self) -> u32 {
        self.failures += 1;
        if self.failures >= TRIES {
            let seconds = 5_u64.saturating_mul(1 << (self.failures - TRIES).min(16)).min(3600);
            self.closed_until = clock::since_boot() + Duration::from_secs(seconds);
        }
        self.failures
    }

    pub(crate) fn right(&mut self) {
        *self = Self::default();
    }
}

/// The place of the last unlock has a count of its own: wrong PINs elsewhere do not close it, and there are as many
/// tries elsewhere as there would be on one terminal, however many terminals a program makes.
#[derive(Default)]
pub(crate) struct Gates {
    trusted: Gate,
    others: Gate,
}

/// Wrong PINs in a row at the place of the last unlock after which everything is locked.
pub(crate) const LOCKS: u32 = 5;

impl Gates {
    pub(crate) fn of(&mut self, is_trusted: bool) -> &mut Gate {
        if is_trusted { &mut self.trusted } else { &mut self.others }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_pin_that_was_set_is_right() {
        let pin = SecretBytes::copy_of(b"4711");
        let verifier = verifier(&pin).unwrap();
        assert!(verifier.expose().starts_with(b"$argon2id$"));
        assert!(is_right(&pin, &verifier));
        assert!(!is_right(&SecretBytes::copy_of(b"4712"), &verifier));
        assert!(!is_right(&pin, &SecretBytes::copy_of(b"")));
    }

    #[test]
    fn wrong_pins_close_the_way_for_a_growing_time() {
        let mut gate = Gate::default();
        gate.wrong();
        gate.wrong();
        assert_eq!(gate.closed_for(), 0);
        gate.wrong();
        assert!((4..=5).contains(&gate.closed_for()));
        gate.wrong();
        assert!((9..=10).contains(&gate.closed_for()));
        for _ in 0..40 {
            gate.wrong();
        }
        assert!((3599..=3600).contains(&gate.closed_for()));
        gate.right();
        assert_eq!(gate.closed_for(), 0);
    }
}
