//! The script language: lines to commands. What a command means is `run`'s business.

use std::time::Duration;

use model::Labels;
use model::time::parse_duration;
use promql_syntax::{
    Expr, Options, SequenceValue, UnaryOp, parse_expr, parse_series_description, parse_start_timestamps,
};

/// A command with the line it stands on.
#[derive(Debug)]
pub(crate) struct Command {
    pub(crate) line: usize,
    pub(crate) action: Action,
}

#[derive(Debug)]
pub(crate) enum Action {
    Clear,
    Load(Load),
    Eval(Box<Eval>),
}

/// The series that a `load` or `load_with_nhcb` names.
#[derive(Debug)]
pub struct Load {
    pub(crate) interval_ms: i64,
    pub(crate) converts_classic: bool,
    pub(crate) series: Vec<LoadSeries>,
}

/// One series of a load.
#[derive(Debug)]
pub struct LoadSeries {
    pub(crate) labels: Labels,
    pub(crate) values: Vec<SequenceValue>,
    /// Offsets from the samples' times.
    pub(crate) starts: Option<Vec<Option<i64>>>,
}

#[derive(Debug)]
pub(crate) struct Eval {
    pub(crate) query: String,
    pub(crate) when: When,
    pub(crate) fail: Option<Option<TextMatch>>,
    pub(crate) warnings: Notes,
    pub(crate) infos: Notes,
    pub(crate) is_ordered: bool,
    pub(crate) result: Expected,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum When {
    Instant(i64),
    Range { start: i64, end: i64, step: i64 },
}

#[derive(Debug)]
pub(crate) enum TextMatch {
    Exact(String),
    Pattern(regex::Regex),
}

impl TextMatch {
    pub(crate) fn is_match(&self, text: &str) -> bool {
        match self {
            Self::Exact(expected) => expected == text,
            Self::Pattern(pattern) => pattern.is_match(text),
        }
    }
}

/// What is expected of one level of annotations.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    /// Each stands for at least one annotation; `None` for any.
    pub(crate) wanted: Vec<Option<TextMatch>>,
    pub(crate) is_forbidden: bool,
}

#[derive(Debug)]
pub(crate) enum Expected {
    Series(Vec<(Labels, Vec<SequenceValue>)>),
    Scalar(f64),
    Text(String),
    RangeVector { start: i64, end: i64, step: i64, series: Vec<(Labels, Vec<SequenceValue>)> },
}

type Failure = (usize, String);

/// Reads a script. A broken command is a failure at its line; the rest is read nevertheless.
pub(crate) fn parse(text: &str) -> (Vec<Command>, Vec<Failure>) {
    let lines: Vec<&str> = text.split('\n').map(str::trim).collect();
    let is_blank = |line: &str| line.is_empty() || line.starts_with('#');
    let (mut commands, mut failures) = (Vec::new(), Vec::new());
    let mut next = 0;
    while next < lines.len() {
        if is_blank(lines[next]) {
            next += 1;
            continue;
        }
        let start = next;
        let end = lines[start..].iter().position(|l| is_blank(l)).map_or(lines.len(), |n| start + n);
        let mut block = Block { lines: &lines[..end], next: start + 1 };
        match block.command(lines[start]) {
            Ok(action) => {
                commands.push(Command { line: start + 1, action });
                next = block.next;
            }
            Err(message) => {
                failures.push((block.next, message));
                next = end;
            }
        }
    }
    (commands, failures)
}

/// The lines of one command.
struct Block<'a> {
    lines: &'a [&'a str],
    next: usize,
}

type Parse<T> = Result<T, String>;

impl Block<'_> {
    fn command(&mut self, line: &str) -> Parse<Action> {
        let word = line.split_whitespace().next().unwrap_or_default().to_lowercase();
        if word == "clear" {
            return Ok(Action::Clear);
        }
        if word.starts_with("load") {
            return self.load(line, &word).map(Action::Load);
        }
        if word.starts_with("eval") {
            return self.eval(line, &word).map(|eval| Action::Eval(Box::new(eval)));
        }
        Err(format!("invalid command {line:?}"))
    }

    fn line(&mut self) -> Option<String> {
        let line = self.lines.get(self.next)?;
        self.next += 1;
        Some((*line).to_owned())
    }

    fn load(&mut self, line: &str, word: &str) -> Parse<Load> {
        let interval = line.split_whitespace().nth(1).ok_or("a load has an interval")?;
        let mut load = Load {
            interval_ms: milliseconds(interval)?,
            converts_classic: word == "load_with_nhcb",
            series: Vec::new(),
        };
        let mut starts: Option<Vec<Option<i64>>> = None;
        while let Some(line) = self.line() {
            if let Some((_, offsets)) = parse_start_timestamps(&line).map_err(|e| format!("{line}: {e}"))? {
                starts = Some(offsets);
                continue;
            }
            let (labels, values) = parse_series_description(&line).map_err(|e| format!("{line}: {e}"))?;
            let starts = starts.take();
            if starts.as_ref().is_some_and(|s| s.len() != values.len()) {
                return Err(format!("{labels}: as many start timestamps as values are needed"));
            }
            load.series.push(LoadSeries { labels, values, starts });
        }
        Ok(load)
    }

    fn eval(&mut self, line: &str, word: &str) -> Parse<Eval> {
        let rest = line[word.len()..].trim_start();
        let (when, query) = when(rest)?;
        parse_expr(query, &Options::all()).map_err(|e| format!("{query}: {e}"))?;
        let mut eval = Eval {
            query: query.to_owned(),
            when,
            fail: None,
            warnings: Notes::default(),
            infos: Notes::default(),
            is_ordered: word == "eval_ordered",
            result: Expected::Series(Vec::new()),
        };
        match word {
            "eval" | "eval_ordered" => {}
            "eval_fail" => eval.fail = Some(None),
            "eval_warn" => eval.warnings.wanted.push(None),
            "eval_info" => eval.infos.wanted.push(None),
            _ => return Err(format!("invalid command {word:?}")),
        }
        let mut series = Vec::new();
        while let Some(line) = self.line() {
            if let Some(text) = line.strip_prefix("expected_fail_message") {
                eval.fail = Some(Some(TextMatch::Exact(text.trim().to_owned())));
                break;
            }
            if let Some(text) = line.strip_prefix("expected_fail_regexp") {
                eval.fail = Some(Some(pattern(text.trim())?));
                break;
            }
            if line.split_whitespace().next() == Some("expect") {
                expectation(&mut eval, line["expect".len()..].trim())?;
                continue;
            }
            if let Some(number) = number(&line) {
                eval.result = Expected::Scalar(number);
                break;
            }
            series.push(parse_series_description(&line).map_err(|e| format!("{line}: {e}"))?);
        }
        match &mut eval.result {
            Expected::Series(expected) | Expected::RangeVector { series: expected, .. } => *expected = series,
            Expected::Scalar(_) | Expected::Text(_) => {}
        }
        Ok(eval)
    }
}

fn when(rest: &str) -> Parse<(When, &str)> {
    let mut rest = rest;
    let mut word = |expected: &str| -> Parse<&str> {
        let (word, after) = rest.split_once(char::is_whitespace).ok_or("an eval names times and a query")?;
        rest = after.trim_start();
        if !expected.is_empty() && word != expected {
            return Err(format!("expected {expected:?}, got {word:?}"));
        }
        Ok(word)
    };
    if word("")? == "instant" {
        word("at")?;
        let time = milliseconds(word("")?)?;
        return Ok((When::Instant(time), rest));
    }
    word("from")?;
    let start = milliseconds(word("")?)?;
    word("to")?;
    let end = milliseconds(word("")?)?;
    word("step")?;
    let step = milliseconds(word("")?)?;
    Ok((When::Range { start, end, step }, rest))
}

fn expectation(eval: &mut Eval, text: &str) -> Parse<()> {
    let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let rest = rest.trim();
    match word {
        "fail" => eval.fail = Some(text_match(rest)?),
        "warn" => eval.warnings.wanted.push(text_match(rest)?),
        "info" => eval.infos.wanted.push(text_match(rest)?),
        "no_warn" => eval.warnings.is_forbidden = true,
        "no_info" => eval.infos.is_forbidden = true,
        "ordered" => eval.is_ordered = true,
        "string" => match parse_expr(rest, &Options::all()).map_err(|e| e.to_string())? {
            Expr::StringLiteral(literal) => eval.result = Expected::Text(literal.value),
            _ => return Err(format!("expected a string, got {rest}")),
        },
        "range" => {
            let words: Vec<&str> = rest.split_whitespace().collect();
            let ["vector", "from", start, "to", end, "step", step] = *words else {
                return Err(format!("invalid expectation {text:?}"));
            };
            let (start, end) = (milliseconds(start)?, milliseconds(end)?);
            let step = milliseconds(step)?;
            eval.result = Expected::RangeVector { start, end, step, series: Vec::new() };
        }
        _ => return Err(format!("invalid expectation {text:?}")),
    }
    Ok(())
}

fn text_match(text: &str) -> Parse<Option<TextMatch>> {
    if let Some(exact) = text.strip_prefix("msg:") {
        return Ok(Some(TextMatch::Exact(exact.trim().to_owned())));
    }
    if let Some(regex) = text.strip_prefix("regex:") {
        return pattern(regex.trim()).map(Some);
    }
    if text.is_empty() { Ok(None) } else { Err(format!("invalid expectation {text:?}")) }
}

fn pattern(text: &str) -> Parse<TextMatch> {
    regex::Regex::new(text).map(TextMatch::Pattern).map_err(|e| e.to_string())
}

fn milliseconds(text: &str) -> Parse<i64> {
    let duration: Duration = parse_duration(text).map_err(|e| e.to_string())?;
    i64::try_from(duration.as_millis()).map_err(|e| e.to_string())
}

/// Reads a line that is a number and nothing else.
fn number(line: &str) -> Option<f64> {
    match parse_expr(line, &Options::all()).ok()? {
        Expr::NumberLiteral(literal) => Some(literal.value),
        Expr::Unary(unary) => match *unary.expr {
            Expr::NumberLiteral(literal) if unary.op == UnaryOp::Minus => Some(-literal.value),
            Expr::NumberLiteral(literal) => Some(literal.value),
            _ => None,
        },
        _ => None,
    }
}
