//! What lies outside of the API: where pages will be, and where their addresses lead.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse as _, Response};
use http::{HeaderValue, StatusCode, Uri, header};

use crate::gateway::Gateway;

/// The pages that Prometheus has at these paths.
pub(super) const PAGES: [&str; 10] = [
    "/query",
    "/alerts",
    "/targets",
    "/rules",
    "/status",
    "/tsdb-status",
    "/flags",
    "/config",
    "/alertmanager-discovery",
    "/service-discovery",
];

/// `GET /`: leads to the page for queries, as a browser sees it from outside.
pub(super) async fn root(State(gateway): State<Arc<Gateway>>) -> Response {
    redirect(StatusCode::FOUND, &format!("{}/query", gateway.config.url.path))
}

/// `GET /graph`: the page's old address, which alerts link to.
pub(super) async fn graph(State(gateway): State<Arc<Gateway>>, RawQuery(query): RawQuery) -> Response {
    let query = query.unwrap_or_default();
    redirect(StatusCode::FOUND, &format!("{}/query?{query}", gateway.config.url.path))
}

fn redirect(status: StatusCode, place: &str) -> Response {
    match HeaderValue::from_str(place) {
        Ok(place) => (status, [(header::LOCATION, place)]).into_response(),
        Err(_) => StatusCode::BAD_REQUEST.into_response(),
    }
}

/// What is nowhere; a path with slashes too many leads to the one without, as Go's router has it.
pub(super) async fn nowhere(State(gateway): State<Arc<Gateway>>, uri: Uri) -> Response {
    let path = uri.path();
    if !path.contains("//") {
        return service_runtime::not_found();
    }
    let clean: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let place = format!("{}/{}{query}", gateway.config.url.prefix, clean.join("/"));
    redirect(StatusCode::MOVED_PERMANENTLY, &place)
}

/// A page: there are none yet.
pub(super) async fn page() -> Response {
    let text = "the web pages are not built yet: the API is below /api/v1, and Grafana takes this server for a Prometheus\n";
    (StatusCode::NOT_IMPLEMENTED, text).into_response()
}
