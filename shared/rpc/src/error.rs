//! What is wrong with a message.

/// A message that cannot be turned into a value of the domain.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// A field that must be there is absent.
    #[error("message field {0} is missing")]
    Missing(&'static str),
    /// A field holds what it must not hold.
    #[error("message field {field}: {problem}")]
    Invalid {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
}

impl Error {
    /// Makes an [`Error::Invalid`].
    pub fn invalid(field: &'static str, problem: impl std::fmt::Display) -> Self {
        Self::Invalid { field, problem: problem.to_string() }
    }

    /// Always [`fault::Kind::Invalid`].
    #[must_use]
    pub const fn kind(&self) -> fault::Kind {
        fault::Kind::Invalid
    }
}

impl From<Error> for tonic::Status {
    fn from(error: Error) -> Self {
        crate::status::status(error.kind(), error.to_string())
    }
}

/// The crate's result.
pub type Result<T> = std::result::Result<T, Error>;
