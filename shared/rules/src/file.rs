//! Rule files: what they hold, and what the reference says of one that is wrong.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use model::Labels;
use model::labels::METRIC_NAME;
use model::number::Quoted;
use promql_syntax::{Expr, parse_expr};
use relabel::NameValidation;
use yaml_tree::{Content, Node};

use crate::dependency::reads;
use crate::strict::{Dialect, Reader};
use crate::template::Template;

/// How a rule file is read.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Which label names are valid.
    pub validation: NameValidation,
    /// Which parts of PromQL are on.
    pub syntax: promql_syntax::Options,
    /// Fields that nobody knows are passed over.
    pub ignore_unknown_fields: bool,
}

/// The groups of a file.
#[derive(Debug, Clone, Default)]
pub struct RuleFile {
    /// In file order; names are unique.
    pub groups: Vec<GroupSpec>,
}

/// A group as its file has it.
#[derive(Debug, Clone)]
pub struct GroupSpec {
    /// The name.
    pub name: String,
    /// How often it is evaluated; `None` is the global interval.
    pub interval: Option<Duration>,
    /// How long before its time it looks; `None` is the global offset.
    pub query_offset: Option<Duration>,
    /// Most series or alerts that a rule may give; 0 is no limit.
    pub limit: usize,
    /// The rules in order.
    pub rules: Vec<RuleSpec>,
}

/// A rule as its file has it, the labels of its group included.
#[derive(Debug, Clone)]
pub struct RuleSpec {
    /// The name of the series or of the alert.
    pub name: String,
    /// What is evaluated, in its standard form.
    pub expr: String,
    /// The labels that are set on what it gives; those of an alert are templates.
    pub labels: Labels,
    /// What the rule is for.
    pub kind: RuleKind,
    /// The names of the metrics that it looks at; `None` when it may look at any.
    pub(crate) reads: Option<BTreeSet<String>>,
}

/// What a rule is for.
#[derive(Debug, Clone)]
pub enum RuleKind {
    /// It records series.
    Recording,
    /// It alerts.
    Alerting(AlertSpec),
}

/// What is special to an alerting rule.
#[derive(Debug, Clone)]
pub struct AlertSpec {
    /// How long the condition has to hold before the alert fires.
    pub hold: Duration,
    /// How long the alert goes on firing when the condition does not hold any more.
    pub keep_firing: Duration,
    /// Templates that say what is wrong.
    pub annotations: Labels,
    pub(crate) label_templates: Vec<(String, Template)>,
    pub(crate) annotation_templates: Vec<(String, Template)>,
}

impl GroupSpec {
    /// Says whether two specifications evaluate the same: then the state of one goes on in the other.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let same = |(a, b): (&RuleSpec, &RuleSpec)| {
            let timing = |rule: &RuleSpec| match &rule.kind {
                RuleKind::Recording => None,
                RuleKind::Alerting(a) => Some((a.hold, a.keep_firing, a.annotations.clone())),
            };
            (&a.name, &a.expr, &a.labels, timing(a)) == (&b.name, &b.expr, &b.labels, timing(b))
        };
        (&self.name, self.interval, self.query_offset, self.limit)
            == (&other.name, other.interval, other.query_offset, other.limit)
            && self.rules.len() == other.rules.len()
            && self.rules.iter().zip(&other.rules).all(same)
    }
}

/// Reads a rule file.
///
/// # Errors
/// Everything wrong with it, in the reference's words, without the file's name.
pub fn parse(text: &str, options: &Options) -> Result<RuleFile, Vec<String>> {
    // The reference reads a file twice: for what it says, and for where it says so. What is wrong is told twice.
    let mut faults = Vec::new();
    let root = match yaml_tree::parse(text) {
        Ok(root) => root,
        Err(fault) => return Err(vec![fault.clone(), fault]),
    };
    let Some(root) = root else { return Ok(RuleFile::default()) };
    let mut reader = Reader::new(Dialect::V3, !options.ignore_unknown_fields);
    let groups = read(&mut reader, &root, &VALUES);
    faults.extend(reader.finish().err());
    let mut reader = Reader::new(Dialect::V3, false);
    read(&mut reader, &root, &PLACES);
    faults.extend(reader.finish().err());
    if !faults.is_empty() {
        return Err(faults);
    }
    let mut names = HashSet::new();
    let mut out = RuleFile::default();
    for group in groups {
        // The reference has no place for a group.
        if group.name.is_empty() {
            faults.push("0:0: Groupname must not be empty".to_owned());
        }
        if !names.insert(group.name.clone()) {
            faults.push(format!("0:0: groupname: \"{}\" is repeated in the same file", group.name));
        }
        for name in group.labels.keys().filter(|name| !is_label_name(options.validation, name)) {
            faults.push(format!("invalid label name: {name}"));
        }
        let mut rules = Vec::with_capacity(group.rules.len());
        for (i, raw) in group.rules.iter().enumerate() {
            match raw.check(&group.labels, options) {
                Ok(rule) => rules.push(rule),
                Err(of_rule) => {
                    let name = if raw.alert.text.is_empty() { &raw.record.text } else { &raw.alert.text };
                    let whose = format!("group {}, rule {}, {}", Quoted(&group.name), i + 1, Quoted(name));
                    faults
                        .extend(of_rule.into_iter().map(|(place, fault)| format!("{place}{whose}: {fault}")));
                }
            }
        }
        out.groups.push(GroupSpec {
            name: group.name,
            interval: group.interval.filter(|interval| !interval.is_zero()),
            query_offset: group.query_offset,
            limit: usize::try_from(group.limit).unwrap_or(0),
            rules,
        });
    }
    if faults.is_empty() { Ok(out) } else { Err(faults) }
}

fn is_label_name(validation: NameValidation, name: &str) -> bool {
    validation.is_label_name(name) && name != METRIC_NAME
}

/// How one of the two readings names its types, and whether it takes the parts of a rule as they are.
struct Reading {
    file: &'static str,
    group: &'static str,
    rule: &'static str,
    takes_any_node: bool,
}

const VALUES: Reading = Reading {
    file: "rulefmt.RuleGroups",
    group: "rulefmt.RuleGroup",
    rule: "rulefmt.Rule",
    takes_any_node: false,
};
const PLACES: Reading = Reading {
    file: "rulefmt.ruleGroups",
    group: "rulefmt.RuleGroupNode",
    rule: "rulefmt.RuleNode",
    takes_any_node: true,
};

#[derive(Default)]
struct RawGroup {
    name: String,
    interval: Option<Duration>,
    query_offset: Option<Duration>,
    limit: i64,
    rules: Vec<RawRule>,
    labels: BTreeMap<String, String>,
}

#[derive(Default)]
struct RawRule {
    record: Placed,
    alert: Placed,
    expr: Placed,
    hold: Duration,
    keep_firing: Duration,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
}

/// A text and where it stands: line and column, 0 where it is absent.
#[derive(Default)]
struct Placed {
    text: String,
    at: (usize, usize),
}

fn read(reader: &mut Reader, root: &Node, reading: &Reading) -> Vec<RawGroup> {
    let Some(file) = reader.section(root, reading.file, &["groups"]) else { return Vec::new() };
    let groups = reader.list(file.get("groups").copied(), &format!("[]{}", reading.group));
    groups.iter().map(|node| read_group(reader, node, reading).unwrap_or_default()).collect()
}

fn read_group(reader: &mut Reader, node: &Node, reading: &Reading) -> Option<RawGroup> {
    let known = ["name", "interval", "query_offset", "limit", "rules", "labels"];
    let fields = reader.section(node, reading.group, &known)?;
    let field = |name| fields.get(name).copied();
    let rules = reader.list(field("rules"), &format!("[]{}", reading.rule));
    Some(RawGroup {
        name: reader.string(field("name")),
        interval: reader.duration(field("interval")),
        query_offset: reader.duration(field("query_offset")),
        limit: reader.integer(field("limit")),
        labels: reader.strings(field("labels")),
        rules: rules.iter().map(|node| read_rule(reader, node, reading).unwrap_or_default()).collect(),
    })
}

fn read_rule(reader: &mut Reader, node: &Node, reading: &Reading) -> Option<RawRule> {
    let known = ["record", "alert", "expr", "for", "keep_firing_for", "labels", "annotations"];
    let fields = reader.section(node, reading.rule, &known)?;
    let field = |name| fields.get(name).copied();
    Some(RawRule {
        record: placed(reader, field("record"), reading),
        alert: placed(reader, field("alert"), reading),
        expr: placed(reader, field("expr"), reading),
        hold: reader.duration(field("for")).unwrap_or_default(),
        keep_firing: reader.duration(field("keep_firing_for")).unwrap_or_default(),
        labels: reader.strings(field("labels")),
        annotations: reader.strings(field("annotations")),
    })
}

fn placed(reader: &mut Reader, node: Option<&Node>, reading: &Reading) -> Placed {
    let Some(node) = node else { return Placed::default() };
    let is_scalar = matches!(node.content, Content::Scalar(_));
    let text = if reading.takes_any_node && !is_scalar { String::new() } else { reader.string(Some(node)) };
    Placed { text, at: (node.line, node.column) }
}

/// A fault and the place that is told before it.
type Fault = (String, String);

impl RawRule {
    /// Checks the rule as the reference does and makes it one that can be evaluated.
    fn check(&self, of_group: &BTreeMap<String, String>, options: &Options) -> Result<RuleSpec, Vec<Fault>> {
        let mut faults = Vec::new();
        let place = |placed: &Placed| format!("{}:{}: ", placed.at.0, placed.at.1);
        let both = || place(&self.record) + &place(&self.alert);
        match (self.record.text.is_empty(), self.alert.text.is_empty()) {
            (false, false) => {
                faults.push((both(), "only one of 'record' and 'alert' must be set".to_owned()));
            }
            (true, true) => faults.push((both(), "one of 'record' or 'alert' must be set".to_owned())),
            _ => {}
        }
        let (expr, reads) = self.expression(options).unwrap_or_else(|fault| {
            faults.push((place(&self.expr), fault));
            Default::default()
        });
        // A template may ask for anything.
        let has_queries = self.labels.values().chain(self.annotations.values()).any(|t| t.contains("query"));
        if !self.record.text.is_empty() {
            let of_record = self.record_faults(options.validation);
            faults.extend(of_record.into_iter().map(|fault| (place(&self.record), fault)));
        }
        for name in self.labels.keys().filter(|name| !is_label_name(options.validation, name)) {
            faults.push((String::new(), format!("invalid label name: {name}")));
        }
        for name in self.annotations.keys().filter(|name| !options.validation.is_label_name(name)) {
            faults.push((String::new(), format!("invalid annotation name: {name}")));
        }
        let mut labels = of_group.clone();
        labels.extend(self.labels.iter().map(|(name, value)| (name.clone(), value.clone())));
        let spec = |kind| RuleSpec {
            name: if self.alert.text.is_empty() { self.record.text.clone() } else { self.alert.text.clone() },
            expr,
            labels: Labels::from_pairs(&labels),
            kind,
            reads: reads.filter(|_| !has_queries),
        };
        if self.alert.text.is_empty() {
            return if faults.is_empty() { Ok(spec(RuleKind::Recording)) } else { Err(faults) };
        }
        // The labels of the group as well: the reference finds what is wrong with those only when it evaluates.
        let mut parse = |what: &str, texts: &BTreeMap<String, String>| {
            let mut templates = Vec::with_capacity(texts.len());
            for (name, text) in texts {
                match Template::parse(&self.alert.text, text) {
                    Ok(template) => templates.push((name.clone(), template)),
                    Err(fault) => faults.push((String::new(), format!("{what} {}: {fault}", Quoted(name)))),
                }
            }
            templates
        };
        let label_templates = parse("label", &labels);
        let annotation_templates = parse("annotation", &self.annotations);
        if !faults.is_empty() {
            return Err(faults);
        }
        Ok(spec(RuleKind::Alerting(AlertSpec {
            hold: self.hold,
            keep_firing: self.keep_firing,
            annotations: Labels::from_pairs(&self.annotations),
            label_templates,
            annotation_templates,
        })))
    }

    /// The expression in its standard form, and what it looks at.
    fn expression(&self, options: &Options) -> Result<(String, Option<BTreeSet<String>>), String> {
        if self.expr.text.is_empty() {
            return Err("field 'expr' must be set in rule".to_owned());
        }
        let parsed: Result<Expr, _> = parse_expr(&self.expr.text, &options.syntax);
        parsed
            .map(|expr| (expr.to_string(), reads(&expr)))
            .map_err(|error| format!("could not parse expression: {error}"))
    }

    fn record_faults(&self, validation: NameValidation) -> Vec<String> {
        let name = &self.record.text;
        let mut faults = Vec::new();
        let fields = [
            ("annotations", !self.annotations.is_empty()),
            ("for", !self.hold.is_zero()),
            ("keep_firing_for", !self.keep_firing.is_zero()),
        ];
        for (field, _) in fields.into_iter().filter(|(_, is_set)| *is_set) {
            faults.push(format!("invalid field '{field}' in recording rule"));
        }
        if validation == NameValidation::Legacy && !model::labels::is_legacy_metric_name(name) {
            faults.push(format!("invalid recording rule name: {name}"));
        }
        if name.contains(['{', '}']) {
            faults.push(format!("braces present in the recording rule name; should it be in expr?: {name}"));
        }
        faults
    }
}

#[cfg(test)]
mod tests;
