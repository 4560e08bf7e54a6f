//! The table at one version, and what can be read from it.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use model::{Labels, Matcher, Metadata, Tenant};

use super::{Error, Result, TableOptions, location};
use crate::catalogue::DataFile;
use crate::catalogue::state::State;
use crate::file::fetch::FileSource;
use crate::file::read::{OwnedQuery, Reader};
use crate::file::windows::{day_name, day_number};
use crate::merge::{TimelineInterner, merge_rows};
use crate::series::{SeriesRow, compare_labels};

/// Files of one query that are read at a time.
const FILES_AT_ONCE: usize = 4;

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
}

impl Snapshot {
    pub(super) fn new(state: Arc<State>, options: TableOptions) -> Self {
        Self { state, options }
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
        let query = Arc::new(OwnedQuery { matchers: matchers.to_vec(), min_time, max_time, limits });
        let lists = futures::stream::iter(self.candidate_files(tenant, &query)).map(|file| {
            let query = Arc::clone(&query);
            async move { self.reader(&file, query).await?.series().await }
        });
        let mut lists = std::pin::pin!(lists.buffered(FILES_AT_ONCE));
        let (mut all, mut series, mut samples) = (Vec::new(), 0, 0);
        while let Some(rows) = lists.try_next().await? {
            series += rows.len();
            samples += rows.iter().map(|r| r.samples.sample_count()).sum::<usize>();
            limits.check(series, samples)?;
            all.push(rows);
        }
        let merged = self.options.runtime.spawn_blocking(move || {
            let mut interner = TimelineInterner::default();
            let mut rows: Vec<SeriesRow> = merge_rows(all).collect();
            rows.iter_mut().for_each(|r| interner.intern_row(r));
            rows
        });
        merged.await.map_err(|_| Error::Worker("merge files"))
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
        let lists = futures::stream::iter(files).map(|file| {
            let query = Arc::clone(&query);
            async move { Ok::<_, Error>((file.max_time(), self.reader(&file, query).await?.labels().await?)) }
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
        let series = self.labels(tenant, matchers, min_time, max_time, limits).await?;
        let mut names = BTreeSet::new();
        for (labels, _) in &series {
            for (name, _) in labels {
                if !names.contains(name) {
                    names.insert(name.to_owned());
                }
            }
        }
        Ok(names)
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
        let series = self.labels(tenant, matchers, min_time, max_time, limits).await?;
        Ok(series.iter().filter_map(|(labels, _)| labels.get(name)).map(str::to_owned).collect())
    }

    /// Says whether everything that the table may have of the series and times asked for was flushed from logs of which
    /// the predicate is true.
    pub fn is_from_logs(
        &self,
        tenant: &Tenant,
        matchers: &[Matcher],
        (min_time, max_time): (i64, i64),
        is_wanted: impl Fn(&str) -> bool,
    ) -> bool {
        let metric = Matcher::metric_name(matchers);
        let is_from = |f: &DataFile| f.origin.as_ref().is_some_and(|origin| is_wanted(&origin.log));
        self.files(tenant).all(|f| !f.can_hold(metric, min_time, max_time) || is_from(f))
    }

    /// The files whose partition and statistics leave it open whether they hold what is asked for.
    fn candidate_files(&self, tenant: &Tenant, query: &OwnedQuery) -> Vec<Arc<DataFile>> {
        if query.min_time > query.max_time {
            return Vec::new();
        }
        let metric = Matcher::metric_name(&query.matchers);
        self.files(tenant).filter(|f| f.can_hold(metric, query.min_time, query.max_time)).cloned().collect()
    }

    async fn reader(&self, file: &DataFile, query: Arc<OwnedQuery>) -> Result<Reader> {
        let path = location(&self.options.prefix, &file.path)?;
        let TableOptions { store, request_cost_bytes, .. } = &self.options;
        let source = FileSource::new(Arc::clone(store), path, file.size, file.tail, *request_cost_bytes);
        Reader::open(source, self.options.runtime.clone(), query).await
    }
}

/// Days outside of the calendar's four digits compare as text no longer; queries may ask for them.
const DAYS: std::ops::RangeInclusive<i64> = -719_162..=2_932_896;

impl DataFile {
    fn max_time(&self) -> i64 {
        self.stats.as_ref().and_then(|s| s.max_time).unwrap_or(i64::MAX)
    }

    fn can_hold(&self, metric: Option<&str>, min_time: i64, max_time: i64) -> bool {
        let day = |t: i64| day_name(day_number(t).clamp(*DAYS.start(), *DAYS.end()));
        if self.day < day(min_time) || self.day > day(max_time) {
            return false;
        }
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
