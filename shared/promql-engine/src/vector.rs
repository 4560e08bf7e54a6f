//! Functions over instant vectors that look at one sample at a time, and those that change order or labels.

use model::Labels;
use model::labels::METRIC_NAME;
use promql_syntax::Span;

use crate::civil::Civil;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::histogram;
use crate::points::{BoxOperator, Grid, Operator, Point, SeriesMeta, StepSet, clear, row};
use crate::scalar::{ScalarOperator, Scalars, go_max, go_min};

/// A function of one sample, which drops the metric name.
#[derive(Debug, Clone, Copy)]
pub(crate) enum MapFunction {
    /// Of a float.
    Float(fn(f64) -> f64),
    /// Of a float taken for a Unix time.
    Date(fn(&Civil) -> f64),
    /// Of a histogram.
    Histogram(fn(&model::FloatHistogram) -> f64),
    /// `round(v, to)`
    Round,
    Clamp,
    ClampMin,
    ClampMax,
    /// `timestamp(v)` of anything but a selector: the time of the evaluation.
    Timestamp,
    Negate,
}

impl MapFunction {
    /// Finds the function with a name; `None` when it is another sort of function.
    pub(crate) fn find(name: &str) -> Option<Self> {
        Some(match name {
            "abs" => Self::Float(f64::abs),
            "ceil" => Self::Float(f64::ceil),
            "floor" => Self::Float(f64::floor),
            "exp" => Self::Float(f64::exp),
            "ln" => Self::Float(f64::ln),
            "log2" => Self::Float(f64::log2),
            "log10" => Self::Float(f64::log10),
            "sqrt" => Self::Float(f64::sqrt),
            "sgn" => Self::Float(|x| if x == 0.0 || x.is_nan() { x } else { x.signum() }),
            "sin" => Self::Float(f64::sin),
            "cos" => Self::Float(f64::cos),
            "tan" => Self::Float(f64::tan),
            "asin" => Self::Float(f64::asin),
            "acos" => Self::Float(f64::acos),
            "atan" => Self::Float(f64::atan),
            "sinh" => Self::Float(f64::sinh),
            "cosh" => Self::Float(f64::cosh),
            "tanh" => Self::Float(f64::tanh),
            "asinh" => Self::Float(f64::asinh),
            "acosh" => Self::Float(f64::acosh),
            "atanh" => Self::Float(f64::atanh),
            "rad" => Self::Float(|x| x * std::f64::consts::PI / 180.0),
            "deg" => Self::Float(|x| x * 180.0 / std::f64::consts::PI),
            "minute" => Self::Date(|d| f64::from(d.minute)),
            "hour" => Self::Date(|d| f64::from(d.hour)),
            "day_of_week" => Self::Date(|d| f64::from(d.weekday)),
            "day_of_month" => Self::Date(|d| f64::from(d.day)),
            "day_of_year" => Self::Date(|d| f64::from(d.day_of_year)),
            "days_in_month" => Self::Date(|d| f64::from(d.days_in_month())),
            "month" => Self::Date(|d| f64::from(d.month)),
            #[expect(clippy::cast_precision_loss, reason = "years are small")]
            "year" => Self::Date(|d| d.year as f64),
            "histogram_count" => Self::Histogram(|h| h.count),
            "histogram_sum" => Self::Histogram(|h| h.sum),
            "histogram_avg" => Self::Histogram(|h| h.sum / h.count),
            "histogram_stdvar" => Self::Histogram(histogram::variance),
            "histogram_stddev" => Self::Histogram(|h| histogram::variance(h).sqrt()),
            "round" => Self::Round,
            "clamp" => Self::Clamp,
            "clamp_min" => Self::ClampMin,
            "clamp_max" => Self::ClampMax,
            "timestamp" => Self::Timestamp,
            _ => return None,
        })
    }
}

/// Applies a [`MapFunction`].
pub(crate) struct Map {
    input: BoxOperator,
    function: MapFunction,
    scalars: Vec<ScalarOperator>,
    values: Vec<Scalars>,
    grid: Grid,
}

impl Map {
    pub(crate) fn new(
        input: BoxOperator,
        function: MapFunction,
        scalars: Vec<ScalarOperator>,
        grid: Grid,
    ) -> Self {
        Self { input, function, scalars, values: Vec::new(), grid }
    }
}

impl Operator for Map {
    fn series(&mut self, cx: &mut Context<'_>) -> Result<Vec<SeriesMeta>> {
        for mut scalar in std::mem::take(&mut self.scalars) {
            self.values.push(scalar.values(cx)?);
        }
        Ok(self.input.series(cx)?.iter().map(|m| m.without_name(cx)).collect())
    }

    fn next(&mut self, cx: &mut Context<'_>, points: &mut [Point]) -> Result<()> {
        self.input.next(cx, points)?;
        for (step, point) in points.iter_mut().enumerate() {
            let argument = |i: usize| self.values.get(i).map(|v| v.at(step));
            *point = match (&*point, self.function) {
                (Point::None, _) => continue,
                #[expect(clippy::cast_precision_loss, reason = "PromQL's time is a float")]
                (_, MapFunction::Timestamp) => Point::Float(self.grid.time(step) as f64 / 1000.0),
                (Point::Histogram(h), MapFunction::Histogram(f)) => Point::Float(f(h)),
                (Point::Histogram(h), MapFunction::Negate) => Point::histogram(histogram::scaled(h, -1.0)),
                (Point::Float(x), MapFunction::Float(f)) => Point::Float(f(*x)),
                (Point::Float(x), MapFunction::Date(f)) => Point::Float(f(&date(*x))),
                (Point::Float(x), MapFunction::Negate) => Point::Float(-x),
                (Point::Float(x), MapFunction::Round) => {
                    // The inverse loses less precision.
                    let inverse = 1.0 / argument(0).unwrap_or(1.0);
                    Point::Float((x * inverse + 0.5).floor() / inverse)
                }
                (Point::Float(x), MapFunction::Clamp) => {
                    clamped(*x, argument(0).unwrap_or(f64::NAN), argument(1).unwrap_or(f64::NAN))
                }
                (Point::Float(x), MapFunction::ClampMin) => {
                    clamped(*x, argument(0).unwrap_or(f64::NAN), f64::INFINITY)
                }
                (Point::Float(x), MapFunction::ClampMax) => {
                    clamped(*x, f64::NEG_INFINITY, argument(0).unwrap_or(f64::NAN))
                }
                (Point::Float(_), MapFunction::Histogram(_)) | (Point::Histogram(_), _) => Point::None,
            };
        }
        cx.tick_row(points)
    }
}

fn clamped(x: f64, min: f64, max: f64) -> Point {
    if max < min { Point::None } else { Point::Float(go_max(min, go_min(max, x))) }
}

#[expect(clippy::cast_possible_truncation, reason = "saturates, as far as any calendar reaches")]
fn date(seconds: f64) -> Civil {
    // Within this the arithmetic of dates does not overflow.
    const SECONDS_MAX: i64 = i64::MAX / 1_000;
    Civil::from_unix((seconds as i64).clamp(-SECONDS_MAX, SECONDS_MAX))
}

/// `vector(s)`, and dates of the evaluation's time: one series without labels.
pub(crate) struct FromScalar {
    scalar: ScalarOperator,
    date: Option<fn(&Civil) -> f64>,
}

impl FromScalar {
    pub(crate) fn vector(scalar: ScalarOperator) -> Self {
        Self { scalar, date: None }
    }

    pub(crate) fn date(date: fn(&Civil) -> f64, grid: Grid) -> Self {
        Self { scalar: ScalarOperator::Time(grid), date: Some(date) }
    }
}

impl Operator for FromScalar {
    fn series(&mut self, _: &mut Context<'_>) -> Result<Vec<SeriesMeta>> {
        Ok(vec![SeriesMeta::new(Labels::empty())])
    }

    fn next(&mut self, cx: &mut Context<'_>, points: &mut [Point]) -> Result<()> {
        let values = self.scalar.values(cx)?;
        for (step, point) in points.iter_mut().enumerate() {
            let value = values.at(step);
            *point = Point::Float(match self.date {
                // A time before the epoch is cut towards zero, as Go's division does.
                Some(of) => of(&date(value.trunc())),
                None => value,
            });
        }
        Ok(())
    }
}

/// `absent(v)`: 1 at the steps at which no series has a sample.
pub(crate) struct Absent {
    input: BoxOperator,
    labels: Labels,
}

impl Absent {
    pub(crate) fn new(input: BoxOperator, labels: Labels) -> Self {
        Self { input, labels }
    }
}

impl Operator for Absent {
    fn series(&mut self, _: &mut Context<'_>) -> Result<Vec<SeriesMeta>> {
        Ok(vec![SeriesMeta::new(self.labels.clone())])
    }

    fn next(&mut self, cx: &mut Context<'_>, points: &mut [Point]) -> Result<()> {
        let count = self.input.series(cx)?.len();
        let mut present = StepSet::new(points.len());
        let mut input = row(points.len());
        for _ in 0..count {
            clear(&mut input);
            self.input.next(cx, &mut input)?;
            present.insert_row(&input);
            cx.tick(input.len())?;
        }
        for (step, point) in points.iter_mut().enumerate() {
            if !present.contains(step) {
                *point = Point::Float(1.0);
            }
        }
        Ok(())
    }
}

/// A change of labels.
#[derive(Debug)]
pub(crate) enum Relabel {
    Replace { target: String, replacement: String, source: String, pattern: regex::Regex },
    Join { target: String, separator: String, sources: Vec<String> },
}

impl Relabel {
    /// Checks the arguments of `label_replace`.
    pub(crate) fn replace(target: &str, replacement: &str, source: &str, pattern: &str) -> Result<Self> {
        let invalid =
            || Error::Execution(format!("invalid regular expression in label_replace(): {pattern}"));
        let compiled = model::matcher::Pattern::new(pattern).map_err(|_| invalid())?;
        if target.is_empty() {
            let message = format!("invalid destination label name in label_replace(): {target}");
            return Err(Error::Execution(message));
        }
        Ok(Self::Replace {
            target: target.to_owned(),
            replacement: replacement.to_owned(),
            source: source.to_owned(),
            pattern: compiled.regex().clone(),
        })
    }

    /// Checks the arguments of `label_join`.
    pub(crate) fn join(target: &str, separator: &str, sources: Vec<String>) -> Result<Self> {
        if sources.iter().any(String::is_empty) {
            return Err(Error::execution("invalid source label name in label_join(): "));
        }
        if target.is_empty() {
            return Err(Error::execution("invalid destination label name in label_join(): "));
        }
        Ok(Self::Join { target: target.to_owned(), separator: separator.to_owned(), sources })
    }

    fn apply(&self, meta: SeriesMeta) -> SeriesMeta {
        let (target, value) = match self {
            Self::Replace { target, replacement, source, pattern } => {
                let Some(captures) = pattern.captures(meta.labels.value(source)) else { return meta };
                let mut value = String::new();
                expand(replacement, &captures, &mut value);
                (target, value)
            }
            Self::Join { target, separator, sources } => {
                let values: Vec<&str> = sources.iter().map(|s| meta.labels.value(s)).collect();
                (target, values.join(separator))
            }
        };
        let labels = meta.labels.with(target, &value);
        // Whoever sets the name wants to keep it.
        SeriesMeta { labels, drop_name: meta.drop_name && target != METRIC_NAME }
    }
}

/// Expands `$1`, `${name}` and `$$` as Go does: a name is the longest run of letters, digits and underscores.
fn expand(template: &str, captures: &regex::Captures<'_>, out: &mut String) {
    captures.expand(template, out);
}

/// Changes the labels of series.
pub(crate) struct RelabelOperator {
    input: BoxOperator,
    relabel: Relabel,
}

impl RelabelOperator {
    pub(crate) fn new(input: BoxOperator, relabel: Relabel) -> Self {
        Self { input, relabel }
    }
}

impl Operator for RelabelOperator {
    fn series(&mut self, cx: &mut Context<'_>) -> Result<Vec<SeriesMeta>> {
        let inputs = self.input.series(cx)?;
        let mut out = Vec::with_capacity(inputs.len());
        for input in inputs {
            cx.tick(input.labels.byte_len())?;
            out.push(self.relabel.apply(input));
        }
        Ok(out)
    }

    fn next(&mut self, cx: &mut Context<'_>, points: &mut [Point]) -> Result<()> {
        self.input.next(cx, points)
    }
}

/// An order of series.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Order {
    Value { is_descending: bool },
    Labels { names: Vec<String>, is_descending: bool },
}

/// `sort` and its kin. Only an instant query has an order; in a range query they say so and pass everything on.
pub(crate) struct Sort {
    input: BoxOperator,
    order: Order,
    is_range: bool,
    span: Span,
    sorted: std::vec::IntoIter<Point>,
}

impl Sort {
    pub(crate) fn new(input: BoxOperator, order: Order, is_range: bool, span: Span) -> Self {
        Self { input, order, is_range, span, sorted: Vec::new().into_iter() }
    }
}

impl Operator for Sort {
    fn series(&mut self, cx: &mut Context<'_>) -> Result<Vec<SeriesMeta>> {
        if self.is_range {
            let text = "sort is ineffective for range queries since results are always ordered by labels";
            cx.annotations.warn(text, self.span);
            return self.input.series(cx);
        }
        let metas = self.input.series(cx)?;
        let mut elements = Vec::with_capacity(metas.len());
        let mut single = row(1);
        for meta in metas {
            clear(&mut single);
            self.input.next(cx, &mut single)?;
            cx.hold_row(&single)?;
            elements.push((meta, std::mem::take(&mut single[0])));
        }
        match &self.order {
            Order::Value { is_descending } => {
                elements.retain(|(_, point)| matches!(point, Point::Float(_)));
                cx.sort_by(&mut elements, |(_, a), (_, b)| by_value(a, b, *is_descending))?;
            }
            Order::Labels { names, is_descending } => cx.sort_by(&mut elements, |(a, _), (b, _)| {
                let order = by_labels(&a.labels, &b.labels, names);
                if *is_descending { order.reverse() } else { order }
            })?,
        }
        let (metas, points): (Vec<SeriesMeta>, Vec<Point>) = elements.into_iter().unzip();
        self.sorted = points.into_iter();
        Ok(metas)
    }

    fn next(&mut self, cx: &mut Context<'_>, points: &mut [Point]) -> Result<()> {
        if self.is_range {
            return self.input.next(cx, points);
        }
        points[0] = self.sorted.next().unwrap_or_default();
        cx.release(points[0].size());
        Ok(())
    }
}

/// Orders floats, NaN last either way.
fn by_value(a: &Point, b: &Point, is_descending: bool) -> std::cmp::Ordering {
    let (Point::Float(a), Point::Float(b)) = (a, b) else { return std::cmp::Ordering::Equal };
    let order = a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal);
    a.is_nan().cmp(&b.is_nan()).then(if is_descending { order.reverse() } else { order })
}

fn by_labels(a: &Labels, b: &Labels, names: &[String]) -> std::cmp::Ordering {
    names
        .iter()
        .map(|name| natural(a.value(name), b.value(name)))
        .find(|order| order.is_ne())
        .unwrap_or_else(|| a.cmp(b))
}

/// Compares texts with runs of digits taken for numbers: `a2` comes before `a10`.
fn natural(a: &str, b: &str) -> std::cmp::Ordering {
    let (mut a_rest, mut b_rest) = (a, b);
    loop {
        let (a_part, a_after) = first_part(a_rest);
        let (b_part, b_after) = first_part(b_rest);
        if a_part.is_empty() || b_part.is_empty() {
            return a_part.cmp(b_part).then(a.cmp(b));
        }
        let is_digit = |s: &str| s.as_bytes()[0].is_ascii_digit();
        let order = if is_digit(a_part) && is_digit(b_part) {
            let (x, y) = (a_part.trim_start_matches('0'), b_part.trim_start_matches('0'));
            x.len().cmp(&y.len()).then(x.cmp(y))
        } else {
            a_part.cmp(b_part)
        };
        if order.is_ne() {
            return order;
        }
        (a_rest, b_rest) = (a_after, b_after);
    }
}

/// Splits off the first run of digits or of anything else.
fn first_part(text: &str) -> (&str, &str) {
    let starts_with_digit = text.bytes().next().is_some_and(|b| b.is_ascii_digit());
    let end = text.bytes().position(|b| b.is_ascii_digit() != starts_with_digit).unwrap_or(text.len());
    text.split_at(end)
}
