//! Fetches a target's body over HTTP.
//!
//! One [`Client`] per job: it keeps the job's connections and knows its credentials.
//!
//! Invariants:
//! - the timeout covers everything from the first connection to the last byte;
//! - a body is bounded before and after decompression, and all bodies together by a [`BodyBudget`].

mod body;

use std::time::Duration;

use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use http_client::{Roots, status_text};

use crate::error::{Error, Result};
use crate::job::Job;
pub(crate) use body::{Body, BodyBudget};

const TIMEOUT_HEADER: HeaderName = HeaderName::from_static("x-prometheus-scrape-timeout-seconds");

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
    http: http_client::Client,
    budget: BodyBudget,
    headers: HeaderMap,
    body_bytes_max: usize,
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
        let accept = HeaderValue::try_from(accept).expect("made of names that are header values");
        let accept_encoding = HeaderValue::from_static(if job.is_compressed { "gzip" } else { "identity" });
        let limit = usize::try_from(job.body_size_limit).unwrap_or(usize::MAX);
        Self {
            http: http_client::Client::new(job.http.clone(), shared.roots),
            budget: shared.budget,
            headers: HeaderMap::from_iter([(ACCEPT, accept), (ACCEPT_ENCODING, accept_encoding)]),
            body_bytes_max: if limit == 0 { shared.body_bytes_max } else { limit.min(shared.body_bytes_max) },
        }
    }

    /// Fetches a body. `expected_bytes` is what the last one took, for which room is set aside first.
    ///
    /// # Errors
    /// Whatever keeps the body from arriving in time.
    pub(crate) async fn fetch(&self, url: &str, timeout: Duration, expected_bytes: usize) -> Result<Fetched> {
        let deadline = tokio::time::Instant::now() + timeout;
        let failed = |cause: String| Error::Request { url: url.to_owned(), cause };
        let mut headers = self.headers.clone();
        let seconds = model::number::format_fixed(timeout.as_secs_f64());
        headers.insert(TIMEOUT_HEADER, HeaderValue::try_from(seconds).expect("digits and a point"));
        let response = tokio::time::timeout_at(deadline, self.http.get(url, &headers)).await;
        let response = response.map_err(|_| failed(Error::Timeout.to_string()))?;
        let response = response.map_err(|error| failed(error.to_string()))?;
        if response.status() != StatusCode::OK {
            return Err(Error::Status(status_text(&response)));
        }
        let (parts, incoming) = response.into_parts();
        let is_gzip = parts.headers.get(CONTENT_ENCODING).is_some_and(|v| v == "gzip");
        let content_type = parts.headers.get(CONTENT_TYPE).map(|v| String::from_utf8_lossy(v.as_bytes()));
        let content_type = content_type.unwrap_or_default().into_owned();
        let body = Body::receive(incoming, is_gzip, self.body_bytes_max, &self.budget, expected_bytes);
        let body = tokio::time::timeout_at(deadline, body).await.map_err(|_| Error::Timeout)??;
        Ok(Fetched { content_type, body })
    }
}

#[cfg(test)]
mod tests;
