//! The newest samples of many series, column by column: what `/federate` is made of.
//!
//! A batch names each label pair once, however many of its series have it, and refers to it by number: who writes a
//! batch out prepares each pair once.
//!
//! Series are sorted by metric name, then by [`order`], then by labels, over all batches of one answer. Nothing needs
//! them in the order of their labels, and numbers are sorted far faster; series of one instance stand together, since
//! they differ little, so that an answer is packed into little more than half.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use crate::labels::METRIC_NAME;
use crate::{Histogram, Labels, MetricType, Value};

/// The label by which series stand together.
pub const INSTANCE: &str = "instance";

/// The number by which series of one metric are sorted: made of the value of [`INSTANCE`], or the empty string, and of
/// the id of the series ([`Labels::series_id`]). Several series may have one.
#[must_use]
pub fn order(instance: &str, series_id: u64) -> u64 {
    let together = xxhash_rust::xxh64::xxh64(instance.as_bytes(), 0) >> 32 << 32;
    together | series_id >> 32
}

/// The columns of a batch, as they are put together and sent.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LastSampleColumns {
    /// Names and values of the label pairs, one behind the other.
    pub text: String,
    /// Bytes of each pair's name, then of its value.
    pub lengths: Vec<u32>,
    /// How many labels each series has.
    pub label_counts: Vec<u32>,
    /// The numbers of their pairs, series by series, in the order of label names.
    pub pairs: Vec<u32>,
    /// The [`order`] of each.
    pub orders: Vec<u64>,
    /// The type of each.
    pub types: Vec<MetricType>,
    /// When the newest sample of each was taken, in milliseconds.
    pub timestamps: Vec<i64>,
    /// The newest sample of each; 0 where it is a histogram.
    pub values: Vec<f64>,
    /// Histograms, by the number of their series, ascending.
    pub histograms: Vec<(u32, Arc<Histogram>)>,
}

impl LastSampleColumns {
    /// Counts the series.
    #[must_use]
    pub fn len(&self) -> usize {
        self.orders.len()
    }

    /// Says whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.orders.is_empty()
    }

    /// Adds a label pair and returns its number.
    ///
    /// # Panics
    /// Beyond 4 GiB of labels.
    pub fn add_pair(&mut self, name: &str, value: &str) -> u32 {
        for part in [name, value] {
            self.text.push_str(part);
            self.lengths.push(u32::try_from(part.len()).expect("a label is shorter than 4 GiB"));
        }
        u32::try_from(self.lengths.len() / 2 - 1).expect("a batch has few label pairs")
    }

    /// Adds a series by the numbers of its pairs, in the order of their names.
    ///
    /// # Panics
    /// Beyond 2^32 series.
    pub fn add_series(
        &mut self,
        pairs: impl IntoIterator<Item = u32>,
        order: u64,
        kind: MetricType,
        timestamp: i64,
        value: Value,
    ) {
        let before = self.pairs.len();
        self.pairs.extend(pairs);
        self.end_series(before, order, kind, timestamp, value);
    }

    /// Adds a series whose pairs have been added to `pairs`, behind the first `before` ones there.
    ///
    /// # Panics
    /// Beyond 2^32 series.
    pub fn end_series(&mut self, before: usize, order: u64, kind: MetricType, timestamp: i64, value: Value) {
        let count = self.pairs.len() - before;
        self.label_counts.push(u32::try_from(count).expect("a series has few labels"));
        let value = match value {
            Value::Float(value) => value,
            Value::Histogram(histogram) => {
                let number = u32::try_from(self.orders.len()).expect("a batch has few series");
                self.histograms.push((number, histogram));
                0.0
            }
        };
        self.orders.push(order);
        self.types.push(kind);
        self.timestamps.push(timestamp);
        self.values.push(value);
    }
}

/// Puts a batch together from label sets.
#[derive(Debug, Default)]
pub struct LastSampleBuilder {
    columns: LastSampleColumns,
    /// The numbers of the pairs that are there, by name and value.
    numbers: HashMap<String, HashMap<String, u32>>,
}

impl LastSampleBuilder {
    /// Adds a series. Series are expected in the order of this module.
    pub fn push(&mut self, labels: &Labels, kind: MetricType, timestamp: i64, value: Value) {
        let before = self.columns.pairs.len();
        for (name, value) in labels {
            let known = self.numbers.get(name).and_then(|values| values.get(value)).copied();
            let number = known.unwrap_or_else(|| {
                let number = self.columns.add_pair(name, value);
                self.numbers.entry(name.to_owned()).or_default().insert(value.to_owned(), number);
                number
            });
            self.columns.pairs.push(number);
        }
        let order = order(labels.get(INSTANCE).unwrap_or_default(), labels.series_id());
        self.columns.end_series(before, order, kind, timestamp, value);
    }

    /// Returns the batch.
    #[must_use]
    pub fn finish(self) -> LastSampleColumns {
        self.columns
    }
}

/// A batch that is whole: every number in it refers to something.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LastSamples {
    columns: LastSampleColumns,
    /// Where name and value of each pair end in the text.
    ends: Vec<(u32, u32)>,
    /// Where the pair numbers of each series end.
    series_ends: Vec<u32>,
}

impl LastSamples {
    /// Checks a batch.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(columns: LastSampleColumns) -> Result<Self, &'static str> {
        let count = columns.len();
        let lengths =
            [columns.label_counts.len(), columns.types.len(), columns.timestamps.len(), columns.values.len()];
        if lengths != [count; 4] {
            return Err("columns differ in length");
        }
        let (lengths, []) = columns.lengths.as_chunks::<2>() else { return Err("a name without a value") };
        let mut end = 0_u32;
        let mut take = |length: u32| {
            end = end.checked_add(length).filter(|end| columns.text.is_char_boundary(*end as usize))?;
            Some(end)
        };
        let ends = lengths.iter().map(|[name, value]| Some((take(*name)?, take(*value)?)));
        let ends: Vec<(u32, u32)> = ends.collect::<Option<_>>().ok_or("a label ends outside of the text")?;
        if ends.last().map_or(0, |(_, end)| *end as usize) != columns.text.len() {
            return Err("text that belongs to no label");
        }
        if columns.pairs.iter().any(|pair| *pair as usize >= ends.len()) {
            return Err("a label pair that is not there");
        }
        let mut end = 0_u32;
        let series_ends = columns.label_counts.iter().map(|labels| {
            end = end.checked_add(*labels)?;
            Some(end)
        });
        let series_ends: Vec<u32> = series_ends.collect::<Option<_>>().ok_or("too many labels")?;
        if series_ends.last().map_or(0, |end| *end as usize) != columns.pairs.len() {
            return Err("label counts do not add up");
        }
        let is_in_order = columns.histograms.is_sorted_by(|a, b| a.0 < b.0);
        if !is_in_order || columns.histograms.last().is_some_and(|(number, _)| *number as usize >= count) {
            return Err("a histogram without a series");
        }
        Ok(Self { columns, ends, series_ends })
    }

    /// Counts the series.
    #[must_use]
    pub fn len(&self) -> usize {
        self.columns.len()
    }

    /// Says whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.columns.is_empty()
    }

    /// Iterates over name and value of each label pair, by number.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        (0..self.ends.len()).map(|pair| self.pair(pair))
    }

    fn pair(&self, pair: usize) -> (&str, &str) {
        let start = pair.checked_sub(1).map_or(0, |before| self.ends[before].1);
        let (name_end, end) = self.ends[pair];
        let text = |range: Range<u32>| &self.columns.text[range.start as usize..range.end as usize];
        (text(start..name_end), text(name_end..end))
    }

    /// The numbers of a series' label pairs, in the order of their names.
    #[must_use]
    pub fn labels_of(&self, series: usize) -> &[u32] {
        let start = series.checked_sub(1).map_or(0, |before| self.series_ends[before]);
        &self.columns.pairs[start as usize..self.series_ends[series] as usize]
    }

    fn pairs_of(&self, series: usize) -> impl Iterator<Item = (&str, &str)> {
        self.labels_of(series).iter().map(|pair| self.pair(*pair as usize))
    }

    /// Puts the label set of a series together; names that are not sorted come to nothing.
    #[must_use]
    pub fn labels(&self, series: usize) -> Labels {
        Labels::from_sorted(self.pairs_of(series)).unwrap_or_else(Labels::empty)
    }

    /// When a series' newest sample was taken, in milliseconds.
    #[must_use]
    pub fn timestamp(&self, series: usize) -> i64 {
        self.columns.timestamps[series]
    }

    /// The newest sample of a series; may be a staleness marker.
    #[must_use]
    pub fn value(&self, series: usize) -> Value {
        if !self.columns.histograms.is_empty() {
            let found = self.columns.histograms.binary_search_by_key(&series, |(n, _)| *n as usize);
            if let Ok(at) = found {
                return Value::Histogram(Arc::clone(&self.columns.histograms[at].1));
            }
        }
        Value::Float(self.columns.values[series])
    }

    /// The type of a series' metric, as far as known.
    #[must_use]
    pub fn metric_type(&self, series: usize) -> MetricType {
        self.columns.types[series]
    }

    /// The name of a series' metric, or the empty string.
    #[must_use]
    pub fn metric_name(&self, series: usize) -> &str {
        self.pairs_of(series).find(|(name, _)| *name == METRIC_NAME).map_or("", |(_, value)| value)
    }

    /// Compares a series with one of another batch: equal are accounts of the same series.
    #[must_use]
    pub fn compare(&self, series: usize, other: &Self, other_series: usize) -> Ordering {
        self.metric_name(series)
            .cmp(other.metric_name(other_series))
            .then_with(|| self.columns.orders[series].cmp(&other.columns.orders[other_series]))
            .then_with(|| self.pairs_of(series).cmp(other.pairs_of(other_series)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FloatHistogram;

    fn batch(series: &[&[(&str, &str)]]) -> LastSampleColumns {
        let mut builder = LastSampleBuilder::default();
        for (labels, t) in series.iter().zip(0..) {
            let labels = Labels::from_pairs(labels.iter().copied());
            builder.push(&labels, MetricType::Gauge, t, Value::Float(1.5));
        }
        builder.finish()
    }

    fn check(columns: LastSampleColumns) -> LastSamples {
        LastSamples::new(columns).expect("whole")
    }

    #[test]
    fn a_batch_gives_back_what_was_put_in() {
        let mut columns = batch(&[&[("__name__", "é"), ("a", "b")], &[]]);
        let histogram = Arc::new(Histogram::Float(FloatHistogram::default()));
        columns.add_series([0], 7, MetricType::Histogram, 9, Value::Histogram(Arc::clone(&histogram)));
        let samples = check(columns);
        assert_eq!((samples.len(), samples.is_empty()), (3, false));
        assert_eq!(samples.pairs().collect::<Vec<_>>(), [("__name__", "é"), ("a", "b")]);
        assert_eq!((0..3).map(|i| samples.labels_of(i)).collect::<Vec<_>>(), [&[0, 1][..], &[], &[0]]);
        assert_eq!(samples.labels(0), Labels::from_pairs([("a", "b"), ("__name__", "é")]));
        assert_eq!((0..3).map(|i| samples.metric_name(i)).collect::<Vec<_>>(), ["é", "", "é"]);
        assert_eq!((samples.value(1), samples.timestamp(1)), (Value::Float(1.5), 1));
        assert_eq!(
            (samples.value(2), samples.metric_type(2)),
            (Value::Histogram(histogram), MetricType::Histogram)
        );
    }

    #[test]
    fn series_are_compared_by_name_then_order_then_labels() {
        let names = check(batch(&[&[("__name__", "a"), ("x", "1")], &[("A", "1"), ("__name__", "b")]]));
        assert_eq!(names.compare(0, &names, 1), Ordering::Less);
        assert_eq!(names.compare(1, &names.clone(), 1), Ordering::Equal);
        let mut first = batch(&[&[("__name__", "a"), ("x", "1")]]);
        let mut second = batch(&[&[("__name__", "a"), ("x", "2")]]);
        (first.orders[0], second.orders[0]) = (2, 1);
        assert_eq!(check(first.clone()).compare(0, &check(second.clone()), 0), Ordering::Greater);
        // Two label sets with one order are two series.
        second.orders[0] = 2;
        assert_eq!(check(first).compare(0, &check(second), 0), Ordering::Less);
    }

    #[test]
    fn a_broken_batch_is_refused() {
        let refused = |change: fn(&mut LastSampleColumns)| {
            let mut columns = batch(&[&[("é", "1")]]);
            change(&mut columns);
            LastSamples::new(columns).expect_err("broken")
        };
        assert_eq!(refused(|c| c.values.clear()), "columns differ in length");
        assert_eq!(refused(|c| c.lengths.truncate(1)), "a name without a value");
        assert_eq!(refused(|c| c.lengths[0] = 1), "a label ends outside of the text");
        assert_eq!(refused(|c| c.lengths[1] = u32::MAX), "a label ends outside of the text");
        assert_eq!(refused(|c| c.text.push('x')), "text that belongs to no label");
        assert_eq!(refused(|c| c.pairs[0] = 1), "a label pair that is not there");
        assert_eq!(refused(|c| c.label_counts[0] = 2), "label counts do not add up");
        let histogram = || Arc::new(Histogram::Float(FloatHistogram::default()));
        let mut columns = batch(&[&[]]);
        columns.histograms.push((1, histogram()));
        assert_eq!(LastSamples::new(columns), Err("a histogram without a series"));
    }
}
