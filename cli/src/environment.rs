//! The only reader of this process's environment, besides `platform::paths`.

use std::ffi::OsString;

/// Every variable, to be handed on to the command.
#[expect(clippy::disallowed_methods, reason = "this is the one loader")]
pub(crate) fn all() -> impl Iterator<Item = (OsString, OsString)> {
    std::env::vars_os()
}

/// Where commands are looked for; without a PATH, where execvp(3) looks.
#[expect(clippy::disallowed_methods, reason = "this is the one loader")]
pub(crate) fn path() -> OsString {
    std::env::var_os("PATH").unwrap_or_else(|| "/bin:/usr/bin".into())
}
