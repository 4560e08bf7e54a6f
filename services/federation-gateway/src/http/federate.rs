//! `GET /federate` and its alias `/federation`, as Prometheus's `web/federate.go`.
//!
//! The body is written while samples come in, piece by piece as the client takes it, so that an answer of any size is
//! held in bounded memory. What fails before the first piece is answered with a status; what fails later breaks the body
//! off without its terminator, so that the scrape fails.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use exposition::federate::{Encoder, Negotiated};
use futures::{StreamExt as _, stream};
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use http_api::Params;
use tokio::sync::OwnedSemaphorePermit;

use super::packing::Packing;
use crate::federate::{Federation, Request};
use crate::gateway::Gateway;

/// The body is sent in pieces of about this many bytes, before they are packed.
const PIECE_BYTES: usize = 128 << 10;

/// What cannot be answered: a status and its text.
type Refusal = (StatusCode, String);

/// `GET /federate`.
pub(super) async fn federate(State(gateway): State<Arc<Gateway>>, uri: Uri, headers: HeaderMap) -> Response {
    let packing = || Packing::from_accept(super::header_text(&headers, header::ACCEPT_ENCODING));
    let answered = match answer(gateway, &uri, &headers, packing()).await {
        Ok(response) => Ok(response),
        // Packed as well, as in the reference.
        Err((status, text)) => refusal(status, format!("{text}\n"), packing()).await,
    };
    answered.unwrap_or_else(|status| {
        (StatusCode::INTERNAL_SERVER_ERROR, format!("{}\n", status.message())).into_response()
    })
}

async fn refusal(code: StatusCode, text: String, mut packing: Packing) -> Result<Response, tonic::Status> {
    let encoding = packing.name();
    let body = packing.pack(text.into_bytes(), true).await?;
    let response = (code, [(header::X_CONTENT_TYPE_OPTIONS, "nosniff")], body).into_response();
    Ok(with_headers(response, "text/plain; charset=utf-8", encoding))
}

fn with_headers(mut response: Response, content_type: &str, encoding: Option<HeaderValue>) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_str(content_type).expect("it is plain text"));
    headers.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    if let Some(encoding) = encoding {
        headers.insert(header::CONTENT_ENCODING, encoding);
    }
    response
}

async fn answer(
    gateway: Arc<Gateway>,
    uri: &Uri,
    headers: &HeaderMap,
    mut packing: Packing,
) -> Result<Response, Refusal> {
    if !gateway.readiness.is_ready() {
        return Ok(gateway.readiness.refusal());
    }
    let bad = |text: String| (StatusCode::BAD_REQUEST, text);
    let mut params = Params::default();
    let read = params.add_encoded(uri.query().unwrap_or_default().as_bytes());
    read.and_then(|()| params.checked().map(|_| ())).map_err(|error| bad(error.message))?;
    let tenant = super::tenant(headers).map_err(|error| bad(error.message))?;
    let selectors = params.all("match[]").map(promql_syntax::parse_selector);
    let any_of = selectors.collect::<Result<Vec<_>, _>>().map_err(|error| bad(error.to_string()))?;
    let is_typed = match params.get("typed") {
        "" | "0" => false,
        "1" => true,
        other => return Err(bad(format!("invalid parameter \"typed\": want 0 or 1, not {other:?}"))),
    };
    // Parsing comes before the question whether there is anything to read.
    let unavailable = |text: String| (StatusCode::SERVICE_UNAVAILABLE, text);
    let config = gateway.prometheus_config().map_err(|error| unavailable(error.message))?;
    let negotiated = Negotiated::from_accept(super::header_text(headers, header::ACCEPT));
    let encoding = packing.name();
    let internal = |status: tonic::Status| (StatusCode::INTERNAL_SERVER_ERROR, status.message().to_owned());
    let body = if any_of.is_empty() {
        // Packed, nothing is more than nothing.
        Body::from(packing.pack(Vec::new(), true).await.map_err(internal)?)
    } else {
        let Ok(place) = Arc::clone(&gateway.federations).try_acquire_owned() else {
            let running = gateway.config.federations_max;
            return Err(unavailable(format!("too many federations: {running} are under way")));
        };
        let now = gateway.clock.now();
        let request = Request {
            tenant: &tenant,
            any_of: &any_of,
            min_time: now.add_ms(-gateway.config.lookback_delta.millis()),
            max_time: now,
        };
        let encoder = Encoder::new(negotiated, &config.external_labels).typed(is_typed);
        let begun = async {
            let federation = Federation::open(&gateway.peers, request, encoder).await?;
            let pump =
                Pump { federation, packing, is_over: false, gateway: Arc::clone(&gateway), _place: place };
            pump.piece().await
        };
        match begun.await {
            Ok(None) => Body::empty(),
            Ok(Some((first, pump))) => {
                let rest = stream::try_unfold(pump, Pump::next_piece);
                Body::from_stream(stream::once(std::future::ready(Ok(first))).chain(rest))
            }
            Err(status) => {
                gateway.metrics.federation_errors.inc();
                return Err((code(rpc::status::kind(&status)), status.message().to_owned()));
            }
        }
    };
    Ok(with_headers(body.into_response(), &negotiated.content_type(), encoding))
}

fn code(kind: fault::Kind) -> StatusCode {
    match kind {
        fault::Kind::Unavailable | fault::Kind::Busy | fault::Kind::Timeout => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

struct Pump {
    federation: Federation,
    packing: Packing,
    is_over: bool,
    gateway: Arc<Gateway>,
    /// Among the federations under way.
    _place: OwnedSemaphorePermit,
}

impl Pump {
    /// Writes the next piece.
    async fn piece(mut self) -> Result<Option<(Bytes, Self)>, tonic::Status> {
        let mut plain = Vec::with_capacity(PIECE_BYTES + (PIECE_BYTES >> 3));
        while !self.is_over {
            self.is_over = !self.federation.fill().await?;
            // However many are under way, few work at one time, so that others are not kept waiting.
            let gateway = Arc::clone(&self.gateway);
            let turn = gateway.federation_turns.acquire().await;
            let turn = turn.map_err(|_| tonic::Status::cancelled("the gateway stops"))?;
            if self.is_over {
                self.federation.finish(&mut plain);
            } else {
                self.federation.write(PIECE_BYTES, &mut plain);
            }
            if plain.len() < PIECE_BYTES && !self.is_over {
                continue;
            }
            let packed = self.packing.pack(std::mem::take(&mut plain), self.is_over).await?;
            drop(turn);
            if !packed.is_empty() {
                return Ok(Some((packed, self)));
            }
        }
        Ok(None)
    }

    /// As [`Pump::piece`], once the answer has begun.
    async fn next_piece(self) -> std::io::Result<Option<(Bytes, Self)>> {
        let gateway = Arc::clone(&self.gateway);
        self.piece().await.map_err(|status| {
            gateway.metrics.federation_errors.inc();
            tracing::warn!(error = status.message(), "federation answer broken off");
            std::io::Error::other(status)
        })
    }
}
