//! `POST /api/v1/read`: remote read, as Prometheus's `storage/remote/read_handler.go`.
//!
//! External labels are taken out of the matchers and added to the series. An answer of chunks goes out as the querier
//! sends it, a large series in parts; a failure behind its first byte breaks it off, so that no client takes a part for
//! the whole.

use std::collections::VecDeque;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::stream;
use http::{HeaderMap, StatusCode, header};
use model::{Labels, Tenant};
use remote_protocol::{
    BODY_BYTES_MAX, ReadQuery, ReadRequest, ResponseType, SamplesAnswer, SeriesFrames, SeriesOut,
};
use rpc::Channel;
use rpc::convert::query::{StoredSeries, stored_series};
use rpc::pb::querier as pb;
use rpc::pb::querier::querier_client::QuerierClient;
use rpc::symbols::SymbolReader;
use tokio::sync::OwnedSemaphorePermit;
use tonic::{Status, Streaming};

use crate::gateway::Gateway;
use crate::peers::LOOKUP_DEADLINE;

/// `POST /api/v1/read`.
pub(super) async fn read(State(gateway): State<Arc<Gateway>>, headers: HeaderMap, body: Body) -> Response {
    answer(gateway, &headers, body)
        .await
        .unwrap_or_else(|(status, text)| (status, format!("{text}\n")).into_response())
}

type Refusal = (StatusCode, String);

async fn answer(gateway: Arc<Gateway>, headers: &HeaderMap, body: Body) -> Result<Response, Refusal> {
    let bad = |text: String| (StatusCode::BAD_REQUEST, text);
    let tenant = super::tenant(headers).map_err(|e| bad(e.message))?;
    let body = super::body(body, BODY_BYTES_MAX).await?;
    let parse = move || remote_protocol::decompress(&body).and_then(|message| ReadRequest::parse(&message));
    let parsed = tokio::task::spawn_blocking(parse).await;
    let request = parsed.map_err(|e| internal(&e))?.map_err(|e| match e {
        remote_protocol::Error::BodyTooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, e.to_string()),
        e => bad(e.to_string()),
    })?;
    let place = Arc::clone(&gateway.read_places).acquire_owned().await.map_err(|e| internal(&e))?;
    let config = gateway.prometheus_config().map_err(|e| (StatusCode::SERVICE_UNAVAILABLE, e.message))?;
    let ReadRequest { mut queries, response_type } = request;
    if response_type == ResponseType::StreamedChunks {
        // As in Prometheus, chunks are sent whatever they are for: a series without any could not be told.
        queries.iter_mut().for_each(|query| query.is_labels_only = false);
    }
    let external = config.external_labels.clone();
    let samples_max = match response_type {
        ResponseType::Samples => gateway.config.read_samples_max,
        // As in Prometheus: nothing of such an answer is held.
        ResponseType::StreamedChunks => u64::MAX,
    };
    let mut reading = Reading {
        gateway,
        tenant,
        external,
        queries,
        next: 0,
        stream: None,
        samples_max,
        left: samples_max,
        _place: place,
    };
    // The first series stand before the first byte: what fails at once is an error of its own.
    let first = reading.next().await?;
    match response_type {
        ResponseType::Samples => samples(reading, first).await,
        ResponseType::StreamedChunks => Ok(chunks(reading, first)),
    }
}

fn internal(error: &impl ToString) -> Refusal {
    (StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
}

/// Puts an answer of samples together.
async fn samples(mut reading: Reading, first: Option<Piece>) -> Result<Response, Refusal> {
    let mut answer = SamplesAnswer::default();
    let mut next = first;
    let mut answered = 0;
    while let Some(Piece { query, more, series }) = next {
        more.into_iter().for_each(|more| answer.push_more(more));
        while answered < query {
            answer.end_query();
            answered += 1;
        }
        series.iter().for_each(|s| answer.push(s));
        next = reading.next().await?;
    }
    for _ in answered..reading.queries.len() {
        answer.end_query();
    }
    let compressed = tokio::task::spawn_blocking(move || answer.finish()).await;
    let body = compressed.map_err(|e| internal(&e))?.map_err(|e| internal(&e))?;
    let headers =
        [(header::CONTENT_TYPE, ResponseType::Samples.content_type()), (header::CONTENT_ENCODING, "snappy")];
    Ok((headers, body).into_response())
}

/// Answers with chunks, frame by frame.
fn chunks(reading: Reading, first: Option<Piece>) -> Response {
    let frame_bytes_max = reading.gateway.config.read_frame_bytes_max;
    let state = (reading, first, None::<SeriesFrames>, VecDeque::<Bytes>::new());
    let body = stream::try_unfold(state, move |(mut reading, mut piece, mut begun, mut frames)| async move {
        loop {
            if let Some(frame) = frames.pop_front() {
                return Ok::<_, std::io::Error>(Some((frame, (reading, piece, begun, frames))));
            }
            if piece.is_none() && begun.is_none() {
                return Ok(None);
            }
            // Some ten thousand samples, encoded where that holds up nobody.
            let encode = move || encode_frames(piece, begun, frame_bytes_max);
            (begun, frames) = tokio::task::spawn_blocking(encode).await.map_err(std::io::Error::other)?;
            piece = reading.next().await.map_err(|(_, text)| std::io::Error::other(text))?;
        }
    });
    ([(header::CONTENT_TYPE, ResponseType::StreamedChunks.content_type())], Body::from_stream(body))
        .into_response()
}

/// Encodes a piece behind a series of which more may come; ends that when there is no further piece. Returns the last
/// series and the frames that are full.
fn encode_frames(
    piece: Option<Piece>,
    mut begun: Option<SeriesFrames>,
    frame_bytes_max: usize,
) -> (Option<SeriesFrames>, VecDeque<Bytes>) {
    let mut frames = Vec::new();
    let end = |begun: Option<SeriesFrames>, frames: &mut Vec<Vec<u8>>| {
        begun.into_iter().for_each(|begun| begun.finish(frames));
    };
    match piece {
        None => end(begun.take(), &mut frames),
        Some(Piece { query, more, series }) => {
            if let (Some(begun), Some(more)) = (&mut begun, &more) {
                begun.push(more, &mut frames);
            }
            for one in &series {
                end(begun.take(), &mut frames);
                begun.insert(SeriesFrames::new(&one.labels, query, frame_bytes_max)).push(one, &mut frames);
            }
        }
    }
    (begun, frames.into_iter().map(Bytes::from).collect())
}

/// Some series of a query.
struct Piece {
    query: usize,
    /// Later samples of the last series of the piece before.
    more: Option<SeriesOut>,
    series: Vec<SeriesOut>,
}

/// A request that is being answered, query by query.
struct Reading {
    gateway: Arc<Gateway>,
    tenant: Tenant,
    external: Labels,
    queries: Vec<ReadQuery>,
    /// The query whose turn it is.
    next: usize,
    /// Its answer, once it was asked.
    stream: Option<Streaming<pb::ReadResponse>>,
    /// Samples that the answer may have, and those that the rest of it may.
    samples_max: u64,
    left: u64,
    _place: OwnedSemaphorePermit,
}

impl Reading {
    /// Returns the next series; `None` behind the last query.
    async fn next(&mut self) -> Result<Option<Piece>, Refusal> {
        while self.next < self.queries.len() {
            let query = self.next;
            if self.queries[query].is_labels_only {
                self.next += 1;
                let series = self.labels(query).await.map_err(|s| self.refusal(&s))?;
                return Ok(Some(Piece { query, more: None, series }));
            }
            let mut stream = match self.stream.take() {
                Some(stream) => stream,
                None => self.open(query).await.map_err(|s| self.refusal(&s))?,
            };
            let Some(message) = stream.message().await.map_err(|s| self.refusal(&s))? else {
                self.next += 1;
                continue;
            };
            self.stream = Some(stream);
            let symbols = SymbolReader(&message.symbols);
            let (mut more, mut series) = (None, Vec::with_capacity(message.series.len()));
            for (number, one) in message.series.iter().enumerate() {
                let StoredSeries { labels, floats, histograms } =
                    stored_series(one, symbols).map_err(|e| internal(&e))?;
                let count = (floats.len() + histograms.len()) as u64;
                self.left = self.left.checked_sub(count).ok_or_else(|| self.too_many())?;
                let samples = SeriesOut { floats, histograms, ..SeriesOut::default() };
                match labels {
                    Some(labels) => {
                        let labels = remote_protocol::with_external_labels(&labels, &self.external);
                        series.push(SeriesOut { labels, ..samples });
                    }
                    None if number == 0 => more = Some(samples),
                    None => return Err(internal(&rpc::Error::Missing("series.labels"))),
                }
            }
            return Ok(Some(Piece { query, more, series }));
        }
        Ok(None)
    }

    /// The matchers as they find what is stored.
    fn matchers(&self, query: usize) -> Vec<model::Matcher> {
        let mut matchers = self.queries[query].matchers.clone();
        remote_protocol::without_external_labels(&mut matchers, &self.external);
        matchers
    }

    async fn open(&self, query: usize) -> Result<Streaming<pb::ReadResponse>, Status> {
        let times = &self.queries[query].times;
        let request = pb::ReadRequest {
            tenant: self.tenant.as_str().to_owned(),
            matchers: rpc::convert::matchers_to_pb(&self.matchers(query)),
            min_time: times.start().millis(),
            max_time: times.end().millis(),
            // One more than there may be, so that it is here that too many are told.
            samples_max: self.left.saturating_add(1),
        };
        let ask = async |mut client: QuerierClient<Channel>, request| client.read(request).await;
        let deadline = self.gateway.config.query_timeout.0;
        Ok(self.gateway.peers.ask_querier(request, deadline, ask).await?.into_inner())
    }

    /// The label sets of a query that wants nothing else.
    async fn labels(&self, query: usize) -> Result<Vec<SeriesOut>, Status> {
        let times = &self.queries[query].times;
        let request = pb::SeriesRequest {
            tenant: self.tenant.as_str().to_owned(),
            any_of: rpc::convert::matcher_sets_to_pb(&[self.matchers(query)]),
            min_time: times.start().millis(),
            max_time: times.end().millis(),
            limit: 0,
            allow_partial: false,
        };
        let ask = async |mut client: QuerierClient<Channel>, request| client.series(request).await;
        let responses = self.gateway.peers.ask_querier(request, LOOKUP_DEADLINE, ask).await?;
        let (mut responses, mut all) = (responses.into_inner(), Vec::new());
        while let Some(message) = responses.message().await? {
            let symbols = SymbolReader(&message.symbols);
            for refs in &message.labels {
                let labels = remote_protocol::with_external_labels(&symbols.labels(refs)?, &self.external);
                all.push(SeriesOut { labels, ..SeriesOut::default() });
            }
        }
        Ok(all)
    }

    fn refusal(&self, status: &Status) -> Refusal {
        match rpc::status::kind(status) {
            fault::Kind::Limit if self.samples_max < u64::MAX => self.too_many(),
            fault::Kind::Limit | fault::Kind::Invalid => {
                (StatusCode::BAD_REQUEST, status.message().to_owned())
            }
            fault::Kind::Unavailable | fault::Kind::Busy | fault::Kind::Timeout => {
                (StatusCode::SERVICE_UNAVAILABLE, status.message().to_owned())
            }
            _ => (StatusCode::INTERNAL_SERVER_ERROR, status.message().to_owned()),
        }
    }

    /// In Prometheus's words.
    fn too_many(&self) -> Refusal {
        let samples_max = self.samples_max;
        (StatusCode::BAD_REQUEST, format!("exceeded sample limit ({samples_max})"))
    }
}
