//! The layer that writes log lines.

use std::fmt;
use std::io::Write as _;
use std::str::FromStr;

use model::{Clock, Timestamp};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

use crate::line::Fields;
use crate::{Error, Result};

/// Crates whose own debug output drowns ours: they speak from `warn` on, unless the level names them.
const QUIET_CRATES: [&str; 8] =
    ["h2", "hyper", "hyper_util", "rustls", "tonic", "tower", "opentelemetry_sdk", "opentelemetry_otlp"];

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// `ts=2026-01-02T03:04:05.678Z level=info target=tsdb::flush msg="flush done" files=3`
    #[default]
    Logfmt,
    /// The same fields as one JSON object a line.
    Json,
}

impl FromStr for Format {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "logfmt" => Ok(Self::Logfmt),
            "json" => Ok(Self::Json),
            _ => Err(Error::Format { text: text.to_owned() }),
        }
    }
}

/// What is logged: a level, or a list of them by target (`info,ingester=debug`).
#[derive(Debug, Clone, PartialEq)]
pub struct Level(Targets);

impl Default for Level {
    fn default() -> Self {
        Self(Targets::new().with_default(tracing::Level::INFO))
    }
}

impl FromStr for Level {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let unknown = || Error::Level { text: text.to_owned() };
        let levels = ["trace", "debug", "info", "warn", "error"];
        let mut targets = Targets::new();
        for part in text.split(',') {
            let (target, level) = part.rsplit_once('=').map_or((None, part), |(t, l)| (Some(t), l));
            if !levels.contains(&level) || target.is_some_and(str::is_empty) {
                return Err(unknown());
            }
            let level: tracing::Level = level.parse().map_err(|_| unknown())?;
            targets = match target {
                None => targets.with_default(level),
                Some(target) => targets.with_target(target, level),
            };
        }
        Ok(Self(targets))
    }
}

impl Level {
    pub(crate) fn filter(&self) -> Targets {
        let named: Vec<(&str, _)> = self.0.iter().collect();
        QUIET_CRATES.into_iter().filter(|quiet| !named.iter().any(|(target, _)| target == quiet)).fold(
            self.0.clone(),
            |targets, quiet| {
                let ceiling = tracing::level_filters::LevelFilter::WARN;
                let default = self.0.default_level().unwrap_or(ceiling);
                targets.with_target(quiet, default.min(ceiling))
            },
        )
    }
}

/// The layer: remembers the fields of spans, writes a line an event.
pub(crate) struct Lines<W> {
    format: Format,
    clock: Clock,
    writer: W,
}

pub(crate) fn layer<W>(format: Format, clock: Clock, writer: W) -> Lines<W> {
    Lines { format, clock, writer }
}

impl<W> fmt::Debug for Lines<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lines").field("format", &self.format).finish_non_exhaustive()
    }
}

impl<S, W> Layer<S> for Lines<W>
where
    S: Subscriber + for<'s> LookupSpan<'s>,
    W: for<'w> MakeWriter<'w> + 'static,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let metadata = event.metadata();
        let mut own = Fields::default();
        event.record(&mut own);

        let mut line = Fields::default();
        line.text("ts", rfc3339(self.clock.now()));
        line.text("level", metadata.level().as_str().to_ascii_lowercase());
        line.text("target", metadata.target());
        // Reserves the place; the event's own fields follow its message, those of the spans come last.
        line.text("msg", "");
        line.extend(&own);
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(fields) = span.extensions().get::<Fields>() {
                // The innermost span is met first and the event before it: what is set stays.
                line.extend_absent(fields);
            }
        }
        let mut text = match self.format {
            Format::Logfmt => line.to_logfmt(),
            Format::Json => line.to_json(),
        };
        text.push('\n');
        // One write a line, so that lines of several threads do not mix. A log that cannot be written cannot be
        // reported either.
        drop(self.writer.make_writer_for(metadata).write_all(text.as_bytes()));
    }
}

/// Milliseconds in UTC: `2026-01-02T03:04:05.678Z`.
fn rfc3339(at: Timestamp) -> String {
    jiff::Timestamp::from_millisecond(at.millis())
        .map_or_else(|_| at.millis().to_string(), |instant| format!("{instant:.3}"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;
    use tracing::{debug, error, info, info_span, warn};

    use super::*;
    use crate::{Options, subscriber};

    /// Collects what is logged.
    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: Format, level: &str, act: impl FnOnce()) -> Vec<String> {
        let sink = Sink::default();
        let writer = sink.clone();
        let options = Options {
            format,
            level: level.parse().expect("a level"),
            clock: Clock::fixed(Timestamp(1_767_323_045_678)),
            ..Options::default()
        };
        let (subscriber, telemetry) = subscriber(&options, move || writer.clone()).expect("built");
        tracing::subscriber::with_default(subscriber, act);
        telemetry.shutdown().expect("nothing to flush");
        let bytes = sink.0.lock().clone();
        String::from_utf8(bytes).expect("text").lines().map(str::to_owned).collect()
    }

    fn story() {
        let outer = info_span!("flush", tenant = "default", tries = 1, late = tracing::field::Empty);
        let _outer = outer.enter();
        outer.record("late", true);
        let inner = info_span!("file", tries = 2, r#type = "parquet");
        let _inner = inner.enter();
        let cause = std::io::Error::other("disk full");
        error!(error = %cause, rows = 7_u64, "write failed");
    }

    #[test]
    fn a_line_holds_the_event_then_its_spans_from_the_inside_out() {
        assert_eq!(
            logged(Format::Logfmt, "info", story),
            [
                r#"ts=2026-01-02T03:04:05.678Z level=error target=telemetry::log::tests msg="write failed" error="disk full" rows=7 tries=2 type=parquet tenant=default late=true"#
            ]
        );
        assert_eq!(
            logged(Format::Json, "info", story),
            [
                r#"{"ts":"2026-01-02T03:04:05.678Z","level":"error","target":"telemetry::log::tests","msg":"write failed","error":"disk full","rows":7,"tries":2,"type":"parquet","tenant":"default","late":true}"#
            ]
        );
    }

    #[test]
    fn levels_decide_what_is_written() {
        let act = || {
            debug!("d");
            info!("i");
            warn!(target: "ingester::append", "w");
            debug!(target: "ingester::append", "id");
            info!(target: "h2::codec", "noise");
            warn!(target: "h2::codec", "trouble");
        };
        for (level, expected) in [
            ("error", vec![]),
            ("warn", vec!["w", "trouble"]),
            ("info", vec!["i", "w", "trouble"]),
            ("debug", vec!["d", "i", "w", "id", "trouble"]),
            ("warn,ingester=debug", vec!["w", "id", "trouble"]),
            ("info,h2=info", vec!["i", "w", "noise", "trouble"]),
        ] {
            let lines = logged(Format::Logfmt, level, act);
            let messages: Vec<&str> =
                lines.iter().map(|line| line.rsplit_once("msg=").expect("a message").1).collect();
            assert_eq!(messages, expected, "{level}");
        }
    }

    #[test]
    fn unknown_levels_and_formats_are_refused() {
        for bad in ["", "loud", "info,", "=info", "a=b", "INFO", "off"] {
            assert!(matches!(bad.parse::<Level>(), Err(Error::Level { .. })), "{bad:?}");
        }
        assert_eq!(
            "xml".parse::<Format>().map_err(|e| e.to_string()),
            Err("unknown log format \"xml\": want logfmt or json".to_owned())
        );
    }
}
