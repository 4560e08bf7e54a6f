//! The engine's view of heads and table: selections are opened in the background and read by the evaluating thread.

use std::sync::Arc;
use std::time::Instant;

use model::{Labels, Tenant};
use parking_lot::Mutex;
use promql_engine::partial::Partial;
use promql_engine::{Column, Selection as Wanted, SeriesSamples, SeriesSet, SeriesSource, SourceError};
use service_runtime::Missing;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::ahead::{Ahead, Look, SAMPLES_MAX, looks};
use crate::cut::{Offer, Settings};
use crate::error::{Error, Result};
use crate::select::{Request, Selection, promql_order};
use crate::sources::Sources;

/// Gives one query its series. Lives on a blocking thread, since the engine waits for what it asks.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) runtime: Handle,
    pub(crate) sources: Arc<Sources>,
    pub(crate) tenant: Tenant,
    pub(crate) samples_max: u64,
    pub(crate) allow_partial: bool,
    pub(crate) deadline: Instant,
    /// Ends the waits for heads and files when nobody wants the answer any more.
    pub(crate) canceled: CancellationToken,
    /// What took no part, over all selections of the query.
    pub(crate) missing: Arc<Mutex<Vec<Missing>>>,
    /// With what settings ingesters compute parts of aggregations, where they may.
    pub(crate) settings: Option<Arc<Settings>>,
}

impl SeriesSource for Source {
    fn select(&self, wanted: &Wanted) -> std::result::Result<Box<dyn SeriesSet>, SourceError> {
        let request = Request {
            tenant: self.tenant.clone(),
            matchers: wanted.matchers.clone(),
            min_time: wanted.min_time,
            max_time: wanted.max_time,
            samples_max: self.samples_max,
            allow_partial: self.allow_partial,
            deadline: self.deadline.saturating_duration_since(Instant::now()),
            offer: wanted
                .cut
                .as_ref()
                .zip(self.settings.as_ref())
                .map(|(cut, settings)| Offer { cut: Arc::clone(cut), settings: Arc::clone(settings) }),
        };
        let sources = Arc::clone(&self.sources);
        let opening = self.runtime.spawn(async move { Selection::open(&sources, &request).await });
        Ok(Box::new(Set {
            runtime: self.runtime.clone(),
            canceled: self.canceled.clone(),
            deadline: self.deadline.into(),
            missing: Arc::clone(&self.missing),
            opening: Some(AbortOnDropHandle::new(opening)),
            selection: None,
            labels: Vec::new(),
            reordered: None,
        }))
    }

    fn read_ahead(&self, wanted: &[Wanted]) -> Option<Box<dyn SeriesSource + '_>> {
        if wanted.len() < 2 {
            return None;
        }
        let looks = looks(wanted);
        let deadline = self.deadline.saturating_duration_since(Instant::now());
        let request = |look: &Look| Request {
            tenant: self.tenant.clone(),
            matchers: look.matchers.clone(),
            min_time: look.min_time,
            max_time: look.max_time,
            samples_max: SAMPLES_MAX,
            allow_partial: false,
            deadline,
            offer: None,
        };
        let requests: Vec<Request> = looks.iter().map(request).collect();
        let reading = Selection::read_all(&self.sources, &requests, SAMPLES_MAX, deadline);
        let read = wait(&self.runtime, &self.canceled, self.deadline.into(), reading).ok()?.ok()?;
        let series = read.into_iter().map(|read| read.map(|read| Arc::new(read.into())));
        Some(Box::new(Ahead { below: self, looks: looks.into_iter().zip(series).collect() }))
    }
}

struct Set {
    runtime: Handle,
    canceled: CancellationToken,
    deadline: tokio::time::Instant,
    missing: Arc<Mutex<Vec<Missing>>>,
    opening: Option<AbortOnDropHandle<Result<Selection>>>,
    selection: Option<Selection>,
    labels: Vec<Labels>,
    /// The samples in PromQL's order, where it is not the sources' own.
    reordered: Option<std::vec::IntoIter<tsdb::series::SeriesSamples>>,
}

impl SeriesSet for Set {
    fn labels(&mut self) -> std::result::Result<&[Labels], SourceError> {
        if let Some(opening) = self.opening.take() {
            let opened = wait(&self.runtime, &self.canceled, self.deadline, opening)?;
            let opened =
                opened.map_err(|e| SourceError::new(fault::Kind::Internal, format!("select: {e}")))?;
            let mut selection = opened.map_err(|e| source_error(&e))?;
            self.missing.lock().append(&mut selection.missing);
            self.labels = std::mem::take(&mut selection.labels);
            self.selection = Some(selection);
            if let Some(order) = promql_order(&self.labels) {
                self.reorder(&order)?;
            }
        }
        Ok(&self.labels)
    }

    fn next(&mut self) -> std::result::Result<Option<SeriesSamples>, SourceError> {
        self.labels()?;
        let samples = match &mut self.reordered {
            Some(reordered) => reordered.next(),
            None => self.read()?,
        };
        Ok(samples.map(to_engine))
    }

    fn partials(&mut self) -> std::result::Result<Vec<Partial>, SourceError> {
        self.labels()?;
        Ok(self.selection.as_mut().map(|s| std::mem::take(&mut s.partials)).unwrap_or_default())
    }
}

impl Set {
    fn read(&mut self) -> std::result::Result<Option<tsdb::series::SeriesSamples>, SourceError> {
        match &mut self.selection {
            Some(selection) => {
                let next = wait(&self.runtime, &self.canceled, self.deadline, selection.next())?;
                next.map_err(|e| source_error(&e))
            }
            None => Ok(None),
        }
    }

    /// Reads everything, since the order of arrival is not the order wanted. Only label names that sort before
    /// `__name__` lead here.
    fn reorder(&mut self, order: &[usize]) -> std::result::Result<(), SourceError> {
        let mut all = Vec::with_capacity(self.labels.len());
        while let Some(samples) = self.read()? {
            all.push(samples);
        }
        self.labels = order.iter().map(|i| self.labels[*i].clone()).collect();
        let samples: Vec<_> = order.iter().filter_map(|i| all.get(*i).cloned()).collect();
        self.reordered = Some(samples.into_iter());
        Ok(())
    }
}

/// Waits on the evaluating thread, no longer than the query may take and somebody wants its answer.
fn wait<T>(
    runtime: &Handle,
    canceled: &CancellationToken,
    deadline: tokio::time::Instant,
    work: impl Future<Output = T>,
) -> std::result::Result<T, SourceError> {
    runtime.block_on(async {
        tokio::select! {
            biased;
            // First, since what is at hand is most often all that is asked for; the engine looks at the clock itself.
            done = work => Ok(done),
            () = canceled.cancelled() => Err(SourceError::new(fault::Kind::Cancelled, "canceled")),
            () = tokio::time::sleep_until(deadline) => {
                Err(SourceError::new(fault::Kind::Timeout, "deadline exceeded"))
            }
        }
    })
}

fn source_error(error: &Error) -> SourceError {
    SourceError::new(error.kind(), error.to_string())
}

fn to_engine(samples: tsdb::series::SeriesSamples) -> SeriesSamples {
    let tsdb::series::SeriesSamples { floats, histograms, start_timestamps: starts, .. } = samples;
    let values = histograms.values.iter().map(|h| Arc::new(h.to_float())).collect();
    SeriesSamples {
        floats: Column::new(floats.timestamps, floats.values.to_vec()).with_starts(&starts),
        histograms: Column::new(histograms.timestamps, values).with_starts(&starts),
    }
}
