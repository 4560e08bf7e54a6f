//! Numbers and strings as they are written in queries.

use model::number::{Quoted, canonical_nan};

/// Quotes a character as Go's `%q` does; the end of the text shows as the replacement character.
pub(crate) fn quote_char(c: Option<char>) -> String {
    match c.unwrap_or(char::REPLACEMENT_CHARACTER) {
        '\'' => "'\\''".to_owned(),
        '"' => "'\"'".to_owned(),
        c => {
            let quoted = Quoted(c.encode_utf8(&mut [0; 4])).to_string();
            format!("'{}'", &quoted[1..quoted.len() - 1])
        }
    }
}

/// Reads a number as Go's `strconv` does with base 0, else as a float. The error is Go's.
pub(crate) fn parse_number(text: &str) -> Result<f64, String> {
    let error = |what: &str| format!("strconv.ParseFloat: parsing {}: {what}", Quoted(text));
    if text.contains('_') && !underscores_separate_digits(text) {
        return Err(error("invalid syntax"));
    }
    let plain: String = text.chars().filter(|c| *c != '_').collect();
    if let Some(integer) = parse_integer(&plain) {
        #[expect(clippy::cast_precision_loss, reason = "PromQL has floats only")]
        return Ok(integer as f64);
    }
    if plain.eq_ignore_ascii_case("inf") {
        return Ok(f64::INFINITY);
    }
    if plain.eq_ignore_ascii_case("nan") {
        return Ok(canonical_nan());
    }
    match plain.parse::<f64>() {
        Ok(x) if x.is_infinite() => Err(error("value out of range")),
        Ok(x) => Ok(x),
        Err(_) => Err(error("invalid syntax")),
    }
}

fn parse_integer(text: &str) -> Option<i64> {
    let (digits, radix) = match text.as_bytes() {
        [b'0', b'x' | b'X', ..] => (&text[2..], 16),
        [b'0', b'o' | b'O', ..] => (&text[2..], 8),
        [b'0', b'b' | b'B', ..] => (&text[2..], 2),
        [b'0', _, ..] => (&text[1..], 8),
        _ => (text, 10),
    };
    let is_plain = digits.chars().all(|c| c.is_digit(radix));
    is_plain.then(|| i64::from_str_radix(digits, radix).ok()).flatten()
}

/// Go's rule: an underscore stands between digits, or between the base prefix and a digit.
fn underscores_separate_digits(text: &str) -> bool {
    let has_prefix = matches!(text.as_bytes(), [b'0', b'x' | b'X' | b'o' | b'O' | b'b' | b'B', ..]);
    let is_hex = matches!(text.as_bytes(), [b'0', b'x' | b'X', ..]);
    let is_digit =
        |c: Option<&u8>| c.is_some_and(|c| c.is_ascii_digit() || (is_hex && c.is_ascii_hexdigit()));
    let bytes = text.as_bytes();
    bytes.iter().enumerate().filter(|(_, c)| **c == b'_').all(|(i, _)| {
        let after_prefix = has_prefix && i == 2;
        let before = i.checked_sub(1).and_then(|j| bytes.get(j));
        (after_prefix || is_digit(before)) && is_digit(bytes.get(i + 1))
    })
}

/// Undoes quotes and escapes of a string the lexer has checked. The value need not be UTF-8: `"\xff"`.
pub(crate) fn unquote(text: &str) -> Vec<u8> {
    let inner = &text[1..text.len() - 1];
    if text.starts_with('`') || !inner.contains('\\') {
        return inner.as_bytes().to_vec();
    }
    let mut out = Vec::with_capacity(inner.len());
    let mut rest = inner;
    while let Some(i) = rest.find('\\') {
        out.extend_from_slice(&rest.as_bytes()[..i]);
        rest = push_escaped(&mut out, &rest[i + 1..]);
    }
    out.extend_from_slice(rest.as_bytes());
    out
}

/// Appends what an escape stands for and returns what follows it. `text` starts behind the backslash.
fn push_escaped<'a>(out: &mut Vec<u8>, text: &'a str) -> &'a str {
    let first = text.as_bytes()[0];
    let number = |digits: &str, radix| u32::from_str_radix(digits, radix).unwrap_or_default();
    let byte = |value: u32| u8::try_from(value).unwrap_or_default();
    match first {
        b'0'..=b'7' => {
            out.push(byte(number(&text[..3], 8)));
            return &text[3..];
        }
        b'x' => {
            out.push(byte(number(&text[1..3], 16)));
            return &text[3..];
        }
        b'u' | b'U' => {
            let end = if first == b'u' { 5 } else { 9 };
            let c = char::from_u32(number(&text[1..end], 16)).unwrap_or(char::REPLACEMENT_CHARACTER);
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            return &text[end..];
        }
        b'a' => out.push(0x07),
        b'b' => out.push(0x08),
        b'f' => out.push(0x0c),
        b'n' => out.push(b'\n'),
        b'r' => out.push(b'\r'),
        b't' => out.push(b'\t'),
        b'v' => out.push(0x0b),
        other => out.push(other),
    }
    &text[1..]
}

/// Quotes bytes as Go's `%q` does: those that are not UTF-8 as `\xff`.
pub(crate) fn quote_bytes(bytes: &[u8]) -> String {
    let mut out = String::from("\"");
    for chunk in bytes.utf8_chunks() {
        let quoted = Quoted(chunk.valid()).to_string();
        out.push_str(&quoted[1..quoted.len() - 1]);
        for byte in chunk.invalid() {
            out.push_str(&format!("\\x{byte:02x}"));
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_go_reads_them() {
        for (text, expected) in [
            ("0", 0.0),
            ("12.34e6", 12_340_000.0),
            (".5", 0.5),
            ("5.", 5.0),
            ("0x1f", 31.0),
            ("0X_1F", 31.0),
            ("017", 15.0),
            ("019", 19.0),
            ("0o17", 15.0),
            ("0b11", 3.0),
            ("1_000", 1000.0),
            ("1_000.5", 1000.5),
            ("99999999999999999999", 1e20),
            ("Inf", f64::INFINITY),
            ("1e3", 1000.0),
        ] {
            assert_eq!(parse_number(text), Ok(expected), "{text}");
        }
        assert!(parse_number("nan").is_ok_and(f64::is_nan));
        for (text, expected) in [
            ("1e999", r#"strconv.ParseFloat: parsing "1e999": value out of range"#),
            ("0x", r#"strconv.ParseFloat: parsing "0x": invalid syntax"#),
            ("1__0", r#"strconv.ParseFloat: parsing "1__0": invalid syntax"#),
            ("0xfffffffffffffffff", r#"strconv.ParseFloat: parsing "0xfffffffffffffffff": invalid syntax"#),
        ] {
            assert_eq!(parse_number(text), Err(expected.to_owned()), "{text}");
        }
    }

    #[test]
    fn strings_unquote_as_go_unquotes_them() {
        for (text, expected) in [
            (r#""a\n\t\\\"b""#, b"a\n\t\\\"b".as_slice()),
            (r"'it\'s'", b"it's"),
            (r"`raw\n`", b"raw\\n"),
            (r#""\x41\101\u0041\U00000041""#, b"AAAA"),
            (r#""a\xc5z""#, b"a\xc5z"),
            (r#""\a\b\f\r\v""#, b"\x07\x08\x0c\r\x0b"),
            ("\"é\\u00e9\"", "éé".as_bytes()),
        ] {
            assert_eq!(unquote(text), expected, "{text}");
        }
        assert_eq!(quote_bytes(b"a\xc5z\n\""), r#""a\xc5z\n\"""#);
        assert_eq!(quote_bytes("é".as_bytes()), "\"é\"");
    }

    #[test]
    fn characters_quote_as_go_quotes_them() {
        for (c, expected) in [
            (Some('a'), "'a'"),
            (Some('\''), "'\\''"),
            (Some('"'), "'\"'"),
            (Some('\n'), "'\\n'"),
            (None, "'\u{fffd}'"),
        ] {
            assert_eq!(quote_char(c), expected);
        }
    }
}
