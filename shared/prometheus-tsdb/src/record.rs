//! Records of Prometheus's write-ahead logs.

use std::sync::Arc;

use model::histogram::CUSTOM_BUCKETS_SCHEMA;
use model::{
    CounterResetHint, Exemplar, FloatHistogram, Histogram, IntegerHistogram, Labels, Metadata, MetricType,
    Span, Timestamp, is_stale,
};

use crate::decoder::{Decoder, SHORT, Short};

/// One entry of a record. Series are referred to by numbers that records give them.
#[derive(Debug, Clone)]
pub(crate) enum Entry {
    Series(u64, Labels),
    Float { series: u64, time: i64, value: f64 },
    Histogram { series: u64, time: i64, histogram: Histogram },
    Exemplar { series: u64, exemplar: Exemplar },
    Deleted { series: u64, min_time: i64, max_time: i64 },
    Metadata { series: u64, metadata: Metadata },
}

/// The kinds of records, by their first byte.
mod kind {
    pub(super) const SERIES: u8 = 1;
    pub(super) const SAMPLES: u8 = 2;
    pub(super) const TOMBSTONES: u8 = 3;
    pub(super) const EXEMPLARS: u8 = 4;
    pub(super) const MMAP_MARKERS: u8 = 5;
    pub(super) const METADATA: u8 = 6;
    pub(super) const HISTOGRAMS: u8 = 7;
    pub(super) const FLOAT_HISTOGRAMS: u8 = 8;
    pub(super) const CUSTOM_HISTOGRAMS: u8 = 9;
    pub(super) const CUSTOM_FLOAT_HISTOGRAMS: u8 = 10;
    /// With start times, which are passed over.
    pub(super) const SAMPLES_2: u8 = 11;
    pub(super) const HISTOGRAMS_2: u8 = 12;
    pub(super) const FLOAT_HISTOGRAMS_2: u8 = 13;
    pub(super) const MIN_VALID_TIME: u8 = 14;
}

/// Takes a record apart.
///
/// # Errors
/// What is wrong with it; entries up to there were handed out.
pub(crate) fn entries(record: &[u8], take: &mut dyn FnMut(Entry)) -> Result<(), String> {
    let mut d = Decoder(record);
    match d.byte()? {
        kind::SERIES => {
            while !d.is_empty() {
                take(Entry::Series(d.be64()?, d.labels()?));
            }
        }
        kind::TOMBSTONES => {
            while !d.is_empty() {
                take(Entry::Deleted { series: d.be64()?, min_time: d.varint()?, max_time: d.varint()? });
            }
        }
        kind::METADATA => {
            while !d.is_empty() {
                take(metadata(&mut d)?);
            }
        }
        // What is in files of chunks, which tell it themselves; what was left out of a checkpoint since blocks have it.
        kind::MMAP_MARKERS | kind::MIN_VALID_TIME => {}
        kind::SAMPLES => of_base(&mut d, &mut |series, time, d| {
            take(Entry::Float { series, time, value: d.be64_float()? });
            Ok(())
        })?,
        kind::EXEMPLARS => of_base(&mut d, &mut |series, time, d| {
            let (value, labels) = (d.be64_float()?, d.labels()?);
            let exemplar = Exemplar { labels, value, timestamp: Some(Timestamp(time)) };
            take(Entry::Exemplar { series, exemplar });
            Ok(())
        })?,
        kind::HISTOGRAMS | kind::CUSTOM_HISTOGRAMS => of_base(&mut d, &mut |series, time, d| {
            take(Entry::Histogram { series, time, histogram: integers(d)? });
            Ok(())
        })?,
        kind::FLOAT_HISTOGRAMS | kind::CUSTOM_FLOAT_HISTOGRAMS => of_base(&mut d, &mut |series, time, d| {
            take(Entry::Histogram { series, time, histogram: floats(d)? });
            Ok(())
        })?,
        kind::SAMPLES_2 => of_one_before(&mut d, &mut |series, time, d| {
            take(Entry::Float { series, time, value: d.be64_float()? });
            Ok(())
        })?,
        kind::HISTOGRAMS_2 => of_one_before(&mut d, &mut |series, time, d| {
            take(Entry::Histogram { series, time, histogram: integers(d)? });
            Ok(())
        })?,
        kind::FLOAT_HISTOGRAMS_2 => of_one_before(&mut d, &mut |series, time, d| {
            take(Entry::Histogram { series, time, histogram: floats(d)? });
            Ok(())
        })?,
        other => return Err(format!("a record of kind {other} is not known")),
    }
    Ok(())
}

type Body<'b> = &'b mut dyn FnMut(u64, i64, &mut Decoder<'_>) -> Result<(), String>;

/// Entries whose series and time are told as differences to numbers in front of all of them.
fn of_base(d: &mut Decoder<'_>, body: Body<'_>) -> Result<(), String> {
    if d.is_empty() {
        return Ok(());
    }
    let (series, time) = (d.be64()?, d.be64()?.cast_signed());
    while !d.is_empty() {
        let series = series.wrapping_add_signed(d.varint()?);
        let time = time.wrapping_add(d.varint()?);
        body(series, time, d)?;
    }
    Ok(())
}

/// Entries whose series is told as the difference to the one before, their time as that to the first, and which have
/// a start time or not.
fn of_one_before(d: &mut Decoder<'_>, body: Body<'_>) -> Result<(), String> {
    if d.is_empty() {
        return Ok(());
    }
    let (mut series, first, _start) = (d.varint()?.cast_unsigned(), d.varint()?, d.varint()?);
    body(series, first, d)?;
    while !d.is_empty() {
        series = series.wrapping_add_signed(d.varint()?);
        let time = first.wrapping_add(d.varint()?);
        // No start time, that of the entry before, or one of its own.
        if d.byte()? > 1 {
            d.varint()?;
        }
        body(series, time, d)?;
    }
    Ok(())
}

fn metadata(d: &mut Decoder<'_>) -> Result<Entry, String> {
    let series = d.uvarint()?;
    let kind = match d.byte()? {
        1 => MetricType::Counter,
        2 => MetricType::Gauge,
        3 => MetricType::Histogram,
        4 => MetricType::GaugeHistogram,
        5 => MetricType::Summary,
        6 => MetricType::Info,
        7 => MetricType::StateSet,
        _ => MetricType::Unknown,
    };
    let mut metadata = Metadata { kind, ..Metadata::default() };
    for _ in 0..d.count()? {
        match (d.text()?, d.text()?) {
            ("UNIT", unit) => metadata.unit = unit.into(),
            ("HELP", help) => metadata.help = help.into(),
            _ => {}
        }
    }
    Ok(Entry::Metadata { series, metadata })
}

fn hint(byte: u8) -> Result<CounterResetHint, String> {
    match byte {
        0 => Ok(CounterResetHint::Unknown),
        1 => Ok(CounterResetHint::Reset),
        2 => Ok(CounterResetHint::NotReset),
        3 => Ok(CounterResetHint::Gauge),
        _ => Err(format!("a histogram has reset hint {byte}")),
    }
}

fn schema(d: &mut Decoder<'_>) -> Result<i32, String> {
    i32::try_from(d.varint()?).map_err(|_| SHORT.to_owned())
}

fn spans(d: &mut Decoder<'_>) -> Result<Vec<Span>, String> {
    let mut spans = Vec::new();
    for _ in 0..d.count()? {
        match (i32::try_from(d.varint()?), u32::try_from(d.uvarint()?)) {
            (Ok(offset), Ok(length)) => spans.push(Span { offset, length }),
            _ => return Err(SHORT.to_owned()),
        }
    }
    Ok(spans)
}

fn list<'a, T>(d: &mut Decoder<'a>, one: fn(&mut Decoder<'a>) -> Result<T, Short>) -> Result<Vec<T>, String> {
    let count = d.count()?;
    (0..count).map(|_| one(d).map_err(String::from)).collect()
}

fn custom_values(schema: i32, d: &mut Decoder<'_>) -> Result<Arc<[f64]>, String> {
    if schema != CUSTOM_BUCKETS_SCHEMA {
        return Ok(Arc::default());
    }
    Ok(list(d, Decoder::be64_float)?.into())
}

fn checked(histogram: Histogram) -> Result<Histogram, String> {
    histogram.validate().map_err(|e| e.to_string())?;
    Ok(histogram)
}

fn integers(d: &mut Decoder<'_>) -> Result<Histogram, String> {
    let mut h = IntegerHistogram {
        counter_reset_hint: hint(d.byte()?)?,
        schema: schema(d)?,
        zero_threshold: d.be64_float()?,
        zero_count: d.uvarint()?,
        count: d.uvarint()?,
        sum: d.be64_float()?,
        positive_spans: spans(d)?,
        negative_spans: spans(d)?,
        positive_deltas: list(d, Decoder::varint)?,
        negative_deltas: list(d, Decoder::varint)?,
        custom_values: Arc::default(),
    };
    h.custom_values = custom_values(h.schema, d)?;
    if is_stale(h.sum) {
        h = IntegerHistogram { sum: h.sum, ..IntegerHistogram::default() };
    }
    checked(Histogram::Integer(h))
}

fn floats(d: &mut Decoder<'_>) -> Result<Histogram, String> {
    let mut h = FloatHistogram {
        counter_reset_hint: hint(d.byte()?)?,
        schema: schema(d)?,
        zero_threshold: d.be64_float()?,
        zero_count: d.be64_float()?,
        count: d.be64_float()?,
        sum: d.be64_float()?,
        positive_spans: spans(d)?,
        negative_spans: spans(d)?,
        positive_buckets: list(d, Decoder::be64_float)?,
        negative_buckets: list(d, Decoder::be64_float)?,
        custom_values: Arc::default(),
    };
    h.custom_values = custom_values(h.schema, d)?;
    if is_stale(h.sum) {
        h = FloatHistogram { sum: h.sum, ..FloatHistogram::default() };
    }
    checked(Histogram::Float(h))
}

#[cfg(test)]
mod tests;
