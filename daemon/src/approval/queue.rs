//! One question at a time, in the order they came; a flood is refused. One yes serves one request.

use super::pinentry::Desktop;
use super::place::{Place, Wanted};
use super::question::{Offer, Question};
use super::{Covers, DEADLINE, No, Yes, pin, program};
use crate::clock::timeout;
use crate::policy::rule::ApproverProgram;
use crate::requester::Requester;
use keyloan_protocol::secret::SecretBytes;
use std::cell::{Cell, RefCell};
use std::sync::Arc;
use tokio::sync::{Mutex, MutexGuard};

/// Questions that may wait behind the one being asked.
const WAITING: usize = 32;

pub(crate) struct Queue {
    turn: Mutex<()>,
    waiting: Cell<usize>,
    gate: RefCell<pin::Gate>,
    /// One check of a PIN at a time: each takes 19 MiB, and goes on when its requester goes away.
    check: Arc<Mutex<()>>,
}

/// What the queue asks with. Decided by policy and the vault, never by the request.
pub(crate) struct Ways {
    pub(crate) program: Option<ApproverProgram>,
    pub(crate) desktop: Option<Desktop>,
    pub(crate) pin_verifier: Option<SecretBytes>,
}

/// Whom the queue tells what happens meanwhile.
pub(crate) struct Told<'a> {
    /// A wrong PIN, with the failures in a row.
    pub(crate) wrong_pin: &'a dyn Fn(u32),
    pub(crate) asking: &'a dyn Fn(&Place),
}

impl Queue {
    pub(crate) fn new() -> Self {
        Self { turn: Mutex::new(()), waiting: Cell::new(0), gate: RefCell::default(), check: Arc::default() }
    }

    /// Questions asked or waiting.
    pub(crate) fn pending(&self) -> usize {
        self.waiting.get()
    }

    /// Waits until no other question stands. Whoever gives up waiting leaves the queue.
    pub(crate) async fn turn(&self) -> Result<Turn<'_>, No> {
        if self.waiting.get() > WAITING {
            return Err(No::Busy);
        }
        let spot = Spot::take(&self.waiting);
        Ok(Turn { _turn: self.turn.lock().await, _spot: spot })
    }

    /// Asks a human: by the program that was set, or else in a window, or else on the requester's terminal.
    pub(crate) async fn ask(
        &self,
        question: &Question,
        requester: &Requester,
        ways: Ways,
        told: Told<'_>,
    ) -> Result<Yes, No> {
        let _turn = self.turn().await?;
        let (verifier, desktop) = match (ways.program, ways.pin_verifier) {
            (Some(approver), _) => {
                let answer = timeout(DEADLINE, ask_program(&approver, question)).await;
                return answer.unwrap_or(Err(No::TimedOut));
            }
            (None, Some(verifier)) => (verifier, ways.desktop),
            (None, None) => return Err(No::WithoutPin),
        };
        let closed_for = self.gate.borrow().closed_for();
        if closed_for > 0 {
            return Err(No::Closed(closed_for));
        }
        let mut place = Place::find(desktop.as_ref(), requester).await?;
        (told.asking)(&place);
        let answer = timeout(DEADLINE, self.ask_pin(&mut place, question, verifier, told.wrong_pin)).await;
        let by = format!("PIN {}", place.name(requester));
        let Ok(answer) = answer else {
            place.abandon().await;
            return Err(No::TimedOut);
        };
        answer.map(|covers| Yes { by, covers })
    }

    async fn ask_pin(
        &self,
        place: &mut Place,
        question: &Question,
        verifier: SecretBytes,
        on_wrong_pin: &dyn Fn(u32),
    ) -> Result<Covers, No> {
        place.show(question, Wanted::Pin).await?;
        let verifier = Arc::new(verifier);
        for _ in 0..pin::TRIES {
            let typed = place.typed(Wanted::Pin).await?;
            let (against, offers) = (verifier.clone(), question.offers.clone());
            let alone = Arc::clone(&self.check).lock_owned().await;
            let checked = tokio::task::spawn_blocking(move || {
                let _alone = alone;
                with_offer(&typed, &offers, |pin| pin::is_right(pin, &against))
            });
            if let Some(covers) = checked.await.ok().flatten() {
                self.gate.borrow_mut().right();
                return Ok(covers);
            }
            on_wrong_pin(self.gate.borrow_mut().wrong());
            place.was_wrong(Wanted::Pin).await?;
        }
        Err(No::WrongPin)
    }
}

/// A right PIN alone, or with what else it is for behind a plus sign; `None` for a wrong one. A PIN may itself end
/// like that.
fn with_offer(
    typed: &SecretBytes,
    offers: &[Offer],
    is_right: impl Fn(&SecretBytes) -> bool,
) -> Option<Covers> {
    let bytes = typed.expose();
    let plus = bytes.iter().rposition(|byte| *byte == b'+');
    let offer = plus.and_then(|plus| {
        let key = bytes[plus + 1..].trim_ascii();
        let offer = offers.iter().find(|offer| offer.typed().as_bytes() == key)?;
        Some((SecretBytes::copy_of(bytes[..plus].trim_ascii_end()), offer.clone()))
    });
    match offer {
        Some((pin, offer)) if is_right(&pin) => Some(Covers::Also(offer)),
        _ => is_right(typed).then_some(Covers::Once),
    }
}

async fn ask_program(approver: &ApproverProgram, question: &Question) -> Result<Yes, No> {
    let path = approver.path.display().to_string();
    match program::ask(approver, question).await {
        Ok(Some(covers)) => Ok(Yes { by: format!("approver program {path}"), covers }),
        Ok(None) => Err(No::Declined),
        Err(cause) => Err(No::Program { path, cause }),
    }
}

/// The right to ask, until dropped.
pub(crate) struct Turn<'a> {
    _turn: MutexGuard<'a, ()>,
    _spot: Spot<'a>,
}

struct Spot<'a>(&'a Cell<usize>);

impl<'a> Spot<'a> {
    fn take(waiting: &'a Cell<usize>) -> Self {
        waiting.set(waiting.get() + 1);
        Self(waiting)
    }
}

impl Drop for Spot<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::rule::Scope;
    use std::time::Duration;

    #[test]
    fn what_stands_behind_the_pin_is_what_else_the_yes_is_for() {
        let offer = |scope| Offer { scope, words: String::new() };
        let offers = [offer(Scope::Command), offer(Scope::Time(Duration::from_secs(600)))];
        let scope = |typed: &str, pin: &str| {
            let typed = SecretBytes::copy_of(typed.as_bytes());
            let yes = with_offer(&typed, &offers, |given| given.expose() == pin.as_bytes());
            yes.map(|covers| match covers {
                Covers::Once => None,
                Covers::Also(offer) => Some(offer.scope),
            })
        };
        assert_eq!(scope("4711", "4711"), Some(None));
        assert_eq!(scope("4711+c", "4711"), Some(Some(Scope::Command)));
        assert_eq!(scope("4711 +10m", "4711"), Some(Some(offers[1].scope)));
        assert_eq!(scope("4712+c", "4711"), None);
        assert_eq!(scope("4711+20x", "4711"), None, "what was not offered is not given");
        assert_eq!(scope("4711+", "4711"), None);
        assert_eq!(scope("47+c", "47+c"), Some(None), "a PIN may end so");
        assert_eq!(scope("47+c+c", "47+c"), Some(Some(Scope::Command)));
    }
}
