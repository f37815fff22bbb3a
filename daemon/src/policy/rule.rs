//! What a policy can say: rules, each for a kind of request under conditions, and a few settings.

use super::order::{Order, Way};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// What is asked for. A rule names one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    /// Variables for a command.
    Env,
    /// Files for a command.
    File,
    /// `item get`.
    ItemRead,
    /// `item set`, `item rm`, `item mv`.
    ItemWrite,
    /// A signature that logs in to a host.
    SshLogin,
    /// A signature over a file, a commit or a tag.
    SshSignature,
    /// A signature over what keyloan does not understand.
    SshOther,
    /// A key for the agent: added over its socket, or stored in the vault.
    KeyAdd,
    /// `trust`, `ssh hosts pin`.
    Trust,
    /// Who answers: `approve`, and the settings of that name.
    Approver,
}

impl Kind {
    pub(crate) const ALL: [Self; 10] = [
        Self::Env,
        Self::File,
        Self::ItemRead,
        Self::ItemWrite,
        Self::SshLogin,
        Self::SshSignature,
        Self::SshOther,
        Self::KeyAdd,
        Self::Trust,
        Self::Approver,
    ];

    pub(crate) fn key(self) -> &'static str {
        match self {
            Self::Env => "env",
            Self::File => "file",
            Self::ItemRead => "item.read",
            Self::ItemWrite => "item.write",
            Self::SshLogin => "ssh.login",
            Self::SshSignature => "ssh.signature",
            Self::SshOther => "ssh.other",
            Self::KeyAdd => "key.add",
            Self::Trust => "trust",
            Self::Approver => "approver",
        }
    }

    /// Whether a request of this kind can have it.
    pub(crate) fn has(self, attribute: Attribute) -> bool {
        match attribute {
            Attribute::Item => !matches!(self, Self::Trust | Self::Approver),
            Attribute::Host | Attribute::HostKey => self == Self::SshLogin,
            Attribute::Namespace => self == Self::SshSignature,
            Attribute::Forwarded => matches!(self, Self::SshLogin | Self::SshSignature | Self::SshOther),
            Attribute::Repository | Attribute::Program => true,
        }
    }

    /// Whether a yes to it may cover more than one request: to lend and to sign, never to change what is kept.
    pub(crate) fn can_be_granted(self) -> bool {
        matches!(self, Self::Env | Self::File | Self::ItemRead | Self::SshLogin | Self::SshSignature)
    }

    /// The verdict where no rule is for a request. Nobody can say what a signature over unknown bytes permits.
    pub(crate) fn default_verdict(self) -> Verdict {
        if self == Self::SshOther { Verdict::Deny } else { Verdict::Ask }
    }
}

/// So many uses within a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limit {
    pub(crate) uses: u32,
    pub(crate) within: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Allow(Option<Limit>),
    Ask,
    /// Asked, and the PIN is wanted wherever the answer is given.
    AskPin,
    Deny,
}

impl Verdict {
    /// A higher one is stricter. Among limits the one that lets more pass is laxer, seen over its own time.
    pub(crate) fn strictness(self) -> u64 {
        match self {
            Self::Allow(None) => 0,
            // Uses a day, from the most to the fewest.
            Self::Allow(Some(limit)) => {
                let a_day = u64::from(limit.uses).saturating_mul(86400) / limit.within.as_secs().max(1);
                u64::from(u32::MAX) - a_day.min(u64::from(u32::MAX) - 1)
            }
            Self::Ask => u64::from(u32::MAX) + 1,
            Self::AskPin => u64::from(u32::MAX) + 2,
            Self::Deny => u64::from(u32::MAX) + 3,
        }
    }

    pub(crate) fn asks(self) -> bool {
        matches!(self, Self::Ask | Self::AskPin)
    }
}

/// What a condition is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Attribute {
    /// The item, or the ssh key's item.
    Item,
    /// The name under which a host is pinned; what `known_hosts` says does not count.
    Host,
    /// A host key's fingerprint.
    HostKey,
    /// What an ssh signature is for.
    Namespace,
    /// The requester's repository, as far as it can be seen.
    Repository,
    /// The requester's program, as far as it can be seen.
    Program,
    /// Asked for by way of another host.
    Forwarded,
}

impl Attribute {
    pub(crate) const ALL: [Self; 7] = [
        Self::Item,
        Self::Host,
        Self::HostKey,
        Self::Namespace,
        Self::Repository,
        Self::Program,
        Self::Forwarded,
    ];

    pub(crate) fn key(self) -> &'static str {
        match self {
            Self::Item => "item",
            Self::Host => "host",
            Self::HostKey => "hostkey",
            Self::Namespace => "namespace",
            Self::Repository => "repository",
            Self::Program => "program",
            Self::Forwarded => "forwarded",
        }
    }

    /// What any program can pretend: it may make a rule stricter and never laxer.
    pub(crate) fn is_only_seen(self) -> bool {
        matches!(self, Self::Repository | Self::Program)
    }
}

/// A text, or everything that begins with it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Pattern {
    pub(crate) text: String,
    pub(crate) is_prefix: bool,
}

impl Pattern {
    pub(crate) fn matches(&self, text: &str) -> bool {
        if self.is_prefix { text.starts_with(&self.text) } else { text == self.text }
    }

    /// The same of an item: a rule for the local vault's titles is for no other vault's.
    pub(crate) fn matches_item(&self, subject: &str) -> bool {
        is_elsewhere(&self.text) == is_elsewhere(subject) && self.matches(subject)
    }

    /// Whether everything that this matches is matched by the other.
    fn is_within(&self, other: &Self, attribute: Attribute) -> bool {
        if attribute == Attribute::Item && is_elsewhere(&self.text) != is_elsewhere(&other.text) {
            return false;
        }
        if other.is_prefix { self.text.starts_with(&other.text) } else { self == other }
    }
}

/// Whether an item is a linked vault's: `pass://web/x`.
fn is_elsewhere(item: &str) -> bool {
    item.contains("://")
}

impl fmt::Display for Pattern {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}{}", self.text, if self.is_prefix { "*" } else { "" })
    }
}

/// For which requests of a kind a rule is: all of these hold. In the order of the attributes, each once.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Conditions(pub(crate) Vec<(Attribute, Pattern)>);

impl Conditions {
    pub(crate) fn of(&self, attribute: Attribute) -> Option<&Pattern> {
        self.0.iter().find(|(held, _)| *held == attribute).map(|(_, pattern)| pattern)
    }

    /// Whether every request that meets these meets the others.
    pub(crate) fn are_within(&self, others: &Self) -> bool {
        let within = |attribute, other| self.of(attribute).is_some_and(|own| own.is_within(other, attribute));
        others.0.iter().all(|(attribute, other)| within(*attribute, other))
    }

    /// The conditions that a request meets which meets both; `None` where none can.
    pub(crate) fn with(&self, others: &Self) -> Option<Self> {
        let mut both = Vec::new();
        for attribute in Attribute::ALL {
            let pattern = match (self.of(attribute), others.of(attribute)) {
                (Some(a), Some(b)) if a.is_within(b, attribute) => Some(a),
                (Some(a), Some(b)) if b.is_within(a, attribute) => Some(b),
                (Some(_), Some(_)) => return None,
                (a, b) => a.or(b),
            };
            both.extend(pattern.map(|pattern| (attribute, pattern.clone())));
        }
        Some(Self(both))
    }

    pub(crate) fn only_tighten(&self) -> bool {
        self.0.iter().any(|(attribute, _)| attribute.is_only_seen())
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) kind: Kind,
    pub(crate) when: Conditions,
    pub(crate) verdict: Verdict,
}

/// A program that answers questions, or in which a human does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApproverProgram {
    pub(crate) path: PathBuf,
    /// SHA-256 of the program when it was set, hexadecimal; only that content runs.
    pub(crate) sha256: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Policy {
    /// Sorted by kind and conditions, of which no two are the same.
    pub(crate) rules: Vec<Rule>,
    pub(crate) approver: Option<ApproverProgram>,
    /// The pinentry for windows; without one it is chosen by what is there.
    pub(crate) pinentry: Option<PathBuf>,
    /// Sockets of other agents, whose keys are offered behind the same questions.
    pub(crate) upstream: Vec<PathBuf>,
    /// The vault locks itself after this long without a request.
    pub(crate) lock_idle: Duration,
    /// A loan to a command ends after this, if not before; `None` for when the command ends.
    pub(crate) loan_time: Option<Duration>,
    /// How long a human has to answer.
    pub(crate) deadline: Duration,
    /// What a yes may be offered to cover besides the request itself.
    pub(crate) grants: Vec<Scope>,
    /// Who is asked, and who where that one is not there.
    pub(crate) order: Order,
    /// A program in the way of `SSH_ASKPASS`, in which the PIN is typed.
    pub(crate) askpass: Option<ApproverProgram>,
}

/// What a yes covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// The same for the same command, until that ends.
    Command,
    /// The same for the same command, for a time.
    Time(Duration),
    /// The same for the same command, so many times.
    Uses(u32),
    /// The same for every command of the same terminal, for a time.
    Terminal(Duration),
}

/// Eight hours: a working day.
pub(crate) const LOCK_IDLE: Duration = Duration::from_secs(8 * 3600);

/// How long a question stands.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

impl Default for Policy {
    /// Everything is asked, or denied where nobody could say what a yes means.
    fn default() -> Self {
        Self {
            rules: Kind::ALL
                .into_iter()
                .map(|kind| Rule { kind, when: Conditions::default(), verdict: kind.default_verdict() })
                .collect(),
            approver: None,
            pinentry: None,
            upstream: Vec::new(),
            lock_idle: LOCK_IDLE,
            loan_time: None,
            deadline: DEADLINE,
            grants: vec![Scope::Command],
            order: Order::default(),
            askpass: None,
        }
    }
}

impl Policy {
    /// The program that answers a question before anybody else is asked.
    pub(crate) fn program_answers(&self, verdict: Verdict) -> Option<&ApproverProgram> {
        let is_first = self.order.ways().first() == Some(&Way::Program);
        self.approver.as_ref().filter(|_| verdict == Verdict::Ask && is_first)
    }

    /// Whether any rule looks at what is only seen: it costs time to look.
    pub(crate) fn looks_at(&self, attribute: Attribute) -> bool {
        self.rules.iter().any(|rule| rule.when.of(attribute).is_some())
    }

    pub(crate) fn rule(&self, kind: Kind, when: &Conditions) -> Option<&Rule> {
        self.rules.iter().find(|rule| rule.kind == kind && rule.when == *when)
    }
}
