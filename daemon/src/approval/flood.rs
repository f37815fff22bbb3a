//! What holds whoever asks again and again back, until a tired person says yes. After questions in a row that nobody
//! allowed further ones are refused for a growing time: from the same place, and, where they came up on a surface that
//! all places share (a window, the enrolled terminal), from every place but that of the last unlock, since a new
//! terminal costs an attacker nothing.

use super::No;
use crate::requester::Origin;
use std::collections::HashMap;
use std::time::Duration;

/// Questions in a row that were declined or not answered, before it begins: of one place, and on a shared surface.
const FREE: u32 = 2;
const FREE_SHARED: u32 = 3;
const FIRST: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(300);
/// Six times the longest wait: to be patient gains nothing over being held back.
const FORGOTTEN: Duration = Duration::from_secs(1800);

/// Places remembered: whoever makes more terminals than that begins with none of them anew.
const PLACES: usize = 256;

/// Who asks, as far as it is counted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asker {
    pub(crate) origin: Origin,
    /// From the terminal of the last unlock.
    pub(crate) is_home: bool,
}

/// Times are since boot.
#[derive(Default)]
pub(super) struct Flood {
    places: HashMap<Origin, Noes>,
    shared: Noes,
}

#[derive(Default)]
struct Noes {
    in_a_row: u32,
    last: Duration,
    until: Duration,
}

impl Noes {
    /// Whole seconds.
    fn left(&self, now: Duration) -> u64 {
        self.until.saturating_sub(now).as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX)
    }

    fn one_more(&mut self, free: u32, now: Duration) {
        if now.saturating_sub(self.last) > FORGOTTEN {
            self.in_a_row = 0;
        }
        self.in_a_row = self.in_a_row.saturating_add(1);
        self.last = now;
        if self.in_a_row >= free {
            let doublings = (self.in_a_row - free).min(16);
            self.until = now + FIRST.saturating_mul(1 << doublings).min(LONGEST);
        }
    }
}

impl Flood {
    pub(super) fn check(&self, asker: Asker, is_shared: bool, now: Duration) -> Result<(), No> {
        match self.places.get(&asker.origin).map_or(0, |noes| noes.left(now)) {
            0 => {}
            seconds => return Err(No::Cooling(seconds)),
        }
        match self.shared.left(now) {
            seconds if seconds > 0 && is_shared && !asker.is_home => Err(No::CoolingAll(seconds)),
            _ => Ok(()),
        }
    }

    pub(super) fn no(&mut self, asker: Asker, is_shared: bool, now: Duration) {
        if !self.places.contains_key(&asker.origin) && self.places.len() >= PLACES {
            // The one that has been free to ask for longest, if any is.
            let oldest = self.places.iter().min_by_key(|(_, noes)| noes.until).map(|(place, _)| *place);
            self.places.retain(|place, _| Some(*place) != oldest);
        }
        let noes = self.places.entry(asker.origin).or_default();
        noes.one_more(FREE, now);
        // A place that is held back by itself is not to close the surface to all others.
        if is_shared && !asker.is_home && noes.in_a_row <= FREE {
            self.shared.one_more(FREE_SHARED, now);
        }
    }

    pub(super) fn yes(&mut self, asker: Asker) {
        self.places.remove(&asker.origin);
        self.shared = Noes::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn place(number: u64) -> Asker {
        Asker { origin: Origin::Terminal(number, (1, 1)), is_home: false }
    }

    fn closed_for(flood: &Flood, asker: Asker, is_shared: bool, now: Duration) -> u64 {
        match flood.check(asker, is_shared, now) {
            Ok(()) => 0,
            Err(No::Cooling(seconds) | No::CoolingAll(seconds)) => seconds,
            Err(no) => panic!("{no}"),
        }
    }

    #[test]
    fn two_noes_in_a_row_close_a_place_for_a_growing_time() {
        let mut flood = Flood::default();
        let left = |flood: &Flood, seconds| closed_for(flood, place(7), false, at(seconds));
        flood.no(place(7), false, at(0));
        assert_eq!(left(&flood, 0), 0);
        flood.no(place(7), false, at(1));
        assert_eq!((left(&flood, 1), left(&flood, 11)), (10, 0));
        assert_eq!(closed_for(&flood, place(8), true, at(1)), 0, "another terminal is another person's");
        flood.no(place(7), false, at(12));
        assert_eq!(left(&flood, 12), 20);
        for _ in 0..40 {
            flood.no(place(7), false, at(100));
        }
        assert_eq!(left(&flood, 100), 300);
        flood.yes(place(7));
        assert_eq!(left(&flood, 100), 0);
        flood.no(place(7), false, at(100));
        assert_eq!(left(&flood, 100), 0, "and it begins anew");
        flood.no(place(7), false, at(2000));
        assert_eq!(left(&flood, 2000), 0, "after half an hour, too");
    }

    #[test]
    fn a_new_terminal_for_every_question_has_no_tries_of_its_own_on_a_shared_surface() {
        let mut flood = Flood::default();
        let home = Asker { origin: Origin::Terminal(99, (9, 9)), is_home: true };
        for number in 0..3 {
            assert_eq!(closed_for(&flood, place(number), true, at(0)), 0);
            flood.no(place(number), true, at(0));
        }
        assert_eq!(closed_for(&flood, place(50), true, at(0)), 10);
        assert_eq!(closed_for(&flood, place(50), false, at(0)), 0, "its own terminal tires nobody else");
        assert_eq!(closed_for(&flood, home, true, at(0)), 0);
        flood.no(place(50), true, at(10));
        assert_eq!(closed_for(&flood, place(51), true, at(10)), 20);
        for _ in 0..5 {
            flood.no(home, true, at(10));
        }
        assert_eq!(closed_for(&flood, place(51), true, at(10)), 20, "noes to oneself close oneself");
        assert!(closed_for(&flood, home, true, at(10)) > 20);
        flood.yes(home);
        assert_eq!(closed_for(&flood, place(51), true, at(10)), 0);
        for seconds in [20, 50, 100, 200] {
            flood.no(place(60), true, at(seconds));
        }
        assert_eq!(closed_for(&flood, place(51), true, at(200)), 0, "one place alone closes none but itself");
    }

    #[test]
    fn no_number_of_terminals_makes_it_forget_one_that_is_closed() {
        let mut flood = Flood::default();
        flood.no(place(1), false, at(0));
        flood.no(place(1), false, at(0));
        for number in 2..2000 {
            flood.no(place(number), false, at(0));
        }
        assert!(flood.places.len() <= PLACES && closed_for(&flood, place(1), false, at(0)) > 0);
    }
}
