//! Requests that come while the vault is locked and say all they want before it is open: one question then, whose
//! passphrase is the yes as well. Where nobody can be asked, the request waits for somebody to unlock.

use super::first::given;
use super::{Act, AgentRefusal, Approved, Broker, Client, Refusal, Unanswered};
use crate::approval::place::Place;
use crate::approval::question::Question;
use crate::approval::queue::Turn;
use crate::approval::{DEADLINE, No};
use crate::audit::event::Event;
use crate::audit::given::Given;
use crate::audit::sink::Durable;
use crate::clock::timeout;
use crate::journal::{self, Level};
use crate::policy::decide::Judgement;
use crate::policy::rule::Verdict;
use keyloan_protocol::control::response::VaultState;

/// What stands in the log for the rule where there was none to be read.
const LOCKED: &str = "the vault was locked";

/// Whether the vault is open, for a request that says all it wants before it is.
pub(super) enum Gate<'a> {
    Open,
    /// It is not, and this is where to ask for the passphrase.
    Closed(Box<Place>, Turn<'a>),
}

impl Broker {
    /// Comes back with an open vault, or with a place to ask for its passphrase at. Only then is it worked out what a
    /// request would permit: what was known of a vault that somebody else opens meanwhile is not what that says.
    pub(super) async fn gate(&self, client: &Client) -> Result<Gate<'_>, Refusal> {
        if self.is_open() {
            return Ok(Gate::Open);
        }
        if self.vault.borrow_mut().state() == VaultState::Absent {
            return Err(Refusal::Absent);
        }
        let (asker, desktop) = (self.asker(&client.requester), self.desktop());
        self.queue.admits(asker, desktop.as_ref())?;
        let turn = self.queue.turn(asker, false).await?;
        // Whoever asked before may have unlocked it meanwhile.
        if self.is_open() {
            return Ok(Gate::Open);
        }
        match Place::find(desktop.as_ref(), &client.requester).await {
            Err(No::Unaskable | No::Windowless(_) | No::Background | No::Overheard) => {
                drop(turn);
                self.wait_until_opened().await?;
                Ok(Gate::Open)
            }
            place => Ok(Gate::Closed(Box::new(place?), turn)),
        }
    }

    pub(super) async fn authorise_behind(
        &self,
        gate: Gate<'_>,
        client: &Client,
        act: Act,
        judgement: Option<Judgement>,
        describe: impl FnOnce(&mut Question),
    ) -> Result<Approved, Refusal> {
        match gate {
            Gate::Open => match judgement {
                Some(judgement) => self.authorise_judged(client, act, judgement, describe).await,
                None => self.authorise(client, act, describe).await,
            },
            Gate::Closed(place, turn) => self.ask_to_open(client, act, describe, *place, turn).await,
        }
    }

    async fn wait_until_opened(&self) -> Result<(), Refusal> {
        journal::say(Level::Warning, "an ssh client waits for the vault; to open it: keyloan unlock");
        let _announced =
            self.notify("an ssh client waits for the vault; to open it: keyloan unlock".to_owned());
        let opened = async {
            while !self.is_open() {
                self.opened.notified().await;
            }
        };
        timeout(DEADLINE, opened).await.map_err(|_| AgentRefusal::StillLocked.into())
    }

    async fn ask_to_open(
        &self,
        client: &Client,
        act: Act,
        describe: impl FnOnce(&mut Question),
        mut place: Place,
        turn: Turn<'_>,
    ) -> Result<Approved, Refusal> {
        let request = self.next_request();
        let by = self.who(&client.requester);
        self.record(
            &Event::Requested { request, act: act.title.clone(), names: act.names.clone(), by },
            Durable::Soon,
        )?;
        let wrapped = self.vault.borrow_mut().wrapped_identity()?;
        let mut question = Question::new(&format!("unlock the vault, and {}", act.title));
        describe(&mut question);
        // Not shown: the log's key is in the vault. What this yes gives is written down all the same.
        let given = given(&client.requester, &act).filter(Given::is_known);
        let mut unanswered = Unanswered { broker: self, request, rule: LOCKED, asked: true };
        let opened = match self.unwrap_typed(client, &mut place, wrapped, question, turn).await {
            Ok(text) => self.open_with(client, &text, false),
            Err(refusal) => Err(refusal),
        };
        unanswered.asked = false;
        let decided = |decision, rule, approver| Event::Decided { request, decision, rule, approver };
        if let Err(refusal) = opened {
            let event = decided("declined", LOCKED.to_owned(), Some(refusal.to_string()));
            self.record(&event, Durable::Now)?;
            return Err(refusal);
        }
        if let Place::Terminal(_) = place {
            self.move_surface(&client.requester, None);
        }
        let judgement = self.judge(&client.requester, &act).await?;
        if judgement.verdict == Verdict::Deny {
            self.record(&decided("denied", judgement.rule.clone(), None), Durable::Soon)?;
            return Err(Refusal::Denied { rule: judgement.rule });
        }
        let by = format!("passphrase {}", place.name(&client.requester));
        let approved = Event::Approved { request, names: act.names.clone() };
        self.record_all(&[&decided("approved", judgement.rule, Some(by)), &approved], Durable::Now)?;
        Ok(Approved { request, durable: Durable::Now, given, keeps_host: false })
    }
}
