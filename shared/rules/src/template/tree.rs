//! A parsed template, and its parts as messages show them.

use std::fmt;

use model::number::Quoted;

/// A part of a template that writes or decides.
#[derive(Debug, Clone)]
pub(super) enum Node {
    Text(String),
    Action(Pipe),
    If(Branch),
    Range(Branch),
    With(Branch),
    Call(TemplateCall),
    Break,
    Continue,
}

/// `if`, `range` or `with`.
#[derive(Debug, Clone)]
pub(super) struct Branch {
    pub(super) pipe: Pipe,
    pub(super) body: Vec<Node>,
    pub(super) otherwise: Vec<Node>,
}

/// `{{template "name" pipe}}`.
#[derive(Debug, Clone)]
pub(super) struct TemplateCall {
    pub(super) pos: usize,
    pub(super) name: String,
    pub(super) pipe: Option<Pipe>,
}

/// Commands, each with the value of the one before as its last argument.
#[derive(Debug, Clone, Default)]
pub(super) struct Pipe {
    pub(super) pos: usize,
    /// Variables that take the value, with their dollar signs.
    pub(super) variables: Vec<String>,
    pub(super) is_assignment: bool,
    pub(super) commands: Vec<Command>,
}

#[derive(Debug, Clone)]
pub(super) struct Command {
    pub(super) pos: usize,
    /// Never empty.
    pub(super) arguments: Vec<Argument>,
}

#[derive(Debug, Clone)]
pub(super) struct Argument {
    pub(super) pos: usize,
    pub(super) term: Term,
}

#[derive(Debug, Clone)]
pub(super) enum Term {
    Function(String),
    Dot,
    Nil,
    /// Names, each a field of what stands before it; the first of dot.
    Field(Vec<String>),
    /// The variable, then fields.
    Variable(Vec<String>),
    /// Fields of the value of a term.
    Chain(Box<Argument>, Vec<String>),
    Bool(bool),
    Number(Number),
    /// A string: as written, and what it means.
    Text(String, String),
    Pipe(Pipe),
}

#[derive(Debug, Clone)]
pub(super) struct Number {
    pub(super) text: String,
    pub(super) int: Option<i64>,
    pub(super) float: f64,
}

impl Number {
    /// Says whether a number without a context is a float.
    pub(super) fn is_written_as_float(&self) -> bool {
        !self.text.starts_with('\'') && !self.is_hex() && self.text.contains(['.', 'e', 'E', 'p', 'P'])
    }

    fn is_hex(&self) -> bool {
        let digits = self.text.trim_start_matches(['+', '-']);
        digits.starts_with("0x") && !digits.contains(['p', 'P'])
    }
}

impl fmt::Display for Argument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.term {
            Term::Function(name) => f.write_str(name),
            Term::Dot => f.write_str("."),
            Term::Nil => f.write_str("nil"),
            Term::Field(names) => names.iter().try_for_each(|name| write!(f, ".{name}")),
            Term::Variable(names) => f.write_str(&names.join(".")),
            Term::Chain(base, names) => {
                match &base.term {
                    Term::Pipe(pipe) => write!(f, "({pipe})")?,
                    _ => write!(f, "{base}")?,
                }
                names.iter().try_for_each(|name| write!(f, ".{name}"))
            }
            Term::Bool(value) => write!(f, "{value}"),
            Term::Number(number) => f.write_str(&number.text),
            Term::Text(written, _) => f.write_str(written),
            Term::Pipe(pipe) => write!(f, "{pipe}"),
        }
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, argument) in self.arguments.iter().enumerate() {
            if i > 0 {
                f.write_str(" ")?;
            }
            match &argument.term {
                Term::Pipe(pipe) => write!(f, "({pipe})")?,
                _ => write!(f, "{argument}")?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for Pipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.variables.is_empty() {
            let sign = if self.is_assignment { "=" } else { ":=" };
            write!(f, "{} {sign} ", self.variables.join(", "))?;
        }
        for (i, command) in self.commands.iter().enumerate() {
            if i > 0 {
                f.write_str(" | ")?;
            }
            write!(f, "{command}")?;
        }
        Ok(())
    }
}

impl fmt::Display for TemplateCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{{template {}", Quoted(&self.name))?;
        if let Some(pipe) = &self.pipe {
            write!(f, " {pipe}")?;
        }
        f.write_str("}}")
    }
}
