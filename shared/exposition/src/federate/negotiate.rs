//! Which format an answer of `/federate` has, from the request's Accept header.

use crate::escaping::EscapingScheme;
use crate::media_type::parse_accept;

/// The formats that `/federate` writes. OpenMetrics and text 1.0.0 are never among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum WireFormat {
    /// Prometheus text 0.0.4.
    #[default]
    Text,
    /// Delimited `io.prometheus.client.MetricFamily` messages.
    Protobuf,
}

/// What was agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Negotiated {
    /// The format.
    pub format: WireFormat,
    /// How names are escaped.
    pub escaping: EscapingScheme,
}

impl Negotiated {
    /// Reads an Accept header; what it does not allow is answered in text.
    ///
    /// The last known `escaping` before the clause that matches counts, even where its own clause does not match: so a
    /// scraper that prefers OpenMetrics with UTF-8 names gets them in text too. The two debug forms of protobuf that
    /// the reference also has (`encoding=text` and `compact-text`) are passed over.
    #[must_use]
    pub fn from_accept(header: &str) -> Self {
        let mut escaping = EscapingScheme::default();
        for clause in parse_accept(header) {
            if let Ok(scheme) = clause.parameter("escaping").parse() {
                escaping = scheme;
            }
            let is_message = clause.kind == "application"
                && clause.subtype == "vnd.google.protobuf"
                && clause.parameter("proto") == "io.prometheus.client.MetricFamily"
                && clause.parameter("encoding") == "delimited";
            if is_message {
                return Self { format: WireFormat::Protobuf, escaping };
            }
            let is_text = clause.kind == "text"
                && clause.subtype == "plain"
                && matches!(clause.parameter("version"), "" | "0.0.4");
            if is_text {
                break;
            }
        }
        Self { format: WireFormat::Text, escaping }
    }

    /// Returns the Content-Type of the answer.
    #[must_use]
    pub fn content_type(&self) -> String {
        let format = match self.format {
            WireFormat::Text => "text/plain; version=0.0.4; charset=utf-8",
            WireFormat::Protobuf => {
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
            }
        };
        format!("{format}; escaping={}", self.escaping)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_accept_header_decides() {
        use EscapingScheme::{AllowUtf8, Dots, Underscores};
        use WireFormat::{Protobuf, Text};
        let proto =
            "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited";
        let scraper = crate::protocol::accept_header(&crate::ScrapeProtocol::DEFAULT, AllowUtf8);
        let native = crate::protocol::accept_header(&crate::ScrapeProtocol::DEFAULT_WITH_PROTO, AllowUtf8);
        for (header, format, escaping) in [
            ("", Text, Underscores),
            ("*/*", Text, Underscores),
            ("application/openmetrics-text;version=1.0.0", Text, Underscores),
            ("text/plain;version=0.0.4;escaping=dots", Text, Dots),
            ("text/plain;escaping=nonsense", Text, Underscores),
            (proto, Protobuf, Underscores),
            (&format!("{proto};escaping=allow-utf-8"), Protobuf, AllowUtf8),
            (&format!("text/plain;q=0.5,{proto};q=0.4"), Text, Underscores),
            (&format!("text/plain;q=0.3,{proto};q=0.4"), Protobuf, Underscores),
            (&proto.replace("delimited", "text"), Text, Underscores),
            // A scraper of Prometheus 3: the escaping of its OpenMetrics clause holds for text.
            (&scraper, Text, AllowUtf8),
            // With native histograms protobuf matches first, before any escaping is named.
            (&native, Protobuf, Underscores),
        ] {
            assert_eq!(Negotiated::from_accept(header), Negotiated { format, escaping }, "{header}");
        }
    }

    #[test]
    fn the_content_type_names_the_escaping() {
        let of = |header| Negotiated::from_accept(header).content_type();
        assert_eq!(of("*/*"), "text/plain; version=0.0.4; charset=utf-8; escaping=underscores");
        assert_eq!(
            of(
                "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;escaping=values"
            ),
            "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited; escaping=values"
        );
    }
}
