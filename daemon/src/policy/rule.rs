//! What a policy can say.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// What is asked for. A rule names one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
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
}

impl Kind {
    pub(crate) const ALL: [Self; 9] = [
        Self::Env,
        Self::File,
        Self::ItemRead,
        Self::ItemWrite,
        Self::SshLogin,
        Self::SshSignature,
        Self::SshOther,
        Self::KeyAdd,
        Self::Trust,
    ];

    /// The verdict where no rule was set. Nobody can say what a signature over unknown bytes permits.
    pub(crate) fn default_verdict(self) -> Verdict {
        if self == Self::SshOther { Verdict::Deny } else { Verdict::Ask }
    }

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
        }
    }
}

/// In order of strictness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verdict {
    Allow,
    Ask,
    Deny,
}

impl Verdict {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Ask => "ask",
            Self::Deny => "deny",
        }
    }
}

/// A program that answers questions in the human's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApproverProgram {
    pub(crate) path: PathBuf,
    /// SHA-256 of the program when it was set, hexadecimal; only that content runs.
    pub(crate) sha256: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Policy {
    pub(crate) verdicts: BTreeMap<Kind, Verdict>,
    pub(crate) approver: Option<ApproverProgram>,
    /// The pinentry for windows; without one it is chosen by what is there.
    pub(crate) pinentry: Option<PathBuf>,
    /// Sockets of other agents, whose keys are offered behind the same questions.
    pub(crate) upstream: Vec<PathBuf>,
    /// The vault locks itself after this long without a request.
    pub(crate) lock_idle: Duration,
    /// A loan to a command ends after this long, if not before; `None` for when the command ends.
    pub(crate) loan_time: Option<Duration>,
}

/// Eight hours: a working day.
pub(crate) const LOCK_IDLE: Duration = Duration::from_secs(8 * 3600);

impl Default for Policy {
    /// Everything is asked.
    fn default() -> Self {
        Self {
            verdicts: BTreeMap::new(),
            approver: None,
            pinentry: None,
            upstream: Vec::new(),
            lock_idle: LOCK_IDLE,
            loan_time: None,
        }
    }
}
