//! What flows between operators: series one by one, each with a point or nothing at every step.

use std::sync::Arc;

use model::{FloatHistogram, Labels};

use crate::context::Context;
use crate::error::Result;
use crate::faults::or_fault;
use crate::histogram;

/// The times at which an expression is evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Grid {
    /// The first time, in milliseconds.
    pub(crate) start: i64,
    /// The distance between times; what it is does not matter when there is one time only.
    pub(crate) step: i64,
    /// How many times there are; may be none.
    pub(crate) count: usize,
}

impl Grid {
    pub(crate) const fn single(time: i64) -> Self {
        Self { start: time, step: 1, count: 1 }
    }

    /// Makes the grid from `start` in steps up to and including `end`.
    pub(crate) fn new(start: i64, end: i64, step: i64) -> Self {
        let span = end.saturating_sub(start);
        let count =
            if span < 0 { 0 } else { usize::try_from(span / step.max(1)).unwrap_or(usize::MAX - 1) + 1 };
        Self { start, step, count }
    }

    #[inline]
    #[expect(clippy::cast_possible_wrap, reason = "a step's number is bounded by STEPS_MAX")]
    pub(crate) const fn time(&self, index: usize) -> i64 {
        self.start + self.step * index as i64
    }

    pub(crate) fn times(self) -> impl Iterator<Item = i64> {
        (0..self.count).map(move |i| self.time(i))
    }
}

/// What a series has at one step.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) enum Point {
    #[default]
    None,
    Float(f64),
    Histogram(Arc<FloatHistogram>),
}

impl Point {
    pub(crate) const fn is_some(&self) -> bool {
        !matches!(self, Self::None)
    }

    /// How many samples it counts for.
    pub(crate) fn size(&self) -> usize {
        match self {
            Self::None => 0,
            Self::Float(_) => 1,
            Self::Histogram(h) => histogram::size(h),
        }
    }

    pub(crate) fn histogram(h: FloatHistogram) -> Self {
        Self::Histogram(Arc::new(h))
    }
}

/// Makes an empty row for a grid.
pub(crate) fn row(count: usize) -> Vec<Point> {
    vec![Point::None; count]
}

/// Empties a row.
pub(crate) fn clear(points: &mut [Point]) {
    points.fill(Point::None);
}

/// How many samples a row counts for.
pub(crate) fn row_size(points: &[Point]) -> usize {
    points.iter().map(Point::size).sum()
}

/// One series of an operator's output.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct SeriesMeta {
    pub(crate) labels: Labels,
    /// The metric name (with type and unit) is to be dropped when the evaluation ends.
    pub(crate) drop_name: bool,
}

impl SeriesMeta {
    pub(crate) const fn new(labels: Labels) -> Self {
        Self { labels, drop_name: false }
    }

    /// Drops the metric name: now, or with delayed removal in the end.
    pub(crate) fn without_name(&self, cx: &Context<'_>) -> Self {
        if or_fault!(NameRemoval, false, true) {
            self.clone()
        } else if cx.options.delayed_name_removal {
            Self { labels: self.labels.clone(), drop_name: true }
        } else {
            Self { labels: self.labels.without_metric_name(), drop_name: false }
        }
    }
}

/// A part of an expression that gives an instant vector at every step of its grid.
///
/// `series` is called once, first; then `next` once for each of those series, in that order.
pub(crate) trait Operator {
    /// Returns the output's series. Some may turn out to have no point at all.
    fn series(&mut self, cx: &mut Context<'_>) -> Result<Vec<SeriesMeta>>;

    /// Writes the next series' points into an empty row as long as the grid.
    fn next(&mut self, cx: &mut Context<'_>, points: &mut [Point]) -> Result<()>;
}

pub(crate) type BoxOperator = Box<dyn Operator>;

/// A set of steps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StepSet(Vec<u64>);

impl StepSet {
    pub(crate) fn new(count: usize) -> Self {
        Self(vec![0; count.div_ceil(64)])
    }

    pub(crate) fn insert(&mut self, step: usize) {
        self.0[step / 64] |= 1 << (step % 64);
    }

    pub(crate) fn contains(&self, step: usize) -> bool {
        self.0[step / 64] & 1 << (step % 64) != 0
    }

    /// Adds the steps at which the row has a point.
    pub(crate) fn insert_row(&mut self, points: &[Point]) {
        for (step, _) in points.iter().enumerate().filter(|(_, p)| p.is_some()) {
            self.insert(step);
        }
    }
}
