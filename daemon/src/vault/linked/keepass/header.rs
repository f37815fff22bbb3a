//! The outer header of a database, looked at before the crate is: nothing of it is authentic until a key was derived as
//! it says, and it could say that this takes all the memory and time there is, or next to none.
//!
//! KDBX 4: two signatures, a version, then fields of a type (1 byte), a length (4, little-endian) and data; type 0 is the
//! last, 11 the parameters of the key derivation, a dictionary of its own. KDBX 3 has lengths of 2 bytes and rounds in a
//! field of their own. What stands there twice is refused, so that what was looked at is what the crate goes by.

use super::super::Fault;
use std::collections::BTreeMap;
use std::fmt;

const SIGNATURES: [u8; 8] = [0x03, 0xd9, 0xa2, 0x9a, 0x67, 0xfb, 0x4b, 0xb5];
const END: u8 = 0;
const ROUNDS: u8 = 6;
const DERIVATION: u8 = 11;

/// Of the dictionary's values.
const NUMBER_32: u8 = 0x04;
const NUMBER_64: u8 = 0x05;
const BYTES: u8 = 0x42;

/// KeePass's numbers of derivations; that with AES has had two.
const KINDS: [([u8; 16], &str); 4] = [
    (*b"\xc9\xd9\xf3\x9a\x62\x8a\x44\x60\xbf\x74\x0d\x08\xc1\x8a\x4f\xea", AES),
    (*b"\x7c\x02\xbb\x82\x79\xa7\x4a\xc0\x92\x7d\x11\x4a\x00\x64\x82\x38", AES),
    (*b"\xef\x63\x6d\xdf\x8c\x29\x44\x4b\x91\xf7\xa9\xa4\x03\xe3\x0a\x0c", "argon2d"),
    (*b"\x9e\x29\x8b\x19\x56\xdb\x47\x73\xb2\x3d\xfc\x3e\xc6\xf0\xa1\xe6", "argon2id"),
];
const AES: &str = "aes";

/// What KeePassXC lets people choose goes a little further; nobody does.
pub(super) const MEMORY: u64 = 1024 * 1024 * 1024;
const AES_ROUNDS: u64 = 200_000_000;
const LANES: u64 = 16;
/// Memory, as often as it is gone through.
const FILLED: u64 = 8 * MEMORY;

/// Whether it can be written as well as read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    Three,
    Four,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) version: Version,
    pub(super) derivation: Derivation,
}

/// What it costs to try a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Derivation {
    kind: &'static str,
    /// 0 where it takes none.
    memory: u64,
    /// Rounds, or bytes that are filled in all.
    work: u64,
}

impl Derivation {
    pub(super) fn is_as_dear_as(&self, other: &Self) -> bool {
        self.kind == other.kind && self.memory >= other.memory && self.work >= other.work
    }

    /// From what `Display` gives.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let kind = words.next()?;
        let (_, kind) = KINDS.into_iter().find(|(_, known)| *known == kind)?;
        Some(Self { kind, memory: words.next()?.parse().ok()?, work: words.next()?.parse().ok()? })
    }

    fn bounded(self) -> Result<Self, Fault> {
        let most = if self.kind == AES { AES_ROUNDS } else { FILLED };
        if self.memory <= MEMORY && self.work <= most {
            return Ok(self);
        }
        let cause = "its file says that its key takes more memory or time to derive than keyloan lets it";
        Err(Fault::Refused(cause.to_owned()))
    }
}

impl fmt::Display for Derivation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {} {}", self.kind, self.memory, self.work)
    }
}

pub(super) fn check(bytes: &[u8]) -> Result<Header, Fault> {
    let foreign = || Fault::Broken("it is no KeePass database that keyloan knows (KDBX 3 or 4)".to_owned());
    let (version, derivation) = read(bytes).ok_or_else(foreign)?;
    Ok(Header { version, derivation: derivation.bounded()? })
}

fn read(bytes: &[u8]) -> Option<(Version, Derivation)> {
    let rest = bytes.strip_prefix(&SIGNATURES)?;
    let (version, mut rest) = rest.split_at_checked(4)?;
    let (version, width) = match version {
        [_, _, 3, 0] => (Version::Three, 2),
        [_, _, 4, 0] => (Version::Four, 4),
        _ => return None,
    };
    let mut derivation = None;
    loop {
        let (kind, after) = rest.split_first()?;
        let (data, after) = counted(after, width)?;
        let found = match *kind {
            END => return Some((version, derivation?)),
            ROUNDS if version == Version::Three => {
                Some(Derivation { kind: AES, memory: 0, work: number(data, 8)? })
            }
            DERIVATION if version == Version::Four => Some(dictionary(data)?),
            _ => None,
        };
        if found.is_some() && derivation.is_some() {
            return None;
        }
        derivation = derivation.or(found);
        rest = after;
    }
}

fn counted(bytes: &[u8], width: usize) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_at_checked(width)?;
    rest.split_at_checked(usize::try_from(number(length, width)?).ok()?)
}

fn number(bytes: &[u8], width: usize) -> Option<u64> {
    let number = || bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte));
    (bytes.len() == width).then(number)
}

/// The dictionary: a version, then a type, a name and a value each; type 0 is the last.
fn dictionary(bytes: &[u8]) -> Option<Derivation> {
    let mut values = BTreeMap::new();
    let mut rest = bytes.get(2..)?;
    loop {
        let (kind, after) = rest.split_first()?;
        if *kind == END {
            break;
        }
        let (name, after) = counted(after, 4)?;
        let (value, after) = counted(after, 4)?;
        if values.insert(name, (*kind, value)).is_some() {
            return None;
        }
        rest = after;
    }
    let of = |name: &[u8], wanted: u8| {
        values.get(name).filter(|(kind, _)| *kind == wanted).map(|(_, value)| *value)
    };
    let uuid = of(b"$UUID", BYTES)?;
    let (_, kind) = KINDS.into_iter().find(|(known, _)| known == uuid)?;
    if kind == AES {
        return Some(Derivation { kind, memory: 0, work: number(of(b"R", NUMBER_64)?, 8)? });
    }
    let memory = number(of(b"M", NUMBER_64)?, 8)?;
    let passes = number(of(b"I", NUMBER_64)?, 8)?;
    let lanes = number(of(b"P", NUMBER_32)?, 4)?;
    // Each lane is a thread.
    let work = if lanes <= LANES { memory.saturating_mul(passes) } else { u64::MAX };
    Some(Derivation { kind, memory, work })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(kind: u8, name: &[u8], value: &[u8]) -> Vec<u8> {
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap().to_le_bytes();
        [&[kind][..], &length(name), name, &length(value), value].concat()
    }

    fn field(kind: u8, data: &[u8]) -> Vec<u8> {
        [&[kind][..], &u32::try_from(data.len()).unwrap().to_le_bytes(), data].concat()
    }

    fn argon2(memory: u64, passes: u64, lanes: u32) -> Vec<u8> {
        let entries = [
            entry(BYTES, b"$UUID", &KINDS[2].0),
            entry(NUMBER_64, b"M", &memory.to_le_bytes()),
            entry(NUMBER_64, b"I", &passes.to_le_bytes()),
            entry(NUMBER_32, b"P", &lanes.to_le_bytes()),
        ];
        field(DERIVATION, &[&[0, 1][..], &entries.concat(), &[END]].concat())
    }

    fn four(fields: &[u8]) -> Vec<u8> {
        [&SIGNATURES, &[0, 0, 4, 0][..], fields, &field(END, b"")].concat()
    }

    #[test]
    fn a_database_does_not_say_how_much_memory_and_time_is_taken() {
        let refused = |memory, passes, lanes| {
            matches!(check(&four(&argon2(memory, passes, lanes))), Err(Fault::Refused(_)))
        };
        assert!(!refused(64 << 20, 20, 4) && !refused(1 << 30, 8, 16));
        assert!(refused(64 << 30, 1, 1) && refused(1 << 30, 9, 1) && refused(1 << 20, 1 << 60, 1));
        assert!(refused(1 << 20, 1, 17));
    }

    #[test]
    fn what_is_cut_foreign_or_there_twice_is_told_apart_before_a_key_is_derived() {
        let whole = four(&argon2(1 << 20, 1, 1));
        assert!(check(&whole).is_ok());
        for length in 0..whole.len() {
            assert!(check(&whole[..length]).is_err(), "{length}");
        }
        assert!(check(b"-----BEGIN PGP MESSAGE-----").is_err());
        assert!(check(&four(b"")).is_err());
        assert!(check(&four(&[argon2(1 << 20, 9, 1), argon2(1 << 20, 1, 1)].concat())).is_err());
        let rounds = |rounds: u64| entry(NUMBER_64, b"R", &rounds.to_le_bytes());
        let uuid = entry(BYTES, b"$UUID", &KINDS[0].0);
        let dictionary = |entries: &[Vec<u8>]| {
            four(&field(DERIVATION, &[&[0, 1][..], &entries.concat(), &[END]].concat()))
        };
        assert!(check(&dictionary(&[uuid.clone(), rounds(9)])).is_ok());
        assert!(check(&dictionary(&[uuid.clone(), rounds(9), rounds(1)])).is_err());
        assert!(check(&dictionary(&[uuid, entry(NUMBER_64, b"R", b"\x09")])).is_err());
    }

    #[test]
    fn a_derivation_is_as_dear_only_as_one_of_its_kind() {
        let of = |text: &str| Derivation::parse(text).unwrap();
        let linked = of("argon2d 1048576 9000000");
        assert_eq!(of(&linked.to_string()), linked);
        for (other, is) in [
            ("argon2d 1048576 9000000", true),
            ("argon2d 2097152 9000001", true),
            ("argon2d 1048575 99000000", false),
            ("argon2d 1048576 8999999", false),
            ("argon2id 1048576 9000000", false),
            ("aes 0 9000000000", false),
        ] {
            assert_eq!(of(other).is_as_dear_as(&linked), is, "{other}");
        }
    }
}
