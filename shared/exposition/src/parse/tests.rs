use super::*;
use crate::Error;

/// Prints entries on one line each, so that a table can hold them.
fn show(parser: Parser<'_>) -> Vec<String> {
    parser
        .map(|entry| match entry {
            Err(error) => format!("error: {error}"),
            Ok(Entry::Type { name, kind }) => format!("type {name} {kind}"),
            Ok(Entry::Help { name, help }) => format!("help {name} {help:?}"),
            Ok(Entry::Unit { name, unit }) => format!("unit {name} {unit}"),
            Ok(Entry::Comment(text)) => format!("comment {}", String::from_utf8_lossy(text)),
            Ok(Entry::Sample(sample)) => show_sample(&sample),
        })
        .collect()
}

fn show_sample(sample: &Sample<'_>) -> String {
    let mut out = match sample.series.to_labels() {
        Ok(labels) => labels.to_string(),
        Err(error) => return format!("labels: {error}"),
    };
    out += &format!(" {:?}", sample.value);
    if let Some(t) = sample.timestamp {
        out += &format!(" @{}", t.millis());
    }
    if let Some(e) = sample.exemplar.map(|e| e.to_exemplar()) {
        let e = e.expect("exemplar labels are unique in these cases");
        out += &format!(" # {} {:?}", e.labels, e.value);
        if let Some(t) = e.timestamp {
            out += &format!(" @{}", t.millis());
        }
    }
    out
}

#[track_caller]
fn check_text(body: &str, expected: &[&str]) {
    assert_eq!(show(Parser::text(body.as_bytes())), expected, "{body:?}");
}

#[track_caller]
fn check_open_metrics(body: &str, expected: &[&str]) {
    assert_eq!(show(Parser::open_metrics(body.as_bytes())), expected, "{body:?}");
}

#[test]
fn text_samples() {
    for (body, expected) in [
        ("a 1\n", r#"{__name__="a"} 1.0"#),
        ("a 1", r#"{__name__="a"} 1.0"#),
        ("  a\t 1 \t 123\t\n", r#"{__name__="a"} 1.0 @123"#),
        ("a:b_0 -1.5e3\n", r#"{__name__="a:b_0"} -1500.0"#),
        ("a{} 1", r#"{__name__="a"} 1.0"#),
        ("a {b=\"c\"}1", r#"{__name__="a", b="c"} 1.0"#),
        ("a{b=\"c\",} 1", r#"{__name__="a", b="c"} 1.0"#),
        ("a{ z = \"1\" , b=\"2\" } 1", r#"{__name__="a", b="2", z="1"} 1.0"#),
        ("a{z=\"1\"b=\"2\"} 1", r#"{__name__="a", b="2", z="1"} 1.0"#),
        ("a{b=\"\"} 1", r#"{__name__="a"} 1.0"#),
        ("a{b=\"x\\\"y\\\\z\\n\\t\"} 1", r#"{__name__="a", b="x\"y\\z\n\\t"} 1.0"#),
        ("a{b=\"x\ny\"} 1", r#"{__name__="a", b="x\ny"} 1.0"#),
        ("a{b=\"}, c=\\\"\"} 1", r#"{__name__="a", b="}, c=\""} 1.0"#),
        ("a{b=\"é\"} 1", r#"{__name__="a", b="é"} 1.0"#),
        ("a +Inf 0", r#"{__name__="a"} inf @0"#),
        ("a nan", r#"{__name__="a"} NaN"#),
        ("{\"a.b\"} 1", r#"{__name__="a.b"} 1.0"#),
        ("{\"a.b\",\"c d\"=\"e\"} 1", r#"{__name__="a.b", "c d"="e"} 1.0"#),
        ("{b=\"1\",\"a\"} 1", r#"{__name__="a", b="1"} 1.0"#),
        ("{ \"a\\\"b\" , c=\"1\" } 1 5", r#"{__name__="a\"b", c="1"} 1.0 @5"#),
        ("a{b=\"1\",b=\"2\"} 1", r#"labels: label name "b" is not unique: invalid sample"#),
        ("a{__name__=\"b\"} 1", r#"labels: label name "__name__" is not unique: invalid sample"#),
    ] {
        check_text(body, &[expected]);
    }
    check_text("", &[]);
    check_text("\n \n\t\n", &[]);
}

#[test]
fn text_metadata_and_comments() {
    for (body, expected) in [
        ("# HELP a some\\\\thing\\n more \\\" text\n", r#"help a "some\\thing\n more \\\" text""#),
        ("#\t HELP  a\tx", r#"help a "x""#),
        ("# HELP a", r#"help a """#),
        ("# HELP a  ", r#"help a """#),
        ("# HELP a  x ", r#"help a " x ""#),
        ("# HELP \"a.b\" x", r#"help a.b "x""#),
        ("# TYPE a counter", "type a counter"),
        ("# TYPE a untyped", "type a unknown"),
        ("# TYPE \"a b\" gauge\n", "type a b gauge"),
        ("# TYPE a histogram", "type a histogram"),
        ("# TYPE a summary", "type a summary"),
        ("# a comment\n", "comment # a comment"),
        ("#comment", "comment #comment"),
        ("#", "comment #"),
        ("# HELPX a b", "comment # HELPX a b"),
        ("# UNIT a b", "comment # UNIT a b"),
        ("# EOF", "comment # EOF"),
    ] {
        check_text(body, &[expected]);
    }
}

/// The words in front of `while parsing` are Prometheus's.
#[test]
fn text_errors() {
    for (body, expected) in [
        ("a", r#"expected value after metric, got "\n" ("INVALID") while parsing: "a\n""#),
        ("a{b='c'} 1\n", r#"expected label value, got "'" ("INVALID") while parsing: "a{b='""#),
        ("a{b=\n", r#"expected label value, got "\n" ("INVALID") while parsing: "a{b=\n""#),
        ("a{\"b\"} 1\n", r#"metric name already set while parsing: "a{\"b\"}""#),
        ("{} 1", r#"metric name not set while parsing: "{}""#),
        ("{a=\"b\"} 1", r#"metric name not set while parsing: "{a=\"b\"}""#),
        ("{\"a\",\"b\"} 1", r#"metric name already set while parsing: "{\"a\",\"b\"}""#),
        ("a{b} 1\n", r#"expected equal, got "} " ("BCLOSE") while parsing: "a{b} ""#),
        ("a{,b=\"c\"} 1\n", r#"expected label name, got ",b" ("COMMA") while parsing: "a{,b""#),
        ("a{b=\"c\",,} 1\n", r#"expected label name, got ",}" ("COMMA") while parsing: "a{b=\"c\",,}""#),
        ("a{0=\"c\"} 1\n", r#"expected label name, got "0" ("INVALID") while parsing: "a{0""#),
        ("a{b=\"c", r#"expected label value, got "\"c\n" ("INVALID") while parsing: "a{b=\"c\n""#),
        ("-a 1\n", r#"expected a valid start token, got "-" ("INVALID") while parsing: "-""#),
        ("1 1\n", r#"expected a valid start token, got "1" ("INVALID") while parsing: "1""#),
        ("a true\n", r#"strconv.ParseFloat: parsing "true": invalid syntax while parsing: "a true""#),
        ("a 0x1p-3\n", r#"unsupported character in float while parsing: "a 0x1p-3""#),
        ("a 1e999\n", r#"strconv.ParseFloat: parsing "1e999": value out of range while parsing: "a 1e999""#),
        ("a 1 -1\n", r#"expected timestamp or new record, got "-" ("INVALID") while parsing: "a 1 -""#),
        ("a 1 1.5\n", r#"expected next entry after timestamp, got "." ("INVALID") while parsing: "a 1 1.""#),
        (
            "a 1 1 1\n",
            r#"expected next entry after timestamp, got "1\n" ("TIMESTAMP") while parsing: "a 1 1 1\n""#,
        ),
        (
            "a 1 9223372036854775808\n",
            r#"strconv.ParseInt: parsing "9223372036854775808": value out of range while parsing: "a 1 9223372036854775808""#,
        ),
        ("# TYPE a info\n", r#"invalid metric type "info""#),
        ("# TYPE a\n", r#"invalid metric type """#),
        (
            "# TYPE  1 gauge\n",
            r##"expected metric name after TYPE, got "1" ("INVALID") while parsing: "# TYPE  1""##,
        ),
        (
            "# HELP \n",
            r##"expected metric name after HELP, got "\n" ("INVALID") while parsing: "# HELP \n""##,
        ),
    ] {
        check_text(body, &[&format!("error: {expected}")]);
    }
}

#[test]
fn what_is_not_utf8_is_refused_unless_it_is_a_comment() {
    let show_bytes = |body: &[u8]| show(Parser::text(body));
    assert_eq!(show_bytes(b"# \xff\na 1"), ["comment # \u{fffd}", r#"{__name__="a"} 1.0"#]);
    assert_eq!(show_bytes(b"a{b=\"\xff\"} 1"), ["error: invalid UTF-8 label value: \"\\\"\u{fffd}\\\"\""]);
    assert_eq!(show_bytes(b"# HELP a \xff"), ["error: help text \"\u{fffd}\" is not a valid utf8 string"]);
    assert_eq!(show_bytes(b"{\"\xff\"} 1"), ["error: invalid UTF-8 label value: \"{\\\"\u{fffd}\\\"}\""]);
    assert_eq!(
        show_bytes(b"# TYPE \"\xff\" gauge"),
        ["error: metric name \"\u{fffd}\" is not a valid utf8 string"]
    );
}

#[test]
fn nothing_follows_an_error() {
    let mut parser = Parser::text(b"a 1\nb x\nc 1\n");
    assert!(matches!(parser.next(), Some(Ok(Entry::Sample(_)))));
    assert!(matches!(parser.next(), Some(Err(Error::Number { .. }))));
    assert_eq!(parser.next(), None);
}

#[test]
fn errors_repeat_a_bounded_part_of_the_body() {
    let body = format!("a{{b=\"{}\"}} x", "y".repeat(1 << 20));
    let error = Parser::text(body.as_bytes()).next().expect("an entry").expect_err("no number").to_string();
    assert!(error.len() < 4096, "{} bytes", error.len());
}

#[test]
fn bounds_and_quantiles_are_normalised_by_type() {
    let body = "# TYPE h histogram\n\
                h_bucket{le=\"1\"} 1\n\
                h_bucket{le=\"+Inf\"} 1\n\
                h_bucket{le=\"x\",quantile=\"1\"} 1\n\
                # TYPE s summary\n\
                s{quantile=\"0\",le=\"1\"} 1\n\
                # TYPE g gauge\n\
                g{le=\"1\"} 1\n";
    check_text(
        body,
        &[
            "type h histogram",
            r#"{__name__="h_bucket", le="1.0"} 1.0"#,
            r#"{__name__="h_bucket", le="+Inf"} 1.0"#,
            r#"{__name__="h_bucket", le="x", quantile="1"} 1.0"#,
            "type s summary",
            r#"{__name__="s", le="1", quantile="0.0"} 1.0"#,
            "type g gauge",
            r#"{__name__="g", le="1"} 1.0"#,
        ],
    );
    let open_metrics = body.to_owned() + "# EOF\n";
    assert_eq!(show(Parser::open_metrics(open_metrics.as_bytes())), show(Parser::text(body.as_bytes())));
}

#[test]
fn open_metrics_entries() {
    check_open_metrics(
        "# TYPE a_seconds counter\n\
         # HELP a_seconds a\\\"b\\\\c\\nd \n\
         # UNIT a_seconds seconds\n\
         a_seconds_total{b=\"c\"} 1 1.5 # {d=\"e # f\"} 2 3.0001\n\
         a_seconds_total 1 # {} 2\n\
         a_seconds_created 1 -0.001\n\
         {\"x.y\",b=\"1\"} 1\n\
         # TYPE b info\n\
         # TYPE c stateset\n\
         # TYPE d gaugehistogram\n\
         # TYPE e unknown\n\
         # HELP e \n\
         # UNIT e \n\
         # EOF\n",
        &[
            "type a_seconds counter",
            r#"help a_seconds "a\"b\\c\nd ""#,
            "unit a_seconds seconds",
            r##"{__name__="a_seconds_total", b="c"} 1.0 @1500 # {d="e # f"} 2.0 @3000"##,
            r##"{__name__="a_seconds_total"} 1.0 # {} 2.0"##,
            r#"{__name__="a_seconds_created"} 1.0 @-1"#,
            r#"{__name__="x.y", b="1"} 1.0"#,
            "type b info",
            "type c stateset",
            "type d gaugehistogram",
            "type e unknown",
            r#"help e """#,
            "unit e ",
        ],
    );
    check_open_metrics("# EOF", &[]);
    check_open_metrics("# EOF\n", &[]);
}

#[test]
fn open_metrics_errors() {
    for (body, expected) in [
        ("", "data does not end with # EOF"),
        ("# EOF\n\n", "unexpected data after # EOF"),
        ("# EOFx", "unexpected data after # EOF"),
        ("\n# EOF\n", r#"expected a valid start token, got "\n" ("INVALID") while parsing: "\n""#),
        ("# FOO a b\n", r##"expected a valid start token, got "# F" ("INVALID") while parsing: "# F""##),
        ("#a\n", r##"expected a valid start token, got "#a" ("INVALID") while parsing: "#a""##),
        (" a 1\n", r#"expected a valid start token, got " " ("INVALID") while parsing: " ""#),
        ("# TYPE a untyped\n", r#"invalid metric type "untyped""#),
        ("# TYPE a gauge \n", r#"invalid metric type "gauge ""#),
        ("# TYPE\n", r##"expected a valid start token, got "# T" ("INVALID") while parsing: "# T""##),
        ("# HELP a\n", "expected text in HELP, got INVALID"),
        ("# HELP a b", "expected text in HELP, got INVALID"),
        ("# UNIT a_s m\n", r#"unit "m" not a suffix of metric "a_s""#),
        ("# UNIT s s\n", r#"unit "s" not a suffix of metric "s""#),
        ("a{b=\"1\"}1\n", r#"expected value after metric, got "1" ("INVALID") while parsing: "a{b=\"1\"}1""#),
        ("a  1\n", r#"expected value after metric, got "  " ("INVALID") while parsing: "a  ""#),
        (
            "a{b=\"1\"c=\"2\"} 1\n",
            r#"expected comma or brace close, got "c=" ("LNAME") while parsing: "a{b=\"1\"c=""#,
        ),
        ("a{ b=\"1\"} 1\n", r#"expected label name, got " " ("INVALID") while parsing: "a{ ""#),
        ("a{b} 1\n", r#"expected equal, got "} " ("BCLOSE") while parsing: "a{b} ""#),
        ("a{b=\"x\ny\"} 1\n", r#"expected label value, got "\"x\n" ("INVALID") while parsing: "a{b=\"x\n""#),
        ("a 1 \n", r#"expected timestamp or # symbol, got " \n" ("INVALID") while parsing: "a 1 \n""#),
        (
            "a 1 2 3\n",
            r#"expected next entry after timestamp, got " 3\n" ("TIMESTAMP") while parsing: "a 1 2 3\n""#,
        ),
        ("a 1 NaN\n", "invalid timestamp NaN"),
        ("a 1 -Inf\n", "invalid timestamp -Inf"),
        ("a 1", "data does not end with # EOF"),
        ("a 1 2", "data does not end with # EOF"),
        ("a 1 # {} 1", "data does not end with # EOF"),
        ("a 1 # {} 1 +Inf\n", "invalid exemplar timestamp +Inf"),
        ("a 1 # {b} 1\n", r##"expected equal, got "} " ("BCLOSE") while parsing: "a 1 # {b} ""##),
        (
            "a 1 # {\"b\"} 1\n",
            r##"expected label name, got "} " ("BCLOSE") while parsing: "a 1 # {\"b\"} ""##,
        ),
        (
            "a 1 # {}1\n",
            r##"expected value after exemplar labels, got "1" ("INVALID") while parsing: "a 1 # {}1""##,
        ),
        (
            "a 1 # {} 1 1 1\n",
            r##"expected next entry after exemplar timestamp, got " 1\n" ("TIMESTAMP") while parsing: "a 1 # {} 1 1 1\n""##,
        ),
        (
            "a 1 # {} 1 \n",
            r##"expected timestamp or comment, got " \n" ("INVALID") while parsing: "a 1 # {} 1 \n""##,
        ),
    ] {
        check_open_metrics(body, &[&format!("error: {expected}")]);
    }
}

#[test]
fn the_text_of_a_series_is_its_key() {
    let body = b"a 1\na{b=\"1\"} 2\na{b=\"1\"}\t3\n  {\"a\", b=\"1\"} 4\n";
    let texts: Vec<String> = Parser::text(body)
        .map(|entry| match entry {
            Ok(Entry::Sample(sample)) => {
                assert_eq!(sample.series.metric_name(), "a");
                sample.series.text().to_owned()
            }
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(texts, ["a", "a{b=\"1\"}", "a{b=\"1\"}", "{\"a\", b=\"1\"}"]);
}

#[test]
fn the_format_selects_the_grammar() {
    let show_as = |format| Parser::new(b"a  1", format).map(show);
    assert_eq!(show_as(Format::Text), Some(vec![r#"{__name__="a"} 1.0"#.to_owned()]));
    assert_eq!(show_as(Format::OpenMetrics).map(|e| e[0].starts_with("error")), Some(true));
    assert_eq!(show_as(Format::Protobuf), None);
}

#[test]
fn every_nan_is_the_canonical_one() {
    for body in ["a NaN", "a nan"] {
        match Parser::text(body.as_bytes()).next() {
            Some(Ok(Entry::Sample(sample))) => assert_eq!(sample.value.to_bits(), 0x7ff8_0000_0000_0001),
            other => panic!("{other:?}"),
        }
    }
}

/// Cut between any two lines, a body reads as it does whole.
#[test]
fn a_body_is_read_in_pieces() {
    let body = "# TYPE h histogram\nh_bucket{le=\"1\"} 2 1.5\nh_bucket{le=\"+Inf\"} 3 1.5\n# EOF\n";
    let series = |parser: &mut Parser<'_>| -> Vec<String> {
        let entries = parser.map(|entry| entry.expect("valid"));
        let samples = entries.filter_map(|entry| match entry {
            Entry::Sample(sample) => Some(sample.series.to_labels().expect("valid").to_string()),
            _ => None,
        });
        samples.collect()
    };
    let want = series(&mut Parser::open_metrics(body.as_bytes()));
    assert!(want[0].contains("1.0"), "the type of the family counts: {want:?}");
    for (cut, _) in body.match_indices('\n') {
        let (first, second) = body.split_at(cut + 1);
        let mut parser = Parser::open_metrics_piece(first.as_bytes(), OpenMetricsState::default());
        let mut got = series(&mut parser);
        assert_eq!(parser.position(), first.len());
        let mut parser = Parser::open_metrics_piece(second.as_bytes(), parser.state());
        got.extend(series(&mut parser));
        assert_eq!(got, want);
        assert_eq!(parser.state().finish(), Ok(()));
        let mut parser = Parser::open_metrics_piece(b"a 1\n", parser.state());
        assert_eq!(parser.next(), Some(Err(Error::DataAfterEof)));
    }
    let mut parser = Parser::open_metrics_piece(b"a 1\n", OpenMetricsState::default());
    assert!(parser.next().is_some_and(|entry| entry.is_ok()) && parser.next().is_none());
    assert_eq!(parser.state().finish(), Err(Error::MissingEof));
}
