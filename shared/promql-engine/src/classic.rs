//! `histogram_quantile`, `histogram_quantiles` and `histogram_fraction`, of native histograms and of classic ones,
//! whose buckets are series told apart by the label `le`.
//!
//! Invariant: the rows of a classic histogram's buckets are held until the last of them is read, not longer.

use std::collections::HashMap;

use model::Labels;
use model::number::{Quoted, format_general, parse_float};
use promql_syntax::Span;

use crate::annotations::{Monotonicity, push_metric};
use crate::context::Context;
use crate::error::Result;
use crate::faults::or_fault;
use crate::histogram::{self, NanEffect};
use crate::points::{BoxOperator, Grid, Operator, Point, SeriesMeta, clear, row};
use crate::range::{invalid_quantile, is_invalid_quantile};
use crate::scalar::{ScalarOperator, Scalars};

/// The label of a classic histogram's bucket.
const BUCKET_LABEL: &str = "le";

/// What is computed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum HistogramFunction {
    /// Takes one quantile, or with a label several.
    Quantiles { label: Option<String> },
    /// Takes the lower and the upper bound.
    Fraction,
}

/// Where the annotations point.
#[derive(Debug, Clone)]
pub(crate) struct HistogramSpans {
    /// The histograms.
    pub(crate) vector: Span,
    /// One for each quantile.
    pub(crate) quantiles: Vec<Span>,
}

/// One histogram: the input series that are its buckets, or it itself.
struct Group {
    labels: Labels,
    drop_name: bool,
    last_input: usize,
    buckets: Vec<(f64, Vec<Point>)>,
    native: Option<Vec<Point>>,
    held: usize,
}

/// Evaluates a [`HistogramFunction`].
pub(crate) struct Histograms {
    input: BoxOperator,
    function: HistogramFunction,
    scalars: Vec<ScalarOperator>,
    values: Vec<Scalars>,
    spans: HistogramSpans,
    grid: Grid,
    /// Of each input series: its labels, its group and its upper bound.
    inputs: Vec<(Labels, usize, Option<f64>)>,
    read: usize,
    groups: Vec<Option<Group>>,
    /// The groups in the order in which they become complete.
    order: Vec<usize>,
    emitted: usize,
    /// What is shown of each group, one output series each.
    shown: Vec<Shown>,
    /// The group being shown and how much of it was.
    current: Option<(Group, usize)>,
}

/// One output of each group.
#[derive(Debug, Clone)]
struct Shown {
    /// Which of the scalars is the quantile.
    which: usize,
    /// The value of the label that tells the quantile, and the quantile itself: it shows at those steps only.
    labelled: Option<(String, f64)>,
}

impl Histograms {
    pub(crate) fn new(
        input: BoxOperator,
        function: HistogramFunction,
        scalars: Vec<ScalarOperator>,
        spans: HistogramSpans,
        grid: Grid,
    ) -> Self {
        Self {
            input,
            function,
            scalars,
            values: Vec::new(),
            spans,
            grid,
            inputs: Vec::new(),
            read: 0,
            groups: Vec::new(),
            order: Vec::new(),
            emitted: 0,
            shown: Vec::new(),
            current: None,
        }
    }

    /// Finds what is shown of each group: with a label, one series for each value a quantile takes.
    fn find_shown(&mut self) {
        if !matches!(self.function, HistogramFunction::Quantiles { label: Some(_) }) {
            self.shown = vec![Shown { which: 0, labelled: None }];
            return;
        }
        for (which, values) in self.values.iter().enumerate() {
            let steps = match values {
                Scalars::Constant(_) => 1,
                Scalars::Steps(values) => values.len(),
            };
            let mut seen: Vec<u64> = (0..steps).map(|step| values.at(step).to_bits()).collect();
            seen.sort_unstable();
            seen.dedup();
            self.shown.extend(seen.into_iter().map(f64::from_bits).map(|q| {
                let labelled = Some((open_metrics_float(q), q));
                Shown { which, labelled }
            }));
        }
    }

    fn note_invalid_quantiles(&self, cx: &mut Context<'_>) {
        if matches!(self.function, HistogramFunction::Quantiles { .. }) {
            for (values, span) in self.values.iter().zip(&self.spans.quantiles) {
                let steps = match values {
                    Scalars::Constant(_) => 1,
                    Scalars::Steps(values) => values.len(),
                };
                for q in (0..steps).map(|i| values.at(i)).filter(|q| is_invalid_quantile(*q)) {
                    cx.annotations.warn(invalid_quantile(q), *span);
                }
            }
        }
    }

    /// Reads input series until a group is complete.
    fn complete(&mut self, cx: &mut Context<'_>, wanted: usize) -> Result<Group> {
        let last = self.groups[wanted].as_ref().map_or(0, |g| g.last_input);
        while self.read <= last {
            let mut points = row(self.grid.count);
            self.input.next(cx, &mut points)?;
            let (labels, group, upper) = &self.inputs[self.read];
            self.read += 1;
            let Some(group) = &mut self.groups[*group] else { continue };
            let has_floats = points.iter().any(|p| matches!(p, Point::Float(_)));
            let has_histograms = points.iter().any(|p| matches!(p, Point::Histogram(_)));
            if has_floats && upper.is_none() {
                let mut text = format!(
                    "bucket label \"le\" is missing or has a malformed value of {}",
                    Quoted(labels.value(BUCKET_LABEL))
                );
                push_metric(&mut text, shown_name(cx, labels));
                cx.annotations.warn(text, self.spans.vector);
            }
            group.held += cx.hold_row(&points)?;
            match upper {
                Some(upper) if has_floats => group.buckets.push((*upper, points)),
                _ if has_histograms => group.native = Some(points),
                _ => {}
            }
        }
        Ok(self.groups[wanted].take().expect("each group is completed once"))
    }

    fn show(&self, cx: &mut Context<'_>, group: &Group, shown: &Shown, points: &mut [Point]) -> Result<()> {
        let which = shown.which;
        let mut buckets = Vec::with_capacity(group.buckets.len());
        let metric = shown_name(cx, &group.labels);
        for (step, point) in points.iter_mut().enumerate() {
            if shown
                .labelled
                .as_ref()
                .is_some_and(|(_, q)| q.to_bits() != self.values[which].at(step).to_bits())
            {
                continue;
            }
            buckets.clear();
            buckets.extend(group.buckets.iter().filter_map(|(upper, row)| match row[step] {
                Point::Float(count) => Some(ClassicBucket { upper: *upper, count }),
                _ => None,
            }));
            let native = match group.native.as_ref().map(|row| &row[step]) {
                Some(Point::Histogram(h)) => Some(h),
                _ => None,
            };
            cx.tick(buckets.len())?;
            match native {
                Some(_) if !buckets.is_empty() => {
                    let text = "vector contains a mix of classic and native histograms";
                    let mut text = text.to_owned();
                    push_metric(&mut text, metric);
                    cx.annotations.warn(text, self.spans.vector);
                }
                Some(h) => *point = Point::Float(self.of_native(cx, h, metric, which, step)),
                None if !buckets.is_empty() => {
                    *point = Point::Float(self.of_classic(cx, &mut buckets, metric, which, step));
                }
                None => {}
            }
        }
        Ok(())
    }

    fn of_native(
        &self,
        cx: &mut Context<'_>,
        h: &model::FloatHistogram,
        metric: &str,
        which: usize,
        step: usize,
    ) -> f64 {
        let (value, text) = match self.function {
            HistogramFunction::Quantiles { .. } => {
                let (value, effect) = histogram::quantile(h, self.values[which].at(step));
                let text = match effect {
                    NanEffect::None => None,
                    NanEffect::Skewed => {
                        Some("input to histogram_quantile has NaN observations, result is skewed higher")
                    }
                    NanEffect::Result => {
                        Some("input to histogram_quantile has NaN observations, result is NaN")
                    }
                };
                (value, text)
            }
            HistogramFunction::Fraction => {
                let (value, has_nans) =
                    histogram::fraction(h, self.values[0].at(step), self.values[1].at(step));
                let text = "input to histogram_fraction has NaN observations, which are excluded from all \
                            fractions";
                (value, has_nans.then_some(text))
            }
        };
        if let Some(text) = text {
            let mut text = text.to_owned();
            push_metric(&mut text, metric);
            cx.annotations.info(text, self.spans.vector);
        }
        value
    }

    fn of_classic(
        &self,
        cx: &mut Context<'_>,
        buckets: &mut Vec<ClassicBucket>,
        metric: &str,
        which: usize,
        step: usize,
    ) -> f64 {
        if self.function == HistogramFunction::Fraction {
            return classic_fraction(self.values[0].at(step), self.values[1].at(step), buckets);
        }
        let (value, forced) = classic_quantile(self.values[which].at(step), buckets);
        if let Some(forced) = forced {
            let time = self.grid.time(step);
            cx.annotations.forced_monotonicity(Monotonicity {
                metric: metric.to_owned(),
                span: self.spans.vector,
                count: 1,
                buckets: (forced.first, forced.last),
                max_difference: forced.max_difference,
                times: (time, time),
            });
        }
        value
    }
}

/// Returns the metric name that annotations show: the functions drop it first, unless that is done in the end.
fn shown_name<'a>(cx: &Context<'_>, labels: &'a Labels) -> &'a str {
    if cx.options.delayed_name_removal { labels.metric_name() } else { "" }
}

impl Operator for Histograms {
    fn series(&mut self, cx: &mut Context<'_>) -> Result<Vec<SeriesMeta>> {
        for mut scalar in std::mem::take(&mut self.scalars) {
            self.values.push(scalar.values(cx)?);
        }
        let metas = self.input.series(cx)?;
        self.note_invalid_quantiles(cx);
        self.find_shown();
        let mut by_labels: HashMap<Labels, usize> = HashMap::new();
        for (i, meta) in metas.into_iter().enumerate() {
            cx.tick(meta.labels.byte_len())?;
            let upper = parse_float(meta.labels.value(BUCKET_LABEL)).filter(|x| !x.is_nan());
            let key = meta.labels.filtered(|name| name != BUCKET_LABEL || upper.is_none());
            let group = *by_labels.entry(key).or_insert_with_key(|key| {
                let shown = SeriesMeta::new(key.clone()).without_name(cx);
                self.groups.push(Some(Group {
                    labels: key.clone(),
                    drop_name: shown.drop_name,
                    last_input: i,
                    buckets: Vec::new(),
                    native: None,
                    held: 0,
                }));
                self.groups.len() - 1
            });
            if let Some(group) = &mut self.groups[group] {
                group.last_input = i;
            }
            self.inputs.push((meta.labels, group, upper));
        }
        self.order = (0..self.groups.len()).collect();
        self.order.sort_by_key(|g| self.groups[*g].as_ref().map(|g| g.last_input));
        let mut out = Vec::new();
        for group in self.order.iter().filter_map(|g| self.groups[*g].as_ref()) {
            let labels = match group.drop_name {
                true => group.labels.clone(),
                false => group.labels.without_metric_name(),
            };
            for shown in &self.shown {
                let labels = match (&self.function, &shown.labelled) {
                    (HistogramFunction::Quantiles { label: Some(label) }, Some((value, _))) => {
                        labels.with(label, value)
                    }
                    _ => labels.clone(),
                };
                out.push(SeriesMeta { labels, drop_name: group.drop_name });
            }
        }
        Ok(out)
    }

    fn next(&mut self, cx: &mut Context<'_>, points: &mut [Point]) -> Result<()> {
        let (group, at) = match self.current.take() {
            Some((group, shown)) => (group, shown),
            None => {
                let wanted = self.order[self.emitted];
                self.emitted += 1;
                (self.complete(cx, wanted)?, 0)
            }
        };
        clear(points);
        self.show(cx, &group, &self.shown[at], points)?;
        if at + 1 < self.shown.len() {
            self.current = Some((group, at + 1));
        } else {
            cx.release(group.held);
        }
        Ok(())
    }
}

/// Prints a number as a label value of OpenMetrics: with a point or an exponent.
fn open_metrics_float(x: f64) -> String {
    let text = format_general(x);
    if text.bytes().all(|b| b.is_ascii_digit() || b == b'-') { text + ".0" } else { text }
}

/// A bucket of a classic histogram: how many observations are at most `upper`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct ClassicBucket {
    pub(crate) upper: f64,
    pub(crate) count: f64,
}

/// What had to be done to make counts ascend.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Forced {
    first: f64,
    last: f64,
    max_difference: f64,
}

/// Differences this small, relative to the counts, come from rounding.
const SMALL_DELTA_TOLERANCE: f64 = 1e-12;

/// Sorts buckets and joins those with one bound; `None` when the highest is not infinite.
fn prepare(buckets: &mut Vec<ClassicBucket>) -> Option<()> {
    buckets.sort_by(|a, b| a.upper.total_cmp(&b.upper));
    if buckets.last()?.upper != f64::INFINITY {
        return None;
    }
    buckets.dedup_by(|next, kept| {
        let is_same = next.upper == kept.upper;
        if is_same {
            kept.count += next.count;
        }
        is_same
    });
    Some(())
}

fn force_monotonic(buckets: &mut [ClassicBucket]) -> Option<Forced> {
    let mut forced: Option<Forced> = None;
    let mut previous = buckets[0].count;
    for bucket in &mut buckets[1..] {
        let current = bucket.count;
        if current == previous {
            continue;
        }
        if is_almost_equal(previous, current) {
            bucket.count = previous;
        } else if current < previous {
            let difference = previous - current;
            let known = forced.get_or_insert(Forced {
                first: bucket.upper,
                last: bucket.upper,
                max_difference: difference,
            });
            known.last = bucket.upper;
            known.max_difference = known.max_difference.max(difference);
            bucket.count = previous;
        } else {
            previous = current;
        }
    }
    forced
}

fn is_almost_equal(a: f64, b: f64) -> bool {
    if a.is_nan() || b.is_nan() {
        return a.is_nan() && b.is_nan();
    }
    let (difference, sum) = ((a - b).abs(), a.abs() + b.abs());
    if a == 0.0 || b == 0.0 || sum < f64::MIN_POSITIVE {
        return difference < SMALL_DELTA_TOLERANCE * f64::MIN_POSITIVE;
    }
    difference / sum.min(f64::MAX) < SMALL_DELTA_TOLERANCE
}

/// Estimates a quantile by linear interpolation within a bucket.
fn classic_quantile(q: f64, buckets: &mut Vec<ClassicBucket>) -> (f64, Option<Forced>) {
    if q.is_nan() {
        return (f64::NAN, None);
    }
    if q < 0.0 {
        return (f64::NEG_INFINITY, None);
    }
    if q > 1.0 {
        return (f64::INFINITY, None);
    }
    if prepare(buckets).is_none() {
        return (f64::NAN, None);
    }
    let forced = force_monotonic(buckets);
    let highest = buckets.len() - 1;
    if buckets.len() < 2 || buckets[highest].count == 0.0 {
        return (f64::NAN, None);
    }
    let mut rank = q * buckets[highest].count;
    let is_before = |count: f64| or_fault!(ClassicBucketBoundary, count < rank, count <= rank);
    let b = buckets[..highest].partition_point(|b| is_before(b.count) || b.count.is_nan());
    if b == highest {
        return (buckets[highest - 1].upper, forced);
    }
    if b == 0 && buckets[0].upper <= 0.0 {
        return (buckets[0].upper, forced);
    }
    let (mut start, end, mut count) = (0.0, buckets[b].upper, buckets[b].count);
    if b > 0 {
        start = buckets[b - 1].upper;
        count -= buckets[b - 1].count;
        rank -= buckets[b - 1].count;
    }
    (start + (end - start) * (rank / count), forced)
}

/// Estimates the fraction of observations between two values by linear interpolation within buckets.
fn classic_fraction(lower: f64, upper: f64, buckets: &mut Vec<ClassicBucket>) -> f64 {
    if lower.is_nan() || upper.is_nan() || prepare(buckets).is_none() {
        return f64::NAN;
    }
    let count = buckets[buckets.len() - 1].count;
    if count == 0.0 {
        return f64::NAN;
    }
    if lower >= upper {
        return 0.0;
    }
    let (mut rank, mut lower_rank, mut upper_rank) = (0.0, None, None);
    for (i, bucket) in buckets.iter().enumerate() {
        // A first bucket that ends above zero begins there.
        let start = match i {
            0 if bucket.upper > 0.0 => 0.0,
            0 => f64::NEG_INFINITY,
            _ => buckets[i - 1].upper,
        };
        for (value, found) in [(lower, &mut lower_rank), (upper, &mut upper_rank)] {
            if found.is_some() {
                continue;
            }
            if start >= value {
                *found = Some(rank);
            } else if bucket.upper > value {
                let share = histogram::linear_share_below(start, bucket.upper, value);
                *found = Some(rank + (bucket.count - rank) * share);
            }
        }
        rank = bucket.count;
    }
    let at_most = |rank: Option<f64>| rank.filter(|r| *r <= count).unwrap_or(count);
    (at_most(upper_rank) - at_most(lower_rank)) / count
}
