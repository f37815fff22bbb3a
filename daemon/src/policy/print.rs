//! The text of a policy, as [`super::parse`] reads it.

use super::order::Order;
use super::rule::{Attribute, Policy, Rule, Scope, Verdict};
use keyloan_protocol::time_span::TimeSpan;
use std::fmt;

impl fmt::Display for Verdict {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Allow(None) => out.write_str("allow"),
            Self::Allow(Some(limit)) => write!(out, "allow {}/{}", limit.uses, TimeSpan::of(limit.within)),
            Self::Ask => out.write_str("ask"),
            Self::AskPin => out.write_str("ask-pin"),
            Self::Deny => out.write_str("deny"),
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.kind.key())?;
        for (at, (attribute, pattern)) in self.when.0.iter().enumerate() {
            out.write_str(if at == 0 { "[" } else { "," })?;
            out.write_str(attribute.key())?;
            if *attribute != Attribute::Forwarded {
                write!(out, "={pattern}")?;
            }
        }
        let close = if self.when.0.is_empty() { "" } else { "]" };
        write!(out, "{close}={}", self.verdict)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Command => out.write_str("command"),
            Self::Time(time) => write!(out, "{}", TimeSpan::of(*time)),
            Self::Uses(uses) => write!(out, "{uses}x"),
            Self::Terminal(time) => write!(out, "terminal-{}", TimeSpan::of(*time)),
        }
    }
}

/// The policy as lines. A program's hash stands on the line behind it, which `policy set` does not take.
pub(crate) fn print(policy: &Policy) -> Vec<String> {
    let mut lines: Vec<String> = policy.rules.iter().map(ToString::to_string).collect();
    if !policy.upstream.is_empty() {
        let paths: Vec<String> = policy.upstream.iter().map(|path| path.display().to_string()).collect();
        lines.push(format!("ssh.upstream={}", paths.join(",")));
    }
    lines.push(format!("lock.idle={}", TimeSpan::of(policy.lock_idle)));
    if let Some(time) = policy.loan_time {
        lines.push(format!("loan.time={}", TimeSpan::of(time)));
    }
    lines.push(format!("deadline={}", TimeSpan::of(policy.deadline)));
    let scopes: Vec<String> = policy.grants.iter().map(ToString::to_string).collect();
    lines.push(format!("grants={}", scopes.join(" ")));
    if let Some(approver) = &policy.approver {
        lines.push(format!("approver.command={}", approver.path.display()));
        lines.push(format!("approver.sha256={}", approver.sha256));
    }
    if let Some(pinentry) = &policy.pinentry {
        lines.push(format!("approver.pinentry={}", pinentry.display()));
    }
    if policy.order != Order::default() {
        lines.push(format!("approver.order={}", policy.order));
    }
    if let Some(askpass) = &policy.askpass {
        lines.push(format!("approver.askpass={}", askpass.path.display()));
        lines.push(format!("approver.askpass.sha256={}", askpass.sha256));
    }
    let kept = policy.vault_cache.iter();
    lines.extend(kept.map(|(vault, time)| format!("vault.cache[vault={vault}]={}", TimeSpan::of(*time))));
    lines
}
