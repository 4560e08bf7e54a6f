//! `/api/v1/status/*`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use config_watch::Retention;
use model::time::PrometheusDuration;
use serde_json::json;
use service_runtime::ConfigBytes;

use super::targets::rfc3339;
use super::{fail, succeed};
use crate::gateway::Gateway;

/// The version of Prometheus whose behaviour the API has; clients choose their requests by it.
const PROMETHEUS_VERSION: &str = "3.14.0";

fn build() -> serde_json::Value {
    json!({
        "version": PROMETHEUS_VERSION,
        "revision": concat!("tributary-", env!("CARGO_PKG_VERSION")),
        "branch": "",
        "buildUser": "",
        "buildDate": "",
        "goVersion": "",
    })
}

/// `GET /api/v1/status/buildinfo`.
pub(super) async fn build_info() -> Response {
    succeed(&build(), &[])
}

/// `GET /version`.
pub(super) async fn version() -> axum::Json<serde_json::Value> {
    axum::Json(build())
}

/// `GET /api/v1/status/config`.
pub(super) async fn config(State(gateway): State<Arc<Gateway>>) -> Response {
    match gateway.prometheus_config() {
        Ok(config) => succeed(&json!({ "yaml": config.message.yaml }), &[]),
        Err(error) => fail(error),
    }
}

/// `GET /api/v1/status/runtimeinfo`.
pub(super) async fn runtime_info(State(gateway): State<Arc<Gateway>>) -> Response {
    let config = match gateway.prometheus_config() {
        Ok(config) => config,
        Err(error) => return fail(error),
    };
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    succeed(
        &json!({
            "startTime": rfc3339(gateway.started_at),
            "CWD": gateway.config.working_directory,
            "hostname": gateway.config.hostname,
            "serverTime": rfc3339(gateway.clock.now()),
            "reloadConfigSuccess": config.message.is_last_reload_successful,
            "lastConfigTime": rfc3339(model::Timestamp(config.message.loaded_at)),
            "corruptionCount": 0,
            "goroutineCount": 0,
            "GOMAXPROCS": cores,
            "GOMEMLIMIT": 0,
            "GOGC": "",
            "GODEBUG": "",
            "storageRetention": retention_text(gateway.config.retention().with(Some(&config))),
        }),
        &[],
    )
}

/// How long and how much is kept, as Prometheus shows it.
fn retention_text(retention: Retention) -> String {
    let time = retention.time.map(|t| PrometheusDuration(t).to_string());
    let size = retention.size.map(|s| ConfigBytes(s).to_string());
    time.into_iter().chain(size).collect::<Vec<_>>().join(" or ")
}

/// `GET /api/v1/status/flags`.
pub(super) async fn flags(State(gateway): State<Arc<Gateway>>) -> Response {
    succeed(&gateway.config.flags, &[])
}
