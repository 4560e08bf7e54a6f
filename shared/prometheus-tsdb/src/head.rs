//! What no block has yet: the write-ahead log with its checkpoint, the log of samples that came out of order, and
//! chunks that were moved out of memory.
//!
//! Each of the three may hold a sample that another holds as well: whoever takes them merges them. What Prometheus
//! would pass over on its own start is passed over here: samples that the log has of times that blocks cover.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use model::{Exemplar, Histogram, Labels, Metadata};

use crate::error::{Error, Result};
use crate::head_chunks;
use crate::record::{Entry, entries};
use crate::segments::{self, End};
use crate::tombstones::{Tombstones, is_deleted};

/// Something that the head knows of a series.
#[derive(Debug, Clone)]
pub enum HeadSample {
    /// A float at a time in milliseconds.
    Float(i64, f64),
    /// A native histogram at a time in milliseconds.
    Histogram(i64, Histogram),
    /// An exemplar.
    Exemplar(Exemplar),
}

impl HeadSample {
    fn time(&self) -> i64 {
        match self {
            Self::Float(t, _) | Self::Histogram(t, _) => *t,
            Self::Exemplar(exemplar) => exemplar.timestamp.map_or(0, |t| t.millis()),
        }
    }
}

/// Takes damage: to go on, or to end with it.
type OnDamage<'a> = &'a mut dyn FnMut(Error) -> Result<()>;

/// The head of a data directory.
#[derive(Debug)]
pub struct Head {
    /// The write-ahead log: its newest checkpoint, then the segments behind it.
    log: Vec<(PathBuf, End)>,
    out_of_order_log: Vec<(PathBuf, End)>,
    chunks: Vec<PathBuf>,
    /// What blocks hold ends before this.
    min_valid_time: i64,
}

/// What is read of the log first, since it bears on samples in front of it.
#[derive(Debug, Default)]
struct Known {
    series: HashMap<u64, Labels>,
    metadata: HashMap<u64, Arc<Metadata>>,
    deleted: Tombstones<Labels>,
}

/// Takes a sample with the labels and the metadata of its series.
pub type TakeSample<'a> = &'a mut dyn FnMut(&Labels, Option<&Arc<Metadata>>, HeadSample) -> Result<()>;

impl Head {
    /// Finds the files of the head; `None` where there are none.
    pub(crate) fn find(folder: &Path, min_valid_time: i64) -> Result<Option<Self>> {
        let wal = folder.join("wal");
        let checkpoints = segments::numbered(&wal, |name| name.strip_prefix("checkpoint.")?.parse().ok())?;
        let mut log = Vec::new();
        let mut next = 0;
        if let Some((number, checkpoint)) = checkpoints.last() {
            log.extend(segments::list(checkpoint)?.into_iter().map(|(_, path)| (path, End::Whole)));
            next = number + 1;
        }
        let behind: Vec<(u64, PathBuf)> =
            segments::list(&wal)?.into_iter().filter(|(n, _)| *n >= next).collect();
        // Where one is missing, so is the labels' meaning of what follows.
        let gap = behind.iter().zip(behind.iter().skip(1)).find(|(a, b)| a.0 + 1 != b.0);
        if let Some((before, _)) = gap {
            return Err(Error::damaged(&before.1, "the segment that follows is missing"));
        }
        log.extend(ends(behind));
        let out_of_order_log = ends(segments::list(&folder.join("wbl"))?).collect();
        let chunks = segments::list(&folder.join("chunks_head"))?.into_iter().map(|(_, path)| path).collect();
        let head = Self { log, out_of_order_log, chunks, min_valid_time };
        Ok((!head.log.is_empty()).then_some(head))
    }

    fn files(&self) -> impl Iterator<Item = &Path> {
        let logs = self.log.iter().chain(&self.out_of_order_log).map(|(path, _)| path.as_path());
        logs.chain(self.chunks.iter().map(PathBuf::as_path))
    }

    /// The files of the head, each with its length in bytes: what tells it from another.
    ///
    /// # Errors
    /// When one cannot be looked at.
    pub fn sizes(&self) -> Result<Vec<(&Path, u64)>> {
        let size = |path| Ok((path, fs::metadata(path).map_err(Error::io("look at", path))?.len()));
        self.files().map(size).collect()
    }

    /// How many bytes [`Head::read`] reads, about: it reads the log twice.
    ///
    /// # Errors
    /// When a file cannot be looked at.
    pub fn bytes(&self) -> Result<u64> {
        let log: Vec<&Path> = self.log.iter().map(|(path, _)| path.as_path()).collect();
        Ok(self.sizes()?.into_iter().map(|(path, n)| if log.contains(&path) { 2 * n } else { n }).sum())
    }

    /// Hands all that the head has to `take`, with labels and metadata, in no order, without what was deleted.
    ///
    /// What is damaged goes to `damage`; when that takes it, the rest of the damaged file is passed over.
    ///
    /// # Errors
    /// Whatever `take` and `damage` hand back, and what the disk says.
    pub fn read(&self, bytes_read: &AtomicU64, take: TakeSample<'_>, damage: OnDamage<'_>) -> Result<()> {
        let known = self.known(bytes_read, damage)?;
        let mut hand_over = |series: u64, sample: HeadSample, since: i64| {
            // Chunks and samples of series that are gone stay for a while.
            let Some(labels) = known.series.get(&series) else { return Ok(()) };
            let time = sample.time();
            if time < since || is_deleted(known.deleted.of(labels), time) {
                return Ok(());
            }
            take(labels, known.metadata.get(&series), sample)
        };
        for path in &self.chunks {
            let read = head_chunks::read(path, bytes_read, &mut |chunk| {
                if !chunk.is_out_of_order && chunk.max_time < self.min_valid_time {
                    return Ok(());
                }
                for (t, value) in chunk.samples.floats {
                    hand_over(chunk.series, HeadSample::Float(t, value), i64::MIN)?;
                }
                for (t, histogram) in chunk.samples.histograms {
                    hand_over(chunk.series, HeadSample::Histogram(t, histogram), i64::MIN)?;
                }
                Ok(())
            });
            pass_over(read, damage)?;
        }
        for (logs, since) in [(&self.log, self.min_valid_time), (&self.out_of_order_log, i64::MIN)] {
            for_entries(logs, bytes_read, damage, &mut |entry| match entry {
                Entry::Float { series, time, value } => {
                    hand_over(series, HeadSample::Float(time, value), since)
                }
                Entry::Histogram { series, time, histogram } => {
                    hand_over(series, HeadSample::Histogram(time, histogram), since)
                }
                Entry::Exemplar { series, exemplar } => {
                    hand_over(series, HeadSample::Exemplar(exemplar), since)
                }
                _ => Ok(()),
            })?;
        }
        Ok(())
    }

    fn known(&self, bytes_read: &AtomicU64, damage: OnDamage<'_>) -> Result<Known> {
        let mut known = Known::default();
        // Of many series the metadata is the same.
        let mut shared: HashMap<Metadata, Arc<Metadata>> = HashMap::new();
        // What is damaged is told when samples are read; series in front of the damage are known.
        let mut told = Vec::new();
        for_entries(
            &self.log,
            bytes_read,
            &mut |error| {
                told.push(error);
                Ok(())
            },
            &mut |entry| {
                match entry {
                    Entry::Series(series, labels) => {
                        known.series.insert(series, labels);
                    }
                    Entry::Metadata { series, metadata } => {
                        let metadata = shared.entry(metadata).or_insert_with_key(|m| Arc::new(m.clone()));
                        known.metadata.insert(series, Arc::clone(metadata));
                    }
                    Entry::Deleted { series, min_time, max_time } => {
                        if let Some(labels) = known.series.get(&series) {
                            known.deleted.add(labels.clone(), min_time, max_time);
                        }
                    }
                    _ => {}
                }
                Ok(())
            },
        )?;
        for error in told.into_iter().filter(|error| !matches!(error, Error::Damaged { .. })) {
            damage(error)?;
        }
        Ok(known)
    }
}

/// A server that was killed leaves the last segment torn; the others it has left whole.
fn ends(segments: Vec<(u64, PathBuf)>) -> impl Iterator<Item = (PathBuf, End)> {
    let count = segments.len();
    let end = move |i| if i + 1 == count { End::Torn } else { End::Whole };
    segments.into_iter().enumerate().map(move |(i, (_, path))| (path, end(i)))
}

/// Hands damage on, and nothing else.
fn pass_over(read: Result<()>, damage: OnDamage<'_>) -> Result<()> {
    match read {
        Err(error @ (Error::Damaged { .. } | Error::Unsupported { .. })) => damage(error),
        other => other,
    }
}

fn for_entries(
    logs: &[(PathBuf, End)],
    bytes_read: &AtomicU64,
    damage: OnDamage<'_>,
    take: &mut dyn FnMut(Entry) -> Result<()>,
) -> Result<()> {
    for (path, end) in logs {
        let read = segments::read(path, *end, bytes_read, &mut |record| {
            let mut taken = Ok(());
            let parsed = entries(record, &mut |entry| {
                if taken.is_ok() {
                    taken = take(entry);
                }
            });
            taken?;
            parsed.map_err(|reason| Error::damaged(path, format!("a record: {reason}")))
        });
        pass_over(read, damage)?;
    }
    Ok(())
}
