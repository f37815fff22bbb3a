//! One question at a time, in the order they came; a flood is refused. One yes serves one request.

use super::pinentry::Desktop;
use super::place::{Place, Wanted};
use super::question::Question;
use super::{DEADLINE, No, Yes, pin, program};
use crate::policy::rule::ApproverProgram;
use crate::requester::Requester;
use keyloan_protocol::secret::SecretBytes;
use std::cell::{Cell, RefCell};
use std::sync::Arc;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::timeout;

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
        answer.map(|()| Yes { by })
    }

    async fn ask_pin(
        &self,
        place: &mut Place,
        question: &Question,
        verifier: SecretBytes,
        on_wrong_pin: &dyn Fn(u32),
    ) -> Result<(), No> {
        place.show(question, Wanted::Pin).await?;
        let verifier = Arc::new(verifier);
        for _ in 0..pin::TRIES {
            let typed = place.typed(Wanted::Pin).await?;
            let against = verifier.clone();
            let alone = Arc::clone(&self.check).lock_owned().await;
            let checked = tokio::task::spawn_blocking(move || {
                let _alone = alone;
                pin::is_right(&typed, &against)
            });
            if checked.await.unwrap_or(false) {
                self.gate.borrow_mut().right();
                return Ok(());
            }
            on_wrong_pin(self.gate.borrow_mut().wrong());
            place.was_wrong(Wanted::Pin).await?;
        }
        Err(No::WrongPin)
    }
}

async fn ask_program(approver: &ApproverProgram, question: &Question) -> Result<Yes, No> {
    let path = approver.path.display().to_string();
    match program::ask(approver, question).await {
        Ok(true) => Ok(Yes { by: format!("approver program {path}") }),
        Ok(false) => Err(No::Declined),
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
