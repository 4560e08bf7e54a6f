//! Numbers in scrape bodies, read and written as the Go reference does.

use model::number::{Quoted, format_general, parse_float};

/// Reads a float.
///
/// # Errors
/// What Go says about it.
pub(super) fn float(text: &[u8]) -> Result<f64, String> {
    // Formats that Go learned later are kept out.
    if text.iter().any(|b| matches!(b, b'p' | b'P' | b'_')) {
        return Err("unsupported character in float".to_owned());
    }
    go_float(text)
}

/// Reads a float as Go's `strconv.ParseFloat` does; one too large is an error, one too small is 0.
fn go_float(text: &[u8]) -> Result<f64, String> {
    let lossy = String::from_utf8_lossy(text);
    let complain = |what| format!("strconv.ParseFloat: parsing {}: {what}", Quoted(&lossy));
    let value = parse_float(&lossy).ok_or_else(|| complain("invalid syntax"))?;
    if value.is_infinite() && text.iter().any(u8::is_ascii_digit) {
        return Err(complain("value out of range"));
    }
    Ok(value)
}

/// Reads decimal digits.
///
/// # Errors
/// What Go says about it.
pub(super) fn integer(digits: &[u8]) -> Result<i64, String> {
    let text = String::from_utf8_lossy(digits);
    text.parse().map_err(|_| format!("strconv.ParseInt: parsing {}: value out of range", Quoted(&text)))
}

/// Writes the value of an `le` or `quantile` label as OpenMetrics asks: `1` is `1.0`. A text that is no number stays.
pub(super) fn normalise(text: &str) -> Option<String> {
    go_float(text.as_bytes()).ok().map(format_open_metrics)
}

/// Writes a float as OpenMetrics does: shortest digits, and a point or an exponent always.
pub(crate) fn format_open_metrics(value: f64) -> String {
    if value == 0.0 {
        // Negative zero too.
        return "0.0".to_owned();
    }
    let mut out = format_general(value);
    if value.is_finite() && !out.contains(['e', '.']) {
        out.push_str(".0");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_written_as_open_metrics_floats() {
        for (text, expected) in [
            ("1", Some("1.0")),
            ("1.0", Some("1.0")),
            ("0", Some("0.0")),
            ("-0", Some("0.0")),
            ("-1", Some("-1.0")),
            ("100", Some("100.0")),
            ("1000000", Some("1e+06")),
            ("1e6", Some("1e+06")),
            ("0.00001", Some("1e-05")),
            (".5", Some("0.5")),
            ("5e-1", Some("0.5")),
            ("inf", Some("+Inf")),
            ("+Inf", Some("+Inf")),
            ("-inf", Some("-Inf")),
            ("nan", Some("NaN")),
            ("1e999", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(normalise(text).as_deref(), expected, "{text:?}");
        }
    }

    #[test]
    fn numbers_that_go_refuses_are_refused() {
        for (text, expected) in [
            ("1e999", "strconv.ParseFloat: parsing \"1e999\": value out of range"),
            ("-1e999", "strconv.ParseFloat: parsing \"-1e999\": value out of range"),
            ("abc", "strconv.ParseFloat: parsing \"abc\": invalid syntax"),
            ("0x10", "strconv.ParseFloat: parsing \"0x10\": invalid syntax"),
            ("0x1p-2", "unsupported character in float"),
            ("1_000", "unsupported character in float"),
        ] {
            assert_eq!(float(text.as_bytes()), Err(expected.to_owned()));
        }
        assert_eq!(float(b"1e-999"), Ok(0.0));
        assert_eq!(float(b"-Inf"), Ok(f64::NEG_INFINITY));
        assert_eq!(integer(b"9223372036854775807"), Ok(i64::MAX));
        assert_eq!(
            integer(b"9223372036854775808"),
            Err("strconv.ParseInt: parsing \"9223372036854775808\": value out of range".into())
        );
    }
}
