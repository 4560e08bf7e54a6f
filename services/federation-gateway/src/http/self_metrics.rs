//! `/api/v1/status/self_metrics`: the program's own metrics, as `/metrics` has them, in the JSON form of Prometheus's
//! messages.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use exposition::{Entry, Parser};
use http_api::{ApiError, ErrorType};
use model::MetricType;
use model::matcher::Pattern;
use serde::{Serialize, Serializer};

use super::{Form, fail, succeed};
use crate::gateway::Gateway;

/// `GET /api/v1/status/self_metrics`: those whose names match a pattern as a whole, where one is given.
pub(super) async fn metrics(State(gateway): State<Arc<Gateway>>, form: Form) -> Response {
    list(&gateway, &form).map_or_else(fail, |families| succeed(&families, &[]))
}

fn list(gateway: &Gateway, form: &Form) -> Result<Vec<Family>, ApiError> {
    let pattern = match form.params.get("metric_name_pattern") {
        "" => None,
        text => Some(Pattern::new(text).map_err(|e| ApiError::parameter("metric_name_pattern", e))?),
    };
    let failed = |error: String| ApiError::new(ErrorType::Internal, error);
    let text = gateway.registry.encode().map_err(|e| failed(e.to_string()))?;
    let mut families = families(&text).map_err(|e| failed(e.to_string()))?;
    families.retain(|family| pattern.as_ref().is_none_or(|pattern| pattern.is_match(&family.name)));
    Ok(families)
}

#[derive(Debug, Serialize)]
struct Family {
    name: String,
    help: String,
    r#type: &'static str,
    metric: Vec<Metric>,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Metric {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    label: Vec<Label>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gauge: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    counter: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    summary: Option<Parts>,
    #[serde(skip_serializing_if = "Option::is_none")]
    histogram: Option<Parts>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Label {
    name: String,
    value: String,
}

#[derive(Debug, Serialize)]
struct Value {
    value: Double,
}

/// A summary has quantiles, a histogram buckets. Counts are texts, as all 64-bit integers in this form.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Parts {
    sample_count: String,
    sample_sum: Double,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    quantile: Vec<Quantile>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    bucket: Vec<Bucket>,
}

#[derive(Debug, Serialize)]
struct Quantile {
    quantile: Double,
    value: Double,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Bucket {
    cumulative_count: String,
    upper_bound: Double,
}

/// Whole numbers have no point, and what is no number is a text.
#[derive(Debug, Default, Clone, Copy)]
struct Double(f64);

impl Serialize for Double {
    #[expect(clippy::cast_possible_truncation, reason = "checked to be a small integer")]
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            x if x.is_nan() => serializer.serialize_str("NaN"),
            f64::INFINITY => serializer.serialize_str("Infinity"),
            f64::NEG_INFINITY => serializer.serialize_str("-Infinity"),
            x if x.fract() == 0.0 && x.abs() < 1e15 => serializer.serialize_i64(x as i64),
            x => serializer.serialize_f64(x),
        }
    }
}

/// Reads the text of `/metrics`; by name. There are counters, gauges, facts (as gauges of 1), summaries
/// and histograms.
fn families(text: &str) -> exposition::Result<Vec<Family>> {
    let (mut help, mut kinds) = (HashMap::new(), HashMap::new());
    let mut all: BTreeMap<String, Family> = BTreeMap::new();
    let mut current = String::new();
    for entry in Parser::open_metrics(text.as_bytes()) {
        match entry? {
            Entry::Type { name, kind } => {
                current = name.clone().into_owned();
                kinds.insert(name, kind);
            }
            Entry::Help { name, help: text } => drop(help.insert(name, text)),
            Entry::Unit { .. } | Entry::Comment(_) => {}
            Entry::Sample(sample) => {
                let kind = kinds.get(current.as_str()).copied().unwrap_or_default();
                let series = sample.series.metric_name().into_owned();
                let (name, r#type) = match kind {
                    MetricType::Histogram => (current.clone(), "HISTOGRAM"),
                    MetricType::Summary => (current.clone(), "SUMMARY"),
                    MetricType::Counter => (series.clone(), "COUNTER"),
                    _ => (series.clone(), "GAUGE"),
                };
                let help = help.get(current.as_str()).map(ToString::to_string).unwrap_or_default();
                let family = all.entry(name.clone()).or_insert_with(|| Family {
                    name,
                    help,
                    r#type,
                    metric: Vec::new(),
                });
                let labels = sample.series.labels();
                let mut label: Vec<Label> = labels
                    .filter(|(name, _)| name != model::labels::METRIC_NAME)
                    .map(|(name, value)| Label { name: name.into_owned(), value: value.into_owned() })
                    .collect();
                label.sort_by(|a, b| a.name.cmp(&b.name));
                let value = Double(sample.value);
                match kind {
                    MetricType::Histogram | MetricType::Summary => {
                        family.add_part(kind, &series, label, value);
                    }
                    MetricType::Counter => {
                        family.metric.push(Metric {
                            label,
                            counter: Some(Value { value }),
                            ..Metric::default()
                        });
                    }
                    _ => family.metric.push(Metric {
                        label,
                        gauge: Some(Value { value }),
                        ..Metric::default()
                    }),
                }
            }
        }
    }
    Ok(all.into_values().collect())
}

impl Family {
    /// Adds a series of a histogram or a summary; those of one stand beside each other.
    fn add_part(&mut self, kind: MetricType, series: &str, mut label: Vec<Label>, value: Double) {
        let is_summary = kind == MetricType::Summary;
        let name = if is_summary { "quantile" } else { "le" };
        let place = label.iter().position(|l| l.name == name).map(|i| label.remove(i).value);
        if self.metric.last().is_none_or(|last| last.label != label) {
            let [summary, histogram] = [is_summary, !is_summary].map(|is| is.then(Parts::default));
            self.metric.push(Metric { label, summary, histogram, ..Metric::default() });
        }
        let Some(last) = self.metric.last_mut() else { return };
        let Some(parts) = last.summary.as_mut().or(last.histogram.as_mut()) else { return };
        let count = format!("{}", value.0);
        let place = place.map(|place| Double(model::number::parse_float(&place).unwrap_or(f64::NAN)));
        match (series.strip_prefix(self.name.as_str()), place) {
            (Some("_sum"), _) => parts.sample_sum = value,
            (Some("_count"), _) => parts.sample_count = count,
            (_, Some(quantile)) if is_summary => parts.quantile.push(Quantile { quantile, value }),
            (_, Some(upper_bound)) => parts.bucket.push(Bucket { cumulative_count: count, upper_bound }),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_have_the_form_of_their_messages() {
        let text = "# HELP took_seconds Time.\n# TYPE took_seconds histogram\n\
                    took_seconds_sum{of=\"a\"} 2.5\ntook_seconds_count{of=\"a\"} 3\n\
                    took_seconds_bucket{le=\"1.0\",of=\"a\"} 2\ntook_seconds_bucket{le=\"+Inf\",of=\"a\"} 3\n\
                    took_seconds_sum{of=\"b\"} 0.0\ntook_seconds_count{of=\"b\"} 0\n\
                    took_seconds_bucket{le=\"+Inf\",of=\"b\"} 0\n\
                    # HELP done Things.\n# TYPE done counter\ndone_total 7\n\
                    # HELP built What.\n# TYPE built info\nbuilt_info{version=\"1\"} 1\n\
                    # HELP level How.\n# TYPE level gauge\nlevel{z=\"1\",a=\"2\"} NaN\n\
                    # HELP waited_seconds Idle.\n# TYPE waited_seconds summary\n\
                    waited_seconds{quantile=\"0.5\"} 0.25\nwaited_seconds{quantile=\"0.9\"} NaN\n\
                    waited_seconds_sum 1.5\nwaited_seconds_count 6\n# EOF\n";
        let found = families(text).expect("read");
        let shown = serde_json::to_string(&found).expect("JSON");
        let bucket =
            |count: &str, bound: &str| format!(r#"{{"cumulativeCount":"{count}","upperBound":{bound}}}"#);
        let histogram = |of: &str, count: &str, sum: &str, buckets: &[String]| {
            format!(
                r#"{{"label":[{{"name":"of","value":"{of}"}}],"histogram":{{"sampleCount":"{count}","sampleSum":{sum},"bucket":[{}]}}}}"#,
                buckets.join(",")
            )
        };
        let want = [
            r#"[{"name":"built_info","help":"What.","type":"GAUGE","metric":[{"label":[{"name":"version","value":"1"}],"gauge":{"value":1}}]}"#.to_owned(),
            r#"{"name":"done_total","help":"Things.","type":"COUNTER","metric":[{"counter":{"value":7}}]}"#.to_owned(),
            r#"{"name":"level","help":"How.","type":"GAUGE","metric":[{"label":[{"name":"a","value":"2"},{"name":"z","value":"1"}],"gauge":{"value":"NaN"}}]}"#.to_owned(),
            format!(
                r#"{{"name":"took_seconds","help":"Time.","type":"HISTOGRAM","metric":[{},{}]}}"#,
                histogram("a", "3", "2.5", &[bucket("2", "1"), bucket("3", "\"Infinity\"")]),
                histogram("b", "0", "0", &[bucket("0", "\"Infinity\"")]),
            ),
            r#"{"name":"waited_seconds","help":"Idle.","type":"SUMMARY","metric":[{"summary":{"sampleCount":"6","sampleSum":1.5,"quantile":[{"quantile":0.5,"value":0.25},{"quantile":0.9,"value":"NaN"}]}}]}]"#.to_owned(),
        ];
        assert_eq!(shown, want.join(","));
    }
}
