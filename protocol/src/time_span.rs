//! A length of time as people write it: a whole number with `s`, `m`, `h` or `d`.

use crate::limits;
use std::fmt;
use std::time::Duration;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a time is written 90s, 30m, 8h or 7d, and is at most ten years")]
pub struct TimeSpanError;

/// At least a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TimeSpan(Duration);

impl TimeSpan {
    pub fn parse(text: &str) -> Result<Self, TimeSpanError> {
        let unit = match text.chars().next_back() {
            Some('s') => 1,
            Some('m') => 60,
            Some('h') => 3600,
            Some('d') => 86400,
            _ => return Err(TimeSpanError),
        };
        let digits = text.strip_suffix(['s', 'm', 'h', 'd']).unwrap_or_default();
        let number: u64 = digits.parse().map_err(|_| TimeSpanError)?;
        let seconds = number.checked_mul(unit).ok_or(TimeSpanError)?;
        if seconds == 0 || seconds > limits::SECONDS {
            return Err(TimeSpanError);
        }
        Ok(Self(Duration::from_secs(seconds)))
    }

    /// Fractions of a second are dropped.
    pub fn of(duration: Duration) -> Self {
        Self(Duration::from_secs(duration.as_secs().max(1)))
    }

    pub fn duration(self) -> Duration {
        self.0
    }
}

impl fmt::Display for TimeSpan {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        for (unit, name) in [(86400, 'd'), (3600, 'h'), (60, 'm')] {
            if seconds.is_multiple_of(unit)
                && let Some(number) = seconds.checked_div(unit)
            {
                return write!(out, "{number}{name}");
            }
        }
        write!(out, "{seconds}s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_written_alike() {
        for (text, seconds) in [("90s", 90), ("30m", 1800), ("8h", 28800), ("7d", 604_800)] {
            let span = TimeSpan::parse(text).unwrap();
            assert_eq!((span.duration().as_secs(), span.to_string().as_str()), (seconds, text));
        }
        for text in ["", "8", "m", "0s", "-1m", "1.5h", "99999999999999999999d", "8 h", "8µ", "4000d"] {
            assert_eq!(TimeSpan::parse(text), Err(TimeSpanError), "{text}");
        }
    }
}
