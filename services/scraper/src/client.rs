//! Fetches a target's body over HTTP.
//!
//! One [`Client`] per job: it keeps the job's connections and knows its credentials. Files with credentials are read
//! for every request, files of TLS are looked at for every request and read again when they have changed.
//!
//! Invariants:
//! - the timeout covers everything from the first connection to the last byte;
//! - credentials go to the target's own host only, wherever redirects lead;
//! - a body is bounded before and after decompression, and all bodies together by a [`BodyBudget`].

mod body;
mod credentials;
mod tls;

use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, LOCATION, USER_AGENT,
};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::job::Job;
pub(crate) use body::{Body, BodyBudget};
pub(crate) use credentials::{Credentials, Secret};
pub(crate) use tls::{Roots, TlsSettings, Version};

/// What Prometheus calls itself; some targets look at it.
const AGENT: HeaderValue = HeaderValue::from_static("Prometheus/3.14.0");
const TIMEOUT_HEADER: HeaderName = HeaderName::from_static("x-prometheus-scrape-timeout-seconds");
/// As many as Go's client follows.
const REDIRECTS_MAX: usize = 10;
/// How long a connection is kept that nobody uses, as in Prometheus.
const IDLE_TIMEOUT: Duration = Duration::from_secs(300);

type Inner = hyper_util::client::legacy::Client<HttpsConnector<HttpConnector>, Empty<Bytes>>;

/// How to connect to the targets of a job.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct HttpSettings {
    /// Who we are.
    pub(crate) credentials: Credentials,
    /// How TLS is done.
    pub(crate) tls: TlsSettings,
    /// Go where redirects lead.
    pub(crate) follow_redirects: bool,
    /// Offer HTTP/2 where there is TLS.
    pub(crate) enable_http2: bool,
    /// Headers of every request; they replace ours.
    pub(crate) headers: Vec<(HeaderName, Secret)>,
}

/// What the clients of all jobs share.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    /// Bounds the memory of all bodies.
    pub(crate) budget: BodyBudget,
    /// The machine's certificate authorities.
    pub(crate) roots: Roots,
    /// The largest body, in bytes, whatever a job says.
    pub(crate) body_bytes_max: usize,
}

/// Fetches bodies for one job.
#[derive(Debug)]
pub(crate) struct Client {
    settings: HttpSettings,
    shared: Shared,
    accept: HeaderValue,
    accept_encoding: HeaderValue,
    body_bytes_max: usize,
    /// The connections, and the state of the TLS files they were made with.
    inner: Mutex<Option<(tls::Fingerprint, Inner)>>,
}

/// An answer whose body has arrived.
#[derive(Debug)]
pub(crate) struct Fetched {
    /// Content-Type, or empty.
    pub(crate) content_type: String,
    /// The body as it came over the wire.
    pub(crate) body: Body,
}

impl Client {
    /// Makes a client; nothing is connected or read yet.
    pub(crate) fn new(job: &Job, shared: Shared) -> Self {
        let accept = exposition::protocol::accept_header(&job.protocols, job.escaping);
        let limit = usize::try_from(job.body_size_limit).unwrap_or(usize::MAX);
        Self {
            settings: job.http.clone(),
            accept: HeaderValue::try_from(accept).expect("made of names that are header values"),
            accept_encoding: HeaderValue::from_static(if job.is_compressed { "gzip" } else { "identity" }),
            body_bytes_max: if limit == 0 { shared.body_bytes_max } else { limit.min(shared.body_bytes_max) },
            shared,
            inner: Mutex::new(None),
        }
    }

    /// Fetches a body. `expected_bytes` is what the last one took, for which room is set aside first.
    ///
    /// # Errors
    /// Whatever keeps the body from arriving in time.
    pub(crate) async fn fetch(&self, url: &str, timeout: Duration, expected_bytes: usize) -> Result<Fetched> {
        let deadline = tokio::time::Instant::now() + timeout;
        let failed = |cause: String| Error::Request { url: url.to_owned(), cause };
        let request = tokio::time::timeout_at(deadline, self.request(url, timeout));
        let response = request.await.map_err(|_| failed(Error::Timeout.to_string()))?.map_err(failed)?;
        if response.status() != StatusCode::OK {
            return Err(Error::Status(status_text(&response)));
        }
        let (parts, incoming) = response.into_parts();
        let is_gzip = parts.headers.get(CONTENT_ENCODING).is_some_and(|v| v == "gzip");
        let content_type = parts.headers.get(CONTENT_TYPE).map(|v| String::from_utf8_lossy(v.as_bytes()));
        let content_type = content_type.unwrap_or_default().into_owned();
        let body = Body::receive(incoming, is_gzip, self.body_bytes_max, &self.shared.budget, expected_bytes);
        let body = tokio::time::timeout_at(deadline, body).await.map_err(|_| Error::Timeout)??;
        Ok(Fetched { content_type, body })
    }

    /// Asks for a URL and follows where that leads.
    async fn request(&self, url: &str, timeout: Duration) -> std::result::Result<Response<Incoming>, String> {
        let inner = self.connections().await?;
        let authorization = self.settings.credentials.header().await?;
        let mut own_headers = Vec::with_capacity(self.settings.headers.len());
        for (name, value) in &self.settings.headers {
            let value = HeaderValue::try_from(value.read().await?);
            own_headers.push((name, value.map_err(|_| format!("http_headers: {name} is no header value"))?));
        }
        let start: Uri = url.parse().map_err(|error| format!("invalid URL: {error}"))?;
        let mut uri = start.clone();
        for _ in 0..=REDIRECTS_MAX {
            let is_home = uri.authority() == start.authority();
            let mut request = self.build_request(uri.clone(), timeout)?;
            if is_home {
                set_headers(request.headers_mut(), &own_headers, authorization.as_ref());
            }
            let response = inner.request(request).await.map_err(|error| connect_text(&error, &uri))?;
            match self.redirect_of(&uri, &response)? {
                Some(next) => uri = next,
                None => return Ok(response),
            }
        }
        Err(format!("stopped after {REDIRECTS_MAX} redirects"))
    }

    fn build_request(
        &self,
        uri: Uri,
        timeout: Duration,
    ) -> std::result::Result<Request<Empty<Bytes>>, String> {
        let seconds = model::number::format_fixed(timeout.as_secs_f64());
        Request::get(uri)
            .header(ACCEPT, &self.accept)
            .header(ACCEPT_ENCODING, &self.accept_encoding)
            .header(USER_AGENT, AGENT)
            .header(TIMEOUT_HEADER, seconds)
            .body(Empty::new())
            .map_err(|error| format!("invalid URL: {error}"))
    }

    fn redirect_of(
        &self,
        from: &Uri,
        response: &Response<Incoming>,
    ) -> std::result::Result<Option<Uri>, String> {
        let is_redirect = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
        let Some(location) = response.headers().get(LOCATION) else { return Ok(None) };
        if !is_redirect || !self.settings.follow_redirects {
            return Ok(None);
        }
        let bad = |cause: String| format!("failed to parse Location header {location:?}: {cause}");
        let text = location.to_str().map_err(|error| bad(error.to_string()))?;
        let base = url::Url::parse(&from.to_string()).map_err(|error| bad(error.to_string()))?;
        let next = base.join(text).map_err(|error| bad(error.to_string()))?;
        if !matches!(next.scheme(), "http" | "https") {
            return Err(format!("unsupported protocol scheme {:?}", next.scheme()));
        }
        let mut next = next;
        next.set_fragment(None);
        next.as_str().parse().map(Some).map_err(|error: http::uri::InvalidUri| bad(error.to_string()))
    }

    /// Returns the connections, made anew when a TLS file has changed.
    async fn connections(&self) -> std::result::Result<Inner, String> {
        let (tls, roots) = (self.settings.tls.clone(), self.shared.roots.clone());
        if !tls.has_files()
            && let Some((_, inner)) = &*self.inner.lock()
        {
            return Ok(inner.clone());
        }
        let known = self.inner.lock().clone();
        let enable_http2 = self.settings.enable_http2;
        let build = move || {
            let fingerprint = tls.fingerprint()?;
            if let Some((known, inner)) = known
                && known == fingerprint
            {
                return Ok((fingerprint, inner));
            }
            let connector = tls.connector(&roots, enable_http2)?;
            let inner = hyper_util::client::legacy::Client::builder(TokioExecutor::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(IDLE_TIMEOUT)
                .build(connector);
            Ok((fingerprint, inner))
        };
        // Reads files.
        let built: std::result::Result<_, String> =
            tokio::task::spawn_blocking(build).await.map_err(|error| error.to_string())?;
        let built = built?;
        let inner = built.1.clone();
        *self.inner.lock() = Some(built);
        Ok(inner)
    }
}

/// Adds what only the target's own host may see.
fn set_headers(
    headers: &mut HeaderMap,
    own: &[(&HeaderName, HeaderValue)],
    authorization: Option<&HeaderValue>,
) {
    // A name that is given several values has all of them; one that we set ourselves has only theirs.
    for (name, _) in own {
        headers.remove(*name);
    }
    for (name, value) in own {
        headers.append(*name, value.clone());
    }
    if let Some(authorization) = authorization {
        headers.insert(AUTHORIZATION, authorization.clone());
    }
}

/// The status as Go shows it: code and the reason that the server gave.
fn status_text(response: &Response<Incoming>) -> String {
    let code = response.status().as_u16();
    let sent = response.extensions().get::<hyper::ext::ReasonPhrase>();
    let sent = sent.map(|reason| String::from_utf8_lossy(reason.as_bytes()).into_owned());
    match sent.as_deref().or(response.status().canonical_reason()) {
        Some(reason) => format!("{code} {reason}"),
        None => code.to_string(),
    }
}

/// Says why there is no answer, in Go's words where they are known.
fn connect_text(error: &(dyn std::error::Error + 'static), uri: &Uri) -> String {
    let authority = uri.authority().map_or("", |a| a.as_str());
    let mut text = String::new();
    let mut next = error.source();
    while let Some(error) = next {
        let is_refused = |e: &std::io::Error| e.kind() == std::io::ErrorKind::ConnectionRefused;
        if error.downcast_ref::<std::io::Error>().is_some_and(is_refused) {
            return format!("dial tcp {authority}: connect: connection refused");
        }
        let part = error.to_string();
        // Some errors repeat what is below them.
        if !text.ends_with(&part) {
            text = if text.is_empty() { part } else { format!("{text}: {part}") };
        }
        next = error.source();
    }
    if text.is_empty() { error.to_string() } else { text }
}

#[cfg(test)]
mod tests;
