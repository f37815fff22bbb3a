//! The outer header of a database, looked at before the crate is: nothing of it is authentic until a key was derived as
//! it says, and it could say that this takes all the memory and time there is.
//!
//! KDBX 4: two signatures, a version, then fields of a type (1 byte), a length (4, little-endian) and data; type 0 is the
//! last, 11 the parameters of the key derivation, a dictionary of its own. KDBX 3 has lengths of 2 bytes and rounds in a
//! field of their own.

use super::super::Fault;

const SIGNATURES: [u8; 8] = [0x03, 0xd9, 0xa2, 0x9a, 0x67, 0xfb, 0x4b, 0xb5];
const END: u8 = 0;
const ROUNDS: u8 = 6;
const DERIVATION: u8 = 11;

/// What KeePassXC lets people choose goes a little further; nobody does.
const MEMORY: u64 = 1024 * 1024 * 1024;
const PASSES: u64 = 1000;
const AES_ROUNDS: u64 = 200_000_000;
const LANES: u64 = 64;

/// Whether it can be written as well as read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    Three,
    Four,
}

pub(super) fn check(bytes: &[u8]) -> Result<Version, Fault> {
    let foreign = || Fault::Broken("it is no KeePass database that keyloan knows (KDBX 3 or 4)".to_owned());
    let rest = bytes.strip_prefix(&SIGNATURES).ok_or_else(foreign)?;
    let (version, rest) = rest.split_at_checked(4).ok_or_else(foreign)?;
    let (version, width) = match version {
        [_, _, 3, 0] => (Version::Three, 2),
        [_, _, 4, 0] => (Version::Four, 4),
        _ => return Err(foreign()),
    };
    let mut rest = rest;
    loop {
        let (kind, after) = rest.split_first().ok_or_else(foreign)?;
        let (data, after) = counted(after, width).ok_or_else(foreign)?;
        match *kind {
            END => return Ok(version),
            ROUNDS if version == Version::Three => within(number(data), AES_ROUNDS)?,
            DERIVATION if version == Version::Four => derivation(data).ok_or_else(foreign)??,
            _ => {}
        }
        rest = after;
    }
}

fn counted(bytes: &[u8], width: usize) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_at_checked(width)?;
    rest.split_at_checked(usize::try_from(number(length)).ok()?)
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().take(8).rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// The dictionary: a version, then a type, a name and a value each; type 0 is the last.
fn derivation(bytes: &[u8]) -> Option<Result<(), Fault>> {
    let mut rest = bytes.get(2..)?;
    loop {
        let (kind, after) = rest.split_first()?;
        if *kind == END {
            return Some(Ok(()));
        }
        let (name, after) = counted(after, 4)?;
        let (value, after) = counted(after, 4)?;
        let most = match name {
            b"M" => MEMORY,
            b"I" => PASSES,
            b"R" => AES_ROUNDS,
            b"P" => LANES,
            _ => u64::MAX,
        };
        if most != u64::MAX
            && let Err(fault) = within(number(value), most)
        {
            return Some(Err(fault));
        }
        rest = after;
    }
}

fn within(found: u64, most: u64) -> Result<(), Fault> {
    if found <= most {
        return Ok(());
    }
    let cause = "its file says that its key takes more memory or time to derive than keyloan lets it";
    Err(Fault::Refused(cause.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn four(memory: u64) -> Vec<u8> {
        let mut dictionary = vec![0, 1];
        dictionary.extend([5, 1, 0, 0, 0, b'M', 8, 0, 0, 0]);
        dictionary.extend(memory.to_le_bytes());
        dictionary.push(0);
        let mut bytes = SIGNATURES.to_vec();
        bytes.extend([0, 0, 4, 0, DERIVATION]);
        bytes.extend(u32::try_from(dictionary.len()).unwrap().to_le_bytes());
        bytes.extend(dictionary);
        bytes.extend([END, 0, 0, 0, 0]);
        bytes
    }

    #[test]
    fn a_database_does_not_say_how_much_memory_is_taken() {
        assert_eq!(check(&four(64 << 20)), Ok(Version::Four));
        assert!(matches!(check(&four(64 << 30)), Err(Fault::Refused(_))));
    }

    #[test]
    fn what_is_cut_or_foreign_is_told_apart_before_a_key_is_derived() {
        let whole = four(1 << 20);
        for length in 0..whole.len() {
            assert!(check(&whole[..length]).is_err(), "{length}");
        }
        assert!(check(b"-----BEGIN PGP MESSAGE-----").is_err());
    }
}
