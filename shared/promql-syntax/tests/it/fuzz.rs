//! Any bytes at all: the parser answers, and what it takes can be printed and read again. `examples/fuzz.rs` runs the
//! same check for as long as it is let.

use promql_syntax::{Options, parse_expr, parse_selector, parse_series_description, parse_start_timestamps};
use proptest::prelude::*;

/// Pieces that mean something to the lexer or the parser, also in places where they should not stand.
pub(crate) const PIECES: &[&str] = &[
    "a",
    "up",
    "sum",
    "by",
    "without",
    "(",
    ")",
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "=",
    "=~",
    "!~",
    "!=",
    "==",
    "<",
    "<=",
    ">",
    ">=",
    "</",
    ">/",
    "+",
    "-",
    "*",
    "/",
    "%",
    "^",
    "atan2",
    "and",
    "or",
    "unless",
    "bool",
    "on",
    "ignoring",
    "group_left",
    "group_right",
    "fill",
    "fill_left",
    "offset",
    "@",
    "start()",
    "end()",
    "step()",
    "range()",
    "5m",
    "1h30m",
    "0x1f",
    "017",
    "1_000",
    "1e3",
    ".5",
    "Inf",
    "NaN",
    "\"s\"",
    "'t'",
    "`u`",
    "\"\\x41\"",
    "'\\",
    "rate",
    "histogram_quantile",
    "label_replace",
    "info",
    "topk",
    "limitk",
    "limit_ratio",
    "count_values",
    "quantile",
    "anchored",
    "smoothed",
    "min_of",
    "max_of",
    "__name__",
    "\u{e9}",
    "\u{1F600}",
    "#",
    "\n",
    "{{",
    "}}",
    "schema:",
    "buckets:[",
    "stale",
    "_x3",
    "x5",
    "@st",
    " ",
];

/// Feeds a text to every entry point; panics when one of them does, or when what was taken does not print back.
pub(crate) fn check(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(expr) = parse_expr(&text, &Options::all()) {
        let printed = expr.to_string();
        let again = parse_expr(&printed, &Options::all())
            .unwrap_or_else(|error| panic!("{text:?} is printed as {printed:?}: {error}"));
        assert_eq!(again.to_string(), printed, "{text:?}");
        let pretty = expr.prettify();
        let again = parse_expr(&pretty, &Options::all())
            .unwrap_or_else(|error| panic!("{text:?} is prettified as {pretty:?}: {error}"));
        assert_eq!(again.to_string(), printed, "{text:?}");
    }
    // Without experimental syntax there is never more than with it.
    if parse_expr(&text, &Options::default()).is_ok() {
        assert!(parse_expr(&text, &Options::all()).is_ok(), "{text:?}");
    }
    drop((parse_selector(&text), parse_series_description(&text), parse_start_timestamps(&text)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn bytes_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
        check(&bytes);
    }

    #[test]
    fn pieces_in_any_order_are_answered(pieces in prop::collection::vec(prop::sample::select(PIECES), 0..40)) {
        check(pieces.concat().as_bytes());
        check(pieces.join(" ").as_bytes());
    }
}
