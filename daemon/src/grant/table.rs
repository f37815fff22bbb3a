//! The grants. One covers what was shown and nothing wider, for whom it was given and for nobody else, and never what
//! another host forwards. It ends by its time, its uses, its holder's end, `revoke` or `lock`.

use crate::policy::decide::Subject;
use crate::policy::rule::{Kind, Scope};
use std::time::Duration;

/// A process: its pid, and when it was started in clock ticks after boot. The two together name one.
pub(crate) type Process = (i32, u64);

/// A terminal's device number, and the process that leads its session: another one has the number later.
pub(crate) type Terminal = (u64, Process);

/// Who asks, as far as grants look at it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Asker {
    /// The requester and its ancestors, itself first.
    pub(crate) lineage: Vec<Process>,
    pub(crate) terminal: Option<Terminal>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holder {
    /// A process and what it starts.
    Command(Process),
    Terminal(Terminal),
}

impl Holder {
    /// What it ends with.
    fn process(&self) -> Process {
        match self {
            Self::Command(process) | Self::Terminal((_, process)) => *process,
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Grant {
    pub(crate) subjects: Vec<(Kind, Subject)>,
    pub(crate) holder: Holder,
    /// Time since boot.
    pub(crate) until: Option<Duration>,
    pub(crate) uses_left: Option<u32>,
    /// What it covers, and for whom, for people.
    pub(crate) shown: String,
    pub(crate) holder_shown: String,
    /// RFC 3339.
    pub(crate) since: String,
}

impl Grant {
    pub(crate) fn of(scope: Scope, subjects: Vec<(Kind, Subject)>, holder: Holder, now: Duration) -> Self {
        let (until, uses_left) = match scope {
            Scope::Command => (None, None),
            Scope::Time(time) | Scope::Terminal(time) => (Some(now + time), None),
            Scope::Uses(uses) => (None, Some(uses)),
        };
        let (shown, holder_shown, since) = (String::new(), String::new(), String::new());
        Self { subjects, holder, until, uses_left, shown, holder_shown, since }
    }

    fn covers(&self, subjects: &[(Kind, Subject)], asker: &Asker, now: Duration) -> bool {
        let is_holder = match self.holder {
            Holder::Command(command) => asker.lineage.contains(&command),
            Holder::Terminal(terminal) => asker.terminal == Some(terminal),
        };
        is_holder
            && self.until.is_none_or(|until| now < until)
            && self.uses_left != Some(0)
            && !subjects.is_empty()
            && subjects.iter().all(|subject| !subject.1.forwarded && self.subjects.contains(subject))
    }
}

/// As many as a person could want to look through.
const MOST: usize = 256;

#[derive(Default)]
pub(crate) struct Table {
    last: u64,
    grants: Vec<(u64, Grant)>,
    /// How often all were ended by what a yes from before that does not outlive.
    era: u64,
}

impl Table {
    /// `None` where there are too many, or it could never cover anything.
    pub(crate) fn give(&mut self, grant: Grant) -> Option<u64> {
        let is_forwarded = grant.subjects.iter().any(|(_, subject)| subject.forwarded);
        if is_forwarded || self.grants.len() >= MOST {
            return None;
        }
        self.last += 1;
        self.grants.push((self.last, grant));
        Some(self.last)
    }

    /// The grant that covers a request, with one of its uses taken.
    pub(crate) fn cover(
        &mut self,
        subjects: &[(Kind, Subject)],
        asker: &Asker,
        now: Duration,
    ) -> Option<u64> {
        let covering = self.grants.iter_mut().find(|(_, grant)| grant.covers(subjects, asker, now))?;
        if let Some(uses) = &mut covering.1.uses_left {
            *uses -= 1;
        }
        Some(covering.0)
    }

    pub(crate) fn revoke(&mut self, id: u64) -> bool {
        let before = self.grants.len();
        self.grants.retain(|(held, _)| *held != id);
        self.grants.len() < before
    }

    /// All of them, by their ids.
    pub(crate) fn revoke_all(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.grants).into_iter().map(|(id, _)| id).collect()
    }

    /// The same where the vault is locked, or its rules are others: no yes to a question from before gives one later.
    pub(crate) fn end_all(&mut self) -> Vec<u64> {
        self.era += 1;
        self.revoke_all()
    }

    pub(crate) fn era(&self) -> u64 {
        self.era
    }

    /// Takes away those that can cover nothing any more: `lives` says whether a process is still the same one.
    pub(crate) fn end_those_over(&mut self, now: Duration, lives: impl Fn(Process) -> bool) -> Vec<u64> {
        let is_over = |grant: &Grant| {
            grant.until.is_some_and(|until| until <= now)
                || grant.uses_left == Some(0)
                || !lives(grant.holder.process())
        };
        let over = self.grants.iter().filter(|(_, grant)| is_over(grant)).map(|(id, _)| *id).collect();
        self.grants.retain(|(_, grant)| !is_over(grant));
        over
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.grants.is_empty()
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &(u64, Grant)> {
        self.grants.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1000);
    const GIT: Process = (10, 500);
    const COMMAND: Holder = Holder::Command(GIT);
    const PTS: Terminal = (7, (2, 3));

    fn login(item: &str) -> Vec<(Kind, Subject)> {
        vec![(Kind::SshLogin, Subject { item: Some(item.to_owned()), ..Subject::default() })]
    }

    fn asker(lineage: &[Process]) -> Asker {
        Asker { lineage: lineage.to_vec(), terminal: Some(PTS) }
    }

    fn granted(scope: Scope) -> Table {
        let mut table = Table::default();
        let holder = if matches!(scope, Scope::Terminal(_)) { Holder::Terminal(PTS) } else { COMMAND };
        assert_eq!(table.give(Grant::of(scope, login("work"), holder, NOW)), Some(1));
        table
    }

    #[test]
    fn a_grant_covers_what_was_shown_for_whom_it_was_given_and_nothing_else() {
        let mut table = granted(Scope::Command);
        let ssh = asker(&[(11, 600), GIT, (2, 3)]);
        assert_eq!(table.cover(&login("work"), &ssh, NOW), Some(1));
        assert_eq!(table.cover(&login("other"), &ssh, NOW), None);
        assert_eq!(table.cover(&[login("work"), login("other")].concat(), &ssh, NOW), None);
        assert_eq!(table.cover(&[], &ssh, NOW), None);
        assert_eq!(table.cover(&login("work"), &asker(&[(11, 600), (2, 3)]), NOW), None);
        // Another process that has the pid now.
        assert_eq!(table.cover(&login("work"), &asker(&[(11, 600), (GIT.0, GIT.1 + 1)]), NOW), None);
        let mut host = login("work");
        host[0].1.hosts = vec!["github.com".to_owned()];
        assert_eq!(table.cover(&host, &ssh, NOW), None);
    }

    #[test]
    fn what_is_forwarded_is_never_covered() {
        let mut forwarded = login("work");
        forwarded[0].1.forwarded = true;
        let mut table = Table::default();
        assert_eq!(table.give(Grant::of(Scope::Command, forwarded.clone(), COMMAND, NOW)), None);
        let mut table = granted(Scope::Command);
        assert_eq!(table.cover(&forwarded, &asker(&[GIT]), NOW), None);
    }

    #[test]
    fn a_grant_ends_with_its_uses_its_time_and_its_process() {
        let mut table = granted(Scope::Uses(2));
        assert_eq!(table.cover(&login("work"), &asker(&[GIT]), NOW), Some(1));
        assert_eq!(table.cover(&login("work"), &asker(&[GIT]), NOW), Some(1));
        assert_eq!(table.cover(&login("work"), &asker(&[GIT]), NOW), None);
        assert_eq!(table.end_those_over(NOW, |_| true), [1]);

        let mut table = granted(Scope::Time(Duration::from_secs(60)));
        let (last, later) = (NOW + Duration::from_secs(59), NOW + Duration::from_secs(60));
        assert_eq!(table.cover(&login("work"), &asker(&[GIT]), last), Some(1));
        assert_eq!(table.cover(&login("work"), &asker(&[GIT]), later), None);
        assert_eq!(table.end_those_over(later, |_| true), [1]);

        let mut table = granted(Scope::Command);
        assert!(table.end_those_over(NOW, |_| true).is_empty());
        assert_eq!(table.end_those_over(NOW, |process| process != GIT), [1]);
    }

    #[test]
    fn a_terminal_is_that_of_one_session() {
        let mut table = granted(Scope::Terminal(Duration::from_secs(60)));
        let on = |terminal| Asker { lineage: vec![(99, 1)], terminal };
        assert_eq!(table.cover(&login("work"), &on(Some(PTS)), NOW), Some(1));
        for other in [None, Some((8, PTS.1)), Some((PTS.0, (2, 4))), Some((PTS.0, (3, 3)))] {
            assert_eq!(table.cover(&login("work"), &on(other), NOW), None, "{other:?}");
        }
        assert!(table.end_those_over(NOW, |process| process == PTS.1).is_empty());
        assert_eq!(table.end_those_over(NOW, |process| process != PTS.1), [1]);
    }

    #[test]
    fn revoked_ones_are_gone() {
        let mut table = granted(Scope::Command);
        assert!(table.revoke(1) && !table.revoke(1));
        let mut table = granted(Scope::Command);
        assert_eq!(table.revoke_all(), [1]);
        assert_eq!(table.all().count(), 0);
    }
}
