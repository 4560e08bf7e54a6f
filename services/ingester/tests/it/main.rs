//! The ingester in process, through its gRPC face, on a folder of its own.

mod otlp;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use coordination::{InMemory, Role};
use group_writer::{Append, Batch, Group, GroupIdentity, GroupWriter, Presence, RefusalReason, Written};
use model::{
    Clock, FloatHistogram, Histogram, Labels, Matcher, Metadata, MetricType, Tenant, Timestamp, Value,
};
use rpc::Channel;
use rpc::pb::ingester as pb;
use rpc::pb::ingester::ingester_client::IngesterClient;
use rpc::symbols::SymbolReader;
use service_runtime::{ConfigDuration, Limits, Options, Program, Reach, Reload, Running, Stopper};

const NOW: Timestamp = Timestamp(1_700_000_000_000);
const DEADLINE: Duration = Duration::from_secs(30);

/// An ingester that runs, and a writer to it.
struct Started {
    running: Running,
    stopper: Stopper,
    writer: GroupWriter,
    driver: tokio::task::JoinHandle<()>,
}

impl Started {
    async fn at(folder: &Path) -> Self {
        Self::with(folder, |config| config).await
    }

    /// Starts with a config that `adapt` has the last word on.
    async fn with(folder: &Path, adapt: impl FnOnce(ingester::Config) -> ingester::Config) -> Self {
        let options = Options {
            clock: Clock::fixed(NOW),
            coordinator: Arc::new(InMemory::new()),
            member_name: "ingester-0".to_owned(),
            reach: Reach::InProcess,
            grace: DEADLINE,
            limits: Limits::default(),
        };
        let config = adapt(ingester::Config {
            path: folder.to_owned(),
            out_of_order_time_window: ConfigDuration::from_secs(0),
            ..ingester::Config::default()
        });
        let stopper = Stopper::default();
        let program = Program::new(options).service::<ingester::Service>(config, &[]);
        let running = program.start(stopper.clone(), Reload::new()).await.expect("started");
        running.readiness().reached().await;
        let peers = running.peers().clone();
        let members = peers.members(Role::Ingester);
        let connect = Arc::new(move |address: &str| peers.channel(address));
        let (writer, driver) = GroupWriter::new(group_writer::Options::default(), members, connect);
        let driver = tokio::runtime::Handle::current().spawn(driver.run());
        Self { running, stopper, writer, driver }
    }

    async fn stop(self) {
        self.driver.abort();
        drop(self.writer);
        self.stopper.stop();
        self.running.wait().await.expect("stopped in order");
    }

    fn client(&self) -> IngesterClient<Channel> {
        IngesterClient::new(self.running.peers().role(Role::Ingester))
    }

    async fn write(&self, appends: Vec<Append>, is_atomic: bool) -> Written {
        self.writer.write(Batch { appends, is_atomic }, DEADLINE).await.expect("answered for")
    }

    /// Everything of a tenant: labels with (time, bits).
    async fn all(&self, tenant: &str) -> Vec<(String, Vec<(i64, u64)>)> {
        let matcher = Matcher::new(model::MatchOp::Regex, "__name__", ".+").expect("valid");
        let request = pb::SelectRequest {
            tenant: tenant.to_owned(),
            matchers: rpc::convert::matchers_to_pb(&[matcher]),
            min_time: i64::MIN,
            max_time: i64::MAX,
            ..Default::default()
        };
        let mut stream = self.client().select(request).await.expect("selected").into_inner();
        let (mut labels, mut timelines, mut samples) = (Vec::new(), Vec::new(), Vec::new());
        while let Some(message) = stream.message().await.expect("a whole answer") {
            let symbols = SymbolReader(&message.symbols);
            labels.extend(message.labels.iter().map(|l| symbols.labels(l).expect("valid").to_string()));
            let times =
                message.timelines.iter().map(|t| rpc::convert::ascending_times(&t.deltas).expect("ascend"));
            timelines.extend(times);
            for s in &message.samples {
                let times: &[i64] = match s.timeline.checked_sub(1) {
                    Some(number) => &timelines[number as usize],
                    None => &[],
                };
                samples.push(times.iter().copied().zip(s.values.iter().map(|x| x.to_bits())).collect());
            }
        }
        assert_eq!(labels.len(), samples.len());
        labels.into_iter().zip(samples).collect()
    }
}

fn group(tenant: &str, instance: &str, names: &[&str]) -> Group {
    let key = Labels::from_pairs([("instance", instance)]);
    let tenant = Tenant::new(tenant).expect("valid");
    let group = Group::new(GroupIdentity { tenant, key, sub_group: 0, epoch: 1 });
    let metadata = Arc::new(Metadata { kind: MetricType::Gauge, ..Metadata::default() });
    for name in names {
        let labels = Labels::from_pairs([("__name__", *name), ("instance", instance)]);
        group.add(labels, Arc::clone(&metadata));
    }
    group
}

fn append(group: &Group, t: i64, presence: Presence, values: &[f64]) -> Append {
    Append {
        group: group.clone(),
        members: group.len(),
        timestamp: Timestamp(NOW.millis() + t),
        presence,
        values: values.to_vec(),
        histograms: Vec::new(),
        starts: Vec::new(),
        exemplars: Vec::new(),
    }
}

/// A series as `Started::all` shows it.
fn series(name: &str, samples: &[(i64, f64)]) -> (String, Vec<(i64, u64)>) {
    let labels = Labels::from_pairs([("__name__", name), ("instance", "a")]).to_string();
    (labels, samples.iter().map(|(t, x)| (NOW.millis() + t, x.to_bits())).collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn samples_come_back_bit_for_bit_also_after_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let started = Started::at(folder.path()).await;
    let g = group("default", "a", &["x", "y"]);
    let stale = f64::from_bits(model::STALE_NAN_BITS);
    let appends = vec![
        append(&g, -30_000, Presence::All, &[1.5, f64::NAN]),
        append(&g, -15_000, Presence::Absent(vec![0b01]), &[-0.0]),
        append(&g, 0, Presence::All, &[stale, f64::INFINITY]),
    ];
    assert_eq!(started.write(appends, false).await, Written { stored: 5, refusals: Vec::new() });
    let other = group("team-b", "a", &["x"]);
    started.write(vec![append(&other, 0, Presence::All, &[7.0])], false).await;
    let expected = vec![
        series("x", &[(-30_000, 1.5), (0, stale)]),
        series("y", &[(-30_000, f64::NAN), (-15_000, -0.0), (0, f64::INFINITY)]),
    ];
    assert_eq!(started.all("default").await, expected);
    assert_eq!(started.all("team-b").await, [series("x", &[(0, 7.0)])]);
    assert_eq!(started.all("team-c").await, []);
    started.stop().await;

    let started = Started::at(folder.path()).await;
    assert_eq!(started.all("default").await, expected, "the recent tail is loaded from the table");
    assert_eq!(started.all("team-b").await, [series("x", &[(0, 7.0)])]);
    started.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn order_and_repetition_are_prometheus_ones() {
    let folder = tempfile::tempdir().expect("a folder");
    let started = Started::at(folder.path()).await;
    let g = group("default", "a", &["x", "y"]);
    started.write(vec![append(&g, 0, Presence::All, &[1.0, 1.0])], false).await;
    let again = started.write(vec![append(&g, 0, Presence::All, &[1.0, 1.0])], false).await;
    assert_eq!(again.refusals, [], "an exact repetition is taken silently");
    for (t, values, reason, text) in [
        (0, [2.0, 1.0], RefusalReason::Duplicate, "duplicate sample for timestamp"),
        (-1, [1.0, 1.0], RefusalReason::OutOfOrder, "out of order sample"),
        (600_001, [1.0, 1.0], RefusalReason::OutOfBounds, "out of bounds"),
    ] {
        let written = started.write(vec![append(&g, t, Presence::All, &values)], true).await;
        assert_eq!(written.stored, 0, "{text}: a whole request is rolled back");
        assert_eq!(written.refusals[0].reason, reason);
        assert!(written.refusals[0].example.starts_with(text), "{}", written.refusals[0].example);
    }
    let half = started.write(vec![append(&g, 0, Presence::All, &[2.0, 1.0])], false).await;
    assert_eq!(
        (half.stored, half.refusals[0].count),
        (1, 1),
        "without the wish for all or nothing the rest is stored"
    );
    let x = Labels::from_pairs([("__name__", "x"), ("instance", "a")]);
    assert_eq!(half.refusals[0].samples, [(x, NOW)], "which samples were refused is said as well");
    assert_eq!(started.all("default").await, [series("x", &[(0, 1.0)]), series("y", &[(0, 1.0)])]);
    started.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flush_answers_when_the_table_has_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let started = Started::at(folder.path()).await;
    let g = group("default", "a", &["x"]);
    started.write(vec![append(&g, 0, Presence::All, &[1.0])], false).await;
    let mut client = started.client();
    let report = client.flush(pb::FlushRequest {}).await.expect("flushed").into_inner();
    assert_eq!((report.rows, report.files), (1, 1));
    assert!(report.table_version > 0);
    let again = client.flush(pb::FlushRequest {}).await.expect("nothing to flush").into_inner();
    assert_eq!((again.rows, again.files), (0, 0));
    assert_eq!(started.all("default").await, [series("x", &[(0, 1.0)])], "flushed samples stay readable");
    let day = folder.path().join("metrics/tenant=default/day=2023-11-14");
    assert_eq!(std::fs::read_dir(day).expect("the partition").count(), 1);
    started.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compaction_answers_when_the_table_has_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let started = Started::at(folder.path()).await;
    let g = group("default", "a", &["x"]);
    let mut client = started.client();
    for i in 0..3 {
        started.write(vec![append(&g, i, Presence::All, &[i as f64])], false).await;
        client.flush(pb::FlushRequest {}).await.expect("flushed");
    }
    let report = client.compact(pb::CompactRequest {}).await.expect("compacted").into_inner();
    let got = (report.compactions, report.files_replaced, report.files_written, report.files_expired);
    assert_eq!(got, (1, 3, 1, 0));
    assert_eq!(report.table_version, 4);
    let again = client.compact(pb::CompactRequest {}).await.expect("nothing to do").into_inner();
    assert_eq!(again, pb::CompactResponse::default());
    assert_eq!(started.all("default").await, [series("x", &[(0, 0.0), (1, 1.0), (2, 2.0)])]);
    started.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newest_sample_of_each_series_is_found() {
    let folder = tempfile::tempdir().expect("a folder");
    let started = Started::at(folder.path()).await;
    let g = group("default", "a", &["x", "h"]);
    let mut with_histogram = append(&g, 0, Presence::All, &[2.0]);
    let histogram = FloatHistogram { count: 3.0, sum: 4.0, ..FloatHistogram::default() };
    with_histogram.histograms.push((1, Arc::new(Histogram::Float(histogram))));
    started.write(vec![append(&g, -5_000, Presence::Present(vec![0]), &[1.0]), with_histogram], false).await;
    let request = pb::LastSamplesRequest {
        tenant: String::new(),
        any_of: vec![rpc::pb::model::MatcherSet::default()],
        min_time: NOW.millis() - 300_000,
        max_time: NOW.millis(),
    };
    let mut stream = started.client().last_samples(request).await.expect("opened").into_inner();
    let first = stream.message().await.expect("an answer").expect("a first message");
    assert_eq!((first.state.expect("the head's state").logs.len(), first.samples), (1, None));
    let mut found = Vec::new();
    while let Some(message) = stream.message().await.expect("a whole answer") {
        let samples = message.samples.expect("no more states");
        let samples = rpc::convert::last_samples::from_pb(samples).expect("whole");
        for series in 0..samples.len() {
            let value = match samples.value(series) {
                Value::Float(x) => x,
                Value::Histogram(h) => h.to_float().count,
            };
            found.push((samples.metric_name(series).to_owned(), samples.timestamp(series), value));
        }
    }
    drop(stream);
    let now = NOW.millis();
    assert_eq!(found, [("h".to_owned(), now, 3.0), ("x".to_owned(), now, 2.0)]);
    started.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_stream_did_not_declare_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let started = Started::at(folder.path()).await;
    let append =
        pb::GroupAppend { group: 5, timestamp: NOW.millis(), values: vec![2].into(), ..Default::default() };
    let request = pb::AppendRequest { id: 1, append: vec![append], ..Default::default() };
    let stream = tokio_stream::iter([request]);
    let mut answers = started.client().append(stream).await.expect("opened").into_inner();
    let status = answers.message().await.expect_err("refused");
    assert_eq!(status.code(), tonic::Code::InvalidArgument);
    assert_eq!(status.message(), "group 5 is not declared on this stream");
    drop(answers);
    started.stop().await;
}
