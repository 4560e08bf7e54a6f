//! Gathers merged rows and writes a file whenever there are enough of them.

use model::Histogram;

use super::plan::Job;
use super::{Context, Held, OutputLimits};
use crate::catalogue::DataFile;
use crate::file::encode::encode;
use crate::file::windows::{day_name, pieces_by_day};
use crate::merge::TimelineInterner;
use crate::series::{SeriesRow, SeriesSamples, Timeline};
use crate::table::{Error, Result, Table};

/// The files that come out of a job.
pub(crate) struct Output<'a> {
    table: &'a Table,
    job: &'a Job,
    limits: OutputLimits,
    context: &'a Context,
    rows: Vec<SeriesRow>,
    interner: TimelineInterner,
    held: Held,
    bytes: usize,
    files: Vec<DataFile>,
}

impl<'a> Output<'a> {
    pub(crate) fn new(table: &'a Table, job: &'a Job, limits: OutputLimits, context: &'a Context) -> Self {
        Self {
            table,
            job,
            limits,
            context,
            rows: Vec::new(),
            interner: TimelineInterner::default(),
            held: Held::new(&context.meter),
            bytes: 0,
            files: Vec::new(),
        }
    }

    /// Takes the next series.
    pub(crate) fn push(&mut self, mut row: SeriesRow) -> Result<()> {
        let samples = &mut row.samples;
        let mut bytes = row_bytes(samples) + row.labels.byte_len() + size_of::<SeriesRow>();
        for timeline in [&mut samples.floats.timestamps, &mut samples.histograms.timestamps] {
            // Merged rows bring lists of their own, of which equal ones are kept once.
            let count = self.interner.count();
            *timeline = self.interner.intern(timeline);
            if self.interner.count() > count {
                bytes += timeline_bytes(timeline);
            }
        }
        self.rows.push(row);
        self.bytes += bytes;
        self.held.set(self.bytes);
        if self.bytes >= self.limits.rows_bytes || self.rows.len() >= self.limits.rows {
            self.write()?;
        }
        Ok(())
    }

    /// Writes what is left and returns all files, in the order of series.
    pub(crate) fn finish(mut self) -> Result<Vec<DataFile>> {
        if !self.rows.is_empty() {
            self.write()?;
        }
        Ok(self.files)
    }

    fn write(&mut self) -> Result<()> {
        let Job { tenant, day, window_ms, .. } = self.job;
        let days = pieces_by_day(&self.rows, *window_ms)?;
        for (number, pieces) in days {
            if day_name(number) != *day {
                let reason = format!("it holds samples of {}", day_name(number));
                return Err(Error::corrupt(&format!("a file of {tenant} and {day}"), reason));
            }
            let file = encode(&pieces)?;
            self.held.add(file.bytes.len());
            self.files.push(self.context.wait(self.table.put(tenant, day, *window_ms, file))?);
        }
        self.rows.clear();
        self.interner = TimelineInterner::default();
        self.bytes = 0;
        self.held.set(0);
        Ok(())
    }
}

fn timeline_bytes(timeline: &Timeline) -> usize {
    size_of_val::<[i64]>(timeline)
}

/// Bytes of a histogram, about.
pub(crate) fn histogram_bytes(histogram: &Histogram) -> usize {
    let numbers = match histogram {
        Histogram::Integer(h) => {
            h.positive_deltas.len()
                + h.negative_deltas.len()
                + h.positive_spans.len()
                + h.negative_spans.len()
        }
        Histogram::Float(h) => {
            h.positive_buckets.len()
                + h.negative_buckets.len()
                + h.positive_spans.len()
                + h.negative_spans.len()
        }
    };
    size_of::<Histogram>() + 8 * numbers
}

/// Bytes of samples without their times, about.
fn row_bytes(samples: &SeriesSamples) -> usize {
    let histograms: usize = samples.histograms.values.iter().map(|h| histogram_bytes(h)).sum();
    let exemplars: usize = samples.exemplars.iter().map(|e| size_of_val(e) + e.labels.byte_len()).sum();
    size_of_val::<[f64]>(&samples.floats.values)
        + histograms
        + size_of_val::<[(i64, i64)]>(&samples.start_timestamps)
        + exemplars
}
