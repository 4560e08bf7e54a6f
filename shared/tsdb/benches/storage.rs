//! What a table of Kubernetes-like series takes on disk, and what a cold select of it asks of an object store.
//!
//! 100 nodes give 1,000 series each, every 15 s with some milliseconds of jitter, for a day; a tenth of that for the
//! size after the daily compaction. Prints bytes a sample after a flush, of 2 h rows and of 8 h rows, and for a select
//! of 100 series of 100,000 over an hour: requests, bytes and time, with nothing known and with all in memory.

use std::fmt;
use std::io::Write as _;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::stream::BoxStream;
use model::{Clock, Labels, Matcher, Tenant, Timestamp};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use tsdb::series::{FloatColumn, SeriesRow, SeriesSamples, Timeline, compare_labels};
use tsdb::table::{SelectLimits, Table, TableOptions};
use tsdb::{Maintenance, MaintenanceOptions};

/// 2026-01-01T00:00:00Z.
const DAY: i64 = 1_767_225_600_000;
const HOUR_MS: i64 = 3_600_000;
const FLUSH_MS: i64 = 15 * 60_000;
const INTERVAL_MS: i64 = 15_000;
const METRICS: usize = 1_000;
/// What an S3 server delivers while it answers one more request.
const REQUEST_COST_BYTES: u64 = 1 << 20;
const CACHE_BYTES: usize = 256 << 20;
const RUNS: usize = 11;

type Failure = Box<dyn std::error::Error>;

fn main() -> std::result::Result<(), Failure> {
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(sizes())?;
    runtime.block_on(selects())
}

/// How the values of a metric go on.
#[derive(Clone, Copy)]
enum Shape {
    Constant,
    /// Counts events.
    Counter,
    /// Seconds of CPU, in nanoseconds.
    Seconds,
    /// Pages of memory, in bytes.
    Pages,
    /// A handful of things.
    Few,
    /// A latency: all digits.
    Float,
}

impl Shape {
    const fn of(metric: usize) -> Self {
        match metric % 20 {
            0..4 => Self::Constant,
            4..13 => Self::Counter,
            13..15 => Self::Seconds,
            15..17 => Self::Pages,
            17..19 => Self::Few,
            _ => Self::Float,
        }
    }
}

/// The numbers of a seed (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// One series that goes on and on.
struct Source {
    labels: Labels,
    node: usize,
    shape: Shape,
    /// How much is going on.
    activity: u64,
    state: u64,
    random: Random,
}

impl Source {
    #[expect(clippy::cast_precision_loss, reason = "all below 2^53")]
    fn value(&mut self) -> f64 {
        let random = &mut self.random;
        match self.shape {
            Shape::Constant => 1.0,
            Shape::Counter => {
                self.state += (random.below(self.activity) * random.below(4)) / 2;
                self.state as f64
            }
            Shape::Seconds => {
                self.state += self.activity * 10_000_000 + random.below(self.activity * 4_000_000);
                self.state as f64 / 1e9
            }
            Shape::Pages => {
                if random.below(5) < 3 {
                    self.state = (self.state + random.below(41)).saturating_sub(20);
                }
                ((self.state + 10_000) * 4_096) as f64
            }
            Shape::Few => {
                if random.below(5) == 0 {
                    self.state = (self.state + random.below(5)).saturating_sub(2);
                }
                self.state as f64
            }
            Shape::Float => {
                if random.below(7) == 0 {
                    self.state = random.next() >> 11;
                }
                self.state as f64 / (1_u64 << 63) as f64
            }
        }
    }
}

/// Targets that are scraped.
struct Cluster {
    /// Sorted as a file's rows are.
    sources: Vec<Source>,
    jitter: Random,
    nodes: usize,
}

impl Cluster {
    fn new(nodes: usize) -> Self {
        let mut random = Random(1);
        let mut sources = Vec::with_capacity(nodes * METRICS);
        for node in 0..nodes {
            for metric in 0..METRICS {
                let labels = Labels::from_pairs([
                    ("__name__", format!("container_metric_{metric}_total")),
                    ("cluster", "prod-eu-1".to_owned()),
                    ("container", format!("app-{:03}", node / 5)),
                    ("instance", format!("10.0.{node}.7:10250")),
                    ("job", "kubelet".to_owned()),
                    ("namespace", format!("ns-{}", node % 37)),
                    ("pod", format!("app-{:03}-{:09x}", node / 5, random.below(1 << 36))),
                ]);
                let shape = Shape::of(metric);
                let (activity, state) = (1 + random.below(12), random.below(1 << 24));
                let random = Random(random.next());
                sources.push(Source { labels, node, shape, activity, state, random });
            }
        }
        sources.sort_by(|a, b| compare_labels(&a.labels, &b.labels));
        Self { sources, jitter: Random(2), nodes }
    }

    /// What is scraped within a time.
    fn scrape(&mut self, times: Range<i64>) -> Vec<SeriesRow> {
        let mut timeline = |node: usize| -> Timeline {
            let first = times.start + i64::try_from(node).expect("few") * 97;
            let jitter = &mut self.jitter;
            (first..times.end)
                .step_by(15_000)
                .map(|t| t + i64::try_from(jitter.below(10)).expect("few"))
                .collect()
        };
        let timelines: Vec<Timeline> = (0..self.nodes).map(&mut timeline).collect();
        let row = |source: &mut Source| {
            let timestamps = Arc::clone(&timelines[source.node]);
            let values = timestamps.iter().map(|_| source.value()).collect();
            let floats = FloatColumn { timestamps, values };
            let samples = SeriesSamples { floats, ..SeriesSamples::default() };
            SeriesRow { labels: source.labels.clone(), metadata: Arc::default(), samples }
        };
        self.sources.iter_mut().map(row).collect()
    }
}

async fn open(
    store: &Arc<Counting>,
    clock: &Clock,
    cache_bytes: usize,
) -> std::result::Result<Arc<Table>, Failure> {
    let options = TableOptions {
        store: Arc::clone(store) as _,
        prefix: "metrics".into(),
        clock: clock.clone(),
        runtime: tokio::runtime::Handle::current(),
        request_cost_bytes: REQUEST_COST_BYTES,
        cache_bytes,
    };
    Ok(Table::open(options).await?)
}

/// Flushes every quarter of an hour what is scraped within a time.
async fn fill(table: &Table, cluster: &mut Cluster, times: Range<i64>) -> std::result::Result<(), Failure> {
    let mut before = None;
    for (flush, start) in (0..).zip(times.step_by(usize::try_from(FLUSH_MS)?)) {
        let rows = cluster.scrape(start..start + FLUSH_MS);
        let files = table.write_files("log", flush, vec![(Tenant::default(), rows)]).await?;
        table.commit_flush("log", before, flush, files).await?;
        before = Some(flush);
    }
    Ok(())
}

async fn print_size(what: &str, table: &Table, samples: u64) -> std::result::Result<(), Failure> {
    let snapshot = table.snapshot(None).await?;
    let (mut files, mut bytes) = (0, 0);
    for file in snapshot.files(&Tenant::default()) {
        files += 1;
        bytes += file.size;
    }
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let each = bytes as f64 / samples as f64;
    print(&format!("{what}: {files} files, {each:.3} bytes a sample"))
}

/// Bytes a sample of 10,000 series over a day.
async fn sizes() -> std::result::Result<(), Failure> {
    let clock = Clock::fixed(Timestamp(DAY + 23 * HOUR_MS + 59 * 60_000));
    let store = Arc::new(Counting::default());
    let table = open(&store, &clock, 0).await?;
    let mut cluster = Cluster::new(10);
    let samples = u64::try_from(24 * HOUR_MS / INTERVAL_MS)? * cluster.sources.len() as u64;
    fill(&table, &mut cluster, DAY..DAY + 24 * HOUR_MS).await?;
    print_size("flushed, rows of 15 min", &table, samples).await?;
    let maintenance = Maintenance::new(Arc::clone(&table), MaintenanceOptions::default());
    maintenance.look(&|_: &str| true, true).await?;
    print_size("compacted, rows of 2 h", &table, samples).await?;
    clock.set(Timestamp(DAY + 25 * HOUR_MS));
    let begin = Instant::now();
    maintenance.look(&|_: &str| true, true).await?;
    let took = begin.elapsed();
    print_size("compacted, rows of 8 h", &table, samples).await?;
    print(&format!("the last step took {took:?}"))
}

/// 100 of 100,000 series over an hour of a compacted 2 h window.
async fn selects() -> std::result::Result<(), Failure> {
    let clock = Clock::fixed(Timestamp(DAY + 4 * HOUR_MS));
    let store = Arc::new(Counting::default());
    let table = open(&store, &clock, 0).await?;
    fill(&table, &mut Cluster::new(100), DAY..DAY + 2 * HOUR_MS).await?;
    Maintenance::new(table, MaintenanceOptions::default()).look(&|_: &str| true, true).await?;

    let (mut cold, mut warm) = (Vec::new(), Vec::new());
    let (mut gets, mut bytes) = (0, 0);
    for run in 0..RUNS {
        let reader = open(&store, &clock, CACHE_BYTES).await?;
        let snapshot = reader.snapshot(None).await?;
        let metric = format!("container_metric_{}_total", 85 * run + 4);
        let matchers = [Matcher::equal("__name__", &metric)];
        for times in [&mut cold, &mut warm] {
            let before = store.counted();
            let begin = Instant::now();
            let hour = (DAY + HOUR_MS / 2, DAY + 3 * HOUR_MS / 2);
            let rows =
                snapshot.select(&Tenant::default(), &matchers, hour.0, hour.1, SelectLimits::NONE).await?;
            times.push(begin.elapsed());
            assert_eq!(rows.len(), 100, "one series of each node");
            let after = store.counted();
            gets = gets.max(after.0 - before.0);
            bytes = bytes.max(after.1 - before.1);
        }
    }
    print(&format!("cold select: at most {gets} requests and {bytes} bytes, {:?}", median(&mut cold)))?;
    print(&format!("warm select: {:?}", median(&mut warm)))
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn print(line: &str) -> std::result::Result<(), Failure> {
    Ok(writeln!(std::io::stdout(), "{line}")?)
}

/// A store in memory that counts what is read.
#[derive(Debug, Default)]
struct Counting {
    inner: InMemory,
    gets: AtomicU64,
    bytes: AtomicU64,
}

impl Counting {
    /// Requests and bytes so far.
    fn counted(&self) -> (u64, u64) {
        (self.gets.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }
}

impl fmt::Display for Counting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "counting {}", self.inner)
    }
}

#[async_trait::async_trait]
impl ObjectStore for Counting {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.inner.put_opts(path, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        let result = self.inner.get_opts(path, options).await?;
        self.gets.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(result.range.end - result.range.start, Ordering::Relaxed);
        Ok(result)
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
