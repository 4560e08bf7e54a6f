//! Errors as the API reports them: a type, an HTTP status, a text.

use std::fmt;

use fault::Kind;

/// The API's `errorType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorType {
    /// The request is wrong.
    BadData,
    /// The evaluation failed.
    Execution,
    /// The client went away or the query was cancelled.
    Canceled,
    /// The query took too long.
    Timeout,
    /// Storage or another service failed.
    Internal,
    /// Not to be had: switched off, or a part that cannot be reached.
    Unavailable,
    /// No such thing.
    NotFound,
    /// Not built yet.
    NotImplemented,
}

impl ErrorType {
    /// Returns the name in the answer.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BadData => "bad_data",
            Self::Execution => "execution",
            Self::Canceled => "canceled",
            Self::Timeout => "timeout",
            Self::Internal => "internal",
            Self::Unavailable => "unavailable",
            Self::NotFound => "not_found",
            Self::NotImplemented => "not_implemented",
        }
    }
}

/// An error of the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    /// The type.
    pub kind: ErrorType,
    /// The HTTP status.
    pub status: u16,
    /// The text.
    pub message: String,
}

impl ApiError {
    /// Makes an error with the status that Prometheus uses for the type.
    pub fn new(kind: ErrorType, message: impl Into<String>) -> Self {
        let status = match kind {
            ErrorType::BadData => 400,
            ErrorType::Execution => 422,
            ErrorType::Canceled => 499,
            ErrorType::Timeout => 503,
            // Prometheus has no mapping for `unavailable` and falls to its default.
            ErrorType::Internal | ErrorType::Unavailable => 500,
            ErrorType::NotFound => 404,
            ErrorType::NotImplemented => 501,
        };
        Self { kind, status, message: message.into() }
    }

    /// A wrong parameter: `invalid parameter "<name>": <cause>`.
    pub fn parameter(name: &str, cause: impl fmt::Display) -> Self {
        Self::new(ErrorType::BadData, format!("invalid parameter {}: {cause}", model::number::Quoted(name)))
    }

    /// What a failure of another service means to the caller. Here, and nowhere else, a kind becomes a status.
    pub fn from_kind(kind: Kind, message: impl Into<String>) -> Self {
        let message = message.into();
        match kind {
            Kind::Invalid | Kind::AlreadyExists => Self::new(ErrorType::BadData, message),
            Kind::NotFound => Self::new(ErrorType::NotFound, message),
            Kind::Limit => Self::new(ErrorType::Execution, message),
            Kind::Timeout => Self::new(ErrorType::Timeout, message),
            Kind::Cancelled => Self::new(ErrorType::Canceled, message),
            // A part that cannot be reached is 503, naming it (DESIGN section 5); Prometheus has no such case.
            Kind::Unavailable => Self { kind: ErrorType::Unavailable, status: 503, message },
            Kind::Busy => Self { kind: ErrorType::Unavailable, status: 429, message },
            Kind::Corrupt | Kind::Internal => Self::new(ErrorType::Internal, message),
        }
    }

    /// Returns the body.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let mut out = b"{\"status\":\"error\",\"errorType\":".to_vec();
        crate::json::push_escaped(&mut out, self.kind.as_str());
        out.extend_from_slice(b",\"error\":");
        crate::json::push_escaped(&mut out, &self.message);
        out.push(b'}');
        out
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ApiError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_and_statuses_are_prometheus_ones() {
        let error = ApiError::parameter("query", "1:3: parse error: unexpected <end>");
        assert_eq!(error.status, 400);
        assert_eq!(
            String::from_utf8(error.to_json()).expect("UTF-8"),
            r#"{"status":"error","errorType":"bad_data","error":"invalid parameter \"query\": 1:3: parse error: unexpected \u003cend\u003e"}"#
        );
        for (kind, status, name) in [
            (Kind::Invalid, 400, "bad_data"),
            (Kind::Limit, 422, "execution"),
            (Kind::Timeout, 503, "timeout"),
            (Kind::Cancelled, 499, "canceled"),
            (Kind::Unavailable, 503, "unavailable"),
            (Kind::Busy, 429, "unavailable"),
            (Kind::Internal, 500, "internal"),
            (Kind::NotFound, 404, "not_found"),
        ] {
            let error = ApiError::from_kind(kind, "x");
            assert_eq!((error.status, error.kind.as_str()), (status, name), "{kind}");
        }
        assert_eq!(ApiError::new(ErrorType::Unavailable, "admin APIs disabled").status, 500);
        assert_eq!(ApiError::new(ErrorType::NotImplemented, "x").status, 501);
    }
}
