//! Series as they are stored, message by message. One that has more samples than a message holds goes on in the next.

use std::sync::Arc;

use model::Labels;
use rpc::convert::deltas;
use rpc::pb::querier as pb;
use rpc::symbols::SymbolWriter;
use tsdb::series::SeriesSamples;

use crate::error::{Error, Result};
use crate::select::{Request, Selection, promql_order};
use crate::sources::Sources;

/// Samples after which a message is closed.
const SAMPLES_PER_MESSAGE: usize = 50_000;
/// What a histogram counts for, since it is as large as that many samples.
const HISTOGRAM_WEIGHT: usize = 30;

/// A selection that is read in the order of labels.
pub(super) struct Reading {
    labels: std::vec::IntoIter<Labels>,
    samples: Samples,
    /// The series of which a part was sent.
    begun: Option<Begun>,
    /// Most samples that may still be sent.
    left: usize,
    samples_max: usize,
}

/// Where the samples come from.
enum Samples {
    /// As they are read: nothing of a large answer is held.
    AsRead(Box<Selection>),
    /// All of them, since the labels stand in another order than in heads and files.
    Sorted(std::vec::IntoIter<SeriesSamples>),
}

/// A series, and how many of its samples were sent.
struct Begun {
    labels: Labels,
    samples: SeriesSamples,
    floats: usize,
    histograms: usize,
}

impl Reading {
    pub(super) async fn open(sources: &Arc<Sources>, request: &Request) -> Result<Self> {
        let mut selection = Selection::open(sources, request).await?;
        let labels = std::mem::take(&mut selection.labels);
        let samples_max = usize::try_from(request.samples_max).unwrap_or(usize::MAX);
        let (labels, samples) = match promql_order(&labels) {
            None => (labels, Samples::AsRead(Box::new(selection))),
            Some(order) => {
                let (mut all, mut count) = (Vec::with_capacity(labels.len()), 0);
                while let Some(samples) = selection.next().await? {
                    count += samples.sample_count();
                    check(count, samples_max)?;
                    all.push(samples);
                }
                let sorted = order.iter().map(|i| labels[*i].clone()).collect();
                let samples: Vec<_> = order.iter().filter_map(|i| all.get(*i).cloned()).collect();
                (sorted, Samples::Sorted(samples.into_iter()))
            }
        };
        Ok(Self { labels: labels.into_iter(), samples, begun: None, left: samples_max, samples_max })
    }

    /// Returns the next message; `None` behind the last series.
    pub(super) async fn message(&mut self) -> Result<Option<pb::ReadResponse>> {
        let (mut symbols, mut series, mut weight) = (SymbolWriter::default(), Vec::new(), 0);
        let continues = self.begun.is_some();
        while weight < SAMPLES_PER_MESSAGE {
            let mut begun = match self.begun.take() {
                Some(begun) => begun,
                None => match self.next_series().await? {
                    Some((labels, samples)) => Begun { labels, samples, floats: 0, histograms: 0 },
                    None => break,
                },
            };
            let (part, part_weight) = begun.part(SAMPLES_PER_MESSAGE - weight, &mut symbols);
            weight += 1 + part_weight;
            series.extend(part);
            self.begun = (!begun.is_over()).then_some(begun);
        }
        let message = pb::ReadResponse { symbols: symbols.take(), series, continues };
        Ok((weight > 0).then_some(message))
    }

    async fn next_series(&mut self) -> Result<Option<(Labels, SeriesSamples)>> {
        let Some(labels) = self.labels.next() else { return Ok(None) };
        let samples = match &mut self.samples {
            Samples::AsRead(selection) => selection.next().await?,
            Samples::Sorted(all) => all.next(),
        };
        let Some(samples) = samples else { return Ok(None) };
        let left = self.left.checked_sub(samples.sample_count());
        self.left = left.ok_or_else(|| too_many(self.samples_max))?;
        Ok(Some((labels, samples)))
    }
}

impl Begun {
    /// Takes the next samples, floats and histograms up to one time, for which there is room; returns them with their
    /// weight. Some are taken whatever the room.
    fn part(&mut self, room: usize, symbols: &mut SymbolWriter) -> (Option<pb::ResultSeries>, usize) {
        let SeriesSamples { floats, histograms, .. } = &self.samples;
        let (times, histogram_times) = (&floats.timestamps, &histograms.timestamps);
        let next = |times: &[i64], at: usize, count: usize| times.get(at + count.max(1)).copied();
        let first_left = next(times, self.floats, room)
            .into_iter()
            .chain(next(histogram_times, self.histograms, room / HISTOGRAM_WEIGHT))
            .min();
        let end =
            |times: &[i64]| first_left.map_or(times.len(), |first| times.partition_point(|t| *t < first));
        let (of_floats, of_histograms) = (self.floats..end(times), self.histograms..end(histogram_times));
        (self.floats, self.histograms) = (of_floats.end, of_histograms.end);
        let weight = of_floats.len() + HISTOGRAM_WEIGHT * of_histograms.len();
        let part = (weight > 0).then(|| pb::ResultSeries {
            labels: Some(symbols.labels(&self.labels)),
            float_deltas: deltas(times[of_floats.clone()].iter().copied()),
            floats: floats.values[of_floats].to_vec(),
            histogram_deltas: deltas(histogram_times[of_histograms.clone()].iter().copied()),
            histograms: histograms.values[of_histograms].iter().map(|h| (&**h).into()).collect(),
        });
        (part, weight)
    }

    fn is_over(&self) -> bool {
        let SeriesSamples { floats, histograms, .. } = &self.samples;
        self.floats == floats.timestamps.len() && self.histograms == histograms.timestamps.len()
    }
}

fn check(count: usize, samples_max: usize) -> Result<()> {
    if count > samples_max { Err(too_many(samples_max)) } else { Ok(()) }
}

/// In Prometheus's words.
fn too_many(samples_max: usize) -> Error {
    Error::Query { kind: fault::Kind::Limit, message: format!("exceeded sample limit ({samples_max})") }
}

#[cfg(test)]
mod tests {
    use model::Histogram;
    use tsdb::series::{FloatColumn, HistogramColumn};

    use super::*;

    fn begun(floats: &[i64], histograms: &[i64]) -> Begun {
        let histogram = Arc::new(Histogram::Float(model::FloatHistogram::default()));
        let samples = SeriesSamples {
            floats: FloatColumn {
                timestamps: floats.into(),
                values: floats.iter().map(|t| *t as f64).collect(),
            },
            histograms: HistogramColumn {
                timestamps: histograms.into(),
                values: histograms.iter().map(|_| Arc::clone(&histogram)).collect(),
            },
            start_timestamps: Arc::from([]),
            exemplars: Arc::from([]),
        };
        Begun { labels: Labels::from_pairs([("a", "b")]), samples, floats: 0, histograms: 0 }
    }

    /// The floats of each part, and the number of its histograms.
    fn parts(mut begun: Begun, room: usize) -> Vec<(Vec<f64>, usize)> {
        let mut found = Vec::new();
        while !begun.is_over() {
            let (part, weight) = begun.part(room, &mut SymbolWriter::default());
            let part = part.expect("some are taken");
            assert_eq!(weight, part.floats.len() + HISTOGRAM_WEIGHT * part.histograms.len());
            found.push((part.floats, part.histograms.len()));
        }
        found
    }

    #[test]
    fn a_large_series_goes_in_parts() {
        assert_eq!(parts(begun(&[1, 2, 3, 4, 5], &[]), 5), [(vec![1.0, 2.0, 3.0, 4.0, 5.0], 0)]);
        assert_eq!(
            parts(begun(&[1, 2, 3, 4, 5], &[]), 2),
            [(vec![1.0, 2.0], 0), (vec![3.0, 4.0], 0), (vec![5.0], 0)]
        );
        assert_eq!(parts(begun(&[1, 2], &[]), 0), [(vec![1.0], 0), (vec![2.0], 0)]);
    }

    #[test]
    fn floats_and_histograms_go_up_to_one_time() {
        // One histogram has room, and the second stands in front of floats.
        assert_eq!(parts(begun(&[1, 3, 5], &[2, 4]), 31), [(vec![1.0, 3.0], 1), (vec![5.0], 1)]);
        assert_eq!(parts(begun(&[7], &[1, 2]), 1), [(vec![], 1), (vec![7.0], 1)]);
    }
}
