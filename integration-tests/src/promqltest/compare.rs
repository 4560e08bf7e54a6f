//! Comparing what came out with what a script expects.

use model::query::{MatrixSeries, PointValue, VectorElement};
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
        && (!expected.hint_is_set || want.counter_reset_hint == got.counter_reset_hint)
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
