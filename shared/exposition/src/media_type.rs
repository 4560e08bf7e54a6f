//! Media types in headers: the strict reading of a Content-Type and the loose one of an Accept, both as the Go
//! libraries behind Prometheus read them.

/// Reads the type and subtype of a Content-Type, in lower case, and checks the parameters.
///
/// # Errors
/// What Go's `mime.ParseMediaType` says.
pub(crate) fn parse_content_type(text: &str) -> Result<String, &'static str> {
    let (base, _) = text.split_once(';').unwrap_or((text, ""));
    let media_type = base.trim().to_ascii_lowercase();
    check_type(&media_type)?;
    let mut rest = &text[base.len()..];
    let mut seen: Vec<String> = Vec::new();
    loop {
        rest = rest.trim_start();
        if rest.is_empty() {
            return Ok(media_type);
        }
        let Some((key, after)) = split_parameter(rest) else {
            // A semicolon at the end is forgiven.
            return if rest.trim() == ";" { Ok(media_type) } else { Err("mime: invalid media parameter") };
        };
        if seen.contains(&key) {
            return Err("mime: duplicate parameter name");
        }
        seen.push(key);
        rest = after;
    }
}

fn check_type(text: &str) -> Result<(), &'static str> {
    let after = text.trim_start_matches(is_token_char);
    if after.len() == text.len() {
        return Err("mime: no media type");
    }
    if after.is_empty() {
        return Ok(());
    }
    let Some(subtype) = after.strip_prefix('/') else {
        return Err("mime: expected slash after first token");
    };
    let after = subtype.trim_start_matches(is_token_char);
    if after.len() == subtype.len() {
        return Err("mime: expected token after slash");
    }
    if after.is_empty() { Ok(()) } else { Err("mime: unexpected content after media subtype") }
}

/// Splits `; key=value` off; `None` when the text does not start with one.
fn split_parameter(text: &str) -> Option<(String, &str)> {
    let text = text.strip_prefix(';')?.trim_start();
    let after_key = text.trim_start_matches(is_token_char);
    let key = &text[..text.len() - after_key.len()];
    let value = after_key.trim_start().strip_prefix('=')?.trim_start();
    let rest = match value.strip_prefix('"') {
        Some(quoted) => {
            let mut is_escaped = false;
            let end = quoted.find(|c| {
                let is_end = c == '"' && !is_escaped;
                is_escaped = c == '\\' && !is_escaped;
                is_end
            })?;
            &quoted[end + 1..]
        }
        None => {
            let rest = value.trim_start_matches(is_token_char);
            if rest.len() == value.len() {
                return None;
            }
            rest
        }
    };
    (!key.is_empty()).then(|| (key.to_ascii_lowercase(), rest))
}

fn is_token_char(c: char) -> bool {
    c.is_ascii_graphic() && !r#"()<>@,;:\"/[]?="#.contains(c)
}

/// One clause of an Accept header.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Clause<'a> {
    pub(crate) kind: &'a str,
    pub(crate) subtype: &'a str,
    quality: f64,
    parameters: Vec<(&'a str, &'a str)>,
}

impl<'a> Clause<'a> {
    /// Returns a parameter, or the empty string.
    pub(crate) fn parameter(&self, name: &str) -> &'a str {
        self.parameters.iter().rev().find(|(n, _)| *n == name).map_or("", |(_, v)| v)
    }
}

/// Clauses that are looked at; what a header holds beyond is ignored.
const CLAUSES_MAX: usize = 64;

/// Reads an Accept header, best clause first; of equal quality the more precise, then the earlier.
pub(crate) fn parse_accept(text: &str) -> Vec<Clause<'_>> {
    let mut clauses: Vec<Clause<'_>> = text.split(',').take(CLAUSES_MAX).filter_map(parse_clause).collect();
    clauses.sort_by(|a, b| {
        b.quality
            .total_cmp(&a.quality)
            .then_with(|| (a.kind == "*").cmp(&(b.kind == "*")))
            .then_with(|| (a.subtype == "*").cmp(&(b.subtype == "*")))
    });
    clauses
}

fn parse_clause(text: &str) -> Option<Clause<'_>> {
    let mut parts = text.trim().split(';');
    let media_type = parts.next()?.trim();
    let (kind, subtype) = match media_type.split_once('/') {
        Some((kind, subtype)) => (kind.trim(), subtype.trim()),
        None if media_type == "*" => ("*", "*"),
        None => return None,
    };
    let mut clause = Clause { kind, subtype, quality: 1.0, parameters: Vec::new() };
    for part in parts {
        if let Some((name, value)) = part.split_once('=') {
            match name.trim() {
                "q" => clause.quality = value.trim().parse().unwrap_or(0.0),
                name => clause.parameters.push((name, value.trim())),
            }
        }
    }
    Some(clause)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_types_are_read_as_go_reads_them() {
        for (text, expected) in [
            ("text/plain", Ok("text/plain")),
            (" Text/PLAIN ; charset=utf-8", Ok("text/plain")),
            ("text/plain; a=\"b;\\\"c\"; d=e;", Ok("text/plain")),
            ("text", Ok("text")),
            ("", Err("mime: no media type")),
            ("/plain", Err("mime: no media type")),
            ("text plain", Err("mime: expected slash after first token")),
            ("text/", Err("mime: expected token after slash")),
            ("text/plain, text/html", Err("mime: unexpected content after media subtype")),
            ("text/plain; charset", Err("mime: invalid media parameter")),
            ("text/plain; charset=", Err("mime: invalid media parameter")),
            ("text/plain; =x", Err("mime: invalid media parameter")),
            ("text/plain; a=\"b", Err("mime: invalid media parameter")),
            ("text/plain; a=b; A=c", Err("mime: duplicate parameter name")),
        ] {
            assert_eq!(parse_content_type(text).as_deref().map_err(|e| *e), expected, "{text:?}");
        }
    }

    #[test]
    fn accept_clauses_are_sorted_by_quality() {
        let order = |text| {
            parse_accept(text)
                .iter()
                .map(|c| format!("{}/{}", c.kind, c.subtype))
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(order("a/b;q=0.1, c/d, */*;q=0.5"), "c/d */* a/b");
        assert_eq!(order("*/*, a/*, a/b, c/d"), "a/b c/d a/* */*");
        assert_eq!(order("nonsense, *, a/b;q=x"), "*/* a/b");
        assert_eq!(order(""), "");
        let clause = &parse_accept("a/b; version=1.0 ;q=0.3;x=1;x=2")[0];
        assert_eq!(
            (clause.parameter("version"), clause.parameter("x"), clause.parameter("y")),
            ("1.0", "2", "")
        );
        assert_eq!(parse_accept(&"a/b,".repeat(1000)).len(), CLAUSES_MAX);
    }
}
