//! What an evaluation gave, as a batch: one scrape group for a rule group, one append for an evaluation.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use group_writer::{Append, Batch, GroupIdentity, Presence};
use model::labels::{RULE_FILE, RULE_GROUP};
use model::query::PointValue;
use model::{Histogram, Labels, Metadata, Tenant, Timestamp, stale_nan};
use rules::Group;

/// A scrape group is made anew when so many of its members are gone, and more than are left.
const DEAD_MAX: usize = 1_000;

/// The series of a group as its home ingester knows them.
#[derive(Debug)]
pub(super) struct Series {
    identity: GroupIdentity,
    group: group_writer::Group,
    members: HashMap<Labels, u32>,
    metadata: Arc<Metadata>,
}

impl Series {
    pub(super) fn new(group: &Group, epoch: u64) -> Self {
        let key = Labels::from_pairs([(RULE_FILE, group.file.as_str()), (RULE_GROUP, &group.spec.name)]);
        let identity = GroupIdentity { tenant: Tenant::default(), key, sub_group: 0, epoch };
        let group = group_writer::Group::new(identity.clone());
        Self { identity, group, members: HashMap::new(), metadata: Arc::default() }
    }

    /// All samples of an evaluation; without any the home says only whether it would have taken them.
    pub(super) fn batch<'a>(
        &mut self,
        samples: impl ExactSizeIterator<Item = (&'a Labels, &'a PointValue)>,
        time: Timestamp,
    ) -> Batch {
        if self.members.len() > 2 * samples.len() + DEAD_MAX {
            self.group = group_writer::Group::new(self.identity.clone());
            self.members.clear();
        }
        let mut present: Vec<(u32, &PointValue)> = Vec::with_capacity(samples.len());
        for (labels, value) in samples {
            let member = match self.members.get(labels) {
                Some(member) => *member,
                None => {
                    let member = self.group.add(labels.clone(), Arc::clone(&self.metadata));
                    self.members.insert(labels.clone(), member);
                    member
                }
            };
            present.push((member, value));
        }
        present.sort_unstable_by_key(|(member, _)| *member);
        let mut append = Append {
            members: self.group.len(),
            group: self.group.clone(),
            timestamp: time,
            presence: Presence::Present(present.iter().map(|(member, _)| *member).collect()),
            values: Vec::with_capacity(present.len()),
            histograms: Vec::new(),
            starts: Vec::new(),
            exemplars: Vec::new(),
        };
        for (member, value) in present {
            match value {
                PointValue::Float(x) => append.values.push(*x),
                PointValue::Histogram(h) => {
                    append.histograms.push((member, Arc::new(Histogram::Float((**h).clone()))));
                }
            }
        }
        Batch { appends: vec![append], is_atomic: false }
    }

    /// Staleness markers for series.
    pub(super) fn markers(&mut self, series: BTreeSet<Labels>, time: Timestamp) -> Batch {
        let marker = PointValue::Float(stale_nan());
        self.batch(series.iter().map(|labels| (labels, &marker)), time)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn series() -> Series {
        let spec = rules::parse("groups: [{name: g}]\n", &rules::Options::default())
            .expect("valid")
            .groups
            .remove(0);
        Series::new(&Group::new("f", spec, (Duration::from_secs(1), Duration::ZERO), true), 7)
    }

    fn named(names: &[&str]) -> BTreeSet<Labels> {
        names.iter().map(|name| Labels::from_pairs([("__name__", *name)])).collect()
    }

    #[test]
    fn series_keep_their_numbers() {
        let mut series = series();
        assert_eq!(series.identity.key.to_string(), r#"{__rule_file__="f", __rule_group__="g"}"#);
        assert_eq!(series.identity.epoch, 7);
        let present = |batch: Batch| match &batch.appends[..] {
            [Append { presence: Presence::Present(list), members, values, .. }] => {
                assert_eq!(values.len(), list.len());
                (list.clone(), *members)
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(present(series.markers(named(&["b", "c"]), Timestamp(1))), (vec![0, 1], 2));
        assert_eq!(present(series.markers(named(&["a", "b"]), Timestamp(2))), (vec![0, 2], 3));
        assert_eq!(present(series.markers(BTreeSet::new(), Timestamp(3))), (vec![], 3));
    }

    #[test]
    fn a_group_of_dead_series_is_made_anew() {
        let mut series = series();
        let many: Vec<String> = (0..=DEAD_MAX + 2).map(|i| format!("s{i}")).collect();
        let names: Vec<&str> = many.iter().map(String::as_str).collect();
        series.markers(named(&names), Timestamp(1));
        let batch = series.markers(named(&["a"]), Timestamp(2));
        assert_eq!(batch.appends[0].members, 1);
    }
}
