//! Runs a template, with the texts of Go's `text/template`.

use std::sync::Arc;

use model::number::Quoted;

use super::functions::{self, Found, Function, Type};
use super::parser::Templates;
use super::tree::{Argument, Branch, Command, Node, Number, Pipe, TemplateCall, Term};
use super::value::{Alert, Value};
use super::{Context, TEXT_BYTES_MAX};

/// How many nodes one expansion may visit.
const STEPS_MAX: usize = 1_000_000;
/// How deep templates may call each other.
const CALLS_MAX: usize = 100;

/// Runs the template `name` and returns what it writes.
pub(super) fn run(
    name: &str,
    source: &str,
    templates: &Templates,
    alert: Arc<Alert>,
    context: &mut dyn Context,
) -> Result<String, String> {
    let dot = Value::Alert(alert);
    let mut machine = Machine {
        name,
        template: name,
        source,
        templates,
        context,
        variables: vec![("$".to_owned(), dot.clone())],
        out: String::new(),
        at: None,
        steps: 0,
        calls: 0,
    };
    let body = templates.get(name).map_or(&[][..], Vec::as_slice);
    machine.list(&dot, body)?;
    Ok(machine.out)
}

/// What is being evaluated, for messages.
#[derive(Clone, Copy)]
enum At<'a> {
    Argument(&'a Argument),
    Command(&'a Command),
    Pipe(&'a Pipe),
    Call(&'a TemplateCall),
}

/// How a list ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    On,
    Break,
    Continue,
}

struct Machine<'a> {
    /// The whole text's name.
    name: &'a str,
    /// The name of the template that runs.
    template: &'a str,
    source: &'a str,
    templates: &'a Templates,
    context: &'a mut dyn Context,
    variables: Vec<(String, Value)>,
    out: String,
    at: Option<At<'a>>,
    steps: usize,
    calls: usize,
}

type Run<T> = Result<T, String>;

impl<'a> Machine<'a> {
    fn fail<T>(&self, text: &str) -> Run<T> {
        let Some(at) = self.at else { return Err(format!("template: {}: {text}", self.template)) };
        let (pos, shown) = match at {
            At::Argument(argument) => (argument.pos, argument.to_string()),
            At::Command(command) => (command.pos, command.to_string()),
            At::Pipe(pipe) => (pipe.pos, pipe.to_string()),
            At::Call(call) => (call.pos, call.to_string()),
        };
        let before = &self.source[..pos.min(self.source.len())];
        let line = 1 + before.matches('\n').count();
        let column = before.rfind('\n').map_or(pos, |newline| pos - newline - 1);
        Err(format!(
            "template: {}:{line}:{column}: executing {} at <{shown}>: {text}",
            self.name,
            Quoted(self.template)
        ))
    }

    fn step(&mut self) -> Run<()> {
        self.steps += 1;
        if self.steps > STEPS_MAX { self.fail(&format!("more than {STEPS_MAX} steps")) } else { Ok(()) }
    }

    fn write(&mut self, text: &str) -> Run<()> {
        if self.out.len() + text.len() > TEXT_BYTES_MAX {
            return self.fail(&format!("text of more than {TEXT_BYTES_MAX} bytes"));
        }
        self.out.push_str(text);
        Ok(())
    }

    fn list(&mut self, dot: &Value, nodes: &'a [Node]) -> Run<Flow> {
        for node in nodes {
            self.step()?;
            match node {
                Node::Text(text) => self.write(text)?,
                Node::Action(pipe) => {
                    let value = self.pipe(dot, pipe)?;
                    if pipe.variables.is_empty() {
                        self.write(&value.print())?;
                    }
                }
                Node::If(branch) => match self.condition(dot, branch, false)? {
                    Flow::On => {}
                    flow => return Ok(flow),
                },
                Node::With(branch) => match self.condition(dot, branch, true)? {
                    Flow::On => {}
                    flow => return Ok(flow),
                },
                Node::Range(branch) => self.range(dot, branch)?,
                Node::Call(call) => self.call(dot, call)?,
                Node::Break => return Ok(Flow::Break),
                Node::Continue => return Ok(Flow::Continue),
            }
        }
        Ok(Flow::On)
    }

    fn condition(&mut self, dot: &Value, branch: &'a Branch, is_with: bool) -> Run<Flow> {
        let scope = self.variables.len();
        let value = self.pipe(dot, &branch.pipe)?;
        let flow = if value.is_true() {
            self.list(if is_with { &value } else { dot }, &branch.body)
        } else {
            self.list(dot, &branch.otherwise)
        };
        self.variables.truncate(scope);
        flow
    }

    fn range(&mut self, dot: &Value, branch: &'a Branch) -> Run<()> {
        let scope = self.variables.len();
        let value = self.pipe(dot, &branch.pipe)?;
        let inner = self.variables.len();
        let int = |i: usize| Value::Int(i64::try_from(i).unwrap_or(i64::MAX));
        let items: Vec<(Value, Value)> = match &value {
            Value::Samples(samples) => {
                samples.iter().enumerate().map(|(i, s)| (int(i), Value::Sample(Arc::clone(s)))).collect()
            }
            Value::Labels(map) => {
                map.iter().map(|(n, v)| (Value::text(n.as_str()), Value::text(v.as_str()))).collect()
            }
            Value::Map(map) => map.iter().map(|(n, v)| (Value::text(n.as_str()), v.clone())).collect(),
            Value::Int(n) if usize::try_from(*n).is_ok_and(|n| n > STEPS_MAX) => {
                return self.fail(&format!("more than {STEPS_MAX} steps"));
            }
            Value::Int(n) => (0..*n).map(|i| (Value::Int(i), Value::Int(i))).collect(),
            Value::Nothing => Vec::new(),
            other => return self.fail(&format!("range can't iterate over {}", other.show())),
        };
        if items.is_empty() {
            self.list(dot, &branch.otherwise)?;
        }
        for (index, item) in items {
            self.step()?;
            match &branch.pipe.variables[..] {
                [] => {}
                [only] => self.set(only, item.clone())?,
                [first, second, ..] => {
                    self.set(first, index)?;
                    self.set(second, item.clone())?;
                }
            }
            let flow = self.list(&item, &branch.body)?;
            self.variables.truncate(inner);
            if flow == Flow::Break {
                break;
            }
        }
        self.variables.truncate(scope);
        Ok(())
    }

    /// Gives a loop's variable its next value.
    fn set(&mut self, name: &str, value: Value) -> Run<()> {
        match self.variables.iter_mut().rev().find(|(known, _)| known == name) {
            Some((_, slot)) => *slot = value,
            None => return self.fail(&format!("undefined variable: {name}")),
        }
        Ok(())
    }

    fn call(&mut self, dot: &Value, call: &'a TemplateCall) -> Run<()> {
        self.at = Some(At::Call(call));
        let Some((name, body)) = self.templates.get_key_value(&call.name) else {
            return self.fail(&format!("template {} not defined", Quoted(&call.name)));
        };
        if self.calls == CALLS_MAX {
            return self.fail(&format!("exceeded maximum template depth ({CALLS_MAX})"));
        }
        let argument = match &call.pipe {
            Some(pipe) => self.pipe(dot, pipe)?,
            None => Value::Nothing,
        };
        let outer = std::mem::replace(&mut self.variables, vec![("$".to_owned(), argument.clone())]);
        let caller = std::mem::replace(&mut self.template, name);
        self.calls += 1;
        self.list(&argument, body)?;
        self.calls -= 1;
        (self.variables, self.template) = (outer, caller);
        Ok(())
    }

    fn pipe(&mut self, dot: &Value, pipe: &'a Pipe) -> Run<Value> {
        self.at = Some(At::Pipe(pipe));
        let mut last = None;
        for command in &pipe.commands {
            self.step()?;
            let value = self.command(dot, command, last)?;
            if value.size() > TEXT_BYTES_MAX {
                return self.fail(&format!("text of more than {TEXT_BYTES_MAX} bytes"));
            }
            last = Some(value);
        }
        let value = last.unwrap_or(Value::Nothing);
        for name in &pipe.variables {
            if pipe.is_assignment {
                self.set(name, value.clone())?;
            } else {
                self.variables.push((name.clone(), value.clone()));
            }
        }
        Ok(value)
    }

    fn command(&mut self, dot: &Value, command: &'a Command, last: Option<Value>) -> Run<Value> {
        let first = &command.arguments[0];
        let has_arguments = command.arguments.len() > 1 || last.is_some();
        match &first.term {
            Term::Field(_) | Term::Variable(_) | Term::Chain(..) => self.fields(dot, first, has_arguments),
            Term::Function(name) => self.function(dot, first, name, Some(command), last),
            Term::Pipe(pipe) => {
                self.not_a_function(first, has_arguments)?;
                self.pipe(dot, pipe)
            }
            _ => {
                self.at = Some(At::Argument(first));
                self.not_a_function(first, has_arguments)?;
                match &first.term {
                    Term::Nil => self.fail("nil is not a command"),
                    _ => self.constant(dot, first),
                }
            }
        }
    }

    fn not_a_function(&self, first: &Argument, has_arguments: bool) -> Run<()> {
        if has_arguments {
            return self.fail(&format!("can't give argument to non-function {first}"));
        }
        Ok(())
    }

    /// The value of a term that stands for itself.
    fn constant(&self, dot: &Value, argument: &Argument) -> Run<Value> {
        match &argument.term {
            Term::Dot => Ok(dot.clone()),
            Term::Bool(value) => Ok(Value::Bool(*value)),
            Term::Text(_, meaning) => Ok(Value::text(meaning.as_str())),
            Term::Number(number) => self.number(number),
            _ => Ok(Value::Nothing),
        }
    }

    fn number(&self, number: &Number) -> Run<Value> {
        match number.int {
            Some(int) if !number.is_written_as_float() => Ok(Value::Int(int)),
            _ => Ok(Value::Float(number.float)),
        }
    }

    /// The value of fields: of dot, of a variable, or of another term.
    fn fields(&mut self, dot: &Value, argument: &'a Argument, has_arguments: bool) -> Run<Value> {
        self.at = Some(At::Argument(argument));
        let (mut value, names) = match &argument.term {
            Term::Field(names) => (dot.clone(), &names[..]),
            Term::Variable(names) => (self.variable(&names[0])?, &names[1..]),
            Term::Chain(base, names) => {
                if let Term::Nil = base.term {
                    return self.fail(&format!("indirection through explicit nil in {argument}"));
                }
                let value = self.argument(dot, base, Type::Any)?;
                self.at = Some(At::Argument(argument));
                (value, &names[..])
            }
            _ => return Ok(Value::Nothing),
        };
        if names.is_empty() {
            self.not_a_function(argument, has_arguments)?;
        }
        for (i, name) in names.iter().enumerate() {
            value = self.field(&value, name, has_arguments && i + 1 == names.len())?;
        }
        Ok(value)
    }

    fn variable(&self, name: &str) -> Run<Value> {
        match self.variables.iter().rev().find(|(known, _)| known == name) {
            Some((_, value)) => Ok(value.clone()),
            None => self.fail(&format!("undefined variable: {name}")),
        }
    }

    fn field(&self, of: &Value, name: &str, has_arguments: bool) -> Run<Value> {
        let value = match (of, name) {
            (Value::Nothing, _) => return Ok(Value::Nothing),
            (Value::Labels(map), _) => Value::text(map.get(name).map_or("", String::as_str)),
            (Value::Map(map), _) => map.get(name).cloned().unwrap_or(Value::Nothing),
            (Value::Sample(sample), "Labels") => Value::Labels(Arc::clone(&sample.labels)),
            (Value::Sample(sample), "Value") => Value::Float(sample.value),
            (Value::Alert(alert), "Labels") => alert.labels.clone(),
            (Value::Alert(alert), "ExternalLabels") => alert.external_labels.clone(),
            (Value::Alert(alert), "ExternalURL") => alert.external_url.clone(),
            (Value::Alert(alert), "Value") => alert.value.clone(),
            _ => return self.fail(&format!("can't evaluate field {name} in type {}", of.type_name())),
        };
        if has_arguments {
            let reason = match of {
                Value::Labels(_) | Value::Map(_) => "is not a method but has arguments",
                _ => "has arguments but cannot be invoked as function",
            };
            return self.fail(&format!("{name} {reason}"));
        }
        Ok(value)
    }

    fn function(
        &mut self,
        dot: &Value,
        word: &'a Argument,
        name: &str,
        command: Option<&'a Command>,
        last: Option<Value>,
    ) -> Run<Value> {
        self.at = Some(At::Argument(word));
        let arguments = command.map_or(&[][..], |command| &command.arguments[1..]);
        match functions::find(name) {
            Some(Found::Function(function)) => {
                let node = command.map_or(At::Argument(word), At::Command);
                self.invoke(dot, function, name, (node, arguments), last)
            }
            Some(Found::And) => self.choose(dot, name, arguments, last, false),
            Some(Found::Or) => self.choose(dot, name, arguments, last, true),
            None => self.fail(&format!("{} is not a defined function", Quoted(name))),
        }
    }

    /// `and` and `or`: the first argument that decides, or the last.
    fn choose(
        &mut self,
        dot: &Value,
        name: &str,
        arguments: &'a [Argument],
        last: Option<Value>,
        decides: bool,
    ) -> Run<Value> {
        if arguments.is_empty() && last.is_none() {
            return self.fail(&format!("wrong number of args for {name}: want at least 1 got 0"));
        }
        let mut value = Value::Nothing;
        for argument in arguments {
            value = self.argument(dot, argument, Type::Any)?;
            if value.is_true() == decides {
                return Ok(value);
            }
        }
        Ok(last.unwrap_or(value))
    }

    fn invoke(
        &mut self,
        dot: &Value,
        function: &Function,
        name: &str,
        (node, arguments): (At<'a>, &'a [Argument]),
        last: Option<Value>,
    ) -> Run<Value> {
        let count = arguments.len() + usize::from(last.is_some());
        let wanted = function.parameters.len();
        if function.rest.is_some() && count < wanted {
            return self
                .fail(&format!("wrong number of args for {name}: want at least {wanted} got {count}"));
        }
        if function.rest.is_none() && count != wanted {
            return self.fail(&format!("wrong number of args for {name}: want {wanted} got {count}"));
        }
        let kind = |i: usize| function.parameters.get(i).copied().or(function.rest).unwrap_or(Type::Any);
        let mut values = Vec::with_capacity(count);
        for (i, argument) in arguments.iter().enumerate() {
            values.push(self.argument(dot, argument, kind(i))?);
        }
        if let Some(last) = last {
            values.push(self.check(last, kind(arguments.len()))?);
        }
        match (function.run)(self.context, &values) {
            Ok(value) => Ok(value),
            Err(error) => {
                self.at = Some(node);
                self.fail(&format!("error calling {name}: {error}"))
            }
        }
    }

    fn argument(&mut self, dot: &Value, argument: &'a Argument, wanted: Type) -> Run<Value> {
        self.step()?;
        self.at = Some(At::Argument(argument));
        let value = match &argument.term {
            Term::Nil if wanted == Type::Text => {
                return self.fail(&format!("cannot assign nil to {}", wanted.name()));
            }
            Term::Nil => return Ok(Value::Nothing),
            Term::Field(_) | Term::Variable(_) | Term::Chain(..) => self.fields(dot, argument, false)?,
            Term::Pipe(pipe) => self.pipe(dot, pipe)?,
            Term::Function(name) => self.function(dot, argument, name, None, None)?,
            Term::Bool(_) | Term::Number(_) | Term::Text(..) => match (wanted, &argument.term) {
                (Type::Any, _) | (Type::Text, Term::Text(..)) => return self.constant(dot, argument),
                (Type::Text, _) => return self.fail(&format!("expected string; found {argument}")),
                _ => return self.fail(&format!("can't handle {argument} for arg of type {}", wanted.name())),
            },
            Term::Dot => dot.clone(),
        };
        self.check(value, wanted)
    }

    fn check(&self, value: Value, wanted: Type) -> Run<Value> {
        match value {
            value if wanted.accepts(&value) => Ok(value),
            Value::Nothing if wanted == Type::Text => {
                self.fail(&format!("invalid value; expected {}", wanted.name()))
            }
            Value::Nothing if wanted == Type::Samples => Ok(Value::Samples(Arc::from([]))),
            value => self.fail(&format!(
                "wrong type for value; expected {}; got {}",
                wanted.name(),
                value.type_name()
            )),
        }
    }
}
