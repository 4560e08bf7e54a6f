//! Exemplars.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use model::{Exemplar, Timestamp};
use opentelemetry_proto::tonic::metrics::v1 as otlp;
use opentelemetry_proto::tonic::metrics::v1::exemplar::Value;

use crate::settings::Limits;
use crate::value_text::text;

/// OpenMetrics' bound of an exemplar's labels, in characters.
const CHARACTERS_MAX: usize = 128;

/// Converts a data point's exemplars; counts those that are dropped, since they have no value or are too many.
///
/// Trace and span are always kept; filtered attributes only when all labels together stay within OpenMetrics' bound.
pub(crate) fn convert(exemplars: &[otlp::Exemplar], limits: &Limits, dropped: &mut u64) -> Vec<Exemplar> {
    let taken = &exemplars[..exemplars.len().min(limits.exemplars)];
    let converted: Vec<Exemplar> = taken.iter().filter_map(|e| exemplar(e, limits)).collect();
    *dropped += (exemplars.len() - converted.len()) as u64;
    converted
}

fn exemplar(exemplar: &otlp::Exemplar, limits: &Limits) -> Option<Exemplar> {
    let value = match exemplar.value? {
        Value::AsDouble(x) => x,
        Value::AsInt(n) => n as f64,
    };
    let mut labels = BTreeMap::new();
    for (name, id) in [("trace_id", &exemplar.trace_id), ("span_id", &exemplar.span_id)] {
        if id.iter().any(|byte| *byte != 0) {
            labels.insert(name.to_owned(), hex(id));
        }
    }
    let mut all = labels.clone();
    // An attribute takes two characters at least; what cannot fit need not be looked at.
    if exemplar.filtered_attributes.len() <= CHARACTERS_MAX {
        for attribute in &exemplar.filtered_attributes {
            let value = text(attribute.value.as_ref(), limits.value_depth).ok()?;
            all.entry(attribute.key.clone()).or_insert_with(|| value.into_owned());
        }
        let characters: usize = all.iter().map(|(n, v)| n.chars().count() + v.chars().count()).sum();
        if characters <= CHARACTERS_MAX {
            labels = all;
        }
    }
    let millis = exemplar.time_unix_nano / 1_000_000;
    let timestamp = i64::try_from(millis).ok().filter(|ms| *ms > 0).map(Timestamp);
    let labels = model::Labels::from_pairs(labels.into_iter().filter(|(name, _)| !name.is_empty()));
    Some(Exemplar { labels, value, timestamp })
}

/// Ids are 16 and 8 bytes; longer ones are cut.
fn hex(id: &[u8]) -> String {
    id.iter().take(16).fold(String::with_capacity(32), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes everything");
        text
    })
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
    use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};

    use super::*;

    fn attribute(key: &str, value: &str) -> KeyValue {
        let value = Some(AnyValue { value: Some(Any::StringValue(value.to_owned())) });
        KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
    }

    fn with(attributes: Vec<KeyValue>) -> otlp::Exemplar {
        otlp::Exemplar {
            filtered_attributes: attributes,
            time_unix_nano: 1_700_000_000_123_999_999,
            span_id: vec![1, 0x2b, 0, 0, 0, 0, 0, 0xff],
            trace_id: (0..16).collect(),
            value: Some(Value::AsInt(3)),
        }
    }

    #[test]
    fn ids_are_hexadecimal_and_attributes_are_kept_while_they_fit() {
        let ids = r#"span_id="012b0000000000ff", trace_id="000102030405060708090a0b0c0d0e0f""#;
        // Names and values of the ids are 7 + 16 + 8 + 32 = 63 characters: 65 are left.
        for (attributes, expected) in [
            (vec![], format!("{{{ids}}}")),
            (vec![attribute("k", &"é".repeat(64))], format!("{{k=\"{}\", {ids}}}", "é".repeat(64))),
            (vec![attribute("k", &"é".repeat(65))], format!("{{{ids}}}")),
            (vec![attribute("a", ""); 200], format!("{{{ids}}}")),
        ] {
            let mut dropped = 0;
            let got = convert(&[with(attributes)], &Limits::default(), &mut dropped);
            assert_eq!(got[0].labels.to_string(), expected);
            assert_eq!((got[0].value, got[0].timestamp), (3.0, Some(Timestamp(1_700_000_000_123))));
            assert_eq!(dropped, 0);
        }
    }

    #[test]
    fn what_is_missing_is_left_out_or_drops_the_exemplar() {
        let bare = otlp::Exemplar { value: Some(Value::AsDouble(0.5)), ..otlp::Exemplar::default() };
        let zero = otlp::Exemplar { trace_id: vec![0; 16], ..bare.clone() };
        let without_value = otlp::Exemplar { value: None, ..bare.clone() };
        let mut dropped = 0;
        let got = convert(&[bare.clone(), without_value, zero], &Limits::default(), &mut dropped);
        assert_eq!((got.len(), dropped), (2, 1));
        assert!(got.iter().all(|e| e.labels.is_empty() && e.timestamp.is_none()));
        let limits = Limits { exemplars: 2, ..Limits::default() };
        let got = convert(&vec![bare; 5], &limits, &mut dropped);
        assert_eq!((got.len(), dropped), (2, 4));
    }
}
