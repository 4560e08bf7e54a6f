//! `POST /api/v1/write`: remote write 1.0, as Prometheus's `storage/remote/write_handler.go`.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use fault::Kind;
use group_writer::Batch;
use http::{HeaderMap, StatusCode, header};
use model::Tenant;
use remote_protocol::{BODY_BYTES_MAX, Version, WriteRequest};

use crate::gateway::Gateway;
use crate::remote_write::{Error, WriteSeries};

/// The messages that are taken; 2.0 has answers and partial writes of its own, which are not built yet.
const ACCEPTED: [Version; 1] = [Version::V1];

/// `POST /api/v1/write`.
pub(super) async fn write(State(gateway): State<Arc<Gateway>>, headers: HeaderMap, body: Body) -> Response {
    match take(&gateway, &headers, body).await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err((status, text)) => {
            gateway.metrics.remote_write_refused.inc();
            (status, format!("{text}\n")).into_response()
        }
    }
}

type Refusal = (StatusCode, String);

async fn take(gateway: &Arc<Gateway>, headers: &HeaderMap, body: Body) -> Result<(), Refusal> {
    let tenant = super::tenant(headers).map_err(|e| (StatusCode::BAD_REQUEST, e.message))?;
    let text = |name| super::header_text(headers, name);
    let version =
        remote_protocol::negotiate(text(header::CONTENT_TYPE), text(header::CONTENT_ENCODING), &ACCEPTED)
            .map_err(|e| protocol_refusal(&e))?;
    let body = super::body(body, BODY_BYTES_MAX + 1).await?;
    let worker = Arc::clone(gateway);
    let grouped = tokio::task::spawn_blocking(move || decode(&worker, &tenant, version, &body)).await;
    let batch = grouped.map_err(|e| (StatusCode::INTERNAL_SERVER_ERROR, format!("decode: {e}")))??;
    let written = gateway.remote_writer.store(batch).await.map_err(|e| write_refusal(&e))?;
    gateway.metrics.remote_write_samples.inc_by(written.stored);
    Ok(())
}

fn decode(gateway: &Gateway, tenant: &Tenant, version: Version, body: &[u8]) -> Result<Batch, Refusal> {
    let message = remote_protocol::decompress(body).map_err(|e| protocol_refusal(&e))?;
    let request = WriteRequest::parse(version, &message).map_err(|e| protocol_refusal(&e))?;
    let mut all = Vec::new();
    for series in request.series() {
        // As in the reference, a series with invalid labels is skipped and counted, and the request succeeds.
        let labels = match series.to_labels() {
            Ok(labels) => labels,
            Err(error) => {
                tracing::debug!(%error, "remote write series skipped");
                gateway.metrics.remote_write_invalid.inc();
                continue;
            }
        };
        all.push(WriteSeries {
            labels,
            samples: series.floats().collect(),
            histograms: series.histograms().map(|(t, h)| (t, Arc::new(h))).collect(),
            exemplars: series.exemplars().filter_map(Result::ok).collect(),
        });
    }
    gateway.remote_writer.group(tenant, &all).map_err(|e| write_refusal(&e))
}

fn protocol_refusal(error: &remote_protocol::Error) -> Refusal {
    let status = match error {
        remote_protocol::Error::UnsupportedMediaType(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        remote_protocol::Error::BodyTooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
        _ => StatusCode::BAD_REQUEST,
    };
    (status, error.to_string())
}

fn write_refusal(error: &Error) -> Refusal {
    // Senders try again on 5xx, and on 429 where they are told to: what may pass later is 503.
    let status = match error.kind() {
        Kind::Invalid => StatusCode::BAD_REQUEST,
        Kind::Busy | Kind::Timeout | Kind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    (status, error.to_string())
}
