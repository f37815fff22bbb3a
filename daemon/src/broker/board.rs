//! `keyloan approve`: a terminal that answers. It is enrolled with the passphrase, said so elsewhere, and written down.

use super::{Act, Beyond, Broker, Client, Refusal};
use crate::approval::board::keys;
use crate::approval::question::Question;
use crate::approval::terminal::Screen;
use crate::audit::event::{Event, Who};
use crate::audit::sink::Durable;
use crate::clock;
use crate::policy::decide::Subject;
use crate::policy::order::Way;
use crate::policy::rule::{Kind, Verdict};
use keyloan_protocol::control::Message;
use keyloan_protocol::control::response::Reply;
use keyloan_protocol::secret::SecretBytes;

/// Writes down that a terminal answers no more, however that came: its client may have been killed.
struct Approver<'a> {
    broker: &'a Broker,
    by: Who,
    terminal: String,
}

impl Drop for Approver<'_> {
    fn drop(&mut self) {
        // The record of a lock says it as well, and nothing comes after that of the daemon's end.
        if self.broker.is_open() {
            // Less is answered afterwards, and that needs no record to be so.
            let _ = self.broker.record(&Event::ApproverLeft { by: self.by.clone() }, Durable::Soon);
        }
        self.broker.announce(&self.terminal, &format!("{} answers no more (keyloan approve)", self.terminal));
    }
}

impl Broker {
    pub(crate) async fn approve(
        &self,
        client: &Client,
        passphrase: Option<SecretBytes>,
    ) -> Result<Reply, Refusal> {
        let requester = &client.requester;
        // Before a passphrase is typed for nothing.
        drop(Screen::of(requester)?);
        let terminal = requester.terminal_name().unwrap_or_default();
        if self.queue.board.terminal().as_ref() == Some(&terminal) {
            return Err(Refusal::Input("this terminal answers already"));
        }
        let act = Act {
            subjects: vec![(Kind::Approver, Subject::of(&terminal))],
            title: "answer on this terminal what keyloan asks".to_owned(),
            names: vec![terminal.clone()],
            beyond: Beyond::Nothing,
        };
        let was_open = self.is_open();
        if was_open {
            self.refuse_forbidden(requester, &act).await?;
        }
        let mut question = Question::new(if was_open {
            "answer on this terminal what keyloan asks"
        } else {
            "unlock the vault, and answer on this terminal what keyloan asks"
        });
        Self::about(
            &mut question,
            "then",
            "questions come here, whoever asks, as approver.order has it, until it is left",
        );
        let text = self.proved_identity(client, passphrase, question, None, false).await?;
        self.open_with(client, &text, false)?;
        drop(text);
        // Of a locked vault it is known only now, and of an open one it may have changed.
        self.refuse_forbidden(requester, &act).await?;
        let screen = Screen::of(requester)?;
        let by = self.who(requester);
        self.record(&Event::ApproverEnrolled { by: by.clone() }, Durable::Now)?;
        let line = format!("{terminal} answers from now on (keyloan approve)");
        // Before it moves: else whoever opens a locked vault by this would be told alone.
        self.mention_enrolment(&line);
        self.announce(&terminal, &line);
        if !was_open {
            self.move_surface(requester, None);
        }
        let _approver = Approver { broker: self, by, terminal: terminal.clone() };
        let mut seat = self.queue.board.enrol(terminal.clone());
        let _ = client.replies.send(Message::new(Reply::Enrolled)).await;
        let head = || self.board_head(&terminal);
        let why = keys::serve(&mut seat, &screen, requester, &head).await?;
        Ok(Reply::done(format!("{terminal} answers no more: {why}")))
    }

    fn board_head(&self, terminal: &str) -> String {
        let elsewhere = self.with_policy(|policy| {
            if !policy.order.ways().contains(&Way::Approve) {
                return Some(format!(
                    "nothing comes here: approver.order ({}) does not name it",
                    policy.order
                ));
            }
            let path = policy.program_answers(Verdict::Ask)?.path.display();
            Some(format!("the approver program {path} answers; only what wants the PIN comes here"))
        });
        if let Ok(Some(elsewhere)) = elsewhere {
            return format!("keyloan approve on {terminal}; {elsewhere}");
        }
        let minutes = self.idle_left().unwrap_or_default().as_secs().div_ceil(60);
        format!("keyloan approve on {terminal}; the vault locks after {minutes} min without a request")
    }

    /// Shows what was written down on the enrolled terminal.
    pub(super) fn show_on_board(&self, events: &[&Event]) {
        let board = &self.queue.board;
        if board.terminal().is_none() {
            return;
        }
        for told in events.iter().filter_map(|event| told(event)) {
            let now = clock::now();
            // `2027-01-31T12:00:00.000Z`
            let time = now.get(11..19).unwrap_or_default();
            board.note(&format!("{time}  {told}"));
        }
    }
}

/// What an event says to whoever answers; names alone.
fn told(event: &Event) -> Option<String> {
    Some(match event {
        Event::Requested { request, act, names, by } => {
            let program = by.programs.first().map_or("", String::as_str);
            format!("{request} asked: {act}: {}, by {program} (pid {})", names.join(" "), by.pid)
        }
        Event::Decided { request, decision, rule, approver: None } => {
            format!("{request} {decision} ({rule})")
        }
        Event::Decided { request, decision, approver: Some(by), .. } => format!("{request} {decision}: {by}"),
        Event::Lent { request, loan, names, pid, .. } => {
            format!("{request} lent: {} to pid {pid} (loan {loan})", names.join(" "))
        }
        Event::Released { request, .. } => format!("{request} given out"),
        Event::Signed { request, key, permits, .. } => format!("{request} signed: {permits} with {key}"),
        Event::CertificateMade { request, key, by, users, until, .. } => {
            format!("{request} certified: {key} as {} by {by}, until {until}", users.join(", "))
        }
        Event::Failed { request, cause } => format!("{request} failed: {cause}"),
        Event::Granted { request, grant, scope, covers, holder } => {
            format!("{request} granted: {covers} for {holder}, {scope} (grant {grant})")
        }
        Event::GrantEnded { grant, why } => format!("grant {grant} ended: {why}"),
        Event::LoanEnded { loan, why } => format!("loan {loan} ended: {why}"),
        Event::LeaseLeft { vault, item, cause, .. } => {
            format!("{vault}://{item} was not ended there: {cause}")
        }
        Event::TurnedAway { count } => format!("{count} more were refused unasked: too many"),
        Event::HostChanged { request, host, action } => format!("{request} {action}: {host}"),
        Event::PinFailed { failures, .. } => format!("wrong PIN, {failures} in a row"),
        Event::UnlockFailed { by } => format!("wrong passphrase, typed for pid {}", by.pid),
        _ => return None,
    })
}
