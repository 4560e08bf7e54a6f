use prost::Message;

use crate::{client, prometheus, write_v2};

/// A field's key on the wire: number and wire type, for numbers below 16.
const fn key(number: u8, wire_type: u8) -> u8 {
    number << 3 | wire_type
}

const VARINT: u8 = 0;
const FIXED64: u8 = 1;
const LENGTH: u8 = 2;

/// The bytes are spelled out by hand from the specification's field numbers.
#[test]
fn remote_write_1_has_the_wire_format_of_its_specification() {
    let request = prometheus::WriteRequest {
        timeseries: vec![prometheus::TimeSeries {
            labels: vec![prometheus::Label { name: "a".into(), value: "b".into() }],
            samples: vec![prometheus::Sample { value: Some(1.0), timestamp: 5 }],
            exemplars: vec![prometheus::Exemplar { labels: vec![], value: 1.0, timestamp: 7 }],
            histograms: vec![],
        }],
        metadata: vec![prometheus::MetricMetadata {
            r#type: prometheus::metric_metadata::MetricType::Summary.into(),
            metric_family_name: "m".into(),
            help: "h".into(),
            unit: "u".into(),
        }],
    };
    let one = 1.0_f64.to_le_bytes();
    let mut series = vec![key(1, LENGTH), 6, key(1, LENGTH), 1, b'a', key(2, LENGTH), 1, b'b'];
    series.extend([key(2, LENGTH), 11, key(1, FIXED64)]);
    series.extend(one);
    series.extend([key(2, VARINT), 5]);
    series.extend([key(3, LENGTH), 11, key(2, FIXED64)]);
    series.extend(one);
    series.extend([key(3, VARINT), 7]);
    let mut expected = vec![key(1, LENGTH), u8::try_from(series.len()).unwrap()];
    expected.extend(series);
    expected.extend([key(3, LENGTH), 11, key(1, VARINT), 5]);
    expected.extend([key(2, LENGTH), 1, b'm', key(4, LENGTH), 1, b'h', key(5, LENGTH), 1, b'u']);
    assert_eq!(request.encode_to_vec(), expected);
    assert_eq!(prometheus::WriteRequest::decode(&*expected), Ok(request));
}

#[test]
fn native_histograms_have_the_field_numbers_of_their_specification() {
    let histogram = prometheus::Histogram {
        count: Some(prometheus::histogram::Count::CountInt(3)),
        sum: 1.0,
        schema: -53,
        zero_threshold: 0.0,
        zero_count: Some(prometheus::histogram::ZeroCount::ZeroCountInt(1)),
        positive_spans: vec![prometheus::BucketSpan { offset: -1, length: 2 }],
        positive_deltas: vec![1, -1],
        reset_hint: prometheus::histogram::ResetHint::Gauge.into(),
        timestamp: 9,
        custom_values: vec![1.0],
        ..Default::default()
    };
    let one = 1.0_f64.to_le_bytes();
    let mut expected = vec![key(1, VARINT), 3, key(3, FIXED64)];
    expected.extend(one);
    expected.extend([key(4, VARINT), 105]); // -53 in zigzag
    expected.extend([key(6, VARINT), 1]);
    expected.extend([key(11, LENGTH), 4, key(1, VARINT), 1, key(2, VARINT), 2]);
    expected.extend([key(12, LENGTH), 2, 2, 1]);
    expected.extend([key(14, VARINT), 3, key(15, VARINT), 9]);
    expected.extend([0x82, 0x01, 8]); // field 16, length 8
    expected.extend(one);
    assert_eq!(histogram.encode_to_vec(), expected);
    // Remote write 2.0 has the same message under another name.
    let second = write_v2::Histogram::decode(&*expected).unwrap();
    assert_eq!(second.schema, -53);
    assert_eq!(second.reset_hint(), write_v2::histogram::ResetHint::Gauge);
    assert_eq!(second.encode_to_vec(), expected);
}

#[test]
fn remote_write_2_refers_to_symbols() {
    let request = write_v2::Request {
        symbols: vec![String::new(), "a".into()],
        timeseries: vec![write_v2::TimeSeries {
            labels_refs: vec![1, 0],
            samples: vec![write_v2::Sample { value: None, timestamp: 5, start_timestamp: 2 }],
            metadata: Some(write_v2::Metadata { r#type: 1, help_ref: 1, unit_ref: 1 }),
            ..Default::default()
        }],
    };
    let series = [
        &[key(1, LENGTH), 2, 1, 0][..],
        &[key(2, LENGTH), 4, key(2, VARINT), 5, key(3, VARINT), 2],
        &[key(5, LENGTH), 6, key(1, VARINT), 1, key(3, VARINT), 1, key(4, VARINT), 1],
    ]
    .concat();
    let mut expected = vec![key(4, LENGTH), 0, key(4, LENGTH), 1, b'a', key(5, LENGTH)];
    expected.push(u8::try_from(series.len()).unwrap());
    expected.extend(series);
    assert_eq!(request.encode_to_vec(), expected);
    // Read as a request of 1.0 it is empty rather than something else: the field numbers do not overlap.
    assert_eq!(prometheus::WriteRequest::decode(&*expected), Ok(prometheus::WriteRequest::default()));
}

#[test]
fn a_client_family_has_the_wire_format_of_its_documentation() {
    let family = client::MetricFamily {
        name: Some("m".into()),
        r#type: Some(client::MetricType::Untyped.into()),
        metric: vec![client::Metric {
            label: vec![client::LabelPair { name: Some("a".into()), value: Some(String::new()) }],
            untyped: Some(client::Untyped { value: Some(1.0) }),
            timestamp_ms: Some(0),
            ..Default::default()
        }],
        ..Default::default()
    };
    let mut metric = vec![key(1, LENGTH), 5, key(1, LENGTH), 1, b'a', key(2, LENGTH), 0];
    metric.extend([key(5, LENGTH), 9, key(1, FIXED64)]);
    metric.extend(1.0_f64.to_le_bytes());
    metric.extend([key(6, VARINT), 0]);
    let mut expected = vec![key(1, LENGTH), 1, b'm', key(3, VARINT), 3, key(4, LENGTH)];
    expected.push(u8::try_from(metric.len()).unwrap());
    expected.extend(metric);
    assert_eq!(family.encode_to_vec(), expected);
}

#[test]
fn the_native_part_of_a_client_histogram_has_its_field_numbers() {
    let histogram = client::Histogram {
        sample_count_float: Some(1.0),
        schema: Some(1),
        zero_threshold: Some(1.0),
        zero_count: Some(2),
        zero_count_float: Some(1.0),
        negative_delta: vec![1],
        positive_span: vec![client::BucketSpan { offset: Some(0), length: Some(0) }],
        positive_delta: vec![1],
        ..Default::default()
    };
    let one = 1.0_f64.to_le_bytes();
    let mut expected = vec![key(4, FIXED64)];
    expected.extend(one);
    expected.extend([key(5, VARINT), 2, key(6, FIXED64)]);
    expected.extend(one);
    expected.extend([key(7, VARINT), 2, key(8, FIXED64)]);
    expected.extend(one);
    expected.extend([key(10, VARINT), 2, key(12, LENGTH), 4, key(1, VARINT), 0, key(2, VARINT), 0]);
    expected.extend([key(13, VARINT), 2]);
    assert_eq!(histogram.encode_to_vec(), expected);
}

#[test]
fn remote_read_asks_with_matchers() {
    let request = prometheus::ReadRequest {
        queries: vec![prometheus::Query {
            start_timestamp_ms: 1,
            end_timestamp_ms: 2,
            matchers: vec![prometheus::LabelMatcher {
                r#type: prometheus::label_matcher::Type::Nre.into(),
                name: "a".into(),
                value: "b".into(),
            }],
            hints: None,
        }],
        accepted_response_types: vec![prometheus::read_request::ResponseType::StreamedXorChunks.into()],
    };
    let expected = [
        &[key(1, LENGTH), 14, key(1, VARINT), 1, key(2, VARINT), 2][..],
        &[key(3, LENGTH), 8, key(1, VARINT), 3, key(2, LENGTH), 1, b'a', key(3, LENGTH), 1, b'b'],
        &[key(2, LENGTH), 1, 1],
    ]
    .concat();
    assert_eq!(request.encode_to_vec(), expected);
}

#[test]
fn negative_zero_is_sent() {
    let sample = prometheus::Sample { value: Some(-0.0), timestamp: 0 };
    let mut expected = vec![key(1, FIXED64)];
    expected.extend((-0.0_f64).to_le_bytes());
    assert_eq!(sample.encode_to_vec(), expected);
}
