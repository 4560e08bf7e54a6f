//! Faults that a test plants to see that its scripts notice: see `tests/planted_faults.rs`.
//!
//! Where a fault can be planted, `or_fault!` names it beside the right expression. Without the feature
//! `planted-faults`, which only that test turns on, the macro is the right expression and nothing else.

/// The right expression, or the wrong one where this fault is planted.
#[cfg(not(feature = "planted-faults"))]
macro_rules! or_fault {
    ($fault:ident, $right:expr, $wrong:expr) => {
        $right
    };
}

/// The right expression, or the wrong one where this fault is planted.
#[cfg(feature = "planted-faults")]
macro_rules! or_fault {
    ($fault:ident, $right:expr, $wrong:expr) => {
        if crate::faults::is_planted(crate::faults::Fault::$fault) { $wrong } else { $right }
    };
}

pub(crate) use or_fault;

#[cfg(feature = "planted-faults")]
pub(crate) use planted::is_planted;
#[cfg(feature = "planted-faults")]
pub use planted::{Fault, plant};

#[cfg(feature = "planted-faults")]
mod planted {
    use std::cell::Cell;

    /// What can be made wrong.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum Fault {
        /// A sample exactly one lookback old is still seen.
        LookbackEdge,
        /// A range is closed on the left.
        WindowEdge,
        /// A staleness marker shows as a value.
        MarkerShown,
        /// A staleness marker counts within a range.
        MarkerInRange,
        /// A counter that restarts is taken for one that falls.
        CounterReset,
        /// A rate is always extrapolated to the edges of its window.
        Extrapolation,
        /// Two series on the left may match one on the right.
        MatchingCardinality,
        /// `ignoring` takes no label out of the match.
        MatchingLabels,
        /// `or` lets everything through on the right.
        SetUnion,
        /// Metric names stay.
        NameRemoval,
        /// A quantile at the upper edge of a native bucket falls into the next.
        NativeBucketBoundary,
        /// A quantile at the upper edge of a classic bucket falls into the next.
        ClassicBucketBoundary,
        /// A bucket that goes down is no reset.
        HistogramReset,
        /// Buckets of a coarser schema are off by one.
        SchemaReduction,
        /// A subquery's steps begin at its range.
        SubqueryAlignment,
        /// An offset looks into the future.
        OffsetSign,
        /// `@` is not looked at.
        AtModifier,
        /// NaN is the greatest number of all to `topk`.
        TopkNan,
        /// Sums lose what rounding takes from them.
        Compensation,
        /// Annotations point at the beginning of the query.
        AnnotationPlace,
        /// A series that is in several sources is aggregated by each.
        SharedSeries,
        /// Sums of several sources lose what rounding took from each.
        PartCompensation,
        /// What a source has to say about its part is not passed on.
        PartNotes,
        /// Groups of several sources come in the order of the sources.
        PartOrder,
    }

    impl Fault {
        /// All of them.
        pub const ALL: [Self; 24] = [
            Self::LookbackEdge,
            Self::WindowEdge,
            Self::MarkerShown,
            Self::MarkerInRange,
            Self::CounterReset,
            Self::Extrapolation,
            Self::MatchingCardinality,
            Self::MatchingLabels,
            Self::SetUnion,
            Self::NameRemoval,
            Self::NativeBucketBoundary,
            Self::ClassicBucketBoundary,
            Self::HistogramReset,
            Self::SchemaReduction,
            Self::SubqueryAlignment,
            Self::OffsetSign,
            Self::AtModifier,
            Self::TopkNan,
            Self::Compensation,
            Self::AnnotationPlace,
            Self::SharedSeries,
            Self::PartCompensation,
            Self::PartNotes,
            Self::PartOrder,
        ];
    }

    thread_local! {
        static PLANTED: Cell<Option<Fault>> = const { Cell::new(None) };
    }

    /// Plants a fault in all queries that this thread evaluates from now on, or none.
    pub fn plant(fault: Option<Fault>) {
        PLANTED.set(fault);
    }

    pub(crate) fn is_planted(fault: Fault) -> bool {
        PLANTED.get() == Some(fault)
    }
}
