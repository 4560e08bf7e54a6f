//! How a job is scraped, checked and ready for use.

use std::sync::Arc;

use exposition::{EscapingScheme, ScrapeProtocol};
use http_client::HttpSettings;
use model::histogram::{SCHEMA_MAX, SCHEMA_MIN};
use relabel::{NameValidation, Rule};

/// How one job is scraped.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Job {
    /// `job_name`.
    pub(crate) name: Arc<str>,
    /// What decides which series come of an exposition.
    pub(crate) rules: SampleRules,
    /// The formats asked for, the best first.
    pub(crate) protocols: Vec<ScrapeProtocol>,
    /// The format of an answer that does not name one that is known.
    pub(crate) fallback: Option<ScrapeProtocol>,
    /// How names beyond ASCII are to be escaped.
    pub(crate) escaping: EscapingScheme,
    /// Ask for gzip.
    pub(crate) is_compressed: bool,
    /// Largest body, in bytes after decompression; 0 is no limit but the service's own.
    pub(crate) body_size_limit: u64,
    /// Write `scrape_timeout_seconds` and its like.
    pub(crate) has_extra_metrics: bool,
    /// How to connect.
    pub(crate) http: HttpSettings,
    /// Why the job cannot be scraped by this build; its targets are shown as down with this error.
    pub(crate) refusal: Option<String>,
    /// Settings that are valid and not built yet, each in words for the log.
    pub(crate) ignored: Vec<&'static str>,
}

/// What decides which series come of an exposition.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SampleRules {
    /// Exposed labels win over the target's.
    pub(crate) honor_labels: bool,
    /// Exposed timestamps are taken.
    pub(crate) honor_timestamps: bool,
    /// Series with exposed timestamps go stale as well.
    pub(crate) track_timestamps_staleness: bool,
    /// `metric_relabel_configs`.
    pub(crate) relabel: Vec<Rule>,
    /// Which names are valid.
    pub(crate) names: NameValidation,
    /// Most samples after relabelling; 0 is no limit.
    pub(crate) sample_limit: u64,
    /// Limits of each label set.
    pub(crate) label_limits: LabelLimits,
    /// Which histograms are taken.
    pub(crate) histograms: HistogramRules,
}

/// The most buckets that a native histogram may have, whatever a job says.
pub(crate) const NATIVE_BUCKETS_MAX: usize = 16_384;

/// Which forms of histograms are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HistogramRules {
    /// Native histograms are taken.
    pub(crate) scrapes_native: bool,
    /// Classic histograms become native ones with custom buckets.
    pub(crate) converts_classic: bool,
    /// The classic form of a histogram is taken along with another one.
    pub(crate) keeps_classic: bool,
    /// Most buckets of a native histogram; the resolution of one with more is reduced.
    pub(crate) bucket_limit: usize,
    /// The finest exponential schema that is stored.
    pub(crate) schema_max: i32,
}

impl Default for HistogramRules {
    fn default() -> Self {
        Self {
            scrapes_native: false,
            converts_classic: false,
            keeps_classic: false,
            bucket_limit: NATIVE_BUCKETS_MAX,
            schema_max: SCHEMA_MAX,
        }
    }
}

impl HistogramRules {
    /// Sets what `native_histogram_bucket_limit` (0: none) and `native_histogram_min_bucket_factor` ask for.
    pub(crate) fn with_limits(self, bucket_limit: u64, min_bucket_factor: f64) -> Self {
        let bucket_limit = match usize::try_from(bucket_limit) {
            Ok(limit @ 1..NATIVE_BUCKETS_MAX) => limit,
            _ => NATIVE_BUCKETS_MAX,
        };
        // The finest schema whose buckets grow by the factor at least: 2^(2^-schema) >= factor.
        let is_wide = |schema: &i32| f64::from(-*schema).exp2().exp2() >= min_bucket_factor;
        let schema_max = (SCHEMA_MIN..=SCHEMA_MAX).rev().find(is_wide).unwrap_or(SCHEMA_MIN);
        Self { bucket_limit, schema_max, ..self }
    }
}

/// Limits of a label set; 0 is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct LabelLimits {
    /// Number of labels.
    pub(crate) count: u64,
    /// Bytes of a name.
    pub(crate) name_len: u64,
    /// Bytes of a value.
    pub(crate) value_len: u64,
}

impl SampleRules {
    /// Says whether a text that was exposed before still stands for the same series under other rules.
    pub(crate) fn makes_same_series(&self, other: &Self) -> bool {
        self.honor_labels == other.honor_labels
            && self.names == other.names
            && self.label_limits == other.label_limits
            && self.relabel == other.relabel
    }
}
