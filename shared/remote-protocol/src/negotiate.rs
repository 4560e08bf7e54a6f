//! Which message a request holds, from its headers.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

/// A version of remote write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Version {
    /// `prometheus.WriteRequest`
    V1,
    /// `io.prometheus.write.v2.Request`
    V2,
}

impl Version {
    /// Returns the name of the message, as it stands in headers and config files.
    #[must_use]
    pub const fn message(self) -> &'static str {
        match self {
            Self::V1 => "prometheus.WriteRequest",
            Self::V2 => "io.prometheus.write.v2.Request",
        }
    }

    /// Returns the Content-Type that a sender sets.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            // Receivers of before 2.0 know no parameter.
            Self::V1 => "application/x-protobuf",
            Self::V2 => "application/x-protobuf;proto=io.prometheus.write.v2.Request",
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())
    }
}

impl FromStr for Version {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        [Self::V1, Self::V2].into_iter().find(|v| v.message() == text).ok_or_else(|| {
            Error::UnsupportedMediaType(format!(
                "unknown type for remote write protobuf message {text}, supported: {}, {}",
                Self::V1,
                Self::V2
            ))
        })
    }
}

const MEDIA_TYPE: &str = "application/x-protobuf";
const SNAPPY: &str = "snappy";

/// Reads the headers of a write; an absent one is the empty string.
///
/// # Errors
/// [`Error::UnsupportedMediaType`] when the message is unknown or not among those accepted, or the compression is not
/// snappy.
pub fn negotiate(content_type: &str, content_encoding: &str, accepted: &[Version]) -> Result<Version> {
    let version = if content_type.is_empty() { Version::V1 } else { read_content_type(content_type)? };
    if !accepted.contains(&version) {
        let accepted: Vec<&str> = accepted.iter().map(|v| v.message()).collect();
        return Err(Error::UnsupportedMediaType(format!(
            "{version} protobuf message is not accepted by this server; only accepts {}",
            accepted.join(", ")
        )));
    }
    // Early senders left the header out and compressed all the same.
    if !content_encoding.is_empty() && content_encoding != SNAPPY {
        return Err(Error::UnsupportedMediaType(format!(
            "{content_encoding} encoding (compression) is not accepted by this server; only {SNAPPY} is acceptable"
        )));
    }
    Ok(version)
}

fn read_content_type(text: &str) -> Result<Version> {
    let text = text.trim();
    let mut parts = text.split(';');
    if parts.next() != Some(MEDIA_TYPE) {
        return Err(Error::UnsupportedMediaType(format!(
            "expected {MEDIA_TYPE} as the first (media) part, got {text} content-type"
        )));
    }
    for part in parts {
        let (name, value) = part.split_once('=').filter(|(_, v)| !v.contains('=')).ok_or_else(|| {
            Error::UnsupportedMediaType(format!(
                "as per https://www.rfc-editor.org/rfc/rfc9110#parameter expected parameters to be key-values, got {part} in {text} content-type"
            ))
        })?;
        if name.trim() == "proto" {
            return value.trim().parse();
        }
    }
    Ok(Version::V1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_name_the_message() {
        let both = [Version::V1, Version::V2];
        for (content_type, encoding, accepted, expected) in [
            ("", "", &both[..], Some(Version::V1)),
            ("", "snappy", &both, Some(Version::V1)),
            ("application/x-protobuf", "snappy", &both, Some(Version::V1)),
            ("application/x-protobuf;charset=utf-8", "snappy", &both, Some(Version::V1)),
            ("application/x-protobuf;proto=prometheus.WriteRequest", "snappy", &both, Some(Version::V1)),
            (" application/x-protobuf; proto = io.prometheus.write.v2.Request", "", &both, Some(Version::V2)),
            (Version::V1.content_type(), "snappy", &both, Some(Version::V1)),
            (Version::V2.content_type(), "snappy", &both, Some(Version::V2)),
            (Version::V2.content_type(), "snappy", &both[..1], None),
            ("", "", &both[1..], None),
            ("application/json", "", &both, None),
            ("application/x-protobuf;proto", "", &both, None),
            ("application/x-protobuf;a=b=c", "", &both, None),
            ("application/x-protobuf;proto=x", "", &both, None),
            ("", "gzip", &both, None),
            ("", "Snappy", &both, None),
        ] {
            let result = negotiate(content_type, encoding, accepted);
            match expected {
                Some(version) => assert_eq!(result, Ok(version), "{content_type:?} {encoding:?}"),
                None => assert!(
                    matches!(result, Err(Error::UnsupportedMediaType(_))),
                    "{content_type:?} {encoding:?}"
                ),
            }
        }
    }

    #[test]
    fn refusals_say_what_would_be_taken() {
        let error = |content_type, encoding| {
            negotiate(content_type, encoding, &[Version::V1]).map(|_| ()).unwrap_err().to_string()
        };
        assert_eq!(
            error(Version::V2.content_type(), ""),
            "io.prometheus.write.v2.Request protobuf message is not accepted by this server; only accepts prometheus.WriteRequest"
        );
        assert_eq!(
            error("", "zstd"),
            "zstd encoding (compression) is not accepted by this server; only snappy is acceptable"
        );
    }
}
