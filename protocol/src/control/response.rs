//! What the daemon answers.

use super::error_kind::ErrorKind;
use crate::names::{FieldName, ItemName, VarName};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// Another reply follows: a human is being asked, there.
    Waiting {
        on: String,
    },
    /// Done; `notes` are sentences for the person.
    Done {
        #[serde(default)]
        notes: Vec<String>,
    },
    Status(Status),
    /// Tail: `value`.
    Value,
    /// With `more`, further items follow in a reply of their own.
    Items {
        items: Vec<ItemSummary>,
        #[serde(default)]
        more: bool,
    },
    Recipients {
        recipients: Vec<Recipient>,
    },
    /// Tail: each variable under its own name.
    Lent {
        loan: u64,
        #[serde(default)]
        notes: Vec<String>,
        /// Those whose value stands in a `.keyloan.toml` as it is, and is no secret.
        #[serde(default)]
        literals: Vec<VarName>,
    },
    Plan(Plan),
    Loans {
        loans: Vec<LoanSummary>,
    },
    /// The policy as text that `policy set` takes.
    Policy {
        settings: Vec<String>,
    },
    /// Tail: `lines` of the log, whole, each ended by a newline. More follow.
    LogLines,
    Verified(Verified),
    Error(ErrorReply),
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

#[derive(Serialize, Deserialize)]
pub struct LoanSummary {
    pub id: u64,
    pub pid: u32,
    pub program: String,
    pub variables: Vec<VarName>,
    pub since: String,
    pub directory: String,
}

#[derive(Serialize, Deserialize)]
pub struct Verified {
    pub records: u64,
    /// Records whose chain was checked with the vault's key; without it only their order is.
    pub keyed: bool,
    pub findings: Vec<String>,
}
