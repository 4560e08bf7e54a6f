//! The table at one version, and what can be read from it.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use model::{Labels, Matcher, Metadata, Tenant};

use super::selection::Selection;
use super::{Error, Result, TableOptions, location};
use crate::catalogue::state::State;
use crate::catalogue::{DataFile, Origin};
use crate::file::cache::Cache;
use crate::file::fetch::FileSource;
use crate::file::read::{OwnedQuery, Part, Reader};
use crate::file::windows::{day_name, day_number};
use crate::series::{SeriesRow, compare_labels};
use crate::storage::LogState;

/// Files of one query that are read at a time.
const FILES_AT_ONCE: usize = 8;
/// Rows that are joined where the query is, rather than on a thread for such work: less than 100 ns each.
const ROWS_IN_PLACE: usize = 2_000;

/// What one query may load from files.
#[derive(Debug, Clone, Copy)]
pub struct SelectLimits {
    /// Series, counted once for each file and window that has them.
    pub series: usize,
    /// Samples.
    pub samples: usize,
}

impl SelectLimits {
    /// No limit, for callers that bound the query otherwise.
    pub const NONE: Self = Self { series: usize::MAX, samples: usize::MAX };

    pub(crate) fn check(&self, series: usize, samples: usize) -> Result<()> {
        if series > self.series {
            return Err(Error::TooMuch { limit: self.series, unit: "series" });
        }
        if samples > self.samples {
            return Err(Error::TooMuch { limit: self.samples, unit: "samples" });
        }
        Ok(())
    }
}

/// The table at one version; never changes.
#[derive(Debug)]
pub struct Snapshot {
    state: Arc<State>,
    options: TableOptions,
    cache: Arc<Cache>,
}

impl Snapshot {
    pub(super) fn new(state: Arc<State>, options: TableOptions, cache: Arc<Cache>) -> Self {
        Self { state, options, cache }
    }

    /// The version.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.state.version
    }

    /// How far a log is in the table: the last sequence number flushed.
    #[must_use]
    pub fn last_transaction(&self, log: &str) -> Option<u64> {
        self.state.transactions.get(log).copied()
    }

    /// All logs that ever were flushed into the table, with how far they are in it.
    pub fn transactions(&self) -> impl Iterator<Item = (&str, u64)> {
        self.state.transactions.iter().map(|(log, through)| (log.as_str(), *through))
    }

    /// The live files of a tenant, by path.
    pub fn files(&self, tenant: &Tenant) -> impl Iterator<Item = &Arc<DataFile>> {
        self.state.files.values().filter(move |f| f.tenant == *tenant)
    }

    /// The tenants that have files.
    #[must_use]
    pub fn tenants(&self) -> BTreeSet<Tenant> {
        self.state.files.values().map(|f| f.tenant.clone()).collect()
    }

    /// Reads the samples of the matching series from `min_time` to `max_time`, both included, in milliseconds.
    ///
    /// Sorted by [`compare_labels`], each series once, merged over files; equal timelines are one allocation. An
    /// exemplar without a time comes with whatever else its row holds.
    ///
    /// # Errors
    /// [`Error::TooMuch`] beyond a limit; [`Error::Gone`] when the snapshot is too old and has to be taken anew.
    pub async fn select(
        &self,
        tenant: &Tenant,
        matchers: &[Matcher],
        min_time: i64,
        max_time: i64,
        limits: SelectLimits,
    ) -> Result<Vec<SeriesRow>> {
        let mut selection = self.open(tenant, matchers, (min_time, max_time), limits, &[]).await?;
        let mut rows = Vec::new();
        while selection.fetch().await? {
            let decode = self.options.runtime.spawn_blocking(move || {
                while let Some(samples) = selection.next_ready() {
                    let i = rows.len();
                    let metadata = Arc::clone(&selection.metadata()[i]);
                    rows.push(SeriesRow {
                        labels: selection.labels()[i].clone(),
                        metadata,
                        samples: samples?,
                    });
                }
                Ok::<_, Error>((selection, rows))
            });
            (selection, rows) = decode.await.map_err(|_| Error::Worker("decode files"))??;
        }
        Ok(rows)
    }

    /// Finds the series as [`Snapshot::select`] does, to read their samples one series at a time.
    ///
    /// `covered` is what heads have answered that the caller has asked before: what of a file they hold as well is
    /// passed over.
    ///
    /// # Errors
    /// As for [`Snapshot::select`].
    pub async fn open(
        &self,
        tenant: &Tenant,
        matchers: &[Matcher],
        (min_time, max_time): (i64, i64),
        limits: SelectLimits,
        covered: &[LogState],
    ) -> Result<Selection> {
        let query = OwnedQuery { matchers: matchers.to_vec(), min_time, max_time, limits };
        let metric = Matcher::metric_name(matchers);
        let lacking = |file: Arc<DataFile>| {
            let max_time = file.lacking(metric, (min_time, max_time), covered)?;
            Some((file, Arc::new(OwnedQuery { max_time, ..OwnedQuery::clone(&query) })))
        };
        let files: Vec<_> = self.candidate_files(tenant, &query).into_iter().filter_map(lacking).collect();
        let opened = futures::stream::iter(files).map(|(file, query)| async move {
            let reader = self.reader(&file).await?;
            let series = reader.select(&query).await?;
            Ok::<_, Error>((reader, series))
        });
        let mut opened = std::pin::pin!(opened.buffered(FILES_AT_ONCE));
        let (mut all, mut rows, mut samples) = (Vec::new(), 0, 0);
        while let Some((reader, series)) = opened.try_next().await? {
            rows += series.iter().map(|s| s.parts.len()).sum::<usize>();
            samples += series.iter().flat_map(|s| &s.parts).map(Part::samples).sum::<usize>();
            limits.check(rows, samples)?;
            all.push((reader, series));
        }
        if rows <= ROWS_IN_PLACE {
            return Ok(Selection::new(all));
        }
        let join = self.options.runtime.spawn_blocking(move || Selection::new(all));
        join.await.map_err(|_| Error::Worker("merge files"))
    }

    /// Reads labels and metadata of the matching series with rows that touch the time from `min_time` to `max_time`.
    ///
    /// Rows are windows of 2 h: a series may be named whose samples lie just outside of the time asked for.
    ///
    /// # Errors
    /// As for [`Snapshot::select`].
    pub async fn labels(
        &self,
        tenant: &Tenant,
        matchers: &[Matcher],
        min_time: i64,
        max_time: i64,
        limits: SelectLimits,
    ) -> Result<Vec<(Labels, Arc<Metadata>)>> {
        let limits = SelectLimits { samples: usize::MAX, ..limits };
        let query = Arc::new(OwnedQuery { matchers: matchers.to_vec(), min_time, max_time, limits });
        let files = self.candidate_files(tenant, &query);
        let query = &query;
        let lists = futures::stream::iter(files).map(|file| async move {
            Ok::<_, Error>((file.max_time(), self.reader(&file).await?.labels(query).await?))
        });
        let mut lists = std::pin::pin!(lists.buffered(FILES_AT_ONCE));
        let mut all: Vec<(Labels, i64, Arc<Metadata>)> = Vec::new();
        while let Some((max_time, series)) = lists.try_next().await? {
            all.extend(series.into_iter().map(|(labels, metadata)| (labels, max_time, metadata)));
            limits.check(all.len(), 0)?;
        }
        // Of several accounts of one series the newest file's counts, as in `merge_series`.
        all.sort_by(|a, b| compare_labels(&a.0, &b.0).then_with(|| (b.1, &b.2).cmp(&(a.1, &a.2))));
        all.dedup_by(|later, kept| later.0 == kept.0);
        Ok(all.into_iter().map(|(labels, _, metadata)| (labels, metadata)).collect())
    }

    /// Returns the names of all labels of the matching series, sorted.
    ///
    /// # Errors
    /// As for [`Snapshot::select`].
    pub async fn label_names(
        &self,
        tenant: &Tenant,
        matchers: &[Matcher],
        min_time: i64,
        max_time: i64,
        limits: SelectLimits,
    ) -> Result<BTreeSet<String>> {
        self.names(tenant, matchers, (min_time, max_time), limits, None).await
    }

    /// Returns the values of one label over the matching series, sorted.
    ///
    /// # Errors
    /// As for [`Snapshot::select`].
    pub async fn label_values(
        &self,
        tenant: &Tenant,
        name: &str,
        matchers: &[Matcher],
        min_time: i64,
        max_time: i64,
        limits: SelectLimits,
    ) -> Result<BTreeSet<String>> {
        self.names(tenant, matchers, (min_time, max_time), limits, Some(name)).await
    }

    async fn names(
        &self,
        tenant: &Tenant,
        matchers: &[Matcher],
        (min_time, max_time): (i64, i64),
        limits: SelectLimits,
        label: Option<&str>,
    ) -> Result<BTreeSet<String>> {
        let limits = SelectLimits { samples: usize::MAX, ..limits };
        let query = Arc::new(OwnedQuery { matchers: matchers.to_vec(), min_time, max_time, limits });
        let files = self.candidate_files(tenant, &query);
        let query = &query;
        let lists = futures::stream::iter(files)
            .map(|file| async move { self.reader(&file).await?.names(query, label).await });
        let mut lists = std::pin::pin!(lists.buffer_unordered(FILES_AT_ONCE));
        let mut all = BTreeSet::new();
        while let Some(mut names) = lists.try_next().await? {
            all.append(&mut names);
        }
        Ok(all)
    }

    /// Says whether heads that answered hold all that the table may have of the series and times asked for.
    #[must_use]
    pub fn is_covered(
        &self,
        tenant: &Tenant,
        matchers: &[Matcher],
        (min_time, max_time): (i64, i64),
        covered: &[LogState],
    ) -> bool {
        let metric = Matcher::metric_name(matchers);
        self.files(tenant).all(|f| f.lacking(metric, (min_time, max_time), covered).is_none())
    }

    /// The files whose partition and statistics leave it open whether they hold what is asked for.
    fn candidate_files(&self, tenant: &Tenant, query: &OwnedQuery) -> Vec<Arc<DataFile>> {
        if query.min_time > query.max_time {
            return Vec::new();
        }
        let metric = Matcher::metric_name(&query.matchers);
        let day = |t: i64| day_name(day_number(t).clamp(*DAYS.start(), *DAYS.end()));
        let days = day(query.min_time)..=day(query.max_time);
        let can_hold =
            |f: &&Arc<DataFile>| days.contains(&f.day) && f.can_hold(metric, query.min_time, query.max_time);
        self.files(tenant).filter(can_hold).cloned().collect()
    }

    async fn reader(&self, file: &DataFile) -> Result<Reader> {
        let path = location(&self.options.prefix, &file.path)?;
        let TableOptions { store, request_cost_bytes, .. } = &self.options;
        let source = FileSource::new(Arc::clone(store), path, file.size, file.tail, *request_cost_bytes);
        Reader::open(source, self.options.runtime.clone(), self.cache.file(&file.path)).await
    }
}

/// Days outside of the calendar's four digits compare as text no longer; queries may ask for them.
const DAYS: std::ops::RangeInclusive<i64> = -719_162..=2_932_896;

impl DataFile {
    fn max_time(&self) -> i64 {
        self.stats.as_ref().and_then(|s| s.max_time).unwrap_or(i64::MAX)
    }

    /// The last of the times asked for up to which heads that answered may lack what the file has, if they lack any.
    fn lacking(&self, metric: Option<&str>, times: (i64, i64), covered: &[LogState]) -> Option<i64> {
        let (min_time, max_time) = (times.0, times.1.min(self.held_from(covered).saturating_sub(1)));
        (min_time <= max_time && self.can_hold(metric, min_time, max_time)).then_some(max_time)
    }

    /// From when on heads that answered hold all that the file has.
    fn held_from(&self, covered: &[LogState]) -> i64 {
        let of = |origin: &Origin| {
            let log = covered.iter().find(|log| *log.log == *origin.log && origin.through <= log.acked_seq);
            log.map_or(i64::MAX, |log| log.complete_since.millis())
        };
        self.origins.iter().map(of).max().unwrap_or(i64::MAX)
    }

    fn can_hold(&self, metric: Option<&str>, min_time: i64, max_time: i64) -> bool {
        let Some(stats) = &self.stats else { return true };
        let is_in_time =
            stats.min_time.is_none_or(|t| t <= max_time) && stats.max_time.is_none_or(|t| t >= min_time);
        let is_in_metrics = metric.is_none_or(|m| {
            stats.min_metric.as_deref().is_none_or(|min| min <= m)
                && stats.max_metric.as_deref().is_none_or(|max| m <= max)
        });
        is_in_time && is_in_metrics
    }
}
