//! Bodies in sequence, and the samples that come of them.

use std::collections::{BTreeMap, BTreeSet};

use group_writer::Presence;
use model::{Labels, MetricType, Tenant, is_stale};
use proptest::prelude::*;
use relabel::{Action, NameValidation, Rule, RuleConfig};

mod histograms;

use super::*;
use crate::job::{HistogramRules, LabelLimits};

const INTERVAL: i64 = 15_000;

fn rules() -> SampleRules {
    SampleRules {
        honor_labels: false,
        honor_timestamps: true,
        track_timestamps_staleness: false,
        relabel: Vec::new(),
        names: NameValidation::Utf8,
        sample_limit: 0,
        label_limits: LabelLimits::default(),
        histograms: HistogramRules::default(),
    }
}

fn rule(source: &str, regex: &str, action: Action) -> Rule {
    let config = RuleConfig {
        source_labels: vec![source.into()],
        regex: regex.into(),
        action,
        ..RuleConfig::default()
    };
    Rule::new(config).unwrap()
}

fn identity(epoch: u64) -> GroupIdentity {
    let key = Labels::from_pairs([("instance", "h:1"), ("job", "j")]);
    GroupIdentity { tenant: Tenant::default(), key, sub_group: 0, epoch }
}

/// A cache that is scraped every interval, and what came of it.
struct Target {
    cache: ScrapeCache,
    rules: SampleRules,
    at: i64,
    tally: Tally,
    error: Option<Error>,
    appends: Vec<group_writer::Append>,
}

impl Target {
    fn new(rules: SampleRules) -> Self {
        let cache = ScrapeCache::new(identity(1));
        Self { cache, rules, at: 0, tally: Tally::default(), error: None, appends: Vec::new() }
    }

    fn scrape_as(&mut self, body: Option<&str>, format: Format, is_stored: bool) -> Vec<String> {
        self.scrape_bytes(body.map(str::as_bytes), format, is_stored)
    }

    fn scrape_bytes(&mut self, body: Option<&[u8]>, format: Format, is_stored: bool) -> Vec<String> {
        self.at += INTERVAL;
        let times = Times { at: Timestamp(self.at), latest: Timestamp(self.at + 600_000) };
        (self.tally, self.error) = (Tally::default(), None);
        match body {
            Some(body) => {
                let (tally, outcome) = self.cache.read(body, format, &self.rules, times);
                (self.tally, self.error) = (tally, outcome.err());
            }
            None => self.cache.skip(),
        }
        let report = Report {
            is_up: body.is_some() && self.error.is_none(),
            samples_scraped: self.tally.scraped,
            samples_post_relabel: self.tally.post_relabel,
            series_added: self.tally.series_added,
            ..Report::default()
        };
        let batch = self.cache.close(times.at, &report);
        let samples = self.samples(batch);
        self.cache.settle(is_stored);
        samples
    }

    /// Scrapes; returns `name{labels} value` of all but the report series and the target's labels.
    fn scrape(&mut self, body: &str) -> Vec<String> {
        self.scrape_as(Some(body), Format::Text, true)
    }

    fn samples(&mut self, batch: Batch) -> Vec<String> {
        let mut out = Vec::new();
        for append in &batch.appends {
            let len = self.cache.members.len();
            let members: Vec<u32> = match &append.presence {
                Presence::All => (0..len).collect(),
                Presence::Absent(bits) => {
                    (0..len).filter(|n| bits[*n as usize / 8] >> (n % 8) & 1 == 0).collect()
                }
                Presence::Present(list) => list.clone(),
            };
            assert_eq!(members.len(), append.values.len() + append.histograms.len());
            assert!(members.is_sorted_by(|a, b| a < b));
            assert!(append.histograms.is_sorted_by(|a, b| a.0 < b.0));
            let mut values = append.values.iter();
            for member in members {
                let histogram = append.histograms.iter().find(|(m, _)| *m == member);
                let value = match histogram {
                    Some((_, histogram)) => Value::Histogram(histogram.clone()),
                    None => Value::Float(*values.next().unwrap()),
                };
                let labels = self.cache.members.labels(member).0;
                let name = labels.metric_name();
                if name == "up" || name.starts_with("scrape_") && labels.len() == 3 {
                    continue;
                }
                let rest = labels.without(&["job".into(), "instance".into()]);
                let rest = if rest.is_empty() { String::new() } else { rest.to_string() };
                let value = match value {
                    Value::Float(value) if is_stale(value) => "stale".to_owned(),
                    Value::Float(value) => value.to_string(),
                    Value::Histogram(h) => {
                        format!(
                            "schema {} count {} buckets {}",
                            h.schema(),
                            h.to_float().count,
                            h.bucket_count()
                        )
                    }
                };
                let at = append.timestamp.millis();
                let at = if at == self.at { String::new() } else { format!(" @{at}") };
                out.push(format!("{name}{rest} {value}{at}"));
            }
        }
        self.appends = batch.appends;
        out
    }
}

#[test]
fn series_that_vanish_go_stale_once() {
    let mut target = Target::new(rules());
    assert_eq!(target.scrape("a 1\nb{x=\"1\"} 2\n"), ["a 1", r#"b{x="1"} 2"#]);
    assert_eq!(target.tally.series_added, 2);
    assert_eq!(target.scrape("a 3\n"), ["a 3", r#"b{x="1"} stale"#]);
    assert_eq!(target.tally.series_added, 0);
    assert_eq!(target.scrape("a 4\n"), ["a 4"]);
    assert_eq!(target.scrape("b{x=\"1\"} 5\n"), ["a stale", r#"b{x="1"} 5"#]);
    assert_eq!(target.tally.series_added, 1, "its text had been forgotten");
    assert_eq!(target.appends.len(), 1, "one scrape is one append");
}

#[test]
fn a_scrape_that_fails_leaves_no_sample_and_ends_every_series() {
    for (bad, error) in [
        ("a 9\nb 9\n7&-\n", "expected a valid start token, got \"7\" (\"INVALID\")"),
        ("a 9\n{x=\"1\"} 9\n", "metric name not set"),
        ("a 9\nb{x=\"1\",x=\"2\"} 9\n", "label name \"x\" is not unique: invalid sample"),
    ] {
        let mut target = Target::new(rules());
        target.scrape("a 1\nb 2\n");
        assert_eq!(target.scrape(bad), ["a stale", "b stale"], "{bad}");
        let text = target.error.take().unwrap().to_string();
        assert!(text.contains(error), "{text}");
        assert_eq!(target.scrape_as(None, Format::Text, true), [""; 0]);
        assert_eq!(target.scrape("a 3\nb 4\n"), ["a 3", "b 4"]);
        assert_eq!(target.tally.series_added, 0, "failed scrapes forget nothing");
    }
}

#[test]
fn an_empty_body_ends_every_series() {
    let mut target = Target::new(rules());
    target.scrape("a 1\n");
    assert_eq!(target.scrape_as(None, Format::Text, true), ["a stale"]);
}

#[test]
fn markers_that_the_writer_did_not_take_are_due_again() {
    let mut target = Target::new(rules());
    target.scrape("a 1\nb 2\n");
    assert_eq!(target.scrape_as(Some("a 1\nc 3\n"), Format::Text, false), ["a 1", "b stale", "c 3"]);
    assert_eq!(target.scrape("a 1\n"), ["a 1", "b stale"], "c was never stored");
    assert_eq!(target.scrape("a 1\n"), ["a 1"]);
}

#[test]
fn of_one_series_exposed_twice_the_first_sample_stays() {
    let mut target = Target::new(rules());
    assert_eq!(target.scrape("a 1\na 2\na{} 3\n"), ["a 1"]);
    assert_eq!((target.tally.scraped, target.tally.post_relabel, target.tally.duplicates), (3, 3, 1));
    assert_eq!(target.scrape("a 4\na 5\n"), ["a 4"]);
}

#[test]
fn exposed_series_with_the_name_of_a_report_series_do_not_collide() {
    let mut target = Target::new(rules());
    target.scrape("up 7\nscrape_duration_seconds{x=\"1\"} 3\n");
    let up: Vec<f64> = target.appends[0].values.iter().copied().filter(|v| *v == 7.0).collect();
    assert_eq!(up, [7.0], "the exposed one stays, under the same labels");
    assert_eq!(target.appends[0].values.len(), 6);
    target.scrape("x 1\n");
    let labels: Vec<_> = (0..7).map(|n| target.cache.members.labels(n).0.clone()).collect();
    assert_eq!(labels.iter().collect::<BTreeSet<_>>().len(), 7);
}

#[test]
fn labels_of_target_and_exposition_conflict_in_prometheus_ways() {
    for (honor, exposed, expected) in [
        (false, r#"a{job="x"} 1"#, r#"{__name__="a", exported_job="x", instance="h:1", job="j"}"#),
        (
            false,
            r#"a{job="x",exported_job="y"} 1"#,
            r#"{__name__="a", exported_exported_job="x", exported_job="y", instance="h:1", job="j"}"#,
        ),
        (false, r#"a{job=""} 1"#, r#"{__name__="a", instance="h:1", job="j"}"#),
        (true, r#"a{job="x"} 1"#, r#"{__name__="a", instance="h:1", job="x"}"#),
        (true, r#"a{job=""} 1"#, r#"{__name__="a", instance="h:1"}"#),
        (true, r#"{"a.b",c="1"} 1"#, r#"{__name__="a.b", c="1", instance="h:1", job="j"}"#),
    ] {
        let mut target = Target::new(SampleRules { honor_labels: honor, ..rules() });
        target.scrape(&format!("{exposed}\n"));
        assert_eq!(target.error, None);
        assert_eq!(target.cache.members.labels(0).0.to_string(), expected, "{exposed}");
    }
}

#[test]
fn relabelling_drops_and_its_verdict_is_remembered() {
    let relabel = vec![rule("__name__", "b.*", Action::Drop)];
    let mut target = Target::new(SampleRules { relabel, ..rules() });
    for added in [1, 0] {
        assert_eq!(target.scrape("a 1\nb1 2\nb2 3\n"), ["a 1"]);
        let Tally { scraped, post_relabel, series_added, .. } = target.tally;
        assert_eq!((scraped, post_relabel, series_added), (3, 1, added));
    }
    let nameless =
        RuleConfig { regex: "__name__".into(), action: Action::LabelDrop, ..RuleConfig::default() };
    target.rules.relabel = vec![Rule::new(nameless).unwrap()];
    target.cache.forget_texts();
    assert_eq!(target.scrape("a 1\n"), ["a stale"]);
    assert_eq!(target.error, Some(Error::NoName));
}

#[test]
fn rules_that_change_end_the_series_they_no_longer_make() {
    let mut target = Target::new(rules());
    target.scrape("a 1\nb 2\n");
    target.rules.relabel = vec![rule("__name__", "b", Action::Drop)];
    target.cache.forget_texts();
    assert_eq!(target.scrape("a 3\nb 4\n"), ["a 3", "b stale"]);
    assert_eq!(target.scrape("a 5\nb 6\n"), ["a 5"]);
}

#[test]
fn limits_fail_the_scrape_in_prometheus_words() {
    let limits = |count, name_len, value_len| SampleRules {
        label_limits: LabelLimits { count, name_len, value_len },
        ..rules()
    };
    let legacy = SampleRules { names: NameValidation::Legacy, ..rules() };
    for (rules, good, bad, error) in [
        (
            SampleRules { sample_limit: 2, ..rules() },
            "a 1\nb 2\n",
            "a 1\nb 2\nc 3\nd 4\n",
            "sample limit exceeded",
        ),
        (
            limits(4, 0, 0),
            "a{x=\"1\"} 1\n",
            "a{x=\"1\",y=\"1\"} 1\n",
            "label_limit exceeded (metric: a, number of labels: 5, limit: 4)",
        ),
        (
            limits(0, 8, 0),
            "a{x2345678=\"1\"} 1\n",
            "a{x23456789=\"1\"} 1\n",
            "label_name_length_limit exceeded (metric: a, label name: x23456789, length: 9, limit: 8)",
        ),
        (
            limits(0, 0, 3),
            "a{x=\"123\"} 1\n",
            "a{x=\"1234\"} 1\n",
            "label_value_length_limit exceeded (metric: a, label name: x, value: \"1234\", length: 4, limit: 3)",
        ),
        (
            legacy,
            "a 1\n",
            "{\"a.b\"} 1\n",
            r#"invalid metric name or label names: {__name__="a.b", instance="h:1", job="j"}"#,
        ),
    ] {
        // Names of the target's own labels count as well.
        let key = Labels::from_pairs([("instance", "h:1"), ("job", "j")]);
        assert_eq!(key.len(), 2);
        let mut target = Target::new(rules);
        target.scrape(good);
        if error.contains("name_length") {
            assert!(target.error.as_ref().is_none_or(|e| e.to_string().contains("instance")));
        } else {
            assert_eq!(target.error, None);
        }
        target.scrape(bad);
        let text = target.error.take().unwrap().to_string();
        assert!(text == error || text.contains("instance"), "{text}");
    }
    let mut target = Target::new(SampleRules { sample_limit: 2, ..rules() });
    target.scrape("a 1\n");
    assert_eq!(target.scrape("a 1\nb 2\nc 3\nd 4\n"), ["a stale"]);
    assert_eq!((target.tally.scraped, target.tally.post_relabel, target.tally.series_added), (4, 4, 1));
    let many: String = (0..=1_024).map(|i| format!("l{i}=\"1\",")).collect();
    target.scrape(&format!("a{{{many}}} 1\n"));
    assert_eq!(target.error.unwrap().to_string(), "more than 1024 labels (metric: a)");
}

#[test]
fn samples_with_times_of_their_own_are_cut_by_time_and_do_not_go_stale() {
    let mut target = Target::new(rules());
    let body = "a 1 1000\nb 2 2000\nc 3\nd 4 1000\na 5 2000\nlate 6 99999999\n";
    assert_eq!(target.scrape(body), ["c 3", "a 1 @1000", "d 4 @1000", "a 5 @2000", "b 2 @2000"]);
    assert_eq!((target.tally.timestamped, target.tally.out_of_bounds), (4, 1));
    assert_eq!(target.appends.len(), 3);
    assert_eq!(target.scrape("c 3\n"), ["c 3"], "none of them goes stale");

    let mut target = Target::new(SampleRules { track_timestamps_staleness: true, ..rules() });
    target.scrape("a 1 1000\n");
    assert_eq!(target.scrape("c 3\n"), ["a stale", "c 3"]);

    let mut target = Target::new(SampleRules { honor_timestamps: false, ..rules() });
    assert_eq!(target.scrape("a 1 1000\n"), ["a 1"]);
    assert_eq!(target.scrape("c 3\n"), ["a stale", "c 3"]);
}

#[test]
fn the_bounds_of_classic_histograms_are_normalised() {
    let mut target = Target::new(rules());
    let body = "# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 2\nh_count 2\nh_sum 3\n";
    let expected = [r#"h_bucket{le="1.0"} 1"#, r#"h_bucket{le="+Inf"} 2"#, "h_count 2", "h_sum 3"];
    assert_eq!(target.scrape(body), expected);
}

#[test]
fn open_metrics_must_end_with_its_mark() {
    let mut target = Target::new(rules());
    assert_eq!(target.scrape_as(Some("a 1\n# EOF\n"), Format::OpenMetrics, true), ["a 1"]);
    assert_eq!(target.scrape_as(Some("a 1\n"), Format::OpenMetrics, true), ["a stale"]);
    assert_eq!(target.error.as_ref().unwrap().to_string(), "data does not end with # EOF");
}

#[test]
fn exemplars_are_sent_once() {
    let mut target = Target::new(rules());
    let exemplars = |target: &mut Target, body: &str, is_stored| {
        target.scrape_as(Some(&format!("{body}\n# EOF\n")), Format::OpenMetrics, is_stored);
        let of = |a: &group_writer::Append| {
            a.exemplars
                .iter()
                .map(|(_, e)| format!("{} {} @{}", e.labels, e.value, e.timestamp.unwrap().millis()))
                .collect::<Vec<_>>()
        };
        target.appends.iter().flat_map(of).collect::<Vec<_>>()
    };
    let one = "a_total 1 # {id=\"1\"} 0.5";
    assert_eq!(exemplars(&mut target, one, false), [r#"{id="1"} 0.5 @15000"#]);
    assert_eq!(exemplars(&mut target, one, true), [r#"{id="1"} 0.5 @30000"#], "the first was not stored");
    assert_eq!(exemplars(&mut target, one, true), [""; 0]);
    assert_eq!(exemplars(&mut target, "a_total 1 # {id=\"2\"} 0.5 7", true), [r#"{id="2"} 0.5 @7000"#]);
    assert_eq!(exemplars(&mut target, "a_total 1 40 # {id=\"3\"} 1", true), [r#"{id="3"} 1 @40000"#]);
    let long = format!("a_total 1 # {{id=\"{}\"}} 1", "x".repeat(127));
    assert_eq!(exemplars(&mut target, &long, true), [""; 0]);
    assert_eq!(target.tally.exemplars_dropped, 1);
}

#[test]
fn metadata_follows_its_family_and_outlives_it_by_ten_scrapes() {
    let mut target = Target::new(rules());
    let known = |target: &Target, metric: &str| {
        (0..target.cache.members.len())
            .map(|n| target.cache.members.labels(n))
            .find(|(labels, _)| labels.metric_name() == metric)
            .map(|(_, m)| (m.kind, m.help.to_string()))
            .unwrap()
    };
    let body = "# HELP h text\n# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_other 2\n\
                # TYPE c_total counter\n# HELP c_total all\nc_total 1\nbare 1\n";
    target.scrape(body);
    assert_eq!(known(&target, "h_bucket"), (MetricType::Histogram, "text".into()));
    assert_eq!(known(&target, "h_other"), (MetricType::Unknown, String::new()));
    assert_eq!(known(&target, "c_total"), (MetricType::Counter, "all".into()));
    assert_eq!(known(&target, "bare").0, MetricType::Unknown);
    assert_eq!(known(&target, "up").0, MetricType::Gauge);
    let names = |list: MetadataList| list.iter().map(|(n, _)| n.to_string()).collect::<Vec<_>>();
    assert_eq!(names(target.cache.take_new_metadata().unwrap()), ["c_total", "h"]);
    assert!(target.cache.take_new_metadata().is_none());

    target.scrape(&body.replace("text", "other"));
    assert_eq!(known(&target, "h_bucket").1, "other");
    assert_eq!(target.cache.take_new_metadata().unwrap()[1].1.help.as_ref(), "other");
    for _ in 0..10 {
        target.scrape("bare 1\n");
    }
    assert!(target.cache.take_new_metadata().is_none());
    target.scrape("bare 1\n");
    assert_eq!(names(target.cache.take_new_metadata().unwrap()), [""; 0]);
}

#[test]
fn a_group_with_many_dead_members_is_made_anew() {
    let mut target = Target::new(rules());
    let body =
        |from: usize, to: usize| (from..to).map(|i| format!("a{{i=\"{i}\"}} {i}\n")).collect::<String>();
    target.scrape(&body(0, 100));
    target.scrape(&body(50, 100));
    assert_eq!(target.cache.members.len(), 105, "50 dead are tolerated");
    // 95 are dead now, and the markers of the last 45 are due only once.
    let samples = target.scrape(&body(95, 100));
    assert_eq!(samples.iter().filter(|s| s.ends_with("stale")).count(), 45);
    assert_eq!(target.cache.members.len(), 5 + 5, "with the report series");
    let samples = target.scrape(&body(96, 101));
    assert_eq!(samples.len(), 6);
    assert!(samples.contains(&r#"a{i="95"} stale"#.to_owned()));
    assert!(samples.contains(&r#"a{i="100"} 100"#.to_owned()));
}

#[test]
fn another_epoch_is_another_group_of_the_same_series() {
    let mut target = Target::new(rules());
    target.scrape("a 1\nb 2\n");
    target.cache.set_epoch(1);
    target.scrape("a 1\nb 2\n");
    assert_eq!(target.appends[0].group.identity().epoch, 1);
    target.cache.set_epoch(2);
    assert_eq!(target.scrape("a 3\n"), ["a 3", "b stale"]);
    assert_eq!(target.appends[0].group.identity().epoch, 2);
    assert_eq!(target.tally.series_added, 0);
}

#[test]
fn the_end_of_a_target_ends_its_report_series_too() {
    let mut target = Target::new(rules());
    target.scrape("a 1\nb 2 1000\n");
    target.at += INTERVAL;
    let batch = target.cache.end(Timestamp(target.at));
    let stale: Vec<f64> = batch.appends[0].values.clone();
    assert_eq!(stale.len(), 6, "five report series and a, not b");
    assert!(stale.iter().all(|v| is_stale(*v)));
    assert_eq!(target.samples(batch), ["a stale"]);
}

#[test]
fn report_series_tell_about_the_scrape() {
    let mut cache = ScrapeCache::new(identity(1));
    for (report, expected) in [
        (
            Report {
                is_up: true,
                duration_seconds: 0.5,
                samples_scraped: 3,
                samples_post_relabel: 2,
                series_added: 1,
                extra: None,
            },
            vec![1.0, 0.5, 3.0, 2.0, 1.0],
        ),
        (
            Report { extra: Some((10.0, 100, -1)), ..Report::default() },
            vec![0.0, 0.0, 0.0, 0.0, 0.0, 10.0, 100.0, -1.0],
        ),
        (Report::default(), vec![0.0; 5]),
    ] {
        cache.skip();
        let batch = cache.close(Timestamp(1), &report);
        assert_eq!(batch.appends[0].values, expected);
        cache.settle(true);
    }
    let names: Vec<_> = (0..8).map(|n| cache.members.labels(n).0.metric_name().to_owned()).collect();
    assert_eq!(
        names,
        [
            "up",
            "scrape_duration_seconds",
            "scrape_samples_scraped",
            "scrape_samples_post_metric_relabeling",
            "scrape_series_added",
            "scrape_timeout_seconds",
            "scrape_sample_limit",
            "scrape_body_size_bytes",
        ]
    );
}

#[test]
fn scrapes_that_fail_do_not_fill_the_cache_for_ever() {
    let mut target = Target::new(SampleRules { sample_limit: 400, ..rules() });
    let mut most = 0;
    for round in 0..10 {
        let body: String = (0..500).map(|i| format!("a{{i=\"{round}-{i}\"}} 1\n")).collect();
        target.scrape(&body);
        assert_eq!(target.error, Some(Error::SampleLimit));
        most = most.max(target.cache.texts.len());
    }
    assert!(most <= FAILED_TEXTS_SLACK + 400, "{most}");
}

#[derive(Debug, Clone)]
enum Step {
    /// Which of the texts are exposed, with which value.
    Body(Vec<(usize, u8)>),
    Broken(Vec<(usize, u8)>),
    Down,
}

/// Several texts stand for one series, and one is dropped.
const TEXTS: [(&str, Option<&str>); 7] = [
    ("a", Some("a")),
    ("a{}", Some("a")),
    ("b{x=\"1\",y=\"2\"}", Some(r#"b{x="1", y="2"}"#)),
    ("b{y=\"2\",x=\"1\"}", Some(r#"b{x="1", y="2"}"#)),
    ("{\"c\"}", Some("c")),
    ("dropped{z=\"1\"}", None),
    ("d{job=\"mine\"}", Some(r#"d{exported_job="mine"}"#)),
];

fn steps() -> impl Strategy<Value = Vec<(Step, bool, bool)>> {
    let body = || prop::collection::vec((0..TEXTS.len(), any::<u8>()), 0..8);
    let step = prop_oneof![
        6 => body().prop_map(Step::Body),
        1 => body().prop_map(Step::Broken),
        1 => Just(Step::Down),
    ];
    prop::collection::vec((step, prop::bool::weighted(0.8), prop::bool::weighted(0.1)), 1..30)
}

proptest! {
    /// The naive model: a map of labels for the present scrape and a set of those that were there before.
    #[test]
    fn sequences_of_bodies_equal_a_naive_model(steps in steps()) {
        let relabel = vec![rule("__name__", "dropped", Action::Drop)];
        let mut target = Target::new(SampleRules { relabel, ..rules() });
        let mut before: BTreeSet<String> = BTreeSet::new();
        for (n, (step, is_stored, is_moved)) in steps.into_iter().enumerate() {
            if is_moved {
                target.cache.set_epoch(n as u64 + 2);
            }
            let text = |lines: &[(usize, u8)]| {
                lines.iter().map(|(i, value)| format!("{} {value}\n", TEXTS[*i].0)).collect::<String>()
            };
            let (body, now): (Option<String>, BTreeMap<String, u8>) = match &step {
                Step::Body(lines) => {
                    let mut now = BTreeMap::new();
                    for (i, value) in lines {
                        if let Some(series) = TEXTS[*i].1 {
                            now.entry(series.to_owned()).or_insert(*value);
                        }
                    }
                    (Some(text(lines)), now)
                }
                Step::Broken(lines) => (Some(text(lines) + "a\n"), BTreeMap::new()),
                Step::Down => (None, BTreeMap::new()),
            };
            let mut expected: BTreeSet<String> = now.iter().map(|(k, v)| format!("{k} {v}")).collect();
            expected.extend(before.iter().filter(|k| !now.contains_key(*k)).map(|k| format!("{k} stale")));
            let got = target.scrape_as(body.as_deref(), Format::Text, is_stored);
            prop_assert_eq!(got.len(), expected.len());
            prop_assert_eq!(got.into_iter().collect::<BTreeSet<_>>(), expected);
            if is_stored {
                before = now.into_keys().collect();
            }
        }
    }
}
