//! The judgement. It says which rule made it, in the words of `policy show`.
//!
//! Of the rules that a request meets, one that denies wins. Else the most particular one speaks, and rules about
//! what any program can pretend (its path, its repository) can only make that stricter. That no two rules contradict
//! each other was seen to when they were set ([`super::compare`]).

use super::rule::{Attribute, Conditions, Kind, Limit, Policy, Rule, Verdict};
use keyloan_protocol::time_span::TimeSpan;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// One thing that is asked for, as far as rules look at it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Subject {
    /// Exactly what: a field, a login. No rule looks at it; a grant covers nothing else.
    pub(crate) what: String,
    /// To whom it is lent, and for how long at most. Likewise.
    pub(crate) to: To,
    pub(crate) time: Option<Duration>,
    /// The item, or the ssh key's item.
    pub(crate) item: Option<String>,
    /// The names under which the vault has a login's host.
    pub(crate) hosts: Vec<String>,
    pub(crate) host_key: Option<String>,
    pub(crate) namespace: Option<String>,
    pub(crate) forwarded: bool,
    /// The field or the key that would be given away, under a name that it has for good. No rule looks at it.
    pub(crate) given: Option<String>,
}

/// To whom something is lent. A claimed program never equals a shell that was seen, whatever it is called.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum To {
    #[default]
    Requester,
    /// As the requester says.
    Program(PathBuf),
    Shell {
        program: String,
        pid: i32,
        /// In clock ticks after boot.
        started: u64,
        /// It ends when the shell leaves this directory.
        until: Option<PathBuf>,
    },
}

impl Subject {
    /// All of an item, or, behind a slash, a part of it.
    pub(crate) fn of_item(what: &str, item: &str) -> Self {
        Self { what: what.to_owned(), item: Some(item.to_owned()), ..Self::default() }
    }

    pub(crate) fn of(what: &str) -> Self {
        Self { what: what.to_owned(), ..Self::default() }
    }
}

/// For lists and the log.
impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        match &self.to {
            To::Requester => {}
            To::Program(path) if path.is_absolute() => write!(f, " to {}", path.display())?,
            // Nobody reads it for a shell that was seen.
            To::Program(path) => write!(f, " to '{}'", path.display())?,
            To::Shell { program, pid, until, .. } => {
                write!(f, " to the shell {program} (pid {pid})")?;
                if let Some(directory) = until {
                    write!(f, " in {}", directory.display())?;
                }
            }
        }
        self.time.map_or(Ok(()), |time| write!(f, ", for at most {}", TimeSpan::of(time)))
    }
}

/// What is seen of whoever asks, and claimed: it makes a judgement stricter only.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The requester's program, those of its parents, and the one that it says it becomes; `None` where not all of
    /// them could be seen, and then every rule about programs is met.
    pub(crate) programs: Option<Vec<String>>,
    /// The repository that it is in, if any; `None` likewise.
    pub(crate) repositories: Option<Vec<String>>,
}

#[must_use = "a judgement that nobody looks at is a release that nobody judged"]
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Judgement {
    pub(crate) verdict: Verdict,
    pub(crate) rule: String,
}

impl Judgement {
    pub(crate) fn stricter(self, other: Self) -> Self {
        if other.verdict.strictness() > self.verdict.strictness() { other } else { self }
    }

    /// The limit that the rule sets to itself, and what the rule is for.
    pub(crate) fn limit(&self) -> Option<(&str, Limit)> {
        match self.verdict {
            Verdict::Allow(Some(limit)) => Some((self.rule.rsplit_once('=')?.0, limit)),
            _ => None,
        }
    }
}

/// The strictest judgement of all that a request touches.
pub(crate) fn decide(policy: &Policy, subjects: &[(Kind, Subject)], seen: &Seen) -> Judgement {
    let judged = subjects.iter().map(|(kind, subject)| decide_one(policy, *kind, subject, seen));
    let nothing = || Judgement { verdict: Verdict::Deny, rule: "nothing is asked for".to_owned() };
    judged.reduce(Judgement::stricter).unwrap_or_else(nothing)
}

/// The rules that a request meets.
pub(crate) fn met<'p>(policy: &'p Policy, kind: Kind, subject: &Subject, seen: &Seen) -> Vec<&'p Rule> {
    policy.rules.iter().filter(|rule| rule.kind == kind && meets(&rule.when, subject, seen)).collect()
}

fn decide_one(policy: &Policy, kind: Kind, subject: &Subject, seen: &Seen) -> Judgement {
    let met = met(policy, kind, subject, seen);
    let judged = |rule: &Rule| Judgement { verdict: rule.verdict, rule: rule.to_string() };
    if let Some(rule) = met.iter().find(|rule| rule.verdict == Verdict::Deny) {
        return judged(rule);
    }
    let (tighten, speak): (Vec<&Rule>, Vec<&Rule>) =
        met.into_iter().partition(|rule| rule.when.only_tighten());
    let is_last = |rule: &&&Rule| {
        speak.iter().all(|other| other.when == rule.when || !other.when.are_within(&rule.when))
    };
    let default = Judgement {
        verdict: kind.default_verdict(),
        rule: format!("{}={} (the default)", kind.key(), kind.default_verdict()),
    };
    let said = speak.iter().filter(is_last).map(|rule| judged(rule)).reduce(Judgement::stricter);
    tighten.into_iter().map(judged).fold(said.unwrap_or(default), Judgement::stricter)
}

fn meets(when: &Conditions, subject: &Subject, seen: &Seen) -> bool {
    when.0.iter().all(|(attribute, pattern)| {
        let is = |text: &Option<String>| text.as_deref().is_some_and(|text| pattern.matches(text));
        let any = |seen: &Option<Vec<String>>| {
            seen.as_ref().is_none_or(|seen| seen.iter().any(|text| pattern.matches(text)))
        };
        match attribute {
            Attribute::Item => subject.item.as_deref().is_some_and(|item| pattern.matches_item(item)),
            Attribute::Host => subject.hosts.iter().any(|host| pattern.matches(host)),
            Attribute::HostKey => is(&subject.host_key),
            Attribute::Namespace => is(&subject.namespace),
            Attribute::Repository => any(&seen.repositories),
            Attribute::Program => any(&seen.programs),
            Attribute::Forwarded => subject.forwarded,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::super::parse::tests::policy;
    use super::*;

    fn item(name: &str) -> Subject {
        Subject { item: Some(name.to_owned()), ..Subject::default() }
    }

    fn judged(policy: &Policy, kind: Kind, subject: Subject) -> (Verdict, String) {
        let judgement = decide(policy, &[(kind, subject)], &Seen::default());
        (judgement.verdict, judgement.rule)
    }

    #[test]
    fn without_a_rule_everything_is_asked_but_what_nobody_understands() {
        for kind in Kind::ALL {
            let bare = Policy { rules: Vec::new(), ..Policy::default() };
            assert_eq!(judged(&bare, kind, Subject::default()).0, kind.default_verdict());
            assert_eq!(judged(&Policy::default(), kind, Subject::default()).0, kind.default_verdict());
        }
        assert_eq!(decide(&Policy::default(), &[], &Seen::default()).verdict, Verdict::Deny);
    }

    #[test]
    fn the_most_particular_rule_speaks_and_names_itself() {
        let policy = policy(&["env=allow", "env[item=pypi-*]=ask", "env[item=pypi-test]=allow 20/1h"]);
        assert_eq!(judged(&policy, Kind::Env, item("npm")), (Verdict::Allow(None), "env=allow".to_owned()));
        assert_eq!(judged(&policy, Kind::Env, item("pypi-x")).1, "env[item=pypi-*]=ask");
        assert_eq!(judged(&policy, Kind::Env, item("pypi-test")).1, "env[item=pypi-test]=allow 20/1h");
        assert_eq!(judged(&policy, Kind::ItemRead, item("npm")).0, Verdict::Ask);
    }

    #[test]
    fn a_rule_that_denies_wins_over_a_more_particular_one() {
        let policy = policy(&["ssh.login[forwarded]=deny", "ssh.login[forwarded,item=work]=allow"]);
        let login = |forwarded| Subject { forwarded, ..item("work") };
        assert_eq!(judged(&policy, Kind::SshLogin, login(true)).0, Verdict::Deny);
        assert_eq!(judged(&policy, Kind::SshLogin, login(false)).0, Verdict::Ask);
    }

    #[test]
    fn the_strictest_of_all_that_is_asked_for_counts() {
        let policy = policy(&["env=allow", "env[item=prod]=ask-pin", "file=ask"]);
        let decided = |subjects: &[(Kind, Subject)]| decide(&policy, subjects, &Seen::default()).verdict;
        assert_eq!(decided(&[(Kind::Env, item("a")), (Kind::Env, item("prod"))]), Verdict::AskPin);
        assert_eq!(decided(&[(Kind::Env, item("a")), (Kind::File, item("a"))]), Verdict::Ask);
        assert_eq!(decided(&[(Kind::Env, item("a"))]), Verdict::Allow(None));
    }

    #[test]
    fn what_a_program_can_pretend_makes_a_verdict_stricter_only() {
        let policy = policy(&[
            "env=allow",
            "env[program=/usr/bin/python3*]=ask",
            "env[repository=/home/me/evil]=deny",
        ]);
        let seen = |program: &str, repository: &str| {
            let seen = Seen {
                programs: Some(vec![program.to_owned()]),
                repositories: Some(vec![repository.to_owned()]),
            };
            decide(&policy, &[(Kind::Env, item("a"))], &seen).verdict
        };
        assert_eq!(seen("/usr/bin/twine", "/home/me/good"), Verdict::Allow(None));
        assert_eq!(seen("/usr/bin/python3.11", "/home/me/good"), Verdict::Ask);
        assert_eq!(seen("/usr/bin/twine", "/home/me/evil"), Verdict::Deny);
        let unseen = decide(&policy, &[(Kind::Env, item("a"))], &Seen { programs: None, ..Seen::default() });
        assert_eq!(unseen.verdict, Verdict::Deny);
    }

    #[test]
    fn a_host_counts_by_its_pin_and_its_key_and_by_nothing_else() {
        let policy = policy(&["ssh.login[host=github.com]=allow", "ssh.login[hostkey=SHA256:abc]=ask-pin"]);
        let login = |hosts: &[&str], key: &str| Subject {
            hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
            host_key: Some(key.to_owned()),
            ..Subject::default()
        };
        assert_eq!(
            judged(&policy, Kind::SshLogin, login(&["github.com"], "SHA256:x")).0,
            Verdict::Allow(None)
        );
        assert_eq!(judged(&policy, Kind::SshLogin, login(&[], "SHA256:x")).0, Verdict::Ask);
        assert_eq!(judged(&policy, Kind::SshLogin, login(&[], "SHA256:abc")).0, Verdict::AskPin);
    }
}
