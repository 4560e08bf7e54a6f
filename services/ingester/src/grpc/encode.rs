//! What storage answers to messages of bounded size.

use std::collections::HashMap;
use std::sync::Arc;

use futures::{Stream, StreamExt as _, stream};
use model::{Exemplar, Labels, LastSampleColumns, Metadata};
use rpc::convert::deltas;
use rpc::pb::ingester as pb;
use rpc::symbols::SymbolWriter;
use tokio::task::JoinHandle;
use tonic::Status;
use tsdb::series::{Parts, SeriesSamples, Timeline};
use tsdb::{
    Appended, HeadSelection, HeadState, HeadStatistics, LabelStatistics, LastSampleReader, RefusalReason,
};

use crate::error::Error;
use crate::select::Selected;

/// Label sets in one message.
const LABELS_PER_MESSAGE: usize = 2_000;
/// Samples after which a message is closed.
const SAMPLES_PER_MESSAGE: usize = 100_000;

pub(super) fn appended(id: u64, appended: Appended) -> pb::AppendResponse {
    let position =
        rpc::pb::model::LogPosition { log: appended.position.log.to_string(), seq: appended.position.seq };
    let refusal = |r: tsdb::Refusal| {
        let (appends, members) = r.samples.into_iter().unzip();
        pb::Refusal { reason: reason(r.reason).into(), count: r.count, example: r.example, appends, members }
    };
    pb::AppendResponse {
        id,
        position: Some(position),
        refusals: appended.refused.into_iter().map(refusal).collect(),
        stored: appended.stored,
    }
}

fn reason(reason: RefusalReason) -> pb::RefusalReason {
    match reason {
        RefusalReason::OutOfOrder => pb::RefusalReason::OutOfOrder,
        RefusalReason::Duplicate => pb::RefusalReason::Duplicate,
        RefusalReason::TooOld => pb::RefusalReason::TooOld,
        RefusalReason::OutOfBounds => pb::RefusalReason::OutOfBounds,
        RefusalReason::StaleEpoch => pb::RefusalReason::StaleEpoch,
        RefusalReason::InvalidHistogram => pb::RefusalReason::InvalidHistogram,
    }
}

pub(super) fn state(state: &HeadState) -> pb::HeadState {
    let log = |l: &tsdb::LogState| pb::LogState {
        log: l.log.to_string(),
        acknowledged: l.acked_seq,
        complete_since: l.complete_since.millis(),
    };
    pb::HeadState { logs: state.logs.iter().map(log).collect(), table_version: state.table_version() }
}

/// One of several answers, or that it is left out.
pub(super) fn selected(selected: Selected) -> impl Iterator<Item = pb::SelectResponse> + Send {
    let (answer, left_out) = match selected {
        Ok(answer) => (Some(answer), None),
        Err(head) => (None, Some(state(&head))),
    };
    let left_out = left_out.map(|state| pb::SelectResponse {
        state: Some(state),
        is_left_out: true,
        ..Default::default()
    });
    answer.into_iter().flat_map(selection).chain(left_out)
}

/// The state, then every label set, then the samples.
pub(super) fn selection(selection: HeadSelection) -> impl Iterator<Item = pb::SelectResponse> + Send {
    let HeadSelection { rows, state: head } = selection;
    let mut first = Some(state(&head));
    let (labels, samples): (Vec<Labels>, Vec<SeriesSamples>) =
        rows.into_iter().map(|row| (row.labels, row.samples)).unzip();
    let (mut labels, mut samples) = (labels.into_iter(), samples.into_iter().enumerate());
    let mut begun: Option<(usize, Parts)> = None;
    let mut is_among_labels = true;
    let mut timelines = Timelines::default();
    std::iter::from_fn(move || {
        let mut message = pb::SelectResponse { state: first.take(), ..Default::default() };
        if is_among_labels {
            let mut symbols = SymbolWriter::default();
            message.labels = labels.by_ref().take(LABELS_PER_MESSAGE).map(|l| symbols.labels(&l)).collect();
            message.symbols = symbols.take();
            is_among_labels = labels.len() > 0;
            message.is_labels_end = !is_among_labels;
            if is_among_labels {
                return Some(message);
            }
        }
        let mut weight = 0;
        while weight < SAMPLES_PER_MESSAGE {
            let next = || samples.next().map(|(index, samples)| (index, samples.parts(SAMPLES_PER_MESSAGE)));
            let Some((index, mut parts)) = begun.take().or_else(next) else { break };
            let part = parts.next().unwrap_or_default();
            weight += 1 + part.weight();
            let mut encoded = series_samples(index, &part);
            if !parts.is_one() {
                encoded.float_deltas = deltas(part.floats.timestamps.iter().copied());
            } else if !part.floats.is_empty() {
                encoded.timeline = timelines.number(&part.floats.timestamps, &mut message.timelines);
            }
            encoded.goes_on = !parts.is_over();
            begun = encoded.goes_on.then_some((index, parts));
            message.samples.push(encoded);
        }
        (message.is_labels_end || !message.samples.is_empty()).then_some(message)
    })
}

/// The timelines already on the stream, by their address.
#[derive(Default)]
struct Timelines {
    /// The timeline is kept, so that its address stays its own.
    numbers: HashMap<usize, (u32, Timeline)>,
}

impl Timelines {
    fn number(&mut self, timeline: &Timeline, new: &mut Vec<pb::Timeline>) -> u32 {
        let next = u32::try_from(self.numbers.len()).expect("less than 2^32 series");
        let (number, _) = self.numbers.entry(timeline.as_ptr().addr()).or_insert_with(|| {
            new.push(pb::Timeline { deltas: deltas(timeline.iter().copied()) });
            (next, Arc::clone(timeline))
        });
        *number + 1
    }
}

/// Everything but the times of the floats.
fn series_samples(index: usize, samples: &SeriesSamples) -> pb::SeriesSamples {
    let SeriesSamples { floats, histograms, start_timestamps, .. } = samples;
    pb::SeriesSamples {
        series: u32::try_from(index).expect("less than 2^32 series"),
        values: floats.values.to_vec(),
        histogram_deltas: deltas(histograms.timestamps.iter().copied()),
        histograms: histograms.values.iter().map(|h| (&**h).into()).collect(),
        started_deltas: deltas(start_timestamps.iter().map(|(t, _)| *t)),
        starts: start_timestamps.iter().map(|(_, start)| *start).collect(),
        ..Default::default()
    }
}

/// The state, then the samples. One piece is read ahead, so that who sends and who reads work side by side.
pub(super) fn last_samples(
    reader: LastSampleReader,
) -> impl Stream<Item = Result<pb::LastSamplesResponse, Status>> + Send {
    let first = pb::LastSamplesResponse { state: Some(state(reader.state())), samples: None };
    let pieces = stream::try_unfold(read_ahead(reader), async |reading| {
        let read = reading.await.map_err(|e| Status::internal(format!("read: {e}")))?;
        let (reader, piece) = read.map_err(Error::from)?;
        let message = |piece| pb::LastSamplesResponse {
            state: None,
            samples: Some(rpc::convert::last_samples::to_pb(piece)),
        };
        Ok(piece.map(|piece| (message(piece), read_ahead(reader))))
    });
    stream::once(std::future::ready(Ok(first))).chain(pieces)
}

type Reading = JoinHandle<tsdb::Result<(LastSampleReader, Option<LastSampleColumns>)>>;

fn read_ahead(mut reader: LastSampleReader) -> Reading {
    tokio::task::spawn_blocking(move || reader.read().map(|piece| (reader, piece)))
}

pub(super) fn names(mut values: Vec<String>, limit: u64, head: &HeadState) -> pb::LabelsResponse {
    values.truncate(rpc::convert::limit(limit));
    pb::LabelsResponse { values, state: Some(state(head)) }
}

pub(super) fn series(
    found: Vec<(Labels, Arc<Metadata>)>,
    limit: usize,
    head: &HeadState,
) -> impl Iterator<Item = pb::SeriesResponse> + Send + use<> {
    let first = pb::SeriesResponse { state: Some(state(head)), ..Default::default() };
    let mut rest = found.into_iter().map(|(labels, _)| labels).take(limit);
    let messages = std::iter::from_fn(move || {
        let mut symbols = SymbolWriter::default();
        let labels: Vec<_> = rest.by_ref().take(LABELS_PER_MESSAGE).map(|l| symbols.labels(&l)).collect();
        (!labels.is_empty()).then(|| pb::SeriesResponse { symbols: symbols.take(), labels, state: None })
    });
    std::iter::once(first).chain(messages)
}

pub(super) fn exemplars(found: Vec<(Labels, Vec<Exemplar>)>, head: &HeadState) -> pb::ExemplarsResponse {
    let of_series = |(labels, exemplars): (Labels, Vec<Exemplar>)| pb::SeriesExemplars {
        labels: Some((&labels).into()),
        exemplars: exemplars.iter().map(Into::into).collect(),
    };
    pb::ExemplarsResponse { series: found.into_iter().map(of_series).collect(), state: Some(state(head)) }
}

pub(super) fn statistics(found: HeadStatistics, head: &HeadState) -> pb::StatisticsResponse {
    let counts = |list: Vec<(String, u64)>| {
        list.into_iter().map(|(name, series)| pb::SeriesCount { name, series }).collect()
    };
    let label = |l: LabelStatistics| pb::LabelStatistics {
        name: l.name,
        values: l.values,
        bytes: l.bytes,
        hashes: l.hashes,
    };
    pb::StatisticsResponse {
        state: Some(state(head)),
        series: found.series,
        label_pairs: found.label_pairs,
        runs: found.runs,
        min_time: found.times.map(|(min, _)| min),
        max_time: found.times.map(|(_, max)| max),
        series_by_metric: counts(found.series_by_metric),
        labels: found.labels.into_iter().map(label).collect(),
        series_by_pair: counts(found.series_by_pair),
    }
}
