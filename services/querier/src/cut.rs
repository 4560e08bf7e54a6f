//! Aggregations that ingesters compute in part: asking them, and knowing when the parts are exact.
//!
//! Each head first tells the identities of its series. Those that are in more than one place are then asked for whole,
//! and merged as always; of the others each head gives the aggregate. So a group that moved, was displaced, or came
//! twice is told by what it left behind, not by what a writer said of it.
//!
//! Invariants, without which everything is asked for whole:
//! - every ingester that is needed answers;
//! - what the table has within the time is in the heads as well: it was flushed from logs that they hold since then.

use std::sync::Arc;

use futures::future::join_all;
use model::Labels;
use promql_engine::EngineOptions;
use promql_engine::partial::{
    Counted, Cut, HistogramSums, Partial, PartialGroup, PartialHistogram, PartialNote, shared,
};
use promql_syntax::Span;
use rpc::convert::{ascending_places, hint, place_deltas};
use rpc::pb::ingester as pb;
use rpc::pb::ingester::aggregate_request::Step;
use rpc::pb::ingester::aggregate_response::Piece;
use rpc::symbols::SymbolReader;
use service_runtime::Answers;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use crate::error::{Error, Result};
use crate::heads::{HeadAnswer, Messages, unreadable};
use crate::metrics::{Metrics, Reason};
use crate::select::{Held, Request, open_table};
use crate::sources::{Sources, covered};

/// What parts of aggregations mean: see `Aggregation.version` in the contract.
const VERSION: u32 = 1;

/// With what settings ingesters compute parts of a query's aggregations.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) options: EngineOptions,
    pub(crate) features: Vec<String>,
    pub(crate) metrics: Metrics,
}

/// An aggregation that ingesters may compute in part.
#[derive(Debug, Clone)]
pub(crate) struct Offer {
    pub(crate) cut: Arc<Cut>,
    pub(crate) settings: Arc<Settings>,
}

/// What heads and table gave: parts, and the series that are in none.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) heads: Vec<HeadAnswer>,
    pub(crate) table: tsdb::table::Selection,
    pub(crate) partials: Vec<Partial>,
}

/// Asks every head for its part. `None` where everything has to be asked for whole.
///
/// # Errors
/// When the time is up or the query is cancelled; whatever else fails may do so again when everything is asked for.
pub(crate) async fn ask(sources: &Sources, request: &Request, offer: &Offer) -> Result<Option<Asked>> {
    let whole = |reason| {
        offer.settings.metrics.whole(reason);
        Ok(None)
    };
    let message = offer.message(request);
    let asked = sources.ask(request.allow_partial, |name, mut client| {
        let (steps, requests) = mpsc::channel(1);
        let message = pb::AggregateRequest { step: Some(Step::Aggregation(message.clone())) };
        let requests = rpc::with_deadline(ReceiverStream::new(requests), request.deadline);
        async move {
            // There is room for one.
            steps.send(message).await.map_err(|_| Status::cancelled("nobody takes the request"))?;
            let stream = client.aggregate(requests).await.map_err(unable)?.into_inner();
            let part = HeadPart::begin(name, stream, steps).await?;
            let logs = covered(Some(&part.state));
            Ok((part, logs))
        }
    });
    let Answers { came: mut parts, missing, struck } = match asked.await {
        Ok(answers) => answers,
        Err(error) if is_over(&error) => return Err(error),
        Err(_) => return whole(Reason::Peer),
    };
    if !missing.is_empty() {
        return whole(Reason::Missing);
    }
    let held = Held::by(parts.iter().map(|part| &part.state));
    let is_in_heads = is_in_heads(sources, request, struck, &held).await?;
    let identities: Vec<Vec<u64>> =
        parts.iter_mut().map(|part| std::mem::take(&mut part.identities)).collect();
    let places = match is_in_heads {
        true => shared(&identities),
        // Merging comes first then.
        false => identities.iter().map(|list| (0..).take(list.len()).collect()).collect(),
    };
    let finishing = join_all(parts.into_iter().zip(places).map(|(part, places)| part.finish(places)));
    let table = match is_in_heads {
        true => tsdb::table::Selection::default(),
        false => open_table(sources, request, struck, &held).await?,
    };
    let finished = finishing.await;
    let (mut partials, mut heads) = (Vec::new(), Vec::new());
    for part in finished {
        match part {
            Ok((partial, head)) => {
                partials.push(partial);
                heads.push(head);
            }
            Err(error) if is_over(&error) => return Err(error),
            Err(_) => return whole(Reason::Failed),
        }
    }
    if is_in_heads {
        offer.settings.metrics.in_parts();
    } else {
        offer.settings.metrics.whole(Reason::Files);
        partials.clear();
    }
    Ok(Some(Asked { heads, table, partials }))
}

/// An ingester that does not know the call, or not this version of it, will not learn it in a moment: nobody is to wait
/// for that.
fn unable(status: Status) -> Status {
    match status.code() {
        Code::Unimplemented => Status::failed_precondition(status.message()),
        _ => status,
    }
}

/// Says whether a failure is the end of the query however it is asked.
fn is_over(error: &Error) -> bool {
    matches!(error.kind(), fault::Kind::Timeout | fault::Kind::Cancelled)
}

/// Says whether the heads have everything that the table has.
async fn is_in_heads(sources: &Sources, request: &Request, struck: u64, held: &Held) -> Result<bool> {
    let snapshot = sources.snapshot(struck, held.at_least).await?;
    let times = (request.min_time.millis(), request.max_time.millis());
    Ok(snapshot.is_covered(&request.tenant, &request.matchers, times, &held.logs))
}

impl Offer {
    fn message(&self, request: &Request) -> pb::Aggregation {
        let (cut, options) = (&*self.cut, &self.settings.options);
        let milliseconds = |ms: i64| ms.unsigned_abs();
        let whole_milliseconds = |d: std::time::Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        let byte = |byte: usize| u32::try_from(byte).unwrap_or(u32::MAX);
        let counting = match cut.around.counted {
            Counted::AtStep => pb::Counting::AtStep,
            Counted::AtEvery => pb::Counting::AtEveryStep,
            Counted::Inside => pb::Counting::Inside,
        };
        pb::Aggregation {
            version: VERSION,
            tenant: request.tenant.as_str().to_owned(),
            matchers: rpc::convert::matchers_to_pb(&request.matchers),
            min_time: request.min_time.millis(),
            max_time: request.max_time.millis(),
            query: cut.query.clone(),
            start: cut.start.millis(),
            end: cut.end.millis(),
            step_ms: milliseconds(cut.step_ms),
            span: Some(pb::QuerySpan { start: byte(cut.span.start), end: byte(cut.span.end) }),
            grid_start: cut.grid.start.millis(),
            grid_step_ms: milliseconds(cut.grid.step_ms),
            grid_count: cut.grid.count,
            lookback_ms: whole_milliseconds(cut.lookback),
            subquery_step_ms: whole_milliseconds(options.subquery_step),
            features: self.settings.features.clone(),
            keeps_names: cut.keeps_names,
            detects_hints: cut.around.detects_hints,
            needs_buckets: cut.around.needs_buckets,
            counting: counting.into(),
            samples_read_max: request.samples_max,
            samples_held_max: options.max_samples as u64,
            memory_bytes_max: options.max_memory_bytes as u64,
            timeout_ms: whole_milliseconds(request.deadline),
        }
    }
}

/// One head's part, between the two steps.
#[derive(Debug)]
struct HeadPart {
    source: String,
    stream: Streaming<pb::AggregateResponse>,
    steps: mpsc::Sender<pb::AggregateRequest>,
    state: pb::HeadState,
    identities: Vec<u64>,
}

impl HeadPart {
    async fn begin(
        source: String,
        mut stream: Streaming<pb::AggregateResponse>,
        steps: mpsc::Sender<pb::AggregateRequest>,
    ) -> std::result::Result<Self, Status> {
        let (mut state, mut identities) = (None, Vec::new());
        loop {
            let Some(Piece::Identities(message)) = next(&mut stream).await? else {
                return Err(unreadable("it does not begin with identities"));
            };
            state = state.or(message.state);
            identities.extend(message.identities);
            if message.is_end {
                let state = state.ok_or_else(|| unreadable("it has no state"))?;
                return Ok(Self { source, stream, steps, state, identities });
            }
        }
    }

    /// Asks for the series at the places whole and for an aggregate of the others.
    async fn finish(mut self, places: Vec<u32>) -> Result<(Partial, HeadAnswer)> {
        let broken = |status: Status| Error::peer(&self.source, &status);
        let whole = pb::WholeSeries { place_deltas: place_deltas(&places) };
        let step = pb::AggregateRequest { step: Some(Step::Whole(whole)) };
        // Where nobody takes it any more, the answer says why.
        drop(self.steps.send(step).await);
        let partial = read_partial(&mut self.stream).await.map_err(broken)?;
        let head = HeadAnswer::begin(self.source.clone(), Messages::Aggregate(self.stream)).await;
        let head = head.map_err(|status| Error::peer(&self.source, &status))?;
        if head.labels.len() != places.len() {
            return Err(Error::peer(&self.source, &unreadable("other series than were asked for")));
        }
        Ok((partial, head))
    }
}

async fn next(stream: &mut Streaming<pb::AggregateResponse>) -> std::result::Result<Option<Piece>, Status> {
    Ok(stream.message().await?.and_then(|message| message.piece))
}

async fn read_partial(stream: &mut Streaming<pb::AggregateResponse>) -> std::result::Result<Partial, Status> {
    let mut partial = Partial::default();
    loop {
        match next(stream).await? {
            Some(Piece::Groups(message)) => add_groups(&mut partial.groups, message).map_err(unreadable)?,
            Some(Piece::End(end)) => {
                partial.stats.samples_total = end.samples_total;
                partial.stats.samples_read = end.samples_read;
                partial.stats.samples_peak = end.samples_peak;
                partial.is_order_free = end.is_order_free;
                partial.notes = end.notes.into_iter().filter_map(note).collect();
                return Ok(partial);
            }
            _ => return Err(unreadable("it does not go on with groups")),
        }
    }
}

fn add_groups(groups: &mut Vec<PartialGroup>, message: pb::PartialGroups) -> rpc::Result<()> {
    let symbols = SymbolReader(&message.symbols);
    for group in message.groups {
        let histograms = group.histograms.iter().map(histogram).collect::<rpc::Result<Vec<_>>>()?;
        if group.is_continued {
            let before = groups.last_mut().ok_or(rpc::Error::Missing("groups.labels"))?;
            before.histograms.extend(histograms);
            continue;
        }
        let labels = |refs: Option<&rpc::pb::model::LabelRefs>| -> rpc::Result<Labels> {
            symbols.labels(refs.ok_or(rpc::Error::Missing("groups.labels"))?)
        };
        groups.push(PartialGroup {
            labels: labels(group.labels.as_ref())?,
            drop_name: group.drops_name,
            first: labels(group.first.as_ref())?,
            steps: ascending_places(&group.step_deltas)?,
            numbers: group.numbers,
            histograms,
        });
    }
    Ok(())
}

fn histogram(message: &pb::PartialHistogram) -> rpc::Result<PartialHistogram> {
    let wrong = || rpc::Error::invalid("histograms", "not as many numbers as are needed");
    let buckets = |deltas: &[i32], numbers: &[f64]| -> rpc::Result<Vec<(i32, [f64; 2])>> {
        let (pairs, rest) = numbers.as_chunks::<2>();
        if pairs.len() != deltas.len() || !rest.is_empty() {
            return Err(wrong());
        }
        let mut index = 0_i32;
        let next = |(delta, pair): (&i32, &[f64; 2])| {
            index = index.wrapping_add(*delta);
            (index, *pair)
        };
        Ok(deltas.iter().zip(pairs).map(next).collect())
    };
    let ([zero_count, count, sum], []) = message.totals.as_chunks::<2>() else { return Err(wrong()) };
    Ok(PartialHistogram {
        step: message.step,
        count: message.count,
        has_reset: message.has_reset,
        has_not_reset: message.has_not_reset,
        sums: HistogramSums {
            schema: message.schema,
            zero_threshold: message.zero_threshold,
            custom_values: message.custom_values.as_slice().into(),
            hint: hint(message.reset_hint()),
            zero_count: *zero_count,
            count: *count,
            sum: *sum,
            positive: buckets(&message.positive_deltas, &message.positive)?,
            negative: buckets(&message.negative_deltas, &message.negative)?,
        },
    })
}

/// Reads a note; one of a sort that is not known is left out.
fn note(message: pb::PartialNote) -> Option<PartialNote> {
    use pb::partial_note::Kind;
    let span = message.span.unwrap_or_default();
    let span = Span::new(span.start as usize, span.end as usize);
    Some(match message.kind() {
        Kind::Unspecified => return None,
        Kind::Warning => PartialNote::Warning(message.text, span),
        Kind::Info => PartialNote::Info(message.text, span),
        Kind::StartTimeOverlap => PartialNote::StartTimeOverlap(message.text, span, message.count),
    })
}
