//! OTLP over gRPC, through its own listener.

use std::time::Duration;

use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Exemplar, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint,
    ResourceMetrics, ScopeMetrics, Sum, exemplar, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use tonic::Code;
use tonic::codec::CompressionEncoding;
use tonic::transport::Channel as Transport;
use tonic_types::StatusExt as _;

use super::*;

const CUMULATIVE: i32 = AggregationTemporality::Cumulative as i32;

fn with_otlp(config: ingester::Config) -> ingester::Config {
    ingester::Config { otlp_grpc_address: Some(([127, 0, 0, 1], 0).into()), ..config }
}

async fn client(started: &Started) -> MetricsServiceClient<Transport> {
    let address = started.running.address("otlp-grpc").expect("a listener");
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{address}"));
    MetricsServiceClient::new(channel.expect("a URL").connect().await.expect("connected"))
}

fn attribute(key: &str, value: &str) -> KeyValue {
    let value = Some(AnyValue { value: Some(Any::StringValue(value.to_owned())) });
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}

fn nanos(t: i64) -> u64 {
    u64::try_from(NOW.millis() + t).expect("after 1970") * 1_000_000
}

fn point(t: i64, x: f64) -> NumberDataPoint {
    NumberDataPoint {
        time_unix_nano: nanos(t),
        value: Some(number_data_point::Value::AsDouble(x)),
        ..NumberDataPoint::default()
    }
}

fn metric(name: &str, data: Data) -> Metric {
    Metric { name: name.to_owned(), data: Some(data), ..Metric::default() }
}

fn gauge(name: &str, points: Vec<NumberDataPoint>) -> Metric {
    metric(name, Data::Gauge(Gauge { data_points: points }))
}

fn request(metrics: Vec<Metric>) -> ExportMetricsServiceRequest {
    let attributes = vec![attribute("service.name", "s"), attribute("service.instance.id", "i")];
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(Resource { attributes, ..Resource::default() }),
            scope_metrics: vec![ScopeMetrics { metrics, ..ScopeMetrics::default() }],
            ..ResourceMetrics::default()
        }],
    }
}

fn labelled(name: &str, rest: &str) -> String {
    format!(r#"{{__name__="{name}", instance="i", job="s"{rest}}}"#)
}

/// Series as `Started::all` shows them, with times from now on.
async fn stored(started: &Started, tenant: &str) -> Vec<(String, Vec<(i64, f64)>)> {
    let relative = |(labels, samples): (String, Vec<(i64, u64)>)| {
        (labels, samples.into_iter().map(|(t, bits)| (t - NOW.millis(), f64::from_bits(bits))).collect())
    };
    started.all(tenant).await.into_iter().map(relative).collect()
}

fn rejected(response: &ExportMetricsServiceResponse) -> (i64, &str) {
    let partial = response.partial_success.as_ref();
    partial.map_or((0, ""), |p| (p.rejected_data_points, p.error_message.as_str()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_are_stored_for_their_tenant_under_either_compression() {
    let folder = tempfile::tempdir().expect("a folder");
    let started = Started::with(folder.path(), with_otlp).await;
    let plain = client(&started).await;
    let gzip = plain.clone().send_compressed(CompressionEncoding::Gzip);
    let zstd = plain.clone().send_compressed(CompressionEncoding::Zstd);
    for (mut client, t) in [(plain, -3_000), (gzip, -2_000), (zstd, -1_000)] {
        let response = client.export(request(vec![gauge("g", vec![point(t, 1.5)])])).await.expect("taken");
        assert_eq!(response.into_inner(), ExportMetricsServiceResponse::default(), "nothing to tell");
    }
    let mut of_team = tonic::Request::new(request(vec![gauge("g", vec![point(0, 2.5)])]));
    of_team.metadata_mut().insert("x-scope-orgid", "team-b".parse().expect("ASCII"));
    client(&started).await.export(of_team).await.expect("taken");
    let g = labelled("g", "");
    let of_default = vec![(-3_000, 1.5), (-2_000, 1.5), (-1_000, 1.5)];
    assert_eq!(stored(&started, "default").await, [(g.clone(), of_default)]);
    assert_eq!(stored(&started, "team-b").await, [(g, vec![(0, 2.5)])]);
    let mut nobody = tonic::Request::new(request(vec![]));
    nobody.metadata_mut().insert("x-scope-orgid", "a/b".parse().expect("ASCII"));
    let status = client(&started).await.export(nobody).await.expect_err("refused");
    assert_eq!(status.code(), Code::InvalidArgument);
    started.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accepted_and_rejected_points_add_up_to_what_was_sent() {
    let folder = tempfile::tempdir().expect("a folder");
    let started = Started::with(folder.path(), with_otlp).await;
    let mut client = client(&started).await;
    let histogram = |t: i64, counts: [u64; 2]| {
        let point = HistogramDataPoint {
            time_unix_nano: nanos(t),
            count: counts.iter().sum(),
            bucket_counts: counts.to_vec(),
            explicit_bounds: vec![1.0],
            ..HistogramDataPoint::default()
        };
        metric(
            "h",
            Data::Histogram(Histogram { data_points: vec![point], aggregation_temporality: CUMULATIVE }),
        )
    };
    let first = request(vec![gauge("g", vec![point(0, 1.0)]), histogram(0, [1, 1])]);
    let response = client.export(first.clone()).await.expect("taken").into_inner();
    assert_eq!(rejected(&response), (0, ""));
    let again = client.export(first).await.expect("taken").into_inner();
    assert_eq!(rejected(&again), (0, ""), "an exact repetition is taken silently");

    let delta = Sum {
        data_points: vec![point(0, 1.0), point(1, 1.0)],
        aggregation_temporality: AggregationTemporality::Delta as i32,
        is_monotonic: true,
    };
    let mixed = request(vec![
        metric("d", Data::Sum(delta)),
        // One is late, one contradicts, one is far ahead, one is taken.
        gauge("g", vec![point(-1, 1.0), point(0, 2.0), point(600_001, 1.0), point(5, 3.0)]),
        // Two of its three series contradict: it is one point.
        histogram(0, [1, 2]),
    ]);
    let response = client.export(mixed).await.expect("taken").into_inner();
    let (points, message) = rejected(&response);
    assert_eq!(points, 2 + 3 + 1, "{message}");
    for part in [
        "2 data points rejected, temporality: invalid temporality and type combination for metric \"d\"",
        "1 data point rejected, out_of_order: out of order sample: {__name__=\"g\"",
        "2 data points rejected, duplicate: duplicate sample for timestamp: {__name__=",
        "1 data point rejected, out_of_bounds: out of bounds: {__name__=\"g\"",
    ] {
        assert!(message.contains(part), "{part} in {message}");
    }
    assert_eq!(
        stored(&started, "default").await,
        [
            (labelled("g", ""), vec![(0, 1.0), (5, 3.0)]),
            (labelled("h_bucket", r#", le="+Inf""#), vec![(0, 2.0)]),
            (labelled("h_bucket", r#", le="1""#), vec![(0, 1.0)]),
            (labelled("h_count", ""), vec![(0, 2.0)]),
        ]
    );
    let metrics = started.running.metrics().encode().expect("encoded");
    for line in [
        "ingester_otlp_points_accepted_total 5\n",
        "ingester_otlp_points_rejected_total{reason=\"temporality\"} 2\n",
        "ingester_otlp_points_rejected_total{reason=\"duplicate\"} 2\n",
    ] {
        assert!(metrics.contains(line), "{line} in\n{metrics}");
    }
    started.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exemplars_and_starts_are_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let started = Started::with(folder.path(), with_otlp).await;
    let example = Exemplar {
        value: Some(exemplar::Value::AsDouble(0.5)),
        time_unix_nano: nanos(-500),
        trace_id: vec![0xab; 16],
        span_id: vec![0xcd; 8],
        ..Exemplar::default()
    };
    let point =
        NumberDataPoint { start_time_unix_nano: nanos(-60_000), exemplars: vec![example], ..point(0, 7.0) };
    let sum = Sum { data_points: vec![point], aggregation_temporality: CUMULATIVE, is_monotonic: true };
    client(&started).await.export(request(vec![metric("c", Data::Sum(sum))])).await.expect("taken");
    let any = rpc::pb::model::MatcherSet::default();
    let asked = pb::ExemplarsRequest {
        any_of: vec![any],
        min_time: i64::MIN,
        max_time: i64::MAX,
        ..pb::ExemplarsRequest::default()
    };
    let found = started.client().exemplars(asked).await.expect("found").into_inner();
    let [series] = &found.series[..] else { panic!("one series: {found:?}") };
    let labels = rpc::convert::labels(series.labels.as_ref()).expect("valid");
    assert_eq!(labels.to_string(), labelled("c_total", ""));
    let [got] = &series.exemplars[..] else { panic!("one exemplar: {series:?}") };
    let got = model::Exemplar::try_from(got).expect("valid");
    let ids = format!("{{span_id=\"{}\", trace_id=\"{}\"}}", "cd".repeat(8), "ab".repeat(16));
    assert_eq!((got.labels.to_string(), got.value), (ids, 0.5));
    assert_eq!(got.timestamp, Some(Timestamp(NOW.millis() - 500)));
    let matcher = Matcher::new(model::MatchOp::Equal, "__name__", "c_total").expect("valid");
    let asked = pb::SelectRequest {
        matchers: rpc::convert::matchers_to_pb(&[matcher]),
        min_time: i64::MIN,
        max_time: i64::MAX,
        ..pb::SelectRequest::default()
    };
    let mut stream = started.client().select(asked).await.expect("selected").into_inner();
    let mut starts = Vec::new();
    while let Some(message) = stream.message().await.expect("a whole answer") {
        starts.extend(message.samples.into_iter().flat_map(|s| s.starts));
    }
    drop(stream);
    assert_eq!(starts.len(), 1, "{starts:?}");
    started.stop().await;
}

/// What one gigabyte of zeros would do to a receiver that decompresses first and measures later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_grows_beyond_the_limit_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let small = |config| ingester::Config { otlp_message_bytes_max: 100_000, ..with_otlp(config) };
    let started = Started::with(folder.path(), small).await;
    let mut name = gauge("g", vec![point(0, 1.0)]);
    name.description = "x".repeat(1_000_000);
    for compression in [CompressionEncoding::Gzip, CompressionEncoding::Zstd] {
        let mut client = client(&started).await.send_compressed(compression);
        let status = client.export(request(vec![name.clone()])).await.expect_err("refused");
        assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
        assert!(status.get_details_retry_info().is_none(), "sending it again does not help");
    }
    let status = client(&started).await.export(request(vec![name])).await.expect_err("refused");
    assert_eq!(status.code(), Code::OutOfRange, "{status}");
    assert_eq!(stored(&started, "default").await, []);
    started.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn overload_says_when_to_come_back() {
    let folder = tempfile::tempdir().expect("a folder");
    // One unit of the buffer, which a few samples fill.
    let tight = |config| ingester::Config { otlp_buffer_bytes_max: 1_024, ..with_otlp(config) };
    let started = Started::with(folder.path(), tight).await;
    let many: Vec<Metric> = (0..500).map(|i| gauge(&format!("g{i}"), vec![point(0, 1.0)])).collect();
    let status = client(&started).await.export(request(many)).await.expect_err("too much");
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    let retry = status.get_details_retry_info().expect("a time to come back");
    assert_eq!(retry.retry_delay, Some(Duration::from_secs(1)));
    client(&started)
        .await
        .export(request(vec![gauge("g", vec![point(0, 1.0)])]))
        .await
        .expect("room for one");
    started.stop().await;

    // A request that never ends holds the only place.
    let folder = tempfile::tempdir().expect("a folder");
    let one = |config| ingester::Config { otlp_requests_max: 1, ..with_otlp(config) };
    let started = Started::with(folder.path(), one).await;
    let address = started.running.address("otlp-grpc").expect("a listener");
    let channel = Transport::from_shared(format!("http://{address}")).expect("a URL").connect_lazy();
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.expect("connected");
    let path: http::uri::PathAndQuery =
        "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export".parse().expect("a path");
    // Comes again until it is not refused: the client below may have the place at that moment.
    let held = tokio::runtime::Handle::current().spawn(async move {
        loop {
            let codec =
                tonic_prost::ProstCodec::<ExportMetricsServiceRequest, ExportMetricsServiceResponse>::default(
                );
            let endless = tonic::Request::new(tokio_stream::pending::<ExportMetricsServiceRequest>());
            let refused = grpc.client_streaming(endless, path.clone(), codec).await;
            assert_eq!(refused.expect_err("never answered otherwise").code(), Code::ResourceExhausted);
            grpc.ready().await.expect("connected");
        }
    });
    let deadline = tokio::time::Instant::now() + DEADLINE;
    let mut client = client(&started).await;
    let status = loop {
        match client.export(request(vec![])).await {
            Err(status) => break status,
            Ok(_) => assert!(tokio::time::Instant::now() < deadline, "the place is never taken"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert_eq!((status.code(), status.message()), (Code::ResourceExhausted, "too many OTLP requests"));
    assert!(status.get_details_retry_info().is_some());
    held.abort();
    started.stop().await;
}
