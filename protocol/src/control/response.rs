//! What the daemon answers.

use super::error_kind::ErrorKind;
use super::request::Confirm;
use crate::names::{FieldName, FileName, ItemName, VarName, VaultName};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// Another reply follows: a human is being asked, there.
    Waiting {
        on: String,
    },
    /// Another reply follows, when the requester's terminal answers questions no more.
    Enrolled,
    /// Done; `notes` are sentences for the person.
    Done {
        #[serde(default)]
        notes: Vec<String>,
    },
    Status(Status),
    /// Tail: `value`.
    Value,
    /// Tail: `value`, a code that is good for so many seconds.
    Code {
        seconds: u64,
    },
    /// With `more`, further items follow in a reply of their own.
    Items {
        items: Vec<ItemSummary>,
        #[serde(default)]
        more: bool,
    },
    /// With `more`, further names follow in a reply of their own.
    Listed {
        items: Vec<ListedItem>,
        #[serde(default)]
        more: bool,
    },
    Vaults {
        vaults: Vec<LinkedVault>,
    },
    /// How one of them is; a reply each, as they answer. The last has none.
    VaultStates {
        states: Vec<VaultReport>,
        #[serde(default)]
        more: bool,
    },
    Recipients {
        recipients: Vec<Recipient>,
    },
    /// Tail: each variable under its own name; the content of each file under the name that it gives.
    Lent {
        loan: u64,
        #[serde(default)]
        notes: Vec<String>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        files: Vec<LentFile>,
        /// Those whose value stands in a `.keyloan.toml` as it is, and is no secret.
        #[serde(default)]
        literals: Vec<VarName>,
    },
    Plan(Plan),
    Loans {
        loans: Vec<LoanSummary>,
    },
    Grants {
        grants: Vec<GrantSummary>,
    },
    /// The loans that were ended, and those of them that something still holds.
    Recalled {
        recalled: Vec<u64>,
        held: Vec<LoanSummary>,
    },
    /// The policy as text that `policy set` takes.
    Policy {
        settings: Vec<String>,
    },
    Explained(Explained),
    /// Tail: `lines` of the log, whole, each ended by a newline. More follow.
    LogLines,
    Verified(Verified),
    SshKeys {
        keys: Vec<SshKey>,
    },
    SshHosts {
        pins: Vec<SshPin>,
    },
    Error(ErrorReply),
    /// Tail: as of [`Reply::Lent`].
    ShellLent(ShellLent),
    Names(Names),
}

impl Reply {
    pub fn done(note: impl Into<String>) -> Self {
        Self::Done { notes: vec![note.into()] }
    }
}

/// Why a request was not served. `cause` and `hint` are for the person, `kind` for programs.
#[derive(Debug, Serialize, Deserialize)]
pub struct ErrorReply {
    pub kind: ErrorKind,
    pub cause: String,
    pub hint: Option<String>,
    /// One line each, where several things are wrong at once.
    #[serde(default)]
    pub details: Vec<String>,
}

#[derive(Serialize, Deserialize)]
pub struct Status {
    pub daemon_version: String,
    pub protocol_version: u32,
    pub pid: u32,
    pub vault: VaultState,
    pub vault_path: String,
    pub items: Option<usize>,
    /// Seconds until the vault locks itself, if nothing is asked of it.
    pub locks_in_seconds: Option<u64>,
    pub tier: Tier,
    /// What weakens this installation, one sentence each.
    pub warnings: Vec<String>,
    pub key_memory: String,
    pub questions: String,
    pub loans: usize,
    /// Linked vaults of which values are kept, with how long and how many, one sentence each.
    #[serde(default)]
    pub kept: Vec<String>,
    /// Loans that are over while something still holds what was lent.
    #[serde(default)]
    pub held: usize,
    pub pending: usize,
    pub log_path: String,
    pub log_works: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VaultState {
    Absent,
    Locked,
    Unlocked,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    BestEffort,
    Setgid,
    OwnUser,
}

#[derive(Serialize, Deserialize)]
pub struct ItemSummary {
    pub item: ItemName,
    pub fields: Vec<FieldSummary>,
    pub changed: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
}

#[derive(Serialize, Deserialize)]
pub struct FieldSummary {
    pub field: FieldName,
    pub reference: String,
    pub length: usize,
    /// The value of a public field, where it is text.
    pub value: Option<String>,
    pub public: bool,
    /// The names in a `vars` field.
    #[serde(default)]
    pub variables: Vec<VarName>,
}

#[derive(Serialize, Deserialize)]
pub struct Recipient {
    pub name: String,
    pub recipient: String,
}

/// What a request would lend.
#[derive(Serialize, Deserialize)]
pub struct Plan {
    pub variables: Vec<PlannedVariable>,
    /// What the policy says: `ask`, `allow` or `deny`.
    pub decision: String,
    pub decided_by: String,
    pub notes: Vec<String>,
}

#[derive(Serialize, Deserialize)]
pub struct PlannedVariable {
    pub name: VarName,
    /// The reference, or `literal`.
    pub from: String,
    /// Which set asks for it, and where that set is written.
    pub set: String,
}

/// A variable that is to name a file, or a directory of files.
#[derive(Serialize, Deserialize)]
pub struct LentFile {
    pub variable: VarName,
    pub form: FileForm,
    /// One, but for a directory.
    pub parts: Vec<FilePart>,
}

/// What a shell was lent.
#[derive(Serialize, Deserialize)]
pub struct ShellLent {
    pub loan: u64,
    /// The process that the loan is bound to, and when it was started, in clock ticks after boot.
    pub pid: i32,
    pub started: u64,
    /// The process that removes that file, and when it was started: whoever accepts on a socket need not be the process
    /// that listened, which is all that `SO_PEERCRED` tells (unix(7)).
    pub daemon: i32,
    pub daemon_started: u64,
    /// The path of a file that is there for as long as the loan lasts.
    pub marker: String,
    /// The loan is also over when the shell leaves this directory.
    #[serde(default)]
    pub until_leaving: Option<String>,
    #[serde(default)]
    pub notes: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<LentFile>,
}

/// What can be named on a command line at the moment.
#[derive(Default, Serialize, Deserialize)]
pub struct Names {
    pub sets: Vec<String>,
    pub items: Vec<ItemFields>,
    pub vaults: Vec<String>,
    /// Those that are out, with what they are to.
    pub loans: Vec<(u64, String)>,
}

/// An item and its fields, by name.
#[derive(Serialize, Deserialize)]
pub struct ItemFields {
    pub item: String,
    pub fields: Vec<String>,
}

/// How a file is lent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileForm {
    /// A sealed file in memory, named through the holder's descriptor.
    Descriptor,
    /// A file in a directory in memory, for programs that resolve real paths.
    Path,
    /// Such a directory itself.
    Directory,
}

#[derive(Serialize, Deserialize)]
pub struct FilePart {
    pub name: FileName,
    /// The tail value that holds the content.
    pub value: String,
}

#[derive(Serialize, Deserialize)]
pub struct LoanSummary {
    pub id: u64,
    pub pid: u32,
    pub program: String,
    pub variables: Vec<VarName>,
    pub since: String,
    pub directory: String,
    /// Until it ends by itself, where it has a time.
    #[serde(default)]
    pub seconds_left: Option<u64>,
    /// Why it is over, where something still holds what was lent.
    #[serde(default)]
    pub over: Option<String>,
    /// Who still holds it: what a process has read cannot be taken back.
    #[serde(default)]
    pub held_by: Vec<Holding>,
    /// The references of what was lent, to be renewed where it cannot be taken back.
    #[serde(default)]
    pub references: Vec<String>,
}

/// A process that has lent values in the environment it was started with, or a lent file open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holding {
    pub pid: u32,
    pub program: String,
}

#[derive(Serialize, Deserialize)]
pub struct Verified {
    pub records: u64,
    /// Records whose chain was checked with the vault's key; without it only their order is.
    pub keyed: bool,
    pub findings: Vec<String>,
}

/// What the policy says to a request that nobody made.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Explained {
    /// As in a rule: `ask`, `allow 20/1h`.
    pub verdict: String,
    /// The rule that speaks, or what is always so.
    pub rule: String,
    /// Every rule that the request meets.
    pub met: Vec<String>,
    /// What a yes may be offered to cover.
    pub grants: Vec<String>,
}

/// A yes that covers further requests.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GrantSummary {
    pub grant: u64,
    /// What was asked for then: nothing else is covered.
    pub covers: String,
    /// For whom: a program with its pid, or a terminal.
    pub holder: String,
    /// RFC 3339.
    pub since: String,
    pub seconds_left: Option<u64>,
    pub uses_left: Option<u32>,
}

/// An ssh key that the agent offers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SshKey {
    /// Its item in the vault; none for keys that came over the agent's socket or are another agent's.
    pub item: Option<ItemName>,
    pub from: KeySource,
    /// `ssh-ed25519 AAAA… comment`.
    pub public: String,
    pub certificate: Option<String>,
    pub fingerprint: String,
    pub bits: usize,
    pub hosts: Vec<String>,
    pub confirm: Confirm,
    /// Seconds until it is forgotten.
    pub expires: Option<u64>,
    /// The reference of its private half, where a linked vault has that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub private_in: Option<String>,
    /// Who makes certificates for it, and for which hosts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certified_by: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeySource {
    Vault,
    /// Added over the agent's socket.
    Added,
    /// Another agent's, behind this one.
    Upstream,
}

/// A host's name that the vault keeps with its key.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SshPin {
    pub host: String,
    pub key: String,
    pub fingerprint: String,
    pub authority: bool,
}

/// A vault as `vault list` shows it; never a secret of its.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LinkedVault {
    pub name: VaultName,
    /// One of [`crate::vault_kinds::KINDS`], or `local`.
    pub kind: String,
    /// Whether its titles are searched for directories.
    pub searched: bool,
    #[serde(default)]
    pub settings: BTreeMap<String, String>,
    #[serde(default)]
    pub programs: Vec<PinnedProgram>,
    /// The names of the secrets that the local vault keeps for it.
    #[serde(default)]
    pub secrets: Vec<String>,
    /// How long values of it are kept once they were read, and how many are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keeps_seconds: Option<u64>,
    #[serde(default)]
    pub kept: usize,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PinnedProgram {
    pub path: String,
    /// Of a program that is not root's alone to change.
    pub sha256: Option<String>,
}

/// How a vault is: `state` for programs (`ready`, `locked`, `signed_out`, …), the rest for people.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct VaultReport {
    pub name: VaultName,
    pub state: String,
    pub cause: Option<String>,
    pub hint: Option<String>,
}

/// An item of a linked vault.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ListedItem {
    pub item: ItemName,
    /// Those that are known without reading it.
    pub references: Vec<String>,
}
