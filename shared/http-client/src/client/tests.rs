//! The client against a server on a free port.

use std::sync::Arc;

use http::StatusCode;
use http_body_util::BodyExt as _;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::RootCertStore;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::server::WebPkiClientVerifier;
use test_kit::{Answer, FakeTarget};

use super::*;
use crate::tls::Version;

fn client(http: HttpSettings) -> Client {
    Client::new(http, Roots::default())
}

async fn text_of(client: &Client, url: &str) -> Result<String> {
    let response = client.get(url, &HeaderMap::new()).await?;
    assert_eq!(response.status(), StatusCode::OK);
    let body = response.into_body().collect().await.expect("body").to_bytes();
    Ok(String::from_utf8_lossy(&body).into_owned())
}

async fn error_of(client: &Client, url: &str) -> String {
    text_of(client, url).await.unwrap_err().to_string()
}

#[tokio::test]
async fn requests_carry_their_headers_and_those_of_the_settings() {
    let target = FakeTarget::start(Answer::text("a 1\n")).await;
    let header = |name: &'static str| HeaderName::from_static(name);
    let given = HeaderMap::from_iter([
        (header("accept"), HeaderValue::from_static("application/json")),
        (header("x-team"), HeaderValue::from_static("red")),
    ]);
    let headers = vec![
        (header("x-team"), Secret::Text("blue".into())),
        (header("x-team"), Secret::Text("green".into())),
    ];
    let client = client(HttpSettings { headers, ..HttpSettings::default() });
    let response = client.get(&target.url("/metrics?a=b"), &given).await.unwrap();
    assert_eq!(status_text(&response), "200 OK");
    let seen = &target.seen()[0];
    assert_eq!(seen.path, "/metrics?a=b");
    for (name, expected) in [
        ("accept", "application/json"),
        ("user-agent", "Prometheus/3.14.0"),
        ("x-team", "blue"),
        ("authorization", ""),
    ] {
        assert_eq!(seen.header(name), expected, "{name}");
    }
}

#[tokio::test]
async fn a_body_is_posted_and_goes_along_where_a_redirect_keeps_the_method() {
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
    for (status, expected) in [(308, ("POST", "[1]", "application/json")), (302, ("GET", "", ""))] {
        let target = FakeTarget::start(Answer::status(status).header("location", "/b")).await;
        target.then(Answer::status(200));
        let client = client(HttpSettings { follow_redirects: true, ..HttpSettings::default() });
        let response = client.post(&target.url("/a"), &headers, Bytes::from("[1]")).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let [first, second] = &target.seen()[..] else { panic!("two requests") };
        let all = |seen: &test_kit::Seen| {
            let body = String::from_utf8_lossy(&seen.body).into_owned();
            (seen.method.clone(), body, seen.header("content-type").to_owned())
        };
        let owned = |(a, b, c): (&str, &str, &str)| (a.to_owned(), b.to_owned(), c.to_owned());
        assert_eq!(all(first), owned(("POST", "[1]", "application/json")));
        assert_eq!(all(second), owned(expected));
    }
}

#[tokio::test]
async fn failures_say_what_they_are_of() {
    let refused = client(HttpSettings::default());
    let error = text_of(&refused, "http://127.0.0.1:1/").await.unwrap_err();
    assert_eq!(error, Error::Unanswered("dial tcp 127.0.0.1:1: connect: connection refused".to_owned()));
    assert_eq!(error.kind(), fault::Kind::Unavailable);
    let error = text_of(&refused, "http://[::1").await.unwrap_err();
    assert!(matches!(&error, Error::Url(_)), "{error:?}");
    assert_eq!(error.kind(), fault::Kind::Invalid);
    let headers = vec![(HeaderName::from_static("x-bad"), Secret::Text("a\nb".into()))];
    let error =
        text_of(&client(HttpSettings { headers, ..HttpSettings::default() }), "http://127.0.0.1:1/").await;
    assert_eq!(error, Err(Error::Settings("http_headers: x-bad is no header value".to_owned())));
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
    assert!(error.starts_with("unable to read file "), "{error}");
    assert!(!format!("{:?}", basic(text("pass"))).contains("pass\""));
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
    assert!(error.ends_with("stopped after 10 redirects"), "{error}");
    target.answer(Answer::status(302).header("location", "file:///etc/passwd"));
    let error = error_of(&client, &target.url("/a")).await;
    assert!(error.ends_with("unsupported protocol scheme \"file\""), "{error}");
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
