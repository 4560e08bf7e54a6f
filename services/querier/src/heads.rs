//! One ingester's answer to a select: its state, its label sets, then its samples one series at a time.

use std::collections::VecDeque;
use std::sync::Arc;

use model::{Exemplar, Histogram, Labels};
use rpc::convert::ascending_times;
use rpc::pb::ingester as pb;
use rpc::symbols::SymbolReader;
use tonic::{Status, Streaming};
use tsdb::series::{FloatColumn, HistogramColumn, SeriesSamples, Timeline};

use crate::error::{Error, Result};

/// Where the messages of an answer come from.
#[derive(Debug)]
pub(crate) enum Messages {
    Select(Streaming<pb::SelectResponse>),
    /// Behind the part of an aggregation.
    Aggregate(Streaming<pb::AggregateResponse>),
}

impl Messages {
    async fn next(&mut self) -> std::result::Result<Option<pb::SelectResponse>, Status> {
        use pb::aggregate_response::Piece;
        match self {
            Self::Select(stream) => stream.message().await,
            Self::Aggregate(stream) => match stream.message().await?.map(|message| message.piece) {
                None => Ok(None),
                Some(Some(Piece::Whole(message))) => Ok(Some(message)),
                Some(_) => Err(unreadable("it does not go on with whole series")),
            },
        }
    }
}

/// An answer that is being read.
#[derive(Debug)]
pub(crate) struct HeadAnswer {
    source: String,
    messages: Messages,
    /// What the head covers.
    pub(crate) state: pb::HeadState,
    /// The label sets, sorted by metric name, then labels.
    pub(crate) labels: Vec<Labels>,
    timelines: Vec<Timeline>,
    ready: VecDeque<SeriesSamples>,
    delivered: usize,
}

impl HeadAnswer {
    /// Reads the state and every label set; samples are read later, as they are asked for.
    pub(crate) async fn begin(source: String, messages: Messages) -> std::result::Result<Self, Status> {
        let mut answer = Self {
            source,
            messages,
            state: pb::HeadState::default(),
            labels: Vec::new(),
            timelines: Vec::new(),
            ready: VecDeque::new(),
            delivered: 0,
        };
        let first = answer.messages.next().await?.ok_or_else(|| unreadable("it sent nothing"))?;
        answer.state = first.state.ok_or_else(|| unreadable("its first message has no state"))?;
        loop {
            let message = answer.messages.next().await?;
            let message = message.ok_or_else(|| unreadable("it ended among the label sets"))?;
            let symbols = SymbolReader(&message.symbols);
            for refs in &message.labels {
                answer.labels.push(symbols.labels(refs).map_err(unreadable)?);
            }
            if message.is_labels_end {
                return Ok(answer);
            }
        }
    }

    /// Returns the samples of the next series, in the order of the label sets.
    pub(crate) async fn next(&mut self) -> Result<SeriesSamples> {
        while self.ready.is_empty() {
            let message = self.message().await?.ok_or_else(|| self.broken("it ended among the samples"))?;
            for timeline in &message.timelines {
                let times = ascending_times(&timeline.deltas).map_err(|e| self.broken(e))?;
                self.timelines.push(Timeline::from(times));
            }
            for samples in &message.samples {
                let samples = self.decode(samples)?;
                self.ready.push_back(samples);
            }
        }
        self.delivered += 1;
        self.ready.pop_front().ok_or_else(|| self.broken("no samples"))
    }

    fn decode(&self, message: &pb::SeriesSamples) -> Result<SeriesSamples> {
        let expected = self.delivered + self.ready.len();
        if usize::try_from(message.series) != Ok(expected) {
            return Err(self.broken(format!("series {} stands where {expected} is expected", message.series)));
        }
        let timestamps = match message.timeline.checked_sub(1) {
            None => Timeline::default(),
            Some(number) => {
                let timeline = self.timelines.get(number as usize).cloned();
                timeline.ok_or_else(|| self.broken(format!("timeline {number} was not declared")))?
            }
        };
        let times = |deltas: &[i64]| ascending_times(deltas).map_err(|e| self.broken(e));
        let histogram_times = times(&message.histogram_deltas)?;
        let started = times(&message.started_deltas)?;
        let is_whole = timestamps.len() == message.values.len()
            && histogram_times.len() == message.histograms.len()
            && started.len() == message.starts.len();
        if !is_whole {
            return Err(self.broken("times and values differ in number"));
        }
        let histograms: Arc<[Arc<Histogram>]> =
            message.histograms.iter().map(|h| Arc::new(Histogram::from(h))).collect();
        Ok(SeriesSamples {
            floats: FloatColumn { timestamps, values: message.values.as_slice().into() },
            histograms: HistogramColumn { timestamps: histogram_times.into(), values: histograms },
            start_timestamps: started.into_iter().zip(message.starts.iter().copied()).collect(),
            exemplars: Arc::<[Exemplar]>::from([]),
        })
    }

    async fn message(&mut self) -> Result<Option<pb::SelectResponse>> {
        self.messages.next().await.map_err(|s| Error::peer(&self.source, &s))
    }

    fn broken(&self, problem: impl std::fmt::Display) -> Error {
        Error::peer(&self.source, &unreadable(problem))
    }
}

pub(crate) fn unreadable(problem: impl std::fmt::Display) -> Status {
    Status::internal(format!("unreadable answer: {problem}"))
}
