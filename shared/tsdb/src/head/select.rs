//! Turns what the head holds of a series into the columns that readers and files take.

use std::sync::Arc;

use model::{Exemplar, Timestamp, Value};

use super::codec::decode;
use super::series::{Rare, Series};
use super::timeline::{Blocks, TimelineCache};
use crate::merge::{compare_exemplars, merge};
use crate::series::{FloatColumn, HistogramColumn, SeriesSamples, Timeline};

/// Which samples are wanted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) min_time: i64,
    pub(crate) max_time: i64,
    /// The first generation wanted.
    pub(crate) first: u32,
    /// The last generation wanted.
    pub(crate) last: u32,
}

impl Wanted {
    /// Everything in a range of time.
    pub(crate) fn times(min_time: i64, max_time: i64) -> Self {
        Self { min_time, max_time, first: 0, last: u32::MAX }
    }

    /// Everything of some generations.
    pub(crate) fn generations(first: u32, last: u32) -> Self {
        Self { min_time: i64::MIN, max_time: i64::MAX, first, last }
    }

    fn takes(&self, time: i64, generation: u32) -> bool {
        (self.min_time..=self.max_time).contains(&time) && (self.first..=self.last).contains(&generation)
    }
}

/// Reads series one after the other, sharing timelines and buffers among them.
#[derive(Debug, Default)]
pub(crate) struct SeriesReader {
    pub(crate) timelines: TimelineCache,
    positions: Vec<u16>,
    decoded: Vec<f64>,
    values: Vec<f64>,
    pieces: Vec<(u32, u16, u16)>,
}

impl SeriesReader {
    /// Returns the wanted samples; `None` when there is nothing at all.
    pub(crate) fn read(
        &mut self,
        series: &Series,
        blocks: &Blocks,
        wanted: &Wanted,
    ) -> Option<SeriesSamples> {
        let floats = self.read_floats(series, blocks, wanted);
        let samples = match &series.rare {
            None => SeriesSamples { floats, ..SeriesSamples::default() },
            Some(rare) => self.read_rare(rare, floats, wanted),
        };
        (!samples.is_empty()).then_some(samples)
    }

    fn read_floats(&mut self, series: &Series, blocks: &Blocks, wanted: &Wanted) -> FloatColumn {
        self.values.clear();
        self.pieces.clear();
        // Filled only once a run has gaps: until then the pieces say it all.
        let mut times: Option<Vec<i64>> = None;
        let closed = series.runs.iter().map(|r| (r.block, r.start, r.end, r.scale, &*r.bytes));
        let open = series.open.iter().map(|o| (o.block, o.start, o.end, o.encoder.scale, o.encoder.bytes()));
        for (block, start, end, scale, bytes) in closed.chain(open) {
            let block_times = blocks.times(block);
            let run_times = &block_times[usize::from(start)..usize::from(end)];
            let (Some(first), Some(last)) = (run_times.first(), run_times.last()) else { continue };
            let is_generation_wanted = (wanted.first..=wanted.last).contains(&blocks.generation(block));
            if !is_generation_wanted || *last < wanted.min_time || *first > wanted.max_time {
                continue;
            }
            self.positions.clear();
            self.decoded.clear();
            decode(scale, start, bytes, &mut self.positions, &mut self.decoded);
            let time = |p: &u16| block_times[usize::from(*p)];
            let from = self.positions.partition_point(|p| time(p) < wanted.min_time);
            let to = self.positions.partition_point(|p| time(p) <= wanted.max_time);
            if from >= to {
                continue;
            }
            let positions = &self.positions[from..to];
            self.values.extend_from_slice(&self.decoded[from..to]);
            let (first, last) = (positions[0], positions[positions.len() - 1]);
            let is_dense = usize::from(last - first) + 1 == positions.len();
            if !is_dense && times.is_none() {
                let so_far = self
                    .pieces
                    .iter()
                    .flat_map(|(b, s, e)| blocks.times(*b)[usize::from(*s)..usize::from(*e)].iter().copied());
                times = Some(so_far.collect());
            }
            match &mut times {
                Some(times) => times.extend(positions.iter().map(time)),
                None => match self.pieces.last_mut() {
                    Some(piece) if piece.0 == block && piece.2 == first => piece.2 = last + 1,
                    _ => self.pieces.push((block, first, last + 1)),
                },
            }
        }
        if self.values.is_empty() {
            return FloatColumn::default();
        }
        let timestamps = match times {
            Some(times) => self.timelines.of_times(times),
            None => self.timelines.of_pieces(&self.pieces, blocks),
        };
        FloatColumn { timestamps, values: Arc::from(self.values.as_slice()) }
    }

    fn read_rare(&mut self, rare: &Rare, floats: FloatColumn, wanted: &Wanted) -> SeriesSamples {
        let histograms = rare.histograms.iter().filter(|h| wanted.takes(h.time, h.generation));
        let (times, values): (Vec<i64>, Vec<_>) = histograms.map(|h| (h.time, Arc::clone(&h.item))).unzip();
        let histograms = if times.is_empty() {
            HistogramColumn::default()
        } else {
            HistogramColumn { timestamps: self.timelines.of_times(times), values: values.into() }
        };
        let mut start_timestamps = Vec::new();
        for run in &rare.starts {
            for times in [&floats.timestamps, &histograms.timestamps] {
                let from = times.partition_point(|t| *t < run.first);
                let to = times.partition_point(|t| *t <= run.last);
                start_timestamps.extend(times[from..to].iter().map(|t| (*t, run.start_time)));
            }
        }
        start_timestamps.sort_unstable();
        let mut exemplars: Vec<Exemplar> = rare
            .exemplars
            .iter()
            .filter(|e| wanted.takes(e.time, e.generation))
            .map(|e| Exemplar { timestamp: Some(Timestamp(e.time)), ..e.item.clone() })
            .collect();
        exemplars.sort_by(compare_exemplars);
        let in_order = SeriesSamples {
            floats,
            histograms,
            start_timestamps: start_timestamps.into(),
            exemplars: exemplars.into(),
        };
        let mut loose: Vec<_> = rare.loose.iter().filter(|l| wanted.takes(l.time, l.generation)).collect();
        if loose.is_empty() {
            return in_order;
        }
        loose.sort_by_key(|l| l.time);
        let mut parts = vec![in_order];
        // A part holds each time once: what repeats a time waits for the next one.
        while !loose.is_empty() {
            let mut part = PartBuilder::default();
            loose.retain(|l| !part.take(l.time, &l.item.value, l.item.start_time));
            parts.push(part.finish());
        }
        let mut merged = merge(&parts);
        merged.floats.timestamps = self.timelines.of_times(merged.floats.timestamps.to_vec());
        merged
    }
}

/// Collects samples of ascending times.
#[derive(Default)]
struct PartBuilder {
    newest: Option<i64>,
    float_times: Vec<i64>,
    floats: Vec<f64>,
    histogram_times: Vec<i64>,
    histograms: Vec<Arc<model::Histogram>>,
    starts: Vec<(i64, i64)>,
}

impl PartBuilder {
    /// Takes a sample unless its time is there already.
    fn take(&mut self, t: i64, value: &Value, start_time: Option<i64>) -> bool {
        if self.newest == Some(t) {
            return false;
        }
        self.newest = Some(t);
        match value {
            Value::Float(value) => {
                self.float_times.push(t);
                self.floats.push(*value);
            }
            Value::Histogram(value) => {
                self.histogram_times.push(t);
                self.histograms.push(Arc::clone(value));
            }
        }
        self.starts.extend(start_time.map(|s| (t, s)));
        true
    }

    fn finish(self) -> SeriesSamples {
        SeriesSamples {
            floats: FloatColumn { timestamps: Timeline::from(self.float_times), values: self.floats.into() },
            histograms: HistogramColumn {
                timestamps: Timeline::from(self.histogram_times),
                values: self.histograms.into(),
            },
            start_timestamps: self.starts.into(),
            exemplars: Arc::from([]),
        }
    }
}
