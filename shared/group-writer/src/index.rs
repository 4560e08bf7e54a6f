//! From series that come one by one to scrape groups.
//!
//! Which member of which group a series is stays in an index: in the steady state a series costs one look-up. A
//! request is filled in sample by sample and taken out as appends, one a group and time.
//!
//! Invariants:
//! - an index entry's group holds the series' labels at its member number;
//! - a label set is known by a hash of 128 bits under a secret that is drawn with the index: nobody can make two that
//!   share one, and among 10^9 the odds of it are 10^-21;
//! - an entry that was not written for an hour is dropped, with its whole group when most of it is dead;
//! - an index is bounded; a series beyond the bound is refused and leaves nothing behind;
//! - a filling that is dropped before its appends are taken leaves nothing behind either.

use std::collections::HashMap;
use std::collections::hash_map::{Entry as MapEntry, RandomState};
use std::hash::BuildHasher as _;
use std::sync::Arc;

use model::{Exemplar, Histogram, Labels, Metadata, Tenant, Timestamp, Value};
use prometheus_proto::label;
use siphasher::sip128::SipHasher13;

use crate::group::{Append, Group, GroupIdentity, Presence};

/// How long a series stays in the index after it was last written.
const IDLE_MS: i64 = 3_600_000;
/// How often the index is swept.
const SWEEP_EVERY_MS: i64 = 600_000;
/// A group is made anew when more than half of its members are dead, and at least this many.
const DEAD_MEMBERS_MIN: u32 = 64;

/// The series of one tenant that one source writes, and their groups.
#[derive(Debug)]
pub struct SeriesIndex {
    tenant: Tenant,
    series_max: usize,
    entries: HashMap<SeriesKey, Entry, rapidhash::fast::RandomState>,
    /// Makes the [`SeriesKey`]s, by the index's secret.
    hasher: SipHasher13,
    slots: Vec<Slot>,
    slot_by_key: HashMap<Labels, u32>,
    swept_at: Timestamp,
    /// What members have of whose metadata nothing is said.
    unknown: Arc<Metadata>,
}

/// More series than an index may hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("too many active series for tenant {tenant}: the limit is {series_max}")]
pub struct TooManySeries {
    /// Whose.
    pub tenant: Tenant,
    /// The bound.
    pub series_max: usize,
}

/// A series as a request has it.
#[derive(Debug, Clone, Copy)]
pub struct SeriesOf<'a> {
    /// The labels.
    pub labels: &'a Labels,
    /// Tells sources apart that may write the same labels to groups of their own (a hash of the resource); 0 where
    /// the labels alone say which group it is.
    pub source: u64,
    /// Type, unit and help, where they are known.
    pub metadata: Option<&'a Arc<Metadata>>,
}

/// What an index knows a series by; valid in the index that made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SeriesKey([u64; 2]);

/// Where a series stands; valid within the filling that gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    slot: u32,
    member: u32,
}

/// Where one series goes.
#[derive(Debug)]
struct Entry {
    metadata: Arc<Metadata>,
    place: Place,
    written_at: Timestamp,
}

impl Entry {
    /// Remembers that the series is written, and what is said of its metadata.
    fn touch(&mut self, metadata: Option<&Arc<Metadata>>, slots: &[Slot], now: Timestamp) -> Place {
        self.written_at = now;
        if let Some(metadata) = metadata
            && !Arc::ptr_eq(metadata, &self.metadata)
        {
            if *metadata != self.metadata {
                slots[self.place.slot as usize].group.set_metadata(self.place.member, Arc::clone(metadata));
            }
            self.metadata = Arc::clone(metadata);
        }
        self.place
    }
}

#[derive(Debug)]
struct Slot {
    group: Group,
    /// What the request under way has for this group: samples by time.
    filling: Vec<AtTime>,
    /// Where a time stands in `filling`.
    by_time: HashMap<Timestamp, usize>,
}

#[derive(Debug)]
struct AtTime {
    timestamp: Timestamp,
    values: Vec<(u32, f64)>,
    histograms: Vec<(u32, Arc<Histogram>)>,
    starts: Vec<(u32, Timestamp)>,
    exemplars: Vec<(u32, Exemplar)>,
}

impl AtTime {
    fn new(timestamp: Timestamp) -> Self {
        Self {
            timestamp,
            values: Vec::new(),
            histograms: Vec::new(),
            starts: Vec::new(),
            exemplars: Vec::new(),
        }
    }
}

impl SeriesIndex {
    /// Makes an empty index of at most so many series.
    #[must_use]
    pub fn new(tenant: Tenant, series_max: usize) -> Self {
        let random = RandomState::new();
        Self {
            tenant,
            series_max,
            entries: HashMap::default(),
            hasher: SipHasher13::new_with_keys(random.hash_one(0), random.hash_one(1)),
            slots: Vec::new(),
            slot_by_key: HashMap::new(),
            swept_at: Timestamp::default(),
            unknown: Arc::default(),
        }
    }

    /// Begins a request.
    pub fn fill(&mut self, now: Timestamp) -> Filling<'_> {
        if now.since_ms(self.swept_at) > SWEEP_EVERY_MS {
            self.sweep(now);
        }
        Filling { index: self, touched: Vec::new(), now }
    }

    /// Finds the place of a series that is known.
    fn find(&mut self, key: SeriesKey, metadata: Option<&Arc<Metadata>>, now: Timestamp) -> Option<Place> {
        Some(self.entries.get_mut(&key)?.touch(metadata, &self.slots, now))
    }

    /// The key of a series, by its labels as [`label::put`] writes them.
    fn key(&self, labels: &[u8], source: u64) -> SeriesKey {
        let hash = self.hasher.hash(labels);
        SeriesKey([hash.h1 ^ source, hash.h2])
    }

    /// Finds the series' group and member, adding it when it is new.
    fn place(
        &mut self,
        series: SeriesOf<'_>,
        group_key: impl FnOnce() -> Labels,
        now: Timestamp,
    ) -> Result<Place, TooManySeries> {
        let SeriesOf { labels, source, metadata } = series;
        let mut bytes = Vec::with_capacity(2 * labels.byte_len());
        labels.iter().for_each(|(name, value)| label::put(name.as_bytes(), value.as_bytes(), &mut bytes));
        let key = self.key(&bytes, source);
        if let Some(place) = self.find(key, metadata, now) {
            return Ok(place);
        }
        if self.entries.len() >= self.series_max {
            return Err(TooManySeries { tenant: self.tenant.clone(), series_max: self.series_max });
        }
        let metadata = Arc::clone(metadata.unwrap_or(&self.unknown));
        let slot = self.slot(group_key());
        let member = self.slots[slot as usize].group.add(labels.clone(), Arc::clone(&metadata));
        let place = Place { slot, member };
        self.entries.insert(key, Entry { metadata, place, written_at: now });
        Ok(place)
    }

    fn slot(&mut self, key: Labels) -> u32 {
        match self.slot_by_key.entry(key) {
            MapEntry::Occupied(entry) => *entry.get(),
            MapEntry::Vacant(entry) => {
                let (tenant, key) = (self.tenant.clone(), entry.key().clone());
                let identity = GroupIdentity { tenant, key, sub_group: 0, epoch: 0 };
                let group = Group::new(identity);
                self.slots.push(Slot { group, filling: Vec::new(), by_time: HashMap::new() });
                *entry.insert(
                    u32::try_from(self.slots.len() - 1).expect("fewer than 2^32 groups fit in memory"),
                )
            }
        }
    }

    /// Drops series that are not written any more, and groups that mostly consist of them.
    fn sweep(&mut self, now: Timestamp) {
        self.swept_at = now;
        let is_live = |e: &Entry| now.since_ms(e.written_at) <= IDLE_MS;
        let mut live = vec![0_u32; self.slots.len()];
        for entry in self.entries.values().filter(|e| is_live(e)) {
            live[entry.place.slot as usize] += 1;
        }
        let keeps: Vec<bool> = self
            .slots
            .iter()
            .zip(&live)
            .map(|(s, live)| s.group.len() <= 2 * live + DEAD_MEMBERS_MIN && *live > 0)
            .collect();
        // Slots move up to fill the holes; entries follow.
        let mut moved = vec![u32::MAX; self.slots.len()];
        let mut next = 0;
        for (from, keep) in keeps.iter().enumerate() {
            if *keep {
                moved[from] = next;
                next += 1;
            }
        }
        let mut kept = keeps.iter();
        self.slots.retain(|_| *kept.next().expect("one mark a slot"));
        self.slot_by_key.retain(|_, slot| {
            *slot = moved[*slot as usize];
            *slot != u32::MAX
        });
        self.entries.retain(|_, entry| {
            let slot = &mut entry.place.slot;
            *slot = moved[*slot as usize];
            *slot != u32::MAX && is_live(entry)
        });
    }
}

/// A request that is being filled in.
#[derive(Debug)]
pub struct Filling<'a> {
    index: &'a mut SeriesIndex,
    /// Slots that hold something of this request.
    touched: Vec<u32>,
    now: Timestamp,
}

impl Filling<'_> {
    /// The key of a series of source 0, by its labels as [`label::put`] writes them one after the other, sorted and
    /// unique; other bytes have keys that no series is known by.
    #[must_use]
    pub fn key(&self, labels: &[u8]) -> SeriesKey {
        self.index.key(labels, 0)
    }

    /// Looks at what [`Filling::find`] will, of several series: the memory of one comes while that of another is waited
    /// for.
    pub fn look_ahead(&self, keys: impl Iterator<Item = SeriesKey>) {
        std::hint::black_box(keys.filter(|key| self.index.entries.contains_key(key)).count());
    }

    /// Finds the place of a series that is known.
    pub fn find(&mut self, key: SeriesKey, metadata: Option<&Arc<Metadata>>) -> Option<Place> {
        self.index.find(key, metadata, self.now)
    }

    /// Finds a series' place, making one when it is new; only then is the group's key asked for.
    ///
    /// # Errors
    /// When the index is full.
    pub fn place(
        &mut self,
        series: SeriesOf<'_>,
        group_key: impl FnOnce() -> Labels,
    ) -> Result<Place, TooManySeries> {
        self.index.place(series, group_key, self.now)
    }

    /// Adds a sample of a series; `start` is when its counting began.
    pub fn sample(&mut self, place: Place, timestamp: Timestamp, value: Value, start: Option<Timestamp>) {
        let at = self.at(place.slot, timestamp);
        match value {
            Value::Float(x) => at.values.push((place.member, x)),
            Value::Histogram(h) => at.histograms.push((place.member, h)),
        }
        at.starts.extend(start.map(|start| (place.member, start)));
    }

    /// Adds exemplars, which travel with the samples of a time where there are any.
    pub fn exemplars(
        &mut self,
        place: Place,
        timestamp: Timestamp,
        exemplars: impl IntoIterator<Item = Exemplar>,
    ) {
        let at = self.at(place.slot, timestamp);
        at.exemplars.extend(exemplars.into_iter().map(|e| (place.member, e)));
    }

    /// Takes what was filled in so far: appends in the order in which their groups were touched, then by time.
    pub fn take(&mut self) -> Vec<Append> {
        let mut all = Vec::new();
        for slot in self.touched.drain(..) {
            all.extend(self.index.slots[slot as usize].take());
        }
        all
    }

    fn at(&mut self, slot: u32, timestamp: Timestamp) -> &mut AtTime {
        let Slot { filling, by_time, .. } = &mut self.index.slots[slot as usize];
        if filling.is_empty() {
            self.touched.push(slot);
        }
        // Nearly always it is the time of the sample before.
        let i = match filling.last() {
            Some(last) if last.timestamp == timestamp => filling.len() - 1,
            _ => *by_time.entry(timestamp).or_insert_with(|| {
                filling.push(AtTime::new(timestamp));
                filling.len() - 1
            }),
        };
        &mut filling[i]
    }
}

impl Drop for Filling<'_> {
    fn drop(&mut self) {
        for slot in &self.touched {
            self.index.slots[*slot as usize].filling.clear();
            self.index.slots[*slot as usize].by_time.clear();
        }
    }
}

impl Slot {
    fn take(&mut self) -> Vec<Append> {
        let mut filling = std::mem::take(&mut self.filling);
        self.by_time.clear();
        filling.sort_by_key(|f| f.timestamp);
        let members = self.group.len();
        filling.into_iter().flat_map(|f| appends(&self.group, members, f)).collect()
    }
}

/// Makes the appends of one time. A member that stands there twice (a request that repeats a series) goes to a
/// second append, where storage decides whether it is a repetition or a contradiction.
fn appends(group: &Group, members: u32, filling: AtTime) -> Vec<Append> {
    let AtTime { timestamp, mut values, mut histograms, mut starts, mut exemplars } = filling;
    values.sort_by_key(|(member, _)| *member);
    histograms.sort_by_key(|(member, _)| *member);
    starts.sort_by_key(|(member, _)| *member);
    exemplars.sort_by_key(|(member, _)| *member);
    // A member has a float or a histogram in one append, not both: its histograms come behind its floats.
    let floats = |member: u32| {
        values.partition_point(|(m, _)| *m <= member) - values.partition_point(|(m, _)| *m < member)
    };
    let histograms = rounds(histograms, floats);
    let (values, starts) = (rounds(values, |_| 0), rounds(starts, |_| 0));
    let mut exemplars = Some(exemplars);
    // Exemplars may come without a sample.
    let alone = usize::from(exemplars.as_ref().is_some_and(|e| !e.is_empty()));
    let count = values.len().max(histograms.len()).max(alone);
    let mut rest = (values.into_iter(), histograms.into_iter(), starts.into_iter());
    let append = |_| {
        let (values, histograms) = (rest.0.next().unwrap_or_default(), rest.1.next().unwrap_or_default());
        let mut present: Vec<u32> =
            values.iter().map(|(m, _)| *m).chain(histograms.iter().map(|(m, _)| *m)).collect();
        present.sort_unstable();
        Append {
            group: group.clone(),
            members,
            timestamp,
            presence: presence(&present, members),
            values: values.iter().map(|(_, x)| *x).collect(),
            histograms,
            starts: rest.2.next().unwrap_or_default(),
            exemplars: exemplars.take().unwrap_or_default(),
        }
    };
    (0..count).map(append).collect()
}

/// Cuts a list that is sorted by member into lists that have each member once: the first of each member, the second, ...
/// The first of a member goes to the list that `first` says.
fn rounds<T>(list: Vec<(u32, T)>, first: impl Fn(u32) -> usize) -> Vec<Vec<(u32, T)>> {
    let mut rounds: Vec<Vec<(u32, T)>> = Vec::new();
    let mut next: Option<(u32, usize)> = None;
    for (member, item) in list {
        let round = match next {
            Some((before, round)) if before == member => round,
            _ => first(member),
        };
        next = Some((member, round + 1));
        if rounds.len() <= round {
            rounds.resize_with(round + 1, Vec::new);
        }
        rounds[round].push((member, item));
    }
    rounds
}

/// The shortest way to say which members are present; `present` ascends.
fn presence(present: &[u32], members: u32) -> Presence {
    let count = present.len() as u64;
    if count == u64::from(members) {
        Presence::All
    } else if count * 32 < u64::from(members) {
        Presence::Present(present.to_vec())
    } else {
        let mut bits = vec![0xff_u8; (members as usize).div_ceil(8)];
        for member in present {
            bits[(member / 8) as usize] &= !(1 << (member % 8));
        }
        Presence::Absent(bits)
    }
}

#[cfg(test)]
mod tests;
