//! `/api/v1/search/...`: names and values that fit what somebody types, as lines of JSON; on with `search-api`.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::convert::Infallible;
use std::iter::once;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use futures::stream;
use http::header;
use http_api::{ApiError, ErrorType, Params};
use model::number::Quoted;
use rpc::pb::querier as pb;
use serde::{Serialize, Serializer};

use super::series::names;
use super::targets::{Entry, first_entries};
use super::{Form, bad, fail, match_params, missing_warnings};
use crate::gateway::Gateway;
use crate::search::{Algorithm, Search};

/// The feature that switches it on.
pub(super) const FEATURE: &str = "search-api";
/// Most terms of a request.
const TERMS_MAX: usize = 32;
/// Results without a limit, and results in a line without a wish.
const RESULTS_DEFAULT: usize = 100;
/// Most results in a line.
const BATCH_MAX: usize = 10_000;
/// How far a search looks back without a start, in milliseconds.
const BACK_MS: i64 = 3_600_000;

/// `GET|POST /api/v1/search/metric_names`.
pub(super) async fn metric_names(State(gateway): State<Arc<Gateway>>, form: Form) -> Response {
    run(&gateway, &form, What::Metrics).await.unwrap_or_else(fail)
}

/// `GET|POST /api/v1/search/label_names`.
pub(super) async fn label_names(State(gateway): State<Arc<Gateway>>, form: Form) -> Response {
    run(&gateway, &form, What::Labels).await.unwrap_or_else(fail)
}

/// `GET|POST /api/v1/search/label_values`.
pub(super) async fn label_values(State(gateway): State<Arc<Gateway>>, form: Form) -> Response {
    run(&gateway, &form, What::Values).await.unwrap_or_else(fail)
}

/// What is searched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Metrics,
    Labels,
    Values,
}

impl What {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Metrics => "metric_names",
            Self::Labels => "label_names",
            Self::Values => "label_values",
        }
    }
}

/// How results are ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Up,
    Down,
    /// The best first.
    Score,
}

/// What is wanted of what is found.
#[derive(Debug)]
struct Wanted {
    search: Search,
    order: Order,
    limit: usize,
    batch: usize,
    with_score: bool,
    with_metadata: bool,
}

impl Wanted {
    fn read(params: &Params, what: What, results_max: usize) -> Result<Self, ApiError> {
        let terms = params.all("search[]").count();
        if terms > TERMS_MAX {
            return Err(bad(format!("too many search[] terms: got {terms}, maximum is {TERMS_MAX}")));
        }
        let invalid = |name: &str, want: &str| {
            bad(format!("invalid {name} {}: must be {want}", Quoted(params.get(name))))
        };
        let threshold = match params.get("fuzz_threshold") {
            "" => 0,
            text => text
                .parse()
                .ok()
                .filter(|n: &u8| *n <= 100)
                .ok_or_else(|| invalid("fuzz_threshold", "0-100"))?,
        };
        let algorithm = match params.get("fuzz_alg") {
            "" | "subsequence" => Algorithm::Subsequence,
            "jarowinkler" => Algorithm::JaroWinkler,
            other => {
                let one_of = "must be one of [subsequence jarowinkler]";
                return Err(bad(format!("unsupported fuzz_alg {}: {one_of}", Quoted(other))));
            }
        };
        let flag = |name: &str, default| match params.get(name) {
            "" => Ok(default),
            text => super::admin::parse_bool(text).ok_or_else(|| invalid(name, "boolean")),
        };
        let count = |name: &str, default| match params.get(name) {
            "" => Ok(default),
            text => text.parse().ok().filter(|n| *n > 0).ok_or_else(|| invalid(name, "positive integer")),
        };
        let most = if results_max == 0 { usize::MAX } else { results_max };
        let limit = count("limit", RESULTS_DEFAULT.min(most))?;
        if limit > most {
            return Err(bad(format!(
                "limit {limit} exceeds the configured maximum ({most}, see --web.search.max-limit)"
            )));
        }
        let batch = count("batch_size", RESULTS_DEFAULT)?;
        if batch > BATCH_MAX {
            return Err(bad(format!("batch_size {batch} exceeds maximum {BATCH_MAX}")));
        }
        let is_case_sensitive = flag("case_sensitive", true)?;
        Ok(Self {
            search: Search::new(
                params.all("search[]"),
                algorithm,
                f64::from(threshold) / 100.0,
                is_case_sensitive,
            ),
            order: order(params, what, terms > 0)?,
            limit,
            batch: batch.min(limit),
            with_score: flag("include_score", false)?,
            with_metadata: what == What::Metrics && flag("include_metadata", false)?,
        })
    }

    /// Takes the best names as they are wanted; says whether there are more.
    fn choose(&self, names: Vec<String>) -> (Vec<(String, f64)>, bool) {
        let scored = names.into_iter().filter_map(|name| Some((self.search.score(&name)?, name)));
        let mut found: Vec<(String, f64)> = scored.map(|(score, name)| (name, score)).collect();
        found.sort_unstable_by(|(a, a_score), (b, b_score)| match self.order {
            Order::Up => a.cmp(b),
            Order::Down => b.cmp(a),
            Order::Score => b_score.partial_cmp(a_score).unwrap_or(Ordering::Equal).then_with(|| a.cmp(b)),
        });
        let has_more = found.len() > self.limit;
        found.truncate(self.limit);
        (found, has_more)
    }
}

fn order(params: &Params, what: What, has_terms: bool) -> Result<Order, ApiError> {
    let direction = params.get("sort_dir");
    match params.get("sort_by") {
        "" if !direction.is_empty() => Err(bad("sort_dir is only valid when sort_by is set".to_owned())),
        "score" if !direction.is_empty() => {
            Err(bad("sort_dir is not supported for sort_by=score".to_owned()))
        }
        "score" if !has_terms => Err(bad("sort_by=score requires search[] to be set".to_owned())),
        "score" => Ok(Order::Score),
        "" | "alpha" => match direction {
            "" | "asc" => Ok(Order::Up),
            "dsc" => Ok(Order::Down),
            other => Err(bad(format!("invalid sort_dir {}: must be \"asc\" or \"dsc\"", Quoted(other)))),
        },
        other => {
            let (what, other) = (what.as_str(), Quoted(other));
            Err(bad(format!("invalid sort_by {other} for {what}: must be \"alpha\" or \"score\"")))
        }
    }
}

async fn run(gateway: &Gateway, form: &Form, what: What) -> Result<Response, ApiError> {
    if !gateway.config.features.iter().any(|feature| feature == FEATURE) {
        return Err(ApiError::new(ErrorType::Unavailable, "search API disabled"));
    }
    let Form { params, tenant } = form;
    let now = gateway.clock.now();
    let start = params.time_or("start", now.add_ms(-BACK_MS))?;
    let end = params.time_or("end", now)?;
    if end < start {
        return Err(bad("end timestamp must not be before start timestamp".to_owned()));
    }
    let any_of = match_params(params.checked()?).map_err(bad)?;
    let wanted = Wanted::read(params, what, gateway.config.search_results_max)?;
    let label = match what {
        What::Metrics => model::labels::METRIC_NAME,
        What::Labels => "",
        What::Values => params.get("label"),
    };
    if what == What::Values && label.is_empty() {
        return Err(bad("missing required parameter \"label\"".to_owned()));
    }
    let request = pb::LabelsRequest {
        tenant: tenant.as_str().to_owned(),
        name: label.to_owned(),
        any_of: rpc::convert::matcher_sets_to_pb(&any_of),
        min_time: start.millis(),
        max_time: end.millis(),
        limit: 0,
        allow_partial: params.get("partial_response") == "true",
    };
    let found = names(gateway, request).await?;
    let warnings = missing_warnings(&found.missing);
    // Of millions of names it takes its time.
    let chosen = tokio::task::spawn_blocking(move || (wanted.choose(found.values), wanted)).await;
    let ((found, has_more), wanted) =
        chosen.map_err(|e| ApiError::new(ErrorType::Internal, e.to_string()))?;
    let metadata = if wanted.with_metadata && !found.is_empty() {
        first_entries(gateway).await?
    } else {
        HashMap::new()
    };
    Ok(lines(what, &wanted, &found, &metadata, &warnings, has_more))
}

/// One result.
#[derive(Debug, Serialize)]
struct Found {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "as_go_writes")]
    score: Option<f64>,
    #[serde(flatten)]
    metadata: Option<Entry>,
}

/// Go writes a whole number without a point; the one whole score is 1.
fn as_go_writes<S: Serializer>(score: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
    match score {
        Some(1.0) => serializer.serialize_u8(1),
        score => score.serialize(serializer),
    }
}

/// A line of results.
#[derive(Debug, Serialize)]
struct Batch<'a> {
    results: Vec<Found>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    warnings: &'a [String],
}

/// The last line.
#[derive(Debug, Serialize)]
struct End {
    status: &'static str,
    has_more: bool,
}

/// Writes a line for each batch, one at least, and one that says how it ended.
fn lines(
    what: What,
    wanted: &Wanted,
    found: &[(String, f64)],
    metadata: &HashMap<String, Entry>,
    warnings: &[String],
    has_more: bool,
) -> Response {
    let shown = |(text, score): &(String, f64)| {
        let is_value = what == What::Values;
        let of = |wants_value: bool| (is_value == wants_value).then(|| text.clone());
        let score = wanted.with_score.then_some(*score);
        Found { name: of(false), value: of(true), score, metadata: metadata.get(text).cloned() }
    };
    let mut batches = found.chunks(wanted.batch).map(|batch| batch.iter().map(shown).collect());
    let first: Vec<Found> = batches.next().unwrap_or_default();
    let first = http_api::json::line(&Batch { results: first, warnings });
    let rest = batches.map(|results| http_api::json::line(&Batch { results, warnings: &[] }));
    let end = http_api::json::line(&End { status: "success", has_more });
    let all: Vec<Result<Vec<u8>, Infallible>> = once(first).chain(rest).chain(once(end)).map(Ok).collect();
    let content_type = [(header::CONTENT_TYPE, "application/x-ndjson; charset=utf-8")];
    (content_type, Body::from_stream(stream::iter(all))).into_response()
}
