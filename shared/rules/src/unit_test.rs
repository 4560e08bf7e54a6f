//! Unit tests of rules, as `promtool test rules` runs them, with its texts.
//!
//! A file names rule files and test groups. A test group is a store of its own with the samples of its input series;
//! its rules are evaluated from the start to the last time that anything is asked for, and what fires, and what
//! expressions give, is compared with what the file expects.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use model::number::Quoted;
use model::query::{PointValue, QueryValue, VectorElement};
use model::time::PrometheusDuration;
use model::{CounterResetHint, FloatHistogram, Labels, Timestamp};
use promql_engine::memory::{Sample, SampleValue, Store, sequence};
use promql_engine::{Control, Engine, EngineOptions};
use promql_syntax::parse_series_description;
use yaml_tree::{Content, Node};

use crate::alert::{ALERT_NAME, AlertState, ms};
use crate::file;
use crate::group::{Environment, Group};
use crate::strict::{Dialect, Reader};
use crate::template::show_duration;

/// The largest file, in bytes.
pub const FILE_BYTES_MAX: u64 = yaml_tree::DOCUMENT_BYTES_MAX as u64;
/// How often rules are evaluated where a file does not say so.
const INTERVAL: Duration = Duration::from_secs(60);
/// How many files the patterns of one test file may match.
const RULE_FILES_MAX: usize = 10_000;
/// How many evaluations a test group may ask for.
const EVALUATIONS_MAX: i64 = 10_000_000;

/// How tests are run.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Only groups whose name matches one of these; none means all.
    pub run: Vec<regex::Regex>,
    /// How rule files are read, and whether unknown fields of the test file are passed over.
    pub files: file::Options,
    /// Metric names are dropped when an evaluation ends.
    pub delayed_name_removal: bool,
}

/// How the tests of a file went.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// What a person should look at.
    pub warnings: Vec<String>,
    /// What is wrong; none when all tests passed.
    pub faults: Vec<String>,
}

/// Runs the tests of a file.
#[must_use]
pub fn run(path: &str, settings: &Settings) -> Report {
    let mut report = Report::default();
    match read_file(path).and_then(|text| read(&text, settings)) {
        Ok(Some(tests)) => tests.run(path, settings, &mut report),
        Ok(None) => {}
        Err(fault) => report.faults.push(fault),
    }
    report
}

/// Reads a text file of bounded size; the error names it as Go does.
pub fn read_file(path: &str) -> Result<String, String> {
    let fail = |error: &std::io::Error| {
        let reason = match error.kind() {
            std::io::ErrorKind::NotFound => "no such file or directory".to_owned(),
            std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
            _ => error.to_string(),
        };
        format!("open {path}: {reason}")
    };
    let file = std::fs::File::open(path).map_err(|error| fail(&error))?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| fail(&error))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("read {path}: file exceeds {FILE_BYTES_MAX} bytes"));
    }
    String::from_utf8(bytes).map_err(|_| format!("read {path}: yaml: control characters are not allowed"))
}

struct TestFile {
    rule_files: Vec<String>,
    interval: Duration,
    order: Vec<String>,
    is_fuzzy: bool,
    groups: Vec<TestGroup>,
}

struct TestGroup {
    name: String,
    interval: Option<Duration>,
    start: Timestamp,
    series: Vec<(String, String)>,
    alerts: Vec<AlertCase>,
    expressions: Vec<ExprCase>,
    external_labels: Labels,
    external_url: String,
}

struct AlertCase {
    time: Duration,
    name: String,
    expected: Vec<(BTreeMap<String, String>, BTreeMap<String, String>)>,
}

struct ExprCase {
    expr: String,
    time: Duration,
    expected: Vec<ExpectedSample>,
}

struct ExpectedSample {
    labels: String,
    value: f64,
    histogram: String,
}

fn read(text: &str, settings: &Settings) -> Result<Option<TestFile>, String> {
    let Some(root) = yaml_tree::parse(text)? else { return Ok(None) };
    let mut reader = Reader::new(Dialect::V2, !settings.files.ignore_unknown_fields);
    let file = read_test_file(&mut reader, &root);
    reader.finish()?;
    Ok(file)
}

fn read_test_file(reader: &mut Reader, node: &Node) -> Option<TestFile> {
    let known = ["rule_files", "evaluation_interval", "group_eval_order", "tests", "fuzzy_compare"];
    let fields = reader.section(node, "main.unitTestFile", &known)?;
    let field = |name| fields.get(name).copied();
    let mut strings = |node| -> Vec<String> {
        let items = reader.list(node, "[]string");
        items.iter().map(|item| reader.string(Some(item))).collect()
    };
    let (rule_files, order) = (strings(field("rule_files")), strings(field("group_eval_order")));
    let interval = reader.duration(field("evaluation_interval")).filter(|i| !i.is_zero());
    let is_fuzzy = reader.boolean(field("fuzzy_compare"));
    let groups = reader.list(field("tests"), "[]main.testGroup");
    let groups = groups.iter().filter_map(|node| read_group(reader, node)).collect();
    Some(TestFile { rule_files, interval: interval.unwrap_or(INTERVAL), order, is_fuzzy, groups })
}

fn read_group(reader: &mut Reader, node: &Node) -> Option<TestGroup> {
    let known = [
        "interval",
        "input_series",
        "alert_rule_test",
        "promql_expr_test",
        "external_labels",
        "external_url",
        "name",
        "start_timestamp",
    ];
    let fields = reader.section(node, "main.testGroup", &known)?;
    let field = |name| fields.get(name).copied();
    let series = reader.list(field("input_series"), "[]main.series");
    let series = series.iter().filter_map(|node| {
        let fields = reader.section(node, "main.series", &["series", "values"])?;
        let mut string = |name| reader.string(fields.get(name).copied());
        Some((string("series"), string("values")))
    });
    let series = series.collect();
    let alerts = reader.list(field("alert_rule_test"), "[]main.alertTestCase");
    let alerts = alerts.iter().filter_map(|node| read_alert_case(reader, node)).collect();
    let expressions = reader.list(field("promql_expr_test"), "[]main.promqlTestCase");
    let expressions = expressions.iter().filter_map(|node| read_expr_case(reader, node)).collect();
    Some(TestGroup {
        name: reader.string(field("name")),
        interval: reader.duration(field("interval")).filter(|i| !i.is_zero()),
        start: start(reader, field("start_timestamp")),
        series,
        alerts,
        expressions,
        external_labels: Labels::from_pairs(&reader.strings(field("external_labels"))),
        external_url: reader.string(field("external_url")),
    })
}

/// A time: seconds since the epoch, or RFC 3339.
fn start(reader: &mut Reader, node: Option<&Node>) -> Timestamp {
    let text = reader.string(node);
    if text.is_empty() {
        return Timestamp(0);
    }
    let seconds = text.parse::<f64>().ok().filter(|seconds| seconds.is_finite());
    #[expect(clippy::cast_possible_truncation, reason = "saturates")]
    let from_number = seconds.map(|seconds| (seconds * 1_000.0).round() as i64);
    match from_number.or_else(|| text.parse::<jiff::Timestamp>().ok().map(|t| t.as_millisecond())) {
        Some(ms) => Timestamp(ms),
        None => {
            reader.fault(format!("cannot parse {} to a valid timestamp", Quoted(&text)));
            Timestamp(0)
        }
    }
}

fn read_alert_case(reader: &mut Reader, node: &Node) -> Option<AlertCase> {
    let fields = reader.section(node, "main.alertTestCase", &["eval_time", "alertname", "exp_alerts"])?;
    let field = |name| fields.get(name).copied();
    let expected = reader.list(field("exp_alerts"), "[]main.alert");
    let expected = expected.iter().filter_map(|node| {
        let fields = reader.section(node, "main.alert", &["exp_labels", "exp_annotations"])?;
        let mut strings = |name| reader.strings(fields.get(name).copied());
        Some((strings("exp_labels"), strings("exp_annotations")))
    });
    let expected = expected.collect();
    let time = reader.duration(field("eval_time")).unwrap_or_default();
    Some(AlertCase { time, name: reader.string(field("alertname")), expected })
}

fn read_expr_case(reader: &mut Reader, node: &Node) -> Option<ExprCase> {
    let fields = reader.section(node, "main.promqlTestCase", &["expr", "eval_time", "exp_samples"])?;
    let field = |name| fields.get(name).copied();
    let expected = reader.list(field("exp_samples"), "[]main.sample");
    let expected = expected.iter().filter_map(|node| {
        let fields = reader.section(node, "main.sample", &["labels", "value", "histogram"])?;
        let field = |name| fields.get(name).copied();
        Some(ExpectedSample {
            labels: reader.string(field("labels")),
            value: test_value(reader, field("value")),
            histogram: reader.string(field("histogram")),
        })
    });
    let expected = expected.collect();
    let time = reader.duration(field("eval_time")).unwrap_or_default();
    Some(ExprCase { expr: reader.string(field("expr")), time, expected })
}

/// A number; YAML's reader of Go takes `NaN` and `Inf` in quotes as well.
fn test_value(reader: &mut Reader, node: Option<&Node>) -> f64 {
    if let Some(Node { content: Content::Scalar(scalar), .. }) = node
        && let Some(special) = model::number::parse_float(&scalar.text).filter(|x| !x.is_finite())
    {
        return special;
    }
    reader.float(node)
}

impl TestFile {
    fn run(&self, path: &str, settings: &Settings, report: &mut Report) {
        let folder = Path::new(path).parent().unwrap_or(Path::new(""));
        let files = match self.matching_files(folder, report) {
            Ok(files) => files,
            Err(fault) => return report.faults.push(fault),
        };
        let mut names = BTreeSet::new();
        if let Some(name) = self.order.iter().find(|name| !names.insert(*name)) {
            return report.faults.push(format!("group name repeated in evaluation order: {name}"));
        }
        for group in &self.groups {
            let is_wanted = |pattern: &regex::Regex| pattern.is_match(&group.name);
            if settings.run.is_empty() || settings.run.iter().any(is_wanted) {
                report.faults.extend(group.run(self, &files, settings).err().into_iter().flatten());
            }
        }
    }

    fn matching_files(&self, folder: &Path, report: &mut Report) -> Result<Vec<String>, String> {
        let mut files = Vec::new();
        for pattern in &self.rule_files {
            let pattern = folder.join(pattern).to_string_lossy().into_owned();
            let before = files.len();
            for path in glob::glob(&pattern).map_err(|error| error.to_string())? {
                files.push(path.map_err(|error| error.to_string())?.to_string_lossy().into_owned());
                if files.len() > RULE_FILES_MAX {
                    return Err(format!("rule_files match more than {RULE_FILES_MAX} files"));
                }
            }
            if files.len() == before {
                report.warnings.push(format!("  WARNING: no file match pattern {pattern}"));
            }
        }
        Ok(files)
    }
}

/// The series of a test and how far they have been appended.
struct Input {
    series: Vec<(Labels, std::iter::Peekable<std::vec::IntoIter<Sample>>)>,
}

impl Input {
    fn append_until(&mut self, store: &mut Store, time: Timestamp) -> Result<(), String> {
        for (labels, samples) in &mut self.series {
            let due = std::iter::from_fn(|| samples.next_if(|sample| sample.time <= time.millis()));
            store.append(labels, due).map_err(|error| format!("{labels}: {error}"))?;
        }
        Ok(())
    }
}

impl TestGroup {
    fn run(&self, file: &TestFile, paths: &[String], settings: &Settings) -> Result<(), Vec<String>> {
        let mut input = self.input(file).map_err(|fault| vec![fault])?;
        let mut groups = self.groups(file, paths, settings)?;
        if let Some(case) = self.alerts.iter().find(|case| case.name.is_empty()) {
            let at = PrometheusDuration(case.time);
            let whose =
                if self.name.is_empty() { String::new() } else { format!(" (in TestGroup {})", self.name) };
            return Err(vec![format!(
                "an item under alert_rule_test misses required attribute alertname at eval_time {at}{whose}"
            )]);
        }
        let engine = Engine::new(EngineOptions {
            syntax: settings.files.syntax,
            max_samples: 10_000,
            timeout: Duration::from_secs(100),
            subquery_step: file.interval,
            delayed_name_removal: settings.delayed_name_removal,
            annotations_max: usize::MAX,
            ..EngineOptions::default()
        });
        let mut store = Store::default();
        let mut faults = Vec::new();
        let last = self.alerts.iter().map(|c| c.time).chain(self.expressions.iter().map(|c| c.time)).max();
        let (last, step) = (ms(last.unwrap_or_default()), ms(file.interval));
        if last / step > EVALUATIONS_MAX {
            return Err(vec![format!("a test group may have {EVALUATIONS_MAX} evaluations at most")]);
        }
        let mut cases: Vec<&AlertCase> = self.alerts.iter().collect();
        cases.sort_by_key(|case| case.time);
        let mut cases = cases.into_iter().peekable();
        for elapsed in (0..=last).step_by(usize::try_from(step).unwrap_or(usize::MAX)) {
            let at = self.start.add_ms(elapsed);
            input.append_until(&mut store, at).map_err(|fault| vec![fault])?;
            let failed = self.evaluate(&mut groups, (at, elapsed), &engine, &mut store);
            if !failed.is_empty() {
                faults.extend(failed);
                return Err(faults);
            }
            while let Some(case) = cases.next_if(|case| ms(case.time) < elapsed + step) {
                faults.extend(self.check_alerts(case, &groups).err());
            }
        }
        faults.extend(self.expressions.iter().filter_map(|case| {
            let time = PrometheusDuration(case.time);
            let shown = Quoted(&case.expr);
            self.check_expression(case, &engine, &store, file.is_fuzzy)
                .err()
                .map(|fault| format!("    expr: {shown}, time: {time},{fault}"))
        }));
        if faults.is_empty() { Ok(()) } else { Err(faults) }
    }

    fn input(&self, file: &TestFile) -> Result<Input, String> {
        let interval = ms(self.interval.unwrap_or(file.interval));
        let mut series = BTreeMap::new();
        for (i, (description, values)) in self.series.iter().enumerate() {
            let text = format!("{description} {values}");
            let (labels, values) = parse_series_description(text.trim()).map_err(|error| {
                // The reference numbers lines as those of a script that loads the series.
                let text = error.to_string();
                match text.split_once(':') {
                    Some(("1", rest)) => format!("{}:{rest}", i + 2),
                    _ => text,
                }
            })?;
            let mut samples = Vec::new();
            for (i, value) in sequence(&values)?.into_iter().enumerate() {
                let offset = i64::try_from(i).unwrap_or(i64::MAX).saturating_mul(interval);
                let value = match value {
                    None => continue,
                    Some(SampleValue::Float(x)) => PointValue::Float(x),
                    Some(SampleValue::Histogram(literal)) => PointValue::Histogram(literal.histogram),
                };
                samples.push(Sample { time: self.start.add_ms(offset).millis(), start: 0, value });
            }
            // Of two lines for one series the last wins.
            series.insert(labels, samples.into_iter().peekable());
        }
        Ok(Input { series: series.into_iter().collect() })
    }

    fn groups(
        &self,
        file: &TestFile,
        paths: &[String],
        settings: &Settings,
    ) -> Result<Vec<Group>, Vec<String>> {
        let mut groups = Vec::new();
        let mut faults = Vec::new();
        let interval = self.interval.unwrap_or(file.interval);
        for path in paths {
            let parsed = read_file(path).map_err(|fault| vec![fault]);
            match parsed.and_then(|text| file::parse(&text, &settings.files)) {
                Ok(parsed) => groups.extend(
                    parsed
                        .groups
                        .into_iter()
                        .map(|group| Group::new(path, group, (interval, Duration::ZERO), true)),
                ),
                Err(of_file) => {
                    // As the reference's loader tells of the first file that is wrong.
                    faults.extend(of_file.into_iter().map(|fault| format!("{path}: {fault}")));
                    return Err(faults);
                }
            }
        }
        let place = |name: &str| file.order.iter().position(|known| known == name).unwrap_or(0);
        groups.sort_by_key(|group| place(&group.spec.name));
        Ok(groups)
    }

    /// Evaluates all groups; returns what failed.
    fn evaluate(
        &self,
        groups: &mut [Group],
        (at, elapsed): (Timestamp, i64),
        engine: &Engine,
        store: &mut Store,
    ) -> Vec<String> {
        let mut failed = Vec::new();
        for group in groups {
            let evaluation = group.evaluate(
                at,
                &Environment {
                    engine,
                    source: &*store,
                    control: &Control::default(),
                    external_labels: &self.external_labels,
                    external_url: &self.external_url,
                    resend_delay: Duration::ZERO,
                    concurrency: 1,
                },
            );
            let mut refused = None;
            for (labels, value) in &evaluation.samples {
                let sample = Sample { time: evaluation.time.millis(), start: 0, value: value.clone() };
                if let Err(error) = store.append(labels, [sample]) {
                    refused.get_or_insert(error);
                }
            }
            match refused {
                Some(error) => group.not_stored(&evaluation, &error),
                None => group.stored(&evaluation),
            }
            for rule in group.rules().iter().filter(|rule| !rule.last_error.is_empty()) {
                let time = show_duration(elapsed.saturating_mul(1_000_000));
                failed.push(format!("    rule: {}, time: {time}, err: {}", rule.spec.name, rule.last_error));
            }
        }
        failed
    }

    fn check_alerts(&self, case: &AlertCase, groups: &[Group]) -> Result<(), String> {
        let rules = groups.iter().flat_map(Group::rules).filter(|rule| rule.spec.name == case.name);
        let firing = rules.flat_map(|rule| rule.active_alerts()).filter(|a| a.state == AlertState::Firing);
        let mut got: Vec<(Labels, Labels)> =
            firing.map(|alert| (alert.labels.clone(), alert.annotations.clone())).collect();
        let expected = case.expected.iter().map(|(labels, annotations)| {
            // The name is not for the file to say.
            (Labels::from_pairs(labels).with(ALERT_NAME, &case.name), Labels::from_pairs(annotations))
        });
        let mut expected: Vec<(Labels, Labels)> = expected.collect();
        got.sort();
        expected.sort();
        if got == expected {
            return Ok(());
        }
        let name = if self.name.is_empty() { String::new() } else { format!("    name: {},\n", self.name) };
        Err(format!(
            "{name}    alertname: {}, time: {}, \n        exp:{}, \n        got:{}",
            case.name,
            PrometheusDuration(case.time),
            alerts_text(&expected),
            alerts_text(&got)
        ))
    }

    fn check_expression(
        &self,
        case: &ExprCase,
        engine: &Engine,
        store: &Store,
        is_fuzzy: bool,
    ) -> Result<(), String> {
        let failed = |error: &str| format!(" err: {error}");
        let time = self.start.add_ms(ms(case.time));
        let query = engine.instant(&case.expr, time).map_err(|error| failed(&error.to_string()))?;
        let answer = query.run(store, &Control::default()).map_err(|error| failed(&error.to_string()))?;
        let elements = match answer.value {
            QueryValue::Vector(elements) => elements,
            QueryValue::Scalar(timestamp, x) => {
                vec![VectorElement { labels: Labels::empty(), timestamp, value: PointValue::Float(x) }]
            }
            _ => return Err(failed("rule result is not a vector or scalar")),
        };
        let mut got: Vec<Shown> = elements.into_iter().map(|e| Shown::new(e.labels, &e.value)).collect();
        let mut expected = Vec::with_capacity(case.expected.len());
        for sample in &case.expected {
            expected.push(sample.shown().map_err(|error| failed(&error))?);
        }
        got.sort_by(|a, b| a.labels.cmp(&b.labels));
        expected.sort_by(|a, b| a.labels.cmp(&b.labels));
        if got.len() == expected.len() && got.iter().zip(&expected).all(|(a, b)| a.is_equal(b, is_fuzzy)) {
            return Ok(());
        }
        Err(format!("\n        exp: {}\n        got: {}", samples_text(&expected), samples_text(&got)))
    }
}

/// A sample as it is compared and shown.
struct Shown {
    labels: Labels,
    value: f64,
    histogram: String,
}

impl Shown {
    fn new(labels: Labels, value: &PointValue) -> Self {
        match value {
            PointValue::Float(x) => Self { labels, value: *x, histogram: String::new() },
            PointValue::Histogram(h) => Self { labels, value: 0.0, histogram: histogram_text(h) },
        }
    }

    fn is_equal(&self, other: &Self, is_fuzzy: bool) -> bool {
        let (a, b) = (self.value, other.value);
        let is_near = a == b || is_fuzzy && (a.next_up() == b || a.next_down() == b);
        self.labels == other.labels && is_near && self.histogram == other.histogram
    }
}

impl ExpectedSample {
    fn shown(&self) -> Result<Shown, String> {
        let fail = |error: &dyn std::fmt::Display| format!("labels {}: {error}", Quoted(&self.labels));
        let text = if self.labels.is_empty() { "{}" } else { &self.labels };
        let (labels, values) = parse_series_description(text).map_err(|error| fail(&error))?;
        if !values.is_empty() {
            return Err(fail(&"1:1: parse error: unexpected values"));
        }
        if self.histogram.is_empty() {
            return Ok(Shown { labels, value: self.value, histogram: String::new() });
        }
        let fail = |error: &dyn std::fmt::Display| format!("histogram {}: {error}", Quoted(&self.histogram));
        let text = format!("{{}} {}", self.histogram);
        let (_, values) = parse_series_description(&text).map_err(|error| fail(&error))?;
        let values = sequence(&values).map_err(|error| fail(&error))?;
        match &values[..] {
            [Some(SampleValue::Histogram(literal))] => {
                Ok(Shown { labels, value: self.value, histogram: histogram_text(&literal.histogram) })
            }
            [_] => Err(fail(&"expected histogram value, got float")),
            many => Err(fail(&format!("expected 1 value, got {}", many.len()))),
        }
    }
}

fn samples_text(samples: &[Shown]) -> String {
    if samples.is_empty() {
        return "nil".to_owned();
    }
    let show = |sample: &Shown| match sample.histogram.as_str() {
        "" => format!("{} {}", sample.labels, exponent(sample.value)),
        histogram => format!("{} {histogram}", sample.labels),
    };
    samples.iter().map(show).collect::<Vec<_>>().join(", ")
}

/// A float as Go's `'E'` with the fewest digits prints it.
fn exponent(x: f64) -> String {
    if !x.is_finite() {
        return model::number::format_general(x);
    }
    let text = format!("{x:E}");
    let (mantissa, power) = text.split_once('E').unwrap_or((&text, "0"));
    let (sign, digits) = power.strip_prefix('-').map_or(('+', power), |digits| ('-', digits));
    format!("{mantissa}E{sign}{digits:0>2}")
}

fn alerts_text(alerts: &[(Labels, Labels)]) -> String {
    if alerts.is_empty() {
        return "[]".to_owned();
    }
    const INDENT: &str = "            ";
    let mut out = String::from("[");
    for (i, (labels, annotations)) in alerts.iter().enumerate() {
        let comma = if i > 0 { "," } else { "" };
        write!(out, "{comma}\n{INDENT}{i}:\n{INDENT}  Labels:{labels}\n{INDENT}  Annotations:{annotations}")
            .expect("writing to a string");
    }
    write!(out, "\n{INDENT}]").expect("writing to a string");
    out
}

/// A histogram in the language of tests.
fn histogram_text(h: &FloatHistogram) -> String {
    let number = model::number::format_general;
    let mut parts = Vec::new();
    if h.schema != 0 {
        parts.push(format!("schema:{}", h.schema));
    }
    for (name, value) in
        [("count", h.count), ("sum", h.sum), ("z_bucket", h.zero_count), ("z_bucket_w", h.zero_threshold)]
    {
        if value != 0.0 {
            parts.push(format!("{name}:{}", number(value)));
        }
    }
    let list = |values: &[f64]| values.iter().map(|v| number(*v)).collect::<Vec<_>>().join(" ");
    if h.schema == model::histogram::CUSTOM_BUCKETS_SCHEMA {
        parts.push(format!("custom_values:[{}]", list(&h.custom_values)));
    }
    let hint = match h.counter_reset_hint {
        CounterResetHint::Unknown => None,
        CounterResetHint::Reset => Some("reset"),
        CounterResetHint::NotReset => Some("not_reset"),
        CounterResetHint::Gauge => Some("gauge"),
    };
    parts.extend(hint.map(|hint| format!("counter_reset_hint:{hint}")));
    for (offset_name, name, spans, populations) in [
        ("offset", "buckets", &h.positive_spans, &h.positive_buckets),
        ("n_offset", "n_buckets", &h.negative_spans, &h.negative_buckets),
    ] {
        let (first, dense) = dense(spans, populations);
        if first != 0 {
            parts.push(format!("{offset_name}:{first}"));
        }
        if !dense.is_empty() {
            parts.push(format!("{name}:[{}]", list(&dense)));
        }
    }
    format!("{{{{{}}}}}", parts.join(" "))
}

/// How many empty buckets between two others are shown.
const GAP_MAX: i64 = 1_000;

/// The index of the first bucket with a population, and all from there to the last such.
fn dense(spans: &[model::Span], populations: &[f64]) -> (i64, Vec<f64>) {
    let mut next: i64 = 0;
    let mut rest = populations.iter();
    let mut populated = Vec::new();
    for span in spans {
        next += i64::from(span.offset);
        for _ in 0..span.length {
            populated.extend(rest.next().filter(|n| **n != 0.0).map(|n| (next, *n)));
            next += 1;
        }
    }
    let Some((first, _)) = populated.first().copied() else { return (0, Vec::new()) };
    let mut out = Vec::new();
    let mut at = first;
    for (index, population) in populated {
        let gap = usize::try_from((index - at).min(GAP_MAX)).unwrap_or(0);
        out.extend(std::iter::repeat_n(0.0, gap));
        out.push(population);
        at = index + 1;
    }
    (first, out)
}

#[cfg(test)]
mod tests;
