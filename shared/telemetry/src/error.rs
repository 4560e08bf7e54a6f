//! What can go wrong with telemetry.

/// A failure to set up or to finish telemetry.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The level is none that is known.
    #[error(
        "unknown log level {text:?}: want debug, info, warn or error, or a list like info,ingester=debug"
    )]
    Level {
        /// What was given.
        text: String,
    },
    /// The format is none that is known.
    #[error("unknown log format {text:?}: want logfmt or json")]
    Format {
        /// What was given.
        text: String,
    },
    /// Telemetry was installed before.
    #[error("telemetry is installed already")]
    Installed,
    /// The share of traces is no share.
    #[error("trace sampling ratio {ratio}: want 0 to 1")]
    Ratio {
        /// What was given.
        ratio: f64,
    },
    /// The traces' endpoint cannot be used.
    #[error("trace endpoint {endpoint:?}: {cause}")]
    Endpoint {
        /// What was given.
        endpoint: String,
        /// What the exporter said.
        cause: String,
    },
    /// Traces were lost at the end.
    #[error("flush traces: {cause}")]
    Flush {
        /// What the exporter said.
        cause: String,
    },
}

/// The result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// What sort of failure this is.
    #[must_use]
    pub const fn kind(&self) -> fault::Kind {
        match self {
            Self::Level { .. } | Self::Format { .. } | Self::Ratio { .. } | Self::Endpoint { .. } => {
                fault::Kind::Invalid
            }
            Self::Installed => fault::Kind::AlreadyExists,
            Self::Flush { .. } => fault::Kind::Unavailable,
        }
    }
}
