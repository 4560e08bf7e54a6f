//! Values of a template, and how Go prints them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use model::number::format_general;

/// A value. Clones are cheap.
#[derive(Debug, Clone)]
pub(super) enum Value {
    /// None at all: a nil, or what a map does not hold.
    Nothing,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Arc<str>),
    /// `map[string]string`.
    Labels(Arc<BTreeMap<String, String>>),
    /// `map[string]interface {}`.
    Map(Arc<BTreeMap<String, Value>>),
    /// An element of a query's result.
    Sample(Arc<Sample>),
    /// A query's result.
    Samples(Arc<[Arc<Sample>]>),
    /// What an alert's template is given.
    Alert(Arc<Alert>),
    /// Milliseconds since the epoch.
    Time(i64),
    /// Nanoseconds.
    Duration(i64),
}

/// An element of a query's result.
#[derive(Debug)]
pub(super) struct Sample {
    pub(super) labels: Arc<BTreeMap<String, String>>,
    pub(super) value: f64,
}

/// What an alert's template is given.
#[derive(Debug)]
pub(super) struct Alert {
    pub(super) labels: Value,
    pub(super) external_labels: Value,
    pub(super) external_url: Value,
    pub(super) value: Value,
}

impl Value {
    pub(super) fn text(text: impl Into<Arc<str>>) -> Self {
        Self::Text(text.into())
    }

    /// The name of the value's type in messages.
    pub(super) const fn type_name(&self) -> &'static str {
        match self {
            Self::Nothing => "<nil>",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Float(_) => "float64",
            Self::Text(_) => "string",
            Self::Labels(_) => "map[string]string",
            Self::Map(_) => "map[string]interface {}",
            Self::Sample(_) => "*template.sample",
            Self::Samples(_) => "template.queryResult",
            Self::Alert(_) => {
                "struct { Labels map[string]string; ExternalLabels map[string]string; ExternalURL string; \
                 Value interface {} }"
            }
            Self::Time(_) => "*time.Time",
            Self::Duration(_) => "time.Duration",
        }
    }

    /// Says whether a condition holds for the value.
    pub(super) fn is_true(&self) -> bool {
        match self {
            Self::Nothing => false,
            Self::Bool(value) => *value,
            Self::Int(value) | Self::Duration(value) => *value != 0,
            Self::Float(value) => *value != 0.0,
            Self::Text(text) => !text.is_empty(),
            Self::Labels(map) => !map.is_empty(),
            Self::Map(map) => !map.is_empty(),
            Self::Samples(samples) => !samples.is_empty(),
            Self::Sample(_) | Self::Alert(_) | Self::Time(_) => true,
        }
    }

    /// The value as an action writes it.
    pub(super) fn print(&self) -> String {
        match self {
            Self::Nothing => "<no value>".to_owned(),
            _ => self.show(),
        }
    }

    /// The value as `%v` shows it.
    pub(super) fn show(&self) -> String {
        match self {
            Self::Nothing => "<nil>".to_owned(),
            Self::Bool(value) => value.to_string(),
            Self::Int(value) => value.to_string(),
            Self::Float(value) => format_general(*value),
            Self::Text(text) => text.to_string(),
            Self::Labels(labels) => show_map(labels.iter().map(|(name, value)| (name, value.clone()))),
            Self::Map(map) => show_map(map.iter().map(|(name, value)| (name, value.show()))),
            Self::Sample(sample) => {
                let labels = Self::Labels(Arc::clone(&sample.labels)).show();
                format!("{{{labels} {}}}", format_general(sample.value))
            }
            // Go shows addresses here; what stands there says more.
            Self::Samples(samples) => {
                let all: Vec<_> = samples.iter().map(|s| Self::Sample(Arc::clone(s)).show()).collect();
                format!("[{}]", all.join(" "))
            }
            Self::Alert(alert) => {
                let Alert { labels, external_labels, external_url, value } = &**alert;
                let parts = [labels, external_labels, external_url, value].map(Self::show);
                format!("{{{}}}", parts.join(" "))
            }
            Self::Time(ms) => show_time(*ms),
            Self::Duration(ns) => show_duration(*ns),
        }
    }

    /// The number of bytes of text that the value holds, about.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Map(map) => map.iter().map(|(name, value)| name.len() + value.size()).sum(),
            _ => 0,
        }
    }
}

fn show_map<'a>(pairs: impl Iterator<Item = (&'a String, String)>) -> String {
    let all: Vec<_> = pairs.map(|(name, value)| format!("{name}:{value}")).collect();
    format!("map[{}]", all.join(" "))
}

/// A time as Go prints it in UTC: `2015-05-06 12:34:56.789 +0000 UTC`.
fn show_time(ms: i64) -> String {
    let Ok(time) = jiff::Timestamp::from_millisecond(ms) else { return ms.to_string() };
    let civil = time.to_zoned(jiff::tz::TimeZone::UTC);
    let mut out = civil.strftime("%Y-%m-%d %H:%M:%S").to_string();
    let millis = ms.rem_euclid(1000);
    if millis != 0 {
        let fraction = format!("{millis:03}");
        out.push('.');
        out.push_str(fraction.trim_end_matches('0'));
    }
    out.push_str(" +0000 UTC");
    out
}

/// A duration as Go prints it: `1h2m3.5s`.
pub(crate) fn show_duration(ns: i64) -> String {
    let magnitude = ns.unsigned_abs();
    let sign = if ns < 0 { "-" } else { "" };
    if magnitude < 1_000_000_000 {
        let (unit, scale) = match magnitude {
            0 => return "0s".to_owned(),
            1..1_000 => ("ns", 1),
            1_000..1_000_000 => ("µs", 1_000),
            _ => ("ms", 1_000_000),
        };
        return format!("{sign}{}{unit}", decimal(magnitude, scale));
    }
    let mut out = sign.to_owned();
    let (hours, minutes) = (magnitude / 3_600_000_000_000, magnitude / 60_000_000_000 % 60);
    // Writing to a string cannot fail.
    if hours > 0 {
        write!(out, "{hours}h").expect("a string");
    }
    if hours > 0 || minutes > 0 {
        write!(out, "{minutes}m").expect("a string");
    }
    write!(out, "{}s", decimal(magnitude % 60_000_000_000, 1_000_000_000)).expect("a string");
    out
}

fn decimal(value: u64, scale: u64) -> String {
    let (whole, fraction) = (value / scale, value % scale);
    if fraction == 0 {
        return whole.to_string();
    }
    let width = scale.ilog10() as usize;
    let digits = format!("{fraction:0width$}");
    format!("{whole}.{}", digits.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_durations_print_as_go_prints_them() {
        for (ms, text) in [
            (0, "1970-01-01 00:00:00 +0000 UTC"),
            (1_234_567_891, "1970-01-15 06:56:07.891 +0000 UTC"),
            (1_500, "1970-01-01 00:00:01.5 +0000 UTC"),
            (-1, "1969-12-31 23:59:59.999 +0000 UTC"),
        ] {
            assert_eq!(Value::Time(ms).print(), text);
        }
        for (ns, text) in [
            (0, "0s"),
            (1, "1ns"),
            (1_100, "1.1µs"),
            (2_200_000, "2.2ms"),
            (3_300_000_000, "3.3s"),
            (245_000_000_000, "4m5s"),
            (3_600_000_000_000, "1h0m0s"),
            (-18_367_001_000_000, "-5h6m7.001s"),
        ] {
            assert_eq!(Value::Duration(ns).print(), text);
        }
    }
}
