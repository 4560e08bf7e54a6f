//! Between messages and values of `model`.
//!
//! Turning a value into a message cannot fail; the other way checks what the message claims.

use std::sync::Arc;

use model::histogram::{CounterResetHint, FloatHistogram, Histogram, IntegerHistogram, Span};
use model::{Exemplar, Labels, MatchOp, Matcher, Metadata, MetricType, Tenant, Timestamp};

use crate::error::{Error, Result};
use crate::pb::model as pb;

pub mod last_samples;
pub mod query;

/// Returns the tenant that a message names; the empty name is the default tenant.
///
/// # Errors
/// When the name is not a tenant's name.
pub fn tenant(name: &str) -> Result<Tenant> {
    if name.is_empty() {
        Ok(Tenant::default())
    } else {
        Tenant::new(name).map_err(|e| Error::invalid("tenant", e))
    }
}

/// Returns the limit that a message gives; 0 is no limit.
#[must_use]
pub fn limit(limit: u64) -> usize {
    if limit == 0 { usize::MAX } else { usize::try_from(limit).unwrap_or(usize::MAX) }
}

impl From<&Labels> for pb::Labels {
    fn from(labels: &Labels) -> Self {
        Self { pairs: labels.iter().flat_map(|(n, v)| [n.to_owned(), v.to_owned()]).collect() }
    }
}

impl TryFrom<&pb::Labels> for Labels {
    type Error = Error;

    fn try_from(message: &pb::Labels) -> Result<Self> {
        let (pairs, rest) = message.pairs.as_chunks::<2>();
        if !rest.is_empty() {
            return Err(Error::invalid("labels", "a name without a value"));
        }
        Self::from_sorted(pairs.iter().map(|[n, v]| (n.as_str(), v.as_str())))
            .ok_or_else(|| Error::invalid("labels", "not sorted by name and unique"))
    }
}

/// Returns the labels of an optional field; absent means none.
///
/// # Errors
/// When they are not sorted and unique.
pub fn labels(message: Option<&pb::Labels>) -> Result<Labels> {
    message.map_or_else(|| Ok(Labels::empty()), Labels::try_from)
}

impl From<&Matcher> for pb::Matcher {
    fn from(matcher: &Matcher) -> Self {
        let op = match matcher.op() {
            MatchOp::Equal => pb::matcher::Op::Equal,
            MatchOp::NotEqual => pb::matcher::Op::NotEqual,
            MatchOp::Regex => pb::matcher::Op::Regex,
            MatchOp::NotRegex => pb::matcher::Op::NotRegex,
        };
        Self { op: op.into(), name: matcher.name().to_owned(), value: matcher.value().to_owned() }
    }
}

impl TryFrom<&pb::Matcher> for Matcher {
    type Error = Error;

    fn try_from(message: &pb::Matcher) -> Result<Self> {
        let op = match message.op() {
            pb::matcher::Op::Unspecified => return Err(Error::Missing("matcher.op")),
            pb::matcher::Op::Equal => MatchOp::Equal,
            pb::matcher::Op::NotEqual => MatchOp::NotEqual,
            pb::matcher::Op::Regex => MatchOp::Regex,
            pb::matcher::Op::NotRegex => MatchOp::NotRegex,
        };
        Self::new(op, &message.name, &message.value).map_err(|e| Error::invalid("matcher.value", e))
    }
}

/// Converts matchers to messages.
#[must_use]
pub fn matchers_to_pb(matchers: &[Matcher]) -> Vec<pb::Matcher> {
    matchers.iter().map(pb::Matcher::from).collect()
}

/// Converts messages to matchers.
///
/// # Errors
/// When an operator is missing or a pattern does not compile.
pub fn matchers(messages: &[pb::Matcher]) -> Result<Vec<Matcher>> {
    messages.iter().map(Matcher::try_from).collect()
}

/// Converts sets of matchers to messages.
#[must_use]
pub fn matcher_sets_to_pb(sets: &[Vec<Matcher>]) -> Vec<pb::MatcherSet> {
    sets.iter().map(|set| pb::MatcherSet { matchers: matchers_to_pb(set) }).collect()
}

/// Converts messages to sets of matchers.
///
/// # Errors
/// When an operator is missing or a pattern does not compile.
pub fn matcher_sets(messages: &[pb::MatcherSet]) -> Result<Vec<Vec<Matcher>>> {
    messages.iter().map(|set| matchers(&set.matchers)).collect()
}

impl From<MetricType> for pb::MetricType {
    fn from(kind: MetricType) -> Self {
        match kind {
            MetricType::Unknown => Self::Unspecified,
            MetricType::Counter => Self::Counter,
            MetricType::Gauge => Self::Gauge,
            MetricType::Histogram => Self::Histogram,
            MetricType::GaugeHistogram => Self::GaugeHistogram,
            MetricType::Summary => Self::Summary,
            MetricType::Info => Self::Info,
            MetricType::StateSet => Self::StateSet,
        }
    }
}

impl From<pb::MetricType> for MetricType {
    fn from(message: pb::MetricType) -> Self {
        match message {
            pb::MetricType::Unspecified => Self::Unknown,
            pb::MetricType::Counter => Self::Counter,
            pb::MetricType::Gauge => Self::Gauge,
            pb::MetricType::Histogram => Self::Histogram,
            pb::MetricType::GaugeHistogram => Self::GaugeHistogram,
            pb::MetricType::Summary => Self::Summary,
            pb::MetricType::Info => Self::Info,
            pb::MetricType::StateSet => Self::StateSet,
        }
    }
}

impl From<&Metadata> for pb::Metadata {
    fn from(metadata: &Metadata) -> Self {
        Self {
            r#type: pb::MetricType::from(metadata.kind).into(),
            unit: metadata.unit.to_string(),
            help: metadata.help.to_string(),
        }
    }
}

impl From<&pb::Metadata> for Metadata {
    fn from(message: &pb::Metadata) -> Self {
        Self {
            kind: message.r#type().into(),
            unit: Arc::from(message.unit.as_str()),
            help: Arc::from(message.help.as_str()),
        }
    }
}

impl From<&Exemplar> for pb::Exemplar {
    fn from(exemplar: &Exemplar) -> Self {
        Self {
            labels: Some((&exemplar.labels).into()),
            value: Some(exemplar.value),
            timestamp: exemplar.timestamp.map(Timestamp::millis),
        }
    }
}

impl TryFrom<&pb::Exemplar> for Exemplar {
    type Error = Error;

    fn try_from(message: &pb::Exemplar) -> Result<Self> {
        Ok(Self {
            labels: labels(message.labels.as_ref())?,
            value: message.value(),
            timestamp: message.timestamp.map(Timestamp),
        })
    }
}

fn spans_to_pb(spans: &[Span]) -> Vec<pb::BucketSpan> {
    spans.iter().map(|s| pb::BucketSpan { offset: s.offset, length: s.length }).collect()
}

fn spans(messages: &[pb::BucketSpan]) -> Vec<Span> {
    messages.iter().map(|s| Span { offset: s.offset, length: s.length }).collect()
}

/// Converts a reset hint to its number in messages.
#[must_use]
pub fn hint_to_pb(hint: CounterResetHint) -> i32 {
    use pb::histogram::ResetHint;
    match hint {
        CounterResetHint::Unknown => ResetHint::Unspecified,
        CounterResetHint::Reset => ResetHint::Reset,
        CounterResetHint::NotReset => ResetHint::NotReset,
        CounterResetHint::Gauge => ResetHint::Gauge,
    }
    .into()
}

/// Converts a message's reset hint.
#[must_use]
pub fn hint(message: pb::histogram::ResetHint) -> CounterResetHint {
    use pb::histogram::ResetHint;
    match message {
        ResetHint::Unspecified => CounterResetHint::Unknown,
        ResetHint::Reset => CounterResetHint::Reset,
        ResetHint::NotReset => CounterResetHint::NotReset,
        ResetHint::Gauge => CounterResetHint::Gauge,
    }
}

impl From<&FloatHistogram> for pb::Histogram {
    fn from(h: &FloatHistogram) -> Self {
        Self {
            is_float: true,
            count_float: Some(h.count),
            sum: Some(h.sum),
            schema: h.schema,
            zero_threshold: Some(h.zero_threshold),
            zero_count_float: Some(h.zero_count),
            negative_spans: spans_to_pb(&h.negative_spans),
            negative_counts: h.negative_buckets.clone(),
            positive_spans: spans_to_pb(&h.positive_spans),
            positive_counts: h.positive_buckets.clone(),
            reset_hint: hint_to_pb(h.counter_reset_hint),
            custom_values: h.custom_values.to_vec(),
            ..Self::default()
        }
    }
}

impl From<&IntegerHistogram> for pb::Histogram {
    fn from(h: &IntegerHistogram) -> Self {
        Self {
            is_float: false,
            count_int: h.count,
            sum: Some(h.sum),
            schema: h.schema,
            zero_threshold: Some(h.zero_threshold),
            zero_count_int: h.zero_count,
            negative_spans: spans_to_pb(&h.negative_spans),
            negative_deltas: h.negative_deltas.clone(),
            positive_spans: spans_to_pb(&h.positive_spans),
            positive_deltas: h.positive_deltas.clone(),
            reset_hint: hint_to_pb(h.counter_reset_hint),
            custom_values: h.custom_values.to_vec(),
            ..Self::default()
        }
    }
}

impl From<&Histogram> for pb::Histogram {
    fn from(h: &Histogram) -> Self {
        match h {
            Histogram::Integer(h) => h.into(),
            Histogram::Float(h) => h.into(),
        }
    }
}

impl From<&pb::Histogram> for Histogram {
    /// Takes the message as it stands; [`Histogram::validate`] says whether it keeps the rules.
    fn from(m: &pb::Histogram) -> Self {
        let counter_reset_hint = hint(m.reset_hint());
        let custom_values = Arc::from(m.custom_values.as_slice());
        let (positive_spans, negative_spans) = (spans(&m.positive_spans), spans(&m.negative_spans));
        if m.is_float {
            Self::Float(FloatHistogram {
                counter_reset_hint,
                schema: m.schema,
                zero_threshold: m.zero_threshold(),
                zero_count: m.zero_count_float(),
                count: m.count_float(),
                sum: m.sum(),
                positive_spans,
                negative_spans,
                positive_buckets: m.positive_counts.clone(),
                negative_buckets: m.negative_counts.clone(),
                custom_values,
            })
        } else {
            Self::Integer(IntegerHistogram {
                counter_reset_hint,
                schema: m.schema,
                zero_threshold: m.zero_threshold(),
                zero_count: m.zero_count_int,
                count: m.count_int,
                sum: m.sum(),
                positive_spans,
                negative_spans,
                positive_deltas: m.positive_deltas.clone(),
                negative_deltas: m.negative_deltas.clone(),
                custom_values,
            })
        }
    }
}

/// Turns ascending places into the first followed by differences.
#[must_use]
pub fn place_deltas(places: &[u32]) -> Vec<u32> {
    let before = std::iter::once(0).chain(places.iter().copied());
    places.iter().zip(before).map(|(place, before)| place.wrapping_sub(before)).collect()
}

/// Turns the first place followed by differences back into places, which must ascend.
///
/// # Errors
/// When they do not ascend, or overflow.
pub fn ascending_places(deltas: &[u32]) -> Result<Vec<u32>> {
    let mut places: Vec<u32> = Vec::with_capacity(deltas.len());
    for delta in deltas {
        let place = match places.last() {
            None => Some(*delta),
            Some(before) => before.checked_add(*delta).filter(|place| place > before),
        };
        places.push(place.ok_or_else(|| Error::invalid("deltas", "places do not ascend"))?);
    }
    Ok(places)
}

/// Turns times into the first time followed by differences.
#[must_use]
pub fn deltas(times: impl IntoIterator<Item = i64>) -> Vec<i64> {
    let mut previous = 0_i64;
    times
        .into_iter()
        .map(|t| {
            let delta = t.wrapping_sub(previous);
            previous = t;
            delta
        })
        .collect()
}

/// Turns the first time followed by differences back into times, which must ascend.
///
/// # Errors
/// When they do not ascend, or overflow.
pub fn ascending_times(deltas: &[i64]) -> Result<Vec<i64>> {
    let mut times = Vec::with_capacity(deltas.len());
    let mut previous: Option<i64> = None;
    for delta in deltas {
        let time = match previous {
            None => *delta,
            Some(p) if *delta > 0 => {
                p.checked_add(*delta).ok_or_else(|| Error::invalid("deltas", "a time out of range"))?
            }
            Some(_) => return Err(Error::invalid("deltas", "times do not ascend")),
        };
        previous = Some(time);
        times.push(time);
    }
    Ok(times)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sign_of_zero_survives_the_wire() {
        use prost::Message as _;
        let exemplar = Exemplar { labels: Labels::empty(), value: -0.0, timestamp: None };
        let bytes = pb::Exemplar::from(&exemplar).encode_to_vec();
        let back = Exemplar::try_from(&pb::Exemplar::decode(&*bytes).expect("valid")).expect("valid");
        assert_eq!(back.value.to_bits(), (-0.0_f64).to_bits());
        let histogram = Histogram::Float(FloatHistogram { sum: -0.0, ..FloatHistogram::default() });
        let bytes = pb::Histogram::from(&histogram).encode_to_vec();
        assert!(Histogram::from(&pb::Histogram::decode(&*bytes).expect("valid")).bit_eq(&histogram));
    }

    #[test]
    fn histograms_of_both_sorts_come_back_bit_for_bit() {
        let integer = IntegerHistogram {
            counter_reset_hint: CounterResetHint::NotReset,
            schema: 3,
            zero_threshold: 1e-128,
            zero_count: 2,
            count: 9,
            sum: f64::from_bits(model::STALE_NAN_BITS),
            positive_spans: vec![Span { offset: -3, length: 2 }],
            negative_spans: vec![Span { offset: 1, length: 1 }],
            positive_deltas: vec![4, -2],
            negative_deltas: vec![1],
            custom_values: Arc::from([]),
        };
        let float = FloatHistogram {
            counter_reset_hint: CounterResetHint::Gauge,
            schema: -53,
            count: 3.5,
            sum: -0.0,
            positive_spans: vec![Span { offset: 0, length: 2 }],
            positive_buckets: vec![1.5, 2.0],
            custom_values: Arc::from([0.5, 1.0]),
            ..FloatHistogram::default()
        };
        for h in [Histogram::Integer(integer), Histogram::Float(float)] {
            assert!(Histogram::from(&pb::Histogram::from(&h)).bit_eq(&h), "{h:?}");
        }
    }

    #[test]
    fn times_survive_as_differences() {
        for times in [vec![], vec![-5], vec![i64::MIN, -1, 0, 7, i64::MAX - 1]] {
            assert_eq!(ascending_times(&deltas(times.iter().copied())), Ok(times));
        }
        assert!(ascending_times(&[5, 0]).is_err(), "twice the same time");
        assert!(ascending_times(&[i64::MAX, 1]).is_err());
    }

    #[test]
    fn places_survive_as_differences() {
        for places in [vec![], vec![0], vec![7, 8, u32::MAX]] {
            assert_eq!(ascending_places(&place_deltas(&places)), Ok(places));
        }
        assert!(ascending_places(&[5, 0]).is_err(), "twice the same place");
        assert!(ascending_places(&[u32::MAX, 1]).is_err());
    }

    #[test]
    fn matchers_and_labels_are_checked() {
        let good = Matcher::new(MatchOp::NotRegex, "job", "a|b").expect("valid");
        assert_eq!(Matcher::try_from(&pb::Matcher::from(&good)), Ok(good));
        let unspecified = pb::Matcher { op: 0, name: "a".into(), value: String::new() };
        assert_eq!(Matcher::try_from(&unspecified), Err(Error::Missing("matcher.op")));
        let broken = pb::Matcher { op: 3, name: "a".into(), value: "(".into() };
        assert!(Matcher::try_from(&broken).is_err());
        let unsorted = pb::Labels { pairs: ["b", "1", "a", "2"].map(String::from).to_vec() };
        assert!(Labels::try_from(&unsorted).is_err());
        assert_eq!(tenant(""), Ok(Tenant::default()));
        assert!(tenant("a/b").is_err());
    }
}
