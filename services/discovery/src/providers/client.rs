//! An `<http_config>` as the HTTP client takes it.

use ::http::HeaderName;
use http_client::{Credentials, HttpSettings, Secret, TlsSettings, Version};

use crate::prometheus_config::{Header, HttpClient, Tls};

/// Makes the settings of a client.
///
/// # Errors
/// Names the setting that cannot be used.
pub(super) fn settings(config: &HttpClient) -> Result<HttpSettings, String> {
    let secret = |text: &crate::prometheus_config::Secret, file: &str| {
        Secret::new(text.expose().to_owned(), file.to_owned())
    };
    let credentials = match (&config.basic_auth, &config.authorization) {
        (Some(basic), _) => Credentials::Basic {
            username: Secret::new(basic.username.clone(), basic.username_file.clone()),
            password: secret(&basic.password, &basic.password_file),
        },
        (None, Some(authorization)) => Credentials::Scheme {
            scheme: authorization.kind.clone(),
            credentials: secret(&authorization.credentials, &authorization.credentials_file),
        },
        (None, None) => Credentials::None,
    };
    Ok(HttpSettings {
        credentials,
        tls: config.tls.as_ref().map_or_else(|| Ok(TlsSettings::default()), tls_settings)?,
        follow_redirects: config.follow_redirects,
        enable_http2: config.enable_http2,
        headers: config.headers.iter().map(headers).collect::<Result<Vec<_>, _>>()?.concat(),
    })
}

fn headers(header: &Header) -> Result<Vec<(HeaderName, Secret)>, String> {
    let name = HeaderName::try_from(header.name.as_str())
        .map_err(|_| format!("http_headers: {:?} is no header name", header.name))?;
    let values = header.values.iter().map(|value| Secret::Text(value.expose().to_owned()));
    let files = header.files.iter().map(|file| Secret::File(file.into()));
    Ok(values.chain(files).map(|value| (name.clone(), value)).collect())
}

fn tls_settings(tls: &Tls) -> Result<TlsSettings, String> {
    let secret = |text: &str, file: &str| {
        let is_set = !(text.is_empty() && file.is_empty());
        is_set.then(|| Secret::new(text.to_owned(), file.to_owned()))
    };
    let identity = match (secret(&tls.cert, &tls.cert_file), secret(tls.key.expose(), &tls.key_file)) {
        (Some(cert), Some(key)) => Some((cert, key)),
        (None, None) => None,
        _ => return Err("tls_config: a certificate needs its key, and a key its certificate".to_owned()),
    };
    Ok(TlsSettings {
        ca: secret(&tls.ca, &tls.ca_file),
        identity,
        server_name: Some(tls.server_name.clone()).filter(|name| !name.is_empty()),
        insecure_skip_verify: tls.insecure_skip_verify,
        only_version: Version::only(&tls.min_version, &tls.max_version)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prometheus_config::{Provider, Variables, check_text};

    fn settings_of(fields: &str) -> Result<HttpSettings, String> {
        let yaml =
            format!("scrape_configs: [{{job_name: a, http_sd_configs: [{{url: 'http://h', {fields}}}]}}]\n");
        let config = check_text("/etc/p.yml", &yaml, &Variables::new()).expect("loads");
        match &config.jobs[0].providers[0] {
            Provider::Http(http) => settings(&http.http),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_setting_arrives() {
        let plain = settings_of("").expect("usable");
        assert_eq!(
            plain,
            HttpSettings { follow_redirects: true, enable_http2: true, ..HttpSettings::default() }
        );
        let text = |text: &str| Secret::Text(text.to_owned());
        let basic = settings_of("basic_auth: {username: u, password_file: p}").expect("usable");
        assert_eq!(
            basic.credentials,
            Credentials::Basic { username: text("u"), password: Secret::File("/etc/p".into()) }
        );
        let bearer = settings_of("bearer_token: t, follow_redirects: false").expect("usable");
        let scheme =
            |scheme: &str, credentials| Credentials::Scheme { scheme: scheme.to_owned(), credentials };
        assert_eq!((bearer.credentials, bearer.follow_redirects), (scheme("Bearer", text("t")), false));
        let other = settings_of("authorization: {type: Token, credentials: c}, enable_http2: false");
        let other = other.expect("usable");
        assert_eq!((other.credentials, other.enable_http2), (scheme("Token", text("c")), false));
        let headers =
            settings_of("http_headers: {X-A: {values: [v], secrets: [s], files: [f]}}").expect("usable");
        let name = HeaderName::from_static("x-a");
        let expected =
            [text("v"), text("s"), Secret::File("/etc/f".into())].map(|value| (name.clone(), value));
        assert_eq!(headers.headers, expected);
        let tls = settings_of(
            "tls_config: {ca: c, cert_file: e, key_file: k, server_name: n, insecure_skip_verify: true, min_version: TLS13}",
        );
        assert_eq!(
            tls.expect("usable").tls,
            TlsSettings {
                ca: Some(text("c")),
                identity: Some((Secret::File("/etc/e".into()), Secret::File("/etc/k".into()))),
                server_name: Some("n".to_owned()),
                insecure_skip_verify: true,
                only_version: Some(Version::Tls13),
            }
        );
        let old = settings_of("tls_config: {max_version: TLS11}").expect_err("refused");
        assert_eq!(old, r#"tls_config: no version from "" to "TLS11" is built; TLS12 and TLS13 are"#);
    }
}
