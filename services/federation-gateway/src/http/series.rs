//! `/api/v1/labels`, `/api/v1/label/<name>/values` and `/api/v1/series`.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
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

use super::{Form, bad, fail, from_status, match_params, missing_warnings, succeed};
use crate::gateway::Gateway;
use crate::peers::LOOKUP_DEADLINE;

/// `GET|POST /api/v1/labels`.
pub(super) async fn label_names(State(gateway): State<Arc<Gateway>>, form: Form) -> Response {
    labels(&gateway, form, String::new()).await.unwrap_or_else(fail)
}

/// `GET /api/v1/label/<name>/values`.
pub(super) async fn label_values(
    State(gateway): State<Arc<Gateway>>,
    name: Result<Path<String>, PathRejection>,
    form: Form,
) -> Response {
    // What is not UTF-8 is no name either.
    let name = name.map(|Path(name)| name).unwrap_or_default();
    let name = exposition::escaping::unescape_values(&name).into_owned();
    if name.is_empty() {
        return fail(bad(format!("invalid label name: {}", Quoted(&name))));
    }
    labels(&gateway, form, name).await.unwrap_or_else(fail)
}

async fn labels(gateway: &Gateway, form: Form, name: String) -> Result<Response, ApiError> {
    let Form { params, tenant } = form;
    // In the order in which Prometheus looks at them.
    let limit = params.limit("limit")?;
    let min_time = params.time_or("start", Timestamp::MIN)?.millis();
    let max_time = params.time_or("end", Timestamp::MAX)?.millis();
    let any_of = match_params(&params).map_err(bad)?;
    let request = pb::LabelsRequest {
        tenant: tenant.as_str().to_owned(),
        name,
        any_of: rpc::convert::matcher_sets_to_pb(&any_of),
        min_time,
        max_time,
        limit,
        allow_partial: params.get("partial_response") == "true",
    };
    let response = names(gateway, request).await?;
    let mut warnings = missing_warnings(&response.missing);
    if response.is_truncated {
        warnings.push(TRUNCATED_WARNING.to_owned());
    }
    Ok(succeed(&response.values, &warnings))
}

/// Asks for the values of a label; for the names of labels where none is named.
pub(super) async fn names(
    gateway: &Gateway,
    request: pb::LabelsRequest,
) -> Result<pb::LabelsResponse, ApiError> {
    let wants_values = !request.name.is_empty();
    let ask = async |mut client: QuerierClient<Channel>, request| {
        if wants_values { client.label_values(request).await } else { client.label_names(request).await }
    };
    let response = gateway.peers.ask_querier(request, LOOKUP_DEADLINE, ask).await;
    Ok(response.map_err(|s| from_status(&s))?.into_inner())
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
    if params.checked()?.all("match[]").next().is_none() {
        return Err(ApiError::new(ErrorType::BadData, "no match[] parameter provided"));
    }
    let limit = params.limit("limit")?;
    let min_time = params.time_or("start", Timestamp::MIN)?.millis();
    let max_time = params.time_or("end", Timestamp::MAX)?.millis();
    let any_of = match_params(&params).map_err(|e| ApiError::parameter("match[]", e))?;
    let request = pb::SeriesRequest {
        tenant: tenant.as_str().to_owned(),
        any_of: rpc::convert::matcher_sets_to_pb(&any_of),
        min_time,
        max_time,
        limit,
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
