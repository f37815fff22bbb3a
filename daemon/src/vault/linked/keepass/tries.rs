//! How often a database may be tried. Any program of the user can have it opened, and put another file in its place: the
//! daemon would tell it in no time which password is the right one.

use super::super::Fault;
use std::cell::RefCell;
use std::time::Duration;

/// Failures that nobody waits for.
const FREE: u32 = 5;
/// After one more; twice that after the next.
const FIRST: Duration = Duration::from_secs(10);
/// The longest wait, after which all is forgotten.
const LONGEST: Duration = Duration::from_secs(3600);

/// How a refusal begins.
pub(super) const TOO_OFTEN: &str = "it could not be opened too often";

#[derive(Default)]
pub(super) struct Tries(RefCell<Option<Failed>>);

#[derive(Clone, Copy)]
struct Failed {
    times: u32,
    /// On the clock that goes on during suspend.
    last: Duration,
}

impl Failed {
    fn wait(self) -> Duration {
        let doublings = self.times.checked_sub(FREE);
        doublings.map_or(Duration::ZERO, |times| FIRST.saturating_mul(1 << times.min(20)).min(LONGEST))
    }
}

impl Tries {
    /// Counts one as failed, until it is taken back.
    pub(super) fn begin(&self, now: Duration) -> Result<Attempt<'_>, Fault> {
        let held = self.may_begin(now)?;
        *self.0.borrow_mut() = Some(Failed { times: held + 1, last: now });
        Ok(Attempt(self))
    }

    /// How many have failed, where another may be made now.
    pub(super) fn may_begin(&self, now: Duration) -> Result<u32, Fault> {
        let held = *self.0.borrow();
        let held = held.filter(|failed| now.saturating_sub(failed.last) <= LONGEST);
        if let Some(failed) = held {
            let left = failed.wait().saturating_sub(now.saturating_sub(failed.last));
            if !left.is_zero() {
                let left = left.as_secs() + 1;
                let cause = format!("{TOO_OFTEN}, and is tried again in {left} s");
                return Err(Fault::Locked(cause));
            }
        }
        Ok(held.map_or(0, |failed| failed.times))
    }
}

pub(super) struct Attempt<'a>(&'a Tries);

impl Attempt<'_> {
    /// It was opened, or ended before anybody could know whether it would be. Those that failed before still count:
    /// whoever guesses can have the right file back in between.
    pub(super) fn take_back(&self) {
        if let Some(failed) = self.0.0.borrow_mut().as_mut() {
            failed.times = failed.times.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_after_the_fifth_takes_twice_as_long_until_an_hour_has_passed() {
        let (tries, mut now) = (Tries::default(), Duration::from_secs(1_000_000));
        let second = Duration::from_secs(1);
        for _ in 0..5 {
            tries.begin(now).unwrap();
        }
        for wait in [10, 20, 40, 80] {
            assert!(tries.begin(now).is_err());
            assert!(tries.begin(now + second * (wait - 1)).is_err());
            now += second * wait;
            tries.begin(now).unwrap();
        }
        now += LONGEST + second;
        for _ in 0..5 {
            tries.begin(now).unwrap();
        }
        assert!(tries.begin(now).is_err());
    }

    #[test]
    fn one_that_succeeds_does_not_count_and_takes_no_other_back() {
        let (tries, now) = (Tries::default(), Duration::from_secs(1_000_000));
        for _ in 0..100 {
            tries.begin(now).unwrap().take_back();
        }
        for _ in 0..5 {
            tries.begin(now).unwrap();
            let _ = tries.begin(now).map(|attempt| attempt.take_back());
        }
        assert!(tries.begin(now).is_err());
    }
}
