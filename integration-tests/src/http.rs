//! A blocking HTTP client for one server and one tenant.

use std::time::Duration;

use serde_json::Value;

/// Longer than any query of the stories takes on a loaded machine.
const TIMEOUT: Duration = Duration::from_secs(150);
/// The largest answer that is read.
const BODY_BYTES_MAX: u64 = 256 << 20;

/// Where requests go.
#[derive(Debug, Clone)]
pub struct Http {
    agent: ureq::Agent,
    base: String,
    tenant: Option<String>,
}

/// An answer, whatever its status.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// `Content-Type`.
    pub content_type: String,
    /// The body.
    pub body: String,
    headers: ureq::http::HeaderMap,
}

impl Reply {
    /// A header, where there is one.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body)
            .unwrap_or_else(|e| panic!("no JSON ({e}), status {}: {}", self.status, self.body))
    }

    /// The `data` of a successful answer of the HTTP API.
    ///
    /// # Panics
    /// When it is an error.
    #[must_use]
    pub fn data(&self) -> Value {
        let mut json = self.json();
        assert!(self.status == 200 && json["status"] == "success", "status {}: {}", self.status, self.body);
        json["data"].take()
    }
}

impl Http {
    pub(crate) fn new(base: String) -> Self {
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None)
            .timeout_global(Some(TIMEOUT))
            .build()
            .into();
        Self { agent, base, tenant: None }
    }

    /// The same server, asked as a tenant.
    #[must_use]
    pub fn tenant(&self, name: &str) -> Self {
        Self { tenant: Some(name.to_owned()), ..self.clone() }
    }

    /// The URL of a path.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// GET; `None` when there is no answer.
    #[must_use]
    pub fn try_get(&self, path: &str, parameters: &[(&str, &str)]) -> Option<Reply> {
        let request = self.agent.get(self.url(path)).query_pairs(parameters.iter().copied());
        let request = match &self.tenant {
            Some(tenant) => request.header("X-Scope-OrgID", tenant),
            None => request,
        };
        request.call().ok().and_then(read)
    }

    /// GET.
    ///
    /// # Panics
    /// When there is no answer.
    #[must_use]
    pub fn get(&self, path: &str, parameters: &[(&str, &str)]) -> Reply {
        self.try_get(path, parameters).unwrap_or_else(|| panic!("no answer: GET {}", self.url(path)))
    }

    /// A metric of the server's own that has no labels.
    ///
    /// # Panics
    /// When there is none of that name.
    #[must_use]
    pub fn metric(&self, name: &str) -> f64 {
        let body = self.get("/metrics", &[]).body;
        let line = body.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name}:\n{body}"))
    }

    /// POST with a form.
    ///
    /// # Panics
    /// When there is no answer.
    #[must_use]
    pub fn post_form(&self, path: &str, parameters: &[(&str, &str)]) -> Reply {
        let request = self.post_request(path);
        let reply = request.send_form(parameters.iter().copied()).ok().and_then(read);
        reply.unwrap_or_else(|| panic!("no answer: POST {}", self.url(path)))
    }

    /// POST with a body; `None` when there is no answer.
    #[must_use]
    pub fn try_post(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Option<Reply> {
        let request =
            headers.iter().fold(self.post_request(path), |r, (name, value)| r.header(*name, *value));
        request.send(body).ok().and_then(read)
    }

    /// A request of any method; redirects are not followed. `None` when there is no answer.
    #[must_use]
    pub fn raw(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Option<Reply> {
        let request = ureq::http::Request::builder().method(method).uri(self.url(path));
        let request = headers.iter().fold(request, |r, (name, value)| r.header(*name, *value));
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None)
            .max_redirects(0)
            .timeout_global(Some(TIMEOUT))
            .build()
            .into();
        let reply = match body {
            [] => agent.run(request.body(()).ok()?),
            _ => agent.run(request.body(body).ok()?),
        };
        reply.ok().and_then(read)
    }

    /// The same server, whatever its prefix.
    #[must_use]
    pub fn root(&self) -> Self {
        let base = self.base.splitn(4, '/').take(3).collect::<Vec<_>>().join("/");
        Self { base, ..self.clone() }
    }

    /// GET of an answer that may not end: without its body. `None` when there is no answer.
    #[must_use]
    pub fn head_of(&self, path: &str) -> Option<Reply> {
        self.agent.get(self.url(path)).call().ok().map(|response| reply(&response, String::new()))
    }

    fn post_request(&self, path: &str) -> ureq::RequestBuilder<ureq::typestate::WithBody> {
        let request = self.agent.post(self.url(path));
        match &self.tenant {
            Some(tenant) => request.header("X-Scope-OrgID", tenant),
            None => request,
        }
    }
}

fn read(mut response: ureq::http::Response<ureq::Body>) -> Option<Reply> {
    let body = response.body_mut().with_config().limit(BODY_BYTES_MAX).lossy_utf8(true).read_to_string();
    let body = body.ok()?;
    Some(reply(&response, body))
}

fn reply(response: &ureq::http::Response<ureq::Body>, body: String) -> Reply {
    let headers = response.headers().clone();
    let content_type = headers.get("content-type").and_then(|v| v.to_str().ok()).unwrap_or_default();
    Reply { status: response.status().as_u16(), content_type: content_type.to_owned(), body, headers }
}
