//! What a group's rules have given so far in an evaluation, laid over the source for the rules behind them.
//!
//! All of it has one time. A sample that the source has at that time already is replaced, as the store does with a
//! later real sample at most: rules write a time once.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::query::PointValue;
use model::{FloatHistogram, Labels, Matcher, Timestamp};
use promql_engine::{Column, Selection, SeriesSamples, SeriesSet, SeriesSource, SourceError};

/// Series and their values at one time, over another source.
pub(crate) struct Overlay<'a> {
    pub(crate) below: &'a dyn SeriesSource,
    pub(crate) time: Timestamp,
    pub(crate) samples: &'a BTreeMap<Labels, PointValue>,
}

impl SeriesSource for Overlay<'_> {
    fn select(&self, selection: &Selection) -> Result<Box<dyn SeriesSet>, SourceError> {
        let below = self.below.select(selection)?;
        let is_in_time = (selection.min_time..=selection.max_time).contains(&self.time);
        if !is_in_time || self.samples.is_empty() {
            return Ok(below);
        }
        let matching =
            self.samples.iter().filter(|(labels, _)| Matcher::all_match(&selection.matchers, labels));
        let matching: BTreeMap<Labels, PointValue> = matching.map(|(l, v)| (l.clone(), v.clone())).collect();
        if matching.is_empty() {
            return Ok(below);
        }
        Ok(Box::new(Laid {
            below,
            time: self.time,
            over: matching,
            labels: None,
            next: 0,
            is_below: Vec::new(),
        }))
    }
}

struct Laid {
    below: Box<dyn SeriesSet>,
    time: Timestamp,
    over: BTreeMap<Labels, PointValue>,
    /// Those of both, once they are known.
    labels: Option<Vec<Labels>>,
    /// For each of them whether the source has it.
    is_below: Vec<bool>,
    next: usize,
}

impl SeriesSet for Laid {
    fn labels(&mut self) -> Result<&[Labels], SourceError> {
        if self.labels.is_none() {
            let mut all: BTreeMap<Labels, bool> =
                self.over.keys().map(|labels| (labels.clone(), false)).collect();
            all.extend(self.below.labels()?.iter().map(|labels| (labels.clone(), true)));
            let (labels, is_below) = all.into_iter().unzip();
            self.labels = Some(labels);
            self.is_below = is_below;
        }
        Ok(self.labels.as_deref().unwrap_or_default())
    }

    fn next(&mut self) -> Result<Option<SeriesSamples>, SourceError> {
        self.labels()?;
        let Some(labels) = self.labels.as_ref().and_then(|all| all.get(self.next)) else { return Ok(None) };
        let mut samples = if self.is_below[self.next] {
            self.below.next()?.unwrap_or_default()
        } else {
            SeriesSamples::default()
        };
        self.next += 1;
        if let Some(value) = self.over.get(labels) {
            remove(&mut samples.floats, self.time);
            remove(&mut samples.histograms, self.time);
            match value {
                PointValue::Float(x) => insert(&mut samples.floats, self.time, *x),
                PointValue::Histogram(h) => {
                    insert::<Arc<FloatHistogram>>(&mut samples.histograms, self.time, Arc::clone(h));
                }
            }
        }
        Ok(Some(samples))
    }

    fn warnings(&mut self) -> Vec<String> {
        self.below.warnings()
    }
}

fn remove<V: Clone>(column: &mut Column<V>, time: Timestamp) {
    let Ok(at) = column.timestamps.binary_search(&time.millis()) else { return };
    let mut times = column.timestamps.to_vec();
    times.remove(at);
    column.timestamps = times.into();
    column.values.remove(at);
    if let Some(starts) = &mut column.start_timestamps {
        starts.remove(at);
    }
}

fn insert<V>(column: &mut Column<V>, time: Timestamp, value: V) {
    let at = column.timestamps.partition_point(|t| *t < time.millis());
    let mut times = column.timestamps.to_vec();
    times.insert(at, time.millis());
    column.timestamps = times.into();
    column.values.insert(at, value);
    if let Some(starts) = &mut column.start_timestamps {
        starts.insert(at, 0);
    }
}
