//! Who we are to a server.

use std::fmt;
use std::path::PathBuf;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::HeaderValue;

/// A secret, or the file that holds it.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// The secret itself.
    Text(String),
    /// Read on every use, so that it may be exchanged.
    File(PathBuf),
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(_) => f.write_str("<secret>"),
            Self::File(path) => write!(f, "{path:?}"),
        }
    }
}

impl Secret {
    /// Takes the file when there is one.
    #[must_use]
    pub fn new(text: String, file: String) -> Self {
        if file.is_empty() { Self::Text(text) } else { Self::File(file.into()) }
    }

    pub(crate) async fn read(&self) -> Result<String, String> {
        match self {
            Self::Text(text) => Ok(text.clone()),
            Self::File(path) => {
                let text = tokio::fs::read_to_string(path).await;
                let text = text.map_err(|e| format!("unable to read file {}: {e}", path.display()))?;
                Ok(text.trim().to_owned())
            }
        }
    }
}

/// What goes into the Authorization header.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Credentials {
    /// The header is not sent.
    #[default]
    None,
    /// `basic_auth`.
    Basic {
        /// Who.
        username: Secret,
        /// The proof of it.
        password: Secret,
    },
    /// `authorization`, and the bearer tokens of old.
    Scheme {
        /// The header's first word.
        scheme: String,
        /// The rest of it.
        credentials: Secret,
    },
}

impl Credentials {
    pub(crate) async fn header(&self) -> Result<Option<HeaderValue>, String> {
        let text = match self {
            Self::None => return Ok(None),
            Self::Basic { username, password } => {
                let pair = format!("{}:{}", username.read().await?, password.read().await?);
                format!("Basic {}", BASE64_STANDARD.encode(pair))
            }
            Self::Scheme { scheme, credentials } => format!("{scheme} {}", credentials.read().await?),
        };
        let mut value =
            HeaderValue::try_from(text).map_err(|_| "credentials cannot stand in a header".to_owned())?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}
