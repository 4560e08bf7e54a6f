use promql_engine::memory::{Sample, Store};
use promql_engine::{SeriesSet, SourceError};

use super::*;
use crate::file::{self, Options};

const MINUTE: Duration = Duration::from_secs(60);

/// A group and a store that its samples go to.
struct Story {
    group: Group,
    store: Store,
}

fn group(rules: &str) -> Group {
    let text = format!("groups:\n- name: g\n{rules}");
    let mut file = file::parse(&text, &Options::default()).unwrap_or_else(|faults| panic!("{faults:?}"));
    Group::new("f", file.groups.remove(0), (MINUTE, Duration::ZERO), true)
}

fn minutes(m: i64) -> Timestamp {
    Timestamp(m * 60_000)
}

fn evaluate(group: &mut Group, minute: i64, source: &dyn SeriesSource, concurrency: usize) -> Evaluation {
    let environment = Environment {
        engine: &Engine::default(),
        source,
        control: &Control::default(),
        external_labels: &Labels::empty(),
        external_url: "http://here",
        resend_delay: MINUTE,
        concurrency,
    };
    group.evaluate(minutes(minute), &environment)
}

impl Story {
    fn new(rules: &str) -> Self {
        Self { group: group(rules), store: Store::default() }
    }

    fn put(&mut self, series: &str, minute: i64, value: f64) {
        let (labels, _) = promql_syntax::parse_series_description(series).expect("labels");
        let sample = Sample { time: minutes(minute).millis(), start: 0, value: PointValue::Float(value) };
        self.store.append(&labels, [sample]).expect("in order");
    }

    /// Evaluates at a minute and returns what was given: series and values, staleness markers as `stale`.
    fn at(&mut self, minute: i64) -> Vec<String> {
        let evaluation = self.evaluate(minute);
        let shown = evaluation.samples.iter().map(|(labels, value)| match value {
            PointValue::Float(x) if is_stale(*x) => format!("{labels} stale"),
            PointValue::Float(x) => format!("{labels} {x}"),
            PointValue::Histogram(_) => format!("{labels} histogram"),
        });
        shown.collect()
    }

    fn evaluate(&mut self, minute: i64) -> Evaluation {
        self.evaluate_with(minute, 1)
    }

    fn evaluate_with(&mut self, minute: i64, concurrency: usize) -> Evaluation {
        let evaluation = evaluate(&mut self.group, minute, &self.store, concurrency);
        for (labels, value) in &evaluation.samples {
            let sample = Sample { time: evaluation.time.millis(), start: 0, value: value.clone() };
            self.store.append(labels, [sample]).expect("in order");
        }
        self.group.stored(&evaluation);
        evaluation
    }

    fn states(&self) -> Vec<(AlertState, i64)> {
        self.group.rules[0].alerts.active.values().map(|a| (a.state, a.active_at.millis() / 60_000)).collect()
    }
}

const DOWN: &str = "  rules:\n  - {alert: Down, expr: up == 0, for: 2m}\n";

#[test]
fn rules_see_what_those_before_them_gave() {
    let mut story = Story::new(
        "  rules:\n  - {record: a, expr: 'up * 2'}\n  - {record: b, expr: 'sum(a) + count(up)', labels: {l: v}}\n  \
         - {record: c, expr: 'count_over_time(a[10m])'}\n",
    );
    story.put("up{i=\"1\"}", 0, 1.0);
    story.put("up{i=\"2\"}", 0, 3.0);
    let given = [
        "{__name__=\"a\", i=\"1\"} 2",
        "{__name__=\"a\", i=\"2\"} 6",
        "{__name__=\"b\", l=\"v\"} 10",
        "{__name__=\"c\", i=\"1\"} 1",
        "{__name__=\"c\", i=\"2\"} 1",
    ];
    assert_eq!(story.at(0), given);
    // The next time, what was stored counts as well.
    assert_eq!(story.at(1)[3], "{__name__=\"c\", i=\"1\"} 2");
}

#[test]
fn what_vanishes_is_marked_once_and_what_fails_is_not() {
    let mut story =
        Story::new("  rules:\n  - {record: a, expr: 'up > 0'}\n  - {record: b, expr: 'up + on() up'}\n");
    story.put("up{i=\"1\"}", 0, 1.0);
    let given = ["{__name__=\"a\", i=\"1\"} 1", "{__name__=\"b\"} 2"];
    assert_eq!(story.at(0), given);
    story.put("up{i=\"1\"}", 1, 0.0);
    story.put("up{i=\"2\"}", 1, 5.0);
    // The second rule fails now: two series on each side. Nothing of it is marked.
    assert_eq!(story.at(1), ["{__name__=\"a\", i=\"1\"} stale", "{__name__=\"a\", i=\"2\"} 5"]);
    let states: Vec<_> = story.group.rules().iter().map(|r| (r.health, r.last_error.is_empty())).collect();
    assert_eq!(states, [(Health::Good, true), (Health::Bad, false)]);
    assert_eq!(story.at(2), ["{__name__=\"a\", i=\"2\"} 5"]);
}

#[test]
fn an_alert_waits_fires_and_is_resolved() {
    let mut story = Story::new(DOWN);
    story.put("up{i=\"1\"}", 0, 0.0);
    let series = |state: &str, since: i64| {
        [
            format!("{{__name__=\"ALERTS\", alertname=\"Down\", alertstate=\"{state}\", i=\"1\"}} 1"),
            format!("{{__name__=\"ALERTS_FOR_STATE\", alertname=\"Down\", i=\"1\"}} {since}"),
        ]
    };
    assert_eq!(story.at(0), series("pending", 0));
    assert_eq!(story.at(1), series("pending", 0));
    let given = story.at(2);
    let mut fires = series("firing", 0).to_vec();
    fires.insert(
        1,
        "{__name__=\"ALERTS\", alertname=\"Down\", alertstate=\"pending\", i=\"1\"} stale".to_owned(),
    );
    assert_eq!(given, fires);
    assert_eq!(story.states(), [(AlertState::Firing, 0)]);
    story.put("up{i=\"1\"}", 3, 1.0);
    assert_eq!(story.at(3).iter().filter(|line| line.ends_with("stale")).count(), 2);
    assert_eq!(story.states(), [(AlertState::Inactive, 0)]);
    assert_eq!(story.group.rules()[0].alert_state(), AlertState::Inactive);
    assert_eq!(story.group.rules()[0].active_alerts().count(), 0);
    // Resolved alerts are kept for 15 minutes.
    assert!(story.at(18).is_empty());
    assert_eq!(story.states().len(), 1);
    assert!(story.at(19).is_empty());
    assert_eq!(story.states().len(), 0);
}

#[test]
fn a_pending_alert_whose_condition_ends_is_forgotten() {
    let mut story = Story::new(DOWN);
    story.put("up{i=\"1\"}", 0, 0.0);
    story.at(0);
    story.put("up{i=\"1\"}", 1, 1.0);
    story.at(1);
    assert!(story.states().is_empty());
    story.put("up{i=\"1\"}", 2, 0.0);
    story.at(2);
    assert_eq!(story.states(), [(AlertState::Pending, 2)]);
}

#[test]
fn an_alert_goes_on_firing_for_as_long_as_it_is_told_to() {
    let mut story = Story::new("  rules:\n  - {alert: Down, expr: up == 0, keep_firing_for: 2m}\n");
    story.put("up", 0, 0.0);
    story.at(0);
    story.put("up", 1, 1.0);
    let states: Vec<_> = (1..5)
        .map(|minute| {
            story.at(minute);
            story.states()[0].0
        })
        .collect();
    use AlertState::{Firing, Inactive};
    // Since minute 1, for less than two minutes.
    assert_eq!(states, [Firing, Firing, Inactive, Inactive]);
}

#[test]
fn alerts_are_sent_again_and_when_they_are_resolved() {
    let mut story = Story::new("  rules:\n  - {alert: Down, expr: up == 0}\n");
    story.put("up", 0, 0.0);
    let sent = |evaluation: Evaluation| -> Vec<(AlertState, i64)> {
        evaluation.alerts.iter().map(|(_, a)| (a.state, a.valid_until.millis() / 60_000)).collect()
    };
    assert_eq!(sent(story.evaluate(0)), [(AlertState::Firing, 4)]);
    // As in the reference, exactly the delay later is not yet due.
    assert_eq!(sent(story.evaluate(1)), []);
    assert_eq!(sent(story.evaluate(2)), [(AlertState::Firing, 6)]);
    story.put("up", 3, 1.0);
    assert_eq!(sent(story.evaluate(3)), [(AlertState::Inactive, 7)]);
    assert_eq!(sent(story.evaluate(5)), [(AlertState::Inactive, 9)]);
    let mut pending = Story::new(DOWN);
    pending.put("up", 0, 0.0);
    assert_eq!(sent(pending.evaluate(0)), []);
}

#[test]
fn limits_discard_all_of_a_rule() {
    let mut story = Story::new("  limit: 1\n  rules:\n  - {record: a, expr: up}\n  - {alert: B, expr: up}\n");
    story.put("up{i=\"1\"}", 0, 1.0);
    assert_eq!(story.at(0).len(), 3);
    story.put("up{i=\"2\"}", 1, 1.0);
    assert!(story.at(1).is_empty(), "not even markers");
    let errors: Vec<_> = story.group.rules().iter().map(|r| r.last_error.as_str()).collect();
    assert_eq!(errors, ["exceeded limit of 1 with 2 series", "exceeded limit of 1 with 2 alerts"]);
}

#[test]
fn equal_label_sets_are_an_error() {
    let mut story = Story::new(
        "  rules:\n  - {record: a, expr: up, labels: {i: x}}\n  - {alert: B, expr: up, labels: {i: x}}\n",
    );
    story.put("up{i=\"1\"}", 0, 1.0);
    story.put("up{i=\"2\"}", 0, 1.0);
    assert!(story.at(0).is_empty());
    let errors: Vec<_> = story.group.rules().iter().map(|r| r.last_error.as_str()).collect();
    let text =
        |whose: &str| format!("vector contains metrics with the same labelset after applying {whose} labels");
    assert_eq!(errors, [text("rule"), text("alert")]);
}

#[test]
fn of_two_rules_with_one_series_the_first_wins() {
    let mut story = Story::new(
        "  rules:\n  - {record: a, expr: vector(1)}\n  - {record: a, expr: vector(2)}\n  - {record: a, expr: vector(1)}\n",
    );
    let evaluation = story.evaluate(0);
    assert_eq!((evaluation.samples.len(), evaluation.duplicates), (1, 1));
    assert!(matches!(evaluation.samples.values().next(), Some(PointValue::Float(x)) if *x == 1.0));
}

#[test]
fn the_offset_moves_what_is_asked_and_what_is_written_but_not_the_alert() {
    let mut story =
        Story::new("  query_offset: 1m\n  rules:\n  - {record: a, expr: up}\n  - {alert: B, expr: up}\n");
    story.put("up", 0, 7.0);
    story.put("up", 1, 8.0);
    let evaluation = story.evaluate(1);
    assert_eq!(evaluation.time, minutes(0));
    assert!(evaluation.samples.values().any(|v| matches!(v, PointValue::Float(x) if *x == 7.0)));
    assert_eq!(story.group.rules[1].alerts.active.values().next().map(|a| a.active_at), Some(minutes(1)));
}

#[test]
fn alerts_of_before_a_restart_are_restored() {
    let hold = 30;
    let options = RestoreOptions { outage_tolerance: 60 * MINUTE, grace_period: 10 * MINUTE };
    // Active since minute 0; the lights went out at a minute; back at another.
    for (down, back, expected) in [
        // 25 minutes were left: the outage is added.
        (5, 15, 10),
        // 5 minutes were left, less than the grace period: it fires 10 minutes from now.
        (25, 40, 40 + 10 - hold),
        // It fired.
        (35, 40, 0),
        // Too long ago.
        (35, 100, 99),
    ] {
        let rules = format!("  rules:\n  - {{alert: Down, expr: up == 0, for: {hold}m}}\n");
        let mut story = Story::new(&rules);
        story.put("up", 0, 0.0);
        for minute in 0..=down {
            story.store.append(&Labels::from_pairs([("__name__", "up")]), []).expect("nothing");
            if minute > 0 {
                story.put("up", minute, 0.0);
            }
            story.at(minute);
        }
        story.group = Group::new("f", story.group.spec.clone(), (MINUTE, Duration::ZERO), false);
        assert!(story.group.needs_restoring());
        story.put("up", back - 1, 0.0);
        assert!(story.at(back - 1).is_empty(), "the series of alerts wait for the past");
        assert_eq!(story.states(), [(AlertState::Pending, back - 1)]);
        assert!(story.group.restore(minutes(back), options, &story.store).is_empty());
        assert!(!story.group.needs_restoring());
        assert_eq!(story.states(), [(AlertState::Pending, expected)], "down at {down}, back at {back}");
    }
}

#[test]
fn a_new_configuration_keeps_the_state_of_equal_rules() {
    let mut story = Story::new(
        "  rules:\n  - {alert: A, expr: up == 0, for: 5m}\n  - {record: r, expr: up}\n  - {record: s, expr: up}\n",
    );
    story.put("up", 0, 0.0);
    story.at(0);
    let mut new = group("  rules:\n  - {record: s, expr: up}\n  - {alert: A, expr: up < 1, for: 5m}\n");
    assert!(!new.spec.is_same(&story.group.spec) && new.spec.is_same(&new.spec.clone()));
    new.take_state(&story.group);
    story.group = new;
    let given = story.at(1);
    assert!(given.contains(&"{__name__=\"r\"} stale".to_owned()), "{given:?}");
    assert!(given.contains(&"{__name__=\"ALERTS_FOR_STATE\", alertname=\"A\"} 0".to_owned()), "{given:?}");
    assert!(!story.at(2).iter().any(|line| line.ends_with("stale")));
    assert_eq!(story.group.series().len(), 3);
}

#[test]
fn what_could_not_be_stored_fails_its_rules_and_is_not_marked() {
    let mut story = Story::new("  rules:\n  - {record: a, expr: up}\n");
    story.put("up", 0, 1.0);
    story.at(0);
    story.put("up", 1, 1.0);
    let evaluation = evaluate(&mut story.group, 1, &story.store, 1);
    story.group.not_stored(&evaluation, "log is full");
    let rule = &story.group.rules()[0];
    assert_eq!((rule.health, rule.last_error.as_str()), (Health::Bad, "log is full"));
    assert_eq!(rule.series.len(), 1, "as stored last");
}

#[test]
fn independent_rules_give_the_same_at_the_same_time() {
    // Some look at others, some fail, some give what another gave, in the order that counts.
    let mut rules = "  limit: 2\n  rules:\n".to_owned();
    for i in 0..8 {
        rules += &format!(
            "  - {{record: 'own{i}', expr: 'up * {i}'}}\n  - {{record: same, expr: 'sum(up) + {i}'}}\n  \
             - {{record: 'chained{i}', expr: 'own{}'}}\n  - {{record: 'broken{i}', expr: 'up + on() up'}}\n  \
             - {{alert: 'A{i}', expr: 'up == {}', for: 1m}}\n",
            i / 2,
            i % 3
        );
    }
    let [mut one, mut several] = [(); 2].map(|()| Story::new(&rules));
    assert_eq!(one.group.independent_count(), 8 + 8 + 8 + 4, "what nobody chains, same, broken, alerts");
    for minute in 0..4 {
        let shown = [(&mut one, 1), (&mut several, 4)].map(|(story, concurrency)| {
            story.put("up{i=\"1\"}", minute, 1.0);
            story.put("up{i=\"2\"}", minute, if minute < 2 { 2.0 } else { 0.0 });
            let evaluation = story.evaluate_with(minute, concurrency);
            let Evaluation { samples, alerts, failures, duplicates, sample_count, series, .. } = evaluation;
            format!("{samples:?} {alerts:?} {failures:?} {duplicates} {sample_count} {series:?}")
        });
        assert_eq!(shown[0], shown[1], "{minute}");
        assert!(shown[0].contains("chained7") && shown[0].contains("many-to-many"), "{}", shown[0]);
    }
}

#[test]
fn an_error_of_the_source_fails_the_rule() {
    struct Broken;
    impl SeriesSource for Broken {
        fn select(&self, _: &Selection) -> Result<Box<dyn SeriesSet>, SourceError> {
            Err(SourceError::new(fault::Kind::Unavailable, "log 01AB: ingester does not answer"))
        }
    }
    let mut group = group("  rules:\n  - {record: a, expr: up}\n  - {record: b, expr: vector(1)}\n");
    let evaluation = evaluate(&mut group, 0, &Broken, 1);
    assert_eq!(evaluation.samples.len(), 1);
    let [(0, error)] = &evaluation.failures[..] else { panic!("one failure") };
    assert!(error.contains("log 01AB: ingester does not answer"), "{error}");
}

#[test]
fn an_evaluator_goes_on_where_another_has_just_stopped() {
    let mut story = Story::new(DOWN);
    story.put("up{i=\"1\"}", 0, 0.0);
    story.at(0);
    story.at(1);
    let spec = story.group.spec.clone();
    story.group = Group::new("f", spec, (MINUTE, Duration::ZERO), false);
    story.group.take_over(minutes(2), 3 * MINUTE, &story.store).expect("the store answers");
    // Pending since minute 0, it fires at minute 2, and its series has no hole.
    let given = story.at(2);
    assert_eq!(story.states(), [(AlertState::Firing, 0)]);
    assert!(
        given.iter().any(|line| line.starts_with("{__name__=\"ALERTS\"") && line.ends_with("} 1")),
        "{given:?}"
    );
    // One that has been silent for longer than that begins anew.
    let spec = story.group.spec.clone();
    story.group = Group::new("f", spec, (MINUTE, Duration::ZERO), false);
    story.group.take_over(minutes(9), 3 * MINUTE, &story.store).expect("the store answers");
    story.put("up{i=\"1\"}", 9, 0.0);
    assert!(story.at(9).is_empty());
    assert_eq!(story.states(), [(AlertState::Pending, 9)]);
}

/// A store that serves only what it was told of beforehand.
struct Foreseen<'a> {
    store: &'a Store,
    told: Mutex<Vec<Selection>>,
}

impl SeriesSource for Foreseen<'_> {
    fn select(&self, selection: &Selection) -> Result<Box<dyn SeriesSet>, SourceError> {
        Err(SourceError::new(fault::Kind::Internal, format!("{selection:?} was not foreseen")))
    }

    fn read_ahead(&self, selections: &[Selection]) -> Option<Box<dyn SeriesSource + '_>> {
        let mut told = self.told.lock().expect("no panic");
        assert!(told.is_empty(), "it is told once");
        told.extend_from_slice(selections);
        Some(Box::new(Told(self)))
    }
}

struct Told<'a>(&'a Foreseen<'a>);

impl SeriesSource for Told<'_> {
    fn select(&self, selection: &Selection) -> Result<Box<dyn SeriesSet>, SourceError> {
        let is_told = self.0.told.lock().expect("no panic").contains(selection);
        if is_told { self.0.store.select(selection) } else { self.0.select(selection) }
    }
}

#[test]
fn what_rules_ask_for_is_known_before_they_do() {
    let mut story = Story::new(
        "  rules:\n  - {record: a, expr: sum(up)}\n  - {record: b, expr: a + a offset 1m}\n  \
         - {alert: C, expr: 'max_over_time(b[5m]) > 0'}\n  - {record: d, expr: 3 + vector(1)}\n",
    );
    story.put("up{x=\"1\"}", 0, 1.0);
    story.put("a", 0, 5.0);
    let source = Foreseen { store: &story.store, told: Mutex::default() };
    let evaluation = evaluate(&mut story.group, 1, &source, 1);
    assert_eq!(evaluation.failures, []);
    let value = |name: &str| match evaluation.samples.iter().find(|(l, _)| l.metric_name() == name) {
        Some((_, PointValue::Float(x))) => *x,
        other => panic!("{name}: {other:?}"),
    };
    assert_eq!(["a", "b", "d"].map(value), [1.0, 6.0, 4.0]);
    assert_eq!(story.group.rules[2].alerts.active.len(), 1);
    let told = source.told.into_inner().expect("no panic");
    let names: Vec<&str> = told.iter().map(|selection| selection.matchers[0].value()).collect();
    assert_eq!(names, ["up", "a", "a", "b"]);
}
