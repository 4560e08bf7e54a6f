//! `metric smoothed`, and interpolation between samples.

use std::sync::Arc;

use model::{CounterResetHint, FloatHistogram};
use promql_syntax::Span;

use super::{RangeInput, When};
use crate::context::Context;
use crate::error::Result;
use crate::histogram::{Cells, IncompatibleSchemas, detect_reset, scaled};
use crate::points::{Operator, Point, SeriesMeta};
use crate::range::Notes;

/// `metric smoothed`: the value at each step, interpolated between the samples around it.
#[derive(Debug)]
pub(crate) struct SmoothedSelector {
    input: RangeInput,
    when: When,
    span: Span,
    metas: std::vec::IntoIter<SeriesMeta>,
}

impl SmoothedSelector {
    /// The input's windows reach one lookback to both sides of each step.
    pub(crate) fn new(input: RangeInput, when: When, span: Span) -> Self {
        Self { input, when, span, metas: Vec::new().into_iter() }
    }
}

impl Operator for SmoothedSelector {
    fn series(&mut self, cx: &mut Context<'_>) -> Result<Vec<SeriesMeta>> {
        let metas = self.input.series(cx)?;
        self.metas = metas.clone().into_iter();
        Ok(metas)
    }

    fn next(&mut self, cx: &mut Context<'_>, points: &mut [Point]) -> Result<()> {
        let meta = self.metas.next();
        let series = self.input.next(cx)?;
        let mut notes = Notes::default();
        for (step, point) in points.iter_mut().enumerate() {
            let window = series.window(step);
            let time = self.when.time(step);
            let (floats, histograms) = (window.floats, window.histograms);
            cx.tick(floats.len() + histograms.len())?;
            if !floats.is_empty() && !histograms.is_empty() {
                notes.mixed_floats_histograms = true;
            } else if !floats.is_empty() {
                *point = match around(floats.times, time) {
                    Around::At(i) | Around::After(i) => Point::Float(floats.values[i]),
                    Around::Between(i) => Point::Float(interpolate(
                        (floats.times[i - 1], floats.values[i - 1]),
                        (floats.times[i], floats.values[i]),
                        time,
                        false,
                    )),
                    Around::Before => Point::None,
                };
            } else if !histograms.is_empty() {
                *point = match around(histograms.times, time) {
                    Around::At(i) | Around::After(i) => Point::Histogram(Arc::clone(&histograms.values[i])),
                    Around::Between(i) => {
                        let next = &histograms.values[i];
                        let is_counter = next.counter_reset_hint != CounterResetHint::Gauge;
                        let from = (histograms.times[i - 1], &*histograms.values[i - 1]);
                        let pair = (from, (histograms.times[i], &**next));
                        match interpolate_histograms(pair, time, is_counter, &mut notes) {
                            Ok(h) => Point::histogram(h),
                            Err(IncompatibleSchemas) => {
                                notes.mixed_schemas = true;
                                Point::None
                            }
                        }
                    }
                    Around::Before => Point::None,
                };
            }
        }
        notes.write(cx, meta.as_ref().map_or("", |m| m.labels.metric_name()), self.span);
        self.input.finish_if_done(cx);
        Ok(())
    }
}

enum Around {
    /// The sample with this index is at the time.
    At(usize),
    /// The time lies between the sample before this index and the one with it.
    Between(usize),
    /// All samples lie before the time; this is the last.
    After(usize),
    /// All samples lie after the time.
    Before,
}

fn around(times: &[i64], time: i64) -> Around {
    let next = times.partition_point(|t| *t < time);
    match times.get(next) {
        Some(t) if *t == time => Around::At(next),
        Some(_) if next > 0 => Around::Between(next),
        None if next > 0 => Around::After(next - 1),
        _ => Around::Before,
    }
}

/// Interpolates between two samples. A counter that was reset between them is taken to restart from zero.
#[expect(clippy::cast_precision_loss, reason = "differences of times are small")]
pub(crate) fn interpolate(from: (i64, f64), to: (i64, f64), time: i64, is_counter: bool) -> f64 {
    let start = if is_counter && to.1 < from.1 { 0.0 } else { from.1 };
    start + (to.1 - start) * (time - from.0) as f64 / (to.0 - from.0) as f64
}

/// A histogram with its time.
type Timed<'a> = (i64, &'a FloatHistogram);

/// Interpolates between two histograms; see [`interpolate`].
#[expect(clippy::cast_precision_loss, reason = "differences of times are small")]
pub(crate) fn interpolate_histograms(
    (from, to): (Timed<'_>, Timed<'_>),
    time: i64,
    is_counter: bool,
    notes: &mut Notes,
) -> std::result::Result<FloatHistogram, IncompatibleSchemas> {
    if from.1.uses_custom_buckets() != to.1.uses_custom_buckets() {
        return Err(IncompatibleSchemas);
    }
    if time == from.0 {
        return Ok(from.1.clone());
    }
    if time == to.0 {
        return Ok(to.1.clone());
    }
    let share = (time - from.0) as f64 / (to.0 - from.0) as f64;
    if is_counter && detect_reset(to.1, from.1) {
        return Ok(scaled(to.1, share));
    }
    let mut cells = Cells::new(to.1);
    notes.reconciled_subtraction |= cells.subtract(from.1)?.was_reconciled;
    cells.scale(share);
    notes.reconciled_addition |= cells.add(from.1)?.was_reconciled;
    Ok(cells.finish())
}
