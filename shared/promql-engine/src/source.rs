//! Where series come from: the trait that whoever holds the data implements.
//!
//! Invariants an implementation keeps:
//! - label sets are sorted and unique, samples follow in the same order;
//! - timestamps within a column ascend strictly; no time stands in both columns of a series;
//! - staleness markers are included; the engine drops them where they must not be seen;
//! - series that share their timestamps share the very `Arc`: windows are computed once for each.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use model::{FloatHistogram, Labels, Matcher, Timestamp};

use crate::error::SourceError;
use crate::partial::{Cut, Partial};

/// Gives the engine series.
pub trait SeriesSource: Send + Sync {
    /// Opens a selection. All selections of a query are opened before the first is read, so this should return
    /// quickly and fetch in the background.
    ///
    /// # Errors
    /// When the selection cannot be served.
    fn select(&self, selection: &Selection) -> Result<Box<dyn SeriesSet>, SourceError>;

    /// Reads at once what several queries are going to ask for ([`Query::selections`]), and returns a source for them
    /// that serves everything else as well. `None` where nothing is gained by it or it cannot be done: the queries then
    /// ask for themselves, and hear why.
    ///
    /// [`Query::selections`]: crate::Query::selections
    fn read_ahead(&self, _selections: &[Selection]) -> Option<Box<dyn SeriesSource + '_>> {
        None
    }
}

/// The series and samples that one selector needs.
#[derive(Debug, Clone, PartialEq)]
pub struct Selection {
    /// All must match.
    pub matchers: Vec<Matcher>,
    /// The earliest sample that matters, inclusive; lookback, range and offset are taken off already.
    pub min_time: Timestamp,
    /// The latest sample that matters, inclusive.
    pub max_time: Timestamp,
    /// What the samples are for.
    pub hints: Hints,
    /// The aggregation that they are for, where that may be computed in parts. A source may then give parts for some
    /// of the series instead of their samples, see [`SeriesSet::partials`]; it never has to.
    pub cut: Option<Arc<Cut>>,
}

/// What a selection's samples are for. A source may use it to read less; it never has to.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Hints {
    /// Distance between evaluations in milliseconds; 0 for a single one.
    pub step_ms: i64,
    /// Length of the range in milliseconds; 0 for an instant selector.
    pub range_ms: i64,
    /// The function or aggregation right around the selector; empty where there is none.
    pub function: String,
    /// The labels named by the aggregation right around the selector.
    pub grouping: Vec<String>,
    /// Whether `grouping` names the labels kept (`by`) rather than those dropped.
    pub by: bool,
}

/// The series of one selection, read once from front to back.
pub trait SeriesSet: Send {
    /// Returns all label sets, sorted, each once; waits until they are known.
    ///
    /// # Errors
    /// When the source fails.
    fn labels(&mut self) -> Result<&[Labels], SourceError>;

    /// Returns the samples of the next series in the order of [`SeriesSet::labels`]; `None` after the last.
    ///
    /// # Errors
    /// When the source fails.
    fn next(&mut self) -> Result<Option<SeriesSamples>, SourceError>;

    /// Returns what was made of the series whose labels and samples this set leaves out; only where the selection has
    /// a cut. Asked once, after the labels.
    ///
    /// # Errors
    /// When the source fails.
    fn partials(&mut self) -> Result<Vec<Partial>, SourceError> {
        Ok(Vec::new())
    }

    /// Returns what the user has to be told, for instance which upstream is missing; asked after the last series.
    fn warnings(&mut self) -> Vec<String> {
        Vec::new()
    }
}

/// Values with their times.
#[derive(Clone, PartialEq)]
pub struct Column<V> {
    /// Milliseconds since the epoch, ascending; shared between series that share a timeline.
    pub timestamps: Arc<[i64]>,
    /// As many values as timestamps.
    pub values: Vec<V>,
    /// When each sample's counter started, in milliseconds, 0 where that is unknown; `None` where it is unknown
    /// for all.
    pub start_timestamps: Option<Vec<i64>>,
}

impl<V> Column<V> {
    /// Makes a column without start timestamps.
    ///
    /// # Panics
    /// When there are not as many values as timestamps.
    #[must_use]
    pub fn new(timestamps: Arc<[i64]>, values: Vec<V>) -> Self {
        assert_eq!(timestamps.len(), values.len(), "a column has one value for each timestamp");
        Self { timestamps, values, start_timestamps: None }
    }

    /// Adds the start timestamps that are known, as (time, start), ascending; what is of no sample here is left out.
    #[must_use]
    pub fn with_starts(mut self, starts: &[(i64, i64)]) -> Self {
        if starts.is_empty() {
            return self;
        }
        let mut column = vec![0; self.timestamps.len()];
        let mut has_any = false;
        for (time, start) in starts {
            if let Ok(i) = self.timestamps.binary_search(time) {
                column[i] = *start;
                has_any = true;
            }
        }
        self.start_timestamps = has_any.then_some(column);
        self
    }

    /// Returns the number of samples.
    #[must_use]
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Says whether there is no sample.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }
}

impl<V> Default for Column<V> {
    fn default() -> Self {
        Self { timestamps: Arc::from([]), values: Vec::new(), start_timestamps: None }
    }
}

impl<V> fmt::Debug for Column<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Column").field("timestamps", &self.timestamps).finish_non_exhaustive()
    }
}

/// The samples of one series: floats and histograms apart.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SeriesSamples {
    /// Float samples.
    pub floats: Column<f64>,
    /// Histogram samples.
    pub histograms: Column<Arc<FloatHistogram>>,
}

/// Takes note of what is selected, and has nothing.
#[derive(Debug, Default)]
pub(crate) struct Recorder(Mutex<Vec<Selection>>);

impl Recorder {
    pub(crate) fn finish(self) -> Vec<Selection> {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SeriesSource for Recorder {
    fn select(&self, selection: &Selection) -> Result<Box<dyn SeriesSet>, SourceError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(selection.clone());
        Ok(Box::new(Nothing))
    }
}

struct Nothing;

impl SeriesSet for Nothing {
    fn labels(&mut self) -> Result<&[Labels], SourceError> {
        Ok(&[])
    }

    fn next(&mut self) -> Result<Option<SeriesSamples>, SourceError> {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_timestamps_stand_with_their_samples() {
        let starts = |times: &[i64], starts: &[(i64, i64)]| {
            Column::new(times.into(), vec![0.0; times.len()]).with_starts(starts).start_timestamps
        };
        assert_eq!(starts(&[10, 20, 30], &[(20, 5), (25, 6)]), Some(vec![0, 5, 0]));
        assert_eq!(starts(&[10], &[(20, 5)]), None);
        assert_eq!(starts(&[], &[]), None);
    }
}
