//! `kill -9` in the middle of remote write: what was acknowledged is there after the restart, once.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use integration_tests::{Http, Kind, Server, eventually, now_ms, promql, write};
use model::{Labels, Timestamp};
use remote_protocol::SeriesOut;

use crate::ledger::{self, Floats};

const KILLS: u64 = 10;
/// How long after the first acknowledgement of a round the process is killed, at most.
const KILL_AFTER_MS_MAX: u64 = 400;
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

/// What the client knows, and goes on from after a crash.
struct Client {
    number: i64,
    base: i64,
    /// Batches that were acknowledged; a batch is sent again until it is.
    acknowledged: Mutex<i64>,
}

impl Client {
    fn acknowledged(&self) -> i64 {
        *self.acknowledged.lock().expect("no panic while held")
    }

    /// Sends batch after batch until told to stop, or until there is no answer.
    fn send(&self, server: &Http, is_over: &AtomicBool) {
        while !is_over.load(Ordering::Relaxed) {
            let batch = self.acknowledged();
            assert!(batch < BATCHES_MAX, "the story is short");
            match write(server, &self.batch(batch)) {
                Some(reply) if reply.status == 204 => {
                    *self.acknowledged.lock().expect("no panic while held") += 1;
                }
                // Stopped before it was durable, or cut off: nobody knows. The next round sends it again.
                Some(reply) if reply.status >= 500 => return,
                Some(reply) => panic!("batch {batch} refused with {}: {}", reply.status, reply.body),
                None => return,
            }
        }
    }

    fn sample(&self, batch: i64, series: i64) -> (i64, f64) {
        (self.base + batch * STEP_MS, ((batch * SERIES + series) * CLIENTS + self.number) as f64 / 4.0)
    }

    fn batch(&self, batch: i64) -> Vec<SeriesOut> {
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
    fn check(&self, server: &Http) {
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

#[test]
fn what_was_acknowledged_survives() {
    let seed = now_ms().cast_unsigned();
    println!("seed {seed}");
    let mut server = Server::start(Kind::Tributary, "");
    let base = now_ms() - BACK_MS;
    let clients: Vec<_> =
        (0..CLIENTS).map(|number| Client { number, base, acknowledged: Mutex::new(0) }).collect();
    let total = || clients.iter().map(Client::acknowledged).sum::<i64>();
    for round in 0..KILLS {
        let http = server.http();
        let is_over = AtomicBool::new(false);
        let before = total();
        thread::scope(|scope| {
            for client in &clients {
                scope.spawn(|| client.send(&http, &is_over));
            }
            eventually("something is acknowledged", || (total() > before).then_some(()));
            // Every third kill meets a flush.
            if round % 3 == 2 {
                scope.spawn(|| {
                    // Cut off by the kill.
                    let _cut = http.try_post("/api/v1/admin/tsdb/flush", &[], &[]);
                });
            }
            thread::sleep(Duration::from_millis(random(seed, round) % KILL_AFTER_MS_MAX));
            server.kill_9();
            is_over.store(true, Ordering::Relaxed);
        });
        println!("round {round}: {} requests acknowledged", total());
        server.start_again();
        clients.iter().for_each(|client| client.check(&server.http()));
    }

    // Foreign readers count as well: nothing is in the table twice. What was on its way at the last kill is sent
    // again, so that it is known what there has to be.
    let http = server.http();
    let mut want = Floats::new();
    for client in &clients {
        let last = client.acknowledged();
        let reply = write(&http, &client.batch(last)).expect("an answer");
        assert_eq!(reply.status, 204, "{}", reply.body);
        for (batch, series) in (0..=last).flat_map(|batch| (0..SERIES).map(move |series| (batch, series))) {
            let (t, value) = client.sample(batch, series);
            let key = ("default".to_owned(), ledger::json(&client.labels(series)), t);
            want.insert(key, Some(value.to_bits()));
        }
    }
    server.flush();
    server.stop();
    let got = ledger::read_table(&server).floats;
    assert_eq!(ledger::differences(&got, &want), Vec::<String>::new());
}

/// A number that looks random; the same for the same seed and round (splitmix64).
fn random(seed: u64, round: u64) -> u64 {
    let mut x = seed.wrapping_add((round + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
