//! Which format a scrape asks for, and which one an answer is in.

use std::fmt;
use std::str::FromStr;

use model::number::Quoted;

use crate::error::{Error, Result};
use crate::escaping::EscapingScheme;
use crate::media_type::parse_content_type;

/// A format that `scrape_protocols` can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ScrapeProtocol {
    /// Delimited protobuf messages.
    PrometheusProto,
    /// Text, version 0.0.4.
    PrometheusText0_0_4,
    /// Text, version 1.0.0: with quoted UTF-8 names.
    PrometheusText1_0_0,
    /// OpenMetrics text, version 0.0.1.
    OpenMetricsText0_0_1,
    /// OpenMetrics text, version 1.0.0.
    OpenMetricsText1_0_0,
}

impl ScrapeProtocol {
    /// Every protocol, in the order of their names.
    pub const ALL: [Self; 5] = [
        Self::OpenMetricsText0_0_1,
        Self::OpenMetricsText1_0_0,
        Self::PrometheusProto,
        Self::PrometheusText0_0_4,
        Self::PrometheusText1_0_0,
    ];

    /// What is asked for when nothing is configured.
    pub const DEFAULT: [Self; 4] = [
        Self::OpenMetricsText1_0_0,
        Self::OpenMetricsText0_0_1,
        Self::PrometheusText1_0_0,
        Self::PrometheusText0_0_4,
    ];

    /// What is asked for when nothing is configured and native histograms are scraped.
    pub const DEFAULT_WITH_PROTO: [Self; 5] = [
        Self::PrometheusProto,
        Self::OpenMetricsText1_0_0,
        Self::OpenMetricsText0_0_1,
        Self::PrometheusText1_0_0,
        Self::PrometheusText0_0_4,
    ];

    /// Returns the name used in config files.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PrometheusProto => "PrometheusProto",
            Self::PrometheusText0_0_4 => "PrometheusText0.0.4",
            Self::PrometheusText1_0_0 => "PrometheusText1.0.0",
            Self::OpenMetricsText0_0_1 => "OpenMetricsText0.0.1",
            Self::OpenMetricsText1_0_0 => "OpenMetricsText1.0.0",
        }
    }

    /// Returns the format that a body of this protocol has.
    #[must_use]
    pub const fn format(self) -> Format {
        match self {
            Self::PrometheusProto => Format::Protobuf,
            Self::PrometheusText0_0_4 | Self::PrometheusText1_0_0 => Format::Text,
            Self::OpenMetricsText0_0_1 | Self::OpenMetricsText1_0_0 => Format::OpenMetrics,
        }
    }

    const fn header(self) -> &'static str {
        match self {
            Self::PrometheusProto => {
                "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"
            }
            Self::PrometheusText0_0_4 => "text/plain;version=0.0.4",
            Self::PrometheusText1_0_0 => "text/plain;version=1.0.0",
            Self::OpenMetricsText0_0_1 => "application/openmetrics-text;version=0.0.1",
            Self::OpenMetricsText1_0_0 => "application/openmetrics-text;version=1.0.0",
        }
    }

    /// The names with spaces between, as they stand in an error.
    pub(crate) fn all_names() -> String {
        Self::ALL.map(Self::as_str).join(" ")
    }
}

impl fmt::Display for ScrapeProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for ScrapeProtocol {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|p| p.as_str() == text)
            .ok_or_else(|| Error::UnknownProtocol(text.to_owned()))
    }
}

/// The grammar of a scrape body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// Prometheus text, 0.0.4 and 1.0.0.
    Text,
    /// OpenMetrics text, 0.0.1 and 1.0.0.
    OpenMetrics,
    /// Delimited protobuf messages.
    Protobuf,
}

impl Format {
    /// Returns the media type, without parameters.
    #[must_use]
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain",
            Self::OpenMetrics => "application/openmetrics-text",
            Self::Protobuf => "application/vnd.google.protobuf",
        }
    }

    fn from_media_type(media_type: &str) -> Option<Self> {
        [Self::Text, Self::OpenMetrics, Self::Protobuf].into_iter().find(|f| f.media_type() == media_type)
    }
}

/// Builds the Accept header of a scrape: the protocols in order with falling quality, then anything.
#[must_use]
pub fn accept_header(protocols: &[ScrapeProtocol], escaping: EscapingScheme) -> String {
    use fmt::Write as _;
    // The first protocol always has the same quality, however many there are.
    let mut weight = ScrapeProtocol::ALL.len() + 1;
    let mut header = String::new();
    for protocol in protocols {
        header.push_str(protocol.header());
        if matches!(protocol, ScrapeProtocol::PrometheusText1_0_0 | ScrapeProtocol::OpenMetricsText1_0_0) {
            write!(header, ";escaping={escaping}").expect("writing to a string");
        }
        write!(header, ";q=0.{weight},").expect("writing to a string");
        weight = weight.saturating_sub(1);
    }
    write!(header, "*/*;q=0.{weight}").expect("writing to a string");
    header
}

/// The format of an answer, and what was wrong with its Content-Type where the fallback had to be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// How to parse the body.
    pub format: Format,
    /// Why the fallback was used; `None` when the Content-Type was understood.
    pub complaint: Option<String>,
}

/// Picks the format of an answer by its Content-Type (empty when there was none).
///
/// # Errors
/// When the Content-Type is missing, broken or unknown and no fallback is configured: the scrape fails.
pub fn select_format(content_type: &str, fallback: Option<ScrapeProtocol>) -> Result<Selection> {
    let parsed = if content_type.is_empty() { None } else { Some(parse_content_type(content_type)) };
    if let Some(Ok(media_type)) = &parsed
        && let Some(format) = Format::from_media_type(media_type)
    {
        return Ok(Selection { format, complaint: None });
    }
    let quoted = Quoted(content_type);
    let Some(fallback) = fallback else {
        return Err(Error::ContentType(match parsed {
            None => "non-compliant scrape target sending blank Content-Type and no fallback_scrape_protocol specified for target".to_owned(),
            Some(Err(cause)) => {
                format!("cannot parse Content-Type {quoted} and no fallback_scrape_protocol for target\n{cause}")
            }
            Some(Ok(_)) => format!(
                "received unsupported Content-Type {quoted} and no fallback_scrape_protocol specified for target"
            ),
        }));
    };
    let format = fallback.format();
    let used = Quoted(format.media_type());
    let complaint = match parsed {
        None => format!(
            "non-compliant scrape target sending blank Content-Type, using fallback_scrape_protocol {used}"
        ),
        Some(Err(cause)) => format!(
            "could not parse received Content-Type {quoted}, using fallback_scrape_protocol {used}\n{cause}"
        ),
        Some(Ok(_)) => {
            format!("received unsupported Content-Type {quoted}, using fallback_scrape_protocol {used}")
        }
    };
    Ok(Selection { format, complaint: Some(complaint) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_accept_header_is_prometheus_own() {
        assert_eq!(
            accept_header(&ScrapeProtocol::DEFAULT, EscapingScheme::AllowUtf8),
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
             application/openmetrics-text;version=0.0.1;q=0.5,\
             text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
        );
        assert_eq!(
            accept_header(&[ScrapeProtocol::PrometheusProto], EscapingScheme::Underscores),
            "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6,*/*;q=0.5"
        );
        assert_eq!(
            accept_header(&ScrapeProtocol::DEFAULT_WITH_PROTO, EscapingScheme::Dots),
            "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6,\
             application/openmetrics-text;version=1.0.0;escaping=dots;q=0.5,\
             application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=dots;q=0.3,\
             text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
        );
    }

    #[test]
    fn the_content_type_selects_the_format() {
        let select =
            |text, fallback| select_format(text, fallback).map(|s| (s.format, s.complaint.is_some()));
        let text = Some(ScrapeProtocol::PrometheusText0_0_4);
        for (content_type, expected) in [
            ("text/plain; version=0.0.4; charset=utf-8; escaping=underscores", Format::Text),
            ("text/plain", Format::Text),
            ("application/openmetrics-text; version=1.0.0; charset=utf-8", Format::OpenMetrics),
            (
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited",
                Format::Protobuf,
            ),
        ] {
            assert_eq!(select(content_type, None), Ok((expected, false)));
            assert_eq!(select(content_type, text), Ok((expected, false)));
        }
        for bad in ["", "text/html", "text/plain; charset"] {
            assert!(select(bad, None).is_err());
            assert_eq!(select(bad, text), Ok((Format::Text, true)));
        }
    }

    #[test]
    fn an_answer_of_no_known_format_is_refused_in_prometheus_words() {
        let error = |text| select_format(text, None).map(|_| ()).unwrap_err().to_string();
        assert_eq!(
            error(""),
            "non-compliant scrape target sending blank Content-Type and no fallback_scrape_protocol specified for target"
        );
        assert_eq!(
            error("text/html"),
            r#"received unsupported Content-Type "text/html" and no fallback_scrape_protocol specified for target"#
        );
        assert_eq!(
            error("text/plain; x"),
            "cannot parse Content-Type \"text/plain; x\" and no fallback_scrape_protocol for target\nmime: invalid media parameter"
        );
        let used = select_format("text/html", Some(ScrapeProtocol::OpenMetricsText0_0_1)).unwrap();
        assert_eq!(
            used.complaint.unwrap(),
            r#"received unsupported Content-Type "text/html", using fallback_scrape_protocol "application/openmetrics-text""#
        );
    }

    #[test]
    fn protocols_have_names() {
        for protocol in ScrapeProtocol::ALL {
            assert_eq!(protocol.to_string().parse(), Ok(protocol));
        }
        assert_eq!(
            "Text".parse::<ScrapeProtocol>().unwrap_err().to_string(),
            "unknown scrape protocol Text, supported: [OpenMetricsText0.0.1 OpenMetricsText1.0.0 PrometheusProto \
             PrometheusText0.0.4 PrometheusText1.0.0]"
        );
    }
}
