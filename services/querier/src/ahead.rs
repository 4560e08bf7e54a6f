//! Series that several queries will ask for, read at once before they do: a rule group looks at the heads once, not once
//! for each of its selectors.
//!
//! What several selectors ask for is read once: one whose time lies within another's of the same matchers is cut out of
//! that. How much is held is bounded; what is too large, and what nobody foresaw, a query reads when it gets there.

use std::collections::HashMap;
use std::sync::Arc;

use model::{Labels, Matcher, Timestamp};
use promql_engine::{Column, Selection, SeriesSamples, SeriesSet, SeriesSource, SourceError};
use tsdb::series::Timeline;

use crate::select::{Read, promql_order};
use crate::source::Source;

/// The most samples that are held: 16 MiB of them, for each group that is evaluated at the time.
pub(crate) const SAMPLES_MAX: u64 = 1 << 20;
/// The most selections that are asked for at once.
const SELECTIONS_MAX: usize = 1_000;

/// What is read for one or several selectors.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Look {
    pub(crate) matchers: Vec<Matcher>,
    pub(crate) min_time: Timestamp,
    pub(crate) max_time: Timestamp,
}

impl Look {
    fn covers(&self, wanted: &Selection) -> bool {
        self.min_time <= wanted.min_time
            && wanted.max_time <= self.max_time
            && self.matchers == wanted.matchers
    }
}

/// What has to be read so that all selections are there.
pub(crate) fn looks(selections: &[Selection]) -> Vec<Look> {
    let mut sorted: Vec<&Selection> = selections.iter().collect();
    // What covers others stands before them.
    sorted.sort_by_key(|s| (s.min_time, std::cmp::Reverse(s.max_time)));
    let mut looks: Vec<Look> = Vec::new();
    for selection in sorted {
        if looks.len() < SELECTIONS_MAX && !looks.iter().any(|look| look.covers(selection)) {
            let Selection { matchers, min_time, max_time, .. } = selection.clone();
            looks.push(Look { matchers, min_time, max_time });
        }
    }
    looks
}

/// What was read, over the source for all else.
pub(crate) struct Ahead<'a> {
    pub(crate) below: &'a Source,
    pub(crate) looks: Vec<(Look, Option<Arc<Series>>)>,
}

/// The series of a look, in PromQL's order.
#[derive(Debug)]
pub(crate) struct Series {
    labels: Vec<Labels>,
    samples: Vec<tsdb::series::SeriesSamples>,
}

impl From<Read> for Series {
    fn from(read: Read) -> Self {
        let Read { labels, samples } = read;
        match promql_order(&labels) {
            None => Self { labels, samples },
            Some(order) => Self {
                labels: order.iter().map(|i| labels[*i].clone()).collect(),
                samples: order.iter().map(|i| samples[*i].clone()).collect(),
            },
        }
    }
}

impl SeriesSource for Ahead<'_> {
    fn select(&self, wanted: &Selection) -> Result<Box<dyn SeriesSet>, SourceError> {
        match self.looks.iter().find(|(look, _)| look.covers(wanted)) {
            Some((_, Some(series))) => Ok(Box::new(Cut::new(series, wanted))),
            _ => self.below.select(wanted),
        }
    }
}

/// The part of a look that one selection asks for.
struct Cut {
    series: Arc<Series>,
    /// Of those that have samples in the time; the numbers of the series beside them.
    labels: Vec<Labels>,
    numbers: std::vec::IntoIter<usize>,
    times: (i64, i64),
    /// Pieces of timelines by the address of the whole, since series share them.
    pieces: HashMap<usize, Piece>,
}

/// What lies in the time of a timeline.
#[derive(Clone)]
struct Piece {
    places: std::ops::Range<usize>,
    timeline: Timeline,
}

impl Cut {
    fn new(series: &Arc<Series>, wanted: &Selection) -> Self {
        let times = (wanted.min_time.millis(), wanted.max_time.millis());
        let mut cut = Self {
            series: Arc::clone(series),
            labels: Vec::with_capacity(series.labels.len()),
            numbers: Vec::new().into_iter(),
            times,
            pieces: HashMap::new(),
        };
        let mut numbers = Vec::with_capacity(series.labels.len());
        for (number, (labels, samples)) in series.labels.iter().zip(&series.samples).enumerate() {
            let mut is_empty = |timeline| cut.piece(timeline).places.is_empty();
            if !is_empty(&samples.floats.timestamps) || !is_empty(&samples.histograms.timestamps) {
                cut.labels.push(labels.clone());
                numbers.push(number);
            }
        }
        cut.numbers = numbers.into_iter();
        cut
    }

    fn piece(&mut self, timeline: &Timeline) -> &Piece {
        let (min, max) = self.times;
        self.pieces.entry(timeline.as_ptr().addr()).or_insert_with(|| {
            let places = timeline.partition_point(|t| *t < min)..timeline.partition_point(|t| *t <= max);
            let is_whole = places.len() == timeline.len();
            let timeline = if is_whole { Arc::clone(timeline) } else { Arc::from(&timeline[places.clone()]) };
            Piece { places, timeline }
        })
    }
}

impl SeriesSet for Cut {
    fn labels(&mut self) -> Result<&[Labels], SourceError> {
        Ok(&self.labels)
    }

    fn next(&mut self) -> Result<Option<SeriesSamples>, SourceError> {
        let Some(number) = self.numbers.next() else { return Ok(None) };
        let series = Arc::clone(&self.series);
        let tsdb::series::SeriesSamples { floats, histograms, start_timestamps: starts, .. } =
            &series.samples[number];
        let Piece { places, timeline } = self.piece(&floats.timestamps).clone();
        let values = floats.values[places].to_vec();
        let floats = Column::new(timeline, values).with_starts(starts);
        let Piece { places, timeline } = self.piece(&histograms.timestamps).clone();
        let values = histograms.values[places].iter().map(|h| Arc::new(h.to_float())).collect();
        let histograms = Column::new(timeline, values).with_starts(starts);
        Ok(Some(SeriesSamples { floats, histograms }))
    }
}

#[cfg(test)]
mod tests {
    use model::{CounterResetHint, FloatHistogram, Histogram, MatchOp};
    use promql_engine::Hints;
    use tsdb::series::{FloatColumn, HistogramColumn, SeriesSamples as Stored};

    use super::*;

    fn wanted(metric: &str, min_time: i64, max_time: i64) -> Selection {
        let matcher = Matcher::new(MatchOp::Equal, "__name__", metric).expect("no pattern");
        let (min_time, max_time) = (Timestamp(min_time), Timestamp(max_time));
        Selection { matchers: vec![matcher], min_time, max_time, hints: Hints::default(), cut: None }
    }

    #[test]
    fn what_lies_within_other_looks_is_read_once() {
        let selections = [
            wanted("a", 61, 100),
            wanted("b", 61, 100),
            wanted("a", 41, 100),
            wanted("a", 61, 100),
            wanted("a", 1, 40),
            wanted("a", 41, 90),
        ];
        let looks = looks(&selections);
        let shown: Vec<_> = looks
            .iter()
            .map(|look| (look.matchers[0].value(), look.min_time.millis(), look.max_time.millis()))
            .collect();
        assert_eq!(shown, [("a", 1, 40), ("a", 41, 100), ("b", 61, 100)]);
        let many: Vec<Selection> = (0..=SELECTIONS_MAX).map(|i| wanted(&format!("m{i}"), 0, 1)).collect();
        assert_eq!(super::looks(&many).len(), SELECTIONS_MAX);
    }

    #[test]
    fn a_cut_has_the_samples_of_its_time_alone() {
        let timeline = |times: &[i64]| Timeline::from(times);
        let shared = timeline(&[10, 20, 30, 40]);
        let floats = |timestamps: &Timeline, values: &[f64]| Stored {
            floats: FloatColumn { timestamps: Arc::clone(timestamps), values: values.into() },
            ..Stored::default()
        };
        let histogram =
            FloatHistogram { counter_reset_hint: CounterResetHint::Gauge, ..FloatHistogram::default() };
        let histogram = Arc::new(Histogram::Float(histogram));
        let with_histograms = Stored {
            histograms: HistogramColumn {
                timestamps: timeline(&[15, 25]),
                values: vec![Arc::clone(&histogram), histogram].into(),
            },
            start_timestamps: [(20, 1), (25, 2)].into(),
            ..floats(&timeline(&[20]), &[9.0])
        };
        let read = Read {
            labels: ["a", "b", "c", "d"].map(|x| Labels::from_pairs([("__name__", "m"), ("x", x)])).into(),
            samples: vec![
                floats(&shared, &[1.0, 2.0, 3.0, 4.0]),
                floats(&timeline(&[10]), &[5.0]),
                floats(&shared, &[6.0, 7.0, 8.0, 9.0]),
                with_histograms,
            ],
        };
        let mut cut = Cut::new(&Arc::new(read.into()), &wanted("m", 20, 30));
        let names: Vec<String> = cut.labels.iter().map(|labels| labels.value("x").to_owned()).collect();
        assert_eq!(names, ["a", "c", "d"]);
        let mut next = || cut.next().expect("no source").expect("another series");
        let (a, c, d) = (next(), next(), next());
        assert_eq!((&*a.floats.timestamps, &*a.floats.values), (&[20, 30][..], &[2.0, 3.0][..]));
        assert_eq!(c.floats.values, [7.0, 8.0]);
        assert!(Arc::ptr_eq(&a.floats.timestamps, &c.floats.timestamps));
        assert_eq!((&*d.floats.values, &d.floats.start_timestamps), (&[9.0][..], &Some(vec![1])));
        assert_eq!(&*d.histograms.timestamps, &[25]);
        assert_eq!(d.histograms.start_timestamps, Some(vec![2]));
        assert!(cut.next().expect("no source").is_none());
    }
}
