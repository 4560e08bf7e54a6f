//! Alerts: what becomes of the elements of an alerting rule's result.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use model::labels::METRIC_NAME;
use model::query::VectorElement;
use model::{Labels, Timestamp};

use crate::file::{AlertSpec, RuleSpec};
use crate::template::{AlertData, Context};

/// The label that names an alert.
pub(crate) const ALERT_NAME: &str = "alertname";
/// The label of an alert's state.
const ALERT_STATE: &str = "alertstate";
/// The series of alerts.
pub(crate) const ALERTS: &str = "ALERTS";
/// The series that remembers since when alerts are active.
pub(crate) const ALERTS_FOR_STATE: &str = "ALERTS_FOR_STATE";
/// How long a resolved alert is kept, so that whoever missed it hears of it.
const RESOLVED_RETENTION_MS: i64 = 15 * 60 * 1_000;

/// How an alert is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AlertState {
    /// Its condition does not hold any more.
    Inactive,
    /// Its condition holds, but not for long enough.
    Pending,
    /// It fires.
    Firing,
}

impl AlertState {
    /// Returns the state's name in the API and in series.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Inactive => "inactive",
            Self::Pending => "pending",
            Self::Firing => "firing",
        }
    }
}

/// An alert.
#[derive(Debug, Clone, PartialEq)]
pub struct Alert {
    /// Its identity: the element's labels, and those that the rule sets.
    pub labels: Labels,
    /// What it says.
    pub annotations: Labels,
    /// How it is.
    pub state: AlertState,
    /// The element's value; 0 for a histogram.
    pub value: f64,
    /// Since when the condition holds.
    pub active_at: Timestamp,
    /// Since when it fires.
    pub fired_at: Option<Timestamp>,
    /// When it was resolved.
    pub resolved_at: Option<Timestamp>,
    /// Since when it fires only because `keep_firing_for` says so.
    pub keep_firing_since: Option<Timestamp>,
    /// When it was last sent.
    pub last_sent_at: Option<Timestamp>,
    /// Until when it stands without being sent again.
    pub valid_until: Timestamp,
}

impl Alert {
    /// Says whether the alert has to be sent, and if so takes note that it is.
    pub(crate) fn send(&mut self, at: Timestamp, resend_delay: Duration, interval: Duration) -> bool {
        let resolved_since =
            self.resolved_at.is_some_and(|at| self.last_sent_at.is_none_or(|sent| at > sent));
        let is_due = self.last_sent_at.is_none_or(|sent| sent.add_ms(ms(resend_delay)) < at);
        if self.state == AlertState::Pending || !(resolved_since || is_due) {
            return false;
        }
        self.last_sent_at = Some(at);
        // Two evaluations or attempts to send may fail.
        self.valid_until = at.add_ms(ms(resend_delay.max(interval)).saturating_mul(4));
        true
    }
}

pub(crate) fn ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// The alerts of one rule, by labels.
#[derive(Debug, Clone, Default)]
pub(crate) struct Alerts {
    pub(crate) active: BTreeMap<Labels, Alert>,
    /// The series of alerts are written: what they were before a restart is known.
    pub(crate) is_restored: bool,
    /// Since when alerts are active that another evaluator has had up to now.
    pub(crate) taken_over: HashMap<Labels, Timestamp>,
}

/// What the texts of an alert are made of beside its rule.
pub(crate) struct Surroundings<'a> {
    pub(crate) external_labels: &'a Labels,
    pub(crate) external_url: &'a str,
    pub(crate) limit: usize,
}

impl Alerts {
    /// Takes the result of the rule's expression and returns the series of alerts.
    pub(crate) fn update(
        &mut self,
        rule: &RuleSpec,
        spec: &AlertSpec,
        result: Vec<VectorElement>,
        at: Timestamp,
        (around, context): (&Surroundings<'_>, &mut dyn Context),
    ) -> Result<Vec<(Labels, f64)>, String> {
        let mut found: BTreeMap<Labels, Alert> = BTreeMap::new();
        let taken_over = std::mem::take(&mut self.taken_over);
        for element in result {
            let mut alert = new_alert(&rule.name, spec, &element, at, (around, &mut *context));
            if let Some(since) = taken_over.get(&alert.labels) {
                alert.active_at = *since;
            }
            if found.insert(alert.labels.clone(), alert).is_some() {
                return Err(
                    "vector contains metrics with the same labelset after applying alert labels".to_owned()
                );
            }
        }
        let is_in_result = |labels: &Labels, found: &BTreeMap<Labels, Alert>| found.contains_key(labels);
        for (labels, alert) in &found {
            match self.active.get_mut(labels) {
                Some(known) if known.state != AlertState::Inactive => {
                    known.value = alert.value;
                    known.annotations = alert.annotations.clone();
                }
                _ => _ = self.active.insert(labels.clone(), alert.clone()),
            }
        }
        self.active
            .retain(|labels, alert| is_in_result(labels, &found) || alert.absent(spec.keep_firing, at));
        let mut count = 0;
        let mut series = Vec::new();
        for (labels, alert) in &mut self.active {
            if is_in_result(labels, &found) {
                alert.keep_firing_since = None;
            }
            if alert.state == AlertState::Inactive {
                continue;
            }
            count += 1;
            if alert.state == AlertState::Pending && at.since_ms(alert.active_at) >= ms(spec.hold) {
                alert.state = AlertState::Firing;
                alert.fired_at = Some(at);
            }
            if self.is_restored {
                series.extend(alert_series(rule, alert));
            }
        }
        if around.limit > 0 && count > around.limit {
            self.active.clear();
            return Err(format!("exceeded limit of {} with {count} alerts", around.limit));
        }
        Ok(series)
    }

    /// The state of the rule: that of its furthest alert.
    pub(crate) fn state(&self) -> AlertState {
        self.active.values().map(|alert| alert.state).max().unwrap_or(AlertState::Inactive)
    }
}

impl Alert {
    /// Takes note that the condition does not hold; false when the alert is forgotten.
    fn absent(&mut self, keep_firing: Duration, at: Timestamp) -> bool {
        if self.state == AlertState::Pending {
            return false;
        }
        if self.state == AlertState::Firing && !keep_firing.is_zero() {
            let since = *self.keep_firing_since.get_or_insert(at);
            if at.since_ms(since) < ms(keep_firing) {
                return true;
            }
        }
        if self.resolved_at.is_some_and(|resolved| at.since_ms(resolved) > RESOLVED_RETENTION_MS) {
            return false;
        }
        if self.state != AlertState::Inactive {
            self.state = AlertState::Inactive;
            self.resolved_at = Some(at);
        }
        true
    }
}

fn new_alert(
    name: &str,
    spec: &AlertSpec,
    element: &VectorElement,
    at: Timestamp,
    (around, context): (&Surroundings<'_>, &mut dyn Context),
) -> Alert {
    let data = AlertData::new(&element.labels, around.external_labels, around.external_url, &element.value);
    let mut expand = |template: &crate::template::Template| {
        template.expand(&data, context).unwrap_or_else(|error| format!("<error expanding template: {error}>"))
    };
    let mut labels = element.labels.to_builder();
    labels.remove(METRIC_NAME);
    for (name, template) in &spec.label_templates {
        labels.set(name.as_str(), expand(template));
    }
    labels.set(ALERT_NAME, name);
    let annotations = spec.annotation_templates.iter().map(|(name, text)| (name.clone(), expand(text)));
    Alert {
        labels: labels.build(),
        annotations: Labels::from_pairs(annotations),
        state: AlertState::Pending,
        value: match element.value {
            model::query::PointValue::Float(x) => x,
            model::query::PointValue::Histogram(_) => 0.0,
        },
        active_at: at,
        fired_at: None,
        resolved_at: None,
        keep_firing_since: None,
        last_sent_at: None,
        valid_until: at,
    }
}

/// The two series of an alert.
fn alert_series(rule: &RuleSpec, alert: &Alert) -> [(Labels, f64); 2] {
    // As in the reference, labels that the rule sets to nothing are those of its file.
    let mut labels = rule.labels.to_builder();
    for (name, value) in alert.labels.iter() {
        labels.set(name, value);
    }
    labels.set(ALERT_NAME, rule.name.as_str());
    let mut state = labels.clone();
    state.set(METRIC_NAME, ALERTS).set(ALERT_STATE, alert.state.as_str());
    labels.set(METRIC_NAME, ALERTS_FOR_STATE);
    #[expect(clippy::cast_precision_loss, reason = "seconds since the epoch fit")]
    let since = alert.active_at.millis().div_euclid(1_000) as f64;
    [(state.build(), 1.0), (labels.build(), since)]
}
