//! One file a subcommand, or a family of them.

pub(crate) mod approve;
pub(crate) mod complete;
pub(crate) mod copies;
pub(crate) mod daemon;
pub(crate) mod grants;
pub(crate) mod item;
pub(crate) mod keeper;
pub(crate) mod loans;
pub(crate) mod log;
pub(crate) mod man;
pub(crate) mod policy;
pub(crate) mod recipient;
pub(crate) mod run;
pub(crate) mod shell;
pub(crate) mod ssh;
pub(crate) mod status;
pub(crate) mod trust;
pub(crate) mod vault;
