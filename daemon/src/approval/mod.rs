//! Putting a question to a human. A request never chooses who judges it: an approver program was set with
//! the passphrase, a desktop is that of whoever proved it, and a terminal is the one the kernel names, opened
//! and read by the daemon itself.

pub(crate) mod askpass;
mod assuan;
pub(crate) mod board;
pub(crate) mod child;
pub(crate) mod flood;
pub(crate) mod notification;
pub(crate) mod offer;
pub(crate) mod phrase;
pub(crate) mod pin;
pub(crate) mod pinentry;
pub(crate) mod place;
pub(crate) mod program;
pub(crate) mod question;
pub(crate) mod queue;
pub(crate) mod steering;
pub(crate) mod terminal;
mod turns;

use offer::Offer;
use std::time::Duration;

/// How long a human has to type a passphrase: there may be no policy yet that says how long.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// Why there was no yes.
#[derive(Debug, thiserror::Error)]
pub(crate) enum No {
    #[error("it was declined")]
    Declined,
    #[error("nobody answered within {} seconds", .0.as_secs())]
    TimedOut(Duration),
    #[error("there is no way to ask: no approver program is set, and the request comes from no terminal")]
    Unaskable,
    #[error(
        "there is no way to ask: the policy wants the PIN, which an approver program does not have, and the request \
         comes from no terminal"
    )]
    Pinless,
    #[error(
        "not all that a yes would allow can be shown in one question ({0}), and what is not shown is not asked"
    )]
    Unshowable(String),
    #[error("there is no way to ask: no window can be opened on {0}, and the request comes from no terminal")]
    Windowless(String),
    #[error("there is no way to ask: the request comes from the background of its terminal")]
    Background,
    #[error(
        "there is no way to ask: another host asks by way of this program, which may send there what is typed on its \
         terminal"
    )]
    Overheard,
    #[error(
        "the last questions from there were declined or not answered, so it may ask again in {0} seconds (a yes to \
         the next one ends this)"
    )]
    Cooling(u64),
    #[error("there were five wrong PINs where you unlocked, so everything is locked")]
    LockedOut,
    #[error("too many questions are waiting already")]
    Busy,
    #[error("the PIN was wrong three times")]
    WrongPin,
    #[error("after wrong PINs this way of asking is closed for another {0} seconds")]
    Closed(u64),
    #[error("the approver program {path}: {cause}")]
    Program { path: String, cause: program::ProgramError },
    #[error("the window: {0}")]
    Window(#[from] pinentry::WindowError),
    #[error("the terminal: {0}")]
    Terminal(std::io::Error),
    #[error("the enrolled terminal was left while the question stood there")]
    BoardLeft,
    #[error("everything is denied for another {0} seconds, as was wished on the enrolled terminal")]
    DeniesAll(u64),
    #[error("there is no way to ask: none of those in approver.order ({0}) is there")]
    NoneThere(String),
    #[error("the vault was locked, or its policy changed, while the question stood")]
    Meanwhile,
    #[error("there is no PIN in the vault")]
    WithoutPin,
    #[error(
        "the last questions from several places were declined or not answered, so for {0} seconds only the terminal \
         of the last unlock may ask (a yes ends this)"
    )]
    CoolingAll(u64),
    #[error("{0} questions from there are waiting already")]
    BusyHere(usize),
    #[error("the askpass program {path}: {cause}")]
    Askpass { path: String, cause: program::ProgramError },
}

impl No {
    /// Nobody was asked, because too much was asked before.
    pub(crate) fn is_of_a_flood(&self) -> bool {
        matches!(
            self,
            Self::Busy | Self::BusyHere(_) | Self::Cooling(_) | Self::CoolingAll(_) | Self::DeniesAll(_)
        )
    }
}

/// Who said yes.
#[derive(Debug, Clone)]
pub(crate) struct Yes {
    pub(crate) by: String,
    pub(crate) covers: Covers,
}

/// What a yes is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Covers {
    /// The request alone.
    Once,
    Also(Offer),
    /// Nobody was asked: a grant was given while it waited.
    Granted,
}
