//! Values that stand in config files.

use std::fmt;
use std::time::Duration;

use model::size::{Bytes, parse_bytes};
use model::time::{PrometheusDuration, parse_duration};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

/// A duration as Prometheus writes it: `15s`, `1h30m`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConfigDuration(pub Duration);

impl ConfigDuration {
    /// Makes a duration of whole seconds.
    #[must_use]
    pub const fn from_secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// Whole milliseconds.
    #[must_use]
    pub fn millis(self) -> i64 {
        i64::try_from(self.0.as_millis()).unwrap_or(i64::MAX)
    }
}

impl fmt::Debug for ConfigDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", PrometheusDuration(self.0))
    }
}

impl<'de> Deserialize<'de> for ConfigDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_duration(&text).map(Self).map_err(D::Error::custom)
    }
}

/// A size as Prometheus writes it, in units of base 2: `512MB`, `1GiB`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConfigBytes(pub u64);

impl std::str::FromStr for ConfigBytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bytes = parse_bytes(text)?;
        u64::try_from(bytes).map(Self).map_err(|_| format!("{text} is below 0"))
    }
}

impl fmt::Display for ConfigBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Bytes(i64::try_from(self.0).unwrap_or(i64::MAX)))
    }
}

impl fmt::Debug for ConfigBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl<'de> Deserialize<'de> for ConfigBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_prometheus_ones() {
        let parse = |json: &str| serde_json::from_str::<ConfigDuration>(json).map_err(|e| e.to_string());
        assert_eq!(parse(r#""1m30s""#), Ok(ConfigDuration::from_secs(90)));
        assert_eq!(format!("{:?}", ConfigDuration::from_secs(90)), "1m30s");
        assert!(parse(r#""90""#).expect_err("no unit").starts_with(r#"not a valid duration string: "90""#));
    }

    #[test]
    fn sizes_are_prometheus_ones() {
        let parse = |json: &str| serde_json::from_str::<ConfigBytes>(json).map_err(|e| e.to_string());
        assert_eq!(parse(r#""1.5KB""#), Ok(ConfigBytes(1_536)));
        assert_eq!(format!("{:?} {0}", ConfigBytes(1 << 30)), "1GiB 1GiB");
        assert!(parse(r#""512""#).expect_err("no unit").starts_with("units: unknown unit  in 512"));
        assert!(parse(r#""-1MB""#).expect_err("negative").starts_with("-1MB is below 0"));
    }
}
