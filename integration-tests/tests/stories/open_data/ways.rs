//! The ways that samples come in, each with the same series under a name of its own in the label `way`.

use std::fs;
use std::process::Command;

use integration_tests::{Http, Kind, Server, write, write_v2};
use model::number::canonical_nan;
use model::{Histogram, IntegerHistogram, Labels, Span, Timestamp, is_stale};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, DataPointFlags, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge,
    Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message as _;
use remote_protocol::SeriesOut;

/// Prometheus's width of the zero bucket for OTLP's histograms, which say none.
const ZERO_THRESHOLD: f64 = 1e-128;
const NANOS: u64 = 1_000_000;

/// The series as they come in one way.
pub(super) fn in_way(way: &str, series: &[SeriesOut]) -> Vec<SeriesOut> {
    let of_way = |series: &SeriesOut| SeriesOut {
        labels: Labels::from_pairs(series.labels.iter().chain([("way", way)])),
        ..series.clone()
    };
    series.iter().map(of_way).collect()
}

/// By remote write of both versions. Returns what was written.
pub(super) fn remote_write(http: &Http, series: &[SeriesOut]) -> Vec<SeriesOut> {
    let [first, second] = ["remote write 1.0", "remote write 2.0"].map(|way| in_way(way, series));
    let replies = [write(http, &first), write_v2(http, &second)];
    for reply in replies {
        let reply = reply.expect("an answer");
        assert_eq!(reply.status, 204, "{}", reply.body);
    }
    [first, second].concat()
}

/// As OTLP, over gRPC and HTTP: floats as gauges, and exponential histograms. Returns what was written.
pub(super) fn otlp(server: &Server, floats: &[SeriesOut], base: i64, steps: i64) -> Vec<SeriesOut> {
    let mut all = Vec::new();
    for way in ["OTLP gRPC", "OTLP HTTP"] {
        let histograms = in_way(way, &[exponential(base, steps)]);
        let floats = in_way(way, floats);
        let request = request(&floats, &histograms, base, steps);
        if way == "OTLP HTTP" {
            let headers = [("content-type", "application/x-protobuf")];
            let reply = server.http().try_post("/api/v1/otlp/v1/metrics", &headers, &request.encode_to_vec());
            assert_eq!(reply.expect("an answer").status, 200);
        } else {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                let address = format!("http://{}", server.otlp_address());
                let endpoint = tonic::transport::Endpoint::from_shared(address).expect("a URL");
                let mut client = MetricsServiceClient::new(endpoint.connect().await.expect("connected"));
                let answer = client.export(request).await.expect("taken").into_inner();
                assert!(answer.partial_success.is_none_or(|p| p.rejected_data_points == 0));
            });
        }
        all.extend(floats);
        all.extend(histograms);
    }
    all
}

/// What the exponential histograms of a request come to.
fn exponential(base: i64, steps: i64) -> SeriesOut {
    let at = |n: i64| {
        let count = n.cast_unsigned();
        Histogram::Integer(IntegerHistogram {
            schema: 3,
            zero_threshold: ZERO_THRESHOLD,
            zero_count: 2,
            count: 4 * count + 2,
            sum: n as f64 * 0.1,
            positive_spans: vec![Span { offset: 6, length: 2 }],
            positive_deltas: vec![n, n],
            negative_spans: vec![Span { offset: -1, length: 1 }],
            negative_deltas: vec![n],
            ..IntegerHistogram::default()
        })
    };
    SeriesOut {
        labels: Labels::from_pairs([("__name__", "opened_otlp"), ("job", "one"), ("instance", "i")]),
        histograms: (1..steps).map(|n| (Timestamp(base + n * super::INTERVAL_MS), at(n))).collect(),
        ..SeriesOut::default()
    }
}

fn request(
    floats: &[SeriesOut],
    histograms: &[SeriesOut],
    base: i64,
    steps: i64,
) -> ExportMetricsServiceRequest {
    let nanos = |t: i64| t.cast_unsigned() * NANOS;
    let attribute = |(name, value): (&str, &str)| KeyValue {
        key: name.to_owned(),
        value: Some(AnyValue { value: Some(Any::StringValue(value.to_owned())) }),
        ..KeyValue::default()
    };
    let attributes = |labels: &Labels| {
        let own = labels.iter().filter(|(name, _)| !["__name__", "job", "instance"].contains(name));
        own.map(attribute).collect::<Vec<_>>()
    };
    let resource = |job: &str, metrics: Vec<Metric>| ResourceMetrics {
        resource: Some(Resource {
            attributes: [("service.name", job), ("service.instance.id", "i")].map(attribute).to_vec(),
            ..Resource::default()
        }),
        scope_metrics: vec![ScopeMetrics { metrics, ..ScopeMetrics::default() }],
        ..ResourceMetrics::default()
    };
    let metric = |name: &str, data| Metric { name: name.to_owned(), data: Some(data), ..Metric::default() };
    let gauges = ["one", "two"].map(|job| {
        let of_job = floats.iter().filter(|s| s.labels.value("job") == job);
        let points = of_job.flat_map(|series| {
            series.floats.iter().map(|(t, value)| NumberDataPoint {
                attributes: attributes(&series.labels),
                time_unix_nano: nanos(t.millis()),
                flags: if is_stale(*value) { DataPointFlags::NoRecordedValueMask as u32 } else { 0 },
                value: (!is_stale(*value)).then_some(number_data_point::Value::AsDouble(*value)),
                ..NumberDataPoint::default()
            })
        });
        resource(job, vec![metric("opened", Data::Gauge(Gauge { data_points: points.collect() }))])
    });
    let buckets = |offset, bucket_counts| Some(Buckets { offset, bucket_counts });
    let points = (1..steps).map(|n| ExponentialHistogramDataPoint {
        attributes: attributes(&histograms[0].labels),
        time_unix_nano: nanos(base + n * super::INTERVAL_MS),
        count: 4 * n.cast_unsigned() + 2,
        sum: Some(n as f64 * 0.1),
        scale: 3,
        zero_count: 2,
        positive: buckets(5, vec![n.cast_unsigned(), 2 * n.cast_unsigned()]),
        negative: buckets(-2, vec![n.cast_unsigned()]),
        ..ExponentialHistogramDataPoint::default()
    });
    let exponential = ExponentialHistogram {
        data_points: points.collect(),
        aggregation_temporality: AggregationTemporality::Cumulative as i32,
    };
    let histograms = resource("one", vec![metric("opened_otlp", Data::ExponentialHistogram(exponential))]);
    ExportMetricsServiceRequest { resource_metrics: gauges.into_iter().chain([histograms]).collect() }
}

/// The series as a text format can say them: with one NaN.
pub(super) fn as_text(way: &str, series: &[SeriesOut]) -> Vec<SeriesOut> {
    let mut series = in_way(way, series);
    for (_, value) in series.iter_mut().flat_map(|s| &mut s.floats) {
        if value.is_nan() {
            *value = canonical_nan();
        }
    }
    series
}

/// The body of a target that serves samples with their times.
pub(super) fn exposition(series: &[SeriesOut]) -> String {
    lines(series, |t| t.millis().to_string())
}

/// By the importer of OpenMetrics text, while the server is stopped. Returns what was written.
pub(super) fn import(server: &Server, series: &[SeriesOut]) -> Vec<SeriesOut> {
    let series = as_text("import", series);
    let input = server.folder().join("import.om");
    let seconds = |t: Timestamp| integration_tests::promql::seconds(t.millis());
    fs::write(&input, lines(&series, seconds) + "# EOF\n").expect("written");
    let mut command = Command::new(Kind::Tributary.binary());
    command.args(["tsdb", "create-blocks-from", "openmetrics"]).arg(&input).arg(server.data_folder());
    let output = command.output().expect("starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    series
}

fn lines(series: &[SeriesOut], time: impl Fn(Timestamp) -> String) -> String {
    let mut text = String::new();
    for one in series {
        let escaped = |v: &str| v.replace('\\', r"\\").replace('"', r#"\""#).replace('\n', r"\n");
        let pairs = one.labels.iter().filter(|(name, _)| *name != "__name__");
        let pairs: Vec<String> = pairs.map(|(n, v)| format!("{n}=\"{}\"", escaped(v))).collect();
        let name = one.labels.value("__name__");
        for (t, value) in &one.floats {
            text += &format!("{name}{{{}}} {} {}\n", pairs.join(","), number(*value), time(*t));
        }
    }
    text
}

fn number(x: f64) -> String {
    match x {
        _ if x.is_nan() => "NaN".to_owned(),
        _ if x.is_infinite() => if x > 0.0 { "+Inf" } else { "-Inf" }.to_owned(),
        _ => format!("{x:e}"),
    }
}
