use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::listener::Listener;

/// A certificate for `localhost`, which signs itself.
struct Identity(rcgen::CertifiedKey<rcgen::KeyPair>);

impl Identity {
    fn new() -> Self {
        Self(rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("made"))
    }

    fn write(&self, folder: &Path, name: &str) {
        std::fs::write(folder.join(format!("{name}.crt")), self.0.cert.pem()).expect("written");
        std::fs::write(folder.join(format!("{name}.key")), self.0.signing_key.serialize_pem())
            .expect("written");
    }

    fn certificate(&self) -> CertificateDer<'static> {
        self.0.cert.der().clone()
    }
}

/// A listener behind a file that may change.
struct Served {
    folder: TempDir,
    address: SocketAddr,
    close: CancellationToken,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.close.cancel();
    }
}

fn config(folder: &Path, yaml: &str) -> Result<WebConfig, String> {
    std::fs::write(folder.join("web.yml"), yaml).expect("written");
    WebConfig::load(&folder.join("web.yml"))
}

fn fault(yaml: &str) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    Identity::new().write(folder.path(), "server");
    config(folder.path(), yaml).map(drop).expect_err("refused")
}

impl Served {
    async fn start(folder: TempDir, yaml: &str) -> Self {
        let web = config(folder.path(), yaml).expect("good");
        let any = "127.0.0.1:0".parse().expect("an address");
        let listener = Listener::bind("web", any, Some(web)).await.expect("bound");
        let (address, close) = (listener.address, CancellationToken::new());
        let router = Router::new().route("/", get(async || ([("x-frame-options", "own")], "hello")));
        #[expect(clippy::disallowed_methods, reason = "a test")]
        tokio::spawn(listener.serve(router, 16, close.clone()));
        Self { folder, address, close }
    }

    /// Asks over a stream; returns the answer's text.
    async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin, more: &str) -> std::io::Result<String> {
        let request = format!("GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{more}\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer.to_ascii_lowercase())
    }

    async fn plainly(&self, more: &str) -> String {
        Self::ask(TcpStream::connect(self.address).await.expect("connected"), more).await.expect("answered")
    }

    /// Asks in TLS, trusting one certificate and showing another.
    async fn in_tls(&self, trusted: &Identity, own: Option<&Identity>) -> std::io::Result<String> {
        let mut roots = RootCertStore::empty();
        roots.add(trusted.certificate()).expect("added");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.expect("versions").with_root_certificates(roots);
        let config = match own {
            None => builder.with_no_client_auth(),
            Some(own) => {
                let key = PrivateKeyDer::try_from(own.0.signing_key.serialize_der()).expect("a key");
                builder.with_client_auth_cert(vec![own.certificate()], key).expect("an identity")
            }
        };
        let name = ServerName::try_from("localhost").expect("a name");
        let stream = TcpStream::connect(self.address).await?;
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        Self::ask(stream, "").await
    }
}

fn basic(user: &str, password: &str) -> String {
    format!("Authorization: Basic {}\r\n", STANDARD.encode(format!("{user}:{password}")))
}

fn hash(password: &str) -> String {
    bcrypt::hash(password, 4).expect("hashed")
}

#[tokio::test]
async fn users_come_in_by_their_passwords() {
    let folder = tempfile::tempdir().expect("a folder");
    let yaml = format!(
        "http_server_config:\n  headers:\n    X-Frame-Options: deny\n    X-XSS-Protection: '0'\nbasic_auth_users:\n  alice: {}\n",
        hash("secret")
    );
    let served = Served::start(folder, &yaml).await;
    let refused = served.plainly("").await;
    assert!(refused.starts_with("http/1.1 401 "), "{refused}");
    assert!(refused.contains("www-authenticate: basic\r\n") && refused.contains("x-xss-protection: 0\r\n"));
    assert!(refused.ends_with("\r\n\r\nunauthorized\n"), "{refused}");
    // Twice, since the second time is remembered.
    for _ in 0..2 {
        let answer = served.plainly(&basic("alice", "secret")).await;
        assert!(answer.starts_with("http/1.1 200 ") && answer.ends_with("hello"), "{answer}");
        assert!(answer.contains("x-frame-options: own\r\n"), "the answer's own header stays: {answer}");
        for wrong in
            [basic("alice", "secre"), basic("bob", "secret"), "Authorization: Bearer x\r\n".to_owned()]
        {
            let answer = served.plainly(&wrong).await;
            assert!(answer.starts_with("http/1.1 401 "), "{answer}");
        }
    }
    // Another password from now on, without being told; and a file that is wrong lets nobody in.
    let file = served.folder.path().join("web.yml");
    std::fs::write(&file, format!("basic_auth_users:\n  alice: {}\n", hash("changed"))).expect("written");
    assert!(served.plainly(&basic("alice", "secret")).await.starts_with("http/1.1 401 "));
    assert!(served.plainly(&basic("alice", "changed")).await.starts_with("http/1.1 200 "));
    std::fs::write(&file, "basic_auth_users: [\n").expect("written");
    assert!(served.plainly(&basic("alice", "changed")).await.starts_with("http/1.1 500 "));
}

#[tokio::test]
async fn certificates_are_those_of_the_moment() {
    let folder = tempfile::tempdir().expect("a folder");
    let (first, second) = (Identity::new(), Identity::new());
    first.write(folder.path(), "server");
    let yaml = "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n";
    let served = Served::start(folder, yaml).await;
    assert!(served.in_tls(&first, None).await.expect("answered").ends_with("hello"));
    second.write(served.folder.path(), "server");
    assert!(served.in_tls(&second, None).await.expect("answered").ends_with("hello"));
    assert!(served.in_tls(&first, None).await.is_err(), "it shows the second one");
    // Whoever does not speak TLS gets nothing.
    let plain = TcpStream::connect(served.address).await.expect("connected");
    let answer =
        tokio::time::timeout(Duration::from_secs(30), Served::ask(plain, "")).await.expect("in time");
    assert!(!answer.unwrap_or_default().contains("hello"));
}

#[tokio::test]
async fn clients_show_certificates_where_they_have_to() {
    let (server, client, stranger) = (Identity::new(), Identity::new(), Identity::new());
    for (kind, authority, allowed) in [
        ("RequestClientCert", "", [true, true, true]),
        ("RequireAnyClientCert", "", [false, true, true]),
        ("VerifyClientCertIfGiven", "client_ca_file: client.crt", [true, true, false]),
        ("RequireAndVerifyClientCert", "client_ca_file: client.crt", [false, true, false]),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        server.write(folder.path(), "server");
        client.write(folder.path(), "client");
        let yaml = format!(
            "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n  client_auth_type: {kind}\n  {authority}\n"
        );
        let served = Served::start(folder, &yaml).await;
        for (own, is_allowed) in [None, Some(&client), Some(&stranger)].into_iter().zip(allowed) {
            let answer = served.in_tls(&server, own).await.unwrap_or_default();
            assert_eq!(answer.ends_with("hello"), is_allowed, "{kind}: {answer}");
        }
    }
}

#[test]
fn faults_are_told() {
    let tls =
        |more: &str| format!("tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n{more}");
    for (yaml, expected) in [
        ("nonsense: 1\n".to_owned(), "nonsense"),
        ("basic_auth_users:\n  alice: secret\n".to_owned(), "basic_auth_users: alice: no bcrypt hash"),
        (
            "http_server_config:\n  headers:\n    Server: x\n".to_owned(),
            "HTTP header \"Server\" can not be configured",
        ),
        ("tls_server_config:\n  cert_file: server.crt\n".to_owned(), "missing one of key or key_file"),
        ("tls_server_config:\n  key_file: server.key\n".to_owned(), "missing one of cert or cert_file"),
        (
            "tls_server_config:\n  cert_file: no.crt\n  key_file: server.key\n".to_owned(),
            "no.crt: No such file",
        ),
        (
            "tls_server_config:\n  cert_file: server.key\n  key_file: server.key\n".to_owned(),
            "no certificate",
        ),
        (tls("  cert: x\n"), "at most one of cert and cert_file may be set"),
        (
            tls("  client_ca_file: server.crt\n"),
            "client CA's have been configured without a Client Auth Policy",
        ),
        (tls("  client_auth_type: Maybe\n"), "Invalid ClientAuth: Maybe"),
        (
            tls("  min_version: TLS13\n  max_version: TLS12\n"),
            "no version from \"TLS13\" to \"TLS12\" is built",
        ),
        (tls("  cipher_suites: [TLS_NONE]\n"), "unknown cipher: TLS_NONE"),
        (tls("  curve_preferences: [CurveX]\n"), "unknown curve: CurveX"),
        (tls("  client_allowed_sans: [x]\n"), "client_allowed_sans is not built yet"),
    ] {
        let fault = fault(&yaml);
        assert!(fault.contains(expected), "{yaml}: {fault}");
    }
    let folder = tempfile::tempdir().expect("a folder");
    Identity::new().write(folder.path(), "server");
    for yaml in [
        String::new(),
        "# nothing\n".to_owned(),
        tls(
            "  min_version: TLS12\n  cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256]\n  curve_preferences: [X25519, CurveP256]\n",
        ),
    ] {
        assert!(config(folder.path(), &yaml).is_ok(), "{yaml}");
    }
}
