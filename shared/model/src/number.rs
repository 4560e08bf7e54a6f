//! Numbers and strings as Go prints them, since Prometheus's formats are defined by Go's printing.

use std::fmt::{self, Write as _};
use std::io::Write as _;

/// Formats as Go's `strconv.FormatFloat(x, 'f', -1, 64)`: shortest round-trip digits, never an exponent.
#[must_use]
pub fn format_fixed(x: f64) -> String {
    text(|out| {
        if let Some(decimal) = push_easy(out, x, INTEGERS_EXACT) {
            decimal.push_fixed(out);
        }
    })
}

/// Formats as Go's `strconv.FormatFloat(x, 'g', -1, 64)`, `%v` and `%g`: shortest digits, with an exponent below
/// 1e-4 and from 1e6 upwards.
#[must_use]
pub fn format_general(x: f64) -> String {
    text(|out| push_general(out, x))
}

/// Appends what [`format_general`] gives.
pub fn push_general(out: &mut Vec<u8>, x: f64) {
    if let Some(decimal) = push_easy(out, x, 1e6) {
        // strconv's %g with shortest digits decides with a precision of 6, however many digits there are.
        if (-4..6).contains(&(decimal.exponent - 1)) {
            decimal.push_fixed(out);
        } else {
            decimal.push_exponent(out);
        }
    }
}

/// Appends a number as Prometheus's HTTP API prints it: with an exponent only below 1e-6 and from 1e21 upwards.
pub fn push_api(out: &mut Vec<u8>, x: f64) {
    if let Some(decimal) = push_easy(out, x, INTEGERS_EXACT) {
        if (1e-6..1e21).contains(&x.abs()) {
            decimal.push_fixed(out);
        } else {
            decimal.push_exponent(out);
        }
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

fn text(push: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut out = Vec::new();
    push(&mut out);
    String::from_utf8(out).expect("numbers are ASCII")
}

/// Below this every integer is a float, so that its digits are the shortest that tell it from its neighbours.
const INTEGERS_EXACT: f64 = 9_007_199_254_740_992.0;

/// Appends what is no finite number, zero, and integers below a limit, at most [`INTEGERS_EXACT`]; gives back the digits
/// of all others.
fn push_easy(out: &mut Vec<u8>, x: f64, integers_below: f64) -> Option<Decimal> {
    if x.is_nan() {
        out.extend_from_slice(b"NaN");
        return None;
    }
    if x.is_infinite() {
        out.extend_from_slice(if x > 0.0 { b"+Inf" } else { b"-Inf" });
        return None;
    }
    if x.is_sign_negative() {
        out.push(b'-');
    }
    let magnitude = x.abs();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked")]
    let integer = if magnitude < integers_below { magnitude as u64 } else { u64::MAX };
    #[expect(clippy::cast_precision_loss, reason = "what is lost makes it differ")]
    if integer != u64::MAX && integer as f64 == magnitude {
        out.extend_from_slice(itoa::Buffer::new().format(integer).as_bytes());
        return None;
    }
    Some(Decimal::new(magnitude))
}

/// The shortest decimal digits d1 d2 ... of a positive number, which is 0.d1d2... * 10^exponent.
struct Decimal {
    digits: [u8; 17],
    count: usize,
    exponent: i32,
}

impl Decimal {
    fn new(x: f64) -> Self {
        let mut buffer = ryu::Buffer::new();
        let text = buffer.format_finite(x);
        let (mantissa, power) = match text.split_once('e') {
            Some((m, e)) => (m, e.parse::<i32>().expect("ryu prints an integer exponent")),
            None => (text, 0),
        };
        let mut decimal = Self { digits: [0; 17], count: 0, exponent: power };
        let mut is_whole = true;
        let mut zeros = 0;
        for byte in mantissa.bytes() {
            match byte {
                b'.' => is_whole = false,
                b'0' if decimal.count == 0 => decimal.exponent -= i32::from(!is_whole),
                digit => {
                    decimal.exponent += i32::from(is_whole);
                    // Zeros count once another digit stands behind them.
                    if digit == b'0' {
                        zeros += 1;
                    } else {
                        decimal.digits[decimal.count..decimal.count + zeros].fill(b'0');
                        decimal.count += zeros + 1;
                        decimal.digits[decimal.count - 1] = digit;
                        zeros = 0;
                    }
                }
            }
        }
        decimal
    }

    fn digits(&self) -> &[u8] {
        &self.digits[..self.count]
    }

    fn push_fixed(&self, out: &mut Vec<u8>) {
        let digits = self.digits();
        let zeros = |out: &mut Vec<u8>, count: usize| out.resize(out.len() + count, b'0');
        match usize::try_from(self.exponent) {
            Ok(whole) if whole >= digits.len() => {
                out.extend_from_slice(digits);
                zeros(out, whole - digits.len());
            }
            Ok(whole) if whole > 0 => {
                out.extend_from_slice(&digits[..whole]);
                out.push(b'.');
                out.extend_from_slice(&digits[whole..]);
            }
            _ => {
                out.extend_from_slice(b"0.");
                zeros(out, self.exponent.unsigned_abs() as usize);
                out.extend_from_slice(digits);
            }
        }
    }

    fn push_exponent(&self, out: &mut Vec<u8>) {
        let (first, rest) = self.digits().split_at(1);
        out.extend_from_slice(first);
        if !rest.is_empty() {
            out.push(b'.');
            out.extend_from_slice(rest);
        }
        let power = self.exponent - 1;
        let sign = if power < 0 { '-' } else { '+' };
        write!(out, "e{sign}{:02}", power.abs()).expect("writing to memory cannot fail");
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
            assert_eq!(text(|out| push_api(out, *x)), *api, "API form of {x:?}");
        }
        assert!(format_fixed(f64::MIN_POSITIVE).ends_with("22250738585072014"));
        assert_eq!(format_general(1.797_693_134_862_315_7e308), "1.7976931348623157e+308");
        assert_eq!(format_general(1e100), "1e+100");
    }

    /// Rust prints the shortest digits as well: never with an exponent by `{}`, always with one by `{:e}`.
    #[test]
    fn any_float_prints_with_the_shortest_digits() {
        let mut bits = 1_u64;
        for i in 0..200_000_u32 {
            // Knuth's linear congruence; every other number is an integer of up to 2^60.
            bits = bits.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let x = if i % 2 == 0 { f64::from_bits(bits) } else { (bits >> (4 + i % 60)) as f64 };
            if !x.is_finite() {
                continue;
            }
            let (go, rust) = (format_fixed(x), format!("{x}"));
            if go != rust {
                // Of two that are equally near Go takes the even digit, Rust the greater.
                let (go, rust) = (go.split_at(go.len() - 1), rust.split_at(rust.len() - 1));
                assert_eq!(go.0, rust.0, "'f' of {x:e}");
                assert!("02468".contains(go.1) && go.1.as_bytes()[0] + 1 == rust.1.as_bytes()[0], "{x:e}");
                continue;
            }
            let with_exponent = format!("{x:e}");
            let (digits, power) = with_exponent.split_once('e').expect("an exponent");
            let power: i32 = power.parse().expect("an integer");
            let sign = if power < 0 { '-' } else { '+' };
            let with_exponent = format!("{digits}e{sign}{:02}", power.abs());
            let pick = |is_plain: bool| if is_plain { format!("{x}") } else { with_exponent.clone() };
            assert_eq!(format_general(x), pick(x == 0.0 || (-4..6).contains(&power)), "'g' of {x:e}");
            let api = text(|out| push_api(out, x));
            assert_eq!(api, pick(x == 0.0 || (-6..21).contains(&power)), "API form of {x:e}");
        }
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
