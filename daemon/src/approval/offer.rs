//! What a yes may be said to be for besides the request, and how that is said: behind the PIN, or by an approver
//! program. What was not offered is never given.

use crate::policy::rule::Scope;
use keyloan_protocol::time_span::TimeSpan;

/// What else a yes does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Also {
    /// It covers further requests.
    Grant(Scope),
    /// It keeps the name of a login's host with its key.
    Pin,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Offer {
    pub(crate) also: Also,
    pub(crate) words: String,
}

impl Offer {
    /// The scope that an approver program answers.
    pub(crate) fn key(&self) -> String {
        match self.also {
            Also::Grant(scope) => scope.to_string(),
            Also::Pin => "pin".to_owned(),
        }
    }

    /// What is typed behind the PIN and a plus sign.
    pub(crate) fn typed(&self) -> String {
        match self.also {
            Also::Grant(Scope::Command) => "c".to_owned(),
            Also::Grant(Scope::Terminal(time)) => format!("t{}", TimeSpan::of(time)),
            Also::Grant(scope) => scope.to_string(),
            Also::Pin => "p".to_owned(),
        }
    }
}
