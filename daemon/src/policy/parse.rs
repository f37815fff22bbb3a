//! The text of a policy: `KEY=VALUE` a line, as `policy show` prints and `policy set` takes.

use super::rule::{ApproverProgram, Kind, LOCK_IDLE, Policy, Verdict};
use keyloan_protocol::time_span::TimeSpan;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PolicyError {
    #[error("KEY=VALUE is wanted")]
    Shape,
    #[error("no setting is called that{}", nearest(.0))]
    Key(String),
    #[error("{key} takes ask, allow or deny")]
    Verdict { key: &'static str },
    #[error("{0} takes the absolute path of a program, or nothing to remove it")]
    Path(&'static str),
    #[error(
        "ssh.upstream takes the absolute paths of at most {UPSTREAM} sockets, with commas between, or nothing"
    )]
    Upstream,
    #[error("lock.idle takes a time such as 30m or 8h, from 1m to 7d")]
    Time,
    #[error("loan.time takes a time such as 15m or 2h, or nothing: until the command ends")]
    LoanTime,
    #[error("the sealed policy does not have the form of one")]
    Stored,
}

const KEYS: [&str; 14] = [
    "approver.command",
    "approver.pinentry",
    "env",
    "file",
    "item.read",
    "item.write",
    "key.add",
    "ssh.login",
    "ssh.other",
    "ssh.signature",
    "ssh.upstream",
    "trust",
    "loan.time",
    "lock.idle",
];

/// Agents behind ours.
const UPSTREAM: usize = 8;

fn nearest(key: &str) -> String {
    keyloan_protocol::names::nearest(key, &KEYS)
        .map_or_else(|| format!(" (there are {})", KEYS.join(", ")), |near| format!("; {near}?"))
}

/// One change to a policy.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Setting {
    Verdict(Kind, Verdict),
    /// The program's hash is still to be taken; `None` removes it.
    Approver(Option<PathBuf>),
    Pinentry(Option<PathBuf>),
    Upstream(Vec<PathBuf>),
    LockIdle(Duration),
    LoanTime(Option<Duration>),
}

pub(crate) fn setting(text: &str) -> Result<Setting, PolicyError> {
    let (key, value) = text.split_once('=').ok_or(PolicyError::Shape)?;
    if let Some(kind) = Kind::ALL.into_iter().find(|kind| kind.key() == key) {
        let verdict = [Verdict::Allow, Verdict::Ask, Verdict::Deny]
            .into_iter()
            .find(|verdict| verdict.word() == value)
            .ok_or(PolicyError::Verdict { key: kind.key() })?;
        return Ok(Setting::Verdict(kind, verdict));
    }
    match key {
        "approver.command" => program("approver.command", value).map(Setting::Approver),
        "approver.pinentry" => program("approver.pinentry", value).map(Setting::Pinentry),
        "ssh.upstream" => upstream(value).map(Setting::Upstream).ok_or(PolicyError::Upstream),
        "lock.idle" => idle(value).map(Setting::LockIdle).ok_or(PolicyError::Time),
        "loan.time" if value.is_empty() => Ok(Setting::LoanTime(None)),
        "loan.time" => {
            let time = TimeSpan::parse(value).map_err(|_| PolicyError::LoanTime)?;
            Ok(Setting::LoanTime(Some(time.duration())))
        }
        _ => Err(PolicyError::Key(key.to_owned())),
    }
}

fn program(key: &'static str, value: &str) -> Result<Option<PathBuf>, PolicyError> {
    match value {
        "" => Ok(None),
        path if is_path(path) => Ok(Some(path.into())),
        _ => Err(PolicyError::Path(key)),
    }
}

fn upstream(value: &str) -> Option<Vec<PathBuf>> {
    let paths: Vec<&str> = value.split(',').filter(|path| !path.is_empty()).collect();
    let right = paths.len() <= UPSTREAM && paths.iter().all(|path| is_path(path));
    right.then(|| paths.into_iter().map(PathBuf::from).collect())
}

/// An absolute path without control characters: what follows a line end would be read back as a setting of its own,
/// which nobody was asked for.
fn is_path(text: &str) -> bool {
    text.starts_with('/') && !text.contains(char::is_control)
}

/// A time for `lock.idle`.
pub(crate) fn idle(text: &str) -> Option<Duration> {
    let time = TimeSpan::parse(text).ok()?.duration();
    (60..=7 * 86400).contains(&time.as_secs()).then_some(time)
}

/// The policy as lines. The approver's hash stands on a line of its own, which `policy set` does not take.
pub(crate) fn print(policy: &Policy) -> Vec<String> {
    let mut lines: Vec<String> = Kind::ALL
        .into_iter()
        .map(|kind| {
            let verdict = policy.verdicts.get(&kind).copied().unwrap_or(kind.default_verdict());
            format!("{}={}", kind.key(), verdict.word())
        })
        .collect();
    if !policy.upstream.is_empty() {
        let paths: Vec<String> = policy.upstream.iter().map(|path| path.display().to_string()).collect();
        lines.push(format!("ssh.upstream={}", paths.join(",")));
    }
    lines.push(format!("lock.idle={}", TimeSpan::of(policy.lock_idle)));
    if let Some(time) = policy.loan_time {
        lines.push(format!("loan.time={}", TimeSpan::of(time)));
    }
    if let Some(approver) = &policy.approver {
        lines.push(format!("approver.command={}", approver.path.display()));
        lines.push(format!("approver.sha256={}", approver.sha256));
    }
    if let Some(pinentry) = &policy.pinentry {
        lines.push(format!("approver.pinentry={}", pinentry.display()));
    }
    lines
}

/// Reads back what [`print()`] wrote.
pub(crate) fn read(text: &str) -> Result<Policy, PolicyError> {
    let mut policy = Policy { lock_idle: LOCK_IDLE, ..Policy::default() };
    let mut program = None;
    for line in text.lines() {
        if let Some(sha256) = line.strip_prefix("approver.sha256=") {
            let path = program.take().ok_or(PolicyError::Stored)?;
            if sha256.len() != 64 || !sha256.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return Err(PolicyError::Stored);
            }
            policy.approver = Some(ApproverProgram { path, sha256: sha256.to_owned() });
            continue;
        }
        match setting(line).map_err(|_| PolicyError::Stored)? {
            Setting::Verdict(kind, verdict) => drop(policy.verdicts.insert(kind, verdict)),
            Setting::LockIdle(time) => policy.lock_idle = time,
            Setting::LoanTime(time) => policy.loan_time = time,
            Setting::Approver(path) => program = path,
            Setting::Pinentry(path) => policy.pinentry = path,
            Setting::Upstream(paths) => policy.upstream = paths,
        }
    }
    // An approver without its hash would run whatever lies at its path.
    if program.is_some() { Err(PolicyError::Stored) } else { Ok(policy) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_read_back() {
        let mut policy = Policy::default();
        policy.verdicts.insert(Kind::Env, Verdict::Allow);
        policy.verdicts.insert(Kind::Trust, Verdict::Deny);
        policy.approver = Some(ApproverProgram { path: "/bin/true".into(), sha256: "ab".repeat(32) });
        policy.pinentry = Some("/usr/bin/pinentry-qt".into());
        policy.upstream = vec!["/run/a".into(), "/run/b".into()];
        policy.lock_idle = Duration::from_secs(5400);
        policy.loan_time = Some(Duration::from_secs(900));
        let read = read(&print(&policy).join("\n")).unwrap();
        assert_eq!(print(&read), print(&policy));
        assert_eq!(read.verdicts.get(&Kind::Env), Some(&Verdict::Allow));
        assert_eq!(read.pinentry, policy.pinentry);
    }

    #[test]
    fn an_approver_without_its_hash_is_no_policy() {
        assert_eq!(read("approver.command=/bin/true"), Err(PolicyError::Stored));
        assert_eq!(read("approver.command=/bin/true\napprover.sha256=ab"), Err(PolicyError::Stored));
    }

    #[test]
    fn a_path_with_a_line_end_is_no_second_setting() {
        for key in ["approver.command", "approver.pinentry", "ssh.upstream"] {
            for path in ["/a\nenv=allow", "/a\r", "/a\0"] {
                assert!(setting(&format!("{key}={path}")).is_err(), "{key}={path:?}");
            }
        }
        assert!(setting("approver.pinentry=/a b/é").is_ok());
    }

    #[test]
    fn a_wrong_setting_says_what_would_be_right() {
        for (text, said) in [
            ("env", "KEY=VALUE is wanted"),
            ("item.raed=ask", "item.read?"),
            ("env=yes", "env takes ask, allow or deny"),
            ("approver.command=bin/x", "approver.command takes the absolute path"),
            ("approver.pinentry=qt", "approver.pinentry takes the absolute path"),
            ("ssh.upstream=a,/b", "absolute paths"),
            ("ssh.upstream=/1,/2,/3,/4,/5,/6,/7,/8,/9", "at most 8"),
            ("lock.idle=8", "30m or 8h"),
            ("lock.idle=99999999999999999999d", "30m or 8h"),
            ("lock.idle=30s", "30m or 8h"),
            ("loan.time=soon", "15m or 2h"),
        ] {
            let error = setting(text).unwrap_err().to_string();
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
