//! Imports the data directory of a Prometheus server: its blocks, and what no block has yet.
//!
//! A day is imported from everything that has samples of it. Its name is a digest of what that is (the names of blocks,
//! the files of the head): a later import of the same directory brings the days that have changed, and passes over the
//! others.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;

use prometheus_tsdb::{Block, Directory, Head, HeadSample};
use ring::digest;
use tsdb::import::{ImportedDay, Importer, Unsorted};

use crate::error::Result;
use crate::progress::{Phase, Progress};
use crate::{Summary, hex};

const DAY_MS: i64 = 86_400_000;

/// Imports a directory and reports each day that becomes live. What is damaged goes to `damage`; when that takes it, the
/// damaged block, series, chunk or log segment is passed over, and all else imported.
///
/// # Errors
/// What `damage` hands back; when a server runs on the directory, or there is nothing in it; when the store fails. Days
/// committed before stay.
pub fn import_directory(
    folder: &Path,
    importer: &mut Importer,
    progress: &Progress,
    report: &mut dyn FnMut(&ImportedDay),
    damage: OnDamage<'_>,
) -> Result<Summary> {
    let directory = Directory::open(folder, damage)?;
    let mut of_head = OfHead::default();
    if let Some(head) = directory.head() {
        let mut counted = Counted { damage, count: 0 };
        read_head(head, importer, progress, &mut counted)?;
        of_head = OfHead { days: importer.days(), is_damaged: counted.count > 0 };
    }
    let mut days = of_head.days.clone();
    for block in directory.blocks() {
        let meta = block.meta();
        // The end is not part of it.
        days.extend(day_of(meta.min_time)..=day_of(meta.max_time.saturating_sub(1).max(meta.min_time)));
    }
    progress.begin(Phase::WriteDays, days.len() as u64);
    let mut summary = Summary::default();
    for day in days {
        match import_day(&directory, &of_head, day, importer, progress, damage)? {
            Outcome::Imported(imported) => {
                summary.imported += 1;
                report(&imported);
            }
            Outcome::PassedOver => summary.passed_over += 1,
            Outcome::Empty => {}
        }
        progress.add_done(1);
    }
    Ok(summary)
}

/// What the head has.
#[derive(Default)]
struct OfHead {
    days: BTreeSet<i64>,
    is_damaged: bool,
}

type OnDamage<'a> = &'a mut dyn FnMut(prometheus_tsdb::Error) -> prometheus_tsdb::Result<()>;

/// Takes damage, and counts what was passed over.
struct Counted<'a> {
    damage: OnDamage<'a>,
    count: usize,
}

impl Counted<'_> {
    fn take(&mut self, error: prometheus_tsdb::Error) -> prometheus_tsdb::Result<()> {
        self.count += 1;
        (self.damage)(error)
    }
}

/// What became of a day.
enum Outcome {
    Imported(ImportedDay),
    PassedOver,
    Empty,
}

fn day_of(time: i64) -> i64 {
    time.div_euclid(DAY_MS)
}

fn times_of(day: i64) -> RangeInclusive<i64> {
    day * DAY_MS..=day * DAY_MS + (DAY_MS - 1)
}

fn import_day(
    directory: &Directory,
    of_head: &OfHead,
    day: i64,
    importer: &mut Importer,
    progress: &Progress,
    damage: OnDamage<'_>,
) -> Result<Outcome> {
    let times = times_of(day);
    let is_of_day = |b: &&Block| b.meta().min_time <= *times.end() && b.meta().max_time > *times.start();
    let blocks: Vec<&Block> = directory.blocks().iter().filter(is_of_day).collect();
    let head = directory.head().filter(|_| of_head.days.contains(&day));
    let mut source = source_of(&blocks, head)?;
    let mut is_imported = importer.is_imported(&source, day)?;
    if !is_imported {
        let mut counted = Counted { damage, count: usize::from(head.is_some() && of_head.is_damaged) };
        for block in blocks {
            read_block(block, &times, importer, progress, &mut counted)?;
        }
        if counted.count > 0 {
            // Once it is mended, it is another source.
            source.push_str("-damaged");
            is_imported = importer.is_imported(&source, day)?;
        }
    }
    // Either way it forgets what the head had of the day.
    Ok(match importer.commit(&source, day)? {
        Some(imported) => Outcome::Imported(imported),
        None if is_imported => Outcome::PassedOver,
        None => Outcome::Empty,
    })
}

/// What a day is named by: where its samples come from.
fn source_of(blocks: &[&Block], head: Option<&Head>) -> Result<String> {
    let mut context = digest::Context::new(&digest::SHA256);
    for block in blocks {
        context.update(block.meta().ulid.as_bytes());
        // Samples may have been deleted since.
        context.update(&block.deletions()?);
    }
    for (path, bytes) in head.map(Head::sizes).transpose()?.unwrap_or_default() {
        context.update(path.file_name().unwrap_or_default().as_encoded_bytes());
        context.update(&bytes.to_be_bytes());
    }
    Ok(hex(context.finish()))
}

fn read_block(
    block: &Block,
    times: &RangeInclusive<i64>,
    importer: &mut Importer,
    progress: &Progress,
    damage: &mut Counted<'_>,
) -> Result<()> {
    let mut series = match block.series() {
        Ok(series) => series,
        Err(error) => return Ok(damage.take(error)?),
    };
    while let Some((labels, samples)) = series.next_within(times.clone(), &mut |error| damage.take(error))? {
        progress.add_samples(samples.floats.len() + samples.histograms.len());
        let histograms = samples.histograms.into_iter().map(|(t, h)| (t, Arc::new(h))).collect();
        let mut samples = Unsorted { floats: samples.floats, histograms, exemplars: Vec::new() };
        importer.push(&labels, None, &mut samples)?;
    }
    Ok(())
}

fn read_head(
    head: &Head,
    importer: &mut Importer,
    progress: &Progress,
    damage: &mut Counted<'_>,
) -> Result<()> {
    progress.begin(Phase::ReadHead, head.bytes()?);
    let mut pushed = Ok(());
    let mut samples = Unsorted::default();
    let read = head.read(
        &progress.done,
        &mut |labels, metadata, sample| {
            match sample {
                HeadSample::Float(t, value) => samples.floats.push((t, value)),
                HeadSample::Histogram(t, histogram) => samples.histograms.push((t, Arc::new(histogram))),
                HeadSample::Exemplar(exemplar) => samples.exemplars.push(exemplar),
            }
            progress.add_samples(1);
            pushed = importer.push(labels, metadata, &mut samples);
            if pushed.is_ok() { Ok(()) } else { Err(prometheus_tsdb::Error::Cancelled) }
        },
        &mut |error| damage.take(error),
    );
    pushed?;
    Ok(read?)
}
