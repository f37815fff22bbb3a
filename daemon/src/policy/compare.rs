//! Rules against each other: whether two contradict, and whether a change lets anything pass that did not before.

use super::order::Way;
use super::rule::{Policy, Rule, Verdict};

/// Two rules that a request can meet at once, of which neither is the more particular, and that say different
/// things. Told when a policy is set, so that no request ever finds them so.
pub(crate) fn contradiction(policy: &Policy) -> Option<(&Rule, &Rule)> {
    let speaks = |rule: &&Rule| rule.verdict != Verdict::Deny && !rule.when.only_tighten();
    let rules: Vec<&Rule> = policy.rules.iter().filter(speaks).collect();
    let pairs = rules.iter().enumerate().flat_map(|(at, a)| rules[at + 1..].iter().map(move |b| (*a, *b)));
    pairs.into_iter().find(|(a, b)| {
        let apart = a.kind != b.kind
            || a.verdict == b.verdict
            || a.when.are_within(&b.when)
            || b.when.are_within(&a.when);
        // A rule for just the requests that meet both settles it.
        !apart && a.when.with(&b.when).is_some_and(|both| policy.rule(a.kind, &both).is_none())
    })
}

/// Whether a policy may let something pass that another one would have asked for or denied. Seen rule by rule, and
/// so sometimes where nothing could in fact pass: then the passphrase is wanted without need.
pub(crate) fn loosens(before: &Policy, after: &Policy) -> bool {
    let laxer = |a: Verdict, b: Verdict| match (a, b) {
        // As many a day may be more at once.
        (Verdict::Allow(Some(a)), Verdict::Allow(Some(b))) => a.uses > b.uses || a.within < b.within,
        (a, b) => a.strictness() < b.strictness(),
    };
    let changed = after.rules.iter().any(|rule| {
        if let Some(old) = before.rule(rule.kind, &rule.when) {
            return laxer(rule.verdict, old.verdict);
        }
        // A new rule takes the place of every other that its requests meet.
        let mut met = before.rules.iter().filter(|old| {
            old.kind == rule.kind && !old.when.only_tighten() && old.when.with(&rule.when).is_some()
        });
        !rule.when.only_tighten()
            && (laxer(rule.verdict, rule.kind.default_verdict())
                || met.any(|old| laxer(rule.verdict, old.verdict)))
    });
    // No program answers what wants the PIN: the next way does, such as a terminal that whoever asks has chosen.
    let passes_on = before.approver.is_some()
        && before.order.ways().iter().skip_while(|way| **way != Way::Program).nth(1).is_some()
        && after.rules.iter().any(|rule| {
            let old = before.rule(rule.kind, &rule.when).map(|old| old.verdict);
            rule.verdict == Verdict::AskPin && !matches!(old, Some(Verdict::AskPin | Verdict::Deny))
        });
    // What is removed gives its requests to whatever rule is left.
    let removed = before.rules.iter().any(|old| after.rule(old.kind, &old.when).is_none());
    changed
        || removed
        || passes_on
        || after.approver != before.approver
        || after.pinentry != before.pinentry
        || after.upstream.iter().any(|path| !before.upstream.contains(path))
        || after.lock_idle > before.lock_idle
        || after.deadline > before.deadline
        || after.loan_time.is_none_or(|time| before.loan_time.is_some_and(|old| time > old))
            && after.loan_time != before.loan_time
        || after.grants.iter().any(|scope| !before.grants.contains(scope))
        || after.order.loosens(&before.order)
        || after.askpass != before.askpass
        || after
            .vault_cache
            .iter()
            .any(|(vault, time)| before.vault_cache.get(vault).is_none_or(|old| time > old))
}

#[cfg(test)]
mod tests {
    use super::super::parse::tests::policy;
    use super::*;

    fn contradict(rules: &[&str]) -> Option<(String, String)> {
        contradiction(&policy(rules)).map(|(a, b)| (a.to_string(), b.to_string()))
    }

    #[test]
    fn rules_that_overlap_and_differ_contradict_each_other() {
        let found = contradict(&["ssh.login[item=work]=allow", "ssh.login[host=github.com]=ask-pin"]);
        assert_eq!(
            found,
            Some(("ssh.login[item=work]=allow".to_owned(), "ssh.login[host=github.com]=ask-pin".to_owned()))
        );
        assert!(contradict(&["env[item=a*]=allow", "env[item=ab*]=ask", "env[item=b]=ask-pin"]).is_none());
        assert!(contradict(&["ssh.login[item=work]=allow", "ssh.login[host=github.com]=deny"]).is_none());
        assert!(contradict(&["ssh.login[item=work]=ask", "ssh.login[host=github.com]=ask"]).is_none());
        assert!(contradict(&["env[item=a]=allow", "env[program=/bin/x]=ask"]).is_none());
        assert!(contradict(&["env[item=a]=allow", "file[item=a]=ask"]).is_none());
    }

    #[test]
    fn a_rule_for_just_what_meets_both_settles_it() {
        let two = ["ssh.login[item=work]=allow", "ssh.login[host=github.com]=ask-pin"];
        assert!(contradict(&two).is_some());
        assert!(contradict(&[two[0], two[1], "ssh.login[item=work,host=github.com]=ask"]).is_none());
    }

    #[test]
    fn what_lets_more_pass_is_told_from_what_lets_less() {
        let base =
            ["env=ask", "env[item=a]=allow 20/1h", "file=deny", "trust=allow", "vault.cache[vault=bw]=10m"];
        let before = policy(&base);
        let with = |changes: &[&str]| loosens(&before, &policy(&[&base, changes].concat()));
        for tighter in [
            "env=ask-pin",
            "env=deny",
            "env[item=a]=allow 10/1h",
            "env[item=a]=ask",
            "env[item=b]=deny",
            "env[item=b]=ask",
            "trust=ask",
            "trust[program=/bin/x]=ask",
            "env[program=/bin/x]=deny",
            "lock.idle=30m",
            "deadline=30s",
            "loan.time=15m",
            "grants=",
            "approver.order=program approve",
            "vault.cache[vault=bw]=5m",
            "vault.cache[vault=bw]=",
        ] {
            assert!(!with(&[tighter]), "{tighter}");
        }
        for looser in [
            "env=allow",
            "env=allow 1/1h",
            "env[item=b]=allow",
            "file=ask",
            "file[item=a]=ask",
            "env[item=a]=allow 40/1h",
            "env[item=a]=allow 480/1d",
            "env[item=a]=allow 10/1m",
            "env[item=a*]=allow 20/1h",
            "env[item=a]=allow",
            "env[item=a]=",
            "lock.idle=9h",
            "deadline=2m",
            "grants=command terminal-10m",
            "ssh.upstream=/run/x",
            "approver.pinentry=/usr/bin/pinentry-qt",
            "approver.order=terminal",
            "vault.cache[vault=bw]=11m",
            "vault.cache[vault=pass]=1m",
        ] {
            assert!(with(&[looser]), "{looser}");
        }
    }
}
