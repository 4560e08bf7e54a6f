//! How a job is scraped, checked and ready for use.

use std::sync::Arc;

use exposition::{EscapingScheme, ScrapeProtocol};
use http_client::HttpSettings;
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
