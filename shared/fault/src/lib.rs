//! The kinds of failure that callers tell apart, and whether trying again can help.
//!
//! Every crate's `Error` has a `kind()`; `rpc` turns a kind into a gRPC status and `http-api` into an HTTP
//! status and `errorType`. Nothing else lives here.
#![warn(missing_docs)]

/// What sort of failure an error is, for the code that has to react to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The request itself is wrong; the same request fails again.
    Invalid,
    /// The named thing does not exist.
    NotFound,
    /// The thing to be created is there already.
    AlreadyExists,
    /// A configured limit refuses the request as it stands.
    Limit,
    /// Too much is going on at the moment; later it may pass.
    Busy,
    /// The time allowed was used up.
    Timeout,
    /// The caller went away or asked to stop.
    Cancelled,
    /// Something this depends on, or a part not built yet, cannot be reached.
    Unavailable,
    /// Stored bytes are not what was written.
    Corrupt,
    /// A broken invariant or an error of the machine.
    Internal,
}

impl Kind {
    /// Says whether the same request may succeed when sent again later.
    #[must_use]
    pub const fn is_retryable(self) -> bool {
        matches!(self, Self::Busy | Self::Timeout | Self::Unavailable)
    }

    /// Returns the kind's name in lower case, as it stands in logs and metric labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::NotFound => "not_found",
            Self::AlreadyExists => "already_exists",
            Self::Limit => "limit",
            Self::Busy => "busy",
            Self::Timeout => "timeout",
            Self::Cancelled => "cancelled",
            Self::Unavailable => "unavailable",
            Self::Corrupt => "corrupt",
            Self::Internal => "internal",
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::Kind;

    #[test]
    fn only_passing_conditions_are_retried() {
        let all = [
            Kind::Invalid,
            Kind::NotFound,
            Kind::AlreadyExists,
            Kind::Limit,
            Kind::Busy,
            Kind::Timeout,
            Kind::Cancelled,
            Kind::Unavailable,
            Kind::Corrupt,
            Kind::Internal,
        ];
        let retried: Vec<&str> = all.iter().filter(|k| k.is_retryable()).map(|k| k.as_str()).collect();
        assert_eq!(retried, ["busy", "timeout", "unavailable"]);
    }
}
