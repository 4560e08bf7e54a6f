//! `GET /federate` and its alias `/federation`, as Prometheus's `web/federate.go`.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use exposition::federate::{Encoder, Negotiated};
use futures::stream;
use http::{HeaderMap, StatusCode, header};

use super::Form;
use crate::federate::{LastSamples, Request};
use crate::gateway::Gateway;

/// The body is sent in pieces of about this many bytes.
const PIECE_BYTES: usize = 64 << 10;

/// `GET /federate`.
pub(super) async fn federate(
    State(gateway): State<Arc<Gateway>>,
    headers: HeaderMap,
    form: Form,
) -> Response {
    let mut any_of = Vec::new();
    for text in form.params.all("match[]") {
        match promql_syntax::parse_selector(text) {
            Ok(matchers) => any_of.push(matchers),
            Err(error) => return plain(StatusCode::BAD_REQUEST, &error.to_string()),
        }
    }
    // Parsing comes before readiness.
    if !gateway.readiness.is_ready() {
        return gateway.readiness.refusal();
    }
    let config = match gateway.prometheus_config() {
        Ok(config) => config,
        Err(error) => return plain(StatusCode::SERVICE_UNAVAILABLE, &error.message),
    };
    let accept = super::header_text(&headers, header::ACCEPT);
    let negotiated = Negotiated::from_accept(accept);
    let content_type = negotiated.content_type();
    let body = if any_of.is_empty() {
        Body::empty()
    } else {
        let now = gateway.clock.now();
        let request = Request {
            tenant: &form.tenant,
            any_of: &any_of,
            min_time: now.add_ms(-gateway.config.lookback_delta.millis()),
            max_time: now,
        };
        let samples = match LastSamples::open(&gateway.peers, request).await {
            Ok(samples) => samples,
            Err(status) => {
                gateway.metrics.federation_errors.inc();
                return plain(code(rpc::status::kind(&status)), status.message());
            }
        };
        let pump =
            Pump { samples, encoder: Some(Encoder::new(negotiated, &config.external_labels)), gateway };
        Body::from_stream(stream::try_unfold(pump, Pump::piece))
    };
    ([(header::CONTENT_TYPE, content_type)], body).into_response()
}

fn code(kind: fault::Kind) -> StatusCode {
    match kind {
        fault::Kind::Unavailable | fault::Kind::Busy | fault::Kind::Timeout => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn plain(status: StatusCode, text: &str) -> Response {
    let headers =
        [(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
    (status, headers, format!("{text}\n")).into_response()
}

struct Pump {
    samples: LastSamples,
    /// Gone once the end has been written.
    encoder: Option<Encoder>,
    gateway: Arc<Gateway>,
}

impl Pump {
    /// Writes the next piece. A failure breaks the body off without its terminator, so that the scrape fails.
    async fn piece(mut self) -> std::io::Result<Option<(Bytes, Self)>> {
        let Some(mut encoder) = self.encoder.take() else { return Ok(None) };
        let mut out = Vec::with_capacity(PIECE_BYTES + (PIECE_BYTES >> 2));
        while out.len() < PIECE_BYTES {
            match self.samples.next().await {
                Ok(Some(sample)) => encoder.encode(&sample.labels, sample.timestamp, &sample.value, &mut out),
                Ok(None) => {
                    encoder.finish(&mut out);
                    return Ok(Some((out.into(), self)));
                }
                Err(status) => {
                    self.gateway.metrics.federation_errors.inc();
                    tracing::warn!(error = status.message(), "federation answer broken off");
                    return Err(std::io::Error::other(status));
                }
            }
        }
        self.encoder = Some(encoder);
        Ok(Some((out.into(), self)))
    }
}
