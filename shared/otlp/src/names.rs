//! Names of metrics, units and labels, as `prometheus/otlptranslator` 1.0 makes them.

use std::borrow::Cow;

use crate::settings::Settings;

/// What a metric is, as far as its name depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Gauge,
    MonotonicSum,
    Other,
}

/// Base units, from their UCUM symbols. `tibibytes` is how the reference spells it.
const UNITS: [(&str, &str); 26] = [
    ("d", "days"),
    ("h", "hours"),
    ("min", "minutes"),
    ("s", "seconds"),
    ("ms", "milliseconds"),
    ("us", "microseconds"),
    ("ns", "nanoseconds"),
    ("By", "bytes"),
    ("KiBy", "kibibytes"),
    ("MiBy", "mebibytes"),
    ("GiBy", "gibibytes"),
    ("TiBy", "tibibytes"),
    ("KBy", "kilobytes"),
    ("MBy", "megabytes"),
    ("GBy", "gigabytes"),
    ("TBy", "terabytes"),
    ("m", "meters"),
    ("V", "volts"),
    ("A", "amperes"),
    ("J", "joules"),
    ("W", "watts"),
    ("g", "grams"),
    ("Cel", "celsius"),
    ("Hz", "hertz"),
    ("1", ""),
    ("%", "percent"),
];

/// Units behind a slash.
const PER_UNITS: [(&str, &str); 7] = [
    ("s", "second"),
    ("m", "minute"),
    ("h", "hour"),
    ("d", "day"),
    ("w", "week"),
    ("mo", "month"),
    ("y", "year"),
];

/// Makes a metric's name.
///
/// # Errors
/// In the reference's words, when nothing is left of the name.
pub(crate) fn metric_name(name: &str, unit: &str, kind: Kind, settings: &Settings) -> Result<String, String> {
    let strategy = settings.strategy;
    let built = match (strategy.escapes(), strategy.adds_suffixes()) {
        (true, true) => escaped_with_suffixes(name, unit, kind),
        (true, false) => escaped(name),
        (false, true) => with_suffixes(name, unit, kind),
        (false, false) => name.to_owned(),
    };
    if built.is_empty() {
        return Err(format!("normalization for metric {name:?} resulted in empty name"));
    }
    if strategy.escapes() && built != name && built.bytes().all(|b| b == b'_') {
        return Err(format!("normalization for metric {name:?} resulted in invalid name {built:?}"));
    }
    Ok(built)
}

/// Tokens of classic characters, joined by underscores; a token that unit or type would add is not there twice.
fn escaped_with_suffixes(name: &str, unit: &str, kind: Kind) -> String {
    let mut tokens: Vec<&str> = name.split(|c| !is_token_char(c)).filter(|t| !t.is_empty()).collect();
    let (main, per) = unit_suffixes(unit);
    let (main, per) = (cleaned(&main), cleaned(&per));
    // A unit of nothing but invalid characters leaves a bare `per_`.
    let per = per.strip_suffix('_').unwrap_or(&per);
    let per = if per == "per" || tokens.contains(&per) { "" } else { per };
    let main = if tokens.contains(&&*main) { "" } else { &*main };
    let main = if per.is_empty() { main } else { main.strip_suffix('_').unwrap_or(main) };
    tokens.extend([main, per].into_iter().filter(|suffix| !suffix.is_empty()));
    let last = match kind {
        Kind::MonotonicSum => Some("total"),
        // Counters of things are often given the unit "1" by mistake, so gauges alone are called ratios.
        Kind::Gauge if unit == "1" => Some("ratio"),
        Kind::Gauge | Kind::Other => None,
    };
    if let Some(last) = last {
        tokens.retain(|token| *token != last);
        tokens.push(last);
    }
    without_leading_digit(tokens.join("_"))
}

/// Runs of characters that classic names do not have become one underscore, and vanish at both ends.
fn escaped(name: &str) -> String {
    let is_valid = |c: char| is_token_char(c) || c == '_';
    let parts: Vec<&str> = name.split(|c| !is_valid(c)).filter(|part| !part.is_empty()).collect();
    without_leading_digit(parts.join("_"))
}

/// The name as it is, with unit and type behind it unless it ends with them.
fn with_suffixes(name: &str, unit: &str, kind: Kind) -> String {
    let last = match kind {
        Kind::MonotonicSum => "total",
        Kind::Gauge if unit == "1" => "ratio",
        Kind::Gauge | Kind::Other => "",
    };
    let (main, per) = unit_suffixes(unit);
    let mut built = without_suffix(without_suffix(name, last), &per).to_owned();
    let main = if built.ends_with(&*main) { "" } else { &*main };
    for suffix in [main, &per, last] {
        if !suffix.is_empty() {
            built.push('_');
            built.push_str(suffix);
        }
    }
    built
}

/// Takes a suffix and the character before it away, unless nothing would be left.
fn without_suffix<'a>(name: &'a str, suffix: &str) -> &'a str {
    let rest = if suffix.is_empty() { None } else { name.strip_suffix(suffix) };
    match rest.map(|rest| (rest, rest.char_indices().next_back())) {
        Some((rest, Some((at, _)))) if at > 0 => &rest[..at],
        _ => name,
    }
}

/// Makes the unit of a metric's metadata: `By/s` is `bytes_per_second`.
pub(crate) fn unit_name(unit: &str) -> String {
    let (main, per) = unit_suffixes(unit);
    let (main, per) = (cleaned(&main), cleaned(&per));
    let joined = match (main.is_empty(), per.is_empty()) {
        (false, false) => format!("{main}_{per}"),
        (false, true) => main.into_owned(),
        (true, _) => per.into_owned(),
    };
    let rest = joined.strip_prefix('_').unwrap_or(&joined);
    rest.strip_suffix('_').unwrap_or(rest).to_owned()
}

/// The words for a unit and for what stands behind its slash (`per_second`); units in braces are annotations.
fn unit_suffixes(unit: &str) -> (Cow<'_, str>, Cow<'_, str>) {
    let (main, per) = unit.split_once('/').unwrap_or((unit, ""));
    let word = |symbol: &'_ str, table: &[(&str, &'static str)]| -> Option<&'static str> {
        table.iter().find(|(known, _)| *known == symbol).map(|(_, word)| *word)
    };
    let is_unit = |text: &str| !text.is_empty() && !text.contains(['{', '}']);
    let (main, per) = (main.trim(), per.trim());
    let main = if is_unit(main) { word(main, &UNITS).unwrap_or(main) } else { "" };
    let per = if is_unit(per) { word(per, &PER_UNITS).unwrap_or(per) } else { "" };
    let per = if per.is_empty() { Cow::Borrowed("") } else { Cow::Owned(format!("per_{per}")) };
    (Cow::Borrowed(main), per)
}

/// Replaces what classic names do not have by underscores, one for each run and none at the start.
fn cleaned(unit: &str) -> Cow<'_, str> {
    if unit.chars().all(is_token_char) {
        return Cow::Borrowed(unit);
    }
    let mut clean = String::with_capacity(unit.len());
    for c in unit.chars() {
        let c = if is_token_char(c) { c } else { '_' };
        if c != '_' || !(clean.is_empty() || clean.ends_with('_')) {
            clean.push(c);
        }
    }
    Cow::Owned(clean)
}

const fn is_token_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == ':'
}

fn without_leading_digit(name: String) -> String {
    if name.starts_with(|c: char| c.is_ascii_digit()) { format!("_{name}") } else { name }
}

/// Makes a label's name of an attribute's.
///
/// # Errors
/// In the reference's words, when nothing is left of the name.
pub(crate) fn label_name<'a>(name: &'a str, settings: &Settings) -> Result<Cow<'a, str>, String> {
    if name.is_empty() {
        return Err(format!("normalization for label name {name:?} resulted in empty name"));
    }
    if !settings.strategy.escapes() {
        return Ok(Cow::Borrowed(name));
    }
    let clean = sanitized(name, settings.keeps_multiple_underscores);
    let clean = match clean.as_bytes() {
        [b'0'..=b'9', ..] => Cow::Owned(format!("key_{clean}")),
        // Two leading underscores are reserved and stay.
        [b'_'] if settings.prefixes_underscores => Cow::Owned(format!("key{clean}")),
        [b'_', second, ..] if *second != b'_' && settings.prefixes_underscores => {
            Cow::Owned(format!("key{clean}"))
        }
        _ => clean,
    };
    if clean != name && clean.bytes().all(|b| b == b'_') {
        return Err(format!("normalization for label name {name:?} resulted in invalid name {clean:?}"));
    }
    Ok(clean)
}

/// Replaces each character that classic label names do not have by an underscore.
fn sanitized(name: &str, keeps_multiple: bool) -> Cow<'_, str> {
    let is_valid = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.chars().all(is_valid) && (keeps_multiple || !name.contains("__")) {
        return Cow::Borrowed(name);
    }
    if keeps_multiple {
        return Cow::Owned(name.chars().map(|c| if is_valid(c) { c } else { '_' }).collect());
    }
    // Reserved names keep the underscores around them.
    let inner = name.strip_prefix("__").and_then(|rest| rest.strip_suffix("__")).filter(|i| !i.is_empty());
    let mut clean = String::with_capacity(name.len());
    for c in inner.unwrap_or(name).chars() {
        let c = if is_valid(c) { c } else { '_' };
        if c != '_' || !clean.ends_with('_') {
            clean.push(c);
        }
    }
    Cow::Owned(if inner.is_some() { format!("__{clean}__") } else { clean })
}

#[cfg(test)]
mod tests;
