//! Tokens to a tree, with the texts of Go's `text/template/parse`.

use std::collections::BTreeMap;

use model::number::Quoted;

use super::functions;
use super::lexer::{Kind, Token, tokens};
use super::literal;
use super::tree::{Argument, Branch, Command, Node, Number, Pipe, TemplateCall, Term};

/// How deep parentheses and branches may nest.
pub(super) const DEPTH_MAX: usize = 100;

/// The templates of a text by name: the text itself and what it defines.
pub(super) type Templates = BTreeMap<String, Vec<Node>>;

/// Parses a text.
pub(super) fn parse(name: &str, text: &str) -> Result<Templates, String> {
    let mut parser = Parser {
        name,
        tokens: tokens(text),
        next: 0,
        variables: vec!["$".to_owned()],
        range_depth: 0,
        depth: 0,
        action_line: 0,
        templates: Templates::new(),
    };
    let main = parser.text()?;
    parser.templates.insert(name.to_owned(), main);
    Ok(parser.templates)
}

struct Parser<'a> {
    name: &'a str,
    tokens: Vec<Token>,
    next: usize,
    /// Variables in scope, innermost last.
    variables: Vec<String>,
    range_depth: usize,
    depth: usize,
    /// The line on which the action begins; 0 outside of one.
    action_line: usize,
    templates: Templates,
}

type Parse<T> = Result<T, String>;

/// How a list ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ListEnd {
    End,
    Else,
}

impl ListEnd {
    const fn as_str(self) -> &'static str {
        match self {
            Self::End => "{{end}}",
            Self::Else => "{{else}}",
        }
    }
}

enum Item {
    Node(Node),
    Ended(ListEnd),
}

/// The list of a branch and how it ended.
type List = (Vec<Node>, ListEnd);

impl Parser<'_> {
    fn peek_any(&self) -> &Token {
        &self.tokens[self.next.min(self.tokens.len() - 1)]
    }

    fn take_any(&mut self) -> Token {
        let token = self.peek_any().clone();
        self.next = (self.next + 1).min(self.tokens.len());
        token
    }

    fn skip_spaces(&mut self) {
        while self.peek_any().kind == Kind::Space {
            self.next += 1;
        }
    }

    fn peek(&mut self) -> &Token {
        self.skip_spaces();
        self.peek_any()
    }

    fn take(&mut self) -> Token {
        self.skip_spaces();
        self.take_any()
    }

    fn fail<T>(&self, text: &str) -> Parse<T> {
        let seen = self.next.saturating_sub(1).min(self.tokens.len() - 1);
        Err(format!("template: {}:{}: {text}", self.name, self.tokens[seen].line))
    }

    fn unexpected<T>(&self, token: &Token, context: &str) -> Parse<T> {
        if token.kind != Kind::Error {
            return self.fail(&format!("unexpected {} in {context}", token.describe()));
        }
        let mut extra = String::new();
        if self.action_line != 0 && self.action_line != token.line {
            extra = format!(" in action started at {}:{}", self.name, self.action_line);
            if token.text.ends_with(" action") {
                extra = extra.replacen(" in action", "", 1);
            }
        }
        self.fail(&format!("{}{extra}", token.text))
    }

    fn expect(&mut self, kind: Kind, context: &str) -> Parse<Token> {
        let token = self.take();
        if token.kind == kind { Ok(token) } else { self.unexpected(&token, context) }
    }

    fn deeper(&mut self) -> Parse<()> {
        self.depth += 1;
        if self.depth > DEPTH_MAX { self.fail("max expression depth exceeded") } else { Ok(()) }
    }

    /// The whole text.
    fn text(&mut self) -> Parse<Vec<Node>> {
        let mut nodes = Vec::new();
        while self.peek_any().kind != Kind::Eof {
            if self.peek_any().kind == Kind::LeftDelim {
                let start = self.next;
                self.take_any();
                if self.take().kind == Kind::Define {
                    self.definition()?;
                    continue;
                }
                self.next = start;
            }
            match self.item()? {
                Item::Node(node) => nodes.push(node),
                Item::Ended(end) => return self.fail(&format!("unexpected {}", end.as_str())),
            }
        }
        Ok(nodes)
    }

    fn definition(&mut self) -> Parse<()> {
        const CONTEXT: &str = "define clause";
        let token = self.take();
        let name = self.string(&token, CONTEXT)?;
        self.expect(Kind::RightDelim, CONTEXT)?;
        self.separate(name, CONTEXT)
    }

    /// Reads the body of a template of its own, which sees no variables.
    fn separate(&mut self, name: String, context: &str) -> Parse<()> {
        let outer = std::mem::replace(&mut self.variables, vec!["$".to_owned()]);
        let range_depth = std::mem::take(&mut self.range_depth);
        let (body, end) = self.list()?;
        if end != ListEnd::End {
            return self.fail(&format!("unexpected {} in {context}", end.as_str()));
        }
        (self.variables, self.range_depth) = (outer, range_depth);
        self.templates.insert(name, body);
        Ok(())
    }

    fn list(&mut self) -> Parse<List> {
        let mut nodes = Vec::new();
        while self.peek().kind != Kind::Eof {
            match self.item()? {
                Item::Node(node) => nodes.push(node),
                Item::Ended(end) => return Ok((nodes, end)),
            }
        }
        // The token looked at counts as seen.
        self.next = self.tokens.len();
        self.fail("unexpected EOF")
    }

    fn item(&mut self) -> Parse<Item> {
        let token = self.take();
        match token.kind {
            Kind::Text => Ok(Item::Node(Node::Text(token.text))),
            Kind::LeftDelim => {
                self.action_line = token.line;
                let action = self.action()?;
                self.action_line = 0;
                Ok(action)
            }
            _ => self.unexpected(&token, "input"),
        }
    }

    fn action(&mut self) -> Parse<Item> {
        let start = self.next;
        let token = self.take();
        let node = match token.kind {
            Kind::Block => self.block()?,
            Kind::Break => self.leave_range("break", Node::Break)?,
            Kind::Continue => self.leave_range("continue", Node::Continue)?,
            Kind::Else => {
                // `else if` and `else with` go on in the branch.
                if !matches!(self.peek().kind, Kind::If | Kind::With) {
                    self.expect(Kind::RightDelim, "else")?;
                }
                return Ok(Item::Ended(ListEnd::Else));
            }
            Kind::End => {
                self.expect(Kind::RightDelim, "end")?;
                return Ok(Item::Ended(ListEnd::End));
            }
            Kind::If => Node::If(self.branch("if")?),
            Kind::Range => Node::Range(self.branch("range")?),
            Kind::With => Node::With(self.branch("with")?),
            Kind::Template => self.template_call()?,
            _ => {
                self.next = start;
                Node::Action(self.pipeline("command", Kind::RightDelim)?)
            }
        };
        Ok(Item::Node(node))
    }

    fn leave_range(&mut self, word: &str, node: Node) -> Parse<Node> {
        let token = self.take();
        if token.kind != Kind::RightDelim {
            return self.unexpected(&token, &format!("{{{{{word}}}}}"));
        }
        if self.range_depth == 0 {
            return self.fail(&format!("{{{{{word}}}}} outside {{{{range}}}}"));
        }
        Ok(node)
    }

    fn string(&mut self, token: &Token, context: &str) -> Parse<String> {
        match token.kind {
            Kind::Str | Kind::RawStr => literal::unquote(&token.text).or_else(|e| self.fail(&e)),
            _ => self.unexpected(token, context),
        }
    }

    fn block(&mut self) -> Parse<Node> {
        const CONTEXT: &str = "block clause";
        let token = self.take();
        let name = self.string(&token, CONTEXT)?;
        let pipe = self.pipeline(CONTEXT, Kind::RightDelim)?;
        self.deeper()?;
        self.separate(name.clone(), CONTEXT)?;
        self.depth -= 1;
        Ok(Node::Call(TemplateCall { pos: token.pos, name, pipe: Some(pipe) }))
    }

    fn template_call(&mut self) -> Parse<Node> {
        const CONTEXT: &str = "template clause";
        let token = self.take();
        let name = self.string(&token, CONTEXT)?;
        let pipe = if self.peek().kind == Kind::RightDelim {
            self.take();
            None
        } else {
            Some(self.pipeline(CONTEXT, Kind::RightDelim)?)
        };
        Ok(Node::Call(TemplateCall { pos: token.pos, name, pipe }))
    }

    fn branch(&mut self, word: &str) -> Parse<Branch> {
        self.deeper()?;
        let scope = self.variables.len();
        let pipe = self.pipeline(word, Kind::RightDelim)?;
        let is_range = word == "range";
        self.range_depth += usize::from(is_range);
        let (body, end) = self.list()?;
        self.range_depth -= usize::from(is_range);
        let mut otherwise = Vec::new();
        if end == ListEnd::Else {
            let follows = self.peek().kind;
            if word == "if" && follows == Kind::If {
                self.take();
                otherwise.push(Node::If(self.branch("if")?));
            } else if word == "with" && follows == Kind::With {
                self.take();
                otherwise.push(Node::With(self.branch("with")?));
            } else {
                let (list, end) = self.list()?;
                if end != ListEnd::End {
                    return self.fail(&format!("expected end; found {}", end.as_str()));
                }
                otherwise = list;
            }
        }
        self.variables.truncate(scope);
        self.depth -= 1;
        Ok(Branch { pipe, body, otherwise })
    }

    fn pipeline(&mut self, context: &str, end: Kind) -> Parse<Pipe> {
        let mut pipe = Pipe { pos: self.peek().pos, ..Pipe::default() };
        self.declarations(&mut pipe, context)?;
        loop {
            let start = self.next;
            let token = self.take();
            match token.kind {
                kind if kind == end => {
                    self.check(&pipe, context)?;
                    return Ok(pipe);
                }
                Kind::Bool
                | Kind::CharConstant
                | Kind::Dot
                | Kind::Field
                | Kind::Identifier
                | Kind::Number
                | Kind::Nil
                | Kind::RawStr
                | Kind::Str
                | Kind::Variable
                | Kind::LeftParen => {
                    self.next = start;
                    pipe.commands.push(self.command()?);
                }
                _ => return self.unexpected(&token, context),
            }
        }
    }

    /// Reads `$x :=`, `$x =` or `$i, $x :=` where a pipeline begins with one.
    fn declarations(&mut self, pipe: &mut Pipe, context: &str) -> Parse<()> {
        loop {
            if self.peek().kind != Kind::Variable {
                return Ok(());
            }
            let start = self.next;
            let variable = self.take_any();
            match self.peek().clone() {
                Token { kind: Kind::Assign | Kind::Declare, .. } => {
                    pipe.is_assignment = self.take().kind == Kind::Assign;
                    self.declare(pipe, variable);
                    return Ok(());
                }
                Token { kind: Kind::Char, text, .. } if text == "," => {
                    self.take();
                    self.declare(pipe, variable);
                    if context != "range" || pipe.variables.len() >= 2 {
                        return self.fail(&format!("too many declarations in {context}"));
                    }
                    if !matches!(self.peek().kind, Kind::Variable | Kind::RightDelim | Kind::RightParen) {
                        return self.fail("range can only initialize variables");
                    }
                }
                _ => {
                    self.next = start;
                    return Ok(());
                }
            }
        }
    }

    fn declare(&mut self, pipe: &mut Pipe, variable: Token) {
        self.variables.push(variable.text.clone());
        pipe.variables.push(variable.text);
    }

    fn check(&self, pipe: &Pipe, context: &str) -> Parse<()> {
        if pipe.commands.is_empty() {
            return self.fail(&format!("missing value for {context}"));
        }
        for (i, command) in pipe.commands.iter().enumerate().skip(1) {
            let is_value = matches!(
                command.arguments[0].term,
                Term::Bool(_) | Term::Dot | Term::Nil | Term::Number(_) | Term::Text(..)
            );
            if is_value {
                return self.fail(&format!("non executable command in pipeline stage {}", i + 1));
            }
        }
        Ok(())
    }

    fn command(&mut self) -> Parse<Command> {
        let mut command = Command { pos: self.peek().pos, arguments: Vec::new() };
        loop {
            self.skip_spaces();
            if let Some(argument) = self.operand()? {
                command.arguments.push(argument);
            }
            let start = self.next;
            let token = self.take_any();
            match token.kind {
                Kind::Space => continue,
                Kind::RightDelim | Kind::RightParen => self.next = start,
                Kind::Pipe => {}
                _ => return self.unexpected(&token, "operand"),
            }
            break;
        }
        if command.arguments.is_empty() { self.fail("empty command") } else { Ok(command) }
    }

    fn operand(&mut self) -> Parse<Option<Argument>> {
        let Some(term) = self.term()? else { return Ok(None) };
        if self.peek_any().kind != Kind::Field {
            return Ok(Some(term));
        }
        let pos = self.peek_any().pos;
        let mut names = Vec::new();
        while self.peek_any().kind == Kind::Field {
            names.push(self.take_any().text[1..].to_owned());
        }
        let term = match term.term {
            Term::Field(mut fields) => {
                fields.append(&mut names);
                Term::Field(fields)
            }
            Term::Variable(mut fields) => {
                fields.append(&mut names);
                Term::Variable(fields)
            }
            Term::Bool(_) | Term::Text(..) | Term::Number(_) | Term::Nil | Term::Dot => {
                return self.fail(&format!("unexpected . after term {}", Quoted(&term.to_string())));
            }
            _ => Term::Chain(Box::new(term), names),
        };
        Ok(Some(Argument { pos, term }))
    }

    fn term(&mut self) -> Parse<Option<Argument>> {
        let start = self.next;
        let token = self.take();
        let term = match token.kind {
            Kind::Identifier => {
                if functions::find(&token.text).is_none() {
                    return self.fail(&format!("function {} not defined", Quoted(&token.text)));
                }
                Term::Function(token.text)
            }
            Kind::Dot => Term::Dot,
            Kind::Nil => Term::Nil,
            Kind::Variable => {
                if !self.variables.contains(&token.text) {
                    return self.fail(&format!("undefined variable {}", Quoted(&token.text)));
                }
                Term::Variable(vec![token.text])
            }
            Kind::Field => Term::Field(vec![token.text[1..].to_owned()]),
            Kind::Bool => Term::Bool(token.text == "true"),
            Kind::CharConstant | Kind::Number => {
                let number: Result<Number, String> = literal::number(&token.text);
                Term::Number(number.or_else(|e| self.fail(&e))?)
            }
            Kind::LeftParen => {
                self.deeper()?;
                let pipe = self.pipeline("parenthesized pipeline", Kind::RightParen)?;
                self.depth -= 1;
                Term::Pipe(pipe)
            }
            Kind::Str | Kind::RawStr => {
                let meaning = literal::unquote(&token.text).or_else(|e| self.fail(&e))?;
                Term::Text(token.text, meaning)
            }
            _ => {
                self.next = start;
                return Ok(None);
            }
        };
        Ok(Some(Argument { pos: token.pos, term }))
    }
}
