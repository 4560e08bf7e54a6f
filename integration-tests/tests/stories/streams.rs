//! Large answers go out in little memory, and a query ends with the client that wanted it.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use integration_tests::{Kind, Server, eventually, now_ms, promql, write};
use model::{Labels, Timestamp};
use remote_protocol::SeriesOut;

/// Points of one series of a range query, the most that there may be.
const STEPS: i64 = 11_000;
/// Series: with them an answer has a million points.
const SERIES: usize = 91;
/// Growth while such an answer is made and read, in bytes. Its text has 30 MB, the numbers 16 MB.
const GROWTH_MAX: u64 = 128 << 20;
/// How long a query may go on that nobody waits for, in seconds, by the querier's own account. What the stories ask takes
/// far longer, and is timed out far later.
const RELEASE_SECONDS_MAX: f64 = 1.0;

/// Starts a server that has an hour and more of so many series; returns when the last sample was.
fn filled(series: usize) -> (Server, i64) {
    let server = Server::start(Kind::Tributary, "");
    let end = now_ms() / 1_000 * 1_000;
    // One sample within each lookback.
    let times: Vec<i64> = (0..=STEPS / 240 + 1).map(|i| end - i * 240_000).rev().collect();
    let all: Vec<SeriesOut> = (0..series)
        .map(|i| SeriesOut {
            labels: Labels::from_pairs([("__name__", "large".to_owned()), ("i", i.to_string())]),
            floats: times.iter().map(|t| (Timestamp(*t), *t as f64 * 1e-3 + i as f64)).collect(),
            ..SeriesOut::default()
        })
        .collect();
    assert_eq!(write(&server.http(), &all).map(|reply| reply.status), Some(204));
    (server, end)
}

#[test]
fn a_million_points_take_little_memory() {
    let (server, end) = filled(SERIES);
    let ask = |query: &str| {
        let answer = promql::range(&server.http(), query, end - (STEPS - 1) * 1_000, end, 1_000);
        answer.series.iter().map(|s| s.floats.len()).sum::<usize>()
    };
    // What a first query sets up stands before it is measured.
    assert_eq!(ask("large{i=\"1\"}"), STEPS as usize);
    let mut points = 0;
    let growth = server.growth_during(|| points = ask("large"));
    assert_eq!(points, SERIES * STEPS as usize);
    assert!(growth < GROWTH_MAX, "grew by {growth} bytes");
}

/// The sum of a metric over all queriers.
fn metric(server: &Server, name: &str) -> f64 {
    server.queriers().iter().map(|querier| querier.metric(name)).sum()
}

/// Asks what takes billions of evaluations, waits until it runs, and leaves.
fn leave(server: &Server, end: i64, path: &str, query: &str, more: &str) {
    let running = || metric(server, "prometheus_engine_queries");
    assert_eq!(running(), 0.0);
    let form = format!("query={query}{more}");
    let form =
        form.replace("START", &promql::seconds(end - 10_000_000)).replace("END", &promql::seconds(end));
    let mut client = TcpStream::connect(server.address()).expect("a connection");
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n",
        server.address(),
        form.len()
    );
    client.write_all((head + &form).as_bytes()).expect("a request");
    eventually("the query runs", || (running() == 1.0).then_some(()));
    client.set_read_timeout(Some(Duration::from_millis(200))).expect("a timeout");
    assert!(client.read(&mut [0; 1]).is_err(), "it has not been answered");
    drop(client);
    eventually("the query is over", || (running() == 0.0).then_some(()));
}

#[test]
fn a_query_ends_with_its_client() {
    let (server, end) = filled(SERIES);
    let query = "count_over_time(sum(rate(large[1h]))[2h:1s])";
    let nested = format!("count_over_time({query}[10h:1s])");
    let account =
        || ["count", "sum"].map(|part| metric(&server, &format!("querier_query_release_seconds_{part}")));
    for (path, query, more) in [
        ("/api/v1/query_range", query, "&start=START&end=END&step=1"),
        ("/api/v1/query", nested.as_str(), "&time=END"),
    ] {
        // A busy machine may hold the querier up, but not each time.
        eventually(&format!("{path} is released in time"), || {
            let [count, seconds] = account();
            leave(&server, end, path, query, more);
            // It is entered a moment after the query is over.
            let entered = || Some(account()).filter(|[entered, _]| *entered == count + 1.0);
            let [_, released] = eventually("the release is entered", entered);
            (released - seconds < RELEASE_SECONDS_MAX).then_some(())
        });
    }
}
