//! Literals of Go: strings, characters, numbers.

use model::number::{Quoted, parse_float};

use super::tree::Number;

/// Returns what a quoted string means.
pub(super) fn unquote(text: &str) -> Result<String, String> {
    let fault = || "invalid syntax".to_owned();
    if let Some(raw) = text.strip_prefix('`') {
        return Ok(raw.strip_suffix('`').ok_or_else(fault)?.replace('\r', ""));
    }
    let inner = text.strip_prefix('"').and_then(|t| t.strip_suffix('"')).ok_or_else(fault)?;
    let mut rest = inner;
    let mut out = String::with_capacity(inner.len());
    while !rest.is_empty() {
        out.push(character(&mut rest, '"').ok_or_else(fault)?);
    }
    Ok(out)
}

/// Takes one character off a text inside quotes.
fn character(rest: &mut &str, quote: char) -> Option<char> {
    let mut chars = rest.chars();
    let c = chars.next()?;
    if c != '\\' {
        *rest = chars.as_str();
        return (c != quote).then_some(c);
    }
    let escape = chars.next()?;
    *rest = chars.as_str();
    let mut digits = |count: usize, radix: u32| {
        let digits = rest.get(..count)?;
        let value = u32::from_str_radix(digits, radix).ok()?;
        *rest = &rest[count..];
        char::from_u32(value)
    };
    Some(match escape {
        'a' => '\u{7}',
        'b' => '\u{8}',
        'f' => '\u{c}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\u{b}',
        '\\' => '\\',
        'x' => digits(2, 16)?,
        'u' => digits(4, 16)?,
        'U' => digits(8, 16)?,
        '0'..='7' => {
            let more = digits(2, 8)?;
            char::from_u32(escape.to_digit(8)? * 64 + u32::from(more))?
        }
        c if c == quote => c,
        _ => return None,
    })
}

/// Reads a number or a character.
pub(super) fn number(text: &str) -> Result<Number, String> {
    if let Some(inner) = text.strip_prefix('\'') {
        let mut rest = inner;
        return match character(&mut rest, '\'') {
            Some(c) if rest == "'" => {
                let code = u32::from(c);
                Ok(Number { text: text.to_owned(), int: Some(code.into()), float: code.into() })
            }
            _ => Err(format!("malformed character constant: {text}")),
        };
    }
    if let Some(int) = integer(text) {
        #[expect(clippy::cast_precision_loss, reason = "as Go converts an integer to a float")]
        return Ok(Number { text: text.to_owned(), int: Some(int), float: int as f64 });
    }
    let plain: String = text.chars().filter(|c| *c != '_').collect();
    let float = parse_float(&plain).ok_or_else(|| format!("illegal number syntax: {}", Quoted(text)))?;
    if !text.contains(['.', 'e', 'E', 'p', 'P']) {
        return Err(format!("integer overflow: {}", Quoted(text)));
    }
    // A float that is whole may stand where an integer is wanted.
    #[expect(clippy::cast_possible_truncation, reason = "checked to be whole and small")]
    let int = (float.fract() == 0.0 && float.abs() < 9e18).then_some(float as i64);
    Ok(Number { text: text.to_owned(), int, float })
}

fn integer(text: &str) -> Option<i64> {
    let plain: String = text.chars().filter(|c| *c != '_').collect();
    let (is_negative, digits) = match plain.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, plain.strip_prefix('+').unwrap_or(&plain)),
    };
    let lower = digits.to_ascii_lowercase();
    let prefixed = |prefix, radix| lower.strip_prefix(prefix).map(|rest| (rest.to_owned(), radix));
    let (digits, radix) = prefixed("0x", 16)
        .or_else(|| prefixed("0o", 8))
        .or_else(|| prefixed("0b", 2))
        .or_else(|| prefixed("0", 8).filter(|(rest, _)| !rest.is_empty()))
        .unwrap_or_else(|| (lower.clone(), 10));
    if digits.starts_with(['+', '-']) {
        return None;
    }
    let value = i128::from_str_radix(&digits, radix).ok()?;
    i64::try_from(if is_negative { -value } else { value }).ok()
}
