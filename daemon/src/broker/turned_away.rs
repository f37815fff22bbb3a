//! Requests of a flood: refused before anybody is asked, by a rule or because nobody could be. A thousand a second would
//! fill the disk with records that all say the same, so some are written down as any other is, and of those that follow
//! at once how many they were.

use super::{Broker, Refusal};
use crate::approval::No;
use crate::audit::event::Event;
use crate::audit::sink::Durable;
use crate::clock;
use crate::policy::rule::Verdict;
use crate::requester::Requester;
use std::time::Duration;

/// So many within such a time are written down each.
const WRITTEN: (u32, Duration) = (8, Duration::from_secs(5));

#[derive(Default)]
pub(super) struct TurnedAway {
    /// Since boot.
    from: Duration,
    written: u32,
    counted: u64,
}

impl Broker {
    /// Refuses what could not be asked whenever its turn came. An approver program tires of nothing.
    pub(super) fn admits(&self, requester: &Requester, verdict: Verdict) -> Result<(), No> {
        let asker = self.asker(requester);
        if self.with_policy(|policy| policy.program_answers(verdict).is_some()).unwrap_or(false) {
            self.queue.board.denies()?;
            return self.queue.has_room(asker);
        }
        self.queue.admits(asker, self.desktop().as_ref())
    }

    /// Writes down what cost its requester nothing, and is refused.
    pub(super) fn turn_away(&self, events: &[&Event]) -> Result<(), Refusal> {
        let now = clock::since_boot();
        let mut turned_away = self.turned_away.borrow_mut();
        if now.saturating_sub(turned_away.from) >= WRITTEN.1 {
            turned_away.from = now;
            turned_away.written = 0;
        }
        if turned_away.written >= WRITTEN.0 {
            turned_away.counted += 1;
            return Ok(());
        }
        turned_away.written += 1;
        drop(turned_away);
        self.tell_turned_away()?;
        // Nothing follows from it.
        Ok(self.record_all(events, Durable::Soon)?)
    }

    /// Called every few seconds.
    pub(super) fn tell_turned_away(&self) -> Result<(), Refusal> {
        let count = std::mem::take(&mut self.turned_away.borrow_mut().counted);
        if count > 0 {
            self.record(&Event::TurnedAway { count }, Durable::Soon)?;
        }
        Ok(())
    }
}
