//! One frame: `u32 length of what follows | u32 header length | JSON header | tail`, big-endian.
//! The header is parsed as JSON; the tail never is, so no parser touches a secret.

use crate::limits;
use zeroize::Zeroizing;

/// The two lengths that open a frame.
pub const PREFIX: usize = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("a frame announces {announced} bytes; at most {} are taken", limits::FRAME)]
    TooLong { announced: usize },
    #[error("a header announces {announced} bytes; at most {} are taken", limits::HEADER)]
    HeaderTooLong { announced: usize },
    #[error("a frame is shorter than the header it announces")]
    HeaderBeyondFrame,
    #[error("{announced} values in one frame; at most {} are taken", limits::VALUES)]
    TooManyValues { announced: usize },
    #[error("the values named in a header do not add up to the bytes that follow it")]
    ValuesDisagree,
    #[error("the header of a frame is not what the protocol says: {0}")]
    Header(HeaderFault),
}

/// What is wrong with a header, without repeating any of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderFault {
    #[error("not JSON")]
    NotJson,
    #[error("unknown request, or a field of the wrong kind")]
    Unknown,
    #[error("protocol version {0}")]
    Version(u32),
}

/// The lengths announced by a prefix that passed every cap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lengths {
    pub header: usize,
    pub tail: usize,
}

/// Reads the first eight bytes of a frame.
pub fn lengths(prefix: [u8; PREFIX]) -> Result<Lengths, FrameError> {
    let (following, header) = prefix.split_at(4);
    let following = length(following);
    let header = length(header);
    if following > limits::FRAME {
        return Err(FrameError::TooLong { announced: following });
    }
    if header > limits::HEADER {
        return Err(FrameError::HeaderTooLong { announced: header });
    }
    let tail = following
        .checked_sub(4)
        .and_then(|rest| rest.checked_sub(header))
        .ok_or(FrameError::HeaderBeyondFrame)?;
    Ok(Lengths { header, tail })
}

fn length(bytes: &[u8]) -> usize {
    let length = bytes.try_into().map_or(u32::MAX, u32::from_be_bytes);
    usize::try_from(length).unwrap_or(usize::MAX)
}

/// Puts a frame together. The buffer is made once at its full size, so that no half-built copy of a
/// secret is left behind by growth.
pub fn encode(header: &[u8], values: &[&[u8]]) -> Result<Zeroizing<Vec<u8>>, FrameError> {
    if values.len() > limits::VALUES {
        return Err(FrameError::TooManyValues { announced: values.len() });
    }
    if header.len() > limits::HEADER {
        return Err(FrameError::HeaderTooLong { announced: header.len() });
    }
    let tail = values.iter().fold(0_usize, |sum, value| sum.saturating_add(value.len()));
    let following = header.len().saturating_add(tail).saturating_add(4);
    let too_long = FrameError::TooLong { announced: following };
    if following > limits::FRAME {
        return Err(too_long);
    }
    let mut frame = Zeroizing::new(Vec::with_capacity(following.saturating_add(4)));
    frame.extend_from_slice(&u32::try_from(following).map_err(|_| too_long)?.to_be_bytes());
    frame.extend_from_slice(&u32::try_from(header.len()).map_err(|_| too_long)?.to_be_bytes());
    frame.extend_from_slice(header);
    for value in values {
        frame.extend_from_slice(value);
    }
    Ok(frame)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(following: u32, header: u32) -> [u8; PREFIX] {
        let mut bytes = [0; PREFIX];
        bytes[..4].copy_from_slice(&following.to_be_bytes());
        bytes[4..].copy_from_slice(&header.to_be_bytes());
        bytes
    }

    #[test]
    fn what_is_encoded_announces_its_own_lengths() {
        let frame = encode(b"{}", &[b"ab", b"", b"c"]).unwrap();
        let lengths = lengths(frame[..PREFIX].try_into().unwrap()).unwrap();
        assert_eq!(lengths, Lengths { header: 2, tail: 3 });
        assert_eq!(&frame[PREFIX..], b"{}abc");
    }

    #[test]
    fn lying_lengths_are_refused() {
        assert_eq!(lengths(prefix(0, 0)), Err(FrameError::HeaderBeyondFrame));
        assert_eq!(lengths(prefix(3, 0)), Err(FrameError::HeaderBeyondFrame));
        assert_eq!(lengths(prefix(5, 2)), Err(FrameError::HeaderBeyondFrame));
        assert_eq!(lengths(prefix(u32::MAX, 1)), Err(FrameError::TooLong { announced: 0xffff_ffff }));
        assert_eq!(lengths(prefix(8, u32::MAX)), Err(FrameError::HeaderTooLong { announced: 0xffff_ffff }));
        assert_eq!(lengths(prefix(4, 0)), Ok(Lengths { header: 0, tail: 0 }));
    }

    #[test]
    fn a_frame_beyond_the_caps_is_not_made() {
        let megabyte = vec![0; 1024 * 1024];
        let nine: Vec<&[u8]> = std::iter::repeat_n(megabyte.as_slice(), 9).collect();
        assert!(matches!(encode(b"{}", &nine), Err(FrameError::TooLong { .. })));
        let many: Vec<&[u8]> = std::iter::repeat_n(b"".as_slice(), 1025).collect();
        assert!(matches!(encode(b"{}", &many), Err(FrameError::TooManyValues { announced: 1025 })));
    }
}
