//! The columns in which samples travel between head, log, files and queries.
//!
//! Invariants, upheld by whoever builds one of these and relied on by everyone:
//! - a column's times are ascending and unique, and it holds as many values as times;
//! - [`SeriesSamples::start_timestamps`] is ascending and unique by sample time;
//! - lists of [`SeriesRow`] are sorted by [`compare_labels`] and hold each label set once.

use std::cmp::Ordering;
use std::sync::Arc;

use model::{Exemplar, Histogram, Labels, Metadata, Value};

/// What a histogram counts for, since it is about as large as that many floats.
const HISTOGRAM_WEIGHT: usize = 30;

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

    /// Says how large it is, counted in floats.
    #[must_use]
    pub fn weight(&self) -> usize {
        self.floats.timestamps.len() + HISTOGRAM_WEIGHT * self.histograms.timestamps.len()
    }

    /// The times of the oldest and the newest sample, in milliseconds.
    #[must_use]
    pub fn times(&self) -> Option<(i64, i64)> {
        let (floats, histograms) = (&self.floats.timestamps, &self.histograms.timestamps);
        let first = floats.first().into_iter().chain(histograms.first()).min();
        first.copied().zip(self.last().map(|(t, _)| t))
    }

    /// Cuts the series into parts whose floats weigh so much at most, and whose histograms do, or are one sample.
    #[must_use]
    pub fn parts(self, weight_max: usize) -> Parts {
        Parts { whole: self, weight_max, floats: 0, histograms: 0, starts: 0 }
    }

    /// Joins parts, each of which is later than the one before.
    #[must_use]
    pub fn concat(mut parts: Vec<Self>) -> Self {
        if parts.len() == 1 {
            return parts.swap_remove(0);
        }
        let floats = || parts.iter().map(|part| &part.floats);
        let histograms = || parts.iter().map(|part| &part.histograms);
        Self {
            floats: FloatColumn {
                timestamps: floats().flat_map(|c| &*c.timestamps).copied().collect(),
                values: floats().flat_map(|c| &*c.values).copied().collect(),
            },
            histograms: HistogramColumn {
                timestamps: histograms().flat_map(|c| &*c.timestamps).copied().collect(),
                values: histograms().flat_map(|c| &*c.values).cloned().collect(),
            },
            start_timestamps: parts.iter().flat_map(|part| &*part.start_timestamps).copied().collect(),
            exemplars: parts.iter().flat_map(|part| &*part.exemplars).cloned().collect(),
        }
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

/// The parts of a series, the oldest first: floats and histograms up to the same time. What needs no cut comes as it is,
/// its timeline shared.
#[derive(Debug)]
pub struct Parts {
    whole: SeriesSamples,
    weight_max: usize,
    /// How many have been taken of each.
    floats: usize,
    histograms: usize,
    starts: usize,
}

impl Parts {
    /// Says whether nothing is left.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.floats == self.whole.floats.timestamps.len()
            && self.histograms == self.whole.histograms.timestamps.len()
    }

    /// Says whether the series is one part.
    #[must_use]
    pub fn is_one(&self) -> bool {
        self.whole.weight() <= self.weight_max
    }
}

impl Iterator for Parts {
    type Item = SeriesSamples;

    fn next(&mut self) -> Option<SeriesSamples> {
        if self.is_over() {
            return None;
        }
        let SeriesSamples { floats, histograms, start_timestamps: starts, exemplars } = &self.whole;
        if self.is_one() {
            (self.floats, self.histograms) = (floats.timestamps.len(), histograms.timestamps.len());
            return Some(self.whole.clone());
        }
        // The part ends before the first sample that either column has no room for.
        let beyond = |times: &[i64], taken: usize, room: usize| times.get(taken + room.max(1)).copied();
        let end = beyond(&floats.timestamps, self.floats, self.weight_max)
            .into_iter()
            .chain(beyond(&histograms.timestamps, self.histograms, self.weight_max / HISTOGRAM_WEIGHT))
            .min();
        let until = |times: &[i64]| end.map_or(times.len(), |end| times.partition_point(|t| *t < end));
        let of_floats = self.floats..until(&floats.timestamps);
        let of_histograms = self.histograms..until(&histograms.timestamps);
        let of_starts =
            self.starts..end.map_or(starts.len(), |end| starts.partition_point(|(t, _)| *t < end));
        let is_first = (self.floats, self.histograms) == (0, 0);
        (self.floats, self.histograms, self.starts) = (of_floats.end, of_histograms.end, of_starts.end);
        Some(SeriesSamples {
            floats: FloatColumn {
                timestamps: floats.timestamps[of_floats.clone()].into(),
                values: floats.values[of_floats].into(),
            },
            histograms: HistogramColumn {
                timestamps: histograms.timestamps[of_histograms.clone()].into(),
                values: histograms.values[of_histograms].into(),
            },
            start_timestamps: starts[of_starts].into(),
            exemplars: if is_first { Arc::clone(exemplars) } else { Arc::from([]) },
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn parts_are_the_series_again(
            samples in testing::timelines().prop_flat_map(testing::samples),
            weight_max in 1_usize..200,
        ) {
            let parts: Vec<_> = samples.clone().parts(weight_max).collect();
            for part in &parts {
                prop_assert!(part.floats.values.len() <= weight_max);
                prop_assert!(part.histograms.values.len() <= (weight_max / HISTOGRAM_WEIGHT).max(1));
                prop_assert!(part.sample_count() > 0);
            }
            let times: Vec<_> = parts.iter().filter_map(SeriesSamples::times).collect();
            prop_assert!(times.is_sorted_by(|(_, last), (first, _)| last < first), "{:?}", times);
            if samples.sample_count() == 0 {
                prop_assert!(parts.is_empty());
            } else {
                prop_assert!(SeriesSamples::concat(parts).bit_eq(&samples));
            }
        }
    }

    #[test]
    fn what_needs_no_cut_shares_its_times() {
        let samples = SeriesSamples {
            floats: FloatColumn { timestamps: [1, 2].into(), values: [0.5, 1.5].into() },
            ..SeriesSamples::default()
        };
        let mut parts = samples.clone().parts(2);
        assert!(parts.is_one() && !parts.is_over());
        let part = parts.next().expect("a part");
        assert!(parts.is_over() && Arc::ptr_eq(&part.floats.timestamps, &samples.floats.timestamps));
        assert_eq!(
            samples.parts(1).map(|part| part.floats.values.to_vec()).collect::<Vec<_>>(),
            [[0.5], [1.5]]
        );
    }
}
