//! What the head holds of one series.
//!
//! Most series have float samples in order and nothing else: runs of values over the blocks of their group. The rest
//! (histograms, late samples, start times, exemplars) lies in a box that few series have.
//!
//! Invariants:
//! - runs follow each other in time, and so do `histograms`; a time stands in one of them only;
//! - whatever is older than `max_time` when it comes, or has no place in its group's track, is in `loose`.

use std::collections::VecDeque;
use std::sync::Arc;

use model::{Exemplar, Histogram, Metadata, Value};

use super::codec::{RunEncoder, Scale};
use super::index::InternedLabels;
use super::timeline::{Blocks, Place};

/// One series in memory.
#[derive(Debug)]
pub(crate) struct Series {
    pub(crate) labels: InternedLabels,
    pub(crate) metadata: Arc<Metadata>,
    pub(crate) runs: Vec<Run>,
    pub(crate) open: Option<OpenRun>,
    /// The newest sample's time, `i64::MIN` when there has been none.
    pub(crate) max_time: i64,
    /// The newest sample's value when that is a float.
    pub(crate) last_float: f64,
    pub(crate) rare: Option<Box<Rare>>,
}

/// Values over positions `start..end` of a block.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) block: u32,
    pub(crate) start: u16,
    pub(crate) end: u16,
    pub(crate) scale: Scale,
    pub(crate) bytes: Box<[u8]>,
}

/// The run that is being written.
#[derive(Debug)]
pub(crate) struct OpenRun {
    pub(crate) block: u32,
    pub(crate) start: u16,
    pub(crate) end: u16,
    pub(crate) encoder: RunEncoder,
}

/// What few series have.
#[derive(Debug, Default)]
pub(crate) struct Rare {
    pub(crate) histograms: Vec<Dated<Arc<Histogram>>>,
    pub(crate) loose: Vec<Dated<Loose>>,
    pub(crate) starts: Vec<StartRun>,
    pub(crate) exemplars: VecDeque<Dated<Exemplar>>,
}

/// Something at a time, with the generation that it belongs to.
#[derive(Debug, Clone)]
pub(crate) struct Dated<T> {
    pub(crate) time: i64,
    pub(crate) generation: u32,
    pub(crate) item: T,
}

/// A sample aside of the runs.
#[derive(Debug, Clone)]
pub(crate) struct Loose {
    pub(crate) value: Value,
    pub(crate) start_time: Option<i64>,
}

/// Every sample in order from `first` to `last` has this start time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StartRun {
    pub(crate) first: i64,
    pub(crate) last: i64,
    pub(crate) start_time: i64,
    pub(crate) generation: u32,
}

impl Series {
    pub(crate) fn new(labels: InternedLabels, metadata: Arc<Metadata>) -> Self {
        Self {
            labels,
            metadata,
            runs: Vec::new(),
            open: None,
            max_time: i64::MIN,
            last_float: 0.0,
            rare: None,
        }
    }

    /// Appends a float; `place` is `None` where the group's track has no room for the time.
    #[inline]
    pub(crate) fn push_float(
        &mut self,
        t: i64,
        place: Option<Place>,
        value: f64,
        blocks: &mut Blocks,
    ) -> bool {
        let Some(place) = place.filter(|_| t > self.max_time) else { return false };
        self.max_time = t;
        self.last_float = value;
        if let Some(open) = &mut self.open
            && open.block == place.block
        {
            open.encoder.push_absent(place.position - open.end);
            if open.encoder.push(value) {
                open.end = place.position + 1;
                return true;
            }
        }
        self.start_run(place, value, blocks);
        true
    }

    #[cold]
    fn start_run(&mut self, place: Place, value: f64, blocks: &mut Blocks) {
        // Within a block the way of writing only ever widens, so that a restless series does not make many runs.
        let previous = match &self.open {
            Some(open) if open.block == place.block => open.encoder.scale,
            _ => Scale::Decimal(0),
        };
        self.close_run();
        let mut encoder = RunEncoder::start(previous, value);
        let is_written = encoder.push(value);
        debug_assert!(is_written, "a run holds its first value");
        blocks.retain(place.block);
        self.open =
            Some(OpenRun { block: place.block, start: place.position, end: place.position + 1, encoder });
    }

    fn close_run(&mut self) {
        if let Some(OpenRun { block, start, end, encoder }) = self.open.take() {
            let scale = encoder.scale;
            self.runs.push(Run { block, start, end, scale, bytes: encoder.finish() });
        }
    }

    pub(crate) fn push_histogram(&mut self, t: i64, generation: u32, histogram: Arc<Histogram>) -> bool {
        if t <= self.max_time {
            return false;
        }
        self.max_time = t;
        self.rare_mut().histograms.push(Dated { time: t, generation, item: histogram });
        true
    }

    /// Keeps a sample that has no place in order.
    pub(crate) fn push_loose(&mut self, t: i64, generation: u32, value: Value, start_time: Option<i64>) {
        if t > self.max_time {
            self.max_time = t;
            if let Value::Float(value) = value {
                self.last_float = value;
            }
        }
        self.rare_mut().loose.push(Dated { time: t, generation, item: Loose { value, start_time } });
    }

    /// Notes the start time of the sample at `t`, which was just stored in order after the one at `before`.
    pub(crate) fn push_start(&mut self, t: i64, before: i64, generation: u32, start_time: i64) {
        let starts = &mut self.rare_mut().starts;
        match starts.last_mut() {
            Some(run)
                if run.last == before && run.start_time == start_time && run.generation == generation =>
            {
                run.last = t;
            }
            _ => starts.push(StartRun { first: t, last: t, start_time, generation }),
        }
    }

    /// Keeps an exemplar unless it is known; beyond `max` the oldest goes.
    pub(crate) fn push_exemplar(&mut self, exemplar: Exemplar, time: i64, generation: u32, max: usize) {
        let exemplars = &mut self.rare_mut().exemplars;
        if max == 0 || exemplars.iter().any(|e| e.time == time && e.item == exemplar) {
            return;
        }
        if exemplars.len() >= max {
            exemplars.pop_front();
        }
        exemplars.push_back(Dated { time, generation, item: exemplar });
    }

    fn rare_mut(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    /// The earliest time of anything that is held, `i64::MAX` when nothing is.
    pub(crate) fn min_time(&self, blocks: &Blocks) -> i64 {
        let start = |block: u32, position: u16| blocks.times(block)[usize::from(position)];
        let first_run = self.runs.first().map(|r| start(r.block, r.start));
        let open = self.open.as_ref().map(|o| start(o.block, o.start));
        let rare = self.rare.iter().flat_map(|r| {
            let histogram = r.histograms.first().map(|h| h.time);
            histogram.into_iter().chain(r.loose.iter().map(|l| l.time))
        });
        first_run.into_iter().chain(open).chain(rare).min().unwrap_or(i64::MAX)
    }

    /// Drops what `is_droppable` (newest time, generation) says.
    pub(crate) fn drop_old(&mut self, blocks: &mut Blocks, is_droppable: &impl Fn(i64, u32) -> bool) {
        let is_old = |blocks: &Blocks, block: u32, end: u16| {
            is_droppable(blocks.times(block)[usize::from(end) - 1], blocks.generation(block))
        };
        self.runs.retain(|run| {
            let keep = !is_old(blocks, run.block, run.end);
            if !keep {
                blocks.release(run.block);
            }
            keep
        });
        if self.open.as_ref().is_some_and(|open| is_old(blocks, open.block, open.end))
            && let Some(open) = self.open.take()
        {
            blocks.release(open.block);
        }
        self.runs.shrink_to_fit();
        if let Some(rare) = &mut self.rare {
            rare.histograms.retain(|h| !is_droppable(h.time, h.generation));
            rare.loose.retain(|l| !is_droppable(l.time, l.generation));
            rare.starts.retain(|s| !is_droppable(s.last, s.generation));
            rare.exemplars.retain(|e| !is_droppable(e.time, e.generation));
            let is_empty = rare.histograms.is_empty()
                && rare.loose.is_empty()
                && rare.starts.is_empty()
                && rare.exemplars.is_empty();
            if is_empty {
                self.rare = None;
            }
        }
    }

    /// Says whether nothing is held.
    pub(crate) fn is_empty(&self) -> bool {
        self.runs.is_empty() && self.open.is_none() && self.rare.is_none()
    }

    /// The newest sample of all, held or not.
    pub(crate) fn newest(&self) -> Option<Value> {
        if self.max_time == i64::MIN {
            return None;
        }
        let rare = self.rare.iter().flat_map(|r| {
            let histograms = r.histograms.last().into_iter().map(|h| (h.time, Arc::clone(&h.item)));
            histograms.chain(r.loose.iter().filter_map(|l| match &l.item.value {
                Value::Histogram(h) => Some((l.time, Arc::clone(h))),
                Value::Float(_) => None,
            }))
        });
        let histogram = rare.into_iter().find(|(t, _)| *t == self.max_time);
        Some(histogram.map_or(Value::Float(self.last_float), |(_, h)| Value::Histogram(h)))
    }

    /// Bytes of everything held, about.
    pub(crate) fn byte_len(&self) -> usize {
        let runs: usize = self.runs.iter().map(|r| size_of::<Run>() + r.bytes.len()).sum();
        let open = self.open.as_ref().map_or(0, |o| o.encoder.byte_len());
        let rare = self.rare.as_ref().map_or(0, |r| {
            size_of::<Rare>()
                + r.histograms.len() * HISTOGRAM_BYTES
                + r.loose.len() * size_of::<Dated<Loose>>()
                + r.starts.len() * size_of::<StartRun>()
                + r.exemplars.len() * size_of::<Dated<Exemplar>>()
        });
        size_of::<Self>() + self.labels.byte_len() + runs + open + rare
    }
}

/// A histogram with its buckets, about.
pub(crate) const HISTOGRAM_BYTES: usize = 400;
