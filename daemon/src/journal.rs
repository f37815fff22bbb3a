//! What the daemon says of itself: to the service manager's journal where its standard error goes there, and
//! otherwise to nobody, since whoever started it reads the end of its standard error as "it listens". Never what
//! is asked for or lent; that is in the log.

use keyloan_platform::service;
use std::io::Write as _;
use std::sync::OnceLock;

static IS_THERE: OnceLock<bool> = OnceLock::new();

/// How grave it is, `sd-daemon`(3).
#[derive(Clone, Copy)]
pub(crate) enum Level {
    Error = 3,
    Warning = 4,
    Info = 6,
}

pub(crate) fn is_there() -> bool {
    *IS_THERE.get_or_init(service::logs_to_the_journal)
}

pub(crate) fn say(level: Level, text: &str) {
    if is_there() {
        write(&format!("<{}>{text}", level as u8));
    }
}

/// A line on standard error, whoever reads it. That nobody does any more is no reason to end.
pub(crate) fn write(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
