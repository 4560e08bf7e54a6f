//! Histograms with custom buckets, made of the series of classic ones.
//!
//! As Prometheus's `NHCBParser`: the series of a histogram stand together, below the `# TYPE` of their family; whatever
//! is of another name or has other labels ends it. A histogram whose numbers contradict each other is left out.

use std::borrow::Cow;

use model::histogram::CUSTOM_BUCKETS_SCHEMA;
use model::number::parse_float;
use model::{Exemplar, FloatHistogram, Histogram, IntegerHistogram, MetricType, Span, Timestamp, Value};

use crate::labels::Pair;
use crate::owned::OwnedSample;
use crate::parse::Series;

/// Upper bounds that one histogram may have; one with more is left out.
const BOUNDS_MAX: usize = 16_384;

/// Collects the series of classic histograms.
#[derive(Debug, Default)]
pub struct CustomBuckets {
    family: String,
    kind: MetricType,
    collected: Option<Classic>,
    /// The labels of the native histogram that came last: its classic form is not converted.
    native: Option<Vec<(String, String)>>,
}

/// What became of a series.
#[derive(Debug)]
pub struct Taken {
    /// The histogram in front of it, which has ended.
    pub ended: Option<OwnedSample>,
    /// Whether it is part of one.
    pub is_part: bool,
}

impl CustomBuckets {
    /// Takes a `# TYPE` line; returns the histogram that it ends.
    pub fn begin_family(&mut self, name: &str, kind: MetricType) -> Option<OwnedSample> {
        let ended = self.end();
        name.clone_into(&mut self.family);
        (self.kind, self.native) = (kind, None);
        ended
    }

    /// Takes note of a native histogram; returns the histogram that it ends.
    pub fn pass_native(&mut self, series: &Series<'_>) -> Option<OwnedSample> {
        self.native = Some(owned(series.labels()));
        self.end()
    }

    /// Takes a series with a float.
    pub fn take(
        &mut self,
        series: &Series<'_>,
        value: f64,
        timestamp: Option<Timestamp>,
        exemplars: impl IntoIterator<Item = Exemplar>,
    ) -> Taken {
        let Some((part, labels)) = self.part(series) else {
            return Taken { ended: self.end(), is_part: false };
        };
        if self.native.as_ref() == Some(&labels) {
            return Taken { ended: self.end(), is_part: false };
        }
        let is_next = self.collected.as_ref().is_some_and(|classic| classic.labels != labels);
        let ended = if is_next { self.end() } else { None };
        let classic =
            self.collected.get_or_insert_with(|| Classic { labels, timestamp, ..Classic::default() });
        classic.set(part, value);
        classic.exemplars.extend(exemplars);
        Taken { ended, is_part: true }
    }

    /// Ends the histogram that is being collected.
    pub fn end(&mut self) -> Option<OwnedSample> {
        let classic = self.collected.take()?;
        let value = Value::Histogram(classic.histogram()?.into());
        let Classic { labels, timestamp, mut exemplars, .. } = classic;
        exemplars.retain(|exemplar| exemplar.timestamp.is_some());
        Some(OwnedSample { exemplars, ..OwnedSample::new([&self.family, ""], labels, value, timestamp) })
    }

    /// Says which part of a histogram of this family a series is, and the histogram's labels.
    fn part(&self, series: &Series<'_>) -> Option<(Part, Vec<(String, String)>)> {
        if self.kind != MetricType::Histogram {
            return None;
        }
        let name = series.metric_name();
        let suffix = name.strip_prefix(self.family.as_str())?;
        let part = match suffix {
            "_count" => Part::Count,
            "_sum" => Part::Sum,
            "_bucket" => {
                let (_, bound) = series.labels().find(|(name, _)| name == "le")?;
                Part::Bucket(parse_float(&bound).filter(|bound| !bound.is_nan())?)
            }
            _ => return None,
        };
        Some((part, owned(series.labels().filter(|(name, _)| name != "le"))))
    }
}

#[derive(Debug, Clone, Copy)]
enum Part {
    Count,
    Sum,
    /// By its upper bound.
    Bucket(f64),
}

/// The labels as they are exposed but in one order, so that they can be compared.
fn owned<'a>(labels: impl Iterator<Item = Pair<'a>>) -> Vec<(String, String)> {
    let mut labels: Vec<_> = labels.map(|(n, v)| (Cow::into_owned(n), Cow::into_owned(v))).collect();
    labels.sort_unstable();
    labels
}

/// One classic histogram.
#[derive(Debug, Default)]
struct Classic {
    /// Without `le`.
    labels: Vec<(String, String)>,
    timestamp: Option<Timestamp>,
    count: Option<f64>,
    sum: f64,
    /// Upper bounds and counts up to them, in the order of exposition.
    buckets: Vec<(f64, f64)>,
    exemplars: Vec<Exemplar>,
}

impl Classic {
    fn set(&mut self, part: Part, value: f64) {
        match part {
            Part::Count => self.count = Some(value),
            Part::Sum => self.sum = value,
            Part::Bucket(bound) => self.buckets.push((bound, value)),
        }
    }

    /// Makes a histogram of it: of integers where all counts are. `None` where counts descend or are none.
    fn histogram(&self) -> Option<Histogram> {
        let mut buckets = self.buckets.clone();
        // Stable: of several with one bound the first stays.
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        buckets.dedup_by(|next, kept| next.0 == kept.0);
        let highest = buckets.last().map_or(0.0, |bucket| bucket.1);
        let count = self.count.unwrap_or(highest);
        if buckets.last().is_none_or(|bucket| bucket.0 != f64::INFINITY) {
            buckets.push((f64::INFINITY, count));
        }
        let counts = || std::iter::once(0.0).chain(buckets.iter().map(|bucket| bucket.1));
        let is_ascending = counts().zip(counts().skip(1)).all(|(a, b)| a <= b);
        let is_whole = buckets.last().is_some_and(|bucket| bucket.1 == count);
        if !is_ascending || !is_whole || buckets.len() > BOUNDS_MAX {
            return None;
        }
        let (spans, populations) = spans_of(counts().zip(counts().skip(1)).map(|(a, b)| b - a));
        let custom_values = buckets[..buckets.len() - 1].iter().map(|bucket| bucket.0).collect();
        let float = FloatHistogram {
            schema: CUSTOM_BUCKETS_SCHEMA,
            count,
            sum: self.sum,
            positive_spans: spans,
            positive_buckets: populations,
            custom_values,
            ..FloatHistogram::default()
        };
        let is_integer = buckets.iter().all(|bucket| is_exact(bucket.1));
        Some(if is_integer { Histogram::Integer(to_integer(float)) } else { Histogram::Float(float) })
    }
}

/// Says whether a count is an integer that floats do not round.
fn is_exact(count: f64) -> bool {
    count.fract() == 0.0 && count < (1_u64 << f64::MANTISSA_DIGITS) as f64
}

/// Lays out buckets as spans and populations, leaving out empty ones.
fn spans_of(populations: impl Iterator<Item = f64>) -> (Vec<Span>, Vec<f64>) {
    let (mut spans, mut kept): (Vec<Span>, Vec<f64>) = (Vec::new(), Vec::new());
    let mut gap = 0;
    for population in populations {
        if population == 0.0 {
            gap += 1;
            continue;
        }
        match spans.last_mut() {
            Some(span) if gap == 0 => span.length += 1,
            _ => spans.push(Span { offset: gap, length: 1 }),
        }
        gap = 0;
        kept.push(population);
    }
    (spans, kept)
}

/// Converts a histogram whose counts are integers that floats do not round.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked by the caller")]
fn to_integer(h: FloatHistogram) -> IntegerHistogram {
    let mut before = 0;
    let deltas = h.positive_buckets.iter().map(|population| {
        let population = *population as i64;
        population - std::mem::replace(&mut before, population)
    });
    IntegerHistogram {
        schema: h.schema,
        count: h.count as u64,
        sum: h.sum,
        positive_deltas: deltas.collect(),
        positive_spans: h.positive_spans,
        custom_values: h.custom_values,
        ..IntegerHistogram::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::{Entry, Parser};

    /// Reads a body; returns what is not part of a histogram, and the histograms, in order.
    fn convert(body: &str) -> Vec<String> {
        let (mut collector, mut out) = (CustomBuckets::default(), Vec::new());
        let show = |sample: OwnedSample| {
            let labels = sample.series().to_labels().unwrap();
            let Value::Histogram(histogram) = sample.value else { panic!("a float") };
            let sort = if matches!(*histogram, Histogram::Integer(_)) { "integer" } else { "float" };
            histogram.validate().unwrap();
            let h = histogram.to_float();
            let buckets: Vec<_> = h.buckets().iter().map(|b| (b.upper, b.count)).collect();
            let at = sample.timestamp.map_or(0, Timestamp::millis);
            format!("{labels} {sort} {} {} {buckets:?} @{at}", h.count, h.sum)
        };
        for entry in Parser::text(body.as_bytes()) {
            match entry.unwrap() {
                Entry::Type { name, kind } => out.extend(collector.begin_family(&name, kind).map(show)),
                Entry::Sample(s) => {
                    let taken = collector.take(&s.series, s.value, s.timestamp, None);
                    out.extend(taken.ended.map(show));
                    if !taken.is_part {
                        out.push(s.series.text().to_owned());
                    }
                }
                _ => {}
            }
        }
        out.extend(collector.end().map(show));
        out
    }

    #[test]
    fn series_that_stand_together_are_one_histogram() {
        let body = "# TYPE h histogram\n\
                    h_bucket{a=\"x\",le=\"1\"} 2 9\nh_bucket{le=\"+Inf\",a=\"x\"} 5 9\nh_sum{a=\"x\"} 7.5 9\nh_count{a=\"x\"} 5 9\n\
                    h_bucket{a=\"y\",le=\"1\"} 0.5\nh_bucket{a=\"y\",le=\"2\"} 0.5\nh_count{a=\"y\"} 1.5\nother 1\n\
                    # TYPE g gauge\ng_bucket{le=\"1\"} 2\n";
        assert_eq!(
            convert(body),
            [
                r#"{__name__="h", a="x"} integer 5 7.5 [(1.0, 2.0), (inf, 3.0)] @9"#,
                r#"{__name__="h", a="y"} float 1.5 0 [(1.0, 0.5), (inf, 1.0)] @0"#,
                "other",
                r#"g_bucket{le="1"}"#,
            ]
        );
    }

    #[test]
    fn what_is_missing_follows_from_the_rest() {
        let of = |lines: &str| convert(&format!("# TYPE h histogram\n{lines}"));
        let whole = [r#"{__name__="h"} integer 3 0 [(1.0, 1.0), (inf, 2.0)] @0"#];
        assert_eq!(of("h_bucket{le=\"1\"} 1\nh_count 3\n"), whole, "no bucket for infinity");
        assert_eq!(of("h_bucket{le=\"+Inf\"} 3\nh_bucket{le=\"1\"} 1\n"), whole, "no count, and no order");
        assert_eq!(of("h_count 3\nh_sum 2\n"), [r#"{__name__="h"} integer 3 2 [(inf, 3.0)] @0"#]);
        assert_eq!(of("h_bucket{le=\"1\"} 1\nh_bucket{le=\"1\"} 9\nh_count 3\n"), whole, "the first stays");
    }

    #[test]
    fn numbers_that_contradict_each_other_make_none() {
        let of = |lines: &str| convert(&format!("# TYPE h histogram\n{lines}"));
        for bad in [
            "h_bucket{le=\"1\"} 4\nh_bucket{le=\"2\"} 3\n",
            "h_bucket{le=\"1\"} -1\nh_count 3\n",
            "h_bucket{le=\"+Inf\"} 3\nh_count 4\n",
            "h_bucket{le=\"1\"} NaN\nh_count 3\n",
        ] {
            assert_eq!(of(bad), [""; 0], "{bad}");
        }
        assert_eq!(of("h_bucket{le=\"x\"} 4\nh_bucket 3\n"), [r#"h_bucket{le="x"}"#, "h_bucket"]);
    }
}
