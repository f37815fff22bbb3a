//! Yeses that cover more than one request: what is offered, given, used, listed and taken back.

use super::{Act, Beyond, Broker, Refusal};
use crate::approval::question::Offer;
use crate::audit::event::Event;
use crate::audit::sink::Durable;
use crate::clock;
use crate::grant::table::{Asker, Grant, Process};
use crate::policy::decide::Judgement;
use crate::policy::rule::{Scope, Verdict};
use crate::requester::Requester;
use keyloan_platform::process;
use keyloan_protocol::control::response::{GrantSummary, Reply};
use keyloan_protocol::time_span::TimeSpan;

impl Broker {
    /// The grant that covers a request, one of its uses taken. None does what another host forwards, what is asked
    /// for whatever was allowed, and what the policy wants the PIN for.
    pub(super) fn covered_by_grant(
        &self,
        requester: &Requester,
        act: &Act,
        judgement: &Judgement,
    ) -> Option<u64> {
        let may = judgement.verdict == Verdict::Ask && !matches!(act.beyond, Beyond::Always(_));
        if !may || self.grants.borrow().is_empty() {
            return None;
        }
        let asker = asker(requester);
        self.grants.borrow_mut().cover(&act.subjects, &asker, clock::since_boot())
    }

    /// What a yes may cover besides the request, as the policy has it.
    pub(super) fn offers(
        &self,
        requester: &Requester,
        act: &Act,
        judgement: &Judgement,
    ) -> Result<Vec<Offer>, Refusal> {
        let is_forwarded = act.subjects.iter().any(|(_, subject)| subject.forwarded);
        let may =
            judgement.verdict == Verdict::Ask && !matches!(act.beyond, Beyond::Always(_)) && !is_forwarded;
        let scopes = self.with_policy(|policy| policy.grants.clone())?;
        let Some((_, command)) = command(requester).filter(|_| may) else { return Ok(Vec::new()) };
        let terminal = requester.terminal_name();
        let offer = |scope: Scope| {
            let words = match scope {
                Scope::Command => format!("and the same again for {command}, until that ends"),
                Scope::Time(time) => format!("and the same again for {command}, for {}", TimeSpan::of(time)),
                Scope::Uses(uses) => format!("and the same for {command}, {uses} times in all"),
                Scope::Terminal(time) => {
                    let terminal = terminal.as_deref()?;
                    format!("and the same for ANYTHING on {terminal}, for {}", TimeSpan::of(time))
                }
            };
            Some(Offer { scope, words })
        };
        Ok(scopes.into_iter().filter_map(offer).collect())
    }

    /// Gives what a yes was for besides the request. Where it cannot be written down it is not given.
    pub(super) fn give_grant(
        &self,
        requester: &Requester,
        act: &Act,
        offer: &Offer,
        request: u64,
    ) -> Result<(), Refusal> {
        let Some((process, command)) = command(requester) else { return Ok(()) };
        let now = clock::since_boot();
        // The request that it came with is the first of its uses.
        let scope = match offer.scope {
            Scope::Uses(uses) => Scope::Uses(uses.saturating_sub(1)),
            scope => scope,
        };
        let mut grant = Grant::of(scope, act.subjects.clone(), process, requester.terminal, now);
        grant.shown = format!("{} {}", act.title, act.names.join(", "));
        grant.holder_shown = match offer.scope {
            Scope::Terminal(_) => requester.terminal_name().unwrap_or_default(),
            _ => command,
        };
        grant.since = clock::now();
        let (covers, holder) = (grant.shown.clone(), grant.holder_shown.clone());
        let given = self.grants.borrow_mut().give(grant);
        let Some(id) = given else { return Ok(()) };
        let event = Event::Granted { request, grant: id, scope: offer.scope.to_string(), covers, holder };
        self.record(&event, Durable::Now).inspect_err(|_| {
            self.grants.borrow_mut().revoke(id);
        })?;
        Ok(())
    }

    pub(crate) fn list_grants(&self) -> Reply {
        self.end_grants_over();
        let now = clock::since_boot();
        let grants = self.grants.borrow();
        let summary = |(id, grant): &(u64, Grant)| GrantSummary {
            grant: *id,
            covers: grant.shown.clone(),
            holder: grant.holder_shown.clone(),
            since: grant.since.clone(),
            seconds_left: grant.until.map(|until| until.saturating_sub(now).as_secs()),
            uses_left: grant.uses_left,
        };
        Reply::Grants { grants: grants.all().map(summary).collect() }
    }

    /// Less is covered afterwards, so nobody is asked.
    pub(crate) fn revoke(&self, grant: Option<u64>) -> Result<Reply, Refusal> {
        let revoked = match grant {
            None => self.grants.borrow_mut().revoke_all(),
            Some(id) if self.grants.borrow_mut().revoke(id) => vec![id],
            Some(id) => return Err(Refusal::NotFound { what: "grant", name: id.to_string() }),
        };
        self.note_ended(&revoked, "revoked");
        Ok(Reply::done(match revoked.len() {
            0 => "there was no grant".to_owned(),
            1 => "1 grant is revoked".to_owned(),
            many => format!("{many} grants are revoked"),
        }))
    }

    /// Called every few seconds, and before they are listed.
    pub(super) fn end_grants_over(&self) {
        let lives = |(pid, started): Process| process::stat(pid).is_some_and(|stat| stat.started == started);
        let over = self.grants.borrow_mut().end_those_over(clock::since_boot(), lives);
        self.note_ended(&over, "over");
    }

    pub(super) fn end_all_grants(&self, why: &'static str) {
        let ended = self.grants.borrow_mut().revoke_all();
        self.note_ended(&ended, why);
    }

    fn note_ended(&self, grants: &[u64], why: &'static str) {
        for grant in grants {
            // What ends needs no record to end.
            let _ = self.record(&Event::GrantEnded { grant: *grant, why }, Durable::Soon);
        }
    }
}

fn asker(requester: &Requester) -> Asker {
    Asker { lineage: requester.lineage(), terminal: requester.terminal }
}

/// The process that "this command" means, with its program: the one that the shell started, as far as the requester
/// descends from it; else the requester itself.
fn command(requester: &Requester) -> Option<(Process, String)> {
    let lineage = requester.lineage();
    let group = process::stat(requester.peer.pid)?.group;
    let found = lineage.iter().find(|(pid, _)| *pid == group).or_else(|| lineage.first())?;
    let program =
        process::exe(found.0).map_or("AN UNREADABLE PROGRAM".to_owned(), |exe| exe.display().to_string());
    Some((*found, format!("{program} (pid {})", found.0)))
}
