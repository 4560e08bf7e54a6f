//! `/api/v1/query_exemplars`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http_api::{ApiError, ErrorType};
use model::{Exemplar, Labels, Timestamp};
use rpc::Channel;
use rpc::pb::querier as pb;
use rpc::pb::querier::querier_client::QuerierClient;

use super::{Form, fail, from_status, json, missing_warnings};
use crate::gateway::Gateway;
use crate::peers::LOOKUP_DEADLINE;

/// `GET|POST /api/v1/query_exemplars`.
pub(super) async fn exemplars(State(gateway): State<Arc<Gateway>>, form: Form) -> Response {
    list(&gateway, form).await.unwrap_or_else(fail)
}

async fn list(gateway: &Gateway, form: Form) -> Result<Response, ApiError> {
    let Form { params, tenant } = form;
    let start = params.time_or("start", Timestamp::MIN)?;
    let end = params.time_or("end", Timestamp::MAX)?;
    if end < start {
        return Err(ApiError::new(ErrorType::BadData, "end timestamp must not be before start timestamp"));
    }
    let request = pb::ExemplarsRequest {
        tenant: tenant.as_str().to_owned(),
        query: params.get("query").to_owned(),
        min_time: start.millis(),
        max_time: end.millis(),
        allow_partial: params.get("partial_response") == "true",
    };
    let ask = async |mut client: QuerierClient<Channel>, request| client.exemplars(request).await;
    let response = gateway.peers.ask_querier(request, LOOKUP_DEADLINE, ask).await;
    let response = response.map_err(|s| from_status(&s))?.into_inner();
    if response.has_no_selector {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let all: rpc::Result<Vec<_>> = response.series.iter().map(of_series).collect();
    let all = all.map_err(|e| ApiError::new(ErrorType::Internal, e.to_string()))?;
    Ok(json(StatusCode::OK, http_api::json::exemplars(&all, &missing_warnings(&response.missing))))
}

fn of_series(message: &pb::SeriesExemplars) -> rpc::Result<(Labels, Vec<Exemplar>)> {
    let exemplars = message.exemplars.iter().map(Exemplar::try_from).collect::<rpc::Result<_>>()?;
    Ok((rpc::convert::labels(message.labels.as_ref())?, exemplars))
}
