//! `/federate` on a clock that stands still: at which instants a sample is exported.

use std::net::SocketAddr;
use std::sync::Arc;

use coordination::InMemory;
use model::Clock;
use service_runtime::{Options, Program, Reach};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{NOW, Started, options};

/// The lines of the answer, sorted.
async fn federated(address: SocketAddr) -> Vec<String> {
    let mut stream = TcpStream::connect(address).await.expect("connected");
    let request = "GET /federate?match[]=m HTTP/1.0\r\nhost: gateway\r\n\r\n";
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("answered");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(head.contains(" 200 OK\r\n"), "{answer}");
    let mut lines: Vec<String> =
        body.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect();
    lines.sort();
    lines
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sample_is_exported_from_its_very_time_on_until_it_is_older_than_the_lookback() {
    let folder = tempfile::tempdir().expect("a folder");
    let config_file = folder.path().join("prometheus.yml");
    std::fs::write(&config_file, "global: {scrape_interval: 15s}\n").expect("a file");
    let path = folder.path().to_owned();
    let clock = Clock::fixed(NOW);
    let coordinator = Arc::new(InMemory::new());
    let options = Options { clock: clock.clone(), ..options(&coordinator, "m", Reach::InProcess) };
    let config_file = config_file.display().to_string();
    let program = Program::new(options)
        .listen("web", "127.0.0.1:0".parse().expect("an address"))
        .service::<discovery::Service>(discovery::Config { config_file, ..Default::default() }, &[])
        .service::<ingester::Service>(ingester::Config { path: path.clone(), ..Default::default() }, &[])
        .service::<querier::Service>(querier::Config { path, ..Default::default() }, &[])
        .service::<federation_gateway::Service>(federation_gateway::Config::default(), &["web"]);
    let started = Started::start(program).await;
    let web = started.running.address("web").expect("bound");
    // At `NOW`, and 15 s before.
    started.write("default", 2).await;
    let newest = ["m{instance=\"a\"} 1 1700000000000", "m{instance=\"b\"} 2 1700000000000"];
    let before = ["m{instance=\"a\"} 0 1699999985000", "m{instance=\"b\"} 0 1699999985000"];
    let lookback_ms = 300_000;
    for state in ["in the head", "flushed"] {
        for (since_ms, expected) in [
            (0, &newest[..]),
            (1, &newest),
            (-1, &before),
            (-15_000, &before),
            (-15_001, &[]),
            (lookback_ms, &newest),
            (lookback_ms + 1, &[]),
        ] {
            clock.set(NOW.add_ms(since_ms));
            assert_eq!(federated(web).await, expected, "{state}, {since_ms} ms after the newest sample");
        }
        clock.set(NOW);
        started.flush().await;
    }
    started.stop().await;
}
