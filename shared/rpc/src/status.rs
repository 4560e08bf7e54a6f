//! Error kinds to gRPC statuses and back: the one place that knows both.

use fault::Kind;
use tonic::{Code, Status};

/// Makes the status for an error of a kind.
pub fn status(kind: Kind, message: impl Into<String>) -> Status {
    let code = match kind {
        Kind::Invalid => Code::InvalidArgument,
        Kind::NotFound => Code::NotFound,
        Kind::AlreadyExists => Code::AlreadyExists,
        Kind::Limit => Code::FailedPrecondition,
        Kind::Busy => Code::ResourceExhausted,
        Kind::Timeout => Code::DeadlineExceeded,
        Kind::Cancelled => Code::Cancelled,
        Kind::Unavailable => Code::Unavailable,
        Kind::Corrupt => Code::DataLoss,
        Kind::Internal => Code::Internal,
    };
    Status::new(code, message)
}

/// Reads the kind of a status, also of one that something other than Tributary made.
#[must_use]
pub fn kind(status: &Status) -> Kind {
    match status.code() {
        Code::InvalidArgument | Code::OutOfRange => Kind::Invalid,
        Code::NotFound => Kind::NotFound,
        Code::AlreadyExists => Kind::AlreadyExists,
        Code::FailedPrecondition => Kind::Limit,
        Code::ResourceExhausted | Code::Aborted => Kind::Busy,
        Code::DeadlineExceeded => Kind::Timeout,
        Code::Cancelled => Kind::Cancelled,
        Code::Unavailable | Code::Unimplemented => Kind::Unavailable,
        Code::DataLoss => Kind::Corrupt,
        // The transport reports a connection that broke in the middle as unknown.
        Code::Unknown if std::error::Error::source(status).is_some() => Kind::Unavailable,
        _ => Kind::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_survives_the_wire() {
        for k in [
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
        ] {
            let made = status(k, "why");
            assert_eq!(kind(&made), k);
            assert_eq!(made.message(), "why");
        }
        assert_eq!(kind(&Status::unimplemented("x")), Kind::Unavailable);
    }
}
