//! Functions over ranges: `rate`, `*_over_time`, `deriv` and the rest.
//!
//! A function looks at one window at a time and gives a point or nothing. What it has to say to the user it sets in
//! [`Notes`], which the operator turns into annotations once for each series.

mod extended;
mod histograms;
mod over_time;
mod rate;
mod trend;

use model::FloatHistogram;
use model::number::{Quoted, format_general};
use promql_syntax::{Edges, Span};

use crate::context::{Context, HISTOGRAM_WORK};
use crate::error::{Error, Result};
use crate::faults::or_fault;
use crate::points::{Operator, Point, SeriesMeta, StepSet};
use crate::scalar::{ScalarOperator, Scalars};
use crate::select::{RangeInput, Window};

pub(crate) use extended::with_edges;
pub(crate) use histograms::{Hints, HistogramMean, largest};
pub(crate) use over_time::quantile;

/// A function over a range vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RangeFunction {
    Rate,
    Increase,
    Delta,
    Irate,
    Idelta,
    Resets,
    Changes,
    Deriv,
    PredictLinear,
    DoubleExponentialSmoothing,
    Sum,
    Avg,
    Count,
    Min,
    Max,
    Present,
    First,
    Last,
    Stddev,
    Stdvar,
    Mad,
    Quantile,
    TsOfFirst,
    TsOfLast,
    TsOfMin,
    TsOfMax,
}

impl RangeFunction {
    /// Finds the function with a name; `None` when it is another sort of function.
    pub(crate) fn find(name: &str) -> Option<Self> {
        Some(match name {
            "rate" => Self::Rate,
            "increase" => Self::Increase,
            "delta" => Self::Delta,
            "irate" => Self::Irate,
            "idelta" => Self::Idelta,
            "resets" => Self::Resets,
            "changes" => Self::Changes,
            "deriv" => Self::Deriv,
            "predict_linear" => Self::PredictLinear,
            "double_exponential_smoothing" => Self::DoubleExponentialSmoothing,
            "sum_over_time" => Self::Sum,
            "avg_over_time" => Self::Avg,
            "count_over_time" => Self::Count,
            "min_over_time" => Self::Min,
            "max_over_time" => Self::Max,
            "present_over_time" => Self::Present,
            "first_over_time" => Self::First,
            "last_over_time" => Self::Last,
            "stddev_over_time" => Self::Stddev,
            "stdvar_over_time" => Self::Stdvar,
            "mad_over_time" => Self::Mad,
            "quantile_over_time" => Self::Quantile,
            "ts_of_first_over_time" => Self::TsOfFirst,
            "ts_of_last_over_time" => Self::TsOfLast,
            "ts_of_min_over_time" => Self::TsOfMin,
            "ts_of_max_over_time" => Self::TsOfMax,
            _ => return None,
        })
    }

    /// Says whether the result is one of the samples, so that the metric name still fits.
    const fn keeps_name(self) -> bool {
        matches!(self, Self::First | Self::Last)
    }
}

/// Refuses functions that cannot see samples beyond the window's edges.
pub(crate) fn check_edges(edges: Edges, name: &str) -> Result<()> {
    let (modifier, functions): (_, &[&str]) = match edges {
        Edges::Plain => return Ok(()),
        Edges::Anchored => ("anchored", &["changes", "delta", "increase", "rate", "resets"]),
        Edges::Smoothed => ("smoothed", &["delta", "increase", "rate"]),
    };
    if functions.contains(&name) {
        return Ok(());
    }
    let functions = functions.join(", ");
    Err(Error::Execution(format!("{modifier} modifier can only be used with: {functions} - not with {name}")))
}

fn mixed_floats_histograms(metric: &str) -> String {
    format!("encountered a mix of histograms and floats for metric name {}", Quoted(metric))
}

pub(crate) fn mixed_schemas(metric: &str) -> String {
    format!(
        "vector contains a mix of histograms with exponential and custom buckets schemas for metric name {}",
        Quoted(metric)
    )
}

pub(crate) fn invalid_quantile(q: f64) -> String {
    format!("quantile value should be between 0 and 1, got {}", format_general(q))
}

pub(crate) fn is_invalid_quantile(q: f64) -> bool {
    // NaN is not within the range either.
    !(0.0..=1.0).contains(&q)
}

/// What the windows of one series gave rise to say.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Notes {
    pub(crate) mixed_floats_histograms: bool,
    pub(crate) mixed_schemas: bool,
    pub(crate) not_a_counter: bool,
    pub(crate) not_a_gauge: bool,
    pub(crate) ignored_histograms: bool,
    pub(crate) reconciled_addition: bool,
    pub(crate) reconciled_subtraction: bool,
    pub(crate) reconciled_aggregation: bool,
    pub(crate) conflicting_resets: bool,
    /// How many windows held a sample whose counter started before the sample before it.
    pub(crate) start_time_overlaps: u64,
}

impl Notes {
    /// Adds what one window gave rise to.
    fn add(&mut self, other: Self) {
        self.mixed_floats_histograms |= other.mixed_floats_histograms;
        self.mixed_schemas |= other.mixed_schemas;
        self.not_a_counter |= other.not_a_counter;
        self.not_a_gauge |= other.not_a_gauge;
        self.ignored_histograms |= other.ignored_histograms;
        self.reconciled_addition |= other.reconciled_addition;
        self.reconciled_subtraction |= other.reconciled_subtraction;
        self.reconciled_aggregation |= other.reconciled_aggregation;
        self.conflicting_resets |= other.conflicting_resets;
        self.start_time_overlaps += other.start_time_overlaps;
    }

    pub(crate) fn write(&self, cx: &mut Context<'_>, metric: &str, span: Span) {
        let annotations = &mut cx.annotations;
        if self.mixed_floats_histograms {
            annotations.warn(mixed_floats_histograms(metric), span);
        }
        if self.mixed_schemas {
            annotations.warn(mixed_schemas(metric), span);
        }
        for (is_set, sort) in [(self.not_a_counter, "counter"), (self.not_a_gauge, "gauge")] {
            if is_set {
                let text = format!("this native histogram metric is not a {sort}: {}", Quoted(metric));
                annotations.warn(text, span);
            }
        }
        if self.ignored_histograms {
            let text = format!(
                "ignored histograms in a range containing both floats and histograms for metric name {}",
                Quoted(metric)
            );
            annotations.info(text, span);
        }
        for (is_set, operation) in [
            (self.reconciled_addition, "addition"),
            (self.reconciled_subtraction, "subtraction"),
            (self.reconciled_aggregation, "aggregation"),
        ] {
            if is_set {
                annotations.info(reconciled(operation), span);
            }
        }
        if self.conflicting_resets {
            annotations.warn(conflicting_resets("aggregation"), span);
        }
        if self.start_time_overlaps > 0 {
            annotations.start_time_overlap(metric, span, self.start_time_overlaps);
        }
    }
}

pub(crate) fn reconciled(operation: &str) -> String {
    format!("mismatched custom buckets were reconciled during {operation}")
}

pub(crate) fn conflicting_resets(operation: &str) -> String {
    format!("conflicting counter resets during histogram {operation}")
}

/// The scalar arguments at one step.
type Arguments = [f64; 2];

/// What a call asks of a window.
#[derive(Debug, Clone, Copy)]
struct Call<'a> {
    function: RangeFunction,
    edges: Edges,
    range_seconds: f64,
    /// The places at which the window's floats fall, where they are counted and start timestamps play no part.
    falls: Option<&'a [Fall]>,
}

/// A float smaller than the one before it.
#[derive(Debug, Clone, Copy)]
struct Fall {
    /// Its place in the series.
    index: u32,
    /// The float before it.
    from: f64,
}

/// Finds where the floats of a series fall: once for all windows.
fn find_falls(values: &[f64], falls: &mut Vec<Fall>) {
    falls.clear();
    for (index, pair) in (1..).zip(values.windows(2)) {
        if or_fault!(CounterReset, pair[1] < pair[0], false) {
            falls.push(Fall { index, from: pair[0] });
        }
    }
}

/// Returns the falls between the samples of a window.
fn falls_within(falls: &[Fall], (low, high): (u32, u32)) -> &[Fall] {
    let begin = falls.partition_point(|fall| fall.index <= low);
    let end = falls.partition_point(|fall| fall.index < high);
    falls.get(begin..end).unwrap_or(&[])
}

/// Space that is used again from window to window.
#[derive(Debug, Default)]
struct Scratch {
    values: Vec<f64>,
}

fn apply(
    call: Call<'_>,
    window: &Window<'_>,
    arguments: Arguments,
    notes: &mut Notes,
    scratch: &mut Scratch,
) -> Result<Point> {
    use RangeFunction as F;
    let is_extended = call.edges != Edges::Plain;
    Ok(match call.function {
        F::Rate | F::Increase | F::Delta if is_extended => extended::rate(call, window, notes),
        F::Rate | F::Increase | F::Delta => rate::extrapolated(call, window, notes),
        F::Irate => rate::instant(window, true, notes),
        F::Idelta => rate::instant(window, false, notes),
        F::Resets => rate::resets(window, call.edges),
        F::Changes => rate::changes(window, call.edges),
        F::Deriv => trend::deriv(window, notes),
        F::PredictLinear => trend::predict_linear(window, arguments[0], notes),
        F::DoubleExponentialSmoothing => trend::smoothing(window, arguments, notes)?,
        F::Sum => over_time::sum(window, notes),
        F::Avg => over_time::avg(window, notes),
        F::Count => over_time::count(window),
        F::Present => over_time::present(window),
        F::First => over_time::first(window),
        F::Last => over_time::last(window),
        F::TsOfFirst => over_time::ts_of_first(window),
        F::TsOfLast => over_time::ts_of_last(window),
        F::Min | F::Max | F::TsOfMin | F::TsOfMax => over_time::extreme(call.function, window, notes),
        F::Stddev | F::Stdvar => over_time::variance(window, call.function == F::Stddev, notes),
        F::Mad => over_time::mad(window, notes, &mut scratch.values),
        F::Quantile => over_time::quantile_of(window, arguments[0], notes, &mut scratch.values),
    })
}

/// Evaluates a range function, one series at a time.
#[derive(Debug)]
pub(crate) struct RangeCall {
    input: RangeInput,
    function: RangeFunction,
    scalars: Vec<ScalarOperator>,
    values: Vec<Scalars>,
    /// Where the annotations point: the first argument.
    span: Span,
    inputs: std::vec::IntoIter<SeriesMeta>,
    falls: Vec<Fall>,
    scratch: Scratch,
}

impl RangeCall {
    pub(crate) fn new(
        input: RangeInput,
        function: RangeFunction,
        scalars: Vec<ScalarOperator>,
        span: Span,
    ) -> Self {
        Self {
            input,
            function,
            scalars,
            values: Vec::new(),
            span,
            inputs: Vec::new().into_iter(),
            falls: Vec::new(),
            scratch: Scratch::default(),
        }
    }
}

impl Operator for RangeCall {
    fn series(&mut self, cx: &mut Context<'_>) -> Result<Vec<SeriesMeta>> {
        for mut scalar in std::mem::take(&mut self.scalars) {
            self.values.push(scalar.values(cx)?);
        }
        let inputs = self.input.series(cx)?;
        let out = match self.function.keeps_name() {
            true => inputs.clone(),
            false => inputs.iter().map(|m| m.without_name(cx)).collect(),
        };
        self.inputs = inputs.into_iter();
        Ok(out)
    }

    fn next(&mut self, cx: &mut Context<'_>, points: &mut [Point]) -> Result<()> {
        let meta = self.inputs.next();
        let edges = self.input.edges();
        #[expect(clippy::cast_precision_loss, reason = "ranges are small")]
        let range_seconds = self.input.range_ms() as f64 / 1000.0;
        let series = self.input.next(cx)?;
        let is_counting = matches!(self.function, RangeFunction::Rate | RangeFunction::Increase);
        let knows_falls = is_counting && !series.has_start_timestamps();
        if knows_falls {
            find_falls(series.all_floats(), &mut self.falls);
        }
        let mut notes = Notes::default();
        let mut has_float = false;
        for (step, point) in points.iter_mut().enumerate() {
            let window = series.window(step);
            let samples = window.floats.len() + window.histograms.len();
            if samples == 0 {
                continue;
            }
            series.count(cx, step);
            cx.tick(window.floats.len() + window.histograms.len() * HISTOGRAM_WORK)?;
            let argument = |i: usize| self.values.get(i).map_or(0.0, |v| v.at(step));
            let arguments = [argument(0), argument(1)];
            if self.function == RangeFunction::Quantile
                && is_invalid_quantile(arguments[0])
                && !window.floats.is_empty()
            {
                cx.annotations.warn(invalid_quantile(arguments[0]), self.span);
            }
            let falls = knows_falls.then(|| falls_within(&self.falls, series.floats_within(step)));
            let call = Call { function: self.function, edges, range_seconds, falls };
            *point = apply(call, &window, arguments, &mut notes, &mut self.scratch)?;
            has_float |= matches!(point, Point::Float(_));
        }
        let name = meta.as_ref().map_or("", |m| m.labels.metric_name());
        notes.write(cx, name, self.span);
        if is_counting && has_float && !name.is_empty() {
            let type_label = meta.as_ref().map_or("", |m| m.labels.value(model::labels::METRIC_TYPE));
            note_if_not_a_counter(cx, name, type_label, self.span);
        }
        self.input.finish_if_done(cx);
        Ok(())
    }
}

fn note_if_not_a_counter(cx: &mut Context<'_>, name: &str, type_label: &str, span: Span) {
    if cx.options.type_and_unit_labels {
        if !matches!(type_label, "counter" | "histogram") {
            let text = format!(
                "metric might not be a counter, __type__ label is not set to \"counter\" or \"histogram\", got \
                 {}: {}",
                Quoted(type_label),
                Quoted(name)
            );
            cx.annotations.info(text, span);
        }
    } else if !["_total", "_sum", "_count", "_bucket"].iter().any(|suffix| name.ends_with(suffix)) {
        let text = format!(
            "metric might not be a counter, name does not end in _total/_sum/_count/_bucket: {}",
            Quoted(name)
        );
        cx.annotations.info(text, span);
    }
}

/// `absent_over_time`: 1 at the steps at which no series has a sample in its window.
#[derive(Debug)]
pub(crate) struct AbsentOverTime {
    input: RangeInput,
    labels: model::Labels,
}

impl AbsentOverTime {
    pub(crate) fn new(input: RangeInput, labels: model::Labels) -> Self {
        Self { input, labels }
    }
}

impl Operator for AbsentOverTime {
    fn series(&mut self, _: &mut Context<'_>) -> Result<Vec<SeriesMeta>> {
        Ok(vec![SeriesMeta::new(self.labels.clone())])
    }

    fn next(&mut self, cx: &mut Context<'_>, points: &mut [Point]) -> Result<()> {
        let count = self.input.series(cx)?.len();
        let mut present = StepSet::new(points.len());
        for _ in 0..count {
            let series = self.input.next(cx)?;
            for step in 0..points.len() {
                let window = series.window(step);
                let samples = window.floats.len() + window.histograms.len();
                series.count(cx, step);
                if samples > 0 {
                    present.insert(step);
                }
            }
            cx.tick(points.len())?;
            self.input.finish_if_done(cx);
        }
        for (step, point) in points.iter_mut().enumerate() {
            if !present.contains(step) {
                *point = Point::Float(1.0);
            }
        }
        Ok(())
    }
}

/// Returns the histograms' common gauge-ness: what functions on counters and gauges warn about.
fn is_gauge(h: &FloatHistogram) -> bool {
    h.counter_reset_hint == model::CounterResetHint::Gauge
}
