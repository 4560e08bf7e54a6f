//! What decides which samples enter the log: the declared groups and, for every series, the newest sample accepted.
//!
//! Invariants:
//! - this state is changed together with a push to the committer, under one lock, so the log has its order;
//! - it is ahead of the head by what is not durable yet;
//! - `uses` counts the groups that have a series as a member; only a series without any may be removed.

use std::collections::HashMap;
use std::sync::Arc;

use model::labels::RULE_GROUP;
use model::{Exemplar, Histogram, Labels, Timestamp, Value, is_stale};

use crate::append::{GroupAppend, Presence, RefusalReason};
use crate::error::{Error, Result};
use crate::head::ordering::{Bounds, Newest, NewestValue, Verdict};
use crate::head::{GroupSamples, Head, REMOVED, for_each_present};

/// How far ahead of the clock a sample may be.
pub(crate) const FUTURE_MS_MAX: i64 = 600_000;
/// The first instant that a file can hold: 0001-01-01.
const TIME_MIN: i64 = -62_135_596_800_000;

/// Groups and ordering state.
#[derive(Debug, Default)]
pub(crate) struct Appender {
    pub(crate) tenants: Vec<TenantOrder>,
    pub(crate) groups: HashMap<u64, Group>,
    pub(crate) next_group: u64,
    pub(crate) tracks: HashMap<TrackKey, TrackUse>,
    pub(crate) is_closed: bool,
    /// Whether samples were pushed since the last cut.
    pub(crate) has_appended: bool,
}

/// Ordering state of one tenant, by series number.
#[derive(Debug)]
pub(crate) struct TenantOrder {
    pub(crate) newest: Vec<Newest>,
    pub(crate) uses: Vec<u32>,
    pub(crate) max_time: i64,
}

impl Default for TenantOrder {
    fn default() -> Self {
        Self { newest: Vec::new(), uses: Vec::new(), max_time: i64::MIN }
    }
}

/// A declared group.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) tenant: u32,
    pub(crate) key: TrackKey,
    pub(crate) track: u32,
    pub(crate) members: Arc<Vec<u32>>,
    pub(crate) epoch: u64,
    pub(crate) displaced: bool,
}

/// What makes two groups the same scrape group.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct TrackKey {
    pub(crate) tenant: u32,
    pub(crate) key: Labels,
    pub(crate) sub_group: u32,
}

/// A scrape group's track in the head and who uses it.
#[derive(Debug, Clone)]
pub(crate) struct TrackUse {
    pub(crate) track: u32,
    /// The newest assignment epoch seen.
    pub(crate) epoch: u64,
    pub(crate) groups: u32,
    /// When the last group was forgotten.
    pub(crate) idle_since: Timestamp,
}

/// The outcome of judging one request.
#[derive(Debug, Default)]
pub(crate) struct Judged {
    pub(crate) groups: Vec<(u64, GroupSamples)>,
    pub(crate) refused: Vec<RefusedSamples>,
    pub(crate) stored: u64,
    /// An append without samples was of a rule group that has another evaluator by now.
    pub(crate) is_superseded: bool,
    /// Number of the append that is being judged.
    append: u32,
    undo: Vec<(u32, u32, Newest)>,
    undo_max: Vec<(u32, i64)>,
}

/// Samples refused for one reason, with the first of them.
#[derive(Debug)]
pub(crate) struct RefusedSamples {
    pub(crate) reason: RefusalReason,
    /// Number of the append and of the member.
    pub(crate) samples: Vec<(u32, u32)>,
    pub(crate) tenant: u32,
    pub(crate) series: u32,
    pub(crate) detail: Option<String>,
}

impl Judged {
    /// Refuses a member's sample in the append that is being judged.
    fn refuse(
        &mut self,
        reason: RefusalReason,
        member: u32,
        (tenant, series): (u32, u32),
        detail: Option<String>,
    ) {
        let sample = (self.append, member);
        match self.refused.iter_mut().find(|r| r.reason == reason) {
            Some(known) => known.samples.push(sample),
            None => {
                self.refused.push(RefusedSamples { reason, samples: vec![sample], tenant, series, detail })
            }
        }
    }
}

impl Appender {
    /// Rebuilds the ordering state from what the head holds.
    pub(crate) fn from_head(head: &Head, tracks: HashMap<TrackKey, TrackUse>) -> Self {
        let tenants = head.tenants().iter().map(|tenant| {
            let newest = (0..).take(tenant.series_numbers()).map(|number| {
                let series = tenant.series(number);
                series.and_then(|s| Some((s.max_time, s.newest()?))).map_or_else(
                    Newest::default,
                    |(t, value)| {
                        let value = match value {
                            Value::Float(x) => NewestValue::Float(x.to_bits()),
                            Value::Histogram(h) => NewestValue::Histogram(h),
                        };
                        Newest { timestamp: t, value }
                    },
                )
            });
            let newest: Vec<Newest> = newest.collect();
            TenantOrder { uses: vec![0; newest.len()], newest, max_time: tenant.max_time }
        });
        Self { tenants: tenants.collect(), tracks, ..Self::default() }
    }

    /// Makes room for the head's tenants and series.
    pub(crate) fn grow(&mut self, tenant: u32, series_numbers: usize) -> &mut TenantOrder {
        let tenant = tenant as usize;
        if self.tenants.len() <= tenant {
            self.tenants.resize_with(tenant + 1, TenantOrder::default);
        }
        let order = &mut self.tenants[tenant];
        if order.newest.len() < series_numbers {
            order.newest.resize_with(series_numbers, Newest::default);
            order.uses.resize(series_numbers, 0);
        }
        order
    }

    pub(crate) fn group(&self, group: u64) -> Result<&Group> {
        self.groups.get(&group).ok_or(Error::UnknownGroup(group))
    }

    /// Decides which samples of a request are taken and counts them as accepted.
    ///
    /// # Errors
    /// When the request does not fit its groups; nothing has changed then.
    pub(crate) fn judge(
        &mut self,
        appends: Vec<GroupAppend>,
        is_atomic: bool,
        now: Timestamp,
        window_ms: i64,
    ) -> Result<Judged> {
        for append in &appends {
            self.check_shape(append)?;
        }
        let mut judged = Judged::default();
        // As in Prometheus, the newest sample of all is that of before the request.
        let mut maxima: Vec<(u32, i64, i64)> = Vec::new();
        for (number, append) in (0..).zip(appends) {
            judged.append = number;
            let group = self.groups.get(&append.group.0).ok_or(Error::UnknownGroup(append.group.0))?;
            let known = maxima.iter().position(|m| m.0 == group.tenant);
            let at = known.unwrap_or_else(|| {
                let max = self.tenants[group.tenant as usize].max_time;
                maxima.push((group.tenant, max, max));
                maxima.len() - 1
            });
            let bounds = Bounds { head_max: maxima[at].1, window_ms };
            let newest_epoch = self.tracks.get(&group.key).map_or(0, |t| t.epoch);
            let context = Context {
                bounds,
                is_out_of_bounds: append.timestamp > now.add_ms(FUTURE_MS_MAX)
                    || append.timestamp < Timestamp(TIME_MIN),
                refuses_markers: group.epoch < newest_epoch,
                refuses_all: group.epoch < newest_epoch && group.key.key.has(RULE_GROUP),
                is_atomic,
            };
            judged.is_superseded |=
                context.refuses_all && append.values.is_empty() && append.histograms.is_empty();
            let newest = &mut self.tenants[group.tenant as usize].newest;
            let (stored_before, t) = (judged.stored, append.timestamp.millis());
            judge_group(append, group, newest, &context, &mut judged);
            if judged.stored > stored_before {
                maxima[at].2 = maxima[at].2.max(t);
            }
        }
        for (tenant, before, max) in maxima {
            judged.undo_max.push((tenant, before));
            self.tenants[tenant as usize].max_time = max;
        }
        Ok(judged)
    }

    /// Takes back what `judge` counted as accepted.
    pub(crate) fn undo(&mut self, judged: &mut Judged) {
        for (tenant, series, newest) in judged.undo.drain(..).rev() {
            self.tenants[tenant as usize].newest[series as usize] = newest;
        }
        for (tenant, max) in judged.undo_max.drain(..) {
            self.tenants[tenant as usize].max_time = max;
        }
        judged.groups.clear();
        judged.stored = 0;
    }

    /// Checks that an append has as many values as its group has members present.
    fn check_shape(&self, append: &GroupAppend) -> Result<()> {
        let group = self.group(append.group.0)?;
        let invalid = |what: String| Err(Error::Invalid(format!("group {}: {what}", append.group.0)));
        if let Presence::Present(members) = &append.absent {
            let is_member = |m: &u32| group.members.get(*m as usize).is_some_and(|s| *s != REMOVED);
            if !members.is_sorted_by(|a, b| a < b) || !members.iter().all(is_member) {
                return invalid("the members present are not ascending members".to_owned());
            }
        }
        let is_ascending = append.histograms.is_sorted_by(|a, b| a.0 < b.0)
            && append.start_timestamps.is_sorted_by(|a, b| a.0 < b.0);
        if !is_ascending {
            return invalid("histograms or start timestamps are not ascending by member".to_owned());
        }
        let (mut present, mut histograms) = (0, 0);
        let mut listed = append.histograms.iter().peekable();
        for_each_present(&group.members, &append.absent, |member, _| {
            present += 1;
            if listed.next_if(|(m, _)| *m == member).is_some() {
                histograms += 1;
            }
        });
        if histograms != append.histograms.len() {
            return invalid("a histogram is of a member that is not present".to_owned());
        }
        if present != append.values.len() + histograms {
            let given = append.values.len() + histograms;
            return invalid(format!("{given} values for {present} members"));
        }
        Ok(())
    }
}

/// What is the same for all samples of one group append.
struct Context {
    bounds: Bounds,
    is_out_of_bounds: bool,
    refuses_markers: bool,
    /// Rule groups have one evaluator: what one of before still sends is not taken.
    refuses_all: bool,
    is_atomic: bool,
}

/// A sample as it is offered.
#[derive(Clone, Copy)]
enum Offered<'a> {
    Float(f64),
    Histogram(&'a Arc<Histogram>),
}

impl Offered<'_> {
    fn is_marker(self) -> bool {
        is_stale(match self {
            Self::Float(x) => x,
            Self::Histogram(h) => h.sum(),
        })
    }

    fn is_same_as(self, newest: &NewestValue) -> bool {
        match (self, newest) {
            (Self::Float(x), NewestValue::Float(bits)) => x.to_bits() == *bits,
            (Self::Histogram(a), NewestValue::Histogram(b)) => a.bit_eq(b),
            _ => false,
        }
    }

    fn to_newest(self) -> NewestValue {
        match self {
            Self::Float(x) => NewestValue::Float(x.to_bits()),
            Self::Histogram(h) => NewestValue::Histogram(Arc::clone(h)),
        }
    }

    /// Says which rule of its format a histogram breaks.
    fn flaw(self) -> Option<String> {
        match self {
            Self::Histogram(h) if !self.is_marker() => h.validate().err().map(|e| e.to_string()),
            Self::Float(_) | Self::Histogram(_) => None,
        }
    }
}

fn judge_group(
    append: GroupAppend,
    group: &Group,
    newest: &mut [Newest],
    context: &Context,
    judged: &mut Judged,
) {
    let t = append.timestamp.millis();
    let in_order_min = context.bounds.in_order_min();
    let mut values = append.values.iter();
    let mut histograms = append.histograms.iter().peekable();
    // Members that are refused, or repeats; nearly always none.
    let mut dropped: Vec<u32> = Vec::new();
    let mut stored = 0;
    for_each_present(&group.members, &append.absent, |member, series| {
        let state = &mut newest[series as usize];
        let offered = match (histograms.next_if(|(m, _)| *m == member), values.as_slice().first()) {
            (Some((_, histogram)), _) => Offered::Histogram(histogram),
            (None, Some(value)) => {
                values.next();
                Offered::Float(*value)
            }
            (None, None) => return,
        };
        // Nearly every sample is a float newer than all before it, outside of an atomic request.
        if let Offered::Float(value) = offered {
            let is_refused = context.refuses_all || context.refuses_markers && is_stale(value);
            let is_plain = t > state.timestamp
                && t >= in_order_min
                && !context.is_out_of_bounds
                && !context.is_atomic
                && !is_refused;
            if is_plain {
                *state = Newest { timestamp: t, value: offered.to_newest() };
                stored += 1;
                return;
            }
        }
        if let Some(flaw) = offered.flaw() {
            dropped.push(member);
            judged.refuse(RefusalReason::InvalidHistogram, member, (group.tenant, series), Some(flaw));
            return;
        }
        match decide(context, state, t, offered) {
            Verdict::InOrder => {
                let before = std::mem::replace(state, Newest { timestamp: t, value: offered.to_newest() });
                if context.is_atomic {
                    judged.undo.push((group.tenant, series, before));
                }
                stored += 1;
            }
            Verdict::OutOfOrder => stored += 1,
            Verdict::Repeat => {
                dropped.push(member);
                stored += 1;
            }
            Verdict::Refused(reason) => {
                dropped.push(member);
                judged.refuse(reason, member, (group.tenant, series), None);
            }
        }
    });
    judged.stored += stored;
    let id = append.group.0;
    let samples = keep(append, group, &dropped);
    let has_samples = !samples.values.is_empty() || !samples.histograms.is_empty();
    if has_samples || (!samples.exemplars.is_empty() && !context.is_out_of_bounds) {
        judged.groups.push((id, samples));
    }
}

fn decide(context: &Context, newest: &Newest, t: i64, offered: Offered<'_>) -> Verdict {
    if context.is_out_of_bounds {
        return Verdict::Refused(RefusalReason::OutOfBounds);
    }
    if context.refuses_all || context.refuses_markers && offered.is_marker() {
        return Verdict::Refused(RefusalReason::StaleEpoch);
    }
    context.bounds.judge(newest, t, |value| offered.is_same_as(value))
}

/// Returns an append without the samples of the dropped members.
fn keep(append: GroupAppend, group: &Group, dropped: &[u32]) -> GroupSamples {
    let mut samples = GroupSamples {
        tenant: group.tenant,
        track: group.track,
        timestamp: append.timestamp.millis(),
        members: Arc::clone(&group.members),
        presence: append.absent,
        values: append.values,
        histograms: append.histograms,
        starts: append.start_timestamps,
        exemplars: append.exemplars,
    };
    keep_storable_exemplars(&mut samples.exemplars, append.timestamp);
    if !dropped.is_empty() {
        remove_members(&mut samples, dropped);
    }
    samples
}

/// Gives every exemplar a time and drops those that no file can hold.
fn keep_storable_exemplars(exemplars: &mut Vec<(u32, Exemplar)>, sample_time: Timestamp) {
    for (_, exemplar) in exemplars.iter_mut() {
        exemplar.timestamp.get_or_insert(sample_time);
    }
    let latest = sample_time.add_ms(FUTURE_MS_MAX);
    exemplars.retain(|(_, e)| e.timestamp.is_some_and(|t| (Timestamp(TIME_MIN)..=latest).contains(&t)));
}

/// Takes the samples of some members out; their exemplars stay, as in Prometheus.
fn remove_members(samples: &mut GroupSamples, dropped: &[u32]) {
    let is_dropped = |m: u32| dropped.binary_search(&m).is_ok();
    let mut present = Vec::new();
    let mut values = Vec::new();
    let mut histograms: Vec<(u32, Arc<Histogram>)> = Vec::new();
    samples.for_each(|member, _, value, _| {
        if is_dropped(member) {
            return;
        }
        present.push(member);
        match value {
            Value::Float(x) => values.push(x),
            Value::Histogram(h) => histograms.push((member, h)),
        }
    });
    samples.presence = Presence::Present(present);
    samples.values = values;
    samples.histograms = histograms;
    samples.starts.retain(|(m, _)| !is_dropped(*m));
}
