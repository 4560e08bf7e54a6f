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
use crate::sources::covered;

/// Where the messages of an answer come from.
#[derive(Debug)]
pub(crate) enum Messages {
    Select(Streaming<pb::SelectResponse>),
    /// Behind the part of an aggregation.
    Aggregate(Streaming<pb::AggregateResponse>),
    /// Among other answers, of which it has come already.
    Among(std::vec::IntoIter<pb::SelectResponse>),
}

impl Messages {
    async fn next(&mut self) -> std::result::Result<Option<pb::SelectResponse>, Status> {
        use pb::aggregate_response::Piece;
        match self {
            Self::Select(stream) => stream.message().await,
            Self::Among(messages) => Ok(messages.next()),
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
    /// Parts of the series of which more is to come.
    begun: Vec<SeriesSamples>,
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
            begun: Vec::new(),
            ready: VecDeque::new(),
            delivered: 0,
        };
        let mut message = answer.messages.next().await?.ok_or_else(|| unreadable("it sent nothing"))?;
        answer.state = message.state.take().ok_or_else(|| unreadable("its first message has no state"))?;
        loop {
            let symbols = SymbolReader(&message.symbols);
            for refs in &message.labels {
                answer.labels.push(symbols.labels(refs).map_err(unreadable)?);
            }
            if message.is_labels_end {
                answer.take_samples(&message).map_err(unreadable)?;
                return Ok(answer);
            }
            let next = answer.messages.next().await?;
            message = next.ok_or_else(|| unreadable("it ended among the label sets"))?;
        }
    }

    /// Reads several answers to their ends; `None` for those that were left out. Says which logs all of them cover.
    pub(crate) async fn all(
        source: &str,
        mut messages: Streaming<pb::SelectResponse>,
        count: usize,
    ) -> std::result::Result<(Vec<Option<Self>>, Vec<String>), Status> {
        let mut parts: Vec<Vec<pb::SelectResponse>> = Vec::with_capacity(count);
        while let Some(message) = messages.message().await? {
            match parts.last_mut() {
                Some(part) if message.state.is_none() => part.push(message),
                _ => parts.push(vec![message]),
            }
        }
        if parts.len() != count {
            return Err(unreadable(format!("{} answers stand where {count} are expected", parts.len())));
        }
        let states = || parts.iter().map(|part| part.first().and_then(|message| message.state.as_ref()));
        let mut logs = covered(states().next().flatten());
        logs.retain(|log| states().all(|state| covered(state).contains(log)));
        let mut answers = Vec::with_capacity(count);
        for part in parts {
            answers.push(match part.first() {
                Some(first) if !first.is_left_out => {
                    Some(Self::begin(source.to_owned(), Messages::Among(part.into_iter())).await?)
                }
                _ => None,
            });
        }
        Ok((answers, logs))
    }

    /// Returns the samples of the next series, in the order of the label sets.
    pub(crate) async fn next(&mut self) -> Result<SeriesSamples> {
        while self.ready.is_empty() {
            let message = self.message().await?.ok_or_else(|| self.broken("it ended among the samples"))?;
            self.take_samples(&message).map_err(|e| self.broken(e))?;
        }
        self.delivered += 1;
        self.ready.pop_front().ok_or_else(|| self.broken("no samples"))
    }

    fn take_samples(&mut self, message: &pb::SelectResponse) -> std::result::Result<(), String> {
        for timeline in &message.timelines {
            let times = ascending_times(&timeline.deltas).map_err(|e| e.to_string())?;
            self.timelines.push(Timeline::from(times));
        }
        for samples in &message.samples {
            let part = self.decode(samples)?;
            let before = self.begun.last().and_then(SeriesSamples::times);
            let is_later = before.zip(part.times()).is_none_or(|((_, last), (first, _))| last < first);
            if !is_later {
                return Err(format!("a part of series {} is not behind the one before", samples.series));
            }
            self.begun.push(part);
            if !samples.goes_on {
                self.ready.push_back(SeriesSamples::concat(std::mem::take(&mut self.begun)));
            }
        }
        Ok(())
    }

    fn decode(&self, message: &pb::SeriesSamples) -> std::result::Result<SeriesSamples, String> {
        let expected = self.delivered + self.ready.len();
        if usize::try_from(message.series) != Ok(expected) {
            return Err(format!("series {} stands where {expected} is expected", message.series));
        }
        let times = |deltas: &[i64]| ascending_times(deltas).map_err(|e| e.to_string());
        let timestamps = match message.timeline.checked_sub(1) {
            None => times(&message.float_deltas)?.into(),
            Some(number) => {
                let timeline = self.timelines.get(number as usize).cloned();
                timeline.ok_or_else(|| format!("timeline {number} was not declared"))?
            }
        };
        let histogram_times = times(&message.histogram_deltas)?;
        let started = times(&message.started_deltas)?;
        let is_whole = timestamps.len() == message.values.len()
            && histogram_times.len() == message.histograms.len()
            && started.len() == message.starts.len();
        if !is_whole {
            return Err("times and values differ in number".to_owned());
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
