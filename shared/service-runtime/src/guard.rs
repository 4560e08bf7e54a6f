//! What every request passes, the same for every method: deadline, size caps, concurrency cap, trace span, metrics,
//! and a net for panics.
//!
//! One middleware instead of a stack of layers, so that the order can be read off one function and a refusal looks
//! right in both protocols.
//!
//! Invariants:
//! - each request is counted once, when the body of its answer has ended or been dropped;
//! - a request holds its place in the concurrency cap, and in the drain of its service, for as long;
//! - metric labels are bounded: routes, and names of gRPC methods that exist.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures::FutureExt as _;
use http::{HeaderMap, StatusCode, header};
use http_body::{Frame, SizeHint};
use http_body_util::Limited;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tonic::{Code, Status};
use tracing::{Instrument as _, debug, error, info_span};

use crate::BoxError;
use crate::metrics::RequestMetrics;
use crate::tasks::panic_message;

/// What a gRPC route is called in a router.
const GRPC_ROUTE: &str = "/{*method}";
/// The label of what has no route, and of gRPC methods that do not exist.
const OTHER: &str = "other";
/// The HTTP status that stands for a client that went away, in Prometheus as in nginx.
const CLIENT_CLOSED: u16 = 499;

/// How much a request may ask of the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How long an answer may take to begin; gRPC callers may ask for less.
    pub request_timeout: Duration,
    /// The largest HTTP request body, as it arrives (compressed or not).
    pub http_body_bytes_max: usize,
    /// The largest gRPC message in a request, as it arrives.
    pub grpc_message_bytes_max: usize,
    /// How many requests one service works on at once; more are refused.
    pub requests_max: usize,
    /// How many connections one listener holds; more wait.
    pub connections_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            request_timeout: Duration::from_secs(300),
            http_body_bytes_max: 64 * 1024 * 1024,
            grpc_message_bytes_max: 32 * 1024 * 1024,
            requests_max: 4096,
            connections_max: 512,
        }
    }
}

/// Guards the routes of one service.
#[derive(Debug, Clone)]
pub(crate) struct Guard {
    limits: Limits,
    permits: Arc<Semaphore>,
    metrics: RequestMetrics,
    in_flight: TaskTracker,
    is_stopping: Arc<AtomicBool>,
}

impl Guard {
    pub(crate) fn new(limits: Limits, metrics: RequestMetrics) -> Self {
        Self {
            limits,
            permits: Arc::new(Semaphore::new(limits.requests_max)),
            metrics,
            in_flight: TaskTracker::new(),
            is_stopping: Arc::default(),
        }
    }

    /// Puts the guard around all routes.
    pub(crate) fn around(&self, router: Router) -> Router {
        // Axum's own cap of 2 MiB gives way to ours.
        router.layer(DefaultBodyLimit::disable()).layer(middleware::from_fn_with_state(self.clone(), guard))
    }

    /// How many requests are waited for in [`Guard::drained`].
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Resolves when all requests that began before this call have ended. Later ones are answered and not waited
    /// for: a service goes on answering reads while it flushes.
    pub(crate) async fn drained(&self) {
        self.is_stopping.store(true, Ordering::Release);
        self.in_flight.close();
        self.in_flight.wait().await;
    }

    fn enter(&self) -> Option<TaskTrackerToken> {
        let token = self.in_flight.token();
        (!self.is_stopping.load(Ordering::Acquire)).then_some(token)
    }
}

async fn guard(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let call = Call::of(&request);
    let mut observation = Observation::new(&guard, call.clone());
    let token = guard.enter();
    let Ok(permit) = guard.permits.clone().try_acquire_owned() else {
        let text = format!("too many requests: {} are in flight", guard.limits.requests_max);
        return observation.refused(Status::resource_exhausted(text), StatusCode::SERVICE_UNAVAILABLE);
    };
    let is_too_large = content_length(request.headers()) > Some(guard.limits.http_body_bytes_max as u64);
    if !call.is_grpc && is_too_large {
        let text = format!("request body is larger than {} bytes", guard.limits.http_body_bytes_max);
        return observation.refused(Status::resource_exhausted(text), StatusCode::PAYLOAD_TOO_LARGE);
    }
    let timeout = asked_timeout(request.headers()).unwrap_or(Duration::MAX).min(guard.limits.request_timeout);
    let span = info_span!("request", handler = %call.handler, method = %call.method);
    telemetry::continue_trace(&span, request.headers());
    let request = capped(request, call.is_grpc, &guard.limits);
    let answer = AssertUnwindSafe(next.run(request)).catch_unwind().instrument(span.clone());
    match tokio::time::timeout(timeout, answer).await {
        Ok(Ok(response)) => {
            observation.answered(&response);
            response.map(|body| Body::new(Observed { body, observation, _permit: permit, _token: token }))
        }
        Ok(Err(panic)) => {
            let text = panic_message(&*panic);
            span.in_scope(|| error!(error = text, "request handler failed"));
            observation.refused(Status::internal(text), StatusCode::INTERNAL_SERVER_ERROR)
        }
        Err(_) => {
            let text = format!("no answer within {} ms", timeout.as_millis());
            observation.refused(Status::deadline_exceeded(text), StatusCode::SERVICE_UNAVAILABLE)
        }
    }
}

/// What a request asks for, in bounded words.
#[derive(Debug, Clone)]
struct Call {
    is_grpc: bool,
    /// The route, or the gRPC service.
    handler: String,
    /// The gRPC method as the caller wrote it, or the HTTP method.
    method: String,
}

impl Call {
    fn of(request: &Request) -> Self {
        let content_type = request.headers().get(header::CONTENT_TYPE);
        let is_grpc = content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
        let route = request.extensions().get::<MatchedPath>().map_or(OTHER, MatchedPath::as_str);
        match route.strip_suffix(GRPC_ROUTE) {
            Some(service) if is_grpc => {
                let service = service.trim_start_matches('/').to_owned();
                let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
                Self { is_grpc, handler: service, method }
            }
            // Prometheus writes a route's parameters as `:name`.
            _ => Self {
                is_grpc,
                handler: route.replace('{', ":").replace('}', ""),
                method: request.method().to_string(),
            },
        }
    }
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Reads `grpc-timeout`: up to eight digits and a unit, as the gRPC protocol has it.
fn asked_timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(count * 3600)),
        "M" => Some(Duration::from_secs(count * 60)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

fn capped(request: Request, is_grpc: bool, limits: &Limits) -> Request {
    let max = limits.grpc_message_bytes_max;
    match is_grpc {
        true => {
            request.map(|body| Body::new(MessageLimit { body, max, header: Vec::new(), payload_left: 0 }))
        }
        false => request.map(|body| Body::new(Limited::new(body, limits.http_body_bytes_max))),
    }
}

/// A request body that fails where a gRPC message announces more bytes than allowed, before they are read.
#[derive(Debug)]
struct MessageLimit {
    body: Body,
    max: usize,
    /// The part of the next message's prefix (a flag and four bytes of length) that has arrived.
    header: Vec<u8>,
    payload_left: usize,
}

/// The length of a gRPC message's prefix.
const PREFIX_BYTES: usize = 5;

impl MessageLimit {
    fn check(&mut self, mut chunk: &[u8]) -> Result<(), Status> {
        while !chunk.is_empty() {
            if self.payload_left > 0 {
                let taken = self.payload_left.min(chunk.len());
                self.payload_left -= taken;
                chunk = &chunk[taken..];
                continue;
            }
            let taken = (PREFIX_BYTES - self.header.len()).min(chunk.len());
            self.header.extend_from_slice(&chunk[..taken]);
            chunk = &chunk[taken..];
            if let [_, a, b, c, d] = self.header[..] {
                let bytes = u32::from_be_bytes([a, b, c, d]) as usize;
                if bytes > self.max {
                    let text = format!("message of {bytes} bytes: at most {} are allowed", self.max);
                    return Err(Status::resource_exhausted(text));
                }
                self.payload_left = bytes;
                self.header.clear();
            }
        }
        Ok(())
    }
}

impl http_body::Body for MessageLimit {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(context)) else {
            return Poll::Ready(None);
        };
        let frame = frame?;
        if let Some(data) = frame.data_ref() {
            self.check(data)?;
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Counts a request when it is dropped.
#[derive(Debug)]
struct Observation {
    metrics: RequestMetrics,
    call: Call,
    started: Instant,
    http_code: u16,
    grpc_code: Option<Code>,
    is_refused: bool,
}

impl Observation {
    fn new(guard: &Guard, call: Call) -> Self {
        Self {
            metrics: guard.metrics.clone(),
            call,
            started: Instant::now(),
            http_code: CLIENT_CLOSED,
            grpc_code: None,
            is_refused: false,
        }
    }

    fn answered(&mut self, response: &Response) {
        self.http_code = response.status().as_u16();
        self.trailers(response.headers());
    }

    fn trailers(&mut self, trailers: &HeaderMap) {
        if let Some(status) = trailers.get("grpc-status") {
            self.grpc_code = Some(Code::from_bytes(status.as_bytes()));
        }
    }

    fn refused(mut self, status: Status, code: StatusCode) -> Response {
        self.is_refused = true;
        self.http_code = code.as_u16();
        self.grpc_code = Some(status.code());
        if self.call.is_grpc {
            status.into_http::<Body>()
        } else {
            (code, format!("{}\n", status.message())).into_response()
        }
    }
}

impl Drop for Observation {
    fn drop(&mut self) {
        let took = self.started.elapsed();
        let Call { is_grpc, handler, method } = &self.call;
        if *is_grpc {
            let code = self.grpc_code.unwrap_or(Code::Cancelled);
            // Only a handler that exists answers with anything else.
            let is_known = !self.is_refused && code != Code::Unimplemented && self.grpc_code.is_some();
            self.metrics.grpc(handler, if is_known { method } else { OTHER }, code_name(code), took);
            debug!(handler, method, code = code_name(code), took_ms = took.as_millis() as u64, "call ended");
        } else {
            self.metrics.http(handler, self.http_code, took);
            debug!(
                handler,
                method,
                code = self.http_code,
                took_ms = took.as_millis() as u64,
                "request ended"
            );
        }
    }
}

/// The name of a gRPC status as it stands in metrics.
const fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "Canceled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    }
}

/// The body of an answer; what it carries ends with it.
#[derive(Debug)]
struct Observed {
    body: Body,
    observation: Observation,
    _permit: OwnedSemaphorePermit,
    _token: Option<TaskTrackerToken>,
}

impl http_body::Body for Observed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if let Some(Ok(frame)) = &frame
            && let Some(trailers) = frame.trailers_ref()
        {
            self.observation.trailers(trailers);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_as_the_grpc_protocol_has_them() {
        for (text, expected) in [
            ("1H", Some(Duration::from_secs(3600))),
            ("2M", Some(Duration::from_secs(120))),
            ("3S", Some(Duration::from_secs(3))),
            ("99999999m", Some(Duration::from_millis(99_999_999))),
            ("5u", Some(Duration::from_micros(5))),
            ("6n", Some(Duration::from_nanos(6))),
            ("100000000m", None),
            ("S", None),
            ("", None),
            ("-1S", None),
            ("1.5S", None),
            ("1x", None),
        ] {
            let headers =
                HeaderMap::from_iter([("grpc-timeout".parse().expect("name"), text.parse().expect("value"))]);
            assert_eq!(asked_timeout(&headers), expected, "{text:?}");
        }
        assert_eq!(asked_timeout(&HeaderMap::new()), None);
    }

    #[test]
    fn messages_are_measured_wherever_the_stream_is_cut() {
        let message = |bytes: usize| {
            let mut wire = vec![0];
            wire.extend_from_slice(&u32::try_from(bytes).expect("small").to_be_bytes());
            wire.resize(PREFIX_BYTES + bytes, 7);
            wire
        };
        let good: Vec<u8> = [0, 1, 10, 3, 10].into_iter().flat_map(message).collect();
        let bad: Vec<u8> = [10, 11].into_iter().flat_map(message).collect();
        for cut in 1..=good.len() {
            let new = || MessageLimit { body: Body::empty(), max: 10, header: Vec::new(), payload_left: 0 };
            let mut limit = new();
            assert!(good.chunks(cut).all(|chunk| limit.check(chunk).is_ok()), "{cut}");
            let mut limit = new();
            let refused = bad.chunks(cut).find_map(|chunk| limit.check(chunk).err()).expect("refused");
            assert_eq!(refused.code(), Code::ResourceExhausted);
            assert_eq!(refused.message(), "message of 11 bytes: at most 10 are allowed");
        }
    }
}
