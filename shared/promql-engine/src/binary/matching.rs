//! Arithmetic and comparison between two vectors.
//!
//! The side of which several series may match one of the other is called "many" here, the other "one"; in a
//! one-to-one match the left side is "many". Series of the many side are read one after the other; of the one side
//! only those rows are held that are still to be matched.
//!
//! Invariants:
//! - outputs are ordered by their series on the many side; outputs filled on that side come last;
//! - at the end both sides are read to their ends, so that duplicates are found and everything there is to say
//!   about the operands is said.

use std::rc::Rc;

use model::Labels;
use promql_syntax::{BinaryOp, Cardinality, Span, VectorMatching};

use super::{Joined, Notes, Signatures, changes_quantity, is_metadata, join, signature};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::faults::or_fault;
use crate::points::{BoxOperator, Operator, Point, SeriesMeta, StepSet, clear, row};

/// The series of both sides with one signature.
#[derive(Debug, Default)]
struct Group {
    many: Vec<usize>,
    one: Rc<[usize]>,
    /// Steps at which a series of the many side was matched; kept where that matters.
    matched: Option<StepSet>,
    /// Steps at which some series of the one side has a point; kept where there are several.
    one_present: Option<StepSet>,
}

/// One series of the result.
#[derive(Debug)]
struct Output {
    /// The series on the many side; `None` where it is filled in.
    many: Option<usize>,
    /// Series on the one side, at most one of which has a point at any step.
    ones: Rc<[usize]>,
    /// A missing series on the one side is filled in.
    fills_one: bool,
}

/// Two samples on the one side at the same step.
struct Conflict {
    step: usize,
    pair: (usize, usize),
}

/// Joins two vectors.
pub(crate) struct VectorVector {
    many: BoxOperator,
    one: BoxOperator,
    op: BinaryOp,
    matching: VectorMatching,
    return_bool: bool,
    has_metadata_labels: bool,
    span: Span,
    steps: usize,
    many_metas: Vec<SeriesMeta>,
    one_metas: Vec<SeriesMeta>,
    group_of_many: Vec<usize>,
    group_of_one: Vec<usize>,
    groups: Vec<Group>,
    outputs: std::vec::IntoIter<Output>,
    many_row: Vec<Point>,
    many_read: usize,
    many_present: StepSet,
    one_read: usize,
    /// How many outputs still need each row of the one side.
    one_uses: Vec<usize>,
    /// The rows of the one side that are held, each with its size.
    one_rows: Vec<Option<(Vec<Point>, usize)>>,
    conflicts: Vec<Conflict>,
    notes: Notes,
}

impl VectorVector {
    pub(crate) fn new(
        lhs: BoxOperator,
        rhs: BoxOperator,
        op: BinaryOp,
        matching: VectorMatching,
        return_bool: bool,
        (span, steps): (Span, usize),
    ) -> Self {
        let (many, one) = if matching.card == Cardinality::OneToMany { (rhs, lhs) } else { (lhs, rhs) };
        Self {
            many,
            one,
            op,
            matching,
            return_bool,
            has_metadata_labels: false,
            span,
            steps,
            many_metas: Vec::new(),
            one_metas: Vec::new(),
            group_of_many: Vec::new(),
            group_of_one: Vec::new(),
            groups: Vec::new(),
            outputs: Vec::new().into_iter(),
            many_row: row(steps),
            many_read: 0,
            many_present: StepSet::new(steps),
            one_read: 0,
            one_uses: Vec::new(),
            one_rows: Vec::new(),
            conflicts: Vec::new(),
            notes: Notes::default(),
        }
    }

    fn is_swapped(&self) -> bool {
        self.matching.card == Cardinality::OneToMany
    }

    /// What stands in for a missing series on the many and on the one side. With `group_right`, too, `fill_left`
    /// is for the many side: so it is in Prometheus, and its scripts demand it.
    fn fills(&self) -> (Option<f64>, Option<f64>) {
        (self.matching.fill.lhs, self.matching.fill.rhs)
    }

    /// Returns the labels that stand for a series that is filled in.
    fn matched_labels(&self, labels: &Labels) -> Labels {
        signature(labels, &self.matching, self.has_metadata_labels)
    }

    fn result_meta(&self, cx: &Context<'_>, many: &SeriesMeta, one: &Labels) -> SeriesMeta {
        let mut labels = many.labels.clone();
        if changes_quantity(self.op) {
            labels = labels.filtered(|name| !is_metadata(name));
        }
        if self.matching.card == Cardinality::OneToOne {
            let is_named = |name: &str| self.matching.labels.iter().any(|l| l == name);
            labels = labels.filtered(|name| is_named(name) == self.matching.on);
        }
        for name in &self.matching.include {
            labels = labels.with(name, one.value(name));
        }
        let meta = SeriesMeta { labels, drop_name: many.drop_name && !changes_quantity(self.op) };
        if self.return_bool { meta.without_name(cx) } else { meta }
    }

    fn find_groups(&mut self, cx: &mut Context<'_>) -> Result<()> {
        let mut signatures = Signatures::default();
        self.group_of_many = signatures.numbers(cx, &self.many_metas, &self.matching)?;
        self.group_of_one = signatures.numbers(cx, &self.one_metas, &self.matching)?;
        self.groups.resize_with(signatures.len(), Group::default);
        for (i, group) in self.group_of_many.iter().enumerate() {
            self.groups[*group].many.push(i);
        }
        let mut ones = vec![Vec::new(); self.groups.len()];
        for (i, group) in self.group_of_one.iter().enumerate() {
            ones[*group].push(i);
        }
        for (group, ones) in self.groups.iter_mut().zip(ones) {
            group.one = ones.into();
        }
        let (many_fill, _) = self.fills();
        let is_one_to_one = self.matching.card == Cardinality::OneToOne;
        for group in &mut self.groups {
            if many_fill.is_some() || (is_one_to_one && group.many.len() > 1) {
                group.matched = Some(StepSet::new(self.steps));
            }
            if group.one.len() > 1 {
                group.one_present = Some(StepSet::new(self.steps));
            }
        }
        Ok(())
    }

    fn find_outputs(&mut self, cx: &mut Context<'_>) -> Result<Vec<SeriesMeta>> {
        let (many_fill, one_fill) = self.fills();
        let (mut outputs, mut metas): (Vec<Output>, Vec<SeriesMeta>) = (Vec::new(), Vec::new());
        for (i, many) in self.many_metas.iter().enumerate() {
            cx.tick(many.labels.byte_len())?;
            // What each series of the one side makes of this one; without labels taken over they all make the same.
            let group = &self.groups[self.group_of_many[i]];
            let mut made: Vec<(SeriesMeta, Vec<usize>)> = Vec::new();
            let is_one_meta = self.matching.include.is_empty();
            let distinct = if is_one_meta { group.one.get(..1) } else { Some(&*group.one) };
            for one in distinct.unwrap_or(&[]) {
                let meta = self.result_meta(cx, many, &self.one_metas[*one].labels);
                cx.tick(meta.labels.byte_len())?;
                cx.hold_bytes(meta.labels.byte_len())?;
                match made.iter_mut().find(|(known, _)| *known == meta) {
                    Some((_, ones)) => ones.push(*one),
                    None => made.push((meta, vec![*one])),
                }
            }
            let filled = one_fill.map(|_| self.result_meta(cx, many, &self.matched_labels(&many.labels)));
            if let Some(filled) = filled.as_ref().filter(|f| made.iter().all(|(meta, _)| meta != *f)) {
                made.push((filled.clone(), Vec::new()));
            }
            for (meta, ones) in made {
                let ones = if is_one_meta && !ones.is_empty() { Rc::clone(&group.one) } else { ones.into() };
                let fills_one = filled.as_ref() == Some(&meta);
                outputs.push(Output { many: Some(i), ones, fills_one });
                metas.push(meta);
            }
        }
        if many_fill.is_some() {
            for (j, one) in self.one_metas.iter().enumerate() {
                let many = SeriesMeta::new(self.matched_labels(&one.labels));
                outputs.push(Output { many: None, ones: [j].into(), fills_one: false });
                metas.push(self.result_meta(cx, &many, &one.labels));
            }
        }
        let mut uses = vec![0; self.one_metas.len()];
        for one in outputs.iter().flat_map(|output| self.needed(output)) {
            uses[*one] += 1;
        }
        self.one_uses = uses;
        self.one_rows.resize_with(self.one_metas.len(), || None);
        self.outputs = outputs.into_iter();
        Ok(metas)
    }

    /// Returns the series of the one side that an output looks at: to fill in a missing one, all of its group.
    fn needed<'a>(&'a self, output: &'a Output) -> &'a [usize] {
        match output.many {
            Some(many) if output.fills_one => &self.groups[self.group_of_many[many]].one,
            _ => &output.ones,
        }
    }

    #[inline]
    fn has_point(&self, one: usize, step: usize) -> bool {
        self.one_rows[one].as_ref().is_some_and(|(points, _)| points[step].is_some())
    }

    /// Reads the next row of the one side; keeps it if it is needed.
    fn read_one(&mut self, cx: &mut Context<'_>) -> Result<()> {
        let mut points = row(self.steps);
        self.one.next(cx, &mut points)?;
        let index = self.one_read;
        self.one_read += 1;
        let group = &mut self.groups[self.group_of_one[index]];
        if let Some(present) = &mut group.one_present {
            for (step, _) in points.iter().enumerate().filter(|(_, p)| p.is_some()) {
                if present.contains(step) && self.conflicts.is_empty() {
                    let other = group.one.iter().copied().find(|o| *o != index).unwrap_or(index);
                    self.conflicts.push(Conflict { step, pair: (other.min(index), other.max(index)) });
                } else if present.contains(step) {
                    let pair = self.conflicts[0].pair;
                    self.conflicts.push(Conflict { step, pair });
                }
                present.insert(step);
            }
        }
        if self.one_uses[index] > 0 {
            let held = cx.hold_row(&points)?;
            self.one_rows[index] = Some((points, held));
        }
        cx.tick(self.steps)
    }

    /// Reads the many side up to and including a series.
    fn read_many(&mut self, cx: &mut Context<'_>, wanted: usize) -> Result<()> {
        while self.many_read <= wanted {
            clear(&mut self.many_row);
            self.many.next(cx, &mut self.many_row)?;
            self.many_present.insert_row(&self.many_row);
            self.many_read += 1;
            cx.tick(self.steps)?;
        }
        Ok(())
    }

    fn duplicate_error(&self, (a, b): (usize, usize)) -> Error {
        let side = if self.is_swapped() { "left" } else { "right" };
        let (first, second) = (&self.one_metas[a].labels, &self.one_metas[b].labels);
        Error::Execution(format!(
            "found duplicate series for the match group {} on the {side} hand-side of the operation: [{}, \
             {}];many-to-many matching not allowed: matching labels must be unique on one side",
            self.matched_labels(first),
            first.min(second),
            first.max(second),
        ))
    }

    /// Joins one step of an output.
    fn join_step(&mut self, output: &Output, step: usize) -> Result<Point> {
        let (many_fill, one_fill) = self.fills();
        let filled_many = many_fill.map_or(Point::None, Point::Float);
        let many = if output.many.is_some() { &self.many_row[step] } else { &filled_many };
        if !many.is_some() {
            // Two partners of nothing do no harm; should there be another series here, `finish` finds them.
            return Ok(Point::None);
        }
        let mut present = output.ones.iter().filter(|one| self.has_point(**one, step));
        let one = present.next();
        if let (Some(a), Some(b)) = (one, present.next()) {
            return Err(self.duplicate_error((*a, *b)));
        }
        let filled_one = one_fill.filter(|_| output.fills_one).map_or(Point::None, Point::Float);
        let group = match output.many {
            Some(many) => self.group_of_many[many],
            None => self.group_of_one[output.ones[0]],
        };
        let one_point = match one {
            Some(one) => self.one_rows[*one].as_ref().map_or(&Point::None, |(points, _)| &points[step]),
            // Filled only where no series of the whole group has a point.
            None if output.fills_one && !self.has_one(group, step) => &filled_one,
            None => return Ok(Point::None),
        };
        if !one_point.is_some() {
            return Ok(Point::None);
        }
        if output.many.is_none()
            && self.groups[group].matched.as_ref().is_some_and(|matched| matched.contains(step))
        {
            return Ok(Point::None);
        }
        let (left, right) = if self.is_swapped() { (one_point, many) } else { (many, one_point) };
        let mut notice = |noticed| self.notes.set((step, self.steps), noticed);
        let joined = join(self.op, left, right, &mut notice);
        if output.many.is_some()
            && joined.is_some()
            && let Some(matched) = &mut self.groups[group].matched
        {
            let is_second = matched.contains(step) && self.matching.card == Cardinality::OneToOne;
            if or_fault!(MatchingCardinality, is_second, false) {
                return Err(Error::execution(
                    "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)",
                ));
            }
            matched.insert(step);
        }
        Ok(match joined {
            None => Point::None,
            Some(Joined { holds, .. }) if self.return_bool => Point::Float(f64::from(u8::from(holds))),
            Some(Joined { holds: false, .. }) => Point::None,
            Some(joined) => joined.point,
        })
    }

    fn has_one(&self, group: usize, step: usize) -> bool {
        self.groups[group].one.iter().any(|one| self.has_point(*one, step))
    }

    /// Reads both sides to their ends and looks for duplicates that no output met.
    fn finish(&mut self, cx: &mut Context<'_>) -> Result<()> {
        if !self.many_metas.is_empty() {
            self.read_many(cx, self.many_metas.len() - 1)?;
        }
        while self.one_read < self.one_metas.len() {
            self.read_one(cx)?;
        }
        // Without anything on the other side there is no match to be ambiguous, but something may be filled in.
        let fills = self.fills();
        let has_fill = fills.0.is_some() || fills.1.is_some();
        let is_match = |c: &&Conflict| has_fill || self.many_present.contains(c.step);
        if let Some(conflict) = self.conflicts.iter().find(is_match) {
            return Err(self.duplicate_error(conflict.pair));
        }
        self.notes.write(cx, self.op, self.span);
        Ok(())
    }
}

impl Operator for VectorVector {
    fn series(&mut self, cx: &mut Context<'_>) -> Result<Vec<SeriesMeta>> {
        self.has_metadata_labels = cx.options.type_and_unit_labels;
        self.many_metas = self.many.series(cx)?;
        self.one_metas = self.one.series(cx)?;
        self.find_groups(cx)?;
        let metas = self.find_outputs(cx)?;
        if metas.is_empty() {
            self.finish(cx)?;
        }
        Ok(metas)
    }

    fn next(&mut self, cx: &mut Context<'_>, points: &mut [Point]) -> Result<()> {
        let Some(output) = self.outputs.next() else { return Ok(()) };
        let needed = self.needed(&output).to_vec();
        let last_one = needed.iter().copied().max();
        match output.many {
            Some(many) => self.read_many(cx, many)?,
            None if !self.many_metas.is_empty() => self.read_many(cx, self.many_metas.len() - 1)?,
            None => {}
        }
        while last_one.is_some_and(|last| self.one_read <= last) {
            self.read_one(cx)?;
        }
        for (step, point) in points.iter_mut().enumerate() {
            *point = self.join_step(&output, step)?;
        }
        for one in needed {
            self.one_uses[one] -= 1;
            if self.one_uses[one] == 0
                && let Some((_, held)) = self.one_rows[one].take()
            {
                cx.release(held);
            }
        }
        if self.outputs.len() == 0 {
            self.finish(cx)?;
        }
        cx.tick_row(points)
    }
}
