//! The samples of the scrape that is under way.

use std::sync::Arc;

use group_writer::{Append, Group, Presence};
use model::{Exemplar, Histogram, Timestamp, Value, stale_nan};

use super::bits::Bits;

/// What one scrape has gathered so far.
#[derive(Debug, Default)]
pub(super) struct Pass {
    /// Values by member; only those in `present` mean anything, and those of histograms do not.
    values: Vec<f64>,
    present: Bits,
    /// Histograms by member.
    histograms: Vec<(u32, Arc<Histogram>)>,
    /// Members that go stale when the next scrape does not have them.
    pub(super) tracked: Bits,
    /// Samples with a time of their own.
    pub(super) timestamped: Vec<(Timestamp, u32, Value)>,
    /// Exemplars, with the time of their sample where it is its own.
    pub(super) exemplars: Vec<(Option<Timestamp>, u32, Exemplar)>,
    pub(super) exemplar_hashes: Vec<(u32, u64)>,
    /// Number of distinct texts seen.
    pub(super) texts: usize,
    /// A body was read to its end.
    pub(super) is_complete: bool,
}

impl Pass {
    /// Sets a member's value; the first of several stays.
    pub(super) fn set(&mut self, member: u32, value: Value) {
        match value {
            Value::Float(value) => {
                set(&mut self.values, &mut self.present, member, value);
            }
            Value::Histogram(histogram) => {
                if set(&mut self.values, &mut self.present, member, 0.0) {
                    self.histograms.push((member, histogram));
                }
            }
        }
    }

    /// Ends the series that were there before and are not now.
    pub(super) fn end_missing(&mut self, before: &Bits) {
        for member in before.without(&self.tracked) {
            set(&mut self.values, &mut self.present, member, stale_nan());
        }
    }

    /// Forgets everything gathered.
    pub(super) fn clear(&mut self) {
        self.present.clear();
        self.histograms.clear();
        self.tracked.clear();
        self.timestamped.clear();
        self.exemplars.clear();
        self.exemplar_hashes.clear();
        self.texts = 0;
        self.is_complete = false;
    }

    /// Turns the samples into appends: one for the time of the scrape, then one for each other time.
    pub(super) fn take_appends(&mut self, group: &Group, at: Timestamp, members: u32) -> Vec<Append> {
        let append = |timestamp, presence, values, histograms| Append {
            group: group.clone(),
            members,
            timestamp,
            presence,
            values,
            histograms,
            starts: Vec::new(),
            exemplars: Vec::new(),
        };
        let mut appends = Vec::with_capacity(1);
        let count = self.present.count();
        let mut histograms = std::mem::take(&mut self.histograms);
        histograms.sort_unstable_by_key(|(member, _)| *member);
        // A group that was renewed has fewer members than the buffer was made for.
        self.values.truncate(members as usize);
        let presence = if count == members as usize {
            Presence::All
        } else {
            Presence::Absent(self.present.absent_below(members))
        };
        if presence == Presence::All && histograms.is_empty() {
            // The buffer itself goes on its way; the next scrape gets one of the same size.
            let values = std::mem::replace(&mut self.values, Vec::with_capacity(count));
            appends.push(append(at, presence, values, histograms));
        } else if count > 0 {
            let is_float = |member: &u32| histograms.binary_search_by_key(member, |(m, _)| *m).is_err();
            let floats = self.present.iter().filter(is_float);
            let values = floats.map(|member| self.values[member as usize]).collect();
            appends.push(append(at, presence, values, histograms));
        }

        // Stable, so that the first of several samples at one time stays.
        self.timestamped.sort_by_key(|(time, member, _)| (*time, *member));
        self.timestamped.dedup_by_key(|(time, member, _)| (*time, *member));
        let first_own = appends.len();
        for samples in self.timestamped.chunk_by(|a, b| a.0 == b.0) {
            let (mut values, mut histograms) = (Vec::with_capacity(samples.len()), Vec::new());
            for (_, member, value) in samples {
                match value {
                    Value::Float(value) => values.push(*value),
                    Value::Histogram(histogram) => histograms.push((*member, Arc::clone(histogram))),
                }
            }
            let members = samples.iter().map(|(_, member, _)| *member).collect();
            appends.push(append(samples[0].0, Presence::Present(members), values, histograms));
        }

        self.exemplars.sort_by_key(|(_, member, _)| *member);
        for (own_time, member, exemplar) in self.exemplars.drain(..) {
            let index = match own_time {
                None => Some(0),
                Some(time) => appends[first_own..]
                    .binary_search_by_key(&time, |append| append.timestamp)
                    .ok()
                    .map(|i| i + first_own),
            };
            if let Some(append) = index.and_then(|i| appends.get_mut(i)) {
                append.exemplars.push((member, exemplar));
            }
        }
        self.timestamped.clear();
        appends
    }
}

/// Returns whether the value was set: the first of several stays.
fn set(values: &mut Vec<f64>, present: &mut Bits, member: u32, value: f64) -> bool {
    let index = member as usize;
    if index >= values.len() {
        values.resize(index + 1, 0.0);
    }
    let is_new = present.insert(member);
    if is_new {
        values[index] = value;
    }
    is_new
}
