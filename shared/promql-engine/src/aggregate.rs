//! Aggregations: many series to one for each group, or a choice among them.

mod choose;
mod group;
mod partial;

use std::collections::HashMap;

use model::number::format_fixed;
use model::{Labels, labels};
use promql_syntax::AggregateOp;

use crate::context::Context;
use crate::error::Result;
use crate::histogram;
use crate::points::{BoxOperator, Operator, Point, SeriesMeta, clear, row};

pub(crate) use choose::{Best, Limit, Limited};
pub(crate) use group::Aggregation;

/// The labels by which series are grouped.
#[derive(Debug, Clone)]
pub(crate) struct Grouping {
    pub(crate) labels: Vec<String>,
    pub(crate) without: bool,
}

impl Grouping {
    fn of(&self, labels: &Labels) -> Labels {
        match (self.without, self.labels.is_empty()) {
            (true, true) => labels.filtered(|name| name != labels::METRIC_NAME),
            (true, false) => labels.without(&self.labels),
            (false, true) => Labels::empty(),
            (false, false) => labels.only(&self.labels),
        }
    }
}

/// The groups of an input, in the order in which they are met.
#[derive(Debug, Default)]
struct Groups {
    metas: Vec<SeriesMeta>,
    /// The group of each input series.
    of_input: Vec<usize>,
    /// The last input series of each group.
    last_input: Vec<usize>,
}

impl Groups {
    fn new(cx: &mut Context<'_>, inputs: &[SeriesMeta], grouping: &Grouping) -> Result<Self> {
        let mut groups = Self::default();
        let mut by_labels: HashMap<Labels, usize> = HashMap::new();
        for (i, input) in inputs.iter().enumerate() {
            cx.tick(input.labels.byte_len())?;
            let group = *by_labels.entry(grouping.of(&input.labels)).or_insert_with_key(|labels| {
                groups.metas.push(SeriesMeta::new(labels.clone()));
                groups.last_input.push(i);
                groups.metas.len() - 1
            });
            if groups.last_input[group] == i {
                cx.hold_bytes(groups.metas[group].labels.byte_len())?;
            }
            groups.metas[group].drop_name |= input.drop_name;
            groups.last_input[group] = i;
            groups.of_input.push(group);
        }
        Ok(groups)
    }
}

/// `count_values`: one series for each value, which becomes a label.
pub(crate) struct CountValues {
    input: BoxOperator,
    grouping: Grouping,
    label: String,
    steps: usize,
    counts: std::vec::IntoIter<Vec<u32>>,
}

impl CountValues {
    pub(crate) fn new(input: BoxOperator, mut grouping: Grouping, label: String, steps: usize) -> Self {
        if !grouping.without {
            grouping.labels.push(label.clone());
        }
        Self { input, grouping, label, steps, counts: Vec::new().into_iter() }
    }
}

impl Operator for CountValues {
    fn series(&mut self, cx: &mut Context<'_>) -> Result<Vec<SeriesMeta>> {
        let inputs = self.input.series(cx)?;
        let mut by_labels: HashMap<Labels, usize> = HashMap::new();
        let (mut out, mut counts): (Vec<SeriesMeta>, Vec<Vec<u32>>) = (Vec::new(), Vec::new());
        let mut points = row(self.steps);
        for input in inputs {
            clear(&mut points);
            self.input.next(cx, &mut points)?;
            let mut last: Option<(&Point, usize)> = None;
            for (step, point) in points.iter().enumerate().filter(|(_, p)| p.is_some()) {
                // A value often stays for many steps.
                let group = match last {
                    Some((before, group)) if before == point => group,
                    _ => {
                        let value = match point {
                            Point::Histogram(h) => histogram::text(h),
                            Point::Float(x) => format_fixed(*x),
                            Point::None => continue,
                        };
                        let labels = self.grouping.of(&input.labels.with(&self.label, &value));
                        match by_labels.get(&labels) {
                            Some(group) => *group,
                            None => {
                                cx.hold(self.steps)?;
                                by_labels.insert(labels.clone(), out.len());
                                out.push(SeriesMeta::new(labels));
                                counts.push(vec![0; self.steps]);
                                out.len() - 1
                            }
                        }
                    }
                };
                last = Some((point, group));
                counts[group][step] += 1;
            }
            cx.tick(points.len())?;
        }
        self.counts = counts.into_iter();
        Ok(out)
    }

    fn next(&mut self, cx: &mut Context<'_>, points: &mut [Point]) -> Result<()> {
        for (point, count) in points.iter_mut().zip(self.counts.next().unwrap_or_default()) {
            if count > 0 {
                *point = Point::Float(f64::from(count));
            }
        }
        cx.release(self.steps);
        Ok(())
    }
}

/// Notes a histogram that an aggregation of floats leaves out.
fn ignored_histogram(op: AggregateOp) -> String {
    format!("ignored histogram in {} aggregation", op.as_str())
}
