//! Which rules of a group neither look at what others of it give, nor are looked at: only those may be evaluated at
//! the same time as others.

use std::collections::{BTreeSet, HashMap};

use model::MatchOp;
use model::labels::METRIC_NAME;
use promql_syntax::Expr;

use crate::alert::{ALERTS, ALERTS_FOR_STATE};
use crate::file::{RuleKind, RuleSpec};

/// The names of the metrics that an expression looks at; `None` when it may look at any.
pub(crate) fn reads(expr: &Expr) -> Option<BTreeSet<String>> {
    let mut names = Some(BTreeSet::new());
    expr.walk_selectors(&mut |selector| {
        let is_name = |m: &&model::Matcher| m.name() == METRIC_NAME && m.op() == MatchOp::Equal;
        let name = selector.matchers.iter().find(is_name).map(|m| m.value().to_owned());
        names = names.take().zip(name).map(|(mut names, name)| {
            names.insert(name);
            names
        });
    });
    // It looks at metrics that no selector names.
    let mut is_open = false;
    expr.walk(&mut |e| is_open |= matches!(e, Expr::Call(call) if call.func.name == "info"));
    names.filter(|_| !is_open)
}

/// Says of each rule whether it is independent of all others.
pub(crate) fn independent(rules: &[RuleSpec]) -> Vec<bool> {
    let Some(reads) = rules.iter().map(|rule| rule.reads.as_ref()).collect::<Option<Vec<_>>>() else {
        return vec![false; rules.len()];
    };
    // How many rules write and read each metric.
    let mut metrics: HashMap<&str, (usize, usize)> = HashMap::new();
    for (rule, names) in rules.iter().zip(&reads) {
        writes(rule).iter().for_each(|name| metrics.entry(name).or_default().0 += 1);
        names.iter().for_each(|name| metrics.entry(name).or_default().1 += 1);
    }
    let is_independent = |(rule, names): (&RuleSpec, &&BTreeSet<String>)| {
        let own = writes(rule);
        let is_written = |name: &String| metrics[name.as_str()].0 > usize::from(own.contains(&name.as_str()));
        let is_read = |name: &&str| metrics[name].1 > usize::from(names.contains(*name));
        !names.iter().any(is_written) && !own.iter().any(is_read)
    };
    rules.iter().zip(&reads).map(is_independent).collect()
}

/// The names of the metrics that a rule gives.
fn writes(rule: &RuleSpec) -> Vec<&str> {
    match rule.kind {
        RuleKind::Recording => vec![&rule.name],
        RuleKind::Alerting(_) => vec![ALERTS, ALERTS_FOR_STATE],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::{self, Options};

    #[test]
    fn what_looks_at_others_or_is_looked_at_is_not_independent() {
        for (rules, expected) in [
            ("{record: a, expr: x}, {record: b, expr: y}", vec![true, true]),
            (
                "{record: a, expr: x}, {record: b, expr: 'sum(a)'}, {record: c, expr: y}",
                vec![false, false, true],
            ),
            // Also one that stands before what it looks at, which is then the evaluation before.
            ("{record: b, expr: 'rate(a[5m])'}, {record: a, expr: x}", vec![false, false]),
            ("{record: a, expr: 'x + a offset 1m'}, {record: b, expr: x}", vec![true, true]),
            ("{record: a, expr: 'x'}, {record: b, expr: '{__name__=~\"q.*\"}'}", vec![false, false]),
            ("{record: a, expr: x}, {record: b, expr: 'info(x)'}", vec![false, false]),
            ("{alert: A, expr: x}, {record: b, expr: 'count(ALERTS)'}, {alert: C, expr: y}", vec![false; 3]),
            ("{alert: A, expr: x}, {record: b, expr: y}", vec![true, true]),
            (
                "{alert: A, expr: x, annotations: {s: '{{ query \"b\" }}'}}, {record: b, expr: y}",
                vec![false, false],
            ),
            ("{record: a, expr: '1'}", vec![true]),
        ] {
            let text = format!("groups: [{{name: g, rules: [{rules}]}}]\n");
            let options = Options {
                syntax: promql_syntax::Options::from_features(&["promql-experimental-functions".to_owned()]),
                ..Options::default()
            };
            let file = file::parse(&text, &options).unwrap_or_else(|faults| panic!("{faults:?}"));
            assert_eq!(independent(&file.groups[0].rules), expected, "{rules}");
        }
    }
}
