//! The newest sample of each series, in pieces: what `/federate` is made of.
//!
//! The head is the index: postings by metric name give the series of a family, and each series has its newest sample at
//! hand. Nothing is kept beside it, and nothing is decoded but where a late sample may have won, or the range of time
//! ends before the newest.
//!
//! Invariants:
//! - a series that exists from the beginning to the end of the reading is told once;
//! - what is held between two pieces is the numbers of one family's series.

use std::ops::Range;
use std::sync::Arc;

use hashbrown::HashMap;
use model::labels::METRIC_NAME;
use model::last_samples::{INSTANCE, order};
use model::{LastSampleColumns, Matcher, Tenant, Value};
use roaring::RoaringBitmap;

use super::Storage;
use super::flush::ROWS_PER_LOCK;
use super::read::HeadState;
use crate::error::{Error, Result};
use crate::head::TenantHead;
use crate::head::index::Index;
use crate::head::select::{SeriesReader, Wanted};
use crate::head::series::Series;

/// Series of one piece, about.
const SERIES_PER_PIECE: usize = 1_024;

/// Families up to this size are put in order while the head is locked.
const SORTED_IN_PLACE: usize = 2_048;

/// Reads newest samples, piece by piece. Made by [`Storage::last_samples`].
#[derive(Debug)]
pub struct LastSampleReader {
    storage: Arc<Storage>,
    tenant: Tenant,
    any_of: Vec<Vec<Matcher>>,
    min_time: i64,
    max_time: i64,
    state: HeadState,
    accepted: RoaringBitmap,
    /// What numbers meant when the accepted series were found; `None` before they were.
    removals: Option<u64>,
    family: Family,
    reader: SeriesReader,
    is_over: bool,
}

impl Storage {
    /// Begins to read the newest sample, from `min_time` to `max_time` in milliseconds (both included), of every series
    /// that any of the sets accepts. Series without a name are left out.
    #[must_use]
    pub fn last_samples(
        self: Arc<Self>,
        tenant: Tenant,
        any_of: Vec<Vec<Matcher>>,
        min_time: i64,
        max_time: i64,
    ) -> LastSampleReader {
        LastSampleReader {
            state: self.state(),
            storage: self,
            tenant,
            any_of,
            min_time,
            max_time,
            accepted: RoaringBitmap::new(),
            removals: None,
            family: Family::default(),
            reader: SeriesReader::default(),
            is_over: false,
        }
    }
}

impl LastSampleReader {
    /// Says what the samples cover.
    #[must_use]
    pub fn state(&self) -> &HeadState {
        &self.state
    }

    /// Reads the next series, in the order of [`model::last_samples`]; `None` behind the last.
    ///
    /// CPU work: to be called on a thread that may block.
    ///
    /// # Errors
    /// [`Error::Dropped`] when the head has let go of samples within the range meanwhile.
    pub fn read(&mut self) -> Result<Option<LastSampleColumns>> {
        let mut piece = Piece::default();
        while !self.is_over && piece.columns.len() < SERIES_PER_PIECE {
            self.read_locked(&mut piece);
            self.family.sort();
        }
        let complete_since = |state: &HeadState| state.logs.first().map(|log| log.complete_since.millis());
        let covered = complete_since(&self.state).max(Some(self.min_time));
        if complete_since(&self.storage.state()) > covered {
            return Err(Error::Dropped);
        }
        Ok((!piece.columns.is_empty()).then_some(piece.columns))
    }

    /// Reads some more under one lock.
    fn read_locked(&mut self, piece: &mut Piece) {
        let head = self.storage.read_head();
        let Some(tenant) = head.tenant(&self.tenant) else {
            self.is_over = true;
            return;
        };
        if self.removals != Some(head.removals()) {
            // Numbers may mean other series and label pairs now.
            self.accepted = accepted_ever(tenant, &self.any_of);
            self.removals = Some(head.removals());
            piece.pairs.clear();
            self.family.find_again(tenant, &self.accepted);
        }
        self.reader.timelines.blocks_changed();
        let times = (self.min_time, self.max_time);
        let mut left = ROWS_PER_LOCK;
        while left > 0 && self.family.unsorted.is_empty() {
            let Some(range) = self.family.next(tenant) else {
                if self.family.move_on(tenant, &self.accepted) {
                    continue;
                }
                self.is_over = true;
                return;
            };
            left = left.saturating_sub(range.len());
            for (order, number) in &self.family.sorted[range] {
                let series = live(tenant, *number);
                if let Some((time, value)) = last_of(tenant, series, times, &mut self.reader) {
                    piece.add(tenant, series, *order, time, value);
                }
            }
        }
    }
}

/// The series of one metric.
#[derive(Debug, Default)]
struct Family {
    name: String,
    /// With their orders, before they are sorted.
    unsorted: Vec<(u64, u32)>,
    /// With their orders, sorted.
    sorted: Vec<(u64, u32)>,
    /// How many of them are done.
    done: usize,
    /// The order of the last one that is.
    last: Option<u64>,
}

impl Family {
    /// Goes to the next metric that has accepted series.
    fn move_on(&mut self, tenant: &TenantHead, accepted: &RoaringBitmap) -> bool {
        let mut after = tenant.index.values_after(METRIC_NAME, &self.name);
        let Some((name, postings)) = after.find(|(_, postings)| !postings.is_disjoint(accepted)) else {
            return false;
        };
        name.clone_into(&mut self.name);
        self.last = None;
        self.fill(tenant, postings & accepted);
        true
    }

    /// Finds the series anew, and goes on behind the last one that was done.
    fn find_again(&mut self, tenant: &TenantHead, accepted: &RoaringBitmap) {
        if self.done == self.sorted.len() && self.unsorted.is_empty() {
            return;
        }
        let postings = tenant.index.postings_of(METRIC_NAME, &self.name);
        self.fill(tenant, postings.map(|postings| postings & accepted).unwrap_or_default());
    }

    fn fill(&mut self, tenant: &TenantHead, series: RoaringBitmap) {
        self.unsorted.clear();
        self.unsorted.extend(series.iter().map(|n| (order_of(tenant, live(tenant, n)), n)));
        (self.sorted, self.done) = (Vec::new(), 0);
        if self.unsorted.len() <= SORTED_IN_PLACE {
            self.sort();
        }
    }

    fn sort(&mut self) {
        if self.unsorted.is_empty() {
            return;
        }
        let mut unsorted = std::mem::take(&mut self.unsorted);
        unsorted.retain(|(order, _)| Some(*order) > self.last);
        unsorted.sort_unstable();
        self.sorted = unsorted;
    }

    /// Takes the next series, and whichever else have the same order, sorted by labels.
    fn next(&mut self, tenant: &TenantHead) -> Option<Range<usize>> {
        let start = self.done;
        let (first, _) = *self.sorted.get(start)?;
        let same = self.sorted[start + 1..].iter().take_while(|(order, _)| *order == first).count();
        self.done = start + 1 + same;
        self.last = Some(first);
        if same > 0 {
            self.sorted[start..self.done].sort_by_cached_key(|(_, number)| tenant.labels(*number));
        }
        Some(start..self.done)
    }
}

fn order_of(tenant: &TenantHead, series: &Series) -> u64 {
    let mut pairs = series.labels.pairs().iter().map(|pair| tenant.index.pair(*pair));
    let instance = pairs.find(|(name, _)| *name == INSTANCE).map_or("", |(_, value)| value);
    order(instance, Index::hash(&series.labels))
}

/// What one call reads.
#[derive(Default)]
struct Piece {
    columns: LastSampleColumns,
    /// Numbers of label pairs in the head, and in the columns.
    pairs: HashMap<u32, u32>,
}

impl Piece {
    fn add(&mut self, tenant: &TenantHead, series: &Series, order: u64, time: i64, value: Value) {
        let Self { columns, pairs } = self;
        let before = columns.pairs.len();
        for pair in series.labels.pairs() {
            let number = *pairs.entry(*pair).or_insert_with(|| {
                let (name, value) = tenant.index.pair(*pair);
                columns.add_pair(name, value)
            });
            columns.pairs.push(number);
        }
        columns.end_series(before, order, series.metadata.kind, time, value);
    }
}

/// The series that any of the sets accepts, whenever they have samples.
fn accepted_ever(tenant: &TenantHead, any_of: &[Vec<Matcher>]) -> RoaringBitmap {
    let sets = any_of.iter().map(|matchers| tenant.index.postings(matchers));
    sets.fold(RoaringBitmap::new(), |all, set| all | set)
}

fn live(tenant: &TenantHead, number: u32) -> &Series {
    tenant.series(number).expect("nothing was removed since the series was found")
}

/// The newest sample of a series within a range of time.
fn last_of(
    tenant: &TenantHead,
    series: &Series,
    (min_time, max_time): (i64, i64),
    reader: &mut SeriesReader,
) -> Option<(i64, Value)> {
    // The newest sample of all is at hand; only a range that ends before it makes reading necessary. Late samples at
    // its very time may win over it, which only the merge knows.
    let has_late = series.rare.as_ref().is_some_and(|r| r.loose.iter().any(|l| l.time == series.max_time));
    if series.max_time < min_time {
        return None;
    }
    if series.max_time <= max_time && !has_late {
        return series.newest().map(|value| (series.max_time, value));
    }
    let wanted = Wanted::times(min_time, max_time);
    let samples = reader.read(series, &tenant.blocks, &wanted)?;
    samples.last()
}
