//! `/api/v1/query` and `/api/v1/query_range`: the answer goes out series by series as the querier sends it.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use futures::stream;
use http::StatusCode;
use http_api::json::{Stats, TRUNCATED_WARNING};
use http_api::{ApiError, QueryWriter};
use model::query::QueryValue;
use rpc::Channel;
use rpc::convert::query::{End, Piece};
use rpc::pb::querier::querier_client::QuerierClient;
use rpc::pb::querier::{self as pb, query_request};
use tonic::{Status, Streaming};

use super::{Form, fail, from_status, json};
use crate::gateway::Gateway;

/// Time a querier has beyond the query's own timeout to say that it is over.
const DEADLINE_GRACE: Duration = Duration::from_secs(10);

/// What a point of a series mostly takes as text, with its time and brackets.
const POINT_BYTES: usize = 36;

/// `GET|POST /api/v1/query`.
pub(super) async fn instant(State(gateway): State<Arc<Gateway>>, form: Form) -> Response {
    let time = match form.params.time_or("time", gateway.clock.now()) {
        Ok(time) => query_request::Time::Instant(time.millis()),
        Err(error) => return fail(error),
    };
    run(&gateway, form, time).await
}

/// `GET|POST /api/v1/query_range`.
pub(super) async fn range(State(gateway): State<Arc<Gateway>>, form: Form) -> Response {
    let time = match form.params.range() {
        Ok((start, end, step)) => query_request::Time::Range(pb::Range {
            start: start.millis(),
            end: end.millis(),
            step: step.unsigned_abs(),
        }),
        Err(error) => return fail(error),
    };
    run(&gateway, form, time).await
}

async fn run(gateway: &Gateway, form: Form, time: query_request::Time) -> Response {
    match start(gateway, &form, time).await {
        Ok((first, rest)) => answer(first, rest, !form.params.get("stats").is_empty()),
        Err(error) => fail(error),
    }
}

async fn start(
    gateway: &Gateway,
    form: &Form,
    time: query_request::Time,
) -> Result<(pb::QueryResponse, Streaming<pb::QueryResponse>), ApiError> {
    let Form { params, tenant } = form;
    let positive = |name| -> Result<u64, ApiError> {
        let ms = params.duration_ms(name)?.unwrap_or(0);
        u64::try_from(ms).map_err(|_| ApiError::parameter(name, "must not be negative"))
    };
    let timeout_ms = positive("timeout")?;
    let longest = gateway.config.query_timeout.0;
    let request = pb::QueryRequest {
        tenant: tenant.as_str().to_owned(),
        query: params.get("query").to_owned(),
        time: Some(time),
        lookback_ms: positive("lookback_delta")?,
        timeout_ms,
        limit: params.limit("limit")?,
        allow_partial: params.get("partial_response") == "true",
        per_step_stats: params.get("stats") == "all",
    };
    let deadline = if timeout_ms == 0 { longest } else { longest.min(Duration::from_millis(timeout_ms)) };
    let ask = async |mut client: QuerierClient<Channel>, request| {
        let mut responses = client.query(request).await?.into_inner();
        let first = responses.message().await?;
        Ok((first.ok_or_else(|| Status::internal("the querier sent no answer"))?, responses))
    };
    let asked = gateway.peers.ask_querier(request, deadline + DEADLINE_GRACE, ask).await;
    asked.map_err(|s| query_error(&s))
}

/// A query that does not parse is a wrong parameter.
fn query_error(status: &Status) -> ApiError {
    match rpc::status::kind(status) {
        fault::Kind::Invalid => ApiError::parameter("query", status.message()),
        _ => from_status(status),
    }
}

/// Moves messages of the querier into the body. A failure from here on breaks the body off, so that no client takes
/// a part for the whole.
fn answer(first: pb::QueryResponse, rest: Streaming<pb::QueryResponse>, with_stats: bool) -> Response {
    let state = Pump { first: Some(first), rest, writer: None, with_stats };
    let body = stream::try_unfold(state, |mut pump| async move {
        let message = match pump.first.take() {
            Some(first) => Some(first),
            None => pump.rest.message().await.map_err(std::io::Error::other)?,
        };
        let Some(message) = message else { return Ok(None) };
        let bytes = pump.write(&message).map_err(std::io::Error::other)?;
        Ok::<_, std::io::Error>(Some((bytes, pump)))
    });
    json(StatusCode::OK, Body::from_stream(body))
}

struct Pump {
    first: Option<pb::QueryResponse>,
    rest: Streaming<pb::QueryResponse>,
    writer: Option<QueryWriter>,
    with_stats: bool,
}

impl Pump {
    /// Writes a message as the next piece of the JSON answer.
    fn write(&mut self, message: &pb::QueryResponse) -> Result<Bytes, rpc::Error> {
        let Piece { value, end } = rpc::convert::query::piece(message)?;
        let points: usize = message.series.iter().map(|s| s.floats.len()).sum();
        let mut out = Vec::with_capacity(points * POINT_BYTES);
        let writer = match value {
            QueryValue::Scalar(t, x) => QueryWriter::scalar(&mut out, t, x),
            QueryValue::String(t, text) => QueryWriter::string(&mut out, t, &text),
            QueryValue::Vector(elements) => {
                let mut writer = self.writer.take().unwrap_or_else(|| QueryWriter::vector(&mut out));
                elements.iter().for_each(|e| writer.element(&mut out, e));
                writer
            }
            QueryValue::Matrix(series) => {
                let mut writer = self.writer.take().unwrap_or_else(|| QueryWriter::matrix(&mut out));
                series.iter().for_each(|s| writer.series(&mut out, s));
                writer
            }
        };
        match end {
            Some(end) => self.write_end(writer, end, &mut out),
            None => self.writer = Some(writer),
        }
        Ok(out.into())
    }

    fn write_end(&self, writer: QueryWriter, end: End, out: &mut Vec<u8>) {
        let End { mut warnings, infos, stats, notes } = end;
        let stats = Stats {
            queue_seconds: notes.queue_seconds,
            prepare_seconds: notes.prepare_seconds,
            eval_seconds: notes.eval_seconds,
            samples: stats,
        };
        if notes.is_truncated {
            warnings.push(TRUNCATED_WARNING.to_owned());
        }
        warnings
            .extend(notes.missing.iter().map(|(source, why)| format!("partial response: {source}: {why}")));
        writer.end(out, self.with_stats.then_some(&stats), &warnings, &infos);
    }
}
