//! Comparing what came out with what a script expects.

use model::query::{MatrixSeries, PointValue, QueryAnswer, QueryValue, VectorElement};
use model::{FloatHistogram, Labels, Timestamp, is_stale};
use promql_engine::memory::{SampleValue, sequence};
use promql_syntax::{HistogramLiteral, SequenceValue};

/// Floats closer than this, relatively, are equal.
const EPSILON: f64 = 0.000_001;

pub(crate) fn floats_equal(a: f64, b: f64) -> bool {
    if is_stale(a) || is_stale(b) {
        return is_stale(a) && is_stale(b);
    }
    if a.is_nan() && b.is_nan() || a == b {
        return true;
    }
    let (sum, difference) = (a.abs() + b.abs(), (a - b).abs());
    if a == 0.0 || b == 0.0 || sum < f64::MIN_POSITIVE {
        return difference < EPSILON * f64::MIN_POSITIVE;
    }
    difference / sum.min(f64::MAX) < EPSILON
}

/// Populated buckets with their indexes.
type Buckets = Vec<(i32, f64)>;

/// Returns the positive and the negative buckets.
fn buckets(h: &FloatHistogram) -> (Buckets, Buckets) {
    let side = |spans: &[model::Span], populations: &[f64]| {
        let (mut next, mut all, mut rest) = (0, Vec::new(), populations.iter());
        for span in spans {
            next += span.offset;
            for _ in 0..span.length {
                all.extend(rest.next().filter(|n| **n != 0.0).map(|n| (next, *n)));
                next += 1;
            }
        }
        all
    };
    (side(&h.positive_spans, &h.positive_buckets), side(&h.negative_spans, &h.negative_buckets))
}

fn histograms_equal(expected: &HistogramLiteral, got: &FloatHistogram) -> bool {
    let want = &*expected.histogram;
    is_same_histogram(want, got)
        && (!expected.hint_is_set || want.counter_reset_hint == got.counter_reset_hint)
}

/// Compares all but the hints.
fn is_same_histogram(want: &FloatHistogram, got: &FloatHistogram) -> bool {
    let sides_equal = |a: &[(i32, f64)], b: &[(i32, f64)]| {
        a.len() == b.len() && a.iter().zip(b).all(|(x, y)| x.0 == y.0 && floats_equal(x.1, y.1))
    };
    let (want_buckets, got_buckets) = (buckets(want), buckets(got));
    want.schema == got.schema
        && floats_equal(want.zero_threshold, got.zero_threshold)
        && want.custom_values == got.custom_values
        && floats_equal(want.count, got.count)
        && floats_equal(want.sum, got.sum)
        && floats_equal(want.zero_count, got.zero_count)
        && sides_equal(&want_buckets.0, &got_buckets.0)
        && sides_equal(&want_buckets.1, &got_buckets.1)
}

/// Compares two answers to one query: series and their order, values, notes, and what was read.
pub(crate) fn answers(want: &QueryAnswer, got: &QueryAnswer) -> Result<(), String> {
    let notes = |notes: &[String]| {
        let mut notes = notes.to_vec();
        notes.sort();
        notes
    };
    for (want, got) in [(&want.warnings, &got.warnings), (&want.infos, &got.infos)] {
        if notes(want) != notes(got) {
            return Err(format!("notes {got:?}, not {want:?}"));
        }
    }
    let read = |answer: &QueryAnswer| (answer.stats.samples_total, answer.stats.samples_read);
    if read(want) != read(got) {
        return Err(format!("samples {:?}, not {:?}", read(got), read(want)));
    }
    let is_same_point = |want: &PointValue, got: &PointValue| match (want, got) {
        (PointValue::Float(want), PointValue::Float(got)) => floats_equal(*want, *got),
        (PointValue::Histogram(want), PointValue::Histogram(got)) => {
            is_same_histogram(want, got) && want.counter_reset_hint == got.counter_reset_hint
        }
        _ => false,
    };
    let is_same = match (&want.value, &got.value) {
        (QueryValue::Vector(want), QueryValue::Vector(got)) => {
            let is_same = |(want, got): (&VectorElement, &VectorElement)| {
                want.labels == got.labels && is_same_point(&want.value, &got.value)
            };
            want.len() == got.len() && want.iter().zip(got).all(is_same)
        }
        (QueryValue::Matrix(want), QueryValue::Matrix(got)) => {
            let points = |s: &MatrixSeries| -> Vec<(Timestamp, PointValue)> {
                let floats = s.floats.iter().map(|(t, x)| (*t, PointValue::Float(*x)));
                floats
                    .chain(s.histograms.iter().map(|(t, h)| (*t, PointValue::Histogram(h.clone()))))
                    .collect()
            };
            let is_same = |(want, got): (&MatrixSeries, &MatrixSeries)| {
                let (a, b) = (points(want), points(got));
                let mut pairs = a.iter().zip(&b);
                want.labels == got.labels
                    && a.len() == b.len()
                    && pairs.all(|((t, a), (u, b))| t == u && is_same_point(a, b))
            };
            want.len() == got.len() && want.iter().zip(got).all(is_same)
        }
        (QueryValue::Scalar(t, want), QueryValue::Scalar(u, got)) => t == u && floats_equal(*want, *got),
        (want, got) => want == got,
    };
    if is_same { Ok(()) } else { Err(format!("{:?}, not {:?}", got.value, want.value)) }
}

fn values_equal(expected: &SampleValue, got: &PointValue) -> bool {
    match (expected, got) {
        (SampleValue::Float(a), PointValue::Float(b)) => floats_equal(*a, *b),
        (SampleValue::Histogram(a), PointValue::Histogram(b)) => histograms_equal(a, b),
        _ => false,
    }
}

type Lines = [(Labels, Vec<SequenceValue>)];

/// Compares an instant vector.
pub(crate) fn vector(expected: &Lines, got: &[VectorElement], is_ordered: bool) -> Result<(), String> {
    let mut is_taken = vec![false; got.len()];
    for (i, (labels, values)) in expected.iter().enumerate() {
        let values = sequence(values)?;
        let [Some(value)] = &*values else { return Err(format!("{labels}: one value is needed")) };
        let found = match is_ordered {
            true => got.get(i).filter(|e| e.labels == *labels).map(|_| i),
            false => got.iter().position(|e| e.labels == *labels),
        };
        let Some(found) = found else {
            return Err(format!(
                "{labels} is missing{}; got {}",
                if is_ordered { " at its place" } else { "" },
                show(got)
            ));
        };
        if !values_equal(value, &got[found].value) {
            return Err(format!("{labels}: expected {value:?}, got {:?}", got[found].value));
        }
        is_taken[found] = true;
    }
    match is_taken.iter().position(|taken| !taken) {
        Some(extra) => Err(format!("unexpected {} {:?}", got[extra].labels, got[extra].value)),
        None => Ok(()),
    }
}

fn show(got: &[VectorElement]) -> String {
    let all: Vec<String> = got.iter().map(|e| e.labels.to_string()).collect();
    format!("[{}]", all.join(" "))
}

/// Says that a matrix is not sorted by labels, or holds an empty series.
pub(crate) fn check_order(got: &[MatrixSeries]) -> Result<(), String> {
    if !got.is_sorted_by(|a, b| a.labels < b.labels) {
        return Err("the matrix is not sorted by labels".to_owned());
    }
    match got.iter().find(|s| s.floats.is_empty() && s.histograms.is_empty()) {
        Some(series) => Err(format!("{} has no points", series.labels)),
        None => Ok(()),
    }
}

fn points(series: &MatrixSeries) -> Vec<(Timestamp, PointValue)> {
    let floats = series.floats.iter().map(|(t, x)| (*t, PointValue::Float(*x)));
    let histograms = series.histograms.iter().map(|(t, h)| (*t, PointValue::Histogram(h.clone())));
    let mut all: Vec<_> = floats.chain(histograms).collect();
    all.sort_by_key(|(t, _)| *t);
    all
}

/// Compares a matrix whose points are expected at `start`, `start + step` and so on.
pub(crate) fn matrix(expected: &Lines, got: &[MatrixSeries], start: i64, step: i64) -> Result<(), String> {
    check_order(got)?;
    let mut seen = 0;
    for (labels, values) in expected {
        let mut wanted = Vec::new();
        for (i, value) in sequence(values)?.into_iter().enumerate() {
            let time = start + step * i64::try_from(i).map_err(|e| e.to_string())?;
            wanted.extend(value.map(|value| (Timestamp(time), value)));
        }
        let Some(series) = got.iter().find(|s| s.labels == *labels) else {
            if wanted.is_empty() {
                continue;
            }
            let all: Vec<String> = got.iter().map(|s| s.labels.to_string()).collect();
            return Err(format!("{labels} is missing; got [{}]", all.join(" ")));
        };
        seen += 1;
        let points = points(series);
        if points.len() != wanted.len() {
            return Err(format!(
                "{labels}: expected {} points, got {}: {points:?}",
                wanted.len(),
                points.len()
            ));
        }
        for ((time, value), (got_time, got)) in wanted.iter().zip(&points) {
            if time != got_time || !values_equal(value, got) {
                return Err(format!(
                    "{labels} at {}: expected {value:?}, got {got:?} at {}",
                    time.millis(),
                    got_time.millis()
                ));
            }
        }
    }
    if seen == got.len() { Ok(()) } else { Err(format!("{} series too many in {got:?}", got.len() - seen)) }
}

/// Takes the points of a matrix at one time for an instant vector.
pub(crate) fn at(got: &[MatrixSeries], time: i64) -> Vec<VectorElement> {
    let timestamp = Timestamp(time);
    let element = |series: &MatrixSeries| {
        let (_, value) = points(series).into_iter().find(|(t, _)| *t == timestamp)?;
        Some(VectorElement { labels: series.labels.clone(), timestamp, value })
    };
    got.iter().filter_map(element).collect()
}
