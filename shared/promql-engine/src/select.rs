//! Reading series: the sample at or before each step, or the samples of a window for each step.
//!
//! Where a window begins and ends in a timeline is computed once for each timeline, not for each series: series
//! scraped together share the `Arc` of their timestamps, and [`Windows`] remembers by its address.
//!
//! Invariants:
//! - windows are open on the left and closed on the right;
//! - staleness markers end an instant vector's series and are never seen in a window;
//! - the samples of the series at hand are held; those before are released.

use std::collections::HashMap;
use std::sync::Arc;

use model::{CounterResetHint, FloatHistogram, Labels, is_stale};
use promql_syntax::{Edges, Span};

use crate::context::Context;
use crate::error::Result;
use crate::histogram::{self, Cells, IncompatibleSchemas, detect_reset, scaled};
use crate::points::{BoxOperator, Grid, Operator, Point, SeriesMeta, clear, row};
use crate::source::{Column, SeriesSamples, SeriesSet};

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
    pub(crate) const fn time(&self, step: usize) -> i64 {
        let base = match self.at {
            Some(at) => at,
            None => self.grid.time(step),
        };
        base.saturating_sub(self.offset)
    }

    /// Returns the first and the last time.
    pub(crate) const fn bounds(&self) -> (i64, i64) {
        (self.time(0), self.time(self.grid.count.saturating_sub(1)))
    }
}

/// Index ranges of a timeline, one for each step.
type Bounds = Arc<[(u32, u32)]>;

/// At most this many timelines are remembered; with more, the memory starts anew.
const TIMELINES_MAX: usize = 4_096;

/// Finds the samples in `(time - before, time + after]` for each step.
#[derive(Debug)]
struct Windows {
    when: When,
    before: i64,
    after: i64,
    known: HashMap<usize, (Arc<[i64]>, Bounds)>,
}

impl Windows {
    fn new(when: When, before: i64, after: i64) -> Self {
        Self { when, before, after, known: HashMap::new() }
    }

    fn of(&mut self, timestamps: &Arc<[i64]>) -> Bounds {
        let address = timestamps.as_ptr().addr();
        // The entry keeps its timeline alive, so the address cannot have been given to another one.
        if let Some((_, bounds)) = self.known.get(&address).filter(|(t, _)| t.len() == timestamps.len()) {
            return Arc::clone(bounds);
        }
        let bounds = self.compute(timestamps);
        // A timeline that nobody else holds will not be met again.
        if Arc::strong_count(timestamps) > 1 {
            if self.known.len() == TIMELINES_MAX {
                self.known.clear();
            }
            self.known.insert(address, (Arc::clone(timestamps), Arc::clone(&bounds)));
        }
        bounds
    }

    #[expect(clippy::cast_possible_truncation, reason = "a column has fewer than 2^32 samples")]
    fn compute(&self, timestamps: &[i64]) -> Bounds {
        let (mut low, mut high) = (0, 0);
        (0..self.when.grid.count)
            .map(|step| {
                let time = self.when.time(step);
                let (left, right) = (time.saturating_sub(self.before), time.saturating_add(self.after));
                low = advance(timestamps, low, left);
                high = advance(timestamps, high.max(low), right);
                (low as u32, high as u32)
            })
            .collect()
    }
}

/// Returns the first index at or after `from` whose timestamp is greater than `time`.
fn advance(timestamps: &[i64], from: usize, time: i64) -> usize {
    // Steps mostly move by a few samples: look nearby before searching.
    const NEAR: usize = 8;
    let near = timestamps[from..].iter().take(NEAR).take_while(|t| **t <= time).count();
    if near < NEAR { from + near } else { from + timestamps[from..].partition_point(|t| *t <= time) }
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

/// A selection opened at the source.
pub(crate) struct OpenSet {
    set: Box<dyn SeriesSet>,
    detects_hints: bool,
    held: usize,
}

impl std::fmt::Debug for OpenSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenSet").finish_non_exhaustive()
    }
}

impl OpenSet {
    pub(crate) fn new(set: Box<dyn SeriesSet>, detects_hints: bool) -> Self {
        Self { set, detects_hints, held: 0 }
    }

    fn labels(&mut self, cx: &mut Context<'_>) -> Result<Vec<Labels>> {
        cx.check()?;
        let labels = self.set.labels()?.to_vec();
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
        cx.stats.samples_read += self.held as u64;
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
    /// Its time in milliseconds; histograms are refused. For `info()`.
    InfoTime,
}

/// The newest sample at or before each step.
#[derive(Debug)]
pub(crate) struct InstantSelector {
    set: OpenSet,
    windows: Windows,
    give: Give,
    remaining: usize,
}

impl InstantSelector {
    pub(crate) fn new(set: OpenSet, when: When, lookback: i64, give: Give) -> Self {
        Self { set, windows: Windows::new(when, lookback, 0), give, remaining: 0 }
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
        let mut found = 0;
        if !floats.is_empty() {
            let bounds = self.windows.of(&floats.timestamps);
            for (point, (low, high)) in points.iter_mut().zip(bounds.iter()) {
                if low < high {
                    let newest = *high as usize - 1;
                    let value = floats.values[newest];
                    if !is_stale(value) {
                        found += 1;
                        *point = Point::Float(match self.give {
                            Give::Value => value,
                            give => time_of(floats, newest, give),
                        });
                    }
                }
            }
        }
        if !series.histograms.is_empty() {
            self.add_histograms(cx, &series, points)?;
        }
        cx.stats.samples_total += found;
        self.remaining = self.remaining.saturating_sub(1);
        if self.remaining == 0 {
            self.set.finish(cx);
        }
        cx.tick(points.len())
    }
}

impl InstantSelector {
    fn add_histograms(
        &mut self,
        cx: &mut Context<'_>,
        series: &SeriesSamples,
        points: &mut [Point],
    ) -> Result<()> {
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
                Give::Value => {
                    cx.stats.samples_total += histogram::size(histogram) as u64;
                    Point::Histogram(Arc::clone(histogram))
                }
                Give::InfoTime => {
                    return Err(crate::Error::execution("this should be an info metric, with float samples"));
                }
                give => Point::Float(time_of(histograms, newest, give)),
            };
        }
        Ok(())
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
        for (step, point) in points.iter_mut().enumerate() {
            let window = series.window(step);
            let time = self.when.time(step);
            let (floats, histograms) = (window.floats, window.histograms);
            cx.tick(floats.len() + histograms.len())?;
            if !floats.is_empty() && !histograms.is_empty() {
                let name = meta.as_ref().map_or("", |m| m.labels.metric_name());
                let text = crate::range::mixed_floats_histograms(name);
                cx.annotations.warn(text, self.span);
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
                        match interpolate_histograms(from, (histograms.times[i], next), time, is_counter) {
                            Ok(h) => Point::histogram(h),
                            Err(IncompatibleSchemas) => {
                                let name = meta.as_ref().map_or("", |m| m.labels.metric_name());
                                cx.annotations.warn(crate::range::mixed_schemas(name), self.span);
                                Point::None
                            }
                        }
                    }
                    Around::Before => Point::None,
                };
            }
        }
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

/// Interpolates between two histograms; see [`interpolate`].
#[expect(clippy::cast_precision_loss, reason = "differences of times are small")]
pub(crate) fn interpolate_histograms(
    from: (i64, &FloatHistogram),
    to: (i64, &FloatHistogram),
    time: i64,
    is_counter: bool,
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
    cells.subtract(from.1)?;
    cells.scale(share);
    cells.add(from.1)?;
    Ok(cells.finish())
}

/// Samples of one sort within a window, in time order.
#[derive(Debug)]
pub(crate) struct Slice<'a, V> {
    pub(crate) times: &'a [i64],
    pub(crate) values: &'a [V],
    /// Start timestamps, 0 where unknown; empty where there are none.
    pub(crate) starts: &'a [i64],
}

impl<V> Clone for Slice<'_, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<V> Copy for Slice<'_, V> {}

impl<'a, V> Slice<'a, V> {
    pub(crate) const fn len(&self) -> usize {
        self.values.len()
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    pub(crate) fn start(&self, index: usize) -> i64 {
        self.starts.get(index).copied().unwrap_or(0)
    }

    pub(crate) fn from(self, index: usize) -> Self {
        let starts = self.starts.get(index..).unwrap_or(&[]);
        Self { times: &self.times[index..], values: &self.values[index..], starts }
    }
}

/// The samples a range function sees at one step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window<'a> {
    /// The time of the evaluation.
    pub(crate) time: i64,
    /// The range, without what `anchored` and `smoothed` look at beyond it; the start is not part of it.
    pub(crate) start: i64,
    pub(crate) end: i64,
    pub(crate) floats: Slice<'a, f64>,
    pub(crate) histograms: Slice<'a, Arc<FloatHistogram>>,
}

/// The windows of one series.
#[derive(Debug)]
pub(crate) struct RangeSeries<'a> {
    when: When,
    range: i64,
    floats: &'a Column<f64>,
    histograms: &'a Column<Arc<FloatHistogram>>,
    float_bounds: Bounds,
    histogram_bounds: Bounds,
}

impl RangeSeries<'_> {
    pub(crate) fn window(&self, step: usize) -> Window<'_> {
        let end = self.when.time(step);
        Window {
            time: self.when.grid.time(step),
            start: end.saturating_sub(self.range),
            end,
            floats: slice(self.floats, self.float_bounds[step]),
            histograms: slice(self.histograms, self.histogram_bounds[step]),
        }
    }

    /// Returns all floats of the series.
    pub(crate) fn all_floats(&self) -> &[f64] {
        &self.floats.values
    }

    pub(crate) const fn has_start_timestamps(&self) -> bool {
        self.floats.start_timestamps.is_some()
    }
}

fn slice<V>(column: &Column<V>, (low, high): (u32, u32)) -> Slice<'_, V> {
    let range = low as usize..high as usize;
    Slice {
        times: &column.timestamps[range.clone()],
        values: &column.values[range.clone()],
        starts: column.start_timestamps.as_ref().map_or(&[], |starts| &starts[range]),
    }
}

/// Where a range comes from.
#[derive(Debug)]
enum From {
    Selector(OpenSet),
    Subquery(Inner),
}

/// The inside of a subquery.
struct Inner {
    operator: BoxOperator,
    grid: Grid,
    row: Vec<Point>,
    held: usize,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("grid", &self.grid).finish_non_exhaustive()
    }
}

/// A range selector or a subquery: for each series the samples of a window at each step.
#[derive(Debug)]
pub(crate) struct RangeInput {
    from: From,
    windows: Windows,
    range: i64,
    edges: Edges,
    uses_start_timestamps: bool,
    remaining: usize,
    current: SeriesSamples,
    /// The times of a subquery's steps, shared by its series that have a point at every step.
    full_timeline: Option<Arc<[i64]>>,
}

impl RangeInput {
    pub(crate) fn selector(set: OpenSet, when: When, range: i64, edges: Edges, cx: &Context<'_>) -> Self {
        let (before, after) = match edges {
            Edges::Plain => (0, 0),
            Edges::Anchored => (cx.lookback_ms, 0),
            Edges::Smoothed => (cx.lookback_ms, cx.lookback_ms),
        };
        let windows = Windows::new(when, range.saturating_add(before), after);
        let uses_start_timestamps = cx.options.start_timestamps;
        Self {
            from: From::Selector(set),
            windows,
            range,
            edges,
            uses_start_timestamps,
            remaining: 0,
            current: SeriesSamples::default(),
            full_timeline: None,
        }
    }

    pub(crate) fn subquery(operator: BoxOperator, grid: Grid, when: When, range: i64) -> Self {
        Self {
            from: From::Subquery(Inner { operator, grid, row: row(grid.count), held: 0 }),
            windows: Windows::new(when, range, 0),
            range,
            edges: Edges::Plain,
            uses_start_timestamps: false,
            remaining: 0,
            current: SeriesSamples::default(),
            full_timeline: None,
        }
    }

    pub(crate) const fn edges(&self) -> Edges {
        self.edges
    }

    /// The range's length in milliseconds.
    pub(crate) const fn range_ms(&self) -> i64 {
        self.range
    }

    /// Returns the series.
    pub(crate) fn series(&mut self, cx: &mut Context<'_>) -> Result<Vec<SeriesMeta>> {
        let metas: Vec<SeriesMeta> = match &mut self.from {
            From::Selector(set) => set.labels(cx)?.into_iter().map(SeriesMeta::new).collect(),
            From::Subquery(inner) => inner.operator.series(cx)?,
        };
        self.remaining = metas.len();
        Ok(metas)
    }

    /// Reads the next series.
    pub(crate) fn next(&mut self, cx: &mut Context<'_>) -> Result<RangeSeries<'_>> {
        self.current = match &mut self.from {
            From::Selector(set) => {
                let mut samples = set.next(cx)?;
                if !self.uses_start_timestamps {
                    samples.floats.start_timestamps = None;
                    samples.histograms.start_timestamps = None;
                }
                drop_stale(&mut samples.floats, |x| is_stale(*x));
                drop_stale(&mut samples.histograms, |h| is_stale(h.sum));
                samples
            }
            From::Subquery(inner) => inner.next(cx, &mut self.full_timeline)?,
        };
        self.remaining = self.remaining.saturating_sub(1);
        let (floats, histograms) = (&self.current.floats, &self.current.histograms);
        Ok(RangeSeries {
            when: self.windows.when,
            range: self.range,
            float_bounds: self.windows.of(&floats.timestamps),
            histogram_bounds: self.windows.of(&histograms.timestamps),
            floats,
            histograms,
        })
    }

    /// Says that no series is left; releases the last one.
    pub(crate) fn finish_if_done(&mut self, cx: &mut Context<'_>) {
        if self.remaining == 0 {
            match &mut self.from {
                From::Selector(set) => set.finish(cx),
                From::Subquery(inner) => cx.release(std::mem::take(&mut inner.held)),
            }
            self.current = SeriesSamples::default();
        }
    }
}

/// Removes staleness markers; a column without one keeps its shared timeline.
fn drop_stale<V>(column: &mut Column<V>, is_marker: impl Fn(&V) -> bool) {
    if !column.values.iter().any(&is_marker) {
        return;
    }
    let keep: Vec<bool> = column.values.iter().map(|v| !is_marker(v)).collect();
    let kept = |values: &[i64]| -> Vec<i64> {
        values.iter().zip(&keep).filter(|(_, keep)| **keep).map(|(t, _)| *t).collect()
    };
    column.timestamps = kept(&column.timestamps).into();
    if let Some(starts) = &mut column.start_timestamps {
        *starts = kept(starts);
    }
    column.values.retain(|v| !is_marker(v));
}

impl Inner {
    /// Evaluates the next series and takes its points for samples.
    fn next(
        &mut self,
        cx: &mut Context<'_>,
        full_timeline: &mut Option<Arc<[i64]>>,
    ) -> Result<SeriesSamples> {
        cx.release(std::mem::take(&mut self.held));
        clear(&mut self.row);
        self.operator.next(cx, &mut self.row)?;
        self.held = cx.hold_row(&self.row)?;
        let (mut floats, mut float_times) = (Vec::new(), Vec::new());
        let (mut histograms, mut histogram_times) = (Vec::new(), Vec::new());
        for (step, point) in self.row.iter_mut().enumerate() {
            match std::mem::take(point) {
                Point::None => {}
                Point::Float(x) => {
                    float_times.push(self.grid.time(step));
                    floats.push(x);
                }
                Point::Histogram(mut h) => {
                    // Samples between the steps are not seen, and one sample may be seen at several steps, so
                    // what the hints say is not true of these neighbours.
                    if matches!(h.counter_reset_hint, CounterResetHint::Reset | CounterResetHint::NotReset) {
                        Arc::make_mut(&mut h).counter_reset_hint = CounterResetHint::Unknown;
                    }
                    histogram_times.push(self.grid.time(step));
                    histograms.push(h);
                }
            }
        }
        let timeline = if float_times.len() == self.grid.count {
            Arc::clone(full_timeline.get_or_insert_with(|| self.grid.times().collect()))
        } else {
            float_times.into()
        };
        Ok(SeriesSamples {
            floats: Column::new(timeline, floats),
            histograms: Column::new(histogram_times.into(), histograms),
        })
    }
}
