use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::stream::BoxStream;
use model::{Clock, Tenant, Timestamp};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutPayload, PutResult,
};
use serde_json::{Value, json};
use tokio::runtime::Handle;

use super::action::{url_decode, url_encode};
use super::log::{DeltaLog, Flush, Operation, Replacement};
use super::state::{DataFile, Origin, Part, State, join_origins};
use crate::file::encode::{FileStats, Tail};
use crate::table::{Error, Result};
use crate::testing::{Kind, on_every_store};

const NOW: i64 = 1_795_477_800_000;

async fn open(store: &Arc<dyn ObjectStore>) -> Result<DeltaLog> {
    DeltaLog::open(Arc::clone(store), &Path::from("t"), Clock::fixed(Timestamp(NOW))).await
}

fn memory() -> Arc<dyn ObjectStore> {
    Arc::new(InMemory::new())
}

fn file(path: &str) -> DataFile {
    DataFile {
        path: path.to_owned(),
        tenant: Tenant::default(),
        day: "2026-11-23".to_owned(),
        size: 10,
        modified_ms: NOW,
        stats: Some(FileStats {
            rows: 5,
            timelines: 1,
            min_time: Some(NOW),
            max_time: Some(NOW + 1),
            min_metric: Some("a".to_owned()),
            max_metric: Some("z".to_owned()),
        }),
        tail: Some(Tail { bytes: 8, crc: u32::MAX }),
        window_ms: crate::file::WINDOW_MS,
        part: None,
        origins: Vec::new(),
    }
}

async fn commit(
    log: &DeltaLog,
    name: &str,
    base: Option<u64>,
    through: u64,
    files: &[DataFile],
) -> Result<u64> {
    log.commit_flush(&Flush { log: name, base, through, files }).await
}

async fn put(store: &Arc<dyn ObjectStore>, path: &str, text: &str) {
    store.put(&Path::from(path), text.to_owned().into()).await.expect("put");
}

async fn lines(store: &Arc<dyn ObjectStore>, version: u64) -> Vec<Value> {
    let path = Path::from(format!("t/_delta_log/{version:020}.json"));
    let bytes = store.get(&path).await.expect("there").bytes().await.expect("read");
    let text = std::str::from_utf8(&bytes).expect("text");
    text.lines().map(|l| serde_json::from_str(l).expect("JSON")).collect()
}

async fn a_commit_is_what_the_protocol_says(kind: Kind) {
    let store = kind.store();
    let log = open(&store).await.expect("opens");
    let odd = DataFile { path: "tenant=a%2Ab/x y.parquet".to_owned(), ..file("") };
    assert_eq!(
        commit(&log, "l", Some(3), 4, &[]).await.expect_err("no base").kind(),
        fault::Kind::AlreadyExists
    );
    assert_eq!(commit(&log, "l", None, 3, std::slice::from_ref(&odd)).await.expect("committed"), 1);
    assert_eq!(commit(&log, "l", Some(3), 9, &[file("b")]).await.expect("committed"), 2);

    let first = lines(&store, 0).await;
    assert_eq!(first[1], json!({"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}}));
    assert_eq!(first[2]["metaData"]["partitionColumns"], json!(["tenant", "day"]));
    assert_eq!(first[2]["metaData"]["format"], json!({"provider": "parquet", "options": {}}));
    let second = lines(&store, 1).await;
    assert!(second[0]["commitInfo"]["txnId"].as_str().is_some_and(|n| n.len() == 26));
    assert_eq!(second[1], json!({"txn": {"appId": "l", "version": 3, "lastUpdated": NOW}}));
    let stats = json!({"numRecords": 5, "minValues": {"metric": "a", "min_time": NOW},
        "maxValues": {"metric": "z", "max_time": NOW + 1}, "nullCount": {"metric": 1}});
    let written: Value =
        serde_json::from_str(second[2]["add"]["stats"].as_str().expect("text")).expect("JSON");
    assert_eq!(written, stats);
    let mut add = second[2]["add"].clone();
    add["stats"] = Value::Null;
    assert_eq!(
        add,
        json!({"path": "tenant=a%252Ab/x%20y.parquet",
            "partitionValues": {"tenant": "default", "day": "2026-11-23"}, "size": 10, "modificationTime": NOW,
            "dataChange": true, "stats": null, "tags": {"tributary.log": "l", "tributary.through": "3",
                "tributary.tail_bytes": "8", "tributary.tail_crc32c": "4294967295"}})
    );
    assert_eq!(lines(&store, 2).await[2]["add"]["tags"]["tributary.base"], "3");

    for log in [log, open(&store).await.expect("opens")] {
        let state = log.known();
        assert_eq!((state.version, state.transactions["l"]), (2, 9));
        let origins = |base, through| vec![Origin { log: "l".to_owned(), base, through }];
        let want = [
            DataFile { origins: origins(Some(3), 9), ..file("b") },
            DataFile { origins: origins(None, 3), ..odd.clone() },
        ];
        assert_eq!(state.files.values().map(|f| (**f).clone()).collect::<Vec<_>>(), want);
    }
}

async fn racing_creators_share_one_table(kind: Kind) {
    let store = kind.store();
    let opened = futures::future::join_all((0..8).map(|_| open(&store))).await;
    let ids: Vec<String> = opened
        .iter()
        .map(|l| l.as_ref().expect("opens").known().metadata.clone().expect("metadata").id)
        .collect();
    assert!(ids.iter().all(|id| *id == ids[0] && id.len() == 36), "{ids:?}");
}

async fn every_one_of_many_committers_lands_once(kind: Kind) {
    let store = kind.store();
    let logs = futures::future::join_all((0..8).map(|_| open(&store))).await;
    let work = logs.iter().enumerate().map(|(i, log)| async move {
        let log = log.as_ref().expect("opens");
        for n in 0..5 {
            let base = (n > 0).then(|| n - 1);
            commit(log, &format!("log{i}"), base, n, &[file(&format!("{i}-{n}"))]).await.expect("lands");
        }
    });
    futures::future::join_all(work).await;
    let state = open(&store).await.expect("opens").known();
    assert_eq!((state.version, state.files.len()), (40, 40));
    assert!((0..8).all(|i| state.transactions[&format!("log{i}")] == 4));
}

async fn of_flushers_of_one_log_with_one_base_exactly_one_wins(kind: Kind) {
    let store = kind.store();
    let logs = futures::future::join_all((0..6).map(|_| open(&store))).await;
    let tries = logs.iter().enumerate().map(|(i, log)| async move {
        commit(log.as_ref().expect("opens"), "log", None, 7, &[file(&format!("f{i}"))]).await
    });
    let results = futures::future::join_all(tries).await;
    let won: Vec<usize> = results.iter().enumerate().filter(|(_, r)| r.is_ok()).map(|(i, _)| i).collect();
    assert_eq!(won.len(), 1, "{results:?}");
    for lost in results.iter().filter_map(|r| r.as_ref().err()) {
        assert!(matches!(lost, Error::BaseMismatch { base: None, found: Some(7), .. }), "{lost}");
    }
    let state = open(&store).await.expect("opens").known();
    assert_eq!(state.files.keys().collect::<Vec<_>>(), [&format!("f{}", won[0])]);
}

/// A store whose conditional puts misbehave for some calls.
#[derive(Debug)]
struct Flaky {
    inner: Arc<dyn ObjectStore>,
    /// Conditional puts seen so far.
    puts: AtomicUsize,
    /// What happens to the n-th conditional put.
    faults: Vec<Fault>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    None,
    /// It arrives and the answer is lost.
    AnswerLost,
    /// It arrives and the store, sending it again by itself, says that it is there already.
    SentTwice,
    /// It does not arrive.
    Dropped,
    /// It is refused though nothing stands there: it met another put that then failed.
    Refused,
    /// Somebody else takes the version first.
    Overtaken,
}

impl fmt::Display for Flaky {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("flaky")
    }
}

fn failure() -> object_store::Error {
    object_store::Error::Generic { store: "flaky", source: "timed out".into() }
}

#[async_trait::async_trait]
impl ObjectStore for Flaky {
    async fn put_opts(
        &self,
        path: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> object_store::Result<PutResult> {
        let n = self.puts.fetch_add(1, Ordering::Relaxed);
        match self.faults.get(n).copied().unwrap_or(Fault::None) {
            Fault::None => self.inner.put_opts(path, payload, options).await,
            Fault::AnswerLost => {
                self.inner.put_opts(path, payload, options).await?;
                Err(failure())
            }
            Fault::SentTwice => {
                self.inner.put_opts(path, payload.clone(), options.clone()).await?;
                self.inner.put_opts(path, payload, options).await
            }
            Fault::Dropped => Err(failure()),
            Fault::Refused => Err(object_store::Error::AlreadyExists {
                path: path.to_string(),
                source: "409 ConditionalRequestConflict".into(),
            }),
            Fault::Overtaken => {
                let other = r#"{"commitInfo":{"txnId":"other"}}"#;
                self.inner.put(path, other.into()).await?;
                self.inner.put_opts(path, payload, options).await
            }
        }
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        self.inner.get_opts(path, options).await
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

async fn a_lost_answer_is_found_again_and_nothing_happens_twice(kind: Kind) {
    use Fault::{AnswerLost, Dropped, None, Overtaken, Refused, SentTwice};
    for (faults, version) in [
        (vec![AnswerLost], 1),
        (vec![SentTwice], 1),
        (vec![Dropped], 1),
        (vec![Dropped, AnswerLost], 1),
        (vec![Dropped, SentTwice], 1),
        (vec![Overtaken], 2),
        (vec![Overtaken, Overtaken, AnswerLost], 3),
        (vec![Dropped, Overtaken, SentTwice], 2),
        (vec![Refused], 1),
        (vec![Refused, Refused, Overtaken, Refused, AnswerLost], 2),
    ] {
        // The first conditional put creates the table.
        let all = [vec![None], faults.clone()].concat();
        let kept = kind.store();
        let store: Arc<dyn ObjectStore> =
            Arc::new(Flaky { inner: Arc::clone(&kept), puts: AtomicUsize::new(0), faults: all });
        let log = open(&store).await.expect("opens");
        assert_eq!(
            commit(&log, "l", Option::None, 1, &[file("a")]).await.expect("lands"),
            version,
            "{faults:?}"
        );
        assert_eq!(
            commit(&log, "l", Some(1), 2, &[file("b")]).await.expect("lands"),
            version + 1,
            "{faults:?}"
        );
        let state = open(&store).await.expect("opens").known();
        assert_eq!((state.version, state.files.len()), (version + 1, 2), "{faults:?}");
    }
}

async fn a_store_that_keeps_failing_is_reported(kind: Kind) {
    let faults = vec![Fault::None, Fault::Dropped, Fault::Dropped, Fault::Dropped];
    let kept = kind.store();
    let store: Arc<dyn ObjectStore> =
        Arc::new(Flaky { inner: Arc::clone(&kept), puts: AtomicUsize::new(0), faults });
    let log = open(&store).await.expect("opens");
    let error = commit(&log, "l", None, 1, &[]).await.expect_err("fails");
    assert_eq!(error.kind(), fault::Kind::Unavailable);
    assert!(error.to_string().contains("00000000000000000001.json"), "{error}");
    assert_eq!(commit(&log, "l", None, 1, &[]).await.expect("lands when the store is back"), 1);
}

/// Time stands still but for the pauses between attempts.
#[tokio::test(start_paused = true)]
async fn a_commit_that_always_loses_gives_up() {
    let faults = [vec![Fault::None], vec![Fault::Overtaken; 100]].concat();
    let store: Arc<dyn ObjectStore> = Arc::new(Flaky { inner: memory(), puts: AtomicUsize::new(0), faults });
    let log = open(&store).await.expect("opens");
    let error = commit(&log, "l", None, 1, &[]).await.expect_err("gives up");
    assert!(matches!(error, Error::Contended { attempts: 100 }), "{error}");
    assert_eq!(error.kind(), fault::Kind::Busy);
    assert_eq!(commit(&log, "l", None, 1, &[]).await.expect("lands"), 101);
}

/// The very first put may meet the same; whoever created the table, there is one.
async fn a_table_is_created_once_whatever_becomes_of_the_answer(kind: Kind) {
    use Fault::{AnswerLost, Dropped, Refused, SentTwice};
    for faults in
        [vec![AnswerLost], vec![SentTwice], vec![Dropped, Refused], vec![Refused, Dropped, AnswerLost]]
    {
        let kept = kind.store();
        let store: Arc<dyn ObjectStore> =
            Arc::new(Flaky { inner: Arc::clone(&kept), puts: AtomicUsize::new(0), faults });
        let log = open(&store).await.expect("opens");
        let id = log.known().metadata.clone().expect("metadata").id;
        assert_eq!(open(&kept).await.expect("opens").known().metadata.clone().expect("metadata").id, id);
    }
    let faults = vec![Dropped; 3];
    let store: Arc<dyn ObjectStore> = Arc::new(Flaky { inner: memory(), puts: AtomicUsize::new(0), faults });
    assert_eq!(open(&store).await.expect_err("fails").kind(), fault::Kind::Unavailable);
}

#[tokio::test]
async fn a_commit_of_absurd_size_is_not_loaded() {
    let store = memory();
    open(&store).await.expect("opens");
    let path = Path::from("t/_delta_log/00000000000000000001.json");
    store.put(&path, vec![b' '; (64 << 20) + 1].into()).await.expect("put");
    let error = open(&store).await.expect_err("refused");
    assert!(error.to_string().contains("67108865 bytes"), "{error}");
}

#[tokio::test]
async fn very_long_metric_names_stay_out_of_the_statistics() {
    let store = memory();
    let log = open(&store).await.expect("opens");
    let mut file = file("a");
    let stats = file.stats.as_mut().expect("set");
    (stats.min_metric, stats.max_metric) = (Some("m".repeat(1_024)), Some("n".repeat(1_025)));
    commit(&log, "l", None, 1, &[file]).await.expect("lands");
    let state = log.known();
    let stats = state.files["a"].stats.as_ref().expect("there");
    assert_eq!((stats.min_metric.as_ref().map(String::len), &stats.max_metric), (Some(1_024), &None));
}

async fn what_cannot_be_understood_is_named(stores: Kind) {
    let meta = |reader: u32, columns: Value| {
        let meta = json!({"metaData": {"id": "x", "format": {"provider": "parquet"}, "schemaString": "{}",
            "partitionColumns": columns}});
        format!("{}\n{meta}", json!({"protocol": {"minReaderVersion": reader, "minWriterVersion": 2}}))
    };
    let good = meta(1, json!(["tenant", "day"]));
    let add = |partition: Value| {
        json!({"add": {"path": "p", "partitionValues": partition, "size": 1, "modificationTime": 1,
            "dataChange": true}})
        .to_string()
    };
    for (name, files, kind, path) in [
        ("not JSON", vec![(0, "{"), (1, "")], fault::Kind::Corrupt, "00.json"),
        ("no metadata", vec![(0, "{}")], fault::Kind::Corrupt, "00.json"),
        ("reader 3", vec![(0, &*meta(3, json!(["tenant", "day"])))], fault::Kind::Unavailable, "00.json"),
        ("other partitions", vec![(0, &*meta(1, json!(["day"])))], fault::Kind::Unavailable, "00.json"),
        ("empty commit", vec![(0, &good), (1, "")], fault::Kind::Corrupt, "01.json"),
        ("a gap", vec![(0, &good), (2, "{}")], fault::Kind::Corrupt, "01.json"),
        ("no beginning", vec![(1, "{}")], fault::Kind::Corrupt, "00.json"),
        (
            "no tenant",
            vec![(0, &good), (1, &*add(json!({"day": "2026-01-01"})))],
            fault::Kind::Corrupt,
            "01.json",
        ),
        (
            "a bad tenant",
            vec![(0, &good), (1, &*add(json!({"day": "d", "tenant": "a/b"})))],
            fault::Kind::Corrupt,
            "01.json",
        ),
        (
            "a negative transaction",
            vec![(0, &good), (1, r#"{"txn":{"appId":"l","version":-1}}"#)],
            fault::Kind::Corrupt,
            "01.json",
        ),
    ] {
        let store = stores.store();
        for (version, text) in files {
            put(&store, &format!("t/_delta_log/{version:020}.json"), text).await;
        }
        let error = open(&store).await.expect_err(name);
        assert_eq!(error.kind(), kind, "{name}: {error}");
        assert!(error.to_string().contains(path), "{name}: {error}");
    }
}

/// The parts of a state that a reader acts on.
fn shown(state: &State) -> String {
    let State { version, metadata, transactions, files, removed, protocol, is_writable, .. } = state;
    format!("{version} {metadata:#?} {transactions:#?} {files:#?} {removed:?} {protocol:?} {is_writable}")
}

/// A log with everything that a checkpoint may have to hold: five commits.
async fn eventful(store: &Arc<dyn ObjectStore>) -> DeltaLog {
    let log = open(store).await.expect("opens");
    let plain = DataFile { stats: None, tail: None, ..file("c") };
    commit(&log, "l", None, 3, &[file("a b"), plain]).await.expect("lands");
    commit(&log, "m", None, 0, &[file("d")]).await.expect("lands");
    let files: Vec<Arc<DataFile>> = log.known().files.values().cloned().collect();
    let sum = DataFile {
        window_ms: crate::file::DAY_WINDOW_MS,
        part: Some(Part { job: "j".to_owned(), number: 7 }),
        origins: join_origins(files.iter().map(|f| &**f)),
        ..file("e")
    };
    replace(&log, &files[..2], &[sum]).await.expect("lands");
    commit(&log, "l", Some(3), 9, &[file("f")]).await.expect("lands");
    log
}

async fn replace(log: &DeltaLog, removes: &[Arc<DataFile>], adds: &[DataFile]) -> Result<u64> {
    let (operation, started) = (Operation::Compact, Timestamp(NOW));
    log.commit_replacement(&Replacement { operation, removes, adds, started }).await
}

fn path_of(version: u64, suffix: &str) -> Path {
    Path::from(format!("t/_delta_log/{version:020}.{suffix}"))
}

async fn a_checkpoint_says_what_the_commits_said(kind: Kind) {
    let store = kind.store();
    let log = eventful(&store).await;
    let want = shown(&log.known());
    assert!(want.contains("a b") && want.contains("\"m\"") && want.contains("number: 7"), "{want}");
    assert_eq!(log.checkpoint(&Handle::current()).await.expect("written"), 4);
    for version in 0..4 {
        store.delete(&path_of(version, "json")).await.expect("deleted");
    }
    let reopened = open(&store).await.expect("opens");
    assert_eq!(shown(&reopened.known()), want);
    assert_eq!(reopened.known_checkpoint(), 4);
    commit(&reopened, "l", Some(9), 10, &[file("g")]).await.expect("goes on");
    let want = shown(&log.refresh().await.expect("refreshed"));
    // The hint is only a hint.
    for hint in ["{}", "", r#"{"version": 9, "size": 1}"#] {
        put(&store, "t/_delta_log/_last_checkpoint", hint).await;
        assert_eq!(shown(&open(&store).await.expect("opens").known()), want, "{hint}");
    }
    store.delete(&Path::from("t/_delta_log/_last_checkpoint")).await.expect("deleted");
    assert_eq!(shown(&open(&store).await.expect("opens").known()), want);
    // Written twice, it is there once.
    log.checkpoint(&Handle::current()).await.expect("written");
    reopened.checkpoint(&Handle::current()).await.expect("there");
    assert_eq!(shown(&open(&store).await.expect("opens").known()), want);
}

async fn a_checkpoint_that_cannot_be_read_is_named(kind: Kind) {
    let store = kind.store();
    eventful(&store).await;
    put(&store, path_of(2, "checkpoint.parquet").as_ref(), "{}").await;
    put(&store, "t/_delta_log/_last_checkpoint", r#"{"version": 2, "size": 1}"#).await;
    let error = open(&store).await.expect_err("refused");
    assert!(matches!(&error, Error::CorruptCommit { path, .. } if path.contains("02.checkpoint")), "{error}");
    // Those in several parts are not ours, and the commits say the same.
    store.delete(&path_of(2, "checkpoint.parquet")).await.expect("deleted");
    put(&store, path_of(2, "checkpoint.0000000001.0000000002.parquet").as_ref(), "{}").await;
    assert_eq!(open(&store).await.expect("opens").known().version, 4);
}

/// Old commits go, whoever stops midway; who has not looked for long goes on at the checkpoint.
async fn commits_behind_a_checkpoint_go_when_they_are_old(kind: Kind) {
    let store = kind.store();
    let log = eventful(&store).await;
    let behind = open(&store).await.expect("opens");
    log.checkpoint(&Handle::current()).await.expect("written");
    commit(&log, "l", Some(9), 10, &[file("g")]).await.expect("lands");
    let want = shown(&log.known());
    let newest = store.head(&path_of(5, "json")).await.expect("there").last_modified.timestamp_millis();
    let oldest = store.head(&path_of(0, "json")).await.expect("there").last_modified.timestamp_millis();
    assert_eq!(log.clean_up(Timestamp(oldest - 1)).await.expect("nothing"), 0);
    assert_eq!(log.clean_up(Timestamp(newest)).await.expect("cleaned up"), 4);
    assert!(matches!(store.head(&path_of(3, "json")).await, Err(object_store::Error::NotFound { .. })));
    store.head(&path_of(4, "json")).await.expect("the checkpoint's own commit stays");
    assert_eq!(log.clean_up(Timestamp(newest)).await.expect("nothing"), 0);
    for log in [behind, log, open(&store).await.expect("opens")] {
        assert_eq!(shown(&log.refresh().await.expect("refreshed")), want);
    }
    // One that knows only what is gone.
    let early = DeltaLog::open(Arc::clone(&store), &Path::from("u"), Clock::fixed(Timestamp(NOW))).await;
    let early = early.expect("opens");
    for version in 0..6 {
        if let Ok(found) = store.get(&path_of(version, "json")).await {
            let bytes = found.bytes().await.expect("read");
            let to = Path::from(format!("u/_delta_log/{version:020}.json"));
            store.put(&to, bytes.into()).await.expect("copied");
        }
    }
    assert!(early.refresh().await.expect_err("a gap").to_string().contains("01.json"));
    let checkpoint = store.get(&path_of(4, "checkpoint.parquet")).await.expect("there");
    let to = Path::from("u/_delta_log/00000000000000000004.checkpoint.parquet");
    store.put(&to, checkpoint.bytes().await.expect("read").into()).await.expect("copied");
    assert_eq!(shown(&early.refresh().await.expect("refreshed")), want);
}

async fn of_two_that_replace_a_file_one_wins(kind: Kind) {
    let store = kind.store();
    let log = open(&store).await.expect("opens");
    commit(&log, "l", None, 1, &[file("a"), file("b"), file("c")]).await.expect("lands");
    let files: Vec<Arc<DataFile>> = log.known().files.values().cloned().collect();
    let logs = futures::future::join_all((0..6).map(|_| open(&store))).await;
    let tries = logs.iter().enumerate().map(|(i, log)| {
        let files = &files;
        async move {
            replace(log.as_ref().expect("opens"), &files[i % 2..i % 2 + 2], &[file(&format!("s{i}"))]).await
        }
    });
    let results = futures::future::join_all(tries).await;
    let won: Vec<usize> = results.iter().enumerate().filter(|(_, r)| r.is_ok()).map(|(i, _)| i).collect();
    assert_eq!(won.len(), 1, "each replaces b: {results:?}");
    for lost in results.iter().filter_map(|r| r.as_ref().err()) {
        assert!(matches!(lost, Error::Overtaken { .. }), "{lost}");
        assert_eq!(lost.kind(), fault::Kind::AlreadyExists);
    }
    let state = open(&store).await.expect("opens").known();
    let left = if won[0].is_multiple_of(2) { "c" } else { "a" };
    assert_eq!(state.files.keys().collect::<Vec<_>>(), [left, &format!("s{}", won[0])]);
    let commit = lines(&store, 2).await;
    assert_eq!(commit[0]["commitInfo"]["operation"], "OPTIMIZE");
    assert_eq!(
        commit[1],
        json!({"remove": {"path": if left == "a" { "b" } else { "a" }, "dataChange": false,
        "deletionTimestamp": NOW}})
    );
    assert_eq!(commit[3]["add"]["dataChange"], false);
}

/// Work of more than ten minutes is begun anew.
#[tokio::test]
async fn a_replacement_that_took_too_long_is_refused() {
    let store = memory();
    let clock = Clock::fixed(Timestamp(NOW));
    let log = DeltaLog::open(Arc::clone(&store), &Path::from("t"), clock.clone()).await.expect("opens");
    commit(&log, "l", None, 1, &[file("a")]).await.expect("lands");
    let files: Vec<Arc<DataFile>> = log.known().files.values().cloned().collect();
    clock.set(Timestamp(NOW + 600_001));
    let error = replace(&log, &files, &[]).await.expect_err("refused");
    assert!(matches!(error, Error::Stalled { .. }) && error.kind() == fault::Kind::Timeout, "{error}");
    clock.set(Timestamp(NOW + 600_000));
    replace(&log, &files, &[]).await.expect("in time");
}

/// A replacement whose answer was lost is found again: its own removals do not count as somebody else's.
#[tokio::test]
async fn a_replacement_whose_answer_was_lost_is_found_again() {
    for fault in [Fault::AnswerLost, Fault::SentTwice] {
        let inner = memory();
        let log = open(&inner).await.expect("opens");
        commit(&log, "l", None, 1, &[file("a")]).await.expect("lands");
        let files: Vec<Arc<DataFile>> = log.known().files.values().cloned().collect();
        let faults = vec![fault];
        let flaky = Flaky { inner: Arc::clone(&inner), puts: AtomicUsize::new(0), faults };
        let flaky: Arc<dyn ObjectStore> = Arc::new(flaky);
        let log = open(&flaky).await.expect("opens");
        assert_eq!(replace(&log, &files, &[file("b")]).await.expect("found"), 2, "{fault:?}");
        assert_eq!(log.known().files.keys().collect::<Vec<_>>(), ["b"]);
    }
}

/// What was removed is remembered for a day, then forgotten by and by.
#[tokio::test]
async fn removed_files_are_forgotten_after_two_days() {
    let store = memory();
    let clock = Clock::fixed(Timestamp(NOW));
    let log = DeltaLog::open(Arc::clone(&store), &Path::from("t"), clock.clone()).await.expect("opens");
    commit(&log, "l", None, 0, &[file("a")]).await.expect("lands");
    let files: Vec<Arc<DataFile>> = log.known().files.values().cloned().collect();
    replace(&log, &files, &[]).await.expect("lands");
    for (from, until, at, left) in [(1, 99, NOW + 172_799_999, 1), (99, 199, NOW + 172_800_000, 0)] {
        clock.set(Timestamp(at));
        for n in from..until {
            commit(&log, "l", Some(n - 1), n, &[]).await.expect("lands");
        }
        assert_eq!(log.known().removed.len(), left);
    }
    assert_eq!(log.known().version, 200);
}

async fn a_table_for_newer_writers_is_read_and_not_written(kind: Kind) {
    let store = kind.store();
    open(&store).await.expect("opens");
    let newer = json!({"protocol": {"minReaderVersion": 1, "minWriterVersion": 7}});
    put(&store, "t/_delta_log/00000000000000000001.json", &newer.to_string()).await;
    let log = open(&store).await.expect("reads");
    let error = commit(&log, "l", None, 1, &[]).await.expect_err("refused");
    assert!(matches!(error, Error::Unsupported { .. }), "{error}");
}

async fn removed_files_are_no_longer_live(kind: Kind) {
    let store = kind.store();
    let log = open(&store).await.expect("opens");
    commit(&log, "l", None, 1, &[file("a b"), file("c")]).await.expect("lands");
    let remove = json!({"remove": {"path": "a%20b", "dataChange": true}});
    put(&store, "t/_delta_log/00000000000000000002.json", &remove.to_string()).await;
    let state = log.refresh().await.expect("refreshed");
    assert_eq!(state.files.keys().collect::<Vec<_>>(), ["c"]);
}

#[test]
fn positions_that_delta_has_no_room_for_are_refused() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let log = open(&memory()).await.expect("opens");
        let error = commit(&log, "l", None, u64::MAX, &[]).await.expect_err("refused");
        assert_eq!(error.kind(), fault::Kind::Invalid);
    });
}

on_every_store!(
    a_table_is_created_once_whatever_becomes_of_the_answer,
    a_commit_is_what_the_protocol_says,
    racing_creators_share_one_table,
    every_one_of_many_committers_lands_once,
    of_flushers_of_one_log_with_one_base_exactly_one_wins,
    a_lost_answer_is_found_again_and_nothing_happens_twice,
    a_store_that_keeps_failing_is_reported,
    what_cannot_be_understood_is_named,
    a_checkpoint_says_what_the_commits_said,
    a_checkpoint_that_cannot_be_read_is_named,
    commits_behind_a_checkpoint_go_when_they_are_old,
    of_two_that_replace_a_file_one_wins,
    a_table_for_newer_writers_is_read_and_not_written,
    removed_files_are_no_longer_live,
);

proptest::proptest! {
    #[test]
    fn paths_survive_the_encoding(path in "\\PC{0,20}") {
        let encoded = url_encode(&path);
        proptest::prop_assert!(encoded.is_ascii());
        proptest::prop_assert_eq!(url_decode(&encoded), Some(path));
    }
}
