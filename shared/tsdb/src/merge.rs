//! The one way in which two accounts of the same series become one: head, flush, compaction, query, federation.
//!
//! The identity of a series is its full label set. At one (labels, t) there is one sample: a real sample beats a
//! staleness marker, a histogram beats a float, then the greater in a total order of bits wins. A sample and its
//! start time are one unit: the start time decides only between equal samples. Exemplars form a set.
//!
//! Invariants:
//! - the merge is commutative, associative and idempotent on parts as the log and the files hold them: a time stands
//!   in one of the two columns only, and exemplars are sorted by (time, labels, value) without repeats;
//! - whether something is stale is decided after the merge, never by it;
//! - where one part holds everything, times are not copied; where the times of parts are the same lists as those of a
//!   series before, neither are they.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::ops::Range;
use std::sync::Arc;

use hashbrown::{HashMap, HashSet};
use model::{Exemplar, ValueRef};

use crate::series::{FloatColumn, HistogramColumn, SeriesRow, SeriesSamples, Timeline, compare_labels};

/// How many joins of two timelines are remembered.
const JOINS_MAX: usize = 64;

/// Merges what several sources know of one series.
#[must_use]
pub fn merge(parts: &[SeriesSamples]) -> SeriesSamples {
    Merger::default().merge(parts)
}

/// Merges series after series, and joins times once where those of several series are the same lists by pointer.
#[derive(Debug, Default)]
pub struct Merger {
    /// By the addresses of both timelines, which the join keeps from being used again.
    joins: HashMap<(usize, usize), Join>,
}

impl Merger {
    /// Merges what several sources know of one series.
    #[must_use]
    pub fn merge(&mut self, parts: &[SeriesSamples]) -> SeriesSamples {
        let mut filled = parts.iter().filter(|p| !p.is_empty());
        let Some(first) = filled.next() else { return SeriesSamples::default() };
        if filled.next().is_none() {
            return first.clone();
        }
        let (floats, histograms) = match parts.iter().all(|p| p.histograms.is_empty()) {
            true => (self.merge_floats(parts), HistogramColumn::default()),
            false => merge_samples(parts),
        };
        let mut merged = SeriesSamples {
            floats,
            histograms,
            start_timestamps: Arc::from([]),
            exemplars: merge_exemplars(parts),
        };
        merged.start_timestamps = merge_start_timestamps(parts, &merged);
        merged
    }

    fn merge_floats(&mut self, parts: &[SeriesSamples]) -> FloatColumn {
        let filled = parts.iter().map(|p| &p.floats).filter(|f| !f.is_empty()).cloned();
        filled.reduce(|a, b| self.join(&a, &b)).unwrap_or_default()
    }

    fn join(&mut self, a: &FloatColumn, b: &FloatColumn) -> FloatColumn {
        if Arc::ptr_eq(&a.timestamps, &b.timestamps) && Arc::ptr_eq(&a.values, &b.values) {
            return a.clone();
        }
        if self.joins.len() >= JOINS_MAX {
            self.joins.clear();
        }
        let key = (a.timestamps.as_ptr().addr(), b.timestamps.as_ptr().addr());
        let join = self.joins.entry(key).or_insert_with(|| Join::of(&a.timestamps, &b.timestamps));
        FloatColumn { timestamps: Arc::clone(&join.timestamps), values: join.values(&a.values, &b.values) }
    }
}

/// How two ascending timelines become one.
#[derive(Debug)]
struct Join {
    timestamps: Timeline,
    runs: Vec<Run>,
    _of: [Timeline; 2],
}

/// Times that stand behind one another in one of the timelines or in both.
#[derive(Debug)]
enum Run {
    First(Range<usize>),
    Second(Range<usize>),
    Both(Range<usize>, Range<usize>),
}

impl Join {
    fn of(a: &Timeline, b: &Timeline) -> Self {
        let (mut runs, mut i, mut j) = (Vec::new(), 0, 0);
        while i < a.len() && j < b.len() {
            let (from_a, from_b) = (i, j);
            runs.push(match a[i].cmp(&b[j]) {
                Ordering::Less => {
                    i += run_length(&a[i..], |t| t < b[j]);
                    Run::First(from_a..i)
                }
                Ordering::Greater => {
                    j += run_length(&b[j..], |t| t < a[i]);
                    Run::Second(from_b..j)
                }
                Ordering::Equal => {
                    let count = a[i..].iter().zip(&b[j..]).take_while(|(a, b)| a == b).count();
                    (i, j) = (i + count, j + count);
                    Run::Both(from_a..i, from_b..j)
                }
            });
        }
        runs.push(Run::First(i..a.len()));
        runs.push(Run::Second(j..b.len()));
        let mut timestamps = Vec::with_capacity(a.len().max(b.len()));
        for run in &runs {
            match run {
                Run::First(of_a) | Run::Both(of_a, _) => timestamps.extend_from_slice(&a[of_a.clone()]),
                Run::Second(of_b) => timestamps.extend_from_slice(&b[of_b.clone()]),
            }
        }
        let known = [a, b].into_iter().find(|t| t.len() == timestamps.len()).map(Arc::clone);
        let timestamps = known.unwrap_or_else(|| timestamps.into());
        Self { timestamps, runs, _of: [Arc::clone(a), Arc::clone(b)] }
    }

    fn values(&self, a: &[f64], b: &[f64]) -> Arc<[f64]> {
        let mut values = Vec::with_capacity(self.timestamps.len());
        for run in &self.runs {
            match run {
                Run::First(of_a) => values.extend_from_slice(&a[of_a.clone()]),
                Run::Second(of_b) => values.extend_from_slice(&b[of_b.clone()]),
                Run::Both(of_a, of_b) => {
                    values.extend(a[of_a.clone()].iter().zip(&b[of_b.clone()]).map(|(a, b)| {
                        match ValueRef::Float(*b).compare(&ValueRef::Float(*a)).is_gt() {
                            true => *b,
                            false => *a,
                        }
                    }));
                }
            }
        }
        values.into()
    }
}

/// How many times of an ascending list come first that are all before something; at least the first is. The list is
/// gone through in growing steps, since runs are either short or all of it.
fn run_length(times: &[i64], is_before: impl Fn(i64) -> bool) -> usize {
    let mut known = 1;
    let mut step = 1;
    while times.get(known + step - 1).is_some_and(|t| is_before(*t)) {
        known += step;
        step *= 2;
    }
    let rest = &times[known..times.len().min(known + step)];
    known + rest.partition_point(|t| is_before(*t))
}

/// Merges rows of one series: labels of the first, the metadata seen last, the samples merged.
///
/// # Panics
/// When there is no row.
#[must_use]
pub fn merge_series(mut rows: Vec<SeriesRow>) -> SeriesRow {
    assert!(!rows.is_empty(), "merging needs at least one row");
    if rows.len() == 1 {
        return rows.swap_remove(0);
    }
    let metadata = rows
        .iter()
        .map(|r| (last_time(&r.samples), &r.metadata))
        .max()
        .map(|(_, m)| Arc::clone(m))
        .expect("there is a row");
    let labels = rows[0].labels.clone();
    let parts: Vec<SeriesSamples> = rows.into_iter().map(|r| r.samples).collect();
    SeriesRow { labels, metadata, samples: merge(&parts) }
}

/// Merges sorted lists of rows into one sorted list in which each series stands once, also where a list repeats one.
pub fn merge_rows<I>(lists: impl IntoIterator<Item = I>) -> MergedRows<I::IntoIter>
where
    I: IntoIterator<Item = SeriesRow>,
{
    let mut sources: Vec<I::IntoIter> = lists.into_iter().map(IntoIterator::into_iter).collect();
    let mut heads = BinaryHeap::with_capacity(sources.len());
    for (source, rows) in sources.iter_mut().enumerate() {
        heads.extend(rows.next().map(|row| Head { row, source }));
    }
    MergedRows { sources, heads }
}

/// Iterates over series merged from several sorted sources; see [`merge_rows`].
#[derive(Debug)]
pub struct MergedRows<I> {
    sources: Vec<I>,
    heads: BinaryHeap<Head>,
}

/// The next row of one source, ordered so that a max-heap gives the least labels first.
#[derive(Debug)]
struct Head {
    row: SeriesRow,
    source: usize,
}

impl Ord for Head {
    fn cmp(&self, other: &Self) -> Ordering {
        compare_labels(&other.row.labels, &self.row.labels).then_with(|| other.source.cmp(&self.source))
    }
}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Head {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Head {}

impl<I: Iterator<Item = SeriesRow>> MergedRows<I> {
    fn pop(&mut self) -> Option<SeriesRow> {
        let Head { row, source } = self.heads.pop()?;
        self.heads.extend(self.sources[source].next().map(|row| Head { row, source }));
        Some(row)
    }
}

impl<I: Iterator<Item = SeriesRow>> Iterator for MergedRows<I> {
    type Item = SeriesRow;

    fn next(&mut self) -> Option<SeriesRow> {
        let mut same = vec![self.pop()?];
        while self.heads.peek().is_some_and(|h| h.row.labels == same[0].labels) {
            same.extend(self.pop());
        }
        Some(merge_series(same))
    }
}

/// Gives equal lists of times one allocation, so that what works per timeline works once per timeline.
#[derive(Debug, Default)]
pub struct TimelineInterner {
    known: HashSet<Timeline>,
}

impl TimelineInterner {
    /// How many distinct timelines are known.
    pub(crate) fn count(&self) -> usize {
        self.known.len()
    }

    /// Returns the known timeline of the same content, or makes this one known.
    pub fn intern(&mut self, timeline: &Timeline) -> Timeline {
        if let Some(known) = self.known.get(timeline) {
            return Arc::clone(known);
        }
        self.known.insert(Arc::clone(timeline));
        Arc::clone(timeline)
    }

    /// Replaces both timelines of a row by the known ones.
    pub fn intern_row(&mut self, row: &mut SeriesRow) {
        row.samples.floats.timestamps = self.intern(&row.samples.floats.timestamps);
        row.samples.histograms.timestamps = self.intern(&row.samples.histograms.timestamps);
    }
}

/// The newest time at which anything is known.
pub(crate) fn last_time(samples: &SeriesSamples) -> Option<i64> {
    let exemplars = samples.exemplars.iter().filter_map(|e| e.timestamp.map(|t| t.0)).max();
    [
        samples.floats.timestamps.last().copied(),
        samples.histograms.timestamps.last().copied(),
        samples.start_timestamps.last().map(|s| s.0),
        exemplars,
    ]
    .into_iter()
    .max()
    .flatten()
}

/// Merges floats and histograms.
fn merge_samples(parts: &[SeriesSamples]) -> (FloatColumn, HistogramColumn) {
    let count = parts.iter().map(SeriesSamples::sample_count).sum();
    let mut samples: Vec<(i64, ValueRef<'_>)> = Vec::with_capacity(count);
    for part in parts {
        samples.extend(part.floats.iter().map(|(t, v)| (t, ValueRef::Float(v))));
        samples.extend(part.histograms.iter().map(|(t, h)| (t, ValueRef::Histogram(h))));
    }
    // The parts are ascending runs, which a stable sort finds and merges.
    samples.sort_by_key(|(t, _)| *t);
    samples.dedup_by(|later, kept| {
        let is_same_time = later.0 == kept.0;
        if is_same_time && later.1.compare(&kept.1).is_gt() {
            kept.1 = later.1;
        }
        is_same_time
    });

    let (mut float_times, mut values) = (Vec::new(), Vec::new());
    let (mut histogram_times, mut histograms) = (Vec::new(), Vec::new());
    for (t, sample) in samples {
        match sample {
            ValueRef::Float(x) => {
                float_times.push(t);
                values.push(x);
            }
            ValueRef::Histogram(h) => {
                histogram_times.push(t);
                histograms.push(Arc::clone(h));
            }
        }
    }
    (
        FloatColumn { timestamps: float_times.into(), values: values.into() },
        HistogramColumn { timestamps: histogram_times.into(), values: histograms.into() },
    )
}

/// Takes at each time the greatest start time that came with the sample that won there.
fn merge_start_timestamps(parts: &[SeriesSamples], merged: &SeriesSamples) -> Arc<[(i64, i64)]> {
    if parts.iter().all(|p| p.start_timestamps.is_empty()) {
        return Arc::from([]);
    }
    let mut starts: Vec<(i64, i64)> = Vec::new();
    for part in parts {
        let won = |t: &i64| match (sample_at(part, *t), sample_at(merged, *t)) {
            (Some(own), Some(winner)) => own.compare(&winner).is_eq(),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        starts.extend(part.start_timestamps.iter().filter(|(t, _)| won(t)));
    }
    starts.sort_unstable();
    starts.dedup_by(|later, kept| {
        let is_same_time = later.0 == kept.0;
        if is_same_time {
            kept.1 = later.1;
        }
        is_same_time
    });
    starts.into()
}

fn sample_at(samples: &SeriesSamples, t: i64) -> Option<ValueRef<'_>> {
    if let Ok(i) = samples.histograms.timestamps.binary_search(&t) {
        return samples.histograms.values.get(i).map(ValueRef::Histogram);
    }
    let i = samples.floats.timestamps.binary_search(&t).ok()?;
    samples.floats.values.get(i).map(|x| ValueRef::Float(*x))
}

fn merge_exemplars(parts: &[SeriesSamples]) -> Arc<[Exemplar]> {
    let mut filled = parts.iter().filter(|p| !p.exemplars.is_empty());
    let Some(first) = filled.next() else { return Arc::from([]) };
    if filled.next().is_none() {
        return Arc::clone(&first.exemplars);
    }
    let mut exemplars: Vec<&Exemplar> = parts.iter().flat_map(|p| p.exemplars.iter()).collect();
    exemplars.sort_by(|a, b| compare_exemplars(a, b));
    exemplars.dedup_by(|a, b| compare_exemplars(a, b).is_eq());
    exemplars.into_iter().cloned().collect()
}

/// The order of exemplars in a series: by time (those without one first), labels, bits of the value.
#[must_use]
pub fn compare_exemplars(a: &Exemplar, b: &Exemplar) -> Ordering {
    (a.timestamp, &a.labels, a.value.to_bits()).cmp(&(b.timestamp, &b.labels, b.value.to_bits()))
}

#[cfg(test)]
mod tests;
