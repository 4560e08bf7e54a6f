//! Compaction: many files become few that hold the same, merged.
//!
//! The files of a window of 2 h become one when the window is over, and those of a day become files with rows of 8 h
//! when the day is ([`plan`]). Several accounts of a series are merged by the one merge function, and timelines are
//! found anew by content. Inputs are read row by row ([`input`]), what comes out is cut into files of a bounded size
//! ([`output`]), so that memory is bounded whatever the size of a day. One commit exchanges the old files for the new.
//!
//! # Invariants
//!
//! - A commit is only made while every input is live; of two that compact the same files one wins, and the other's
//!   files are nobody's.
//! - What is in memory is a part of each input, the rows of one file that comes out and that file: the [`Meter`]
//!   counts it.
//! - Whatever stops midway has changed nothing.

pub(crate) mod input;
pub(crate) mod output;
pub(crate) mod plan;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::runtime::Handle;

use crate::catalogue::DataFile;
use crate::catalogue::log::new_name;
use crate::catalogue::state::{Part, join_origins};
use crate::merge::merge_rows;
use crate::table::{Error, Result, Table};
use input::RunRows;
use output::Output;
use plan::Job;

/// What a compaction in memory may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OutputLimits {
    /// Bytes of the rows that become one file.
    pub rows_bytes: usize,
    /// Rows of one file, before they are cut into windows.
    pub rows: usize,
}

/// Counts bytes in memory, and remembers how many they were at most.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    now: AtomicUsize,
    peak: AtomicUsize,
}

impl Meter {
    /// The most bytes that were held at one time.
    pub(crate) fn peak(&self) -> usize {
        self.peak.load(Ordering::Relaxed)
    }

    fn change(&self, before: usize, after: usize) {
        let now = if after >= before {
            self.now.fetch_add(after - before, Ordering::Relaxed) + (after - before)
        } else {
            self.now.fetch_sub(before - after, Ordering::Relaxed) - (before - after)
        };
        self.peak.fetch_max(now, Ordering::Relaxed);
    }
}

/// Bytes that somebody holds, on a meter.
#[derive(Debug)]
pub(crate) struct Held {
    meter: Arc<Meter>,
    bytes: usize,
}

impl Held {
    fn new(meter: &Arc<Meter>) -> Self {
        Self { meter: Arc::clone(meter), bytes: 0 }
    }

    fn set(&mut self, bytes: usize) {
        self.meter.change(self.bytes, bytes);
        self.bytes = bytes;
    }

    fn add(&mut self, bytes: usize) {
        self.set(self.bytes + bytes);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// What the parts of one compaction share, on the thread that does it.
#[derive(Debug)]
pub(crate) struct Context {
    handle: Handle,
    meter: Arc<Meter>,
    is_cancelled: Arc<AtomicBool>,
    /// The first failure of an input: rows that follow it are not to be believed.
    failure: Mutex<Option<Error>>,
}

impl Context {
    pub(crate) fn new(handle: Handle, meter: Arc<Meter>, is_cancelled: Arc<AtomicBool>) -> Self {
        Self { handle, meter, is_cancelled, failure: Mutex::default() }
    }

    fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.handle.block_on(future)
    }

    fn fail(&self, error: Error) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }

    pub(crate) fn check(&self) -> Result<()> {
        if self.is_cancelled.load(Ordering::Relaxed) {
            return Err(Error::Cancelled("compact"));
        }
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take().map_or(Ok(()), Err)
    }
}

/// Merges the inputs of a job and writes the files that come out, which nobody sees yet. Blocks: for a thread that may,
/// and not one of the runtime's own.
pub(crate) fn merge_files(
    table: &Table,
    job: &Job,
    limits: OutputLimits,
    context: &Context,
) -> Result<Vec<DataFile>> {
    let runs = plan::runs(&job.inputs).into_iter().map(|run| RunRows::new(table, run, context));
    let mut output = Output::new(table, job, limits, context);
    for row in merge_rows(runs) {
        context.check()?;
        output.push(row)?;
    }
    context.check()?;
    let files = output.finish()?;
    let origins = join_origins(job.inputs.iter().map(|f| &**f));
    let name = new_name(table.options().clock.now());
    let part = |number| Some(Part { job: name.clone(), number });
    let files = (0..).zip(files);
    Ok(files.map(|(i, file)| DataFile { origins: origins.clone(), part: part(i), ..file }).collect())
}

#[cfg(test)]
mod tests;
