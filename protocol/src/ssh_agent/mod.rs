//! The ssh-agent protocol (RFC 9987, with OpenSSH's extensions) as types and bytes.
//!
//! Nothing is taken that would not be written again as the same bytes, except what the standards leave open: the
//! order of constraints, and what true is. No signature is verified here and nothing is computed with a key.

pub mod algorithm;
pub mod certificate;
pub mod constraint;
pub mod frame;
pub mod key;
pub mod message;
pub mod private_key;
pub mod session_bind;
pub mod signature;
pub mod to_be_signed;
pub mod wire;

#[cfg(test)]
mod vectors;
