//! Binary operators: between numbers, between a vector and a scalar, and (in [`matching`] and [`sets`]) between two
//! vectors.

mod matching;
mod sets;

use std::collections::HashMap;
use std::sync::Arc;

use model::number::Quoted;
use model::{CounterResetHint, FloatHistogram, Labels, labels};
use promql_syntax::{BinaryOp, Span, VectorMatching};

use crate::context::Context;
use crate::error::Result;
use crate::faults::or_fault;
use crate::histogram::{Cells, IncompatibleSchemas, Keep, compact, divided, equals, scaled, trim};
use crate::points::{BoxOperator, Operator, Point, SeriesMeta};
use crate::range::{conflicting_resets, reconciled};
use crate::scalar::{ScalarOperator, Scalars};

pub(crate) use matching::VectorVector;
pub(crate) use sets::SetOperator;

/// Joins two numbers; comparisons give 0 or 1.
pub(crate) fn scalar(op: BinaryOp, a: f64, b: f64) -> f64 {
    match arithmetic(op, a, b) {
        Some(value) => value,
        None => f64::from(u8::from(compares(op, a, b))),
    }
}

fn arithmetic(op: BinaryOp, a: f64, b: f64) -> Option<f64> {
    Some(match op {
        BinaryOp::Add => a + b,
        BinaryOp::Sub => a - b,
        BinaryOp::Mul => a * b,
        BinaryOp::Div => a / b,
        BinaryOp::Mod => a % b,
        BinaryOp::Pow => a.powf(b),
        BinaryOp::Atan2 => a.atan2(b),
        _ => return None,
    })
}

fn compares(op: BinaryOp, a: f64, b: f64) -> bool {
    match op {
        BinaryOp::Equal => a == b,
        BinaryOp::NotEqual => a != b,
        BinaryOp::Less => a < b,
        BinaryOp::LessOrEqual => a <= b,
        BinaryOp::Greater => a > b,
        BinaryOp::GreaterOrEqual => a >= b,
        _ => false,
    }
}

/// Says whether the result is another quantity, which has lost its name, type and unit.
const fn changes_quantity(op: BinaryOp) -> bool {
    !op.is_comparison() && !op.is_set() && !matches!(op, BinaryOp::TrimLower | BinaryOp::TrimUpper)
}

/// What came up when two elements were joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Noticed {
    /// Types that do not go together: whether left and right are histograms.
    Types(bool, bool),
    /// Exponential and custom buckets.
    Layout,
    /// The reset hints contradict each other, in an addition or a subtraction.
    Resets(&'static str),
    /// Custom bounds were brought together, in an addition or a subtraction.
    Reconciled(&'static str),
}

impl Noticed {
    fn write(self, cx: &mut Context<'_>, op: BinaryOp, span: Span) {
        let sort = |is_histogram: bool| if is_histogram { "histogram" } else { "float" };
        let annotations = &mut cx.annotations;
        let op = op.as_str();
        match self {
            Self::Types(left, right) => {
                let text = format!(
                    "incompatible sample types encountered for binary operator {}: {} {op} {}",
                    Quoted(op),
                    sort(left),
                    sort(right)
                );
                annotations.info(text, span);
            }
            Self::Layout => annotations
                .warn(format!("incompatible bucket layout encountered for binary operator {op}"), span),
            Self::Resets(operation) => annotations.warn(conflicting_resets(operation), span),
            Self::Reconciled(operation) => annotations.info(reconciled(operation), span),
        }
    }
}

/// What came up last at each step: Prometheus keeps no more of a step than that.
#[derive(Debug, Default)]
struct Notes {
    /// Empty until something comes up.
    last: Vec<Option<Noticed>>,
}

impl Notes {
    fn set(&mut self, (step, steps): (usize, usize), noticed: Noticed) {
        self.last.resize(steps, None);
        self.last[step] = Some(noticed);
    }

    fn write(&mut self, cx: &mut Context<'_>, op: BinaryOp, span: Span) {
        let mut before = None;
        for noticed in std::mem::take(&mut self.last).into_iter().flatten() {
            if before.replace(noticed) != Some(noticed) {
                noticed.write(cx, op, span);
            }
        }
    }
}

/// The result of joining two elements, and whether a comparison holds.
struct Joined {
    point: Point,
    holds: bool,
}

impl Joined {
    const fn value(point: Point) -> Self {
        Self { point, holds: true }
    }
}

/// Joins two elements that are there; what comes up goes to `notice`. `None` when they do not go together.
fn join(op: BinaryOp, left: &Point, right: &Point, notice: &mut dyn FnMut(Noticed)) -> Option<Joined> {
    let joined = match (left, right) {
        (Point::None, _) | (_, Point::None) => return None,
        (Point::Float(a), Point::Float(b)) => match arithmetic(op, *a, *b) {
            Some(value) => Some(Joined::value(Point::Float(value))),
            None if op.is_comparison() => {
                Some(Joined { point: Point::Float(*a), holds: compares(op, *a, *b) })
            }
            None => None,
        },
        (Point::Float(a), Point::Histogram(h)) => {
            (op == BinaryOp::Mul).then(|| Joined::value(compacted(scaled(h, *a))))
        }
        (Point::Histogram(h), Point::Float(b)) => match op {
            BinaryOp::Mul => Some(Joined::value(compacted(scaled(h, *b)))),
            BinaryOp::Div => Some(Joined::value(compacted(divided(h, *b)))),
            BinaryOp::TrimUpper => Some(Joined::value(Point::histogram(trim(h, *b, Keep::Below)))),
            BinaryOp::TrimLower => Some(Joined::value(Point::histogram(trim(h, *b, Keep::Above)))),
            _ => None,
        },
        (Point::Histogram(a), Point::Histogram(b)) => match op {
            BinaryOp::Add | BinaryOp::Sub => return combine(op, a, b, notice),
            BinaryOp::Equal | BinaryOp::NotEqual => {
                let holds = equals(a, b) == (op == BinaryOp::Equal);
                Some(Joined { point: Point::Histogram(Arc::clone(a)), holds })
            }
            _ => None,
        },
    };
    if joined.is_none() {
        let is_histogram = |point: &Point| matches!(point, Point::Histogram(_));
        notice(Noticed::Types(is_histogram(left), is_histogram(right)));
    }
    joined
}

fn compacted(mut h: FloatHistogram) -> Point {
    compact(&mut h);
    Point::histogram(h)
}

/// Adds or subtracts histograms. Those whose reset hints contradict each other give nothing.
fn combine(
    op: BinaryOp,
    a: &FloatHistogram,
    b: &FloatHistogram,
    notice: &mut dyn FnMut(Noticed),
) -> Option<Joined> {
    let mut cells = Cells::new(a);
    let (combined, operation) = match op {
        BinaryOp::Add => (cells.add(b), "addition"),
        _ => (cells.subtract(b), "subtraction"),
    };
    match combined {
        Err(IncompatibleSchemas) => {
            notice(Noticed::Layout);
            return None;
        }
        Ok(added) if added.has_reset_collision => {
            notice(Noticed::Resets(operation));
            return None;
        }
        Ok(added) if added.was_reconciled => notice(Noticed::Reconciled(operation)),
        Ok(_) => {}
    }
    if op == BinaryOp::Sub {
        cells.set_hint(CounterResetHint::Gauge);
    }
    Some(Joined::value(Point::histogram(cells.finish())))
}

/// A vector and a scalar.
pub(crate) struct VectorScalar {
    vector: BoxOperator,
    scalar: ScalarOperator,
    op: BinaryOp,
    /// The scalar stands on the left.
    is_swapped: bool,
    return_bool: bool,
    span: Span,
    /// The scalar's values once they are known.
    values: Option<Scalars>,
    /// How many series are still to be read.
    remaining: usize,
    notes: Notes,
}

impl VectorScalar {
    pub(crate) fn new(
        (vector, scalar): (BoxOperator, ScalarOperator),
        op: BinaryOp,
        is_swapped: bool,
        return_bool: bool,
        span: Span,
    ) -> Self {
        let (values, remaining, notes) = (None, 0, Notes::default());
        Self { vector, scalar, op, is_swapped, return_bool, span, values, remaining, notes }
    }
}

impl Operator for VectorScalar {
    fn series(&mut self, cx: &mut Context<'_>) -> Result<Vec<SeriesMeta>> {
        self.values = Some(self.scalar.values(cx)?);
        let metas = self.vector.series(cx)?;
        self.remaining = metas.len();
        if changes_quantity(self.op) || self.return_bool {
            return Ok(metas.iter().map(|m| m.without_name(cx)).collect());
        }
        Ok(metas)
    }

    fn next(&mut self, cx: &mut Context<'_>, points: &mut [Point]) -> Result<()> {
        self.vector.next(cx, points)?;
        let Some(values) = &self.values else { return Ok(()) };
        let steps = points.len();
        for (step, point) in points.iter_mut().enumerate() {
            if let Point::None = point {
                continue;
            }
            let number = Point::Float(values.at(step));
            let mut notice = |noticed| self.notes.set((step, steps), noticed);
            let joined = match self.is_swapped {
                true => join(self.op, &number, point, &mut notice),
                false => join(self.op, point, &number, &mut notice),
            };
            *point = match joined {
                None => Point::None,
                Some(joined) if self.return_bool => Point::Float(f64::from(u8::from(joined.holds))),
                Some(Joined { holds: false, .. }) => Point::None,
                // A comparison shows the vector's value, on whichever side it stands.
                Some(_) if self.op.is_comparison() => continue,
                Some(joined) => joined.point,
            };
        }
        self.remaining = self.remaining.saturating_sub(1);
        if self.remaining == 0 {
            self.notes.write(cx, self.op, self.span);
        }
        cx.tick_row(points)
    }
}

/// Returns the labels by which series of two vectors find each other. Type and unit play no part where the feature
/// gives them their meaning; otherwise they are labels like any other.
fn signature(labels: &Labels, matching: &VectorMatching, has_metadata_labels: bool) -> Labels {
    let is_named = |name: &str| matching.labels.iter().any(|l| l == name);
    if matching.on {
        return labels.filtered(is_named);
    }
    let is_left_out = |name: &str| match has_metadata_labels {
        true => is_metadata(name),
        false => name == labels::METRIC_NAME,
    };
    labels.filtered(|name| !is_left_out(name) && or_fault!(MatchingLabels, !is_named(name), true))
}

fn is_metadata(name: &str) -> bool {
    matches!(name, labels::METRIC_NAME | labels::METRIC_TYPE | labels::METRIC_UNIT)
}

/// Numbers signatures, so that each is hashed once.
#[derive(Debug, Default)]
struct Signatures {
    known: HashMap<Labels, usize>,
}

impl Signatures {
    /// Returns the numbers of the signatures of series.
    fn numbers(
        &mut self,
        cx: &mut Context<'_>,
        metas: &[SeriesMeta],
        matching: &VectorMatching,
    ) -> Result<Vec<usize>> {
        let has_metadata_labels = cx.options.type_and_unit_labels;
        let mut numbers = Vec::with_capacity(metas.len());
        for meta in metas {
            cx.tick(meta.labels.byte_len())?;
            let next = self.known.len();
            let signature = signature(&meta.labels, matching, has_metadata_labels);
            cx.hold_bytes(signature.byte_len())?;
            numbers.push(*self.known.entry(signature).or_insert(next));
        }
        Ok(numbers)
    }

    fn len(&self) -> usize {
        self.known.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_joined_as_go_joins_them() {
        use BinaryOp as B;
        for (op, a, b, expected) in [
            (B::Mod, -7.0, 3.0, -1.0),
            (B::Pow, 2.0, -1.0, 0.5),
            (B::Div, 1.0, 0.0, f64::INFINITY),
            (B::Atan2, 10.0, 20.0, 0.463_647_609_000_806_1),
            (B::LessOrEqual, 1.0, 1.0, 1.0),
            (B::NotEqual, f64::NAN, f64::NAN, 1.0),
            (B::Equal, f64::NAN, f64::NAN, 0.0),
        ] {
            assert_eq!(scalar(op, a, b), expected, "{a} {} {b}", op.as_str());
        }
        assert!(scalar(B::Mod, 1.0, 0.0).is_nan());
    }
}
