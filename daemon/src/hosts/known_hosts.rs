//! `known_hosts` (sshd(8), its section on the format), read for its keys. Any program of the user can write it:
//! what it says is a hint. A line that is not understood, or whose names could not be shown, names nothing.

use super::pattern::{self, Listed};
use super::{certificate_at, key_of_line};
use data_encoding::BASE64;
use hmac::{Hmac, Mac};
use keyloan_protocol::ssh_agent::key::PublicKey;
use sha1::Sha1;
use std::collections::{BTreeSet, HashMap};

/// A longer file is as one that is not there.
pub(super) const FILE: usize = 4 * 1024 * 1024;
const LINE: usize = 64 * 1024;
/// Names told of one key.
const NAMES: usize = 32;
/// A file made for it must not keep the daemon busy. So for one key only so many lines are looked through, with so many
/// bytes of names together, and so many texts are tried against each, none longer than a name can be.
const LISTS: usize = 256;
const LISTED: usize = 32 * 1024;
const CANDIDATES: usize = 16;
const PORTS: usize = 4;
const LONGEST: usize = 260;

#[derive(Default)]
pub(crate) struct KnownHosts {
    /// By the blob of the plain key.
    keys: HashMap<Vec<u8>, Entries>,
}

#[derive(Default)]
struct Entries {
    /// Whatever the names beside it: a key that got lost is lost everywhere.
    revoked: bool,
    hosts: Vec<Hosts>,
    /// Hosts that the key may certify.
    certifies: Vec<Hosts>,
}

enum Hosts {
    /// A comma list of patterns.
    List(String),
    /// HMAC-SHA1 of one name under the salt.
    Hashed { salt: [u8; 20], hash: [u8; 20] },
}

/// What is known of a host key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Naming {
    Unknown,
    /// At least one.
    Named(Vec<Name>),
    /// The key is known under a name that cannot be read.
    Hashed,
    /// It, or the authority that certified it, is one that nobody may use any more.
    Revoked,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Name {
    /// Visible ASCII: `github.com`, `[host]:2222`.
    pub(crate) text: String,
    pub(crate) kind: NameKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NameKind {
    /// The name of one host.
    Host,
    /// The same, by a certificate.
    Certified,
    /// A pattern: one of the hosts that it matches, and nobody can say which.
    Pattern,
}

impl Naming {
    /// What two files say together.
    pub(crate) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Revoked, _) | (_, Self::Revoked) => Self::Revoked,
            (Self::Named(mut names), Self::Named(more)) => {
                for name in more {
                    add(&mut names, name);
                }
                Self::Named(names)
            }
            (named @ Self::Named(_), _) | (_, named @ Self::Named(_)) => named,
            (Self::Hashed, _) | (_, Self::Hashed) => Self::Hashed,
            (Self::Unknown, Self::Unknown) => Self::Unknown,
        }
    }
}

fn add(names: &mut Vec<Name>, name: Name) {
    if names.len() < NAMES && !names.contains(&name) {
        names.push(name);
    }
}

impl KnownHosts {
    pub(crate) fn parse(bytes: &[u8]) -> Self {
        let mut known = Self::default();
        if bytes.len() > FILE {
            return known;
        }
        for line in bytes.split(|byte| *byte == b'\n').filter(|line| line.len() <= LINE) {
            known.read(line);
        }
        known
    }

    /// Nothing of a line that is not understood is kept.
    fn read(&mut self, line: &[u8]) -> Option<()> {
        let line = line.trim_ascii_end();
        let mut fields = line.split(|byte| matches!(byte, b' ' | b'\t')).filter(|field| !field.is_empty());
        let first = fields.next()?;
        let marker = first.starts_with(b"@").then_some(first);
        let names = if marker.is_some() { fields.next()? } else { first };
        // A NUL would end the line for programs in C, which would read something else than this.
        if names.starts_with(b"#") || names.starts_with(b"@") || line.contains(&0) {
            return None;
        }
        let key = key_of_line(fields.next()?, fields.next()?)?;
        let hosts = Hosts::read(names);
        let entries = self.keys.entry(key.blob().to_vec()).or_default();
        match marker {
            None => entries.hosts.push(hosts?),
            Some(b"@cert-authority") => entries.certifies.push(hosts?),
            Some(b"@revoked") => entries.revoked = true,
            Some(_) => {}
        }
        Some(())
    }

    /// The keys that ssh would take for a host of that name; none that is revoked, and none of an authority.
    pub(crate) fn keys_of(&self, host: &str) -> Vec<PublicKey> {
        let is_for = |entries: &Entries| {
            !entries.revoked && entries.hosts.iter().take(LISTS).any(|hosts| hosts.is_for(host))
        };
        let held = self.keys.iter().filter(|(_, entries)| is_for(entries));
        held.filter_map(|(blob, _)| PublicKey::parse(blob).ok()).collect()
    }

    /// What the file says of a host key, plain or in a certificate. Hashed names are found only among the candidates:
    /// `host`, `host:port` or `[host]:port`.
    pub(crate) fn names_of(&self, host_key: &PublicKey, candidates: &[&str], now: u64) -> Naming {
        let own = self.keys.get(&host_key.plain_blob());
        let certificate = host_key.certificate();
        let authority = certificate.and_then(|certificate| self.keys.get(certificate.authority.blob()));
        if own.into_iter().chain(authority).any(|entries| entries.revoked) {
            return Naming::Revoked;
        }
        let mut names = Vec::new();
        if let (Some(authority), Some(certificate)) = (authority, certificate_at(host_key, now)) {
            for hosts in bounded(&authority.certifies) {
                for principal in certificate.principals.iter().take(CANDIDATES) {
                    hosts.certified(principal, &mut names);
                }
            }
        }
        // As ssh: a certificate that nobody vouches for is still a plain key.
        let candidates: Vec<String> =
            candidates.iter().take(CANDIDATES).filter_map(|text| forms(text)).collect();
        let own = || own.into_iter().flat_map(|entries| bounded(&entries.hosts));
        let mut unreadable = false;
        // The candidates first: one of them is likely the host that is meant, and a key may have many names.
        for hosts in own() {
            unreadable |= matches!(hosts, Hosts::Hashed { .. });
            for candidate in candidates.iter().filter(|candidate| hosts.is_for(candidate)) {
                add(&mut names, Name { text: candidate.clone(), kind: NameKind::Host });
            }
        }
        own().for_each(|hosts| hosts.named(&mut names));
        match (names.is_empty(), unreadable) {
            (false, _) => Naming::Named(names),
            (true, true) => Naming::Hashed,
            (true, false) => Naming::Unknown,
        }
    }
}

/// The first of them that are not too much.
fn bounded(lists: &[Hosts]) -> impl Iterator<Item = &Hosts> {
    lists.iter().take(LISTS).scan(0_usize, |length, hosts| {
        let Hosts::List(list) = hosts else { return Some(hosts) };
        *length = length.saturating_add(list.len());
        (*length <= LISTED).then_some(hosts)
    })
}

impl Hosts {
    fn read(names: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(names).ok().filter(|text| is_visible(text))?;
        let Some(hashed) = text.strip_prefix('|') else { return Some(Self::List(text.to_owned())) };
        let (salt, hash) = hashed.strip_prefix("1|")?.split_once('|')?;
        let bytes = |text: &str| BASE64.decode(text.as_bytes()).ok()?.try_into().ok();
        Some(Self::Hashed { salt: bytes(salt)?, hash: bytes(hash)? })
    }

    /// Whether ssh, on its way to that host, would take the entry.
    fn is_for(&self, host: &str) -> bool {
        match self {
            Self::List(list) => pattern::host_in_list(host, list) == Listed::Yes,
            Self::Hashed { salt, hash } => {
                let Ok(mut mac) = Hmac::<Sha1>::new_from_slice(salt) else { return false };
                mac.update(host.as_bytes());
                mac.verify_slice(hash).is_ok()
            }
        }
    }

    /// The names of the entry.
    fn named(&self, names: &mut Vec<Name>) {
        let Self::List(list) = self else { return };
        let is_name = |one: &&str| !one.starts_with('!') && (1..=LONGEST).contains(&one.len());
        for one in list.split(',').filter(is_name).take(NAMES) {
            let text = one.to_ascii_lowercase();
            if pattern::is_wild(&text) {
                add(names, Name { text, kind: NameKind::Pattern });
            } else if self.is_for(&text) {
                add(names, Name { text, kind: NameKind::Host });
            }
        }
    }

    /// A principal of a certificate that the entry lets its key certify. ssh compares principals as they are and
    /// without a port; one with wildcards matches no host there.
    fn certified(&self, principal: &str, names: &mut Vec<Name>) {
        if !is_visible(principal) || pattern::is_wild(principal) || principal.len() > LONGEST {
            return;
        }
        let mut told = |text: String| {
            if self.is_for(&text) {
                add(names, Name { text, kind: NameKind::Certified });
            }
        };
        told(principal.to_owned());
        if let Self::List(list) = self {
            let port_of = |one: &str| Some(with_port(one.strip_prefix('[')?, "]:")?.1);
            let ports: BTreeSet<u16> = list.split(',').filter_map(port_of).collect();
            for port in ports.into_iter().take(PORTS) {
                told(format!("[{principal}]:{port}"));
            }
        }
    }
}

fn is_visible(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// What stands before the port, and the port.
fn with_port<'a>(text: &'a str, between: &str) -> Option<(&'a str, u16)> {
    let (host, port) = text.rsplit_once(between)?;
    let port = port.parse().ok().filter(|number: &u16| *number > 0 && number.to_string() == port)?;
    Some((host, port))
}

/// A candidate as `known_hosts` writes it: with a port only where that is not 22, and then in brackets.
fn forms(candidate: &str) -> Option<String> {
    let text = candidate.to_ascii_lowercase();
    if !is_visible(&text) || text.len() > LONGEST {
        return None;
    }
    let bracketed = text.strip_prefix('[').and_then(|text| with_port(text, "]:"));
    // Several colons without brackets are an IPv6 address.
    let plain = || with_port(&text, ":").filter(|(host, _)| !host.contains(':') && !host.is_empty());
    Some(match bracketed.or_else(plain) {
        None => text,
        Some((host, 22)) => host.to_owned(),
        Some((host, port)) => format!("[{host}]:{port}"),
    })
}

#[cfg(test)]
mod tests;
