//! Expected texts are those that promtool 3.5 prints for the same rules.

use model::query::{PointValue, VectorElement};
use model::{Labels, Timestamp};

use super::*;

/// Answers `nosuch` with nothing, `fails` with an error, and all else with two series.
struct Fixture;

impl Context for Fixture {
    fn query(&mut self, expr: &str) -> Result<Vec<VectorElement>, String> {
        let element = |labels, value| VectorElement {
            labels,
            timestamp: Timestamp(0),
            value: PointValue::Float(value),
        };
        match expr {
            "nosuch" => Ok(Vec::new()),
            "fails" => Err("it failed".to_owned()),
            _ => Ok(vec![
                element(Labels::from_pairs([("b", "c")]), 2.0),
                element(Labels::from_pairs([("b", "a")]), 1.0),
            ]),
        }
    }

    fn now(&self) -> Timestamp {
        Timestamp(1_500)
    }

    fn external_url(&self) -> &str {
        "http://foo/bar"
    }
}

fn expand(text: &str) -> String {
    let labels = Labels::from_pairs([("x", "y")]);
    let external = Labels::from_pairs([("ex", "la")]);
    let data = AlertData::new(&labels, &external, "http://foo/bar", &PointValue::Float(1_234_567.891));
    let template = Template::parse("a", text).unwrap_or_else(|error| panic!("{text}: {error}"));
    template.expand(&data, &mut Fixture).unwrap_or_else(|error| error)
}

#[test]
fn texts_expand_as_in_the_reference() {
    for (text, expected) in [
        ("no action }} {", "no action }} {"),
        ("{{ .Labels }}|{{ $labels.x }}|{{ $labels.nosuch }}", "map[x:y]|y|"),
        (
            "{{ $value }} {{ .Value }} {{ $externalURL }} {{ .ExternalLabels }} {{ $externalLabels.ex }}",
            "1.234567891e+06 1.234567891e+06 http://foo/bar map[ex:la] la",
        ),
        ("{{ . }}", "{map[x:y] map[ex:la] http://foo/bar 1.234567891e+06}"),
        (
            "{{ range query `q` }}{{ . }}{{ .Value }}{{ .Labels }}{{ end }}",
            "{map[b:c] 2}2map[b:c]{map[b:a] 1}1map[b:a]",
        ),
        (
            "{{ range $i, $e := query `q` | sortByLabel `b` }}{{ $i }}{{ label `b` $e }}{{ $e | value }};{{ end }}",
            "0a1;1c2;",
        ),
        ("{{ range query `nosuch` }}x{{ else }}none{{ end }}", "none"),
        ("{{ range query `q` }}{{ if eq .Value 1.0 }}{{ break }}{{ end }}{{ .Value }}{{ end }}", "2"),
        ("{{ range query `q` }}{{ if eq .Value 2.0 }}{{ continue }}{{ end }}{{ .Value }}{{ end }}", "1"),
        (
            "{{ printf `%d %s %5.2f|%v|%q` 1.5 1 $value nil `a` }}",
            "%!d(float64=1.5) %!s(int=1) 1234567.89|<nil>|\"a\"",
        ),
        (
            "{{ toTime $value }} {{ humanizeTimestamp $value }}",
            "1970-01-15 06:56:07.891 +0000 UTC 1970-01-15 06:56:07.891 +0000 UTC",
        ),
        ("{{ args 1 `a` }} {{ (args 1).arg1 }} {{ (args 1).arg0 }}", "map[arg0:1 arg1:a] <no value> 1"),
        ("{{ define `t` }}[{{ . }}]{{ end }}{{ template `t` $value }}", "[1.234567891e+06]"),
        ("{{ block `t` $labels.x }}<{{ . }}>{{ end }}", "<y>"),
        ("{{ if gt $value 1.0 }}big{{ else }}small{{ end }}", "big"),
        ("{{ if false }}a{{ else if eq $labels.x `y` }}b{{ else }}c{{ end }}", "b"),
        (
            "{{ with $labels.x }}{{ . }}{{ else }}none{{ end }}{{ with $labels.z }}{{ . }}{{ else }}none{{ end }}",
            "ynone",
        ),
        ("{{ with $x := 1 }}{{ $x }}{{ end }}{{ $x := 2 }}{{ if true }}{{ $x = 3 }}{{ end }}{{ $x }}", "13"),
        ("a {{- /* comment */ -}} b {{- 1 -}} c", "ab1c"),
        ("{{ \"a\\tb\\u00e9\" }}{{ 'a' }}{{ 0x10 }}{{ 1e3 }}{{ 1_000 }}{{ true }}", "a\tbé971610001000true"),
        ("{{ `x` | printf `%s-%s` `a` | toUpper | len }}", "3"),
        ("{{ and 1 0 2 }} {{ or 0 `` `z` }} {{ not true }} {{ and true true }}", "0 z false true"),
        (
            "{{ index .Labels `x` }} {{ len $labels }} {{ slice `abcd` 1 3 }} {{ print 1 2 `a` `b` 3 }}",
            "y 1 bc 1 2ab3",
        ),
        (
            "{{ reReplaceAll `(.*)\\\\.example` `$1!` `host.example` }} {{ match `a.c` `xabcx` }}",
            "host.example true",
        ),
        (
            "{{ externalURL }} {{ pathPrefix }} {{ now }} {{ parseDuration `1h30m` }} {{ toDuration 3661.5 }}",
            "http://foo/bar /bar 1.5 5400 1h1m1.5s",
        ),
        (
            "{{ humanize 1234567.0 }} {{ humanize `0.25` }} {{ humanize1024 1048576 }} {{ humanizePercentage 0.123456 }}",
            "1.235M 250m 1Mi 12.35%",
        ),
        (
            "{{ title `foo bar` }} {{ stripPort `h:1` }} {{ stripDomain `h.d:1` }} {{ safeHtml `<b>` }} {{ tableLink `up` }}",
            "Foo Bar h h:1 <b> /graph?g0.expr=up&g0.tab=1",
        ),
        ("{{ query `q` | first | value | humanize }}", "2"),
        ("{{ html `<a>` }} {{ urlquery `a b` }}", "&lt;a&gt; a+b"),
        ("{{ range 3 }}{{ . }}{{ end }}", "012"),
        (
            "{{ .X.Y }}",
            "error executing template __alert_a: template: __alert_a:1:117: executing \"__alert_a\" at <.X.Y>: \
          can't evaluate field X in type struct { Labels map[string]string; ExternalLabels map[string]string; \
          ExternalURL string; Value interface {} }",
        ),
    ] {
        let expected = expected.to_owned();
        assert_eq!(expand(text), expected, "{text}");
    }
}

#[test]
fn expansions_fail_as_in_the_reference() {
    let at = "template: __alert_a:1";
    for (text, expected) in [
        (
            "{{ .Foo }}",
            "115: executing \"__alert_a\" at <.Foo>: can't evaluate field Foo in type struct { Labels \
          map[string]string; ExternalLabels map[string]string; ExternalURL string; Value interface {} }",
        ),
        (
            "{{ $labels.nosuch }}|{{ .Labels.nosuch.more }}",
            "143: executing \"__alert_a\" at <.Labels.nosuch.more>: can't evaluate field more in type string",
        ),
        (
            "{{ first (query `nosuch`) }}",
            "115: executing \"__alert_a\" at <first (query `nosuch`)>: error calling first: first() called on vector with no elements",
        ),
        ("{{ nil }}", "115: executing \"__alert_a\" at <nil>: nil is not a command"),
        ("{{ $y = 1 }}", "120: executing \"__alert_a\" at <1>: undefined variable: $y"),
        (
            "{{ humanize `abc` }}",
            "115: executing \"__alert_a\" at <humanize `abc`>: error calling humanize: strconv.ParseFloat: parsing \"abc\": invalid syntax",
        ),
        (
            "{{ humanize .Labels }}",
            "115: executing \"__alert_a\" at <humanize .Labels>: error calling humanize: can't convert map[string]string to float",
        ),
        ("{{ label 1 2 }}", "121: executing \"__alert_a\" at <1>: expected string; found 1"),
        (
            "{{ value 1 }}",
            "121: executing \"__alert_a\" at <1>: can't handle 1 for arg of type *template.sample",
        ),
        (
            "{{ if gt $value 1.0 }}big{{ else }}small{{ end }}{{ if gt $value 1 }}x{{end}}",
            "167: executing \"__alert_a\" at <gt $value 1>: error calling gt: incompatible types for comparison: float64 and int",
        ),
        (
            "{{ match 1 }}",
            "115: executing \"__alert_a\" at <match>: wrong number of args for match: want 2 got 1",
        ),
        (
            "{{ reReplaceAll `(` `b` `c` }}",
            "115: executing \"__alert_a\" at <reReplaceAll `(` `b` `c`>: error calling reReplaceAll: regexp: Compile(`(`): \
          error parsing regexp: missing closing ): `(`",
        ),
        (
            "{{ $value.Foo }}",
            "121: executing \"__alert_a\" at <$value.Foo>: can't evaluate field Foo in type float64",
        ),
        (
            "{{ range $value }}{{end}}",
            "121: executing \"__alert_a\" at <$value>: range can't iterate over 1.234567891e+06",
        ),
        ("{{ len 3 }}", "115: executing \"__alert_a\" at <len 3>: error calling len: len of type int"),
        (
            "{{ template `nosuch` }}",
            "124: executing \"__alert_a\" at <{{template \"nosuch\"}}>: template \"nosuch\" not defined",
        ),
        (
            "{{ query `fails` }}",
            "115: executing \"__alert_a\" at <query `fails`>: error calling query: it failed",
        ),
        (
            "{{ first .Labels }}",
            "121: executing \"__alert_a\" at <.Labels>: wrong type for value; expected template.queryResult; got map[string]string",
        ),
        ("{{ 1 2 }}", "115: executing \"__alert_a\" at <1>: can't give argument to non-function 1"),
    ] {
        assert_eq!(expand(text), format!("error executing template __alert_a: {at}:{expected}"), "{text}");
    }
}

#[test]
fn expansions_are_bounded() {
    let loops = "{{ range 1000 }}".repeat(3) + "{{ end }}{{ end }}{{ end }}";
    assert!(expand(&loops).contains("more than 1000000 steps"), "{}", expand(&loops));
    let calls = "{{ define `t` }}{{ template `t` }}{{ end }}{{ template `t` }}";
    assert!(expand(calls).contains("exceeded maximum template depth (100)"), "{}", expand(calls));
    let doubling = format!(
        "{{{{ $x := `{}` }}}}{{{{ range 20 }}}}{{{{ $x = print $x $x }}}}{{{{ end }}}}",
        "a".repeat(100)
    );
    assert!(expand(&doubling).contains("text of more than 1048576 bytes"), "{}", expand(&doubling));
    let deep = format!("{{{{ {}1{} }}}}", "(".repeat(200), ")".repeat(200));
    assert!(Template::parse("a", &deep).expect_err("too deep").contains("max expression depth exceeded"));
}

#[test]
fn texts_are_refused_as_in_the_reference() {
    for (text, line, expected) in [
        ("{{ $foo }}", 1, "undefined variable \"$foo\""),
        ("{{ .Labels.x }", 1, "unexpected \"}\" in operand"),
        ("{{ if }}", 1, "missing value for if"),
        ("{{ nosuch 1 }}", 1, "function \"nosuch\" not defined"),
        ("{{ tmpl `x` }}", 1, "function \"tmpl\" not defined"),
        ("{{ end }}", 1, "unexpected {{end}}"),
        ("{{ range .X }}", 1, "unexpected EOF"),
        ("{{ 1 | 2 }}", 1, "non executable command in pipeline stage 2"),
        ("{{ \"a }}", 1, "unterminated quoted string"),
        ("{{ $x := 1 }}{{ $y }}", 1, "undefined variable \"$y\""),
        ("{{ (first }}", 1, "unclosed left paren"),
        ("{{ /* foo }}", 1, "unexpected \"/\" in command"),
        ("{{ @ }}", 1, "unexpected \"@\" in command"),
        ("{{ template }}", 1, "unexpected \"}}\" in template clause"),
        ("{{ define x }}{{end}}", 1, "unexpected \"x\" in define clause"),
        ("{{", 1, "unclosed action"),
        ("{{}}", 1, "missing value for command"),
        ("a\nb{{ else }}", 2, "unexpected {{else}}"),
        ("{{ .a.b= }}", 1, "bad character U+003D '='"),
        ("{{ break }}", 1, "{{break}} outside {{range}}"),
        ("{{ if 1 }}a{{ else }}b{{else}}c{{end}}", 1, "expected end; found {{else}}"),
        ("{{ 1a }}", 1, "bad number syntax: \"1a\""),
        ("{{ 'ab' }}", 1, "malformed character constant: 'ab'"),
        ("{{ range $i, $j, $k := .X }}{{end}}", 1, "too many declarations in range"),
        ("{{ .X. }}", 1, "unexpected <.> in operand"),
        ("{{/* foo", 1, "unclosed comment"),
    ] {
        let error = Template::parse("hola", text).expect_err(text);
        assert_eq!(error, format!("template: __alert_hola:{line}: {expected}"), "{text}");
    }
    for text in ["{{ nil }}", "{{ $y = 1 }}", "{{ .X | first | }}"] {
        assert!(Template::parse("hola", text).is_ok(), "{text}");
    }
}
