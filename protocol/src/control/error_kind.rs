//! The stable kinds of failure and the exit status of each.

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// An item, a field, a set, a file or a loan that is not there.
    NotFound,
    /// Input that cannot be meant.
    Usage,
    /// Another protocol version, or a message that is none.
    Protocol,
    /// The vault is locked and there was no way to ask.
    Locked,
    /// A rule forbids it.
    Denied,
    /// The human said no, did not answer, or could not be asked.
    Declined,
    /// The passphrase or the PIN was not the right one.
    WrongSecret,
    /// The vault could not be read or written, or is not what it was.
    Vault,
    /// The audit log could not be written, so nothing was done.
    Log,
    /// A fault of keyloan's own.
    Bug,
}

impl ErrorKind {
    /// The exit status of a command that fails so (`docs/exit-codes.md`).
    pub fn exit_status(self) -> u8 {
        match self {
            Self::NotFound => 1,
            Self::Usage => 2,
            Self::Protocol => 3,
            Self::Locked => 4,
            Self::Denied => 5,
            Self::Declined | Self::WrongSecret => 6,
            Self::Vault | Self::Log => 7,
            Self::Bug => 70,
        }
    }
}
