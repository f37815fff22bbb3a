//! The rules: what needs which approval. Pure: no I/O, no clock.
//!
//! `rule` is what a policy can say, `parse` its text, `decide` the judgement.

pub(crate) mod decide;
pub(crate) mod parse;
pub(crate) mod rule;
