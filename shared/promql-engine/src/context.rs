//! What all operators of one running query share: limits, cancellation, notes to the user, statistics.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use model::query::{QueryStats, StepStats};
use model::{Labels, Timestamp};

use crate::annotations::Annotations;
use crate::engine::EngineOptions;
use crate::error::{Error, Result};
use crate::partial::{Counted, Partial};
use crate::points::{Grid, Point, row_size};
use crate::source::SeriesSource;

/// How much work is done between two looks at the clock and the cancellation flag. A unit is about one sample,
/// so this is well below a millisecond.
const WORK_BETWEEN_CHECKS: usize = 16_384;

/// What a histogram weighs as work; a float weighs 1.
pub(crate) const HISTOGRAM_WORK: usize = 64;

/// How many elements are sorted between two looks.
const SORTED_AT_ONCE: usize = 4_096;

/// The most steps of one grid: a row of that many points takes 32 MiB.
pub(crate) const STEPS_MAX: usize = 2 << 20;

/// What a sample or a point takes in memory.
pub(crate) const SAMPLE_BYTES: usize = 16;

/// What came of the selection inside of an aggregation that is cut.
#[derive(Debug, Default)]
pub(crate) struct CutSlot {
    /// The series whose samples came.
    pub(crate) labels: Vec<Labels>,
    /// What was made of others.
    pub(crate) partials: Vec<Partial>,
}

pub(crate) struct Context<'a> {
    pub(crate) source: &'a dyn SeriesSource,
    pub(crate) options: &'a EngineOptions,
    pub(crate) lookback_ms: i64,
    pub(crate) annotations: Annotations,
    pub(crate) stats: QueryStats,
    /// The query's text where aggregations may be cut.
    pub(crate) text_to_cut: Option<&'a str>,
    cuts: Vec<CutSlot>,
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
            text_to_cut: None,
            cuts: Vec::new(),
            steps: steps as u64,
            canceled,
            deadline,
            held: 0,
            held_bytes: 0,
            work: 0,
        }
    }

    /// Makes a place for what comes of a selection inside of an aggregation that is cut.
    pub(crate) fn open_cut(&mut self) -> usize {
        self.cuts.push(CutSlot::default());
        self.cuts.len() - 1
    }

    /// Notes what came of such a selection.
    pub(crate) fn fill_cut(&mut self, cut: usize, slot: CutSlot) {
        self.cuts[cut] = slot;
    }

    /// Takes the labels of the series whose samples came.
    pub(crate) fn take_selected(&mut self, cut: usize) -> Vec<Labels> {
        std::mem::take(&mut self.cuts[cut].labels)
    }

    /// Takes what was made of other series.
    pub(crate) fn take_partials(&mut self, cut: usize) -> Vec<Partial> {
        std::mem::take(&mut self.cuts[cut].partials)
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

    /// Notes the work of handling a row, in which histograms weigh more than floats.
    pub(crate) fn tick_row(&mut self, points: &[Point]) -> Result<()> {
        let histograms = points.iter().filter(|p| matches!(p, Point::Histogram(_))).count();
        self.tick(points.len() + histograms * HISTOGRAM_WORK)
    }

    /// Sorts, stably, looking now and then whether to go on.
    pub(crate) fn sort_by<T>(
        &mut self,
        items: &mut [T],
        mut compare: impl FnMut(&T, &T) -> std::cmp::Ordering,
    ) -> Result<()> {
        // Pieces first, then pairs of them: what is two ascending runs the standard sort merges in linear time.
        let mut piece_len = SORTED_AT_ONCE;
        loop {
            for piece in items.chunks_mut(piece_len) {
                piece.sort_by(&mut compare);
                self.tick(piece.len())?;
            }
            if piece_len >= items.len() {
                return Ok(());
            }
            piece_len *= 2;
        }
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
