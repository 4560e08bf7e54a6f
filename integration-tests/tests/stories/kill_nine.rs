//! `kill -9` in the middle of remote write: what was acknowledged is there after the restart, once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use integration_tests::{Kind, Server, eventually, now_ms};

use crate::ledger::{self, Floats};
use crate::writers::{Writer, writers};

const KILLS: u64 = 10;
/// How long after the first acknowledgement of a round the process is killed, at most.
const KILL_AFTER_MS_MAX: u64 = 400;

#[test]
fn what_was_acknowledged_survives() {
    let seed = now_ms().cast_unsigned();
    println!("seed {seed}");
    let mut server = Server::start(Kind::Tributary, "");
    let clients = writers();
    let total = || clients.iter().map(Writer::acknowledged).sum::<i64>();
    for round in 0..KILLS {
        let http = server.http();
        let is_over = AtomicBool::new(false);
        let before = total();
        thread::scope(|scope| {
            for client in &clients {
                scope.spawn(|| client.send(|| http.clone(), &is_over));
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

    // Foreign readers count as well: nothing is in the table twice.
    let want: Floats = clients.iter().flat_map(|client| client.finish(&server.http())).collect();
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
