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
use crate::histogram::{Added, Cells, IncompatibleSchemas, Keep, compact, divided, equals, scaled, trim};
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

/// What came up while elements were joined.
#[derive(Debug, Clone, Copy, Default)]
struct Notes {
    /// Types that do not go together, by whether left and right are histograms.
    incompatible: [[bool; 2]; 2],
    has_incompatible_layout: bool,
    added: Added,
    subtracted: Added,
}

impl Notes {
    fn write(&self, cx: &mut Context<'_>, op: BinaryOp, span: Span) {
        let annotations = &mut cx.annotations;
        let sort = |is_histogram: usize| ["float", "histogram"][is_histogram];
        for left in 0..2 {
            for right in (0..2).filter(|right| self.incompatible[left][*right]) {
                let text = format!(
                    "incompatible sample types encountered for binary operator {}: {} {} {}",
                    Quoted(op.as_str()),
                    sort(left),
                    op.as_str(),
                    sort(right)
                );
                annotations.info(text, span);
            }
        }
        if self.has_incompatible_layout {
            let op = op.as_str();
            annotations
                .warn(format!("incompatible bucket layout encountered for binary operator {op}"), span);
        }
        for (noticed, operation) in [(self.added, "addition"), (self.subtracted, "subtraction")] {
            if noticed.has_reset_collision {
                annotations.warn(conflicting_resets(operation), span);
            }
            if noticed.was_reconciled {
                annotations.info(reconciled(operation), span);
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

/// Joins two elements; `None` when their types do not go together, which is noted.
fn join(op: BinaryOp, left: &Point, right: &Point, notes: &mut Notes) -> Option<Joined> {
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
            BinaryOp::Add | BinaryOp::Sub => match combine(op, a, b, notes) {
                Ok(point) => Some(Joined::value(point)),
                Err(IncompatibleSchemas) => {
                    notes.has_incompatible_layout = true;
                    return None;
                }
            },
            BinaryOp::Equal | BinaryOp::NotEqual => {
                let holds = equals(a, b) == (op == BinaryOp::Equal);
                Some(Joined { point: Point::Histogram(Arc::clone(a)), holds })
            }
            _ => None,
        },
    };
    if joined.is_none() {
        let is_histogram = |point: &Point| usize::from(matches!(point, Point::Histogram(_)));
        notes.incompatible[is_histogram(left)][is_histogram(right)] = true;
    }
    joined
}

fn compacted(mut h: FloatHistogram) -> Point {
    compact(&mut h);
    Point::histogram(h)
}

fn combine(
    op: BinaryOp,
    a: &FloatHistogram,
    b: &FloatHistogram,
    notes: &mut Notes,
) -> std::result::Result<Point, IncompatibleSchemas> {
    let mut cells = Cells::new(a);
    let noticed = if op == BinaryOp::Add {
        let added = cells.add(b)?;
        notes.added = notes.added.or(added);
        return Ok(Point::histogram(cells.finish()));
    } else {
        cells.subtract(b)?
    };
    notes.subtracted = notes.subtracted.or(noticed);
    cells.set_hint(CounterResetHint::Gauge);
    Ok(Point::histogram(cells.finish()))
}

/// A vector and a scalar.
pub(crate) struct VectorScalar {
    pub(crate) vector: BoxOperator,
    pub(crate) scalar: ScalarOperator,
    pub(crate) op: BinaryOp,
    /// The scalar stands on the left.
    pub(crate) is_swapped: bool,
    pub(crate) return_bool: bool,
    pub(crate) span: Span,
    /// The scalar's values once they are known.
    pub(crate) values: Option<Scalars>,
}

impl Operator for VectorScalar {
    fn series(&mut self, cx: &mut Context<'_>) -> Result<Vec<SeriesMeta>> {
        self.values = Some(self.scalar.values(cx)?);
        let metas = self.vector.series(cx)?;
        if changes_quantity(self.op) || self.return_bool {
            return Ok(metas.iter().map(|m| m.without_name(cx)).collect());
        }
        Ok(metas)
    }

    fn next(&mut self, cx: &mut Context<'_>, points: &mut [Point]) -> Result<()> {
        self.vector.next(cx, points)?;
        let Some(values) = &self.values else { return Ok(()) };
        let mut notes = Notes::default();
        for (step, point) in points.iter_mut().enumerate() {
            if let Point::None = point {
                continue;
            }
            let number = Point::Float(values.at(step));
            let joined = match self.is_swapped {
                true => join(self.op, &number, point, &mut notes),
                false => join(self.op, point, &number, &mut notes),
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
        notes.write(cx, self.op, self.span);
        cx.tick(points.len())
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
    labels.filtered(|name| !is_left_out(name) && !is_named(name))
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
