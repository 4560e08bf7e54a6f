//! What can go wrong between start and stop.

use std::net::SocketAddr;

/// Any error, as services hand it to the runtime.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A failure that ends the program.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Arguments or config are wrong; nothing was started.
    #[error("{}", .faults.join("\n"))]
    Config {
        /// Every fault that was found.
        faults: Vec<String>,
    },
    /// A listener's address is not to be had.
    #[error("listen on {address} for {listener}: {cause}")]
    Bind {
        /// The listener's name.
        listener: &'static str,
        /// The address that was wanted.
        address: SocketAddr,
        /// What the system said.
        cause: std::io::Error,
    },
    /// A service names a listener that the program does not have.
    #[error("{service} answers on listener {listener:?}, which is not configured")]
    UnknownListener {
        /// The service.
        service: &'static str,
        /// The missing listener.
        listener: &'static str,
    },
    /// A service could not be built.
    #[error("build {service}: {cause}")]
    Build {
        /// The service.
        service: &'static str,
        /// What it said.
        cause: BoxError,
    },
    /// A service, or work that it cannot do without, failed.
    #[error("{what}: {cause}")]
    Failed {
        /// What failed.
        what: String,
        /// How it failed.
        cause: String,
    },
    /// The grace period was over before the program had stopped.
    #[error("not stopped within the grace period, pending: {}", .pending.join(", "))]
    Overran {
        /// What had not ended.
        pending: Vec<String>,
    },
    /// The program was told to end at once.
    #[error("ended at once, pending: {}", .pending.join(", "))]
    Forced {
        /// What had not ended.
        pending: Vec<String>,
    },
    /// The coordinator refused this member.
    #[error("join the members of {role}: {cause}")]
    Membership {
        /// The role that was to be joined.
        role: coordination::Role,
        /// What the coordinator said.
        cause: coordination::Error,
    },
    /// Descriptors for reflection do not fit together.
    #[error("gRPC reflection: {cause}")]
    Reflection {
        /// What the reflection service said.
        cause: String,
    },
    /// The machine refused what every program needs.
    #[error("{what}: {cause}")]
    System {
        /// What was attempted.
        what: &'static str,
        /// What the system said.
        cause: std::io::Error,
    },
}

/// The result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// What sort of failure this is.
    #[must_use]
    pub const fn kind(&self) -> fault::Kind {
        match self {
            Self::Config { .. } | Self::UnknownListener { .. } => fault::Kind::Invalid,
            Self::Bind { .. } => fault::Kind::Unavailable,
            Self::Overran { .. } => fault::Kind::Timeout,
            Self::Forced { .. } => fault::Kind::Cancelled,
            Self::Membership { cause, .. } => cause.kind(),
            Self::Build { .. } | Self::Failed { .. } | Self::Reflection { .. } | Self::System { .. } => {
                fault::Kind::Internal
            }
        }
    }
}
