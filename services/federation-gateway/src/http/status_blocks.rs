//! `/api/v1/status/tsdb/blocks`: the live files of the table, which are what blocks are to Prometheus.
//!
//! What a block's `meta.json` says and the catalogue does not know is left out: how many series and samples there are,
//! and what a compacted file was made of.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http_api::ApiError;
use rpc::Channel;
use rpc::pb::querier as pb;
use rpc::pb::querier::querier_client::QuerierClient;
use serde::Serialize;

use super::{Form, fail, from_status, succeed};
use crate::gateway::Gateway;
use crate::peers::LOOKUP_DEADLINE;

/// The version of the files' schema.
const VERSION: u32 = 1;

#[derive(Debug, Serialize)]
struct Blocks {
    blocks: Vec<Block>,
}

/// A file in the form of a block's `meta.json`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Block {
    ulid: String,
    min_time: i64,
    /// As in Prometheus, no sample is as late as this.
    max_time: i64,
    stats: Stats,
    compaction: Compaction,
    version: u32,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Stats {
    /// Rows: the samples of a series in a window.
    num_chunks: u64,
}

#[derive(Debug, Serialize)]
struct Compaction {
    level: u32,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    sources: Vec<String>,
}

/// `GET /api/v1/status/tsdb/blocks`.
pub(super) async fn blocks(State(gateway): State<Arc<Gateway>>, form: Form) -> Response {
    list(&gateway, &form).await.map_or_else(fail, |blocks| succeed(&Blocks { blocks }, &[]))
}

async fn list(gateway: &Gateway, form: &Form) -> Result<Vec<Block>, ApiError> {
    let request = pb::FilesRequest { tenant: form.tenant.as_str().to_owned() };
    let ask = async |mut client: QuerierClient<Channel>, request| client.files(request).await;
    let messages = gateway.peers.ask_querier(request, LOOKUP_DEADLINE, ask).await;
    let mut messages = messages.map_err(|s| from_status(&s))?.into_inner();
    let mut blocks = Vec::new();
    while let Some(message) = messages.message().await.map_err(|s| from_status(&s))? {
        blocks.extend(message.files.into_iter().map(block));
    }
    Ok(blocks)
}

fn block(file: pb::TableFile) -> Block {
    let pb::TableFile { name, min_time, max_time, rows, level } = file;
    let sources = if level == 1 { vec![name.clone()] } else { Vec::new() };
    Block {
        ulid: name,
        min_time,
        max_time: max_time.saturating_add(1),
        stats: Stats { num_chunks: rows },
        compaction: Compaction { level, sources },
        version: VERSION,
    }
}
