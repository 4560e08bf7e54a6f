//! Traces against an OTLP receiver in this process.

use std::sync::Arc;

use http::HeaderMap;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::trace::v1::Span;
use parking_lot::Mutex;
use telemetry::{Error, Options, Traces};
use tokio::net::TcpListener;
use tonic::{Request, Response, Status};

/// Keeps what it receives.
#[derive(Clone, Default)]
struct Receiver(Arc<Mutex<Vec<ExportTraceServiceRequest>>>);

#[tonic::async_trait]
impl TraceService for Receiver {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.0.lock().push(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

/// Starts a receiver on a free port, and the options that send to it.
async fn receiver(ratio: f64) -> (Receiver, Options) {
    let receiver = Receiver::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let service = TraceServiceServer::new(receiver.clone());
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    let server = tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming);
    #[expect(clippy::disallowed_methods, reason = "a test has no runtime to spawn through")]
    tokio::spawn(server);
    let options = Options {
        name: "ingester".to_owned(),
        version: "1.2.3".to_owned(),
        traces: Some(Traces { endpoint: format!("http://{address}"), ratio }),
        ..Options::default()
    };
    (receiver, options)
}

/// Runs `act` under telemetry, flushes, and returns the spans that arrived.
async fn traced(ratio: f64, act: impl FnOnce()) -> Vec<(Vec<(String, String)>, Span)> {
    let (receiver, options) = receiver(ratio).await;
    let (subscriber, telemetry) = telemetry::subscriber(&options, std::io::sink).expect("built");
    tracing::subscriber::with_default(subscriber, act);
    let flushed = tokio::task::spawn_blocking(|| telemetry.shutdown()).await.expect("no panic");
    flushed.expect("flushed");
    let mut spans = Vec::new();
    for batch in receiver.0.lock().drain(..).flat_map(|request| request.resource_spans) {
        let attributes = batch.resource.unwrap_or_default().attributes;
        let resource: Vec<(String, String)> =
            attributes.into_iter().map(|kv| (kv.key, format!("{:?}", kv.value))).collect();
        for span in batch.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            spans.push((resource.clone(), span));
        }
    }
    spans
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_span_arrives_with_its_parent_and_its_service() {
    let spans = traced(1.0, || {
        let _outer = tracing::info_span!("append", tenant = "default").entered();
        let _inner = tracing::info_span!("sync").entered();
        let _noise = tracing::info_span!(target: "h2::codec", "frame").entered();
    })
    .await;
    let find = |name: &str| spans.iter().find(|(_, span)| span.name == name).expect("sent");
    assert_eq!(spans.len(), 2, "{spans:?}");
    let (resource, outer) = find("append");
    let (_, inner) = find("sync");
    assert_eq!((&inner.parent_span_id, &inner.trace_id), (&outer.span_id, &outer.trace_id));
    assert!(outer.attributes.iter().any(|kv| kv.key == "tenant"));
    for (key, value) in [("service.name", "ingester"), ("service.version", "1.2.3")] {
        let found = resource.iter().find(|(k, _)| k == key).expect("named");
        assert!(found.1.contains(value), "{found:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trace_is_carried_over_a_call_by_headers() {
    let spans = traced(1.0, || {
        let mut headers = HeaderMap::new();
        tracing::info_span!("client").in_scope(|| telemetry::inject_trace(&mut headers));
        assert_eq!(headers.len(), 1, "{headers:?}");
        let server = tracing::info_span!("server");
        telemetry::continue_trace(&server, &headers);
        drop(server.entered());
    })
    .await;
    let find = |name: &str| spans.iter().map(|(_, span)| span).find(|span| span.name == name).expect("sent");
    let (client, server) = (find("client"), find("server"));
    assert_eq!((&server.parent_span_id, &server.trace_id), (&client.span_id, &client.trace_id));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_share_of_traces_is_kept_and_the_callers_choice_wins() {
    let spans = traced(0.0, || {
        drop(tracing::info_span!("own").entered());
        let mut headers = HeaderMap::new();
        let sampled = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        headers.insert("traceparent", sampled.parse().expect("a header"));
        let server = tracing::info_span!("asked");
        telemetry::continue_trace(&server, &headers);
        drop(server.entered());
    })
    .await;
    let names: Vec<&str> = spans.iter().map(|(_, span)| span.name.as_str()).collect();
    assert_eq!(names, ["asked"]);
}

#[tokio::test]
async fn faults_in_the_options_are_named() {
    for (endpoint, ratio, expected) in [
        ("http://localhost:4317", 1.5, "trace sampling ratio 1.5: want 0 to 1"),
        ("http://localhost:4317", f64::NAN, "trace sampling ratio NaN: want 0 to 1"),
        ("::", 1.0, "trace endpoint \"::\": "),
    ] {
        let traces = Traces { endpoint: endpoint.to_owned(), ratio };
        let options = Options { traces: Some(traces), ..Options::default() };
        let error = telemetry::subscriber(&options, std::io::sink).err().expect("refused");
        assert!(error.to_string().starts_with(expected), "{error}");
        assert_eq!(error.kind(), fault::Kind::Invalid);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_is_away_costs_the_traces_and_nothing_else() {
    let traces = Traces { endpoint: "http://127.0.0.1:1".to_owned(), ratio: 1.0 };
    let options = Options { traces: Some(traces), ..Options::default() };
    let (subscriber, telemetry) = telemetry::subscriber(&options, std::io::sink).expect("lazy");
    tracing::subscriber::with_default(subscriber, || drop(tracing::info_span!("lost").entered()));
    let flushed = tokio::task::spawn_blocking(|| telemetry.shutdown()).await.expect("no panic");
    assert!(matches!(flushed, Err(Error::Flush { .. })), "{flushed:?}");
}
