//! What a metric is: its type, unit and help text.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The type of a metric, as the exposition formats name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum MetricType {
    /// Nothing is known (`untyped` in the classic text format).
    #[default]
    Unknown,
    /// Only goes up, but for resets.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counted observations in buckets.
    Histogram,
    /// Buckets of a current distribution.
    GaugeHistogram,
    /// Precomputed quantiles.
    Summary,
    /// Facts as labels.
    Info,
    /// A set of booleans.
    StateSet,
}

impl MetricType {
    /// Returns the name that OpenMetrics and the HTTP API use.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::GaugeHistogram => "gaugehistogram",
            Self::Summary => "summary",
            Self::Info => "info",
            Self::StateSet => "stateset",
        }
    }

    /// Says whether a series of this name is one of those that a family of this type consists of.
    #[must_use]
    pub fn is_part(self, metric: &str, family: &str) -> bool {
        if self == Self::Counter {
            // OpenMetrics names the family without `_total`, the text format with it.
            let stem = |name| str::strip_suffix(name, "_total").unwrap_or(name);
            return stem(metric) == stem(family);
        }
        let suffixes: &[&str] = match self {
            Self::Histogram => &["_bucket", "_sum", "_count"],
            Self::GaugeHistogram => &["_bucket", "_gsum", "_gcount"],
            Self::Summary => &["_sum", "_count"],
            Self::Info => &["_info"],
            _ => &[],
        };
        metric.strip_prefix(family).is_some_and(|suffix| suffix.is_empty() || suffixes.contains(&suffix))
    }
}

impl fmt::Display for MetricType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for MetricType {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Ok(match text {
            "unknown" | "untyped" => Self::Unknown,
            "counter" => Self::Counter,
            "gauge" => Self::Gauge,
            "histogram" => Self::Histogram,
            "gaugehistogram" => Self::GaugeHistogram,
            "summary" => Self::Summary,
            "info" => Self::Info,
            "stateset" => Self::StateSet,
            _ => return Err(()),
        })
    }
}

/// Type, unit and help of one metric.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Metadata {
    /// The type.
    pub kind: MetricType,
    /// The unit, or empty.
    pub unit: Arc<str>,
    /// The help text, or empty.
    pub help: Arc<str>,
}
