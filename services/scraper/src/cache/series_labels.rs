//! From exposed labels to the labels of a series: the target's are added, relabelling runs, limits are checked.

use std::borrow::Cow;

use exposition::Series;
use model::labels::{METRIC_NAME, is_legacy_label_name, is_legacy_metric_name};
use model::{Labels, LabelsBuilder};
use relabel::NameValidation;

use crate::error::{Error, Result};
use crate::job::{LabelLimits, SampleRules};

/// Labels that one exposed series may have, whatever the job allows: taking them apart costs the square of it.
const LABELS_MAX: usize = 1_024;

/// Builds the labels of a series; `None` when relabelling drops it.
///
/// # Errors
/// What makes the whole scrape fail: a label twice, no name, a name that is not valid, a limit.
pub(super) fn series_labels(
    series: &Series<'_>,
    target: &Labels,
    rules: &SampleRules,
) -> Result<Option<Labels>> {
    let mut builder = LabelsBuilder::default();
    // Exposed with an empty value is not the same as not exposed: it hides the target's label under honor_labels.
    let mut exposed: Vec<Cow<'_, str>> = Vec::with_capacity(16);
    builder.set(METRIC_NAME, series.metric_name());
    for (name, value) in series.labels() {
        if exposed.contains(&name) || name == METRIC_NAME {
            return Err(exposition::Error::DuplicateLabel(name.into_owned()).into());
        }
        if exposed.len() == LABELS_MAX {
            let name = series.metric_name();
            return Err(Error::LabelLimit(format!("more than {LABELS_MAX} labels (metric: {name:.50})")));
        }
        builder.set(&*name, value);
        exposed.push(name);
    }
    add_target_labels(&mut builder, &exposed, target, rules.honor_labels);
    if !relabel::apply_to(&mut builder, &rules.relabel) {
        return Ok(None);
    }
    let labels = builder.build();
    if labels.is_empty() {
        return Ok(None);
    }
    check(&labels, rules)?;
    Ok(Some(labels))
}

fn add_target_labels(
    builder: &mut LabelsBuilder,
    exposed: &[Cow<'_, str>],
    target: &Labels,
    honor_labels: bool,
) {
    if honor_labels {
        for (name, value) in target {
            if !exposed.iter().any(|n| n == name) {
                builder.set(name, value);
            }
        }
        return;
    }
    let mut conflicts: Vec<(&str, String)> = Vec::new();
    for (name, value) in target {
        if let Some(hidden) = builder.get(name) {
            conflicts.push((name, hidden.to_owned()));
        }
        builder.set(name, value);
    }
    // The shortest name first, so that `exported_x` that is exposed and hidden itself moves on, not `x`.
    conflicts.sort_by_key(|(name, _)| name.len());
    for (name, hidden) in conflicts {
        let mut free = format!("exported_{name}");
        while builder.get(&free).is_some() {
            free.insert_str(0, "exported_");
        }
        builder.set(free, hidden);
    }
}

fn check(labels: &Labels, rules: &SampleRules) -> Result<()> {
    let name = labels.metric_name();
    if name.is_empty() {
        return Err(Error::NoName);
    }
    let is_valid = match rules.names {
        NameValidation::Utf8 => true,
        NameValidation::Legacy => {
            is_legacy_metric_name(name)
                && labels.iter().all(|(n, _)| n == METRIC_NAME || is_legacy_label_name(n))
        }
    };
    if !is_valid || labels.iter().any(|(n, _)| n.is_empty()) {
        return Err(Error::InvalidNames(labels.clone()));
    }
    check_limits(labels, name, rules.label_limits).map_err(Error::LabelLimit)
}

fn check_limits(labels: &Labels, metric: &str, limits: LabelLimits) -> std::result::Result<(), String> {
    let LabelLimits { count, name_len, value_len } = limits;
    let exceeds = |n: usize, limit: u64| limit > 0 && n as u64 > limit;
    if count > 0 {
        let n = labels.len();
        if exceeds(n, count) {
            return Err(format!(
                "label_limit exceeded (metric: {metric:.50}, number of labels: {n}, limit: {count})"
            ));
        }
    }
    if name_len == 0 && value_len == 0 {
        return Ok(());
    }
    for (name, value) in labels {
        let n = name.len();
        if exceeds(n, name_len) {
            return Err(format!(
                "label_name_length_limit exceeded (metric: {metric:.50}, label name: {name:.50}, length: {n}, \
                 limit: {name_len})"
            ));
        }
        let n = value.len();
        if exceeds(n, value_len) {
            let start: String = value.chars().take(50).collect();
            let start = model::number::Quoted(&start);
            return Err(format!(
                "label_value_length_limit exceeded (metric: {metric:.50}, label name: {name:.50}, value: {start}, \
                 length: {n}, limit: {value_len})"
            ));
        }
    }
    Ok(())
}
