//! Time: millisecond instants, Prometheus durations, and the clock as a value.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

/// Milliseconds since the Unix epoch, negative before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// The earliest instant.
    pub const MIN: Self = Self(i64::MIN);
    /// The latest instant.
    pub const MAX: Self = Self(i64::MAX);

    /// Milliseconds since the epoch.
    #[must_use]
    pub const fn millis(self) -> i64 {
        self.0
    }

    /// Seconds since the epoch.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "PromQL's time is a float")]
    pub fn seconds(self) -> f64 {
        self.0 as f64 / 1000.0
    }

    /// Adds milliseconds, staying within the range.
    #[must_use]
    pub const fn add_ms(self, ms: i64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Returns `self - earlier` in milliseconds, staying within the range.
    #[must_use]
    pub const fn since_ms(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Tells the time; a value that constructors take, so that tests hand in their own.
#[derive(Debug, Clone, Default)]
pub enum Clock {
    /// The machine's clock.
    #[default]
    System,
    /// A clock that tests move; milliseconds since the epoch.
    Fixed(Arc<AtomicI64>),
}

impl Clock {
    /// Makes a clock that stands still until [`Clock::set`] moves it.
    #[must_use]
    pub fn fixed(now: Timestamp) -> Self {
        Self::Fixed(Arc::new(AtomicI64::new(now.0)))
    }

    /// Returns the present instant.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the clock that others take")]
    pub fn now(&self) -> Timestamp {
        match self {
            Self::Fixed(ms) => Timestamp(ms.load(Ordering::Acquire)),
            Self::System => {
                let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
                Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
            }
        }
    }

    /// Moves a fixed clock; does nothing to the machine's.
    pub fn set(&self, now: Timestamp) {
        if let Self::Fixed(ms) = self {
            ms.store(now.0, Ordering::Release);
        }
    }
}

/// A text that is not a Prometheus duration, with Prometheus's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// Nothing there.
    #[error("empty duration string")]
    Empty,
    /// Not of the form `1h30m`.
    #[error("not a valid duration string: {}", crate::number::Quoted(.0))]
    Syntax(String),
    /// A unit that is none: the unit and the whole text.
    #[error("unknown unit {} in duration {}", crate::number::Quoted(.0), crate::number::Quoted(.1))]
    Unit(String, String),
    /// More than 292 years.
    #[error("duration out of range")]
    OutOfRange,
}

const UNITS: [(&str, u64); 7] = [
    ("y", 365 * 24 * 3_600_000),
    ("w", 7 * 24 * 3_600_000),
    ("d", 24 * 3_600_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// Parses `1h30m`, `0`, `15s`: units largest first, each at most once.
///
/// # Errors
/// In Prometheus's words, see [`DurationError`].
pub fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    match text {
        "" => return Err(DurationError::Empty),
        "0" => return Ok(Duration::ZERO),
        _ => {}
    }
    let syntax = || DurationError::Syntax(text.to_owned());
    let mut rest = text;
    let mut next_unit = 0;
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let unit_len = rest[digits..].bytes().take_while(|b| !b.is_ascii_digit()).count();
        if digits == 0 || unit_len == 0 {
            return Err(syntax());
        }
        let unit = &rest[digits..digits + unit_len];
        let Some(index) = UNITS.iter().position(|(u, _)| *u == unit) else {
            return Err(DurationError::Unit(unit.to_owned(), text.to_owned()));
        };
        if index < next_unit {
            return Err(syntax());
        }
        let count: u64 = rest[..digits].parse().map_err(|_| DurationError::OutOfRange)?;
        total = count
            .checked_mul(UNITS[index].1)
            .and_then(|ms| total.checked_add(ms))
            .filter(|ms| *ms <= DURATION_MS_MAX)
            .ok_or(DurationError::OutOfRange)?;
        next_unit = index + 1;
        rest = &rest[digits + unit_len..];
    }
    Ok(Duration::from_millis(total))
}

/// The largest duration: Go's 64-bit nanoseconds.
const DURATION_MS_MAX: u64 = i64::MAX as u64 / 1_000_000;

/// Displays a duration as Prometheus does: `1h30m`, `1w`, `0s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PrometheusDuration(pub Duration);

impl fmt::Display for PrometheusDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        if rest == 0 {
            return f.write_str("0s");
        }
        // Years, weeks and days are used only where nothing is left over, so that 30d stays readable.
        for (unit, ms) in UNITS {
            let is_exact_only = matches!(unit, "y" | "w" | "d");
            if rest < ms || (is_exact_only && rest % ms != 0) {
                continue;
            }
            write!(f, "{}{unit}", rest / ms)?;
            rest %= ms;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_parse_and_print_as_prometheus_does() {
        for (text, ms, printed) in [
            ("0", 0, "0s"),
            ("0w", 0, "0s"),
            ("0s", 0, "0s"),
            ("324ms", 324, "324ms"),
            ("3s", 3_000, "3s"),
            ("5m", 300_000, "5m"),
            ("1h", 3_600_000, "1h"),
            ("4d", 345_600_000, "4d"),
            ("4d1h", 349_200_000, "97h"),
            ("14d", 1_209_600_000, "2w"),
            ("3w", 1_814_400_000, "3w"),
            ("3w2d1h", 1_990_800_000, "553h"),
            ("10y", 315_360_000_000, "10y"),
            ("1m30s", 90_000, "1m30s"),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)), "{text}");
            assert_eq!(PrometheusDuration(Duration::from_millis(ms)).to_string(), printed);
        }
        for bad in ["1", "1y1m1d", "-1w", "d", "5m5m", "1s1h", "é"] {
            assert_eq!(parse_duration(bad), Err(DurationError::Syntax(bad.to_owned())), "{bad}");
        }
        for (bad, unit) in [("1.5d", "."), ("1ns", "ns"), ("5x", "x"), ("1h5é", "é")] {
            let error = DurationError::Unit(unit.to_owned(), bad.to_owned());
            assert_eq!(parse_duration(bad), Err(error), "{bad}");
        }
        assert_eq!(
            parse_duration("5x").expect_err("no unit").to_string(),
            r#"unknown unit "x" in duration "5x""#
        );
        assert_eq!(parse_duration(""), Err(DurationError::Empty));
        assert_eq!(parse_duration("294y"), Err(DurationError::OutOfRange));
        assert_eq!(parse_duration("99999999999999999999s"), Err(DurationError::OutOfRange));
        assert_eq!(DurationError::Syntax("1".into()).to_string(), r#"not a valid duration string: "1""#);
    }
}
