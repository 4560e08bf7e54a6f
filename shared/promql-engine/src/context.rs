//! What all operators of one running query share: limits, cancellation, notes to the user, statistics.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use model::Timestamp;
use model::query::{QueryStats, StepStats};

use crate::annotations::Annotations;
use crate::engine::EngineOptions;
use crate::error::{Error, Result};
use crate::points::{Grid, Point, row_size};
use crate::source::SeriesSource;

/// How much work is done between two looks at the clock and the cancellation flag. A unit is about one sample,
/// so this is well below a millisecond.
const WORK_BETWEEN_CHECKS: usize = 16_384;

/// The most steps of one grid: a row of that many points takes 32 MiB.
pub(crate) const STEPS_MAX: usize = 2 << 20;

/// What a sample or a point takes in memory.
pub(crate) const SAMPLE_BYTES: usize = 16;

/// How the samples that a selector looks at are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Counted {
    /// For the step at which they are seen.
    #[default]
    AtStep,
    /// For each of the query's steps: what is seen is the same at all of them.
    AtEvery,
    /// Not at all: they lie inside of a subquery, whose points are counted where they are used.
    Inside,
}

pub(crate) struct Context<'a> {
    pub(crate) source: &'a dyn SeriesSource,
    pub(crate) options: &'a EngineOptions,
    pub(crate) lookback_ms: i64,
    pub(crate) annotations: Annotations,
    pub(crate) stats: QueryStats,
    /// How many steps the query has.
    steps: u64,
    canceled: &'a AtomicBool,
    deadline: Option<Instant>,
    held: usize,
    held_bytes: usize,
    work: usize,
}

impl<'a> Context<'a> {
    pub(crate) fn new(
        source: &'a dyn SeriesSource,
        options: &'a EngineOptions,
        (lookback_ms, steps): (i64, usize),
        canceled: &'a AtomicBool,
        deadline: Option<Instant>,
    ) -> Self {
        Self {
            source,
            options,
            lookback_ms,
            annotations: Annotations::default(),
            stats: QueryStats::default(),
            steps: steps as u64,
            canceled,
            deadline,
            held: 0,
            held_bytes: 0,
            work: 0,
        }
    }

    /// Counts samples as held in memory.
    pub(crate) fn hold(&mut self, samples: usize) -> Result<()> {
        self.held += samples;
        self.stats.samples_peak = self.stats.samples_peak.max(self.held as u64);
        if self.held > self.options.max_samples {
            return Err(Error::TooManySamples);
        }
        self.hold_bytes(samples.saturating_mul(SAMPLE_BYTES))
    }

    /// Counts samples as no longer held.
    pub(crate) fn release(&mut self, samples: usize) {
        self.held = self.held.saturating_sub(samples);
        self.release_bytes(samples.saturating_mul(SAMPLE_BYTES));
    }

    /// Counts memory for other things than samples: labels, rows, accumulators.
    pub(crate) fn hold_bytes(&mut self, bytes: usize) -> Result<()> {
        self.held_bytes = self.held_bytes.saturating_add(bytes);
        let limit = self.options.max_memory_bytes;
        if self.held_bytes > limit { Err(Error::TooMuchMemory { limit }) } else { Ok(()) }
    }

    /// Counts memory as no longer held.
    pub(crate) fn release_bytes(&mut self, bytes: usize) {
        self.held_bytes = self.held_bytes.saturating_sub(bytes);
    }

    /// Makes counts by step, one for each time of the query.
    pub(crate) fn count_steps(&mut self, grid: Grid) {
        let step = |t| StepStats { time: Timestamp(t), ..StepStats::default() };
        self.stats.steps = grid.times().map(step).collect();
    }

    /// Says whether counts are kept by step; otherwise it does not matter for which step something is counted.
    pub(crate) const fn counts_steps(&self) -> bool {
        !self.stats.steps.is_empty()
    }

    /// Counts samples that were looked at for a step, and how many of them no step before had seen.
    pub(crate) fn count(&mut self, counted: Counted, step: usize, total: usize, read: usize) {
        let (total, read) = (total as u64, read as u64);
        let stats = &mut self.stats;
        stats.samples_read += read;
        match counted {
            Counted::AtStep => {
                stats.samples_total += total;
                if let Some(step) = stats.steps.get_mut(step) {
                    step.samples_total += total;
                    step.samples_read += read;
                }
            }
            Counted::AtEvery => {
                stats.samples_total += total * self.steps;
                stats.steps.iter_mut().for_each(|s| s.samples_total += total);
                stats.steps.iter_mut().take(1).for_each(|s| s.samples_read += read);
            }
            Counted::Inside => stats.steps.iter_mut().take(1).for_each(|s| s.samples_read += read),
        }
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
