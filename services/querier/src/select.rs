//! One selection over all heads and the table, merged.

use std::collections::VecDeque;
use std::iter::Peekable;
use std::sync::Arc;
use std::time::Duration;

use model::{Labels, Matcher, Tenant, Timestamp};
use promql_engine::partial::Partial;
use rpc::pb::ingester as pb;
use service_runtime::{Answers, Missing};
use tsdb::LogState;
use tsdb::merge::Merger;
use tsdb::series::{SeriesSamples, compare_labels};
use tsdb::table::{SelectLimits, Snapshot};

use crate::cut::{self, Asked, Offer};
use crate::error::Result;
use crate::heads::{HeadAnswer, Messages};
use crate::sources::{Sources, covered};

/// What to look for.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) tenant: Tenant,
    pub(crate) matchers: Vec<Matcher>,
    pub(crate) min_time: Timestamp,
    /// Inclusive.
    pub(crate) max_time: Timestamp,
    /// Most samples to read.
    pub(crate) samples_max: u64,
    pub(crate) allow_partial: bool,
    /// When to give up.
    pub(crate) deadline: Duration,
    /// The aggregation that the samples are for, where ingesters may compute parts of it.
    pub(crate) offer: Option<Offer>,
}

impl Request {
    fn message(&self) -> pb::SelectRequest {
        pb::SelectRequest {
            tenant: self.tenant.as_str().to_owned(),
            matchers: rpc::convert::matchers_to_pb(&self.matchers),
            min_time: self.min_time.millis(),
            max_time: self.max_time.millis(),
            series_max: 0,
            samples_max: self.samples_max,
        }
    }
}

/// A selection that was read to its end.
#[derive(Debug)]
pub(crate) struct Read {
    /// Each once, sorted by metric name, then labels.
    pub(crate) labels: Vec<Labels>,
    /// In the same order.
    pub(crate) samples: Vec<SeriesSamples>,
}

/// What was found: the label sets at once, the samples series by series.
#[derive(Debug)]
pub(crate) struct Selection {
    /// Each once, sorted by metric name, then labels.
    pub(crate) labels: Vec<Labels>,
    pub(crate) missing: Vec<Missing>,
    /// What was made of series that are not among `labels`.
    pub(crate) partials: Vec<Partial>,
    /// For each label set, who has samples of it: heads by number, the table last.
    holders: VecDeque<Vec<usize>>,
    heads: Vec<HeadAnswer>,
    table: tsdb::table::Selection,
    merger: Merger,
}

impl Selection {
    /// Asks every head, then reads a snapshot of the table that is new enough for all of them.
    pub(crate) async fn open(sources: &Sources, request: &Request) -> Result<Self> {
        if let Some(offer) = &request.offer
            && let Some(asked) = cut::ask(sources, request, offer).await?
        {
            let Asked { heads, table, partials } = asked;
            return Ok(Self { partials, ..Self::of(heads, table, Vec::new()) });
        }
        let asked = sources.ask(request.allow_partial, |name, mut client| {
            let message = rpc::with_deadline(request.message(), request.deadline);
            async move {
                let messages = Messages::Select(client.select(message).await?.into_inner());
                let answer = HeadAnswer::begin(name, messages).await?;
                let logs = covered(Some(&answer.state));
                Ok((answer, logs))
            }
        });
        let Answers { came: heads, missing, struck } = asked.await?;
        let held = Held::by(heads.iter().map(|head| &head.state));
        let table = open_table(sources, request, struck, &held).await?;
        Ok(Self::of(heads, table, missing))
    }

    /// Asks every head for several selections at once, which together have at most so many samples, and reads them to
    /// their ends. `None` for those that would have more.
    pub(crate) async fn read_all(
        sources: &Sources,
        requests: &[Request],
        samples_max: u64,
        deadline: Duration,
    ) -> Result<Vec<Option<Read>>> {
        let asked = sources.ask(false, |name, mut client| {
            let selections = requests.iter().map(Request::message).collect();
            let message = rpc::with_deadline(pb::SelectManyRequest { selections, samples_max }, deadline);
            async move {
                let messages = client.select_many(message).await?.into_inner();
                HeadAnswer::all(&name, messages, requests.len()).await
            }
        });
        let Answers { came, struck, .. } = asked.await?;
        let mut came: Vec<_> = came.into_iter().map(Vec::into_iter).collect();
        let mut left = samples_max;
        let mut all = Vec::with_capacity(requests.len());
        for request in requests {
            let heads: Vec<_> = came.iter_mut().map(|head| head.next().flatten()).collect();
            let read = match heads.into_iter().collect::<Option<Vec<_>>>() {
                Some(heads) => Self::read_within(sources, request, (heads, struck), &mut left).await?,
                None => None,
            };
            all.push(read);
        }
        Ok(all)
    }

    /// Reads what heads have answered and the table has. `None` where that is too much.
    async fn read_within(
        sources: &Sources,
        request: &Request,
        (heads, struck): (Vec<HeadAnswer>, u64),
        left: &mut u64,
    ) -> Result<Option<Read>> {
        let request = Request { samples_max: *left, ..request.clone() };
        let held = Held::by(heads.iter().map(|head| &head.state));
        let table = match open_table(sources, &request, struck, &held).await {
            Err(error) if error.kind() == fault::Kind::Limit => return Ok(None),
            table => table?,
        };
        let mut selection = Self::of(heads, table, Vec::new());
        let mut samples = Vec::with_capacity(selection.labels.len());
        let mut rest = *left;
        while let Some(next) = selection.next().await? {
            let Some(after) = rest.checked_sub(next.sample_count() as u64) else { return Ok(None) };
            rest = after;
            samples.push(next);
        }
        *left = rest;
        Ok(Some(Read { labels: selection.labels, samples }))
    }

    /// Puts together what came from heads and table.
    fn of(mut heads: Vec<HeadAnswer>, table: tsdb::table::Selection, missing: Vec<Missing>) -> Self {
        let mut lists: Vec<Vec<Labels>> = heads.iter_mut().map(|h| std::mem::take(&mut h.labels)).collect();
        lists.push(table.labels().to_vec());
        let (labels, holders) = union(lists);
        let merger = Merger::default();
        Self { labels, missing, partials: Vec::new(), holders, heads, table, merger }
    }

    /// Returns the samples of the next series, in the order of `labels`; `None` behind the last.
    pub(crate) async fn next(&mut self) -> Result<Option<SeriesSamples>> {
        let Some(holders) = self.holders.pop_front() else { return Ok(None) };
        let mut parts = Vec::with_capacity(holders.len());
        for holder in holders {
            match self.heads.get_mut(holder) {
                Some(head) => parts.push(head.next().await?),
                None => parts.extend(self.table.next().await?),
            }
        }
        Ok(Some(if parts.len() == 1 { parts.swap_remove(0) } else { self.merger.merge(&parts) }))
    }
}

/// What the answers of heads cover together.
#[derive(Debug)]
pub(crate) struct Held {
    /// The table has to be as new as this.
    pub(crate) at_least: Option<u64>,
    pub(crate) logs: Vec<LogState>,
}

impl Held {
    pub(crate) fn by<'a>(states: impl Iterator<Item = &'a pb::HeadState> + Clone) -> Self {
        let at_least = states.clone().map(|state| state.table_version).max();
        Self { at_least, logs: states.flat_map(log_states).collect() }
    }
}

fn log_states(head: &pb::HeadState) -> impl Iterator<Item = LogState> {
    head.logs.iter().map(|log| LogState {
        log: log.log.as_str().into(),
        acked_seq: log.acknowledged,
        complete_since: Timestamp(log.complete_since),
        table_version: head.table_version,
    })
}

/// Opens what a snapshot of the table has that is new enough for all heads, and that they have not.
pub(crate) async fn open_table(
    sources: &Sources,
    request: &Request,
    struck: u64,
    held: &Held,
) -> Result<tsdb::table::Selection> {
    let limits = SelectLimits {
        samples: usize::try_from(request.samples_max).unwrap_or(usize::MAX),
        ..SelectLimits::NONE
    };
    let times = (request.min_time.millis(), request.max_time.millis());
    let open = |snapshot: Arc<Snapshot>| async move {
        snapshot.open(&request.tenant, &request.matchers, times, limits, &held.logs).await
    };
    sources.read_table(struck, held.at_least, open).await
}

/// Merges sorted lists of label sets into one, with the numbers of the lists that hold each.
fn union(lists: Vec<Vec<Labels>>) -> (Vec<Labels>, VecDeque<Vec<usize>>) {
    let mut lists: Vec<Peekable<std::vec::IntoIter<Labels>>> =
        lists.into_iter().map(|l| l.into_iter().peekable()).collect();
    let (mut labels, mut holders) = (Vec::new(), VecDeque::new());
    loop {
        let first = lists.iter_mut().filter_map(|l| l.peek()).min_by(|a, b| compare_labels(a, b));
        let Some(first) = first.cloned() else { return (labels, holders) };
        let holding = lists.iter_mut().enumerate();
        let holding = holding.filter_map(|(i, list)| list.next_if_eq(&first).map(|_| i));
        holders.push_back(holding.collect());
        labels.push(first);
    }
}

/// PromQL sorts by labels alone, the sources by metric name first. Says where each label set of PromQL's order stands in
/// ours, or nothing when the two agree.
pub(crate) fn promql_order(labels: &[Labels]) -> Option<Vec<usize>> {
    if labels.is_sorted() {
        return None;
    }
    let mut order: Vec<usize> = (0..labels.len()).collect();
    order.sort_by(|a, b| labels[*a].cmp(&labels[*b]));
    Some(order)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(name: &str, more: &[(&str, &str)]) -> Labels {
        Labels::from_pairs([("__name__", name)].iter().chain(more).copied())
    }

    #[test]
    fn a_series_of_several_sources_stands_once() {
        let (a, b, c) = (labels("a", &[]), labels("b", &[("x", "1")]), labels("b", &[("x", "2")]));
        let lists = vec![vec![a.clone(), c.clone()], vec![], vec![a.clone(), b.clone()]];
        let (all, holders) = union(lists);
        assert_eq!(all, [a, b, c]);
        assert_eq!(holders, [vec![0, 2], vec![2], vec![0]]);
    }

    #[test]
    fn label_names_before_the_metric_name_need_another_order() {
        let plain = [labels("a", &[("x", "1")]), labels("b", &[])];
        assert_eq!(promql_order(&plain), None);
        // `Zone` sorts before `__name__`.
        let odd = [labels("a", &[]), labels("b", &[("Zone", "1")])];
        assert_eq!(promql_order(&odd).as_deref(), Some([1, 0].as_slice()));
    }
}
