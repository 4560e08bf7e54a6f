//! An `<http_config>` as discovery sends it.

use http::HeaderName;
use rpc::pb::discovery as pb;

use crate::client::HttpSettings;
use crate::credentials::{Credentials, Secret};
use crate::tls::{TlsSettings, Version};

impl HttpSettings {
    /// Takes the settings that discovery sends; `proxy_url` is none of them.
    ///
    /// # Errors
    /// Names the setting that cannot be used.
    pub fn from_message(message: pb::HttpClient) -> Result<Self, String> {
        let credentials = match (message.basic_auth, message.authorization) {
            (Some(basic), _) => Credentials::Basic {
                username: Secret::new(basic.username, basic.username_file),
                password: Secret::new(basic.password, basic.password_file),
            },
            (None, Some(authorization)) => Credentials::Scheme {
                scheme: Some(authorization.r#type)
                    .filter(|scheme| !scheme.is_empty())
                    .unwrap_or_else(|| "Bearer".to_owned()),
                credentials: Secret::new(authorization.credentials, authorization.credentials_file),
            },
            (None, None) => Credentials::None,
        };
        Ok(Self {
            credentials,
            tls: tls(message.tls.unwrap_or_default())?,
            follow_redirects: message.follow_redirects,
            enable_http2: message.enable_http2,
            headers: message.headers.into_iter().map(headers).collect::<Result<Vec<_>, _>>()?.concat(),
        })
    }
}

fn headers(header: pb::Header) -> Result<Vec<(HeaderName, Secret)>, String> {
    let name = HeaderName::try_from(header.name.as_str())
        .map_err(|_| format!("http_headers: {:?} is no header name", header.name))?;
    let values = header.values.into_iter().map(Secret::Text);
    let files = header.files.into_iter().map(|file| Secret::File(file.into()));
    Ok(values.chain(files).map(|value| (name.clone(), value)).collect())
}

fn tls(message: pb::Tls) -> Result<TlsSettings, String> {
    let secret = |text: String, file: String| {
        let is_set = !(text.is_empty() && file.is_empty());
        is_set.then(|| Secret::new(text, file))
    };
    let identity = match (secret(message.cert, message.cert_file), secret(message.key, message.key_file)) {
        (Some(cert), Some(key)) => Some((cert, key)),
        (None, None) => None,
        _ => return Err("tls_config: a certificate needs its key, and a key its certificate".to_owned()),
    };
    Ok(TlsSettings {
        ca: secret(message.ca, message.ca_file),
        identity,
        server_name: Some(message.server_name).filter(|name| !name.is_empty()),
        insecure_skip_verify: message.insecure_skip_verify,
        only_version: Version::only(&message.min_version, &message.max_version)?,
    })
}
