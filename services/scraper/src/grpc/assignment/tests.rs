use http::HeaderName;
use http_client::{Credentials, Secret, Version};

use super::*;

fn message() -> pb::ScrapeJob {
    pb::ScrapeJob {
        name: "j".into(),
        escaping_scheme: "allow-utf-8".into(),
        http: Some(pb::HttpClient { follow_redirects: true, enable_http2: true, ..Default::default() }),
        ..Default::default()
    }
}

fn with_tls(tls: pb::Tls) -> pb::ScrapeJob {
    pb::ScrapeJob { http: Some(pb::HttpClient { tls: Some(tls), ..Default::default() }), ..message() }
}

#[test]
fn what_is_not_built_is_refused_or_named() {
    let tls = |min: &str, max: &str| {
        with_tls(pb::Tls { min_version: min.into(), max_version: max.into(), ..Default::default() })
    };
    for (job_message, refusal, ignored) in [
        (message(), None, vec![]),
        (
            pb::ScrapeJob {
                http: Some(pb::HttpClient { proxy_url: "http://p".into(), ..Default::default() }),
                ..message()
            },
            Some("proxy_url: scraping through a proxy is not built yet"),
            vec![],
        ),
        (
            pb::ScrapeJob {
                metric_relabel: vec![pb::RelabelRule { action: "shred".into(), ..Default::default() }],
                ..message()
            },
            Some("metric_relabel_configs: unknown relabel action \"shred\""),
            vec![],
        ),
        (tls("TLS10", ""), None, vec!["tls_config: min_version below TLS12"]),
        (
            tls("", "TLS11"),
            Some("tls_config: no version from \"\" to \"TLS11\" is built; TLS12 and TLS13 are"),
            vec![],
        ),
        (
            with_tls(pb::Tls { cert: "c".into(), ..Default::default() }),
            Some("tls_config: a certificate needs its key, and a key its certificate"),
            vec![],
        ),
    ] {
        let job = job(job_message);
        assert_eq!((job.refusal.as_deref(), job.ignored), (refusal, ignored));
    }
}

#[test]
fn histograms_are_scraped_as_the_job_says() {
    let of = |message: pb::ScrapeJob| {
        let job = job(message);
        assert_eq!((job.refusal, job.ignored), (None, vec![]));
        (job.protocols, job.rules.histograms)
    };
    let (protocols, histograms) = of(message());
    assert_eq!(protocols, ScrapeProtocol::DEFAULT);
    assert_eq!(histograms, HistogramRules::default());
    let (protocols, histograms) = of(pb::ScrapeJob {
        scrape_native_histograms: true,
        convert_classic_histograms_to_nhcb: true,
        always_scrape_classic_histograms: true,
        native_histogram_bucket_limit: 100,
        ..message()
    });
    assert_eq!(protocols, ScrapeProtocol::DEFAULT_WITH_PROTO);
    let all = (histograms.scrapes_native, histograms.converts_classic, histograms.keeps_classic);
    assert_eq!((all, histograms.bucket_limit), ((true, true, true), 100));
    let only = vec!["PrometheusProto".to_owned()];
    let (protocols, _) = of(pb::ScrapeJob { scrape_protocols: only, ..message() });
    assert_eq!(protocols, [ScrapeProtocol::PrometheusProto]);
    // The finest schema n with 2^(2^-n) >= factor.
    for (factor, schema) in
        [(0.0, 8), (1.0, 8), (1.002, 8), (1.003, 7), (1.1, 2), (2.0, 0), (2.1, -1), (65_536.0, -4), (1e9, -4)]
    {
        let (_, histograms) = of(pb::ScrapeJob { native_histogram_min_bucket_factor: factor, ..message() });
        assert_eq!(histograms.schema_max, schema, "{factor}");
    }
}

#[test]
fn settings_arrive_as_they_were_sent() {
    let authorization =
        pb::Authorization { r#type: String::new(), credentials: "t".into(), credentials_file: String::new() };
    let header =
        pb::Header { name: "X-A".into(), values: vec!["1".into(), "2".into()], ..Default::default() };
    let http = pb::HttpClient {
        authorization: Some(authorization),
        headers: vec![header],
        tls: Some(pb::Tls { min_version: "TLS13".into(), ca_file: "/ca".into(), ..Default::default() }),
        follow_redirects: true,
        ..Default::default()
    };
    let job = job(pb::ScrapeJob {
        http: Some(http),
        fallback_scrape_protocol: "OpenMetricsText1.0.0".into(),
        ..message()
    });
    let text = |t: &str| Secret::Text(t.to_owned());
    let scheme = Credentials::Scheme { scheme: "Bearer".into(), credentials: text("t") };
    assert_eq!(job.http.credentials, scheme);
    let name = HeaderName::from_static("x-a");
    assert_eq!(job.http.headers, [(name.clone(), text("1")), (name, text("2"))]);
    assert_eq!(job.http.tls.ca, Some(Secret::File("/ca".into())));
    assert_eq!(job.http.tls.only_version, Some(Version::Tls13));
    assert_eq!(job.fallback, Some(ScrapeProtocol::OpenMetricsText1_0_0));
    assert!(job.http.follow_redirects && !job.http.enable_http2);
}

#[test]
fn a_delta_is_whole_with_its_last_part() {
    let target = |id: &str| pb::Target { id: id.into(), scrape_interval_ms: 1, ..Default::default() };
    let mut parts = Parts::default();
    let first = pb::WatchTargetsResponse {
        revision: 7,
        is_snapshot: true,
        is_partial: true,
        jobs: vec![message()],
        targets: vec![target("a")],
        ..Default::default()
    };
    assert_eq!(parts.add(first), Ok(None));
    let removed = |id: &str, reason: pb::removed_target::Reason| pb::RemovedTarget {
        id: id.into(),
        reason: reason.into(),
        epoch: 3,
    };
    let last = pb::WatchTargetsResponse {
        revision: 7,
        targets: vec![target("b")],
        removed: vec![
            removed("c", pb::removed_target::Reason::Gone),
            removed("d", pb::removed_target::Reason::Unspecified),
        ],
        ..Default::default()
    };
    let update = parts.add(last).unwrap().unwrap();
    assert_eq!((update.revision, update.is_snapshot, update.jobs.len()), (7, true, 1));
    assert_eq!(update.targets.iter().map(|t| t.id.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(update.removed, [("c".into(), Removal::Gone, 3), ("d".into(), Removal::Moved, 3)]);
    let empty = parts.add(pb::WatchTargetsResponse::default()).unwrap().unwrap();
    assert_eq!(empty, Update::default(), "nothing is left over");
    let broken = pb::WatchTargetsResponse { targets: vec![pb::Target::default()], ..Default::default() };
    assert!(parts.add(broken).is_err(), "an interval of 0");

    let mut parts = Parts::with_limit(1);
    let one =
        || pb::WatchTargetsResponse { is_partial: true, targets: vec![target("a")], ..Default::default() };
    assert_eq!(parts.add(one()), Ok(None));
    assert!(parts.add(one()).unwrap_err().to_string().ends_with("more than 1 in one delta"));
}
