//! Batches of newest samples.

use std::sync::Arc;

use bytes::Bytes;
use model::{Histogram, LastSampleColumns, LastSamples, MetricType};

use crate::convert::deltas;
use crate::error::{Error, Result};
use crate::pb::model as pb;

/// Converts a batch to a message.
#[must_use]
pub fn to_pb(columns: LastSampleColumns) -> pb::LastSamples {
    let (histogram_series, histograms) =
        columns.histograms.iter().map(|(series, h)| (*series, pb::Histogram::from(&**h))).unzip();
    pb::LastSamples {
        text: Bytes::from(columns.text),
        lengths: columns.lengths,
        label_counts: columns.label_counts,
        pairs: columns.pairs,
        orders: columns.orders,
        types: columns.types.iter().map(|kind| type_number(*kind)).collect(),
        time_deltas: deltas(columns.timestamps),
        values: columns.values,
        histogram_series,
        histograms,
    }
}

/// Converts a message to a batch.
///
/// # Errors
/// When something in it refers to nothing.
pub fn from_pb(message: pb::LastSamples) -> Result<LastSamples> {
    if message.histogram_series.len() != message.histograms.len() {
        return Err(Error::invalid("samples", "histograms and their series differ in number"));
    }
    let text = String::from_utf8(message.text.into()).map_err(|e| Error::invalid("samples.text", e))?;
    let mut time = 0_i64;
    let times = message.time_deltas.iter().map(|delta| {
        time = time.wrapping_add(*delta);
        time
    });
    let timestamps = times.collect();
    let histograms = message.histograms.iter().map(|h| Arc::new(Histogram::from(h)));
    LastSamples::new(LastSampleColumns {
        text,
        lengths: message.lengths,
        label_counts: message.label_counts,
        pairs: message.pairs,
        orders: message.orders,
        types: message.types.iter().map(|number| metric_type(*number)).collect(),
        timestamps,
        values: message.values,
        histograms: message.histogram_series.into_iter().zip(histograms).collect(),
    })
    .map_err(|problem| Error::invalid("samples", problem))
}

fn type_number(kind: MetricType) -> u8 {
    u8::try_from(i32::from(pb::MetricType::from(kind))).expect("there are few types")
}

fn metric_type(number: u8) -> MetricType {
    pb::MetricType::try_from(i32::from(number)).map_or(MetricType::Unknown, MetricType::from)
}

#[cfg(test)]
mod tests {
    use model::{FloatHistogram, Value, stale_nan};

    use super::*;

    fn batch() -> LastSampleColumns {
        let mut columns = LastSampleColumns::default();
        let pairs = [columns.add_pair("__name__", "é"), columns.add_pair("a", "")];
        let histogram = Histogram::Float(FloatHistogram { count: 2.0, ..FloatHistogram::default() });
        let values = [Value::Float(-0.0), Value::Histogram(Arc::new(histogram)), Value::Float(stale_nan())];
        let types = [MetricType::StateSet, MetricType::Histogram, MetricType::Unknown];
        for ((value, kind), time) in values.into_iter().zip(types).zip([7, i64::MIN, i64::MAX]) {
            columns.add_series(pairs, 1 << 63, kind, time, value);
        }
        columns
    }

    #[test]
    fn a_batch_survives_the_wire() {
        let wanted = LastSamples::new(batch()).expect("whole");
        let got = from_pb(to_pb(batch())).expect("whole");
        for series in 0..3 {
            assert_eq!(got.value(series), wanted.value(series));
            assert_eq!(got.timestamp(series), wanted.timestamp(series));
            assert_eq!(got.metric_type(series), wanted.metric_type(series));
            assert!(got.compare(series, &wanted, series).is_eq());
        }
        assert_eq!(got.pairs().collect::<Vec<_>>(), [("__name__", "é"), ("a", "")]);
    }

    #[test]
    fn a_broken_batch_is_refused() {
        let refused = |change: fn(&mut pb::LastSamples)| {
            let mut message = to_pb(batch());
            change(&mut message);
            from_pb(message).expect_err("broken").to_string()
        };
        assert!(refused(|m| m.histograms.clear()).contains("differ in number"));
        assert!(refused(|m| m.text = Bytes::from_static(b"__name__\xff\xffa")).contains("samples.text"));
        assert!(refused(|m| m.pairs[0] = 9).contains("a label pair that is not there"));
    }
}
