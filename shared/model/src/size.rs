//! Sizes in bytes, as Prometheus's configuration and flags write them.

use std::fmt;

/// Units of sizes, largest first; both spellings are of base 2.
const UNITS: [(&str, &str, u32); 6] = [
    ("EiB", "EB", 60),
    ("PiB", "PB", 50),
    ("TiB", "TB", 40),
    ("GiB", "GB", 30),
    ("MiB", "MB", 20),
    ("KiB", "KB", 10),
];

/// Reads `10MB`, `1GiB512MiB`, `1.5KB`: units of base 2, whichever the spelling.
///
/// # Errors
/// What is no size, in Prometheus's words.
pub fn parse_bytes(text: &str) -> Result<i64, String> {
    let invalid = || format!("units: invalid {text}");
    let (is_negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total = 0.0_f64;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
        let count: f64 = rest[..digits].parse().map_err(|_| invalid())?;
        rest = &rest[digits..];
        let unit_len = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let (unit, tail) = rest.split_at(unit_len);
        rest = tail;
        let shift = match unit {
            "B" => 0,
            unit => UNITS
                .iter()
                .find(|(long, short, _)| *long == unit || *short == unit)
                .map(|(_, _, shift)| *shift)
                .ok_or_else(|| format!("units: unknown unit {unit} in {text}"))?,
        };
        total += count * (1_u64 << shift) as f64;
    }
    if total >= i64::MAX as f64 {
        return Err("units: overflow parsing unit".to_owned());
    }
    #[expect(clippy::cast_possible_truncation, reason = "below i64::MAX, and fractions of bytes are cut")]
    let bytes = total as i64;
    Ok(if is_negative { -bytes } else { bytes })
}

/// A number of bytes that displays as `15MiB` or `1KiB476B`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bytes(pub i64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0B");
        }
        if self.0 < 0 {
            f.write_str("-")?;
        }
        let mut rest = self.0.unsigned_abs();
        for (unit, _, shift) in UNITS {
            let count = rest >> shift;
            if count > 0 {
                write!(f, "{count}{unit}")?;
                rest -= count << shift;
            }
        }
        if rest > 0 { write!(f, "{rest}B") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_of_base_two() {
        for (text, bytes, printed) in [
            ("0", 0, "0B"),
            ("15MB", 15 << 20, "15MiB"),
            ("1GiB512MiB", (1 << 30) + (512 << 20), "1GiB512MiB"),
            ("1.5KB", 1536, "1KiB512B"),
            ("-1GB", -(1 << 30), "-1GiB"),
            ("100B", 100, "100B"),
        ] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
            assert_eq!(Bytes(bytes).to_string(), printed);
        }
        for (text, error) in [
            ("100", "units: unknown unit  in 100"),
            ("10XB", "units: unknown unit XB in 10XB"),
            ("", "units: invalid "),
            ("..5MB", "units: invalid ..5MB"),
            ("9EB", "units: overflow parsing unit"),
        ] {
            assert_eq!(parse_bytes(text), Err(error.to_owned()), "{text}");
        }
    }
}
