use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::stream::BoxStream;
use model::{Matcher, Tenant, Timestamp};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult,
};

use super::*;
use crate::series::SeriesRow;
use crate::series::testing::{BASE, assert_rows_eq};
use crate::storage::LogState;
use crate::table::tests::{flush, options, row};
use crate::table::{SelectLimits, Table, TableOptions};
use crate::testing::run;

/// Counts what is read.
#[derive(Debug, Default)]
struct Counting {
    inner: InMemory,
    gets: AtomicU64,
    bytes: AtomicU64,
}

impl Counting {
    /// Requests and bytes since the last call.
    fn take(&self) -> (u64, u64) {
        (self.gets.swap(0, Ordering::Relaxed), self.bytes.swap(0, Ordering::Relaxed))
    }
}

impl std::fmt::Display for Counting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Counting")
    }
}

#[async_trait::async_trait]
impl ObjectStore for Counting {
    async fn put_opts(
        &self,
        path: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> object_store::Result<PutResult> {
        self.inner.put_opts(path, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        let result = self.inner.get_opts(path, options).await?;
        if path.as_ref().ends_with(".parquet") {
            self.gets.fetch_add(1, Ordering::Relaxed);
            self.bytes.fetch_add(result.range.end - result.range.start, Ordering::Relaxed);
        }
        Ok(result)
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        self.inner.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

async fn counted(request_cost_bytes: u64, cache_bytes: usize) -> (Arc<Table>, Arc<Counting>) {
    let store = Arc::new(Counting::default());
    let counted: Arc<dyn ObjectStore> = Arc::<Counting>::clone(&store);
    let options = TableOptions { request_cost_bytes, cache_bytes, ..options(counted) };
    (Table::open(options).await.expect("opens"), store)
}

async fn select(table: &Table, matchers: &[Matcher], times: (i64, i64)) -> Vec<SeriesRow> {
    let snapshot = table.snapshot(None).await.expect("snapshot");
    let none = SelectLimits::NONE;
    snapshot.select(&Tenant::default(), matchers, times.0, times.1, none).await.expect("selected")
}

const HOUR_MS: i64 = 3_600_000;
/// Within one day and one window.
const START: i64 = BASE / (24 * HOUR_MS) * 24 * HOUR_MS;

/// Metrics of a hundred series each, in pods that are scraped every minute, for an hour.
fn metrics(count: usize) -> Vec<SeriesRow> {
    let pods: Vec<Timeline> = (0..100)
        .map(|pod| (0..60).map(|i| START + i * 60_000 + pod * 37 + (i * 7_919 + pod * 31) % 11).collect())
        .collect();
    let mut rows = Vec::with_capacity(count * 100);
    for metric in 0..count {
        for (pod, times) in pods.iter().enumerate() {
            let mut row = row(&format!("metric_{metric:04}"), &format!("pod-{pod:02}"), &[], 0.0);
            let values = (0..60_u32).map(|i| f64::from(i * (7 + pod as u32 * metric as u32 % 97)));
            row.samples.floats = FloatColumn { timestamps: Arc::clone(times), values: values.collect() };
            rows.push(row);
        }
    }
    rows
}

/// What a select of one metric of a thousand costs, and that it costs no request the next time.
#[test]
fn a_cold_select_takes_few_requests_and_a_warm_one_none() {
    run(async {
        let (table, store) = counted(crate::location::S3_REQUEST_COST_BYTES, 64 << 20).await;
        let rows = metrics(1_000);
        flush(&table, "log", None, 1, rows.clone()).await.expect("flushed");
        let matchers = [Matcher::equal("__name__", "metric_0777")];
        let times = (START, START + HOUR_MS);
        store.take();
        assert_rows_eq(&select(&table, &matchers, times).await, &rows[77_700..77_800]);
        let (gets, bytes) = store.take();
        assert!(gets <= 5 && bytes <= 1_200_000, "{gets} requests, {bytes} bytes");
        assert!(table.cache_stats().misses > 0 && table.cache_stats().bytes > 0);
        assert_rows_eq(&select(&table, &matchers, times).await, &rows[77_700..77_800]);
        assert_eq!(store.take(), (0, 0));

        // Names and values need the rows' labels alone.
        let snapshot = table.snapshot(None).await.expect("snapshot");
        let (tenant, none) = (Tenant::default(), SelectLimits::NONE);
        let values = snapshot.label_values(&tenant, "instance", &matchers, times.0, times.1, none).await;
        assert_eq!(values.expect("values").len(), 100);
        assert_eq!(store.take(), (0, 0));
    });
}

/// Many at once read what one alone reads.
#[test]
fn queries_at_one_time_share_their_reads() {
    run(async {
        let (table, store) = counted(0, 64 << 20).await;
        let rows = metrics(50);
        flush(&table, "log", None, 1, rows.clone()).await.expect("flushed");
        let matchers = [Matcher::equal("instance", "pod-42")];
        let times = (START, START + HOUR_MS);
        let want: Vec<SeriesRow> = (0..50).map(|i| rows[i * 100 + 42].clone()).collect();
        let alone = {
            let (table, store) = counted(0, 64 << 20).await;
            flush(&table, "log", None, 1, rows).await.expect("flushed");
            store.take();
            select(&table, &matchers, times).await;
            store.take()
        };
        store.take();
        for got in futures::future::join_all((0..8).map(|_| select(&table, &matchers, times))).await {
            assert_rows_eq(&got, &want);
        }
        assert_eq!(store.take().1, alone.1);
    });
}

/// Of a file is read what heads that answered may lack.
#[test]
fn what_heads_hold_is_not_read_again() {
    run(async {
        let (table, _) = counted(0, 0).await;
        flush(&table, "one", None, 7, vec![row("m", "a", &[BASE + 1_000, BASE + 3_000], 1.0)])
            .await
            .expect("flushed");
        flush(&table, "two", None, 3, vec![row("m", "b", &[BASE + 2_000], 1.0)]).await.expect("flushed");
        let snapshot = table.snapshot(None).await.expect("snapshot");
        let state = |log: &str, acked_seq, since| LogState {
            log: log.into(),
            acked_seq,
            complete_since: Timestamp(since),
            table_version: 2,
        };
        for (covered, want) in [
            (vec![], "a1000 a3000 b2000 "),
            (vec![state("one", 7, BASE)], "b2000 "),
            (vec![state("one", 9, BASE - 1)], "b2000 "),
            // Answered before what was flushed was acknowledged.
            (vec![state("one", 6, BASE)], "a1000 a3000 b2000 "),
            // Has dropped nothing of what the file has, or some.
            (vec![state("one", 7, BASE + 1_000)], "b2000 "),
            (vec![state("one", 7, BASE + 1_001)], "a1000 b2000 "),
            (vec![state("one", 7, BASE + 3_000)], "a1000 b2000 "),
            (vec![state("one", 7, BASE + 3_001)], "a1000 a3000 b2000 "),
            (vec![state("one", 7, i64::MAX)], "a1000 a3000 b2000 "),
            (vec![state("other", 9, BASE)], "a1000 a3000 b2000 "),
            (vec![state("two", 3, BASE), state("one", 7, BASE)], ""),
        ] {
            let (tenant, times) = (Tenant::default(), (BASE, BASE + HOUR_MS));
            let opened = snapshot.open(&tenant, &[], times, SelectLimits::NONE, &covered).await;
            let mut opened = opened.expect("opened");
            let labels = opened.labels().to_vec();
            let mut got = String::new();
            for labels in labels {
                let samples = opened.next().await.expect("read").expect("a series");
                for t in samples.floats.timestamps.iter() {
                    write!(got, "{}{} ", labels.value("instance"), t - BASE).expect("writing to a string");
                }
            }
            assert_eq!(got, want, "{covered:?}");
            let is_covered = snapshot.is_covered(&tenant, &[], times, &covered);
            assert_eq!(is_covered, want.is_empty(), "{covered:?}");
        }
    });
}

/// More pages than are fetched at once.
#[test]
fn long_answers_are_fetched_in_turns() {
    run(async {
        let (table, _) = counted(64 << 10, 0).await;
        let times: Timeline = (0..7_000).map(|i| BASE + i * 1_000).collect();
        // Nothing to be gained by compression: 56 kB a row.
        let mut state = 1_u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            f64::from_bits(0x3ff0_0000_0000_0000 | state >> 12)
        };
        let rows: Vec<SeriesRow> = (0..1_000)
            .map(|i| {
                let mut row = row("m", &format!("i{i:04}"), &[], 0.0);
                let values = (0..times.len()).map(|_| random()).collect();
                row.samples.floats = FloatColumn { timestamps: Arc::clone(&times), values };
                row
            })
            .collect();
        flush(&table, "log", None, 1, rows.clone()).await.expect("flushed");
        let snapshot = table.snapshot(None).await.expect("snapshot");
        let opened =
            snapshot.open(&Tenant::default(), &[], (i64::MIN, i64::MAX), SelectLimits::NONE, &[]).await;
        let mut opened = opened.expect("opened");
        let (mut fetches, mut got) = (0, 0);
        while opened.fetch().await.expect("fetched") {
            fetches += 1;
            while let Some(samples) = opened.next_ready() {
                assert!(samples.expect("decoded").bit_eq(&rows[got].samples));
                got += 1;
            }
        }
        assert_eq!(got, 1_000);
        assert!(fetches > 2, "{fetches}");
    });
}
