//! Whose question stands and whose is next. Invariants: one stands; places take turns, so that many questions from one
//! cost another no more than the question that stands; the place of the last unlock has every second turn and room of
//! its own, since new terminals cost nothing and others may fill all else; a place that is given up is free at once. What is
//! only typed on the requester's own terminal keeps no other terminal waiting, and never stands where something else does.

use super::No;
use super::flood::Asker;
use crate::requester::Origin;
use std::cell::RefCell;
use tokio::sync::oneshot;

/// Questions that may wait behind the one that stands, of one place and of all but that of the last unlock.
const EACH: usize = 16;
const ALL: usize = 32;

/// What waits together: a passphrase that somebody offers by himself has room of its own, or whoever fills the place
/// keeps out what ends that.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Lane {
    origin: Origin,
    proves: bool,
}

#[derive(Default)]
pub(super) struct Turns(RefCell<State>);

#[derive(Default)]
struct State {
    numbers: u64,
    /// The round of the question that stood last. A place has one turn in a round.
    round: u64,
    standing: Option<Standing>,
    /// What is typed, each on a terminal of its own.
    typing: Vec<Standing>,
    /// The last turn was that of the place of the last unlock.
    was_home: bool,
    /// In the order they came.
    waiting: Vec<Waiter>,
}

struct Standing {
    number: u64,
    lane: Lane,
}

struct Waiter {
    number: u64,
    round: u64,
    lane: Lane,
    is_home: bool,
    /// It waits for its own terminal alone.
    types: bool,
    go: oneshot::Sender<()>,
}

impl Turns {
    /// Questions that stand or wait.
    pub(super) fn pending(&self) -> usize {
        let state = self.0.borrow();
        state.waiting.len() + usize::from(state.standing.is_some()) + state.typing.len()
    }

    /// Whether there would be room.
    pub(super) fn has_room(&self, asker: Asker, proves: bool) -> Result<(), No> {
        self.0.borrow().room(Lane { origin: asker.origin, proves }, asker.is_home).map(drop)
    }

    /// A place in the queue, until dropped.
    pub(super) fn enter(&self, asker: Asker, proves: bool) -> Result<Spot<'_>, No> {
        let mut state = self.0.borrow_mut();
        let lane = Lane { origin: asker.origin, proves };
        if let Some(loser) = state.room(lane, asker.is_home)? {
            state.waiting.remove(loser);
        }
        let (number, turn) = state.push(lane, asker.is_home, false);
        Ok(Spot { turns: self, number, turn: Some(turn) })
    }

    /// The same for what is typed on the requester's own terminal, and is nobody else's question: a value, a passphrase
    /// of his own accord. It waits for what stands on that terminal and for nothing else.
    pub(super) fn enter_to_type(&self, asker: Asker) -> Result<Spot<'_>, No> {
        let mut state = self.0.borrow_mut();
        let lane = Lane { origin: asker.origin, proves: true };
        if state.of(lane) >= EACH {
            return Err(No::BusyHere(EACH));
        }
        let (number, turn) = state.push(lane, asker.is_home, true);
        Ok(Spot { turns: self, number, turn: Some(turn) })
    }
}

impl State {
    fn of(&self, lane: Lane) -> usize {
        self.waiting.iter().filter(|waiter| waiter.lane == lane).count()
    }

    fn push(&mut self, lane: Lane, is_home: bool, types: bool) -> (u64, oneshot::Receiver<()>) {
        self.numbers += 1;
        let (number, round) = (self.numbers, self.round_of_next(lane));
        let (go, turn) = oneshot::channel();
        self.waiting.push(Waiter { number, round, lane, is_home, types, go });
        self.next();
        (number, turn)
    }

    /// Two on one terminal would read what is typed for each other, and turn its echo on again for each other.
    fn is_in_use(&self, origin: Origin) -> bool {
        let mut standing = self.standing.iter().chain(&self.typing);
        origin != Origin::Nowhere && standing.any(|standing| standing.lane.origin == origin)
    }

    /// Who loses its place to another, where anybody has to: the last of the lane that has the most.
    fn room(&self, lane: Lane, is_home: bool) -> Result<Option<usize>, No> {
        let own = self.of(lane);
        if own >= EACH {
            return Err(No::BusyHere(EACH));
        }
        let others =
            || self.waiting.iter().enumerate().filter(|(_, waiter)| !waiter.is_home && !waiter.types);
        if is_home || others().count() < ALL {
            return Ok(None);
        }
        let fullest = others().max_by_key(|(at, waiter)| (self.of(waiter.lane), *at));
        match fullest {
            Some((at, waiter)) if self.of(waiter.lane) > own + 1 => Ok(Some(at)),
            _ => Err(No::Busy),
        }
    }

    fn round_of_next(&self, lane: Lane) -> u64 {
        let own = self.waiting.iter().filter(|waiter| waiter.lane == lane).map(|waiter| waiter.round);
        let stands = self.standing.as_ref().is_some_and(|standing| standing.lane == lane);
        own.max().or(stands.then_some(self.round)).map_or(self.round, |last| last + 1)
    }

    /// Gives the turn to the next, where nobody has it, and to all that type where nothing stands.
    fn next(&mut self) {
        let types = |state: &Self, waiter: &Waiter| waiter.types && !state.is_in_use(waiter.lane.origin);
        while let Some(at) = self.waiting.iter().position(|waiter| types(self, waiter)) {
            let Waiter { number, lane, go, .. } = self.waiting.remove(at);
            self.typing.push(Standing { number, lane });
            let _ = go.send(());
        }
        if self.standing.is_some() {
            return;
        }
        let at_home = |is_home: bool| {
            let asks = |waiter: &Waiter| !waiter.types && !self.is_in_use(waiter.lane.origin);
            let all = self.waiting.iter().enumerate();
            let all = all.filter(|(_, waiter)| waiter.is_home == is_home && asks(waiter));
            all.min_by_key(|(_, waiter)| (waiter.round, waiter.number)).map(|(at, _)| at)
        };
        let (home, other) = (at_home(true), at_home(false));
        let Some(at) = (if self.was_home { other.or(home) } else { home.or(other) }) else { return };
        let Waiter { number, round, lane, is_home, go, .. } = self.waiting.remove(at);
        self.round = self.round.max(round);
        self.was_home = is_home;
        self.standing = Some(Standing { number, lane });
        // Whoever waits for it holds its spot, which passes the turn on when it goes.
        let _ = go.send(());
    }

    fn leave(&mut self, number: u64) {
        self.waiting.retain(|waiter| waiter.number != number);
        self.standing.take_if(|standing| standing.number == number);
        self.typing.retain(|typing| typing.number != number);
        self.next();
    }
}

/// A place in the queue, and with [`Spot::turn`] the right to ask; until dropped.
pub(super) struct Spot<'a> {
    turns: &'a Turns,
    number: u64,
    turn: Option<oneshot::Receiver<()>>,
}

impl Spot<'_> {
    /// Waits until no other question stands and the turn has come. May be waited for again.
    pub(super) async fn turn(&mut self) -> Result<(), No> {
        if let Some(turn) = &mut self.turn {
            turn.await.map_err(|_| No::Busy)?;
            self.turn = None;
        }
        Ok(())
    }
}

impl Drop for Spot<'_> {
    fn drop(&mut self) {
        self.turns.0.borrow_mut().leave(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(number: u64) -> Asker {
        Asker { origin: Origin::Terminal(number, (1, 1)), is_home: false }
    }

    fn home() -> Asker {
        Asker { origin: Origin::Terminal(0, (7, 7)), is_home: true }
    }

    /// Those whose turn comes, in order: each question ends at once.
    fn order(mut spots: Vec<(&'static str, Spot<'_>)>) -> Vec<&'static str> {
        let mut order = Vec::new();
        while !spots.is_empty() {
            let has_turn =
                |(_, spot): &mut (_, Spot<'_>)| spot.turn.as_mut().is_none_or(|turn| turn.try_recv().is_ok());
            let at = spots.iter_mut().position(has_turn).unwrap();
            order.push(spots.remove(at).0);
        }
        order
    }

    fn enter<'a>(turns: &'a Turns, asked: &[(&'static str, Asker)]) -> Vec<(&'static str, Spot<'a>)> {
        asked.iter().map(|(name, asker)| (*name, turns.enter(*asker, false).unwrap())).collect()
    }

    #[test]
    fn a_flood_from_one_place_costs_another_the_question_that_stands_and_no_more() {
        let turns = Turns::default();
        let mut asked = vec![("flood", place(1)); EACH];
        asked.extend([("second", place(2)), ("third", place(3)), ("second", place(2))]);
        let order = order(enter(&turns, &asked));
        assert_eq!(order[..5], ["flood", "second", "third", "flood", "second"]);
        assert_eq!((order.len(), turns.pending()), (EACH + 3, 0));
    }

    #[test]
    fn one_place_fills_its_own_room_and_no_more() {
        let turns = Turns::default();
        let mut spots = enter(&turns, &[("flood", place(1)); EACH + 1]);
        assert!(matches!(turns.enter(place(1), false), Err(No::BusyHere(EACH))));
        assert!(turns.enter(place(1), true).is_ok(), "a passphrase is let in");
        spots.pop();
        assert!(turns.enter(place(1), false).is_ok(), "and who leaves makes room");
    }

    #[test]
    fn a_place_that_has_none_waiting_finds_room_while_another_has_several() {
        let turns = Turns::default();
        let mut spots = Vec::new();
        for number in 0..=(ALL as u64) {
            spots.push(turns.enter(place(number / 4), false).unwrap());
        }
        let mut late = turns.enter(place(100), false).unwrap();
        assert_eq!(turns.pending(), ALL + 1);
        assert!(late.turn.as_mut().unwrap().try_recv().is_err());
        let lost: Vec<usize> = (0..spots.len()).filter(|at| is_lost(&mut spots[*at])).collect();
        assert_eq!(lost, [31], "the last of the last of those with the most");
        spots.clear();
        assert!(late.turn.as_mut().unwrap().try_recv().is_ok());
    }

    fn is_lost(spot: &mut Spot<'_>) -> bool {
        let turn = spot.turn.as_mut().map(oneshot::Receiver::try_recv);
        matches!(turn, Some(Err(oneshot::error::TryRecvError::Closed)))
    }

    #[test]
    fn any_number_of_terminals_leaves_the_place_of_the_last_unlock_its_room_and_every_second_turn() {
        let turns = Turns::default();
        let mut spots: Vec<_> =
            (0..=(ALL as u64)).map(|number| ("other", turns.enter(place(number), false).unwrap())).collect();
        assert!(matches!(turns.enter(place(100), false), Err(No::Busy)));
        spots.extend(enter(&turns, &[("home", home()), ("home", home())]));
        assert_eq!(order(spots)[..5], ["other", "home", "other", "home", "other"]);
    }

    #[test]
    fn what_is_typed_on_its_own_terminal_keeps_nobody_waiting_but_that_terminal() {
        let turns = Turns::default();
        let has_turn = |spot: &mut Spot<'_>| spot.turn.as_mut().is_none_or(|turn| turn.try_recv().is_ok());
        let mut typed: Vec<_> =
            (0..2 * ALL as u64).map(|number| turns.enter_to_type(place(number)).unwrap()).collect();
        assert!(typed.iter_mut().all(has_turn) && turns.pending() == 2 * ALL);
        let mut behind = turns.enter(place(0), false).unwrap();
        let mut other = turns.enter(place(1000), false).unwrap();
        assert!(has_turn(&mut other) && !has_turn(&mut behind), "one terminal shows one thing");
        let mut after = turns.enter_to_type(place(1000)).unwrap();
        assert!(!has_turn(&mut after));
        drop(other);
        assert!(has_turn(&mut after) && !has_turn(&mut behind));
        typed.remove(0);
        assert!(has_turn(&mut behind));
    }

    #[test]
    fn a_spot_that_is_given_up_with_its_turn_passes_it_on() {
        let turns = Turns::default();
        let mut spots = enter(&turns, &[("first", place(1)), ("second", place(2)), ("third", place(3))]);
        drop(spots.remove(0));
        drop(spots.remove(0));
        assert_eq!(order(spots), ["third"]);
        assert_eq!(turns.pending(), 0);
    }
}
