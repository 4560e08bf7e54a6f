//! The head: what has been acknowledged lately, in memory, ready to be read and to be flushed.
//!
//! The head knows no clock, no file and no order of arrival: it is handed acknowledged samples in the order of the log
//! and keeps them by series. Which samples are taken at all is decided before the log ([`ordering`]).
//!
//! Invariants:
//! - every sample belongs to one generation; a generation is what one flush takes, and flushed or not as a whole;
//! - nothing is dropped that has not been flushed;
//! - numbers of series, tracks and blocks are used again only after [`Head::removals`] has grown.

pub(crate) mod codec;
pub(crate) mod index;
pub(crate) mod ordering;
pub(crate) mod select;
pub(crate) mod series;
pub(crate) mod timeline;

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;

use model::{Exemplar, Histogram, Labels, Matcher, Metadata, Tenant, Value};
use roaring::RoaringBitmap;

use crate::append::Presence;
use crate::series::{SeriesRow, Timeline};
use index::Index;
use select::{SeriesReader, Wanted};
use series::{HISTOGRAM_BYTES, Series};
use timeline::{BLOCK_TIMES, Blocks, Place, Track};

/// The number of a member that was removed from its group.
pub(crate) const REMOVED: u32 = u32::MAX;
/// What a float sample takes until it is flushed, about.
const FLOAT_BYTES: usize = 4;

/// Everything in memory, all tenants.
#[derive(Debug)]
pub(crate) struct Head {
    tenants: Vec<TenantHead>,
    numbers: HashMap<Tenant, u32>,
    generation: u32,
    unflushed: BTreeSet<u32>,
    unflushed_bytes: usize,
    removals: u64,
    exemplars_max: usize,
    /// What the head answers for.
    pub(crate) coverage: Coverage,
    /// The table's version after the last flush; 0 before the first.
    pub(crate) flushed_version: u64,
}

/// What the head answers for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Coverage {
    /// The log that is written.
    pub(crate) log: Arc<str>,
    /// Its last acknowledged segment.
    pub(crate) acknowledged: u64,
    /// Logs that were replayed into the head, with their last segment.
    pub(crate) adopted: Vec<(Arc<str>, u64)>,
    /// Logs that were brought into the table as they are, with their last segment; the head has nothing of them.
    pub(crate) drained: Vec<(Arc<str>, u64)>,
    /// From this time on nothing acknowledged is missing.
    pub(crate) complete_since: i64,
    /// What is missing is in the table of this version.
    pub(crate) table_version: u64,
}

/// One tenant's part of the head.
#[derive(Debug)]
pub(crate) struct TenantHead {
    pub(crate) tenant: Tenant,
    pub(crate) index: Index,
    pub(crate) blocks: Blocks,
    series: Vec<Option<Series>>,
    free_series: Vec<u32>,
    tracks: Vec<Track>,
    free_tracks: Vec<u32>,
    /// The newest sample of all series.
    pub(crate) max_time: i64,
}

/// The samples of one group at one time, with its members looked up.
#[derive(Debug, Clone)]
pub(crate) struct GroupSamples {
    pub(crate) tenant: u32,
    pub(crate) track: u32,
    pub(crate) timestamp: i64,
    /// The series of each member; [`REMOVED`] for those that are gone.
    pub(crate) members: Arc<Vec<u32>>,
    pub(crate) presence: Presence,
    pub(crate) values: Vec<f64>,
    pub(crate) histograms: Vec<(u32, Arc<Histogram>)>,
    pub(crate) starts: Vec<(u32, i64)>,
    pub(crate) exemplars: Vec<(u32, Exemplar)>,
}

impl Head {
    pub(crate) fn new(exemplars_max: usize) -> Self {
        Self {
            tenants: Vec::new(),
            numbers: HashMap::new(),
            generation: 0,
            unflushed: BTreeSet::new(),
            unflushed_bytes: 0,
            removals: 0,
            exemplars_max,
            coverage: Coverage { complete_since: i64::MIN, ..Coverage::default() },
            flushed_version: 0,
        }
    }

    /// Opens the next generation and returns its number; what is appended from now on belongs to it.
    pub(crate) fn next_generation(&mut self) -> u32 {
        self.generation += 1;
        self.unflushed.insert(self.generation);
        self.unflushed_bytes = 0;
        self.generation
    }

    pub(crate) fn generation(&self) -> u32 {
        self.generation
    }

    /// Notes that generations are in the table.
    pub(crate) fn flushed(&mut self, first: u32, last: u32) {
        self.unflushed.retain(|g| !(first..=last).contains(g));
    }

    /// Bytes appended since the last generation began, about.
    pub(crate) fn unflushed_bytes(&self) -> usize {
        self.unflushed_bytes
    }

    /// Grows whenever a number may mean something else than before.
    pub(crate) fn removals(&self) -> u64 {
        self.removals
    }

    pub(crate) fn tenant_number(&mut self, tenant: &Tenant) -> u32 {
        if let Some(number) = self.numbers.get(tenant) {
            return *number;
        }
        let number = u32::try_from(self.tenants.len()).expect("fewer than 2^32 tenants");
        self.tenants.push(TenantHead {
            tenant: tenant.clone(),
            index: Index::default(),
            blocks: Blocks::default(),
            series: Vec::new(),
            free_series: Vec::new(),
            tracks: Vec::new(),
            free_tracks: Vec::new(),
            max_time: i64::MIN,
        });
        self.numbers.insert(tenant.clone(), number);
        number
    }

    pub(crate) fn tenant(&self, tenant: &Tenant) -> Option<&TenantHead> {
        self.numbers.get(tenant).map(|n| &self.tenants[*n as usize])
    }

    pub(crate) fn tenants(&self) -> &[TenantHead] {
        &self.tenants
    }

    pub(crate) fn tenant_at(&self, number: u32) -> &TenantHead {
        &self.tenants[number as usize]
    }

    pub(crate) fn tenant_mut(&mut self, number: u32) -> &mut TenantHead {
        &mut self.tenants[number as usize]
    }

    pub(crate) fn series_count(&self) -> usize {
        self.tenants.iter().map(|t| t.index.len()).sum()
    }

    /// Bytes of all series, about; walks all of them.
    pub(crate) fn byte_len(&self) -> usize {
        self.tenants.iter().flat_map(|t| t.series.iter().flatten()).map(Series::byte_len).sum()
    }

    /// Stores acknowledged samples; returns how many had no place in their group's order.
    pub(crate) fn apply(&mut self, group: &GroupSamples) -> u64 {
        let generation = self.generation;
        let exemplars_max = self.exemplars_max;
        let tenant = &mut self.tenants[group.tenant as usize];
        let t = group.timestamp;
        tenant.max_time = tenant.max_time.max(t);
        let place = tenant.tracks[group.track as usize].place(t, generation, &mut tenant.blocks);
        let mut loose = 0;
        let (series, blocks) = (&mut tenant.series, &mut tenant.blocks);
        group.for_each(|_, number, sample, start_time| {
            let Some(series) = series.get_mut(number as usize).and_then(Option::as_mut) else { return };
            if !store(series, blocks, t, place, generation, sample, start_time) {
                loose += 1;
            }
        });
        for (member, exemplar) in &group.exemplars {
            let number = group.members.get(*member as usize).copied().unwrap_or(REMOVED);
            if let Some(series) = series.get_mut(number as usize).and_then(Option::as_mut) {
                let time = exemplar.timestamp.map_or(t, |e| e.millis());
                series.push_exemplar(exemplar.clone(), time, generation, exemplars_max);
            }
        }
        self.unflushed_bytes += group.values.len() * FLOAT_BYTES + group.histograms.len() * HISTOGRAM_BYTES;
        loose
    }

    /// Loads rows of the table as part of the current generation.
    pub(crate) fn load(&mut self, tenant: &Tenant, rows: Vec<SeriesRow>) {
        let number = self.tenant_number(tenant);
        let (generation, exemplars_max) = (self.generation, self.exemplars_max);
        let tenant = &mut self.tenants[number as usize];
        // Rows of one group share a timeline, and then they share its blocks here. The timeline is kept beside the
        // blocks, so that no other one can come to lie at its address.
        let mut known: HashMap<*const i64, (Timeline, Vec<u32>)> = HashMap::new();
        for row in rows {
            let series_number = tenant.series_or_insert(&row.labels, &row.metadata);
            let timeline = &row.samples.floats.timestamps;
            let (_, row_blocks) = known.entry(timeline.as_ptr()).or_insert_with(|| {
                let add = |times: &[i64]| tenant.blocks.add_closed(Timeline::from(times), generation);
                (Arc::clone(timeline), timeline.chunks(BLOCK_TIMES).map(add).collect())
            });
            let mut samples: Vec<(i64, Option<Place>, Value)> =
                Vec::with_capacity(row.samples.sample_count());
            for (i, (t, value)) in row.samples.floats.iter().enumerate() {
                let position = u16::try_from(i % BLOCK_TIMES).expect("a block has few times");
                let place = Place { block: row_blocks[i / BLOCK_TIMES], position };
                samples.push((t, Some(place), Value::Float(value)));
            }
            let histograms = row.samples.histograms.iter();
            samples.extend(histograms.map(|(t, h)| (t, None, Value::Histogram(Arc::clone(h)))));
            samples.sort_by_key(|s| s.0);
            let Some(series) = tenant.series[series_number as usize].as_mut() else { continue };
            for (t, place, value) in samples {
                let starts = &row.samples.start_timestamps;
                let start_time = starts.binary_search_by_key(&t, |s| s.0).ok().map(|i| starts[i].1);
                store(series, &mut tenant.blocks, t, place, generation, value, start_time);
                tenant.max_time = tenant.max_time.max(t);
            }
            for exemplar in row.samples.exemplars.iter() {
                if let Some(time) = exemplar.timestamp {
                    series.push_exemplar(exemplar.clone(), time.millis(), generation, exemplars_max);
                }
            }
        }
    }

    /// Drops flushed samples older than `before` from some series of a tenant.
    pub(crate) fn drop_before(&mut self, before: i64, tenant: usize, numbers: Range<usize>) {
        let unflushed = &self.unflushed;
        let is_droppable = |newest: i64, generation: u32| newest < before && !unflushed.contains(&generation);
        let tenant = &mut self.tenants[tenant];
        let end = numbers.end.min(tenant.series.len());
        for series in tenant.series[numbers.start.min(end)..end].iter_mut().flatten() {
            series.drop_old(&mut tenant.blocks, &is_droppable);
        }
        self.removals += 1;
    }

    /// Removes a series that holds nothing.
    pub(crate) fn remove_series(&mut self, tenant: u32, number: u32) {
        let tenant = &mut self.tenants[tenant as usize];
        if let Some(series) = tenant.series[number as usize].take() {
            tenant.index.remove(number, &series.labels);
            tenant.free_series.push(number);
            self.removals += 1;
        }
    }

    /// Ends a track that no group uses.
    pub(crate) fn remove_track(&mut self, tenant: u32, number: u32) {
        let tenant = &mut self.tenants[tenant as usize];
        tenant.tracks[number as usize].close(&mut tenant.blocks);
        tenant.free_tracks.push(number);
        self.removals += 1;
    }
}

/// Stores one sample; false when it had to be put aside.
fn store(
    series: &mut Series,
    blocks: &mut Blocks,
    t: i64,
    place: Option<Place>,
    generation: u32,
    value: Value,
    start_time: Option<i64>,
) -> bool {
    let before = series.max_time;
    let is_in_order = match &value {
        Value::Float(x) => series.push_float(t, place, *x, blocks),
        Value::Histogram(h) => series.push_histogram(t, generation, Arc::clone(h)),
    };
    match (is_in_order, start_time) {
        (true, Some(start_time)) => series.push_start(t, before, generation, start_time),
        (true, None) => {}
        (false, start_time) => series.push_loose(t, generation, value, start_time),
    }
    is_in_order
}

impl TenantHead {
    pub(crate) fn find(&self, labels: &Labels) -> Option<u32> {
        self.index.find(labels, |s| &self.live(s).labels)
    }

    /// Finds or makes a series; the newest metadata stays.
    pub(crate) fn series_or_insert(&mut self, labels: &Labels, metadata: &Arc<Metadata>) -> u32 {
        if let Some(number) = self.find(labels) {
            self.set_metadata(number, metadata);
            return number;
        }
        let number = self.free_series.pop().unwrap_or_else(|| {
            self.series.push(None);
            u32::try_from(self.series.len() - 1).expect("fewer than 2^32 series fit in memory")
        });
        let (index, series) = (&mut self.index, &self.series);
        let interned = index.insert(number, labels, |s| {
            Index::hash(&series[s as usize].as_ref().expect("the index names live series only").labels)
        });
        self.series[number as usize] = Some(Series::new(interned, Arc::clone(metadata)));
        number
    }

    pub(crate) fn set_metadata(&mut self, number: u32, metadata: &Arc<Metadata>) {
        if let Some(series) = self.series[number as usize].as_mut()
            && series.metadata != *metadata
        {
            series.metadata = Arc::clone(metadata);
        }
    }

    pub(crate) fn add_track(&mut self) -> u32 {
        if let Some(free) = self.free_tracks.pop() {
            self.tracks[free as usize] = Track::default();
            return free;
        }
        self.tracks.push(Track::default());
        u32::try_from(self.tracks.len() - 1).expect("fewer than 2^32 groups fit in memory")
    }

    /// How many series numbers there are, free ones included.
    pub(crate) fn series_numbers(&self) -> usize {
        self.series.len()
    }

    pub(crate) fn series(&self, number: u32) -> Option<&Series> {
        self.series.get(number as usize).and_then(Option::as_ref)
    }

    fn live(&self, number: u32) -> &Series {
        self.series(number).expect("the index names live series only")
    }

    pub(crate) fn labels(&self, number: u32) -> Labels {
        self.index.labels(&self.live(number).labels)
    }

    /// The series that the matchers accept and that hold something within the time.
    pub(crate) fn matching(&self, matchers: &[Matcher], min_time: i64, max_time: i64) -> RoaringBitmap {
        let mut found = self.index.postings(matchers);
        let outside = |n: &u32| {
            let series = self.live(*n);
            series.is_empty() || series.max_time < min_time || series.min_time(&self.blocks) > max_time
        };
        let outside: RoaringBitmap = found.iter().filter(outside).collect();
        found -= outside;
        found
    }

    pub(crate) fn read(&self, number: u32, reader: &mut SeriesReader, wanted: &Wanted) -> Option<SeriesRow> {
        let series = self.series(number)?;
        let samples = reader.read(series, &self.blocks, wanted)?;
        let labels = self.index.labels(&series.labels);
        Some(SeriesRow { labels, metadata: Arc::clone(&series.metadata), samples })
    }
}

impl GroupSamples {
    /// Calls back for every sample with member, series, value and start time.
    #[inline]
    pub(crate) fn for_each(&self, mut f: impl FnMut(u32, u32, Value, Option<i64>)) {
        let mut values = self.values.iter();
        let mut histograms = self.histograms.iter().peekable();
        let mut starts = self.starts.iter().peekable();
        for_each_present(&self.members, &self.presence, |member, series| {
            let value = match histograms.peek() {
                Some((m, h)) if *m == member => {
                    histograms.next();
                    Value::Histogram(Arc::clone(h))
                }
                _ => match values.next() {
                    Some(value) => Value::Float(*value),
                    None => return,
                },
            };
            while starts.next_if(|(m, _)| *m < member).is_some() {}
            let start_time = starts.next_if(|(m, _)| *m == member).map(|s| s.1);
            f(member, series, value, start_time);
        });
    }
}

/// Calls back for every member that has a sample, with its number and series, ascending.
#[inline]
pub(crate) fn for_each_present(members: &[u32], presence: &Presence, mut f: impl FnMut(u32, u32)) {
    match presence {
        Presence::All => {
            for (member, series) in (0..).zip(members) {
                if *series != REMOVED {
                    f(member, *series);
                }
            }
        }
        Presence::Absent(bits) => {
            for (member, series) in (0_u32..).zip(members) {
                let is_absent = bits.get(member as usize / 8).is_some_and(|b| b >> (member % 8) & 1 == 1);
                if *series != REMOVED && !is_absent {
                    f(member, *series);
                }
            }
        }
        Presence::Present(present) => {
            for member in present {
                if let Some(series) = members.get(*member as usize).filter(|s| **s != REMOVED) {
                    f(*member, *series);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
