//! The PromQL scripts against the real sources: a querier over ingesters' heads, and over Parquet files.
//!
//! Every script runs with the samples in one head, and with two heads: that share every series, one sample here and the
//! next there, or that share a quarter of them. And it runs over files: flushed by one ingester or by two, after a
//! restart that leaves the heads empty. Each of these with and without aggregations that ingesters compute in part.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use coordination::membership::Roster;
use coordination::{InMemory, Member, Role};
use group_writer::{Append, Batch, Group, GroupIdentity, GroupWriter, Presence};
use integration_tests::promqltest::{Answer, Backend, Load, load, run_script};
use integration_tests::repository;
use model::query::{PointValue, QueryAnswer, QueryStats, QueryValue};
use model::{Clock, Histogram, Labels, Tenant, Timestamp};
use promql_engine::memory::{Sample, Store};
use rpc::Channel;
use rpc::pb::ingester::FlushRequest;
use rpc::pb::ingester::ingester_client::IngesterClient;
use rpc::pb::querier as pb;
use rpc::pb::querier::querier_client::QuerierClient;
use rpc::pb::querier::query_request::Time;
use service_runtime::{ConfigDuration, Limits, Options, Program, Reach, Reload, Running, Stopper};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tsdb::StorageSettings;

/// The services' time. Samples lie near the epoch, long before what a head keeps once it is flushed.
const NOW: Timestamp = Timestamp(1_700_000_000_000);
const DEADLINE: Duration = Duration::from_secs(60);
/// What the scripts assume to be on.
const FEATURES: [&str; 5] = [
    "promql-experimental-functions",
    "promql-extended-range-selectors",
    "promql-binop-fill-modifiers",
    "promql-delayed-name-removal",
    "use-start-timestamps",
];

/// Where the samples are when a query comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Head,
    Files,
    TwoHeads,
    TwoHeadsApart,
    TwoFiles,
}

impl Place {
    fn ingesters(self) -> usize {
        match self {
            Self::Head | Self::Files => 1,
            Self::TwoHeads | Self::TwoHeadsApart | Self::TwoFiles => 2,
        }
    }

    fn is_files(self) -> bool {
        matches!(self, Self::Files | Self::TwoFiles)
    }
}

/// A running program.
struct Started {
    running: Running,
    stopper: Stopper,
}

impl Started {
    async fn start(program: Program) -> Self {
        let stopper = Stopper::default();
        let running = program.start(stopper.clone(), Reload::new()).await.expect("started");
        running.readiness().reached().await;
        Self { running, stopper }
    }

    async fn stop(self) {
        self.stopper.stop();
        self.running.wait().await.expect("stopped in order");
    }
}

/// A querier and its ingesters. What a script has loaded so far is written to a new tenant at each load, since a
/// storage takes no sample that lies long before its newest.
struct Services {
    place: Place,
    partial_aggregation: bool,
    /// Everything was written in a run before, tenant by tenant.
    is_written: bool,
    folder: tempfile::TempDir,
    /// The one that holds the querier comes first.
    started: Vec<Started>,
    store: Store,
    tenants: usize,
    /// Dropped last: what is above runs on it.
    runtime: Runtime,
}

fn options(coordinator: &Arc<InMemory>, name: &str, reach: Reach) -> Options {
    Options {
        clock: Clock::fixed(NOW),
        coordinator: Arc::clone(coordinator) as _,
        member_name: name.to_owned(),
        reach,
        grace: DEADLINE,
        limits: Limits::default(),
    }
}

/// The table that all share.
fn storage(folder: &Path) -> StorageSettings {
    StorageSettings { url: Some(format!("file://{}", folder.join("table").display())), ..Default::default() }
}

fn ingester(folder: &Path, name: &str) -> ingester::Config {
    let out_of_order_time_window = ConfigDuration::from_secs(0);
    let (path, storage) = (folder.join(name), storage(folder));
    ingester::Config { path, storage, out_of_order_time_window, ..ingester::Config::default() }
}

fn querier(folder: &Path, partial_aggregation: bool) -> querier::Config {
    querier::Config {
        storage: storage(folder),
        query_samples_max: 10_000,
        query_timeout: ConfigDuration::from_secs(100),
        features: FEATURES.map(str::to_owned).to_vec(),
        partial_aggregation,
        ..querier::Config::default()
    }
}

async fn start(place: Place, partial_aggregation: bool, folder: &Path) -> Vec<Started> {
    let coordinator = Arc::new(InMemory::new());
    let querier = querier(folder, partial_aggregation);
    if place.ingesters() == 1 {
        let program = Program::new(options(&coordinator, "one", Reach::InProcess))
            .service::<ingester::Service>(ingester(folder, "one"), &[])
            .service::<querier::Service>(querier, &[]);
        return vec![Started::start(program).await];
    }
    let mut started = Vec::new();
    for name in ["one", "two"] {
        let network = Reach::Network { advertise: None };
        let program = Program::new(options(&coordinator, name, network))
            .listen("grpc", "127.0.0.1:0".parse().expect("an address"))
            .service::<ingester::Service>(ingester(folder, name), &["grpc"]);
        started.push(Started::start(program).await);
    }
    let network = Reach::Network { advertise: None };
    let program =
        Program::new(options(&coordinator, "three", network)).service::<querier::Service>(querier, &[]);
    started.insert(0, Started::start(program).await);
    started
}

impl Services {
    fn new(place: Place, partial_aggregation: bool) -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let folder = tempfile::tempdir().expect("a folder");
        let started = runtime.block_on(start(place, partial_aggregation, folder.path()));
        let store = Store::default();
        Self { place, partial_aggregation, is_written: false, folder, started, store, tenants: 0, runtime }
    }

    /// How often the querier counted what the name says.
    fn counted(&self, name: &str) -> u64 {
        let text = self.started[0].running.metrics().encode().expect("metrics");
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        line.unwrap_or(0)
    }

    fn tenant(&self) -> String {
        format!("t{}", self.tenants)
    }

    /// The ingesters as the querier sees them.
    async fn ingesters(&self) -> Vec<Member> {
        let mut roster = self.started[0].running.peers().members(Role::Ingester);
        let count = self.place.ingesters();
        let known = roster.wait_for(|r| r.members.len() == count).await.expect("followed");
        known.members.to_vec()
    }

    /// Writes all that is loaded to a new tenant: to each ingester its series, or the samples of one time after those of
    /// the other in turn.
    async fn write(&self) {
        let ingesters = self.ingesters().await;
        let apart = self.store.spread(ingesters.len());
        for (turn, member) in ingesters.iter().enumerate() {
            let batch = match self.place {
                Place::TwoHeads => batch(&self.store, &self.tenant(), |i| i % ingesters.len() == turn),
                _ => batch(&apart[turn], &self.tenant(), |_| true),
            };
            if batch.appends.is_empty() {
                continue;
            }
            let peers = self.started[0].running.peers().clone();
            let connect = Arc::new(move |address: &str| Ok(Channel::new(peers.channel(address)?)));
            let only = Roster { members: [member.clone()].into(), ..Roster::default() };
            let (_roster, only) = watch::channel(only);
            let (writer, driver) = GroupWriter::new(group_writer::Options::default(), only, connect);
            tokio::select! {
                written = writer.write(batch, DEADLINE) => {
                    let refused = written.expect("stored").refusals;
                    assert!(refused.is_empty(), "{refused:?}");
                }
                () = driver.run() => panic!("the driver ended"),
            }
        }
    }

    /// Moves everything to files: after the restart the head holds what is recent, and none of this is. The scripts
    /// then find what they load in tenants of the same names.
    async fn move_to_files(&mut self) {
        self.is_written = true;
        self.tenants = 0;
        for ingester in self.ingesters().await {
            let channel = self.started[0].running.peers().channel(&ingester.address).expect("an address");
            IngesterClient::new(channel).flush(FlushRequest {}).await.expect("flushed");
        }
        for started in self.started.drain(..) {
            started.stop().await;
        }
        self.started = start(self.place, self.partial_aggregation, self.folder.path()).await;
        self.ingesters().await;
    }

    fn ask(&self, query: &str, time: Time) -> Answer {
        self.runtime.block_on(async {
            let channel = Channel::new(self.started[0].running.peers().role(Role::Querier));
            let request = pb::QueryRequest {
                tenant: self.tenant(),
                query: query.to_owned(),
                time: Some(time),
                ..Default::default()
            };
            let answer = QuerierClient::new(channel).query(request).await;
            let mut stream = answer.map_err(|status| status.message().to_owned())?.into_inner();
            let mut whole: Option<QueryValue> = None;
            let (mut warnings, mut infos) = (Vec::new(), Vec::new());
            while let Some(message) = stream.message().await.map_err(|status| status.message().to_owned())? {
                let piece = rpc::convert::query::piece(&message).map_err(|e| e.to_string())?;
                assert!(!piece.continues, "the scripts' series are small");
                whole = Some(match (whole, piece.value) {
                    (Some(QueryValue::Vector(a)), QueryValue::Vector(b)) => {
                        QueryValue::Vector([a, b].concat())
                    }
                    (Some(QueryValue::Matrix(a)), QueryValue::Matrix(b)) => {
                        QueryValue::Matrix([a, b].concat())
                    }
                    (_, value) => value,
                });
                if let Some(end) = piece.end {
                    (warnings, infos) = (end.warnings, end.infos);
                }
            }
            let value = whole.ok_or("no answer")?;
            Ok(QueryAnswer { value, warnings, infos, stats: QueryStats::default() })
        })
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        for started in self.started.drain(..) {
            self.runtime.block_on(started.stop());
        }
    }
}

impl Backend for Services {
    fn clear(&mut self) -> Result<(), String> {
        self.store = Store::default();
        self.tenants += 1;
        Ok(())
    }

    fn load(&mut self, named: &Load) -> Result<(), String> {
        load(&mut self.store, named)?;
        self.tenants += 1;
        if !self.is_written {
            let runtime = self.runtime.handle().clone();
            runtime.block_on(self.write());
        }
        Ok(())
    }

    fn instant(&self, query: &str, time: i64) -> Answer {
        self.ask(query, Time::Instant(time))
    }

    fn asks_once(&self) -> bool {
        self.place.is_files() || !self.partial_aggregation
    }

    fn range(&self, query: &str, (start, end): (i64, i64), step: Duration) -> Answer {
        let step = u64::try_from(step.as_millis()).map_err(|e| e.to_string())?;
        self.ask(query, Time::Range(pb::Range { start, end, step }))
    }
}

/// Lays out the samples of some of the times as appends, one for each time.
fn batch(store: &Store, tenant: &str, is_wanted: impl Fn(usize) -> bool) -> Batch {
    let tenant = Tenant::new(tenant).expect("valid");
    let key = Labels::from_pairs([("job", "script")]);
    let group = Group::new(GroupIdentity { tenant, key, sub_group: 0, epoch: 0 });
    let mut by_time: std::collections::BTreeMap<i64, Vec<(u32, &Sample)>> = std::collections::BTreeMap::new();
    for (labels, samples) in store.series() {
        let member = group.add(labels.clone(), Arc::default());
        for sample in samples {
            by_time.entry(sample.time).or_default().push((member, sample));
        }
    }
    let members = u32::try_from(store.series().count()).expect("few");
    let append = |(time, samples): (i64, Vec<(u32, &Sample)>)| {
        let mut append = Append {
            group: group.clone(),
            members,
            timestamp: Timestamp(time),
            presence: Presence::Present(samples.iter().map(|(member, _)| *member).collect()),
            values: Vec::new(),
            histograms: Vec::new(),
            starts: Vec::new(),
            exemplars: Vec::new(),
        };
        for (member, sample) in samples {
            match &sample.value {
                PointValue::Float(x) => append.values.push(*x),
                PointValue::Histogram(h) => {
                    append.histograms.push((member, Arc::new(Histogram::Float((**h).clone()))));
                }
            }
            if sample.start != 0 {
                append.starts.push((member, Timestamp(sample.start)));
            }
        }
        append
    };
    let wanted = by_time.into_iter().enumerate().filter(|(i, _)| is_wanted(*i));
    Batch { appends: wanted.map(|(_, samples)| append(samples)).collect(), is_atomic: false }
}

/// Our own scripts, and Prometheus's where they are.
#[expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a test asks for CI and says that it is skipped"
)]
fn scripts() -> Vec<PathBuf> {
    let conformance = repository().join("../shared/conformance/promql");
    if !conformance.exists() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{} is not there", conformance.display());
        println!("SKIPPED Prometheus's own scripts: {} is not there", conformance.display());
    }
    let folders = [repository().join("shared/promql-engine/testdata"), conformance];
    let entries = folders.iter().filter_map(|folder| std::fs::read_dir(folder).ok()).flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.retain(|path| path.extension().is_some_and(|e| e == "test"));
    files.sort();
    files
}

/// Runs all scripts; returns how many evals passed, and what failed.
fn run_scripts(services: &mut Services) -> (usize, Vec<String>) {
    let (mut passed, mut failures) = (0, Vec::new());
    for path in scripts() {
        services.clear().expect("cleared");
        let text = std::fs::read_to_string(&path).expect("a script");
        let report = run_script(&text, services);
        passed += report.passed;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        failures.extend(report.failures.iter().map(|(line, message)| format!("{name}:{line}: {message}")));
    }
    (passed, failures)
}

fn run_all(place: Place) {
    for partial_aggregation in [true, false] {
        let mut services = Services::new(place, partial_aggregation);
        let (mut passed, mut failures) = run_scripts(&mut services);
        if place.is_files() {
            let runtime = services.runtime.handle().clone();
            runtime.block_on(services.move_to_files());
            (passed, failures) = run_scripts(&mut services);
        }
        assert!(passed > 0, "there are scripts");
        let count = failures.len();
        let with = if partial_aggregation { "with" } else { "without" };
        assert!(count == 0, "{with} parts: {passed} passed, {count} failed:\n{}", failures.join("\n"));
        let in_parts = services.counted("querier_aggregations_in_parts_total");
        assert_eq!(in_parts > 100, partial_aggregation && !place.is_files(), "{in_parts} in parts, {with}");
        let whole = services.counted(r#"querier_aggregations_whole_total{reason="files"}"#);
        assert_eq!(whole > 100, partial_aggregation && place.is_files(), "{whole} whole, {with}");
    }
}

#[test]
fn scripts_pass_over_a_head() {
    run_all(Place::Head);
}

#[test]
fn scripts_pass_over_files() {
    run_all(Place::Files);
}

#[test]
fn scripts_pass_over_two_heads_that_share_the_series() {
    run_all(Place::TwoHeads);
}

#[test]
fn scripts_pass_over_two_heads_that_share_some_series() {
    run_all(Place::TwoHeadsApart);
}

#[test]
fn scripts_pass_over_files_of_two_ingesters() {
    run_all(Place::TwoFiles);
}
