//! What the `otlp` section of `prometheus.yml` says, and the bounds of a request.

use std::collections::BTreeSet;
use std::str::FromStr;
use std::time::Duration;

/// How names of metrics and labels are made from OTLP's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TranslationStrategy {
    /// Characters outside of the classic names become underscores; unit and type are appended.
    #[default]
    UnderscoreEscapingWithSuffixes,
    /// Characters outside of the classic names become underscores; nothing is appended.
    UnderscoreEscapingWithoutSuffixes,
    /// Names stay as they are; unit and type are appended.
    NoUtf8EscapingWithSuffixes,
    /// Names stay as they are.
    NoTranslation,
}

impl TranslationStrategy {
    /// Says whether names are made of classic characters only.
    #[must_use]
    pub const fn escapes(self) -> bool {
        matches!(self, Self::UnderscoreEscapingWithSuffixes | Self::UnderscoreEscapingWithoutSuffixes)
    }

    /// Says whether unit and type are appended to metric names.
    #[must_use]
    pub const fn adds_suffixes(self) -> bool {
        matches!(self, Self::UnderscoreEscapingWithSuffixes | Self::NoUtf8EscapingWithSuffixes)
    }
}

/// A text that names no strategy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownStrategy;

impl FromStr for TranslationStrategy {
    type Err = UnknownStrategy;

    /// Reads a strategy as `translation_strategy` names it; empty is the default.
    fn from_str(text: &str) -> Result<Self, UnknownStrategy> {
        Ok(match text {
            "" | "UnderscoreEscapingWithSuffixes" => Self::UnderscoreEscapingWithSuffixes,
            "UnderscoreEscapingWithoutSuffixes" => Self::UnderscoreEscapingWithoutSuffixes,
            "NoUTF8EscapingWithSuffixes" => Self::NoUtf8EscapingWithSuffixes,
            "NoTranslation" => Self::NoTranslation,
            _ => return Err(UnknownStrategy),
        })
    }
}

/// Which resource attributes become labels of every series.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Promotion {
    /// Those named (`promote_resource_attributes`).
    Only(BTreeSet<String>),
    /// All but those named (`promote_all_resource_attributes` and `ignore_resource_attributes`).
    AllBut(BTreeSet<String>),
}

impl Promotion {
    pub(crate) fn takes(&self, name: &str) -> bool {
        match self {
            Self::Only(names) => names.contains(name),
            Self::AllBut(names) => !names.contains(name),
        }
    }
}

impl Default for Promotion {
    fn default() -> Self {
        Self::Only(BTreeSet::new())
    }
}

/// How requests are translated; the default is Prometheus's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `translation_strategy`.
    pub strategy: TranslationStrategy,
    /// Resource attributes that become labels.
    pub promotion: Promotion,
    /// `keep_identifying_resource_attributes`: `target_info` has the attributes that `job` and `instance` are made of.
    pub keeps_identifying_attributes: bool,
    /// `convert_histograms_to_nhcb`: explicit buckets become native histograms with custom buckets.
    pub converts_to_custom_buckets: bool,
    /// `promote_scope_metadata`: name, version, schema URL and attributes of the scope become labels.
    pub promotes_scope: bool,
    /// `label_name_underscore_sanitization`: a label name with one leading underscore gets `key` before it.
    pub prefixes_underscores: bool,
    /// `label_name_preserve_multiple_underscores`: runs of underscores in label names stay.
    pub keeps_multiple_underscores: bool,
    /// How old a sample may be that a query takes: `target_info` repeats within half of it.
    pub lookback_delta: Duration,
    /// The bounds of a request.
    pub limits: Limits,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            strategy: TranslationStrategy::default(),
            promotion: Promotion::default(),
            keeps_identifying_attributes: false,
            converts_to_custom_buckets: false,
            promotes_scope: false,
            prefixes_underscores: true,
            keeps_multiple_underscores: true,
            lookback_delta: Duration::from_secs(300),
            limits: Limits::default(),
        }
    }
}

/// The bounds of a request: what is beyond is rejected by the point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Data points of a request.
    pub points: u64,
    /// Attributes of one resource, scope or data point.
    pub attributes: usize,
    /// Levels of lists and maps within an attribute.
    pub value_depth: usize,
    /// Bytes of one label's name and of its value.
    pub label_bytes: usize,
    /// Bytes of one series' labels.
    pub series_bytes: usize,
    /// Bytes of the labels of all samples of a request.
    pub request_label_bytes: usize,
    /// Buckets or quantiles that become series of their own.
    pub classic_buckets: usize,
    /// Buckets of one native histogram, empty ones included.
    pub native_buckets: usize,
    /// Exemplars of one data point; further ones are dropped.
    pub exemplars: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            points: 1_000_000,
            attributes: 256,
            value_depth: 16,
            label_bytes: 64 << 10,
            series_bytes: 128 << 10,
            request_label_bytes: 512 << 20,
            classic_buckets: 1_024,
            native_buckets: 16_384,
            exemplars: 64,
        }
    }
}
