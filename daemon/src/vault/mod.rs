//! The places that store items. One file or folder a vault; today there is the built-in one.

pub(crate) mod local;
