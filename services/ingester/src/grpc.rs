//! The gRPC face: decode, one call, encode.

use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};

use futures::{Stream, StreamExt as _, TryStreamExt as _, stream};
use rpc::convert;
use rpc::pb::ingester as pb;
use rpc::pb::ingester::ingester_server::Ingester;
use service_runtime::{Environment, Shutdown};
use tonic::{Request, Response, Status, Streaming};
use tsdb::table::SelectLimits;
use tsdb::{HeadSelection, HeadState, Storage};

use crate::aggregate::Aggregations;
use crate::config::Config;
use crate::error::Error;
use crate::metrics::Metrics;
use crate::select::{Wanted, select_many};
use crate::session::Session;
use crate::upkeep::Upkeep;

mod aggregate;
mod decode;
mod encode;
pub(crate) mod otlp;

/// Append requests of one stream that may wait for the log.
const IN_FLIGHT_MAX: usize = 256;

/// The storage once it is open; another one when its log has ended. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Opened(Arc<RwLock<Option<Arc<Storage>>>>);

impl Opened {
    pub(crate) fn set(&self, storage: Arc<Storage>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(storage);
    }

    pub(crate) fn get(&self) -> Result<Arc<Storage>, Error> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone().ok_or(Error::Opening)
    }
}

/// Serves the ingester's contract.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    pub(crate) storage: Opened,
    pub(crate) upkeep: Upkeep,
    limits: SelectLimits,
    aggregations: Aggregations,
    pub(crate) metrics: Metrics,
    shutdown: Shutdown,
}

impl Server {
    pub(crate) fn new(config: &Config, environment: &Environment) -> Self {
        let limits = SelectLimits { series: config.select_series_max, samples: config.select_samples_max };
        let storage = Opened::default();
        let upkeep = Upkeep::new(environment);
        let metrics = Metrics::register(&environment.metrics, &storage, &upkeep);
        let aggregations = Aggregations::new(config, metrics.aggregations_running.clone());
        Self { storage, upkeep, limits, aggregations, metrics, shutdown: environment.shutdown.clone() }
    }

    fn wanted(&self, request: &pb::SelectRequest) -> Result<Wanted, Status> {
        Ok(Wanted {
            tenant: convert::tenant(&request.tenant)?,
            matchers: convert::matchers(&request.matchers)?,
            min_time: request.min_time,
            max_time: request.max_time,
            limits: SelectLimits {
                series: self.limits.series.min(convert::limit(request.series_max)),
                samples: self.limits.samples.min(convert::limit(request.samples_max)),
            },
        })
    }

    /// Runs a read off the async threads.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Storage) -> tsdb::Result<T> + Send + 'static,
    ) -> Result<T, Status> {
        let storage = self.storage.get()?;
        let done = tokio::task::spawn_blocking(move || read(&storage)).await;
        let done = done.map_err(|e| Status::internal(format!("read: {e}")))?;
        done.map_err(|e| Error::from(e).into())
    }

    /// Runs a look-up off the async threads; the state says what it covers at least.
    async fn look_up<T: Send + 'static>(
        &self,
        look_up: impl FnOnce(&Storage) -> T + Send + 'static,
    ) -> Result<(T, HeadState), Status> {
        self.read(move |storage| {
            let state = storage.state();
            Ok((look_up(storage), state))
        })
        .await
    }
}

type BoxStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn streamed<T: Send + 'static>(messages: impl Iterator<Item = T> + Send + 'static) -> Response<BoxStream<T>> {
    Response::new(Box::pin(stream::iter(messages.map(Ok))))
}

#[tonic::async_trait]
impl Ingester for Server {
    type AppendStream = BoxStream<pb::AppendResponse>;
    type SelectStream = BoxStream<pb::SelectResponse>;
    type SelectManyStream = BoxStream<pb::SelectResponse>;
    type AggregateStream = BoxStream<pb::AggregateResponse>;
    type LastSamplesStream = BoxStream<pb::LastSamplesResponse>;
    type SeriesStream = BoxStream<pb::SeriesResponse>;

    async fn append(
        &self,
        request: Request<Streaming<pb::AppendRequest>>,
    ) -> Result<Response<Self::AppendStream>, Status> {
        let storage = self.storage.get()?;
        let mut session = Session::new(Arc::clone(&storage));
        let metrics = self.metrics.clone();
        // A stop ends the stream for new requests; those under way are answered.
        let shutdown = self.shutdown.clone();
        let stop = Box::pin(async move { shutdown.requested().await });
        let requests = request.into_inner().take_until(stop).then(move |request| {
            let storage = Arc::clone(&storage);
            async move {
                storage.room().await;
                request
            }
        });
        let pending = requests.map(move |request| {
            let metrics = metrics.clone();
            let started = request.and_then(|request| decode::append(&mut session, request));
            async move {
                let (id, appended) = started?;
                let appended = appended.await.map_err(Status::from)?;
                metrics.appended(&appended);
                Ok(encode::appended(id, appended))
            }
        });
        Ok(Response::new(Box::pin(until_error(pending.buffered(IN_FLIGHT_MAX)))))
    }

    async fn select(
        &self,
        request: Request<pb::SelectRequest>,
    ) -> Result<Response<Self::SelectStream>, Status> {
        let wanted = self.wanted(request.get_ref())?;
        let selection = self.read(move |storage| wanted.select(storage)).await?;
        Ok(streamed(encode::selection(selection)))
    }

    async fn select_many(
        &self,
        request: Request<pb::SelectManyRequest>,
    ) -> Result<Response<Self::SelectManyStream>, Status> {
        let request = request.into_inner();
        let wanted = request.selections.iter().map(|selection| self.wanted(selection));
        let wanted = wanted.collect::<Result<Vec<_>, Status>>()?;
        let samples_max = self.limits.samples.min(convert::limit(request.samples_max));
        let selected = self.read(move |storage| select_many(storage, wanted, samples_max)).await?;
        Ok(streamed(selected.into_iter().flat_map(encode::selected)))
    }

    async fn aggregate(
        &self,
        request: Request<Streaming<pb::AggregateRequest>>,
    ) -> Result<Response<Self::AggregateStream>, Status> {
        let mut requests = request.into_inner();
        let asked = aggregate::first(&mut requests).await?;
        let limits = SelectLimits { samples: self.limits.samples.min(asked.samples_max), ..self.limits };
        let selected = self.read(move |s| {
            let times = (asked.min_time, asked.max_time);
            let selection = s.select(&asked.tenant, &asked.matchers, times.0, times.1, limits)?;
            let identities = selection.rows.iter().map(|row| asked.cut.identity(&row.labels)).collect();
            Ok((asked, selection, identities))
        });
        let (asked, HeadSelection { rows, state }, identities) = selected.await?;
        let first = aggregate::identities(&state, identities);
        let aggregations = self.aggregations.clone();
        let rest = async move {
            let second = tokio::time::timeout(asked.timeout(), aggregate::second(&mut requests)).await;
            let whole = second.map_err(|_| Status::deadline_exceeded("no second request"))??;
            let (rows, others) = crate::aggregate::divide(rows, &whole);
            let partial = aggregations.run(asked, others).await?;
            let whole = aggregate::whole(HeadSelection { rows, state });
            Ok::<_, Status>(stream::iter(aggregate::partial(partial).chain(whole).map(Ok)))
        };
        let first = stream::iter(first.map(Ok));
        Ok(Response::new(Box::pin(first.chain(stream::once(rest).try_flatten()))))
    }

    async fn last_samples(
        &self,
        request: Request<pb::LastSamplesRequest>,
    ) -> Result<Response<Self::LastSamplesStream>, Status> {
        let request = request.into_inner();
        let (tenant, any_of) = (convert::tenant(&request.tenant)?, convert::matcher_sets(&request.any_of)?);
        let storage = self.storage.get()?;
        let reader = storage.last_samples(tenant, any_of, request.min_time, request.max_time);
        Ok(Response::new(Box::pin(encode::last_samples(reader))))
    }

    async fn label_names(
        &self,
        request: Request<pb::LabelsRequest>,
    ) -> Result<Response<pb::LabelsResponse>, Status> {
        let request = request.into_inner();
        let (tenant, any_of) = (convert::tenant(&request.tenant)?, convert::matcher_sets(&request.any_of)?);
        let (min_time, max_time) = (request.min_time, request.max_time);
        let (names, state) =
            self.look_up(move |s| s.label_names(&tenant, &any_of, min_time, max_time)).await?;
        Ok(Response::new(encode::names(names, request.limit, &state)))
    }

    async fn label_values(
        &self,
        request: Request<pb::LabelsRequest>,
    ) -> Result<Response<pb::LabelsResponse>, Status> {
        let request = request.into_inner();
        let (tenant, any_of) = (convert::tenant(&request.tenant)?, convert::matcher_sets(&request.any_of)?);
        let (min_time, max_time) = (request.min_time, request.max_time);
        let (name, limit) = (request.name, request.limit);
        let (values, state) =
            self.look_up(move |s| s.label_values(&tenant, &name, &any_of, min_time, max_time)).await?;
        Ok(Response::new(encode::names(values, limit, &state)))
    }

    async fn series(
        &self,
        request: Request<pb::SeriesRequest>,
    ) -> Result<Response<Self::SeriesStream>, Status> {
        let request = request.into_inner();
        let (tenant, any_of) = (convert::tenant(&request.tenant)?, convert::matcher_sets(&request.any_of)?);
        let (min_time, max_time) = (request.min_time, request.max_time);
        let (labels, state) = self.look_up(move |s| s.labels(&tenant, &any_of, min_time, max_time)).await?;
        Ok(streamed(encode::series(labels, convert::limit(request.limit), &state)))
    }

    async fn exemplars(
        &self,
        request: Request<pb::ExemplarsRequest>,
    ) -> Result<Response<pb::ExemplarsResponse>, Status> {
        let request = request.into_inner();
        let (tenant, any_of) = (convert::tenant(&request.tenant)?, convert::matcher_sets(&request.any_of)?);
        let (min_time, max_time) = (request.min_time, request.max_time);
        let (found, state) = self.look_up(move |s| s.exemplars(&tenant, &any_of, min_time, max_time)).await?;
        Ok(Response::new(encode::exemplars(found, &state)))
    }

    async fn flush(&self, _: Request<pb::FlushRequest>) -> Result<Response<pb::FlushResponse>, Status> {
        let report = self.storage.get()?.flush().await.map_err(Error::from)?;
        Ok(Response::new(pb::FlushResponse {
            table_version: report.version.unwrap_or_default(),
            rows: report.rows as u64,
            files: report.files as u64,
        }))
    }

    async fn compact(&self, _: Request<pb::CompactRequest>) -> Result<Response<pb::CompactResponse>, Status> {
        let report = self.upkeep.compact().await?;
        Ok(Response::new(pb::CompactResponse {
            table_version: report.version.unwrap_or_default(),
            compactions: report.compactions as u64,
            files_replaced: report.files_replaced as u64,
            files_written: report.files_written as u64,
            files_expired: report.files_expired as u64,
        }))
    }

    async fn snapshot(
        &self,
        request: Request<pb::SnapshotRequest>,
    ) -> Result<Response<pb::SnapshotResponse>, Status> {
        let name = request.into_inner().name;
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
            return Err(rpc::Error::invalid("name", "letters, digits and dashes are wanted").into());
        }
        let copied = self.upkeep.get()?.table().copy(&name).await;
        let (table_version, files) = copied.map_err(|e| Error::from(tsdb::Error::from(e)))?;
        tracing::info!(name, table_version, files, "the table was copied");
        Ok(Response::new(pb::SnapshotResponse { table_version, files: files as u64 }))
    }

    async fn statistics(
        &self,
        request: Request<pb::StatisticsRequest>,
    ) -> Result<Response<pb::StatisticsResponse>, Status> {
        let request = request.into_inner();
        let (tenant, limit) = (convert::tenant(&request.tenant)?, convert::limit(request.limit));
        let (found, state) = self.look_up(move |s| s.statistics(&tenant, limit)).await?;
        Ok(Response::new(encode::statistics(found, &state)))
    }
}

/// Ends a stream behind its first error: what comes after it would refer to what failed.
fn until_error<T: Send + 'static>(
    results: impl Stream<Item = Result<T, Status>> + Send,
) -> impl Stream<Item = Result<T, Status>> + Send {
    let mut is_over = false;
    results.take_while(move |result| {
        let goes_on = !is_over;
        is_over |= result.is_err();
        std::future::ready(goes_on)
    })
}
