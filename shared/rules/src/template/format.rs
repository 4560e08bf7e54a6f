//! Go's `Sprintf`, for the values that templates have.

use std::fmt::Write as _;

use model::number::{Quoted, format_general};

use super::value::Value;

/// The widest field, and the longest fraction.
const WIDTH_MAX: usize = 1_000;

/// What stands between the percent sign and the verb.
#[derive(Debug, Default, Clone)]
struct Spec {
    plus: bool,
    minus: bool,
    sharp: bool,
    space: bool,
    zero: bool,
    width: Option<usize>,
    precision: Option<usize>,
}

/// Formats values as Go does, its complaints included: `%!d(string=hi)`.
pub(super) fn sprintf(format: &str, arguments: &[Value]) -> String {
    let mut out = String::new();
    let mut next = 0;
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut spec = Spec::default();
        while let Some(flag) = chars.next_if(|c| matches!(c, '+' | '-' | '#' | ' ' | '0')) {
            match flag {
                '+' => spec.plus = true,
                '-' => (spec.minus, spec.zero) = (true, false),
                '#' => spec.sharp = true,
                ' ' => spec.space = true,
                _ => spec.zero = !spec.minus,
            }
        }
        let star = |next: &mut usize, out: &mut String, complaint: &str| {
            let value = match arguments.get(*next) {
                Some(Value::Int(n)) if n.unsigned_abs() <= WIDTH_MAX as u64 => Some(*n),
                _ => {
                    out.push_str(complaint);
                    None
                }
            };
            *next += 1;
            value
        };
        let number = |chars: &mut std::iter::Peekable<std::str::Chars<'_>>| {
            let mut digits = String::new();
            while let Some(digit) = chars.next_if(char::is_ascii_digit) {
                digits.push(digit);
            }
            (!digits.is_empty()).then(|| digits.parse().unwrap_or(WIDTH_MAX).min(WIDTH_MAX))
        };
        if chars.next_if_eq(&'*').is_some() {
            if let Some(width) = star(&mut next, &mut out, "%!(BADWIDTH)") {
                spec.minus |= width < 0;
                spec.width = usize::try_from(width.unsigned_abs()).ok();
            }
        } else {
            spec.width = number(&mut chars);
        }
        if chars.next_if_eq(&'.').is_some() {
            spec.precision = if chars.next_if_eq(&'*').is_some() {
                star(&mut next, &mut out, "%!(BADPREC)").and_then(|n| usize::try_from(n).ok())
            } else {
                Some(number(&mut chars).unwrap_or(0))
            };
        }
        let Some(verb) = chars.next() else {
            out.push_str("%!(NOVERB)");
            break;
        };
        if verb == '%' {
            out.push('%');
            continue;
        }
        match arguments.get(next) {
            Some(value) => out.push_str(&one(value, verb, &spec)),
            None => write!(out, "%!{verb}(MISSING)").expect("a string"),
        }
        next += 1;
    }
    if next < arguments.len() {
        let extra: Vec<_> = arguments[next..].iter().map(typed).collect();
        write!(out, "%!(EXTRA {})", extra.join(", ")).expect("a string");
    }
    out
}

fn typed(value: &Value) -> String {
    match value {
        Value::Nothing => "<nil>".to_owned(),
        _ => format!("{}={}", value.type_name(), value.show()),
    }
}

fn one(value: &Value, verb: char, spec: &Spec) -> String {
    let bad = || match value {
        Value::Nothing => format!("%!{verb}(<nil>)"),
        _ => format!("%!{verb}({})", typed(value)),
    };
    match (verb, value) {
        ('T', _) => pad(value.type_name(), spec),
        ('v', Value::Float(x)) => numeric(&float(*x, 'g', spec), spec),
        ('v', Value::Int(n)) => numeric(&integer(*n, 10, spec), spec),
        ('v', Value::Text(text)) if spec.sharp => pad(&Quoted(text).to_string(), spec),
        ('v', _) => pad(&value.show(), spec),
        ('t', Value::Bool(b)) => pad(&b.to_string(), spec),
        ('d', Value::Int(n) | Value::Duration(n)) => numeric(&integer(*n, 10, spec), spec),
        ('b', Value::Int(n)) => numeric(&integer(*n, 2, spec), spec),
        ('o', Value::Int(n)) => numeric(&integer(*n, 8, spec), spec),
        ('x', Value::Int(n)) => numeric(&integer(*n, 16, spec), spec),
        ('X', Value::Int(n)) => numeric(&integer(*n, 16, spec).to_uppercase(), spec),
        ('c', Value::Int(n)) => {
            let c = u32::try_from(*n).ok().and_then(char::from_u32).unwrap_or(char::REPLACEMENT_CHARACTER);
            pad(&c.to_string(), spec)
        }
        ('e' | 'E' | 'f' | 'F' | 'g' | 'G', Value::Float(x)) => numeric(&float(*x, verb, spec), spec),
        ('s', Value::Text(text)) => pad(&cut(text, spec), spec),
        ('q', Value::Text(text)) => pad(&Quoted(&cut(text, spec)).to_string(), spec),
        ('x' | 'X', Value::Text(text)) => {
            let hex: String = text.bytes().map(|b| format!("{b:02x}")).collect();
            pad(&if verb == 'X' { hex.to_uppercase() } else { hex }, spec)
        }
        ('s', Value::Time(_) | Value::Duration(_)) => pad(&value.show(), spec),
        ('s', Value::Labels(_) | Value::Map(_)) => pad(&value.show(), spec),
        _ => bad(),
    }
}

fn cut(text: &str, spec: &Spec) -> String {
    spec.precision.map_or_else(|| text.to_owned(), |n| text.chars().take(n).collect())
}

fn pad(text: &str, spec: &Spec) -> String {
    let missing = spec.width.unwrap_or(0).saturating_sub(text.chars().count());
    let fill = " ".repeat(missing);
    if spec.minus { format!("{text}{fill}") } else { format!("{fill}{text}") }
}

/// Pads a number, with zeros behind its sign where they are wanted.
fn numeric(text: &str, spec: &Spec) -> String {
    let is_finite = text.ends_with(|c: char| c.is_ascii_hexdigit());
    let missing = spec.width.unwrap_or(0).saturating_sub(text.chars().count());
    if !spec.zero || missing == 0 || !is_finite {
        return pad(text, spec);
    }
    let sign = usize::from(text.starts_with(['+', '-', ' ']));
    format!("{}{}{}", &text[..sign], "0".repeat(missing), &text[sign..])
}

fn signed(text: String, spec: &Spec) -> String {
    match text.strip_prefix('+').unwrap_or(&text) {
        plain if plain.starts_with('-') => plain.to_owned(),
        plain if spec.plus => format!("+{plain}"),
        plain if spec.space => format!(" {plain}"),
        // Go writes the sign of an infinity always.
        "Inf" => "+Inf".to_owned(),
        plain => plain.to_owned(),
    }
}

fn integer(n: i64, radix: u32, spec: &Spec) -> String {
    let magnitude = n.unsigned_abs();
    let digits = match radix {
        2 => format!("{magnitude:b}"),
        8 => format!("{magnitude:o}"),
        16 => format!("{magnitude:x}"),
        _ => magnitude.to_string(),
    };
    let prefix = match (spec.sharp, radix) {
        (true, 16) => "0x",
        (true, 8) => "0",
        (true, 2) => "0b",
        _ => "",
    };
    let width = spec.precision.unwrap_or(0);
    let sign = if n < 0 { "-" } else { "" };
    signed(format!("{sign}{prefix}{digits:0>width$}"), spec)
}

fn float(x: f64, verb: char, spec: &Spec) -> String {
    let text = if x.is_nan() {
        "NaN".to_owned()
    } else if x.is_infinite() {
        if x > 0.0 { "Inf" } else { "-Inf" }.to_owned()
    } else {
        match verb {
            'f' | 'F' => format!("{x:.*}", spec.precision.unwrap_or(6)),
            'e' | 'E' => exponent(x, spec.precision.unwrap_or(6)),
            _ => spec.precision.map_or_else(|| format_general(x), |n| general(x, n)),
        }
    };
    let text = if matches!(verb, 'E' | 'G') { text.replace('e', "E") } else { text };
    signed(text, spec)
}

/// `%e`: at least two digits of exponent.
fn exponent(x: f64, precision: usize) -> String {
    let text = format!("{x:.precision$e}");
    let (mantissa, power) = text.split_once('e').expect("Rust writes an exponent");
    let power: i32 = power.parse().expect("an integer");
    let sign = if power < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", power.abs())
}

/// `%.<n>g`: so many significant digits, without trailing zeros.
pub(super) fn general(x: f64, precision: usize) -> String {
    let precision = precision.max(1);
    if x.is_nan() {
        return "NaN".to_owned();
    }
    if x.is_infinite() {
        return if x > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    if x == 0.0 {
        return if x.is_sign_negative() { "-0" } else { "0" }.to_owned();
    }
    let rounded = exponent(x, precision - 1);
    let (mantissa, power) = rounded.split_once('e').expect("written above");
    let power: i32 = power.parse().expect("written above");
    let trim = |text: &str| {
        if text.contains('.') {
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        } else {
            text.to_owned()
        }
    };
    let digits = i32::try_from(precision).unwrap_or(i32::MAX);
    if power < -4 || power >= digits {
        let sign = if power < 0 { '-' } else { '+' };
        return format!("{}e{sign}{:02}", trim(mantissa), power.abs());
    }
    let decimals = usize::try_from(digits - 1 - power).unwrap_or(0);
    trim(&format!("{x:.decimals$}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_format_as_go_formats_them() {
        let (int, float, text) = (Value::Int, Value::Float, Value::text);
        for (format, arguments, expected) in [
            ("%d|%5d|%-5d|%05d|%+d", vec![int(1), int(2), int(3), int(-4), int(5)], "1|    2|3    |-0004|+5"),
            (
                "%x %X %o %b %#x %c",
                vec![int(255), int(255), int(8), int(5), int(255), int(65)],
                "ff FF 10 101 0xff A",
            ),
            ("%.2f %8.3f %f", vec![float(1.005), float(-2.5), float(3.0)], "1.00   -2.500 3.000000"),
            (
                "%e %.1e %g %.3g",
                vec![float(1234.5), float(0.00012), float(1e6), float(1234.5)],
                "1.234500e+03 1.2e-04 1e+06 1.23e+03",
            ),
            (
                "%s|%q|%5s|%-5s|%.2s",
                vec![text("a"), text("b\""), text("c"), text("d"), text("efg")],
                r#"a|"b\""|    c|d    |ef"#,
            ),
            ("%v %v %v %v", vec![int(1), float(2.5), text("x"), Value::Bool(true)], "1 2.5 x true"),
            ("%d %s %t", vec![float(1.5), int(1), text("x")], "%!d(float64=1.5) %!s(int=1) %!t(string=x)"),
            ("%d", vec![], "%!d(MISSING)"),
            ("a", vec![int(1), text("x")], "a%!(EXTRA int=1, string=x)"),
            ("100%", vec![], "100%!(NOVERB)"),
            ("%%|%*d|%v", vec![int(4), int(7), Value::Nothing], "%|   7|<nil>"),
            ("%f %5.1f %05.1f", vec![float(f64::INFINITY), float(f64::NAN), float(1.25)], "+Inf   NaN 001.2"),
            ("%T %T", vec![float(1.0), text("x")], "float64 string"),
        ] {
            assert_eq!(sprintf(format, &arguments), expected, "{format}");
        }
    }

    #[test]
    fn significant_digits_are_rounded_as_go_rounds_them() {
        for (x, text) in [
            (1234.0, "1234"),
            (12345.0, "1.234e+04"),
            (12355.0, "1.236e+04"),
            (0.001, "0.001"),
            (0.000_012_3, "1.23e-05"),
            (999.96, "1000"),
            (9999.6, "1e+04"),
            (-1.5, "-1.5"),
            (0.0, "0"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "+Inf"),
            (100.0, "100"),
        ] {
            assert_eq!(general(x, 4), text, "{x}");
        }
    }
}
