//! Pages for keys: unreadable through `/proc`, never swapped, never dumped, where the kernel can.
#![expect(unsafe_code, reason = "a mapping is reached through its address")]

use crate::sys;
use std::io;
use std::ptr::NonNull;
use zeroize::Zeroize;

const SLOT: usize = 128;
const SLOTS: usize = 32;

/// How well the pages are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protection {
    /// `memfd_secret`(2): outside the kernel's own map, unreadable through ptrace and `/proc`.
    Secret,
    /// `mlock`(2): not swapped, not dumped.
    Locked,
    /// Neither was to be had; the owner says so in `status`.
    Plain,
}

impl Protection {
    pub fn describe(self) -> &'static str {
        match self {
            Self::Secret => "memfd_secret",
            Self::Locked => "locked memory",
            Self::Plain => "ordinary memory (could be swapped out)",
        }
    }
}

/// A fixed number of slots of at most 128 bytes, wiped when their owner goes.
pub struct KeyPages {
    mapping: NonNull<u8>,
    used: Vec<usize>,
    protection: Protection,
}

/// A key's place in [`KeyPages`].
#[derive(Clone, Copy)]
pub struct Slot(usize);

impl KeyPages {
    pub fn new() -> io::Result<Self> {
        let (mapping, protection) = sys::map_locked(SLOT * SLOTS)?;
        Ok(Self { mapping, used: Vec::with_capacity(SLOTS), protection })
    }

    pub fn protection(&self) -> Protection {
        self.protection
    }

    /// Copies a key in. Fails when it is longer than a slot or no slot is left.
    pub fn store(&mut self, key: &[u8]) -> io::Result<Slot> {
        if key.len() > SLOT || self.used.len() == SLOTS {
            return Err(io::Error::new(io::ErrorKind::OutOfMemory, "no place for a key of this length"));
        }
        let slot = self.used.len();
        self.used.push(key.len());
        self.slot_mut(slot)[..key.len()].copy_from_slice(key);
        Ok(Slot(slot))
    }

    pub fn expose(&self, slot: Slot) -> &[u8] {
        // SAFETY: `slot` came from `store`, so the range lies within the mapping, which lives as long as
        // `self`; it is written only through `&mut self`.
        unsafe { std::slice::from_raw_parts(self.mapping.as_ptr().add(slot.0 * SLOT), self.used[slot.0]) }
    }

    fn slot_mut(&mut self, slot: usize) -> &mut [u8] {
        // SAFETY: `slot` is below SLOTS, so the range lies within the mapping, which `self` alone owns.
        unsafe { std::slice::from_raw_parts_mut(self.mapping.as_ptr().add(slot * SLOT), SLOT) }
    }
}

impl Drop for KeyPages {
    fn drop(&mut self) {
        for slot in 0..SLOTS {
            self.slot_mut(slot).zeroize();
        }
        sys::unmap(self.mapping, SLOT * SLOTS);
    }
}

/// Has the system take large freed pieces back at once. glibc otherwise keeps more with each piece that it has
/// given back once (`mallopt`(3), the dynamic threshold), and a daemon that writes an index now and then would stay
/// as large as in that moment.
pub fn give_back_what_is_freed() {
    sys::give_back_what_is_freed();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_back_and_too_many_or_too_long_ones_are_refused() {
        let mut pages = KeyPages::new().unwrap();
        let first = pages.store(b"first").unwrap();
        let second = pages.store(&[7; SLOT]).unwrap();
        assert_eq!(pages.expose(first), b"first");
        assert_eq!(pages.expose(second), [7; SLOT]);
        assert!(pages.store(&[0; SLOT + 1]).is_err());
        for _ in 2..SLOTS {
            pages.store(b"").unwrap();
        }
        assert!(pages.store(b"").is_err());
    }
}
