//! Why there is no answer.

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The text is no URL.
    #[error("invalid URL: {0}")]
    Url(String),
    /// The settings name what cannot be used: a file, a certificate, a header.
    #[error("{0}")]
    Settings(String),
    /// The server cannot be reached, or does not speak as it should.
    #[error("{0}")]
    Unanswered(String),
    /// A redirect leads nowhere.
    #[error("{0}")]
    Redirect(String),
}

impl Error {
    /// What sort of failure this is.
    #[must_use]
    pub const fn kind(&self) -> fault::Kind {
        match self {
            Self::Url(_) | Self::Settings(_) => fault::Kind::Invalid,
            Self::Unanswered(_) | Self::Redirect(_) => fault::Kind::Unavailable,
        }
    }
}

/// The crate's result.
pub type Result<T> = std::result::Result<T, Error>;
