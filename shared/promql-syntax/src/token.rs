//! Tokens, and how error messages name them.

use model::number::Quoted;

use crate::ast::{AggregateOp, BinaryOp, Span};

/// A token: its kind and where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) kind: TokenKind,
    pub(crate) span: Span,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenKind {
    Eof,
    Identifier,
    /// An identifier with a colon in it.
    MetricIdentifier,
    Number,
    Duration,
    String,
    LeftParen,
    RightParen,
    LeftBrace,
    RightBrace,
    LeftBracket,
    RightBracket,
    Comma,
    Colon,
    /// `=`
    Assign,
    /// `=~`
    RegexMatch,
    /// `!~`
    RegexNoMatch,
    At,
    Binary(BinaryOp),
    Aggregate(AggregateOp),
    Keyword(Keyword),
    Preprocessor(Preprocessor),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keyword {
    Offset,
    Smoothed,
    Anchored,
    By,
    Without,
    On,
    Ignoring,
    GroupLeft,
    GroupRight,
    Fill,
    FillLeft,
    FillRight,
    Bool,
}

/// Words that stand for a time or a length of the query itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Preprocessor {
    Start,
    End,
    Step,
    Range,
    MinOf,
    MaxOf,
}

/// Returns the kind of a word outside of braces; case does not matter for keywords.
pub(crate) fn keyword(word: &str) -> Option<TokenKind> {
    use AggregateOp as A;
    use Keyword as K;
    use Preprocessor as P;
    let kind = match word.to_ascii_lowercase().as_str() {
        "and" => TokenKind::Binary(BinaryOp::And),
        "or" => TokenKind::Binary(BinaryOp::Or),
        "unless" => TokenKind::Binary(BinaryOp::Unless),
        "atan2" => TokenKind::Binary(BinaryOp::Atan2),
        "sum" => TokenKind::Aggregate(A::Sum),
        "avg" => TokenKind::Aggregate(A::Avg),
        "count" => TokenKind::Aggregate(A::Count),
        "min" => TokenKind::Aggregate(A::Min),
        "max" => TokenKind::Aggregate(A::Max),
        "group" => TokenKind::Aggregate(A::Group),
        "stddev" => TokenKind::Aggregate(A::Stddev),
        "stdvar" => TokenKind::Aggregate(A::Stdvar),
        "topk" => TokenKind::Aggregate(A::Topk),
        "bottomk" => TokenKind::Aggregate(A::Bottomk),
        "count_values" => TokenKind::Aggregate(A::CountValues),
        "quantile" => TokenKind::Aggregate(A::Quantile),
        "limitk" => TokenKind::Aggregate(A::Limitk),
        "limit_ratio" => TokenKind::Aggregate(A::LimitRatio),
        "offset" => TokenKind::Keyword(K::Offset),
        "smoothed" => TokenKind::Keyword(K::Smoothed),
        "anchored" => TokenKind::Keyword(K::Anchored),
        "by" => TokenKind::Keyword(K::By),
        "without" => TokenKind::Keyword(K::Without),
        "on" => TokenKind::Keyword(K::On),
        "ignoring" => TokenKind::Keyword(K::Ignoring),
        "group_left" => TokenKind::Keyword(K::GroupLeft),
        "group_right" => TokenKind::Keyword(K::GroupRight),
        "fill" => TokenKind::Keyword(K::Fill),
        "fill_left" => TokenKind::Keyword(K::FillLeft),
        "fill_right" => TokenKind::Keyword(K::FillRight),
        "bool" => TokenKind::Keyword(K::Bool),
        "start" => TokenKind::Preprocessor(P::Start),
        "end" => TokenKind::Preprocessor(P::End),
        "step" => TokenKind::Preprocessor(P::Step),
        "range" => TokenKind::Preprocessor(P::Range),
        "min_of" => TokenKind::Preprocessor(P::MinOf),
        "max_of" => TokenKind::Preprocessor(P::MaxOf),
        "inf" | "nan" => TokenKind::Number,
        _ => return None,
    };
    Some(kind)
}

impl TokenKind {
    /// Says whether the word may stand as a metric name outside of braces.
    pub(crate) const fn is_metric_name(self) -> bool {
        use Keyword as K;
        matches!(
            self,
            Self::Identifier
                | Self::MetricIdentifier
                | Self::Aggregate(_)
                | Self::Preprocessor(_)
                | Self::Keyword(K::By | K::Without | K::Offset | K::Anchored | K::Smoothed)
                | Self::Binary(BinaryOp::And | BinaryOp::Or | BinaryOp::Unless)
        )
    }

    /// Says whether the word may stand as a label name in `by (...)` and the like.
    pub(crate) const fn is_label_name(self) -> bool {
        match self {
            // The reference's list leaves this one word out.
            Self::Keyword(Keyword::Without) => false,
            Self::Identifier
            | Self::MetricIdentifier
            | Self::Aggregate(_)
            | Self::Preprocessor(_)
            | Self::Keyword(_)
            | Self::Binary(BinaryOp::And | BinaryOp::Or | BinaryOp::Unless | BinaryOp::Atan2) => true,
            _ => false,
        }
    }

    /// Says whether an expression may start with this token.
    pub(crate) const fn starts_expression(self) -> bool {
        match self {
            Self::Number
            | Self::Duration
            | Self::String
            | Self::LeftParen
            | Self::LeftBrace
            | Self::Binary(BinaryOp::Add | BinaryOp::Sub) => true,
            other => other.is_metric_name(),
        }
    }
}

/// At most this much of a literal is shown in a message.
const SHOWN_CHARS_MAX: usize = 10;

impl Token {
    /// Returns the token's text.
    pub(crate) fn text<'a>(&self, text: &'a str) -> &'a str {
        &text[self.span.start..self.span.end]
    }

    /// Names the token as Prometheus's messages do: `identifier "foo"`, `<op:->`, `end of input`.
    pub(crate) fn describe(&self, text: &str) -> String {
        let value = self.text(text);
        let literal = |what: &str| {
            if value.len() > SHOWN_CHARS_MAX {
                let cut: String = value.chars().take(SHOWN_CHARS_MAX).collect();
                format!("{what} {}...", Quoted(&cut))
            } else {
                format!("{what} {}", Quoted(value))
            }
        };
        match self.kind {
            TokenKind::Eof => "end of input".to_owned(),
            TokenKind::Identifier => format!("identifier {}", Quoted(value)),
            TokenKind::MetricIdentifier => format!("metric identifier {}", Quoted(value)),
            TokenKind::Number => literal("number"),
            TokenKind::Duration => literal("duration"),
            TokenKind::String => literal("string"),
            TokenKind::Binary(_) | TokenKind::RegexMatch | TokenKind::RegexNoMatch | TokenKind::At => {
                format!("<op:{value}>")
            }
            TokenKind::Aggregate(_) => format!("<aggr:{value}>"),
            TokenKind::Keyword(_) => format!("<{value}>"),
            TokenKind::LeftParen
            | TokenKind::RightParen
            | TokenKind::LeftBrace
            | TokenKind::RightBrace
            | TokenKind::LeftBracket
            | TokenKind::RightBracket
            | TokenKind::Comma
            | TokenKind::Colon
            | TokenKind::Assign
            | TokenKind::Preprocessor(_) => Quoted(value).to_string(),
        }
    }
}
