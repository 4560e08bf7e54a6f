//! The series that a query selects from files: who they are at once, their samples one series at a time.
//!
//! Samples are decoded when they are asked for, by whoever asks. What that needs is fetched beforehand for as many
//! series as fit into [`AHEAD_BYTES`], so that an answer of any size is read in bounded memory.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use hashbrown::HashMap;
use model::{Labels, Metadata};

use super::{Error, Result};
use crate::file::footer::PageId;
use crate::file::lists::ListPage;
use crate::file::read::{FileSeries, FloatPart, Part, Reader};
use crate::merge::{TimelineInterner, merge};
use crate::series::{FloatColumn, SeriesSamples, Timeline, compare_labels};

/// Bytes of pages, as they lie in the store, that are fetched ahead.
const AHEAD_BYTES: u64 = 16 << 20;
/// Files that are asked for pages at a time.
const FILES_AT_ONCE: usize = 8;

/// The series that matched, sorted by [`compare_labels`], each once.
#[derive(Debug, Default)]
pub struct Selection {
    labels: Vec<Labels>,
    metadata: Vec<Arc<Metadata>>,
    readers: Vec<Reader>,
    /// What is left of them.
    series: VecDeque<Parts>,
    /// How many of those are ready to be decoded.
    ready: usize,
    pages: HashMap<(usize, PageId), Arc<ListPage>>,
    joiner: Joiner,
}

/// The parts of a series, each with the number of its file.
type Parts = Vec<(usize, Part)>;

/// A series of several files.
struct Joined {
    labels: Labels,
    newest: (Option<i64>, Arc<Metadata>),
    parts: Parts,
}

impl Selection {
    /// Joins what the files have.
    pub(crate) fn new(files: Vec<(Reader, Vec<FileSeries>)>) -> Self {
        let mut readers = Vec::with_capacity(files.len());
        let mut lists = Vec::with_capacity(files.len());
        for (file, (reader, series)) in files.into_iter().enumerate() {
            readers.push(reader);
            let joined = |FileSeries { labels, newest, parts }| Joined {
                labels,
                newest,
                parts: parts.into_iter().map(|part| (file, part)).collect(),
            };
            lists.push(series.into_iter().map(joined).collect::<Vec<Joined>>());
        }
        // In pairs: a list is gone through as often as there are doublings.
        while lists.len() > 1 {
            let mut halves = lists.into_iter();
            lists = Vec::new();
            while let Some(first) = halves.next() {
                lists.push(match halves.next() {
                    Some(second) => join(first, second),
                    None => first,
                });
            }
        }
        let mut selection = Self { readers, ..Self::default() };
        for Joined { labels, newest, parts } in lists.into_iter().flatten() {
            selection.labels.push(labels);
            selection.metadata.push(newest.1);
            selection.series.push_back(parts);
        }
        selection
    }

    /// The label sets, sorted.
    #[must_use]
    pub fn labels(&self) -> &[Labels] {
        &self.labels
    }

    /// Type, unit and help of each series as they were last known in the time asked for.
    #[must_use]
    pub fn metadata(&self) -> &[Arc<Metadata>] {
        &self.metadata
    }

    /// Returns the samples of the next series, in the order of [`Selection::labels`]; `None` behind the last.
    ///
    /// Decodes where it is called, for some microseconds a window; now and then it fetches for many series.
    ///
    /// # Errors
    /// As for [`super::Snapshot::select`]; not to be called again then.
    pub async fn next(&mut self) -> Result<Option<SeriesSamples>> {
        if self.ready == 0 {
            self.fetch().await?;
        }
        self.next_ready().transpose()
    }

    /// Like [`Selection::next`], but only as long as nothing has to be fetched.
    pub(super) fn next_ready(&mut self) -> Option<Result<SeriesSamples>> {
        if self.ready == 0 {
            return None;
        }
        self.ready -= 1;
        let parts = self.series.pop_front()?;
        Some(self.decode(parts))
    }

    /// Fetches the pages of the next series; false behind the last.
    pub(super) async fn fetch(&mut self) -> Result<bool> {
        let mut kept = std::mem::take(&mut self.pages);
        let mut wanted: Vec<BTreeSet<PageId>> = vec![BTreeSet::new(); self.readers.len()];
        let mut bytes = 0;
        for parts in self.series.iter().skip(self.ready) {
            if bytes > AHEAD_BYTES {
                break;
            }
            for (file, part) in parts {
                let Part::Floats(floats) = part else { continue };
                let key = (*file, floats.page);
                if let Some(page) = kept.remove(&key) {
                    self.pages.insert(key, page);
                } else if !self.pages.contains_key(&key) && wanted[*file].insert(floats.page) {
                    bytes += self.readers[*file].page_bytes(floats.page);
                }
            }
            self.ready += 1;
        }
        let files = wanted.into_iter().enumerate().filter(|(_, pages)| !pages.is_empty());
        let readers = &self.readers;
        let fetched = futures::stream::iter(files).map(|(file, pages)| async move {
            let pages: Vec<PageId> = pages.into_iter().collect();
            let lists = readers[file].lists(&pages).await?;
            Ok::<_, Error>(pages.into_iter().zip(lists).map(move |(page, list)| ((file, page), list)))
        });
        let fetched: Vec<_> = fetched.buffer_unordered(FILES_AT_ONCE).try_collect().await?;
        self.pages.extend(fetched.into_iter().flatten());
        Ok(self.ready > 0)
    }

    fn decode(&mut self, mut parts: Parts) -> Result<SeriesSamples> {
        let start = |part: &(usize, Part)| match &part.1 {
            Part::Floats(floats) => floats.wanted_times().first().copied(),
            Part::Whole(_) => None,
        };
        if parts.iter().all(|p| start(p).is_some()) {
            parts.sort_by_key(start);
            if let Some(floats) = self.chain(&parts)? {
                return Ok(SeriesSamples { floats, ..SeriesSamples::default() });
            }
        }
        let mut all = Vec::with_capacity(parts.len());
        for (file, part) in parts {
            all.push(match part {
                Part::Whole(samples) => samples,
                Part::Floats(floats) => {
                    let timestamps = self.joiner.join(&[&floats]);
                    let mut values = Vec::new();
                    self.read(file, &floats, &mut values)?;
                    let floats = FloatColumn { timestamps, values: values.into() };
                    SeriesSamples { floats, ..SeriesSamples::default() }
                }
            });
        }
        let mut samples = merge(&all);
        samples.floats.timestamps = self.joiner.interner.intern(&samples.floats.timestamps);
        samples.histograms.timestamps = self.joiner.interner.intern(&samples.histograms.timestamps);
        Ok(samples)
    }

    /// Puts parts behind one another; nothing when their times overlap.
    fn chain(&mut self, parts: &[(usize, Part)]) -> Result<Option<FloatColumn>> {
        let mut floats = Vec::with_capacity(parts.len());
        for (_, part) in parts {
            let Part::Floats(part) = part else { return Ok(None) };
            let last = floats.last().and_then(|f: &&FloatPart| f.wanted_times().last());
            if last >= part.wanted_times().first() {
                return Ok(None);
            }
            floats.push(part);
        }
        let timestamps = self.joiner.join(&floats);
        let mut values = Vec::with_capacity(timestamps.len());
        for ((file, _), part) in parts.iter().zip(floats) {
            self.read(*file, part, &mut values)?;
        }
        Ok(Some(FloatColumn { timestamps, values: values.into() }))
    }

    fn read(&self, file: usize, part: &FloatPart, into: &mut Vec<f64>) -> Result<()> {
        let name = self.readers[file].name();
        let page = self.pages.get(&(file, part.page));
        let page = page.ok_or_else(|| Error::corrupt(name, "a page was not read"))?;
        part.read(page, into).map_err(|reason| Error::corrupt(name, reason))
    }
}

/// Joins two sorted lists in which each series stands once.
fn join(first: Vec<Joined>, second: Vec<Joined>) -> Vec<Joined> {
    let mut all = Vec::with_capacity(first.len().max(second.len()));
    let (mut first, mut second) = (first.into_iter().peekable(), second.into_iter().peekable());
    loop {
        let order = match (first.peek(), second.peek()) {
            // Most series stand in both; that is found without putting them in order.
            (Some(a), Some(b)) if a.labels == b.labels => std::cmp::Ordering::Equal,
            (Some(a), Some(b)) => compare_labels(&a.labels, &b.labels),
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (None, None) => return all,
        };
        let a = if order.is_le() { first.next() } else { None };
        let b = if order.is_ge() { second.next() } else { None };
        all.extend(match (a, b) {
            (Some(mut a), Some(b)) => {
                a.parts.extend(b.parts);
                // Of several accounts the newest counts, as in `merge_series`.
                a.newest = a.newest.max(b.newest);
                Some(a)
            }
            (a, b) => a.or(b),
        });
    }
}

/// Gives series whose times are the same the same timeline.
#[derive(Debug, Default)]
struct Joiner {
    known: HashMap<Vec<Span>, Known>,
    interner: TimelineInterner,
    key: Vec<Span>,
}

/// A part of a timeline, by the address of it.
type Span = (usize, u32, u32);

#[derive(Debug)]
struct Known {
    joined: Timeline,
    /// Keeps the addresses from being used again.
    _parts: Vec<Timeline>,
}

impl Joiner {
    /// Returns the times wanted of several parts, one behind the other.
    fn join(&mut self, parts: &[&FloatPart]) -> Timeline {
        self.key.clear();
        let span = |part: &&FloatPart| (part.times.as_ptr().addr(), part.span.start, part.span.end);
        self.key.extend(parts.iter().map(span));
        if let Some(known) = self.known.get(&self.key) {
            return Arc::clone(&known.joined);
        }
        let joined = match parts {
            [part] if part.wanted_times().len() == part.times.len() => Arc::clone(&part.times),
            _ => parts.iter().flat_map(|part| part.wanted_times()).copied().collect(),
        };
        let joined = self.interner.intern(&joined);
        let parts: Vec<Timeline> = parts.iter().map(|part| Arc::clone(&part.times)).collect();
        // Times that nobody shares are not asked for again.
        if parts.iter().all(|times| Arc::strong_count(times) > 2) {
            self.known.insert(self.key.clone(), Known { joined: Arc::clone(&joined), _parts: parts });
        }
        joined
    }
}

#[cfg(test)]
mod tests;
