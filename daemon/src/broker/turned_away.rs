//! Requests of a flood: refused before anybody is asked. A thousand a second would fill the disk with records that all
//! say the same, so one is written down as any other is, and of those that follow within some seconds how many they were.

use super::{Broker, Refusal};
use crate::approval::No;
use crate::audit::event::Event;
use crate::audit::sink::Durable;
use crate::clock;
use crate::requester::Requester;
use std::time::Duration;

/// Refusals so soon after one that was written down are counted.
const COUNTED: Duration = Duration::from_secs(5);

#[derive(Default)]
pub(super) struct TurnedAway {
    /// When one was written down, since boot.
    written: Option<Duration>,
    since: u64,
}

impl Broker {
    /// Refuses what could not be asked whenever its turn came. An approver program tires of nothing.
    pub(super) fn admits(&self, requester: &Requester) -> Result<(), No> {
        let asker = self.asker(requester);
        if self.with_policy(|policy| policy.approver.is_some()).unwrap_or(false) {
            return self.queue.has_room(asker);
        }
        self.queue.admits(asker, self.desktop().as_ref())
    }

    pub(super) fn turn_away(&self, requested: &Event, declined: &Event) -> Result<(), Refusal> {
        let now = clock::since_boot();
        let mut turned_away = self.turned_away.borrow_mut();
        if turned_away.written.is_some_and(|written| now.saturating_sub(written) < COUNTED) {
            turned_away.since += 1;
            return Ok(());
        }
        let count = std::mem::take(&mut turned_away.since);
        turned_away.written = Some(now);
        drop(turned_away);
        self.note_turned_away(count)?;
        // Nothing follows from it.
        Ok(self.record_all(&[requested, declined], Durable::Soon)?)
    }

    /// Called every few seconds.
    pub(super) fn tell_turned_away(&self) {
        let count = std::mem::take(&mut self.turned_away.borrow_mut().since);
        // A refusal does not depend on its record.
        let _ = self.note_turned_away(count);
    }

    fn note_turned_away(&self, count: u64) -> Result<(), Refusal> {
        if count > 0 {
            self.record(&Event::TurnedAway { count }, Durable::Soon)?;
        }
        Ok(())
    }
}
