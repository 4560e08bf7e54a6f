//! Prometheus text 0.0.4, byte for byte as `expfmt` of prometheus/common writes it.

use model::FloatHistogram;
use model::labels::is_legacy_metric_name;
use model::number::format_general;

use super::{Item, Kind, classic_buckets};
use crate::escaping::EscapingScheme;

pub(super) fn write_type(out: &mut Vec<u8>, name: &str, kind: Kind) {
    out.extend_from_slice(b"# TYPE ");
    write_name(out, name);
    // The format has no word for a histogram whose counts go down.
    out.extend_from_slice(match kind {
        Kind::Untyped => b" untyped\n",
        Kind::Histogram | Kind::GaugeHistogram => b" histogram\n",
    });
}

pub(super) fn write_float(out: &mut Vec<u8>, item: Item<'_>, escaping: EscapingScheme, value: f64) {
    write_sample(out, item, escaping, "", None, value);
}

pub(super) fn write_histogram(
    out: &mut Vec<u8>,
    item: Item<'_>,
    escaping: EscapingScheme,
    histogram: &FloatHistogram,
) {
    for (bound, count) in classic_buckets(histogram) {
        write_sample(out, item, escaping, "_bucket", Some(bound), count);
    }
    write_sample(out, item, escaping, "_sum", None, histogram.sum);
    write_sample(out, item, escaping, "_count", None, histogram.count);
}

fn write_sample(
    out: &mut Vec<u8>,
    item: Item<'_>,
    escaping: EscapingScheme,
    suffix: &str,
    bound: Option<f64>,
    value: f64,
) {
    let name = escaping.escape(item.name);
    let mut separator = b'{';
    if is_legacy_metric_name(&name) {
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(suffix.as_bytes());
    } else {
        out.extend_from_slice(b"{\"");
        write_escaped(out, &name);
        out.extend_from_slice(suffix.as_bytes());
        out.push(b'"');
        separator = b',';
    }
    for (label, value) in item.labels() {
        out.push(separator);
        write_name(out, &escaping.escape(label));
        write_value(out, value);
        separator = b',';
    }
    if let Some(bound) = bound {
        out.push(separator);
        out.extend_from_slice(b"le");
        write_value(out, &format_value(bound));
        separator = b',';
    }
    if separator == b',' {
        out.push(b'}');
    }
    out.push(b' ');
    out.extend_from_slice(format_value(value).as_bytes());
    out.push(b' ');
    out.extend_from_slice(item.timestamp.millis().to_string().as_bytes());
    out.push(b'\n');
}

/// The reference has a shortcut for zero, which takes negative zero along.
fn format_value(value: f64) -> String {
    format_general(if value == 0.0 { 0.0 } else { value })
}

fn write_value(out: &mut Vec<u8>, value: &str) {
    out.extend_from_slice(b"=\"");
    write_escaped(out, value);
    out.push(b'"');
}

/// Writes a name, in quotes where it is none of the plain ones (which for labels include the colon, as in the reference).
fn write_name(out: &mut Vec<u8>, name: &str) {
    if is_legacy_metric_name(name) {
        out.extend_from_slice(name.as_bytes());
    } else {
        out.push(b'"');
        write_escaped(out, name);
        out.push(b'"');
    }
}

fn write_escaped(out: &mut Vec<u8>, text: &str) {
    let is_special = |byte: &u8| matches!(byte, b'\\' | b'\n' | b'"');
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(is_special) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(match rest[at] {
            b'\n' => b"\\n",
            b'"' => b"\\\"",
            _ => b"\\\\",
        });
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
}
