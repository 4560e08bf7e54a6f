//! The querier in process, over a real ingester and its table. It stands here since no service may depend on another.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use coordination::membership::Roster;
use coordination::{InMemory, Member, Role};
use group_writer::{Append, Batch, Group, GroupIdentity, GroupWriter, Presence};
use model::query::QueryValue;
use model::{Clock, Labels, Matcher, Tenant, Timestamp};
use rpc::Channel;
use rpc::pb::ingester::FlushRequest;
use rpc::pb::ingester::ingester_client::IngesterClient;
use rpc::pb::querier as pb;
use rpc::pb::querier::querier_client::QuerierClient;
use rpc::pb::querier::query_request::Time;
use rpc::symbols::SymbolReader;
use service_runtime::{Limits, Options, Program, Reach, Reload, Running, Stopper};
use tokio::sync::watch;
use tonic::Code;
use tsdb::StorageSettings;

#[path = "querier/ahead.rs"]
mod ahead;
#[path = "querier/federate.rs"]
mod federate;
#[path = "querier/whole.rs"]
mod whole;

const NOW: Timestamp = Timestamp(1_700_000_000_000);
const DEADLINE: Duration = Duration::from_secs(30);
/// Between two samples of a series.
const STEP_MS: i64 = 15_000;

struct Started {
    running: Running,
    stopper: Stopper,
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

/// The table of several ingesters.
fn storage(folder: &Path) -> StorageSettings {
    let url = format!("file://{}", folder.join("table").display());
    StorageSettings { url: Some(url), ..StorageSettings::default() }
}

/// A roster of one.
fn only(member: &Member) -> watch::Receiver<Roster> {
    watch::channel(Roster { members: [member.clone()].into(), ..Roster::default() }).1
}

impl Started {
    async fn start(program: Program) -> Self {
        let stopper = Stopper::default();
        let running = program.start(stopper.clone(), Reload::new()).await.expect("started");
        running.readiness().reached().await;
        Self { running, stopper }
    }

    async fn at(folder: &Path, with_ingester: bool) -> Self {
        Self::with(folder, with_ingester, 1_000).await
    }

    async fn with(folder: &Path, with_ingester: bool, query_samples_max: u64) -> Self {
        let path = folder.to_owned();
        let mut program = Program::new(options(&Arc::new(InMemory::new()), "m", Reach::InProcess));
        if with_ingester {
            let config = ingester::Config { path: path.clone(), ..ingester::Config::default() };
            program = program.service::<ingester::Service>(config, &[]);
        }
        let config = querier::Config {
            path,
            query_samples_max,
            query_memory_bytes_max: 1 << 40,
            query_concurrency_max: 1,
            ..querier::Config::default()
        };
        let started = Self::start(program.service::<querier::Service>(config, &[])).await;
        if with_ingester {
            started.ingesters(1).await;
        }
        started
    }

    /// One of several ingesters.
    async fn ingester(
        coordinator: &Arc<InMemory>,
        folder: &Path,
        name: &str,
        advertise: Option<String>,
    ) -> Self {
        let (path, storage) = (folder.join(name), storage(folder));
        let config = ingester::Config { path, storage, ..ingester::Config::default() };
        let program = Program::new(options(coordinator, name, Reach::Network { advertise }))
            .listen("grpc", "127.0.0.1:0".parse().expect("an address"))
            .service::<ingester::Service>(config, &["grpc"]);
        Self::start(program).await
    }

    async fn stop(self) {
        self.stopper.stop();
        self.running.wait().await.expect("stopped in order");
    }

    fn client(&self) -> QuerierClient<Channel> {
        QuerierClient::new(Channel::new(self.running.peers().role(Role::Querier)))
    }

    /// The roster of ingesters, once there are as many.
    async fn ingesters(&self, count: usize) -> watch::Receiver<Roster> {
        let mut roster = self.running.peers().members(Role::Ingester);
        roster.wait_for(|r| r.members.len() == count).await.expect("followed");
        roster
    }

    /// Writes samples of two instances at 15 s: `m{instance="a"}` counts by 1, `m{instance="b"}` by 2.
    async fn write(&self, tenant: &str, steps: i64) {
        self.write_to(self.ingesters(1).await, ["a", "b"], tenant, steps).await;
    }

    async fn write_to(
        &self,
        members: watch::Receiver<Roster>,
        instances: [&str; 2],
        tenant: &str,
        steps: i64,
    ) {
        let value = |instance: usize, back: i64| (steps - 1 - back) as f64 * (instance + 1) as f64;
        self.append_to(members, tenant, ("m", &instances), ((0..steps).rev(), value)).await;
    }

    /// Writes samples of a metric's instances, so many steps of 15 s back from now as `backs` says.
    async fn append_to(
        &self,
        members: watch::Receiver<Roster>,
        tenant: &str,
        (metric, instances): (&str, &[&str]),
        (backs, value): (impl Iterator<Item = i64>, impl Fn(usize, i64) -> f64),
    ) {
        let peers = self.running.peers().clone();
        let connect = Arc::new(move |address: &str| Ok(Channel::new(peers.channel(address)?)));
        let (writer, driver) = GroupWriter::new(group_writer::Options::default(), members, connect);
        let tenant = Tenant::new(tenant).expect("valid");
        let key = Labels::from_pairs([("job", "j")]);
        let group = Group::new(GroupIdentity { tenant, key, sub_group: 0, epoch: 0 });
        for instance in instances {
            group.add(Labels::from_pairs([("__name__", metric), ("instance", instance)]), Arc::default());
        }
        let append = |back: i64| Append {
            group: group.clone(),
            members: group.len(),
            timestamp: NOW.add_ms(-back * STEP_MS),
            presence: Presence::All,
            values: (0..instances.len()).map(|instance| value(instance, back)).collect(),
            histograms: Vec::new(),
            starts: Vec::new(),
            exemplars: Vec::new(),
        };
        let batch = Batch { appends: backs.map(append).collect(), is_atomic: true };
        let samples = (batch.appends.len() * instances.len()) as u64;
        tokio::select! {
            written = writer.write(batch, DEADLINE) => {
                assert_eq!(written.expect("stored").stored, samples);
            }
            () = driver.run() => panic!("the driver ended"),
        }
    }

    /// What a metric stands at; 0 when it is not there.
    fn metric(&self, name: &str) -> u64 {
        let text = self.running.metrics().encode().expect("metrics");
        text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok()).unwrap_or(0)
    }

    async fn flush(&self) {
        let mut client = IngesterClient::new(Channel::new(self.running.peers().role(Role::Ingester)));
        client.flush(FlushRequest {}).await.expect("flushed");
    }

    async fn query(&self, tenant: &str, query: &str, time: Time) -> Result<QueryValue, tonic::Status> {
        let request = pb::QueryRequest {
            tenant: tenant.to_owned(),
            query: query.to_owned(),
            time: Some(time),
            ..Default::default()
        };
        let mut stream = self.client().query(request).await?.into_inner();
        let mut value = None;
        while let Some(message) = stream.message().await? {
            let piece = rpc::convert::query::piece(&message).expect("valid");
            assert!(value.is_none() || piece.end.is_some(), "a small answer is one piece and an end");
            value = value.or(Some(piece.value));
        }
        Ok(value.expect("an answer"))
    }

    /// The answer to an instant query as text: labels and value of each element.
    async fn ask(&self, tenant: &str, query: &str) -> String {
        match self.query(tenant, query, Time::Instant(NOW.millis())).await {
            Ok(QueryValue::Vector(elements)) => {
                let show = |e: &model::query::VectorElement| format!("{}={:?}", e.labels, e.value);
                elements.iter().map(show).collect::<Vec<_>>().join(" ")
            }
            Ok(other) => format!("{other:?}"),
            Err(status) => format!("{:?}: {}", status.code(), status.message()),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_and_files_are_merged_and_never_counted_twice() {
    let folder = tempfile::tempdir().expect("a folder");
    let started = Started::at(folder.path(), true).await;
    started.write("default", 20).await;
    for state in ["in the head alone", "in the head and in a file"] {
        for (query, expected) in [
            ("m", r#"{__name__="m", instance="a"}=Float(19.0) {__name__="m", instance="b"}=Float(38.0)"#),
            ("sum(count_over_time(m[1h]))", "{}=Float(40.0)"),
            // 19 steps of 1 and of 2 in 285 s, from the first sample to the last.
            ("sum(max_over_time(m[1h]) - min_over_time(m[1h]))", "{}=Float(57.0)"),
            (r#"m{instance=~"b|c"} offset 15s"#, r#"{__name__="m", instance="b"}=Float(36.0)"#),
            ("absent(m)", ""),
        ] {
            assert_eq!(started.ask("default", query).await, expected, "{query}, {state}");
        }
        started.flush().await;
    }
    started.stop().await;
    // With a head that holds only the recent tail, the rest comes from the file.
    let started = Started::at(folder.path(), true).await;
    assert_eq!(started.ask("default", "sum(count_over_time(m[1h]))").await, "{}=Float(40.0)");
    started.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_range_gives_one_point_a_step() {
    let folder = tempfile::tempdir().expect("a folder");
    let started = Started::at(folder.path(), true).await;
    started.write("default", 5).await;
    let range = pb::Range { start: NOW.millis() - 30_000, end: NOW.millis(), step: 15_000 };
    let value = started.query("default", r#"m{instance="b"}"#, Time::Range(range)).await.expect("an answer");
    let QueryValue::Matrix(series) = value else { panic!("a matrix: {value:?}") };
    assert_eq!(series.len(), 1);
    let points: Vec<(i64, f64)> = series[0].floats.iter().map(|(t, x)| (t.since_ms(NOW), *x)).collect();
    assert_eq!(points, [(-30_000, 4.0), (-15_000, 6.0), (0, 8.0)]);
    started.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tenants_do_not_see_each_other() {
    let folder = tempfile::tempdir().expect("a folder");
    let started = Started::at(folder.path(), true).await;
    started.write("team-a", 3).await;
    started.write("team-b", 7).await;
    started.flush().await;
    for (tenant, count) in [("team-a", "{}=Float(6.0)"), ("team-b", "{}=Float(14.0)"), ("", "")] {
        assert_eq!(started.ask(tenant, "sum(count_over_time(m[1h]))").await, count, "{tenant:?}");
    }
    started.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_have_the_kind_and_words_that_clients_know() {
    let folder = tempfile::tempdir().expect("a folder");
    let started = Started::at(folder.path(), true).await;
    started.write("default", 5).await;
    for (query, code, text) in [
        ("m{", Code::InvalidArgument, "1:3: parse error: unexpected end of input inside braces"),
        ("m + on(x) m", Code::FailedPrecondition, "found duplicate series for the match group"),
        ("nonsense(m)", Code::InvalidArgument, r#"1:1: parse error: unknown function with name "nonsense""#),
    ] {
        let status = started.query("default", query, Time::Instant(NOW.millis())).await.expect_err("refused");
        assert_eq!(status.code(), code, "{query}: {}", status.message());
        assert!(status.message().contains(text), "{query}: {}", status.message());
    }
    started.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_that_holds_too_much_names_the_limit() {
    let folder = tempfile::tempdir().expect("a folder");
    let started = Started::at(folder.path(), true).await;
    started.write("default", 700).await;
    let status = started.query("default", "m[12h]", Time::Instant(NOW.millis())).await.expect_err("too much");
    assert_eq!(status.code(), Code::FailedPrecondition, "{}", status.message());
    assert_eq!(
        status.message(),
        "query processing would load too many samples into memory in query execution"
    );
    started.stop().await;
}

/// Only one query runs at a time here, so that the next one shows when the one before has ended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_ends_when_nobody_waits_for_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let started = Started::at(folder.path(), true).await;
    // Two million steps of five hundred additions.
    let text = vec!["time()"; 500].join(" + ");
    let range = pb::Range { start: 0, end: 2_000_000, step: 1 };
    let slow = started.query("default", &text, Time::Range(range));
    let is_busy = async {
        loop {
            let quick = pb::QueryRequest {
                query: "1".to_owned(),
                time: Some(Time::Instant(0)),
                timeout_ms: 100,
                ..Default::default()
            };
            let refused = started.client().query(quick).await.err();
            if refused.is_some_and(|status| status.message().contains("timed out")) {
                return;
            }
        }
    };
    tokio::select! {
        answer = slow => panic!("no time to give up: {answer:?}"),
        () = is_busy => {}
    }
    // The slow one is dropped: its place is free.
    let quick = started.query("default", "1 + 1", Time::Instant(0));
    let answer = tokio::time::timeout(DEADLINE, quick).await.expect("in time");
    assert_eq!(answer.expect("an answer"), QueryValue::Scalar(Timestamp(0), 2.0));
    started.stop().await;
}

/// Aggregations computed in parts, and those that could be but for files.
fn aggregations(started: &Started) -> (u64, u64) {
    let whole = started.metric(r#"querier_aggregations_whole_total{reason="files"}"#);
    (started.metric("querier_aggregations_in_parts_total"), whole)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parts_are_computed_while_heads_hold_what_is_asked_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let started = Started::at(folder.path(), true).await;
    // Five minutes, and three hours.
    started.write("default", 20).await;
    started.write("long", 720).await;
    for state in ["in the head alone", "in the head and in a file"] {
        assert_eq!(started.ask("default", "sum(count_over_time(m[1h]))").await, "{}=Float(40.0)", "{state}");
        started.flush().await;
    }
    assert_eq!(aggregations(&started), (2, 0));
    // One of each by itself, and no aggregation at all.
    assert_eq!(started.ask("default", "max(m) - min(m) + quantile(0, m)").await, "{}=Float(38.0)");
    assert_eq!(started.ask("default", "count(absent(m)) or vector(1)").await, "{}=Float(1.0)");
    assert_eq!(aggregations(&started), (4, 0));
    started.stop().await;
    // The head loads the recent tail only; what goes beyond it, files have.
    let started = Started::at(folder.path(), true).await;
    assert_eq!(started.ask("long", "sum(count_over_time(m[1d]))").await, "{}=Float(1440.0)");
    assert_eq!(aggregations(&started), (0, 1));
    assert_eq!(started.ask("long", "sum(count_over_time(m[5m]))").await, "{}=Float(40.0)");
    assert_eq!(aggregations(&started), (1, 1));
    started.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_ends_when_nobody_waits_for_the_query() {
    let folder = tempfile::tempdir().expect("a folder");
    let started = Started::with(folder.path(), true, 1_000_000).await;
    started.write("default", 5).await;
    // Sixty thousand windows of 43,200 points.
    let range = pb::Range { start: NOW.millis() - 59_999, end: NOW.millis(), step: 1 };
    let slow = started.query("default", "sum(quantile_over_time(0.5, m[12h:1s]))", Time::Range(range));
    let is_computed = async {
        while started.metric("ingester_aggregations_running") == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::select! {
        answer = slow => panic!("no time to give up: {answer:?}"),
        () = is_computed => {}
    }
    let has_ended = async {
        while started.metric("ingester_aggregations_running") > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(DEADLINE, has_ended).await.expect("in time");
    started.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn look_ups_cover_heads_and_files() {
    let folder = tempfile::tempdir().expect("a folder");
    let started = Started::at(folder.path(), true).await;
    started.write("default", 3).await;
    started.flush().await;
    let mut client = started.client();
    let everything = pb::LabelsRequest { min_time: i64::MIN, max_time: i64::MAX, ..Default::default() };
    let names = client.label_names(everything.clone()).await.expect("names").into_inner();
    assert_eq!(names.values, ["__name__", "instance"]);
    let limited = pb::LabelsRequest { name: "instance".to_owned(), limit: 1, ..everything };
    let values = client.label_values(limited).await.expect("values").into_inner();
    assert_eq!((values.values, values.is_truncated), (vec!["a".to_owned()], true));
    let request = pb::SeriesRequest {
        any_of: rpc::convert::matcher_sets_to_pb(&[vec![Matcher::equal("instance", "b")]]),
        min_time: NOW.millis() - 1_000,
        max_time: NOW.millis(),
        ..Default::default()
    };
    let mut stream = client.series(request).await.expect("series").into_inner();
    let mut found = Vec::new();
    while let Some(message) = stream.message().await.expect("a whole answer") {
        let symbols = SymbolReader(&message.symbols);
        found.extend(message.labels.iter().map(|l| symbols.labels(l).expect("valid").to_string()));
    }
    assert_eq!(found, [r#"{__name__="m", instance="b"}"#]);
    drop(stream);
    started.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_an_ingester_a_query_says_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let started = Started::at(folder.path(), false).await;
    assert_eq!(started.ask("default", "up").await, "Unavailable: expanding series: no ingester is known");
    started.stop().await;
}
