//! Aggregations in parts: sources that each hold some of the series aggregate what they hold, and the query joins
//! their results.
//!
//! The planner offers a [`Cut`] along with a selection where each series counts for itself up to the aggregation. A
//! source may then answer the selection with [`Partial`]s of some of the series and the samples of the others, or, as
//! always, with the samples of all.
//!
//! Invariants of an answer in parts:
//! - every series is in one part, or its samples are in the answer: never both, never in two parts;
//! - series that evaluation may join ([`Cut::identity`]) are not in parts at all: [`shared`] finds them;
//! - a part says whether it is free of what depends on the order of series ([`Partial::is_order_free`]); where it is
//!   not, or the parts together are not, the query ends with [`Error::OrderMatters`](crate::Error::OrderMatters) and
//!   is to be run without cuts.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use model::query::QueryStats;
use model::{CounterResetHint, Labels, Timestamp};
use promql_syntax::Span;

use crate::faults::or_fault;

/// An aggregation that may be computed in parts, and how: all that [`Engine::partial`](crate::Engine::partial) needs
/// besides the engine's options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// The whole query, since annotations point into it.
    pub query: String,
    /// The query's first evaluation.
    pub start: Timestamp,
    /// The query's last evaluation.
    pub end: Timestamp,
    /// Distance between the query's evaluations in milliseconds; 0 for a single one.
    pub step_ms: i64,
    /// Where the aggregation stands in the query.
    pub span: Span,
    /// When the aggregation is evaluated, which within a subquery is not when the query is.
    pub grid: CutGrid,
    /// How long a sample stands for its series.
    pub lookback: Duration,
    /// Series that differ in their names only stay apart.
    pub keeps_names: bool,
    /// What stands around the aggregation.
    pub around: CutAround,
}

/// Times of evaluation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CutGrid {
    /// The first.
    pub start: Timestamp,
    /// Distance in milliseconds, above 0.
    pub step_ms: i64,
    /// How many; at least one.
    pub count: u32,
}

/// What the expression around an aggregation means for what is inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CutAround {
    /// Only count and sum of histograms are used.
    pub detects_hints: bool,
    /// Whole histograms are needed all the same.
    pub needs_buckets: bool,
    /// How samples are counted.
    pub counted: Counted,
}

/// How the samples that a selector looks at are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Counted {
    /// For the step at which they are seen.
    #[default]
    AtStep,
    /// For each of the query's steps: what is seen is the same at all of them.
    AtEvery,
    /// Not at all: they lie inside of a subquery, whose points are counted where they are used.
    Inside,
}

impl Cut {
    /// The most evaluations of an aggregation that is cut: bounds what one group takes.
    pub const STEPS_MAX: usize = 1 << 16;

    /// Returns a hash of that of a series by which evaluation tells it from others.
    #[must_use]
    pub fn identity(&self, labels: &Labels) -> u64 {
        if self.keeps_names { labels.series_id() } else { labels.without_metric_name().series_id() }
    }
}

/// Finds the series that must not be aggregated in parts, since another one has the same identity: for each source,
/// given the identities of its series, the positions of these. Two series whose hashes collide are among them, which
/// does no harm.
#[must_use]
pub fn shared(identities: &[Vec<u64>]) -> Vec<Vec<u32>> {
    let mut all: Vec<u64> = identities.iter().flatten().copied().collect();
    all.sort_unstable();
    let twice: HashSet<u64> = all.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]).collect();
    let is_shared = |identity: &u64| or_fault!(SharedSeries, twice.contains(identity), false);
    let of = |list: &Vec<u64>| (0..).zip(list).filter(|(_, id)| is_shared(id)).map(|(i, _)| i).collect();
    identities.iter().map(of).collect()
}

/// What one source made of the series it aggregated.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Partial {
    /// Each group once.
    pub groups: Vec<PartialGroup>,
    /// What there is to say to the user.
    pub notes: Vec<PartialNote>,
    /// What was read and held.
    pub stats: QueryStats,
    /// Nothing in it depends on the order in which series were met.
    pub is_order_free: bool,
}

/// One group's accumulators.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PartialGroup {
    /// The group's labels.
    pub labels: Labels,
    /// The metric name is to be dropped when the evaluation ends.
    pub drop_name: bool,
    /// The first of the series in it, as the source has them: groups come in the order of these.
    pub first: Labels,
    /// The steps at which there are floats, ascending.
    pub steps: Vec<u32>,
    /// For each of these the accumulator: as many numbers as the operator needs, see `aggregate/partial.rs`.
    pub numbers: Vec<f64>,
    /// Sums of histograms, ascending by step.
    pub histograms: Vec<PartialHistogram>,
}

/// The histograms of a group at one step, added up.
#[derive(Debug, Clone, PartialEq)]
pub struct PartialHistogram {
    /// The step.
    pub step: u32,
    /// How many were added up; for `avg` only.
    pub count: f64,
    /// One of them told of a counter reset.
    pub has_reset: bool,
    /// One of them told that there was none.
    pub has_not_reset: bool,
    /// The sum.
    pub sums: HistogramSums,
}

/// A sum of histograms: each number with the part that rounding took from it.
#[derive(Debug, Clone, PartialEq)]
pub struct HistogramSums {
    /// Resolution, or -53 for custom bounds.
    pub schema: i32,
    /// Width of the zero bucket.
    pub zero_threshold: f64,
    /// Custom bounds.
    pub custom_values: Arc<[f64]>,
    /// The hint of the sum.
    pub hint: CounterResetHint,
    /// Population of the zero bucket.
    pub zero_count: [f64; 2],
    /// Observations.
    pub count: [f64; 2],
    /// Sum of the observations.
    pub sum: [f64; 2],
    /// Index and population of the positive buckets, ascending.
    pub positive: Vec<(i32, [f64; 2])>,
    /// The same of the negative ones.
    pub negative: Vec<(i32, [f64; 2])>,
}

/// Something to say to the user, with the place in the query that it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PartialNote {
    /// A warning.
    Warning(String, Span),
    /// An info.
    Info(String, Span),
    /// Samples of a metric whose counter started before the sample before them, and how many.
    StartTimeOverlap(String, Span, u64),
}

impl PartialGroup {
    /// What the group takes in memory, in bytes.
    pub(crate) fn byte_len(&self) -> usize {
        let buckets = |h: &PartialHistogram| h.sums.positive.len() + h.sums.negative.len();
        let histograms: usize =
            self.histograms.iter().map(|h| size_of::<PartialHistogram>() + 24 * buckets(h)).sum();
        self.labels.byte_len()
            + self.first.byte_len()
            + 4 * self.steps.len()
            + 8 * self.numbers.len()
            + histograms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_series_are_found_wherever_they_are() {
        assert_eq!(shared(&[vec![1, 2, 3], vec![4, 3], vec![5, 5]]), [vec![2], vec![1], vec![0, 1]]);
        assert_eq!(shared(&[vec![1], vec![2]]), [[0_u32; 0]; 2]);
        assert_eq!(shared(&[]), [[0_u32; 0]; 0]);
    }
}
