//! What the samples of a family are.

use model::{CounterResetHint, FloatHistogram, MetricType};

/// What the samples of a family are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Untyped,
    Counter,
    Gauge,
    /// Floats that make up a classic histogram.
    ClassicHistogram,
    /// Floats that make up a summary.
    Summary,
    Histogram,
    GaugeHistogram,
}

impl Kind {
    /// What a sample is, by its histogram if it is one, and by what is known of its metric.
    pub(super) fn of(histogram: Option<&FloatHistogram>, known: MetricType) -> Self {
        match (histogram, known) {
            (Some(h), _) if h.counter_reset_hint == CounterResetHint::Gauge => Self::GaugeHistogram,
            (Some(_), _) => Self::Histogram,
            (None, MetricType::Counter) => Self::Counter,
            (None, MetricType::Gauge | MetricType::Info | MetricType::StateSet) => Self::Gauge,
            (None, MetricType::Histogram) => Self::ClassicHistogram,
            (None, MetricType::Summary) => Self::Summary,
            (None, MetricType::GaugeHistogram | MetricType::Unknown) => Self::Untyped,
        }
    }

    /// Says whether a family of this kind goes on with a sample.
    pub(super) fn takes(self, histogram: Option<&FloatHistogram>) -> bool {
        match histogram {
            Some(_) => self == Self::of(histogram, MetricType::Unknown),
            None => !matches!(self, Self::Histogram | Self::GaugeHistogram),
        }
    }

    /// The name that a family of floats shares with others in text.
    pub(super) fn family_name(self, name: &str) -> &str {
        let suffixes: &[&str] = match self {
            Self::ClassicHistogram => &["_bucket", "_count", "_sum"],
            Self::Summary => &["_count", "_sum"],
            _ => &[],
        };
        suffixes.iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name)
    }
}
