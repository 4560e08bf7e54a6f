//! Series descriptions.

use model::{CounterResetHint, FloatHistogram, Labels, Span};
use promql_syntax::{SEQUENCE_VALUES_MAX, SequenceValue, parse_series_description, parse_start_timestamps};

fn floats(text: &str) -> Vec<Option<f64>> {
    let (_, values) = parse_series_description(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    values
        .into_iter()
        .map(|value| match value {
            SequenceValue::Omitted => None,
            SequenceValue::Float(x) => Some(x),
            other => panic!("{other:?}"),
        })
        .collect()
}

#[test]
fn labels_are_read_in_every_form() {
    for (text, expected) in [
        ("a", vec![("__name__", "a")]),
        ("a 1", vec![("__name__", "a")]),
        ("a{}", vec![("__name__", "a")]),
        ("a:b{c=\"d\", e='f',} 1", vec![("__name__", "a:b"), ("c", "d"), ("e", "f")]),
        ("{a=\"b\"} 1", vec![("a", "b")]),
        ("{} 1", vec![]),
        ("{\"a.b\", \"c.d\"=\"e\"} 1", vec![("__name__", "a.b"), ("c.d", "e")]),
        ("{__name__=\"a\"}", vec![("__name__", "a")]),
        ("a {{count:1}}", vec![("__name__", "a")]),
    ] {
        assert_eq!(parse_series_description(text).expect(text).0, Labels::from_pairs(expected), "{text}");
    }
}

#[test]
fn sequences_expand() {
    for (text, expected) in [
        ("a", vec![]),
        ("a 1 -2.5 1e3 +1 0x1f", vec![Some(1.0), Some(-2.5), Some(1000.0), Some(1.0), Some(31.0)]),
        ("a   _ 1\t_x3 2", vec![None, Some(1.0), None, None, None, Some(2.0)]),
        ("a 1x2", vec![Some(1.0); 3]),
        ("a 0x2", vec![Some(0.0); 3]),
        ("a 0+10x2", vec![Some(0.0), Some(10.0), Some(20.0)]),
        ("a 1-1x2 7", vec![Some(1.0), Some(0.0), Some(-1.0), Some(7.0)]),
        ("a -3+2x1", vec![Some(-3.0), Some(-1.0)]),
        ("a Inf -inf", vec![Some(f64::INFINITY), Some(f64::NEG_INFINITY)]),
        ("a 0.1+0.1x2", vec![Some(0.1), Some(0.2), Some(0.1 + 0.1 + 0.1)]),
    ] {
        assert_eq!(floats(text), expected, "{text}");
    }
    let special = floats("a stale NaN");
    assert_eq!(special[0].map(f64::to_bits), Some(model::STALE_NAN_BITS));
    assert!(special[1].is_some_and(|x| x.is_nan() && !model::is_stale(x)));
}

#[test]
fn histograms_are_read_and_repeated() {
    let text = "a {{schema:1 count:12 sum:-5.5 z_bucket:2 z_bucket_w:0.001 buckets:[5 10 7] offset:-3 \
                n_buckets:[4 -5] n_offset:2 counter_reset_hint:gauge}} {{}}x1";
    let (_, values) = parse_series_description(text).expect(text);
    let SequenceValue::Histogram(first) = &values[0] else { panic!("a histogram") };
    let expected = FloatHistogram {
        counter_reset_hint: CounterResetHint::Gauge,
        schema: 1,
        zero_threshold: 0.001,
        zero_count: 2.0,
        count: 12.0,
        sum: -5.5,
        positive_spans: vec![Span { offset: -3, length: 3 }],
        negative_spans: vec![Span { offset: 2, length: 2 }],
        positive_buckets: vec![5.0, 10.0, 7.0],
        negative_buckets: vec![4.0, -5.0],
        ..FloatHistogram::default()
    };
    assert_eq!(*first.histogram, expected);
    assert!(first.hint_is_set);
    assert_eq!(values.len(), 3);
    let SequenceValue::Histogram(last) = &values[2] else { panic!("a histogram") };
    assert_eq!((&*last.histogram, last.hint_is_set), (&FloatHistogram::default(), false));

    let (_, values) =
        parse_series_description("a {{schema:-53 custom_values:[1 2.5]}}-{{count:1}}x2").expect("ok");
    let shapes: Vec<&str> = values
        .iter()
        .map(|value| match value {
            SequenceValue::Histogram(h) if *h.histogram.custom_values == [1.0, 2.5] => "first",
            SequenceValue::Minus(h) if h.histogram.count == 1.0 => "minus",
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(shapes, ["first", "minus", "minus"]);
}

#[test]
fn start_timestamps_are_distances_in_milliseconds() {
    let line = "a{b=\"c\"}@st _ 0 -1m30s +1ms -1sx1 _x2 -30s-1mx2 1ms+2msx1";
    let (labels, times) = parse_start_timestamps(line).expect(line).expect("start timestamps");
    assert_eq!(labels, Labels::from_pairs([("__name__", "a"), ("b", "c")]));
    let expected = [
        None,
        Some(0),
        Some(-90_000),
        Some(1),
        Some(-1_000),
        Some(-1_000),
        None,
        None,
        Some(-30_000),
        Some(-90_000),
        Some(-150_000),
        Some(1),
        Some(3),
    ];
    assert_eq!(times, expected);
    assert_eq!(parse_start_timestamps("a 1 2"), Ok(None));
    for (text, expected) in [
        ("a@st 5", "1:6: parse error: not a valid duration string: \"5\""),
        ("a@st -", "1:7: parse error: empty duration string"),
        ("a@st 1s+1s", "1:11: parse error: unexpected end of input in series values, expected \"x\""),
        ("a{@st 1s", "1:3: parse error: unexpected end of input inside braces"),
    ] {
        assert_eq!(parse_start_timestamps(text).expect_err(text).to_string(), expected);
    }
}

#[test]
fn broken_descriptions_say_what_is_wrong() {
    for (text, expected) in [
        ("a{b=c} 1", "1:5: parse error: unexpected identifier \"c\" in label set, expected string"),
        ("a{b!=\"c\"} 1", "1:4: parse error: unexpected <op:!=> in label set, expected \"=\""),
        ("a{1} 1", "1:3: parse error: unexpected character inside braces: '1'"),
        ("a{b=\"c\"}1", "1:9: parse error: unexpected character '1' in series values"),
        (
            "a foo",
            "1:3: parse error: unexpected identifier \"foo\" in series values, expected number or \"stale\"",
        ),
        ("a 1+2", "1:6: parse error: unexpected end of input in series values, expected \"x\""),
        ("a 1$", "1:4: parse error: unexpected character '$' in series values"),
        ("a {{foo:1}}", "1:5: parse error: bad histogram descriptor found: \"foo\""),
        ("a {{count}}", "1:5: parse error: missing `:` for histogram descriptor"),
        ("a {{count:1 count:2}}", "1:13: parse error: duplicate key \"count\" in histogram"),
        ("a {{count:1", "1:12: parse error: histogram description incomplete unexpected: '\u{fffd}'"),
        (
            "a {{counter_reset_hint:foo}}",
            "1:24: parse error: error parsing counter_reset_hint: unknown value \"foo\"",
        ),
        (
            "a {{schema:2}}+{{schema:1}}x1",
            "1:3: parse error: error combining histograms: cannot merge from schema 1 to 2",
        ),
        ("a 1x99999999999", "1:16: parse error: series has more than 1000000 values"),
        ("1", "1:1: parse error: unexpected number \"1\""),
    ] {
        assert_eq!(parse_series_description(text).expect_err(text).to_string(), expected, "{text}");
    }
    let longest = format!("a 1x{}", SEQUENCE_VALUES_MAX - 1);
    assert_eq!(floats(&longest).len(), SEQUENCE_VALUES_MAX);
}
