//! `/federate` of a cluster whose ingesters come and go: each series once, nothing missing, and no answer at all rather
//! than a part of one.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use integration_tests::{Http, Kind, Server, Store, eventually, now_ms, write};
use model::{Labels, Timestamp};
use remote_protocol::SeriesOut;

use crate::pair;

const JOBS: usize = 24;

fn series(t: i64) -> Vec<SeriesOut> {
    let of = |job: usize| {
        let name = format!("job-{job}");
        let labels = Labels::from_pairs([("__name__", "spread"), ("instance", "i"), ("job", &name)]);
        SeriesOut { labels, floats: vec![(Timestamp(t), job as f64)], ..SeriesOut::default() }
    };
    (0..JOBS).map(of).collect()
}

fn federated(http: &Http) -> (u16, String) {
    let reply = http.get("/federate", &[("match[]", "spread")]);
    (reply.status, reply.body)
}

/// Every series at its time, each once.
fn expected(t: i64) -> BTreeSet<String> {
    let line = |job: usize| format!("spread{{instance=\"i\",job=\"job-{job}\"}} {job} {t}");
    (0..JOBS).map(line).collect()
}

fn lines(body: &str) -> Vec<String> {
    body.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
}

#[test]
fn nothing_is_missing_from_federate_when_ingesters_leave() {
    let config = pair::config("nobody", "127.0.0.1:1", "/metrics", "");
    let mut server = Server::start_cluster(&config, Store::Folder);
    assert_eq!(server.kind(), Kind::Tributary);
    let http = server.http();
    let t = now_ms() - 30_000;
    let reply = write(&http, &series(t)).expect("an answer");
    assert_eq!(reply.status, 204, "{}", reply.body);
    let is_whole = |t: i64| {
        let (status, body) = federated(&http);
        let got = lines(&body);
        let is_once = got.len() == JOBS && got.into_iter().collect::<BTreeSet<_>>() == expected(t);
        (status == 200 && is_once).then_some(())
    };
    // The gateway may hear late of who has left, and then refuses: what it answers is whole.
    let check = |t: i64, when: &str| {
        let body = eventually(when, || {
            let (status, body) = federated(&http);
            assert!(matches!(status, 200 | 503), "{when}: {status} {body}");
            (status == 200).then_some(body)
        });
        assert_eq!(lines(&body).into_iter().collect::<BTreeSet<_>>(), expected(t), "{when}");
        assert_eq!(lines(&body).len(), JOBS, "{when}: each series once");
    };
    check(t, "in two heads");
    // What it held is in files now, and in no head.
    server.cluster().stop_member("ingester-1");
    check(t, "one has left");
    // The groups move: newer samples are in the other head, older ones in files. The newest count, each once.
    let later = t + 10_000;
    eventually("the other one takes all", || {
        write(&http, &series(later)).filter(|reply| reply.status == 204)
    });
    check(later, "in a head and in files");
    server.cluster().start_member("ingester-1");
    eventually("both answer", || is_whole(later));
    // A crash: what is missing is known to be, and nothing is answered for it.
    server.cluster().kill_9_member("ingester-1");
    let (status, body) = federated(&http);
    assert!(
        status == 503 && body.contains("ingester-1"),
        "the one that is missing is named: {status} {body}"
    );
    server.cluster().start_member("ingester-1");
    eventually("it is back", || is_whole(later));
    broken_off(&mut server);
}

/// An ingester dies while an answer is read: the body ends without its terminator, and that is counted.
fn broken_off(server: &mut Server) {
    let http = server.http();
    let t = now_ms() - 1_000;
    // More than all buffers on the way hold.
    let long = |number: usize| {
        let (job, pad) = (format!("job-{}", number % JOBS), format!("{number:0>1000}"));
        let labels =
            Labels::from_pairs([("__name__", "long"), ("instance", "i"), ("job", &job), ("pad", &pad)]);
        SeriesOut { labels, floats: vec![(Timestamp(t), 1.0)], ..SeriesOut::default() }
    };
    for first in (0..24_000).step_by(1_000) {
        let request: Vec<_> = (first..first + 1_000).map(long).collect();
        let reply = write(&http, &request).expect("an answer");
        assert_eq!(reply.status, 204, "{}", reply.body);
    }
    let mut stream = TcpStream::connect(server.address()).expect("connected");
    let request = "GET /federate?match[]=long HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).expect("asked");
    let mut body = vec![0; 64 << 10];
    stream.read_exact(&mut body).expect("the answer has begun");
    assert!(body.starts_with(b"HTTP/1.1 200 OK\r\n"), "{}", String::from_utf8_lossy(&body[..100]));
    server.cluster().kill_9_member("ingester-1");
    // The connection may be cut or closed; what matters is that the body is not whole.
    drop(stream.read_to_end(&mut body));
    let lines = body.iter().filter(|byte| **byte == b'\n').count();
    assert!(lines < 24_000 && !body.ends_with(b"0\r\n\r\n"), "{lines} lines, as if nothing was missing");
    let metrics = server.cluster().http("gateway-0").get("/metrics", &[]).body;
    let counted = metrics.lines().find(|line| line.starts_with("prometheus_web_federation_errors_total"));
    let counted: f64 = counted.and_then(|line| line.split(' ').nth(1)?.parse().ok()).unwrap_or_default();
    assert!(counted >= 1.0, "{counted} errors");
}
