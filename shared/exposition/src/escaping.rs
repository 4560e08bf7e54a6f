//! Names for readers that do not know UTF-8 names.

use std::borrow::Cow;
use std::fmt;
use std::fmt::Write as _;
use std::str::FromStr;

use model::labels::is_legacy_metric_name;

use crate::error::{Error, Result};

/// How names outside of `[a-zA-Z_:][a-zA-Z0-9_:]*` are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum EscapingScheme {
    /// As they are, quoted where the format needs it.
    AllowUtf8,
    /// Every foreign character becomes an underscore.
    #[default]
    Underscores,
    /// Dots become `_dot_`, underscores are doubled, other characters become two underscores.
    Dots,
    /// `U__` in front, underscores doubled, other characters as their code in hexadecimal between underscores.
    Values,
}

impl EscapingScheme {
    /// Every scheme.
    pub const ALL: [Self; 4] = [Self::AllowUtf8, Self::Underscores, Self::Dots, Self::Values];

    /// Returns the name used in headers and config files.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AllowUtf8 => "allow-utf-8",
            Self::Underscores => "underscores",
            Self::Dots => "dots",
            Self::Values => "values",
        }
    }

    /// Escapes the name of a metric or label. A plain name stays as it is under every scheme.
    #[must_use]
    pub fn escape(self, name: &str) -> Cow<'_, str> {
        if self == Self::AllowUtf8 || name.is_empty() || is_legacy_metric_name(name) {
            return Cow::Borrowed(name);
        }
        let mut out = String::with_capacity(name.len() + 8);
        if self == Self::Values {
            out.push_str("U__");
        }
        for (i, c) in name.char_indices() {
            let is_plain = c.is_ascii_alphabetic() || c == '_' || c == ':' || (c.is_ascii_digit() && i > 0);
            match self {
                Self::Dots if c == '.' => out.push_str("_dot_"),
                Self::Dots | Self::Values if c == '_' => out.push_str("__"),
                _ if is_plain => out.push(c),
                Self::Dots => out.push_str("__"),
                Self::Values => write!(out, "_{:x}_", c as u32).expect("writing to a string"),
                Self::Underscores | Self::AllowUtf8 => out.push('_'),
            }
        }
        Cow::Owned(out)
    }
}

/// Reads a name that [`EscapingScheme::Values`] escaped. What is not such a name is taken as it stands.
#[must_use]
pub fn unescape_values(name: &str) -> Cow<'_, str> {
    let unescaped = name.strip_prefix("U__").and_then(|mut rest| {
        let mut out = String::with_capacity(rest.len());
        while let Some((plain, escape)) = rest.split_once('_') {
            out.push_str(plain);
            let (code, after) = escape.split_once('_')?;
            match code {
                "" => out.push('_'),
                code => out.push(u32::from_str_radix(code, 16).ok().and_then(char::from_u32)?),
            }
            rest = after;
        }
        out.push_str(rest);
        Some(out)
    });
    unescaped.map_or(Cow::Borrowed(name), Cow::Owned)
}

impl fmt::Display for EscapingScheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for EscapingScheme {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|s| s.as_str() == text)
            .ok_or_else(|| Error::UnknownEscaping(text.to_owned()))
    }
}

/// Writes what stands between quotes in the text format.
pub(crate) fn write_escaped(out: &mut Vec<u8>, text: &str) {
    let is_special = |byte: &u8| matches!(byte, b'\\' | b'\n' | b'"');
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(is_special) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(match rest[at] {
            b'\n' => b"\\n",
            b'"' => b"\\\"",
            _ => b"\\\\",
        });
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected texts follow from the schemes' definitions in the escaping document of Prometheus.
    #[test]
    fn names_are_escaped_by_scheme() {
        for (name, underscores, dots, values) in [
            ("plain:name_1", "plain:name_1", "plain:name_1", "plain:name_1"),
            ("", "", "", ""),
            ("http.status:sum", "http_status:sum", "http_dot_status:sum", "U__http_2e_status:sum"),
            ("a_b.c", "a_b_c", "a__b_dot_c", "U__a__b_2e_c"),
            ("label with 😱", "label_with__", "label__with____", "U__label_20_with_20__1f631_"),
            ("0a", "_a", "__a", "U___30_a"),
            ("花火", "__", "____", "U___82b1__706b_"),
        ] {
            assert_eq!(EscapingScheme::Underscores.escape(name), underscores);
            assert_eq!(EscapingScheme::Dots.escape(name), dots);
            assert_eq!(EscapingScheme::Values.escape(name), values);
            assert_eq!(EscapingScheme::AllowUtf8.escape(name), name);
            assert_eq!(unescape_values(&EscapingScheme::Values.escape(name)), name);
            assert!(name.is_empty() || is_legacy_metric_name(&EscapingScheme::Values.escape(name)));
        }
    }

    #[test]
    fn what_is_no_escaped_name_stays() {
        for name in ["a_b", "U__a_", "U__a_zz_", "U__a_d800_", "U__a_b"] {
            assert_eq!(unescape_values(name), name);
        }
    }

    #[test]
    fn schemes_have_names() {
        for scheme in EscapingScheme::ALL {
            assert_eq!(scheme.to_string().parse(), Ok(scheme));
        }
        assert_eq!(
            "dot".parse::<EscapingScheme>().map_err(|e| e.to_string()),
            Err("unknown format scheme dot".into())
        );
    }
}
