//! Remote read: the request, and both sorts of answer.
//!
//! A request is walked rather than decoded as a whole, and what it may hold is bounded: a body of 32 MiB could otherwise
//! ask for millions of queries.

use std::ops::RangeInclusive;

use model::{Labels, MatchOp, Matcher, Timestamp};
use prometheus_proto::prometheus as pb;
use prometheus_proto::prometheus::label_matcher::Type;
use prometheus_proto::wire::{Fields, Payload, read_varint};
use prost::Message as _;

use crate::chunk::Chunks;
use crate::encode::{SeriesOut, to_series};
use crate::error::{Error, Result};

/// Queries of one request.
pub const QUERIES_MAX: usize = 1_000;
/// Matchers of one request.
pub const MATCHERS_MAX: usize = 10_000;

/// How an answer is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResponseType {
    /// One `prometheus.ReadResponse`, compressed.
    Samples,
    /// Frames of `prometheus.ChunkedReadResponse`.
    StreamedChunks,
}

impl ResponseType {
    /// Returns the Content-Type of such an answer.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Samples => "application/x-protobuf",
            Self::StreamedChunks => "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse",
        }
    }
}

/// What a client asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct ReadRequest {
    /// Answered in this order.
    pub queries: Vec<ReadQuery>,
    /// The first that the client names of those that there are.
    pub response_type: ResponseType,
}

/// One selection of series.
#[derive(Debug, Clone, PartialEq)]
pub struct ReadQuery {
    /// All of them must hold.
    pub matchers: Vec<Matcher>,
    /// The times wanted, both ends included: those of the query, narrowed by its hints where it has any.
    pub times: RangeInclusive<Timestamp>,
    /// The client wants to know which series there are, not their samples.
    pub is_labels_only: bool,
}

impl ReadRequest {
    /// Reads a decompressed message.
    ///
    /// # Errors
    /// When it is malformed, too large, or asks for answers that there are not.
    pub fn parse(message: &[u8]) -> Result<Self> {
        let mut queries = Vec::new();
        let (mut response_type, mut names_types) = (None, false);
        let mut matchers_left = MATCHERS_MAX;
        for field in Fields::new(message) {
            match field? {
                (1, Payload::Bytes(query)) => {
                    if queries.len() == QUERIES_MAX {
                        return Err(Error::TooMany { what: "queries", max: QUERIES_MAX });
                    }
                    queries.push(parse_query(query, &mut matchers_left)?);
                }
                (2, Payload::Varint(number)) => {
                    names_types = true;
                    response_type = response_type.or(response_type_of(number));
                }
                (2, Payload::Bytes(mut packed)) => {
                    while !packed.is_empty() {
                        names_types = true;
                        let number = read_varint(&mut packed)?;
                        response_type = response_type.or(response_type_of(number));
                    }
                }
                (1 | 2, _) => return Err(Error::ReadMessage("field of another type".to_owned())),
                _ => {}
            }
        }
        if names_types && response_type.is_none() {
            return Err(Error::UnsupportedResponseTypes);
        }
        Ok(Self { queries, response_type: response_type.unwrap_or(ResponseType::Samples) })
    }
}

fn response_type_of(number: u64) -> Option<ResponseType> {
    match number {
        0 => Some(ResponseType::Samples),
        1 => Some(ResponseType::StreamedChunks),
        _ => None,
    }
}

fn parse_query(message: &[u8], matchers_left: &mut usize) -> Result<ReadQuery> {
    let (mut start, mut end) = (0, 0);
    let (mut matchers, mut hints) = (Vec::new(), None);
    for field in Fields::new(message) {
        match field? {
            (1, payload) => start = payload.int64().unwrap_or_default(),
            (2, payload) => end = payload.int64().unwrap_or_default(),
            (3, Payload::Bytes(matcher)) => {
                *matchers_left = matchers_left
                    .checked_sub(1)
                    .ok_or(Error::TooMany { what: "matchers", max: MATCHERS_MAX })?;
                matchers.push(parse_matcher(matcher)?);
            }
            (4, Payload::Bytes(message)) => hints = Some(parse_hints(message)?),
            _ => {}
        }
    }
    let mut is_labels_only = false;
    if let Some(hints) = hints {
        // A client that gives no range leaves both at zero.
        if (hints.start, hints.end) != (0, 0) {
            (start, end) = (start.max(hints.start), end.min(hints.end));
        }
        is_labels_only = hints.is_of_series;
    }
    Ok(ReadQuery { matchers, times: Timestamp(start)..=Timestamp(end), is_labels_only })
}

fn parse_matcher(message: &[u8]) -> Result<Matcher> {
    let matcher = pb::LabelMatcher::decode(message).map_err(|e| Error::ReadMessage(e.to_string()))?;
    let op = match Type::try_from(matcher.r#type) {
        Ok(Type::Eq) => MatchOp::Equal,
        Ok(Type::Neq) => MatchOp::NotEqual,
        Ok(Type::Re) => MatchOp::Regex,
        Ok(Type::Nre) => MatchOp::NotRegex,
        Err(_) => return Err(Error::ReadMessage(format!("invalid matcher type {}", matcher.r#type))),
    };
    Matcher::new(op, &matcher.name, &matcher.value).map_err(|e| Error::ReadMessage(e.to_string()))
}

/// What is of use among the hints.
struct Hints {
    start: i64,
    end: i64,
    /// The function around the selector is `series`: as the API's endpoint of that name asks.
    is_of_series: bool,
}

fn parse_hints(message: &[u8]) -> Result<Hints> {
    let mut hints = Hints { start: 0, end: 0, is_of_series: false };
    for field in Fields::new(message) {
        match field? {
            (2, Payload::Bytes(function)) => hints.is_of_series = function == b"series",
            (3, payload) => hints.start = payload.int64().unwrap_or_default(),
            (4, payload) => hints.end = payload.int64().unwrap_or_default(),
            _ => {}
        }
    }
    Ok(hints)
}

/// Takes what all series of a server have in common out of a query: the stored ones do not have it.
///
/// As in Prometheus, a matcher that asks for an external label's very value asks for series without the label instead.
///
/// # Panics
/// Never: matching the empty text needs no pattern.
pub fn without_external_labels(matchers: &mut [Matcher], external: &Labels) {
    for matcher in matchers {
        let is_common =
            matcher.op() == MatchOp::Equal && external.get(matcher.name()) == Some(matcher.value());
        if is_common {
            *matcher = Matcher::equal(matcher.name(), "");
        }
    }
}

/// Adds the labels that all series of a server have in common; what a series has of its own stands.
#[must_use]
pub fn with_external_labels(labels: &Labels, external: &Labels) -> Labels {
    if external.is_empty() {
        return labels.clone();
    }
    let mut builder = external.to_builder();
    for (name, value) in labels {
        builder.set(name, value);
    }
    builder.build()
}

/// An answer of type [`ResponseType::Samples`] that is being put together.
///
/// What comes is encoded at once, so that a large answer is held as bytes alone.
#[derive(Debug, Default)]
pub struct SamplesAnswer {
    finished: Vec<u8>,
    query: Vec<u8>,
    series: Vec<u8>,
}

impl SamplesAnswer {
    /// Begins the next series of the query that is being answered.
    pub fn push(&mut self, series: &SeriesOut) {
        self.end_series();
        self.extend(series);
    }

    /// Adds later samples to the series that was begun last; the labels are not looked at.
    pub fn push_more(&mut self, samples: SeriesOut) {
        self.extend(&SeriesOut { labels: Labels::empty(), ..samples });
    }

    /// Encodes fields of a series: those that are repeated may stand in any order.
    fn extend(&mut self, series: &SeriesOut) {
        to_series(series).encode(&mut self.series).expect("memory grows");
    }

    fn end_series(&mut self) {
        if !self.series.is_empty() {
            push_message(&mut self.query, &self.series);
            self.series.clear();
        }
    }

    /// Ends a query; the next series are those of the query behind it.
    pub fn end_query(&mut self) {
        self.end_series();
        push_message(&mut self.finished, &std::mem::take(&mut self.query));
    }

    /// Returns the message, compressed. CPU work: 10 ms for 10 MB, about.
    ///
    /// # Errors
    /// When it is larger than the 4 GiB that the compression takes.
    pub fn finish(self) -> Result<Vec<u8>> {
        snap::raw::Encoder::new().compress_vec(&self.finished).map_err(|e| Error::Snappy(e.to_string()))
    }
}

/// Appends a message as field 1 of the message around it.
fn push_message(around: &mut Vec<u8>, message: &[u8]) {
    prost::encoding::encode_key(1, prost::encoding::WireType::LengthDelimited, around);
    prost::encoding::encode_varint(message.len() as u64, around);
    around.extend_from_slice(message);
}

/// The frames of one series in an answer of type [`ResponseType::StreamedChunks`], made as its samples come.
///
/// A frame has one series, or a part of one, and about as many bytes as it may have, a chunk more at most. A series
/// without samples has no frame.
#[derive(Debug)]
pub struct SeriesFrames {
    labels: Vec<pb::Label>,
    query_index: i64,
    room: usize,
    open: Chunks,
    /// Chunks of the next frame, and their bytes.
    full: Vec<pb::Chunk>,
    bytes: usize,
}

impl SeriesFrames {
    /// Begins a series of a query.
    #[must_use]
    pub fn new(labels: &Labels, query: usize, frame_bytes_max: usize) -> Self {
        let labels = to_series(&SeriesOut { labels: labels.clone(), ..SeriesOut::default() }).labels;
        Self {
            room: frame_bytes_max.saturating_sub(labels.iter().map(prost::Message::encoded_len).sum()),
            labels,
            query_index: i64::try_from(query).unwrap_or(i64::MAX),
            open: Chunks::default(),
            full: Vec::new(),
            bytes: 0,
        }
    }

    /// Adds samples that are later than those before, and appends the frames that are full; the labels are not looked at.
    pub fn push(&mut self, samples: &SeriesOut, frames: &mut Vec<Vec<u8>>) {
        let mut open = std::mem::take(&mut self.open);
        for chunk in open.add(samples) {
            frames.extend(self.push_chunk(chunk));
        }
        self.open = open;
    }

    /// Appends what is left.
    pub fn finish(mut self, frames: &mut Vec<Vec<u8>>) {
        if let Some(chunk) = std::mem::take(&mut self.open).finish() {
            frames.extend(self.push_chunk(chunk));
        }
        if !self.full.is_empty() {
            frames.push(self.frame());
        }
    }

    fn push_chunk(&mut self, chunk: pb::Chunk) -> Option<Vec<u8>> {
        self.bytes += chunk.encoded_len();
        self.full.push(chunk);
        (self.bytes >= self.room).then(|| self.frame())
    }

    fn frame(&mut self) -> Vec<u8> {
        self.bytes = 0;
        let series =
            pb::ChunkedSeries { labels: self.labels.clone(), chunks: std::mem::take(&mut self.full) };
        let message = pb::ChunkedReadResponse { chunked_series: vec![series], query_index: self.query_index };
        frame(&message.encode_to_vec())
    }
}

/// Size, checksum (CRC-32C, highest byte first), message.
fn frame(message: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.len() + 9);
    prost::encoding::encode_varint(message.len() as u64, &mut out);
    out.extend_from_slice(&crc32c::crc32c(message).to_be_bytes());
    out.extend_from_slice(message);
    out
}

#[cfg(test)]
mod tests {
    use prometheus_proto::prometheus::read_request::ResponseType as Wire;

    use super::*;

    fn request(queries: Vec<pb::Query>, types: &[i32]) -> Vec<u8> {
        pb::ReadRequest { queries, accepted_response_types: types.to_vec() }.encode_to_vec()
    }

    fn matcher(kind: Type, name: &str, value: &str) -> pb::LabelMatcher {
        pb::LabelMatcher { r#type: kind.into(), name: name.to_owned(), value: value.to_owned() }
    }

    #[test]
    fn requests_say_what_is_wanted() {
        let query = pb::Query {
            start_timestamp_ms: 1_000,
            end_timestamp_ms: 9_000,
            matchers: vec![matcher(Type::Eq, "__name__", "a"), matcher(Type::Nre, "b", "c|d")],
            hints: None,
        };
        let hints = |func: &str, start_ms, end_ms| {
            Some(pb::ReadHints { func: func.to_owned(), start_ms, end_ms, ..Default::default() })
        };
        let hinted = |hints| pb::Query { hints, ..query.clone() };
        let message = request(
            vec![query.clone(), hinted(hints("rate", 2_000, 9_500)), hinted(hints("series", 0, 0))],
            &[Wire::StreamedXorChunks.into(), Wire::Samples.into()],
        );
        let request = ReadRequest::parse(&message).expect("a request");
        let times: Vec<_> = request
            .queries
            .iter()
            .map(|q| (q.times.start().millis(), q.times.end().millis(), q.is_labels_only))
            .collect();
        assert_eq!(times, [(1_000, 9_000, false), (2_000, 9_000, false), (1_000, 9_000, true)]);
        let shown: Vec<String> = request.queries[0].matchers.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["__name__=\"a\"", "b!~\"c|d\""]);
        assert_eq!(request.response_type, ResponseType::StreamedChunks);
    }

    #[test]
    fn the_first_type_that_there_is_is_taken() {
        let parsed = |types: &[i32]| ReadRequest::parse(&request(Vec::new(), types)).map(|r| r.response_type);
        assert_eq!(parsed(&[]), Ok(ResponseType::Samples));
        assert_eq!(parsed(&[7, 1, 0]), Ok(ResponseType::StreamedChunks));
        assert_eq!(parsed(&[7]), Err(Error::UnsupportedResponseTypes));
    }

    #[test]
    fn requests_are_bounded() {
        let many = vec![pb::Query::default(); QUERIES_MAX + 1];
        let error = ReadRequest::parse(&request(many, &[])).expect_err("too many queries");
        assert_eq!(error.kind(), fault::Kind::Limit);
        let matchers = vec![matcher(Type::Eq, "a", "b"); MATCHERS_MAX / 2 + 1];
        let query = pb::Query { matchers, ..Default::default() };
        let error =
            ReadRequest::parse(&request(vec![query.clone(), query], &[])).expect_err("too many matchers");
        assert_eq!(error.kind(), fault::Kind::Limit);
        for broken in [
            // A length of 4 GiB, at the top and within a query.
            &[0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f][..],
            &[0x0a, 0x06, 0x1a, 0xff, 0xff, 0xff, 0xff, 0x0f],
            &[0x08, 0x01],
        ] {
            assert_eq!(
                ReadRequest::parse(broken).map_err(|e| e.kind()),
                Err(fault::Kind::Invalid),
                "{broken:?}"
            );
        }
        let query = pb::Query { matchers: vec![matcher(Type::Re, "a", "(")], ..Default::default() };
        assert_eq!(
            ReadRequest::parse(&request(vec![query], &[])).map_err(|e| e.kind()),
            Err(fault::Kind::Invalid)
        );
    }

    #[test]
    fn external_labels_are_asked_for_and_added() {
        let external = Labels::from_pairs([("region", "eu"), ("replica", "1")]);
        let mut matchers = [
            Matcher::equal("region", "eu"),
            Matcher::equal("replica", "2"),
            Matcher::new(MatchOp::NotEqual, "region", "eu").expect("no pattern"),
        ];
        without_external_labels(&mut matchers, &external);
        let shown: Vec<String> = matchers.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["region=\"\"", "replica=\"2\"", "region!=\"eu\""]);
        let labels = Labels::from_pairs([("__name__", "a"), ("replica", "own")]);
        assert_eq!(
            with_external_labels(&labels, &external),
            Labels::from_pairs([("__name__", "a"), ("region", "eu"), ("replica", "own")])
        );
    }

    fn long_series() -> SeriesOut {
        SeriesOut {
            labels: Labels::from_pairs([("__name__", "a")]),
            floats: (0..1_000).map(|i| (Timestamp(i * 1_000), (i as f64).sin())).collect(),
            ..SeriesOut::default()
        }
    }

    #[test]
    fn samples_stand_by_query() {
        let mut answer = SamplesAnswer::default();
        answer.end_query();
        let SeriesOut { labels, mut floats, .. } = long_series();
        let later = floats.split_off(600);
        answer.push(&SeriesOut { labels, floats, ..SeriesOut::default() });
        answer.push_more(SeriesOut { floats: later, ..SeriesOut::default() });
        answer.push(&long_series());
        answer.end_query();
        let response =
            pb::ReadResponse::decode(&*crate::decompress(&answer.finish().expect("small")).expect("a frame"))
                .expect("a message");
        let sizes: Vec<usize> = response.results.iter().map(|r| r.timeseries.len()).collect();
        assert_eq!(sizes, [0, 2]);
        assert_eq!(response.results[1].timeseries[0], response.results[1].timeseries[1]);
        let sample = &response.results[1].timeseries[0].samples[999];
        assert_eq!((sample.timestamp, sample.value()), (999_000, 999.0_f64.sin()));
    }

    /// The frames of a series whose samples come in parts.
    fn frames(series: &SeriesOut, part: usize) -> Vec<Vec<u8>> {
        let (mut framed, mut all) = (SeriesFrames::new(&series.labels, 3, 2_000), Vec::new());
        for floats in series.floats.chunks(part) {
            framed.push(&SeriesOut { floats: floats.to_vec(), ..SeriesOut::default() }, &mut all);
        }
        framed.finish(&mut all);
        all
    }

    #[test]
    fn frames_are_about_as_large_as_they_may_be() {
        let series = long_series();
        let all = frames(&series, series.floats.len());
        // In whatever parts the samples come.
        for part in [1, 7, 120, 500] {
            assert_eq!(frames(&series, part), all, "{part}");
        }
        assert!(all.len() > 2 && all.iter().all(|f| f.len() < 4_000), "{:?}", all.iter().map(Vec::len));
        let mut ends = Vec::new();
        for bytes in &all {
            let mut rest = &bytes[..];
            let size = read_varint(&mut rest).expect("a size");
            let (sum, message) = rest.split_at(4);
            assert_eq!(message.len() as u64, size);
            assert_eq!(sum, crc32c::crc32c(message).to_be_bytes());
            let response = pb::ChunkedReadResponse::decode(message).expect("a message");
            assert_eq!((response.query_index, response.chunked_series.len()), (3, 1));
            ends.extend(response.chunked_series[0].chunks.iter().map(|c| c.max_time_ms));
        }
        assert_eq!(ends, [119_000, 239_000, 359_000, 479_000, 599_000, 719_000, 839_000, 959_000, 999_000]);
        assert_eq!(frames(&SeriesOut::default(), 1), Vec::<Vec<u8>>::new());
    }
}
