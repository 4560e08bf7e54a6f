//! An `<http_config>` as the HTTP client takes it.

use http_client::HttpSettings;

use crate::grpc;
use crate::prometheus_config::HttpClient;

/// Makes the settings of a client.
///
/// # Errors
/// Names the setting that cannot be used.
pub(super) fn settings(config: &HttpClient) -> Result<HttpSettings, String> {
    HttpSettings::from_message(grpc::http(config))
}

#[cfg(test)]
mod tests {
    use ::http::HeaderName;
    use http_client::{Credentials, Secret, TlsSettings, Version};

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
