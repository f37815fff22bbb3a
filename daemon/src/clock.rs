//! The only teller of time. Wall time is for people to read; what runs out is measured on the clock that
//! goes on during suspend.

use std::pin::pin;
use std::time::Duration;
use tokio::time::sleep;

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

/// The time is up.
#[derive(Debug)]
pub(crate) struct Over;

/// A limit for what people are waited for. Timers of the event loop stand still during suspend: a question would stand
/// for the rest of its minute in the hands of whoever wakes the machine. So they only say when to look at this clock.
pub(crate) async fn timeout<T>(limit: Duration, waited_for: impl Future<Output = T>) -> Result<T, Over> {
    timeout_by(since_boot, limit, waited_for).await
}

async fn timeout_by<T>(
    now: impl Fn() -> Duration,
    limit: Duration,
    waited_for: impl Future<Output = T>,
) -> Result<T, Over> {
    const LOOK: Duration = Duration::from_secs(1);
    let end = now().saturating_add(limit);
    let mut waited_for = pin!(waited_for);
    loop {
        let left = end.saturating_sub(now());
        tokio::select! {
            biased;
            () = sleep(left.min(LOOK)) => if now() >= end { return Err(Over) },
            // An answer that comes right after a suspend, before the timer has fired, is late all the same.
            done = &mut waited_for => return if now() >= end { Err(Over) } else { Ok(done) },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::future::{pending, ready};

    /// A clock that jumps ahead by a minute at its third look, as during suspend.
    fn jumping() -> impl Fn() -> Duration {
        let looks = Cell::new(0);
        move || {
            looks.set(looks.get() + 1);
            Duration::from_secs(if looks.get() < 3 { 100 } else { 160 })
        }
    }

    #[tokio::test]
    async fn a_deadline_passes_during_suspend() {
        let minute = Duration::from_secs(60);
        let bounded = |waiting| tokio::time::timeout(Duration::from_secs(20), waiting);
        let over = bounded(timeout_by(jumping(), minute, pending::<()>())).await;
        assert!(matches!(over, Ok(Err(Over))), "it ends long before a minute of the event loop");
        assert!(timeout_by(jumping(), minute, ready(())).await.is_err(), "an answer after it is none");
        assert!(timeout_by(since_boot, minute, ready(())).await.is_ok());
    }
}
