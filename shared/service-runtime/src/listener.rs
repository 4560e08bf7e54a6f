//! Listeners: bound before anything is built, served once everything is mounted, closed last.
//!
//! One port speaks HTTP/1.1 and HTTP/2 (gRPC) alike, in TLS and behind passwords where a [`WebConfig`] says so.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::{ServiceExt as _, service_fn};
use tracing::{debug, warn};

use crate::{Error, Result, WebConfig};

/// How long a client may take over the head of a request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a client may take to agree on TLS.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How often an HTTP/2 connection is probed, and how long the answer may take.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// How many requests one HTTP/2 connection may have open.
const STREAMS_MAX: u32 = 1024;
/// What one stream may have on the way, in bytes.
pub(crate) const STREAM_WINDOW_BYTES: u32 = 512 << 10;
/// What the answers of one connection to a member may: as much as all its streams, so that those that are not read hold
/// back no other.
pub(crate) const ANSWERS_WINDOW_BYTES: u32 = STREAMS_MAX * STREAM_WINDOW_BYTES;
/// What the requests of one connection may, whoever sends them.
const REQUESTS_WINDOW_BYTES: u32 = 32 * STREAM_WINDOW_BYTES;
/// How long connections have to end once their listener is closed: the services behind them have stopped already,
/// so what is left is streams that nobody will end (health watches).
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long to wait when the system refuses a connection (mostly for lack of file descriptors).
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// A bound socket that does not answer yet.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    socket: TcpListener,
    web: Option<WebConfig>,
}

impl Listener {
    pub(crate) async fn bind(name: &'static str, wanted: SocketAddr, web: Option<WebConfig>) -> Result<Self> {
        let refused = |cause| Error::Bind { listener: name, address: wanted, cause };
        let socket = TcpListener::bind(wanted).await.map_err(refused)?;
        let address = socket.local_addr().map_err(refused)?;
        Ok(Self { name, address, socket, web })
    }

    /// Answers until `close`, then lets connections end what they are at, for a moment.
    pub(crate) async fn serve(self, router: Router, connections_max: usize, close: CancellationToken) {
        let places = Arc::new(Semaphore::new(connections_max));
        let (graceful, connections) = (GracefulShutdown::new(), TaskTracker::new());
        loop {
            let place = places.clone().acquire_owned();
            let accepted = async { (place.await, self.socket.accept().await) };
            let (place, (stream, peer)) = tokio::select! {
                (place, accepted) = accepted => match accepted {
                    Ok(accepted) => (place, accepted),
                    Err(error) => {
                        warn!(listener = self.name, %error, "connection was not accepted");
                        tokio::time::sleep(ACCEPT_BACKOFF).await;
                        continue;
                    }
                },
                () = close.cancelled() => break,
            };
            let connection = connection(stream, peer, router.clone(), self.web.clone(), &graceful);
            connections.spawn(async move {
                let _place = place;
                connection.await;
            });
        }
        drop(self.socket);
        connections.close();
        if tokio::time::timeout(CLOSE_TIMEOUT, graceful.shutdown()).await.is_err() {
            let open = connections.len();
            warn!(listener = self.name, open, "connections are cut that did not end");
        }
    }
}

/// One connection, from its first byte to its last. Its future is owned by the task it runs in.
fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    web: Option<WebConfig>,
    graceful: &GracefulShutdown,
) -> impl Future<Output = ()> + Send + 'static {
    let watcher = graceful.watcher();
    async move {
        if let Err(error) = stream.set_nodelay(true) {
            debug!(%peer, %error, "connection keeps Nagle's delay");
        }
        let stream = match &web {
            None => Ok(Box::new(stream) as Box<dyn Stream>),
            Some(web) => greet(stream, web).await,
        };
        let stream = match stream {
            Ok(stream) => stream,
            Err(error) => return debug!(%peer, %error, "TLS handshake failed"),
        };
        let service = service_fn(move |mut request: http::Request<hyper::body::Incoming>| {
            request.extensions_mut().insert(ConnectInfo(peer));
            let (router, web) = (router.clone(), web.clone());
            async move {
                let answer = |request| router.oneshot(request);
                match web {
                    None => answer(request).await,
                    Some(web) => web.guard(request, answer).await,
                }
            }
        });
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(REQUESTS_WINDOW_BYTES)
            .max_concurrent_streams(STREAMS_MAX);
        let service = TowerToHyperService::new(service);
        let served = builder.serve_connection(TokioIo::new(stream), service).into_owned();
        if let Err(error) = watcher.watch(served).await {
            debug!(%peer, %error, "connection broke");
        }
    }
}

/// What bytes go through.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Agrees on TLS, where there is to be any.
async fn greet(stream: TcpStream, web: &WebConfig) -> std::result::Result<Box<dyn Stream>, String> {
    let Some(config) = web.tls().await? else { return Ok(Box::new(stream)) };
    let accepted = TlsAcceptor::from(config).accept(stream);
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, accepted).await {
        Ok(Ok(stream)) => Ok(Box::new(stream)),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("not done within {} s", HANDSHAKE_TIMEOUT.as_secs())),
    }
}
