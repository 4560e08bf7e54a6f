//! Small cases whose answers follow by arithmetic.

use crate::source::{Memory, ask, matrix, options, vector};

/// A value a minute: `m` counts 0, 60, 120 ... for `a` and twice that for `b`; `info` joins; `only` has no partner.
fn data() -> Memory {
    let count = |by: u32| -> Vec<f64> { (0..11).map(|i| f64::from(i * by)).collect() };
    Memory::default()
        .regular(&[("__name__", "m_total"), ("job", "a"), ("i", "1")], 60, &count(60))
        .regular(&[("__name__", "m_total"), ("job", "b"), ("i", "1")], 60, &count(120))
        .regular(&[("__name__", "m_total"), ("job", "b"), ("i", "2")], 60, &count(180))
        .regular(&[("__name__", "info"), ("job", "a"), ("zone", "x")], 60, &[1.0; 11])
        .regular(&[("__name__", "info"), ("job", "b"), ("zone", "y")], 60, &[1.0; 11])
        .regular(&[("__name__", "only"), ("job", "c")], 60, &[7.0; 11])
        .regular(&[("__name__", "dup1"), ("job", "d")], 60, &[7.0; 11])
        .regular(&[("__name__", "dup2"), ("job", "d")], 60, &[7.0; 11])
        .regular(&[("__name__", "b_bucket"), ("le", "1")], 60, &[2.0; 11])
        .regular(&[("__name__", "b_bucket"), ("le", "2")], 60, &[6.0; 11])
        .regular(&[("__name__", "b_bucket"), ("le", "+Inf")], 60, &[8.0; 11])
}

#[test]
fn instant_queries_give_what_arithmetic_gives() {
    let source = data();
    for (query, expected) in [
        ("only", &[r#"{__name__="only", job="c"} 7"#][..]),
        ("only offset 20m", &[]),
        ("only @ 0", &[r#"{__name__="only", job="c"} 7"#]),
        ("-only", &[r#"{job="c"} -7"#]),
        ("only * 2 + 1", &[r#"{job="c"} 15"#]),
        ("only > 7", &[]),
        ("7 <= only", &[r#"{__name__="only", job="c"} 7"#]),
        ("only == bool 8", &[r#"{job="c"} 0"#]),
        // 60 a minute is 1 a second.
        ("rate(m_total{job='a'}[5m])", &[r#"{i="1", job="a"} 1"#]),
        ("increase(m_total{job='a'}[5m])", &[r#"{i="1", job="a"} 300"#]),
        ("irate(m_total{i='2'}[5m])", &[r#"{i="2", job="b"} 3"#]),
        ("sum by (job) (rate(m_total[5m]))", &[r#"{job="a"} 1"#, r#"{job="b"} 5"#]),
        ("avg without (i) (rate(m_total[5m]))", &[r#"{job="a"} 1"#, r#"{job="b"} 2.5"#]),
        ("count(m_total)", &["{} 3"]),
        ("max(m_total) - min(m_total)", &["{} 1200"]),
        ("quantile(0.5, m_total)", &["{} 1200"]),
        ("stdvar(m_total)", &["{} 240000"]),
        ("topk(1, m_total)", &[r#"{__name__="m_total", i="2", job="b"} 1800"#]),
        (
            "bottomk(2, m_total)",
            &[r#"{__name__="m_total", i="1", job="a"} 600"#, r#"{__name__="m_total", i="1", job="b"} 1200"#],
        ),
        ("count_values('v', info)", &[r#"{v="1"} 2"#]),
        (
            "m_total * on (job) group_left (zone) info",
            &[
                r#"{i="1", job="a", zone="x"} 600"#,
                r#"{i="1", job="b", zone="y"} 1200"#,
                r#"{i="2", job="b", zone="y"} 1800"#,
            ],
        ),
        ("m_total{i='1'} / ignoring (zone, i) info", &[r#"{job="a"} 600"#, r#"{job="b"} 1200"#]),
        ("m_total and on (job) info{zone='x'}", &[r#"{__name__="m_total", i="1", job="a"} 600"#]),
        ("m_total unless on (job) info{zone='y'}", &[r#"{__name__="m_total", i="1", job="a"} 600"#]),
        (
            "info{zone='x'} or only",
            &[r#"{__name__="info", job="a", zone="x"} 1"#, r#"{__name__="only", job="c"} 7"#],
        ),
        // Rank 4 of 8 is in the middle of the bucket from 1 to 2, which holds the third to the sixth.
        ("histogram_quantile(0.5, b_bucket)", &["{} 1.5"]),
        ("histogram_fraction(0, 1, b_bucket)", &["{} 0.25"]),
        ("absent(only)", &[]),
        ("absent(none{x='y'})", &[r#"{x="y"} 1"#]),
        ("absent_over_time(none[5m])", &["{} 1"]),
        ("vector(scalar(only))", &["{} 7"]),
        ("sum_over_time(only[3m])", &[r#"{job="c"} 21"#]),
        ("last_over_time(only[3m])", &[r#"{__name__="only", job="c"} 7"#]),
        // The subquery sees rates of 1 at 360, 480 and 600.
        ("count_over_time(rate(m_total{job='a'}[4m])[6m:2m])", &[r#"{i="1", job="a"} 3"#]),
        ("label_replace(only, 'x', '$1$1', 'job', '(.)')", &[r#"{__name__="only", job="c", x="cc"} 7"#]),
        ("label_join(only, 'x', '-', 'job', 'job')", &[r#"{__name__="only", job="c", x="c-c"} 7"#]),
        ("deriv(m_total{job='a'}[5m])", &[r#"{i="1", job="a"} 1"#]),
        ("predict_linear(m_total{job='a'}[5m], 60)", &[r#"{i="1", job="a"} 660"#]),
        ("timestamp(only)", &[r#"{job="c"} 600"#]),
        ("hour(vector(7200))", &["{} 2"]),
        (
            "clamp(m_total, 700, 1300) - 700",
            &[r#"{i="1", job="a"} 0"#, r#"{i="1", job="b"} 500"#, r#"{i="2", job="b"} 600"#],
        ),
    ] {
        assert_eq!(vector(&source, query, 600), expected, "{query}");
    }
}

#[test]
fn range_queries_show_every_step() {
    let source = data();
    let minutes =
        |values: &[f64]| -> Vec<(i64, f64)> { (0..).step_by(60_000).zip(values.iter().copied()).collect() };
    let times = (0, 180_000, 60_000);
    assert_eq!(matrix(&source, "time()", times), [("{}".to_owned(), minutes(&[0.0, 60.0, 120.0, 180.0]))]);
    let sum = matrix(&source, "sum(m_total)", times);
    assert_eq!(sum, [("{}".to_owned(), minutes(&[0.0, 360.0, 720.0, 1080.0]))]);
    let pinned = matrix(&source, "sum(m_total @ end())", times);
    assert_eq!(pinned, [("{}".to_owned(), minutes(&[1080.0; 4]))]);
    let late = matrix(&source, "only", (840_000, 960_000, 60_000));
    // The last sample is at 600 s; at 900 s it is exactly 5 minutes old and no longer seen.
    assert_eq!(late, [(r#"{__name__="only", job="c"}"#.to_owned(), vec![(840_000, 7.0)])]);
    let top = matrix(&source, "topk(1, m_total) > 100", times);
    assert_eq!(top[0].1, [(60_000, 180.0), (120_000, 360.0), (180_000, 540.0)]);
}

#[test]
fn failures_have_prometheus_texts() {
    let source = data();
    for (query, expected) in [
        (
            "info + on () only",
            "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)",
        ),
        (
            "only + on () group_left () info",
            "found duplicate series for the match group {} on the right hand-side of the operation: \
             [{__name__=\"info\", job=\"a\", zone=\"x\"}, {__name__=\"info\", job=\"b\", zone=\"y\"}];\
             many-to-many matching not allowed: matching labels must be unique on one side",
        ),
        (
            "label_replace(m_total, 'job', '', '', '') and label_replace(m_total, 'i', '', '', '')",
            "vector cannot contain metrics with the same labelset",
        ),
        ("abs({job='d'})", "vector cannot contain metrics with the same labelset"),
        ("topk(NaN, only)", "Parameter value is NaN"),
        (
            "max_over_time(only[5m] anchored)",
            "anchored modifier can only be used with: changes, delta, increase, rate, resets - not with max_over_time",
        ),
        ("label_replace(only, 'x', '', 'job', '(')", "invalid regular expression in label_replace(): ("),
        ("count_values('', only)", "invalid label name \"\""),
    ] {
        let error = ask(options(), &source, query, 600).expect_err(query);
        assert_eq!(error.to_string(), expected, "{query}");
        assert_eq!(error.kind(), fault::Kind::Limit, "evaluation errors become `execution`: {query}");
    }
    let error = ask(options(), &source, "sum(", 600).expect_err("not PromQL");
    assert_eq!(error.kind(), fault::Kind::Invalid);
}

#[test]
fn notes_point_at_the_expression() {
    let answer = ask(options(), &data(), "1 +\n  rate(only[5m])", 600).expect("an answer");
    assert_eq!(
        answer.infos,
        [
            "PromQL info: metric might not be a counter, name does not end in _total/_sum/_count/_bucket: \"only\" (2:8)"
        ]
    );
    let answer = ask(options(), &data(), "histogram_quantile(2, b_bucket)", 600).expect("an answer");
    assert_eq!(answer.warnings, ["PromQL warning: quantile value should be between 0 and 1, got 2 (1:20)"]);
}

/// Functions of histograms have dropped the name when they say something, unless names are dropped in the end.
#[test]
fn notes_name_histograms_only_while_they_have_a_name() {
    let source = Memory::default().regular(&[("__name__", "b"), ("job", "x")], 60, &[1.0]);
    for (delayed_name_removal, name) in [(false, ""), (true, " for metric name \"b\"")] {
        let with = promql_engine::EngineOptions { delayed_name_removal, ..options() };
        let answer = ask(with, &source, "histogram_quantile(0.5, b)", 0).expect("an answer");
        let text = "PromQL warning: bucket label \"le\" is missing or has a malformed value of \"\"";
        assert_eq!(answer.warnings, [format!("{text}{name} (1:25)")]);
    }
}

#[test]
fn type_and_unit_matter_only_without_the_feature() {
    let source = Memory::default()
        .regular(&[("__name__", "a_total"), ("__type__", "counter"), ("job", "x")], 60, &[1.0, 2.0])
        .regular(&[("__name__", "b"), ("__type__", "gauge"), ("job", "x")], 60, &[3.0, 3.0]);
    for (type_and_unit_labels, expected) in [(false, 0), (true, 1)] {
        let with = promql_engine::EngineOptions { type_and_unit_labels, ..options() };
        let answer = ask(with.clone(), &source, "a_total + b", 60).expect("an answer");
        let model::query::QueryValue::Vector(elements) = answer.value else { panic!("not a vector") };
        assert_eq!(elements.len(), expected);
        let infos = ask(with, &source, "rate(b[5m])", 60).expect("an answer").infos;
        let because = if type_and_unit_labels { "__type__ label is not set" } else { "name does not end in" };
        assert_eq!(infos.len(), 1);
        assert!(infos[0].contains(because) && infos[0].ends_with("\"b\" (1:6)"), "{infos:?}");
    }
}

/// Calls every function of the language once, with arguments of the right types.
#[test]
fn every_function_is_there() {
    use promql_syntax::{FUNCTIONS, ValueType};
    let with = promql_engine::EngineOptions { start_timestamps: true, ..options() };
    for function in FUNCTIONS {
        let (least, most) = function.arity();
        for count in [least, most.unwrap_or(least + 2).max(least)] {
            let argument = |i: usize| match function.arg_type(i) {
                Some(ValueType::Matrix) => "m_total[5m]",
                Some(ValueType::Scalar) => "0.5",
                Some(ValueType::String) => "'job'",
                _ if function.name == "info" && i == 1 => "{zone=~'.+'}",
                _ => "m_total",
            };
            let arguments: Vec<&str> = (0..count).map(argument).collect();
            let query = format!("{}({})", function.name, arguments.join(", "));
            if let Err(error) = ask(with.clone(), &data(), &query, 600) {
                assert_eq!(
                    error.to_string(),
                    "vector cannot contain metrics with the same labelset",
                    "{query}"
                );
            }
        }
    }
}

#[test]
fn quantiles_that_change_show_at_their_steps() {
    // 0.25 at the first steps, 0.75 from 2 minutes on: ranks 2 and 6 of 8, the ends of both buckets.
    let query =
        "histogram_quantiles(b_bucket, 'q', scalar(vector(0.25) + 0.5 * (vector(time()) >= bool 120)))";
    let got = matrix(&data(), query, (0, 180_000, 60_000));
    assert_eq!(
        got,
        [
            (r#"{q="0.25"}"#.to_owned(), vec![(0, 1.0), (60_000, 1.0)]),
            (r#"{q="0.75"}"#.to_owned(), vec![(120_000, 2.0), (180_000, 2.0)]),
        ]
    );
}
