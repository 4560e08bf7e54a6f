//! What can go wrong here.

use fault::Kind;

/// A failure of discovery.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration file is refused; all its faults, the one that Prometheus reports first.
    #[error("couldn't load configuration (--config.file={}): {}", model::number::Quoted(.path), .faults.join("\n"))]
    Refused {
        /// The file.
        path: String,
        /// What is wrong with it.
        faults: Vec<String>,
    },
    /// The service is stopping and takes no more requests.
    #[error("discovery is stopping")]
    Stopping,
    /// A request that cannot be understood.
    #[error("{0} must not be empty")]
    Empty(&'static str),
}

impl Error {
    /// What sort of failure this is.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Refused { .. } | Self::Empty(_) => Kind::Invalid,
            Self::Stopping => Kind::Unavailable,
        }
    }
}

impl From<Error> for tonic::Status {
    fn from(error: Error) -> Self {
        rpc::status::status(error.kind(), error.to_string())
    }
}

/// The crate's result.
pub type Result<T> = std::result::Result<T, Error>;
