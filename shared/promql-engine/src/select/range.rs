//! Range selectors and subqueries, read one series at a time.

use std::sync::Arc;

use model::{CounterResetHint, is_stale};
use promql_syntax::Edges;

use super::windows::{RangeSeries, Windows};
use super::{OpenSet, When};
use crate::context::Context;
use crate::error::Result;
use crate::faults::or_fault;
use crate::partial::Counted;
use crate::points::{BoxOperator, Grid, Point, SeriesMeta, clear, row};
use crate::source::{Column, SeriesSamples};

/// Where a range comes from.
#[derive(Debug)]
enum From {
    Selector(OpenSet),
    Subquery(Inner),
}

/// The inside of a subquery.
struct Inner {
    operator: BoxOperator,
    grid: Grid,
    row: Vec<Point>,
    held: usize,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("grid", &self.grid).finish_non_exhaustive()
    }
}

/// A range selector or a subquery: for each series the samples of a window at each step.
#[derive(Debug)]
pub(crate) struct RangeInput {
    from: From,
    windows: Windows,
    range: i64,
    edges: Edges,
    uses_start_timestamps: bool,
    counted: Counted,
    remaining: usize,
    current: SeriesSamples,
    /// The times of a subquery's steps, shared by its series that have a point at every step.
    full_timeline: Option<Arc<[i64]>>,
}

impl RangeInput {
    pub(crate) fn selector(
        set: OpenSet,
        when: When,
        (range, edges): (i64, Edges),
        counted: Counted,
        cx: &Context<'_>,
    ) -> Self {
        let (before, after) = match edges {
            Edges::Plain => (0, 0),
            Edges::Anchored => (cx.lookback_ms, 0),
            Edges::Smoothed => (cx.lookback_ms, cx.lookback_ms),
        };
        let before = range.saturating_add(before);
        let windows = Windows::new(when, or_fault!(WindowEdge, before, before + 1), after);
        let uses_start_timestamps = cx.options.start_timestamps;
        Self {
            from: From::Selector(set),
            windows,
            range,
            edges,
            uses_start_timestamps,
            counted,
            remaining: 0,
            current: SeriesSamples::default(),
            full_timeline: None,
        }
    }

    pub(crate) fn subquery(
        operator: BoxOperator,
        grid: Grid,
        when: When,
        range: i64,
        counted: Counted,
    ) -> Self {
        Self {
            from: From::Subquery(Inner { operator, grid, row: row(grid.count), held: 0 }),
            windows: Windows::new(when, range, 0),
            range,
            edges: Edges::Plain,
            uses_start_timestamps: false,
            counted,
            remaining: 0,
            current: SeriesSamples::default(),
            full_timeline: None,
        }
    }

    pub(crate) const fn edges(&self) -> Edges {
        self.edges
    }

    /// The range's length in milliseconds.
    pub(crate) const fn range_ms(&self) -> i64 {
        self.range
    }

    /// Returns the series.
    pub(crate) fn series(&mut self, cx: &mut Context<'_>) -> Result<Vec<SeriesMeta>> {
        let metas: Vec<SeriesMeta> = match &mut self.from {
            From::Selector(set) => set.labels(cx)?.into_iter().map(SeriesMeta::new).collect(),
            From::Subquery(inner) => inner.operator.series(cx)?,
        };
        self.remaining = metas.len();
        Ok(metas)
    }

    /// Reads the next series.
    pub(crate) fn next(&mut self, cx: &mut Context<'_>) -> Result<RangeSeries<'_>> {
        self.current = match &mut self.from {
            From::Selector(set) => {
                let mut samples = set.next(cx)?;
                if !self.uses_start_timestamps {
                    samples.floats.start_timestamps = None;
                    samples.histograms.start_timestamps = None;
                }
                drop_stale(&mut samples.floats, |x| is_stale(*x));
                drop_stale(&mut samples.histograms, |h| is_stale(h.sum));
                samples
            }
            From::Subquery(inner) => inner.next(cx, &mut self.full_timeline)?,
        };
        self.remaining = self.remaining.saturating_sub(1);
        let (floats, histograms) = (&self.current.floats, &self.current.histograms);
        Ok(RangeSeries {
            counted: self.counted,
            is_subquery: matches!(self.from, From::Subquery(_)),
            when: self.windows.when,
            range: self.range,
            float_bounds: self.windows.of(&floats.timestamps),
            histogram_bounds: self.windows.of(&histograms.timestamps),
            floats,
            histograms,
        })
    }

    /// Says that no series is left; releases the last one.
    pub(crate) fn finish_if_done(&mut self, cx: &mut Context<'_>) {
        if self.remaining == 0 {
            match &mut self.from {
                From::Selector(set) => set.finish(cx),
                From::Subquery(inner) => cx.release(std::mem::take(&mut inner.held)),
            }
            self.current = SeriesSamples::default();
        }
    }
}

/// Removes staleness markers; a column without one keeps its shared timeline.
fn drop_stale<V>(column: &mut Column<V>, is_marker: impl Fn(&V) -> bool) {
    if or_fault!(MarkerInRange, !column.values.iter().any(&is_marker), true) {
        return;
    }
    let keep: Vec<bool> = column.values.iter().map(|v| !is_marker(v)).collect();
    let kept = |values: &[i64]| -> Vec<i64> {
        values.iter().zip(&keep).filter(|(_, keep)| **keep).map(|(t, _)| *t).collect()
    };
    column.timestamps = kept(&column.timestamps).into();
    if let Some(starts) = &mut column.start_timestamps {
        *starts = kept(starts);
    }
    column.values.retain(|v| !is_marker(v));
}

impl Inner {
    /// Evaluates the next series and takes its points for samples.
    fn next(
        &mut self,
        cx: &mut Context<'_>,
        full_timeline: &mut Option<Arc<[i64]>>,
    ) -> Result<SeriesSamples> {
        cx.release(std::mem::take(&mut self.held));
        clear(&mut self.row);
        self.operator.next(cx, &mut self.row)?;
        self.held = cx.hold_row(&self.row)?;
        let (mut floats, mut float_times) = (Vec::new(), Vec::new());
        let (mut histograms, mut histogram_times) = (Vec::new(), Vec::new());
        for (step, point) in self.row.iter_mut().enumerate() {
            match std::mem::take(point) {
                Point::None => {}
                Point::Float(x) => {
                    float_times.push(self.grid.time(step));
                    floats.push(x);
                }
                Point::Histogram(mut h) => {
                    // Samples between the steps are not seen, and one sample may be seen at several steps, so
                    // what the hints say is not true of these neighbours.
                    if matches!(h.counter_reset_hint, CounterResetHint::Reset | CounterResetHint::NotReset) {
                        Arc::make_mut(&mut h).counter_reset_hint = CounterResetHint::Unknown;
                    }
                    histogram_times.push(self.grid.time(step));
                    histograms.push(h);
                }
            }
        }
        let timeline = if float_times.len() == self.grid.count {
            Arc::clone(full_timeline.get_or_insert_with(|| self.grid.times().collect()))
        } else {
            float_times.into()
        };
        Ok(SeriesSamples {
            floats: Column::new(timeline, floats),
            histograms: Column::new(histogram_times.into(), histograms),
        })
    }
}
