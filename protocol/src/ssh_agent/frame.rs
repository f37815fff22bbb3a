//! One frame: `u32 length of what follows | message`, big-endian (RFC 9987, "Protocol Messages"). The length is
//! checked before anything of that size is allocated, and the same cap holds for what is sent.

use super::wire::{self, Writer};
use crate::limits;
use zeroize::Zeroizing;

/// The length that opens a frame.
pub const PREFIX: usize = 4;

/// A frame that cannot be read. Where it ends is unknown, so the connection ends too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("a message of {announced} bytes; at most {} are taken", limits::SSH_MESSAGE)]
    TooLong { announced: usize },
    #[error("a message without a type")]
    Empty,
}

/// Reads the first four bytes of a frame: how many follow.
pub fn length(prefix: [u8; PREFIX]) -> Result<usize, FrameError> {
    let announced = usize::try_from(u32::from_be_bytes(prefix)).unwrap_or(usize::MAX);
    checked(announced)
}

fn checked(announced: usize) -> Result<usize, FrameError> {
    match announced {
        0 => Err(FrameError::Empty),
        _ if announced > limits::SSH_MESSAGE => Err(FrameError::TooLong { announced }),
        _ => Ok(announced),
    }
}

/// A whole frame around what `write` writes.
pub(super) fn encode(write: impl Fn(&mut Writer)) -> Result<Zeroizing<Vec<u8>>, FrameError> {
    checked(wire::length(&write))?;
    Ok(wire::encode(|out| out.nested(&write)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gigabyte_is_refused_by_its_announcement() {
        assert_eq!(length([0x40, 0, 0, 0]), Err(FrameError::TooLong { announced: 1 << 30 }));
        assert_eq!(length([0, 4, 0, 1]), Err(FrameError::TooLong { announced: 256 * 1024 + 1 }));
        assert_eq!(length([0, 4, 0, 0]), Ok(256 * 1024));
        assert_eq!(length([0; 4]), Err(FrameError::Empty));
    }

    #[test]
    fn a_frame_beyond_the_cap_is_not_made() {
        let most = vec![0; limits::SSH_MESSAGE];
        assert_eq!(encode(|out| out.bytes(&most)).map(|frame| frame.len()), Ok(4 + limits::SSH_MESSAGE));
        let more = encode(|out| {
            out.u8(0);
            out.bytes(&most);
        });
        assert_eq!(more, Err(FrameError::TooLong { announced: limits::SSH_MESSAGE + 1 }));
    }
}
