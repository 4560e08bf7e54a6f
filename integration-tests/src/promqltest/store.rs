//! What a script's `load` appends.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::number::parse_float;
use model::query::PointValue;
use model::{FloatHistogram, Labels, Span, is_stale};
use promql_engine::memory::{Sample, SampleValue, Store, sequence};

use super::script::Load;

/// Appends what a load names.
///
/// # Errors
/// When the load is inconsistent, or a sample is out of order or twice there.
pub fn load(store: &mut Store, named: &Load) -> Result<(), String> {
    for (labels, new) in loaded(named)? {
        store.append(&labels, new).map_err(|e| format!("{labels}: {e}"))?;
    }
    Ok(())
}

/// Works out what a load appends: the samples of each series in time order.
fn loaded(load: &Load) -> Result<BTreeMap<Labels, Vec<Sample>>, String> {
    // Of two lines for one series the last wins.
    let mut by_labels: BTreeMap<Labels, Vec<Sample>> = BTreeMap::new();
    for series in &load.series {
        let mut out = Vec::new();
        for (i, value) in sequence(&series.values)?.into_iter().enumerate() {
            let time = i64::try_from(i).map_err(|e| e.to_string())? * load.interval_ms;
            let start = series.starts.as_ref().and_then(|s| s[i]).map_or(0, |offset| time + offset);
            let value = match value {
                None => continue,
                Some(SampleValue::Float(x)) => PointValue::Float(x),
                Some(SampleValue::Histogram(literal)) => PointValue::Histogram(literal.histogram),
            };
            out.push(Sample { time, start, value });
        }
        by_labels.insert(series.labels.clone(), out);
    }
    if load.converts_classic {
        for (labels, converted) in convert_classic(&by_labels)? {
            by_labels.entry(labels).or_default().extend(converted);
        }
    }
    Ok(by_labels)
}

/// The classic buckets of one histogram at one time, by upper bound, with count and sum.
#[derive(Default)]
struct Classic {
    buckets: Vec<(f64, f64)>,
    count: Option<f64>,
    sum: Option<f64>,
}

/// Makes histograms with custom buckets of classic ones.
fn convert_classic(series: &BTreeMap<Labels, Vec<Sample>>) -> Result<Vec<(Labels, Vec<Sample>)>, String> {
    let mut found: BTreeMap<Labels, BTreeMap<i64, Classic>> = BTreeMap::new();
    for (labels, samples) in series {
        let name = labels.metric_name();
        let upper = labels.get("le").and_then(parse_float);
        let (base, upper) = match (name.strip_suffix("_bucket"), upper) {
            (Some(base), Some(upper)) => (base, Some(upper)),
            _ => match name.strip_suffix("_count").or_else(|| name.strip_suffix("_sum")) {
                Some(base) => (base, None),
                None => continue,
            },
        };
        let labels = labels.filtered(|n| n != "le").with("__name__", base);
        let by_time = found.entry(labels).or_default();
        for sample in samples {
            let PointValue::Float(x) = sample.value else { continue };
            if is_stale(x) {
                continue;
            }
            let classic = by_time.entry(sample.time).or_default();
            match upper {
                Some(upper) => classic.buckets.push((upper, x)),
                None if name.ends_with("_count") => classic.count = Some(x),
                None => classic.sum = Some(x),
            }
        }
    }
    let mut out = Vec::new();
    for (labels, by_time) in found {
        let mut samples = Vec::new();
        for (time, classic) in by_time {
            if let Some(h) = classic.histogram().map_err(|e| format!("{labels}: {e}"))? {
                samples.push(Sample { time, start: 0, value: PointValue::Histogram(Arc::new(h)) });
            }
        }
        if !samples.is_empty() {
            out.push((labels, samples));
        }
    }
    Ok(out)
}

impl Classic {
    fn histogram(mut self) -> Result<Option<FloatHistogram>, String> {
        if self.buckets.is_empty() {
            return Ok(None);
        }
        self.buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        self.buckets.dedup_by(|next, kept| next.0 == kept.0);
        let highest = self.buckets[self.buckets.len() - 1];
        let count = self.count.unwrap_or(highest.1);
        let bounds: Vec<f64> = self.buckets.iter().map(|b| b.0).filter(|b| b.is_finite()).collect();
        let cumulative = self.buckets.iter().filter(|b| b.0.is_finite()).map(|b| b.1);
        let mut before = 0.0;
        let mut populations = Vec::new();
        for total in cumulative.chain(std::iter::once(count)) {
            if total < before {
                return Err("bucket counts of a classic histogram must not descend".to_owned());
            }
            populations.push(total - before);
            before = total;
        }
        let length = u32::try_from(populations.len()).map_err(|e| e.to_string())?;
        let mut h = FloatHistogram {
            schema: model::histogram::CUSTOM_BUCKETS_SCHEMA,
            count,
            sum: self.sum.unwrap_or(0.0),
            positive_spans: vec![Span { offset: 0, length }],
            positive_buckets: populations,
            custom_values: bounds.into(),
            ..FloatHistogram::default()
        };
        promql_engine::histogram::compact(&mut h);
        Ok(Some(h))
    }
}
