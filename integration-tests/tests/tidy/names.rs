//! Names that say nothing.

use crate::source::Source;

/// Refused as any word of a name.
const WORDS: [&str; 9] =
    ["common", "util", "utils", "helper", "helpers", "misc", "manager", "managers", "utility"];
/// Refused as a whole name.
const WHOLE: [&str; 5] = ["base", "data", "info", "process", "handler"];

/// Names of files, modules, types, traits and functions that are refused.
pub(crate) fn faults(source: &Source) -> Vec<String> {
    let path = source.path.display();
    let mut faults = Vec::new();
    for part in source.path.with_extension("").iter().filter_map(|part| part.to_str()) {
        if let Some(word) = refused(part, is_http(source)) {
            faults.push(format!("{path}: {word:?} is no name"));
        }
    }
    for (index, line) in source.lines.iter().enumerate() {
        for (kind, name) in definitions(&line.code) {
            let is_function_fault = kind == "fn" && (name.starts_with("do_") || name == "new2");
            let word = if is_function_fault { Some(name) } else { refused_definition(kind, name, source) };
            if let Some(word) = word {
                faults.push(format!("{path}:{}: {word:?} is no name", index + 1));
            }
        }
    }
    faults
}

/// Functions are verbs: `process` is none of the refused nouns there, and a trait's method may be given by others.
fn refused_definition<'a>(kind: &str, name: &'a str, source: &Source) -> Option<&'a str> {
    if kind == "fn" { None } else { refused(name, is_http(source)) }
}

/// HTTP has handlers.
fn is_http(source: &Source) -> bool {
    source.path.iter().filter_map(|part| part.to_str()).any(|part| part.starts_with("http"))
}

fn refused(name: &str, is_http: bool) -> Option<&str> {
    if WHOLE.contains(&name.to_ascii_lowercase().as_str())
        && !(is_http && name.eq_ignore_ascii_case("handler"))
    {
        return Some(name);
    }
    words(name).into_iter().find(|word| WORDS.contains(&word.to_ascii_lowercase().as_str()))
}

/// The words of `snake_case`, `kebab-case` and `CamelCase`.
fn words(name: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let mut start = 0;
    for (at, c) in name.char_indices() {
        if c == '_' || c == '-' || (c.is_uppercase() && at > start) {
            words.push(&name[start..at]);
            start = if c.is_uppercase() { at } else { at + 1 };
        }
    }
    words.push(&name[start..]);
    words
}

/// The things that a line of code defines, with their kinds. An indented `type` is an associated one, whose name is
/// its trait's.
fn definitions(code: &str) -> Vec<(&str, &str)> {
    let is_associated = code.trim_start().starts_with("type ") && code.starts_with(' ');
    let tokens: Vec<&str> =
        code.split(|c: char| !(c.is_alphanumeric() || c == '_')).filter(|token| !token.is_empty()).collect();
    let kinds = ["mod", "struct", "enum", "trait", "type", "fn", "union"];
    tokens
        .windows(2)
        .filter(|pair| kinds.contains(&pair[0]) && !(is_associated && pair[0] == "type"))
        .map(|pair| (pair[0], pair[1]))
        .collect()
}
