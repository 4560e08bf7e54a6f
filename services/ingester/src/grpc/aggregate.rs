//! Aggregations in part, from messages and to messages of bounded size.

use std::time::Duration;

use model::{Labels, Timestamp};
use promql_engine::EngineOptions;
use promql_engine::partial::{
    Counted, Cut, CutAround, CutGrid, HistogramSums, Partial, PartialGroup, PartialHistogram, PartialNote,
};
use promql_syntax::Span;
use rpc::convert::{self, hint_to_pb, place_deltas};
use rpc::pb::ingester as pb;
use rpc::pb::ingester::aggregate_request::Step;
use rpc::pb::ingester::aggregate_response::Piece;
use rpc::symbols::SymbolWriter;
use tonic::{Status, Streaming};
use tsdb::HeadState;

use crate::aggregate::Request;

/// What parts of aggregations mean: see `Aggregation.version` in the contract.
const VERSION: u32 = 1;
/// Identities in one message.
const IDENTITIES_PER_MESSAGE: usize = 250_000;
/// Numbers after which a message is closed.
const NUMBERS_PER_MESSAGE: usize = 250_000;
/// What a label set weighs in numbers, and what a histogram does besides its buckets.
const LABELS_WEIGHT: usize = 20;

/// Reads the first step of an aggregation.
pub(super) async fn first(requests: &mut Streaming<pb::AggregateRequest>) -> Result<Request, Status> {
    match requests.message().await?.and_then(|request| request.step) {
        Some(Step::Aggregation(message)) => decode(message),
        _ => Err(Status::invalid_argument("the first request names no aggregation")),
    }
}

/// Reads the second step: the places of the series that are needed whole.
pub(super) async fn second(requests: &mut Streaming<pb::AggregateRequest>) -> Result<Vec<u32>, Status> {
    match requests.message().await?.and_then(|request| request.step) {
        Some(Step::Whole(message)) => Ok(convert::ascending_places(&message.place_deltas)?),
        _ => Err(Status::invalid_argument("the second request does not say which series are needed whole")),
    }
}

fn decode(message: pb::Aggregation) -> Result<Request, Status> {
    if message.version != VERSION {
        let text = format!("aggregations in parts of version {}, not {VERSION}", message.version);
        return Err(Status::unimplemented(text));
    }
    let counted = match message.counting() {
        pb::Counting::Unspecified => return Err(rpc::Error::Missing("counting").into()),
        pb::Counting::AtStep => Counted::AtStep,
        pb::Counting::AtEveryStep => Counted::AtEvery,
        pb::Counting::Inside => Counted::Inside,
    };
    let span = message.span.ok_or(rpc::Error::Missing("span"))?;
    let milliseconds = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
    let options = EngineOptions {
        max_samples: convert::limit(message.samples_held_max),
        max_memory_bytes: convert::limit(message.memory_bytes_max),
        timeout: Duration::from_millis(message.timeout_ms),
        subquery_step: Duration::from_millis(message.subquery_step_ms.max(1)),
        ..EngineOptions::default()
    };
    Ok(Request {
        tenant: convert::tenant(&message.tenant)?,
        matchers: convert::matchers(&message.matchers)?,
        min_time: message.min_time,
        max_time: message.max_time,
        samples_max: convert::limit(message.samples_read_max),
        cut: Cut {
            query: message.query,
            start: Timestamp(message.start),
            end: Timestamp(message.end),
            step_ms: milliseconds(message.step_ms),
            span: Span::new(span.start as usize, span.end as usize),
            grid: CutGrid {
                start: Timestamp(message.grid_start),
                step_ms: milliseconds(message.grid_step_ms),
                count: message.grid_count,
            },
            lookback: Duration::from_millis(message.lookback_ms),
            keeps_names: message.keeps_names,
            around: CutAround {
                detects_hints: message.detects_hints,
                needs_buckets: message.needs_buckets,
                counted,
            },
        },
        options: options.with_features(&message.features),
    })
}

fn response(piece: Piece) -> pb::AggregateResponse {
    pb::AggregateResponse { piece: Some(piece) }
}

/// The head's state and the identities.
pub(super) fn identities(
    state: &HeadState,
    identities: Vec<u64>,
) -> impl Iterator<Item = pb::AggregateResponse> + Send + use<> {
    let mut state = Some(super::encode::state(state));
    let count = identities.len();
    (0..count.max(1)).step_by(IDENTITIES_PER_MESSAGE).map(move |start| {
        let end = count.min(start + IDENTITIES_PER_MESSAGE);
        let identities = identities[start..end].to_vec();
        response(Piece::Identities(pb::SeriesIdentities {
            state: state.take(),
            identities,
            is_end: end == count,
        }))
    })
}

/// The groups and what there is to say about them.
pub(super) fn partial(partial: Partial) -> impl Iterator<Item = pb::AggregateResponse> + Send {
    let Partial { groups, notes, stats, is_order_free } = partial;
    let end = pb::PartialEnd {
        samples_total: stats.samples_total,
        samples_read: stats.samples_read,
        samples_peak: stats.samples_peak,
        is_order_free,
        notes: notes.into_iter().map(note).collect(),
    };
    let mut fragments = groups.into_iter().flat_map(fragments);
    let messages = std::iter::from_fn(move || {
        let (mut symbols, mut groups, mut total) = (SymbolWriter::default(), Vec::new(), 0);
        while total < NUMBERS_PER_MESSAGE {
            let Some(fragment) = fragments.next() else { break };
            total += weight(&fragment.group)
                + fragment.group.histograms.iter().map(histogram_weight).sum::<usize>();
            groups.push(fragment_to_pb(fragment, &mut symbols));
        }
        let groups = pb::PartialGroups { symbols: symbols.take(), groups };
        (!groups.groups.is_empty()).then(|| response(Piece::Groups(groups)))
    });
    messages.chain(std::iter::once(response(Piece::End(end))))
}

/// The series that are needed whole, as the answer of a select.
pub(super) fn whole(selection: tsdb::HeadSelection) -> impl Iterator<Item = pb::AggregateResponse> + Send {
    super::encode::selection(selection).map(|message| response(Piece::Whole(message)))
}

/// As much of a group as one message takes.
struct Fragment {
    group: PartialGroup,
    is_continued: bool,
}

fn fragments(mut group: PartialGroup) -> impl Iterator<Item = Fragment> + Send {
    let mut histograms = std::mem::take(&mut group.histograms).into_iter().peekable();
    let mut first = Some(group);
    std::iter::from_fn(move || {
        let is_continued = first.is_none();
        let mut group = match first.take() {
            Some(group) => group,
            None => histograms.peek().map(|_| PartialGroup::default())?,
        };
        let mut total = weight(&group);
        while total < NUMBERS_PER_MESSAGE {
            let Some(histogram) = histograms.next() else { break };
            total += histogram_weight(&histogram);
            group.histograms.push(histogram);
        }
        Some(Fragment { group, is_continued })
    })
}

/// What a group without its histograms weighs, in numbers.
fn weight(group: &PartialGroup) -> usize {
    2 * LABELS_WEIGHT + group.steps.len() + group.numbers.len()
}

fn histogram_weight(histogram: &PartialHistogram) -> usize {
    let HistogramSums { custom_values, positive, negative, .. } = &histogram.sums;
    LABELS_WEIGHT + custom_values.len() + 3 * (positive.len() + negative.len())
}

fn fragment_to_pb(fragment: Fragment, symbols: &mut SymbolWriter) -> pb::PartialGroup {
    let Fragment { group, is_continued } = fragment;
    let mut labels = |labels: &Labels| (!is_continued).then(|| symbols.labels(labels));
    pb::PartialGroup {
        labels: labels(&group.labels),
        drops_name: group.drop_name,
        first: labels(&group.first),
        step_deltas: place_deltas(&group.steps),
        numbers: group.numbers,
        histograms: group.histograms.iter().map(histogram).collect(),
        is_continued,
    }
}

fn histogram(histogram: &PartialHistogram) -> pb::PartialHistogram {
    let sums = &histogram.sums;
    let deltas = |buckets: &[(i32, [f64; 2])]| {
        let before = std::iter::once(0).chain(buckets.iter().map(|(index, _)| *index));
        buckets.iter().zip(before).map(|((index, _), before)| index.wrapping_sub(before)).collect()
    };
    let pairs = |buckets: &[(i32, [f64; 2])]| buckets.iter().flat_map(|(_, pair)| *pair).collect();
    pb::PartialHistogram {
        step: histogram.step,
        count: histogram.count,
        has_reset: histogram.has_reset,
        has_not_reset: histogram.has_not_reset,
        schema: sums.schema,
        zero_threshold: sums.zero_threshold,
        custom_values: sums.custom_values.to_vec(),
        reset_hint: hint_to_pb(sums.hint),
        totals: [sums.zero_count, sums.count, sums.sum].concat(),
        positive_deltas: deltas(&sums.positive),
        positive: pairs(&sums.positive),
        negative_deltas: deltas(&sums.negative),
        negative: pairs(&sums.negative),
    }
}

fn note(note: PartialNote) -> pb::PartialNote {
    use pb::partial_note::Kind;
    let (kind, text, span, count) = match note {
        PartialNote::Warning(text, span) => (Kind::Warning, text, span, 0),
        PartialNote::Info(text, span) => (Kind::Info, text, span, 0),
        PartialNote::StartTimeOverlap(metric, span, count) => (Kind::StartTimeOverlap, metric, span, count),
    };
    let place = |byte: usize| u32::try_from(byte).unwrap_or(u32::MAX);
    let span = Some(pb::QuerySpan { start: place(span.start), end: place(span.end) });
    pb::PartialNote { kind: kind.into(), text, span, count }
}
