//! The metrics of rules, under Prometheus's names.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use model::Timestamp;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use rules::{Evaluation, Group};
use service_runtime::{Summaries, Summary};

/// The boundaries of Prometheus's histograms of durations, in seconds.
const SECONDS: [f64; 4] = [0.01, 0.1, 1.0, 10.0];

/// A group, as `file;name`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct GroupLabel {
    rule_group: String,
}

type PerGroup = Family<GroupLabel, Gauge<f64, AtomicU64>>;
type CountPerGroup = Family<GroupLabel, Counter>;

/// Durations, told twice.
#[derive(Debug, Clone)]
struct Seconds {
    summary: Summary,
    histogram: Histogram,
}

impl Seconds {
    fn observe(&self, took: Duration) {
        self.summary.observe(took.as_secs_f64());
        self.histogram.observe(took.as_secs_f64());
    }
}

/// The metrics of rules. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct RuleMetrics {
    rule_seconds: Seconds,
    group_seconds: Seconds,
    evaluations: CountPerGroup,
    failures: CountPerGroup,
    iterations: CountPerGroup,
    missed: CountPerGroup,
    interval: PerGroup,
    last_seconds: PerGroup,
    last_rule_seconds: PerGroup,
    last_evaluation: PerGroup,
    last_samples: PerGroup,
    rules: PerGroup,
    restore_seconds: PerGroup,
}

impl RuleMetrics {
    pub(crate) fn register(registry: &service_runtime::Metrics) -> Self {
        let seconds = |name, histogram, help, quantiles| {
            let (summaries, summary) = Summaries::single(name, help, quantiles);
            registry.register_summaries(summaries);
            let seconds = Seconds { summary, histogram: Histogram::new(SECONDS) };
            registry.register(|r| r.register(histogram, help, seconds.histogram.clone()));
            seconds
        };
        let metrics = Self {
            rule_seconds: seconds(
                "prometheus_rule_evaluation_duration_seconds",
                "prometheus_rule_evaluation_duration_histogram_seconds",
                "Time that a rule took",
                &[0.5, 0.9, 0.99],
            ),
            group_seconds: seconds(
                "prometheus_rule_group_duration_seconds",
                "prometheus_rule_group_duration_histogram_seconds",
                "Time that a rule group took",
                &[0.01, 0.05, 0.5, 0.9, 0.99],
            ),
            evaluations: Family::default(),
            failures: Family::default(),
            iterations: Family::default(),
            missed: Family::default(),
            interval: Family::default(),
            last_seconds: Family::default(),
            last_rule_seconds: Family::default(),
            last_evaluation: Family::default(),
            last_samples: Family::default(),
            rules: Family::default(),
            restore_seconds: Family::default(),
        };
        registry.register(|r| {
            for (name, help, family) in metrics.counts() {
                r.register(name, help, family.clone());
            }
            for (name, help, family) in metrics.gauges() {
                r.register(name, help, family.clone());
            }
        });
        metrics
    }

    /// What is counted of a group, by name and meaning.
    fn counts(&self) -> [(&'static str, &'static str, &CountPerGroup); 4] {
        [
            ("prometheus_rule_evaluations", "Rules evaluated", &self.evaluations),
            ("prometheus_rule_evaluation_failures", "Rules whose evaluation failed", &self.failures),
            (
                "prometheus_rule_group_iterations",
                "Evaluations of a group due, those missed included",
                &self.iterations,
            ),
            (
                "prometheus_rule_group_iterations_missed",
                "Evaluations of a group that came too late",
                &self.missed,
            ),
        ]
    }

    /// What else is told of a group.
    fn gauges(&self) -> [(&'static str, &'static str, &PerGroup); 7] {
        [
            ("prometheus_rule_group_interval_seconds", "Interval of a group", &self.interval),
            (
                "prometheus_rule_group_last_duration_seconds",
                "Time that a group's last evaluation took",
                &self.last_seconds,
            ),
            (
                "prometheus_rule_group_last_rule_duration_sum_seconds",
                "Time that the rules of a group's last evaluation took together",
                &self.last_rule_seconds,
            ),
            (
                "prometheus_rule_group_last_evaluation_timestamp_seconds",
                "When a group was last evaluated",
                &self.last_evaluation,
            ),
            (
                "prometheus_rule_group_last_evaluation_samples",
                "Samples of a group's last evaluation",
                &self.last_samples,
            ),
            ("prometheus_rule_group_rules", "Rules of a group", &self.rules),
            (
                "prometheus_rule_group_last_restore_duration_seconds",
                "Time that the restoring of a group's alerts took",
                &self.restore_seconds,
            ),
        ]
    }

    fn label(key: (&str, &str)) -> GroupLabel {
        GroupLabel { rule_group: format!("{};{}", key.0, key.1) }
    }

    /// Shows a group from now on, with nothing counted yet.
    pub(super) fn started(&self, group: &Group) {
        let label = Self::label((&group.file, &group.spec.name));
        for (.., family) in self.counts() {
            drop(family.get_or_create(&label));
        }
        for family in [&self.last_seconds, &self.last_rule_seconds, &self.last_evaluation, &self.last_samples]
        {
            drop(family.get_or_create(&label));
        }
        self.interval.get_or_create(&label).set(group.interval.as_secs_f64());
        self.rules.get_or_create(&label).set(count(group.rules().len()));
    }

    /// Takes note of an evaluation.
    pub(super) fn evaluated(&self, group: &Group, evaluation: &Evaluation, took: Duration) {
        let label = Self::label((&group.file, &group.spec.name));
        self.group_seconds.observe(took);
        for rule in group.rules() {
            self.rule_seconds.observe(rule.took);
        }
        self.evaluations.get_or_create(&label).inc_by(group.rules().len() as u64);
        self.failures.get_or_create(&label).inc_by(evaluation.failures.len() as u64);
        self.iterations.get_or_create(&label).inc();
        self.last_seconds.get_or_create(&label).set(took.as_secs_f64());
        let rule_seconds = group.rules().iter().map(|rule| rule.took.as_secs_f64()).sum::<f64>();
        self.last_rule_seconds.get_or_create(&label).set(rule_seconds);
        self.last_evaluation.get_or_create(&label).set(group.last_evaluation.map_or(0.0, Timestamp::seconds));
        self.last_samples.get_or_create(&label).set(count(evaluation.sample_count));
    }

    /// Takes note of evaluations that came too late.
    pub(super) fn missed(&self, group: &Group, count: u64) {
        let label = Self::label((&group.file, &group.spec.name));
        self.missed.get_or_create(&label).inc_by(count);
        self.iterations.get_or_create(&label).inc_by(count);
    }

    /// Takes note of rules whose samples were not stored.
    pub(super) fn not_stored(&self, group: &Group) {
        let label = Self::label((&group.file, &group.spec.name));
        self.failures.get_or_create(&label).inc_by(group.rules().len() as u64);
    }

    /// Takes note of a restoring.
    pub(super) fn restored(&self, group: &Group, took: Duration) {
        let label = Self::label((&group.file, &group.spec.name));
        self.restore_seconds.get_or_create(&label).set(took.as_secs_f64());
    }

    /// Forgets a group that is not evaluated here any more.
    pub(super) fn forget(&self, key: &(String, String)) {
        let label = Self::label((&key.0, &key.1));
        for (.., family) in self.counts() {
            family.remove(&label);
        }
        for (.., family) in self.gauges() {
            family.remove(&label);
        }
    }
}

fn count(n: usize) -> f64 {
    u32::try_from(n).map_or(f64::MAX, f64::from)
}
