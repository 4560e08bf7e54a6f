//! Clients that write remotely and keep a ledger of what was acknowledged.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use integration_tests::{Http, now_ms, promql, write};
use model::{Labels, Timestamp};
use remote_protocol::SeriesOut;

use crate::ledger::{self, Floats};

/// Clients that write at the same time, so that a log record and a group commit hold more than one request.
const CLIENTS: i64 = 4;
/// Series of each client.
const SERIES: i64 = 12;
/// Between two batches; small, so that no round gets ahead of the clock.
const STEP_MS: i64 = 20;
/// How far back the first batch lies; within the 30 minutes that late samples have.
const BACK_MS: i64 = 20 * 60_000;
/// Most batches of the story: they fit between the first and now.
const BATCHES_MAX: i64 = BACK_MS / STEP_MS;

/// What one client knows, and goes on from after a crash.
pub(crate) struct Writer {
    number: i64,
    base: i64,
    /// Batches that were acknowledged; a batch is sent again until it is.
    acknowledged: Mutex<i64>,
    /// Requests that were not acknowledged.
    failures: AtomicU64,
}

impl Writer {
    pub(crate) fn acknowledged(&self) -> i64 {
        *self.acknowledged.lock().expect("no panic while held")
    }

    /// Sends batch after batch until told to stop, each until it is acknowledged, to what `server` then names.
    pub(crate) fn send(&self, server: impl Fn() -> Http, is_over: &AtomicBool) {
        while !is_over.load(Ordering::Relaxed) {
            let batch = self.acknowledged();
            assert!(batch < BATCHES_MAX, "the story is short");
            match write(&server(), &self.batch(batch)) {
                Some(reply) if reply.status == 204 => {
                    *self.acknowledged.lock().expect("no panic while held") += 1;
                }
                Some(reply) if reply.status < 500 => {
                    panic!("batch {batch} refused with {}: {}", reply.status, reply.body);
                }
                // Stopped before it was durable, or cut off: nobody knows. It is sent again.
                _ => {
                    self.failures.fetch_add(1, Ordering::Relaxed);
                    thread::sleep(Duration::from_millis(STEP_MS.unsigned_abs()));
                }
            }
        }
    }

    /// How many requests were not acknowledged.
    pub(crate) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// All samples of the first batches, as a ledger.
    pub(crate) fn floats(&self, batches: i64) -> Floats {
        let samples = (0..batches).flat_map(|batch| (0..SERIES).map(move |series| (batch, series)));
        let entry = |(batch, series)| {
            let (t, value) = self.sample(batch, series);
            (("default".to_owned(), ledger::json(&self.labels(series)), t), Some(value.to_bits()))
        };
        samples.map(entry).collect()
    }

    fn sample(&self, batch: i64, series: i64) -> (i64, f64) {
        (self.base + batch * STEP_MS, ((batch * SERIES + series) * CLIENTS + self.number) as f64 / 4.0)
    }

    pub(crate) fn batch(&self, batch: i64) -> Vec<SeriesOut> {
        (0..SERIES)
            .map(|series| {
                let (t, value) = self.sample(batch, series);
                SeriesOut {
                    labels: self.labels(series),
                    floats: vec![(Timestamp(t), value)],
                    ..SeriesOut::default()
                }
            })
            .collect()
    }

    fn labels(&self, series: i64) -> Labels {
        // Two scrape groups, which the clients share, and series without any.
        let job = ["a", "b", ""][usize::try_from(series % 3).expect("small")];
        let (client, series) = (self.number.to_string(), series.to_string());
        Labels::from_pairs([
            ("__name__", "ledger"),
            ("job", job),
            ("instance", job),
            ("client", &client),
            ("number", &series),
        ])
    }

    /// Compares every series with the ledger. The batch after the last acknowledged one may be there as well.
    pub(crate) fn check(&self, server: &Http) {
        let acknowledged = self.acknowledged();
        let answer = promql::instant(server, &format!("ledger{{client=\"{}\"}}[30m]", self.number), now_ms());
        let found: BTreeMap<_, _> =
            answer.series.iter().map(|s| (s.labels["number"].clone(), &s.floats)).collect();
        for series in 0..SERIES {
            let got = found.get(&series.to_string()).map(|f| f.as_slice()).unwrap_or_default();
            let want: Vec<_> = (0..acknowledged).map(|batch| self.sample(batch, series)).collect();
            let length = want.len();
            let first = got.iter().zip(&want).position(|(got, want)| got != want);
            assert_eq!(first, None, "series {series}, first wrong of {length} acknowledged");
            assert!(got.len() >= length, "series {series}: {} of {length} acknowledged", got.len());
            let rest = &got[length..];
            assert!(
                rest.is_empty() || rest == [self.sample(acknowledged, series)],
                "series {series}: {rest:?}"
            );
        }
    }
}

/// Clients that have yet to write their first batch.
pub(crate) fn writers() -> Vec<Writer> {
    let base = now_ms() - BACK_MS;
    let writer = |number| Writer { number, base, acknowledged: Mutex::new(0), failures: AtomicU64::new(0) };
    (0..CLIENTS).map(writer).collect()
}
