//! `POST /api/v1/otlp/v1/metrics`, and `/v1/metrics` of a listener of its own: OTLP over HTTP, in protobuf or JSON, handed on to an ingester.
//!
//! What is refused point by point is answered as OTLP says, by `partial_success` in a 200; a request that is wholly
//! taken has an empty protobuf body, as Prometheus answers. Senders try again on 429 and 503.

use std::io::Read as _;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use model::tenant::TENANT_HEADER;
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use prost::Message as _;
use serde_json::json;
use tonic::Code;
use tonic::metadata::MetadataValue;

use crate::gateway::Gateway;

/// Longer than an ingester waits for the samples to be durable.
const DEADLINE: Duration = Duration::from_secs(70);
/// Seconds after which a sender that was told to wait may come back.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// How a request is written, and its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Protobuf,
    Json,
}

/// `POST /api/v1/otlp/v1/metrics`.
pub(super) async fn metrics(State(gateway): State<Arc<Gateway>>, headers: HeaderMap, body: Body) -> Response {
    match take(&gateway, &headers, body).await {
        Ok(response) => response,
        Err((status, text)) => {
            let mut response = (status, format!("{text}\n")).into_response();
            if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
                response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER);
            }
            response
        }
    }
}

type Refusal = (StatusCode, String);

fn bad(text: impl ToString) -> Refusal {
    (StatusCode::BAD_REQUEST, text.to_string())
}

async fn take(gateway: &Gateway, headers: &HeaderMap, body: Body) -> Result<Response, Refusal> {
    let tenant = super::tenant(headers).map_err(|e| bad(e.message))?;
    let encoding = encoding(super::header_text(headers, header::CONTENT_TYPE))?;
    let is_gzip = match super::header_text(headers, header::CONTENT_ENCODING) {
        "" => false,
        "gzip" => true,
        other => {
            return Err(bad(format!(
                "unsupported compression: {other}. Only \"gzip\" or no compression supported"
            )));
        }
    };
    let bytes_max = gateway.config.otlp_message_bytes_max;
    let body = super::body(body, bytes_max).await?;
    let decoded = tokio::task::spawn_blocking(move || decode(encoding, is_gzip, &body, bytes_max)).await;
    let message = decoded.map_err(|e| (StatusCode::INTERNAL_SERVER_ERROR, format!("decode: {e}")))??;
    let mut request = rpc::with_deadline(message, DEADLINE);
    let name = MetadataValue::try_from(tenant.as_str()).map_err(bad)?;
    request.metadata_mut().insert(TENANT_HEADER, name);
    let response = gateway.peers.otlp().export(request).await.map_err(|status| refusal(&status))?;
    Ok(answer(encoding, &response.into_inner()))
}

/// Prometheus takes the two types without parameters alone.
fn encoding(content_type: &str) -> Result<Encoding, Refusal> {
    match content_type {
        "application/x-protobuf" => Ok(Encoding::Protobuf),
        "application/json" => Ok(Encoding::Json),
        other => Err(bad(format!(
            "unsupported content type: {other}, supported: [application/json, application/x-protobuf]"
        ))),
    }
}

fn decode(
    encoding: Encoding,
    is_gzip: bool,
    body: &Bytes,
    bytes_max: usize,
) -> Result<ExportMetricsServiceRequest, Refusal> {
    let mut unpacked = Vec::new();
    let message = if is_gzip {
        let longest = u64::try_from(bytes_max).unwrap_or(u64::MAX).saturating_add(1);
        flate2::read::MultiGzDecoder::new(&body[..]).take(longest).read_to_end(&mut unpacked).map_err(bad)?;
        if unpacked.len() > bytes_max {
            let text = format!("decompressed body is larger than {bytes_max} bytes");
            return Err((StatusCode::PAYLOAD_TOO_LARGE, text));
        }
        &unpacked[..]
    } else {
        &body[..]
    };
    match encoding {
        Encoding::Protobuf => ExportMetricsServiceRequest::decode(message).map_err(bad),
        Encoding::Json => serde_json::from_slice(message).map_err(bad),
    }
}

fn answer(encoding: Encoding, response: &ExportMetricsServiceResponse) -> Response {
    let (content_type, body) = match (encoding, &response.partial_success) {
        (Encoding::Protobuf, _) => ("application/x-protobuf", response.encode_to_vec()),
        (Encoding::Json, None) => ("application/json", b"{}".to_vec()),
        // Long integers are strings in protobuf's JSON.
        (Encoding::Json, Some(partial)) => {
            let rejected = partial.rejected_data_points.to_string();
            let partial = json!({ "rejectedDataPoints": rejected, "errorMessage": partial.error_message });
            ("application/json", json!({ "partialSuccess": partial }).to_string().into_bytes())
        }
    };
    ([(header::CONTENT_TYPE, content_type)], body).into_response()
}

fn refusal(status: &tonic::Status) -> Refusal {
    let code = match status.code() {
        Code::InvalidArgument => StatusCode::BAD_REQUEST,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    (code, status.message().to_owned())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use opentelemetry_proto::tonic::metrics::v1::metric::Data;

    use super::*;

    /// The example of a metrics request in OTLP's specification, cut to a sum.
    const JSON: &str = r#"{"resourceMetrics":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"my.service"}}]},
        "scopeMetrics":[{"scope":{"name":"my.library","version":"1.0.0"},"metrics":[{"name":"my.counter","unit":"1",
        "sum":{"aggregationTemporality":2,"isMonotonic":true,"dataPoints":[{"asDouble":5,"startTimeUnixNano":"1544712660300000000",
        "timeUnixNano":"1544712661300000000","attributes":[{"key":"my.counter.attr","value":{"stringValue":"some value"}}]}]}}]}]}]}"#;

    #[test]
    fn both_encodings_say_the_same_packed_or_not() {
        let json = Bytes::from_static(JSON.as_bytes());
        let message = decode(Encoding::Json, false, &json, 1 << 20).expect("the example");
        let metric = &message.resource_metrics[0].scope_metrics[0].metrics[0];
        let Some(Data::Sum(sum)) = &metric.data else { panic!("a sum: {metric:?}") };
        assert_eq!(
            (metric.name.as_str(), sum.data_points[0].time_unix_nano),
            ("my.counter", 1_544_712_661_300_000_000)
        );

        let body = message.encode_to_vec();
        assert_eq!(decode(Encoding::Protobuf, false, &body.clone().into(), 1 << 20), Ok(message.clone()));
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        packed.write_all(&body).expect("memory");
        let packed = Bytes::from(packed.finish().expect("memory"));
        assert_eq!(decode(Encoding::Protobuf, true, &packed, body.len()), Ok(message));
        let refused =
            decode(Encoding::Protobuf, true, &packed, body.len() - 1).expect_err("one byte too many");
        assert_eq!(refused.0, StatusCode::PAYLOAD_TOO_LARGE, "{}", refused.1);
    }

    #[test]
    fn what_is_no_request_is_refused() {
        for content_type in ["", "text/plain", "application/json; charset=utf-8"] {
            assert_eq!(
                encoding(content_type).map_err(|e| e.0),
                Err(StatusCode::BAD_REQUEST),
                "{content_type:?}"
            );
        }
        for (encoding, is_gzip, body) in
            [(Encoding::Protobuf, false, "\x07"), (Encoding::Json, false, "{"), (Encoding::Json, true, "{}")]
        {
            let refused = decode(encoding, is_gzip, &Bytes::from_static(body.as_bytes()), 1 << 20);
            assert_eq!(refused.map_err(|e| e.0), Err(StatusCode::BAD_REQUEST), "{body:?}");
        }
    }
}
