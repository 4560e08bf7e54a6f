//! Label names, label values, label sets and exemplars over heads and table.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use model::{Exemplar, Labels, Matcher, Tenant, Timestamp};
use rpc::pb::ingester as pb;
use rpc::symbols::SymbolReader;
use service_runtime::{Answers, Covering, Missing};
use tonic::Status;
use tsdb::merge::compare_exemplars;
use tsdb::table::{SelectLimits, Snapshot};

use crate::error::Result;
use crate::sources::{Sources, covered};

/// Time an ingester has for a look-up.
const DEADLINE: Duration = Duration::from_secs(30);

/// Which series a look-up is about.
#[derive(Debug)]
pub(crate) struct Lookup {
    pub(crate) tenant: Tenant,
    /// A series counts when any of the sets accepts it; never empty.
    pub(crate) any_of: Vec<Vec<Matcher>>,
    pub(crate) min_time: Timestamp,
    /// Inclusive.
    pub(crate) max_time: Timestamp,
    pub(crate) allow_partial: bool,
}

/// What a look-up found, sorted, and what took no part in it.
pub(crate) type Found<T> = (BTreeSet<T>, Vec<Missing>);

impl Lookup {
    /// Lists label names, or the values of one label.
    pub(crate) async fn names(&self, sources: &Sources, label: Option<&str>) -> Result<Found<String>> {
        let asked = sources.ask(self.allow_partial, |_, mut client| {
            let request = rpc::with_deadline(self.labels_request(label), DEADLINE);
            async move {
                let answer = match label {
                    Some(_) => client.label_values(request).await?,
                    None => client.label_names(request).await?,
                };
                let answer = answer.into_inner();
                let logs = covered(answer.state.as_ref());
                Ok((answer, logs))
            }
        });
        let Answers { came: answers, missing, struck } = asked.await?;
        let version = answers.iter().filter_map(|a| a.state.as_ref()).map(|s| s.table_version).max();
        let mut all: BTreeSet<String> = answers.into_iter().flat_map(|a| a.values).collect();
        for set in &self.any_of {
            let read = |snapshot| self.names_in(snapshot, set, label);
            all.append(&mut sources.read_table(struck, version, read).await?);
        }
        Ok((all, missing))
    }

    async fn names_in(
        &self,
        snapshot: Arc<Snapshot>,
        set: &[Matcher],
        label: Option<&str>,
    ) -> tsdb::table::Result<BTreeSet<String>> {
        let (tenant, min, max) = (&self.tenant, self.min_time.millis(), self.max_time.millis());
        let limits = SelectLimits::NONE;
        match label {
            Some(label) => snapshot.label_values(tenant, label, set, min, max, limits).await,
            None => snapshot.label_names(tenant, set, min, max, limits).await,
        }
    }

    fn labels_request(&self, label: Option<&str>) -> pb::LabelsRequest {
        pb::LabelsRequest {
            tenant: self.tenant.as_str().to_owned(),
            name: label.unwrap_or_default().to_owned(),
            any_of: rpc::convert::matcher_sets_to_pb(&self.any_of),
            min_time: self.min_time.millis(),
            max_time: self.max_time.millis(),
            limit: 0,
        }
    }

    /// Lists label sets.
    pub(crate) async fn series(&self, sources: &Sources) -> Result<Found<Labels>> {
        let asked = sources.ask(self.allow_partial, |_, mut client| {
            let request = pb::SeriesRequest {
                tenant: self.tenant.as_str().to_owned(),
                any_of: rpc::convert::matcher_sets_to_pb(&self.any_of),
                min_time: self.min_time.millis(),
                max_time: self.max_time.millis(),
                limit: 0,
            };
            let request = rpc::with_deadline(request, DEADLINE);
            async move { read_series(client.series(request).await?.into_inner()).await }
        });
        let Answers { came: answers, missing, struck } = asked.await?;
        let version = answers.iter().map(|(version, _)| *version).max();
        let mut all: BTreeSet<Labels> = answers.into_iter().flat_map(|(_, labels)| labels).collect();
        let (min, max) = (self.min_time.millis(), self.max_time.millis());
        for set in &self.any_of {
            let read = |snapshot: Arc<Snapshot>| async move {
                snapshot.labels(&self.tenant, set, min, max, SelectLimits::NONE).await
            };
            let found = sources.read_table(struck, version, read).await?;
            all.extend(found.into_iter().map(|(labels, _)| labels));
        }
        Ok((all, missing))
    }
}

/// The exemplars of each series, by their times.
pub(crate) type Exemplars = BTreeMap<Labels, Vec<Exemplar>>;

impl Lookup {
    /// Lists the exemplars of the series, from the earliest time to the latest.
    ///
    /// Of a series that matches, the table gives the samples along with its exemplars: `samples_max` bounds what is read.
    pub(crate) async fn exemplars(
        &self,
        sources: &Sources,
        samples_max: usize,
    ) -> Result<(Exemplars, Vec<Missing>)> {
        let asked = sources.ask(self.allow_partial, |_, mut client| {
            let request = pb::ExemplarsRequest {
                tenant: self.tenant.as_str().to_owned(),
                any_of: rpc::convert::matcher_sets_to_pb(&self.any_of),
                min_time: self.min_time.millis(),
                max_time: self.max_time.millis(),
            };
            let request = rpc::with_deadline(request, DEADLINE);
            async move {
                let answer = client.exemplars(request).await?.into_inner();
                let logs = covered(answer.state.as_ref());
                let version = answer.state.unwrap_or_default().table_version;
                Ok(((version, read_exemplars(&answer.series)?), logs))
            }
        });
        let Answers { came: answers, missing, struck } = asked.await?;
        let version = answers.iter().map(|(version, _)| *version).max();
        let mut all = Exemplars::new();
        for (labels, exemplars) in answers.into_iter().flat_map(|(_, found)| found) {
            all.entry(labels).or_default().extend(exemplars);
        }
        let limits = SelectLimits { samples: samples_max, ..SelectLimits::NONE };
        let times = (self.min_time.millis(), self.max_time.millis());
        for set in &self.any_of {
            // No file is passed over for what heads answered: they keep a few exemplars of each series, not all.
            let read = |snapshot: Arc<Snapshot>| async move {
                let mut selection = snapshot.open(&self.tenant, set, times, limits, &[]).await?;
                let labels = selection.labels().to_vec();
                let mut found = Vec::new();
                for labels in labels {
                    let Some(samples) = selection.next().await? else { break };
                    if !samples.exemplars.is_empty() {
                        found.push((labels, samples.exemplars));
                    }
                }
                Ok(found)
            };
            for (labels, exemplars) in sources.read_table(struck, version, read).await? {
                let in_time = exemplars
                    .iter()
                    .filter(|e| e.timestamp.is_some_and(|t| (self.min_time..=self.max_time).contains(&t)));
                all.entry(labels).or_default().extend(in_time.cloned());
            }
        }
        all.retain(|_, exemplars| {
            exemplars.sort_by(compare_exemplars);
            exemplars.dedup_by(|a, b| compare_exemplars(a, b).is_eq());
            !exemplars.is_empty()
        });
        Ok((all, missing))
    }
}

fn read_exemplars(
    messages: &[pb::SeriesExemplars],
) -> std::result::Result<Vec<(Labels, Vec<Exemplar>)>, rpc::Error> {
    let of_series = |message: &pb::SeriesExemplars| {
        let exemplars = message.exemplars.iter().map(Exemplar::try_from).collect::<rpc::Result<_>>()?;
        Ok((rpc::convert::labels(message.labels.as_ref())?, exemplars))
    };
    messages.iter().map(of_series).collect()
}

/// Reads an ingester's label sets; returns them with the table version they go with, and the logs they cover.
async fn read_series(
    mut stream: tonic::Streaming<pb::SeriesResponse>,
) -> std::result::Result<Covering<(u64, Vec<Labels>)>, Status> {
    let (mut state, mut all) = (pb::HeadState::default(), Vec::new());
    while let Some(message) = stream.message().await? {
        state = message.state.unwrap_or(state);
        let symbols = SymbolReader(&message.symbols);
        for refs in &message.labels {
            all.push(symbols.labels(refs)?);
        }
    }
    let logs = covered(Some(&state));
    Ok(((state.table_version, all), logs))
}
