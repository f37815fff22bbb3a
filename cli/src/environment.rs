//! The only reader of this process's environment, besides `platform::paths`.

use keyloan_protocol::control::request::DESKTOP;
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

/// What says where windows can be opened, by the names of the protocol. Without XAUTHORITY, X programs look
/// into the home directory; what the daemon starts has none.
#[expect(clippy::disallowed_methods, reason = "this is the one loader")]
pub(crate) fn desktop() -> impl Iterator<Item = (&'static str, OsString)> {
    let at_home = || Some(keyloan_platform::paths::home()?.join(".Xauthority")).filter(|path| path.exists());
    DESKTOP.into_iter().filter_map(move |(name, variable)| {
        let value = std::env::var_os(variable).filter(|value| !value.is_empty());
        Some((name, value.or_else(|| (name == "xauthority").then(at_home)?.map(OsString::from))?))
    })
}

/// The shell that a person's lines are for.
#[expect(clippy::disallowed_methods, reason = "this is the one loader")]
pub(crate) fn shell() -> Option<OsString> {
    std::env::var_os("SHELL")
}

/// That shell, if it is one that keyloan has functions for, and the option with which it runs a line as if it had been
/// typed, its aliases known.
pub(crate) fn known_shell() -> Option<(&'static str, &'static str)> {
    let shell = shell()?;
    match std::path::Path::new(&shell).file_name()?.to_str()? {
        "bash" => Some(("bash", "-ic")),
        "zsh" => Some(("zsh", "-ic")),
        "fish" => Some(("fish", "-c")),
        _ => None,
    }
}

/// The process that `ssh-agent -k` ends.
#[expect(clippy::disallowed_methods, reason = "this is the one loader")]
pub(crate) fn agent_pid() -> Option<OsString> {
    std::env::var_os("SSH_AGENT_PID")
}
