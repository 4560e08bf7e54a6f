//! The client against a target on a free port.

use std::io::Write as _;
use std::sync::Arc;

use exposition::{EscapingScheme, ScrapeProtocol};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use relabel::NameValidation;
use rustls::RootCertStore;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::server::WebPkiClientVerifier;
use test_kit::{Answer, FakeTarget};

use super::*;
use crate::job::{LabelLimits, SampleRules};

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
async fn credentials_are_sent_and_files_are_read_each_time() {
    let target = FakeTarget::start(Answer::text("a 1\n")).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret");
    let path = || file.to_str().unwrap().to_owned();
    std::fs::write(&file, " first\n").unwrap();
    let text = |t: &str| Secret::new(t.into(), String::new());
    let basic = |password| Credentials::Basic { username: text("me"), password };
    let scheme = |scheme: &str, credentials| Credentials::Scheme { scheme: scheme.into(), credentials };
    let from_file = client(HttpSettings {
        credentials: scheme("Bearer", Secret::new(String::new(), path())),
        ..HttpSettings::default()
    });
    let mut expected = Vec::new();
    for (credentials, value) in [
        // RFC 7617: base64 of "me:pass" and of "me:first".
        (basic(text("pass")), "Basic bWU6cGFzcw=="),
        (basic(Secret::new(String::new(), path())), "Basic bWU6Zmlyc3Q="),
        (scheme("Token", text("t")), "Token t"),
    ] {
        let client = client(HttpSettings { credentials, ..HttpSettings::default() });
        text_of(&client, &target.url("/")).await.unwrap();
        expected.push(value.to_owned());
    }
    for content in ["first", "second"] {
        std::fs::write(&file, content).unwrap();
        text_of(&from_file, &target.url("/")).await.unwrap();
        expected.push(format!("Bearer {content}"));
    }
    let got: Vec<String> = target.seen().iter().map(|s| s.header("authorization").to_owned()).collect();
    assert_eq!(got, expected);
    std::fs::remove_file(&file).unwrap();
    let error = error_of(&from_file, &target.url("/")).await;
    assert!(error.contains(": unable to read file "), "{error}");
    assert!(!format!("{:?}", basic(text("pass"))).contains("pass\""));
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
async fn redirects_are_followed_when_asked_and_secrets_stay_home() {
    let foreign = FakeTarget::start(Answer::text("far 1\n")).await;
    let target = FakeTarget::start(Answer::status(307).header("location", "/b?x=1")).await;
    target.then(Answer::text("near 1\n"));
    let credentials =
        Credentials::Scheme { scheme: "Bearer".into(), credentials: Secret::new("t".into(), String::new()) };
    let headers = vec![(HeaderName::from_static("x-key"), Secret::Text("k".into()))];
    let client =
        client(HttpSettings { follow_redirects: true, credentials, headers, ..HttpSettings::default() });
    assert_eq!(text_of(&client, &target.url("/a")).await.unwrap(), "near 1\n");
    assert_eq!(target.seen()[1].path, "/b?x=1");
    assert_eq!(target.seen()[1].header("authorization"), "Bearer t");

    target.answer(Answer::status(302).header("location", &foreign.url("/c")));
    assert_eq!(text_of(&client, &target.url("/a")).await.unwrap(), "far 1\n");
    assert_eq!((foreign.seen()[0].header("authorization"), foreign.seen()[0].header("x-key")), ("", ""));

    target.answer(Answer::status(302).header("location", "/again"));
    let error = error_of(&client, &target.url("/a")).await;
    assert!(error.ends_with(": stopped after 10 redirects"), "{error}");
    target.answer(Answer::status(302).header("location", "file:///etc/passwd"));
    let error = error_of(&client, &target.url("/a")).await;
    assert!(error.ends_with("unsupported protocol scheme \"file\""), "{error}");
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

/// An authority with certificates for a server called `target.test` and a client.
struct Authority {
    ca: String,
    server: (String, String),
    client: (String, String),
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let issue = |name: &str| {
            let key = KeyPair::generate().unwrap();
            let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
            (params.signed_by(&key, &issuer).unwrap().pem(), key.serialize_pem())
        };
        Self { ca: issuer.pem(), server: issue("target.test"), client: issue("client.test") }
    }

    fn server_config(&self, asks_for_client: bool) -> rustls::ServerConfig {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let certificate =
            |pem: &str| rustls::pki_types::CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        let builder = rustls::ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = if asks_for_client {
            let mut roots = RootCertStore::empty();
            roots.add(certificate(&self.ca)).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.unwrap())
        } else {
            builder.with_no_client_auth()
        };
        let key = PrivateKeyDer::from_pem_slice(self.server.1.as_bytes()).unwrap();
        let mut config = builder.with_single_cert(vec![certificate(&self.server.0)], key).unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config
    }
}

#[tokio::test]
async fn tls_trusts_whom_it_is_told_to() {
    let authority = Authority::new();
    let target = FakeTarget::start_tls(Answer::text("a 1\n"), authority.server_config(false)).await;
    let text = |t: &str| Secret::Text(t.to_owned());
    let (ca, name) = (Some(text(&authority.ca)), Some("target.test".to_owned()));
    for (tls, expected) in [
        (TlsSettings { ca: ca.clone(), server_name: name.clone(), ..TlsSettings::default() }, ""),
        (TlsSettings { insecure_skip_verify: true, ..TlsSettings::default() }, ""),
        (TlsSettings { server_name: name.clone(), ..TlsSettings::default() }, "UnknownIssuer"),
        (TlsSettings { ca: ca.clone(), ..TlsSettings::default() }, "not valid for name"),
        (TlsSettings { ca: Some(text("none")), ..TlsSettings::default() }, "no PEM certificate in it"),
    ] {
        for enable_http2 in [false, true] {
            let http = HttpSettings { tls: tls.clone(), enable_http2, ..HttpSettings::default() };
            match text_of(&client(http), &target.url("/")).await {
                Ok(body) => assert_eq!((body.as_str(), expected), ("a 1\n", ""), "{tls:?}"),
                Err(error) => {
                    assert!(
                        !expected.is_empty() && error.to_string().contains(expected),
                        "{error} / {expected}"
                    );
                }
            }
        }
    }
    for version in [Version::Tls12, Version::Tls13] {
        let tls = TlsSettings {
            ca: ca.clone(),
            server_name: name.clone(),
            only_version: Some(version),
            ..TlsSettings::default()
        };
        let client = client(HttpSettings { tls, ..HttpSettings::default() });
        assert_eq!(text_of(&client, &target.url("/")).await.unwrap(), "a 1\n");
    }
}

#[tokio::test]
async fn client_certificates_are_shown_and_changed_files_are_read_again() {
    let (authority, other) = (Authority::new(), Authority::new());
    let target = FakeTarget::start_tls(Answer::text("a 1\n"), authority.server_config(true)).await;
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        Secret::File(path)
    };
    let identity = |a: &Authority| (write("cert", &a.client.0), write("key", &a.client.1));
    let tls = TlsSettings {
        ca: Some(write("ca", &authority.ca)),
        identity: Some(identity(&other)),
        server_name: Some("target.test".to_owned()),
        ..TlsSettings::default()
    };
    let client = client(HttpSettings { tls, ..HttpSettings::default() });
    assert!(text_of(&client, &target.url("/")).await.is_err(), "of an authority the target does not know");
    identity(&authority);
    assert_eq!(text_of(&client, &target.url("/")).await.unwrap(), "a 1\n");
    std::fs::remove_file(folder.path().join("key")).unwrap();
    let error = error_of(&client, &target.url("/")).await;
    assert!(error.contains("unable to read file"), "{error}");
}
