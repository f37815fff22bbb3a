//! One question at a time, in the order they came; a flood is refused. One yes serves one request.

use super::askpass::Askpass;
use super::board::Board;
use super::flood::Flood;
use super::pinentry::Desktop;
use super::place::{Place, Wanted};
use super::question::{Offer, Question};
use super::terminal::Screen;
use super::{Covers, No, Yes, pin, program};
use crate::clock::{self, timeout};
use crate::policy::order::{Order, Way};
use crate::policy::rule::ApproverProgram;
use crate::requester::Requester;
use keyloan_protocol::secret::SecretBytes;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, MutexGuard};

/// Questions that may wait behind the one being asked.
const WAITING: usize = 32;

pub(crate) struct Queue {
    turn: Mutex<()>,
    waiting: Cell<usize>,
    gates: RefCell<pin::Gates>,
    flood: RefCell<Flood>,
    /// One check of a PIN at a time: each takes 19 MiB, and goes on when its requester goes away.
    check: Arc<Mutex<()>>,
    /// The enrolled terminal, and what is denied by its keys.
    pub(crate) board: Rc<Board>,
}

/// What the queue asks with. Decided by policy and the vault, never by the request.
pub(crate) struct Ways {
    pub(crate) order: Order,
    pub(crate) program: Option<ApproverProgram>,
    pub(crate) askpass: Option<ApproverProgram>,
    pub(crate) desktop: Option<Desktop>,
    /// The terminal of the last unlock, 0 for none.
    pub(crate) unlocked_on: u64,
    pub(crate) pin_verifier: Option<Arc<SecretBytes>>,
    /// How long a human has to answer.
    pub(crate) deadline: Duration,
}

/// Whom the queue tells what happens meanwhile.
pub(crate) struct Told<'a> {
    /// A wrong PIN, with the failures in a row, and whether everything is to be locked.
    pub(crate) wrong_pin: &'a dyn Fn(u32, bool),
    pub(crate) asking: &'a dyn Fn(&Place),
    /// The approver program is asked.
    pub(crate) asking_program: &'a dyn Fn(&ApproverProgram),
    /// Who has said yes to it while it waited, if anybody: then nobody is asked.
    pub(crate) covered: &'a dyn Fn() -> Option<String>,
}

impl Queue {
    pub(crate) fn new() -> Self {
        Self {
            turn: Mutex::new(()),
            waiting: Cell::new(0),
            gates: RefCell::default(),
            flood: RefCell::default(),
            check: Arc::default(),
            board: Rc::default(),
        }
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

    /// Asks a human, or the program that was set, by the first of the ways in their order that is there. A way that is
    /// not there leaves it to the next; a no does not, nor does one that fails.
    pub(crate) async fn ask(
        &self,
        question: &Question,
        requester: &Requester,
        ways: Ways,
        told: Told<'_>,
    ) -> Result<Yes, No> {
        self.board.denies()?;
        let waits = self.board.waits(question, requester);
        let _turn = self.turn().await?;
        self.board.denies()?;
        if let Some(by) = (told.covered)() {
            return Ok(Yes { by, covers: Covers::Once });
        }
        let deadline = ways.deadline;
        drop(waits);
        loop {
            // Only what is of the human wants a PIN, and has to be spared a flood.
            let may_ask = || {
                // Looked at again with the turn: what waited behind two noes is the flood itself.
                match self.flood.borrow().closed_for(requester.terminal, clock::since_boot()) {
                    0 => ways.pin_verifier.clone().ok_or(No::WithoutPin),
                    cooling => Err(No::Cooling(cooling)),
                }
            };
            let (mut place, verifier) = match self.first(&ways, requester, &may_ask).await? {
                First::Place(place, verifier) => (*place, verifier),
                First::Program(approver) => {
                    (told.asking_program)(approver);
                    let answer = timeout(deadline, ask_program(approver, question, deadline)).await;
                    return answer.unwrap_or(Err(No::TimedOut(deadline)));
                }
            };
            let is_trusted = match &place {
                Place::Board(_) | Place::Window(_) | Place::Askpass(_) => true,
                Place::Terminal(_) => requester.terminal == ways.unlocked_on,
            };
            let closed_for = self.gates.borrow_mut().of(is_trusted).closed_for();
            if closed_for > 0 {
                return Err(No::Closed(closed_for));
            }
            (told.asking)(&place);
            let mut standing = Standing { flood: &self.flood, place: requester.terminal, was_no: true };
            let checked = (verifier, is_trusted);
            let asked = self.ask_pin(&mut place, question, checked, told.wrong_pin);
            let answer = timeout(deadline, asked).await;
            // A terminal or a window that failed is nobody's no.
            standing.was_no = matches!(&answer, Ok(Err(No::Declined | No::WrongPin)) | Err(_));
            if let Ok(Ok(_)) = &answer {
                self.flood.borrow_mut().yes(requester.terminal);
            }
            drop(standing);
            let by = format!("PIN {}", place.name(requester));
            match answer {
                Err(_) => {
                    place.abandon().await;
                    return Err(No::TimedOut(deadline));
                }
                // It was there no longer, and nobody said no.
                Ok(Err(No::BoardLeft)) => {}
                Ok(answer) => return answer.map(|covers| Yes { by, covers }),
            }
        }
    }

    /// The first of the ways that is there.
    async fn first<'a>(
        &self,
        ways: &'a Ways,
        requester: &Requester,
        may_ask: &impl Fn() -> Result<Arc<SecretBytes>, No>,
    ) -> Result<First<'a>, No> {
        let mut absent = None;
        for way in ways.order.ways() {
            let place = match way {
                Way::Program => match &ways.program {
                    Some(program) => return Ok(First::Program(program)),
                    None => continue,
                },
                Way::Approve => self.board.place().map(Place::Board),
                Way::Window if let Some(desktop) = &ways.desktop => {
                    may_ask()?;
                    let window = desktop.open().await.map(Place::Window);
                    if window.is_none() {
                        absent = Some(No::Windowless(desktop.name.clone()));
                    }
                    window
                }
                Way::Askpass if let (Some(program), Some(desktop)) = (&ways.askpass, &ways.desktop) => {
                    Some(Place::Askpass(Askpass::new(program.clone(), desktop.clone())))
                }
                Way::Window | Way::Askpass => None,
                Way::Terminal => {
                    may_ask()?;
                    match Screen::of(requester) {
                        Err(No::Unaskable) => None,
                        Err(No::Background) => {
                            absent = Some(No::Background);
                            None
                        }
                        screen => Some(Place::Terminal(screen?)),
                    }
                }
            };
            if let Some(place) = place {
                return Ok(First::Place(Box::new(place), may_ask()?));
            }
        }
        // What is usual is said in plain words.
        Err(match absent {
            Some(absent) if ways.order.ways().contains(&Way::Terminal) => absent,
            None if ways.order == Order::default() => No::Unaskable,
            _ => No::NoneThere(ways.order.to_string()),
        })
    }

    async fn ask_pin(
        &self,
        place: &mut Place,
        question: &Question,
        (verifier, is_trusted): (Arc<SecretBytes>, bool),
        on_wrong_pin: &dyn Fn(u32, bool),
    ) -> Result<Covers, No> {
        place.show(question, Wanted::Pin).await?;
        for _ in 0..pin::TRIES {
            let typed = place.typed(Wanted::Pin).await?;
            let (against, offers) = (verifier.clone(), question.offers.clone());
            let alone = Arc::clone(&self.check).lock_owned().await;
            let checked = tokio::task::spawn_blocking(move || {
                let _alone = alone;
                with_offer(&typed, &offers, |pin| pin::is_right(pin, &against))
            });
            if let Some(covers) = checked.await.ok().flatten() {
                self.gates.borrow_mut().of(is_trusted).right();
                return Ok(covers);
            }
            let failures = self.gates.borrow_mut().of(is_trusted).wrong();
            let locks = is_trusted && failures >= pin::LOCKS;
            on_wrong_pin(failures, locks);
            if locks {
                self.gates.borrow_mut().of(is_trusted).right();
                return Err(No::LockedOut);
            }
            place.was_wrong(Wanted::Pin).await?;
        }
        Err(No::WrongPin)
    }
}

/// The first way that is there.
enum First<'a> {
    Program(&'a ApproverProgram),
    /// With what the PIN is checked against.
    Place(Box<Place>, Arc<SecretBytes>),
}

/// A question that stands. Where its requester goes away it was not allowed either: or one that dies and comes back
/// would be asked for without end.
struct Standing<'a> {
    flood: &'a RefCell<Flood>,
    place: u64,
    was_no: bool,
}

impl Drop for Standing<'_> {
    fn drop(&mut self) {
        if self.was_no {
            self.flood.borrow_mut().no(self.place, clock::since_boot());
        }
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

async fn ask_program(approver: &ApproverProgram, question: &Question, deadline: Duration) -> Result<Yes, No> {
    let path = approver.path.display().to_string();
    match program::ask(approver, question, deadline).await {
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
