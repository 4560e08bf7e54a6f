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
use http_api::{ApiError, Params, QueryWriter};
use model::number::Quoted;
use model::query::QueryValue;
use rpc::Channel;
use rpc::convert::query::{End, Piece};
use rpc::pb::querier::querier_client::QuerierClient;
use rpc::pb::querier::{self as pb, query_request};
use tonic::{Status, Streaming};

use super::{Form, bad, fail, from_status, json};
use crate::gateway::Gateway;

/// Time a querier has beyond the query's own timeout to say that it is over.
const DEADLINE_GRACE: Duration = Duration::from_secs(10);

/// What a point of a series mostly takes as text, with its time and brackets.
const POINT_BYTES: usize = 36;

/// `GET|POST /api/v1/query`.
pub(super) async fn instant(State(gateway): State<Arc<Gateway>>, form: Form) -> Response {
    let time = |params: &Params| {
        let time = params.time_or("time", gateway.clock.now())?;
        Ok(query_request::Time::Instant(time.millis()))
    };
    run(&gateway, &form, time).await
}

/// `GET|POST /api/v1/query_range`.
pub(super) async fn range(State(gateway): State<Arc<Gateway>>, form: Form) -> Response {
    let time = |params: &Params| {
        let (start, end, step) = params.range()?;
        let (start, end, step) = (start.millis(), end.millis(), step.unsigned_abs());
        Ok(query_request::Time::Range(pb::Range { start, end, step }))
    };
    run(&gateway, &form, time).await
}

async fn run(
    gateway: &Gateway,
    form: &Form,
    time: impl FnOnce(&Params) -> Result<query_request::Time, ApiError>,
) -> Response {
    match start(gateway, form, time).await {
        Ok((first, rest)) => answer(first, rest, form.params.get("stats")),
        Err(error) => fail(error),
    }
}

async fn start(
    gateway: &Gateway,
    form: &Form,
    time: impl FnOnce(&Params) -> Result<query_request::Time, ApiError>,
) -> Result<(pb::QueryResponse, Streaming<pb::QueryResponse>), ApiError> {
    let Form { params, tenant } = form;
    // In the order in which Prometheus looks at them.
    let limit = params.limit("limit")?;
    let time = time(params)?;
    let timeout_ms = u64::try_from(params.duration_ms("timeout")?.unwrap_or(0));
    let timeout_ms = timeout_ms.map_err(|_| ApiError::parameter("timeout", "must not be negative"))?;
    let lookback = match params.get("lookback_delta") {
        "" => Ok(0),
        text => http_api::params::parse_duration_ms(text),
    };
    let lookback = lookback.map_err(|e| bad(format!("error parsing lookback delta duration: {e}")))?;
    let longest = gateway.config.query_timeout.0;
    let request = pb::QueryRequest {
        tenant: tenant.as_str().to_owned(),
        query: params.get("query").to_owned(),
        time: Some(time),
        // None of its own when it is negative.
        lookback_ms: u64::try_from(lookback).unwrap_or(0),
        timeout_ms,
        limit,
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
fn answer(first: pb::QueryResponse, rest: Streaming<pb::QueryResponse>, stats: &str) -> Response {
    let stats = match stats {
        "" => Wanted::No,
        "true" | "all" => Wanted::Yes,
        other => Wanted::Deprecated(other.to_owned()),
    };
    let state = Pump { first: Some(first), rest, writer: None, stats };
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
    stats: Wanted,
}

/// Whether statistics are wanted.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    No,
    Yes,
    /// In words that will not be understood for ever.
    Deprecated(String),
}

impl Pump {
    /// Writes a message as the next piece of the JSON answer.
    fn write(&mut self, message: &pb::QueryResponse) -> Result<Bytes, rpc::Error> {
        let Piece { value, continues, end } = rpc::convert::query::piece(message)?;
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
                let (more, series) = series.split_at(usize::from(continues));
                more.iter().for_each(|s| writer.more(&mut out, s));
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
        if let Wanted::Deprecated(value) = &self.stats {
            let text = format!("stats={} is deprecated, use \"true\" or \"all\"", Quoted(value));
            warnings.push(text);
        }
        writer.end(out, (self.stats != Wanted::No).then_some(&stats), &warnings, &infos);
    }
}
