//! Compaction changes how the table is stored and nothing that is read from it: PromQL answers the same before, after,
//! and after a restart that has only the table; DuckDB finds every sample once.

use integration_tests::{Kind, Server, now_ms, promql, write};
use model::{Labels, Timestamp, stale_nan};
use remote_protocol::SeriesOut;

use crate::ledger::{self, Floats};

const FLUSHES: i64 = 4;
/// Samples of a flush.
const SAMPLES: i64 = 10;
const INTERVAL_MS: i64 = 15_000;
const SERIES: usize = 20;
const QUERIES: [&str; 4] = [
    "compacted_total",
    "sum by (job) (rate(compacted_total[2m]))",
    "count_over_time(compacted_total[20m])",
    "max by (instance) (compacted_total) - min by (instance) (compacted_total)",
];

/// Values of whole numbers, of cents, and of the sort that compresses badly; some series end.
fn value(series: usize, i: i64) -> f64 {
    match series % 4 {
        0 => (i * i) as f64,
        1 => (7 * i + i64::try_from(series).expect("small")) as f64 / 100.0,
        2 => (i as f64 + series as f64).sin(),
        _ if i % 9 == 8 => stale_nan(),
        _ => i as f64,
    }
}

fn series(base: i64, flush: i64) -> Vec<SeriesOut> {
    let range = flush * SAMPLES..(flush + 1) * SAMPLES;
    let one = |n: usize| {
        let labels = [
            ("__name__", "compacted_total".to_owned()),
            ("job", format!("j{}", n % 3)),
            ("instance", format!("i{n}")),
        ];
        SeriesOut {
            labels: Labels::from_pairs(labels),
            floats: range.clone().map(|i| (Timestamp(base + i * INTERVAL_MS), value(n, i))).collect(),
            ..SeriesOut::default()
        }
    };
    (0..SERIES).map(one).collect()
}

fn answers(server: &Server, base: i64) -> Vec<promql::Answer> {
    let end = base + FLUSHES * SAMPLES * INTERVAL_MS;
    QUERIES.iter().map(|query| promql::range(&server.http(), query, base, end, INTERVAL_MS)).collect()
}

#[test]
fn compaction_changes_no_answer() {
    let mut server = Server::start(Kind::Tributary, "");
    let base = now_ms() - (FLUSHES * SAMPLES + 2) * INTERVAL_MS;
    let mut written = Floats::new();
    for flush in 0..FLUSHES {
        let series = series(base, flush);
        let reply = write(&server.http(), &series).expect("an answer");
        assert_eq!(reply.status, 204, "{}", reply.body);
        server.flush();
        for one in &series {
            let key = |t: Timestamp| ("default".to_owned(), ledger::json(&one.labels), t.millis());
            let bits = |x: f64| (x.to_bits() != stale_nan().to_bits()).then(|| x.to_bits());
            written.extend(one.floats.iter().map(|(t, x)| (key(*t), bits(*x))));
        }
    }
    let before = answers(&server, base);
    assert!(before.iter().all(|a| !a.series.is_empty()));
    assert_eq!(ledger::differences(&ledger::read_table(&server).floats, &written), Vec::<String>::new());

    let reply = server.http().post_form("/api/v1/admin/tsdb/compact", &[]);
    assert_eq!(reply.status, 200, "{}", reply.body);
    let done = reply.data();
    let number = |name: &str| done[name].as_u64().unwrap_or_else(|| panic!("no {name}: {done}"));
    assert!(number("compactions") >= 1, "{done}");
    assert!(number("filesReplaced") > number("filesWritten"), "{done}");
    assert_eq!(answers(&server, base), before);
    assert_eq!(ledger::differences(&ledger::read_table(&server).floats, &written), Vec::<String>::new());

    let again = server.http().post_form("/api/v1/admin/tsdb/compact", &[]).data();
    assert_eq!(again["compactions"], 0, "{again}");
    server.stop();
    server.start_again();
    assert_eq!(answers(&server, base), before);
    server.stop();
    assert_eq!(ledger::differences(&ledger::read_table(&server).floats, &written), Vec::<String>::new());
}
