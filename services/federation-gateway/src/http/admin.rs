//! `/api/v1/admin/tsdb/...`, `/-/reload` and `/-/quit`: each behind its flag.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{Method, StatusCode, header};
use http_api::{ApiError, ErrorType};
use model::number::Quoted;
use ring::rand::{SecureRandom as _, SystemRandom};
use rpc::pb::{discovery, ingester};
use serde_json::{Value, json};
use tonic::{Code, Status};

use super::{Form, fail, from_status, succeed};
use crate::gateway::Gateway;
use crate::peers::{COMPACT_DEADLINE, FLUSH_DEADLINE, LOOKUP_DEADLINE};

/// `POST|PUT /api/v1/admin/tsdb/flush`: answers when everything acknowledged is in the table.
pub(super) async fn flush(State(gateway): State<Arc<Gateway>>) -> Response {
    if_enabled(&gateway, flush_all(&gateway)).await
}

/// Does what an administrator asks for, where that is allowed, and shows what came of it.
async fn if_enabled(gateway: &Gateway, work: impl Future<Output = Result<Value, Status>>) -> Response {
    if !gateway.config.enable_admin_api {
        return fail(ApiError::new(ErrorType::Unavailable, "admin APIs disabled"));
    }
    match work.await {
        Ok(data) => succeed(&data, &[]),
        Err(status) if status.code() == Code::Unimplemented => {
            fail(ApiError::new(ErrorType::NotImplemented, status.message()))
        }
        Err(status) => fail(from_status(&status)),
    }
}

async fn flush_all(gateway: &Gateway) -> Result<Value, Status> {
    let mut all = ingester::FlushResponse::default();
    for (_, mut client) in gateway.peers.ingesters()? {
        let request = rpc::with_deadline(ingester::FlushRequest {}, FLUSH_DEADLINE);
        let one = client.flush(request).await?.into_inner();
        all.table_version = all.table_version.max(one.table_version);
        all.rows += one.rows;
        all.files += one.files;
    }
    Ok(json!({ "tableVersion": all.table_version, "rows": all.rows, "files": all.files }))
}

/// `POST|PUT /api/v1/admin/tsdb/compact`: answers when every window and every day that has ended is compacted.
pub(super) async fn compact(State(gateway): State<Arc<Gateway>>) -> Response {
    if_enabled(&gateway, compact_all(&gateway)).await
}

/// Each ingester does its share.
async fn compact_all(gateway: &Gateway) -> Result<Value, Status> {
    let mut all = ingester::CompactResponse::default();
    for (_, mut client) in gateway.peers.ingesters()? {
        let request = rpc::with_deadline(ingester::CompactRequest {}, COMPACT_DEADLINE);
        let one = client.compact(request).await?.into_inner();
        all.table_version = all.table_version.max(one.table_version);
        all.compactions += one.compactions;
        all.files_replaced += one.files_replaced;
        all.files_written += one.files_written;
        all.files_expired += one.files_expired;
    }
    Ok(json!({
        "tableVersion": all.table_version, "compactions": all.compactions,
        "filesReplaced": all.files_replaced, "filesWritten": all.files_written,
        "filesExpired": all.files_expired,
    }))
}

/// `POST|PUT /api/v1/admin/tsdb/snapshot`: answers when the copy of the table can be read.
///
/// The copy is a table of its own in `snapshots/<name>/metrics/` beside the table. With `skip_head` it has what is in
/// the table; else everything acknowledged is flushed first.
pub(super) async fn snapshot(State(gateway): State<Arc<Gateway>>, form: Form) -> Response {
    let skips_head = match form.params.get("skip_head") {
        "" => false,
        text => match parse_bool(text) {
            Some(value) => value,
            None => {
                let cause = format!("strconv.ParseBool: parsing {}: invalid syntax", Quoted(text));
                return fail(ApiError::parameter("skip_head", format!("unable to parse boolean {cause}")));
            }
        },
    };
    if_enabled(&gateway, copy_table(&gateway, skips_head)).await
}

/// As Go reads a boolean.
pub(super) fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

async fn copy_table(gateway: &Gateway, skips_head: bool) -> Result<Value, Status> {
    if !skips_head {
        flush_all(gateway).await?;
    }
    let mut number = [0; 8];
    let random = SystemRandom::new().fill(&mut number);
    random.map_err(|_| Status::internal("no random numbers"))?;
    let now = jiff::Timestamp::from_millisecond(gateway.clock.now().millis());
    let now = now.map_err(|e| Status::internal(e.to_string()))?.strftime("%Y%m%dT%H%M%SZ");
    let name = format!("{now}-{:016x}", u64::from_ne_bytes(number));
    let ingester = gateway.peers.ingesters()?.into_iter().next();
    let (_, mut client) = ingester.ok_or_else(|| Status::unavailable("no ingester is known"))?;
    let request = ingester::SnapshotRequest { name: name.clone() };
    client.snapshot(rpc::with_deadline(request, COMPACT_DEADLINE)).await?;
    Ok(json!({ "name": name }))
}

/// `POST|PUT /api/v1/admin/tsdb/delete_series` and `clean_tombstones`: there is no deletion of series yet.
pub(super) async fn deletion(State(gateway): State<Arc<Gateway>>) -> Response {
    let none =
        Err(Status::unimplemented("series cannot be deleted yet: samples go when their retention is over"));
    if_enabled(&gateway, std::future::ready(none)).await
}

/// `POST|PUT /-/reload`.
pub(super) async fn reload(State(gateway): State<Arc<Gateway>>, method: Method) -> Response {
    if let Some(refusal) = lifecycle_refusal(&gateway, &method) {
        return refusal;
    }
    let request = rpc::with_deadline(discovery::ReloadRequest {}, LOOKUP_DEADLINE);
    match gateway.peers.discovery().reload(request).await {
        Ok(_) => StatusCode::OK.into_response(),
        Err(status) => {
            let text = format!("failed to reload config: {}\n", status.message());
            (StatusCode::INTERNAL_SERVER_ERROR, text).into_response()
        }
    }
}

/// `POST|PUT /-/quit`.
pub(super) async fn quit(State(gateway): State<Arc<Gateway>>, method: Method) -> Response {
    if let Some(refusal) = lifecycle_refusal(&gateway, &method) {
        return refusal;
    }
    gateway.stopper.stop();
    "Requesting termination... Goodbye!".into_response()
}

fn lifecycle_refusal(gateway: &Gateway, method: &Method) -> Option<Response> {
    if !gateway.config.enable_lifecycle {
        return Some((StatusCode::FORBIDDEN, "Lifecycle API is not enabled.").into_response());
    }
    if method != Method::POST && method != Method::PUT {
        let allow = [(header::ALLOW, "POST, PUT")];
        return Some(
            (StatusCode::METHOD_NOT_ALLOWED, allow, "Only POST or PUT requests allowed").into_response(),
        );
    }
    None
}
