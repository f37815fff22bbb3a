//! What a host is called, and by whom: a pin in the vault, else the user's `known_hosts`, which any program of the
//! user can write.

use super::{AgentConnection, Broker};
use crate::approval::question::Certainty;
use crate::broker::Client;
use crate::clock;
use crate::hosts::known_hosts::{KnownHosts, NameKind, Naming};
use crate::hosts::pattern::{self, Listed};
use crate::hosts::pins::{Pins, without_port};
use crate::patience;
use keyloan_platform::process;
use keyloan_protocol::ssh_agent::key::PublicKey;
use std::sync::Arc;
use std::time::Duration;

/// The name of a host whose key a session is bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Host {
    Pinned(Vec<String>),
    KnownHosts(Vec<String>),
    /// `known_hosts` gives it a name that is pinned with other keys: the host has a new one, or it is another's.
    Contested(String),
    /// `known_hosts` has the key, under a pattern, or a name of which only the hash is there.
    Unreadable,
    Revoked,
    /// The files take too long to look through, and may say that its key is revoked.
    Slow,
    /// Neither has it.
    Unnamed,
}

/// A connection that signs often has the files looked at this often.
const FRESH: Duration = Duration::from_secs(1);

/// Names shown of one host.
const SHOWN: usize = 3;

impl Host {
    fn names(&self) -> &[String] {
        match self {
            Self::Pinned(names) | Self::KnownHosts(names) => names,
            _ => &[],
        }
    }

    /// The names that the vault has for it.
    pub(super) fn pinned(&self) -> &[String] {
        if let Self::Pinned(names) = self { names } else { &[] }
    }

    pub(super) fn is_named(&self) -> bool {
        !self.names().is_empty()
    }

    /// Whether the vault, open now, says otherwise than what was shown while it was not: a name that was shown is pinned
    /// with other keys, or the host is pinned under none of them.
    pub(super) fn contradicts(&self, shown: &Self, pins: &Pins) -> bool {
        let is_own = |name: &String| self.names().iter().any(|own| without_port(own) == without_port(name));
        let is_pinned = matches!(self, Self::Pinned(_));
        let is_another = is_pinned && shown.is_named() && !shown.names().iter().any(is_own);
        is_another || shown.names().iter().any(|name| pins.holds(name) && !is_own(name))
    }

    /// The first of the names that `known_hosts` has for it.
    pub(super) fn could_be_pinned(&self) -> Option<&str> {
        if let Self::KnownHosts(names) = self { names.first().map(String::as_str) } else { None }
    }

    /// For people, and how sure it is.
    pub(super) fn shown(&self) -> (String, Certainty) {
        let names = self.names();
        let more = names.len().saturating_sub(SHOWN);
        let mut text = names.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(" or ");
        if more > 0 {
            text = format!("{text} (or {more} more)");
        }
        match self {
            Self::Pinned(_) => (text, Certainty::Verified),
            Self::KnownHosts(_) => (text, Certainty::KnownHosts),
            Self::Contested(name) => {
                let text = format!("a host that known_hosts calls {name}, WHICH IS PINNED WITH OTHER KEYS");
                (text, Certainty::KnownHosts)
            }
            Self::Unreadable => ("a host whose name known_hosts hides".to_owned(), Certainty::Seen),
            Self::Revoked => ("a host whose key is revoked".to_owned(), Certainty::KnownHosts),
            Self::Slow => ("a host of which known_hosts says too much".to_owned(), Certainty::KnownHosts),
            Self::Unnamed => ("a host that known_hosts does not know".to_owned(), Certainty::Seen),
        }
    }

    /// Whether a key for such hosts is for this one. The port that `known_hosts` writes behind a name may be left out.
    pub(super) fn is_among(&self, patterns: &[String]) -> bool {
        let is_for = |name: &String| {
            patterns.iter().any(|pattern| {
                pattern::host_in_list(name, pattern) == Listed::Yes
                    || !pattern.starts_with('[')
                        && pattern::host_in_list(without_port(name), pattern) == Listed::Yes
            })
        };
        self.names().iter().any(is_for)
    }
}

/// A host's name, and what it was found in: it is looked for again when that changes.
pub(super) struct Named {
    key: PublicKey,
    /// Time since boot.
    looked: Duration,
    known: Vec<Arc<KnownHosts>>,
    pins: Option<Arc<Pins>>,
    pub(super) host: Host,
}

impl Named {
    fn is_still(&self, key: &PublicKey, known: &[Arc<KnownHosts>], pins: Option<&Arc<Pins>>) -> bool {
        let same = |(a, b): (&Arc<KnownHosts>, &Arc<KnownHosts>)| Arc::ptr_eq(a, b);
        let same_pins = match (&self.pins, pins) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            (None, None) => true,
            _ => false,
        };
        let same_files = self.known.len() == known.len() && self.known.iter().zip(known).all(same);
        same_pins && same_files && self.key == *key
    }
}

impl Broker {
    /// The name of the host that a session is bound to.
    pub(super) async fn host_of(&self, connection: &mut AgentConnection, key: &PublicKey) -> Host {
        let (now, pins) = (clock::since_boot(), self.pins());
        if let Some(named) = &mut connection.named {
            let is_fresh = now.saturating_sub(named.looked) < FRESH;
            let known = if is_fresh { named.known.clone() } else { self.ssh.known_hosts.look().await };
            if named.is_still(key, &known, pins.as_ref()) {
                named.looked = if is_fresh { named.looked } else { now };
                return named.host.clone();
            }
        }
        let named = self.name_host(&connection.client, key).await;
        let host = named.host.clone();
        connection.named = Some(named);
        host
    }

    pub(super) fn pins(&self) -> Option<Arc<Pins>> {
        self.unsealed.borrow().as_ref().map(|unsealed| Arc::clone(&unsealed.pins))
    }

    pub(super) async fn name_host(&self, client: &Client, key: &PublicKey) -> Named {
        let (known, pins) = (self.ssh.known_hosts.look().await, self.pins());
        let (pid, now) = (client.requester.peer.pid, clock::unix_seconds());
        let (in_files, pinned, host_key) = (known.clone(), pins.clone(), key.clone());
        // What the client was started with may be the name that an entry is the hash of. A client that keeps us waiting
        // for it keeps nobody from seeing that a key is revoked.
        let command = patience::look(move || process::command_line(pid)).await.flatten().unwrap_or_default();
        let find = move || {
            let candidates = candidates(&String::from_utf8_lossy(&command));
            name(&host_key, &in_files, pinned.as_deref(), &candidates, now)
        };
        let host = patience::look(find).await.unwrap_or(Host::Slow);
        Named { key: key.clone(), looked: clock::since_boot(), known, pins, host }
    }
}

fn name(
    key: &PublicKey,
    known: &[Arc<KnownHosts>],
    pins: Option<&Pins>,
    candidates: &[String],
    now: u64,
) -> Host {
    let pinned = pins.map(|pins| pins.names_of(key, now)).unwrap_or_default();
    let candidates: Vec<&str> = pinned.iter().copied().chain(candidates.iter().map(String::as_str)).collect();
    let naming = known.iter().map(|known| known.names_of(key, &candidates, now));
    match naming.reduce(Naming::and).unwrap_or(Naming::Unknown) {
        Naming::Revoked => Host::Revoked,
        _ if !pinned.is_empty() => Host::Pinned(pinned.into_iter().map(str::to_owned).collect()),
        Naming::Named(names) => {
            let is_name = |kind| matches!(kind, NameKind::Host | NameKind::Certified);
            let names: Vec<String> =
                names.into_iter().filter(|name| is_name(name.kind)).map(|name| name.text).collect();
            let contested = |name: &&String| pins.is_some_and(|pins| pins.holds(name));
            match names.iter().find(contested) {
                Some(name) => Host::Contested(name.clone()),
                None if names.is_empty() => Host::Unreadable,
                None => Host::KnownHosts(names),
            }
        }
        Naming::Hashed => Host::Unreadable,
        Naming::Unknown => Host::Unnamed,
    }
}

/// Words of a command line that may be names of hosts, with the ports that may belong to them.
fn candidates(command: &str) -> Vec<String> {
    let words: Vec<&str> = command.split('\0').filter(|word| !word.is_empty() && word.len() <= 300).collect();
    let is_port = |text: &&str| text.parse::<u16>().is_ok();
    let mut ports: Vec<&str> = Vec::new();
    let mut hosts: Vec<&str> = Vec::new();
    for word in words.iter().take(32) {
        let option = word.strip_prefix("-p").or_else(|| word.strip_prefix("-oPort=")).unwrap_or(word);
        ports.extend(Some(option).filter(is_port));
        let rest = word.strip_prefix("ssh://").unwrap_or(word);
        let place = rest.rsplit_once('@').map_or(rest, |(_, place)| place);
        let place = place.split('/').next().unwrap_or_default();
        match place.rsplit_once(':') {
            Some((host, port)) if is_port(&port) => {
                hosts.push(host);
                ports.push(port);
            }
            _ => hosts.push(place),
        }
    }
    let hosts: Vec<&str> =
        hosts.into_iter().filter(|host| !host.is_empty() && !host.starts_with('-')).collect();
    let with_ports = hosts.iter().flat_map(|host| ports.iter().map(move |port| format!("[{host}]:{port}")));
    hosts.iter().map(|host| (*host).to_owned()).chain(with_ports).take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use keyloan_protocol::ssh_agent::key::Material;

    #[test]
    fn names_of_hosts_are_found_in_the_command_lines_of_clients() {
        let found = |command: &str| candidates(&command.replace(' ', "\0"));
        assert!(found("ssh git@github.com git-receive-pack").contains(&"github.com".to_owned()));
        assert!(found("ssh -p 2222 host").contains(&"[host]:2222".to_owned()));
        assert!(found("ssh -p2222 me@host").contains(&"[host]:2222".to_owned()));
        assert!(found("ssh -oPort=22 host").contains(&"[host]:22".to_owned()));
        assert!(found("git ssh://git@host:2222/repo").contains(&"[host]:2222".to_owned()));
        assert!(found("sftp host:file").contains(&"host:file".to_owned()));
    }

    #[test]
    fn a_key_for_hosts_is_for_their_names_and_no_others() {
        let host = Host::KnownHosts(vec!["[git.example.org]:2222".to_owned()]);
        let among = |patterns: &[&str]| {
            host.is_among(&patterns.iter().map(|pattern| (*pattern).to_owned()).collect::<Vec<_>>())
        };
        assert!(
            among(&["git.example.org"]) && among(&["*.example.org"]) && among(&["[git.example.org]:2222"])
        );
        assert!(!among(&["example.org"]) && !among(&["[git.example.org]:22"]) && !among(&[]));
        assert!(!Host::Unnamed.is_among(&["*".to_owned()]));
    }

    #[test]
    fn a_name_that_was_shown_may_not_be_pinned_with_another_key() {
        let key = |byte| PublicKey::plain(&Material::Ed25519([byte; 32])).unwrap();
        let mut pins = Pins::default();
        pins.add("github.com", &key(1), false, "now").unwrap();
        pins.add("evil.example", &key(2), false, "now").unwrap();
        let shown = |names: &[&str]| Host::KnownHosts(names.iter().map(|&name| name.to_owned()).collect());
        let own = Host::Pinned(vec!["evil.example".to_owned()]);
        assert!(own.contradicts(&shown(&["github.com"]), &pins));
        // One name that is right is no excuse for another that is not.
        assert!(own.contradicts(&shown(&["github.com", "a.example", "evil.example"]), &pins));
        assert!(!own.contradicts(&shown(&["evil.example", "a.example"]), &pins));
        assert!(!own.contradicts(&shown(&["[evil.example]:2222"]), &pins), "at whatever port");
        assert!(Host::Unnamed.contradicts(&shown(&["[github.com]:22"]), &pins));
        assert!(!own.contradicts(&Host::Unnamed, &pins));
        assert!(own.contradicts(&shown(&["a.example"]), &pins), "it has another name");
        assert!(!shown(&["a.example"]).contradicts(&shown(&["a.example"]), &pins));
    }
}
