//! Answers as JSON, byte for byte as Prometheus writes them.
//!
//! Label sets are written without HTML escaping, every other string with it (`util/jsonutil`, and jsoniter's
//! default configuration). Query answers are written series by series into a buffer that the caller sends on, so
//! that a large answer is never held as text.

use std::io::Write as _;

use model::query::{MatrixSeries, PointValue, StepStats, VectorElement};
use model::{Exemplar, FloatHistogram, Labels, Timestamp};
use serde::Serialize;

/// The warning beside an answer that `limit` cut.
pub const TRUNCATED_WARNING: &str = "results truncated due to limit";

/// Writes an answer that is not a query's: `data` with warnings and infos.
///
/// # Panics
/// When `data` has a map with keys that are not strings: a mistake in the caller's type.
#[must_use]
pub fn success(data: &impl Serialize, warnings: &[String], infos: &[String]) -> Vec<u8> {
    let mut out = b"{\"status\":\"success\",\"data\":".to_vec();
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, HtmlEscaping);
    data.serialize(&mut serializer).expect("answers have string keys and writing to memory cannot fail");
    push_annotations(&mut out, warnings, infos);
    out.push(b'}');
    out
}

/// Writes a value as one line of an answer that is a line of JSON after the other.
///
/// # Panics
/// When `value` has a map with keys that are not strings: a mistake in the caller's type.
#[must_use]
pub fn line(value: &impl Serialize) -> Vec<u8> {
    let mut out = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, HtmlEscaping);
    value.serialize(&mut serializer).expect("answers have string keys and writing to memory cannot fail");
    out.push(b'\n');
    out
}

/// Writes an answer of exemplars by series; one without a time has that of the epoch.
#[must_use]
pub fn exemplars(all: &[(Labels, Vec<Exemplar>)], warnings: &[String]) -> Vec<u8> {
    let mut out = b"{\"status\":\"success\",\"data\":[".to_vec();
    for (i, (labels, exemplars)) in all.iter().enumerate() {
        out.extend_from_slice(if i == 0 { b"{\"seriesLabels\":" } else { b",{\"seriesLabels\":" });
        push_labels(&mut out, labels);
        out.extend_from_slice(b",\"exemplars\":[");
        for (i, exemplar) in exemplars.iter().enumerate() {
            out.extend_from_slice(if i == 0 { b"{\"labels\":" } else { b",{\"labels\":" });
            push_labels(&mut out, &exemplar.labels);
            out.extend_from_slice(b",\"value\":");
            push_value(&mut out, exemplar.value);
            out.extend_from_slice(b",\"timestamp\":");
            push_timestamp(&mut out, exemplar.timestamp.unwrap_or_default());
            out.push(b'}');
        }
        out.extend_from_slice(b"]}");
    }
    out.push(b']');
    push_annotations(&mut out, warnings, &[]);
    out.push(b'}');
    out
}

/// Serialises a label set as an object, for use in answers.
///
/// # Errors
/// Those of the serializer.
pub fn labels<S: serde::Serializer>(labels: &Labels, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(labels.iter())
}

/// Escapes what Go's JSON does: `<`, `>`, `&` and the two line separators of Unicode.
struct HtmlEscaping;

impl serde_json::ser::Formatter for HtmlEscaping {
    fn write_string_fragment<W: ?Sized + std::io::Write>(
        &mut self,
        out: &mut W,
        text: &str,
    ) -> std::io::Result<()> {
        let mut rest = text;
        while let Some(i) = rest.find(['<', '>', '&', '\u{2028}', '\u{2029}']) {
            out.write_all(&rest.as_bytes()[..i])?;
            let c = rest[i..].chars().next().expect("found above");
            write!(out, "\\u{:04x}", u32::from(c))?;
            rest = &rest[i + c.len_utf8()..];
        }
        out.write_all(rest.as_bytes())
    }
}

/// Appends a string with HTML escaping.
pub(crate) fn push_escaped(out: &mut Vec<u8>, text: &str) {
    let mut serializer = serde_json::Serializer::with_formatter(out, HtmlEscaping);
    text.serialize(&mut serializer).expect("writing to memory cannot fail");
}

fn push_plain(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("writing to memory cannot fail");
}

fn push_annotations(out: &mut Vec<u8>, warnings: &[String], infos: &[String]) {
    for (name, texts) in [("warnings", warnings), ("infos", infos)] {
        if texts.is_empty() {
            continue;
        }
        write!(out, ",\"{name}\":").expect("writing to memory cannot fail");
        let mut serializer = serde_json::Serializer::with_formatter(&mut *out, HtmlEscaping);
        texts.serialize(&mut serializer).expect("writing to memory cannot fail");
    }
}

/// Appends a label set as an object, without HTML escaping.
pub fn push_labels(out: &mut Vec<u8>, labels: &Labels) {
    out.push(b'{');
    for (i, (name, value)) in labels.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        push_plain(out, name);
        out.push(b':');
        push_plain(out, value);
    }
    out.push(b'}');
}

/// Appends seconds with up to three decimals: `1435781451.781`, `0.010`, `5`.
pub fn push_timestamp(out: &mut Vec<u8>, t: Timestamp) {
    if t.millis() < 0 {
        out.push(b'-');
    }
    let ms = t.millis().unsigned_abs();
    out.extend_from_slice(itoa::Buffer::new().format(ms / 1000).as_bytes());
    if !ms.is_multiple_of(1000) {
        write!(out, ".{:03}", ms % 1000).expect("writing to memory cannot fail");
    }
}

/// Appends a sample value: a quoted number.
pub fn push_value(out: &mut Vec<u8>, x: f64) {
    out.push(b'"');
    model::number::push_api(out, x);
    out.push(b'"');
}

/// Appends a native histogram; empty buckets are left out.
pub fn push_histogram(out: &mut Vec<u8>, h: &FloatHistogram) {
    out.extend_from_slice(b"{\"count\":");
    push_value(out, h.count);
    out.extend_from_slice(b",\"sum\":");
    push_value(out, h.sum);
    let mut is_first = true;
    for bucket in h.buckets().into_iter().filter(|b| b.count != 0.0) {
        out.extend_from_slice(if is_first { b",\"buckets\":[" } else { b"," });
        is_first = false;
        let rule = match (bucket.is_lower_inclusive, bucket.is_upper_inclusive) {
            (false, true) => b'0',
            (true, false) => b'1',
            (false, false) => b'2',
            (true, true) => b'3',
        };
        out.extend_from_slice(&[b'[', rule]);
        for number in [bucket.lower, bucket.upper, bucket.count] {
            out.push(b',');
            push_value(out, number);
        }
        out.push(b']');
    }
    if !is_first {
        out.push(b']');
    }
    out.push(b'}');
}

/// Writes the answer to a query, piece by piece.
#[derive(Debug)]
pub struct QueryWriter {
    is_first: bool,
    is_list: bool,
    /// The series that more points may be added to.
    open: Option<Points>,
}

/// Which list of a series is being written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Points {
    None,
    Floats,
    Histograms,
}

/// Timings and counts as `stats` shows them.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Stats {
    /// Seconds waited for a place.
    pub queue_seconds: f64,
    /// Seconds spent preparing.
    pub prepare_seconds: f64,
    /// Seconds spent evaluating.
    pub eval_seconds: f64,
    /// Counts.
    pub samples: model::query::QueryStats,
}

impl QueryWriter {
    /// Begins a vector's answer.
    pub fn vector(out: &mut Vec<u8>) -> Self {
        Self::begin_list(out, "vector")
    }

    /// Begins a matrix's answer.
    pub fn matrix(out: &mut Vec<u8>) -> Self {
        Self::begin_list(out, "matrix")
    }

    /// Writes a scalar's answer.
    pub fn scalar(out: &mut Vec<u8>, t: Timestamp, x: f64) -> Self {
        Self::begin_pair(out, "scalar", t);
        // Unlike that of a sample, its value never has an exponent.
        push_escaped(out, &model::number::format_fixed(x));
        out.push(b']');
        Self { is_first: true, is_list: false, open: None }
    }

    /// Writes a string's answer.
    pub fn string(out: &mut Vec<u8>, t: Timestamp, text: &str) -> Self {
        Self::begin_pair(out, "string", t);
        push_escaped(out, text);
        out.push(b']');
        Self { is_first: true, is_list: false, open: None }
    }

    fn begin(out: &mut Vec<u8>, kind: &str) {
        write!(out, "{{\"status\":\"success\",\"data\":{{\"resultType\":\"{kind}\",\"result\":[")
            .expect("writing to memory cannot fail");
    }

    fn begin_list(out: &mut Vec<u8>, kind: &str) -> Self {
        Self::begin(out, kind);
        Self { is_first: true, is_list: true, open: None }
    }

    fn begin_pair(out: &mut Vec<u8>, kind: &str, t: Timestamp) {
        Self::begin(out, kind);
        serde_json::to_writer(&mut *out, &seconds(t)).expect("writing to memory cannot fail");
        out.push(b',');
    }

    fn separate(&mut self, out: &mut Vec<u8>) {
        if !std::mem::replace(&mut self.is_first, false) {
            out.push(b',');
        }
    }

    /// Writes one element of a vector.
    pub fn element(&mut self, out: &mut Vec<u8>, element: &VectorElement) {
        self.separate(out);
        out.extend_from_slice(b"{\"metric\":");
        push_labels(out, &element.labels);
        out.extend_from_slice(match element.value {
            PointValue::Float(_) => b",\"value\":[",
            PointValue::Histogram(_) => b",\"histogram\":[",
        });
        push_timestamp(out, element.timestamp);
        out.push(b',');
        match &element.value {
            PointValue::Float(x) => push_value(out, *x),
            PointValue::Histogram(h) => push_histogram(out, h),
        }
        out.extend_from_slice(b"]}");
    }

    /// Writes one series of a matrix.
    pub fn series(&mut self, out: &mut Vec<u8>, series: &MatrixSeries) {
        self.end_series(out);
        self.separate(out);
        out.extend_from_slice(b"{\"metric\":");
        push_labels(out, &series.labels);
        self.open = Some(Points::None);
        self.more(out, series);
    }

    /// Writes more points of the series that was written last, floats before histograms; the labels are not looked at.
    pub fn more(&mut self, out: &mut Vec<u8>, series: &MatrixSeries) {
        for (t, x) in &series.floats {
            self.begin_point(out, Points::Floats, *t);
            push_value(out, *x);
            out.push(b']');
        }
        for (t, h) in &series.histograms {
            self.begin_point(out, Points::Histograms, *t);
            push_histogram(out, h);
            out.push(b']');
        }
    }

    fn begin_point(&mut self, out: &mut Vec<u8>, list: Points, t: Timestamp) {
        out.extend_from_slice(match (self.open.replace(list), list) {
            (Some(Points::Floats), Points::Histograms) => b"],\"histograms\":[[",
            (Some(Points::None), Points::Histograms) => b",\"histograms\":[[",
            (Some(Points::None), _) => b",\"values\":[[",
            _ => b",[",
        });
        push_timestamp(out, t);
        out.push(b',');
    }

    fn end_series(&mut self, out: &mut Vec<u8>) {
        match self.open.take() {
            Some(Points::None) => out.push(b'}'),
            Some(_) => out.extend_from_slice(b"]}"),
            None => {}
        }
    }

    /// Ends the answer.
    pub fn end(mut self, out: &mut Vec<u8>, stats: Option<&Stats>, warnings: &[String], infos: &[String]) {
        self.end_series(out);
        if self.is_list {
            out.push(b']');
        }
        if let Some(stats) = stats {
            push_stats(out, stats);
        }
        out.push(b'}');
        push_annotations(out, warnings, infos);
        out.push(b'}');
    }
}

/// `stats` in the order of Prometheus's `util/stats`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StatsJson {
    timings: TimingsJson,
    samples: SamplesJson,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TimingsJson {
    eval_total_time: f64,
    result_sort_time: f64,
    query_preparation_time: f64,
    inner_eval_time: f64,
    exec_queue_time: f64,
    exec_total_time: f64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SamplesJson {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    total_queryable_samples_per_step: Vec<(serde_json::Number, u64)>,
    total_queryable_samples: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    samples_read_per_step: Vec<(serde_json::Number, u64)>,
    samples_read: u64,
    peak_samples: u64,
}

/// Seconds as Go writes a float: without a point where they are whole.
fn seconds(t: Timestamp) -> serde_json::Number {
    match t.millis() % 1000 {
        0 => (t.millis() / 1000).into(),
        _ => serde_json::Number::from_f64(t.seconds()).unwrap_or_else(|| 0.into()),
    }
}

fn push_stats(out: &mut Vec<u8>, stats: &Stats) {
    let Stats { queue_seconds, prepare_seconds, eval_seconds, samples } = stats;
    let per_step = |count: fn(&StepStats) -> u64| {
        samples.steps.iter().map(|step| (seconds(step.time), count(step))).collect()
    };
    let json = StatsJson {
        timings: TimingsJson {
            eval_total_time: prepare_seconds + eval_seconds,
            result_sort_time: 0.0,
            query_preparation_time: *prepare_seconds,
            inner_eval_time: *eval_seconds,
            exec_queue_time: *queue_seconds,
            exec_total_time: queue_seconds + prepare_seconds + eval_seconds,
        },
        samples: SamplesJson {
            total_queryable_samples_per_step: per_step(|step| step.samples_total),
            total_queryable_samples: samples.samples_total,
            samples_read_per_step: per_step(|step| step.samples_read),
            samples_read: samples.samples_read,
            peak_samples: samples.samples_peak,
        },
    };
    out.extend_from_slice(b",\"stats\":");
    serde_json::to_writer(&mut *out, &json).expect("writing to memory cannot fail");
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use model::Span;

    use super::*;

    fn text(out: Vec<u8>) -> String {
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn times_have_no_or_three_decimals() {
        for (ms, expected) in [
            (0, "0"),
            (1, "0.001"),
            (10, "0.010"),
            (1_000, "1"),
            (-1, "-0.001"),
            (-1_500, "-1.500"),
            (1_435_781_451_781, "1435781451.781"),
        ] {
            let mut out = Vec::new();
            push_timestamp(&mut out, Timestamp(ms));
            assert_eq!(text(out), expected);
        }
    }

    #[test]
    fn a_vector_reads_as_prometheus_writes_it() {
        let mut out = Vec::new();
        let mut writer = QueryWriter::vector(&mut out);
        let histogram = FloatHistogram {
            count: 7.0,
            sum: 2.5,
            zero_threshold: 0.5,
            zero_count: 2.0,
            positive_spans: vec![Span { offset: 1, length: 2 }],
            positive_buckets: vec![4.0, 0.0],
            negative_spans: vec![Span { offset: 0, length: 1 }],
            negative_buckets: vec![1.0],
            ..FloatHistogram::default()
        };
        for (value, name) in [
            (PointValue::Float(1.5), "<up>"),
            (PointValue::Float(f64::NEG_INFINITY), "b"),
            (PointValue::Histogram(Arc::new(histogram)), "h"),
        ] {
            let labels = Labels::from_pairs([("__name__", name)]);
            writer.element(&mut out, &VectorElement { labels, timestamp: Timestamp(1_500), value });
        }
        writer.end(&mut out, None, &["a<b".to_owned()], &[]);
        assert_eq!(
            text(out),
            concat!(
                r#"{"status":"success","data":{"resultType":"vector","result":["#,
                r#"{"metric":{"__name__":"<up>"},"value":[1.500,"1.5"]},"#,
                r#"{"metric":{"__name__":"b"},"value":[1.500,"-Inf"]},"#,
                r#"{"metric":{"__name__":"h"},"histogram":[1.500,{"count":"7","sum":"2.5","#,
                r#""buckets":[[1,"-1","-0.5","1"],[3,"-0.5","0.5","2"],[0,"1","2","4"]]}]}"#,
                r#"]},"warnings":["a\u003cb"]}"#
            )
        );
    }

    #[test]
    fn a_matrix_keeps_floats_and_histograms_apart() {
        let mut out = Vec::new();
        let mut writer = QueryWriter::matrix(&mut out);
        let h = Arc::new(FloatHistogram { count: 0.0, sum: f64::NAN, ..FloatHistogram::default() });
        let floats = vec![(Timestamp(0), 1.0), (Timestamp(1_000), f64::NAN)];
        writer.series(
            &mut out,
            &MatrixSeries { labels: Labels::empty(), floats, histograms: vec![(Timestamp(2_000), h)] },
        );
        writer.end(&mut out, None, &[], &["i".to_owned()]);
        assert_eq!(
            text(out),
            concat!(
                r#"{"status":"success","data":{"resultType":"matrix","result":["#,
                r#"{"metric":{},"values":[[0,"1"],[1,"NaN"]],"histograms":[[2,{"count":"0","sum":"NaN"}]]}"#,
                r#"]},"infos":["i"]}"#
            )
        );
    }

    #[test]
    fn more_points_go_on_with_the_series_before() {
        let floats = |times: std::ops::Range<i64>| MatrixSeries {
            floats: times.map(|t| (Timestamp(1_000 * t), 1.0)).collect(),
            ..MatrixSeries::default()
        };
        let histogram = |t| MatrixSeries {
            histograms: vec![(Timestamp(t), Arc::new(FloatHistogram::default()))],
            ..MatrixSeries::default()
        };
        let mut out = Vec::new();
        let mut writer = QueryWriter::matrix(&mut out);
        writer.series(&mut out, &floats(0..1));
        for more in [floats(1..3), floats(3..3), histogram(3_000), histogram(4_000)] {
            writer.more(&mut out, &more);
        }
        writer.series(&mut out, &floats(0..0));
        writer.more(&mut out, &histogram(5_000));
        writer.end(&mut out, None, &[], &[]);
        assert_eq!(
            text(out),
            concat!(
                r#"{"status":"success","data":{"resultType":"matrix","result":["#,
                r#"{"metric":{},"values":[[0,"1"],[1,"1"],[2,"1"]],"#,
                r#""histograms":[[3,{"count":"0","sum":"0"}],[4,{"count":"0","sum":"0"}]]},"#,
                r#"{"metric":{},"histograms":[[5,{"count":"0","sum":"0"}]]}]}}"#
            )
        );
    }

    #[test]
    fn scalars_strings_and_empty_answers() {
        let mut out = Vec::new();
        QueryWriter::scalar(&mut out, Timestamp(10), 2.0).end(&mut out, None, &[], &[]);
        assert_eq!(text(out), r#"{"status":"success","data":{"resultType":"scalar","result":[0.01,"2"]}}"#);
        let mut out = Vec::new();
        QueryWriter::string(&mut out, Timestamp(0), "a&\"").end(&mut out, None, &[], &[]);
        assert_eq!(
            text(out),
            r#"{"status":"success","data":{"resultType":"string","result":[0,"a\u0026\""]}}"#
        );
        let mut out = Vec::new();
        QueryWriter::vector(&mut out).end(&mut out, Some(&Stats::default()), &[], &[]);
        let value: serde_json::Value = serde_json::from_slice(&out).expect("JSON");
        assert_eq!(value["data"]["result"], serde_json::json!([]));
        assert_eq!(value["data"]["stats"]["samples"]["peakSamples"], 0);
    }

    #[test]
    fn stats_by_step_stand_before_their_totals() {
        let step = |ms, n| StepStats { time: Timestamp(ms), samples_total: n, samples_read: n - 1 };
        let samples = model::query::QueryStats {
            samples_total: 5,
            samples_read: 3,
            samples_peak: 4,
            steps: vec![step(1_000, 2), step(1_500, 3)],
        };
        let stats = Stats { queue_seconds: 1.0, prepare_seconds: 0.25, eval_seconds: 0.5, samples };
        let mut out = Vec::new();
        QueryWriter::vector(&mut out).end(&mut out, Some(&stats), &[], &[]);
        assert_eq!(
            text(out),
            concat!(
                r#"{"status":"success","data":{"resultType":"vector","result":[],"stats":{"#,
                r#""timings":{"evalTotalTime":0.75,"resultSortTime":0.0,"queryPreparationTime":0.25,"#,
                r#""innerEvalTime":0.5,"execQueueTime":1.0,"execTotalTime":1.75},"#,
                r#""samples":{"totalQueryableSamplesPerStep":[[1,2],[1.5,3]],"totalQueryableSamples":5,"#,
                r#""samplesReadPerStep":[[1,1],[1.5,2]],"samplesRead":3,"peakSamples":4}}}}"#
            )
        );
    }

    #[test]
    fn other_answers_escape_html() {
        let out = success(&serde_json::json!({"a<": ["\u{2028}&"]}), &[], &[]);
        assert_eq!(text(out), r#"{"status":"success","data":{"a\u003c":["\u2028\u0026"]}}"#);
        let names: [&str; 0] = [];
        let out = success(&names, &[TRUNCATED_WARNING.to_owned()], &[]);
        assert_eq!(
            text(out),
            r#"{"status":"success","data":[],"warnings":["results truncated due to limit"]}"#
        );
    }

    #[test]
    fn exemplars_stand_by_series() {
        let exemplar = |ms| Exemplar {
            labels: Labels::from_pairs([("trace_id", "<a>")]),
            value: 6.0,
            timestamp: Some(Timestamp(ms)),
        };
        let all = [
            (Labels::from_pairs([("__name__", "a")]), vec![exemplar(1_600_096_945_010), exemplar(5_000)]),
            (Labels::from_pairs([("__name__", "b")]), vec![exemplar(0)]),
        ];
        let shown = |t| format!(r#"{{"labels":{{"trace_id":"<a>"}},"value":"6","timestamp":{t}}}"#);
        let want = format!(
            r#"{{"status":"success","data":[{{"seriesLabels":{{"__name__":"a"}},"exemplars":[{},{}]}},{{"seriesLabels":{{"__name__":"b"}},"exemplars":[{}]}}],"warnings":["w"]}}"#,
            shown("1600096945.010"),
            shown("5"),
            shown("0"),
        );
        let got = exemplars(&all, &["w".to_owned()]);
        assert_eq!(String::from_utf8(got).expect("UTF-8"), want);
        assert_eq!(exemplars(&[], &[]), br#"{"status":"success","data":[]}"#);
    }
}
