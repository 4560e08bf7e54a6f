//! What a rule group reads ahead, with one call to each head, is what plain selections read.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use coordination::InMemory;
use model::labels::METRIC_NAME;
use model::query::{PointValue, QueryValue};
use model::{Clock, Labels, Timestamp};
use rpc::pb::ingester::FlushRequest;
use rpc::pb::ingester::ingester_client::IngesterClient;
use rpc::pb::querier::query_request::Time;
use service_runtime::{Options, Program, Reach};

use super::{DEADLINE, NOW, STEP_MS, Started, only, options, storage};

/// How many steps back the samples lie that heads have, and those that only files have: ingesters that start load the
/// last half hour.
const NEW: std::ops::Range<i64> = 0..20;
const OLD: std::ops::Range<i64> = 720..730;
/// Which of the steps an ingester gets.
type Share = fn(i64) -> bool;
/// Instances of `m` and what each of the two ingesters gets of them.
const INSTANCES: [(&str, [Share; 2]); 5] = [
    ("a", [|_| true, |_| false]),
    ("b", [|_| false, |_| true]),
    ("c", [|back| back % 2 == 0, |back| back % 2 == 1]),
    // As after a retry: both have all.
    ("d", [|_| true, |_| true]),
    ("e", [|back| back >= OLD.start, |back| back < OLD.start]),
];
/// Records and their expressions. What they select overlaps, and nobody has what the last one does.
const RULES: [(&str, &str); 6] = [
    ("r:last", "m"),
    ("r:count", "count_over_time(m[4h])"),
    ("r:old", "max_over_time(m[1h] offset 150m)"),
    ("r:recent", "sum by (instance) (sum_over_time(m{instance=~'b|c|e'}[5m]))"),
    ("r:all", "sum(stddev_over_time(m[4h]))"),
    ("r:none", "absent(nothing)"),
];

/// Tenths have no exact form, so that no two ways of adding them up come to the same by chance.
fn value(instance: usize, back: i64) -> f64 {
    (1_000 - back) as f64 * 0.1 + instance as f64 * 1_000.0
}

/// Two ingesters, and what evaluates rules over them.
struct Services {
    querier: Started,
    ingesters: [Started; 2],
    /// The querier's.
    clock: Clock,
    rules: usize,
}

async fn ingesters(coordinator: &Arc<InMemory>, folder: &Path) -> [Started; 2] {
    let start = async |name| Started::ingester(coordinator, folder, name, None).await;
    [start("one").await, start("two").await]
}

/// Writes samples of a metric to one of the ingesters.
async fn append(
    ingesters: &[Started; 2],
    to: usize,
    of: (&str, &[&str]),
    samples: (impl Iterator<Item = i64>, impl Fn(usize, i64) -> f64),
) {
    let members = ingesters[0].ingesters(2).await.borrow().members.clone();
    ingesters[0].append_to(only(&members[to]), "default", of, samples).await;
}

/// Writes the instances of `m` at some steps.
async fn append_instances(ingesters: &[Started; 2], backs: std::ops::Range<i64>) {
    for (number, (instance, shares)) in INSTANCES.iter().enumerate() {
        for (to, is_wanted) in shares.iter().enumerate() {
            let backs = backs.clone().rev().filter(|back| is_wanted(*back));
            append(ingesters, to, ("m", &[*instance]), (backs, |_, back| value(number, back))).await;
        }
    }
}

impl Services {
    /// Starts what evaluates a group of rules over ingesters.
    async fn start(
        coordinator: &Arc<InMemory>,
        folder: &Path,
        ingesters: [Started; 2],
        rules: &[(&str, &str)],
    ) -> Self {
        let [config, file] = ["prometheus.yml", "rules.yml"].map(|name| folder.join(name));
        fs::write(&config, format!("rule_files: ['{}']\n", file.display())).expect("written");
        let group: String = rules
            .iter()
            .map(|(record, expr)| format!("  - {{record: '{record}', expr: \"{expr}\"}}\n"))
            .collect();
        fs::write(&file, format!("groups:\n- name: g\n  interval: 1s\n  rules:\n{group}")).expect("written");
        let discovery =
            discovery::Config { config_file: config.display().to_string(), ..discovery::Config::default() };
        let clock = Clock::fixed(NOW);
        let network = Reach::Network { advertise: None };
        let program =
            Program::new(Options { clock: clock.clone(), ..options(coordinator, "three", network) })
                .service::<discovery::Service>(discovery, &[])
                .service::<querier::Service>(
                    querier::Config {
                        storage: storage(folder),
                        partial_aggregation: false,
                        ..querier::Config::default()
                    },
                    &[],
                );
        let querier = Started::start(program).await;
        querier.ingesters(2).await;
        Self { querier, ingesters, clock, rules: rules.len() }
    }

    /// How often the group was evaluated.
    fn evaluations(&self) -> u64 {
        let text = self.querier.running.metrics().encode().expect("metrics");
        let count = text.lines().find_map(|line| {
            line.strip_prefix("prometheus_rule_evaluations_total{")?.rsplit_once(' ')?.1.parse::<u64>().ok()
        });
        count.unwrap_or(0) / self.rules as u64
    }

    /// How many calls of a method each ingester has answered.
    fn calls(&self, method: &str) -> [u64; 2] {
        let of = |ingester: &Started| {
            let text = ingester.running.metrics().encode().expect("metrics");
            let is_wanted = |line: &&str| {
                line.starts_with("tributary_grpc_requests_total{")
                    && line.contains(&format!("method=\"{method}\""))
            };
            let counts = text
                .lines()
                .filter(is_wanted)
                .filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok());
            counts.sum()
        };
        self.ingesters.each_ref().map(of)
    }

    /// Moves the clock until the group was evaluated; each time with one call to each ingester for all of it, and with
    /// so many for single selections.
    async fn evaluate(&self, selects: u64) {
        let evaluated = async {
            while self.evaluations() == 0 {
                self.clock.set(self.clock.now().add_ms(1_000));
                tokio::time::sleep(Duration::from_millis(1_500)).await;
            }
            // A call is counted when its answer has ended, and another evaluation may be on its way.
            let is_settled = || {
                let count = self.evaluations();
                self.calls("SelectMany") == [count; 2] && self.calls("Select") == [selects * count; 2]
            };
            while !is_settled() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        if tokio::time::timeout(DEADLINE, evaluated).await.is_err() {
            let calls = ["SelectMany", "Select"].map(|method| self.calls(method));
            panic!("{} evaluations, {calls:?} calls", self.evaluations());
        }
    }

    /// All samples that rules have given: labels and time, then the bits.
    async fn recorded(&self) -> BTreeMap<(String, Timestamp), u64> {
        let now = self.clock.now();
        let query = r#"{__name__=~"r:.*"}[1m]"#;
        let QueryValue::Matrix(series) =
            self.querier.query("default", query, Time::Instant(now.millis())).await.expect("an answer")
        else {
            panic!("a matrix")
        };
        let samples = series
            .iter()
            .flat_map(|s| s.floats.iter().map(|(t, x)| ((s.labels.to_string(), *t), x.to_bits())));
        samples.collect()
    }

    /// What plain queries answer at the times of evaluations, in the same form.
    async fn plain(
        &self,
        rules: &[(&str, &str)],
        times: &BTreeSet<Timestamp>,
    ) -> BTreeMap<(String, Timestamp), u64> {
        let mut samples = BTreeMap::new();
        for (record, expr) in rules {
            for time in times {
                let answer = self.querier.query("default", expr, Time::Instant(time.millis())).await;
                let QueryValue::Vector(elements) = answer.expect("an answer") else { panic!("a vector") };
                for element in elements {
                    let PointValue::Float(x) = element.value else { panic!("a float") };
                    let mut labels = element.labels.to_builder();
                    labels.set(METRIC_NAME, *record);
                    samples.insert((labels.build().to_string(), *time), x.to_bits());
                }
            }
        }
        samples
    }

    async fn stop(self) {
        self.querier.stop().await;
        for ingester in self.ingesters {
            ingester.stop().await;
        }
    }
}

fn times(samples: &BTreeMap<(String, Timestamp), u64>) -> BTreeSet<Timestamp> {
    samples.keys().map(|(_, time)| *time).collect()
}

fn name(record: &str, instance: &str) -> String {
    Labels::from_pairs([(METRIC_NAME, record), ("instance", instance)]).to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rule_group_records_what_plain_selections_of_heads_and_files_have() {
    let folder = tempfile::tempdir().expect("a folder");
    let coordinator = Arc::new(InMemory::new());
    let writing = ingesters(&coordinator, folder.path()).await;
    append_instances(&writing, OLD).await;
    for ingester in &writing {
        let address = ingester.running.address("grpc").expect("listening").to_string();
        let channel = ingester.running.peers().channel(&address).expect("an address");
        IngesterClient::new(channel).flush(FlushRequest {}).await.expect("flushed");
    }
    for ingester in writing {
        ingester.stop().await;
    }
    let ingesters = ingesters(&coordinator, folder.path()).await;
    append_instances(&ingesters, NEW).await;

    let services = Services::start(&coordinator, folder.path(), ingesters, &RULES).await;
    services.evaluate(0).await;
    let recorded = services.recorded().await;
    let times = times(&recorded);
    assert_eq!(recorded, services.plain(&RULES, &times).await);
    let count = (NEW.end - NEW.start + OLD.end - OLD.start) as f64;
    for time in times {
        // What lies between is less than a step.
        assert!(time.since_ms(NOW) < STEP_MS, "{time:?}");
        for (number, (instance, _)) in INSTANCES.iter().enumerate() {
            let expected = [
                ("r:last", value(number, NEW.start)),
                ("r:count", count),
                ("r:old", value(number, OLD.start)),
            ];
            for (record, expected) in expected {
                let got = recorded.get(&(name(record, instance), time)).copied();
                assert_eq!(got, Some(expected.to_bits()), "{record} of {instance}");
            }
        }
    }
    services.stop().await;
}

/// Samples of a metric's 1,000 instances at so many steps: two such metrics are more than is read ahead. Where the first
/// is given up, fewer samples are left of that than `m` has: they are not to be missed there.
const LARGE_STEPS: i64 = 568;
const STEPS_AT_ONCE: u8 = 71;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_large_to_be_read_ahead_is_read_by_itself() {
    let folder = tempfile::tempdir().expect("a folder");
    let coordinator = Arc::new(InMemory::new());
    let ingesters = ingesters(&coordinator, folder.path()).await;
    let instances: Vec<String> = (0..1_000).map(|i| i.to_string()).collect();
    let instances: Vec<&str> = instances.iter().map(String::as_str).collect();
    // One metric that is too large together, and one of which one ingester has more than is left; the oldest first.
    for (to, first, metrics) in [(0, 0, &["large", "larger"][..]), (1, LARGE_STEPS, &["large"])] {
        for step in (first..first + LARGE_STEPS).rev().step_by(STEPS_AT_ONCE.into()) {
            for metric in metrics {
                let backs = (step + 1 - i64::from(STEPS_AT_ONCE)..=step).rev();
                append(&ingesters, to, (metric, &instances), (backs, |_, back| back as f64)).await;
            }
        }
    }
    append_instances(&ingesters, NEW).await;
    let rules = [
        ("r:large", "sum(count_over_time(large[5h]))"),
        ("r:larger", "sum(count_over_time(larger[5h]))"),
        ("r:count", "count_over_time(m[5h])"),
    ];
    let services = Services::start(&coordinator, folder.path(), ingesters, &rules).await;
    services.evaluate(2).await;
    let recorded = services.recorded().await;
    let times = times(&recorded);
    assert_eq!(recorded, services.plain(&rules, &times).await);
    for time in times {
        let of = |labels: Labels| recorded.get(&(labels.to_string(), time)).map(|bits| f64::from_bits(*bits));
        let count = 1_000.0 * LARGE_STEPS as f64;
        assert_eq!(of(Labels::from_pairs([(METRIC_NAME, "r:large")])), Some(2.0 * count));
        assert_eq!(of(Labels::from_pairs([(METRIC_NAME, "r:larger")])), Some(count));
        assert_eq!(of(Labels::from_pairs([(METRIC_NAME, "r:count"), ("instance", "c")])), Some(20.0));
    }
    services.stop().await;
}
