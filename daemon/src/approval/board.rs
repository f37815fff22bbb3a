//! What the queue and the enrolled terminal have in common: the question that stands there, those that wait, what
//! happened lately. Invariants: one terminal is enrolled at most; an answer goes to the question that it was given to,
//! or to none; text of others is escaped before it comes in.

mod frame;
pub(crate) mod keys;

use super::No;
use super::question::Question;
use crate::clock;
use crate::requester::Requester;
use keyloan_protocol::names::escaped;
use keyloan_protocol::secret::SecretBytes;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};

/// How long one key denies everything.
const DENIAL: Duration = Duration::from_secs(300);
/// Lines of what happened that are kept, and characters of each.
const HAPPENED: (usize, usize) = (50, 300);

#[derive(Default)]
pub(crate) struct Board {
    numbers: Cell<u64>,
    enrolled: RefCell<Option<Enrolled>>,
    standing: RefCell<Option<Standing>>,
    waiting: RefCell<BTreeMap<u64, String>>,
    happened: RefCell<VecDeque<String>>,
    /// Since boot.
    denied_until: Cell<Duration>,
    changed: watch::Sender<()>,
}

struct Enrolled {
    number: u64,
    /// `pts/3`
    terminal: String,
    leave: oneshot::Sender<String>,
}

struct Standing {
    number: u64,
    question: Question,
    answers: mpsc::Sender<Answer>,
    remark: &'static str,
}

enum Answer {
    Pin(SecretBytes),
    Deny,
}

impl Board {
    fn number(&self) -> u64 {
        self.numbers.set(self.numbers.get() + 1);
        self.numbers.get()
    }

    fn touch(&self) {
        self.changed.send_replace(());
    }

    /// Takes the place of the terminal that was enrolled before; what stands there comes here.
    pub(crate) fn enrol(self: &Rc<Self>, terminal: String) -> Seat {
        self.end(&format!("{terminal} answers instead from now on"));
        let (leave, left) = oneshot::channel();
        let number = self.number();
        *self.enrolled.borrow_mut() = Some(Enrolled { number, terminal, leave });
        Seat { board: Rc::clone(self), number, left }
    }

    /// Ends the enrolment of whichever terminal has one.
    pub(crate) fn end(&self, why: &str) {
        if let Some(enrolled) = self.enrolled.take() {
            let _ = enrolled.leave.send(why.to_owned());
            self.standing.take();
        }
    }

    /// The enrolled terminal, `pts/3`.
    pub(crate) fn terminal(&self) -> Option<String> {
        self.enrolled.borrow().as_ref().map(|enrolled| enrolled.terminal.clone())
    }

    /// A place on it for a question.
    pub(super) fn place(self: &Rc<Self>) -> Option<OnBoard> {
        Some(OnBoard {
            board: Rc::clone(self),
            terminal: self.terminal()?,
            number: self.number(),
            answers: None,
        })
    }

    /// Lists a question as one that waits, until what this gives is dropped.
    pub(super) fn waits(self: &Rc<Self>, question: &Question, requester: &Requester) -> Waits {
        let number = self.number();
        let program = escaped(&requester.program(), 100);
        let on = requester.terminal_name().map_or(String::new(), |terminal| format!(" on {terminal}"));
        let text = format!("{} (pid {}{on}, {program})", question.title, requester.peer.pid);
        self.waiting.borrow_mut().insert(number, text);
        self.touch();
        Waits { board: Rc::clone(self), number }
    }

    /// Shows on the enrolled terminal what happened.
    pub(crate) fn note(&self, happened: &str) {
        let mut lines = self.happened.borrow_mut();
        if lines.len() == HAPPENED.0 {
            lines.pop_front();
        }
        lines.push_back(escaped(happened, HAPPENED.1));
        drop(lines);
        self.touch();
    }

    /// Seconds for which everything is denied, 0 for none.
    pub(crate) fn denied_for(&self) -> u64 {
        let left = self.denied_until.get().saturating_sub(clock::since_boot());
        left.as_millis().div_ceil(1000).try_into().unwrap_or(0)
    }

    /// Refuses while everything is denied.
    pub(crate) fn denies(&self) -> Result<(), No> {
        match self.denied_for() {
            0 => Ok(()),
            seconds => Err(No::DeniesAll(seconds)),
        }
    }

    pub(crate) fn deny_no_more(&self) {
        self.denied_until.set(Duration::ZERO);
        self.touch();
    }

    fn deny_all(&self) {
        self.denied_until.set(clock::since_boot() + DENIAL);
        if let Some(standing) = self.standing.borrow().as_ref() {
            let _ = standing.answers.try_send(Answer::Deny);
        }
    }

    fn answer(&self, number: u64, answer: Answer) {
        if let Some(standing) = self.standing.borrow_mut().as_mut().filter(|now| now.number == number) {
            if matches!(answer, Answer::Pin(_)) {
                standing.remark = "The PIN is being checked.";
            }
            let _ = standing.answers.try_send(answer);
        }
    }
}

/// The right to answer, until dropped or taken away.
pub(crate) struct Seat {
    board: Rc<Board>,
    number: u64,
    left: oneshot::Receiver<String>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let is_ours = |enrolled: &Enrolled| enrolled.number == self.number;
        if self.board.enrolled.borrow().as_ref().is_some_and(is_ours) {
            self.board.end("left");
        }
    }
}

pub(super) struct Waits {
    board: Rc<Board>,
    number: u64,
}

impl Drop for Waits {
    fn drop(&mut self) {
        self.board.waiting.borrow_mut().remove(&self.number);
        self.board.touch();
    }
}

/// A question's place on the enrolled terminal. It is gone from there with this.
pub(crate) struct OnBoard {
    board: Rc<Board>,
    pub(crate) terminal: String,
    number: u64,
    answers: Option<mpsc::Receiver<Answer>>,
}

impl OnBoard {
    pub(super) fn show(&mut self, question: &Question) -> Result<(), No> {
        if self.board.enrolled.borrow().is_none() {
            return Err(No::BoardLeft);
        }
        let (sender, answers) = mpsc::channel(1);
        self.answers = Some(answers);
        let (number, question) = (self.number, question.clone());
        let standing = Standing { number, question, answers: sender, remark: "" };
        *self.board.standing.borrow_mut() = Some(standing);
        self.board.touch();
        Ok(())
    }

    pub(super) async fn typed(&mut self) -> Result<SecretBytes, No> {
        let answers = self.answers.as_mut().ok_or(No::BoardLeft)?;
        match answers.recv().await {
            Some(Answer::Pin(pin)) => Ok(pin),
            Some(Answer::Deny) => Err(No::Declined),
            None => Err(No::BoardLeft),
        }
    }

    pub(super) fn say(&self, remark: &'static str) {
        if let Some(standing) = self.board.standing.borrow_mut().as_mut() {
            standing.remark = remark;
        }
        self.board.touch();
    }
}

impl Drop for OnBoard {
    fn drop(&mut self) {
        let is_ours = |standing: &Standing| standing.number == self.number;
        if self.board.standing.borrow().as_ref().is_some_and(is_ours) {
            self.board.standing.take();
        }
        self.board.touch();
    }
}
