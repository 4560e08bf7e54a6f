//! Labels as a `TimeSeries` of remote write 1.0 has them, read and written without structs.

use prost::{encode_length_delimiter, length_delimiter_len};

use crate::wire::{Fields, Malformed};

/// Field 1 of a series, and of a label; both are length-delimited.
const LABEL_KEY: u8 = 0x0a;
const NAME_KEY: u8 = 0x0a;
/// Field 2 of a label.
const VALUE_KEY: u8 = 0x12;

/// Adds a label to a series, the way that Prometheus writes it.
pub fn put(name: &[u8], value: &[u8], into: &mut Vec<u8>) {
    let field_len = |text: &[u8]| 1 + length_delimiter_len(text.len()) + text.len();
    put_key(LABEL_KEY, field_len(name) + field_len(value), into);
    for (key, text) in [(NAME_KEY, name), (VALUE_KEY, value)] {
        put_key(key, text.len(), into);
        into.extend_from_slice(text);
    }
}

fn put_key(key: u8, length: usize, into: &mut Vec<u8>) {
    into.push(key);
    encode_length_delimiter(length, into).expect("a vector grows");
}

/// Reads name and value of a `Label`. Of a field that stands there twice the last counts; a missing one is empty.
///
/// # Errors
/// When the bytes are no `Label`.
#[inline]
pub fn read(label: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    if let Some(usual) = read_usual(label) {
        return Ok(usual);
    }
    let (mut name, mut value): (&[u8], &[u8]) = (&[], &[]);
    for field in Fields::new(label) {
        match field? {
            (1, payload) => name = payload.expect_bytes()?,
            (2, payload) => value = payload.expect_bytes()?,
            _ => {}
        }
    }
    Ok((name, value))
}

/// Reads a `Label` as Prometheus writes it, name and value shorter than 128 bytes, which nearly every one is. `None`
/// says nothing: it may be valid all the same.
#[inline]
fn read_usual(label: &[u8]) -> Option<(&[u8], &[u8])> {
    let [NAME_KEY, name_len @ ..0x80, rest @ ..] = label else { return None };
    let (name, rest) = rest.split_at_checked(usize::from(*name_len))?;
    let [VALUE_KEY, value_len @ ..0x80, value @ ..] = rest else { return None };
    (usize::from(*value_len) == value.len()).then_some((name, value))
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::prometheus::{Label, TimeSeries};

    #[test]
    fn labels_are_written_as_prost_writes_them() {
        for (name, value) in [
            ("a", "b"),
            ("long", &*"v".repeat(127)),
            ("longer", &"v".repeat(128)),
            ("n", &"v".repeat(70_000)),
        ] {
            let label = Label { name: name.to_owned(), value: value.to_owned() };
            let mut written = Vec::new();
            put(name.as_bytes(), value.as_bytes(), &mut written);
            put(name.as_bytes(), value.as_bytes(), &mut written);
            let series = TimeSeries { labels: vec![label.clone(), label.clone()], ..TimeSeries::default() };
            assert_eq!(written, series.encode_to_vec());
            let usual = (value.len() < 128).then_some((name.as_bytes(), value.as_bytes()));
            assert_eq!(read_usual(&label.encode_to_vec()), usual);
            assert_eq!(read(&label.encode_to_vec()), Ok((name.as_bytes(), value.as_bytes())));
        }
    }

    #[test]
    fn what_is_no_label_is_refused() {
        for (bytes, expected) in [
            (&b"\x0a\x05a\x12\x01b"[..], "length goes beyond the end"),
            (b"\x0a\x01a\x12\x02b", "length goes beyond the end"),
            (b"\x08\x01\x12\x01b", "number where a message or text belongs"),
            (b"\x0a\x01a\x10\x01", "number where a message or text belongs"),
        ] {
            assert_eq!(read(bytes), Err(Malformed(expected)), "{bytes:?}");
        }
    }

    #[test]
    fn what_is_not_usual_is_left_to_others() {
        let unusual: [&[u8]; 8] = [
            b"",
            b"\x0a\x01a",
            b"\x12\x01b\x0a\x01a",
            b"\x0a\x05a\x12\x01b",
            b"\x0a\x01a\x12\x02b",
            b"\x0a\x01a\x12\x01b\x12\x01c",
            b"\x0a\x81\x00a\x12\x01b",
            b"\x0a\x01a\x1a\x01b",
        ];
        for bytes in unusual {
            assert_eq!(read_usual(bytes), None, "{bytes:?}");
        }
    }
}
