//! Summaries: some durations Prometheus tells as quantiles of the last ten minutes, and its users rely on that.
//!
//! Values are counted by their logarithm, so that a quantile is right to a hundredth of itself, and parts of the ten
//! minutes are forgotten as a whole.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::{self, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// For how long a value is remembered.
const AGE_MAX: Duration = Duration::from_secs(600);
/// What is forgotten at one time.
const PART: Duration = Duration::from_secs(120);
/// How many times larger than the one before a class of values is.
const GROWTH: f64 = 1.02;
/// What is smaller or larger counts as these: there are about 2,000 classes at most.
const VALUES: std::ops::RangeInclusive<f64> = 1e-9..=1e9;

/// A summary, or one for each value of a label. Clones share it.
#[derive(Debug, Clone)]
pub struct Summaries {
    name: &'static str,
    help: &'static str,
    label: Option<&'static str>,
    quantiles: &'static [f64],
    all: Arc<Mutex<BTreeMap<String, Summary>>>,
}

impl Summaries {
    /// Summaries that a label tells apart; [`crate::Metrics::register_summaries`] shows them.
    #[must_use]
    pub fn by_label(
        name: &'static str,
        help: &'static str,
        label: &'static str,
        quantiles: &'static [f64],
    ) -> Self {
        Self { name, help, label: Some(label), quantiles, all: Arc::default() }
    }

    /// One without labels.
    #[must_use]
    pub fn single(name: &'static str, help: &'static str, quantiles: &'static [f64]) -> (Self, Summary) {
        let summaries = Self { name, help, label: None, quantiles, all: Arc::default() };
        let summary = summaries.of("");
        (summaries, summary)
    }

    /// The summary of a value of the label, which is shown from now on.
    #[must_use]
    pub fn of(&self, value: &str) -> Summary {
        self.all.lock().entry(value.to_owned()).or_default().clone()
    }

    /// Shows the summary of a value no more.
    pub fn remove(&self, value: &str) {
        self.all.lock().remove(value);
    }

    /// Writes the family as OpenMetrics has it; nothing when there is no summary.
    pub(crate) fn encode(&self, now: Instant, out: &mut String) -> fmt::Result {
        let Self { name, help, label, quantiles, all } = self;
        let all = all.lock();
        if all.is_empty() {
            return Ok(());
        }
        writeln!(out, "# HELP {name} {help}.\n# TYPE {name} summary")?;
        for (value, summary) in &*all {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let label = label.map(|label| format!("{label}=\"{value}\""));
            let mut seen = summary.0.lock();
            seen.forget(now);
            for q in *quantiles {
                let labels = label.iter().cloned().chain([format!("quantile=\"{q}\"")]).collect::<Vec<_>>();
                writeln!(out, "{name}{{{}}} {}", labels.join(","), seen.quantile(*q))?;
            }
            let labels = label.map(|label| format!("{{{label}}}")).unwrap_or_default();
            writeln!(out, "{name}_sum{labels} {}\n{name}_count{labels} {}", seen.sum, seen.count)?;
        }
        Ok(())
    }
}

/// What was seen under one label. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Summary(Arc<Mutex<Seen>>);

impl Summary {
    /// Takes note of a value.
    pub fn observe(&self, value: f64) {
        self.0.lock().observe(value, Instant::now());
    }
}

#[derive(Debug, Default)]
struct Seen {
    sum: f64,
    count: u64,
    /// The parts by when they began, and how many values of each class are in them.
    parts: VecDeque<(Instant, BTreeMap<i32, u64>)>,
}

impl Seen {
    #[expect(clippy::cast_possible_truncation, reason = "the logarithm of what lies in VALUES is small")]
    fn observe(&mut self, value: f64, now: Instant) {
        self.sum += value;
        self.count += 1;
        self.forget(now);
        if self.parts.back().is_none_or(|(since, _)| now.duration_since(*since) >= PART) {
            self.parts.push_back((now, BTreeMap::new()));
        }
        let class = value.clamp(*VALUES.start(), *VALUES.end()).log(GROWTH).floor() as i32;
        if let Some((_, counts)) = self.parts.back_mut() {
            *counts.entry(class).or_default() += 1;
        }
    }

    fn forget(&mut self, now: Instant) {
        while self.parts.front().is_some_and(|(since, _)| now.duration_since(*since) >= AGE_MAX) {
            self.parts.pop_front();
        }
    }

    /// The least value that such a share of all is not above; not a number when there is none.
    #[expect(clippy::cast_precision_loss, reason = "counts of ten minutes")]
    fn quantile(&self, q: f64) -> f64 {
        let mut counts: BTreeMap<i32, u64> = BTreeMap::new();
        for (class, count) in self.parts.iter().flat_map(|(_, counts)| counts) {
            *counts.entry(*class).or_default() += count;
        }
        let rank = q * counts.values().sum::<u64>() as f64;
        let mut below = 0;
        for (class, count) in counts {
            below += count;
            if below as f64 >= rank {
                // The middle of the class.
                return GROWTH.powi(class) * (1.0 + GROWTH) / 2.0;
            }
        }
        f64::NAN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_last_ten_minutes() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let (mut seen, mut values) = (Seen::default(), Vec::new());
        assert!(seen.quantile(0.5).is_nan());
        for second in 0..3_600_u32 {
            // In no order, from a tenth of a millisecond to some hundred seconds.
            let value = 0.000_1 * f64::from((second * 7_919) % 3_001 + 1).powi(2);
            seen.observe(value, at(second.into()));
            values.push(value);
        }
        assert_eq!(seen.count, 3_600);
        assert_eq!(seen.sum, values.iter().sum::<f64>());
        // Parts begin every 120 s: the last five.
        let mut last = values.split_off(3_000);
        last.sort_by(f64::total_cmp);
        for (q, rank) in [(0.01, 6), (0.5, 300), (0.9, 540), (0.99, 594)] {
            let (got, want) = (seen.quantile(q), last[rank - 1]);
            assert!((got - want).abs() <= 0.0101 * want, "{q}: {got}, not {want}");
        }
        // All are of one value; then everything is forgotten, but for the sum and the count.
        seen.observe(4.0, at(4_300));
        assert!((seen.quantile(0.0) - 4.0).abs() < 0.04 && (seen.quantile(1.0) - 4.0).abs() < 0.04);
        assert_eq!(seen.parts.len(), 1);
        seen.forget(at(4_900));
        assert!(seen.quantile(0.5).is_nan());
        assert_eq!(seen.count, 3_601);
    }

    #[test]
    fn odd_values_are_counted() {
        let mut seen = Seen::default();
        for value in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e300] {
            seen.observe(value, Instant::now());
        }
        assert_eq!((seen.count, seen.parts[0].1.values().sum::<u64>()), (5, 5));
    }

    #[test]
    fn a_family_is_written_as_open_metrics() {
        let summaries = Summaries::by_label("took_seconds", "Time", "to", &[0.5, 0.99]);
        let now = Instant::now();
        let text = |summaries: &Summaries| {
            let mut text = String::new();
            summaries.encode(now, &mut text).expect("a string");
            text
        };
        assert_eq!(text(&summaries), "");
        let _idle = summaries.of("a");
        summaries.of("b \"\\").observe(0.25);
        summaries.of("c").observe(1.0);
        summaries.remove("c");
        let written = text(&summaries);
        let (quantiles, rest): (Vec<&str>, Vec<&str>) =
            written.lines().partition(|line| line.contains("to=\"b \\\"\\\\\",quantile="));
        assert_eq!(
            rest.join("\n"),
            "# HELP took_seconds Time.\n# TYPE took_seconds summary\n\
             took_seconds{to=\"a\",quantile=\"0.5\"} NaN\ntook_seconds{to=\"a\",quantile=\"0.99\"} NaN\n\
             took_seconds_sum{to=\"a\"} 0\ntook_seconds_count{to=\"a\"} 0\n\
             took_seconds_sum{to=\"b \\\"\\\\\"} 0.25\ntook_seconds_count{to=\"b \\\"\\\\\"} 1"
        );
        let values = quantiles.iter().filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
        assert!(values.clone().count() == 2 && values.into_iter().all(|v| (v - 0.25).abs() < 0.0025));
        let (single, _) = Summaries::single("s", "S", &[]);
        assert_eq!(text(&single), "# HELP s S.\n# TYPE s summary\ns_sum 0\ns_count 0\n");
    }
}
