//! One question at a time, in the order they came; a flood is refused. One yes serves one request.

use super::question::Question;
use super::terminal::{Screen, Typed};
use super::{DEADLINE, No, Yes, pin, program};
use crate::policy::rule::ApproverProgram;
use crate::requester::Requester;
use keyloan_protocol::secret::SecretBytes;
use std::cell::{Cell, RefCell};
use std::time::Duration;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::timeout;

/// Questions that may wait behind the one being asked.
const WAITING: usize = 16;

pub(crate) struct Queue {
    turn: Mutex<()>,
    waiting: Cell<usize>,
    gate: RefCell<pin::Gate>,
}

/// What the queue asks with. Decided by policy and the vault, never by the request.
pub(crate) struct Ways {
    pub(crate) program: Option<ApproverProgram>,
    pub(crate) pin_verifier: Option<SecretBytes>,
}

/// Counts a wrong PIN where it is to be written down; gives the failures in a row.
pub(crate) type OnWrongPin<'a> = &'a dyn Fn(u32);

impl Queue {
    pub(crate) fn new() -> Self {
        Self { turn: Mutex::new(()), waiting: Cell::new(0), gate: RefCell::default() }
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
        let place = Place::take(&self.waiting);
        Ok(Turn { _turn: self.turn.lock().await, _place: place })
    }

    /// Asks a human, by the program that was set or else on the requester's own terminal.
    pub(crate) async fn ask(
        &self,
        question: &Question,
        requester: &Requester,
        ways: Ways,
        on_wrong_pin: OnWrongPin<'_>,
    ) -> Result<Yes, No> {
        let _turn = self.turn().await?;
        let answer = match (ways.program, ways.pin_verifier) {
            (Some(approver), _) => timeout(DEADLINE, ask_program(&approver, question)).await,
            (None, Some(verifier)) => {
                let closed_for = self.gate.borrow().closed_for();
                if closed_for > 0 {
                    return Err(No::Closed(closed_for));
                }
                let screen = Screen::of(requester)?;
                let answer = timeout(DEADLINE, self.ask_pin(&screen, question, verifier, on_wrong_pin)).await;
                if answer.is_err() {
                    // The terminal may be stopped; its last line is not worth a wait.
                    let _ = timeout(Duration::from_secs(1), screen.write("\n")).await;
                }
                let terminal = requester.terminal_name().unwrap_or_default();
                answer.map(|said| said.map(|()| Yes { by: format!("PIN on {terminal}") }))
            }
            (None, None) => return Err(No::WithoutPin),
        };
        answer.unwrap_or(Err(No::TimedOut))
    }

    async fn ask_pin(
        &self,
        screen: &Screen,
        question: &Question,
        verifier: SecretBytes,
        on_wrong_pin: OnWrongPin<'_>,
    ) -> Result<(), No> {
        screen.write(&question.text()).await.map_err(No::Terminal)?;
        screen.settle().await.map_err(No::Terminal)?;
        let verifier = std::sync::Arc::new(verifier);
        for _ in 0..pin::TRIES {
            let typed = screen.read_line("  PIN to allow, Enter alone to decline: ").await;
            let typed = match typed.map_err(No::Terminal)? {
                Typed::Line(pin) if !pin.is_empty() => pin,
                _ => return Err(No::Declined),
            };
            let against = verifier.clone();
            let checked = tokio::task::spawn_blocking(move || pin::is_right(&typed, &against));
            if checked.await.unwrap_or(false) {
                self.gate.borrow_mut().right();
                return Ok(());
            }
            on_wrong_pin(self.gate.borrow_mut().wrong());
            screen.write("  That is not the PIN.\n").await.map_err(No::Terminal)?;
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
    _place: Place<'a>,
}

struct Place<'a>(&'a Cell<usize>);

impl<'a> Place<'a> {
    fn take(waiting: &'a Cell<usize>) -> Self {
        waiting.set(waiting.get() + 1);
        Self(waiting)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}
