//! What a key may be used for, as whoever adds it says (RFC 9987, "Key Constraints"; PROTOCOL.agent section 2).
//! A constraint that is not understood is an error: a key must never be freer than its owner asked for. Where
//! OpenSSH refuses a repeated one, so does this.

use super::key::PublicKey;
use super::wire::{Malformed, Reader, Writer};
use crate::limits;

const LIFETIME: u8 = 1;
const CONFIRM: u8 = 2;
const EXTENSION: u8 = 255;
const RESTRICT_DESTINATION: &str = "restrict-destination-v00@openssh.com";
const ASSOCIATED_CERTIFICATES: &str = "associated-certs-v00@openssh.com";
const SK_PROVIDER: &str = "sk-provider@openssh.com";

/// The constraints of one key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Constraints {
    /// Seconds after which the key is forgotten.
    pub lifetime: Option<u32>,
    /// Every use is confirmed.
    pub confirm: bool,
    /// The library that speaks to a security key, or `internal`. Only for keys of security keys.
    pub sk_provider: Option<String>,
    /// Where the key may be used; never empty. Without it, everywhere.
    pub destinations: Option<Vec<Destination>>,
    /// Only for the keys of a token.
    pub certificates: Option<AssociatedCertificates>,
}

/// One hop that is allowed: from a host, or from where the agent is, to a user at a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// Absent: the host that the agent runs on.
    pub from: Option<Host>,
    /// Absent: any user.
    pub user: Option<String>,
    pub to: Host,
}

/// A host under the name that the person gave it; what counts is the keys, of which there is at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    pub name: String,
    pub keys: Vec<HostKey>,
}

/// A plain key: the host's own, or that of an authority which certifies the host's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostKey {
    pub key: PublicKey,
    pub is_authority: bool,
}

/// Certificates for keys of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssociatedCertificates {
    /// Only the certificates are offered, not the plain keys.
    pub only: bool,
    pub certificates: Vec<PublicKey>,
}

/// What the constraints are for; OpenSSH takes some for one kind only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Subject {
    Key { is_sk: bool },
    Token,
}

impl Constraints {
    /// Reads all that is left of a message: at least one, or what the client asked for got lost.
    pub(super) fn read(reader: &mut Reader<'_>, subject: Subject) -> Result<Self, Malformed> {
        let mut constraints = Self::default();
        if reader.is_empty() {
            return Err(Malformed::Empty);
        }
        while !reader.is_empty() {
            match reader.u8()? {
                LIFETIME => set(&mut constraints.lifetime, reader.u32()?)?,
                CONFIRM if constraints.confirm => return Err(Malformed::RepeatedConstraint),
                CONFIRM => constraints.confirm = true,
                EXTENSION => constraints.read_extension(reader, subject)?,
                _ => return Err(Malformed::Constraint),
            }
        }
        Ok(constraints)
    }

    fn read_extension(&mut self, reader: &mut Reader<'_>, subject: Subject) -> Result<(), Malformed> {
        match (reader.text()?, subject) {
            (RESTRICT_DESTINATION, _) => set(&mut self.destinations, destinations(reader.nested()?)?),
            (SK_PROVIDER, Subject::Key { is_sk: true }) => {
                set(&mut self.sk_provider, reader.text()?.to_owned())
            }
            (ASSOCIATED_CERTIFICATES, Subject::Token) => {
                let only = reader.boolean()?;
                let certificates = certificates(reader.nested()?)?;
                set(&mut self.certificates, AssociatedCertificates { only, certificates })
            }
            _ => Err(Malformed::Constraint),
        }
    }

    /// In the order in which OpenSSH writes them.
    pub(super) fn write(&self, out: &mut Writer) {
        if let Some(seconds) = self.lifetime {
            out.u8(LIFETIME);
            out.u32(seconds);
        }
        if self.confirm {
            out.u8(CONFIRM);
        }
        if let Some(provider) = &self.sk_provider {
            out.u8(EXTENSION);
            out.text(SK_PROVIDER);
            out.text(provider);
        }
        if let Some(destinations) = &self.destinations {
            out.u8(EXTENSION);
            out.text(RESTRICT_DESTINATION);
            out.nested(|out| destinations.iter().for_each(|destination| destination.write(out)));
        }
        if let Some(associated) = &self.certificates {
            out.u8(EXTENSION);
            out.text(ASSOCIATED_CERTIFICATES);
            out.boolean(associated.only);
            out.nested(|out| associated.certificates.iter().for_each(|key| out.string(key.blob())));
        }
    }
}

fn set<T>(place: &mut Option<T>, value: T) -> Result<(), Malformed> {
    match place.replace(value) {
        Some(_) => Err(Malformed::RepeatedConstraint),
        None => Ok(()),
    }
}

/// An empty list would read as "nowhere" to a person and is "everywhere" to OpenSSH: refused.
fn destinations(mut list: Reader<'_>) -> Result<Vec<Destination>, Malformed> {
    let mut destinations = Vec::new();
    while !list.is_empty() {
        if destinations.len() >= limits::SSH_DESTINATIONS {
            return Err(Malformed::TooMany);
        }
        destinations.push(Destination::read(list.nested()?)?);
    }
    if destinations.is_empty() { Err(Malformed::Destination) } else { Ok(destinations) }
}

fn certificates(mut list: Reader<'_>) -> Result<Vec<PublicKey>, Malformed> {
    let mut certificates = Vec::new();
    while !list.is_empty() {
        if certificates.len() >= limits::SSH_CERTIFICATES {
            return Err(Malformed::TooMany);
        }
        let key = PublicKey::parse(list.string()?)?;
        if key.certificate().is_none() {
            return Err(Malformed::Certificate);
        }
        certificates.push(key);
    }
    Ok(certificates)
}

impl Destination {
    /// `string from | string to | string reserved`, as OpenSSH's `parse_dest_constraint` reads it.
    fn read(mut reader: Reader<'_>) -> Result<Self, Malformed> {
        let (from_user, from_name, from_keys) = hop(reader.nested()?)?;
        let (user, name, keys) = hop(reader.nested()?)?;
        nothing_unknown(&mut reader)?;
        reader.end()?;
        let from = match (from_name.is_empty(), from_keys.is_empty()) {
            (true, true) => None,
            (false, false) => Some(Host { name: from_name.to_owned(), keys: from_keys }),
            _ => return Err(Malformed::Destination),
        };
        if !from_user.is_empty() || name.is_empty() || keys.is_empty() {
            return Err(Malformed::Destination);
        }
        let user = (!user.is_empty()).then(|| user.to_owned());
        Ok(Self { from, user, to: Host { name: name.to_owned(), keys } })
    }

    fn write(&self, out: &mut Writer) {
        let hop = |out: &mut Writer, user: &str, host: Option<&Host>| {
            out.nested(|out| {
                out.text(user);
                out.text(host.map_or("", |host| host.name.as_str()));
                out.string(b"");
                for host_key in host.iter().flat_map(|host| &host.keys) {
                    out.string(host_key.key.blob());
                    out.boolean(host_key.is_authority);
                }
            });
        };
        out.nested(|out| {
            hop(out, "", self.from.as_ref());
            hop(out, self.user.as_deref().unwrap_or_default(), Some(&self.to));
            out.string(b"");
        });
    }
}

/// `string user | string host | string reserved | (string key | bool is_ca)…`.
fn hop(mut reader: Reader<'_>) -> Result<(&str, &str, Vec<HostKey>), Malformed> {
    let (user, name) = (reader.text()?, reader.text()?);
    nothing_unknown(&mut reader)?;
    let mut keys = Vec::new();
    while !reader.is_empty() {
        let key = PublicKey::parse_plain(reader.string()?)?;
        keys.push(HostKey { key, is_authority: reader.boolean()? });
    }
    Ok((user, name, keys))
}

/// The place of restrictions yet to be invented: one that is not understood cannot be kept.
fn nothing_unknown(reader: &mut Reader<'_>) -> Result<(), Malformed> {
    if reader.string()?.is_empty() { Ok(()) } else { Err(Malformed::Constraint) }
}

#[cfg(test)]
mod tests {
    use super::super::key::Material;
    use super::super::wire;
    use super::*;

    const KEY: Subject = Subject::Key { is_sk: false };

    fn read(write: impl Fn(&mut Writer), subject: Subject) -> Result<Constraints, Malformed> {
        Constraints::read(&mut Reader::new(&wire::encode(write)), subject)
    }

    fn host(name: &str, keys: usize) -> Host {
        let key = PublicKey::plain(&Material::Ed25519([1; 32])).unwrap();
        let key = HostKey { key, is_authority: true };
        Host { name: name.to_owned(), keys: vec![key; keys] }
    }

    fn restrict(out: &mut Writer, destinations: &[Destination]) {
        let constraints = Constraints { destinations: Some(destinations.to_vec()), ..Constraints::default() };
        constraints.write(out);
    }

    #[test]
    fn a_constraint_that_is_not_understood_is_never_dropped() {
        let extension = |name| {
            move |out: &mut Writer| {
                out.u8(EXTENSION);
                out.text(name);
                out.text("anything");
            }
        };
        // 3 limits the signatures of XMSS keys, which are not supported.
        let maxsign = |out: &mut Writer| {
            out.u8(3);
            out.u32(1);
        };
        assert_eq!(read(maxsign, KEY), Err(Malformed::Constraint));
        assert_eq!(read(extension("later@example.com"), KEY), Err(Malformed::Constraint));
        assert_eq!(read(extension(SK_PROVIDER), KEY), Err(Malformed::Constraint));
        assert_eq!(read(extension(SK_PROVIDER), Subject::Token), Err(Malformed::Constraint));
        assert_eq!(read(extension(ASSOCIATED_CERTIFICATES), KEY), Err(Malformed::Constraint));
        assert!(read(extension(SK_PROVIDER), Subject::Key { is_sk: true }).is_ok());
        assert_eq!(read(|_| {}, KEY), Err(Malformed::Empty));
    }

    #[test]
    fn a_constraint_that_is_repeated_is_refused() {
        let destination = Destination { from: None, user: None, to: host("a", 1) };
        let all = Constraints {
            lifetime: Some(60),
            confirm: true,
            sk_provider: Some("internal".to_owned()),
            destinations: Some(vec![destination]),
            certificates: None,
        };
        let sk = Subject::Key { is_sk: true };
        assert_eq!(read(|out| all.write(out), sk), Ok(all.clone()));
        for again in [
            Constraints { lifetime: Some(0), ..Constraints::default() },
            Constraints { confirm: true, ..Constraints::default() },
            Constraints { sk_provider: all.sk_provider.clone(), ..Constraints::default() },
            Constraints { destinations: all.destinations.clone(), ..Constraints::default() },
        ] {
            let twice = |out: &mut Writer| {
                all.write(out);
                again.write(out);
            };
            assert_eq!(read(twice, sk), Err(Malformed::RepeatedConstraint));
        }
    }

    #[test]
    fn a_destination_has_a_host_with_keys_at_both_ends() {
        for (from, to, right) in [
            (None, host("b", 1), true),
            (Some(host("a", 2)), host("b", 3), true),
            (None, host("", 1), false),
            (None, host("b", 0), false),
            (Some(host("a", 0)), host("b", 1), false),
            (Some(host("", 1)), host("b", 1), false),
        ] {
            let destinations = vec![Destination { from, user: Some("root".to_owned()), to }];
            let constraints = read(|out| restrict(out, &destinations), KEY);
            let destinations = right.then_some(destinations).ok_or(Malformed::Destination);
            assert_eq!(constraints.map(|constraints| constraints.destinations.unwrap()), destinations);
        }
        let named = |out: &mut Writer, user: &str, reserved: &[u8]| {
            out.text(user);
            out.text("");
            out.string(reserved);
        };
        for (user, reserved, fault) in
            [("root", b"".as_slice(), Malformed::Destination), ("", b"later", Malformed::Constraint)]
        {
            let write = |out: &mut Writer| {
                out.u8(EXTENSION);
                out.text(RESTRICT_DESTINATION);
                out.nested(|out| {
                    out.nested(|out| {
                        out.nested(|out| named(out, user, reserved));
                        out.nested(|out| named(out, "", b""));
                        out.string(b"");
                    });
                });
            };
            assert_eq!(read(write, KEY), Err(fault));
        }
    }

    #[test]
    fn a_list_without_destinations_does_not_free_the_key() {
        assert_eq!(read(|out| restrict(out, &[]), KEY), Err(Malformed::Destination));
        let hop = Destination { from: None, user: None, to: host("a", 1) };
        assert!(read(|out| restrict(out, &vec![hop.clone(); 1024]), KEY).is_ok());
        assert_eq!(read(|out| restrict(out, &vec![hop.clone(); 1025]), KEY), Err(Malformed::TooMany));
    }
}
