//! Fifty `/federate` of everything at one time, one of them read slowly and some left in the middle: writes go on beside
//! them, memory stays bounded, and every whole answer has each series once.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read};
use std::thread;
use std::time::Duration;

use integration_tests::{Kind, Server, eventually, now_ms, promql, write};
use model::{Labels, Timestamp};
use remote_protocol::SeriesOut;

/// Series whose lines have some 260 bytes, 12 MB together: more than lies in sockets on the way.
const SERIES: usize = 48_000;
const METRICS: usize = 8;
const PAD: usize = 200;
const SERIES_PER_WRITE: usize = 4_000;
/// Answers under way at one time.
const READERS: usize = 50;
/// How many of them are left in the middle; one is read slowly.
const LEAVING: usize = 30;
/// Answers that the server gives at one time by default.
const PLACES: usize = 64;
/// What everyone reads at first.
const FIRST_BYTES: usize = 16 << 10;
/// What the slow reader takes a second, and for how long.
const SLOW_BYTES: usize = 10 << 10;
const SLOW_SECONDS: usize = 5;
/// Writes while all answers have begun and are not read, and once more while they are.
const WRITES: usize = 20;
/// Growth of any process during all of it, in bytes. Fifty answers have more than 600 MB.
const GROWTH_MAX: u64 = 384 << 20;

fn held(number: usize, t: i64) -> SeriesOut {
    let name = format!("held_{}", number % METRICS);
    let (job, number) = (format!("job-{}", number % 20), format!("{number:0>PAD$}"));
    let labels = [("__name__", name.as_str()), ("instance", "i"), ("job", &job), ("number", &number)];
    SeriesOut {
        labels: Labels::from_pairs(labels),
        floats: vec![(Timestamp(t), 1.0)],
        ..SeriesOut::default()
    }
}

/// Asks for everything; `None` when it is refused.
fn ask(server: &Server) -> Option<impl Read + use<>> {
    let agent: ureq::Agent = ureq::Agent::config_builder().proxy(None).build().into();
    let request = agent.get(server.http().url("/federate")).query("match[]", "{__name__=~\".+\"}");
    request.call().ok().map(|response| response.into_body().into_reader())
}

/// Reads some bytes.
fn take(answer: &mut impl Read, bytes: usize) -> Vec<u8> {
    let mut taken = vec![0; bytes];
    answer.read_exact(&mut taken).expect("the answer goes on");
    taken
}

/// Reads the rest, and checks that the answer has every series once; it fails when it is broken off.
fn check_rest(first: &[u8], rest: impl Read) {
    let mut counts: HashMap<String, usize> = HashMap::new();
    for line in BufReader::new(first.chain(rest)).lines() {
        let line = line.expect("the answer is whole");
        if let Some((series, _)) = line.split_once('}') {
            *counts.entry(series.to_owned()).or_default() += 1;
        }
    }
    assert!(counts.values().all(|count| *count == 1), "a series stands twice");
    let held = counts.keys().filter(|series| series.starts_with("held_")).count();
    assert_eq!(held, SERIES);
}

#[test]
fn fifty_at_a_time_leave_room_for_writes() {
    let server = Server::start(Kind::Tributary, "");
    let http = server.http();
    let t = now_ms() - 10_000;
    for first in (0..SERIES).step_by(SERIES_PER_WRITE) {
        let series: Vec<_> = (first..first + SERIES_PER_WRITE).map(|number| held(number, t)).collect();
        assert_eq!(write(&http, &series).map(|reply| reply.status), Some(204));
    }
    let write_one = |number: usize| {
        let series = SeriesOut {
            labels: Labels::from_pairs([
                ("__name__", "beside"),
                ("job", "job-0"),
                ("number", &number.to_string()),
            ]),
            floats: vec![(Timestamp(now_ms()), number as f64)],
            ..SeriesOut::default()
        };
        let reply = write(&http, &[series]).expect("an answer");
        assert_eq!(reply.status, 204, "{}", reply.body);
    };
    // What a first answer and a first write set up stands before it is measured.
    check_rest(&[], ask(&server).expect("an answer"));
    write_one(0);

    let growth = server.growth_of_each_during(|| {
        let begin = |number| {
            let mut answer = ask(&server).expect("an answer");
            (number, take(&mut answer, FIRST_BYTES), answer)
        };
        let begun: Vec<_> = (0..READERS).map(begin).collect();
        // All have begun, and none goes on.
        (1..=WRITES).for_each(write_one);
        thread::scope(|scope| {
            for (number, mut first, mut answer) in begun {
                if (1..=LEAVING).contains(&number) {
                    drop(answer);
                    continue;
                }
                scope.spawn(move || {
                    for _ in 0..if number == 0 { SLOW_SECONDS } else { 0 } {
                        thread::sleep(Duration::from_secs(1));
                        first.extend(take(&mut answer, SLOW_BYTES));
                    }
                    check_rest(&first, answer);
                });
            }
            (WRITES + 1..=2 * WRITES).for_each(write_one);
        });
    });
    assert!(growth < GROWTH_MAX, "grew by {growth} bytes");
    let sum = promql::single(&http, "sum(beside)", now_ms());
    assert_eq!(sum, Some((0..=2 * WRITES).sum::<usize>() as f64), "what was acknowledged is there");

    // Whoever left holds no place.
    eventually("all places are free", || (0..PLACES).map(|_| ask(&server)).collect::<Option<Vec<_>>>());
}
