//! A group as the API shows it.

use std::time::Duration;

use model::Timestamp;
use rpc::pb::querier as pb;
use rules::{Alert, AlertState, Group, Health, RuleKind, RuleState};

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn instant(time: Option<Timestamp>) -> i64 {
    time.map_or(0, Timestamp::millis)
}

pub(super) fn group(group: &Group) -> pb::RuleGroup {
    pb::RuleGroup {
        file: group.file.clone(),
        name: group.spec.name.clone(),
        interval_ms: ms(group.interval),
        limit: group.spec.limit as u64,
        last_evaluation: instant(group.last_evaluation),
        evaluation_seconds: group.took.as_secs_f64(),
        rules: group.rules().iter().map(rule).collect(),
    }
}

fn rule(rule: &RuleState) -> pb::Rule {
    let health = match rule.health {
        Health::Unknown => pb::RuleHealth::Unspecified,
        Health::Good => pb::RuleHealth::Ok,
        Health::Bad => pb::RuleHealth::Error,
    };
    pb::Rule {
        name: rule.spec.name.clone(),
        query: rule.spec.expr.clone(),
        labels: Some((&rule.spec.labels).into()),
        health: health.into(),
        last_error: rule.last_error.clone(),
        last_evaluation: instant(rule.last_evaluation),
        evaluation_seconds: rule.took.as_secs_f64(),
        alerting: match &rule.spec.kind {
            RuleKind::Recording => None,
            RuleKind::Alerting(spec) => Some(pb::AlertingRule {
                hold_ms: ms(spec.hold),
                keep_firing_ms: ms(spec.keep_firing),
                annotations: Some((&spec.annotations).into()),
                state: state(rule.alert_state()).into(),
                alerts: rule.active_alerts().map(alert).collect(),
            }),
        },
    }
}

fn state(state: AlertState) -> pb::AlertState {
    match state {
        AlertState::Inactive => pb::AlertState::Unspecified,
        AlertState::Pending => pb::AlertState::Pending,
        AlertState::Firing => pb::AlertState::Firing,
    }
}

fn alert(alert: &Alert) -> pb::Alert {
    pb::Alert {
        labels: Some((&alert.labels).into()),
        annotations: Some((&alert.annotations).into()),
        state: state(alert.state).into(),
        active_at: alert.active_at.millis(),
        keep_firing_since: alert.keep_firing_since.map(Timestamp::millis),
        value: alert.value,
    }
}
