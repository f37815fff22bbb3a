//! The only teller of time. Wall time is for people to read; what runs out is measured on the clock that
//! goes on during suspend.

use std::time::Duration;

/// Now, as RFC 3339 in UTC with milliseconds.
#[expect(clippy::disallowed_methods, reason = "this is the clock")]
pub(crate) fn now() -> String {
    let now = jiff::Timestamp::try_from(std::time::SystemTime::now()).unwrap_or_default();
    format!("{now:.3}")
}

/// Time since boot, suspend included, `CLOCK_BOOTTIME` of `clock_gettime`(2).
pub(crate) fn since_boot() -> Duration {
    #[cfg(target_os = "linux")]
    let clock = nix::time::ClockId::CLOCK_BOOTTIME;
    #[cfg(not(target_os = "linux"))]
    let clock = nix::time::ClockId::CLOCK_MONOTONIC;
    nix::time::clock_gettime(clock).map_or(Duration::ZERO, Duration::from)
}
