//! Remote write: from series that come one by one to scrape groups.
//!
//! A request's series belong to the group of their (job, instance); those without both are spread over buckets by
//! hash. Which member of which group a series is stays in an index: in the steady state a series costs one look-up.
//!
//! Invariants:
//! - an index entry's group holds its labels at its member number;
//! - an entry that was not written for an hour is dropped, with its whole group when most of it is dead;
//! - a tenant's index is bounded; a request beyond the bound is refused as a whole.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use fault::Kind;
use group_writer::{Append, Batch, Group, GroupIdentity, GroupWriter, Presence, Written};
use model::{Clock, Exemplar, Histogram, Labels, Metadata, Tenant, Timestamp};
use parking_lot::Mutex;

/// How long a request waits to be durable.
const WRITE_DEADLINE: Duration = Duration::from_secs(60);
/// How long a series stays in the index after it was last written.
const IDLE_MS: i64 = 3_600_000;
/// How often the index is swept.
const SWEEP_EVERY_MS: i64 = 600_000;
/// Most series in one tenant's index.
const SERIES_MAX: usize = 20_000_000;
/// A group is made anew when more than half of its members are dead, and at least this many.
const DEAD_MEMBERS_MIN: u32 = 64;
/// Groups that series without job and instance are spread over.
const BUCKETS: u64 = 64;

/// One series of a request, in model terms.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct WriteSeries {
    pub(crate) labels: Labels,
    pub(crate) samples: Vec<(Timestamp, f64)>,
    pub(crate) histograms: Vec<(Timestamp, Arc<Histogram>)>,
    pub(crate) exemplars: Vec<Exemplar>,
}

/// Turns requests into batches and waits until they are durable.
#[derive(Debug)]
pub(crate) struct RemoteWriter {
    writer: GroupWriter,
    clock: Clock,
    tenants: Mutex<HashMap<Tenant, Arc<Mutex<Index>>>>,
}

/// A request that was not stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    #[error("too many active series for tenant {tenant}: the limit is {SERIES_MAX}")]
    TooManySeries { tenant: Tenant },
    #[error("{0}")]
    Refused(String),
    #[error(transparent)]
    Writer(#[from] group_writer::Error),
}

impl Error {
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::TooManySeries { .. } => Kind::Busy,
            Self::Refused(_) => Kind::Invalid,
            Self::Writer(error) => error.kind(),
        }
    }
}

impl RemoteWriter {
    pub(crate) fn new(writer: GroupWriter, clock: Clock) -> Self {
        Self { writer, clock, tenants: Mutex::default() }
    }

    /// Finds the groups of a request's series. CPU work: not for an async thread.
    pub(crate) fn group(&self, tenant: &Tenant, series: &[WriteSeries]) -> Result<Batch, Error> {
        let index = Arc::clone(self.tenants.lock().entry(tenant.clone()).or_default());
        let appends = index.lock().appends(tenant, series, self.clock.now())?;
        Ok(Batch { appends, is_atomic: true })
    }

    /// Stores a request as a whole, or nothing of it; returns when it is durable.
    pub(crate) async fn store(&self, batch: Batch) -> Result<Written, Error> {
        let written = self.writer.write(batch, WRITE_DEADLINE).await?;
        match written.refusals.first() {
            Some(refusal) => Err(Error::Refused(refusal.example.clone())),
            None => Ok(written),
        }
    }
}

/// Where one series goes.
#[derive(Debug)]
struct Entry {
    labels: Labels,
    slot: usize,
    member: u32,
    written_at: Timestamp,
}

/// The series of one tenant.
#[derive(Debug, Default)]
struct Index {
    /// By hash of the labels; a second series with the same hash stands in `collisions`.
    entries: HashMap<u64, Entry>,
    collisions: HashMap<Labels, Entry>,
    slots: Vec<Slot>,
    slot_by_key: HashMap<Labels, usize>,
    swept_at: Timestamp,
}

#[derive(Debug)]
struct Slot {
    group: Group,
    /// What the request under way has for this group: samples by time.
    filling: Vec<Filling>,
}

#[derive(Debug)]
struct Filling {
    timestamp: Timestamp,
    values: Vec<(u32, f64)>,
    histograms: Vec<(u32, Arc<Histogram>)>,
    exemplars: Vec<(u32, Exemplar)>,
}

impl Filling {
    fn new(timestamp: Timestamp) -> Self {
        Self { timestamp, values: Vec::new(), histograms: Vec::new(), exemplars: Vec::new() }
    }
}

impl Index {
    fn appends(
        &mut self,
        tenant: &Tenant,
        series: &[WriteSeries],
        now: Timestamp,
    ) -> Result<Vec<Append>, Error> {
        if now.since_ms(self.swept_at) > SWEEP_EVERY_MS {
            self.sweep(now);
        }
        let mut touched = Vec::new();
        for one in series {
            let (slot, member) = self.place(tenant, one, now)?;
            if self.slots[slot].filling.is_empty() {
                touched.push(slot);
            }
            self.slots[slot].fill(member, one);
        }
        Ok(touched.into_iter().flat_map(|slot| self.slots[slot].take()).collect())
    }

    /// Finds the series' group and member, adding it when it is new.
    fn place(
        &mut self,
        tenant: &Tenant,
        series: &WriteSeries,
        now: Timestamp,
    ) -> Result<(usize, u32), Error> {
        let hash = series.labels.series_id();
        let is_taken = match self.entries.get_mut(&hash) {
            Some(entry) if entry.labels == series.labels => {
                entry.written_at = now;
                return Ok((entry.slot, entry.member));
            }
            other => other.is_some(),
        };
        let labels = &series.labels;
        if is_taken && let Some(entry) = self.collisions.get_mut(labels) {
            entry.written_at = now;
            return Ok((entry.slot, entry.member));
        }
        if self.entries.len() + self.collisions.len() >= SERIES_MAX {
            return Err(Error::TooManySeries { tenant: tenant.clone() });
        }
        let slot = self.slot(tenant, group_key(labels, hash));
        let member = self.slots[slot].group.add(labels.clone(), Arc::<Metadata>::default());
        let entry = Entry { labels: labels.clone(), slot, member, written_at: now };
        if is_taken {
            self.collisions.insert(labels.clone(), entry);
        } else {
            self.entries.insert(hash, entry);
        }
        Ok((slot, member))
    }

    fn slot(&mut self, tenant: &Tenant, key: Labels) -> usize {
        if let Some(slot) = self.slot_by_key.get(&key) {
            return *slot;
        }
        let identity = GroupIdentity { tenant: tenant.clone(), key: key.clone(), sub_group: 0, epoch: 0 };
        self.slots.push(Slot { group: Group::new(identity), filling: Vec::new() });
        self.slot_by_key.insert(key, self.slots.len() - 1);
        self.slots.len() - 1
    }

    /// Drops series that are not written any more, and groups that mostly consist of them.
    fn sweep(&mut self, now: Timestamp) {
        self.swept_at = now;
        let is_live = |e: &Entry| now.since_ms(e.written_at) <= IDLE_MS;
        let mut live = vec![0_u32; self.slots.len()];
        for entry in self.entries.values().chain(self.collisions.values()).filter(|e| is_live(e)) {
            live[entry.slot] += 1;
        }
        let keeps: Vec<bool> = self
            .slots
            .iter()
            .zip(&live)
            .map(|(s, live)| s.group.len() <= 2 * live + DEAD_MEMBERS_MIN && *live > 0)
            .collect();
        // Slots move up to fill the holes; entries follow.
        let mut moved = vec![usize::MAX; self.slots.len()];
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
            *slot = moved[*slot];
            *slot != usize::MAX
        });
        let follow = |entry: &mut Entry| {
            let is_kept = is_live(entry) && keeps[entry.slot];
            entry.slot = moved[entry.slot];
            is_kept
        };
        self.entries.retain(|_, entry| follow(entry));
        self.collisions.retain(|_, entry| follow(entry));
    }
}

impl Slot {
    fn fill(&mut self, member: u32, series: &WriteSeries) {
        for (t, value) in &series.samples {
            self.at(*t).values.push((member, *value));
        }
        for (t, histogram) in &series.histograms {
            self.at(*t).histograms.push((member, Arc::clone(histogram)));
        }
        let newest = series.samples.last().map(|(t, _)| *t).max(series.histograms.last().map(|(t, _)| *t));
        // Exemplars travel with the series' newest sample; one that has none has nothing to travel with.
        if let Some(newest) = newest {
            self.at(newest).exemplars.extend(series.exemplars.iter().map(|e| (member, e.clone())));
        }
    }

    fn at(&mut self, timestamp: Timestamp) -> &mut Filling {
        // Requests have one time a group, or a few: a search from the end is a hash map's match.
        let i = match self.filling.iter().rposition(|f| f.timestamp == timestamp) {
            Some(i) => i,
            None => {
                self.filling.push(Filling::new(timestamp));
                self.filling.len() - 1
            }
        };
        &mut self.filling[i]
    }

    fn take(&mut self) -> Vec<Append> {
        let mut filling = std::mem::take(&mut self.filling);
        filling.sort_by_key(|f| f.timestamp);
        let members = self.group.len();
        filling.into_iter().flat_map(|f| appends(&self.group, members, f)).collect()
    }
}

/// Makes the appends of one time. A member that stands there twice (a request that repeats a series) goes to a
/// second append, where storage decides whether it is a repetition or a contradiction.
fn appends(group: &Group, members: u32, filling: Filling) -> Vec<Append> {
    let Filling { timestamp, mut values, mut histograms, mut exemplars } = filling;
    values.sort_by_key(|(member, _)| *member);
    histograms.sort_by_key(|(member, _)| *member);
    exemplars.sort_by_key(|(member, _)| *member);
    let mut all = Vec::new();
    while !values.is_empty() || !histograms.is_empty() {
        let later_values = split_repeated(&mut values);
        let mut later_histograms = split_repeated(&mut histograms);
        // A member has a float or a histogram in one append, not both.
        let (now, both): (Vec<_>, Vec<_>) = std::mem::take(&mut histograms)
            .into_iter()
            .partition(|(m, _)| values.binary_search_by_key(m, |(v, _)| *v).is_err());
        later_histograms.extend(both);
        later_histograms.sort_by_key(|(member, _)| *member);
        let mut present: Vec<u32> =
            values.iter().map(|(m, _)| *m).chain(now.iter().map(|(m, _)| *m)).collect();
        present.sort_unstable();
        all.push(Append {
            group: group.clone(),
            members,
            timestamp,
            presence: presence(&present, members),
            values: values.iter().map(|(_, x)| *x).collect(),
            histograms: now,
            starts: Vec::new(),
            exemplars: std::mem::take(&mut exemplars),
        });
        (values, histograms) = (later_values, later_histograms);
    }
    all
}

/// Keeps the first of each member and returns the others.
fn split_repeated<T: Clone>(list: &mut Vec<(u32, T)>) -> Vec<(u32, T)> {
    let mut later = Vec::new();
    list.dedup_by(|b, a| {
        let is_repeated = a.0 == b.0;
        if is_repeated {
            later.push(b.clone());
        }
        is_repeated
    });
    later
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

/// The identity of a series' group: its job and instance, or a bucket.
fn group_key(labels: &Labels, hash: u64) -> Labels {
    let (job, instance) = (labels.value(model::labels::JOB), labels.value(model::labels::INSTANCE));
    if job.is_empty() && instance.is_empty() {
        // The name cannot stand in a request, since labels with a leading `__` other than the metric name do not.
        Labels::from_pairs([("__bucket__", (hash % BUCKETS).to_string())])
    } else {
        Labels::from_pairs([(model::labels::JOB, job), (model::labels::INSTANCE, instance)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(labels: &[(&str, &str)], samples: &[(i64, f64)]) -> WriteSeries {
        WriteSeries {
            labels: Labels::from_pairs(labels.iter().copied()),
            samples: samples.iter().map(|(t, x)| (Timestamp(*t), *x)).collect(),
            ..WriteSeries::default()
        }
    }

    /// What an append says: group key, time, presence, values.
    fn said(append: &Append) -> (String, i64, Presence, Vec<f64>) {
        let key = append.group.identity().key.to_string();
        (key, append.timestamp.millis(), append.presence.clone(), append.values.clone())
    }

    fn appends_of(
        index: &mut Index,
        series: &[WriteSeries],
        now: i64,
    ) -> Vec<(String, i64, Presence, Vec<f64>)> {
        let appends = index.appends(&Tenant::default(), series, Timestamp(now)).expect("below the bound");
        appends.iter().map(said).collect()
    }

    #[test]
    fn series_of_one_instance_become_one_append_a_time() {
        let mut index = Index::default();
        let a = [("__name__", "a"), ("instance", "i"), ("job", "j")];
        let b = [("__name__", "b"), ("instance", "i"), ("job", "j")];
        let other = [("__name__", "a"), ("instance", "k"), ("job", "j")];
        let got = appends_of(
            &mut index,
            &[series(&a, &[(1, 1.0), (2, 2.0)]), series(&other, &[(1, 9.0)]), series(&b, &[(1, 5.0)])],
            0,
        );
        let key = r#"{instance="i", job="j"}"#.to_owned();
        assert_eq!(
            got,
            [
                (key.clone(), 1, Presence::All, vec![1.0, 5.0]),
                (key.clone(), 2, Presence::Absent(vec![0b1111_1110]), vec![2.0]),
                (r#"{instance="k", job="j"}"#.to_owned(), 1, Presence::All, vec![9.0]),
            ]
        );
        // In another order, and with one member missing: the numbers stay.
        let got = appends_of(&mut index, &[series(&b, &[(3, 6.0)])], 0);
        assert_eq!(got, [(key, 3, Presence::Absent(vec![0b1111_1101]), vec![6.0])]);
    }

    #[test]
    fn a_series_that_stands_twice_goes_to_a_second_append() {
        let mut index = Index::default();
        let a = [("__name__", "a"), ("job", "j")];
        let got = appends_of(&mut index, &[series(&a, &[(1, 1.0)]), series(&a, &[(1, 2.0)])], 0);
        let values: Vec<_> = got.into_iter().map(|(.., values)| values).collect();
        assert_eq!(values, [vec![1.0], vec![2.0]]);
    }

    #[test]
    fn series_without_job_and_instance_spread_over_buckets() {
        let mut index = Index::default();
        let names: Vec<String> = (0..1_000).map(|i| format!("m{i}")).collect();
        let labels: Vec<_> = names.iter().map(|n| [("__name__", n.as_str())]).collect();
        let all: Vec<_> = labels.iter().map(|l| series(l, &[(1, 1.0)])).collect();
        let got = appends_of(&mut index, &all, 0);
        assert_eq!(got.iter().map(|(.., v)| v.len()).sum::<usize>(), 1_000);
        assert!((32..=BUCKETS as usize).contains(&got.len()), "{} buckets", got.len());
    }

    #[test]
    fn idle_series_leave_the_index() {
        let mut index = Index::default();
        let names: Vec<String> = (0..500).map(|i| format!("m{i}")).collect();
        let labels: Vec<_> = names.iter().map(|n| [("__name__", n.as_str()), ("job", "j")]).collect();
        let all: Vec<_> = labels.iter().map(|l| series(l, &[(1, 1.0)])).collect();
        appends_of(&mut index, &all, 0);
        let alone = [("__name__", "x"), ("job", "k")];
        appends_of(&mut index, &[series(&alone, &[(1, 1.0)])], IDLE_MS);
        assert_eq!((index.entries.len(), index.slots.len()), (501, 2));
        let later = IDLE_MS + SWEEP_EVERY_MS + 1;
        let got = appends_of(&mut index, &[series(&alone, &[(2, 2.0)])], later);
        assert_eq!(
            (index.entries.len(), index.slots.len()),
            (1, 1),
            "the idle group is gone, the other kept"
        );
        assert_eq!(got, [(r#"{job="k"}"#.to_owned(), 2, Presence::All, vec![2.0])]);
        let again = appends_of(&mut index, &all[..2], later);
        assert_eq!(
            again,
            [(r#"{job="j"}"#.to_owned(), 1, Presence::All, vec![1.0, 1.0])],
            "a group made anew"
        );
    }

    #[test]
    fn presence_is_said_the_short_way() {
        assert_eq!(presence(&[0, 1, 2], 3), Presence::All);
        assert_eq!(presence(&[5], 1_000), Presence::Present(vec![5]));
        assert_eq!(presence(&[0, 2], 3), Presence::Absent(vec![0b1111_1010]));
    }
}
