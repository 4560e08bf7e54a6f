//! Numbers and strings as Go prints them, since Prometheus's formats are defined by Go's printing.

use std::fmt::{self, Write as _};
use std::io::Write as _;

/// Formats as Go's `strconv.FormatFloat(x, 'f', -1, 64)`: shortest round-trip digits, never an exponent.
#[must_use]
pub fn format_fixed(x: f64) -> String {
    format(x, |_, _| false)
}

/// Formats as Go's `strconv.FormatFloat(x, 'g', -1, 64)`, `%v` and `%g`: shortest digits, with an exponent below
/// 1e-4 and from 1e6 upwards.
#[must_use]
pub fn format_general(x: f64) -> String {
    format(x, is_general_exponent)
}

/// Appends what [`format_general`] returns.
pub fn push_general(out: &mut Vec<u8>, x: f64) {
    push(out, x, is_general_exponent);
}

/// Formats as Prometheus's HTTP API does: an exponent only below 1e-6 and from 1e21 upwards.
#[must_use]
pub fn format_api(x: f64) -> String {
    format(x, |x, _| !(1e-6..1e21).contains(&x.abs()))
}

/// strconv's %g with shortest digits decides with a precision of 6, however many digits there are.
fn is_general_exponent(_: f64, exponent: i32) -> bool {
    !(-4..6).contains(&(exponent - 1))
}

fn format(x: f64, has_exponent: impl Fn(f64, i32) -> bool) -> String {
    let mut out = Vec::new();
    push(&mut out, x, has_exponent);
    String::from_utf8(out).expect("digits and signs are ASCII")
}

/// Appends a number; `has_exponent` decides about a number other than zero by itself and its decimal exponent.
fn push(out: &mut Vec<u8>, x: f64, has_exponent: impl Fn(f64, i32) -> bool) {
    if let Some(text) = special(x) {
        return out.extend_from_slice(text.as_bytes());
    }
    let decimal = Decimal::of(x);
    if x.is_sign_negative() {
        out.push(b'-');
    }
    if x != 0.0 && has_exponent(x, decimal.exponent) {
        decimal.push_exponent(out);
    } else {
        decimal.push_fixed(out);
    }
}

/// Parses a float as Prometheus's exposition formats and flags do: Go syntax, `Inf`, `+Inf`, `-Inf`, `NaN` in any
/// case, hexadecimal floats excluded; `None` when the text is not a number.
#[must_use]
pub fn parse_float(text: &str) -> Option<f64> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let first = unsigned.bytes().next()?;
    if first.is_ascii_digit() || first == b'.' {
        // Rust's grammar for decimal floats is Go's without underscores.
        return text.parse().ok();
    }
    if unsigned.eq_ignore_ascii_case("inf") || unsigned.eq_ignore_ascii_case("infinity") {
        return Some(if text.starts_with('-') { f64::NEG_INFINITY } else { f64::INFINITY });
    }
    // Go refuses a sign before NaN.
    text.eq_ignore_ascii_case("nan").then(canonical_nan)
}

/// The NaN that Go's parser and arithmetic in Prometheus produce (`0x7ff8000000000001`).
#[must_use]
pub fn canonical_nan() -> f64 {
    f64::from_bits(0x7ff8_0000_0000_0001)
}

/// Displays a string as Go's `%q` and `strconv.Quote` do.
#[derive(Debug, Clone, Copy)]
pub struct Quoted<'a>(pub &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for c in self.0.chars() {
            match c {
                '"' => f.write_str("\\\"")?,
                '\\' => f.write_str("\\\\")?,
                '\n' => f.write_str("\\n")?,
                '\r' => f.write_str("\\r")?,
                '\t' => f.write_str("\\t")?,
                '\u{7}' => f.write_str("\\a")?,
                '\u{8}' => f.write_str("\\b")?,
                '\u{b}' => f.write_str("\\v")?,
                '\u{c}' => f.write_str("\\f")?,
                c if (c as u32) < 0x20 || c == '\u{7f}' => write!(f, "\\x{:02x}", c as u32)?,
                c if is_printable(c) => f.write_char(c)?,
                c if (c as u32) < 0x1_0000 => write!(f, "\\u{:04x}", c as u32)?,
                c => write!(f, "\\U{:08x}", c as u32)?,
            }
        }
        f.write_char('"')
    }
}

/// An approximation of Go's `strconv.IsPrint`: what Rust prints unescaped in a `Debug` string, less odd spaces.
fn is_printable(c: char) -> bool {
    // A single quote needs no escape between double ones, where `escape_debug` gives it one.
    matches!(c, ' ' | '\'') || (!c.is_whitespace() && c.escape_debug().len() == 1)
}

fn special(x: f64) -> Option<&'static str> {
    if x.is_nan() {
        Some("NaN")
    } else if x.is_infinite() {
        Some(if x > 0.0 { "+Inf" } else { "-Inf" })
    } else {
        None
    }
}

/// Most digits that are looked at: 17 that count, and zeros in front of them or behind.
const DIGITS_MAX: usize = 32;

/// The magnitude of a finite number as shortest decimal digits `d1 d2 ...` and the position of the point before which
/// `exponent` digits stand: 0.d1d2... * 10^exponent.
struct Decimal {
    digits: [u8; DIGITS_MAX],
    count: usize,
    exponent: i32,
}

impl Decimal {
    fn of(x: f64) -> Self {
        let mut decimal = Self { digits: [b'0'; DIGITS_MAX], count: 1, exponent: 1 };
        if x == 0.0 {
            return decimal;
        }
        let mut buffer = ryu::Buffer::new();
        let text = buffer.format_finite(x.abs()).as_bytes();
        // Behind the digits there may be an exponent.
        let (mantissa, power) = match text.iter().position(|c| *c == b'e') {
            Some(at) => {
                let power = std::str::from_utf8(&text[at + 1..]).ok().and_then(|p| p.parse::<i32>().ok());
                (&text[..at], power.expect("ryu prints an integer exponent"))
            }
            None => (text, 0),
        };
        (decimal.count, decimal.exponent) = (0, power);
        let mut is_whole = true;
        for c in mantissa {
            if *c == b'.' {
                is_whole = false;
            } else if *c == b'0' && decimal.count == 0 {
                // A zero in front of the point is the only one there.
                decimal.exponent -= i32::from(!is_whole);
            } else {
                decimal.digits[decimal.count] = *c;
                decimal.count += 1;
                decimal.exponent += i32::from(is_whole);
            }
        }
        while decimal.count > 1 && decimal.digits[decimal.count - 1] == b'0' {
            decimal.count -= 1;
        }
        decimal
    }

    fn digits(&self) -> &[u8] {
        &self.digits[..self.count]
    }

    fn push_fixed(&self, out: &mut Vec<u8>) {
        let zeros = |count: usize| std::iter::repeat_n(b'0', count);
        let digits = self.digits();
        match usize::try_from(self.exponent) {
            Ok(whole) if whole > 0 => {
                let (before, after) = digits.split_at(whole.min(digits.len()));
                out.extend_from_slice(before);
                out.extend(zeros(whole - before.len()));
                if !after.is_empty() {
                    out.push(b'.');
                    out.extend_from_slice(after);
                }
            }
            _ => {
                out.extend_from_slice(b"0.");
                out.extend(zeros(self.exponent.unsigned_abs() as usize));
                out.extend_from_slice(digits);
            }
        }
    }

    fn push_exponent(&self, out: &mut Vec<u8>) {
        let (first, rest) = (self.digits[0], &self.digits()[1..]);
        out.push(first);
        if !rest.is_empty() {
            out.push(b'.');
            out.extend_from_slice(rest);
        }
        let power = self.exponent - 1;
        let sign = if power < 0 { '-' } else { '+' };
        write!(out, "e{sign}{:02}", power.abs()).expect("a vector grows as needed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected texts are what Go 1.22 prints for the same bits.
    #[test]
    fn floats_print_as_go_prints_them() {
        let cases: &[(f64, &str, &str, &str)] = &[
            // value, 'f', 'g', HTTP API
            (0.0, "0", "0", "0"),
            (-0.0, "-0", "-0", "-0"),
            (1.0, "1", "1", "1"),
            (-1.5, "-1.5", "-1.5", "-1.5"),
            (123_456.0, "123456", "123456", "123456"),
            (1_000_000.0, "1000000", "1e+06", "1000000"),
            (1_234_567.0, "1234567", "1.234567e+06", "1234567"),
            (0.0001, "0.0001", "0.0001", "0.0001"),
            (0.00001, "0.00001", "1e-05", "0.00001"),
            (0.000_000_1, "0.0000001", "1e-07", "1e-07"),
            (1e20, "100000000000000000000", "1e+20", "100000000000000000000"),
            (1e21, "1000000000000000000000", "1e+21", "1e+21"),
            (2.5e-10, "0.00000000025", "2.5e-10", "2.5e-10"),
            (0.1 + 0.2, "0.30000000000000004", "0.30000000000000004", "0.30000000000000004"),
            (f64::INFINITY, "+Inf", "+Inf", "+Inf"),
            (f64::NEG_INFINITY, "-Inf", "-Inf", "-Inf"),
            (f64::NAN, "NaN", "NaN", "NaN"),
        ];
        for (x, fixed, general, api) in cases {
            assert_eq!(format_fixed(*x), *fixed, "'f' of {x:?}");
            assert_eq!(format_general(*x), *general, "'g' of {x:?}");
            assert_eq!(format_api(*x), *api, "API form of {x:?}");
        }
        assert!(format_fixed(f64::MIN_POSITIVE).ends_with("22250738585072014"));
        assert_eq!(format_general(1.797_693_134_862_315_7e308), "1.7976931348623157e+308");
        assert_eq!(format_general(1e100), "1e+100");
    }

    #[test]
    fn floats_parse_as_go_parses_them() {
        for (text, expected) in [
            ("1", Some(1.0)),
            ("+1.5e3", Some(1500.0)),
            (".5", Some(0.5)),
            ("5.", Some(5.0)),
            ("Inf", Some(f64::INFINITY)),
            ("-inf", Some(f64::NEG_INFINITY)),
            ("+Infinity", Some(f64::INFINITY)),
            ("", None),
            ("+", None),
            ("1_000", None),
            ("0x10", None),
            ("1e", None),
            ("-NaN", None),
            ("nanx", None),
        ] {
            assert_eq!(parse_float(text), expected, "{text:?}");
        }
        assert_eq!(parse_float("NaN").map(f64::to_bits), Some(0x7ff8_0000_0000_0001));
    }

    #[test]
    fn strings_quote_as_go_quotes_them() {
        assert_eq!(Quoted("a\"b\\c\nd\u{0}é\u{200b}").to_string(), r#""a\"b\\c\nd\x00é\u200b""#);
        assert_eq!(Quoted("it's").to_string(), r#""it's""#);
    }
}
