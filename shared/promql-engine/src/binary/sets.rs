//! The set operators `and`, `or`, `unless`: series of one side go through or not, depending on whether the other
//! side has a series with the same signature at that step.

use promql_syntax::{BinaryOp, VectorMatching};

use super::Signatures;
use crate::context::Context;
use crate::error::Result;
use crate::faults::or_fault;
use crate::points::{BoxOperator, Operator, Point, SeriesMeta, StepSet, clear, row};

/// Evaluates a set operator.
pub(crate) struct SetOperator {
    lhs: BoxOperator,
    rhs: BoxOperator,
    op: BinaryOp,
    matching: VectorMatching,
    steps: usize,
    /// The signatures of the left side's series, then of the right one's.
    left: Vec<usize>,
    right: Vec<usize>,
    /// Steps at which the side that decides has a point, by signature; only where the other side has it too.
    present: Vec<Option<StepSet>>,
    read: usize,
    is_right_read: bool,
}

impl SetOperator {
    pub(crate) fn new(
        lhs: BoxOperator,
        rhs: BoxOperator,
        op: BinaryOp,
        matching: VectorMatching,
        steps: usize,
    ) -> Self {
        Self {
            lhs,
            rhs,
            op,
            matching,
            steps,
            left: Vec::new(),
            right: Vec::new(),
            present: Vec::new(),
            read: 0,
            is_right_read: false,
        }
    }

    /// Reads the whole right side to learn where it has points.
    fn read_right(&mut self, cx: &mut Context<'_>) -> Result<()> {
        self.is_right_read = true;
        let mut points = row(self.steps);
        for signature in &self.right {
            clear(&mut points);
            self.rhs.next(cx, &mut points)?;
            if let Some(present) = &mut self.present[*signature] {
                present.insert_row(&points);
            }
            cx.tick(points.len())?;
        }
        Ok(())
    }
}

impl Operator for SetOperator {
    fn series(&mut self, cx: &mut Context<'_>) -> Result<Vec<SeriesMeta>> {
        let mut left = self.lhs.series(cx)?;
        let right = self.rhs.series(cx)?;
        let mut signatures = Signatures::default();
        self.left = signatures.numbers(cx, &left, &self.matching)?;
        self.right = signatures.numbers(cx, &right, &self.matching)?;
        // Who goes through, and who decides on it.
        let (through, decides) = match self.op {
            BinaryOp::Or => (&self.right, &self.left),
            _ => (&self.left, &self.right),
        };
        let mut is_needed = vec![0_u8; signatures.len()];
        through.iter().for_each(|s| is_needed[*s] |= 1);
        decides.iter().for_each(|s| is_needed[*s] |= 2);
        self.present = is_needed.iter().map(|n| (*n == 3).then(|| StepSet::new(self.steps))).collect();
        if self.op == BinaryOp::Or {
            left.extend(right);
        }
        if left.is_empty() {
            self.read_right(cx)?;
        }
        Ok(left)
    }

    fn next(&mut self, cx: &mut Context<'_>, points: &mut [Point]) -> Result<()> {
        let index = self.read;
        self.read += 1;
        cx.tick(points.len())?;
        if self.op != BinaryOp::Or {
            if !self.is_right_read {
                self.read_right(cx)?;
            }
            self.lhs.next(cx, points)?;
            let present = self.present[self.left[index]].as_ref();
            let wanted = self.op == BinaryOp::And;
            for (step, point) in points.iter_mut().enumerate() {
                if present.is_some_and(|p| p.contains(step)) != wanted {
                    *point = Point::None;
                }
            }
            return Ok(());
        }
        if let Some(signature) = self.left.get(index) {
            self.lhs.next(cx, points)?;
            if let Some(present) = &mut self.present[*signature] {
                present.insert_row(points);
            }
            return Ok(());
        }
        self.rhs.next(cx, points)?;
        if let Some(present) = &self.present[self.right[index - self.left.len()]] {
            for (step, point) in points.iter_mut().enumerate() {
                if or_fault!(SetUnion, present.contains(step), false) {
                    *point = Point::None;
                }
            }
        }
        Ok(())
    }
}
