//! Scalars with a syntax of their own: URLs, paths.

use model::number::Quoted;

/// The parts of a URL that checks ask for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Url<'a> {
    pub(super) scheme: &'a str,
    /// Host and port, without user information; empty when there is none.
    pub(super) host: &'a str,
}

/// Splits a URL and refuses what Go's `url.Parse` refuses, as far as configuration files go.
pub(super) fn parse_url(text: &str) -> Result<Url<'_>, String> {
    let fail = |why: &str| format!("parse {}: {why}", Quoted(text));
    if text.bytes().any(|b| b < 0x20 || b == 0x7f) {
        return Err(fail("net/url: invalid control character in URL"));
    }
    let without_fragment = text.split_once('#').map_or(text, |(before, _)| before);
    let (scheme, rest) = match without_fragment.find(|c: char| !is_scheme_char(c)) {
        Some(0) if without_fragment.starts_with(':') => return Err(fail("missing protocol scheme")),
        Some(end) if without_fragment[end..].starts_with(':') && starts_with_letter(without_fragment) => {
            (&without_fragment[..end], &without_fragment[end + 1..])
        }
        _ => ("", without_fragment),
    };
    let path_and_host = rest.split_once('?').map_or(rest, |(before, _)| before);
    if let Some(bad) = invalid_escape(path_and_host) {
        return Err(fail(&format!("invalid URL escape {}", Quoted(bad))));
    }
    let Some(authority) = path_and_host.strip_prefix("//") else {
        let segment = path_and_host.split('/').next().unwrap_or("");
        if scheme.is_empty() && segment.contains(':') {
            return Err(fail("first path segment in URL cannot contain colon"));
        }
        return Ok(Url { scheme, host: "" });
    };
    let authority = authority.split('/').next().unwrap_or("");
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    if let Some(bad) = host.chars().find(|c| matches!(c, ' ' | '{' | '}' | '|' | '\\' | '^' | '`')) {
        return Err(fail(&format!("invalid character {} in host name", Quoted(&bad.to_string()))));
    }
    if host.starts_with('[') && !host.contains(']') {
        return Err(fail("missing ']' in host"));
    }
    let after_address = host.rsplit_once(']').map_or(host, |(_, after)| after);
    if let Some((_, port)) = after_address.rsplit_once(':')
        && !port.bytes().all(|b| b.is_ascii_digit())
    {
        return Err(fail(&format!("invalid port {} after host", Quoted(&format!(":{port}")))));
    }
    Ok(Url { scheme, host })
}

const fn is_scheme_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.')
}

fn starts_with_letter(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
}

fn invalid_escape(text: &str) -> Option<&str> {
    let mut from = 0;
    while let Some(found) = text[from..].find('%') {
        let at = from + found;
        let is_valid =
            text.as_bytes().get(at + 1..at + 3).is_some_and(|h| h.iter().all(u8::is_ascii_hexdigit));
        if !is_valid {
            let end = (at + 3).min(text.len());
            return Some(text.get(at..end).unwrap_or("%"));
        }
        from = at + 3;
    }
    None
}

/// Hides the password of a URL, as Go's `Redacted` does.
pub(super) fn redact_url(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("//") else { return text.to_owned() };
    let authority_len = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let Some((user_info, host)) = rest[..authority_len].rsplit_once('@') else { return text.to_owned() };
    match user_info.split_once(':') {
        Some((user, _)) => format!("{scheme}//{user}:xxxxx@{host}{}", &rest[authority_len..]),
        None => text.to_owned(),
    }
}

/// Makes a path that is relative to a configuration file's folder usable; empty and absolute ones stay.
pub(super) fn join_dir(dir: &str, path: &str) -> String {
    if path.is_empty() || path.starts_with('/') {
        return path.to_owned();
    }
    let joined = if dir.is_empty() { path.to_owned() } else { format!("{dir}/{path}") };
    clean_path(&joined)
}

/// Resolves `.`, `..` and doubled slashes by the text alone.
fn clean_path(path: &str) -> String {
    let is_absolute = path.starts_with('/');
    let mut kept: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if kept.last().is_some_and(|last| *last != "..") => {
                kept.pop();
            }
            ".." if is_absolute => {}
            part => kept.push(part),
        }
    }
    let joined = kept.join("/");
    match (is_absolute, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_refused_where_go_refuses_them() {
        for (text, scheme, host) in [
            ("http://a:80/x?y", "http", "a:80"),
            ("http://", "http", ""),
            ("invalid", "", ""),
            ("localhost:9090", "localhost", ""),
            ("http://u:p@h/", "http", "h"),
            ("unix:///var/run/docker.sock", "unix", ""),
            ("http://[::1]:9090", "http", "[::1]:9090"),
        ] {
            assert_eq!(parse_url(text), Ok(Url { scheme, host }), "{text}");
        }
        for (text, error) in [
            ("://invalid", r#"parse "://invalid": missing protocol scheme"#),
            ("1.2.3.4:80", r#"parse "1.2.3.4:80": first path segment in URL cannot contain colon"#),
            ("http://a:b/", r#"parse "http://a:b/": invalid port ":b" after host"#),
            ("http://[::1", r#"parse "http://[::1": missing ']' in host"#),
            ("http://a/%zz", r#"parse "http://a/%zz": invalid URL escape "%zz""#),
        ] {
            assert_eq!(parse_url(text), Err(error.to_owned()), "{text}");
        }
        assert_eq!(redact_url("http://u:secret@h/p"), "http://u:xxxxx@h/p");
        assert_eq!(redact_url("http://u@h/p"), "http://u@h/p");
    }

    #[test]
    fn relative_paths_start_at_the_files_folder() {
        for (dir, path, joined) in [
            ("/etc/prometheus", "rules/*.yml", "/etc/prometheus/rules/*.yml"),
            (".", "a/b", "a/b"),
            ("", "a", "a"),
            ("conf", "../x", "x"),
            ("/etc", "/abs", "/abs"),
            ("/etc", "", ""),
            ("/", "../x", "/x"),
        ] {
            assert_eq!(join_dir(dir, path), joined, "{dir} {path}");
        }
    }
}
