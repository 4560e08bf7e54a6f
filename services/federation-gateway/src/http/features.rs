//! `GET /api/v1/features`: what a client may count on, by the names of Prometheus's `features.json`.
//!
//! A category or name that is not there is not built; clients take it for false.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use promql_syntax::{AggregateOp, BinaryOp, Function};

use super::succeed;
use crate::config::Config;
use crate::gateway::Gateway;

/// What matchers and modifiers add to the operators of the grammar.
const MORE_OPERATORS: [&str; 3] = ["=~", "!~", "@"];

/// `GET /api/v1/features`.
pub(super) async fn features(State(gateway): State<Arc<Gateway>>) -> Response {
    succeed(&all(&gateway.config), &[])
}

type Category = BTreeMap<&'static str, bool>;

fn all(config: &Config) -> BTreeMap<&'static str, Category> {
    let syntax = config.syntax();
    let is_on = |feature: &str| config.features.iter().any(|f| f == feature);
    let (range, fill) = (syntax.extended_range_selectors, syntax.fill_modifiers);
    let functions = Function::all().map(|f| (f.name, !f.is_experimental || syntax.experimental_functions));
    let binary = BinaryOp::ALL.iter().map(|op| (op.as_str(), true));
    let aggregate = AggregateOp::ALL
        .iter()
        .map(|op| (op.as_str(), !op.is_experimental() || syntax.experimental_functions));
    BTreeMap::from([
        (
            "api",
            Category::from([
                ("admin", config.enable_admin_api),
                ("label_values_match", true),
                ("lifecycle", config.enable_lifecycle),
                ("otlp_write_receiver", true),
                ("query_stats", true),
                ("query_warnings", true),
                ("remote_write_receiver", true),
                ("search", is_on(super::search::FEATURE)),
                ("search_fuzz_alg_jarowinkler", true),
                ("search_fuzz_alg_subsequence", true),
                ("time_range_labels", true),
                ("time_range_series", true),
            ]),
        ),
        ("otlp_receiver", Category::from([("delta_conversion", false), ("native_delta_ingestion", false)])),
        (
            "prometheus",
            Category::from([("agent_mode", false), ("auto_reload_config", false), ("server_mode", true)]),
        ),
        (
            "promql",
            Category::from([
                ("anchored", range),
                ("at_modifier", true),
                ("bool", true),
                ("by", true),
                ("delayed_name_removal", is_on("promql-delayed-name-removal")),
                ("duration_expr", syntax.duration_expressions),
                ("fill", fill),
                ("fill_left", fill),
                ("fill_right", fill),
                ("group_left", true),
                ("group_right", true),
                ("ignoring", true),
                ("negative_offset", true),
                ("offset", true),
                ("on", true),
                ("per_query_lookback_delta", true),
                ("per_step_stats", is_on("promql-per-step-stats")),
                ("smoothed", range),
                ("subqueries", true),
                ("type_and_unit_labels", is_on("type-and-unit-labels")),
                ("without", true),
            ]),
        ),
        ("promql_functions", functions.collect()),
        ("promql_operators", binary.chain(aggregate).chain(MORE_OPERATORS.map(|op| (op, true))).collect()),
        ("scrape", Category::from([("extra_scrape_metrics", true)])),
        (
            "service_discovery_providers",
            ["dns", "file", "http", "kubernetes", "static"].map(|provider| (provider, true)).into(),
        ),
        ("tsdb", Category::from([("exemplar_storage", true), ("native_histograms", true)])),
    ])
}
