//! Brings samples that somebody else kept into the table: in any order, in bounded memory, each exactly once.
//!
//! What is pushed is gathered by UTC day and series. When there is too much of it, it goes to a scratch folder as sorted
//! files of its own; a day is then merged from those and from memory, and becomes live with one commit. The files are as
//! compaction leaves them: rows of 8 h, sorted as all files are. Where the table holds samples of the day already, or
//! the day is not over, rows are of 2 h, and the next compaction merges what overlaps.
//!
//! # Invariants
//!
//! - A day of a source is imported when a live file of the day names the source as one of its origins; whoever imports
//!   the source again passes over it. What retention dropped can be imported again.
//! - A day is committed as a whole, by the rule by which logs are flushed: of two that import it one wins.
//! - Memory: half of what is allowed for what is gathered, a quarter for the rows of a file, and the file.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use model::{Exemplar, Histogram, Labels, Metadata, Tenant, Timestamp};
use tokio::runtime::Handle;

use crate::catalogue::DataFile;
use crate::catalogue::log::{Flush, new_name};
use crate::catalogue::state::{Part, State};
use crate::compaction::input::RunRows;
use crate::compaction::output::{Output, histogram_bytes};
use crate::compaction::plan::{self, Job, RUNS_MAX};
use crate::compaction::{Context, Meter, OutputLimits, merge_files};
use crate::error::{Error, Result};
use crate::file::encode::encode;
use crate::file::windows::{DAY_MS, TIME_MAX, TIME_MIN, day_name, day_number, pieces_by_day};
use crate::file::{DAY_WINDOW_MS, WINDOW_MS};
use crate::location::Location;
use crate::log::local;
use crate::merge::{compare_exemplars, merge, merge_rows};
use crate::series::{FloatColumn, HistogramColumn, SeriesRow, SeriesSamples, compare_labels};
use crate::table::{self, FILE_ROWS_MAX, Table};

/// The folder below the one for scratch that holds one folder for each process that imports.
const SCRATCH_FOLDER: &str = "import-scratch";
/// How long after its end a day counts as over: samples that come late come until then.
const OVER_DELAY_MS: i64 = 3_600_000;
/// Files that no commit names are removed after a day; whoever has not committed by half of it begins anew.
const WORK_MS_MAX: i64 = DAY_MS / 2;
/// Memory that a series takes beside its labels and samples, about, in bytes.
const SERIES_BYTES: usize = 256;
/// Memory that a float takes in a list that grows, about, in bytes.
const FLOAT_BYTES: usize = 24;

/// How samples are brought into a table.
#[derive(Debug, Clone)]
pub struct ImportOptions {
    /// Whose they become.
    pub tenant: Tenant,
    /// Memory that may be taken, about, in bytes.
    pub memory_bytes_max: usize,
    /// A folder for what does not fit into memory. What earlier imports left there is removed.
    pub scratch: PathBuf,
}

/// Samples of one series, in any order.
#[derive(Debug, Clone, Default)]
pub struct Unsorted {
    /// Floats and their times in milliseconds.
    pub floats: Vec<(i64, f64)>,
    /// Native histograms and their times in milliseconds.
    pub histograms: Vec<(i64, Arc<Histogram>)>,
    /// Exemplars that have a time.
    pub exemplars: Vec<Exemplar>,
}

impl Unsorted {
    /// Says whether there is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.floats.is_empty() && self.histograms.is_empty() && self.exemplars.is_empty()
    }

    /// Moves all of it behind what another has.
    fn move_to(&mut self, other: &mut Self) {
        other.floats.append(&mut self.floats);
        other.histograms.append(&mut self.histograms);
        other.exemplars.append(&mut self.exemplars);
    }

    /// Sorts and merges it as accounts of a series are merged everywhere.
    fn into_samples(mut self) -> SeriesSamples {
        let mut parts = layers(self.floats, |layer| SeriesSamples {
            floats: FloatColumn {
                timestamps: layer.iter().map(|(t, _)| *t).collect(),
                values: layer.iter().map(|(_, v)| *v).collect(),
            },
            ..SeriesSamples::default()
        });
        parts.extend(layers(self.histograms, |layer| SeriesSamples {
            histograms: HistogramColumn {
                timestamps: layer.iter().map(|(t, _)| *t).collect(),
                values: layer.into_iter().map(|(_, h)| h).collect(),
            },
            ..SeriesSamples::default()
        }));
        if !self.exemplars.is_empty() {
            self.exemplars.sort_by(compare_exemplars);
            self.exemplars.dedup_by(|a, b| compare_exemplars(a, b).is_eq());
            parts.push(SeriesSamples { exemplars: self.exemplars.into(), ..SeriesSamples::default() });
        }
        merge(&parts)
    }
}

/// Sorts samples by time and splits them so that no time repeats within a part.
fn layers<T>(
    mut samples: Vec<(i64, T)>,
    part: impl Fn(Vec<(i64, T)>) -> SeriesSamples,
) -> Vec<SeriesSamples> {
    let mut parts = Vec::new();
    if !samples.is_sorted_by(|a, b| a.0 < b.0) {
        samples.sort_by_key(|(t, _)| *t);
    }
    while !samples.is_empty() {
        let mut last = None;
        let (mut layer, mut rest) = (Vec::with_capacity(samples.len()), Vec::new());
        for sample in samples {
            if last.replace(sample.0) == Some(sample.0) { rest.push(sample) } else { layer.push(sample) }
        }
        parts.push(part(layer));
        samples = rest;
    }
    parts
}

/// What is gathered of one series and day.
#[derive(Debug, Default)]
struct Gathered {
    metadata: Arc<Metadata>,
    samples: Unsorted,
}

/// A day that became live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportedDay {
    /// The day, `YYYY-MM-DD`.
    pub day: String,
    /// Its earliest time, in milliseconds.
    pub min_time: i64,
    /// Its latest time, in milliseconds.
    pub max_time: i64,
    /// Series that have samples in it.
    pub series: u64,
    /// Samples, floats and histograms together.
    pub samples: u64,
    /// Files written.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
}

/// Brings samples into a table. All that it does blocks: it is for a thread that may, and not one of a runtime's own.
#[derive(Debug)]
pub struct Importer {
    table: Arc<Table>,
    options: ImportOptions,
    handle: Handle,
    meter: Arc<Meter>,
    scratch: Scratch,
    gathered: BTreeMap<i64, HashMap<Labels, Gathered>>,
    gathered_bytes: usize,
    /// Sorted files in the scratch folder, by day.
    runs: BTreeMap<i64, Vec<Arc<DataFile>>>,
}

impl Importer {
    /// Prepares to import into a table. To be called within the runtime that does the I/O.
    ///
    /// # Errors
    /// When the scratch folder cannot be made.
    pub async fn new(table: Arc<Table>, options: ImportOptions) -> Result<Self> {
        Ok(Self {
            scratch: Scratch::open(&options.scratch, &table).await?,
            table,
            options,
            handle: Handle::current(),
            meter: Arc::default(),
            gathered: BTreeMap::new(),
            gathered_bytes: 0,
            runs: BTreeMap::new(),
        })
    }

    /// Takes samples of a series out of `samples`, and what the metric is where that is known.
    ///
    /// # Errors
    /// When a time lies before the year 1 or after 9999, or the scratch folder takes no more.
    pub fn push(
        &mut self,
        labels: &Labels,
        metadata: Option<&Arc<Metadata>>,
        samples: &mut Unsorted,
    ) -> Result<()> {
        self.gathered_bytes += bytes_of(samples);
        let times = samples.floats.iter().map(|s| s.0).chain(samples.histograms.iter().map(|s| s.0));
        let times = times.chain(samples.exemplars.iter().filter_map(|e| e.timestamp).map(|t| t.millis()));
        let (min, max) = times.fold((i64::MAX, i64::MIN), |(min, max), t| (min.min(t), max.max(t)));
        if min < TIME_MIN || (max > TIME_MAX && min <= max) {
            let reason = "a time is not within the years 1 to 9999".to_owned();
            return Err(table::Error::InvalidRow { series: labels.to_string(), reason }.into());
        }
        if min > max {
            return Ok(());
        }
        if day_number(min) == day_number(max) {
            self.gather(day_number(min), labels, metadata, samples);
        } else {
            let mut days: BTreeMap<i64, Unsorted> = BTreeMap::new();
            for sample in samples.floats.drain(..) {
                days.entry(day_number(sample.0)).or_default().floats.push(sample);
            }
            for sample in samples.histograms.drain(..) {
                days.entry(day_number(sample.0)).or_default().histograms.push(sample);
            }
            for exemplar in samples.exemplars.drain(..) {
                let Some(time) = exemplar.timestamp else { continue };
                days.entry(day_number(time.millis())).or_default().exemplars.push(exemplar);
            }
            for (day, mut samples) in days {
                self.gather(day, labels, metadata, &mut samples);
            }
        }
        if self.gathered_bytes > self.options.memory_bytes_max / 2 {
            self.spill()?;
        }
        Ok(())
    }

    fn gather(
        &mut self,
        day: i64,
        labels: &Labels,
        metadata: Option<&Arc<Metadata>>,
        samples: &mut Unsorted,
    ) {
        let series = self.gathered.entry(day).or_default();
        let gathered = match series.get_mut(labels) {
            Some(gathered) => gathered,
            None => {
                self.gathered_bytes += SERIES_BYTES + labels.byte_len();
                series.entry(labels.clone()).or_default()
            }
        };
        if let Some(metadata) = metadata {
            gathered.metadata = Arc::clone(metadata);
        }
        samples.move_to(&mut gathered.samples);
    }

    /// The days of which there are samples, as numbers from the epoch on.
    #[must_use]
    pub fn days(&self) -> BTreeSet<i64> {
        self.gathered.keys().chain(self.runs.keys()).copied().collect()
    }

    /// Says whether a source's part of a day is in the table.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub fn is_imported(&self, source: &str, day: i64) -> Result<bool> {
        let state = self.handle.block_on(self.table.log().refresh())?;
        Ok(self.has_day(&state, source, day))
    }

    fn has_day(&self, state: &State, source: &str, day: i64) -> bool {
        let log = log_name(source);
        self.live_files(state, day).any(|f| f.origins.iter().any(|origin| origin.log == log))
    }

    fn live_files<'s>(&self, state: &'s State, day: i64) -> impl Iterator<Item = &'s Arc<DataFile>> {
        let (tenant, day) = (self.options.tenant.clone(), day_name(day));
        state.files.values().filter(move |f| f.tenant == tenant && f.day == day)
    }

    /// Makes what was pushed of a day live, unless that part of the source is; either way it is forgotten then.
    ///
    /// `source` names what the samples came from: equal names mean equal samples of the day.
    ///
    /// # Errors
    /// When the store or the scratch folder fails; the day is not live then, unless only the answer was lost.
    pub fn commit(&mut self, source: &str, day: i64) -> Result<Option<ImportedDay>> {
        let started = self.now();
        let state = self.handle.block_on(self.table.log().refresh())?;
        if self.has_day(&state, source, day) {
            self.forget(day);
            return Ok(None);
        }
        let is_over = started.since_ms(Timestamp((day + 1).saturating_mul(DAY_MS))) >= OVER_DELAY_MS;
        let is_first = self.live_files(&state, day).next().is_none();
        let window_ms = if is_over && is_first { DAY_WINDOW_MS } else { WINDOW_MS };
        let (files, mut imported) = self.write_day(day, window_ms)?;
        if files.is_empty() {
            return Ok(None);
        }
        if self.now().since_ms(started) > WORK_MS_MAX {
            return Err(table::Error::Stalled { attempt: "import a day" }.into());
        }
        let log = log_name(source);
        let base = state.transactions.get(&log).copied();
        let through = base.map_or(0, |base| base + 1);
        let flush = Flush { log: &log, base, through, files: &files };
        match self.handle.block_on(self.table.log().commit_flush(&flush)) {
            Ok(version) => {
                tracing::debug!(version, source, day = imported.day, "imported");
            }
            // Somebody who imports the same was faster, with this day or with another.
            Err(table::Error::BaseMismatch { .. }) if self.is_imported(source, day)? => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        imported.files = files.len();
        imported.bytes = files.iter().map(|f| f.size).sum();
        Ok(Some(imported))
    }

    /// Merges what there is of a day and writes its files, which nobody sees yet.
    fn write_day(&mut self, day: i64, window_ms: i64) -> Result<(Vec<DataFile>, ImportedDay)> {
        self.thin_out(day)?;
        let context = self.context();
        let runs = plan::runs(self.runs.get(&day).map_or(&[][..], Vec::as_slice));
        let scratch = Arc::clone(&self.scratch.table);
        let mut sources: Vec<Box<dyn Iterator<Item = SeriesRow> + '_>> = Vec::new();
        for run in runs {
            sources.push(Box::new(RunRows::new(&scratch, run, &context)));
        }
        let gathered = self.take_gathered(day);
        sources.push(Box::new(gathered.into_iter().map(row)));
        let job = self.job(day, window_ms, Vec::new());
        let mut output = Output::new(&self.table, &job, self.limits(), &context);
        let mut imported = ImportedDay {
            day: day_name(day),
            min_time: i64::MAX,
            max_time: i64::MIN,
            series: 0,
            samples: 0,
            files: 0,
            bytes: 0,
        };
        for row in merge_rows(sources) {
            context.check()?;
            imported.series += 1;
            imported.samples += row.samples.sample_count() as u64;
            output.push(row)?;
        }
        context.check()?;
        let name = new_name(self.now());
        let files = (0..).zip(output.finish()?);
        let part = |number| Some(Part { job: name.clone(), number });
        let files: Vec<DataFile> = files.map(|(i, file)| DataFile { part: part(i), ..file }).collect();
        for stats in files.iter().filter_map(|f| f.stats.as_ref()) {
            imported.min_time = imported.min_time.min(stats.min_time.unwrap_or(i64::MAX));
            imported.max_time = imported.max_time.max(stats.max_time.unwrap_or(i64::MIN));
        }
        self.forget(day);
        Ok((files, imported))
    }

    /// Merges files of a day in the scratch folder until all that is left can be read side by side.
    fn thin_out(&mut self, day: i64) -> Result<()> {
        loop {
            let mut runs = plan::runs(self.runs.get(&day).map_or(&[][..], Vec::as_slice));
            if runs.len() < RUNS_MAX {
                return Ok(());
            }
            runs.sort_by_key(|run| run.iter().map(|f| f.size).sum::<u64>());
            let mut inputs: Vec<_> = runs.drain(..RUNS_MAX).flatten().collect();
            let job = self.job(day, DAY_WINDOW_MS, inputs.clone());
            let merged = merge_files(&self.scratch.table, &job, self.limits(), &self.context())?;
            let left = runs.into_iter().flatten().chain(merged.into_iter().map(Arc::new)).collect();
            self.runs.insert(day, left);
            self.scratch.remove(&mut inputs);
        }
    }

    /// Moves all that is gathered to the scratch folder.
    fn spill(&mut self) -> Result<()> {
        for day in self.gathered.keys().copied().collect::<Vec<_>>() {
            let rows: Vec<SeriesRow> = self.take_gathered(day).into_iter().map(row).collect();
            for rows in rows.chunks(FILE_ROWS_MAX) {
                for pieces in pieces_by_day(rows, DAY_WINDOW_MS)?.into_values() {
                    let (file, name) = (encode(&pieces)?, day_name(day));
                    let put = self.scratch.table.put(&self.options.tenant, &name, DAY_WINDOW_MS, file);
                    self.runs.entry(day).or_default().push(Arc::new(self.handle.block_on(put)?));
                }
            }
        }
        self.gathered_bytes = 0;
        Ok(())
    }

    /// Takes what is in memory of a day, in the order of files.
    fn take_gathered(&mut self, day: i64) -> Vec<(Labels, Gathered)> {
        let mut series: Vec<_> = self.gathered.remove(&day).unwrap_or_default().into_iter().collect();
        let bytes =
            |(labels, g): &(Labels, Gathered)| SERIES_BYTES + labels.byte_len() + bytes_of(&g.samples);
        self.gathered_bytes = self.gathered_bytes.saturating_sub(series.iter().map(bytes).sum());
        series.sort_unstable_by(|a, b| compare_labels(&a.0, &b.0));
        series
    }

    fn forget(&mut self, day: i64) {
        drop(self.take_gathered(day));
        self.scratch.remove(&mut self.runs.remove(&day).unwrap_or_default());
    }

    fn job(&self, day: i64, window_ms: i64, inputs: Vec<Arc<DataFile>>) -> Job {
        Job { tenant: self.options.tenant.clone(), day: day_name(day), window_ms, inputs }
    }

    fn limits(&self) -> OutputLimits {
        OutputLimits { rows_bytes: self.options.memory_bytes_max / 4, rows: FILE_ROWS_MAX }
    }

    fn context(&self) -> Context {
        Context::new(self.handle.clone(), Arc::clone(&self.meter), Arc::new(AtomicBool::new(false)))
    }

    fn now(&self) -> Timestamp {
        self.table.options().clock.now()
    }
}

/// What the table's transaction of a source is named by.
fn log_name(source: &str) -> String {
    format!("import-{source}")
}

fn row((labels, gathered): (Labels, Gathered)) -> SeriesRow {
    let Gathered { metadata, samples } = gathered;
    SeriesRow { labels, metadata, samples: samples.into_samples() }
}

fn bytes_of(samples: &Unsorted) -> usize {
    let histograms: usize = samples.histograms.iter().map(|(_, h)| histogram_bytes(h)).sum();
    let exemplars: usize = samples.exemplars.iter().map(|e| size_of_val(e) + e.labels.byte_len()).sum();
    FLOAT_BYTES * samples.floats.len() + histograms + exemplars
}

/// A folder of this process alone, gone with it.
#[derive(Debug)]
struct Scratch {
    folder: PathBuf,
    table: Arc<Table>,
    _lock: File,
}

impl Scratch {
    async fn open(parent: &Path, of: &Table) -> Result<Self> {
        let parent = parent.join(SCRATCH_FOLDER);
        let make = |folder: &Path| std::fs::create_dir_all(folder).map_err(Error::io("create", folder));
        make(&parent)?;
        // Whoever was killed has left its folder, and no lock.
        for entry in std::fs::read_dir(&parent).map_err(Error::io("list", &parent))? {
            let folder = entry.map_err(Error::io("list", &parent))?.path();
            if local::lock(&folder).is_ok() {
                std::fs::remove_dir_all(&folder).map_err(Error::io("remove", &folder))?;
            }
        }
        let clock = of.options().clock.clone();
        let folder = parent.join(new_name(clock.now()));
        make(&folder)?;
        let lock = local::lock(&folder)?;
        let table = Table::open_in(&Location::folder(&folder), clock).await?;
        Ok(Self { folder, table, _lock: lock })
    }

    /// Removes files; what cannot be removed now goes with the folder.
    fn remove(&self, files: &mut Vec<Arc<DataFile>>) {
        for file in files.drain(..) {
            drop(std::fs::remove_file(self.folder.join("metrics").join(&file.path)));
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // The next import removes what is left.
        drop(std::fs::remove_dir_all(&self.folder));
    }
}

#[cfg(test)]
mod tests;
