//! The way of every request, in one place:
//!
//! requester → policy → approval (or rule) → audit record → vault → loan → reply
//!
//! The order is an invariant: nothing leaves a vault before its record is in the log, and nothing is
//! recorded as lent that was not.

mod board;
mod copies;
mod first;
mod grants;
mod item_copy;
mod items;
mod judging;
mod keeper;
mod kept;
mod keyring_key;
mod leases;
mod lend;
mod linked;
mod linked_items;
mod loans;
mod log;
mod made;
mod opening;
mod phrase;
mod reading;
mod recipients;
mod refusal;
mod sealing;
mod settings;
mod shell;
mod ssh;
mod status;
mod surface;
mod titles;
mod turned_away;
mod vaults;
mod ways;

pub(crate) use crate::approval::pinentry::Desktop;
pub(crate) use copies::Opening;
pub(crate) use keeper::Unlock;
pub(crate) use lend::Found;
pub(crate) use refusal::Refusal;
pub(crate) use ssh::{AgentConnection, AgentRefusal, AgentSocket, Elsewhere, KeyChange, KeyFiles, Recipe};
pub(crate) use vaults::NewLink;

use crate::approval::notification::Notifier;
use crate::approval::offer::Also;
use crate::approval::question::{Certainty, Question};
use crate::approval::queue::{Queue, Told, Ways};
use crate::approval::{Covers, No, Yes};
use crate::audit::event::{Event, Who};
use crate::audit::given::{Given, History};
use crate::audit::sink::{Durable, LogError, Sink};
use crate::clock;
use crate::config::Config;
use crate::grant;
use crate::hosts::pins::Pins;
use crate::journal::{self, Level};
use crate::loan::table::Table;
use crate::policy::decide::{Judgement, Subject};
use crate::policy::rule::{ApproverProgram, Kind, Policy, Verdict};
use crate::requester::Requester;
use crate::trust::TrustList;
use crate::vault::linked::links::Links;
use crate::vault::local::{self, LocalVault};
use grants::shown_grant;
use keyloan_platform::paths::Paths;
use keyloan_protocol::control::Message;
use keyloan_protocol::control::response::Reply;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
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
    links: Rc<Links>,
}

pub(crate) struct Broker {
    paths: Paths,
    config: Config,
    vault: RefCell<LocalVault>,
    unsealed: RefCell<Option<Unsealed>>,
    /// Linked vaults that were asked for something since the local one was opened.
    linked: linked::Opened,
    log: RefCell<Sink>,
    history: History,
    queue: Queue,
    /// Locked by wrong PINs, and not opened by the passphrase since.
    guessed: Cell<bool>,
    notifier: Notifier,
    loans: RefCell<Table>,
    leases: Rc<leases::Ends>,
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
    grants: RefCell<grant::table::Table>,
    uses: RefCell<grant::uses::Uses>,
    turned_away: RefCell<turned_away::TurnedAway>,
    unasked: RefCell<settings::Unasked>,
    ssh: ssh::Agent,
    /// The vault was opened.
    opened: Notify,
    locked: Notify,
    pub(crate) stop: Notify,
}

/// What is asked for, as policy, human and log see it.
pub(crate) struct Act {
    subjects: Vec<(Kind, Subject)>,
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
    /// What a yes gives, for the record that says it was given.
    given: Option<Given>,
    /// The yes is for keeping the name of a login's host with its key, too, as was offered.
    keeps_host: bool,
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
            linked: linked::Opened::default(),
            log: RefCell::new(log),
            history: History::default(),
            queue: Queue::new(),
            guessed: Cell::default(),
            notifier: Notifier::default(),
            loans: RefCell::default(),
            leases: Rc::default(),
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
            grants: RefCell::default(),
            uses: RefCell::default(),
            turned_away: RefCell::default(),
            unasked: RefCell::default(),
            ssh: ssh::Agent::new(),
            opened: Notify::new(),
            locked: Notify::new(),
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
    pub(crate) async fn stopped(&self) {
        self.lock("the daemon stops");
        self.end_all_loans("the daemon stops");
        self.leases_over().await;
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
        let judgement = self.judge(&client.requester, &act).await?;
        self.authorise_judged(client, act, judgement, describe).await
    }

    /// The same, where it had to be known what the policy says before the question could be worked out.
    async fn authorise_judged(
        &self,
        client: &Client,
        act: Act,
        judgement: Judgement,
        describe: impl FnOnce(&mut Question),
    ) -> Result<Approved, Refusal> {
        let requester = &client.requester;
        let request = self.next_request();
        let by = self.who(requester);
        let requested = Event::Requested { request, act: act.title.clone(), names: act.names.clone(), by };
        let decided =
            |decision, approver| Event::Decided { request, decision, rule: judgement.rule.clone(), approver };
        let approved = Event::Approved { request, names: act.names.clone() };
        let mut done = Approved { request, durable: Durable::Soon, given: None, keeps_host: false };
        match judgement.verdict {
            Verdict::Allow(_) => {
                if let Some((rule, limit)) = judgement.limit() {
                    self.uses.borrow_mut().count(rule, limit, clock::since_boot());
                }
                self.record_all(&[&requested, &decided("allowed", None), &approved], Durable::Soon)?;
            }
            Verdict::Deny => {
                self.turn_away(&[&requested, &decided("denied", None)])?;
                self.mention_refusal(&act.title, &judgement.rule);
                return Err(Refusal::Denied { rule: judgement.rule });
            }
            Verdict::Ask | Verdict::AskPin
                if let Some(grant) = self.covered_by_grant(requester, &act, &judgement) =>
            {
                let decided = decided("covered", Some(shown_grant(grant)));
                self.record_all(&[&requested, &decided, &approved], Durable::Soon)?;
            }
            Verdict::Ask | Verdict::AskPin if let Err(no) = self.admits(requester, judgement.verdict) => {
                self.turn_away(&[&requested, &decided("declined", Some(no.to_string()))])?;
                return Err(no.into());
            }
            Verdict::Ask | Verdict::AskPin => {
                self.record(&requested, Durable::Soon)?;
                let mut question = Question::new(&act.title);
                describe(&mut question);
                question.asked_by(requester);
                let given = first::given(requester, &act);
                self.show_first_time(&mut question, given.as_ref(), &act);
                let offered = self.offered(requester, &act, &judgement)?;
                if let Some(offered) = &offered {
                    offered.show(&mut question);
                }
                let mut unanswered = Unanswered { broker: self, request, rule: &judgement.rule, asked: true };
                let covered = || self.covered_by_grant(requester, &act, &judgement).map(shown_grant);
                let era = self.era();
                let answer = self.ask(client, &question, judgement.verdict, &covered).await;
                // What was made stricter while it waited holds for it, too.
                let again = answer.is_ok() && era != self.era();
                let now = if again { Some(self.judge(requester, &act).await) } else { None };
                unanswered.asked = false;
                match now {
                    Some(Err(refusal)) => {
                        self.record(&decided("declined", Some(refusal.to_string())), Durable::Soon)?;
                        return Err(refusal);
                    }
                    Some(Ok(now)) if now.verdict.strictness() > judgement.verdict.strictness() => {
                        self.record(&decided("denied", Some(now.rule.clone())), Durable::Soon)?;
                        return Err(Refusal::Denied { rule: now.rule });
                    }
                    _ => {}
                }
                match answer {
                    // As if it had been given before.
                    Ok(Yes { by, covers: Covers::Granted }) => {
                        self.record_all(&[&decided("covered", Some(by)), &approved], Durable::Soon)?;
                    }
                    Ok(yes) => {
                        self.record_all(&[&decided("approved", Some(yes.by)), &approved], Durable::Now)?;
                        if let Covers::Also(offer) = yes.covers {
                            match (offer.also, offered) {
                                (Also::Grant(scope), Some(offered)) => {
                                    self.give_grant(offered, &act, scope, request)?;
                                }
                                (Also::Pin, _) => done.keeps_host = true,
                                (Also::Grant(_), None) => {}
                            }
                        }
                        done.durable = Durable::Now;
                    }
                    Err(no) => {
                        let durable = if no.is_of_a_flood() { Durable::Soon } else { Durable::Now };
                        self.record(&decided("declined", Some(no.to_string())), durable)?;
                        return Err(no.into());
                    }
                }
                done.given = given.filter(Given::is_known);
            }
        }
        self.last_used.set(clock::since_boot());
        Ok(done)
    }

    /// Puts the question where policy and the last unlock say it belongs.
    async fn ask(
        &self,
        client: &Client,
        question: &Question,
        verdict: Verdict,
        covered: &dyn Fn() -> Option<String>,
    ) -> Result<Yes, No> {
        if let Some(cause) = question.unshowable() {
            return Err(No::Unshowable(cause));
        }
        let requester = &client.requester;
        let asking_program = |program: &ApproverProgram| {
            let on = format!("the approver program {}", program.path.display());
            // Room is for four replies and this is the first; a client that is gone needs none.
            let _ = client.replies.try_send(Message::new(Reply::Waiting { on }));
        };
        let wrong_pin = |failures, locks| {
            let by = self.who(requester);
            // The refusal that follows does not depend on this record.
            let _ = self.record(&Event::PinFailed { by, failures }, Durable::Now);
            if locks {
                self.lock("five wrong PINs");
                self.guessed.set(true);
            }
        };
        let announced = Cell::new(None);
        let asking = |place: &_| announced.set(self.tell(client, place, &question.title));
        let (era, is_without_pin) = (Cell::new(self.era()), Cell::new(false));
        let ways = || {
            let policy = self.with_policy(Clone::clone).map_err(|_| No::Meanwhile)?;
            era.set(self.era());
            // A program has no PIN.
            is_without_pin.set(verdict == Verdict::AskPin && policy.approver.is_some());
            Ok(Ways {
                order: policy.order,
                program: policy.approver.filter(|_| !is_without_pin.get()),
                askpass: policy.askpass,
                desktop: self.desktop(),
                asker: self.asker(requester),
                pin_verifier: self.vault.borrow().sealed(local::PIN).ok().flatten().map(Arc::new),
                phrase: self.phrase(),
                deadline: policy.deadline,
            })
        };
        let told = Told {
            ways: &ways,
            wrong_pin: &wrong_pin,
            asking: &asking,
            asking_program: &asking_program,
            covered,
        };
        let answer = tokio::select! {
            biased;
            answer = self.queue.ask(question, requester, self.asker(requester), told) => answer,
            // What stands or waits goes with what it would be answered from.
            () = self.locked.notified() => Err(No::Meanwhile),
        };
        match answer {
            Err(No::Unaskable) if is_without_pin.get() => Err(No::Pinless),
            Ok(Yes { covers: Covers::Once | Covers::Also(_), .. }) if era.get() != self.era() => {
                Err(No::Meanwhile)
            }
            answer => answer,
        }
    }

    /// Another one after every lock and every change of the policy.
    fn era(&self) -> u64 {
        self.grants.borrow().era()
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
        })?;
        for event in events {
            self.history.note(event);
        }
        self.show_on_board(events);
        Ok(())
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
