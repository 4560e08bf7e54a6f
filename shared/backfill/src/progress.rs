//! How far an import is, for whoever watches.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// What an import does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Reads the text; counted in bytes.
    ReadText,
    /// Reads the head of a data directory; counted in bytes.
    ReadHead,
    /// Writes days; counted in days.
    WriteDays,
}

const PHASES: [Phase; 3] = [Phase::ReadText, Phase::ReadHead, Phase::WriteDays];

/// Counts that one thread moves and another shows.
#[derive(Debug, Default)]
pub struct Progress {
    phase: AtomicUsize,
    pub(crate) done: AtomicU64,
    total: AtomicU64,
    samples: AtomicU64,
}

impl Progress {
    /// What is being done.
    #[must_use]
    pub fn phase(&self) -> Phase {
        PHASES[self.phase.load(Ordering::Relaxed)]
    }

    /// How much of it is done, and of how much; of 0 where nobody knows.
    #[must_use]
    pub fn done(&self) -> (u64, u64) {
        (self.done.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed))
    }

    /// Samples read so far.
    #[must_use]
    pub fn samples(&self) -> u64 {
        self.samples.load(Ordering::Relaxed)
    }

    pub(crate) fn begin(&self, phase: Phase, total: u64) {
        let number = PHASES.iter().position(|p| *p == phase).unwrap_or_default();
        self.done.store(0, Ordering::Relaxed);
        self.total.store(total, Ordering::Relaxed);
        self.phase.store(number, Ordering::Relaxed);
    }

    pub(crate) fn add_done(&self, count: usize) {
        self.done.fetch_add(count as u64, Ordering::Relaxed);
    }

    pub(crate) fn add_samples(&self, count: usize) {
        self.samples.fetch_add(count as u64, Ordering::Relaxed);
    }
}
