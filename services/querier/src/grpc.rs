//! The gRPC face: decode, one call, encode.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, stream};
use model::{Exemplar, Labels, Timestamp};
use rpc::convert;
use rpc::pb::ingester;
use rpc::pb::model::Missing as PbMissing;
use rpc::pb::querier as pb;
use rpc::pb::querier::querier_server::Querier;
use rpc::symbols::SymbolWriter;
use service_runtime::Missing;
use tonic::{Request, Response, Status};
use tsdb::catalogue::DataFile;

use crate::last_samples;
use crate::lookups::Lookup;
use crate::query::{Queries, QueryParams, Times};
use crate::rules::Shown;
use crate::select::{self, Held};

mod read;

use read::Reading;

/// Label sets in one message.
const LABELS_PER_MESSAGE: usize = 2_000;

/// Files in one message.
const FILES_PER_MESSAGE: usize = 2_000;

/// Serves the querier's contract.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    pub(crate) queries: Arc<Queries>,
    pub(crate) rules: Shown,
}

type BoxStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn streamed<T: Send + 'static>(messages: impl Iterator<Item = T> + Send + 'static) -> Response<BoxStream<T>> {
    Response::new(Box::pin(stream::iter(messages.map(Ok))))
}

fn missing(missing: Vec<Missing>) -> Vec<PbMissing> {
    missing.into_iter().map(|(source, reason)| PbMissing { source, reason }).collect()
}

fn table_file(file: &DataFile) -> pb::TableFile {
    let stats = file.stats.as_ref();
    pb::TableFile {
        name: file.name().to_owned(),
        min_time: file.oldest_time(),
        max_time: file.newest_time(),
        rows: stats.map_or(0, |stats| stats.rows - stats.timelines),
        level: file.level(),
    }
}

fn params(request: pb::QueryRequest) -> Result<QueryParams, rpc::Error> {
    use pb::query_request::Time;
    let times = match request.time.ok_or(rpc::Error::Missing("time"))? {
        Time::Instant(t) => Times::Instant(Timestamp(t)),
        Time::Range(pb::Range { step: 0, .. }) => return Err(rpc::Error::Missing("range.step")),
        Time::Range(r) => Times::Range {
            start: Timestamp(r.start),
            end: Timestamp(r.end),
            step: Duration::from_millis(r.step),
        },
    };
    let optional = |ms| (ms > 0).then(|| Duration::from_millis(ms));
    Ok(QueryParams {
        tenant: convert::tenant(&request.tenant)?,
        query: request.query,
        times,
        lookback: optional(request.lookback_ms),
        timeout: optional(request.timeout_ms),
        limit: convert::limit(request.limit),
        allow_partial: request.allow_partial,
        per_step_stats: request.per_step_stats,
    })
}

fn lookup(
    tenant: &str,
    any_of: &[rpc::pb::model::MatcherSet],
    (min_time, max_time): (i64, i64),
    allow_partial: bool,
) -> Result<Lookup, rpc::Error> {
    let mut any_of = convert::matcher_sets(any_of)?;
    if any_of.is_empty() {
        any_of.push(Vec::new());
    }
    let tenant = convert::tenant(tenant)?;
    Ok(Lookup { tenant, any_of, min_time: Timestamp(min_time), max_time: Timestamp(max_time), allow_partial })
}

impl Server {
    async fn names(
        &self,
        request: pb::LabelsRequest,
        label: Option<&str>,
    ) -> Result<pb::LabelsResponse, Status> {
        let times = (request.min_time, request.max_time);
        let lookup = lookup(&request.tenant, &request.any_of, times, request.allow_partial)?;
        let (names, gone) = lookup.names(&self.queries.sources, label).await?;
        let limit = convert::limit(request.limit);
        Ok(pb::LabelsResponse {
            is_truncated: names.len() > limit,
            values: names.into_iter().take(limit).collect(),
            missing: missing(gone),
        })
    }
}

#[tonic::async_trait]
impl Querier for Server {
    type QueryStream = BoxStream<pb::QueryResponse>;
    type SeriesStream = BoxStream<pb::SeriesResponse>;
    type ReadStream = BoxStream<pb::ReadResponse>;
    type LastSamplesStream = BoxStream<ingester::LastSamplesResponse>;
    type RulesStream = BoxStream<pb::RulesResponse>;
    type FilesStream = BoxStream<pb::FilesResponse>;

    async fn query(&self, request: Request<pb::QueryRequest>) -> Result<Response<Self::QueryStream>, Status> {
        let params = params(request.into_inner())?;
        let (answer, notes) = self.queries.run(params).await?;
        Ok(streamed(convert::query::messages(answer, notes)))
    }

    async fn label_names(
        &self,
        request: Request<pb::LabelsRequest>,
    ) -> Result<Response<pb::LabelsResponse>, Status> {
        self.names(request.into_inner(), None).await.map(Response::new)
    }

    async fn label_values(
        &self,
        request: Request<pb::LabelsRequest>,
    ) -> Result<Response<pb::LabelsResponse>, Status> {
        let request = request.into_inner();
        let label = request.name.clone();
        self.names(request, Some(&label)).await.map(Response::new)
    }

    async fn series(
        &self,
        request: Request<pb::SeriesRequest>,
    ) -> Result<Response<Self::SeriesStream>, Status> {
        let request = request.into_inner();
        let times = (request.min_time, request.max_time);
        let lookup = lookup(&request.tenant, &request.any_of, times, request.allow_partial)?;
        let (series, gone) = lookup.series(&self.queries.sources).await?;
        let limit = convert::limit(request.limit);
        let end = pb::SeriesResponse {
            is_truncated: series.len() > limit,
            missing: missing(gone),
            ..Default::default()
        };
        let mut rest = series.into_iter().take(limit);
        let batches = std::iter::from_fn(move || {
            let mut symbols = SymbolWriter::default();
            let batch: Vec<Labels> = rest.by_ref().take(LABELS_PER_MESSAGE).collect();
            let labels = batch.iter().map(|l| symbols.labels(l)).collect();
            (!batch.is_empty()).then(|| pb::SeriesResponse {
                symbols: symbols.take(),
                labels,
                ..Default::default()
            })
        });
        Ok(streamed(batches.chain(std::iter::once(end))))
    }

    async fn last_samples(
        &self,
        request: Request<pb::LastSamplesRequest>,
    ) -> Result<Response<Self::LastSamplesStream>, Status> {
        let pb::LastSamplesRequest { wanted, heads, struck } = request.into_inner();
        let wanted = wanted.ok_or(rpc::Error::Missing("wanted"))?;
        let request = last_samples::Request {
            tenant: convert::tenant(&wanted.tenant)?,
            any_of: convert::matcher_sets(&wanted.any_of)?,
            times: (wanted.min_time, wanted.max_time),
            held: Held::by(heads.iter()),
            struck,
            samples_max: self.queries.samples_max() as u64,
        };
        let batches = last_samples::last_samples(&self.queries.sources, &request).await?;
        let message = |batch| ingester::LastSamplesResponse {
            state: None,
            samples: Some(convert::last_samples::to_pb(batch)),
        };
        let first = std::iter::once(ingester::LastSamplesResponse::default());
        Ok(streamed(first.chain(batches.into_iter().map(message))))
    }

    async fn rules(&self, _: Request<pb::RulesRequest>) -> Result<Response<Self::RulesStream>, Status> {
        let groups = self.rules.groups();
        Ok(streamed(groups.into_iter().map(|group| pb::RulesResponse { groups: vec![(*group).clone()] })))
    }

    async fn files(&self, request: Request<pb::FilesRequest>) -> Result<Response<Self::FilesStream>, Status> {
        let tenant = convert::tenant(&request.into_inner().tenant)?;
        let snapshot = self.queries.sources.newest().await?;
        let mut files: Vec<pb::TableFile> = snapshot.files(&tenant).map(|file| table_file(file)).collect();
        files.sort_by(|a, b| (a.min_time, &a.name).cmp(&(b.min_time, &b.name)));
        let batches: Vec<_> = files.chunks(FILES_PER_MESSAGE).map(<[_]>::to_vec).collect();
        Ok(streamed(batches.into_iter().map(|files| pb::FilesResponse { files })))
    }

    async fn exemplars(
        &self,
        request: Request<pb::ExemplarsRequest>,
    ) -> Result<Response<pb::ExemplarsResponse>, Status> {
        let request = request.into_inner();
        let Some(any_of) = self.queries.selectors(&request.query)? else {
            return Ok(Response::new(pb::ExemplarsResponse { has_no_selector: true, ..Default::default() }));
        };
        let lookup = Lookup {
            tenant: convert::tenant(&request.tenant)?,
            any_of,
            min_time: Timestamp(request.min_time),
            max_time: Timestamp(request.max_time),
            allow_partial: request.allow_partial,
        };
        let (found, gone) = lookup.exemplars(&self.queries.sources, self.queries.samples_max()).await?;
        let of_series = |(labels, exemplars): (Labels, Vec<Exemplar>)| pb::SeriesExemplars {
            labels: Some((&labels).into()),
            exemplars: exemplars.iter().map(Into::into).collect(),
        };
        Ok(Response::new(pb::ExemplarsResponse {
            series: found.into_iter().map(of_series).collect(),
            missing: missing(gone),
            ..Default::default()
        }))
    }

    async fn read(&self, request: Request<pb::ReadRequest>) -> Result<Response<Self::ReadStream>, Status> {
        let request = request.into_inner();
        let samples_max = convert::limit(request.samples_max).min(self.queries.samples_max());
        let wanted = select::Request {
            tenant: convert::tenant(&request.tenant)?,
            matchers: convert::matchers(&request.matchers)?,
            min_time: Timestamp(request.min_time),
            max_time: Timestamp(request.max_time),
            samples_max: samples_max as u64,
            allow_partial: false,
            deadline: self.queries.timeout(),
            offer: None,
        };
        let reading = Reading::open(&self.queries.sources, &wanted).await?;
        let messages = stream::try_unfold(reading, |mut reading| async move {
            Ok(reading.message().await?.map(|message| (message, reading)))
        });
        Ok(Response::new(Box::pin(messages)))
    }
}
