//! Joining series that have one label set after a change of labels, and the end of the metric names.

use std::collections::HashMap;

use crate::context::Context;
use crate::error::{Error, Result};
use crate::points::{BoxOperator, Operator, Point, SeriesMeta, clear, row};

/// What Prometheus says when one label set has two samples at one time.
pub(crate) const SAME_LABELSET: &str = "vector cannot contain metrics with the same labelset";

/// Joins series with equal labels; an error where they have points at the same step. Series whose labels are
/// unique, usually all of them, pass through without being held.
pub(crate) struct Merge {
    input: BoxOperator,
    steps: usize,
    /// Drops the names of those series that asked for it.
    drops_names: bool,
    message: &'static str,
    /// For each output series its inputs, in the order of the outputs.
    groups: std::vec::IntoIter<Vec<usize>>,
    /// How many input series were read.
    read: usize,
    /// The output that each input belongs to; only where some output has several.
    is_joined: Vec<bool>,
    /// Rows read ahead of their turn.
    ahead: HashMap<usize, (Vec<Point>, usize)>,
}

impl Merge {
    pub(crate) fn new(input: BoxOperator, steps: usize, message: &'static str) -> Self {
        Self {
            input,
            steps,
            drops_names: false,
            message,
            groups: Vec::new().into_iter(),
            read: 0,
            is_joined: Vec::new(),
            ahead: HashMap::new(),
        }
    }

    /// Ends an evaluation: drops the names that were to be dropped in the end, then joins.
    pub(crate) fn at_the_end(input: BoxOperator, steps: usize) -> Self {
        Self { drops_names: true, ..Self::new(input, steps, SAME_LABELSET) }
    }

    /// Reads on up to an input series and writes it to the row.
    fn fetch(&mut self, cx: &mut Context<'_>, wanted: usize, points: &mut [Point]) -> Result<()> {
        if let Some((kept, held)) = self.ahead.remove(&wanted) {
            cx.release(held);
            for (point, kept) in points.iter_mut().zip(kept) {
                self.put(point, kept)?;
            }
            return Ok(());
        }
        while self.read < wanted {
            let mut ahead = row(self.steps);
            self.input.next(cx, &mut ahead)?;
            let held = cx.hold_row(&ahead)?;
            self.ahead.insert(self.read, (ahead, held));
            self.read += 1;
        }
        self.read += 1;
        if !self.is_joined[wanted] {
            return self.input.next(cx, points);
        }
        let mut next = row(self.steps);
        self.input.next(cx, &mut next)?;
        for (point, next) in points.iter_mut().zip(next) {
            self.put(point, next)?;
        }
        Ok(())
    }

    fn put(&self, into: &mut Point, point: Point) -> Result<()> {
        match (into.is_some(), point.is_some()) {
            (_, false) => Ok(()),
            (false, true) => {
                *into = point;
                Ok(())
            }
            (true, true) => Err(Error::execution(self.message)),
        }
    }
}

impl Operator for Merge {
    fn series(&mut self, cx: &mut Context<'_>) -> Result<Vec<SeriesMeta>> {
        let mut metas = self.input.series(cx)?;
        if self.drops_names {
            for meta in metas.iter_mut().filter(|m| m.drop_name) {
                *meta = SeriesMeta::new(meta.labels.without_metric_name());
            }
        }
        // Series that keep their name and such that will lose it are not the same, whatever they look like now.
        let mut known: HashMap<SeriesMeta, usize> = HashMap::with_capacity(metas.len());
        let mut groups: Vec<Vec<usize>> = Vec::with_capacity(metas.len());
        let mut out: Vec<SeriesMeta> = Vec::with_capacity(metas.len());
        self.is_joined = vec![false; metas.len()];
        for (i, meta) in metas.into_iter().enumerate() {
            cx.tick(meta.labels.byte_len())?;
            match known.get(&meta) {
                Some(group) => {
                    self.is_joined[groups[*group][0]] = true;
                    self.is_joined[i] = true;
                    groups[*group].push(i);
                }
                None => {
                    known.insert(meta.clone(), groups.len());
                    groups.push(vec![i]);
                    out.push(meta);
                }
            }
        }
        self.groups = groups.into_iter();
        Ok(out)
    }

    fn next(&mut self, cx: &mut Context<'_>, points: &mut [Point]) -> Result<()> {
        for input in self.groups.next().unwrap_or_default() {
            self.fetch(cx, input, points)?;
        }
        Ok(())
    }
}

/// A step-invariant expression, evaluated once and shown at every step.
pub(crate) struct Repeat {
    input: BoxOperator,
}

impl Repeat {
    pub(crate) fn new(input: BoxOperator) -> Self {
        Self { input }
    }
}

impl Operator for Repeat {
    fn series(&mut self, cx: &mut Context<'_>) -> Result<Vec<SeriesMeta>> {
        self.input.series(cx)
    }

    fn next(&mut self, cx: &mut Context<'_>, points: &mut [Point]) -> Result<()> {
        let mut single = row(1);
        clear(&mut single);
        self.input.next(cx, &mut single)?;
        points.fill(std::mem::take(&mut single[0]));
        Ok(())
    }
}
