//! Why a request was not served, for the person and for programs. Every path that is not a clear yes ends
//! here.

use super::AgentRefusal;
use crate::approval::No;
use crate::audit::sink::LogError;
use crate::env_set::plan::PlanError;
use crate::policy::parse::PolicyError;
use crate::signing::key_file::KeyFileError;
use crate::totp::TotpError;
use crate::vault::linked::Fault;
use crate::vault::linked::links::NoVault;
use crate::vault::local::VaultError;
use crate::vault::local::identity::IdentityError;
use keyloan_platform::private_file::FileError;
use keyloan_protocol::control::error_kind::ErrorKind;
use keyloan_protocol::control::response::ErrorReply;
use keyloan_protocol::names::{NameError, VaultName, escaped, quoted};

/// What is looked for when a host is to be pinned.
pub(super) const KNOWN_HOST: &str = "key in known_hosts for the host";

/// What a linked vault did not do.
#[derive(Debug, thiserror::Error)]
#[error("{vault}: {fault}")]
pub(crate) struct VaultFailed {
    pub(super) vault: VaultName,
    pub(super) fault: Fault,
    pub(super) hint: Option<String>,
    /// What else is wrong with what it was asked for.
    pub(super) others: Vec<Fault>,
}

impl VaultFailed {
    fn details(&self) -> Vec<String> {
        let candidates = match &self.fault {
            Fault::Ambiguous { candidates, .. } | Fault::Titled { candidates, .. } => candidates.clone(),
            _ => Vec::new(),
        };
        candidates.into_iter().chain(self.others.iter().map(ToString::to_string)).collect()
    }
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("the vault is locked, and there was no terminal to ask for the passphrase on")]
    Locked,
    #[error("there is no vault yet")]
    Absent,
    #[error("the policy forbids it ({rule})")]
    Denied { rule: String },
    #[error(transparent)]
    No(#[from] No),
    #[error("the passphrase was not the right one")]
    WrongPassphrase,
    #[error("there is no {what} '{name}'")]
    NotFound { what: &'static str, name: String },
    #[error("there is no field '{field}' in item '{item}'")]
    NoField { item: String, field: String },
    #[error("there is an item '{0}' already")]
    Exists(String),
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error(transparent)]
    Vault(VaultError),
    #[error("the audit log cannot be written, and without a record nothing is done: {0}")]
    Log(#[from] LogError),
    #[error("{0}")]
    Identity(IdentityError),
    #[error("setting '{setting}': {cause}")]
    Policy { setting: String, cause: PolicyError },
    #[error("'{0}' and '{1}' say different things of the same request, and neither is the more particular")]
    Contradiction(String, String),
    #[error("{path} cannot be set: {cause}")]
    Approver { path: String, cause: crate::approval::program::ProgramError },
    #[error("the pinentry {0}: it is not there, or not root's alone to change")]
    Pinentry(String),
    #[error("the sealed {0} does not have the form of one")]
    Sealed(&'static str),
    #[error("the key of the one-time password: {0}")]
    Totp(#[from] TotpError),
    #[error("{0}")]
    Input(&'static str),
    #[error("{0}")]
    Title(NameError),
    #[error("{path} cannot be used: {cause}")]
    Manifest { path: String, cause: &'static str, faults: Vec<String> },
    #[error("the request comes from another view of the file system, where a path may name another file")]
    ForeignMounts,
    #[error(transparent)]
    NoVault(#[from] NoVault),
    #[error(transparent)]
    Linked(Box<VaultFailed>),
    #[error("{0}")]
    Link(String),
    #[error("the vaults were changed meanwhile; try again")]
    LinksChanged,
    #[error("{0}")]
    Agent(#[from] AgentRefusal),
    #[error("the key's file: {0}")]
    KeyFile(#[from] KeyFileError),
    #[error("a background task ended early")]
    Task,
    #[error("no marker can be made for the shell: {0}")]
    Marker(FileError),
}

impl From<VaultError> for Refusal {
    fn from(error: VaultError) -> Self {
        match error {
            VaultError::Locked => Self::Locked,
            VaultError::Absent(_) => Self::Absent,
            VaultError::Taken(title) => Self::Exists(title),
            VaultError::Identity(error) => error.into(),
            error => Self::Vault(error),
        }
    }
}

impl From<IdentityError> for Refusal {
    fn from(error: IdentityError) -> Self {
        match error {
            IdentityError::Wrong | IdentityError::RecoveryKey => Self::WrongPassphrase,
            error => Self::Identity(error),
        }
    }
}

impl Refusal {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Locked | Self::Agent(AgentRefusal::StillLocked) => ErrorKind::Locked,
            Self::Denied { .. } | Self::Plan(PlanError::Untrusted(_) | PlanError::Changed(_)) => {
                ErrorKind::Denied
            }
            Self::No(_) => ErrorKind::Declined,
            Self::WrongPassphrase | Self::KeyFile(KeyFileError::WrongPassphrase) => ErrorKind::WrongSecret,
            Self::Linked(failed) if failed.fault.is_about_the_item() => ErrorKind::NotFound,
            Self::NoVault(_)
            | Self::Absent
            | Self::NotFound { .. }
            | Self::NoField { .. }
            | Self::Plan(PlanError::Nothing) => ErrorKind::NotFound,
            Self::Plan(PlanError::Faults(_))
            | Self::Exists(_)
            | Self::Identity(_)
            | Self::Policy { .. }
            | Self::Contradiction(..)
            | Self::Approver { .. }
            | Self::Pinentry(_)
            | Self::Input(_)
            | Self::Title(_)
            | Self::Link(_)
            | Self::Totp(_)
            | Self::Agent(_)
            | Self::KeyFile(_)
            | Self::Manifest { .. }
            | Self::ForeignMounts => ErrorKind::Usage,
            Self::Vault(_) | Self::Sealed(_) | Self::Linked(_) | Self::LinksChanged | Self::Marker(_) => {
                ErrorKind::Vault
            }
            Self::Log(_) => ErrorKind::Log,
            Self::Task => ErrorKind::Bug,
        }
    }

    /// A command that can be run, or the way on.
    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Linked(failed) => {
                let test = || format!("keyloan vault test {}", failed.vault);
                return Some(failed.hint.clone().unwrap_or_else(test));
            }
            Self::NoVault(_) => "keyloan vault list",
            Self::Locked | Self::No(No::LockedOut) => "keyloan unlock",
            Self::Absent => "keyloan init",
            Self::Denied { .. } => "keyloan policy show",
            Self::No(No::Unaskable | No::Windowless(_) | No::Background | No::Pinless) => {
                "run it in the foreground of a terminal, or answer on one of your own: keyloan approve"
            }
            Self::No(No::NoneThere(_)) => "keyloan status says which there are",
            Self::No(No::Overheard) => "answer on a terminal of its own: keyloan approve",
            Self::No(No::Unshowable(_)) => {
                "ask for less at once: some variables with --only, or one set at a time"
            }
            Self::Contradiction(..) => {
                "set a rule with the conditions of both, or give both the same verdict"
            }
            Self::No(No::DeniesAll(_)) => "end that with the passphrase: keyloan unlock",
            Self::No(No::Cooling(_) | No::CoolingAll(_)) => "the passphrase ends that, too: keyloan unlock",
            Self::No(No::Busy | No::BusyHere(_)) => "see what waits, and deny it: keyloan approve",
            Self::No(No::WithoutPin) => "keyloan pin",
            Self::No(No::Program { path, .. }) => return Some(set_again("approver.command", path)),
            Self::No(No::Askpass { path, .. }) => return Some(set_again("approver.askpass", path)),
            Self::Plan(PlanError::Untrusted(path) | PlanError::Changed(path)) => {
                let path = quoted(&path.to_string_lossy());
                return Some(format!("look at it, then: keyloan trust {path}"));
            }
            Self::Plan(PlanError::Nothing) => {
                "write a .keyloan.toml here, or keep an item titled with this directory's path"
            }
            Self::NotFound { what: "grant", .. } => "keyloan grants",
            Self::NotFound { what: "ssh key", .. } => "keyloan ssh list",
            Self::NotFound { what: "pinned host", .. } => "keyloan ssh hosts list",
            Self::NotFound { what: KNOWN_HOST, .. } => {
                "connect to it once with ssh, write it as known_hosts has it ([host]:port), or give its key: keyloan ssh hosts pin HOST --key 'ssh-ed25519 AAAA…'"
            }
            Self::NotFound { what: "item", .. } => "keyloan item list",
            Self::Vault(VaultError::RolledBack { .. }) => {
                "if you put an older vault back yourself: keyloan unlock --accept-rollback"
            }
            Self::Vault(VaultError::Exists(_)) => "keyloan status",
            Self::Vault(_) => "docs/recovery.md shows how to read what is left without keyloan",
            Self::Log(_) => "make room, or mend the log's directory: keyloan status names it",
            Self::Exists(_) => "keyloan item rm, or another name",
            _ => return None,
        };
        Some(hint.to_owned())
    }

    pub(crate) fn reply(&self) -> ErrorReply {
        let details = match self {
            Self::Plan(PlanError::Faults(faults)) | Self::Manifest { faults, .. } => faults.clone(),
            Self::Linked(failed) => failed.details(),
            _ => Vec::new(),
        };
        ErrorReply {
            kind: self.kind(),
            cause: escaped(&self.to_string(), 2000),
            hint: self.hint(),
            details: shown(&details),
        }
    }
}

fn set_again(key: &str, path: &str) -> String {
    let setting = quoted(&format!("{key}={path}"));
    format!("if you changed it yourself, set it again: keyloan policy set {setting}")
}

/// Faults told at once: enough to work with, and far below what a reply can hold.
const DETAILS: usize = 50;

fn shown(details: &[String]) -> Vec<String> {
    let mut shown: Vec<String> = details.iter().take(DETAILS).map(|detail| escaped(detail, 2000)).collect();
    if details.len() > DETAILS {
        shown.push(format!("… and {} more", details.len() - DETAILS));
    }
    shown
}
