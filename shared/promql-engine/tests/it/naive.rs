//! The engine against a model that looks at every sample for every step and follows the definitions to the letter.

use std::sync::Arc;

use model::query::{PointValue, QueryValue};
use model::{CounterResetHint, FloatHistogram, Span, is_stale, stale_nan};
use proptest::prelude::*;

use crate::source::{Memory, ask, matrix, options};

const LOOKBACK: i64 = 300_000;

type Samples = Vec<(i64, f64)>;

/// The samples in `(time - range, time]`, markers left out.
fn window(samples: &Samples, time: i64, range: i64) -> Samples {
    samples.iter().copied().filter(|(t, x)| *t > time - range && *t <= time && !is_stale(*x)).collect()
}

fn instant(samples: &Samples, time: i64) -> Option<f64> {
    let newest = samples.iter().rfind(|(t, _)| *t <= time)?;
    (newest.0 > time - LOOKBACK && !is_stale(newest.1)).then_some(newest.1)
}

/// `increase` as the documentation defines it.
#[expect(clippy::cast_precision_loss, reason = "small numbers")]
pub(crate) fn increase(seen: &[(i64, f64)], time: i64, range: i64) -> Option<f64> {
    if seen.len() < 2 {
        return None;
    }
    let (first, last) = (seen[0], seen[seen.len() - 1]);
    let mut change = last.1 - first.1;
    for pair in seen.windows(2) {
        if pair[1].1 < pair[0].1 {
            change += pair[0].1;
        }
    }
    let sampled = (last.0 - first.0) as f64;
    let average = sampled / (seen.len() - 1) as f64;
    let edge = |gap: i64| if (gap as f64) < average * 1.1 { gap as f64 } else { average / 2.0 };
    let (mut left, right) = (edge(first.0 - (time - range)), edge(time - last.0));
    if change > 0.0 && first.1 >= 0.0 {
        left = left.min(sampled * first.1 / change);
    }
    Some(change * (sampled + left + right) / sampled)
}

fn expected(samples: &Samples, function: &str, time: i64, range: i64) -> Option<f64> {
    if function.is_empty() {
        return instant(samples, time);
    }
    let seen = window(samples, time, range);
    let values = || seen.iter().map(|(_, x)| *x);
    if function == "increase" {
        return increase(&seen, time, range);
    }
    if seen.is_empty() {
        return None;
    }
    let pairs = |counts: fn(f64, f64) -> bool| {
        let count = seen.windows(2).filter(|p| counts(p[0].1, p[1].1)).count();
        f64::from(u32::try_from(count).expect("few"))
    };
    let count = f64::from(u32::try_from(seen.len()).expect("few"));
    Some(match function {
        "count_over_time" => count,
        "sum_over_time" => values().sum(),
        "avg_over_time" => values().sum::<f64>() / count,
        "max_over_time" => values().fold(f64::NEG_INFINITY, f64::max),
        "min_over_time" => values().fold(f64::INFINITY, f64::min),
        "first_over_time" => seen[0].1,
        "last_over_time" => seen[seen.len() - 1].1,
        "resets" => pairs(|a, b| b < a),
        "changes" => pairs(|a, b| a != b),
        _ => panic!("no model of {function}"),
    })
}

const FUNCTIONS: [&str; 11] = [
    "",
    "increase",
    "count_over_time",
    "sum_over_time",
    "avg_over_time",
    "max_over_time",
    "min_over_time",
    "first_over_time",
    "last_over_time",
    "resets",
    "changes",
];

/// Samples at irregular distances, edges of windows among them, some of them markers.
fn samples() -> impl Strategy<Value = Samples> {
    let step = prop_oneof![Just(1), Just(30_000), Just(60_000), Just(300_000), 1..400_000_i64];
    let value = prop_oneof![8 => (0..50_u8).prop_map(f64::from), 1 => Just(stale_nan())];
    prop::collection::vec((step, value), 0..30).prop_map(|steps| {
        let mut time = 0;
        let at = |(step, value)| {
            time += step;
            (time, value)
        };
        steps.into_iter().map(at).collect()
    })
}

proptest! {
    #[test]
    fn windows_are_open_on_the_left(
        a in samples(),
        b_values in prop::collection::vec(0..50_u8, 30),
        function in prop::sample::select(FUNCTIONS.to_vec()),
        range in prop::sample::select(vec![1_i64, 30_000, 60_000, 90_000, 300_000, 3_600_000]),
        step in prop::sample::select(vec![1_000_u64, 30_000, 60_000, 777_777]),
        offset in prop::sample::select(vec![0_i64, 60_000, -60_000]),
    ) {
        // The second series shares the first one's timeline.
        let b: Samples = a.iter().zip(b_values).map(|((t, _), x)| (*t, f64::from(x))).collect();
        let timeline: Arc<[i64]> = a.iter().map(|(t, _)| *t).collect();
        let mut source = Memory::default();
        for (name, samples) in [("a", &a), ("b", &b)] {
            let values = samples.iter().map(|(_, x)| *x).collect();
            source.add(&[("__name__", "m"), ("s", name)], timeline.clone(), values);
        }
        let query = match function {
            "" => format!("m offset {offset}ms"),
            _ => format!("{function}(m[{range}ms] offset {offset}ms)"),
        };
        let (start, end) = (60_000, 60_000 + i64::try_from(step).expect("small") * 20);
        let got = matrix(&source, &query, (start, end, step));
        let times: Vec<i64> = (0..=20).map(|i| start + i * i64::try_from(step).expect("small")).collect();
        let mut wanted = 0;
        for (name, samples) in [("a", &a), ("b", &b)] {
            let points: Samples = times
                .iter()
                .filter_map(|t| expected(samples, function, t - offset, range).map(|x| (*t, x)))
                .collect();
            if points.is_empty() {
                continue;
            }
            wanted += 1;
            let label = format!("s=\"{name}\"");
            let (_, shown) = got.iter().find(|(labels, _)| labels.contains(&label)).expect("the series is there");
            prop_assert_eq!(shown.len(), points.len(), "{}", query);
            for ((t, x), (at, y)) in points.iter().zip(shown) {
                prop_assert_eq!(t, at);
                prop_assert!((x - y).abs() <= 1e-9 * x.abs().max(1.0), "{} at {}: {} and {}", query, t, x, y);
            }
        }
        prop_assert_eq!(got.len(), wanted);
    }
}

/// A histogram with all its observations in one bucket.
fn histogram(count: f64, hint: CounterResetHint) -> Arc<FloatHistogram> {
    Arc::new(FloatHistogram {
        counter_reset_hint: hint,
        count,
        sum: 2.0 * count,
        positive_spans: vec![Span { offset: 1, length: 1 }],
        positive_buckets: vec![count],
        ..FloatHistogram::default()
    })
}

proptest! {
    /// The count of a histogram's rate is the rate of its count, and so on.
    #[test]
    fn histograms_count_as_counters_do(
        samples in samples(),
        function in prop::sample::select(vec![
            "rate", "increase", "irate", "delta", "idelta", "sum_over_time", "avg_over_time", "last_over_time",
        ]),
        range in prop::sample::select(vec![60_000_i64, 300_000, 3_600_000]),
    ) {
        let hint = match function {
            "delta" | "idelta" => CounterResetHint::Gauge,
            _ => CounterResetHint::Unknown,
        };
        let samples: Samples = samples.into_iter().filter(|(_, x)| !is_stale(*x)).collect();
        let timeline: Arc<[i64]> = samples.iter().map(|(t, _)| *t).collect();
        let mut source = Memory::default();
        source.add(&[("__name__", "c_total")], timeline.clone(), samples.iter().map(|(_, x)| *x).collect());
        let histograms = samples.iter().map(|(_, x)| histogram(*x, hint)).collect();
        source.add_histograms(&[("__name__", "h")], timeline, histograms);
        let times = (0, 3_000_000, 150_000);
        let of_floats = matrix(&source, &format!("abs({function}(c_total[{range}ms]) * 2)"), times);
        for of in ["histogram_count", "0.5 * histogram_sum"] {
            let of_histograms = matrix(&source, &format!("abs({of}({function}(h[{range}ms])) * 2)"), times);
            prop_assert_eq!(of_floats.len(), of_histograms.len());
            for ((t, x), (at, y)) in of_floats.iter().flat_map(|s| &s.1).zip(of_histograms.iter().flat_map(|s| &s.1)) {
                prop_assert_eq!(t, at);
                prop_assert!((x - y).abs() <= 1e-9 * x.abs().max(1.0), "{}: {} and {}", function, x, y);
            }
        }
    }

    /// A range query shows at each step what an instant query at that time shows.
    #[test]
    fn steps_are_instants(
        a in samples(),
        b in samples(),
        query in prop::sample::select(vec![
            "m",
            "sum(m)",
            "m{s='a'} + on () m{s='b'}",
            "m{s='a'} or on () m{s='b'}",
            "m{s='a'} unless on () m{s='b'}",
            "m{s='a'} > on () m{s='b'}",
            "topk(1, m)",
            "avg by (s) (rate(m[10m]))",
            "max_over_time(sum_over_time(m[5m])[10m:90s])",
            "count_values('v', m)",
            "quantile(0.3, m)",
            "m @ 600 - m offset 2m",
            "absent(m)",
            "m{s='a'} + on () fill(1) m{s='b'}",
            "resets(m[10m] anchored)",
            "increase(m[5m] smoothed)",
            "stddev(m) + scalar(m{s='a'})",
        ]),
    ) {
        let mut source = Memory::default();
        for (name, samples) in [("a", &a), ("b", &b)] {
            let timeline: Arc<[i64]> = samples.iter().map(|(t, _)| *t).collect();
            source.add(&[("__name__", "m"), ("s", name)], timeline, samples.iter().map(|(_, x)| *x).collect());
        }
        let ranged = matrix(&source, query, (0, 2_400_000, 120_000));
        for time in (0..=2_400).step_by(120) {
            let answer = ask(options(), &source, query, time).expect("an answer");
            let QueryValue::Vector(elements) = answer.value else { panic!("not a vector") };
            let mut instant: Vec<(String, u64)> = elements
                .iter()
                .map(|e| match e.value {
                    PointValue::Float(x) => (e.labels.to_string(), x.to_bits()),
                    PointValue::Histogram(_) => panic!("no histograms here"),
                })
                .collect();
            let at = |points: &[(i64, f64)]| points.iter().find(|(t, _)| *t == time * 1_000).map(|(_, x)| x.to_bits());
            let mut step: Vec<(String, u64)> =
                ranged.iter().filter_map(|(labels, points)| Some((labels.clone(), at(points)?))).collect();
            instant.sort();
            step.sort();
            prop_assert_eq!(instant, step, "{} at {}", query, time);
        }
    }
}
