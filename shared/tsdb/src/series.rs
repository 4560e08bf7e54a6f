//! The columns in which samples travel between head, log, files and queries.
//!
//! Invariants, upheld by whoever builds one of these and relied on by everyone:
//! - a column's times are ascending and unique, and it holds as many values as times;
//! - [`SeriesSamples::start_timestamps`] is ascending and unique by sample time;
//! - lists of [`SeriesRow`] are sorted by [`compare_labels`] and hold each label set once.

use std::cmp::Ordering;
use std::sync::Arc;

use model::{Exemplar, Histogram, Labels, Metadata, Value};

/// Ascending unique times in milliseconds, shared by all series that were sampled together.
pub type Timeline = Arc<[i64]>;

/// Float samples; a value may be the staleness marker, bit for bit.
#[derive(Debug, Clone, Default)]
pub struct FloatColumn {
    /// When, ascending.
    pub timestamps: Timeline,
    /// What, one value a time.
    pub values: Arc<[f64]>,
}

/// Native histogram samples; a histogram whose sum is the staleness marker is a marker.
#[derive(Debug, Clone, Default)]
pub struct HistogramColumn {
    /// When, ascending.
    pub timestamps: Timeline,
    /// What, one histogram a time.
    pub values: Arc<[Arc<Histogram>]>,
}

/// Everything stored about one series within some range of time.
#[derive(Debug, Clone, Default)]
pub struct SeriesSamples {
    /// Float samples.
    pub floats: FloatColumn,
    /// Histogram samples.
    pub histograms: HistogramColumn,
    /// (sample time, start time) in milliseconds, ascending by sample time; only samples that have one.
    pub start_timestamps: Arc<[(i64, i64)]>,
    /// Exemplars, ascending by time.
    pub exemplars: Arc<[Exemplar]>,
}

/// One series with its metadata and samples.
#[derive(Debug, Clone)]
pub struct SeriesRow {
    /// The full label set, metric name included.
    pub labels: Labels,
    /// Type, unit and help as they were last known in the range.
    pub metadata: Arc<Metadata>,
    /// The samples.
    pub samples: SeriesSamples,
}

impl FloatColumn {
    /// Says whether there is no sample.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.timestamps.is_empty()
    }

    /// Iterates over (time, value).
    pub fn iter(&self) -> impl Iterator<Item = (i64, f64)> + '_ {
        self.timestamps.iter().copied().zip(self.values.iter().copied())
    }
}

impl HistogramColumn {
    /// Says whether there is no sample.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.timestamps.is_empty()
    }

    /// Iterates over (time, histogram).
    pub fn iter(&self) -> impl Iterator<Item = (i64, &Arc<Histogram>)> + '_ {
        self.timestamps.iter().copied().zip(self.values.iter())
    }
}

impl SeriesSamples {
    /// Says whether there is nothing at all, not even an exemplar.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.floats.is_empty()
            && self.histograms.is_empty()
            && self.start_timestamps.is_empty()
            && self.exemplars.is_empty()
    }

    /// The newest sample and its time in milliseconds.
    #[must_use]
    pub fn last(&self) -> Option<(i64, Value)> {
        let float = self.floats.timestamps.last().zip(self.floats.values.last());
        let histogram = self.histograms.timestamps.last().zip(self.histograms.values.last());
        match (float, histogram) {
            (Some((t, x)), later) if later.is_none_or(|(h, _)| h < t) => Some((*t, Value::Float(*x))),
            (_, histogram) => histogram.map(|(t, h)| (*t, Value::Histogram(Arc::clone(h)))),
        }
    }

    /// Counts samples, floats and histograms together.
    #[must_use]
    pub fn sample_count(&self) -> usize {
        self.floats.timestamps.len() + self.histograms.timestamps.len()
    }

    /// Compares bit for bit, NaN payloads included; whether timelines are shared does not matter.
    #[must_use]
    pub fn bit_eq(&self, other: &Self) -> bool {
        let floats = |c: &FloatColumn| c.iter().map(|(t, v)| (t, v.to_bits())).collect::<Vec<_>>();
        let (a, b) = (&self.histograms, &other.histograms);
        floats(&self.floats) == floats(&other.floats)
            && a.timestamps == b.timestamps
            && a.values.len() == b.values.len()
            && a.values.iter().zip(b.values.iter()).all(|(x, y)| x.bit_eq(y))
            && self.start_timestamps == other.start_timestamps
            && self.exemplars.len() == other.exemplars.len()
            && self.exemplars.iter().zip(other.exemplars.iter()).all(|(x, y)| {
                x.labels == y.labels && x.timestamp == y.timestamp && x.value.to_bits() == y.value.to_bits()
            })
    }
}

/// The order of series in every list and file: by metric name, then by the full label set.
#[must_use]
pub fn compare_labels(a: &Labels, b: &Labels) -> Ordering {
    a.cmp_by_metric(b)
}

#[cfg(test)]
pub(crate) mod testing;
