//! Reading series: the sample at or before each step, or the samples of a window for each step.
//!
//! Where a window begins and ends in a timeline is computed once for each timeline, not for each series: series
//! scraped together share the `Arc` of their timestamps, and [`Windows`] remembers by its address.
//!
//! Invariants:
//! - windows are open on the left and closed on the right;
//! - staleness markers end an instant vector's series and are never seen in a window;
//! - the samples of the series at hand are held; those before are released.

mod range;
mod smoothed;
mod windows;

use std::sync::Arc;

use model::{CounterResetHint, FloatHistogram, Labels, is_stale};

use crate::context::{Context, CutSlot};
use crate::error::Result;
use crate::faults::or_fault;
use crate::histogram::{self, detect_reset};
use crate::partial::Counted;
use crate::points::{Grid, Operator, Point, SeriesMeta};
use crate::source::{Column, SeriesSamples, SeriesSet};

pub(crate) use range::RangeInput;
pub(crate) use smoothed::{SmoothedSelector, interpolate, interpolate_histograms};
use windows::Windows;
pub(crate) use windows::{Slice, Window};

/// The time at which a selector looks, for each step of a grid.
#[derive(Debug, Clone, Copy)]
pub(crate) struct When {
    pub(crate) grid: Grid,
    /// Fixed by `@`.
    pub(crate) at: Option<i64>,
    pub(crate) offset: i64,
}

impl When {
    #[inline]
    pub(crate) fn time(&self, step: usize) -> i64 {
        let base = match or_fault!(AtModifier, self.at, None) {
            Some(at) => at,
            None => self.grid.time(step),
        };
        base.saturating_sub(or_fault!(OffsetSign, self.offset, -self.offset))
    }

    /// Returns the first and the last time.
    pub(crate) fn bounds(&self) -> (i64, i64) {
        (self.time(0), self.time(self.grid.count.saturating_sub(1)))
    }
}

fn samples_of(series: &SeriesSamples) -> usize {
    series.floats.len() + series.histograms.values.iter().map(|h| histogram::size(h)).sum::<usize>()
}

/// Replaces hints by what can be seen from one histogram to the next, as Prometheus does where only count and sum
/// of the histograms are used.
fn detect_hints(histograms: &mut Column<Arc<FloatHistogram>>) {
    let before = histograms.values.clone();
    for (current, previous) in histograms.values[1..].iter_mut().zip(&before) {
        if current.counter_reset_hint == CounterResetHint::Unknown && !is_stale(previous.sum) {
            let hint = match detect_reset(current, previous) {
                true => CounterResetHint::Reset,
                false => CounterResetHint::NotReset,
            };
            Arc::make_mut(current).counter_reset_hint = hint;
        }
    }
}

/// What a label set takes in memory besides its text.
const LABELS_BYTES: usize = 64;

/// A selection opened at the source.
pub(crate) struct OpenSet {
    set: Box<dyn SeriesSet>,
    detects_hints: bool,
    /// Where to say what came, inside of an aggregation that is cut.
    cut: Option<usize>,
    held: usize,
}

impl std::fmt::Debug for OpenSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenSet").finish_non_exhaustive()
    }
}

impl OpenSet {
    pub(crate) fn new(set: Box<dyn SeriesSet>, detects_hints: bool, cut: Option<usize>) -> Self {
        Self { set, detects_hints, cut, held: 0 }
    }

    fn labels(&mut self, cx: &mut Context<'_>) -> Result<Vec<Labels>> {
        cx.check()?;
        let labels = self.set.labels()?.to_vec();
        if let Some(cut) = self.cut {
            cx.fill_cut(cut, CutSlot { labels: labels.clone(), partials: self.set.partials()? });
        }
        // For the whole query: what operators make of the labels is of that size as well.
        cx.hold_bytes(labels.iter().map(|l| l.byte_len() + LABELS_BYTES).sum())?;
        if labels.is_empty() {
            self.finish(cx);
        }
        Ok(labels)
    }

    /// Reads the next series; the one before is taken to be gone.
    fn next(&mut self, cx: &mut Context<'_>) -> Result<SeriesSamples> {
        cx.release(std::mem::take(&mut self.held));
        let Some(mut samples) = self.set.next()? else {
            cx.annotations.add_warnings_of_source(self.set.warnings());
            return Ok(SeriesSamples::default());
        };
        if self.detects_hints && samples.histograms.len() > 1 {
            detect_hints(&mut samples.histograms);
        }
        self.held = samples_of(&samples);
        cx.hold(self.held)?;
        cx.tick(self.held)?;
        Ok(samples)
    }

    fn finish(&mut self, cx: &mut Context<'_>) {
        cx.release(std::mem::take(&mut self.held));
        cx.annotations.add_warnings_of_source(self.set.warnings());
    }
}

/// What an instant selector gives for a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Give {
    /// Its value.
    Value,
    /// Its time in seconds, for `timestamp()`.
    Time,
    /// Its start time in seconds, for `start_timestamp()`.
    StartTime,
    /// Its time in milliseconds; a histogram as it is. For `info()`, which refuses histograms.
    InfoTime,
}

/// The newest sample at or before each step.
#[derive(Debug)]
pub(crate) struct InstantSelector {
    set: OpenSet,
    windows: Windows,
    give: Give,
    counted: Counted,
    remaining: usize,
}

impl InstantSelector {
    pub(crate) fn new(set: OpenSet, when: When, lookback: i64, give: Give, counted: Counted) -> Self {
        Self {
            set,
            windows: Windows::new(when, or_fault!(LookbackEdge, lookback, lookback + 1), 0),
            give,
            counted,
            remaining: 0,
        }
    }
}

impl Operator for InstantSelector {
    fn series(&mut self, cx: &mut Context<'_>) -> Result<Vec<SeriesMeta>> {
        let labels = self.set.labels(cx)?;
        self.remaining = labels.len();
        let drops_name = matches!(self.give, Give::Time | Give::StartTime);
        let meta = labels.into_iter().map(SeriesMeta::new);
        if drops_name { Ok(meta.map(|m| m.without_name(cx)).collect()) } else { Ok(meta.collect()) }
    }

    fn next(&mut self, cx: &mut Context<'_>, points: &mut [Point]) -> Result<()> {
        let series = self.set.next(cx)?;
        let floats = &series.floats;
        let counts_steps = cx.counts_steps();
        let mut found = 0;
        if !floats.is_empty() {
            let bounds = self.windows.of(&floats.timestamps);
            for (step, (point, (low, high))) in points.iter_mut().zip(bounds.iter()).enumerate() {
                if low < high {
                    let newest = *high as usize - 1;
                    let value = floats.values[newest];
                    if or_fault!(MarkerShown, !is_stale(value), true) {
                        found += 1;
                        if counts_steps {
                            cx.count(self.counted, step, 1, 1);
                        }
                        *point = Point::Float(match self.give {
                            Give::Value => value,
                            give => time_of(floats, newest, give),
                        });
                    }
                }
            }
        }
        if !counts_steps {
            cx.count(self.counted, 0, found, found);
        }
        if !series.histograms.is_empty() {
            self.add_histograms(cx, &series, points);
        }
        self.remaining = self.remaining.saturating_sub(1);
        if self.remaining == 0 {
            self.set.finish(cx);
        }
        cx.tick(points.len())
    }
}

impl InstantSelector {
    fn add_histograms(&mut self, cx: &mut Context<'_>, series: &SeriesSamples, points: &mut [Point]) {
        let (floats, histograms) = (&series.floats, &series.histograms);
        let float_bounds = self.windows.of(&floats.timestamps);
        let bounds = self.windows.of(&histograms.timestamps);
        for (step, (low, high)) in bounds.iter().enumerate() {
            if low >= high {
                continue;
            }
            let newest = *high as usize - 1;
            let (float_low, float_high) = float_bounds[step];
            if float_low < float_high
                && floats.timestamps[float_high as usize - 1] > histograms.timestamps[newest]
            {
                continue;
            }
            let histogram = &histograms.values[newest];
            points[step] = match self.give {
                _ if is_stale(histogram.sum) => Point::None,
                Give::Value | Give::InfoTime => {
                    let size = histogram::size(histogram);
                    cx.count(self.counted, step, size, size);
                    Point::Histogram(Arc::clone(histogram))
                }
                give => Point::Float(time_of(histograms, newest, give)),
            };
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "PromQL's time is a float")]
fn time_of<V>(column: &Column<V>, index: usize, give: Give) -> f64 {
    let time = column.timestamps[index];
    match give {
        Give::StartTime => {
            let start = column.start_timestamps.as_ref().map_or(0, |starts| starts[index]);
            start as f64 / 1000.0
        }
        Give::InfoTime => time as f64,
        Give::Time | Give::Value => time as f64 / 1000.0,
    }
}
