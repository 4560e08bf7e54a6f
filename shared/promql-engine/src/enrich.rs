//! `info(v, {selector})`: adds to each series the labels of the info series with the same `job` and `instance`.
//!
//! Info series are read before the base series, since their labels decide those of the result: for each step the
//! newest sample of each signature tells which info series is in force. A base series that meets different info
//! series over time becomes several series.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use model::labels::{INSTANCE, JOB, METRIC_NAME};
use model::{Labels, MatchOp, Matcher, Timestamp};

use crate::context::Context;
use crate::error::{Error, Result};
use crate::partial::Counted;
use crate::points::{BoxOperator, Operator, Point, SeriesMeta, clear, row};
use crate::select::{Give, InstantSelector, OpenSet, When};
use crate::source::{Hints, Selection};

/// The labels by which info series are found.
const IDENTIFYING: [&str; 2] = [INSTANCE, JOB];
/// The info metric where the selector names none.
const TARGET_INFO: &str = "target_info";
/// The info metrics where the selector only says which are not meant.
const IMPLIED_NAMES: &str = ".+_info";

/// What becomes of a base series at a step.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Outcome {
    /// It shows with these labels added.
    Labels(Arc<[(String, String)]>),
    /// No info series is there, but the selector asks for one.
    Dropped,
    /// Two info series have different values for this label.
    Conflict(String),
    /// Two info series are equally new.
    Duplicate(String),
}

/// Info series with one metric name and one set of identifying labels; at each step the newest is in force.
#[derive(Debug)]
struct InForce {
    /// The series and the time of its sample, for each step.
    steps: Vec<Option<(usize, i64)>>,
    /// Steps at which two were equally new, with what to say.
    duplicates: HashMap<usize, String>,
}

/// The info series by identifying labels and metric name.
type BySignature = HashMap<Labels, BTreeMap<String, InForce>>;

/// The result's series: the base series and the steps at which it shows.
struct Output {
    base: usize,
    /// The outcome shown, by its number; none for a series that is passed on as it is.
    outcome: Option<usize>,
}

/// Evaluates `info`.
pub(crate) struct Enrich {
    base: BoxOperator,
    matchers: Vec<Matcher>,
    when: When,
    lookback: i64,
    steps: usize,
    /// The outcomes of each signature, as numbers by step, and what the numbers mean.
    outcomes: Vec<Outcome>,
    by_signature: HashMap<Labels, Arc<[usize]>>,
    signatures: Vec<Labels>,
    outputs: std::vec::IntoIter<Output>,
    read: usize,
    current: Vec<Point>,
}

impl Enrich {
    pub(crate) fn new(base: BoxOperator, matchers: Vec<Matcher>, when: When, lookback: i64) -> Self {
        let steps = when.grid.count;
        Self {
            base,
            matchers,
            when,
            lookback,
            steps,
            outcomes: Vec::new(),
            by_signature: HashMap::new(),
            signatures: Vec::new(),
            outputs: Vec::new().into_iter(),
            read: 0,
            current: row(steps),
        }
    }

    fn name_matchers(&self) -> Vec<Matcher> {
        let mut named: Vec<Matcher> =
            self.matchers.iter().filter(|m| m.name() == METRIC_NAME).cloned().collect();
        if named.is_empty() {
            return vec![Matcher::equal(METRIC_NAME, TARGET_INFO)];
        }
        let is_negative = |m: &Matcher| matches!(m.op(), MatchOp::NotEqual | MatchOp::NotRegex);
        if named.iter().all(is_negative) {
            named.extend(Matcher::new(MatchOp::Regex, METRIC_NAME, IMPLIED_NAMES));
        }
        named
    }

    fn data_matchers(&self) -> impl Iterator<Item = &Matcher> {
        self.matchers.iter().filter(|m| m.name() != METRIC_NAME)
    }

    /// Opens the selection of the info series that go with any of the base series.
    fn open(&self, cx: &Context<'_>, base: &[&SeriesMeta]) -> Result<Option<OpenSet>> {
        let mut matchers = Vec::new();
        for name in IDENTIFYING {
            let mut values: Vec<&str> = base.iter().filter_map(|m| m.labels.get(name)).collect();
            values.sort_unstable();
            values.dedup();
            if !values.is_empty() {
                let pattern: Vec<String> = values.iter().map(|v| regex::escape(v)).collect();
                let matcher = Matcher::new(MatchOp::Regex, name, &pattern.join("|"))
                    .map_err(|e| Error::execution(e.to_string()))?;
                matchers.push(matcher);
            }
        }
        if matchers.is_empty() {
            return Ok(None);
        }
        matchers.extend(self.name_matchers());
        matchers.extend(self.data_matchers().cloned());
        let (first, last) = self.when.bounds();
        let selection = Selection {
            matchers,
            min_time: Timestamp(first.saturating_sub(self.lookback - 1)),
            max_time: Timestamp(last),
            hints: Hints { function: "info".to_owned(), ..Hints::default() },
            cut: None,
        };
        Ok(Some(OpenSet::new(cx.source.select(&selection)?, false, None)))
    }

    /// Reads the info series and finds which is in force at each step.
    fn read_info(&self, cx: &mut Context<'_>, set: OpenSet) -> Result<(Vec<Labels>, BySignature)> {
        let mut selector =
            InstantSelector::new(set, self.when, self.lookback, Give::InfoTime, Counted::AtStep);
        let labels: Vec<Labels> = selector.series(cx)?.into_iter().map(|m| m.labels).collect();
        let mut found = BySignature::new();
        let mut points = row(self.steps);
        for (i, info) in labels.iter().enumerate() {
            clear(&mut points);
            selector.next(cx, &mut points)?;
            // What is remembered of each step takes about as much as a sample and a half.
            cx.hold(self.steps * 2)?;
            let by_name = found.entry(identity(info)).or_default();
            let in_force = by_name
                .entry(info.metric_name().to_owned())
                .or_insert_with(|| InForce { steps: vec![None; self.steps], duplicates: HashMap::new() });
            for (step, point) in points.iter().enumerate() {
                let time = match point {
                    Point::Float(time) => time,
                    Point::None => continue,
                    Point::Histogram(_) => {
                        let text = format!("this should be an info metric, with float samples: {info}");
                        return Err(Error::Execution(text));
                    }
                };
                #[expect(clippy::cast_possible_truncation, reason = "it was made of an integer")]
                let time = *time as i64;
                match in_force.steps[step] {
                    Some((_, newest)) if newest > time => {}
                    Some((other, newest)) if newest == time => {
                        let text = format!(
                            "found duplicate series for info metric: existing {} @ {time}, new {info} @ {time}",
                            labels[other]
                        );
                        in_force.duplicates.insert(step, text);
                    }
                    _ => {
                        in_force.duplicates.remove(&step);
                        in_force.steps[step] = Some((i, time));
                    }
                }
            }
        }
        Ok((labels, found))
    }

    /// What a base series becomes at one step, given the info series of its signature.
    fn outcome(&self, infos: &[Labels], found: Option<&BTreeMap<String, InForce>>, step: usize) -> Outcome {
        let mut added: Vec<(String, String)> = Vec::new();
        let mut is_found = false;
        for in_force in found.into_iter().flat_map(BTreeMap::values) {
            if let Some(text) = in_force.duplicates.get(&step) {
                return Outcome::Duplicate(text.clone());
            }
            let Some((info, _)) = in_force.steps[step] else { continue };
            is_found = true;
            for (name, value) in infos[info].iter().filter(|(name, _)| *name != METRIC_NAME) {
                let mut data = self.data_matchers().peekable();
                if data.peek().is_some() && !data.any(|m| m.name() == name) {
                    continue;
                }
                match added.iter().find(|(n, _)| n == name) {
                    Some((_, other)) if other != value => return Outcome::Conflict(name.to_owned()),
                    Some(_) => {}
                    None => added.push((name.to_owned(), value.to_owned())),
                }
            }
        }
        if !is_found && self.data_matchers().any(|m| !m.matches_empty()) {
            return Outcome::Dropped;
        }
        Outcome::Labels(added.into())
    }

    fn find_outcomes(
        &mut self,
        cx: &mut Context<'_>,
        infos: &[Labels],
        found: &BySignature,
        signature: &Labels,
    ) -> Result<()> {
        if self.by_signature.contains_key(signature) {
            return Ok(());
        }
        cx.hold(self.steps.div_ceil(2))?;
        cx.tick(self.steps)?;
        let mut numbers = Vec::with_capacity(self.steps);
        for step in 0..self.steps {
            let outcome = self.outcome(infos, found.get(signature), step);
            let known = self.outcomes.iter().rposition(|o| *o == outcome);
            numbers.push(known.unwrap_or_else(|| {
                self.outcomes.push(outcome);
                self.outcomes.len() - 1
            }));
        }
        self.by_signature.insert(signature.clone(), numbers.into());
        Ok(())
    }
}

/// Returns the identifying labels.
fn identity(labels: &Labels) -> Labels {
    labels.filtered(|name| IDENTIFYING.contains(&name))
}

impl Operator for Enrich {
    fn series(&mut self, cx: &mut Context<'_>) -> Result<Vec<SeriesMeta>> {
        let base = self.base.series(cx)?;
        let names = self.name_matchers();
        let is_info = |m: &SeriesMeta| names.iter().all(|n| n.matches(m.labels.metric_name()));
        let is_info: Vec<bool> = base.iter().map(is_info).collect();
        let enriched: Vec<&SeriesMeta> =
            base.iter().zip(&is_info).filter(|(_, is_info)| !**is_info).map(|(m, _)| m).collect();
        let (infos, found) = match self.open(cx, &enriched)? {
            Some(set) => self.read_info(cx, set)?,
            None => (Vec::new(), HashMap::new()),
        };
        let (mut outputs, mut metas) = (Vec::new(), Vec::new());
        for (i, meta) in base.into_iter().enumerate() {
            let signature = identity(&meta.labels);
            if is_info[i] {
                outputs.push(Output { base: i, outcome: None });
                metas.push(meta);
            } else {
                self.find_outcomes(cx, &infos, &found, &signature)?;
                let mut numbers = self.by_signature[&signature].to_vec();
                numbers.sort_unstable();
                numbers.dedup();
                for number in numbers {
                    let mut labels = meta.labels.to_builder();
                    if let Outcome::Labels(added) = &self.outcomes[number] {
                        for (name, value) in added.iter().filter(|(name, _)| !meta.labels.has(name)) {
                            labels.set(name, value);
                        }
                    }
                    outputs.push(Output { base: i, outcome: Some(number) });
                    metas.push(SeriesMeta { labels: labels.build(), drop_name: meta.drop_name });
                }
            }
            self.signatures.push(signature);
        }
        self.outputs = outputs.into_iter();
        Ok(metas)
    }

    fn next(&mut self, cx: &mut Context<'_>, points: &mut [Point]) -> Result<()> {
        let Some(output) = self.outputs.next() else { return Ok(()) };
        while self.read <= output.base {
            clear(&mut self.current);
            self.base.next(cx, &mut self.current)?;
            self.read += 1;
        }
        let Some(shown) = output.outcome else {
            points.clone_from_slice(&self.current);
            return Ok(());
        };
        let numbers = &self.by_signature[&self.signatures[output.base]];
        for ((point, base), number) in points.iter_mut().zip(&self.current).zip(numbers.iter()) {
            if *number != shown || !base.is_some() {
                continue;
            }
            match &self.outcomes[shown] {
                Outcome::Labels(_) => *point = base.clone(),
                Outcome::Dropped => {}
                Outcome::Conflict(name) => {
                    return Err(Error::Execution(format!("conflicting label: {name}")));
                }
                Outcome::Duplicate(text) => return Err(Error::Execution(text.clone())),
            }
        }
        cx.tick(points.len())
    }
}
