//! Our own traces: sampled, batched, sent over OTLP gRPC.

use std::fmt;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::KeyValue;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator as _};
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracer, SdkTracerProvider,
};
use tracing::{Span, Subscriber};
use tracing_opentelemetry::{OpenTelemetryLayer, OpenTelemetrySpanExt as _};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::registry::LookupSpan;

use crate::{Error, Options, Result};

/// How many spans wait to be sent; more are dropped, as telemetry must never slow the service.
const QUEUE_SPANS_MAX: usize = 4 * 1024;
/// How many spans go in one request.
const BATCH_SPANS_MAX: usize = 512;
/// How long one request may take.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the last flush may take.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// Where traces go, and how many.
#[derive(Debug, Clone, PartialEq)]
pub struct Traces {
    /// The OTLP gRPC receiver, as `http://host:port`.
    pub endpoint: String,
    /// The share of traces begun here that are sent, 0 to 1. Traces begun elsewhere follow the caller's choice.
    pub ratio: f64,
}

/// Owns the exporter.
pub(crate) struct Pipeline(SdkTracerProvider);

impl fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pipeline")
    }
}

impl Pipeline {
    pub(crate) fn shutdown(self) -> Result<()> {
        // Shutting down flushes as well, but keeps quiet about what could not be sent.
        let flushed = self.0.force_flush();
        let ended = self.0.shutdown_with_timeout(SHUTDOWN_TIMEOUT);
        flushed.and(ended).map_err(|error| Error::Flush { cause: error.to_string() })
    }
}

pub(crate) fn start<S>(
    options: &Options,
    traces: &Traces,
) -> Result<(Pipeline, OpenTelemetryLayer<S, SdkTracer>)>
where
    S: Subscriber + for<'s> LookupSpan<'s>,
{
    if !(0.0..=1.0).contains(&traces.ratio) {
        return Err(Error::Ratio { ratio: traces.ratio });
    }
    let exporter = SpanExporter::builder()
        .with_tonic()
        .with_endpoint(&traces.endpoint)
        .with_timeout(EXPORT_TIMEOUT)
        .build()
        .map_err(|error| Error::Endpoint { endpoint: traces.endpoint.clone(), cause: error.to_string() })?;
    let batches = BatchConfigBuilder::default()
        .with_max_queue_size(QUEUE_SPANS_MAX)
        .with_max_export_batch_size(BATCH_SPANS_MAX)
        .build();
    let resource = Resource::builder()
        .with_service_name(options.name.clone())
        .with_attribute(KeyValue::new("service.version", options.version.clone()))
        .build();
    let provider = SdkTracerProvider::builder()
        .with_span_processor(BatchSpanProcessor::builder(exporter).with_batch_config(batches).build())
        .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(traces.ratio))))
        .with_resource(resource)
        .build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("tributary"));
    Ok((Pipeline(provider), layer))
}

/// What is traced: our own spans. The transport's must stay out, since sending spans would make spans.
pub(crate) fn filter() -> Targets {
    let silent = ["h2", "hyper", "hyper_util", "tonic", "tower", "opentelemetry", "opentelemetry_sdk"];
    Targets::new()
        .with_default(tracing::Level::INFO)
        .with_targets(silent.map(|target| (target, LevelFilter::OFF)))
        .with_target("opentelemetry_otlp", LevelFilter::OFF)
}

/// Makes `span` a part of the trace that the caller's headers name, if they name one.
pub fn continue_trace(span: &Span, headers: &HeaderMap) {
    if !headers.contains_key("traceparent") {
        return;
    }
    let context = TraceContextPropagator::new().extract(&Headers(headers));
    // Refused only where no trace layer is installed or the span is disabled: then there is nothing to continue.
    drop(span.set_parent(context));
}

/// Names the trace of the current span in the headers of a call that it makes.
pub fn inject_trace(headers: &mut HeaderMap) {
    TraceContextPropagator::new().inject_context(&Span::current().context(), &mut HeadersMut(headers));
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(|value| value.to_str().ok())
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}

struct HeadersMut<'a>(&'a mut HeaderMap);

impl Injector for HeadersMut<'_> {
    fn set(&mut self, key: &str, value: String) {
        // An absent trace state is injected as an empty one.
        if value.is_empty() {
            return;
        }
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(key), HeaderValue::try_from(value)) {
            self.0.insert(name, value);
        }
    }
}
