//! How often rules with a limit let something pass. Counted by what a rule is for, without its verdict: whoever makes a
//! limit lower, which anybody may, does not begin a new count. Kept in memory: a daemon that starts anew is locked, and
//! who opens it begins a new count.

use crate::policy::rule::Limit;
use std::collections::{HashMap, VecDeque};
use std::time::Duration;

#[derive(Default)]
pub(crate) struct Uses(HashMap<String, VecDeque<Duration>>);

impl Uses {
    pub(crate) fn is_used_up(&self, rule: &str, limit: Limit, now: Duration) -> bool {
        let recent =
            self.0.get(rule).into_iter().flatten().filter(|at| now.saturating_sub(**at) < limit.within);
        recent.count() >= usize::try_from(limit.uses).unwrap_or(usize::MAX)
    }

    pub(crate) fn count(&mut self, rule: &str, limit: Limit, now: Duration) {
        let uses = self.0.entry(rule.to_owned()).or_default();
        uses.push_back(now);
        while uses.front().is_some_and(|at| now.saturating_sub(*at) >= limit.within) {
            uses.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_used_up_until_its_time_is_over() {
        let limit = Limit { uses: 2, within: Duration::from_secs(60) };
        let at = Duration::from_secs;
        let mut uses = Uses::default();
        assert!(!uses.is_used_up("a", limit, at(0)));
        uses.count("a", limit, at(0));
        uses.count("a", limit, at(30));
        assert!(uses.is_used_up("a", limit, at(59)) && !uses.is_used_up("b", limit, at(59)));
        assert!(!uses.is_used_up("a", limit, at(60)));
        uses.count("a", limit, at(60));
        assert!(uses.is_used_up("a", limit, at(89)) && !uses.is_used_up("a", limit, at(90)));
    }
}
