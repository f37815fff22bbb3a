//! Names that a person gave to host keys. The list is sealed in the vault, so what it says was said by a person and
//! may be called verified.

use super::{certificate_at, key_of_line, line_of_key};
use keyloan_protocol::ssh_agent::key::PublicKey;
use serde::{Deserialize, Serialize};
use std::net::Ipv6Addr;

const VERSION: u32 = 1;
/// A host has a key of each type, and there are many hosts; more is no list that a person made.
const MOST: usize = 1024;
/// RFC 1035 section 2.3.4.
const LONGEST: usize = 253;

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Pins {
    version: u32,
    entries: Vec<Pin>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Pin {
    /// As `known_hosts` would write it.
    pub(crate) name: String,
    /// Type and base64.
    pub(crate) key: String,
    /// The key is an authority's, which certifies the host's.
    pub(crate) authority: bool,
    /// RFC 3339.
    pub(crate) since: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PinError {
    #[error("it is no name of a host: give `host`, `[host]:port` or an address")]
    Name,
    #[error("a certificate cannot be pinned: pin the key of its authority")]
    Certificate,
    #[error("a certificate names no port: pin its authority for the host alone")]
    AuthorityWithPort,
    #[error("{MOST} keys are pinned already")]
    Full,
}

impl Default for Pins {
    fn default() -> Self {
        Self { version: VERSION, entries: Vec::new() }
    }
}

impl Pins {
    /// `None` for what this version would not have written: it could only be believed by guessing.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let pins: Self = serde_json::from_slice(bytes).ok()?;
        let in_order =
            |pin: &Pin| host_name(&pin.name).as_ref() == Some(&pin.name) && pin.public_key().is_some();
        let right =
            pins.version == VERSION && pins.entries.len() <= MOST && pins.entries.iter().all(in_order);
        right.then_some(pins)
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    pub(crate) fn entries(&self) -> &[Pin] {
        &self.entries
    }

    /// Says under which name. A key that is pinned under it already stays as it is.
    pub(crate) fn add(
        &mut self,
        name: &str,
        key: &PublicKey,
        authority: bool,
        since: &str,
    ) -> Result<String, PinError> {
        let name = host_name(name).ok_or(PinError::Name)?;
        if key.certificate().is_some() {
            return Err(PinError::Certificate);
        }
        if authority && name.starts_with('[') {
            return Err(PinError::AuthorityWithPort);
        }
        let key = line_of_key(key);
        if self.entries.iter().any(|pin| pin.name == name && pin.key == key && pin.authority == authority) {
            return Ok(name);
        }
        if self.entries.len() >= MOST {
            return Err(PinError::Full);
        }
        self.entries.push(Pin { name: name.clone(), key, authority, since: since.to_owned() });
        Ok(name)
    }

    /// Removes every key of that name; whether there was one.
    pub(crate) fn remove(&mut self, name: &str) -> bool {
        let Some(name) = host_name(name) else { return false };
        let before = self.entries.len();
        self.entries.retain(|pin| pin.name != name);
        self.entries.len() < before
    }

    /// Whether the person pinned that name, at whatever port: its keys are known then, and what else calls another key
    /// by it is not believed.
    pub(crate) fn holds(&self, name: &str) -> bool {
        self.entries.iter().any(|pin| without_port(&pin.name).eq_ignore_ascii_case(without_port(name)))
    }

    /// The names that the person gave to a host key, or to the authority that certified it for that name. The key in
    /// a certificate is a host's own key too: it signed the bind.
    pub(crate) fn names_of(&self, host_key: &PublicKey, now: u64) -> Vec<&str> {
        let own = line_of_key(host_key);
        let certified = certificate_at(host_key, now);
        let certified =
            certified.map(|certificate| (line_of_key(&certificate.authority), &certificate.principals));
        let is_named = |pin: &&Pin| match &certified {
            Some((authority, principals)) if pin.authority => {
                pin.key == *authority && principals.contains(&pin.name)
            }
            _ => !pin.authority && pin.key == own,
        };
        let mut names: Vec<&str> = Vec::new();
        for pin in self.entries.iter().filter(is_named) {
            if !names.contains(&pin.name.as_str()) {
                names.push(&pin.name);
            }
        }
        names
    }
}

/// A name without the port that `known_hosts` writes behind it.
pub(crate) fn without_port(name: &str) -> &str {
    let host = name.strip_prefix('[').and_then(|rest| rest.rsplit_once("]:"));
    host.map_or(name, |(host, _)| host)
}

impl Pin {
    pub(crate) fn public_key(&self) -> Option<PublicKey> {
        let (key_type, base64) = self.key.split_once(' ')?;
        key_of_line(key_type.as_bytes(), base64.as_bytes())
    }
}

/// The one form of a name: lower case, and a port only where that is not 22. Nothing that could be read as a pattern,
/// as an option, or as two names.
pub(crate) fn host_name(text: &str) -> Option<String> {
    let text = text.to_ascii_lowercase();
    let Some(bracketed) = text.strip_prefix('[') else { return is_host(&text).then_some(text) };
    let (host, port) = bracketed.rsplit_once("]:")?;
    let number: u16 = port.parse().ok()?;
    match number {
        _ if !is_host(host) || number.to_string() != port => None,
        0 => None,
        22 => Some(host.to_owned()),
        _ => Some(text),
    }
}

fn is_host(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    let is_name = text.len() <= LONGEST && text.split('.').all(label);
    is_name || (!text.contains('.') && text.parse::<Ipv6Addr>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{CERTIFIED, Certified, Noise, key};
    use super::*;

    const SINCE: &str = "2026-01-02T03:04:05.678Z";

    fn pinned(pins: &[(&str, u8, bool)]) -> Pins {
        let mut list = Pins::default();
        for (name, number, authority) in pins {
            list.add(name, &key(*number), *authority, SINCE).unwrap();
        }
        Pins::read(&list.bytes()).unwrap()
    }

    #[test]
    fn a_name_is_held_at_every_port() {
        let mut pins = Pins::default();
        pins.add("git.example.org", &key(1), false, "").unwrap();
        pins.add("[build.example.org]:2222", &key(2), false, "").unwrap();
        pins.add("::1", &key(3), false, "").unwrap();
        for name in
            ["git.example.org", "[git.example.org]:2222", "GIT.example.org", "build.example.org", "[::1]:22"]
        {
            assert!(pins.holds(name), "{name}");
        }
        for name in ["example.org", "git.example.org.evil", "", "::"] {
            assert!(!pins.holds(name), "{name}");
        }
    }

    #[test]
    fn a_name_has_one_form_and_no_wildcards() {
        for (text, name) in [
            ("GitHub.com", Some("github.com")),
            ("192.0.2.7", Some("192.0.2.7")),
            ("2001:DB8::1", Some("2001:db8::1")),
            ("[Host]:2222", Some("[host]:2222")),
            ("[host]:22", Some("host")),
            ("[2001:db8::1]:2222", Some("[2001:db8::1]:2222")),
            ("build_01", Some("build_01")),
            ("", None),
            ("-oProxyCommand=x", None),
            ("a.-b", None),
            ("*.example", None),
            ("a?", None),
            ("!a", None),
            ("a,b", None),
            ("a b", None),
            ("a\nb", None),
            ("a..b", None),
            ("a.", None),
            ("b\u{fc}cher.example", None),
            ("host:2222", None),
            ("[host]", None),
            ("[host]:0", None),
            ("[host]:022", None),
            ("[host]:65536", None),
            ("[host]:+22", None),
            ("[]:2222", None),
            ("[[host]:1]:2", None),
        ] {
            assert_eq!(host_name(text).as_deref(), name, "{text}");
        }
        assert_eq!(host_name(&["a"; 127].join(".")).map(|name| name.len()), Some(253));
        assert_eq!(host_name(&["a"; 128].join(".")), None);
        assert_eq!(host_name(&"a".repeat(64)), None);
    }

    #[test]
    fn a_key_has_the_names_that_it_was_pinned_under() {
        let mut pins = pinned(&[("A.example", 1, false), ("a.example", 2, false), ("[b]:2222", 1, false)]);
        assert_eq!(pins.names_of(&key(1), 0), ["a.example", "[b]:2222"]);
        assert_eq!(pins.names_of(&key(2), 0), ["a.example"]);
        assert_eq!(pins.names_of(&key(3), 0), [""; 0]);
        assert_eq!(pins.names_of(&CERTIFIED.make(), 0), ["a.example", "[b]:2222"], "it has the same key");
        assert!(pins.remove("a.EXAMPLE") && !pins.remove("a.example") && !pins.remove("*"));
        assert_eq!(pins.names_of(&key(1), 0), ["[b]:2222"]);
        assert_eq!(pins.names_of(&key(2), 0), [""; 0]);
    }

    #[test]
    fn an_authority_names_only_the_hosts_that_it_was_pinned_for() {
        let pins = pinned(&[("a.example", 2, true), ("b.example", 2, true), ("c.example", 3, true)]);
        let names = |certified: Certified<'_>| pins.names_of(&certified.make(), 150);
        assert_eq!(names(CERTIFIED), ["a.example"]);
        assert_eq!(names(Certified { principals: &["b.example", "a.example"], ..CERTIFIED }).len(), 2);
        for certified in [
            Certified { principals: &[], ..CERTIFIED },
            Certified { principals: &["*"], ..CERTIFIED },
            Certified { principals: &["c.example"], ..CERTIFIED },
            Certified { authority: 9, ..CERTIFIED },
            Certified { kind: 1, ..CERTIFIED },
            Certified { valid: (151, 200), ..CERTIFIED },
            Certified { valid: (100, 150), ..CERTIFIED },
            Certified { critical: &["later"], ..CERTIFIED },
        ] {
            assert_eq!(names(certified), [""; 0]);
        }
        assert_eq!(pins.names_of(&key(2), 150), [""; 0], "an authority is no host");
    }

    #[test]
    fn what_cannot_be_pinned_is_refused() {
        let mut pins = Pins::default();
        assert_eq!(pins.add("*", &key(1), false, SINCE), Err(PinError::Name));
        assert_eq!(pins.add("a", &CERTIFIED.make(), false, SINCE), Err(PinError::Certificate));
        assert_eq!(pins.add("[a]:2", &key(1), true, SINCE), Err(PinError::AuthorityWithPort));
        for number in 0..MOST {
            pins.add(&format!("h{number}"), &key(1), false, SINCE).unwrap();
        }
        assert_eq!(pins.add("h0", &key(1), false, SINCE), Ok("h0".to_owned()));
        assert_eq!(pins.add("h0", &key(2), false, SINCE), Err(PinError::Full));
        assert_eq!(pins.entries().len(), MOST);
        assert!(Pins::read(&pins.bytes()).is_some());
    }

    #[test]
    fn a_list_that_this_version_would_not_have_written_is_refused() {
        let right = String::from_utf8(pinned(&[("a.example", 1, true)]).bytes()).unwrap();
        assert!(Pins::read(right.as_bytes()).is_some());
        for (old, new) in [
            (r#""version":1"#, r#""version":2"#),
            ("a.example", "A.example"),
            ("a.example", "*.example"),
            ("ssh-ed25519 ", "ssh-rsa "),
            ("AAAA", "AAAB"),
            (r#""authority":true"#, r#""authority":1"#),
            (r#""authority":true,"#, ""),
            (r#""authority""#, r#""later":1,"authority""#),
        ] {
            assert!(right.contains(old), "{old}");
            assert!(Pins::read(right.replace(old, new).as_bytes()).is_none(), "{new}");
        }
        let mut noise = Noise(3);
        for _ in 0..20_000 {
            let mut bytes = right.clone().into_bytes();
            let at = noise.below(bytes.len());
            bytes[at] = noise.next().to_le_bytes()[0];
            bytes.truncate(noise.below(2 * bytes.len()));
            if let Some(pins) = Pins::read(&bytes) {
                assert!(pins.entries().iter().all(|pin| host_name(&pin.name).is_some()));
            }
        }
    }
}
