//! `POST /api/v1/write`: remote write 1.0 and 2.0, as Prometheus's `storage/remote/write_handler.go`.
//!
//! A request of version 1.0 is stored as a whole or not at all; only series with invalid labels are skipped, and the
//! request succeeds. Of one of version 2.0 everything is stored that can be: what cannot is told with 400, and every
//! answer says how much was written. An answer of 5xx claims nothing; repeating what was stored does no harm.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use fault::Kind;
use group_writer::{Batch, Filling, Refusal, SeriesKey, TooManySeries, Written};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use model::{Labels, Metadata, Tenant, Value};
use remote_protocol::{BODY_BYTES_MAX, InvalidSeries, Sample, TimeSeries, Version, WriteRequest};

use crate::gateway::Gateway;
use crate::remote_write::{Error, place};

/// The messages that are taken.
const ACCEPTED: [Version; 2] = [Version::V1, Version::V2];
/// Series that are looked up at a time.
const LOOK_AHEAD: usize = 16;
/// Series that a refusal names; of the others it says how many there are.
const NAMED_MAX: usize = 10;

/// `POST /api/v1/write`.
pub(super) async fn write(State(gateway): State<Arc<Gateway>>, headers: HeaderMap, body: Body) -> Response {
    let text = |name| super::header_text(&headers, name);
    let version =
        remote_protocol::negotiate(text(header::CONTENT_TYPE), text(header::CONTENT_ENCODING), &ACCEPTED);
    let answer = match version {
        Ok(Version::V1) => {
            take_v1(&gateway, &headers, body).await.map_or_else(Answer::from, |()| Answer::done(None))
        }
        Ok(Version::V2) => match take_v2(&gateway, &headers, body).await {
            Ok(answer) => answer,
            Err(refusal) => Answer { counts: Some(Counts::default()), ..refusal.into() },
        },
        Err(error) => protocol_refusal(&error).into(),
    };
    if answer.status != StatusCode::NO_CONTENT {
        gateway.metrics.remote_write_refused.inc();
    }
    answer.into_response()
}

/// What is answered.
struct Answer {
    status: StatusCode,
    text: String,
    /// What was written; said in version 2.0.
    counts: Option<Counts>,
}

/// What a request has, or what was written of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Counts {
    samples: usize,
    histograms: usize,
    exemplars: usize,
}

impl Counts {
    fn add(&mut self, other: Self) {
        self.samples += other.samples;
        self.histograms += other.histograms;
        self.exemplars += other.exemplars;
    }

    /// What was written: what was sent but for what was refused.
    fn without(self, written: &Written) -> Self {
        let refused = |count: fn(&Refusal) -> u64| {
            usize::try_from(written.refusals.iter().map(count).sum::<u64>()).unwrap_or(usize::MAX)
        };
        let (count, histograms) = (refused(|r| r.count), refused(|r| r.histograms));
        Self {
            samples: self.samples.saturating_sub(count - histograms),
            histograms: self.histograms.saturating_sub(histograms),
            ..self
        }
    }
}

type Refusals = (StatusCode, String);

impl Answer {
    fn done(counts: Option<Counts>) -> Self {
        Self { status: StatusCode::NO_CONTENT, text: String::new(), counts }
    }
}

impl From<Refusals> for Answer {
    fn from((status, text): Refusals) -> Self {
        Self { status, text, counts: None }
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let mut response = match self.status {
            StatusCode::NO_CONTENT => self.status.into_response(),
            status => (status, format!("{}\n", self.text)).into_response(),
        };
        let Some(Counts { samples, histograms, exemplars }) = self.counts else { return response };
        for (name, count) in [
            ("x-prometheus-remote-write-samples-written", samples),
            ("x-prometheus-remote-write-histograms-written", histograms),
            ("x-prometheus-remote-write-exemplars-written", exemplars),
        ] {
            response.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from(count));
        }
        response
    }
}

async fn take_v1(gateway: &Arc<Gateway>, headers: &HeaderMap, body: Body) -> Result<(), Refusals> {
    let Decoded { batch, .. } = read(gateway, headers, body, Version::V1).await?;
    let written = gateway.remote_writer.store(batch).await.map_err(|e| write_refusal(&e))?;
    if let Some(refusal) = written.refusals.first() {
        return Err((StatusCode::BAD_REQUEST, refusal.example.clone()));
    }
    gateway.metrics.remote_write_samples.inc_by(written.stored);
    Ok(())
}

async fn take_v2(gateway: &Arc<Gateway>, headers: &HeaderMap, body: Body) -> Result<Answer, Refusals> {
    let Decoded { batch, sent, mut faults } = read(gateway, headers, body, Version::V2).await?;
    let written = gateway.remote_writer.store(batch).await.map_err(|e| write_refusal(&e))?;
    gateway.metrics.remote_write_samples.inc_by(written.stored);
    let counts = Some(sent.without(&written));
    for Refusal { count, example, .. } in &written.refusals {
        faults.add(example);
        faults.more += usize::try_from(*count).unwrap_or(usize::MAX).saturating_sub(1);
    }
    Ok(match faults.text.is_empty() {
        true => Answer::done(counts),
        false => Answer { status: StatusCode::BAD_REQUEST, text: faults.finish(), counts },
    })
}

/// A request that can be stored.
struct Decoded {
    batch: Batch,
    sent: Counts,
    /// What is wrong with other series of it.
    faults: Faults,
}

/// What is wrong with parts of a request: some of it in words, the rest as a number.
#[derive(Debug, Default)]
struct Faults {
    text: String,
    named: usize,
    more: usize,
}

impl Faults {
    fn add(&mut self, fault: impl std::fmt::Display) {
        if self.named == NAMED_MAX {
            self.more += 1;
            return;
        }
        let separator = if self.named == 0 { "" } else { "\n" };
        write!(self.text, "{separator}{fault}").expect("a string takes all");
        self.named += 1;
    }

    fn finish(mut self) -> String {
        if self.more > 0 {
            write!(self.text, "\nand {} more", self.more).expect("a string takes all");
        }
        self.text
    }
}

async fn read(
    gateway: &Arc<Gateway>,
    headers: &HeaderMap,
    body: Body,
    version: Version,
) -> Result<Decoded, Refusals> {
    let tenant = super::tenant(headers).map_err(|e| (StatusCode::BAD_REQUEST, e.message))?;
    let body = super::body(body, BODY_BYTES_MAX).await?;
    let worker = Arc::clone(gateway);
    let decoded = tokio::task::spawn_blocking(move || decode(&worker, &tenant, version, &body)).await;
    decoded.map_err(|e| (StatusCode::INTERNAL_SERVER_ERROR, format!("decode: {e}")))?
}

fn decode(gateway: &Gateway, tenant: &Tenant, version: Version, body: &[u8]) -> Result<Decoded, Refusals> {
    let message = remote_protocol::decompress(body).map_err(|e| protocol_refusal(&e))?;
    let request = WriteRequest::parse(version, &message).map_err(|e| protocol_refusal(&e))?;
    let mut reader = Reader::default();
    let is_atomic = version == Version::V1;
    let batch = gateway.remote_writer.batch(tenant, is_atomic, |filling| reader.read(&request, filling));
    let (batch, sent) = batch.map_err(|e| write_refusal(&e))?;
    gateway.metrics.remote_write_invalid.inc_by(reader.skipped);
    Ok(Decoded { batch, sent, faults: reader.faults })
}

/// Reads the series of a request.
#[derive(Debug, Default)]
struct Reader<'a> {
    /// Metadata of one request is shared.
    metadata: HashMap<&'a [u8], Arc<Metadata>>,
    /// The group of the series before.
    group: Labels,
    faults: Faults,
    /// How many samples the series have that are skipped.
    skipped: u64,
}

/// Why a series is not read.
enum Unread {
    Skipped(String),
    Full(TooManySeries),
}

impl From<InvalidSeries> for Unread {
    fn from(invalid: InvalidSeries) -> Self {
        Self::Skipped(invalid.to_string())
    }
}

impl From<TooManySeries> for Unread {
    fn from(full: TooManySeries) -> Self {
        Self::Full(full)
    }
}

impl<'a> Reader<'a> {
    /// Fills in what can be stored of a request, and counts it.
    fn read(
        &mut self,
        request: &'a WriteRequest<'a>,
        filling: &mut Filling<'_>,
    ) -> Result<Counts, TooManySeries> {
        let mut sent = Counts::default();
        let mut scratch = Vec::new();
        let mut all = request.series();
        loop {
            let next: Vec<_> = all
                .by_ref()
                .take(LOOK_AHEAD)
                .map(|series| (series.label_bytes(&mut scratch).map(|labels| filling.key(labels)), series))
                .collect();
            if next.is_empty() {
                return Ok(sent);
            }
            filling.look_ahead(next.iter().filter_map(|(key, _)| *key));
            for (key, series) in next {
                match self.read_series(request.version(), &series, key, filling) {
                    Ok(counts) => sent.add(counts),
                    Err(Unread::Skipped(fault)) => {
                        tracing::debug!(fault, "remote write series skipped");
                        self.skipped += series.sample_count() as u64;
                        self.faults.add(fault);
                    }
                    Err(Unread::Full(full)) => return Err(full),
                }
            }
        }
    }

    fn read_series(
        &mut self,
        version: Version,
        series: &TimeSeries<'a>,
        key: Option<SeriesKey>,
        filling: &mut Filling<'_>,
    ) -> Result<Counts, Unread> {
        let metadata = series.metadata_key().map(|key| {
            &*self.metadata.entry(key).or_insert_with(|| Arc::new(series.metadata().unwrap_or_default()))
        });
        let metadata = metadata.filter(|m| ***m != Metadata::default());
        let mut exemplars = Vec::new();
        for exemplar in series.exemplars() {
            match exemplar {
                Ok(exemplar) => exemplars.push(exemplar),
                // In version 1.0 nothing fails for an exemplar.
                Err(error) if version == Version::V2 => {
                    let labels = series.to_labels()?;
                    self.faults.add(format_args!("parsing exemplar for series {labels}: {error}"));
                }
                Err(_) => {}
            }
        }
        // Prometheus 3.5 sends exemplars as series of their own: 3.14 refuses these, and they would be lost.
        if version == Version::V2 && exemplars.is_empty() && series.sample_count() == 0 {
            let labels = series.to_labels()?;
            let what = "TimeSeries must contain at least one sample or histogram for series";
            return Err(Unread::Skipped(format!("{what} {labels}")));
        }
        let place = match key.and_then(|key| filling.find(key, metadata)) {
            Some(place) => place,
            None => place(filling, &series.to_labels()?, metadata, &mut self.group)?,
        };
        let mut counts = Counts { exemplars: exemplars.len(), ..Counts::default() };
        let mut newest = None;
        for Sample { timestamp, value, start } in series.floats() {
            filling.sample(place, timestamp, Value::Float(value), start);
            counts.samples += 1;
            newest = newest.max(Some(timestamp));
        }
        for Sample { timestamp, value, start } in series.histograms() {
            filling.sample(place, timestamp, Value::Histogram(Arc::new(value)), start);
            counts.histograms += 1;
            newest = newest.max(Some(timestamp));
        }
        // Exemplars travel with the series' newest sample. Prometheus sends them as series of their own, without one:
        // they go at their own time then.
        let newest = newest.or(exemplars.last().and_then(|e| e.timestamp));
        if let Some(newest) = newest.filter(|_| !exemplars.is_empty()) {
            filling.exemplars(place, newest, exemplars);
        }
        Ok(counts)
    }
}

fn protocol_refusal(error: &remote_protocol::Error) -> Refusals {
    let status = match error {
        remote_protocol::Error::UnsupportedMediaType(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        remote_protocol::Error::BodyTooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
        _ => StatusCode::BAD_REQUEST,
    };
    (status, error.to_string())
}

fn write_refusal(error: &Error) -> Refusals {
    // Senders try again on 5xx, and on 429 where they are told to: what may pass later is 503.
    let status = match error.kind() {
        Kind::Invalid => StatusCode::BAD_REQUEST,
        Kind::Busy | Kind::Timeout | Kind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    (status, error.to_string())
}

#[cfg(test)]
mod tests;
