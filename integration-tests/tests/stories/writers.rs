//! Clients that write remotely and keep a ledger of what was acknowledged.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use integration_tests::{Http, Server, eventually, now_ms, promql, write};
use model::{Labels, Timestamp};
use remote_protocol::SeriesOut;

use crate::ledger::{self, Floats, Key};

/// Clients that write at the same time, so that a log record and a group commit hold more than one request.
const CLIENTS: i64 = 4;
/// Series of each client, a third of them in each group.
pub(crate) const SERIES: i64 = 12;
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

    /// Sends what was on its way when the client ended once more, so that it is known what there has to be: returns that.
    pub(crate) fn finish(&self, server: &Http) -> Floats {
        let last = self.acknowledged();
        eventually("the last batch is taken", || {
            let reply = write(server, &self.batch(last)).expect("an answer");
            assert!(reply.status == 204 || reply.status >= 500, "{}: {}", reply.status, reply.body);
            (reply.status == 204).then_some(())
        });
        self.floats(last + 1)
    }

    /// All samples of the first batches, as a ledger.
    pub(crate) fn floats(&self, batches: i64) -> Floats {
        let samples = (0..batches).flat_map(|batch| (0..SERIES).map(move |series| (batch, series)));
        samples.map(|(batch, series)| self.entry(batch, series)).collect()
    }

    /// A sample as a ledger has it.
    pub(crate) fn entry(&self, batch: i64, series: i64) -> (Key, Option<u64>) {
        let (t, value) = self.sample(batch, series);
        (("default".to_owned(), ledger::json(&self.labels(series)), t), Some(value.to_bits()))
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
        assert_eq!(self.lost(server), BTreeSet::new(), "acknowledged, and not there");
    }

    /// The samples that were acknowledged and are not there, by batch and series. What is there was written: that is
    /// checked.
    pub(crate) fn lost(&self, server: &Http) -> BTreeSet<(i64, i64)> {
        let acknowledged = self.acknowledged();
        let answer = promql::instant(server, &format!("ledger{{client=\"{}\"}}[30m]", self.number), now_ms());
        let mut lost: BTreeSet<_> =
            (0..acknowledged).flat_map(|batch| (0..SERIES).map(move |series| (batch, series))).collect();
        for found in &answer.series {
            let series: i64 = found.labels["number"].parse().expect("a number");
            assert!(found.floats.is_sorted_by(|a, b| a.0 < b.0), "series {series}: a time is there twice");
            for sample in &found.floats {
                let batch = (sample.0 - self.base) / STEP_MS;
                assert!(
                    batch <= acknowledged && *sample == self.sample(batch, series),
                    "series {series}: {sample:?}"
                );
                lost.remove(&(batch, series));
            }
        }
        lost
    }
}

/// Does something while clients write.
pub(crate) fn while_writing(server: &mut Server, clients: &[Writer], work: impl FnOnce(&mut Server)) {
    let (http, is_over) = (server.http(), AtomicBool::new(false));
    thread::scope(|scope| {
        for client in clients {
            scope.spawn(|| client.send(|| http.clone(), &is_over));
        }
        // Whatever happens meanwhile, the clients end.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(server)));
        is_over.store(true, Ordering::Relaxed);
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

/// Clients that have yet to write their first batch.
pub(crate) fn writers() -> Vec<Writer> {
    let base = now_ms() - BACK_MS;
    let writer = |number| Writer { number, base, acknowledged: Mutex::new(0), failures: AtomicU64::new(0) };
    (0..CLIENTS).map(writer).collect()
}
