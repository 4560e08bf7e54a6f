//! `<http_config>`, `<tls_config>` and what else says how to reach something.

use super::schema::{Default, Field, Kind, Record, Schema, Value, field, no_check};
use super::sections::lower_reserved_header;

const PROXY: [Field; 4] = [
    field("proxy_url", Kind::Url),
    field("no_proxy", Kind::Str),
    field("proxy_from_environment", Kind::Bool),
    field("proxy_connect_header", Kind::SecretListMap),
];

const BEFORE_HTTP2: [Field; 7] = [
    field("basic_auth", Kind::Optional(&BASIC_AUTH)),
    field("authorization", Kind::Optional(&AUTHORIZATION)),
    field("oauth2", Kind::Optional(&OAUTH2)),
    field("bearer_token", Kind::Secret),
    field("bearer_token_file", Kind::File),
    field("tls_config", Kind::Section(&TLS)),
    field("follow_redirects", Kind::Bool).or(Default::Bool(true)).always(),
];

const HTTP2: Field = field("enable_http2", Kind::Bool).always();
const HEADERS: Field = field("http_headers", Kind::Sections(&HEADER));

const fn fields(is_http2: bool) -> [Field; 13] {
    let [a, b, c, d, e, f, g] = BEFORE_HTTP2;
    let [h, i, j, k] = PROXY;
    [a, b, c, d, e, f, g, HTTP2.or(Default::Bool(is_http2)), h, i, j, k, HEADERS]
}

/// The fields of an HTTP client, in line with those of the section that has them.
pub(super) static HTTP: [Field; 13] = fields(true);
/// The same for remote write, which leaves HTTP/2 off.
pub(super) static HTTP_WITHOUT_HTTP2: [Field; 13] = fields(false);

static BASIC_AUTH: Schema = Schema {
    name: "config.plain",
    parts: &[&[
        field("username", Kind::Str).always(),
        field("username_file", Kind::File),
        field("username_ref", Kind::Str),
        field("password", Kind::Secret),
        field("password_file", Kind::File),
        field("password_ref", Kind::Str),
    ]],
    check: no_check,
};

static AUTHORIZATION: Schema = Schema {
    name: "config.Authorization",
    parts: &[&[
        field("type", Kind::Str),
        field("credentials", Kind::Secret),
        field("credentials_file", Kind::File),
        field("credentials_ref", Kind::Str),
    ]],
    check: no_check,
};

static OAUTH2: Schema = Schema {
    name: "config.plain",
    parts: &[
        &[
            field("client_id", Kind::Str).always(),
            field("client_secret", Kind::Secret).always(),
            field("client_secret_file", Kind::File).always(),
            field("client_secret_ref", Kind::Str).always(),
            field("client_certificate_key_id", Kind::Str),
            field("client_certificate_key", Kind::Secret),
            field("client_certificate_key_file", Kind::File),
            field("client_certificate_key_ref", Kind::Str),
            field("grant_type", Kind::Str),
            field("signature_algorithm", Kind::Str),
            field("iss", Kind::Str),
            field("audience", Kind::Str),
            field("claims", Kind::Any),
            field("scopes", Kind::Strings),
            field("token_url", Kind::Str).always(),
            field("endpoint_params", Kind::StringMap),
            field("tls_config", Kind::Section(&TLS)),
        ],
        &PROXY,
    ],
    check: |record, faults| faults.extend(check_proxy(record).err()),
};

pub(super) static TLS: Schema = Schema {
    name: "config.plain",
    parts: &[&[
        field("ca", Kind::Str),
        field("cert", Kind::Str),
        field("key", Kind::Secret),
        field("ca_file", Kind::File),
        field("cert_file", Kind::File),
        field("key_file", Kind::File),
        field("ca_ref", Kind::Str),
        field("cert_ref", Kind::Str),
        field("key_ref", Kind::Str),
        field("server_name", Kind::Str),
        field("insecure_skip_verify", Kind::Bool).always(),
        field("min_version", Kind::Word("string", check_tls_version)),
        field("max_version", Kind::Word("string", check_tls_version)),
    ]],
    check: |record, faults| faults.extend(check_tls(record).err()),
};

static HEADER: Schema = Schema {
    name: "config.Header",
    parts: &[&[
        field("values", Kind::Strings),
        field("secrets", Kind::SecretList),
        field("files", Kind::Files),
    ]],
    check: no_check,
};

fn check_tls_version(text: &str) -> Result<(), String> {
    match text {
        "TLS10" | "TLS11" | "TLS12" | "TLS13" => Ok(()),
        _ => Err(format!("unknown TLS version: {text}")),
    }
}

fn count(record: &Record, names: &[&str]) -> usize {
    names.iter().filter(|name| record.has(name)).count()
}

fn check_tls(tls: &Record) -> Result<(), String> {
    let cert_count = count(tls, &["cert", "cert_file", "cert_ref"]);
    let key_count = count(tls, &["key", "key_file", "key_ref"]);
    let fault = if count(tls, &["ca", "ca_file", "ca_ref"]) > 1 {
        "at most one of ca, ca_file & ca_ref must be configured"
    } else if cert_count > 1 {
        "at most one of cert, cert_file & cert_ref must be configured"
    } else if key_count > 1 {
        "at most one of key and key_file must be configured"
    } else if cert_count > 0 && key_count == 0 {
        "exactly one of key or key_file must be configured when a client certificate is configured"
    } else if key_count > 0 && cert_count == 0 {
        "exactly one of cert or cert_file must be configured when a client key is configured"
    } else {
        return Ok(());
    };
    Err(fault.to_owned())
}

fn check_proxy(record: &Record) -> Result<(), String> {
    let is_from_environment = record.bool("proxy_from_environment");
    let fault = if record.has("proxy_connect_header") && !is_from_environment && !record.has("proxy_url") {
        "if proxy_connect_header is configured, proxy_url or proxy_from_environment must also be configured"
    } else if is_from_environment && record.has("proxy_url") {
        "if proxy_from_environment is configured, proxy_url must not be configured"
    } else if is_from_environment && record.has("no_proxy") {
        "if proxy_from_environment is configured, no_proxy must not be configured"
    } else if !record.has("proxy_url") && record.has("no_proxy") {
        "if no_proxy is configured, proxy_url must also be configured"
    } else {
        return Ok(());
    };
    Err(fault.to_owned())
}

/// Checks the HTTP fields of a section and turns the old bearer token fields into an authorization.
pub(super) fn check_http(record: &mut Record) -> Result<(), String> {
    let fail = |text: &str| Err(text.to_owned());
    let has_token = record.has("bearer_token") || record.has("bearer_token_file");
    if record.has("bearer_token") && record.has("bearer_token_file") {
        return fail("at most one of bearer_token & bearer_token_file must be configured");
    }
    let (basic_auth, oauth2) = (record.record("basic_auth"), record.record("oauth2"));
    if (basic_auth.is_some() || oauth2.is_some()) && has_token {
        return fail(
            "at most one of basic_auth, oauth2, bearer_token & bearer_token_file must be configured",
        );
    }
    if let Some(basic_auth) = basic_auth {
        if count(basic_auth, &["username", "username_file", "username_ref"]) > 1 {
            return fail(
                "at most one of basic_auth username, username_file & username_ref must be configured",
            );
        }
        if count(basic_auth, &["password", "password_file", "password_ref"]) > 1 {
            return fail(
                "at most one of basic_auth password, password_file & password_ref must be configured",
            );
        }
    }
    let is_exclusive = basic_auth.is_none() && oauth2.is_none();
    check_oauth2(record)?;
    check_authorization(record, has_token, is_exclusive)?;
    check_proxy(record)?;
    for (name, _) in record.map("http_headers") {
        if let Some(canonical) = reserved_scrape_header(name) {
            return Err(format!("setting header {canonical:?} is not allowed"));
        }
    }
    Ok(())
}

fn check_authorization(record: &mut Record, has_token: bool, is_exclusive: bool) -> Result<(), String> {
    let fail = |text: &str| Err(text.to_owned());
    let Some(authorization) = record.record_mut("authorization") else {
        take_bearer_token(record, "bearer_token", "credentials");
        take_bearer_token(record, "bearer_token_file", "credentials_file");
        return Ok(());
    };
    if has_token {
        return fail("authorization is not compatible with bearer_token & bearer_token_file");
    }
    if count(authorization, &["credentials", "credentials_file", "credentials_ref"]) > 1 {
        return fail("at most one of authorization credentials & credentials_file must be configured");
    }
    let kind = authorization.str("type").trim().to_owned();
    if kind.eq_ignore_ascii_case("basic") {
        return fail(r#"authorization type cannot be set to "basic", use "basic_auth" instead"#);
    }
    authorization.set("type", Value::Str(if kind.is_empty() { "Bearer".to_owned() } else { kind }));
    if is_exclusive {
        Ok(())
    } else {
        fail("at most one of basic_auth, oauth2 & authorization must be configured")
    }
}

fn check_oauth2(record: &Record) -> Result<(), String> {
    let Some(oauth2) = record.record("oauth2") else { return Ok(()) };
    let is_jwt = oauth2.str("grant_type") == "urn:ietf:params:oauth:grant-type:jwt-bearer";
    let fault = if record.record("basic_auth").is_some() {
        "at most one of basic_auth, oauth2 & authorization must be configured"
    } else if !oauth2.has("client_id") {
        "oauth2 client_id must be configured"
    } else if !oauth2.has("token_url") {
        "oauth2 token_url must be configured"
    } else if is_jwt
        && count(
            oauth2,
            &["client_certificate_key", "client_certificate_key_file", "client_certificate_key_ref"],
        ) > 1
    {
        "at most one of oauth2 client_certificate_key, client_certificate_key_file & client_certificate_key_ref must be configured using grant-type=urn:ietf:params:oauth:grant-type:jwt-bearer"
    } else if !is_jwt && count(oauth2, &["client_secret", "client_secret_file", "client_secret_ref"]) > 1 {
        "at most one of oauth2 client_secret, client_secret_file & client_secret_ref must be configured using grant-type=client_credentials"
    } else {
        return Ok(());
    };
    Err(fault.to_owned())
}

fn take_bearer_token(record: &mut Record, from: &str, to: &str) {
    if !record.has(from) {
        return;
    }
    let mut authorization = Record::zero(&AUTHORIZATION);
    authorization.set("type", Value::Str("Bearer".to_owned()));
    authorization.set(to, record.get(from).clone());
    record.set(from, Value::Str(String::new()));
    record.set("authorization", Value::Record(Box::new(authorization)));
}

/// The canonical spelling of a header that a scrape may not set; `None` for others.
fn reserved_scrape_header(name: &str) -> Option<String> {
    let lower = name.to_ascii_lowercase();
    let is_reserved = lower_reserved_header(&lower)
        || matches!(lower.as_str(), "authorization" | "x-prometheus-scrape-timeout-seconds");
    is_reserved.then(|| {
        let words = lower.split('-').map(|word| match word.split_at_checked(1) {
            Some((first, rest)) => first.to_ascii_uppercase() + rest,
            None => word.to_owned(),
        });
        words.collect::<Vec<_>>().join("-")
    })
}
