//! What `/federate` writes, a scraper reads back.

use exposition::federate::{Encoder, Negotiated, WireFormat};
use exposition::{Entry, EscapingScheme, Parser, protobuf};
use model::{Labels, LastSampleBuilder, LastSamples, MetricType, Value};
use proptest::prelude::*;

fn encode(negotiated: Negotiated, series: &[(Labels, i64, f64)]) -> Vec<u8> {
    let mut builder = LastSampleBuilder::default();
    for (labels, timestamp, value) in series {
        builder.push(labels, MetricType::Gauge, *timestamp, Value::Float(*value));
    }
    let samples = LastSamples::new(builder.finish()).expect("whole");
    let mut out = Vec::new();
    // An external instance label keeps the empty one away, so that labels come back as they were.
    let mut encoder = Encoder::new(negotiated, &Labels::from_pairs([("instance", "i")]));
    let prepared = encoder.prepare(&samples);
    for number in 0..series.len() {
        encoder.encode(&samples, &prepared, number, &mut out);
    }
    encoder.finish(&mut out);
    out
}

fn any_series() -> impl Strategy<Value = Vec<(Labels, i64, f64)>> {
    let labels = prop::collection::btree_map("[a-zA-Z_. é\"\\\\\n]{1,6}", "(?s).{0,12}", 0..4);
    let value = prop_oneof![any::<f64>(), Just(f64::NAN), Just(-0.0), Just(f64::INFINITY)];
    let series = ("(?s).{1,8}", labels, 0..i64::MAX, value).prop_map(|(name, labels, timestamp, value)| {
        let pairs =
            labels.into_iter().chain([("__name__".to_owned(), name), ("instance".to_owned(), "i".into())]);
        // One kind of NaN comes back from text, and negative zero comes back as zero.
        let value = if value.is_nan() { f64::from_bits(0x7ff8_0000_0000_0001) } else { value };
        (Labels::from_pairs(pairs), timestamp, value)
    });
    prop::collection::vec(series, 0..8)
}

fn same(a: &[(Labels, i64, f64)], b: &[(Labels, i64, f64)]) -> bool {
    a.len() == b.len()
        && a.iter()
            .zip(b)
            .all(|(x, y)| x.0 == y.0 && x.1 == y.1 && (x.2 == y.2 || x.2.to_bits() == y.2.to_bits()))
}

proptest! {
    #[test]
    fn text_comes_back(series in any_series()) {
        let negotiated = Negotiated { format: WireFormat::Text, escaping: EscapingScheme::AllowUtf8 };
        let body = encode(negotiated, &series);
        let mut read = Vec::new();
        for entry in Parser::text(&body) {
            match entry {
                Ok(Entry::Sample(s)) => {
                    read.push((s.series.to_labels().unwrap(), s.timestamp.unwrap().millis(), s.value));
                }
                Ok(_) => {}
                Err(e) => prop_assert!(false, "{e}\n{}", String::from_utf8_lossy(&body)),
            }
        }
        prop_assert!(same(&read, &series), "{read:?}\n{series:?}");
    }

    #[test]
    fn protobuf_comes_back(series in any_series()) {
        let negotiated = Negotiated { format: WireFormat::Protobuf, escaping: EscapingScheme::AllowUtf8 };
        // A time of zero reads as no time at all in this format.
        let series: Vec<_> = series.into_iter().filter(|s| s.1 != 0).collect();
        let mut read = Vec::new();
        for family in protobuf::Families::new(&encode(negotiated, &series)) {
            let family = family.unwrap();
            for metric in family.metrics() {
                for sample in family.samples(&metric.unwrap(), protobuf::Options::default()).unwrap() {
                    let labels = sample.series().to_labels().unwrap();
                    let Value::Float(value) = sample.value else { panic!("a histogram") };
                    read.push((labels, sample.timestamp.unwrap().millis(), value));
                }
            }
        }
        prop_assert!(same(&read, &series), "{read:?}\n{series:?}");
    }

    #[test]
    fn no_body_breaks_the_parser(body in prop::collection::vec(any::<u8>(), 0..200)) {
        for parser in [Parser::text(&body), Parser::open_metrics(&body)] {
            for entry in parser.flatten() {
                if let Entry::Sample(sample) = entry {
                    let _labels = sample.series.to_labels();
                }
            }
        }
        for family in protobuf::Families::new(&body).flatten() {
            let _metrics = family.metrics().count();
        }
    }

    /// Bodies made of the formats' own bytes get further into the grammar than random ones.
    #[test]
    fn no_likely_body_breaks_the_parser(body in r##"([a{}="\\, \n#1.]|HELP|TYPE|UNIT|EOF|gauge|é){0,40}"##) {
        for parser in [Parser::text(body.as_bytes()), Parser::open_metrics(body.as_bytes())] {
            for entry in parser.flatten() {
                if let Entry::Sample(sample) = entry {
                    prop_assert!(!sample.series.text().is_empty());
                    let name = sample.series.metric_name();
                    if let Ok(labels) = sample.series.to_labels() {
                        prop_assert_eq!(labels.metric_name(), name);
                    }
                    let _exemplar = sample.exemplar.map(|e| e.to_exemplar());
                }
            }
        }
    }
}
