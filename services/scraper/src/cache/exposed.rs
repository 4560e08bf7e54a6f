//! A sample as a body exposes it, whatever the format.

use std::hash::Hasher;

use exposition::{ExemplarRef, OwnedSample, Sample, Series};
use model::{Exemplar, Timestamp, Value};

/// Characters that the labels of an exemplar may have in all: OpenMetrics 1.0, "Exemplars".
const EXEMPLAR_CHARS_MAX: usize = 128;

/// One sample.
#[derive(Debug)]
pub(super) struct Exposed<'a> {
    pub(super) series: Series<'a>,
    pub(super) value: Value,
    /// The exposed time.
    pub(super) timestamp: Option<Timestamp>,
    pub(super) exemplars: Exemplars<'a>,
}

/// Its exemplars.
#[derive(Debug)]
pub(super) enum Exemplars<'a> {
    /// In a text: one at most.
    Text(Option<ExemplarRef<'a>>),
    Owned(&'a [Exemplar]),
}

impl<'a> From<Sample<'a>> for Exposed<'a> {
    fn from(sample: Sample<'a>) -> Self {
        let Sample { series, value, timestamp, exemplar } = sample;
        Self { series, value: Value::Float(value), timestamp, exemplars: Exemplars::Text(exemplar) }
    }
}

impl<'a> From<&'a OwnedSample> for Exposed<'a> {
    fn from(sample: &'a OwnedSample) -> Self {
        Self {
            series: sample.series(),
            value: sample.value.clone(),
            timestamp: sample.timestamp,
            exemplars: Exemplars::Owned(&sample.exemplars),
        }
    }
}

impl Exemplars<'_> {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Text(exemplar) => usize::from(exemplar.is_some()),
            Self::Owned(exemplars) => exemplars.len(),
        }
    }

    /// Hashes all of them without a copy.
    pub(super) fn hash(&self, hasher: &mut impl Hasher) {
        match self {
            Self::Text(None) => {}
            Self::Text(Some(e)) => hash(hasher, e.labels(), e.value, e.timestamp),
            Self::Owned(exemplars) => {
                exemplars.iter().for_each(|e| hash(hasher, e.labels.iter(), e.value, e.timestamp));
            }
        }
    }

    /// Copies those that keep the rules.
    pub(super) fn to_exemplars(&self) -> Vec<Exemplar> {
        let mut copies = match self {
            Self::Text(exemplar) => exemplar.iter().filter_map(|e| e.to_exemplar().ok()).collect(),
            Self::Owned(exemplars) => exemplars.to_vec(),
        };
        copies.retain(|exemplar| {
            let chars = exemplar.labels.iter().map(|(n, v)| n.chars().count() + v.chars().count());
            chars.sum::<usize>() <= EXEMPLAR_CHARS_MAX
        });
        copies
    }
}

fn hash<T: AsRef<str>>(
    hasher: &mut impl Hasher,
    labels: impl Iterator<Item = (T, T)>,
    value: f64,
    timestamp: Option<Timestamp>,
) {
    for part in labels.flat_map(|(name, value)| [name, value]) {
        hasher.write_usize(part.as_ref().len());
        hasher.write(part.as_ref().as_bytes());
    }
    hasher.write_u64(value.to_bits());
    hasher.write_i64(timestamp.map_or(i64::MIN, Timestamp::millis));
}
