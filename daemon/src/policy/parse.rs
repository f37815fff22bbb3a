//! The text of a policy: `KEY=VALUE` a line, as `policy show` prints and `policy set` takes.
//!
//! A rule's key is a kind, with conditions in brackets: `ssh.login[host=github.com,item=work]`.

use super::decide::{Seen, Subject};
use super::order::{Order, Unpinned};
use super::rule::{Attribute, Conditions, Kind, Limit, Pattern, Policy, Rule, Scope, Verdict};
use keyloan_protocol::time_span::TimeSpan;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PolicyError {
    #[error("KEY=VALUE is wanted")]
    Shape,
    #[error("no setting is called that{}", nearest(.0, &keys()))]
    Key(String),
    #[error(
        "{0} takes ask, ask-pin, allow, allow N/TIME (such as allow 20/1h), deny, or nothing to remove the rule"
    )]
    Verdict(&'static str),
    #[error("approver takes ask (that is the passphrase), deny, or nothing to remove the rule")]
    Approver,
    #[error("a condition is NAME=TEXT, NAME=TEXT* or forwarded, with commas between")]
    Condition,
    #[error("no condition is called that{}", nearest(.0, &attributes()))]
    Attribute(String),
    #[error("a request for {0} has no {1}, so the rule would never be met")]
    Never(&'static str, &'static str),
    #[error("an item of the local vault is named by its title alone")]
    Local,
    #[error("the condition {0} stands there twice")]
    Twice(&'static str),
    #[error("{0} can be pretended by any program, so it can make a rule stricter and never allow")]
    Pretended(&'static str),
    #[error("{0} takes the absolute path of a program, or nothing to remove it")]
    Path(&'static str),
    #[error(
        "ssh.upstream takes the absolute paths of at most {UPSTREAM} sockets, with commas between, or nothing"
    )]
    Upstream,
    #[error("lock.idle takes a time such as 30m or 8h, from 1m to 7d")]
    Time,
    #[error("deadline takes a time such as 60s, from 10s to 10m")]
    Deadline,
    #[error("loan.time takes a time such as 15m or 2h, or nothing: until the command ends")]
    LoanTime,
    #[error(
        "grants takes at most {SCOPES} of what a yes may cover, with spaces between: command, a time from 1m to 8h, \
         uses from 2x to 1000x, terminal-TIME; or nothing"
    )]
    Grants,
    #[error(
        "approver.order takes one or more of program, approve, window, terminal and askpass, each once, with spaces \
         between; or nothing for the usual order"
    )]
    Order,
    #[error("there are more than {RULES} rules")]
    TooMany,
    #[error("the sealed policy does not have the form of one")]
    Stored,
}

/// Agents behind ours, rules, and scopes that are offered (counts).
const UPSTREAM: usize = 8;
const RULES: usize = 256;
const SCOPES: usize = 6;

/// The longest text of a condition.
const TEXT: usize = 512;

const SETTINGS: [&str; 9] = [
    "approver.command",
    "approver.pinentry",
    "deadline",
    "grants",
    "loan.time",
    "lock.idle",
    "ssh.upstream",
    "approver.order",
    "approver.askpass",
];

fn keys() -> Vec<&'static str> {
    Kind::ALL.into_iter().map(Kind::key).chain(SETTINGS).collect()
}

fn attributes() -> Vec<&'static str> {
    Attribute::ALL.into_iter().map(Attribute::key).collect()
}

fn nearest(word: &str, words: &[&str]) -> String {
    keyloan_protocol::names::nearest(word, words)
        .map_or_else(|| format!(" (there are {})", words.join(", ")), |near| format!("; {near}?"))
}

/// One change to a policy.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Setting {
    /// Without a verdict the rule goes.
    Rule(Kind, Conditions, Option<Verdict>),
    /// The program's hash is still to be taken; `None` removes it.
    Approver(Option<PathBuf>),
    Pinentry(Option<PathBuf>),
    Upstream(Vec<PathBuf>),
    LockIdle(Duration),
    LoanTime(Option<Duration>),
    Deadline(Duration),
    Grants(Vec<Scope>),
    Order(Order),
    /// As the approver program.
    Askpass(Option<PathBuf>),
}

pub(crate) fn setting(text: &str) -> Result<Setting, PolicyError> {
    let (key, value) = match text.find('[') {
        // A condition holds an equals sign too.
        Some(open) if !text[..open].contains('=') => {
            // As does a host's name where its port is another: `[build.example.org]:2222`.
            let close = text.rfind("]=").ok_or(PolicyError::Shape)?;
            (&text[..=close], &text[close + 2..])
        }
        _ => text.split_once('=').ok_or(PolicyError::Shape)?,
    };
    let name = key.split('[').next().unwrap_or_default();
    if let Some(kind) = Kind::ALL.into_iter().find(|kind| kind.key() == name) {
        let when = when(kind, &key[name.len()..])?;
        let verdict = if value.is_empty() { None } else { Some(verdict(kind, value)?) };
        if let (Some(Verdict::Allow(_)), Some(attribute)) =
            (verdict, when.0.iter().map(|(attribute, _)| *attribute).find(|one| one.is_only_seen()))
        {
            return Err(PolicyError::Pretended(attribute.key()));
        }
        return Ok(Setting::Rule(kind, when, verdict));
    }
    match key {
        "approver.command" => program("approver.command", value).map(Setting::Approver),
        "approver.pinentry" => program("approver.pinentry", value).map(Setting::Pinentry),
        "ssh.upstream" => upstream(value).map(Setting::Upstream).ok_or(PolicyError::Upstream),
        "lock.idle" => idle(value).map(Setting::LockIdle).ok_or(PolicyError::Time),
        "deadline" => between(value, 10, 600).map(Setting::Deadline).ok_or(PolicyError::Deadline),
        "loan.time" if value.is_empty() => Ok(Setting::LoanTime(None)),
        "loan.time" => {
            let time = TimeSpan::parse(value).map_err(|_| PolicyError::LoanTime)?;
            Ok(Setting::LoanTime(Some(time.duration())))
        }
        "grants" => grants(value).map(Setting::Grants).ok_or(PolicyError::Grants),
        "approver.order" => Order::parse(value).map(Setting::Order).ok_or(PolicyError::Order),
        "approver.askpass" => program("approver.askpass", value).map(Setting::Askpass),
        _ => Err(PolicyError::Key(name.to_owned())),
    }
}

/// The conditions of a rule for this kind, behind its name.
fn when(kind: Kind, text: &str) -> Result<Conditions, PolicyError> {
    let when = text.strip_prefix('[').map_or(Ok(Conditions::default()), conditions)?;
    match when.0.iter().find(|(attribute, _)| !kind.has(*attribute)) {
        Some((attribute, _)) => Err(PolicyError::Never(kind.key(), attribute.key())),
        None => Ok(when),
    }
}

/// `item=pypi-*,forwarded]`
fn conditions(text: &str) -> Result<Conditions, PolicyError> {
    let text = text.strip_suffix(']').ok_or(PolicyError::Condition)?;
    let mut held = Vec::new();
    for one in text.split(',') {
        let (name, value) = one.split_once('=').unwrap_or((one, ""));
        let attribute = Attribute::ALL.into_iter().find(|attribute| attribute.key() == name);
        let attribute = attribute.ok_or_else(|| PolicyError::Attribute(name.to_owned()))?;
        let (text, is_prefix) = value.strip_suffix('*').map_or((value, false), |text| (text, true));
        // Forwarded or not: there is no text to it.
        let right = if attribute == Attribute::Forwarded { one == name } else { !value.is_empty() };
        if !right || text.len() > TEXT || text.contains(|c: char| c.is_control() || c == '*') {
            return Err(PolicyError::Condition);
        }
        if held.iter().any(|(other, _)| *other == attribute) {
            return Err(PolicyError::Twice(attribute.key()));
        }
        // As pins have them.
        let text = if attribute == Attribute::Host { text.to_lowercase() } else { text.to_owned() };
        held.push((attribute, Pattern { text, is_prefix }));
    }
    held.sort();
    Ok(Conditions(held))
}

/// A request that nobody made, as a rule's key would have it: `ssh.login[item=work,forwarded]`. What is not said of it
/// is not so.
pub(crate) fn request(text: &str) -> Result<(Kind, Subject, Seen), PolicyError> {
    let name = text.split('[').next().unwrap_or_default();
    let kind = Kind::ALL.into_iter().find(|kind| kind.key() == name);
    let kind = kind.ok_or_else(|| PolicyError::Key(name.to_owned()))?;
    let when = when(kind, &text[name.len()..])?;
    if when.0.iter().any(|(_, pattern)| pattern.is_prefix) {
        return Err(PolicyError::Condition);
    }
    let said = |attribute| when.of(attribute).map(|pattern| pattern.text.clone());
    let subject = Subject {
        what: text.to_owned(),
        item: said(Attribute::Item),
        hosts: said(Attribute::Host).into_iter().collect(),
        host_key: said(Attribute::HostKey),
        namespace: said(Attribute::Namespace),
        forwarded: when.of(Attribute::Forwarded).is_some(),
        ..Subject::default()
    };
    let seen = Seen {
        programs: Some(said(Attribute::Program).into_iter().collect()),
        repositories: Some(said(Attribute::Repository).into_iter().collect()),
    };
    Ok((kind, subject, seen))
}

fn verdict(kind: Kind, text: &str) -> Result<Verdict, PolicyError> {
    let limit = |text: &str| {
        let (uses, within) = text.split_once('/')?;
        let uses = uses.parse().ok().filter(|uses| (1..=1_000_000).contains(uses))?;
        Some(Limit { uses, within: between(within, 1, 7 * 86400)? })
    };
    match text {
        // A PIN, or nobody, would say who else may say yes.
        text if kind == Kind::Approver && !matches!(text, "ask" | "deny") => Err(PolicyError::Approver),
        "ask" => Ok(Verdict::Ask),
        "ask-pin" => Ok(Verdict::AskPin),
        "allow" => Ok(Verdict::Allow(None)),
        "deny" => Ok(Verdict::Deny),
        _ => {
            let limit = text.strip_prefix("allow ").and_then(limit);
            limit.map(|limit| Verdict::Allow(Some(limit))).ok_or(PolicyError::Verdict(kind.key()))
        }
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

fn grants(value: &str) -> Option<Vec<Scope>> {
    let scope = |word: &str| {
        if word == "command" {
            return Some(Scope::Command);
        }
        if let Some(uses) = word.strip_suffix('x') {
            return uses.parse().ok().filter(|uses| (2..=1000).contains(uses)).map(Scope::Uses);
        }
        match word.strip_prefix("terminal-") {
            Some(time) => between(time, 60, 8 * 3600).map(Scope::Terminal),
            None => between(word, 60, 8 * 3600).map(Scope::Time),
        }
    };
    let scopes: Vec<Scope> = value.split_whitespace().map(scope).collect::<Option<_>>()?;
    (scopes.len() <= SCOPES).then_some(scopes)
}

fn between(text: &str, least: u64, most: u64) -> Option<Duration> {
    let time = TimeSpan::parse(text).ok()?.duration();
    (least..=most).contains(&time.as_secs()).then_some(time)
}

/// A time for `lock.idle`.
pub(crate) fn idle(text: &str) -> Option<Duration> {
    between(text, 60, 7 * 86400)
}

impl Policy {
    /// Puts a rule in its place; without a verdict takes it away. The rule for all of a kind is the default's then.
    pub(crate) fn set_rule(
        &mut self,
        kind: Kind,
        when: Conditions,
        verdict: Option<Verdict>,
    ) -> Result<(), PolicyError> {
        let default = when.0.is_empty().then(|| kind.default_verdict());
        let verdict = verdict.or(default);
        self.rules.retain(|rule| rule.kind != kind || rule.when != when);
        if self.rules.len() >= RULES {
            return Err(PolicyError::TooMany);
        }
        self.rules.extend(verdict.map(|verdict| Rule { kind, when, verdict }));
        self.rules.sort_by(|a, b| (a.kind, &a.when).cmp(&(b.kind, &b.when)));
        Ok(())
    }

    /// Makes every change but those of programs whose hashes are not known here.
    pub(crate) fn set(&mut self, setting: Setting) -> Result<(), PolicyError> {
        match setting {
            Setting::Rule(kind, when, verdict) => self.set_rule(kind, when, verdict)?,
            Setting::LockIdle(time) => self.lock_idle = time,
            Setting::LoanTime(time) => self.loan_time = time,
            Setting::Deadline(time) => self.deadline = time,
            Setting::Grants(scopes) => self.grants = scopes,
            Setting::Pinentry(path) => self.pinentry = path,
            Setting::Upstream(paths) => self.upstream = paths,
            Setting::Approver(_) => self.approver = None,
            Setting::Order(order) => self.order = order,
            Setting::Askpass(_) => self.askpass = None,
        }
        Ok(())
    }
}

/// Reads back what was printed, and what an earlier keyloan did, which knew fewer settings.
pub(crate) fn read(text: &str) -> Result<Policy, PolicyError> {
    let mut policy = Policy::default();
    let mut unpinned = Unpinned::default();
    for line in text.lines() {
        if let Some((hash @ "approver.sha256", sha256)) = line.split_once('=') {
            policy.approver = Some(unpinned.pin(hash, sha256).ok_or(PolicyError::Stored)?);
            continue;
        }
        if let Some((hash @ "approver.askpass.sha256", sha256)) = line.split_once('=') {
            policy.askpass = Some(unpinned.pin(hash, sha256).ok_or(PolicyError::Stored)?);
            continue;
        }
        match setting(line).map_err(|_| PolicyError::Stored)? {
            Setting::Approver(path) => unpinned.expect("approver.sha256", path),
            Setting::Askpass(path) => unpinned.expect("approver.askpass.sha256", path),
            setting => policy.set(setting).ok(),
        }
        .ok_or(PolicyError::Stored)?;
    }
    if unpinned.is_done() { Ok(policy) } else { Err(PolicyError::Stored) }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::print::print;
    use super::super::rule::ApproverProgram;
    use super::*;

    /// The default policy with these changes.
    pub(crate) fn policy(settings: &[&str]) -> Policy {
        let mut policy = Policy::default();
        for text in settings {
            policy.set(setting(text).unwrap()).unwrap();
        }
        policy
    }

    #[test]
    fn what_is_printed_is_read_back() {
        let mut policy = policy(&[
            "env=allow",
            "trust=deny",
            "ssh.login[item=work,host=github.com]=allow 20/1h",
            "ssh.login[forwarded]=deny",
            "ssh.login[host=[Build.example.org]:2222]=deny",
            "env[program=/usr/bin/py*,item=a b]=ask-pin",
            "approver.pinentry=/usr/bin/pinentry-qt",
            "ssh.upstream=/run/a,/run/b",
            "lock.idle=90m",
            "loan.time=15m",
            "deadline=30s",
            "grants=command 10m 20x terminal-1h",
            "approver.order=askpass terminal",
        ]);
        policy.approver = Some(ApproverProgram { path: "/bin/true".into(), sha256: "ab".repeat(32) });
        policy.askpass = Some(ApproverProgram { path: "/bin/false".into(), sha256: "cd".repeat(32) });
        let lines = print(&policy);
        assert!(lines.contains(&"ssh.login[item=work,host=github.com]=allow 20/1h".to_owned()), "{lines:?}");
        assert!(lines.contains(&"grants=command 10m 20x terminal-1h".to_owned()), "{lines:?}");
        assert_eq!(read(&lines.join("\n")), Ok(policy));
    }

    #[test]
    fn a_rule_is_removed_by_an_empty_value_and_set_once_only() {
        let policy = policy(&["env[item=a]=allow", "env[item=a]=ask", "file[item=b]=ask", "file[item=b]="]);
        let of = |kind| policy.rules.iter().filter(|rule| rule.kind == kind).count();
        assert_eq!((of(Kind::Env), of(Kind::File)), (2, 1));
    }

    #[test]
    fn a_policy_of_an_earlier_keyloan_is_read() {
        let text = "env=ask\nfile=ask\nitem.read=deny\nitem.write=ask\nssh.login=ask\nssh.signature=allow\n\
                    ssh.other=deny\nkey.add=ask\ntrust=ask\nlock.idle=8h";
        assert_eq!(read(text), Ok(policy(&["item.read=deny", "ssh.signature=allow"])));
    }

    #[test]
    fn the_rule_for_all_of_a_kind_gives_way_to_the_default() {
        for (settings, printed) in
            [(["env=deny", "env="], "env=ask"), (["ssh.other=ask", "ssh.other="], "ssh.other=deny")]
        {
            let policy = policy(&settings);
            assert!(print(&policy).contains(&printed.to_owned()));
            assert_eq!(read(&print(&policy).join("\n")), Ok(policy), "as it is read back");
        }
    }

    #[test]
    fn an_approver_without_its_hash_is_no_policy() {
        assert_eq!(read("approver.command=/bin/true"), Err(PolicyError::Stored));
        assert_eq!(read("approver.command=/bin/true\napprover.sha256=ab"), Err(PolicyError::Stored));
        assert_eq!(read("approver.askpass=/bin/true"), Err(PolicyError::Stored));
        let others = format!("approver.askpass=/bin/true\napprover.sha256={}", "ab".repeat(32));
        assert_eq!(read(&others), Err(PolicyError::Stored), "a hash is the one of its own program");
    }

    #[test]
    fn a_path_with_a_line_end_is_no_second_setting() {
        for key in ["approver.command", "approver.pinentry", "approver.askpass", "ssh.upstream"] {
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
            ("env[item=a]", "KEY=VALUE is wanted"),
            ("env[item=a=ask", "KEY=VALUE is wanted"),
            ("item.raed=ask", "item.read?"),
            ("env=yes", "env takes ask, ask-pin, allow"),
            ("env=allow 0/1h", "allow 20/1h"),
            ("env=allow 5", "allow 20/1h"),
            ("env[itm=a]=ask", "item?"),
            ("env[item]=ask", "a condition is NAME=TEXT"),
            ("env[item=a*b]=ask", "a condition is NAME=TEXT"),
            ("env[]=ask", "no condition is called that"),
            ("env[item=a,item=b]=ask", "stands there twice"),
            ("ssh.login[forwarded=yes]=ask", "a condition is"),
            ("env[forwarded]=deny", "a request for env has no forwarded"),
            ("ssh.signature[host=a]=deny", "has no host"),
            ("trust[item=a]=deny", "a request for trust has no item"),
            ("approver=allow", "approver takes ask (that is the passphrase), deny"),
            ("approver=ask-pin", "approver takes ask"),
            ("approver[item=a]=deny", "has no item"),
            ("env[program=/bin/x]=allow", "can be pretended"),
            ("env[repository=/x,item=a]=allow 1/1h", "can be pretended"),
            ("approver.command=bin/x", "approver.command takes the absolute path"),
            ("approver.pinentry=qt", "approver.pinentry takes the absolute path"),
            ("ssh.upstream=a,/b", "absolute paths"),
            ("ssh.upstream=/1,/2,/3,/4,/5,/6,/7,/8,/9", "at most 8"),
            ("lock.idle=8", "30m or 8h"),
            ("lock.idle=99999999999999999999d", "30m or 8h"),
            ("lock.idle=30s", "30m or 8h"),
            ("loan.time=soon", "15m or 2h"),
            ("deadline=5s", "from 10s to 10m"),
            ("grants=always", "command, a time"),
            ("grants=1x", "command, a time"),
            ("approver.order=window window", "each once"),
            ("approver.askpass=x", "approver.askpass takes the absolute path"),
        ] {
            let error = setting(text).unwrap_err().to_string();
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
