//! Requests: the connections they go over, the headers they carry, the redirects they follow.

use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, LOCATION, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use parking_lot::Mutex;

use crate::credentials::{Credentials, Secret};
use crate::error::{Error, Result};
use crate::tls::{Fingerprint, Roots, TlsSettings};

/// What Prometheus calls itself; some servers look at it.
pub const AGENT: &str = "Prometheus/3.14.0";
/// As many as Go's client follows.
const REDIRECTS_MAX: usize = 10;
/// How long a connection is kept that nobody uses, as in Prometheus.
const IDLE_TIMEOUT: Duration = Duration::from_secs(300);

type Inner = hyper_util::client::legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// `<http_config>`: how to connect.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct HttpSettings {
    /// Who we are.
    pub credentials: Credentials,
    /// How TLS is done.
    pub tls: TlsSettings,
    /// Go where redirects lead.
    pub follow_redirects: bool,
    /// Offer HTTP/2 where there is TLS.
    pub enable_http2: bool,
    /// Headers of every request; they replace ours.
    pub headers: Vec<(HeaderName, Secret)>,
}

/// Asks for URLs over connections it keeps.
#[derive(Debug)]
pub struct Client {
    settings: HttpSettings,
    roots: Roots,
    /// The connections, and the state of the TLS files they were made with.
    inner: Mutex<Option<(Fingerprint, Inner)>>,
}

impl Client {
    /// Makes a client; nothing is connected or read yet.
    #[must_use]
    pub fn new(settings: HttpSettings, roots: Roots) -> Self {
        Self { settings, roots, inner: Mutex::new(None) }
    }

    /// Asks for a URL and follows where that leads. Takes as long as it takes; may be dropped at any time.
    ///
    /// # Errors
    /// Whatever keeps an answer from beginning. An answer with a bad status is none.
    pub async fn get(&self, url: &str, headers: &HeaderMap) -> Result<Response<Incoming>> {
        self.send((Method::GET, Bytes::new()), url, headers).await
    }

    /// Posts a body; otherwise as [`Client::get`]. As in Go, a redirect other than 307 and 308 is followed without it.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn post(&self, url: &str, headers: &HeaderMap, body: Bytes) -> Result<Response<Incoming>> {
        self.send((Method::POST, body), url, headers).await
    }

    async fn send(
        &self,
        (mut method, mut body): (Method, Bytes),
        url: &str,
        headers: &HeaderMap,
    ) -> Result<Response<Incoming>> {
        let inner = self.connections().await?;
        let authorization = self.settings.credentials.header().await.map_err(Error::Settings)?;
        let mut own_headers = Vec::with_capacity(self.settings.headers.len());
        for (name, value) in &self.settings.headers {
            let value = HeaderValue::try_from(value.read().await.map_err(Error::Settings)?);
            let value =
                value.map_err(|_| Error::Settings(format!("http_headers: {name} is no header value")))?;
            own_headers.push((name, value));
        }
        let start: Uri = url.parse().map_err(|error: http::uri::InvalidUri| Error::Url(error.to_string()))?;
        let mut uri = start.clone();
        let mut headers = headers.clone();
        for _ in 0..=REDIRECTS_MAX {
            let is_home = uri.authority() == start.authority();
            let mut request = build_request((method.clone(), body.clone()), uri.clone(), &headers)?;
            if is_home {
                set_headers(request.headers_mut(), &own_headers, authorization.as_ref());
            }
            let response = inner.request(request).await;
            let response = response.map_err(|error| Error::Unanswered(connect_text(&error, &uri)))?;
            match self.redirect_of(&uri, &response).map_err(Error::Redirect)? {
                Some(next) => uri = next,
                None => return Ok(response),
            }
            if !matches!(response.status().as_u16(), 307 | 308) {
                (method, body) = (Method::GET, Bytes::new());
                headers.remove(CONTENT_TYPE);
            }
        }
        Err(Error::Redirect(format!("stopped after {REDIRECTS_MAX} redirects")))
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
    async fn connections(&self) -> Result<Inner> {
        let (tls, roots) = (self.settings.tls.clone(), self.roots.clone());
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
            tokio::task::spawn_blocking(build).await.map_err(|error| Error::Settings(error.to_string()))?;
        let built = built.map_err(Error::Settings)?;
        let inner = built.1.clone();
        *self.inner.lock() = Some(built);
        Ok(inner)
    }
}

fn build_request(
    (method, body): (Method, Bytes),
    uri: Uri,
    headers: &HeaderMap,
) -> Result<Request<Full<Bytes>>> {
    let mut request = Request::builder()
        .method(method)
        .uri(uri)
        .header(USER_AGENT, AGENT)
        .body(Full::new(body))
        .map_err(|error| Error::Url(error.to_string()))?;
    for (name, value) in headers {
        request.headers_mut().insert(name, value.clone());
    }
    Ok(request)
}

/// Adds what only the asked host may see.
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
#[must_use]
pub fn status_text<B>(response: &Response<B>) -> String {
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
