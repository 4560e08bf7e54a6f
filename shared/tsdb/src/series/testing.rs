//! Random series for property tests: every class of value, shared and single timelines, every sort of histogram.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::histogram::CUSTOM_BUCKETS_SCHEMA;
use model::{
    CounterResetHint, Exemplar, FloatHistogram, Histogram, IntegerHistogram, Labels, Metadata, MetricType,
    Span, Timestamp, stale_nan,
};
use proptest::prelude::*;

use super::{FloatColumn, HistogramColumn, SeriesRow, SeriesSamples, Timeline, compare_labels};
use crate::merge::compare_exemplars;

/// 2026-11-23 23:50 UTC, so that random times lie on both sides of a window and of a day.
pub(crate) const BASE: i64 = 1_795_477_800_000;

/// Any value, with the awkward ones often.
pub(crate) fn any_value() -> impl Strategy<Value = f64> {
    prop_oneof![
        4 => (-1000_i32..1000).prop_map(f64::from),
        2 => (-100_000_i32..100_000).prop_map(|i| f64::from(i) / 1000.0),
        2 => any::<u64>().prop_map(f64::from_bits),
        1 => prop::sample::select(vec![
            0.0, -0.0, f64::INFINITY, f64::NEG_INFINITY, f64::NAN, stale_nan(), f64::MIN_POSITIVE, f64::MAX,
            f64::from_bits(0x7ff8_0000_0000_0007), 9_007_199_254_740_993.0,
        ]),
    ]
}

/// The values of a whole row, of one class: most real rows are.
fn row_values(count: usize) -> impl Strategy<Value = Vec<f64>> {
    let integers = (-50_i32..50_000).prop_map(f64::from);
    let decimals = (0_i32..50_000).prop_map(|i| f64::from(i) / 100.0);
    let with_stale = prop_oneof![5 => (0_i32..9).prop_map(f64::from), 1 => Just(stale_nan())];
    prop_oneof![
        prop::collection::vec(integers, count),
        prop::collection::vec(decimals, count),
        prop::collection::vec(with_stale, count),
        prop::collection::vec(any_value(), count),
        Just(vec![stale_nan(); count]),
    ]
}

/// Even times around [`BASE`], which leaves the odd ones to histograms.
fn times() -> impl Strategy<Value = Vec<i64>> {
    let time = prop_oneof![
        8 => (0_i64..40).prop_map(|i| BASE + i * 30_000),
        1 => (-90_000_i64..90_000).prop_map(|i| BASE + i * 1_000),
        1 => -10_000_i64..10_000,
    ];
    prop::collection::btree_set(time.prop_map(|t| t * 2 / 2 - (t * 2 / 2).rem_euclid(2)), 0..30)
        .prop_map(|set| set.into_iter().collect())
}

fn any_spans() -> impl Strategy<Value = Vec<Span>> {
    let span = (any::<i16>(), 0_u32..4).prop_map(|(o, length)| Span { offset: i32::from(o), length });
    prop::collection::vec(span, 0..3)
}

fn any_hint() -> impl Strategy<Value = CounterResetHint> {
    use CounterResetHint::{Gauge, NotReset, Reset, Unknown};
    prop::sample::select(vec![Unknown, Reset, NotReset, Gauge])
}

/// Any histogram, valid or not: storage keeps what it is given.
pub(crate) fn any_histogram() -> impl Strategy<Value = Histogram> {
    let schema = prop_oneof![-4_i32..=8, Just(CUSTOM_BUCKETS_SCHEMA)];
    let floats = || prop::collection::vec(any_value(), 0..4);
    let common = (any_hint(), schema, any_value(), any_value(), any_spans(), any_spans(), floats());
    let integer = (
        any::<u64>(),
        any::<u64>(),
        prop::collection::vec(any::<i64>(), 0..4),
        prop::collection::vec(-9_i64..9, 0..4),
    );
    let float = (any_value(), any_value(), floats(), floats());
    (common, prop_oneof![integer.prop_map(Ok), float.prop_map(Err)]).prop_map(|(common, populations)| {
        let (counter_reset_hint, schema, zero_threshold, sum, positive_spans, negative_spans, custom) =
            common;
        let custom_values: Arc<[f64]> = custom.into();
        match populations {
            Ok((count, zero_count, positive_deltas, negative_deltas)) => {
                Histogram::Integer(IntegerHistogram {
                    counter_reset_hint,
                    schema,
                    zero_threshold,
                    zero_count,
                    count,
                    sum,
                    positive_spans,
                    negative_spans,
                    positive_deltas,
                    negative_deltas,
                    custom_values,
                })
            }
            Err((count, zero_count, positive_buckets, negative_buckets)) => {
                Histogram::Float(FloatHistogram {
                    counter_reset_hint,
                    schema,
                    zero_threshold,
                    zero_count,
                    count,
                    sum,
                    positive_spans,
                    negative_spans,
                    positive_buckets,
                    negative_buckets,
                    custom_values,
                })
            }
        }
    })
}

fn any_exemplar() -> impl Strategy<Value = Exemplar> {
    let time = prop::option::weighted(0.8, (0_i64..20_000).prop_map(|i| Timestamp(BASE + i * 1_000)));
    (prop::sample::select(vec!["", "a", "ab"]), any_value(), time).prop_map(|(trace, value, timestamp)| {
        Exemplar { labels: Labels::from_pairs([("trace_id", trace)]), value, timestamp }
    })
}

/// Samples over one of the timelines, or a beginning or end of one, or over times of their own.
pub(crate) fn samples(timelines: Vec<Timeline>) -> impl Strategy<Value = SeriesSamples> {
    let shared = (prop::sample::select(timelines), any::<prop::sample::Index>(), 0_u8..4).prop_map(
        |(timeline, cut, how)| match how {
            0 | 1 => timeline,
            _ if timeline.is_empty() => timeline,
            2 => Timeline::from(&timeline[cut.index(timeline.len())..]),
            _ => Timeline::from(&timeline[..cut.index(timeline.len())]),
        },
    );
    let timeline = prop_oneof![4 => shared, 1 => times().prop_map(Timeline::from)];
    timeline.prop_flat_map(|timestamps| {
        let values = row_values(timestamps.len());
        let histograms = prop_oneof![
            3 => Just(BTreeMap::new()),
            1 => prop::collection::btree_map(
                prop_oneof![0_i64..40, -3_000_i64..3_000].prop_map(|i| BASE + i * 10_000 + 1),
                any_histogram(),
                0..8,
            ),
        ];
        let exemplars = prop_oneof![3 => Just(Vec::new()), 1 => prop::collection::vec(any_exemplar(), 0..4)];
        let starts = prop_oneof![2 => Just(None), 1 => (0_i64..3).prop_map(Some)];
        (Just(timestamps), values, histograms, exemplars, starts).prop_map(
            |(timestamps, values, histograms, mut exemplars, start)| {
                exemplars.sort_by(compare_exemplars);
                exemplars.dedup_by(|a, b| compare_exemplars(a, b).is_eq());
                let (times, values_of): (Vec<i64>, Vec<Arc<Histogram>>) =
                    histograms.into_iter().map(|(t, h)| (t, Arc::new(h))).unzip();
                let mut sampled: BTreeSet<i64> = timestamps.iter().copied().collect();
                sampled.extend(&times);
                let starts = start.map(|s| {
                    sampled.iter().filter(|t| **t % 4 < 2).map(|t| (*t, BASE - 1 + s)).collect::<Vec<_>>()
                });
                SeriesSamples {
                    floats: FloatColumn { timestamps, values: values.into() },
                    histograms: HistogramColumn { timestamps: times.into(), values: values_of.into() },
                    start_timestamps: starts.unwrap_or_default().into(),
                    exemplars: exemplars.into(),
                }
            },
        )
    })
}

/// A pool of timelines for [`samples`].
pub(crate) fn timelines() -> impl Strategy<Value = Vec<Timeline>> {
    prop::collection::vec(times().prop_map(Timeline::from), 1..4)
}

fn any_labels() -> impl Strategy<Value = Labels> {
    let metric = prop::sample::select(vec!["", "up", "http_requests_total", "a:b", "Zz", "ünï"]);
    let job = prop::sample::select(vec!["", "node", "api"]);
    let names = vec!["a.b c\"/d", "instance", "Instance", "zone", "__name", "é", "le"];
    let others = prop::collection::btree_map(prop::sample::select(names), "[a-z]{1,3}", 0..4);
    (metric, job, others).prop_map(|(metric, job, others)| {
        let fixed = [("__name__".to_owned(), metric.to_owned()), ("job".to_owned(), job.to_owned())];
        Labels::from_pairs(fixed.into_iter().chain(others.into_iter().map(|(n, v)| (n.to_owned(), v))))
    })
}

fn any_metadata() -> impl Strategy<Value = Metadata> {
    let kind =
        prop::sample::select(vec![MetricType::Unknown, MetricType::Counter, MetricType::GaugeHistogram]);
    (kind, prop::sample::select(vec!["", "seconds"]), prop::sample::select(vec!["", "Some \"help\"\n."]))
        .prop_map(|(kind, unit, help)| Metadata { kind, unit: unit.into(), help: help.into() })
}

/// A sorted list of series, each with something in it.
pub(crate) fn rows(count: usize) -> impl Strategy<Value = Vec<SeriesRow>> {
    timelines().prop_flat_map(move |timelines| {
        prop::collection::vec((any_labels(), any_metadata(), samples(timelines)), 0..count).prop_map(|all| {
            let mut rows: Vec<SeriesRow> = all
                .into_iter()
                .filter(|(_, _, samples)| !samples.is_empty())
                .map(|(labels, metadata, samples)| SeriesRow {
                    labels,
                    metadata: Arc::new(metadata),
                    samples,
                })
                .collect();
            rows.sort_by(|a, b| compare_labels(&a.labels, &b.labels));
            rows.dedup_by(|a, b| a.labels == b.labels);
            rows
        })
    })
}

/// Cuts samples to a range of time, sample by sample: the model that reading is compared with.
pub(crate) fn restrict(samples: &SeriesSamples, min: i64, max: i64) -> SeriesSamples {
    let keep = |t: i64| (min..=max).contains(&t);
    let (times, values): (Vec<i64>, Vec<f64>) = samples.floats.iter().filter(|(t, _)| keep(*t)).unzip();
    let (histogram_times, histograms): (Vec<i64>, Vec<Arc<Histogram>>) =
        samples.histograms.iter().filter(|(t, _)| keep(*t)).map(|(t, h)| (t, Arc::clone(h))).unzip();
    SeriesSamples {
        floats: FloatColumn { timestamps: times.into(), values: values.into() },
        histograms: HistogramColumn { timestamps: histogram_times.into(), values: histograms.into() },
        start_timestamps: samples.start_timestamps.iter().copied().filter(|(t, _)| keep(*t)).collect(),
        exemplars: samples
            .exemplars
            .iter()
            .filter(|e| e.timestamp.is_none_or(|t| keep(t.millis())))
            .cloned()
            .collect(),
    }
}

/// Fails with both sides when two lists of rows differ in any bit.
pub(crate) fn assert_rows_eq(got: &[SeriesRow], want: &[SeriesRow]) {
    let labels = |rows: &[SeriesRow]| rows.iter().map(|r| r.labels.clone()).collect::<Vec<_>>();
    assert_eq!(labels(got), labels(want));
    for (got, want) in got.iter().zip(want) {
        assert_eq!(got.metadata, want.metadata, "{}", got.labels);
        assert!(
            got.samples.bit_eq(&want.samples),
            "{}: got {:?}\nwant {:?}",
            got.labels,
            got.samples,
            want.samples
        );
    }
}
