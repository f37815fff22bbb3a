//! The only teller of time. Wall time is for people to read; what runs out is measured on the clock that
//! goes on during suspend.

use std::time::Duration;

/// Now, as RFC 3339 in UTC with milliseconds.
pub(crate) fn now() -> String {
    format!("{:.3}", timestamp())
}

/// Seconds since 1970.
pub(crate) fn unix_seconds() -> u64 {
    timestamp().as_second().try_into().unwrap_or(0)
}

/// A time in seconds since 1970, for people; `u64::MAX` is for ever, as in ssh certificates.
pub(crate) fn shown(seconds: u64) -> String {
    let time = i64::try_from(seconds).ok().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    time.map_or_else(|| "further notice".to_owned(), |time| time.to_string())
}

/// The day in UTC, `2026-11-21`.
pub(crate) fn today() -> String {
    day_after(0)
}

/// The day so many days from now.
pub(crate) fn day_after(days: i64) -> String {
    let day = timestamp().to_zoned(jiff::tz::TimeZone::UTC).date();
    day.saturating_add(jiff::Span::new().days(days)).to_string()
}

/// A day as people write it, if there is such a day.
pub(crate) fn day(text: &str) -> Option<String> {
    let day: jiff::civil::Date = text.parse().ok()?;
    (day.to_string() == text).then(|| text.to_owned())
}

#[expect(clippy::disallowed_methods, reason = "this is the clock")]
fn timestamp() -> jiff::Timestamp {
    jiff::Timestamp::try_from(std::time::SystemTime::now()).unwrap_or_default()
}

/// Time since boot, suspend included, `CLOCK_BOOTTIME` of `clock_gettime`(2).
pub(crate) fn since_boot() -> Duration {
    #[cfg(target_os = "linux")]
    let clock = nix::time::ClockId::CLOCK_BOOTTIME;
    #[cfg(not(target_os = "linux"))]
    let clock = nix::time::ClockId::CLOCK_MONOTONIC;
    nix::time::clock_gettime(clock).map_or(Duration::ZERO, Duration::from)
}
