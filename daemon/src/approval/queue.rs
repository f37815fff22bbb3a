//! One question at a time, places in turns; a flood is refused. One yes serves one request: two that are alike to the
//! last byte are two questions, unless the yes to one was said to cover the other.

use super::askpass::Askpass;
use super::board::Board;
use super::flood::{Asker, Flood};
use super::offer::Offer;
use super::pinentry::Desktop;
use super::place::{Place, Wanted};
use super::question::Question;
use super::terminal::Screen;
use super::turns::{Spot, Turns};
use super::{Covers, No, Yes, pin, program};
use crate::clock::{self, timeout};
use crate::policy::order::{Order, Way};
use crate::policy::rule::ApproverProgram;
use crate::requester::Requester;
use keyloan_protocol::secret::SecretBytes;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, Notify};

pub(crate) struct Queue {
    turns: Turns,
    /// A grant was given, which may cover what waits.
    granted: Notify,
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
    pub(crate) asker: Asker,
    pub(crate) pin_verifier: Option<Arc<SecretBytes>>,
    /// Shown in the places of the last unlock alone.
    pub(crate) phrase: Option<Rc<SecretBytes>>,
    /// How long a human has to answer.
    pub(crate) deadline: Duration,
}

/// Whom the queue asks for what is so now, and tells what happens meanwhile.
pub(crate) struct Told<'a> {
    /// Looked for with the turn: what was so when the request came may be long over.
    pub(crate) ways: &'a dyn Fn() -> Result<Ways, No>,
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
            turns: Turns::default(),
            granted: Notify::new(),
            gates: RefCell::default(),
            flood: RefCell::default(),
            check: Arc::default(),
            board: Rc::default(),
        }
    }

    /// Questions asked or waiting.
    pub(crate) fn pending(&self) -> usize {
        self.turns.pending()
    }

    /// Waits until no other question stands. Whoever gives up waiting leaves the queue. `proves` is for a passphrase
    /// that somebody offers by himself.
    pub(crate) async fn turn(&self, asker: Asker, proves: bool) -> Result<Turn<'_>, No> {
        let mut spot = self.turns.enter(asker, proves)?;
        spot.turn().await?;
        Ok(Turn { _spot: spot })
    }

    /// Waits until nothing else stands on the requester's own terminal. What is typed there of his own accord keeps nobody
    /// else waiting: any number of terminals would otherwise close keyloan to everybody.
    pub(crate) async fn to_type(&self, asker: Asker) -> Result<Turn<'_>, No> {
        let mut spot = self.turns.enter_to_type(asker)?;
        spot.turn().await?;
        Ok(Turn { _spot: spot })
    }

    pub(crate) fn has_room(&self, asker: Asker) -> Result<(), No> {
        self.turns.has_room(asker, false)
    }

    /// Refuses at once what would be refused whenever its turn came.
    pub(crate) fn admits(&self, asker: Asker, desktop: Option<&Desktop>) -> Result<(), No> {
        self.board.denies()?;
        self.is_not_held_back(asker, desktop)?;
        self.has_room(asker)
    }

    fn is_not_held_back(&self, asker: Asker, desktop: Option<&Desktop>) -> Result<(), No> {
        let is_shared = self.board.terminal().is_some() || desktop.is_some();
        self.flood.borrow().check(asker, is_shared, clock::since_boot())
    }

    /// Who proves the passphrase was no flood.
    pub(crate) fn hold_back_no_more(&self) {
        *self.flood.borrow_mut() = Flood::default();
    }

    /// Looks whether what waits is covered now.
    pub(crate) fn granted(&self) {
        self.granted.notify_waiters();
    }

    /// Counts a question in a window or on the enrolled terminal, where those of all places come up.
    pub(crate) fn stands(&self, asker: Asker, is_shared: bool) -> Result<Standing<'_>, No> {
        self.flood.borrow().check(asker, is_shared, clock::since_boot())?;
        Ok(Standing { flood: &self.flood, asker, is_shared, was_no: true })
    }

    /// Asks a human, or the program that was set, by the first of the ways in their order that is there. A way that is
    /// not there leaves it to the next; a no does not, nor does one that fails.
    pub(crate) async fn ask(
        &self,
        question: &Question,
        requester: &Requester,
        asker: Asker,
        told: Told<'_>,
    ) -> Result<Yes, No> {
        self.board.denies()?;
        let mut spot = self.turns.enter(asker, false)?;
        let waits = self.board.waits(question, requester);
        loop {
            let granted = self.granted.notified();
            let has_turn = tokio::select! {
                biased;
                turn = spot.turn() => turn.map(|()| true)?,
                () = granted => false,
            };
            self.board.denies()?;
            if let Some(by) = (told.covered)() {
                return Ok(Yes { by, covers: Covers::Granted });
            }
            if has_turn {
                break;
            }
        }
        drop(waits);
        loop {
            let ways = (told.ways)()?;
            let (deadline, asker) = (ways.deadline, ways.asker);
            // Only what is of the human wants a PIN, and has to be spared a flood.
            let may_ask = || {
                // Looked at again with the turn: what waited behind two noes is the flood itself.
                self.is_not_held_back(asker, ways.desktop.as_ref())?;
                ways.pin_verifier.clone().ok_or(No::WithoutPin)
            };
            let (mut place, verifier) = match self.first(&ways, requester, &may_ask).await? {
                First::Place(place, verifier) => (*place, verifier),
                First::Program(approver) => {
                    (told.asking_program)(approver);
                    let answer = timeout(deadline, ask_program(approver, question, deadline)).await;
                    return answer.unwrap_or(Err(No::TimedOut(deadline)));
                }
            };
            let is_shared = matches!(place, Place::Board(_) | Place::Window(_) | Place::Askpass(_));
            // Looked at with the terminal open: by its number alone it could be one that a program made since.
            let is_trusted = is_shared || asker.is_home && requester.origin() == asker.origin;
            let closed_for = self.gates.borrow_mut().of(is_trusted).closed_for();
            if closed_for > 0 {
                return Err(No::Closed(closed_for));
            }
            let mut standing = self.stands(asker, is_shared)?;
            (told.asking)(&place);
            let checked = (verifier, is_trusted);
            let phrase = ways.phrase.clone().filter(|_| is_trusted && place.keeps_to_itself());
            let shown = question.with_phrase(phrase);
            let asked = self.ask_pin(&mut place, &shown, checked, told.wrong_pin);
            let answer = timeout(deadline, asked).await;
            // A window that failed is as good as a no: any program of the user can end a pinentry, and ask again.
            standing.was_no = !matches!(&answer, Ok(Err(No::BoardLeft | No::LockedOut)));
            if let Ok(Ok(_)) = &answer {
                standing.yes();
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
                        Err(unusable @ (No::Background | No::Overheard)) => {
                            absent = Some(unusable);
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
pub(crate) struct Standing<'a> {
    flood: &'a RefCell<Flood>,
    asker: Asker,
    is_shared: bool,
    was_no: bool,
}

impl Standing<'_> {
    pub(crate) fn yes(&mut self) {
        self.was_no = false;
        self.flood.borrow_mut().yes(self.asker);
    }
}

impl Drop for Standing<'_> {
    fn drop(&mut self) {
        if self.was_no {
            self.flood.borrow_mut().no(self.asker, self.is_shared, clock::since_boot());
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
    _spot: Spot<'a>,
}

#[cfg(test)]
mod tests {
    use super::super::offer::Also;
    use super::*;
    use crate::policy::rule::Scope;

    #[test]
    fn what_stands_behind_the_pin_is_what_else_the_yes_is_for() {
        let offer = |scope| Offer { also: Also::Grant(scope), words: String::new() };
        let ten = Scope::Time(Duration::from_secs(600));
        let offers = [offer(Scope::Command), offer(ten)];
        let scope = |typed: &str, pin: &str| {
            let typed = SecretBytes::copy_of(typed.as_bytes());
            let yes = with_offer(&typed, &offers, |given| given.expose() == pin.as_bytes());
            yes.map(|covers| match covers {
                Covers::Also(offer) => Some(offer.also),
                Covers::Once | Covers::Granted => None,
            })
        };
        assert_eq!(scope("4711", "4711"), Some(None));
        assert_eq!(scope("4711+c", "4711"), Some(Some(Also::Grant(Scope::Command))));
        assert_eq!(scope("4711 +10m", "4711"), Some(Some(Also::Grant(ten))));
        assert_eq!(scope("4712+c", "4711"), None);
        assert_eq!(scope("4711+20x", "4711"), None, "what was not offered is not given");
        assert_eq!(scope("4711+", "4711"), None);
        assert_eq!(scope("47+c", "47+c"), Some(None), "a PIN may end so");
        assert_eq!(scope("47+c+c", "47+c"), Some(Some(Also::Grant(Scope::Command))));
    }
}
