//! The engine against a model of expressions: generated trees over generated data, evaluated for one time after the
//! other, straight from the definitions, with every series looked at as a whole each time.
//!
//! Histograms have one bucket, so that their arithmetic is that of its population.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use model::query::{PointValue, QueryValue};
use model::{CounterResetHint, FloatHistogram, Labels, Span, Timestamp, is_stale, stale_nan};
use promql_engine::{Control, Engine, EngineOptions, Error, QueryOptions};
use proptest::prelude::*;

use crate::apart::Apart;
use crate::naive::increase;
use crate::source::{Memory, options};

const LOOKBACK: i64 = 300_000;
/// Times of the evaluations: start, step and how many.
const STEPS: (i64, i64, i64) = (240_000, 170_000, 8);

/// A value: a float, or a histogram by its population.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Value {
    Float(f64),
    Histogram(f64),
}

use Value::{Float, Histogram};

type Set = BTreeMap<String, String>;
type Vector = Vec<(Set, Value)>;
/// There is no answer.
#[derive(Debug)]
struct Fails;
type Outcome = Result<Vector, Fails>;

#[derive(Debug, Clone)]
struct Series {
    labels: Set,
    is_histogram: bool,
    samples: Vec<(i64, f64)>,
}

#[derive(Debug, Clone, Copy)]
enum Matching {
    All,
    On,
    Ignoring,
    GroupLeft,
}

#[derive(Debug, Clone)]
enum Node {
    Selector { name: &'static str, offset: i64, at: Option<i64> },
    Range { function: &'static str, name: &'static str, range: i64, offset: i64 },
    Subquery { function: &'static str, inner: Box<Node>, range: i64, step: i64, offset: i64 },
    Aggregate { op: &'static str, clause: &'static str, inner: Box<Node> },
    Binary { op: &'static str, matching: Matching, lhs: Box<Node>, rhs: Box<Node> },
    Negate(Box<Node>),
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Selector { name, offset, at: None } => write!(f, "{name} offset {offset}ms"),
            Self::Selector { name, offset, at: Some(at) } => write!(f, "{name} @ {at} offset {offset}ms"),
            Self::Range { function, name, range, offset } => {
                write!(f, "{function}({name}[{range}ms] offset {offset}ms)")
            }
            Self::Subquery { function, inner, range, step, offset } => {
                write!(f, "{function}(({inner})[{range}ms:{step}ms] offset {offset}ms)")
            }
            Self::Aggregate { op, clause, inner } => match *op {
                "topk" => write!(f, "topk {clause} (1, {inner})"),
                "quantile" => write!(f, "quantile {clause} (0.5, {inner})"),
                op => write!(f, "{op} {clause} ({inner})"),
            },
            Self::Binary { op, matching, lhs, rhs } => {
                let matching = match matching {
                    Matching::All => "",
                    Matching::On => "on (s)",
                    Matching::Ignoring => "ignoring (g)",
                    Matching::GroupLeft => "on (s) group_left ()",
                };
                write!(f, "({lhs}) {op} {matching} ({rhs})")
            }
            Self::Negate(inner) => write!(f, "-({inner})"),
        }
    }
}

fn without_name(labels: &Set) -> Set {
    labels.iter().filter(|(name, _)| *name != "__name__").map(|(n, v)| (n.clone(), v.clone())).collect()
}

fn only(labels: &Set, names: &[&str]) -> Set {
    labels.iter().filter(|(n, _)| names.contains(&n.as_str())).map(|(n, v)| (n.clone(), v.clone())).collect()
}

/// Refuses a vector with one label set twice.
fn unique(vector: Vector) -> Outcome {
    let mut labels: Vec<&Set> = vector.iter().map(|(labels, _)| labels).collect();
    labels.sort();
    if labels.windows(2).any(|pair| pair[0] == pair[1]) { Err(Fails) } else { Ok(vector) }
}

fn eval(node: &Node, data: &[Series], time: i64) -> Outcome {
    match node {
        Node::Selector { name, offset, at } => {
            let time = at.map_or(time, |at| at * 1_000) - offset;
            let of = |series: &Series| {
                let (at, x) = *series.samples.iter().rfind(|(t, _)| *t <= time)?;
                let value = if series.is_histogram { Histogram(x) } else { Float(x) };
                (at > time - LOOKBACK && !is_stale(x)).then(|| (series.labels.clone(), value))
            };
            Ok(data.iter().filter(|s| s.labels["__name__"] == *name).filter_map(of).collect())
        }
        Node::Range { function, name, range, offset } => {
            let time = time - offset;
            let of = |series: &Series| {
                let is_seen = |(t, x): &&(i64, f64)| *t > time - range && *t <= time && !is_stale(*x);
                let sort = if series.is_histogram { Histogram } else { Float };
                let seen = series.samples.iter().filter(is_seen).map(|(t, x)| (*t, sort(*x)));
                let seen: Vec<(i64, Value)> = seen.collect();
                let value = over_time(function, &seen, (time, *range))?;
                Some((named(function, &series.labels), value))
            };
            unique(data.iter().filter(|s| s.labels["__name__"] == *name).filter_map(of).collect())
        }
        Node::Subquery { function, inner, range, step, offset } => {
            let time = time - offset;
            let mut all: BTreeMap<Set, Vec<(i64, Value)>> = BTreeMap::new();
            let first = (time - range).div_euclid(*step) + 1;
            for at in (first..=time.div_euclid(*step)).map(|i| i * step) {
                for (labels, value) in eval(inner, data, at)? {
                    all.entry(labels).or_default().push((at, value));
                }
            }
            let of = |(labels, seen): (&Set, &Vec<(i64, Value)>)| {
                Some((named(function, labels), over_time(function, seen, (time, *range))?))
            };
            unique(all.iter().filter_map(of).collect())
        }
        Node::Aggregate { op, clause, inner } => aggregate(op, clause, eval(inner, data, time)?),
        Node::Binary { op, matching, lhs, rhs } => {
            let (lhs, rhs) = (eval(lhs, data, time)?, eval(rhs, data, time)?);
            match *op {
                "and" | "or" | "unless" => sets(op, *matching, lhs, rhs),
                op => binary(op, *matching, &lhs, &rhs),
            }
        }
        Node::Negate(inner) => unique(
            eval(inner, data, time)?
                .into_iter()
                .map(|(labels, value)| {
                    let value = match value {
                        Float(x) => Float(-x),
                        Histogram(x) => Histogram(-x),
                    };
                    (without_name(&labels), value)
                })
                .collect(),
        ),
    }
}

fn named(function: &str, labels: &Set) -> Set {
    match function {
        "last_over_time" | "first_over_time" => labels.clone(),
        _ => without_name(labels),
    }
}

/// A function over the samples of a window. Its floats and histograms are of one series where a subquery's `or` takes
/// them from both sides.
#[expect(clippy::cast_precision_loss, reason = "small numbers")]
fn over_time(function: &str, window: &[(i64, Value)], (time, range): (i64, i64)) -> Option<Value> {
    let (first, last) = (window.first()?, window.last()?);
    let is_histogram = matches!(last.1, Histogram(_));
    let count = window.len() as f64;
    let same_sort = |x| if is_histogram { Histogram(x) } else { Float(x) };
    let seen: Vec<(i64, f64)> = window.iter().map(|(t, Float(x) | Histogram(x))| (*t, *x)).collect();
    let values = || seen.iter().map(|(_, x)| *x);
    let is_mixed =
        |window: &[(i64, Value)]| window.iter().any(|(_, v)| matches!(v, Histogram(_)) != is_histogram);
    // Where the sort changes, so does the value, and counting begins anew.
    let pairs = |counts: fn(f64, f64) -> bool| {
        let is_counted = |pair: &&[(i64, Value)]| match (pair[0].1, pair[1].1) {
            (Float(a), Float(b)) | (Histogram(a), Histogram(b)) => counts(a, b),
            _ => true,
        };
        Float(window.windows(2).filter(is_counted).count() as f64)
    };
    Some(match function {
        "count_over_time" => Float(count),
        "present_over_time" => Float(1.0),
        "last_over_time" => last.1,
        "first_over_time" => first.1,
        "resets" => pairs(|a, b| b < a),
        "changes" => pairs(|a, b| a != b && !(a.is_nan() && b.is_nan())),
        "min_over_time" | "max_over_time" => {
            let floats = window.iter().filter_map(|(_, v)| match v {
                Float(x) => Some(*x),
                Histogram(_) => None,
            });
            let choose = if function == "min_over_time" { f64::min } else { f64::max };
            Float(floats.reduce(choose)?)
        }
        "irate" if is_mixed(&window[window.len().saturating_sub(2)..]) => return None,
        // Floats and histograms have neither a common sum nor a difference.
        "sum_over_time" | "avg_over_time" | "increase" | "rate" if is_mixed(window) => return None,
        "sum_over_time" => same_sort(values().sum()),
        "avg_over_time" => same_sort(values().sum::<f64>() / count),
        "increase" | "rate" => {
            let change = increase(&seen, time, range)?;
            same_sort(if function == "rate" { change * 1_000.0 / range as f64 } else { change })
        }
        "irate" => {
            let [.., before, last] = seen[..] else { return None };
            let change = if last.1 < before.1 { last.1 } else { last.1 - before.1 };
            same_sort(change * 1_000.0 / (last.0 - before.0) as f64)
        }
        "quantile" => unreachable!("not over time here"),
        other => panic!("no model of {other}"),
    })
}

fn aggregate(op: &str, clause: &str, vector: Vector) -> Outcome {
    let key = |labels: &Set| match clause {
        "by (s)" => only(labels, &["s"]),
        "without (s)" => only(labels, &["g"]),
        _ => Set::new(),
    };
    let mut groups: BTreeMap<Set, Vector> = BTreeMap::new();
    for (labels, value) in vector {
        groups.entry(key(&labels)).or_default().push((labels, value));
    }
    let mut out = Vector::new();
    for (labels, members) in groups {
        let of = |is_wanted: fn(&Value) -> Option<f64>| -> Vec<f64> {
            members.iter().filter_map(|(_, v)| is_wanted(v)).collect()
        };
        let floats = of(|v| match v {
            Float(x) => Some(*x),
            Histogram(_) => None,
        });
        let histograms = of(|v| match v {
            Histogram(x) => Some(*x),
            Float(_) => None,
        });
        #[expect(clippy::cast_precision_loss, reason = "few")]
        let count = members.len() as f64;
        let value = match op {
            "count" => Float(count),
            "group" => Float(1.0),
            "sum" | "avg" if floats.is_empty() || histograms.is_empty() => {
                let divisor = if op == "avg" { count } else { 1.0 };
                match histograms.is_empty() {
                    true => Float(floats.iter().sum::<f64>() / divisor),
                    false => Histogram(histograms.iter().sum::<f64>() / divisor),
                }
            }
            // Floats and histograms have no common sum.
            "sum" | "avg" => continue,
            _ if floats.is_empty() => continue,
            "min" => Float(floats.iter().copied().fold(f64::NAN, f64::min)),
            "max" => Float(floats.iter().copied().fold(f64::NAN, f64::max)),
            "quantile" => Float(median(floats)),
            "topk" => {
                let mut ranked: Vec<(&Set, f64)> = members
                    .iter()
                    .filter_map(|(l, v)| match v {
                        Float(x) => Some((l, *x)),
                        Histogram(_) => None,
                    })
                    .collect();
                ranked.sort_by(|(a, x), (b, y)| {
                    let better = y.partial_cmp(x).unwrap_or_else(|| x.is_nan().cmp(&y.is_nan()));
                    better.then_with(|| in_order(a, b))
                });
                out.push((ranked[0].0.clone(), Float(ranked[0].1)));
                continue;
            }
            other => panic!("no model of {other}"),
        };
        out.push((labels, value));
    }
    Ok(out)
}

/// Compares label sets as the engine orders series.
fn in_order(a: &Set, b: &Set) -> std::cmp::Ordering {
    Labels::from_pairs(a.clone()).cmp(&Labels::from_pairs(b.clone()))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(|a, b| b.is_nan().cmp(&a.is_nan()).then(a.total_cmp(b)));
    let middle = values.len() / 2;
    match values.len() % 2 {
        // As the reference interpolates, which matters beside infinities.
        1 => values[middle] * 1.0 + values[(middle + 1).min(values.len() - 1)] * 0.0,
        _ => values[middle - 1] * 0.5 + values[middle] * 0.5,
    }
}

fn signature(matching: Matching, labels: &Set) -> Set {
    match matching {
        Matching::All => without_name(labels),
        Matching::On | Matching::GroupLeft => only(labels, &["s"]),
        Matching::Ignoring => {
            let mut left = without_name(labels);
            left.remove("g");
            left
        }
    }
}

fn sets(op: &str, matching: Matching, lhs: Vector, rhs: Vector) -> Outcome {
    let has = |vector: &Vector, labels: &Set| {
        vector.iter().any(|(l, _)| signature(matching, l) == signature(matching, labels))
    };
    match op {
        "and" => Ok(lhs.into_iter().filter(|(l, _)| has(&rhs, l)).collect()),
        "unless" => Ok(lhs.into_iter().filter(|(l, _)| !has(&rhs, l)).collect()),
        _ => {
            let more: Vector = rhs.into_iter().filter(|(l, _)| !has(&lhs, l)).collect();
            unique(lhs.into_iter().chain(more).collect())
        }
    }
}

fn binary(op: &str, matching: Matching, lhs: &Vector, rhs: &Vector) -> Outcome {
    if lhs.is_empty() || rhs.is_empty() {
        return Ok(Vector::new());
    }
    let signatures: Vec<Set> = rhs.iter().map(|(labels, _)| signature(matching, labels)).collect();
    let mut sorted = signatures.clone();
    sorted.sort();
    if sorted.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(Fails);
    }
    let is_grouped = matches!(matching, Matching::GroupLeft);
    let is_comparison = matches!(op, ">" | "==" | "> bool");
    let (mut matched, mut out) = (Vec::new(), Vector::new());
    for (labels, left) in lhs {
        let wanted = signature(matching, labels);
        let Some(at) = signatures.iter().position(|s| *s == wanted) else { continue };
        let (value, keeps) = match (op, *left, rhs[at].1) {
            ("+", Float(a), Float(b)) => (Float(a + b), true),
            ("-", Float(a), Float(b)) => (Float(a - b), true),
            ("*", Float(a), Float(b)) => (Float(a * b), true),
            ("/", Float(a), Float(b)) => (Float(a / b), true),
            (">" | "> bool", Float(a), Float(b)) => (Float(a), a > b),
            ("==", Float(a), Float(b)) => (Float(a), a == b),
            ("==", Histogram(a), Histogram(b)) => (Histogram(a), a == b),
            ("+", Histogram(a), Histogram(b)) => (Histogram(a + b), true),
            ("-", Histogram(a), Histogram(b)) => (Histogram(a - b), true),
            ("*", Histogram(a), Float(b)) | ("*", Float(a), Histogram(b)) => (Histogram(a * b), true),
            ("/", Histogram(a), Float(b)) => (Histogram(a / b), true),
            _ => continue,
        };
        if !is_grouped && matched.contains(&wanted) {
            return Err(Fails);
        }
        matched.push(wanted.clone());
        let value = if op == "> bool" { Float(f64::from(u8::from(keeps))) } else { value };
        if !keeps && op != "> bool" {
            continue;
        }
        let kept = match matching {
            Matching::All | Matching::GroupLeft => labels.clone(),
            Matching::On => only(labels, &["s"]),
            Matching::Ignoring => {
                let mut kept = labels.clone();
                kept.remove("g");
                kept
            }
        };
        let is_filter = is_comparison && op != "> bool";
        out.push((if is_filter { kept } else { without_name(&kept) }, value));
    }
    unique(out)
}

fn histogram(population: f64) -> Arc<FloatHistogram> {
    if is_stale(population) {
        return Arc::new(FloatHistogram { sum: population, ..FloatHistogram::default() });
    }
    Arc::new(FloatHistogram {
        counter_reset_hint: CounterResetHint::Unknown,
        count: population,
        sum: 2.0 * population,
        positive_spans: vec![Span { offset: 1, length: 1 }],
        positive_buckets: vec![population],
        ..FloatHistogram::default()
    })
}

fn source(data: &[Series]) -> Memory {
    let mut source = Memory::default();
    for series in data {
        let labels: Vec<(&str, &str)> = series.labels.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        let timeline: Arc<[i64]> = series.samples.iter().map(|(t, _)| *t).collect();
        let values = series.samples.iter().map(|(_, x)| *x);
        match series.is_histogram {
            true => source.add_histograms(&labels, timeline, values.map(histogram).collect()),
            false => source.add(&labels, timeline, values.collect()),
        }
    }
    source
}

fn samples() -> impl Strategy<Value = Vec<(i64, f64)>> {
    let step = prop_oneof![Just(30_000), Just(60_000), Just(300_000), 1..400_000_i64];
    let value = prop_oneof![8 => (1..40_u8).prop_map(f64::from), 1 => Just(stale_nan())];
    prop::collection::vec((step, value), 0..20).prop_map(|steps| {
        let mut time = 0;
        let at = |(step, value)| {
            time += step;
            (time, value)
        };
        steps.into_iter().map(at).collect()
    })
}

fn data() -> impl Strategy<Value = Vec<Series>> {
    let series = |name: &'static str, s: &'static str, g: &'static str, is_histogram| {
        samples().prop_map(move |samples| {
            let labels = [("__name__", name), ("s", s), ("g", g)];
            let labels = labels.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
            Series { labels, is_histogram, samples }
        })
    };
    (
        series("a", "x", "1", false),
        series("a", "x", "2", false),
        series("a", "y", "1", false),
        series("b", "x", "1", false),
        series("b", "z", "1", false),
        series("h", "x", "1", true),
        series("h", "y", "2", true),
    )
        .prop_map(|(a, b, c, d, e, f, g)| vec![a, b, c, d, e, f, g])
}

fn node() -> impl Strategy<Value = Node> {
    let name = || prop::sample::select(vec!["a", "a", "b", "h"]);
    let offset = || prop::sample::select(vec![0_i64, 0, 60_000, -90_000]);
    let range = || prop::sample::select(vec![60_000_i64, 300_000, 900_000]);
    let function = || {
        prop::sample::select(vec![
            "count_over_time",
            "present_over_time",
            "sum_over_time",
            "avg_over_time",
            "last_over_time",
            "first_over_time",
            "min_over_time",
            "max_over_time",
            "resets",
            "changes",
            "increase",
            "rate",
            "irate",
        ])
    };
    let at = prop_oneof![3 => Just(None), 1 => (200..1_500_i64).prop_map(Some)];
    let leaf = prop_oneof![
        3 => (name(), offset(), at).prop_map(|(name, offset, at)| Node::Selector { name, offset, at }),
        2 => (function(), name(), range(), offset())
            .prop_map(|(function, name, range, offset)| Node::Range { function, name, range, offset }),
    ];
    leaf.prop_recursive(3, 12, 2, move |inner| {
        let op = prop::sample::select(vec!["sum", "avg", "min", "max", "count", "group", "topk", "quantile"]);
        let clause = prop::sample::select(vec!["", "by (s)", "without (s)"]);
        let operator =
            prop::sample::select(vec!["+", "-", "*", "/", ">", "==", "> bool", "and", "or", "unless"]);
        let matching = prop::sample::select(vec![
            Matching::All, Matching::On, Matching::Ignoring, Matching::GroupLeft,
        ]);
        let step = prop::sample::select(vec![30_000_i64, 70_000]);
        prop_oneof![
            3 => (op, clause, inner.clone())
                .prop_map(|(op, clause, inner)| Node::Aggregate { op, clause, inner: Box::new(inner) }),
            3 => (operator, matching, inner.clone(), inner.clone()).prop_map(|(op, matching, lhs, rhs)| {
                let is_set = matches!(op, "and" | "or" | "unless");
                let matching = if is_set && matches!(matching, Matching::GroupLeft) { Matching::On } else { matching };
                Node::Binary { op, matching, lhs: Box::new(lhs), rhs: Box::new(rhs) }
            }),
            2 => (function(), inner.clone(), range(), step, offset()).prop_map(
                |(function, inner, range, step, offset)| {
                    Node::Subquery { function, inner: Box::new(inner), range, step, offset }
                }
            ),
            1 => inner.prop_map(|inner| Node::Negate(Box::new(inner))),
        ]
    })
}

fn is_same(a: Value, b: Value) -> bool {
    let close = |a: f64, b: f64| {
        a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1.0)
    };
    match (a, b) {
        (Float(a), Float(b)) | (Histogram(a), Histogram(b)) => close(a, b),
        _ => false,
    }
}

/// Subqueries are long to evaluate one inside of the other.
fn depth(node: &Node) -> usize {
    match node {
        Node::Selector { .. } | Node::Range { .. } => 0,
        Node::Subquery { inner, .. } => 1 + depth(inner),
        Node::Aggregate { inner, .. } | Node::Negate(inner) => depth(inner),
        Node::Binary { lhs, rhs, .. } => depth(lhs).max(depth(rhs)),
    }
}

/// Says whether all values are whole numbers, which the model and the engine compute without rounding.
fn is_exact(node: &Node) -> bool {
    let is_exact_function = |f: &str| !matches!(f, "avg_over_time" | "rate" | "increase" | "irate");
    match node {
        Node::Selector { .. } => true,
        Node::Range { function, .. } => is_exact_function(function),
        Node::Subquery { function, inner, .. } => is_exact_function(function) && is_exact(inner),
        Node::Aggregate { op, inner, .. } => !matches!(*op, "avg" | "quantile") && is_exact(inner),
        Node::Binary { op, lhs, rhs, .. } => *op != "/" && is_exact(lhs) && is_exact(rhs),
        Node::Negate(inner) => is_exact(inner),
    }
}

/// Says whether nothing hangs on the last digit of a number that was rounded.
fn is_stable(node: &Node) -> bool {
    match node {
        Node::Selector { .. } | Node::Range { .. } => true,
        Node::Subquery { function, inner, .. } => {
            let jumps = matches!(*function, "resets" | "changes" | "increase" | "rate" | "irate");
            is_stable(inner) && (!jumps || is_exact(inner))
        }
        // Of equal values the first counts, and only a selector's order is that of the labels.
        Node::Aggregate { op, inner, .. } => {
            is_stable(inner) && (*op != "topk" || matches!(**inner, Node::Selector { .. }))
        }
        Node::Binary { op, lhs, rhs, .. } => {
            let jumps = matches!(*op, ">" | "==" | "> bool" | "/");
            is_stable(lhs) && is_stable(rhs) && (!jumps || (is_exact(lhs) && is_exact(rhs)))
        }
        Node::Negate(inner) => is_stable(inner),
    }
}

/// The points of a range query's answer, by time, then labels.
fn points(value: &QueryValue, query: &str) -> Vec<(i64, String, Value)> {
    let QueryValue::Matrix(series) = value else { panic!("{query}: not a matrix") };
    let mut points: Vec<(i64, String, Value)> = Vec::new();
    for series in series {
        let labels = series.labels.to_string();
        points.extend(series.floats.iter().map(|(t, x)| (t.millis(), labels.clone(), Float(*x))));
        for (t, h) in &series.histograms {
            assert!(is_same(Float(h.sum), Float(2.0 * h.count)), "{query}: {h:?}");
            points.push((t.millis(), labels.clone(), Histogram(h.count)));
        }
    }
    points.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
    points
}

/// Spreads series over three sources: each lies in the one with its number; those with a higher one have their samples
/// by turns in the first two.
fn spread(data: &[Series], homes: &[usize]) -> Vec<Memory> {
    let mut parts = vec![Vec::new(); 3];
    for (series, home) in data.iter().zip(homes) {
        if let Some(part) = parts.get_mut(*home) {
            part.push(series.clone());
            continue;
        }
        for (turn, part) in parts.iter_mut().take(2).enumerate() {
            let samples = series.samples.iter().copied().skip(turn).step_by(2).collect();
            part.push(Series { samples, ..series.clone() });
        }
    }
    parts.iter().map(|part| source(part)).collect()
}

fn sorted(notes: &[String]) -> Vec<String> {
    let mut notes = notes.to_vec();
    notes.sort();
    notes
}

/// Whether a subquery fails at one of its steps between the first and the last evaluation. As in the reference, all of
/// these steps are evaluated, also those that no window shows.
fn fails_between(node: &Node, data: &[Series], (first, last): (i64, i64)) -> bool {
    match node {
        Node::Selector { .. } | Node::Range { .. } => false,
        Node::Subquery { inner, range, step, offset, .. } => {
            let (first, last) = (first - offset - range, last - offset);
            let mut steps = (first.div_euclid(*step) + 1..=last.div_euclid(*step)).map(|i| i * step);
            steps.any(|at| eval(inner, data, at).is_err()) || fails_between(inner, data, (first, last))
        }
        Node::Aggregate { inner, .. } | Node::Negate(inner) => fails_between(inner, data, (first, last)),
        Node::Binary { lhs, rhs, .. } => {
            fails_between(lhs, data, (first, last)) || fails_between(rhs, data, (first, last))
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn expressions_mean_what_they_are_defined_to(
        data in data(),
        homes in prop::collection::vec(0..4_usize, 7),
        node in node().prop_filter("of interest", |n| depth(n) < 3 && is_stable(n)),
    ) {
        let (start, step, count) = STEPS;
        let source = source(&data);
        let query = node.to_string();
        let engine = Engine::new(EngineOptions { ..options() });
        let times: Vec<i64> = (0..count).map(|i| start + i * step).collect();
        let mut wanted = Vec::new();
        for time in &times {
            wanted.push(eval(&node, &data, *time));
        }
        let step = Duration::from_millis(step.unsigned_abs());
        let prepared = engine.range(&query, Timestamp(start), Timestamp(times[times.len() - 1]), step);
        let prepared = prepared.expect("a valid query");
        let answer = prepared.run(&source, &Control::default());
        // The same with aggregations computed in parts.
        let apart = Apart::new(engine.clone(), spread(&data, &homes));
        let cut = prepared.with_options(QueryOptions { cuts: true, ..QueryOptions::default() });
        let in_parts = match cut.run(&apart, &Control::default()) {
            Err(Error::OrderMatters) => None,
            in_parts => Some(in_parts),
        };
        if wanted.iter().any(Result::is_err) {
            for answer in [Some(answer), in_parts].into_iter().flatten() {
                prop_assert!(answer.is_err(), "{}: expected to fail, got {:?}", query, answer.map(|a| a.value));
            }
            return Ok(());
        }
        if let Err(error) = &answer {
            let fails = fails_between(&node, &data, (start, times[times.len() - 1]));
            prop_assert!(fails, "{}: {}", query, error);
            return Ok(());
        }
        let answer = answer.expect(&query);
        let mut expected: Vec<(i64, String, Value)> = Vec::new();
        for (time, vector) in times.iter().zip(wanted) {
            for (labels, value) in vector.expect("checked") {
                expected.push((*time, Labels::from_pairs(labels).to_string(), value));
            }
        }
        expected.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
        for (got, form) in [(Some(Ok(answer.clone())), ""), (in_parts, "in parts")] {
            let Some(got) = got else { continue };
            let got = got.unwrap_or_else(|e| panic!("{query} {form}: {e}"));
            prop_assert_eq!(sorted(&got.warnings), sorted(&answer.warnings), "{} {}", query, form);
            prop_assert_eq!(sorted(&got.infos), sorted(&answer.infos), "{} {}", query, form);
            prop_assert_eq!(got.stats.samples_total, answer.stats.samples_total, "{} {}", query, form);
            prop_assert_eq!(got.stats.samples_read, answer.stats.samples_read, "{} {}", query, form);
            let points = points(&got.value, &query);
            prop_assert_eq!(
                points.iter().map(|p| (p.0, &p.1)).collect::<Vec<_>>(),
                expected.iter().map(|p| (p.0, &p.1)).collect::<Vec<_>>(),
                "{} {}", query, form
            );
            for (got, expected) in points.iter().zip(&expected) {
                let is_same = is_same(got.2, expected.2);
                prop_assert!(is_same, "{} {} at {}: {:?}, not {:?}", query, form, got.0, got, expected);
            }
        }
        // One step by itself is an instant query.
        let answer = engine.instant(&query, Timestamp(times[3])).expect("valid").run(&source, &Control::default());
        let QueryValue::Vector(elements) = answer.expect(&query).value else { panic!("not a vector") };
        let mut instant: Vec<(String, Value)> = elements
            .iter()
            .map(|e| match &e.value {
                PointValue::Float(x) => (e.labels.to_string(), Float(*x)),
                PointValue::Histogram(h) => (e.labels.to_string(), Histogram(h.count)),
            })
            .collect();
        instant.sort_by(|a, b| a.0.cmp(&b.0));
        let at: Vec<&(i64, String, Value)> = expected.iter().filter(|p| p.0 == times[3]).collect();
        prop_assert_eq!(instant.len(), at.len(), "{} at {}", query, times[3]);
        for (got, expected) in instant.iter().zip(at) {
            prop_assert!(got.0 == expected.1 && is_same(got.1, expected.2), "{}: {:?}, not {:?}", query, got, expected);
        }
    }
}
