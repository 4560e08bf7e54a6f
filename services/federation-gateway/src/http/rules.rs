//! `/api/v1/rules`, `/api/v1/alerts` and `/api/v1/alertmanagers`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http_api::{ApiError, ErrorType, Params};
use model::number::Quoted;
use model::{Labels, Matcher, Timestamp};
use rpc::pb::{discovery, querier as pb};
use serde::Serialize;
use serde_json::json;

use super::series::LabelSet;
use super::targets::rfc3339;
use super::{Form, bad, fail, from_status, match_params, succeed};
use crate::gateway::Gateway;
use crate::peers::LOOKUP_DEADLINE;

/// Seconds as Go's JSON has them: without a fraction where there is none.
#[derive(Debug, Clone, Copy)]
struct Seconds(f64);

impl Serialize for Seconds {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        /// Up to here every whole float is an integer.
        const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;
        if self.0.fract() == 0.0 && self.0.abs() <= WHOLE_MAX {
            #[expect(clippy::cast_possible_truncation, reason = "whole, and in range")]
            return serializer.serialize_i64(self.0 as i64);
        }
        serializer.serialize_f64(self.0)
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Groups {
    groups: Vec<Group>,
    #[serde(skip_serializing_if = "String::is_empty")]
    group_next_token: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Group {
    name: String,
    file: String,
    rules: Vec<Rule>,
    interval: Seconds,
    limit: u64,
    evaluation_time: Seconds,
    last_evaluation: String,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Rule {
    Alerting(AlertingRule),
    Recording(RecordingRule),
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct AlertingRule {
    state: &'static str,
    name: String,
    query: String,
    duration: Seconds,
    keep_firing_for: Seconds,
    labels: LabelSet,
    annotations: LabelSet,
    /// Null where they are not wanted, as in Prometheus.
    alerts: Option<Vec<Alert>>,
    health: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    last_error: String,
    evaluation_time: Seconds,
    last_evaluation: String,
    r#type: &'static str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct RecordingRule {
    name: String,
    query: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    labels: Option<LabelSet>,
    health: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    last_error: String,
    evaluation_time: Seconds,
    last_evaluation: String,
    r#type: &'static str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Alert {
    labels: LabelSet,
    annotations: LabelSet,
    state: &'static str,
    active_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    keep_firing_since: Option<String>,
    value: String,
}

/// Which rules are wanted.
#[derive(Debug)]
struct Filter {
    alerting: bool,
    recording: bool,
    names: BTreeSet<String>,
    groups: BTreeSet<String>,
    files: BTreeSet<String>,
    any_of: Vec<Vec<Matcher>>,
    exclude_alerts: bool,
}

/// Which part of the groups is wanted.
#[derive(Debug)]
struct Page {
    /// Most groups; none is no limit.
    limit: Option<usize>,
    /// The token of the first; empty for the beginning.
    token: String,
}

/// `GET /api/v1/rules`.
pub(super) async fn rules(State(gateway): State<Arc<Gateway>>, form: Form) -> Response {
    let list = async {
        let (filter, page) = (filter(&form.params)?, page(&form.params)?);
        select(groups(&gateway).await?, &filter, &page)
    };
    list.await.map_or_else(fail, |groups| succeed(&groups, &[]))
}

/// `GET /api/v1/alerts`.
pub(super) async fn alerts(State(gateway): State<Arc<Gateway>>, _: Form) -> Response {
    let list = async {
        let groups = groups(&gateway).await?;
        let rules = groups.into_iter().flat_map(|group| group.rules);
        let alerts = rules.filter_map(|rule| rule.alerting).flat_map(|alerting| alerting.alerts);
        alerts.map(alert).collect::<Result<Vec<_>, _>>()
    };
    list.await.map_or_else(fail, |alerts| succeed(&json!({ "alerts": alerts }), &[]))
}

/// `GET /api/v1/alertmanagers`.
pub(super) async fn alertmanagers(State(gateway): State<Arc<Gateway>>, _: Form) -> Response {
    let request = rpc::with_deadline(discovery::AlertmanagersRequest {}, LOOKUP_DEADLINE);
    let found = match gateway.peers.discovery().alertmanagers(request).await {
        Ok(found) => found.into_inner(),
        Err(status) => return fail(from_status(&status)),
    };
    let shown = |urls: Vec<String>| -> Vec<_> { urls.into_iter().map(|url| json!({ "url": url })).collect() };
    let data = json!({
        "activeAlertmanagers": shown(found.active),
        "droppedAlertmanagers": shown(found.dropped),
    });
    succeed(&data, &[])
}

/// The groups of all queriers by file and name. One that has just changed hands may be told twice: the later counts.
async fn groups(gateway: &Gateway) -> Result<Vec<pb::RuleGroup>, ApiError> {
    let mut all: BTreeMap<(String, String), pb::RuleGroup> = BTreeMap::new();
    for mut client in gateway.peers.queriers().map_err(|s| from_status(&s))? {
        let asked = client.rules(rpc::with_deadline(pb::RulesRequest {}, LOOKUP_DEADLINE)).await;
        let mut messages = asked.map_err(|s| from_status(&s))?.into_inner();
        while let Some(message) = messages.message().await.map_err(|s| from_status(&s))? {
            for group in message.groups {
                let key = (group.file.clone(), group.name.clone());
                let is_newer =
                    all.get(&key).is_none_or(|known| known.last_evaluation < group.last_evaluation);
                if is_newer {
                    all.insert(key, group);
                }
            }
        }
    }
    Ok(all.into_values().collect())
}

fn filter(params: &Params) -> Result<Filter, ApiError> {
    // First, as in Prometheus.
    let any_of = match_params(params.checked()?).map_err(bad)?;
    let kind = params.get("type").to_ascii_lowercase();
    if !matches!(kind.as_str(), "" | "alert" | "record") {
        return Err(ApiError::parameter("type", format!("not supported value {}", Quoted(&kind))));
    }
    let set = |name| params.all(name).map(str::to_owned).collect();
    let exclude_alerts = match params.get("exclude_alerts") {
        "" | "0" | "f" | "F" | "false" | "False" | "FALSE" => false,
        "1" | "t" | "T" | "true" | "True" | "TRUE" => true,
        other => {
            let cause = format!(
                "error converting exclude_alerts: strconv.ParseBool: parsing {}: invalid syntax",
                Quoted(other)
            );
            return Err(ApiError::parameter("exclude_alerts", cause));
        }
    };
    Ok(Filter {
        alerting: kind != "record",
        recording: kind != "alert",
        names: set("rule_name[]"),
        groups: set("rule_group[]"),
        files: set("file[]"),
        any_of,
        exclude_alerts,
    })
}

fn page(params: &Params) -> Result<Page, ApiError> {
    let (limit, token) = (params.get("group_limit"), params.get("group_next_token"));
    if limit.is_empty() {
        if !token.is_empty() {
            let cause = "group_limit needs to be present in order to paginate over the groups";
            return Err(ApiError::parameter("group_next_token", cause));
        }
        return Ok(Page { limit: None, token: String::new() });
    }
    let Ok(number) = limit.parse::<i32>() else {
        let cause = format!(
            "group_limit needs to be a valid number: strconv.ParseInt: parsing {}: invalid syntax",
            Quoted(limit)
        );
        return Err(ApiError::parameter("group_limit", cause));
    };
    match usize::try_from(number) {
        Ok(limit) if limit > 0 => Ok(Page { limit: Some(limit), token: token.to_owned() }),
        _ => Err(ApiError::parameter("group_limit", "group_limit needs to be greater than 0")),
    }
}

/// What a page of groups begins with.
fn token(group: &pb::RuleGroup) -> String {
    let name = format!("{};{}", group.file, group.name);
    let digest = ring::digest::digest(&ring::digest::SHA256, name.as_bytes());
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn select(groups: Vec<pb::RuleGroup>, filter: &Filter, page: &Page) -> Result<Groups, ApiError> {
    let mut selected = Groups { groups: Vec::new(), group_next_token: String::new() };
    let mut has_begun = page.token.is_empty();
    let is_in = |set: &BTreeSet<String>, name: &String| set.is_empty() || set.contains(name);
    for group in groups {
        has_begun = has_begun || token(&group) == page.token;
        if !has_begun || !is_in(&filter.groups, &group.name) || !is_in(&filter.files, &group.file) {
            continue;
        }
        let next = token(&group);
        let shown = group_shown(group, filter)?;
        if shown.rules.is_empty() {
            continue;
        }
        if page.limit == Some(selected.groups.len()) {
            selected.group_next_token = next;
            break;
        }
        selected.groups.push(shown);
    }
    if !has_begun {
        let cause = format!("invalid group_next_token '{}'. were rule groups changed?", page.token);
        return Err(ApiError::parameter("group_next_token", cause));
    }
    Ok(selected)
}

#[expect(clippy::cast_precision_loss, reason = "shown in seconds")]
fn seconds(ms: u64) -> Seconds {
    Seconds(ms as f64 / 1000.0)
}

fn group_shown(group: pb::RuleGroup, filter: &Filter) -> Result<Group, ApiError> {
    let mut rules = Vec::new();
    for rule in group.rules {
        let is_wanted = if rule.alerting.is_some() { filter.alerting } else { filter.recording };
        if is_wanted && (filter.names.is_empty() || filter.names.contains(&rule.name)) {
            rules.extend(rule_shown(rule, filter)?);
        }
    }
    Ok(Group {
        name: group.name,
        file: group.file,
        rules,
        interval: seconds(group.interval_ms),
        limit: group.limit,
        evaluation_time: Seconds(group.evaluation_seconds),
        last_evaluation: rfc3339(Timestamp(group.last_evaluation)),
    })
}

/// A rule as it is shown; none when its labels are not wanted.
fn rule_shown(rule: pb::Rule, filter: &Filter) -> Result<Option<Rule>, ApiError> {
    let labels = labels(rule.labels.as_ref())?;
    let accepts = |set: &Vec<Matcher>| Matcher::all_match(set, &labels);
    if !filter.any_of.is_empty() && !filter.any_of.iter().any(accepts) {
        return Ok(None);
    }
    let health = match rule.health() {
        pb::RuleHealth::Unspecified => "unknown",
        pb::RuleHealth::Ok => "ok",
        pb::RuleHealth::Error => "err",
    };
    let last_evaluation = rfc3339(Timestamp(rule.last_evaluation));
    let Some(alerting) = rule.alerting else {
        return Ok(Some(Rule::Recording(RecordingRule {
            name: rule.name,
            query: rule.query,
            labels: (!labels.is_empty()).then_some(LabelSet(labels)),
            health,
            last_error: rule.last_error,
            evaluation_time: Seconds(rule.evaluation_seconds),
            last_evaluation,
            r#type: "recording",
        })));
    };
    Ok(Some(Rule::Alerting(AlertingRule {
        state: state(alerting.state()),
        name: rule.name,
        query: rule.query,
        duration: seconds(alerting.hold_ms),
        keep_firing_for: seconds(alerting.keep_firing_ms),
        labels: LabelSet(labels),
        annotations: LabelSet(self::labels(alerting.annotations.as_ref())?),
        alerts: if filter.exclude_alerts {
            None
        } else {
            Some(alerting.alerts.into_iter().map(alert).collect::<Result<_, _>>()?)
        },
        health,
        last_error: rule.last_error,
        evaluation_time: Seconds(rule.evaluation_seconds),
        last_evaluation,
        r#type: "alerting",
    })))
}

fn labels(message: Option<&rpc::pb::model::Labels>) -> Result<Labels, ApiError> {
    rpc::convert::labels(message).map_err(|e| ApiError::new(ErrorType::Internal, e.to_string()))
}

const fn state(state: pb::AlertState) -> &'static str {
    match state {
        pb::AlertState::Unspecified => "inactive",
        pb::AlertState::Pending => "pending",
        pb::AlertState::Firing => "firing",
    }
}

fn alert(alert: pb::Alert) -> Result<Alert, ApiError> {
    Ok(Alert {
        state: state(alert.state()),
        labels: LabelSet(labels(alert.labels.as_ref())?),
        annotations: LabelSet(labels(alert.annotations.as_ref())?),
        active_at: rfc3339(Timestamp(alert.active_at)),
        keep_firing_since: alert.keep_firing_since.map(|t| rfc3339(Timestamp(t))),
        value: exponent(alert.value),
    })
}

/// A float as Go's `'e'` with the fewest digits prints it.
fn exponent(x: f64) -> String {
    if !x.is_finite() {
        return model::number::format_general(x);
    }
    let text = format!("{x:e}");
    let (mantissa, power) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, digits) = power.strip_prefix('-').map_or(('+', power), |digits| ('-', digits));
    format!("{mantissa}e{sign}{digits:0>2}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(query: &str) -> Params {
        let mut params = Params::default();
        params.add_encoded(query.as_bytes()).expect("a query");
        params
    }

    fn group(file: &str, name: &str, rules: &[(&str, bool)]) -> pb::RuleGroup {
        let rule = |(name, is_alert): &(&str, bool)| pb::Rule {
            name: (*name).to_owned(),
            query: "up".to_owned(),
            labels: Some((&Labels::from_pairs([("l", *name)])).into()),
            health: pb::RuleHealth::Ok.into(),
            alerting: is_alert.then(|| pb::AlertingRule {
                hold_ms: 1_500,
                state: pb::AlertState::Firing.into(),
                alerts: vec![pb::Alert {
                    state: pb::AlertState::Firing.into(),
                    value: 12.5,
                    active_at: 1_500,
                    ..Default::default()
                }],
                ..Default::default()
            }),
            ..Default::default()
        };
        pb::RuleGroup {
            file: file.to_owned(),
            name: name.to_owned(),
            interval_ms: 15_000,
            rules: rules.iter().map(rule).collect(),
            ..Default::default()
        }
    }

    fn all() -> Vec<pb::RuleGroup> {
        vec![
            group("a", "x", &[("r1", false), ("A1", true)]),
            group("a", "y", &[("r2", false)]),
            group("b", "x", &[("A2", true)]),
            group("b", "z", &[]),
        ]
    }

    /// The rules that a query selects, as `file/group/rule`, and the token of the next page.
    fn asked(query: &str) -> Result<(Vec<String>, String), String> {
        let params = params(query);
        let selected = filter(&params)
            .and_then(|filter| select(all(), &filter, &page(&params)?))
            .map_err(|error| error.message.clone())?;
        let name = |rule: &Rule| match rule {
            Rule::Alerting(rule) => rule.name.clone(),
            Rule::Recording(rule) => rule.name.clone(),
        };
        let of = |g: &Group| {
            g.rules.iter().map(|r| format!("{}/{}/{}", g.file, g.name, name(r))).collect::<Vec<_>>()
        };
        Ok((selected.groups.iter().flat_map(of).collect(), selected.group_next_token))
    }

    #[test]
    fn filters_choose_rules_and_groups_without_any_are_left_out() {
        for (query, expected) in [
            ("", vec!["a/x/r1", "a/x/A1", "a/y/r2", "b/x/A2"]),
            ("type=alert", vec!["a/x/A1", "b/x/A2"]),
            ("type=Record", vec!["a/x/r1", "a/y/r2"]),
            ("rule_name[]=A2&rule_name[]=r1", vec!["a/x/r1", "b/x/A2"]),
            ("rule_group[]=x", vec!["a/x/r1", "a/x/A1", "b/x/A2"]),
            ("file[]=b&file[]=c", vec!["b/x/A2"]),
            ("match[]={l=~\"r.\"}&match[]={l=\"A2\"}", vec!["a/x/r1", "a/y/r2", "b/x/A2"]),
        ] {
            assert_eq!(asked(query).expect(query).0, expected, "{query}");
        }
    }

    #[test]
    fn pages_go_on_where_the_last_one_ended() {
        // printf 'b;x' | sha256sum
        let of_b_x = "1c425c0b70440d64868d2bb0ba823af318b92b5aab4269c8f9607f96f7c9775e";
        let (first, next) = asked("group_limit=2").expect("a page");
        assert_eq!(first, ["a/x/r1", "a/x/A1", "a/y/r2"]);
        assert_eq!(next, of_b_x);
        let (rest, end) = asked(&format!("group_limit=2&group_next_token={next}")).expect("a page");
        assert_eq!((rest, end.as_str()), (vec!["b/x/A2".to_owned()], ""));
    }

    #[test]
    fn wrong_parameters_are_told_as_prometheus_tells_them() {
        for (query, expected) in [
            ("type=x", "invalid parameter \"type\": not supported value \"x\""),
            ("group_limit=0", "invalid parameter \"group_limit\": group_limit needs to be greater than 0"),
            (
                "group_next_token=x",
                "invalid parameter \"group_next_token\": group_limit needs to be present in order to paginate over the groups",
            ),
            (
                "group_limit=1&group_next_token=x",
                "invalid parameter \"group_next_token\": invalid group_next_token 'x'. were rule groups changed?",
            ),
            (
                "exclude_alerts=maybe",
                "invalid parameter \"exclude_alerts\": error converting exclude_alerts: strconv.ParseBool: parsing \"maybe\": invalid syntax",
            ),
            ("match[]={l=~\".*\"}", "match[] must contain at least one non-empty matcher"),
        ] {
            assert_eq!(asked(query).expect_err(query), expected, "{query}");
        }
    }

    #[test]
    fn rules_and_alerts_show_as_in_prometheus() {
        let shown = select(
            all(),
            &filter(&params("rule_group[]=x&file[]=a")).expect("a filter"),
            &page(&params("")).expect("a page"),
        );
        let text = serde_json::to_string(&shown.expect("selected")).expect("JSON");
        let expected = r#"{"groups":[{"name":"x","file":"a","rules":[{"name":"r1","query":"up","labels":{"l":"r1"},"health":"ok","evaluationTime":0,"lastEvaluation":"0001-01-01T00:00:00Z","type":"recording"},{"state":"firing","name":"A1","query":"up","duration":1.5,"keepFiringFor":0,"labels":{"l":"A1"},"annotations":{},"alerts":[{"labels":{},"annotations":{},"state":"firing","activeAt":"1970-01-01T00:00:01.5Z","value":"1.25e+01"}],"health":"ok","evaluationTime":0,"lastEvaluation":"0001-01-01T00:00:00Z","type":"alerting"}],"interval":15,"limit":0,"evaluationTime":0,"lastEvaluation":"0001-01-01T00:00:00Z"}]}"#;
        assert_eq!(text, expected);
        let without = filter(&params("exclude_alerts=true&rule_group[]=x&file[]=b")).expect("a filter");
        let shown = select(all(), &without, &page(&params("")).expect("a page")).expect("selected");
        let Rule::Alerting(rule) = &shown.groups[0].rules[0] else { panic!("an alert") };
        assert!(rule.alerts.is_none() && rule.state == "firing");
    }
}
