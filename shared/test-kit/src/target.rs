//! A scrape target that answers what it is told to.
//!
//! It listens on a free port of the loopback interface. Answers are queued; the last one is repeated. Requests are
//! kept with their headers and bodies, and a test waits for their number instead of sleeping.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// How much of a request's body is kept, in bytes.
const BODY_BYTES_MAX: usize = 1 << 20;

/// One answer of a target.
#[derive(Debug, Clone)]
pub struct Answer {
    status: StatusCode,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Bytes,
    delay: Duration,
}

impl Answer {
    /// Answers 200 with a body of a content type.
    pub fn ok(content_type: &str, body: impl Into<Bytes>) -> Self {
        let answer =
            Self { status: StatusCode::OK, headers: Vec::new(), body: body.into(), delay: Duration::ZERO };
        if content_type.is_empty() { answer } else { answer.header("content-type", content_type) }
    }

    /// Answers 200 with Prometheus text.
    pub fn text(body: impl Into<Bytes>) -> Self {
        Self::ok("text/plain; version=0.0.4; charset=utf-8", body)
    }

    /// Answers with a status and no body.
    #[must_use]
    pub fn status(code: u16) -> Self {
        let status = StatusCode::from_u16(code).expect("a status code");
        Self { status, ..Self::ok("", "") }
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let name = HeaderName::try_from(name).expect("a header name");
        self.headers.push((name, HeaderValue::try_from(value).expect("a header value")));
        self
    }

    /// Waits before it answers.
    #[must_use]
    pub fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }
}

/// A request that a target has seen.
#[derive(Debug, Clone)]
pub struct Seen {
    /// The method.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, where it is not larger than a mebibyte.
    pub body: Bytes,
}

impl Seen {
    /// Returns a header, or the empty string.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("")
    }
}

struct Shared {
    answers: Mutex<VecDeque<Answer>>,
    seen: Mutex<Vec<Seen>>,
    count: watch::Sender<usize>,
}

/// A target that runs until it is dropped.
pub struct FakeTarget {
    address: SocketAddr,
    scheme: &'static str,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

impl std::fmt::Debug for FakeTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FakeTarget").field("address", &self.address).finish_non_exhaustive()
    }
}

impl FakeTarget {
    /// Starts a target that speaks HTTP.
    pub async fn start(first: Answer) -> Self {
        Self::start_with(first, None).await
    }

    /// Starts a target that speaks HTTPS.
    pub async fn start_tls(first: Answer, config: rustls::ServerConfig) -> Self {
        Self::start_with(first, Some(TlsAcceptor::from(Arc::new(config)))).await
    }

    async fn start_with(first: Answer, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let scheme = if tls.is_some() { "https" } else { "http" };
        let shared = Arc::new(Shared {
            answers: Mutex::new(VecDeque::from([first])),
            seen: Mutex::default(),
            count: watch::Sender::new(0),
        });
        let accepting = spawn(accept(listener, tls, shared.clone()));
        Self { address, scheme, shared, accepting }
    }

    /// Host and port.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL of a path on this target.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("{}://{}{path}", self.scheme, self.address)
    }

    /// Answers with this from now on.
    pub fn answer(&self, answer: Answer) {
        *self.shared.answers.lock() = VecDeque::from([answer]);
    }

    /// Answers with this once those queued before have been given.
    pub fn then(&self, answer: Answer) {
        self.shared.answers.lock().push_back(answer);
    }

    /// The requests so far.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().clone()
    }

    /// Waits until there were this many requests in all.
    pub async fn wait_for(&self, requests: usize) {
        let mut count = self.shared.count.subscribe();
        count.wait_for(|n| *n >= requests).await.expect("self holds the sender");
    }
}

impl Drop for FakeTarget {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

#[expect(clippy::disallowed_methods, reason = "a test's own server stands outside of the service's tasks")]
fn spawn(task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    tokio::spawn(task)
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (tls, shared) = (tls.clone(), shared.clone());
        // A client that goes away or does not trust us is what some tests are about.
        drop(spawn(async move { drop(serve(stream, tls, shared).await) }));
    }
}

async fn serve(
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    shared: Arc<Shared>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let service = service_fn(move |request| respond(request, shared.clone()));
    let server = auto::Builder::new(TokioExecutor::new());
    match tls {
        Some(tls) => server.serve_connection(TokioIo::new(tls.accept(stream).await?), service).await,
        None => server.serve_connection(TokioIo::new(stream), service).await,
    }
}

async fn respond(
    request: Request<Incoming>,
    shared: Arc<Shared>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path_and_query().map_or("", |p| p.as_str()).to_owned();
    let (method, headers) = (request.method().to_string(), request.headers().clone());
    let body = Limited::new(request.into_body(), BODY_BYTES_MAX).collect().await;
    let body = body.map(|body| body.to_bytes()).unwrap_or_default();
    shared.seen.lock().push(Seen { method, path, headers, body });
    let answer = {
        let mut answers = shared.answers.lock();
        let next = if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() };
        next.expect("there is always a last answer")
    };
    shared.count.send_modify(|count| *count += 1);
    tokio::time::sleep(answer.delay).await;
    let mut response = Response::new(Full::new(answer.body));
    *response.status_mut() = answer.status;
    response.headers_mut().extend(answer.headers);
    Ok(response)
}
