//! `/api/v1/labels`, `/api/v1/label/<name>/values` and `/api/v1/series`.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use http_api::json::TRUNCATED_WARNING;
use http_api::{ApiError, ErrorType};
use model::Timestamp;
use model::number::Quoted;
use rpc::Channel;
use rpc::pb::querier as pb;
use rpc::pb::querier::querier_client::QuerierClient;
use rpc::symbols::SymbolReader;
use serde::Serialize;

use super::{Form, fail, from_status, match_params, missing_warnings, succeed};
use crate::gateway::Gateway;
use crate::peers::LOOKUP_DEADLINE;

/// `GET|POST /api/v1/labels`.
pub(super) async fn label_names(State(gateway): State<Arc<Gateway>>, form: Form) -> Response {
    labels(&gateway, form, String::new()).await.unwrap_or_else(fail)
}

/// `GET /api/v1/label/<name>/values`.
pub(super) async fn label_values(
    State(gateway): State<Arc<Gateway>>,
    Path(name): Path<String>,
    form: Form,
) -> Response {
    let name = exposition::escaping::unescape_values(&name).into_owned();
    if name.is_empty() {
        let message = format!("invalid label name: {}", Quoted(&name));
        return fail(ApiError::new(ErrorType::BadData, message));
    }
    labels(&gateway, form, name).await.unwrap_or_else(fail)
}

async fn labels(gateway: &Gateway, form: Form, name: String) -> Result<Response, ApiError> {
    let Form { params, tenant } = form;
    let wants_values = !name.is_empty();
    let request = pb::LabelsRequest {
        tenant: tenant.as_str().to_owned(),
        name,
        any_of: rpc::convert::matcher_sets_to_pb(&match_params(&params)?),
        min_time: params.time_or("start", Timestamp::MIN)?.millis(),
        max_time: params.time_or("end", Timestamp::MAX)?.millis(),
        limit: params.limit("limit")?,
        allow_partial: params.get("partial_response") == "true",
    };
    let ask = async |mut client: QuerierClient<Channel>, request| {
        if wants_values { client.label_values(request).await } else { client.label_names(request).await }
    };
    let response = gateway.peers.ask_querier(request, LOOKUP_DEADLINE, ask).await;
    let response = response.map_err(|s| from_status(&s))?.into_inner();
    let mut warnings = missing_warnings(&response.missing);
    if response.is_truncated {
        warnings.push(TRUNCATED_WARNING.to_owned());
    }
    Ok(succeed(&response.values, &warnings))
}

/// A label set as the API shows it.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(super) struct LabelSet(#[serde(serialize_with = "serialize")] pub(super) model::Labels);

fn serialize<S: serde::Serializer>(labels: &model::Labels, serializer: S) -> Result<S::Ok, S::Error> {
    http_api::json::labels(labels, serializer)
}

/// `GET|POST /api/v1/series`.
pub(super) async fn series(State(gateway): State<Arc<Gateway>>, form: Form) -> Response {
    list(&gateway, form).await.unwrap_or_else(fail)
}

async fn list(gateway: &Gateway, form: Form) -> Result<Response, ApiError> {
    let Form { params, tenant } = form;
    let any_of = match_params(&params)?;
    if any_of.is_empty() {
        return Err(ApiError::new(ErrorType::BadData, "no match[] parameter provided"));
    }
    let request = pb::SeriesRequest {
        tenant: tenant.as_str().to_owned(),
        any_of: rpc::convert::matcher_sets_to_pb(&any_of),
        min_time: params.time_or("start", Timestamp::MIN)?.millis(),
        max_time: params.time_or("end", Timestamp::MAX)?.millis(),
        limit: params.limit("limit")?,
        allow_partial: params.get("partial_response") == "true",
    };
    let ask = async |mut client: QuerierClient<Channel>, request| client.series(request).await;
    let responses = gateway.peers.ask_querier(request, LOOKUP_DEADLINE, ask).await;
    let mut responses = responses.map_err(|s| from_status(&s))?.into_inner();
    let (mut sets, mut warnings) = (Vec::new(), Vec::new());
    while let Some(message) = responses.message().await.map_err(|s| from_status(&s))? {
        let symbols = SymbolReader(&message.symbols);
        for refs in &message.labels {
            let labels = symbols.labels(refs);
            sets.push(LabelSet(labels.map_err(|e| ApiError::new(ErrorType::Internal, e.to_string()))?));
        }
        warnings.extend(missing_warnings(&message.missing));
        if message.is_truncated {
            warnings.push(TRUNCATED_WARNING.to_owned());
        }
    }
    Ok(succeed(&sets, &warnings))
}
