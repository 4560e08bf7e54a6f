//! Says which files should become one: a pure function of the live files and the time.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::{Tenant, Timestamp};

use crate::catalogue::DataFile;
use crate::file::windows::{DAY_MS, day_start, window_of};
use crate::file::{DAY_WINDOW_MS, WINDOW_MS};

/// Inputs that are read side by side, at most: bounds memory. More are merged in several steps.
pub(crate) const RUNS_MAX: usize = 64;
/// The files of a window that is not over are merged when there are this many.
const OPEN_RUNS_MAX: usize = 16;
/// A window that is over is merged again for what came late when that is at least this part of it, or comes in as many
/// files: each merge writes all of it.
const LATE_SHARE: u64 = 10;

/// When windows and days are over, and how much is done at a time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    /// How long after its end a window or day counts as over: as long as samples and flushes of it still come.
    pub delay_ms: i64,
    /// A day with more bytes in files is merged in three parts of 8 h.
    pub bytes_max: u64,
    /// Whether every window counts as over, and every day at its end: somebody asked for it.
    pub is_forced: bool,
}

/// Files to merge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Job {
    /// Whose they are.
    pub tenant: Tenant,
    /// Their day.
    pub day: String,
    /// The length of the windows of the rows that come out, in milliseconds.
    pub window_ms: i64,
    /// The files.
    pub inputs: Vec<Arc<DataFile>>,
}

/// The files of one tenant and day by window.
type Windows<'a> = BTreeMap<i64, Vec<&'a Arc<DataFile>>>;

/// Plans what is due now. The jobs have no file in common.
pub(crate) fn plan<'a>(
    files: impl Iterator<Item = &'a Arc<DataFile>>,
    now: Timestamp,
    rules: &Rules,
) -> Vec<Job> {
    let mut days: BTreeMap<(&Tenant, &str), Vec<&Arc<DataFile>>> = BTreeMap::new();
    for file in files {
        days.entry((&file.tenant, file.day.as_str())).or_default().push(file);
    }
    let mut jobs = Vec::new();
    for ((tenant, day), files) in days {
        let Some(start) = day_start(day) else { continue };
        let is_over = now.since_ms(Timestamp(start)) >= DAY_MS + rules.delay();
        let (groups, window_ms) = if is_over {
            (closed_day(files, rules), DAY_WINDOW_MS)
        } else {
            (open_day(files, now, rules), WINDOW_MS)
        };
        jobs.extend(groups.into_iter().map(|group| job(tenant, day, window_ms, group)));
    }
    jobs
}

impl Rules {
    fn delay(&self) -> i64 {
        if self.is_forced { 0 } else { self.delay_ms }
    }
}

/// All of the day, or each 8 h of it, as long as any file has rows of 2 h.
fn closed_day<'a>(files: Vec<&'a Arc<DataFile>>, rules: &Rules) -> Vec<Vec<&'a Arc<DataFile>>> {
    let bytes: u64 = files.iter().map(|f| f.size).sum();
    let groups: Vec<_> = if bytes <= rules.bytes_max {
        vec![files]
    } else {
        by_window(files, DAY_WINDOW_MS).into_values().collect()
    };
    let is_due = |group: &Vec<&Arc<DataFile>>| group.iter().any(|f| f.window_ms != DAY_WINDOW_MS);
    groups.into_iter().filter(is_due).collect()
}

/// The windows of a day that are worth merging.
fn open_day<'a>(files: Vec<&'a Arc<DataFile>>, now: Timestamp, rules: &Rules) -> Vec<Vec<&'a Arc<DataFile>>> {
    let is_due = |(window, group): &(i64, Vec<&Arc<DataFile>>)| {
        let mut sizes: BTreeMap<&str, u64> = BTreeMap::new();
        for file in group {
            *sizes.entry(run_name(file)).or_default() += file.size;
        }
        let (largest, all) = (sizes.values().max().copied().unwrap_or(0), sizes.values().sum::<u64>());
        let is_over = now.since_ms(Timestamp(*window)) >= WINDOW_MS + rules.delay_ms;
        let is_worth_it = (all - largest).saturating_mul(LATE_SHARE) >= largest
            || u64::try_from(sizes.len()).is_ok_and(|runs| runs > LATE_SHARE);
        sizes.len() > 1 && (rules.is_forced || (is_over && is_worth_it) || sizes.len() >= OPEN_RUNS_MAX)
    };
    by_window(files, WINDOW_MS).into_iter().filter(is_due).map(|(_, group)| group).collect()
}

/// A file belongs to the window of its newest sample.
fn by_window(files: Vec<&Arc<DataFile>>, window_ms: i64) -> Windows<'_> {
    let mut windows = Windows::new();
    for file in files {
        windows.entry(window_of(file.newest_time(), window_ms)).or_default().push(file);
    }
    windows
}

fn job(tenant: &Tenant, day: &str, window_ms: i64, group: Vec<&Arc<DataFile>>) -> Job {
    let inputs: Vec<Arc<DataFile>> = group.into_iter().map(Arc::clone).collect();
    let (tenant, day) = (tenant.clone(), day.to_owned());
    let mut runs = runs(&inputs);
    if runs.len() <= RUNS_MAX {
        return Job { tenant, day, window_ms, inputs };
    }
    // The smallest first: the rest, and the rows' final length, come with what follows.
    runs.sort_by_key(|run| run.iter().map(|f| f.size).sum::<u64>());
    runs.truncate(RUNS_MAX);
    Job { tenant, day, window_ms: WINDOW_MS, inputs: runs.into_iter().flatten().collect() }
}

/// Sorts files into runs: the parts that one compaction wrote follow each other in the order of series, and need not be
/// open at the same time.
pub(crate) fn runs(files: &[Arc<DataFile>]) -> Vec<Vec<Arc<DataFile>>> {
    let mut runs: BTreeMap<&str, Vec<Arc<DataFile>>> = BTreeMap::new();
    for file in files {
        runs.entry(run_name(file)).or_default().push(Arc::clone(file));
    }
    let mut runs: Vec<_> = runs.into_values().collect();
    runs.iter_mut().for_each(|run| run.sort_by_key(|f| f.part.as_ref().map(|p| p.number)));
    runs
}

fn run_name(file: &DataFile) -> &str {
    file.part.as_ref().map_or(&file.path, |part| &part.job)
}
