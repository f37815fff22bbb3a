//! The judgement. It says which rule made it, in the words of `policy show`.

use super::rule::{Kind, Policy, Verdict};

#[must_use = "a judgement that nobody looks at is a release that nobody judged"]
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Judgement {
    pub(crate) verdict: Verdict,
    pub(crate) rule: String,
}

/// The strictest rule of all the kinds that a request touches; asked where there is none.
pub(crate) fn decide(policy: &Policy, kinds: &[Kind]) -> Judgement {
    let judged = kinds.iter().map(|kind| decide_one(policy, *kind));
    judged
        .max_by_key(|judgement| judgement.verdict)
        .unwrap_or(Judgement { verdict: Verdict::Deny, rule: "nothing is asked for".to_owned() })
}

fn decide_one(policy: &Policy, kind: Kind) -> Judgement {
    let set = policy.verdicts.get(&kind);
    let verdict = set.copied().unwrap_or(kind.default_verdict());
    let origin = if set.is_some() { "" } else { " (the default)" };
    Judgement { verdict, rule: format!("{}={}{origin}", kind.key(), verdict.word()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_rule_everything_is_asked_but_what_nobody_understands() {
        for kind in Kind::ALL {
            let verdict = if kind == Kind::SshOther { Verdict::Deny } else { Verdict::Ask };
            assert_eq!(decide(&Policy::default(), &[kind]).verdict, verdict);
        }
    }

    #[test]
    fn a_rule_speaks_for_its_own_kind_only() {
        let mut policy = Policy::default();
        policy.verdicts.insert(Kind::Env, Verdict::Allow);
        assert_eq!(decide(&policy, &[Kind::Env]).verdict, Verdict::Allow);
        assert_eq!(decide(&policy, &[Kind::ItemRead]).verdict, Verdict::Ask);
    }

    #[test]
    fn the_strictest_of_several_rules_counts() {
        let mut policy = Policy::default();
        policy.verdicts.insert(Kind::Env, Verdict::Allow);
        assert_eq!(decide(&policy, &[Kind::Env, Kind::File]).verdict, Verdict::Ask);
        policy.verdicts.insert(Kind::File, Verdict::Deny);
        let judgement = decide(&policy, &[Kind::File, Kind::Env]);
        assert_eq!((judgement.verdict, judgement.rule.as_str()), (Verdict::Deny, "file=deny"));
    }
}
