//! What holds whoever asks again and again back, until a tired person says yes: after two questions in a row that
//! nobody allowed, further ones from the same terminal (or from none) are refused for a growing time.

use std::collections::HashMap;
use std::time::Duration;

/// Questions in a row that were declined or not answered, before it begins.
const FREE: u32 = 2;
const FIRST: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(300);

/// Places remembered: whoever makes more terminals than that begins with none of them anew.
const PLACES: usize = 256;

/// By the requester's terminal, 0 for none. Times are since boot.
#[derive(Default)]
pub(crate) struct Flood(HashMap<u64, Noes>);

#[derive(Default)]
struct Noes {
    in_a_row: u32,
    until: Duration,
}

impl Flood {
    /// Whole seconds until this place may ask again, 0 for now.
    pub(crate) fn closed_for(&self, place: u64, now: Duration) -> u64 {
        let until = self.0.get(&place).map_or(Duration::ZERO, |noes| noes.until);
        until.saturating_sub(now).as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX)
    }

    pub(crate) fn no(&mut self, place: u64, now: Duration) {
        if !self.0.contains_key(&place) && self.0.len() >= PLACES {
            // The one that has been free to ask for longest, if any is.
            let oldest = self.0.iter().min_by_key(|(_, noes)| noes.until).map(|(place, _)| *place);
            self.0.retain(|place, _| Some(*place) != oldest);
        }
        let noes = self.0.entry(place).or_default();
        noes.in_a_row = noes.in_a_row.saturating_add(1);
        if noes.in_a_row >= FREE {
            let doublings = (noes.in_a_row - FREE).min(16);
            noes.until = now + FIRST.saturating_mul(1 << doublings).min(LONGEST);
        }
    }

    pub(crate) fn yes(&mut self, place: u64) {
        self.0.remove(&place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn two_noes_in_a_row_close_a_place_for_a_growing_time() {
        let mut flood = Flood::default();
        flood.no(7, at(0));
        assert_eq!(flood.closed_for(7, at(0)), 0);
        flood.no(7, at(1));
        assert_eq!((flood.closed_for(7, at(1)), flood.closed_for(7, at(11))), (10, 0));
        assert_eq!(flood.closed_for(8, at(1)), 0, "another terminal is another person's");
        flood.no(7, at(12));
        assert_eq!(flood.closed_for(7, at(12)), 20);
        for _ in 0..40 {
            flood.no(7, at(100));
        }
        assert_eq!(flood.closed_for(7, at(100)), 300);
        flood.yes(7);
        assert_eq!(flood.closed_for(7, at(100)), 0);
        flood.no(7, at(100));
        assert_eq!(flood.closed_for(7, at(100)), 0, "and it begins anew");
    }

    #[test]
    fn no_number_of_terminals_makes_it_forget_one_that_is_closed() {
        let mut flood = Flood::default();
        flood.no(1, at(0));
        flood.no(1, at(0));
        for place in 2..2000 {
            flood.no(place, at(0));
        }
        assert!(flood.0.len() <= PLACES && flood.closed_for(1, at(0)) > 0);
    }
}
