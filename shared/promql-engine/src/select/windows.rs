//! Where windows begin and end in a timeline, and the slices of columns they show.

use std::collections::HashMap;
use std::sync::Arc;

use model::FloatHistogram;

use super::When;
use crate::context::Context;
use crate::histogram;
use crate::partial::Counted;
use crate::source::Column;

/// Index ranges of a timeline, one for each step.
pub(super) type Bounds = Arc<[(u32, u32)]>;

/// At most this many timelines are remembered; with more, the memory starts anew.
const TIMELINES_MAX: usize = 4_096;

/// Finds the samples in `(time - before, time + after]` for each step.
#[derive(Debug)]
pub(super) struct Windows {
    pub(super) when: When,
    before: i64,
    after: i64,
    known: HashMap<usize, (Arc<[i64]>, Bounds)>,
}

impl Windows {
    pub(super) fn new(when: When, before: i64, after: i64) -> Self {
        Self { when, before, after, known: HashMap::new() }
    }

    pub(super) fn of(&mut self, timestamps: &Arc<[i64]>) -> Bounds {
        let address = timestamps.as_ptr().addr();
        // The entry keeps its timeline alive, so the address cannot have been given to another one.
        if let Some((_, bounds)) = self.known.get(&address).filter(|(t, _)| t.len() == timestamps.len()) {
            return Arc::clone(bounds);
        }
        let bounds = self.compute(timestamps);
        // A timeline that nobody else holds will not be met again.
        if Arc::strong_count(timestamps) > 1 {
            if self.known.len() == TIMELINES_MAX {
                self.known.clear();
            }
            self.known.insert(address, (Arc::clone(timestamps), Arc::clone(&bounds)));
        }
        bounds
    }

    #[expect(clippy::cast_possible_truncation, reason = "a column has fewer than 2^32 samples")]
    fn compute(&self, timestamps: &[i64]) -> Bounds {
        let (mut low, mut high) = (0, 0);
        (0..self.when.grid.count)
            .map(|step| {
                let time = self.when.time(step);
                let (left, right) = (time.saturating_sub(self.before), time.saturating_add(self.after));
                low = advance(timestamps, low, left);
                high = advance(timestamps, high.max(low), right);
                (low as u32, high as u32)
            })
            .collect()
    }
}

/// Returns the first index at or after `from` whose timestamp is greater than `time`.
fn advance(timestamps: &[i64], from: usize, time: i64) -> usize {
    // Steps mostly move by a few samples: look nearby before searching.
    const NEAR: usize = 8;
    let near = timestamps[from..].iter().take(NEAR).take_while(|t| **t <= time).count();
    if near < NEAR { from + near } else { from + timestamps[from..].partition_point(|t| *t <= time) }
}

/// Samples of one sort within a window, in time order.
#[derive(Debug)]
pub(crate) struct Slice<'a, V> {
    pub(crate) times: &'a [i64],
    pub(crate) values: &'a [V],
    /// Start timestamps, 0 where unknown; empty where there are none.
    pub(crate) starts: &'a [i64],
}

impl<V> Clone for Slice<'_, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<V> Copy for Slice<'_, V> {}

impl<'a, V> Slice<'a, V> {
    pub(crate) const fn len(&self) -> usize {
        self.values.len()
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    pub(crate) fn start(&self, index: usize) -> i64 {
        self.starts.get(index).copied().unwrap_or(0)
    }

    pub(crate) fn from(self, index: usize) -> Self {
        let starts = self.starts.get(index..).unwrap_or(&[]);
        Self { times: &self.times[index..], values: &self.values[index..], starts }
    }
}

/// The samples a range function sees at one step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window<'a> {
    /// The time of the evaluation.
    pub(crate) time: i64,
    /// The range, without what `anchored` and `smoothed` look at beyond it; the start is not part of it.
    pub(crate) start: i64,
    pub(crate) end: i64,
    pub(crate) floats: Slice<'a, f64>,
    pub(crate) histograms: Slice<'a, Arc<FloatHistogram>>,
}

/// The windows of one series.
#[derive(Debug)]
pub(crate) struct RangeSeries<'a> {
    pub(super) counted: Counted,
    pub(super) is_subquery: bool,
    pub(super) when: When,
    pub(super) range: i64,
    pub(super) floats: &'a Column<f64>,
    pub(super) histograms: &'a Column<Arc<FloatHistogram>>,
    pub(super) float_bounds: Bounds,
    pub(super) histogram_bounds: Bounds,
}

impl RangeSeries<'_> {
    pub(crate) fn window(&self, step: usize) -> Window<'_> {
        let end = self.when.time(step);
        Window {
            time: self.when.grid.time(step),
            start: end.saturating_sub(self.range),
            end,
            floats: slice(self.floats, self.float_bounds[step]),
            histograms: slice(self.histograms, self.histogram_bounds[step]),
        }
    }

    /// Counts the samples that the window at a step shows, and those that the one before did not show.
    pub(crate) fn count(&self, cx: &mut Context<'_>, step: usize) {
        let of = |bounds: &Bounds| {
            let (low, high) = bounds[step];
            let before = step.checked_sub(1).map_or(low, |before| bounds[before].1.clamp(low, high));
            (low as usize..high as usize, before as usize..high as usize)
        };
        let (floats, new_floats) = of(&self.float_bounds);
        let (histograms, new_histograms) = of(&self.histogram_bounds);
        let size = |range: std::ops::Range<usize>| -> usize {
            self.histograms.values[range].iter().map(|h| histogram::size(h)).sum()
        };
        // What the inside of a subquery read is counted there.
        let read = if self.is_subquery { 0 } else { new_floats.len() + size(new_histograms) };
        cx.count(self.counted, step, floats.len() + size(histograms), read);
    }

    /// Returns where the floats of the window at a step begin and end.
    pub(crate) fn floats_within(&self, step: usize) -> (u32, u32) {
        self.float_bounds[step]
    }

    /// Returns all floats of the series.
    pub(crate) fn all_floats(&self) -> &[f64] {
        &self.floats.values
    }

    pub(crate) const fn has_start_timestamps(&self) -> bool {
        self.floats.start_timestamps.is_some()
    }
}

fn slice<V>(column: &Column<V>, (low, high): (u32, u32)) -> Slice<'_, V> {
    let range = low as usize..high as usize;
    Slice {
        times: &column.timestamps[range.clone()],
        values: &column.values[range.clone()],
        starts: column.start_timestamps.as_ref().map_or(&[], |starts| &starts[range]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::points::Grid;

    #[test]
    fn only_shared_timelines_are_remembered_and_not_too_many() {
        let when = When { grid: Grid { start: 10, step: 10, count: 3 }, at: None, offset: 0 };
        let mut windows = Windows::new(when, 10, 0);
        let timelines: Vec<Arc<[i64]>> =
            (0..TIMELINES_MAX as i64 + 10).map(|i| [i % 7, 10, 20].into()).collect();
        for timeline in &timelines {
            // Open on the left: 10 belongs to the first window only, 20 to the second.
            let shared = Arc::clone(timeline);
            let first = if timeline[0] > 0 { 0 } else { 1 };
            assert_eq!(*windows.of(&shared), [(first, 2), (2, 3), (3, 3)]);
            assert_eq!(*windows.of(&shared), [(first, 2), (2, 3), (3, 3)]);
            assert!(windows.known.len() <= TIMELINES_MAX);
        }
        let known = windows.known.len();
        drop(timelines);
        windows.of(&Arc::from([1, 2, 3]));
        assert_eq!(windows.known.len(), known);
    }

    #[test]
    fn far_steps_are_searched_for() {
        let timestamps: Vec<i64> = (0..1_000).collect();
        for (from, time, expected) in
            [(0, -1, 0), (0, 0, 1), (0, 5, 6), (0, 500, 501), (10, 5, 10), (0, 9_999, 1_000)]
        {
            assert_eq!(advance(&timestamps, from, time), expected);
        }
    }
}
