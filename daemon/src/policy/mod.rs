//! The rules: what needs which approval. Pure: no I/O, no clock.
//!
//! `rule` is what a policy can say, `parse` and `print` its text, `decide` the judgement, `compare` one rule against another,
//! `order` who is asked first.

pub(crate) mod compare;
pub(crate) mod decide;
pub(crate) mod order;
pub(crate) mod parse;
pub(crate) mod print;
pub(crate) mod rule;
