//! Query answers, cut into messages of bounded size, and read piece by piece.

use std::sync::Arc;

use model::query::{MatrixSeries, PointValue, QueryAnswer, QueryStats, QueryValue, StepStats, VectorElement};
use model::{Histogram, Labels, Timestamp};

use super::{ascending_times, deltas};
use crate::error::{Error, Result};
use crate::pb::{model as pbm, querier as pb};
use crate::symbols::{SymbolReader, SymbolWriter};

/// Points after which a message is closed and the next one begun: few enough for its bytes, and the text made of them, to
/// stay in a processor's cache.
const POINTS_PER_MESSAGE: usize = 10_000;
/// What a histogram counts for, since it is about as large as that many floats.
const HISTOGRAM_WEIGHT: usize = 20;

/// What a querier adds to an answer.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct AnswerNotes {
    /// Parts that took no part: source and reason.
    pub missing: Vec<(String, String)>,
    /// Whether a limit cut the answer.
    pub is_truncated: bool,
    /// Seconds waited for a place.
    pub queue_seconds: f64,
    /// Seconds spent preparing.
    pub prepare_seconds: f64,
    /// Seconds spent evaluating.
    pub eval_seconds: f64,
}

/// Cuts an answer into messages, one at a time, so that no second copy of a large answer exists. A series that has more
/// points than a message takes goes on in the next one.
pub fn messages(answer: QueryAnswer, notes: AnswerNotes) -> impl Iterator<Item = pb::QueryResponse> + Send {
    let QueryAnswer { value, warnings, infos, stats } = answer;
    let (kind, scalar, series) = split(value);
    let end = pb::QueryEnd {
        warnings,
        infos,
        missing: notes.missing.into_iter().map(|(source, reason)| pbm::Missing { source, reason }).collect(),
        stats: Some(pb::QueryStats {
            samples_total: stats.samples_total,
            samples_read: stats.samples_read,
            samples_peak: stats.samples_peak,
            queue_seconds: notes.queue_seconds,
            prepare_seconds: notes.prepare_seconds,
            eval_seconds: notes.eval_seconds,
            steps: stats.steps.iter().map(step_to_pb).collect(),
        }),
        is_truncated: notes.is_truncated,
    };
    let mut series = series.into_iter();
    let mut begun: Option<Begun> = None;
    let mut last = Some((scalar, end));
    std::iter::from_fn(move || {
        let (mut symbols, mut batch, mut points) = (SymbolWriter::default(), Vec::new(), 0);
        while points < POINTS_PER_MESSAGE {
            let next = || series.next().map(|series| Begun { series, floats: 0, histograms: 0 });
            let Some(mut next) = begun.take().or_else(next) else { break };
            let part = next.part(&mut symbols);
            // A series counts at least once, so that a vector of a million elements is cut as well.
            points += 1 + part.floats.len() + HISTOGRAM_WEIGHT * part.histograms.len();
            batch.push(part);
            begun = (!next.is_over()).then_some(next);
        }
        if batch.is_empty() {
            let (scalar, end) = last.take()?;
            return Some(pb::QueryResponse {
                r#type: kind.into(),
                scalar,
                end: Some(end),
                ..Default::default()
            });
        }
        Some(pb::QueryResponse {
            r#type: kind.into(),
            symbols: symbols.take(),
            series: batch,
            ..Default::default()
        })
    })
}

fn split(value: QueryValue) -> (pb::ValueType, Option<pb::ScalarOrString>, Vec<MatrixSeries>) {
    match value {
        QueryValue::Scalar(t, scalar) => {
            let message =
                pb::ScalarOrString { timestamp: t.millis(), scalar: Some(scalar), text: String::new() };
            (pb::ValueType::Scalar, Some(message), Vec::new())
        }
        QueryValue::String(t, text) => {
            let message = pb::ScalarOrString { timestamp: t.millis(), scalar: None, text };
            (pb::ValueType::String, Some(message), Vec::new())
        }
        QueryValue::Matrix(series) => (pb::ValueType::Matrix, None, series),
        QueryValue::Vector(elements) => {
            let series = elements.into_iter().map(|e| {
                let mut series = MatrixSeries { labels: e.labels, ..MatrixSeries::default() };
                match e.value {
                    PointValue::Float(x) => series.floats.push((e.timestamp, x)),
                    PointValue::Histogram(h) => series.histograms.push((e.timestamp, h)),
                }
                series
            });
            (pb::ValueType::Vector, None, series.collect())
        }
    }
}

/// A series, and how many of its points were sent.
struct Begun {
    series: MatrixSeries,
    floats: usize,
    histograms: usize,
}

impl Begun {
    /// Takes as many points as a message may have, floats before histograms.
    fn part(&mut self, symbols: &mut SymbolWriter) -> pb::ResultSeries {
        let MatrixSeries { labels, floats, histograms } = &self.series;
        let is_first = (self.floats, self.histograms) == (0, 0);
        let (floats, histograms) = (&floats[self.floats..], &histograms[self.histograms..]);
        let floats = &floats[..floats.len().min(POINTS_PER_MESSAGE)];
        let room = (POINTS_PER_MESSAGE - floats.len()) / HISTOGRAM_WEIGHT;
        let histograms = &histograms[..histograms.len().min(room)];
        self.floats += floats.len();
        self.histograms += histograms.len();
        pb::ResultSeries {
            labels: is_first.then(|| symbols.labels(labels)),
            float_deltas: deltas(floats.iter().map(|(t, _)| t.millis())),
            floats: floats.iter().map(|(_, x)| *x).collect(),
            histogram_deltas: deltas(histograms.iter().map(|(t, _)| t.millis())),
            histograms: histograms.iter().map(|(_, h)| (&**h).into()).collect(),
        }
    }

    fn is_over(&self) -> bool {
        self.floats == self.series.floats.len() && self.histograms == self.series.histograms.len()
    }
}

/// Reads some series; says whether the first is more of one that was begun before, which has no labels.
fn series_from_pb(message: &pb::QueryResponse) -> Result<(Vec<MatrixSeries>, bool)> {
    let symbols = SymbolReader(&message.symbols);
    let continues = message.series.first().is_some_and(|series| series.labels.is_none());
    let mut all = Vec::with_capacity(message.series.len());
    for (number, one) in message.series.iter().enumerate() {
        let StoredSeries { labels, floats, histograms } = stored_series(one, symbols)?;
        let labels = match labels {
            None if number > 0 => return Err(Error::Missing("series.labels")),
            labels => labels.unwrap_or_default(),
        };
        let histograms = histograms.iter().map(|(t, h)| (*t, Arc::new(h.to_float()))).collect();
        all.push(MatrixSeries { labels, floats, histograms });
    }
    Ok((all, continues))
}

/// A series with its samples as they are stored.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct StoredSeries {
    /// The labels; `None` where it has more samples of the last series of the message before.
    pub labels: Option<Labels>,
    /// Float samples, oldest first.
    pub floats: Vec<(Timestamp, f64)>,
    /// Native histograms, oldest first.
    pub histograms: Vec<(Timestamp, Histogram)>,
}

/// Reads a series as it is stored.
///
/// # Errors
/// When the message does not keep the contract.
pub fn stored_series(message: &pb::ResultSeries, symbols: SymbolReader<'_>) -> Result<StoredSeries> {
    let labels = message.labels.as_ref().map(|labels| symbols.labels(labels)).transpose()?;
    let pair = |times: usize, values: usize| {
        if times == values {
            Ok(())
        } else {
            Err(Error::invalid("series", "as many times as values are needed"))
        }
    };
    pair(message.float_deltas.len(), message.floats.len())?;
    pair(message.histogram_deltas.len(), message.histograms.len())?;
    let floats = ascending_times(&message.float_deltas)?.into_iter().map(Timestamp);
    let histograms = ascending_times(&message.histogram_deltas)?.into_iter().map(Timestamp);
    Ok(StoredSeries {
        labels,
        floats: floats.zip(message.floats.iter().copied()).collect(),
        histograms: histograms.zip(message.histograms.iter().map(Histogram::from)).collect(),
    })
}

/// What one message of an answer holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Piece {
    /// The message's share of the value: some series, or the whole scalar or string.
    pub value: QueryValue,
    /// The first series has more points of the last one of the piece before: floats, then histograms.
    pub continues: bool,
    /// In the last message: what has to be said once the answer is complete.
    pub end: Option<End>,
}

/// What stands in the last message.
#[derive(Debug, Clone, PartialEq)]
pub struct End {
    /// Warnings, as the HTTP API prints them.
    pub warnings: Vec<String>,
    /// Infos, as the HTTP API prints them.
    pub infos: Vec<String>,
    /// What the evaluation read and held.
    pub stats: QueryStats,
    /// What the querier adds.
    pub notes: AnswerNotes,
}

/// Reads one message of an answer.
///
/// # Errors
/// When the message does not keep the contract.
pub fn piece(message: &pb::QueryResponse) -> Result<Piece> {
    let (series, continues) = series_from_pb(message)?;
    let scalar = || message.scalar.as_ref().ok_or(Error::Missing("scalar"));
    let value = match message.r#type() {
        pb::ValueType::Unspecified => return Err(Error::Missing("type")),
        pb::ValueType::Scalar => {
            let s = scalar()?;
            QueryValue::Scalar(Timestamp(s.timestamp), s.scalar())
        }
        pb::ValueType::String => {
            let s = scalar()?;
            QueryValue::String(Timestamp(s.timestamp), s.text.clone())
        }
        pb::ValueType::Matrix => QueryValue::Matrix(series),
        pb::ValueType::Vector => {
            let elements = series.into_iter().map(element).collect::<Option<_>>();
            QueryValue::Vector(elements.ok_or(Error::Missing("series.floats"))?)
        }
    };
    Ok(Piece { value, continues, end: message.end.as_ref().map(end) })
}

fn step_to_pb(step: &StepStats) -> pb::StepStats {
    pb::StepStats {
        time: step.time.millis(),
        samples_total: step.samples_total,
        samples_read: step.samples_read,
    }
}

fn step_from_pb(step: &pb::StepStats) -> StepStats {
    StepStats {
        time: Timestamp(step.time),
        samples_total: step.samples_total,
        samples_read: step.samples_read,
    }
}

fn end(message: &pb::QueryEnd) -> End {
    let stats = message.stats.clone().unwrap_or_default();
    End {
        warnings: message.warnings.clone(),
        infos: message.infos.clone(),
        stats: QueryStats {
            samples_total: stats.samples_total,
            samples_read: stats.samples_read,
            samples_peak: stats.samples_peak,
            steps: stats.steps.iter().map(step_from_pb).collect(),
        },
        notes: AnswerNotes {
            missing: message.missing.iter().map(|m| (m.source.clone(), m.reason.clone())).collect(),
            is_truncated: message.is_truncated,
            queue_seconds: stats.queue_seconds,
            prepare_seconds: stats.prepare_seconds,
            eval_seconds: stats.eval_seconds,
        },
    }
}

fn element(series: MatrixSeries) -> Option<VectorElement> {
    let MatrixSeries { labels, floats, histograms } = series;
    let (timestamp, value) = match (floats.into_iter().next(), histograms.into_iter().next()) {
        (Some((t, x)), _) => (t, PointValue::Float(x)),
        (None, Some((t, h))) => (t, PointValue::Histogram(h)),
        (None, None) => return None,
    };
    Some(VectorElement { labels, timestamp, value })
}

#[cfg(test)]
mod tests {
    use model::FloatHistogram;

    use super::*;

    /// Sends an answer through messages and puts it together again; returns how many there were.
    fn round_trip(value: QueryValue) -> usize {
        let answer = QueryAnswer {
            value,
            warnings: vec!["w".into()],
            infos: vec!["i".into()],
            stats: QueryStats {
                samples_total: 7,
                samples_read: 6,
                samples_peak: 5,
                steps: vec![StepStats { time: Timestamp(9), samples_total: 7, samples_read: 6 }],
            },
        };
        let notes = AnswerNotes {
            missing: vec![("log-1".into(), "away".into())],
            is_truncated: true,
            eval_seconds: 0.5,
            ..AnswerNotes::default()
        };
        let pieces: Vec<Piece> =
            messages(answer.clone(), notes.clone()).map(|m| piece(&m).expect("valid")).collect();
        let (last, before) = pieces.split_last().expect("an end at least");
        assert!(before.iter().all(|p| p.end.is_none()), "one end");
        let end = last.end.clone().expect("the last piece is the end");
        assert_eq!((&end.warnings, &end.infos, &end.stats), (&answer.warnings, &answer.infos, &answer.stats));
        assert_eq!(end.notes, notes);
        let mut value: Option<QueryValue> = None;
        for piece in &pieces {
            value = Some(match (value, piece.value.clone()) {
                (None, first) => first,
                (Some(QueryValue::Vector(a)), QueryValue::Vector(b)) => QueryValue::Vector([a, b].concat()),
                (Some(QueryValue::Matrix(mut a)), QueryValue::Matrix(mut b)) => {
                    if piece.continues {
                        let (begun, more) = (a.last_mut().expect("a series"), b.remove(0));
                        begun.floats.extend(more.floats);
                        begun.histograms.extend(more.histograms);
                    }
                    QueryValue::Matrix([a, b].concat())
                }
                (a, b) => panic!("pieces of two types: {a:?} and {b:?}"),
            });
        }
        assert_eq!(value, Some(answer.value));
        pieces.len()
    }

    #[test]
    fn every_type_of_answer_comes_back() {
        let labels = Labels::from_pairs([("__name__", "up"), ("job", "a")]);
        let t = Timestamp(1_000);
        let h = Arc::new(FloatHistogram { count: 2.0, sum: 3.0, ..FloatHistogram::default() });
        round_trip(QueryValue::Scalar(t, 1.5));
        round_trip(QueryValue::String(t, "x".into()));
        round_trip(QueryValue::Vector(vec![
            VectorElement { labels: labels.clone(), timestamp: t, value: PointValue::Float(-0.0) },
            VectorElement {
                labels: Labels::empty(),
                timestamp: t,
                value: PointValue::Histogram(Arc::clone(&h)),
            },
        ]));
        round_trip(QueryValue::Matrix(vec![MatrixSeries {
            labels,
            floats: vec![(t, 1.0), (Timestamp(2_000), 2.0)],
            histograms: vec![(Timestamp(1_500), h)],
        }]));
        assert_eq!(round_trip(QueryValue::Matrix(Vec::new())), 1, "an empty answer is its end alone");
    }

    #[test]
    fn large_answers_are_cut() {
        let element = |i: u32| VectorElement {
            labels: Labels::from_pairs([("i", i.to_string())]),
            timestamp: Timestamp(0),
            value: PointValue::Float(f64::from(i)),
        };
        let count = round_trip(QueryValue::Vector((0..60_000).map(element).collect()));
        assert_eq!(count, 13, "twelve batches of 5,000 elements at two points each, and the end");
    }

    #[test]
    fn large_series_are_cut() {
        let h = Arc::new(FloatHistogram { count: 2.0, sum: 3.0, ..FloatHistogram::default() });
        let series = |i: &str, floats: i64, histograms: i64| MatrixSeries {
            labels: Labels::from_pairs([("i", i)]),
            floats: (0..floats).map(|t| (Timestamp(2 * t), t as f64)).collect(),
            histograms: (0..histograms).map(|t| (Timestamp(2 * t + 1), Arc::clone(&h))).collect(),
        };
        let all =
            vec![series("a", 3, 0), series("b", 25_000, 1_100), series("c", 0, 3), series("d", 10_000, 0)];
        // 3 + 10,000, 10,000, 5,000 + 250 histograms, 500, 350 + 3 + 10,000 floats, the end.
        assert_eq!(round_trip(QueryValue::Matrix(all)), 6);
        assert_eq!(round_trip(QueryValue::Matrix(vec![series("a", 0, 0), series("b", 10_000, 0)])), 2);
    }
}
