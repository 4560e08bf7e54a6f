//! The records of a log and their bytes, version 1.
//!
//! A record is a version byte, a kind byte and fields. Label sets refer to a table of strings that stands in front of
//! the record, since the members of a group repeat each other's labels. An append refers to a group that an earlier
//! record of the same log declared; nothing else refers to another record, so that a damaged one takes only its own
//! samples with it.

use std::collections::HashMap;
use std::sync::Arc;

use model::{
    CounterResetHint, Exemplar, FloatHistogram, Histogram, IntegerHistogram, Labels, Metadata, MetricType,
    STALE_NAN_BITS, Span, Tenant, Timestamp,
};

use super::wire::{DecodeError, Reader, put_bytes, put_f64, put_i64, put_u64};
use crate::append::{GroupChange, MemberDeclaration, Presence};

const VERSION: u8 = 1;

const DECLARE: u8 = 1;
const CHANGE: u8 = 2;
const FORGET: u8 = 3;
const APPEND: u8 = 4;

/// One entry of a log.
#[derive(Debug, Clone)]
pub(crate) enum Record {
    Declare(Declare),
    Change { group: u64, change: GroupChange },
    Forget { group: u64 },
    Append(Append),
}

/// Declares a group for this log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Declare {
    pub(crate) group: u64,
    pub(crate) tenant: Tenant,
    pub(crate) key: Labels,
    pub(crate) sub_group: u32,
    pub(crate) epoch: u64,
    pub(crate) displaced: bool,
    /// In the order of their numbers; `None` for numbers whose member was removed.
    pub(crate) members: Vec<Option<MemberDeclaration>>,
}

/// The accepted samples of one group at one time.
#[derive(Debug, Clone)]
pub(crate) struct Append {
    pub(crate) group: u64,
    pub(crate) timestamp: i64,
    pub(crate) presence: Presence,
    pub(crate) values: Vec<f64>,
    pub(crate) histograms: Vec<(u32, Arc<Histogram>)>,
    pub(crate) starts: Vec<(u32, i64)>,
    pub(crate) exemplars: Vec<(u32, Exemplar)>,
}

/// The parts of an append, borrowed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AppendParts<'a> {
    pub(crate) group: u64,
    pub(crate) timestamp: i64,
    pub(crate) presence: &'a Presence,
    pub(crate) values: &'a [f64],
    pub(crate) histograms: &'a [(u32, Arc<Histogram>)],
    pub(crate) starts: &'a [(u32, i64)],
    pub(crate) exemplars: &'a [(u32, Exemplar)],
}

/// Writes a declaration.
pub(crate) fn put_declare(out: &mut Vec<u8>, declare: &Declare) {
    let mut symbols = Symbols::default();
    let mut body = Vec::new();
    put_u64(&mut body, declare.group);
    put_bytes(&mut body, declare.tenant.as_str().as_bytes());
    put_labels(&mut body, &mut symbols, &declare.key);
    put_u64(&mut body, u64::from(declare.sub_group));
    put_u64(&mut body, declare.epoch);
    body.push(u8::from(declare.displaced));
    put_u64(&mut body, declare.members.len() as u64);
    for member in &declare.members {
        body.push(u8::from(member.is_some()));
        if let Some(member) = member {
            put_member(&mut body, &mut symbols, member);
        }
    }
    put_record(out, DECLARE, Some(&symbols), &body);
}

/// Writes a change.
pub(crate) fn put_change(out: &mut Vec<u8>, group: u64, change: &GroupChange) {
    let mut symbols = Symbols::default();
    let mut body = Vec::new();
    put_u64(&mut body, group);
    put_u64(&mut body, change.add.len() as u64);
    for member in &change.add {
        put_member(&mut body, &mut symbols, member);
    }
    put_u64(&mut body, change.remove.len() as u64);
    for member in &change.remove {
        put_u64(&mut body, u64::from(*member));
    }
    put_u64(&mut body, change.metadata.len() as u64);
    for (member, metadata) in &change.metadata {
        put_u64(&mut body, u64::from(*member));
        put_metadata(&mut body, &mut symbols, metadata);
    }
    body.push(u8::from(change.epoch.is_some()));
    put_u64(&mut body, change.epoch.unwrap_or(0));
    body.push(match change.displaced {
        None => 0,
        Some(false) => 1,
        Some(true) => 2,
    });
    put_record(out, CHANGE, Some(&symbols), &body);
}

/// Writes that a group is no longer used.
pub(crate) fn put_forget(out: &mut Vec<u8>, group: u64) {
    let mut body = Vec::new();
    put_u64(&mut body, group);
    put_record(out, FORGET, None, &body);
}

/// Writes samples.
pub(crate) fn put_append(out: &mut Vec<u8>, append: &AppendParts<'_>) {
    out.extend_from_slice(&[VERSION, APPEND]);
    put_u64(out, append.group);
    put_i64(out, append.timestamp);
    match append.presence {
        Presence::All => out.push(0),
        Presence::Absent(bits) => {
            out.push(1);
            put_bytes(out, bits);
        }
        Presence::Present(members) => {
            out.push(2);
            put_u64(out, members.len() as u64);
            let mut previous = 0;
            for member in members {
                put_u64(out, u64::from(member.wrapping_sub(previous)));
                previous = *member;
            }
        }
    }
    put_u64(out, append.values.len() as u64);
    for value in append.values {
        put_value(out, *value);
    }
    put_u64(out, append.histograms.len() as u64);
    for (member, histogram) in append.histograms {
        put_u64(out, u64::from(*member));
        put_histogram(out, histogram);
    }
    put_u64(out, append.starts.len() as u64);
    for (member, start) in append.starts {
        put_u64(out, u64::from(*member));
        // Close to the sample's time: the difference is the shorter number.
        put_i64(out, append.timestamp.wrapping_sub(*start));
    }
    put_u64(out, append.exemplars.len() as u64);
    for (member, exemplar) in append.exemplars {
        put_u64(out, u64::from(*member));
        put_bytes(out, exemplar.labels.as_encoded().as_bytes());
        put_f64(out, exemplar.value);
        out.push(u8::from(exemplar.timestamp.is_some()));
        put_i64(out, exemplar.timestamp.map_or(0, Timestamp::millis));
    }
}

/// Reads a record.
pub(crate) fn decode(bytes: &[u8]) -> Result<Record, DecodeError> {
    let mut reader = Reader::new(bytes);
    if reader.u8()? != VERSION {
        return Err(DecodeError("the record is of another version"));
    }
    let record = match reader.u8()? {
        DECLARE => Record::Declare(read_declare(&mut reader)?),
        CHANGE => read_change(&mut reader)?,
        FORGET => Record::Forget { group: reader.u64()? },
        APPEND => Record::Append(read_append(&mut reader)?),
        _ => return Err(DecodeError("the record is of an unknown kind")),
    };
    if reader.is_empty() { Ok(record) } else { Err(DecodeError("the record is longer than its fields")) }
}

/// The strings of one record, each once.
#[derive(Default)]
struct Symbols<'a> {
    numbers: HashMap<&'a str, u64, rapidhash::fast::RandomState>,
    bytes: Vec<u8>,
}

impl<'a> Symbols<'a> {
    fn put(&mut self, out: &mut Vec<u8>, text: &'a str) {
        let next = self.numbers.len() as u64;
        let number = *self.numbers.entry(text).or_insert_with(|| {
            put_bytes(&mut self.bytes, text.as_bytes());
            next
        });
        put_u64(out, number);
    }
}

fn put_record(out: &mut Vec<u8>, kind: u8, symbols: Option<&Symbols<'_>>, body: &[u8]) {
    out.extend_from_slice(&[VERSION, kind]);
    if let Some(symbols) = symbols {
        put_u64(out, symbols.numbers.len() as u64);
        out.extend_from_slice(&symbols.bytes);
    }
    out.extend_from_slice(body);
}

fn put_labels<'a>(out: &mut Vec<u8>, symbols: &mut Symbols<'a>, labels: &'a Labels) {
    put_u64(out, labels.len() as u64);
    for (name, value) in labels {
        symbols.put(out, name);
        symbols.put(out, value);
    }
}

fn put_member<'a>(out: &mut Vec<u8>, symbols: &mut Symbols<'a>, member: &'a MemberDeclaration) {
    put_labels(out, symbols, &member.labels);
    put_metadata(out, symbols, &member.metadata);
}

fn put_metadata<'a>(out: &mut Vec<u8>, symbols: &mut Symbols<'a>, metadata: &'a Metadata) {
    out.push(metric_type_number(metadata.kind));
    symbols.put(out, &metadata.unit);
    symbols.put(out, &metadata.help);
}

const METRIC_TYPES: [MetricType; 8] = [
    MetricType::Unknown,
    MetricType::Counter,
    MetricType::Gauge,
    MetricType::Histogram,
    MetricType::GaugeHistogram,
    MetricType::Summary,
    MetricType::Info,
    MetricType::StateSet,
];

fn metric_type_number(kind: MetricType) -> u8 {
    let number = METRIC_TYPES.iter().position(|k| *k == kind).expect("every type is listed");
    u8::try_from(number).expect("there are few types")
}

/// Numbers up to 2^53 are varints of twice the number; what is not such a number is an odd byte and its bits.
#[inline]
#[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "checked bit for bit")]
fn put_value(out: &mut Vec<u8>, value: f64) {
    let integer = value as i64;
    if (integer as f64).to_bits() == value.to_bits() && integer.unsigned_abs() <= 1 << 53 {
        put_u64(out, ((integer << 1) ^ (integer >> 63)).cast_unsigned() << 1);
    } else if value.to_bits() == STALE_NAN_BITS {
        out.push(3);
    } else {
        out.push(1);
        put_f64(out, value);
    }
}

#[expect(clippy::cast_precision_loss, reason = "put_value writes exact integers only")]
fn read_value(reader: &mut Reader<'_>) -> Result<f64, DecodeError> {
    let number = reader.u64()?;
    match number {
        1 => reader.f64(),
        3 => Ok(f64::from_bits(STALE_NAN_BITS)),
        _ if number % 2 == 1 => Err(DecodeError("a value is of an unknown kind")),
        _ => {
            let zigzag = number >> 1;
            Ok(((zigzag >> 1).cast_signed() ^ -((zigzag & 1).cast_signed())) as f64)
        }
    }
}

fn read_symbols<'a>(reader: &mut Reader<'a>) -> Result<Vec<&'a str>, DecodeError> {
    reader.list(Reader::str)
}

fn read_symbol<'a>(reader: &mut Reader<'_>, symbols: &[&'a str]) -> Result<&'a str, DecodeError> {
    let number = usize::try_from(reader.u64()?).unwrap_or(usize::MAX);
    symbols.get(number).copied().ok_or(DecodeError("a string is missing"))
}

fn read_labels(reader: &mut Reader<'_>, symbols: &[&str]) -> Result<Labels, DecodeError> {
    let pairs = reader.list(|r| Ok((read_symbol(r, symbols)?, read_symbol(r, symbols)?)))?;
    Labels::from_sorted(pairs).ok_or(DecodeError("labels are not sorted"))
}

/// Reads metadata, sharing it with the member before where that has the same.
fn read_metadata(
    reader: &mut Reader<'_>,
    symbols: &[&str],
    previous: &mut Arc<Metadata>,
) -> Result<Arc<Metadata>, DecodeError> {
    let kind = usize::from(reader.u8()?);
    let kind = *METRIC_TYPES.get(kind).ok_or(DecodeError("a metric type is unknown"))?;
    let (unit, help) = (read_symbol(reader, symbols)?, read_symbol(reader, symbols)?);
    if previous.kind != kind || &*previous.unit != unit || &*previous.help != help {
        *previous = Arc::new(Metadata { kind, unit: Arc::from(unit), help: Arc::from(help) });
    }
    Ok(Arc::clone(previous))
}

fn read_declare(reader: &mut Reader<'_>) -> Result<Declare, DecodeError> {
    let symbols = read_symbols(reader)?;
    let group = reader.u64()?;
    let tenant = Tenant::new(reader.str()?).map_err(|_| DecodeError("the tenant's name is invalid"))?;
    let key = read_labels(reader, &symbols)?;
    let sub_group = reader.u32()?;
    let epoch = reader.u64()?;
    let displaced = reader.u8()? != 0;
    let mut metadata = Arc::default();
    let members = reader.list(|r| {
        if r.u8()? == 0 {
            return Ok(None);
        }
        let labels = read_labels(r, &symbols)?;
        Ok(Some(MemberDeclaration { labels, metadata: read_metadata(r, &symbols, &mut metadata)? }))
    })?;
    Ok(Declare { group, tenant, key, sub_group, epoch, displaced, members })
}

fn read_change(reader: &mut Reader<'_>) -> Result<Record, DecodeError> {
    let symbols = read_symbols(reader)?;
    let group = reader.u64()?;
    let mut previous = Arc::default();
    let add = reader.list(|r| {
        let labels = read_labels(r, &symbols)?;
        Ok(MemberDeclaration { labels, metadata: read_metadata(r, &symbols, &mut previous)? })
    })?;
    let remove = reader.list(Reader::u32)?;
    let metadata = reader.list(|r| Ok((r.u32()?, read_metadata(r, &symbols, &mut previous)?)))?;
    let has_epoch = reader.u8()? != 0;
    let epoch = reader.u64()?;
    let displaced = match reader.u8()? {
        0 => None,
        1 => Some(false),
        _ => Some(true),
    };
    let epoch = has_epoch.then_some(epoch);
    Ok(Record::Change { group, change: GroupChange { add, remove, metadata, epoch, displaced } })
}

fn read_append(reader: &mut Reader<'_>) -> Result<Append, DecodeError> {
    let group = reader.u64()?;
    let timestamp = reader.i64()?;
    let presence = match reader.u8()? {
        0 => Presence::All,
        1 => Presence::Absent(reader.bytes()?.to_vec()),
        2 => {
            let mut previous = 0_u32;
            Presence::Present(reader.list(|r| {
                previous = previous.wrapping_add(r.u32()?);
                Ok(previous)
            })?)
        }
        _ => return Err(DecodeError("the presence is of an unknown kind")),
    };
    let values = reader.list(read_value)?;
    let histograms = reader.list(|r| Ok((r.u32()?, Arc::new(read_histogram(r)?))))?;
    let starts = reader.list(|r| Ok((r.u32()?, timestamp.wrapping_sub(r.i64()?))))?;
    let exemplars = reader.list(|r| {
        let member = r.u32()?;
        let labels = Labels::from_encoded(r.str()?).ok_or(DecodeError("labels are not sorted"))?;
        let value = r.f64()?;
        let has_time = r.u8()? != 0;
        let time = Timestamp(r.i64()?);
        Ok((member, Exemplar { labels, value, timestamp: has_time.then_some(time) }))
    })?;
    Ok(Append { group, timestamp, presence, values, histograms, starts, exemplars })
}

const INTEGER_HISTOGRAM: u8 = 0;
const FLOAT_HISTOGRAM: u8 = 1;

fn put_histogram(out: &mut Vec<u8>, histogram: &Histogram) {
    match histogram {
        Histogram::Integer(h) => {
            out.push(INTEGER_HISTOGRAM);
            put_histogram_head(out, h.counter_reset_hint, h.schema, h.zero_threshold, h.sum);
            put_u64(out, h.zero_count);
            put_u64(out, h.count);
            for (spans, deltas) in
                [(&h.positive_spans, &h.positive_deltas), (&h.negative_spans, &h.negative_deltas)]
            {
                put_spans(out, spans);
                put_u64(out, deltas.len() as u64);
                deltas.iter().for_each(|d| put_i64(out, *d));
            }
            put_floats(out, &h.custom_values);
        }
        Histogram::Float(h) => {
            out.push(FLOAT_HISTOGRAM);
            put_histogram_head(out, h.counter_reset_hint, h.schema, h.zero_threshold, h.sum);
            put_f64(out, h.zero_count);
            put_f64(out, h.count);
            for (spans, buckets) in
                [(&h.positive_spans, &h.positive_buckets), (&h.negative_spans, &h.negative_buckets)]
            {
                put_spans(out, spans);
                put_floats(out, buckets);
            }
            put_floats(out, &h.custom_values);
        }
    }
}

fn put_histogram_head(out: &mut Vec<u8>, hint: CounterResetHint, schema: i32, zero_threshold: f64, sum: f64) {
    out.push(match hint {
        CounterResetHint::Unknown => 0,
        CounterResetHint::Reset => 1,
        CounterResetHint::NotReset => 2,
        CounterResetHint::Gauge => 3,
    });
    put_i64(out, i64::from(schema));
    put_f64(out, zero_threshold);
    put_f64(out, sum);
}

fn put_spans(out: &mut Vec<u8>, spans: &[Span]) {
    put_u64(out, spans.len() as u64);
    for span in spans {
        put_i64(out, i64::from(span.offset));
        put_u64(out, u64::from(span.length));
    }
}

fn put_floats(out: &mut Vec<u8>, floats: &[f64]) {
    put_u64(out, floats.len() as u64);
    floats.iter().for_each(|x| put_f64(out, *x));
}

fn read_histogram(reader: &mut Reader<'_>) -> Result<Histogram, DecodeError> {
    let kind = reader.u8()?;
    let counter_reset_hint = match reader.u8()? {
        0 => CounterResetHint::Unknown,
        1 => CounterResetHint::Reset,
        2 => CounterResetHint::NotReset,
        3 => CounterResetHint::Gauge,
        _ => return Err(DecodeError("a reset hint is unknown")),
    };
    let schema = reader.i32()?;
    let zero_threshold = reader.f64()?;
    let sum = reader.f64()?;
    let spans = |r: &mut Reader<'_>| r.list(|r| Ok(Span { offset: r.i32()?, length: r.u32()? }));
    match kind {
        INTEGER_HISTOGRAM => {
            let (zero_count, count) = (reader.u64()?, reader.u64()?);
            let (positive_spans, positive_deltas) = (spans(reader)?, reader.list(Reader::i64)?);
            let (negative_spans, negative_deltas) = (spans(reader)?, reader.list(Reader::i64)?);
            Ok(Histogram::Integer(IntegerHistogram {
                counter_reset_hint,
                schema,
                zero_threshold,
                zero_count,
                count,
                sum,
                positive_spans,
                negative_spans,
                positive_deltas,
                negative_deltas,
                custom_values: reader.list(Reader::f64)?.into(),
            }))
        }
        FLOAT_HISTOGRAM => {
            let (zero_count, count) = (reader.f64()?, reader.f64()?);
            let (positive_spans, positive_buckets) = (spans(reader)?, reader.list(Reader::f64)?);
            let (negative_spans, negative_buckets) = (spans(reader)?, reader.list(Reader::f64)?);
            Ok(Histogram::Float(FloatHistogram {
                counter_reset_hint,
                schema,
                zero_threshold,
                zero_count,
                count,
                sum,
                positive_spans,
                negative_spans,
                positive_buckets,
                negative_buckets,
                custom_values: reader.list(Reader::f64)?.into(),
            }))
        }
        _ => Err(DecodeError("a histogram is of an unknown kind")),
    }
}

#[cfg(test)]
mod tests;
