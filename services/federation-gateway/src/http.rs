//! The HTTP face: routes, and what every handler shares.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, HttpBody as _};
use axum::extract::{FromRequest, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use http_api::{ApiError, ErrorType, Params};
use model::{Matcher, Tenant};
use serde::Serialize;

use crate::gateway::Gateway;

mod admin;
mod exemplars;
mod expression;
mod features;
mod federate;
mod notifications;
mod openapi;
mod otlp;
mod packing;
mod pages;
mod query;
mod read;
mod rules;
mod scrape_pools;
mod search;
mod self_metrics;
mod series;
mod status;
mod status_blocks;
mod status_tsdb;
mod targets;
mod write;

/// The largest form body, in bytes; Go's default for parsed forms.
const FORM_BYTES_MAX: usize = 10 << 20;

/// Builds the routes.
pub(crate) fn router(gateway: Arc<Gateway>) -> Router {
    let api = Router::new()
        .route("/api/v1/query", get(query::instant).post(query::instant))
        .route("/api/v1/query_range", get(query::range).post(query::range))
        .route("/api/v1/query_exemplars", get(exemplars::exemplars).post(exemplars::exemplars))
        .route("/api/v1/format_query", get(expression::format).post(expression::format))
        .route("/api/v1/parse_query", get(expression::parse).post(expression::parse))
        .route("/api/v1/labels", get(series::label_names).post(series::label_names))
        .route("/api/v1/label/{name}/values", get(series::label_values))
        .route("/api/v1/series", get(series::series).post(series::series))
        .route("/api/v1/metadata", get(targets::metadata))
        .route("/api/v1/targets", get(targets::targets))
        .route("/api/v1/targets/metadata", get(targets::target_metadata))
        .route("/api/v1/targets/relabel_steps", get(scrape_pools::relabel_steps))
        .route("/api/v1/scrape_pools", get(scrape_pools::names))
        .route("/api/v1/scrape_pools/config", get(scrape_pools::config))
        .route("/api/v1/openapi.yaml", get(openapi::document))
        .route("/api/v1/features", get(features::features))
        .route("/api/v1/rules", get(rules::rules))
        .route("/api/v1/alerts", get(rules::alerts))
        .route("/api/v1/alertmanagers", get(rules::alertmanagers))
        .route("/api/v1/status/flags", get(status::flags))
        .route("/api/v1/status/buildinfo", get(status::build_info))
        .route("/api/v1/status/config", get(status::config))
        .route("/api/v1/status/runtimeinfo", get(status::runtime_info))
        .route("/api/v1/status/self_metrics", get(self_metrics::metrics))
        .route("/api/v1/status/tsdb", get(status_tsdb::tsdb))
        .route("/api/v1/status/tsdb/blocks", get(status_blocks::blocks))
        .route("/api/v1/otlp/v1/metrics", post(otlp::metrics))
        .route("/api/v1/admin/tsdb/flush", post(admin::flush).put(admin::flush))
        .route("/api/v1/admin/tsdb/compact", post(admin::compact).put(admin::compact))
        .route("/api/v1/admin/tsdb/snapshot", post(admin::snapshot).put(admin::snapshot))
        .route("/api/v1/admin/tsdb/delete_series", post(admin::deletion).put(admin::deletion))
        .route("/api/v1/admin/tsdb/clean_tombstones", post(admin::deletion).put(admin::deletion));
    let compression = tower_http::compression::CompressionLayer::new().gzip(true).deflate(true);
    // What has a compression of its own, or none.
    let plain = Router::new()
        .route("/api/v1/search/metric_names", get(search::metric_names).post(search::metric_names))
        .route("/api/v1/search/label_names", get(search::label_names).post(search::label_names))
        .route("/api/v1/search/label_values", get(search::label_values).post(search::label_values))
        .route("/api/v1/read", post(read::read))
        .route("/api/v1/write", post(write::write));
    // No HEAD of `/federate`, as in Prometheus; it looks at readiness itself.
    let federate = get(federate::federate).head(|| std::future::ready(StatusCode::METHOD_NOT_ALLOWED));
    let always = Router::new()
        .route("/api/v1/notifications", get(notifications::list))
        .route("/api/v1/notifications/live", get(notifications::live))
        .route("/api/v1/status/walreplay", get(status_tsdb::wal_replay))
        .route("/federate", federate.clone())
        .route("/federation", federate)
        .route("/version", get(status::version))
        .route("/-/reload", any(admin::reload))
        .route("/-/quit", any(admin::quit))
        .route("/", get(pages::root))
        .route("/graph", get(pages::graph));
    let always = pages::PAGES.into_iter().fold(always, |all, page| all.route(page, get(pages::page)));
    let gated = api.layer(compression).merge(plain).method_not_allowed_fallback(method_not_allowed);
    let gated = gateway.readiness.gate(gated.with_state(Arc::clone(&gateway)));
    let always = always.method_not_allowed_fallback(method_not_allowed).fallback(pages::nowhere);
    let all = always.with_state(Arc::clone(&gateway)).merge(gated);
    all.layer(axum::middleware::from_fn_with_state(gateway, cors))
}

/// In Go's words.
async fn method_not_allowed() -> Response {
    let headers = [(header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
    (StatusCode::METHOD_NOT_ALLOWED, headers, "Method Not Allowed\n").into_response()
}

/// Builds the routes of the listener for OTLP alone.
pub(crate) fn otlp_router(gateway: Arc<Gateway>) -> Router {
    Router::new().route("/v1/metrics", post(otlp::metrics)).with_state(gateway)
}

/// Answers preflight requests, and lets pages of some origins read the API, as `--web.cors.origin` says.
async fn cors(State(gateway): State<Arc<Gateway>>, request: Request, next: Next) -> Response {
    let is_api = request.uri().path().starts_with("/api/v1/");
    let origin = request.headers().get(header::ORIGIN).cloned();
    let mut response = if is_api && request.method() == Method::OPTIONS {
        StatusCode::NO_CONTENT.into_response()
    } else {
        next.run(request).await
    };
    if is_api {
        let headers = response.headers_mut();
        headers.append(header::VARY, HeaderValue::from_static("Origin"));
        if let Some(origin) = origin {
            for (name, value) in [
                (header::ACCESS_CONTROL_ALLOW_HEADERS, "Accept, Authorization, Content-Type, Origin"),
                (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, OPTIONS"),
                (header::ACCESS_CONTROL_EXPOSE_HEADERS, "Date"),
            ] {
                headers.insert(name, HeaderValue::from_static(value));
            }
            let allowed = match gateway.config.cors_origin.as_str() {
                ".*" => Some(HeaderValue::from_static("*")),
                _ => origin.to_str().is_ok_and(|o| gateway.origins.is_match(o)).then_some(origin),
            };
            headers.extend(allowed.map(|value| (header::ACCESS_CONTROL_ALLOW_ORIGIN, value)));
        }
    }
    response
}

/// The parameters of a request, from its query string and, in a POST, its form body; and whose request it is.
#[derive(Debug)]
pub(crate) struct Form {
    pub(crate) params: Params,
    pub(crate) tenant: Tenant,
}

impl<S: Send + Sync> FromRequest<S> for Form {
    type Rejection = Response;

    async fn from_request(request: Request, _: &S) -> Result<Self, Response> {
        let (parts, body) = request.into_parts();
        // Pairs that are broken are left out: whoever minds asks for `Params::checked`.
        let tenant = tenant(&parts.headers).map_err(fail)?;
        let mut params = Params::default();
        if matches!(parts.method, Method::POST | Method::PUT) && is_form(&parts.headers) {
            let body = axum::body::to_bytes(body, FORM_BYTES_MAX).await.map_err(|e| {
                fail(ApiError::new(ErrorType::BadData, format!("error parsing form values: {e}")))
            })?;
            params.add_encoded(&body).map_err(fail)?;
        }
        if let Some(query) = parts.uri.query() {
            params.add_encoded(query.as_bytes()).map_err(fail)?;
        }
        Ok(Self { params, tenant })
    }
}

fn is_form(headers: &HeaderMap) -> bool {
    let kind = header_text(headers, header::CONTENT_TYPE);
    kind.split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .eq_ignore_ascii_case("application/x-www-form-urlencoded")
}

/// Reads a body of at most `bytes_max` bytes.
async fn body(body: Body, bytes_max: usize) -> Result<Bytes, (StatusCode, String)> {
    // What says that it is too large is not read.
    let says = body.size_hint().lower();
    if says > bytes_max as u64 {
        return Err((
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("body of {says} bytes is larger than {bytes_max}"),
        ));
    }
    axum::body::to_bytes(body, bytes_max).await.map_err(|e| {
        let is_too_large =
            std::error::Error::source(&e).is_some_and(|s| s.is::<http_body_util::LengthLimitError>());
        (if is_too_large { StatusCode::PAYLOAD_TOO_LARGE } else { StatusCode::BAD_REQUEST }, e.to_string())
    })
}

/// Returns a header as text; empty where it is absent or none.
fn header_text(headers: &HeaderMap, name: HeaderName) -> &str {
    headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
}

/// Returns the tenant that the headers name.
pub(crate) fn tenant(headers: &HeaderMap) -> Result<Tenant, ApiError> {
    let Some(value) = headers.get(model::tenant::TENANT_HEADER) else { return Ok(Tenant::default()) };
    let name =
        value.to_str().map_err(|_| ApiError::new(ErrorType::BadData, "X-Scope-OrgID is not plain text"))?;
    Tenant::new(name).map_err(|e| ApiError::new(ErrorType::BadData, e.to_string()))
}

/// Parses every `match[]`. As in Prometheus, each set needs a matcher that does not accept the empty string.
pub(crate) fn match_params(params: &Params) -> Result<Vec<Vec<Matcher>>, String> {
    let mut sets = Vec::new();
    for text in params.all("match[]") {
        let set = promql_syntax::parse_selector(text).map_err(|e| e.to_string())?;
        if set.iter().all(Matcher::matches_empty) {
            return Err("match[] must contain at least one non-empty matcher".to_owned());
        }
        sets.push(set);
    }
    Ok(sets)
}

/// A wrong request, in words that need no more.
fn bad(message: String) -> ApiError {
    ApiError::new(ErrorType::BadData, message)
}

/// What a failed call means to the client.
pub(crate) fn from_status(status: &tonic::Status) -> ApiError {
    ApiError::from_kind(rpc::status::kind(status), status.message())
}

/// Answers with an error.
pub(crate) fn fail(error: ApiError) -> Response {
    let status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    json(status, error.to_json())
}

/// Answers with data.
pub(crate) fn succeed(data: &impl Serialize, warnings: &[String]) -> Response {
    json(StatusCode::OK, http_api::json::success(data, warnings, &[]))
}

fn json(status: StatusCode, body: impl Into<Body>) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], body.into()).into_response()
}

/// Turns the parts that took no part into warnings.
pub(crate) fn missing_warnings(missing: &[rpc::pb::model::Missing]) -> Vec<String> {
    missing.iter().map(|m| format!("partial response: {}: {}", m.source, m.reason)).collect()
}
