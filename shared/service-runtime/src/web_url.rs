//! Where users reach a listener, and the path that its routes begin with: `--web.external-url` and
//! `--web.route-prefix`, as Prometheus has them.

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use http::uri::PathAndQuery;
use http::{HeaderValue, StatusCode, Uri, header};
use tower::ServiceExt as _;

/// Where users reach a listener.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WebUrl {
    /// The URL from outside, without a slash at its end.
    pub external: String,
    /// The path of that URL: empty, or with a slash before and none behind.
    pub path: String,
    /// What the paths of all HTTP routes begin with, in the same form.
    pub prefix: String,
}

impl WebUrl {
    /// Takes what was told; without a URL it is that of this machine's name and a port, and without a prefix the prefix
    /// is the URL's path.
    ///
    /// # Errors
    /// When the URL is in quotes, has no host, or it or the prefix cannot stand in a request.
    pub fn new(external: Option<&str>, prefix: Option<&str>, port: u16) -> Result<Self, String> {
        let fault = |flag: &str, cause: String| format!("--web.{flag}: {cause}");
        let own = || format!("http://{}:{port}/", host_name());
        let told = external.filter(|url| !url.is_empty()).map_or_else(own, str::to_owned);
        if told.starts_with(['"', '\'']) || told.ends_with(['"', '\'']) {
            return Err(fault("external-url", "URL must not begin or end with quotes".to_owned()));
        }
        let (origin, path) = match told.split_once("://") {
            None => ("", told.as_str()),
            Some((scheme, rest)) => {
                let path = rest.find(['/', '?', '#']).unwrap_or(rest.len());
                if path == 0 {
                    return Err(fault("external-url", format!("{told:?} has no host")));
                }
                told.split_at(scheme.len() + "://".len() + path)
            }
        };
        let path = path.split(['?', '#']).next().unwrap_or_default();
        let path = joined(path).map_err(|cause| fault("external-url", cause))?;
        let prefix = match prefix.filter(|prefix| !prefix.is_empty()) {
            None => path.clone(),
            Some(prefix) => joined(prefix).map_err(|cause| fault("route-prefix", cause))?,
        };
        Ok(Self { external: format!("{origin}{path}"), path, prefix })
    }

    /// Puts HTTP routes below the prefix, and leaves what is asked over gRPC where it is. The root leads to the prefix.
    pub(crate) fn around(&self, router: Router) -> Router {
        if self.prefix.is_empty() {
            return router;
        }
        let prefix = self.prefix.clone();
        Router::new().fallback(move |request: Request| below(prefix, router, request))
    }
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// A path in the one form that paths have here.
fn joined(path: &str) -> Result<String, String> {
    let path = path.trim_matches('/');
    let path = if path.is_empty() { String::new() } else { format!("/{path}") };
    let is_path = path.parse::<PathAndQuery>().is_ok_and(|parsed| parsed.query().is_none());
    if path.is_empty() || is_path { Ok(path) } else { Err(format!("{path:?} is no path")) }
}

async fn below(prefix: String, router: Router, mut request: Request) -> Response {
    let redirect = |status: StatusCode, place: &str| match HeaderValue::from_str(place) {
        Ok(place) => (status, [(header::LOCATION, place)]).into_response(),
        Err(_) => StatusCode::NOT_FOUND.into_response(),
    };
    let content_type = request.headers().get(header::CONTENT_TYPE);
    if !content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc")) {
        let path = request.uri().path();
        match path.strip_prefix(&prefix) {
            Some("") => return redirect(StatusCode::MOVED_PERMANENTLY, &format!("{prefix}/")),
            Some(rest) if rest.starts_with('/') => match without(request.uri(), prefix.len()) {
                Some(uri) => *request.uri_mut() = uri,
                None => return StatusCode::NOT_FOUND.into_response(),
            },
            _ if path == "/" => return redirect(StatusCode::FOUND, &prefix),
            _ => return not_found(),
        }
    }
    let Ok(response) = router.oneshot(request.map(Body::new)).await;
    response
}

/// The URI without the first bytes of its path.
fn without(uri: &Uri, bytes: usize) -> Option<Uri> {
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(parts.path_and_query?.as_str().get(bytes..)?.parse().ok()?);
    Uri::from_parts(parts).ok()
}

/// The answer to whoever asks for what is not there, in Go's words.
pub fn not_found() -> Response {
    (StatusCode::NOT_FOUND, [(header::X_CONTENT_TYPE_OPTIONS, "nosniff")], "404 page not found\n")
        .into_response()
}

#[cfg(test)]
mod tests {
    use axum::routing::get;

    use super::*;

    #[test]
    fn urls_and_prefixes_are_as_in_prometheus() {
        let own = format!("http://{}:9090", host_name());
        for (external, prefix, expected) in [
            (None, None, (own.as_str(), "", "")),
            (Some(""), Some("/"), (own.as_str(), "", "")),
            (Some("https://m.example/prom/"), None, ("https://m.example/prom", "/prom", "/prom")),
            (Some("https://m.example/prom"), Some("/"), ("https://m.example/prom", "/prom", "")),
            (Some("https://m.example"), Some("a/b/"), ("https://m.example", "", "/a/b")),
            (Some("https://m.example?x=1"), None, ("https://m.example", "", "")),
            (Some("/only/a/path"), None, ("/only/a/path", "/only/a/path", "/only/a/path")),
        ] {
            let url = WebUrl::new(external, prefix, 9090).expect("good");
            let got = (url.external.as_str(), url.path.as_str(), url.prefix.as_str());
            assert_eq!(got, expected, "{external:?} {prefix:?}");
        }
        for (external, prefix, fault) in [
            (Some("'http://h'"), None, "--web.external-url: URL must not begin or end with quotes"),
            (Some("http:///x"), None, "--web.external-url: \"http:///x\" has no host"),
            (None, Some("/a b"), "--web.route-prefix: \"/a b\" is no path"),
            (None, Some("/a?b"), "--web.route-prefix: \"/a?b\" is no path"),
        ] {
            assert_eq!(WebUrl::new(external, prefix, 9090), Err(fault.to_owned()));
        }
    }

    #[tokio::test]
    async fn routes_lie_below_the_prefix() {
        let shown = get(async |uri: Uri| uri.to_string());
        let router = Router::new().route("/shown", shown.clone()).route("/", shown);
        let router = WebUrl::new(None, Some("/p/q"), 9090).expect("good").around(router);
        for (path, status, text) in [
            ("/p/q/shown?a=b", 200, "/shown?a=b"),
            ("/p/q/", 200, "/"),
            ("/p/q", 301, "/p/q/"),
            ("/", 302, "/p/q"),
            ("/shown", 404, ""),
            ("/p/qq", 404, ""),
            ("/p/q/none", 404, ""),
        ] {
            let request = Request::builder().uri(path).body(Body::empty()).expect("a request");
            let response = router.clone().oneshot(request).await.expect("answered");
            assert_eq!(response.status(), status, "{path}");
            let place =
                response.headers().get(header::LOCATION).map(|v| v.to_str().expect("text").to_owned());
            let body = axum::body::to_bytes(response.into_body(), 1 << 10).await.expect("a body");
            let shown = String::from_utf8(body.to_vec()).expect("text");
            match status {
                200 => assert_eq!(shown, text, "{path}"),
                404 => {}
                _ => assert_eq!(place.as_deref(), Some(text), "{path}"),
            }
        }
    }
}
