//! What a running Tributary tells about itself: logs on stderr, and its own traces over OTLP.
//!
//! [`init`] installs both for the whole program, once, from within the async runtime. Logs are one line an event,
//! in logfmt or JSON, with the fields of the spans around it. Traces are off unless an endpoint is configured; they
//! are sampled at the root, follow the W3C `traceparent` header over every call ([`continue_trace`],
//! [`inject_trace`]), and are flushed by [`Telemetry::shutdown`].
//!
//! Deliberately absent: metrics (`service-runtime` has the registry) and any choice of what to log.
#![warn(missing_docs)]

mod error;
mod line;
mod log;
mod trace;

pub use error::{Error, Result};
pub use log::{Format, Level};
pub use trace::{Traces, continue_trace, inject_trace};

use model::Clock;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::{Layer as _, Registry};

/// What to tell, and how.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The program's name, as traces carry it.
    pub name: String,
    /// The program's version, as traces carry it.
    pub version: String,
    /// What is logged.
    pub level: Level,
    /// How a log line looks.
    pub format: Format,
    /// Where traces go, if anywhere.
    pub traces: Option<Traces>,
    /// The clock that stamps log lines.
    pub clock: Clock,
}

/// The installed telemetry. Dropping it leaves logs working and loses the traces not sent yet.
#[derive(Debug)]
#[must_use = "traces are flushed by shutdown"]
pub struct Telemetry {
    traces: Option<trace::Pipeline>,
}

impl Telemetry {
    /// Sends what is left of the traces, within a few seconds. Blocks: call it off the async threads.
    ///
    /// # Errors
    /// [`Error::Flush`] when traces were lost.
    pub fn shutdown(self) -> Result<()> {
        self.traces.map_or(Ok(()), trace::Pipeline::shutdown)
    }
}

/// Installs logs on stderr and traces for the whole program. Needs a running tokio runtime if traces are on.
///
/// # Errors
/// [`Error::Installed`] the second time; [`Error::Endpoint`].
pub fn init(options: &Options) -> Result<Telemetry> {
    let (subscriber, telemetry) = subscriber(options, std::io::stderr)?;
    tracing::subscriber::set_global_default(subscriber).map_err(|_| Error::Installed)?;
    Ok(telemetry)
}

/// Builds what [`init`] installs, with logs going to `writer`: for programs and tests that install it themselves.
///
/// # Errors
/// [`Error::Endpoint`].
pub fn subscriber<W>(
    options: &Options,
    writer: W,
) -> Result<(impl tracing::Subscriber + Send + Sync + use<W>, Telemetry)>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let logs = log::layer(options.format, options.clock.clone(), writer).with_filter(options.level.filter());
    let (pipeline, traces) = match &options.traces {
        None => (None, None),
        Some(traces) => {
            let (pipeline, layer) = trace::start(options, traces)?;
            (Some(pipeline), Some(layer.with_filter(trace::filter())))
        }
    };
    Ok((Registry::default().with(logs).with(traces), Telemetry { traces: pipeline }))
}
