//! The way of every request, in one place:
//!
//! requester → policy → approval (or rule) → audit record → vault → loan → reply
//!
//! The order is an invariant: nothing leaves a vault before its record is in the log, and nothing is
//! recorded as lent that was not.

mod copies;
mod items;
mod keeper;
mod lend;
mod loans;
mod log;
mod made;
mod opening;
mod recipients;
mod refusal;
mod settings;
mod shell;
mod ssh;
mod status;
mod surface;

pub(crate) use crate::approval::pinentry::Desktop;
pub(crate) use copies::Opening;
pub(crate) use keeper::Unlock;
pub(crate) use lend::Found;
pub(crate) use refusal::Refusal;
pub(crate) use ssh::{AgentConnection, AgentRefusal, AgentSocket, KeyChange, KeyFiles};

use crate::approval::question::{Certainty, Question};
use crate::approval::queue::{Queue, Told, Ways};
use crate::approval::{No, Yes};
use crate::audit::event::{Event, Who};
use crate::audit::sink::{Durable, LogError, Sink};
use crate::clock;
use crate::config::Config;
use crate::hosts::pins::Pins;
use crate::journal::{self, Level};
use crate::loan::table::Table;
use crate::policy::decide::{Judgement, decide};
use crate::policy::rule::{Kind, Policy, Verdict};
use crate::requester::Requester;
use crate::trust::TrustList;
use crate::vault::local::{self, LocalVault};
use keyloan_platform::paths::Paths;
use keyloan_protocol::control::Message;
use keyloan_protocol::control::response::Reply;
use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::Duration;
use surface::Surface;
use tokio::sync::{Mutex, Notify, mpsc};

/// One client and the way back to it.
pub(crate) struct Client {
    pub(crate) requester: Requester,
    /// Replies before the last one.
    pub(crate) replies: mpsc::Sender<Message<Reply>>,
}

/// What an open vault says besides its items.
struct Unsealed {
    policy: Policy,
    trust: TrustList,
    pins: Arc<Pins>,
}

pub(crate) struct Broker {
    paths: Paths,
    config: Config,
    vault: RefCell<LocalVault>,
    unsealed: RefCell<Option<Unsealed>>,
    log: RefCell<Sink>,
    queue: Queue,
    loans: RefCell<Table>,
    requests: Cell<u64>,
    last_used: Cell<Duration>,
    anchored_at: Cell<Duration>,
    /// This daemon has found a log that was not the one the vault remembers.
    log_mismatched: Cell<bool>,
    surface: RefCell<Surface>,
    /// One key derivation at a time: each takes 128 MiB.
    derivation: Arc<Mutex<()>>,
    /// One change of what opens the vault at a time: each reads the identity, waits, and writes it.
    keeping: Arc<Mutex<()>>,
    /// One look for holders at a time, and the last loan of the one before.
    looking: Arc<Mutex<()>>,
    looked_at: Cell<u64>,
    /// One check of the log at a time: each reads all of it.
    verification: Arc<Mutex<()>>,
    syncing: Mutex<()>,
    ssh: ssh::Agent,
    /// The vault was opened.
    opened: Notify,
    pub(crate) stop: Notify,
}

/// What is asked for, as policy, human and log see it.
pub(crate) struct Act {
    kinds: Vec<Kind>,
    title: String,
    /// Variables, items, files: what it is about.
    names: Vec<String>,
    beyond: Beyond,
}

/// What a request brings to its judgement besides its kinds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Beyond {
    Nothing,
    /// It is asked for even where a rule allows it.
    Always(&'static str),
    /// It is covered by the yes to the same, where a rule would have it asked for.
    Covered(&'static str),
}

/// Proof that a request went through policy, approval and record. Only [`Broker::authorise`] makes one, and, before a
/// locked vault, `ask_to_open`; what reads or changes a vault's items wants one.
#[must_use]
pub(crate) struct Approved {
    request: u64,
    durable: Durable,
    names: Vec<String>,
}

/// A question that stands. When its requester goes away the whole request is dropped, and with it this,
/// which writes down how it ended.
struct Unanswered<'a> {
    broker: &'a Broker,
    request: u64,
    rule: &'a str,
    asked: bool,
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        if self.asked {
            let event = Event::Decided {
                request: self.request,
                decision: "declined",
                rule: self.rule.to_owned(),
                approver: Some("the requester went away".to_owned()),
            };
            // Nothing was released, and nobody is left to be told.
            let _ = self.broker.record(&event, Durable::Soon);
        }
    }
}

impl Broker {
    pub(crate) fn new(paths: Paths, config: Config, log: Sink) -> Self {
        Self {
            vault: RefCell::new(LocalVault::at(&paths.vault)),
            unsealed: RefCell::new(None),
            log: RefCell::new(log),
            queue: Queue::new(),
            loans: RefCell::default(),
            requests: Cell::new(0),
            last_used: Cell::new(clock::since_boot()),
            anchored_at: Cell::new(Duration::ZERO),
            log_mismatched: Cell::new(false),
            surface: RefCell::default(),
            derivation: Arc::default(),
            keeping: Arc::default(),
            looking: Arc::default(),
            looked_at: Cell::new(0),
            verification: Arc::default(),
            syncing: Mutex::default(),
            ssh: ssh::Agent::new(),
            opened: Notify::new(),
            stop: Notify::new(),
            paths,
            config,
        }
    }

    /// Notes that the daemon runs. Without a log that can be written it does not start.
    pub(crate) fn started(&self) -> Result<(), LogError> {
        let event = Event::DaemonStarted { version: env!("CARGO_PKG_VERSION"), pid: std::process::id() };
        self.record(&event, Durable::Soon)
    }

    /// The last thing done: nothing stays open and the log says so.
    pub(crate) fn stopped(&self) {
        self.lock("the daemon stops");
        self.end_all_loans("the daemon stops");
        let _ = self.record(&Event::DaemonStopped, Durable::Now);
    }

    /// Requester, policy, approval, record: the first half of every request. `describe` fills in what a
    /// human would need to know; it is not called where a rule decides.
    async fn authorise(
        &self,
        client: &Client,
        act: Act,
        describe: impl FnOnce(&mut Question),
    ) -> Result<Approved, Refusal> {
        let requester = &client.requester;
        let request = self.next_request();
        let judgement = self.judge(&act)?;
        let by = self.who(requester);
        let requested = Event::Requested { request, act: act.title.clone(), names: act.names.clone(), by };
        let decided =
            |decision, approver| Event::Decided { request, decision, rule: judgement.rule.clone(), approver };
        let approved = Event::Approved { request, names: act.names.clone() };
        let durable = match judgement.verdict {
            Verdict::Allow => {
                self.record_all(&[&requested, &decided("allowed", None), &approved], Durable::Soon)?;
                Durable::Soon
            }
            Verdict::Deny => {
                self.record_all(&[&requested, &decided("denied", None)], Durable::Soon)?;
                return Err(Refusal::Denied { rule: judgement.rule });
            }
            Verdict::Ask => {
                self.record(&requested, Durable::Soon)?;
                let mut question = Question::new(&act.title);
                describe(&mut question);
                question.asked_by(requester);
                let mut unanswered = Unanswered { broker: self, request, rule: &judgement.rule, asked: true };
                let answer = self.ask(client, &question).await;
                unanswered.asked = false;
                match answer {
                    Ok(yes) => {
                        self.record_all(&[&decided("approved", Some(yes.by)), &approved], Durable::Now)?;
                    }
                    Err(no) => {
                        self.record(&decided("declined", Some(no.to_string())), Durable::Now)?;
                        return Err(no.into());
                    }
                }
                Durable::Now
            }
        };
        self.last_used.set(clock::since_boot());
        Ok(Approved { request, durable, names: act.names })
    }

    fn judge(&self, act: &Act) -> Result<Judgement, Refusal> {
        let mut judgement = self.with_policy(|policy| decide(policy, &act.kinds))?;
        match (act.beyond, judgement.verdict) {
            (Beyond::Always(why), Verdict::Allow) => {
                judgement = Judgement { verdict: Verdict::Ask, rule: why.to_owned() };
            }
            (Beyond::Covered(why), Verdict::Ask) => {
                judgement = Judgement { verdict: Verdict::Allow, rule: why.to_owned() };
            }
            _ => {}
        }
        Ok(judgement)
    }

    /// Puts the question where policy and the last unlock say it belongs.
    async fn ask(&self, client: &Client, question: &Question) -> Result<Yes, No> {
        if let Some(cause) = question.unshowable() {
            return Err(No::Unshowable(cause));
        }
        let requester = &client.requester;
        let program = self.with_policy(|policy| policy.approver.clone()).ok().flatten();
        if let Some(program) = &program {
            let on = format!("the approver program {}", program.path.display());
            // A client that is gone is noticed by its connection, which drops this whole request.
            let _ = client.replies.send(Message::new(Reply::Waiting { on })).await;
        }
        let pin_verifier = self.vault.borrow().sealed(local::PIN).ok().flatten();
        let wrong_pin = |failures| {
            let by = self.who(requester);
            // The refusal that follows does not depend on this record.
            let _ = self.record(&Event::PinFailed { by, failures }, Durable::Now);
        };
        let asking = |place: &_| self.tell(client, place, &question.title);
        let ways = Ways { program, desktop: self.desktop(), pin_verifier };
        self.queue.ask(question, requester, ways, Told { wrong_pin: &wrong_pin, asking: &asking }).await
    }

    /// Writes a record, keyed while the vault is open.
    fn record(&self, event: &Event, durable: Durable) -> Result<(), LogError> {
        self.record_all(&[event], durable)
    }

    /// Writes records that belong together, all or none.
    fn record_all(&self, events: &[&Event], durable: Durable) -> Result<(), LogError> {
        let vault = self.vault.borrow();
        let mut log = self.log.borrow_mut();
        log.saw_counter(vault.counter());
        log.append_all(events, durable, vault.audit_key()).inspect_err(|error| {
            journal::say(Level::Error, &format!("nothing is lent: {error}"));
        })
    }

    fn who(&self, requester: &Requester) -> Who {
        Who::from(requester, self.vault.borrow().audit_key())
    }

    /// Notes that what was approved did not come about, and passes the reason on.
    fn failed(&self, approved: &Approved, refusal: Refusal) -> Refusal {
        let event = Event::Failed { request: approved.request, cause: refusal.to_string() };
        match self.record(&event, Durable::Soon) {
            Ok(()) => refusal,
            Err(error) => error.into(),
        }
    }

    fn next_request(&self) -> u64 {
        self.requests.set(self.requests.get() + 1);
        self.requests.get()
    }

    fn with_policy<T>(&self, read: impl FnOnce(&Policy) -> T) -> Result<T, Refusal> {
        Ok(read(&self.unsealed.borrow().as_ref().ok_or(Refusal::Locked)?.policy))
    }

    /// A line for a question: what it is about, as the vault's own index has it.
    fn about(question: &mut Question, label: &'static str, text: &str) {
        question.line(label, text, Certainty::Verified);
    }
}
