//! `POST /api/v1/write`: remote write 1.0 and 2.0, as Prometheus's `storage/remote/write_handler.go`.
//!
//! A request of version 1.0 is stored as a whole or not at all; only series with invalid labels are skipped, and the
//! request succeeds. Of one of version 2.0 everything is stored that can be: what cannot is told with 400, and every
//! answer says how much was written. An answer of 5xx claims nothing; repeating what was stored does no harm.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use fault::Kind;
use group_writer::{Batch, Refusal, Written};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use model::{Labels, Metadata, Tenant, Timestamp};
use remote_protocol::{BODY_BYTES_MAX, Sample, TimeSeries, Version, WriteRequest};

use crate::gateway::Gateway;
use crate::remote_write::{Error, WriteSeries};

/// The messages that are taken.
const ACCEPTED: [Version; 2] = [Version::V1, Version::V2];
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

/// What was written of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Counts {
    samples: usize,
    histograms: usize,
    exemplars: usize,
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
    let Decoded { batch, series, mut faults } = read(gateway, headers, body, Version::V2).await?;
    let written = gateway.remote_writer.store(batch).await.map_err(|e| write_refusal(&e))?;
    gateway.metrics.remote_write_samples.inc_by(written.stored);
    let counts = Some(counts(&series, &written));
    for Refusal { count, example, .. } in &written.refusals {
        faults.add(example);
        faults.more += usize::try_from(*count).unwrap_or(usize::MAX).saturating_sub(1);
    }
    Ok(match faults.text.is_empty() {
        true => Answer::done(counts),
        false => Answer { status: StatusCode::BAD_REQUEST, text: faults.finish(), counts },
    })
}

/// Counts what was written: what was sent but for what was refused.
fn counts(series: &[WriteSeries], written: &Written) -> Counts {
    let mut counts = Counts::default();
    for one in series {
        counts.samples += one.samples.len();
        counts.histograms += one.histograms.len();
        counts.exemplars += one.exemplars.len();
    }
    let refused = || written.refusals.iter().flat_map(|refusal| &refusal.samples);
    if refused().next().is_some() {
        let histograms: HashSet<(&Labels, Timestamp)> =
            series.iter().flat_map(|one| one.histograms.iter().map(|h| (&one.labels, h.timestamp))).collect();
        for (labels, timestamp) in refused() {
            let of_sort = match histograms.contains(&(labels, *timestamp)) {
                true => &mut counts.histograms,
                false => &mut counts.samples,
            };
            *of_sort = of_sort.saturating_sub(1);
        }
    }
    counts
}

/// A request that can be stored.
struct Decoded {
    batch: Batch,
    series: Vec<WriteSeries>,
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
    let (mut all, mut faults) = (Vec::new(), Faults::default());
    let mut known = HashSet::new();
    for series in request.series() {
        match write_series(&series, version, &mut known, &mut faults) {
            Ok(series) => all.push(series),
            Err(fault) => {
                tracing::debug!(fault, "remote write series skipped");
                gateway.metrics.remote_write_invalid.inc_by(series.sample_count() as u64);
                faults.add(fault);
            }
        }
    }
    let is_atomic = version == Version::V1;
    let batch = gateway.remote_writer.group(tenant, &all, is_atomic).map_err(|e| write_refusal(&e))?;
    Ok(Decoded { batch, series: all, faults })
}

/// Reads a series, or says why it is skipped. Metadata of one request is shared.
fn write_series(
    series: &TimeSeries<'_>,
    version: Version,
    known: &mut HashSet<Arc<Metadata>>,
    faults: &mut Faults,
) -> Result<WriteSeries, String> {
    let labels = series.to_labels().map_err(|e| e.to_string())?;
    let mut exemplars = Vec::new();
    for exemplar in series.exemplars() {
        match exemplar {
            Ok(exemplar) => exemplars.push(exemplar),
            // In version 1.0 nothing fails for an exemplar.
            Err(error) if version == Version::V2 => {
                faults.add(format_args!("parsing exemplar for series {labels}: {error}"));
            }
            Err(_) => {}
        }
    }
    // Prometheus 3.5 sends exemplars as series of their own: 3.14 refuses these, and they would be lost.
    if version == Version::V2 && series.sample_count() == 0 && exemplars.is_empty() {
        return Err(format!("TimeSeries must contain at least one sample or histogram for series {labels}"));
    }
    let metadata = series.metadata().filter(|m| *m != Metadata::default()).map(|metadata| {
        known.get(&metadata).cloned().unwrap_or_else(|| {
            let metadata = Arc::new(metadata);
            known.insert(Arc::clone(&metadata));
            metadata
        })
    });
    let shared = |Sample { timestamp, value, start }| Sample { timestamp, value: Arc::new(value), start };
    Ok(WriteSeries {
        metadata,
        samples: series.floats().collect(),
        histograms: series.histograms().map(shared).collect(),
        exemplars,
        labels,
    })
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
mod tests {
    use remote_protocol::SeriesOut;

    use super::*;

    /// Reads every series of a message.
    fn read_all(version: Version, message: &[u8]) -> (Vec<Result<WriteSeries, String>>, String) {
        let request = WriteRequest::parse(version, message).expect("a request");
        let (mut known, mut faults) = (HashSet::new(), Faults::default());
        let all = request.series().map(|s| write_series(&s, version, &mut known, &mut faults)).collect();
        (all, faults.finish())
    }

    #[test]
    fn series_come_with_their_metadata_and_reasons() {
        let metadata = Metadata { kind: model::MetricType::Counter, unit: "s".into(), help: "h".into() };
        let series = |name: &str, count: i64, metadata: Option<&Metadata>| SeriesOut {
            labels: Labels::from_pairs([(name, "a")]),
            floats: (0..count).map(|t| (Timestamp(t), 1.0)).collect(),
            metadata: metadata.cloned(),
            ..SeriesOut::default()
        };
        let sent = [
            series("__name__", 2, Some(&metadata)),
            series("__name__", 1, Some(&metadata)),
            series("__name__", 1, None),
            series("__name__", 0, None),
            series("job", 1, None),
        ];
        let message = remote_protocol::encode_v2(&sent);
        let (all, faults) = read_all(Version::V2, &message);
        let known: Vec<_> = all[..3].iter().map(|s| s.as_ref().expect("good").metadata.clone()).collect();
        assert_eq!(known, [Some(Arc::new(metadata.clone())), Some(Arc::new(metadata)), None]);
        assert!(known[0].as_ref().zip(known[1].as_ref()).is_some_and(|(a, b)| Arc::ptr_eq(a, b)), "one copy");
        let reason = |i: usize| all[i].as_ref().expect_err("a reason").clone();
        assert_eq!(
            reason(3),
            r#"TimeSeries must contain at least one sample or histogram for series {__name__="a"}"#
        );
        assert_eq!(reason(4), r#"invalid metric name or labels, got {job="a"}"#);
        assert_eq!(faults, "");
        // In version 1.0 a series without samples is nothing wrong.
        let (all, _) = read_all(Version::V1, &remote_protocol::encode_v1(&sent[3..4], &[]));
        assert!(all[0].is_ok());
    }

    #[test]
    fn faults_are_told_within_bounds() {
        let mut faults = Faults::default();
        (0..NAMED_MAX + 5).for_each(|i| faults.add(format_args!("fault {i}")));
        let text = faults.finish();
        assert!(text.starts_with("fault 0\nfault 1\n") && text.ends_with("fault 9\nand 5 more"), "{text}");
    }

    #[test]
    fn refused_samples_are_not_counted_as_written() {
        let labels = |name: &str| Labels::from_pairs([("__name__", name)]);
        let at = |t| Timestamp(t);
        let float = |t| Sample { timestamp: at(t), value: 1.0, start: None };
        let histogram = |t| Sample {
            timestamp: at(t),
            value: Arc::new(model::Histogram::Float(model::FloatHistogram::default())),
            start: None,
        };
        let series = [
            WriteSeries { labels: labels("a"), samples: vec![float(1), float(2)], ..WriteSeries::default() },
            WriteSeries {
                labels: labels("h"),
                histograms: vec![histogram(1), histogram(2)],
                ..WriteSeries::default()
            },
        ];
        let written = |samples| Written {
            stored: 0,
            refusals: vec![Refusal {
                reason: group_writer::RefusalReason::OutOfOrder,
                count: 2,
                example: String::new(),
                samples,
            }],
        };
        let all = Counts { samples: 2, histograms: 2, exemplars: 0 };
        assert_eq!(counts(&series, &Written::default()), all);
        let some = written(vec![(labels("a"), at(2)), (labels("h"), at(1))]);
        assert_eq!(counts(&series, &some), Counts { samples: 1, histograms: 1, exemplars: 0 });
    }
}
