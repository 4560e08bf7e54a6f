//! Warnings and infos about a query, each with the place in its text that it is about.

use std::collections::HashMap;
use std::fmt::Write as _;

use model::number::{Quoted, format_general};
use promql_syntax::Span;

use crate::faults::or_fault;
use crate::partial::PartialNote;

/// How many different notes are kept; what comes after is dropped.
const NOTES_MAX: usize = 1_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Level {
    Warning,
    Info,
}

#[derive(Debug)]
struct Note {
    level: Level,
    text: String,
    span: Span,
}

/// The notes of one query. Equal texts are one note, at the last of its places: what comes first depends on where an
/// aggregation is computed.
#[derive(Debug, Default)]
pub(crate) struct Annotations {
    notes: Vec<Note>,
    by_text: HashMap<(Level, String), usize>,
    from_source: Vec<String>,
    overlaps: Vec<(String, Span, u64)>,
    monotonicity: Vec<Monotonicity>,
}

/// Buckets of a classic histogram that had to be made monotonic.
#[derive(Debug, Clone)]
pub(crate) struct Monotonicity {
    pub(crate) metric: String,
    pub(crate) span: Span,
    pub(crate) count: u64,
    pub(crate) buckets: (f64, f64),
    pub(crate) max_difference: f64,
    pub(crate) times: (i64, i64),
}

impl Annotations {
    pub(crate) fn warn(&mut self, text: impl Into<String>, span: Span) {
        self.note(Level::Warning, text.into(), span);
    }

    pub(crate) fn info(&mut self, text: impl Into<String>, span: Span) {
        self.note(Level::Info, text.into(), span);
    }

    /// Adds what the source has to say, as it is.
    pub(crate) fn add_warnings_of_source(&mut self, warnings: Vec<String>) {
        for warning in warnings {
            if self.from_source.len() < NOTES_MAX && !self.from_source.contains(&warning) {
                self.from_source.push(warning);
            }
        }
    }

    /// Notes samples whose counter started before the sample before them.
    pub(crate) fn start_time_overlap(&mut self, metric: &str, span: Span, count: u64) {
        let is_full = self.overlaps.len() >= NOTES_MAX;
        match self.overlaps.iter_mut().find(|(m, _, _)| m == metric) {
            Some((_, place, total)) => {
                *total += count;
                *place = later(*place, span);
            }
            None if !is_full => self.overlaps.push((metric.to_owned(), span, count)),
            None => {}
        }
    }

    /// Notes buckets that were made monotonic; notes on one metric become one.
    pub(crate) fn forced_monotonicity(&mut self, new: Monotonicity) {
        let is_full = self.monotonicity.len() >= NOTES_MAX;
        match self.monotonicity.iter_mut().find(|m| m.metric == new.metric) {
            Some(m) => {
                m.span = later(m.span, new.span);
                m.count += new.count;
                m.buckets = (m.buckets.0.min(new.buckets.0), m.buckets.1.max(new.buckets.1));
                m.max_difference = m.max_difference.max(new.max_difference);
                m.times = (m.times.0.min(new.times.0), m.times.1.max(new.times.1));
            }
            None if !is_full => self.monotonicity.push(new),
            None => {}
        }
    }

    /// Gives everything away that part of an aggregation can give rise to say.
    pub(crate) fn into_partial(self) -> Vec<PartialNote> {
        let notes = self.notes.into_iter().map(|note| match note.level {
            Level::Warning => PartialNote::Warning(note.text, note.span),
            Level::Info => PartialNote::Info(note.text, note.span),
        });
        let overlaps = self.overlaps.into_iter();
        notes
            .chain(overlaps.map(|(metric, span, count)| PartialNote::StartTimeOverlap(metric, span, count)))
            .collect()
    }

    /// Takes up what part of an aggregation gave rise to say.
    pub(crate) fn absorb(&mut self, notes: Vec<PartialNote>) {
        for note in notes {
            match note {
                PartialNote::Warning(text, span) => self.warn(text, span),
                PartialNote::Info(text, span) => self.info(text, span),
                PartialNote::StartTimeOverlap(metric, span, count) => {
                    self.start_time_overlap(&metric, span, count);
                }
            }
        }
    }

    fn note(&mut self, level: Level, text: String, span: Span) {
        let key = (level, text);
        match self.by_text.get(&key) {
            Some(known) => {
                let place = &mut self.notes[*known].span;
                *place = later(*place, span);
            }
            None if self.notes.len() < NOTES_MAX => {
                self.notes.push(Note { level, text: key.1.clone(), span });
                self.by_text.insert(key, self.notes.len() - 1);
            }
            None => {}
        }
    }

    /// Returns warnings and infos as the API prints them for a query's text, at most `max` of each.
    pub(crate) fn finish(mut self, query: &str, max: usize) -> (Vec<String>, Vec<String>) {
        for (metric, span, count) in std::mem::take(&mut self.overlaps) {
            let mut text = format!(
                "sample has start time that overlaps with previous sample timestamp for metric {}",
                Quoted(&metric)
            );
            if count > 1 {
                write!(text, " ({count} occurrences)").expect("writing to a string");
            }
            self.warn(text, span);
        }
        for m in std::mem::take(&mut self.monotonicity) {
            let text = m.text();
            self.info(text, m.span);
        }
        self.notes.sort_by(|a, b| (a.span.start, &a.text).cmp(&(b.span.start, &b.text)));
        let of = |level: Level, name: &str| -> Vec<String> {
            self.notes
                .iter()
                .filter(|note| note.level == level)
                .map(|note| {
                    let span = or_fault!(AnnotationPlace, note.span, Span::default());
                    let (line, column) = span.line_column(query);
                    format!("PromQL {name}: {} ({line}:{column})", note.text)
                })
                .collect()
        };
        let infos = of(Level::Info, "info");
        let mut warnings = of(Level::Warning, "warning");
        warnings.extend(self.from_source);
        (capped(warnings, "warning", max), capped(infos, "info", max))
    }
}

/// The place that the reference comes to last: it evaluates from left to right, and what is inside first.
fn later(a: Span, b: Span) -> Span {
    std::cmp::max_by_key(a, b, |span| (span.end, std::cmp::Reverse(span.start)))
}

fn capped(mut all: Vec<String>, name: &str, max: usize) -> Vec<String> {
    if all.len() > max {
        let omitted = all.len() - max;
        all.truncate(max);
        all.push(format!("{omitted} more {name} annotations omitted"));
    }
    all
}

impl Monotonicity {
    fn text(&self) -> String {
        let mut text = String::from(
            "input to histogram_quantile needed to be fixed for monotonicity (see \
             https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile)",
        );
        push_metric(&mut text, &self.metric);
        let (low, high) = self.buckets;
        let (from, to) = (rfc3339(self.times.0), rfc3339(self.times.1));
        write!(
            text,
            ", from buckets {} to {}, with a max diff of {}, over {} samples from {from} to {to}",
            format_general(low),
            format_general(high),
            two_digits(self.max_difference),
            self.count,
        )
        .expect("writing to a string");
        text
    }
}

/// Appends ` for metric name "x"` when there is a name.
pub(crate) fn push_metric(text: &mut String, metric: &str) {
    if !metric.is_empty() {
        write!(text, " for metric name {}", Quoted(metric)).expect("writing to a string");
    }
}

/// Prints a number as Go's `%.2g`.
fn two_digits(x: f64) -> String {
    if x == 0.0 || !x.is_finite() {
        return format_general(x);
    }
    let scientific = format!("{x:.1e}");
    let exponent: i32 = scientific.split_once('e').and_then(|(_, e)| e.parse().ok()).unwrap_or(0);
    if (-4..2).contains(&exponent) {
        let decimals = usize::try_from(1 - exponent).unwrap_or(0);
        let fixed = format!("{x:.decimals$}");
        return match fixed.contains('.') {
            true => fixed.trim_end_matches('0').trim_end_matches('.').to_owned(),
            false => fixed,
        };
    }
    let mantissa = scientific.split('e').next().unwrap_or_default();
    let mantissa = mantissa.strip_suffix(".0").unwrap_or(mantissa);
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}

/// Prints a time in milliseconds as `2006-01-02T15:04:05Z`.
fn rfc3339(ms: i64) -> String {
    let seconds = ms.div_euclid(1000);
    let date = crate::civil::Civil::from_unix(seconds);
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
        date.year, date.month, date.day, date.hour, date.minute, date.second
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_have_positions_and_a_cap() {
        let mut annotations = Annotations::default();
        for i in 0..12 {
            annotations.warn(format!("w{i}"), Span::new(2, 3));
            annotations.warn(format!("w{i}"), Span::new(0, 1));
            annotations.info("nested", Span::new(2, 5));
            annotations.info("nested", Span::new(4, 5));
        }
        annotations.info("i", Span::new(4, 5));
        let (warnings, infos) = annotations.finish("a\nb\nc", 10);
        assert_eq!(warnings.len(), 11);
        assert_eq!(warnings[0], "PromQL warning: w0 (2:1)");
        assert_eq!(warnings[10], "2 more warning annotations omitted");
        assert_eq!(infos, ["PromQL info: nested (2:1)", "PromQL info: i (3:1)"]);
    }

    #[test]
    fn two_digits_are_gos() {
        for (x, expected) in [
            (0.0, "0"),
            (1.0, "1"),
            (12.3, "12"),
            (123.0, "1.2e+02"),
            (0.000_123, "0.00012"),
            (1e-9, "1e-09"),
        ] {
            assert_eq!(two_digits(x), expected);
        }
    }
}
