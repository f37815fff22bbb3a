//! What the policy says to a request, made or only thought of: one code for both.

use super::{Act, Beyond, Broker, Client, Refusal, ssh};
use crate::audit::event::Event;
use crate::clock;
use crate::git_buffer;
use crate::patience;
use crate::policy::decide::{Judgement, Seen, Subject, decide, met};
use crate::policy::parse;
use crate::policy::print;
use crate::policy::rule::{Attribute, Kind, Verdict};
use crate::requester::Requester;
use keyloan_protocol::control::response::{Explained, Reply};
use keyloan_protocol::names::VaultName;
use std::path::{Path, PathBuf};

impl Broker {
    /// What the policy says of a vault's items by its name. It outlives the vault, and holds for the next of that name.
    pub(super) fn rules_for(&self, vault: &VaultName) -> Result<Vec<String>, Refusal> {
        let (item, all) = (format!("item={vault}://"), format!("[vault={vault}]"));
        let mut rules = self.with_policy(print::print)?;
        rules.retain(|rule| rule.contains(&item) || rule.contains(&all));
        Ok(rules)
    }

    /// What the rules say, and beyond them the limits that they set, the yes to the same, and what is always asked.
    pub(super) async fn judge(&self, requester: &Requester, act: &Act) -> Result<Judgement, Refusal> {
        let seen = self.seen(requester).await?;
        self.judge_seen(&act.subjects, &seen, act.beyond)
    }

    /// Refuses what the policy forbids, for what else is asked by the passphrase alone.
    pub(super) async fn refuse_forbidden(&self, requester: &Requester, act: &Act) -> Result<(), Refusal> {
        let judgement = self.judge(requester, act).await?;
        if judgement.verdict != Verdict::Deny {
            return Ok(());
        }
        let (request, rule, by) = (self.next_request(), judgement.rule, self.who(requester));
        let requested = Event::Requested { request, act: act.title.clone(), names: act.names.clone(), by };
        let denied = Event::Decided { request, decision: "denied", rule: rule.clone(), approver: None };
        self.turn_away(&[&requested, &denied])?;
        self.mention_refusal(&act.title, &rule);
        Err(Refusal::Denied { rule })
    }

    fn judge_seen(
        &self,
        subjects: &[(Kind, Subject)],
        seen: &Seen,
        beyond: Beyond,
    ) -> Result<Judgement, Refusal> {
        let mut judgement = self.with_policy(|policy| decide(policy, subjects, seen))?;
        if let Some((rule, limit)) = judgement.limit()
            && self.uses.borrow().is_used_up(rule, limit, clock::since_boot())
        {
            let rule = format!("{}, used up", judgement.rule);
            judgement = Judgement { verdict: Verdict::Ask, rule };
        }
        match (beyond, judgement.verdict) {
            (Beyond::Always(why), Verdict::Allow(_)) => {
                judgement = Judgement { verdict: Verdict::Ask, rule: why.to_owned() };
            }
            (Beyond::Covered(why), Verdict::Ask) => {
                judgement = Judgement { verdict: Verdict::Allow(None), rule: why.to_owned() };
            }
            _ => {}
        }
        Ok(judgement)
    }

    /// What rules may look at besides; nothing where none does.
    async fn seen(&self, requester: &Requester) -> Result<Seen, Refusal> {
        let (programs, repository) = self.with_policy(|policy| {
            (policy.looks_at(Attribute::Program), policy.looks_at(Attribute::Repository))
        })?;
        let shown = |path: PathBuf| path.display().to_string();
        let mut seen = Seen::default();
        if programs {
            let programs = requester.seen_programs();
            seen.programs = programs.map(|programs| programs.into_iter().map(shown).collect());
        }
        if let Some(directory) = requester.seen_directory().filter(|_| repository).map(Path::to_owned) {
            let found = patience::look(move || git_buffer::repository(&directory)).await;
            seen.repositories = found.map(|repository| repository.into_iter().map(shown).collect());
        }
        Ok(seen)
    }

    /// What would be said to a request that nobody made.
    pub(crate) async fn policy_explain(&self, client: &Client, text: &str) -> Result<Reply, Refusal> {
        self.open_vault_for(client, "explain its policy").await?;
        let refused = |cause| Refusal::Policy { setting: text.to_owned(), cause };
        let (kind, subject, seen) = parse::request(text).map_err(refused)?;
        let is_nowhere = kind == Kind::SshLogin && subject.host_key.is_none() && subject.hosts.is_empty();
        let is_ssh = matches!(kind, Kind::SshLogin | Kind::SshSignature | Kind::SshOther);
        let is_confirmed =
            is_ssh && subject.item.as_deref().is_some_and(|item| self.is_confirmed_always(item));
        let always = ssh::always_asked(subject.forwarded, is_nowhere, is_confirmed);
        let beyond = always.map_or(Beyond::Nothing, Beyond::Always);
        let subjects = [(kind, subject)];
        let judgement = self.judge_seen(&subjects, &seen, beyond)?;
        let grants = self.scopes(&subjects, beyond, judgement.verdict)?;
        let met = self.with_policy(|policy| {
            let met = met(policy, kind, &subjects[0].1, &seen);
            met.into_iter().map(ToString::to_string).collect()
        })?;
        Ok(Reply::Explained(Explained {
            verdict: judgement.verdict.to_string(),
            rule: judgement.rule,
            met,
            grants: grants.iter().map(ToString::to_string).collect(),
        }))
    }
}
