//! `/federate` beside Prometheus's own: the same samples, asked in the same words, give the same bytes.

use std::io::Read as _;

use integration_tests::{Kind, Server, eventually, now_ms, promql, write};
use model::{CounterResetHint, Exemplar, FloatHistogram, Histogram, Labels, Span, Timestamp, stale_nan};
use remote_protocol::SeriesOut;

use crate::pair;

/// What is asked for, each in every format.
const SELECTIONS: [&[&str]; 19] = [
    &[],
    &["does_not_match_anything"],
    &["test_metric1"],
    &["test_metric_without_labels"],
    &["test_metric_stale"],
    &["test_metric_old"],
    &["test_metric_gone"],
    &["native"],
    &["native_gauge"],
    &["mixed"],
    &["{foo='boo'}"],
    &["test_metric2", "test_metric1", "test_metric1"],
    &["{__name__=~'.+'}"],
    &["{bar='',__name__=~'.+'}"],
    &["{__name__=~'.*'}"],
    &["-not-a-valid-metric-name"],
    &["test_metric1[5m]"],
    &["test_metric1", "test_metric1 offset 5m"],
    &["sum(test_metric1)"],
];
const PROTOBUF: &str =
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited";
const OPEN_METRICS: &str = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8,*/*;q=0.1";

/// An answer in a form that does not depend on the order of a family's series.
#[derive(Debug, PartialEq)]
struct Answer {
    status: u16,
    content_type: String,
    content_encoding: String,
    vary: String,
    families: Vec<Vec<Vec<u8>>>,
}

fn ask(server: &Server, selection: &[&str], headers: &[(&str, &str)]) -> Answer {
    let agent: ureq::Agent =
        ureq::Agent::config_builder().http_status_as_error(false).proxy(None).build().into();
    let request = agent.get(server.http().url("/federate"));
    let request = request.query_pairs(selection.iter().map(|selector| ("match[]", *selector)));
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    let mut response = request.call().expect("an answer");
    let header = |name: &str| {
        let value = response.headers().get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default().to_owned()
    };
    let (content_type, content_encoding, vary) =
        (header("content-type"), header("content-encoding"), header("vary"));
    let packed = response.body_mut().read_to_vec().expect("a whole body");
    let mut body = Vec::new();
    let unpacked = match content_encoding.as_str() {
        "gzip" => flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut body),
        "deflate" => flate2::read::ZlibDecoder::new(&packed[..]).read_to_end(&mut body),
        _ => (&packed[..]).read_to_end(&mut body),
    };
    unpacked.expect("packed as it says");
    let families = match content_type.starts_with("application/vnd.google.protobuf") {
        true => messages(&body),
        false => text(&body),
    };
    Answer { status: response.status().as_u16(), content_type, content_encoding, vary, families }
}

/// Families of the text format, each with its sample lines sorted.
fn text(body: &[u8]) -> Vec<Vec<Vec<u8>>> {
    let mut families: Vec<Vec<Vec<u8>>> = Vec::new();
    for line in body.split_inclusive(|byte| *byte == b'\n') {
        match families.last_mut() {
            Some(family) if !line.starts_with(b"# TYPE") => family.push(line.to_vec()),
            _ => families.push(vec![line.to_vec()]),
        }
    }
    families.iter_mut().for_each(|family| family[1..].sort());
    families
}

/// Families of the protobuf format, each as its sorted fields.
fn messages(mut body: &[u8]) -> Vec<Vec<Vec<u8>>> {
    fn varint(bytes: &mut &[u8]) -> usize {
        let (mut value, mut shift) = (0, 0);
        loop {
            let (byte, rest) = bytes.split_first().expect("a whole number");
            *bytes = rest;
            value |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return value;
            }
            shift += 7;
        }
    }
    let mut families = Vec::new();
    while !body.is_empty() {
        let length = varint(&mut body);
        let (mut family, rest) = body.split_at(length);
        body = rest;
        let mut fields = Vec::new();
        while !family.is_empty() {
            let whole = family;
            // A name, a help text and metrics have lengths; the type is a number.
            if varint(&mut family) & 7 == 2 {
                let length = varint(&mut family);
                family = &family[length..];
            } else {
                varint(&mut family);
            }
            fields.push(whole[..whole.len() - family.len()].to_vec());
        }
        fields.sort();
        families.push(fields);
    }
    // The name is the first field. A name of several types has several families, which come as their series do.
    families.chunk_by_mut(|a, b| a[0] == b[0]).for_each(<[_]>::sort);
    families
}

fn series(name: &str, more: &[(&str, &str)], samples: &[(i64, f64)]) -> SeriesOut {
    let labels = Labels::from_pairs([("__name__", name)].iter().chain(more).copied());
    let floats = samples.iter().map(|(t, value)| (Timestamp(*t), *value)).collect();
    SeriesOut { labels, floats, ..SeriesOut::default() }
}

fn exponential(hint: CounterResetHint, sum: f64) -> Histogram {
    Histogram::Float(FloatHistogram {
        counter_reset_hint: hint,
        schema: 1,
        count: 10.0,
        sum,
        zero_threshold: 0.001,
        zero_count: 1.0,
        positive_spans: vec![Span { offset: -1, length: 2 }, Span { offset: 1, length: 1 }],
        positive_buckets: vec![2.0, 3.0, 4.0],
        ..FloatHistogram::default()
    })
}

/// What every server holds, the newest samples a minute old.
fn data(t: i64) -> Vec<SeriesOut> {
    let mut all = vec![
        series("test_metric1", &[("foo", "bar"), ("instance", "i")], &[(t - 15_000, 9900.0), (t, 10_000.0)]),
        series("test_metric1", &[("foo", "boo"), ("instance", "i")], &[(t, 1.0)]),
        series("test_metric2", &[("foo", "boo"), ("instance", "i")], &[(t, 1.0)]),
        series("test_metric_without_labels", &[], &[(t, 1001.0)]),
        series("test_metric_stale", &[], &[(t - 15_000, 1.0), (t, stale_nan())]),
        series("test_metric_old", &[], &[(t - 100_000, 981.0)]),
        series("test_metric_gone", &[], &[(t - 400_000, 1.0)]),
        series("escaped", &[("v", "a\\b\"c\nd\te é")], &[(t, 1.0)]),
        series("up:rate5m", &[("job", "x")], &[(t, 0.5)]),
    ];
    let numbers = [
        0.0,
        -0.0,
        1.0,
        -1.0,
        123_456.0,
        1e6,
        1_234_567.0,
        1e-4,
        1e-5,
        1e21,
        0.1 + 0.2,
        f64::NAN,
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::MIN_POSITIVE,
        f64::MAX,
    ];
    for (i, value) in numbers.into_iter().enumerate() {
        all.push(series("numbers", &[("n", &i.to_string())], &[(t, value)]));
    }
    let hints = [("native", CounterResetHint::Unknown, 1.5), ("native_gauge", CounterResetHint::Gauge, 2.5)];
    for (name, hint, sum) in hints {
        let histograms = vec![(Timestamp(t), exponential(hint, sum))];
        all.push(SeriesOut { histograms, ..series(name, &[("instance", "h")], &[]) });
    }
    // What none of the answers tells.
    let exemplar = Exemplar {
        labels: Labels::from_pairs([("trace_id", "abc")]),
        value: 0.5,
        timestamp: Some(Timestamp(t)),
    };
    all.push(SeriesOut { exemplars: vec![exemplar], ..series("exemplified_total", &[], &[(t, 7.0)]) });
    // A name of which some are floats and one is none.
    all.push(series("mixed", &[("instance", "a")], &[(t, 2.0)]));
    let histograms = vec![(Timestamp(t), exponential(CounterResetHint::Unknown, 3.5))];
    all.push(SeriesOut { histograms, ..series("mixed", &[("instance", "b")], &[]) });
    all
}

/// What differs between two servers over all selections and formats.
fn differences(ours: &Server, theirs: &Server) -> Vec<String> {
    let mut faults = Vec::new();
    for selection in SELECTIONS {
        for headers in [
            &[][..],
            &[("Accept", "*/*"), ("Accept-Encoding", "gzip")],
            &[("Accept", OPEN_METRICS), ("Accept-Encoding", "br, deflate, gzip")],
            &[("Accept", PROTOBUF), ("Accept-Encoding", "identity")],
        ] {
            // 3.5 gives all native histograms of an answer the content of the last one.
            let is_shared = selection.iter().any(|selector| selector.contains("__name__"));
            if theirs.kind() == Kind::Prometheus3 && is_shared && headers.contains(&("Accept", PROTOBUF)) {
                continue;
            }
            let (mut got, mut want) = (ask(ours, selection, headers), ask(theirs, selection, headers));
            // The later 3.14 says what an answer depends on; 2.42 and 3.5 do not.
            assert_eq!(std::mem::take(&mut got.vary), "Accept-Encoding", "{selection:?} {headers:?}");
            want.vary.clear();
            if theirs.kind() == Kind::Prometheus {
                // 2.42 knows no escaping.
                for answer in [&mut got, &mut want] {
                    let plain = answer.content_type.split("; escaping=").next().unwrap_or_default();
                    answer.content_type = plain.to_owned();
                }
            }
            if got != want {
                let only = |answer: &Answer, other: &Answer| {
                    let known: Vec<_> = other.families.concat();
                    let lines = answer.families.concat().into_iter().filter(|line| !known.contains(line));
                    let lines: Vec<_> =
                        lines.map(|line| String::from_utf8_lossy(&line).into_owned()).collect();
                    let Answer { status, content_type, content_encoding, vary, families } = answer;
                    let count = families.len();
                    format!(
                        "{status} {content_type:?} {content_encoding:?} {vary:?} {count} families {lines:?}"
                    )
                };
                let (got, want) = (only(&got, &want), only(&want, &got));
                faults.push(format!("{selection:?} {headers:?}\n  got  {got}\n  want {want}"));
            }
        }
    }
    faults
}

#[test]
fn every_answer_is_the_reference_s() {
    // Nothing is scraped: what that leaves behind differs.
    let config = "global:\n  scrape_interval: 15s\n".to_owned();
    let servers =
        [Kind::Tributary, Kind::Prometheus, Kind::Prometheus3].map(|kind| Server::start(kind, &config));
    let [ours, theirs @ ..] = &servers;
    let t = now_ms() - 60_000;
    for server in &servers {
        let reply = write(&server.http(), &data(t)).expect("an answer");
        assert!(matches!(reply.status, 200 | 204), "{:?}: {}", server.kind(), reply.body);
    }
    let check = |what: &str| {
        for theirs in theirs {
            let faults = differences(ours, theirs);
            let kind = theirs.kind();
            assert!(
                faults.is_empty(),
                "{what}, {kind:?}: {} differences:\n{}",
                faults.len(),
                faults.join("\n")
            );
        }
    };
    check("without external labels");
    for server in &servers {
        let external = "global:\n  external_labels:\n    zone: ie\n    foo: baz\n";
        server.write_config(&config.replace("global:\n", external));
        assert_eq!(server.http().post_form("/-/reload", &[]).status, 200);
        eventually("the external labels arrive", || {
            let body = server.http().get("/federate", &[("match[]", "test_metric_old")]).body;
            body.contains("zone=\"ie\"").then_some(())
        });
    }
    check("with external labels");
    ours.flush();
    check("flushed");

    let ours = ours.http();
    let typed = ours.get("/federate", &[("match[]", "test_metric2"), ("typed", "2")]);
    assert_eq!(
        (typed.status, typed.body.as_str()),
        (400, "invalid parameter \"typed\": want 0 or 1, not \"2\"\n")
    );
    let alias = ours.get("/federation", &[("match[]", "test_metric2")]);
    assert_eq!((alias.status, alias.body), (200, ours.get("/federate", &[("match[]", "test_metric2")]).body));
    assert_eq!(ours.post_form("/federate", &[("match[]", "test_metric2")]).status, 405);
}

#[test]
fn native_histograms_go_up_to_whoever_takes_them() {
    let empty = "global:\n  scrape_interval: 15s\n";
    let leaves = [Kind::Tributary, Kind::Prometheus3].map(|kind| Server::start(kind, empty));
    let t = now_ms() - 30_000;
    for (leaf, name) in leaves.iter().zip(["tributary", "prometheus"]) {
        let histograms = vec![(Timestamp(t), exponential(CounterResetHint::Unknown, 12.5))];
        let written = [
            SeriesOut { histograms, ..series("native", &[("leaf", name)], &[]) },
            series("fixture_step", &[("leaf", name)], &[(t, 1.0)]),
        ];
        let reply = write(&leaf.http(), &written).expect("an answer");
        assert!(matches!(reply.status, 200 | 204), "{}", reply.body);
    }
    let targets = format!("{}', '{}", leaves[0].address(), leaves[1].address());
    let more = "  honor_labels: true\n  params:\n    'match[]': ['{leaf!=\"\"}']\n";
    let native = "  scrape_native_histograms: true\n";
    // 3.5 has a flag for it, which is on here.
    for (kind, setting, count) in
        [(Kind::Prometheus3, "", 2), (Kind::Tributary, native, 2), (Kind::Tributary, "", 0)]
    {
        let config = pair::config("federate", &targets, "/federate", &format!("{more}{setting}"));
        let server = Server::start(kind, &config);
        let global = server.http();
        eventually("both leaves have arrived", || {
            promql::single(&global, "count(fixture_step)", t + 1).filter(|count| *count == 2.0)
        });
        let quantile = |server| promql::instant(server, "histogram_quantile(0.9, native)", t + 1);
        let got = quantile(&global);
        assert_eq!(got.series.len(), count, "{kind:?}");
        let want = quantile(&leaves[0].http()).series[0].floats[0].1;
        assert!(
            got.series.iter().all(|s| promql::is_same(s.floats[0].1, want)),
            "{kind:?}: {got:?}, not {want}"
        );
    }
}
