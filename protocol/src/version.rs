//! The version of the control protocol. A change that an older peer would misread raises it.

/// The one version this build speaks (see `docs/protocol.md`).
pub const CONTROL: u32 = 1;
