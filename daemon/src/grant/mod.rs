//! Yeses that cover further requests. Pure: time is passed in.

pub(crate) mod table;
pub(crate) mod uses;
