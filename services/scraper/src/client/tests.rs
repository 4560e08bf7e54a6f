//! The client against a target on a free port.

use std::io::Write as _;

use exposition::{EscapingScheme, ScrapeProtocol};
use http_client::{HttpSettings, Secret};
use relabel::NameValidation;
use test_kit::{Answer, FakeTarget};

use super::*;
use crate::job::{HistogramRules, LabelLimits, SampleRules};

const TIMEOUT: Duration = Duration::from_secs(10);

fn job(http: HttpSettings) -> Job {
    Job {
        name: "j".into(),
        rules: SampleRules {
            honor_labels: false,
            honor_timestamps: true,
            track_timestamps_staleness: false,
            relabel: Vec::new(),
            names: NameValidation::Utf8,
            sample_limit: 0,
            label_limits: LabelLimits::default(),
            histograms: HistogramRules::default(),
        },
        protocols: ScrapeProtocol::DEFAULT.to_vec(),
        fallback: None,
        escaping: EscapingScheme::AllowUtf8,
        is_compressed: true,
        body_size_limit: 0,
        has_extra_metrics: false,
        http,
        refusal: None,
        ignored: Vec::new(),
    }
}

fn shared() -> Shared {
    Shared { budget: BodyBudget::new(16 << 20), roots: Roots::default(), body_bytes_max: 8 << 20 }
}

fn client(http: HttpSettings) -> Client {
    Client::new(&job(http), shared())
}

async fn text_of(client: &Client, url: &str) -> Result<String> {
    let fetched = client.fetch(url, TIMEOUT, 0).await?;
    fetched.body.with_text(|text| String::from_utf8_lossy(text).into_owned())
}

async fn error_of(client: &Client, url: &str) -> String {
    text_of(client, url).await.unwrap_err().to_string()
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn requests_carry_prometheus_headers() {
    let target = FakeTarget::start(Answer::text("a 1\n")).await;
    let custom = ("x-team", "blue");
    let headers = vec![(HeaderName::from_static(custom.0), Secret::Text(custom.1.into()))];
    let client = client(HttpSettings { headers, ..HttpSettings::default() });
    let fetched = client.fetch(&target.url("/metrics?a=b"), Duration::from_millis(9_500), 0).await.unwrap();
    assert_eq!(fetched.content_type, "text/plain; version=0.0.4; charset=utf-8");
    let seen = &target.seen()[0];
    assert_eq!(seen.path, "/metrics?a=b");
    for (name, expected) in [
        (
            "accept",
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
             application/openmetrics-text;version=0.0.1;q=0.5,\
             text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
        ),
        ("accept-encoding", "gzip"),
        ("user-agent", "Prometheus/3.14.0"),
        ("x-prometheus-scrape-timeout-seconds", "9.5"),
        ("x-team", "blue"),
        ("authorization", ""),
    ] {
        assert_eq!(seen.header(name), expected, "{name}");
    }
    let plain = Client::new(&Job { is_compressed: false, ..job(HttpSettings::default()) }, shared());
    assert_eq!(text_of(&plain, &target.url("/")).await.unwrap(), "a 1\n");
    assert_eq!(target.seen()[1].header("accept-encoding"), "identity");
}

#[tokio::test]
async fn failures_have_the_words_that_prometheus_users_know() {
    let target = FakeTarget::start(Answer::status(401)).await;
    let client = client(HttpSettings::default());
    let url = target.url("/metrics");
    assert_eq!(error_of(&client, &url).await, "server returned HTTP status 401 Unauthorized");
    target.answer(Answer::status(302).header("location", "/other"));
    assert_eq!(error_of(&client, &url).await, "server returned HTTP status 302 Found");
    target.answer(Answer::text("").after(Duration::from_secs(60)));
    let error = client.fetch(&url, Duration::from_millis(50), 0).await.unwrap_err();
    assert_eq!(error.to_string(), format!("Get \"{url}\": context deadline exceeded"));
    let address = target.address();
    drop(target);
    // Whether or not the port is closed by now, nobody answers on port 1.
    let url = "http://127.0.0.1:1/metrics";
    assert_eq!(
        error_of(&client, url).await,
        format!("Get \"{url}\": dial tcp 127.0.0.1:1: connect: connection refused"),
        "{address}"
    );
    assert!(error_of(&client, "http://[::1").await.contains("invalid URL"));
}

#[tokio::test]
async fn bodies_are_bounded_before_and_after_decompression() {
    let target = FakeTarget::start(Answer::text("")).await;
    let limited =
        |limit| Client::new(&Job { body_size_limit: limit, ..job(HttpSettings::default()) }, shared());
    let plain = "x".repeat(100);
    let zipped = |text: &[u8]| Answer::text(gzip(text)).header("content-encoding", "gzip");
    let bomb = vec![b'\n'; 64 << 20];
    for (answer, limit, expected) in [
        (Answer::text(plain.clone()), 101, None),
        (Answer::text(plain.clone()), 100, Some("body size limit exceeded")),
        (zipped(plain.as_bytes()), 101, None),
        (zipped(plain.as_bytes()), 100, Some("body size limit exceeded")),
        (zipped(b"tiny"), 5, None),
        (zipped(&bomb), 0, Some("body size limit exceeded")),
        (Answer::text(bomb.clone()), 0, Some("body size limit exceeded")),
        (
            Answer::text("this is not gzip at all").header("content-encoding", "gzip"),
            0,
            Some("gzip: invalid gzip header"),
        ),
    ] {
        target.answer(answer);
        let got = text_of(&limited(limit), &target.url("/")).await;
        assert_eq!(got.err().map(|e| e.to_string()).as_deref(), expected, "limit {limit}");
    }
}

#[tokio::test]
async fn bodies_together_stay_within_their_budget() {
    let target = FakeTarget::start(Answer::text("x".repeat(300 << 10))).await;
    let shared = Shared { budget: BodyBudget::new(512 << 10), ..shared() };
    let client = Client::new(&job(HttpSettings::default()), shared);
    let held = client.fetch(&target.url("/"), TIMEOUT, 0).await.unwrap();
    let error = client.fetch(&target.url("/"), TIMEOUT, 0).await.unwrap_err();
    assert_eq!(error, Error::BodyBudget(512 << 10));
    drop(held);
    assert!(client.fetch(&target.url("/"), TIMEOUT, 300 << 10).await.is_ok());
}
