//! Remote read: Prometheus reads what Tributary has, by samples (2.42) and by streamed chunks (3.5), and computes the same.

use std::sync::Arc;

use integration_tests::{Http, Kind, Server, now_ms, promql, write, write_body};
use model::{
    CounterResetHint, FloatHistogram, Histogram, IntegerHistogram, Labels, Span, Timestamp, stale_nan,
};
use prometheus_proto::prometheus as pb;
use prometheus_proto::wire::read_varint;
use prost::Message as _;
use remote_protocol::{SeriesOut, Version, encode_v1};

/// Between two samples.
const INTERVAL_MS: i64 = 15_000;
/// Samples of a series: more than two chunks of them.
const STEPS: i64 = 300;

fn labels(name: &str, l: &str) -> Labels {
    Labels::from_pairs([("__name__", name), ("instance", "i"), ("job", "j"), ("l", l)])
}

fn floats(name: &str, l: &str, base: i64, value: impl Fn(i64) -> Option<f64>) -> SeriesOut {
    let sample = |step| value(step).map(|x| (Timestamp(base + step * INTERVAL_MS + step % 7), x));
    SeriesOut {
        labels: labels(name, l),
        floats: (0..STEPS).filter_map(sample).collect(),
        ..SeriesOut::default()
    }
}

fn histograms(name: &str, base: i64, value: impl Fn(i64) -> Histogram) -> SeriesOut {
    let histograms = (0..STEPS).map(|step| (Timestamp(base + step * INTERVAL_MS), value(step)));
    SeriesOut { labels: labels(name, ""), histograms: histograms.collect(), ..SeriesOut::default() }
}

/// A counter that is reset now and then, and whose layout grows.
fn integers(step: i64) -> Histogram {
    let n = step % 70 + 1;
    let is_wide = step % 70 > 40;
    let populations = if is_wide { vec![n, 2 * n, n, 5 * n] } else { vec![n, 2 * n] };
    let deltas = populations.iter().scan(0, |before, n| Some(n - std::mem::replace(before, *n)));
    let zero_count = n.cast_unsigned();
    Histogram::Integer(IntegerHistogram {
        counter_reset_hint: CounterResetHint::Unknown,
        schema: 3,
        // Prometheus's default, which chunks have a short form for.
        zero_threshold: 2.0_f64.powi(-128),
        zero_count,
        count: zero_count + populations.iter().sum::<i64>().cast_unsigned(),
        sum: n as f64 * 18.25,
        positive_deltas: deltas.collect(),
        positive_spans: match is_wide {
            true => vec![Span { offset: -1, length: 2 }, Span { offset: 3, length: 2 }],
            false => vec![Span { offset: -1, length: 2 }],
        },
        negative_spans: Vec::new(),
        ..IntegerHistogram::default()
    })
}

/// A gauge of custom buckets that goes up and down.
fn custom(step: i64) -> Histogram {
    let n = (step * 37 % 11) as f64 + 0.5;
    Histogram::Float(FloatHistogram {
        counter_reset_hint: CounterResetHint::Gauge,
        schema: model::histogram::CUSTOM_BUCKETS_SCHEMA,
        count: 3.0 * n,
        sum: 7.0 * n,
        positive_spans: vec![Span { offset: 0, length: 2 }],
        positive_buckets: vec![n, 2.0 * n],
        custom_values: Arc::from([0.25, 1.5, 10.0]),
        ..FloatHistogram::default()
    })
}

/// Sends the story's series and returns the time of the first sample.
fn fill(server: &Server) -> i64 {
    let base = now_ms() - (STEPS + 4) * INTERVAL_MS;
    let wave = |step: i64| ((step * 37) % 101) as f64 / 8.0 - 3.0;
    let mut series = vec![
        floats("counter_total", "a", base, |step| Some((step % 130) as f64 * 1.25)),
        floats("counter_total", "b", base, |step| (step % 50 < 40).then_some(step as f64)),
        floats("gauge", "a", base, |step| Some(wave(step))),
        floats("gauge", "b", base, |step| {
            Some(if step % 60 == 59 { stale_nan() } else { 1.0 / (wave(step) + 0.01) })
        }),
        floats("odd", "", base, |step| {
            Some([f64::NAN, f64::INFINITY, -0.0, 5e-324, 1e300][(step % 5) as usize])
        }),
        histograms("native", base, integers),
        histograms("custom", base, custom),
    ];
    // Names of labels that sort before the metric's name.
    series.extend(["X", "Y"].map(|upper| SeriesOut {
        labels: Labels::from_pairs([("__name__", "upper"), (upper, "1"), ("job", "j")]),
        ..floats("upper", "", base, |step| Some(step as f64))
    }));
    let reply = write(&server.http(), &series).expect("an answer");
    assert_eq!(reply.status, 204, "{}", reply.body);
    base
}

fn start_reader(kind: Kind, server: &Server, more: &str) -> Server {
    let url = server.http().url("/api/v1/read");
    Server::start(
        kind,
        &format!("remote_read:\n- url: {url}\n  read_recent: true\n  remote_timeout: 2m\n{more}"),
    )
}

const FLOATS: [&str; 6] = [
    "{__name__=~\"counter_total|gauge|odd|upper\"}[90m]",
    "rate(counter_total[5m])",
    "sum by (l) (increase(counter_total{l!=\"x\"}[10m]))",
    "gauge",
    "changes(gauge[20m]) + on () group_left () count(odd)",
    "upper offset 3m",
];

const NATIVE: [&str; 5] = [
    "{__name__=~\"native|custom\"}[90m]",
    "histogram_count(rate(native[5m]))",
    "histogram_quantile(0.8, increase(native[40m]))",
    "resets(native[80m])",
    "histogram_sum(custom)",
];

/// Compares what the reader computes with what Tributary does, raw samples and series of a range.
fn compare(ours: &Http, reader: &Http, queries: &[&str], base: i64, external: &[(&str, &str)]) {
    let end = base + STEPS * INTERVAL_MS;
    for query in queries {
        // Off the samples, since 2.42 takes the left edge of a range and 3.x does not.
        let at = end + 1_234;
        let mut want = vec![promql::instant(ours, query, at)];
        let mut got = vec![promql::instant(reader, query, at)];
        if !query.ends_with(']') {
            want.push(promql::range(ours, query, base + 600_777, at, 61_000));
            got.push(promql::range(reader, query, base + 600_777, at, 61_000));
        }
        for (got, mut want) in got.into_iter().zip(want) {
            assert!(!want.series.is_empty(), "{query}: something is found");
            // An aggregation drops the external labels again.
            if !query.starts_with("sum") {
                for series in &mut want.series {
                    let external = external.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
                    series.labels.extend(external);
                }
            }
            let differences = promql::differences(&got, &want);
            assert!(differences.is_empty(), "{query}:\n{}", differences.join("\n"));
        }
    }
}

#[test]
fn prometheus_2_reads_samples() {
    let server = Server::start(Kind::Tributary, "");
    let base = fill(&server);
    let reader = start_reader(Kind::Prometheus, &server, "");
    compare(&server.http(), &reader.http(), &FLOATS, base, &[]);
}

#[test]
fn prometheus_3_reads_chunks_from_heads_and_files() {
    let server = Server::start(Kind::Tributary, "global: {external_labels: {site: eu, zone: none}}\n");
    let base = fill(&server);
    let reader = start_reader(Kind::Prometheus3, &server, "");
    let external = [("site", "eu"), ("zone", "none")];
    let all: Vec<&str> = FLOATS.into_iter().chain(NATIVE).collect();
    compare(&server.http(), &reader.http(), &all, base, &external);
    server.flush();
    compare(&server.http(), &reader.http(), &all, base, &external);

    // The external labels can be asked for, and their other values find nothing.
    let at = base + STEPS * INTERVAL_MS + 1;
    let count = |query: &str| promql::single(&reader.http(), query, at);
    assert_eq!(count("count(counter_total{site=\"eu\"})"), Some(2.0));
    assert_eq!(count("count(counter_total{site=\"us\"})"), None);
    // The reader's other requests: names of series, and their hints.
    let (start, end) = (promql::seconds(base), promql::seconds(at));
    let form = [("match[]", "gauge"), ("start", start.as_str()), ("end", end.as_str())];
    let series = reader.http().get("/api/v1/series", &form).data();
    assert_eq!(series.as_array().map(Vec::len), Some(2), "{series}");
}

#[test]
fn prometheus_reads_for_its_own_external_labels() {
    // A server that reads asks for its own external labels too.
    let labels = "global: {external_labels: {site: eu}}\n";
    let server = Server::start(Kind::Tributary, labels);
    let base = fill(&server);
    let reader = start_reader(Kind::Prometheus3, &server, labels);
    compare(&server.http(), &reader.http(), &FLOATS[..4], base, &[]);
}

/// Samples of the long series: a dozen messages, frames and requests.
const LONG: i64 = 2_000_000;
const LONG_INTERVAL_MS: i64 = 4;
/// Samples of one request.
const LONG_BATCH: i64 = 200_000;
/// The bound of a frame, in bytes, and that of one chunk of floats.
const FRAME_BYTES_MAX: usize = 1 << 20;
const CHUNK_BYTES_MAX: usize = 4 << 10;
/// What a process may grow by while the long series is sent in chunks, in bytes: it is held as 32 MB of numbers, once or
/// twice.
const GROWTH_MAX: u64 = 256 << 20;

fn long_value(number: i64) -> f64 {
    (number % 1_000 + number / LONG_BATCH) as f64
}

/// Requests that write the long series up to a time.
fn long_requests(end: i64) -> Vec<Vec<u8>> {
    let at = |number| Timestamp(end - (LONG - 1 - number) * LONG_INTERVAL_MS);
    let request = |first| {
        let series = SeriesOut {
            labels: labels("long", ""),
            floats: (first..first + LONG_BATCH).map(|number| (at(number), long_value(number))).collect(),
            ..SeriesOut::default()
        };
        remote_protocol::compress(&encode_v1(&[series], &[])).expect("small")
    };
    (0..LONG).step_by(LONG_BATCH as usize).map(request).collect()
}

/// Compares the number of the samples, or their sum, with arithmetic.
fn check_long(server: &Http, function: &str, samples: std::ops::Range<i64>, end: i64) {
    // The range ends at a sample, and begins between two.
    let count = samples.end - samples.start;
    let range_ms = count * LONG_INTERVAL_MS - LONG_INTERVAL_MS / 2;
    let at = end - (LONG - samples.end) * LONG_INTERVAL_MS;
    let want = match function {
        "count_over_time" => count as f64,
        _ => samples.map(long_value).sum(),
    };
    let query = format!("{function}(long[{range_ms}ms])");
    assert_eq!(promql::single(server, &query, at), Some(want), "{query} at {at}");
}

/// Asks for the long series in chunks; returns the frames.
fn frames_of_long(server: &Server, end: i64) -> Vec<pb::ChunkedReadResponse> {
    let matcher = pb::LabelMatcher { r#type: 0, name: "__name__".to_owned(), value: "long".to_owned() };
    let query =
        pb::Query { start_timestamp_ms: 0, end_timestamp_ms: end, matchers: vec![matcher], hints: None };
    let message = pb::ReadRequest { queries: vec![query], accepted_response_types: vec![1] }.encode_to_vec();
    let agent: ureq::Agent = ureq::Agent::config_builder().proxy(None).build().into();
    let mut response = agent
        .post(server.http().url("/api/v1/read"))
        .header("Content-Encoding", "snappy")
        .send(&remote_protocol::compress(&message).expect("small"))
        .expect("an answer");
    let body = response.body_mut().with_config().limit(64 << 20).read_to_vec().expect("a whole body");
    let (mut rest, mut frames) = (&body[..], Vec::new());
    while !rest.is_empty() {
        let size = usize::try_from(read_varint(&mut rest).expect("a size")).expect("a size");
        // The checksum, which the other stories' readers look at.
        let (message, behind) = rest[4..].split_at(size);
        rest = behind;
        frames.push(pb::ChunkedReadResponse::decode(message).expect("a message"));
    }
    frames
}

/// A series stands in several frames: one after the other as full as they may be, with the same labels, its chunks in
/// the order of time.
fn check_frames(frames: &[pb::ChunkedReadResponse]) {
    let (last, full) = frames.split_last().expect("frames");
    assert!(full.len() >= 2, "{} frames are full", full.len());
    // What is counted are labels and chunks.
    let bytes = |frame: &pb::ChunkedReadResponse| -> usize {
        let of = |series: &pb::ChunkedSeries| {
            let labels = series.labels.iter().map(pb::Label::encoded_len);
            labels.chain(series.chunks.iter().map(pb::Chunk::encoded_len)).sum::<usize>()
        };
        frame.chunked_series.iter().map(of).sum()
    };
    let full_bytes = FRAME_BYTES_MAX..FRAME_BYTES_MAX + CHUNK_BYTES_MAX;
    assert!(full.iter().all(|frame| full_bytes.contains(&bytes(frame))), "{:?}", full.iter().map(bytes));
    assert!(bytes(last) < full_bytes.end, "{}", bytes(last));
    let (mut count, mut newest) = (0, i64::MIN);
    for frame in frames {
        assert_eq!((frame.query_index, frame.chunked_series.len()), (0, 1));
        let series = &frame.chunked_series[0];
        let pairs = series.labels.iter().map(|l| (l.name.as_str(), l.value.as_str()));
        assert_eq!(Labels::from_pairs(pairs), labels("long", ""));
        for chunk in &series.chunks {
            assert!(newest < chunk.min_time_ms && chunk.min_time_ms <= chunk.max_time_ms);
            newest = chunk.max_time_ms;
            count += i64::from(u16::from_be_bytes([chunk.data[0], chunk.data[1]]));
        }
    }
    assert_eq!(count, LONG);
}

#[test]
fn a_series_of_millions_of_samples_is_read() {
    let server = Server::start(Kind::Tributary, "");
    // The reference for the frames.
    let reference = Server::start(Kind::Prometheus3, "");
    let end = now_ms();
    for body in long_requests(end) {
        for server in [&server, &reference] {
            let reply = write_body(&server.http(), Version::V1, &body).expect("an answer");
            assert!(matches!(reply.status, 200 | 204), "{}", reply.body);
        }
    }
    check_frames(&frames_of_long(&reference, end));
    let ours = server.http();
    let [old, new] = [Kind::Prometheus, Kind::Prometheus3].map(|kind| start_reader(kind, &server, ""));
    for (function, pieces) in [("count_over_time", 1), ("sum_over_time", LONG / LONG_BATCH)] {
        check_long(&ours, function, 0..LONG, end);
        check_long(&old.http(), function, 0..LONG, end);
        // 3.5 takes each frame for a series of its own, also from another 3.5: it reads what one holds.
        for piece in 0..pieces {
            let samples = piece * LONG_BATCH..(piece + 1) * LONG_BATCH;
            check_long(&new.http(), function, samples, end);
        }
        // All samples in one answer, as text.
        let form = [("query", "long[3h]"), ("time", &promql::seconds(end))];
        let all = ours.post_form("/api/v1/query", &form);
        assert_eq!(all.status, 200);
        assert_eq!(all.body.matches("],[").count() + 1, LONG as usize);
        let last = format!("[{},\"{}\"]]}}]}}}}", promql::seconds(end), long_value(LONG - 1));
        assert!(all.body.ends_with(&last), "{}", &all.body[all.body.len() - 100..]);

        let mut frames = Vec::new();
        let growth = server.growth_of_each_during(|| frames = frames_of_long(&server, end));
        check_frames(&frames);
        assert!(growth < GROWTH_MAX, "grew by {growth} bytes");
        // At first heads have it all, then files.
        server.flush();
    }
}

#[test]
fn bad_reads_are_refused_in_words() {
    let server = Server::start(Kind::Tributary, "");
    let read = |message: &[u8]| {
        let body = remote_protocol::compress(message).expect("small");
        server.http().try_post("/api/v1/read", &[("Content-Encoding", "snappy")], &body).expect("an answer")
    };
    // Accepted response types: 7 alone.
    let unknown = read(&[0x12, 0x01, 0x07]);
    assert_eq!(unknown.status, 400);
    assert!(
        unknown.body.contains("does not support any of the requested response types"),
        "{}",
        unknown.body
    );
    let nothing = read(&[]);
    assert_eq!((nothing.status, nothing.content_type.as_str()), (200, "application/x-protobuf"));
    assert_eq!(nothing.header("content-encoding"), Some("snappy"));
    assert_eq!(server.http().get("/api/v1/read", &[]).status, 405);
}
