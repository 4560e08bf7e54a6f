//! What is expected here follows from the OpenTelemetry specification's page on compatibility with Prometheus and from
//! what Prometheus 3.14 does with the same input.

use std::collections::BTreeSet;
use std::time::Duration;

use model::is_stale;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, any_value};
use opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets;
use opentelemetry_proto::tonic::metrics::v1::summary_data_point::ValueAtQuantile;
use opentelemetry_proto::tonic::resource::v1::Resource as OtlpResource;

use super::*;
use crate::settings::{Limits, Promotion, TranslationStrategy};

const SECOND: u64 = 1_000_000_000;
const START: u64 = 1_700_000_000 * SECOND;
const NOW: u64 = START + 60 * SECOND;
const NOW_MS: i64 = 1_700_000_060_000;
const CUMULATIVE: i32 = AggregationTemporality::Cumulative as i32;

fn attributes(pairs: &[(&str, &str)]) -> Vec<KeyValue> {
    let value = |text: &str| Some(AnyValue { value: Some(any_value::Value::StringValue(text.to_owned())) });
    pairs
        .iter()
        .map(|(k, v)| KeyValue { key: (*k).to_owned(), value: value(v), ..KeyValue::default() })
        .collect()
}

fn number(value: f64, pairs: &[(&str, &str)]) -> otlp::NumberDataPoint {
    otlp::NumberDataPoint {
        attributes: attributes(pairs),
        start_time_unix_nano: START,
        time_unix_nano: NOW,
        value: Some(number_data_point::Value::AsDouble(value)),
        ..Default::default()
    }
}

fn metric(name: &str, unit: &str, data: Data) -> otlp::Metric {
    let description = format!("about {name}");
    otlp::Metric {
        name: name.to_owned(),
        unit: unit.to_owned(),
        description,
        data: Some(data),
        ..Default::default()
    }
}

fn gauge(points: Vec<otlp::NumberDataPoint>) -> Data {
    Data::Gauge(otlp::Gauge { data_points: points })
}

fn sum(points: Vec<otlp::NumberDataPoint>, temporality: i32, is_monotonic: bool) -> Data {
    Data::Sum(otlp::Sum { data_points: points, aggregation_temporality: temporality, is_monotonic })
}

fn histogram_of(point: otlp::HistogramDataPoint) -> Data {
    Data::Histogram(otlp::Histogram { data_points: vec![point], aggregation_temporality: CUMULATIVE })
}

fn explicit() -> otlp::HistogramDataPoint {
    otlp::HistogramDataPoint {
        start_time_unix_nano: START,
        time_unix_nano: NOW,
        count: 10,
        sum: Some(12.5),
        bucket_counts: vec![3, 5, 2],
        explicit_bounds: vec![0.005, 10_000.0],
        ..Default::default()
    }
}

fn request_of(resource: &[(&str, &str)], metrics: Vec<otlp::Metric>) -> ExportMetricsServiceRequest {
    let scope = InstrumentationScope {
        name: "lib".to_owned(),
        version: "1.2".to_owned(),
        attributes: attributes(&[("short.name", "l")]),
        ..Default::default()
    };
    let scope = otlp::ScopeMetrics { scope: Some(scope), metrics, schema_url: "https://schema".to_owned() };
    ExportMetricsServiceRequest {
        resource_metrics: vec![otlp::ResourceMetrics {
            resource: Some(OtlpResource { attributes: attributes(resource), ..Default::default() }),
            scope_metrics: vec![scope],
            ..Default::default()
        }],
    }
}

fn translated(resource: &[(&str, &str)], metrics: Vec<otlp::Metric>, settings: &Settings) -> Translation {
    translate(&request_of(resource, metrics), settings)
}

/// Series and values as text; histograms by count and sum.
fn said(translation: &Translation) -> Vec<String> {
    let samples = translation.resources.iter().flat_map(|r| &r.samples);
    samples
        .map(|s| match &s.value {
            Value::Float(x) if is_stale(*x) => format!("{} stale", series(&s.labels)),
            Value::Float(x) => format!("{} {x}", series(&s.labels)),
            Value::Histogram(h) if is_stale(h.sum()) => format!("{} stale histogram", series(&s.labels)),
            Value::Histogram(h) => format!("{} {}/{}", series(&s.labels), h.to_float().count, h.sum()),
        })
        .collect()
}

fn series(labels: &Labels) -> String {
    let rest = labels.without_metric_name();
    let rest = if rest.is_empty() { String::new() } else { rest.to_string() };
    format!("{}{rest}", labels.metric_name())
}

#[test]
fn numbers_become_counters_and_gauges() {
    let mut integer = number(0.0, &[]);
    integer.value = Some(number_data_point::Value::AsInt(-3));
    let got = translated(
        &[],
        vec![
            metric("http.requests", "1", sum(vec![number(5.0, &[("http.method", "GET")])], CUMULATIVE, true)),
            metric("queue.length", "{item}", sum(vec![integer], CUMULATIVE, false)),
            metric("temperature", "Cel", gauge(vec![number(21.5, &[])])),
        ],
        &Settings::default(),
    );
    assert_eq!(
        said(&got),
        [r#"http_requests_total{http_method="GET"} 5"#, "queue_length -3", "temperature_celsius 21.5"]
    );
    let samples = &got.resources[0].samples;
    let start = Some(Timestamp(1_700_000_000_000));
    assert_eq!(
        samples.iter().map(|s| s.start).collect::<Vec<_>>(),
        [start, None, None],
        "counters alone count"
    );
    assert!(samples.iter().all(|s| s.timestamp == Timestamp(NOW_MS)));
    assert_eq!(samples.iter().map(|s| s.point).collect::<Vec<_>>(), [Some(0), Some(1), Some(2)]);
    let metadata: Vec<_> =
        samples.iter().map(|s| (s.metadata.kind, &*s.metadata.unit, &*s.metadata.help)).collect();
    assert_eq!(
        metadata,
        [
            (MetricType::Counter, "", "about http.requests"),
            (MetricType::Gauge, "", "about queue.length"),
            (MetricType::Gauge, "celsius", "about temperature"),
        ]
    );
    assert_eq!((got.points, got.rejected.points()), (3, 0));
}

#[test]
fn explicit_histograms_become_classic_series_with_exemplars_in_their_buckets() {
    let example = |x: f64| otlp::Exemplar {
        value: Some(otlp::exemplar::Value::AsDouble(x)),
        time_unix_nano: NOW,
        trace_id: vec![0xab; 16],
        ..Default::default()
    };
    let mut point = explicit();
    point.exemplars = [0.001, 0.005, 20_000.0, 7.0].map(example).to_vec();
    let got = translated(&[], vec![metric("latency", "s", histogram_of(point))], &Settings::default());
    assert_eq!(
        said(&got),
        [
            "latency_seconds_sum 12.5",
            "latency_seconds_count 10",
            r#"latency_seconds_bucket{le="0.005"} 3"#,
            r#"latency_seconds_bucket{le="10000"} 8"#,
            r#"latency_seconds_bucket{le="+Inf"} 10"#,
        ]
    );
    let samples = &got.resources[0].samples;
    let examples: Vec<Vec<f64>> =
        samples.iter().map(|s| s.exemplars.iter().map(|e| e.value).collect()).collect();
    assert_eq!(examples, [vec![], vec![], vec![0.001, 0.005], vec![7.0], vec![20_000.0]]);
    assert!(samples.iter().all(|s| s.point == Some(0) && s.start.is_some()));
    assert_eq!(got.points, 1, "a point, whatever the number of its samples");

    let without_sum =
        otlp::HistogramDataPoint { sum: None, bucket_counts: vec![], explicit_bounds: vec![], ..explicit() };
    let got = translated(&[], vec![metric("latency", "", histogram_of(without_sum))], &Settings::default());
    assert_eq!(said(&got), ["latency_count 10", r#"latency_bucket{le="+Inf"} 10"#]);
}

#[test]
fn histograms_become_native_ones_when_exponential_or_asked_for() {
    let settings = Settings { converts_to_custom_buckets: true, ..Settings::default() };
    let exponential = otlp::ExponentialHistogramDataPoint {
        time_unix_nano: NOW,
        start_time_unix_nano: START,
        count: 4,
        sum: Some(9.0),
        scale: 3,
        zero_count: 1,
        positive: Some(Buckets { offset: 2, bucket_counts: vec![1, 2] }),
        ..Default::default()
    };
    let exponential = Data::ExponentialHistogram(otlp::ExponentialHistogram {
        data_points: vec![exponential],
        aggregation_temporality: CUMULATIVE,
    });
    let metrics = vec![metric("size", "By", exponential), metric("latency", "s", histogram_of(explicit()))];
    let got = translated(&[], metrics, &settings);
    assert_eq!(said(&got), ["size_bytes 4/9", "latency_seconds 10/12.5"]);
    assert!(got.resources[0].samples.iter().all(|s| s.metadata.kind == MetricType::Histogram));
}

#[test]
fn summaries_become_series_by_quantile() {
    let point = otlp::SummaryDataPoint {
        time_unix_nano: NOW,
        count: 2,
        sum: 3.5,
        quantile_values: vec![
            ValueAtQuantile { quantile: 0.5, value: 1.0 },
            ValueAtQuantile { quantile: 1.0, value: 2.5 },
        ],
        ..Default::default()
    };
    let data = Data::Summary(otlp::Summary { data_points: vec![point] });
    let got = translated(&[], vec![metric("rpc", "ms", data)], &Settings::default());
    assert_eq!(
        said(&got),
        [
            "rpc_milliseconds_sum 3.5",
            "rpc_milliseconds_count 2",
            r#"rpc_milliseconds{quantile="0.5"} 1"#,
            r#"rpc_milliseconds{quantile="1"} 2.5"#,
        ]
    );
}

#[test]
fn points_without_a_recorded_value_are_staleness_markers() {
    let flags = DataPointFlags::NoRecordedValueMask as u32;
    let without_value = otlp::NumberDataPoint { flags, value: None, ..number(0.0, &[]) };
    let unrecorded = otlp::HistogramDataPoint { flags, ..explicit() };
    let exponential =
        otlp::ExponentialHistogramDataPoint { flags, time_unix_nano: NOW, ..Default::default() };
    let exponential = Data::ExponentialHistogram(otlp::ExponentialHistogram {
        data_points: vec![exponential],
        aggregation_temporality: CUMULATIVE,
    });
    let metrics = vec![
        metric("g", "", gauge(vec![without_value])),
        metric("h", "", histogram_of(unrecorded)),
        metric("e", "", exponential),
    ];
    let got = translated(&[], metrics, &Settings::default());
    assert_eq!(
        said(&got),
        [
            "g stale",
            "h_sum stale",
            "h_count stale",
            r#"h_bucket{le="0.005"} stale"#,
            r#"h_bucket{le="10000"} stale"#,
            r#"h_bucket{le="+Inf"} stale"#,
            "e stale histogram",
        ]
    );
}

#[test]
fn what_cannot_be_taken_is_counted_by_reason_and_the_rest_is_kept() {
    let delta = AggregationTemporality::Delta as i32;
    let two = || vec![number(1.0, &[]), number(2.0, &[("a", "b")])];
    let timeless = otlp::NumberDataPoint { time_unix_nano: 0, ..number(1.0, &[]) };
    let valueless = otlp::NumberDataPoint { value: None, ..number(1.0, &[]) };
    let lopsided = otlp::HistogramDataPoint { bucket_counts: vec![1], ..explicit() };
    let got = translated(
        &[],
        vec![
            metric("d", "", sum(two(), delta, true)),
            metric("u", "", sum(two(), 0, false)),
            metric("@", "", gauge(two())),
            metric("g", "", gauge(vec![timeless, number(3.0, &[]), valueless])),
            metric("l", "", gauge(vec![number(1.0, &[("", "x")])])),
            metric("h", "", histogram_of(lopsided)),
            metric("empty", "", gauge(vec![])),
            otlp::Metric { name: "nothing".to_owned(), ..Default::default() },
        ],
        &Settings::default(),
    );
    assert_eq!(said(&got), ["g 3"]);
    assert_eq!(got.resources[0].samples[0].point, Some(7));
    assert_eq!(got.points, 11);
    assert_eq!(
        got.rejected.iter().collect::<Vec<_>>(),
        [
            (Reason::Temporality, 4),
            (Reason::InvalidName, 3),
            (Reason::Incomplete, 2),
            (Reason::InvalidHistogram, 1)
        ]
    );
    assert_eq!(
        got.rejected.message(),
        "4 data points rejected, temporality: invalid temporality and type combination for metric \"d\"; \
         3 data points rejected, invalid_name: normalization for metric \"@\" resulted in empty name; \
         2 data points rejected, incomplete: metric \"g\": data point without a time; \
         1 data point rejected, invalid_histogram: metric \"h\": histogram with 2 bounds and 1 buckets; \
         empty data points. empty is dropped; empty data points. nothing is dropped"
    );
}

#[test]
fn attributes_that_become_one_label_are_joined_in_the_order_of_their_keys() {
    let point = number(1.0, &[("a_b", "2"), ("a.b", "1"), ("__name__", "x"), ("le", "kept"), ("void", "")]);
    let got = translated(&[], vec![metric("g", "", gauge(vec![point]))], &Settings::default());
    assert_eq!(said(&got), [r#"g{a_b="1;2", le="kept"} 1"#]);
}

const RESOURCE: &[(&str, &str)] = &[
    ("service.namespace", "shop"),
    ("service.name", "cart"),
    ("service.instance.id", "i-1"),
    ("cloud.region", "eu"),
    ("host.name", "h1"),
];

#[test]
fn a_resource_gives_job_instance_and_target_info() {
    let metrics =
        || vec![metric("g", "", gauge(vec![number(1.0, &[("job", "own"), ("cloud.region", "own")])]))];
    let got = translated(RESOURCE, metrics(), &Settings::default());
    assert_eq!(
        said(&got),
        [
            r#"g{cloud_region="own", instance="i-1", job="shop/cart"} 1"#,
            r#"target_info{cloud_region="eu", host_name="h1", instance="i-1", job="shop/cart"} 1"#,
        ]
    );
    let info = &got.resources[0].samples[1];
    assert_eq!((info.point, info.timestamp, info.start), (None, Timestamp(NOW_MS), None));
    assert_eq!(
        got.resources[0].key.to_string(),
        r#"{"service.instance.id"="i-1", "service.name"="cart", "service.namespace"="shop"}"#
    );

    let keeping = Settings { keeps_identifying_attributes: true, ..Settings::default() };
    assert_eq!(
        said(&translated(RESOURCE, metrics(), &keeping))[1],
        "target_info{cloud_region=\"eu\", host_name=\"h1\", instance=\"i-1\", job=\"shop/cart\", \
         service_instance_id=\"i-1\", service_name=\"cart\", service_namespace=\"shop\"} 1"
    );
    for without_info in [&RESOURCE[..3], &RESOURCE[3..], &RESOURCE[1..2], &[]] {
        let got = translated(without_info, metrics(), &Settings::default());
        assert_eq!(said(&got).len(), 1, "{without_info:?}");
    }
}

#[test]
fn promoted_attributes_give_way_to_a_points_own() {
    let names = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<BTreeSet<_>>();
    let metrics = || vec![metric("g", "", gauge(vec![number(1.0, &[("cloud.region", "own")])]))];
    for (promotion, expected) in [
        (
            Promotion::Only(names(&["cloud.region", "host.name", "absent"])),
            r#"g{cloud_region="own", host_name="h1", instance="i-1", job="shop/cart"} 1"#,
        ),
        (
            Promotion::AllBut(names(&["host.name", "service.name", "service.namespace"])),
            r#"g{cloud_region="own", instance="i-1", job="shop/cart", service_instance_id="i-1"} 1"#,
        ),
    ] {
        let settings = Settings { promotion, ..Settings::default() };
        let got = translated(RESOURCE, metrics(), &settings);
        assert_eq!(said(&got)[0], expected);
        assert!(
            !said(&got)[1].contains("service_instance_id"),
            "target_info has what it has without promotion"
        );
    }
}

#[test]
fn a_scope_gives_labels_when_it_is_promoted() {
    let settings = Settings { promotes_scope: true, ..Settings::default() };
    let metrics = || vec![metric("g", "", gauge(vec![number(1.0, &[("otel_scope_name", "own")])]))];
    let got = translated(RESOURCE, metrics(), &settings);
    assert_eq!(
        said(&got)[0],
        "g{instance=\"i-1\", job=\"shop/cart\", otel_scope_name=\"lib\", otel_scope_schema_url=\"https://schema\", \
         otel_scope_short_name=\"l\", otel_scope_version=\"1.2\"} 1"
    );
    assert!(!said(&got)[1].contains("otel_scope"), "target_info is of the resource");
    let mut nameless = request_of(&[], metrics());
    nameless.resource_metrics[0].scope_metrics[0].scope.as_mut().expect("set").name.clear();
    assert_eq!(said(&translate(&nameless, &settings)), [r#"g{otel_scope_name="own"} 1"#]);
}

#[test]
fn names_stay_as_they_are_without_translation() {
    let settings = Settings { strategy: TranslationStrategy::NoTranslation, ..Settings::default() };
    let metrics = vec![metric(
        "http.requests",
        "1",
        sum(vec![number(5.0, &[("http.method", "GET")])], CUMULATIVE, true),
    )];
    let got = translated(RESOURCE, metrics, &settings);
    assert_eq!(said(&got)[0], r#"http.requests{"http.method"="GET", instance="i-1", job="shop/cart"} 5"#);
    assert!(said(&got)[1].starts_with(r#"target_info{"cloud.region"="eu", "host.name"="h1", "#));
}

#[test]
fn target_info_covers_the_times_of_all_points() {
    let late = otlp::NumberDataPoint { time_unix_nano: NOW + 200 * SECOND, ..number(2.0, &[]) };
    let metrics = vec![metric("g", "", gauge(vec![number(1.0, &[]), late]))];
    let settings = Settings { lookback_delta: Duration::from_secs(200), ..Settings::default() };
    let got = translated(RESOURCE, metrics, &settings);
    let times: Vec<i64> =
        got.resources[0].samples[2..].iter().map(|s| s.timestamp.millis() - NOW_MS).collect();
    assert_eq!(times, [0, 100_000, 200_000]);
}

#[test]
fn every_bound_rejects_what_is_beyond_it_and_nothing_else() {
    let plain = || metric("g", "", gauge(vec![number(1.0, &[("a", "b")]), number(2.0, &[("a", "c")])]));
    let wide = metric("w", "", gauge(vec![number(1.0, &[("a", "1"), ("b", "2"), ("c", "3")])]));
    let long = metric("l", "", gauge(vec![number(1.0, &[("a", &"x".repeat(50))])]));
    let limits =
        Limits { attributes: 2, label_bytes: 40, series_bytes: 60, classic_buckets: 2, ..Limits::default() };
    let bounded = |limits: &Limits| Settings { limits: limits.clone(), ..Settings::default() };
    let sum_of_two =
        metric("s", "", gauge(vec![number(1.0, &[("a", &"x".repeat(35)), ("b", &"y".repeat(35))])]));
    let buckets = otlp::HistogramDataPoint {
        explicit_bounds: vec![1.0, 2.0, 3.0],
        bucket_counts: vec![1, 2, 3, 4],
        ..explicit()
    };
    let got = translated(
        &[],
        vec![
            plain(),
            wide,
            long,
            sum_of_two,
            metric("h", "", histogram_of(buckets)),
            metric("k", "", histogram_of(explicit())),
        ],
        &bounded(&limits),
    );
    assert_eq!(got.rejected.iter().collect::<Vec<_>>(), [(Reason::Limit, 4)]);
    assert_eq!(said(&got).len(), 2 + 5);

    let few = translated(&[], vec![plain(), plain()], &bounded(&Limits { points: 3, ..Limits::default() }));
    assert_eq!((few.points, few.rejected.points(), said(&few).len()), (4, 1, 3));
    assert!(few.rejected.message().contains("more than 3 data points in a request"));

    // One series takes 8 + 1 + 1 bytes and their lengths, 4 in all: `__name__`, `g`, `a`, `b`.
    let tight = Limits { request_label_bytes: 31, ..Limits::default() };
    let tight = translated(&[], vec![plain(), plain()], &bounded(&tight));
    assert_eq!((tight.rejected.points(), said(&tight).len()), (2, 2));

    let crowded = translated(&[("a", "1"), ("b", "2"), ("c", "3")], vec![plain()], &bounded(&limits));
    assert_eq!((crowded.points, crowded.rejected.points()), (2, 2));
    assert!(crowded.rejected.message().contains("resource: 3 attributes: at most 2 are allowed"));
}
