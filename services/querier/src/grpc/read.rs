//! Series as they are stored, message by message. One that has more samples than a message takes goes on in the next.

use std::sync::Arc;

use model::Labels;
use rpc::convert::deltas;
use rpc::pb::model::LabelRefs;
use rpc::pb::querier as pb;
use rpc::symbols::SymbolWriter;
use tsdb::series::{Parts, SeriesSamples};

use crate::error::{Error, Result};
use crate::select::{Request, Selection, promql_order};
use crate::sources::Sources;

/// Samples after which a message is closed.
const SAMPLES_PER_MESSAGE: usize = 50_000;

/// A selection that is read in the order of labels.
pub(super) struct Reading {
    labels: std::vec::IntoIter<Labels>,
    samples: Samples,
    /// The series of which a part was sent.
    begun: Option<Parts>,
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
        while weight < SAMPLES_PER_MESSAGE {
            let (labels, mut parts) = match self.begun.take() {
                Some(parts) => (None, parts),
                None => match self.next_series().await? {
                    Some((labels, samples)) => (Some(labels), samples.parts(SAMPLES_PER_MESSAGE)),
                    None => break,
                },
            };
            weight += 1;
            if let Some(part) = parts.next() {
                weight += part.weight();
                series.push(result(labels.map(|labels| symbols.labels(&labels)), &part));
            }
            self.begun = (!parts.is_over()).then_some(parts);
        }
        let message = pb::ReadResponse { symbols: symbols.take(), series };
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

fn check(count: usize, samples_max: usize) -> Result<()> {
    if count > samples_max { Err(too_many(samples_max)) } else { Ok(()) }
}

/// In Prometheus's words.
fn too_many(samples_max: usize) -> Error {
    Error::Query { kind: fault::Kind::Limit, message: format!("exceeded sample limit ({samples_max})") }
}

fn result(labels: Option<LabelRefs>, samples: &SeriesSamples) -> pb::ResultSeries {
    let SeriesSamples { floats, histograms, .. } = samples;
    pb::ResultSeries {
        labels,
        float_deltas: deltas(floats.timestamps.iter().copied()),
        floats: floats.values.to_vec(),
        histogram_deltas: deltas(histograms.timestamps.iter().copied()),
        histograms: histograms.values.iter().map(|h| (&**h).into()).collect(),
    }
}
