//! What all operators of one running query share: limits, cancellation, notes to the user, statistics.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use model::query::QueryStats;

use crate::annotations::Annotations;
use crate::engine::EngineOptions;
use crate::error::{Error, Result};
use crate::points::{Point, row_size};
use crate::source::SeriesSource;

/// How much work is done between two looks at the clock and the cancellation flag. A unit is about one sample,
/// so this is well below a millisecond.
const WORK_BETWEEN_CHECKS: usize = 16_384;

/// The most steps of one grid: a row of that many points takes 32 MiB.
pub(crate) const STEPS_MAX: usize = 2 << 20;

pub(crate) struct Context<'a> {
    pub(crate) source: &'a dyn SeriesSource,
    pub(crate) options: &'a EngineOptions,
    pub(crate) lookback_ms: i64,
    pub(crate) annotations: Annotations,
    pub(crate) stats: QueryStats,
    canceled: &'a AtomicBool,
    deadline: Option<Instant>,
    held: usize,
    work: usize,
}

impl<'a> Context<'a> {
    pub(crate) fn new(
        source: &'a dyn SeriesSource,
        options: &'a EngineOptions,
        lookback_ms: i64,
        canceled: &'a AtomicBool,
        deadline: Option<Instant>,
    ) -> Self {
        Self {
            source,
            options,
            lookback_ms,
            annotations: Annotations::default(),
            stats: QueryStats::default(),
            canceled,
            deadline,
            held: 0,
            work: 0,
        }
    }

    /// Counts samples as held in memory.
    pub(crate) fn hold(&mut self, samples: usize) -> Result<()> {
        self.held += samples;
        self.stats.samples_peak = self.stats.samples_peak.max(self.held as u64);
        if self.held > self.options.max_samples { Err(Error::TooManySamples) } else { Ok(()) }
    }

    /// Counts samples as no longer held.
    pub(crate) fn release(&mut self, samples: usize) {
        self.held = self.held.saturating_sub(samples);
    }

    /// Counts a row as held; returns what to release.
    pub(crate) fn hold_row(&mut self, points: &[Point]) -> Result<usize> {
        let size = row_size(points);
        self.hold(size)?;
        Ok(size)
    }

    /// Notes work done, and now and then looks whether to go on.
    #[inline]
    pub(crate) fn tick(&mut self, work: usize) -> Result<()> {
        self.work += work + 1;
        if self.work < WORK_BETWEEN_CHECKS { Ok(()) } else { self.check() }
    }

    /// Looks whether to go on.
    pub(crate) fn check(&mut self) -> Result<()> {
        self.work = 0;
        if self.canceled.load(Ordering::Relaxed) {
            return Err(Error::Canceled);
        }
        match self.deadline {
            Some(deadline) if Instant::now() >= deadline => Err(Error::Timeout),
            _ => Ok(()),
        }
    }
}
