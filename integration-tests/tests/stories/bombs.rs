//! Small bodies that claim to be large, or become it, are refused before they take memory.

use integration_tests::{Http, Kind, Reply, Server, now_ms, promql, write, write_body};
use model::{Labels, Timestamp};
use remote_protocol::{SERIES_MAX, SeriesOut, Version, compress};

/// Growth that a refusal may cause, in bytes.
const GROWTH_MAX: u64 = 64 << 20;
/// The largest message, in bytes.
const MESSAGE_BYTES_MAX: usize = 32 << 20;

/// A length-delimited field whose length goes far beyond its bytes: 4 GiB.
fn endless(field: u8) -> Vec<u8> {
    vec![field << 3 | 2, 0xff, 0xff, 0xff, 0xff, 0x0f]
}

/// The same, some levels down.
fn nested(fields: &[u8]) -> Vec<u8> {
    let (first, rest) = fields.split_first().expect("a field");
    if rest.is_empty() {
        return endless(*first);
    }
    let inner = nested(rest);
    let mut message = vec![first << 3 | 2, u8::try_from(inner.len()).expect("short")];
    message.extend(inner);
    message
}

fn framed(message: &[u8]) -> Vec<u8> {
    compress(message).expect("within the bound")
}

/// What each body is, the body, and the status it is refused with.
fn bombs() -> Vec<(&'static str, Vec<u8>, u16)> {
    let mut cut = vec![0x80, 0x80, 0x80, 0x10];
    cut.extend([0; 2]);
    vec![
        ("six bytes that claim 4 GiB", vec![0xff, 0xff, 0xff, 0xff, 0x0f, 0x00], 400),
        ("more than 4 GiB", vec![0xff, 0xff, 0xff, 0xff, 0xff, 0x7f], 400),
        ("32 MiB of which there is nothing", cut, 400),
        ("an endless field", framed(&endless(1)), 400),
    ]
}

fn read_body(server: &Http, body: &[u8]) -> Reply {
    let headers = [("Content-Type", "application/x-protobuf"), ("Content-Encoding", "snappy")];
    server.try_post("/api/v1/read", &headers, body).expect("an answer")
}

#[test]
fn bombs_are_refused_before_they_take_memory() {
    let server = Server::start(Kind::Tributary, "");
    let http = server.http();
    let send = |version, body: &[u8]| write_body(&http, version, body).expect("an answer");
    // Whatever is set up by a first request stands before it is measured.
    let _first = (send(Version::V1, b"x"), send(Version::V2, b"x"), read_body(&http, b"x"));
    let check = |what: &str, status: u16, ask: &dyn Fn() -> Reply| {
        let mut replies = Vec::new();
        let growth = server.growth_during(|| replies.extend((0..3).map(|_| ask())));
        for reply in replies {
            assert_eq!(reply.status, status, "{what}: {}", reply.body);
        }
        assert!(growth < GROWTH_MAX, "{what}: grew by {growth} bytes");
    };
    for (what, body, status) in bombs() {
        check(&format!("write 1.0: {what}"), status, &|| send(Version::V1, &body));
        check(&format!("write 2.0: {what}"), status, &|| send(Version::V2, &body));
        check(&format!("read: {what}"), status, &|| read_body(&http, &body));
    }
    // More than 32 MiB as it comes is not read: a client that goes on sending may find the connection closed instead of
    // the answer.
    let too_large = vec![0; MESSAGE_BYTES_MAX + 1];
    let growth = server.growth_during(|| {
        for version in [Version::V1, Version::V2] {
            let status = write_body(&http, version, &too_large).map(|reply| reply.status);
            assert!(matches!(status, None | Some(413)), "{version}: {status:?}");
        }
    });
    assert!(growth < GROWTH_MAX, "more than 32 MiB as it comes: grew by {growth} bytes");
    // Series, then labels, samples or histograms within; queries, then matchers within.
    for fields in [&[1_u8, 1][..], &[1, 2], &[1, 4], &[1, 1, 2]] {
        let body = framed(&nested(fields));
        check(&format!("write 1.0: nested {fields:?}"), 400, &|| send(Version::V1, &body));
    }
    for fields in [&[4_u8][..], &[5, 1], &[5, 3], &[5, 4, 1]] {
        let body = framed(&nested(fields));
        check(&format!("write 2.0: nested {fields:?}"), 400, &|| send(Version::V2, &body));
    }
    for fields in [&[1_u8, 3][..], &[1, 4, 5], &[1, 3, 2]] {
        let body = framed(&nested(fields));
        check(&format!("read: nested {fields:?}"), 400, &|| read_body(&http, &body));
    }
    // What really has 32 MiB takes that, for each thread that unpacked one, and little more.
    let growth_max = 3 * GROWTH_MAX;
    let check = |what: &str, status: u16, ask: &dyn Fn() -> Reply| {
        let growth = server.growth_during(|| assert_eq!(ask().status, status, "{what}"));
        assert!(growth < growth_max, "{what}: grew by {growth} bytes");
    };
    let zeros = framed(&vec![0; MESSAGE_BYTES_MAX]);
    check("write 1.0: zeros", 400, &|| send(Version::V1, &zeros));
    check("write 2.0: zeros", 400, &|| send(Version::V2, &zeros));
    check("read: zeros", 400, &|| read_body(&http, &zeros));
    // Many parts of a few bytes each.
    let tiny = |field: u8| framed(&[field << 3 | 2, 0].repeat(MESSAGE_BYTES_MAX / 2));
    check("write 1.0: millions of series", 400, &|| send(Version::V1, &tiny(1)));
    check("write 2.0: millions of series", 400, &|| send(Version::V2, &tiny(5)));
    check("write 2.0: millions of symbols", 400, &|| send(Version::V2, &tiny(4)));
    check("read: millions of queries", 400, &|| read_body(&http, &tiny(1)));
    // A symbol of 16 MiB, and a series that refers to it a thousand times.
    let mut symbol = vec![5 << 3 | 2, 0xeb, 0x07, 1 << 3 | 2, 0xe8, 0x07];
    symbol.extend([0; 1_000]);
    symbol.extend([4 << 3 | 2, 0x80, 0x80, 0x80, 0x08]);
    symbol.extend(vec![b'x'; 16 << 20]);
    let symbol = framed(&symbol);
    check("write 2.0: a long symbol again and again", 400, &|| send(Version::V2, &symbol));

    // As many series as there may be, all the same one, each with a sample at the epoch, which is too old.
    let sample = SeriesOut {
        labels: Labels::from_pairs([("__name__", "a")]),
        floats: vec![(Timestamp(now_ms()), 1.0)],
        ..SeriesOut::default()
    };
    assert_eq!(write(&http, &[sample]).map(|reply| reply.status), Some(204));
    let mut series = vec![0x0a, 0x11, 0x0a, 0x0d, 0x0a, 0x08];
    series.extend(b"__name__");
    series.extend([0x12, 0x01, b'a', 0x12, 0x00]);
    let body = framed(&series.repeat(SERIES_MAX));
    let growth = server.growth_during(|| assert_eq!(send(Version::V1, &body).status, 400));
    assert!(growth < growth_max, "a series again and again: grew by {growth} bytes");
    assert_eq!(promql::single(&http, "1+1", 1_000), Some(2.0), "it goes on");
}
