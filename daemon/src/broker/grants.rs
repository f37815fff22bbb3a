//! Yeses that cover more than one request: what is offered, given, used, listed and taken back.

use super::{Act, Beyond, Broker, Refusal};
use crate::approval::offer::{Also, Offer};
use crate::approval::question::{Certainty, Question};
use crate::audit::event::Event;
use crate::audit::sink::Durable;
use crate::clock;
use crate::grant::table::{Asker, Grant, Holder, Process, Terminal};
use crate::policy::decide::{Judgement, Subject, To};
use crate::policy::rule::{Kind, Scope, Verdict};
use crate::requester::Requester;
use keyloan_platform::process;
use keyloan_protocol::control::response::{GrantSummary, Reply};
use keyloan_protocol::time_span::TimeSpan;

/// What a yes may cover besides its request, and for whom: settled before anybody is asked, so that nothing that
/// happens meanwhile makes it another's.
pub(super) struct Offered {
    scopes: Vec<Scope>,
    command: (Process, String),
    terminal: Option<(Terminal, String)>,
    /// What "the same" is.
    same: &'static str,
    /// [`Table::era`](crate::grant::table::Table::era) when it was offered.
    era: u64,
}

impl Offered {
    /// What a yes may cover, and behind it how far.
    pub(super) fn show(&self, question: &mut Question) {
        let of_the_terminal = |scope: &Scope| matches!(scope, Scope::Terminal(_));
        let covers = if self.scopes.iter().all(of_the_terminal) {
            self.same.to_owned()
        } else {
            format!("{}, for {} and what it starts", self.same, self.command.1)
        };
        question.line("may cover", &covers, Certainty::Seen);
        let offer = |scope: &Scope| {
            let words = match scope {
                Scope::Command => "covers that until it ends".to_owned(),
                Scope::Time(time) => format!("covers that for {}", TimeSpan::of(*time)),
                Scope::Uses(uses) => format!("covers that {uses} times in all"),
                Scope::Terminal(time) => {
                    let (_, terminal) = self.terminal.as_ref()?;
                    format!("covers that for ANYTHING on {terminal}, for {}", TimeSpan::of(*time))
                }
            };
            Some(Offer { also: Also::Grant(*scope), words })
        };
        // Next to the line that they are about.
        question.offers.splice(0..0, self.scopes.iter().filter_map(offer));
    }

    fn holder(self, scope: Scope) -> Option<(Holder, String)> {
        match scope {
            Scope::Terminal(_) => self.terminal.map(|(terminal, name)| (Holder::Terminal(terminal), name)),
            _ => Some((Holder::Command(self.command.0), self.command.1)),
        }
    }
}

impl Broker {
    /// The grant that covers a request, one of its uses taken.
    pub(super) fn covered_by_grant(
        &self,
        requester: &Requester,
        act: &Act,
        judgement: &Judgement,
    ) -> Option<u64> {
        if self.grants.borrow().is_empty() || !may_be_granted(&act.subjects, act.beyond, judgement.verdict) {
            return None;
        }
        let lineage = requester.lineage().into_iter().map(|(pid, stat)| (pid, stat.started)).collect();
        let asker = Asker { lineage, terminal: requester.terminal_session() };
        self.grants.borrow_mut().cover(&act.subjects, &asker, clock::since_boot())
    }

    /// What a yes may be said to cover, as the policy has it.
    pub(super) fn scopes(
        &self,
        subjects: &[(Kind, Subject)],
        beyond: Beyond,
        verdict: Verdict,
    ) -> Result<Vec<Scope>, Refusal> {
        let scopes = self.with_policy(|policy| policy.grants.clone())?;
        Ok(if may_be_granted(subjects, beyond, verdict) { scopes } else { Vec::new() })
    }

    /// The same for a requester.
    pub(super) fn offered(
        &self,
        requester: &Requester,
        act: &Act,
        judgement: &Judgement,
    ) -> Result<Option<Offered>, Refusal> {
        let mut scopes = self.scopes(&act.subjects, act.beyond, judgement.verdict)?;
        let Some(command) = command(requester) else { return Ok(None) };
        if is_to_shell(&act.subjects) {
            // What asks ends with this request, and the shell is no command: whatever it starts next could ask again, unseen,
            // for what unopvars took out.
            scopes.retain(|scope| matches!(scope, Scope::Terminal(_)));
        }
        if scopes.is_empty() {
            return Ok(None);
        }
        let terminal = requester.terminal_session().zip(requester.terminal_name());
        let (same, era) = (same(&act.subjects), self.grants.borrow().era());
        Ok(Some(Offered { scopes, command, terminal, same, era }))
    }

    /// Gives what a yes was for besides the request. Where it cannot be written down it is not given.
    pub(super) fn give_grant(
        &self,
        offered: Offered,
        act: &Act,
        scope: Scope,
        request: u64,
    ) -> Result<(), Refusal> {
        // The question stood through a lock, or a change of the policy: the yes is for the request alone.
        if offered.era != self.grants.borrow().era() {
            return Ok(());
        }
        let Some((holder, holder_shown)) = offered.holder(scope) else { return Ok(()) };
        // The request that it came with is the first of its uses.
        let rest = match scope {
            Scope::Uses(uses) => Scope::Uses(uses.saturating_sub(1)),
            scope => scope,
        };
        let mut grant = Grant::of(rest, act.subjects.clone(), holder, clock::since_boot());
        grant.shown = covers(&act.subjects);
        grant.holder_shown = holder_shown;
        grant.since = clock::now();
        let (covers, holder) = (grant.shown.clone(), grant.holder_shown.clone());
        let given = self.grants.borrow_mut().give(grant);
        let Some(id) = given else { return Ok(()) };
        let event = Event::Granted { request, grant: id, scope: scope.to_string(), covers, holder };
        self.record(&event, Durable::Now).inspect_err(|_| {
            self.grants.borrow_mut().revoke(id);
        })?;
        self.queue.granted();
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
        let lives = |(pid, started): Process| {
            process::stat(pid).is_some_and(|stat| stat.started == started && !stat.is_zombie)
        };
        let over = self.grants.borrow_mut().end_those_over(clock::since_boot(), lives);
        self.note_ended(&over, "its time, its uses or its holder came to an end");
    }

    pub(super) fn end_all_grants(&self, why: &'static str) {
        let ended = self.grants.borrow_mut().end_all();
        self.note_ended(&ended, why);
    }

    fn note_ended(&self, grants: &[u64], why: &'static str) {
        for grant in grants {
            // What ends needs no record to end.
            let _ = self.record(&Event::GrantEnded { grant: *grant, why }, Durable::Soon);
        }
    }
}

/// What another host forwards, what is asked for whatever was allowed, what the policy wants the PIN for, and what
/// changes the vault is each asked for by itself.
fn may_be_granted(subjects: &[(Kind, Subject)], beyond: Beyond, verdict: Verdict) -> bool {
    let is_one = |(kind, subject): &(Kind, Subject)| {
        // All that anybody ever lent to is read with the command lines of the log, and is no item.
        kind.can_be_granted() && !subject.forwarded && (*kind != Kind::ItemRead || subject.item.is_some())
    };
    verdict == Verdict::Ask && !matches!(beyond, Beyond::Always(_)) && subjects.iter().all(is_one)
}

fn is_to_shell(subjects: &[(Kind, Subject)]) -> bool {
    subjects.iter().any(|(_, subject)| matches!(subject.to, To::Shell { .. }))
}

/// In the words of an offer.
fn same(subjects: &[(Kind, Subject)]) -> &'static str {
    match subjects.first().map(|(kind, _)| kind) {
        _ if is_to_shell(subjects) => "the same to the same shell",
        Some(Kind::SshLogin) => "the same login",
        Some(Kind::SshSignature) => "EVERY signature in this namespace with this key",
        Some(Kind::ItemRead) => "the same value",
        _ => "the same to the same program, whatever its arguments",
    }
}

/// For lists and the log.
fn covers(subjects: &[(Kind, Subject)]) -> String {
    let shown = |(kind, subject): &(Kind, Subject)| format!("{}: {subject}", kind.key());
    let mut shown: Vec<String> = subjects.iter().map(shown).collect();
    shown.dedup();
    shown.join(", ")
}

/// For the log, who said yes.
pub(super) fn shown_grant(grant: u64) -> String {
    format!("grant {grant}")
}

/// The process that "this command" means, with its program: on a terminal the first that the shell started for it,
/// elsewhere the leader of the requester's group. Never what leads the session, which is the shell itself, or the
/// desktop; nor one that hides its program. Where there is none it is the requester alone.
fn command(requester: &Requester) -> Option<(Process, String)> {
    let lineage = requester.lineage();
    let (own, stat) = lineage.first().copied()?;
    let program = |pid: i32| process::exe(pid).map(|program| format!("{} (pid {pid})", program.display()));
    let is_part = |pid: i32, group: i32| group == stat.group && pid != stat.session;
    let mut found = ((own, stat.started), program(own)?);
    for (pid, other) in lineage.iter().skip(1).filter(|_| own != stat.session) {
        let Some(shown) = program(*pid).filter(|_| is_part(*pid, other.group)) else { break };
        // Without a terminal a group may be all that a desktop started, and its leader says where a command begins.
        if stat.terminal != 0 || *pid == stat.group {
            found = ((*pid, other.started), shown);
        }
    }
    requester.peer.is_alive().then_some(found)
}
