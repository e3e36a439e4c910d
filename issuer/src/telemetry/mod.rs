//! Logs: to standard error, so that what a command prints can be piped.

pub(crate) mod lines;

use std::io::IsTerminal as _;
use std::sync::{Mutex, PoisonError};
use std::{fmt, io};

use tracing::Subscriber;
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};

use crate::config::{LogFormat, LogLevel, Telemetry};
use crate::traces;

pub use lines::Writing;

/// A log at work, whose level can be changed.
pub struct Logs {
    filter: reload::Handle<EnvFilter, Registry>,
    level: Mutex<LogLevel>,
}

/// The level couldn't be changed: nothing logs any more.
#[derive(Debug)]
pub struct Gone;

impl fmt::Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nothing logs any more")
    }
}

impl std::error::Error for Gone {}

/// Starts logging, for a command: a line is written by who logs it. Libraries are heard from `WARN` on, whatever the level: below that they may show what is
/// in requests.
pub fn start(config: Telemetry) -> Logs {
    begin(config, false, BoxMakeWriter::new(io::stderr))
}

/// The same, for who serves: nobody waits for who reads the log ([`lines`]). `traced`: the steps of requests go to [`traces`], too, whatever the level.
pub fn start_serving(config: Telemetry, traced: bool) -> io::Result<(Logs, Writing)> {
    let (lines, writing) = lines::start(io::stderr(), lines::WAITING_BYTES)?;
    Ok((begin(config, traced, BoxMakeWriter::new(lines)), writing))
}

fn begin(config: Telemetry, traced: bool, writer: BoxMakeWriter) -> Logs {
    let (filter, handle) = reload::Layer::new(filter(config.level));
    // Fails only where something else has started logging already, as tests may.
    _ = if traced {
        let steps = traces::Steps.with_filter(traces::seen_by_steps());
        let lines = formatted(config.format, writer).with_filter(filter);
        tracing_subscriber::registry().with(lines).with(steps).try_init()
    } else {
        tracing_subscriber::registry().with(filter).with(formatted(config.format, writer)).try_init()
    };
    Logs { filter: handle, level: Mutex::new(config.level) }
}

fn formatted<S: Subscriber + for<'l> LookupSpan<'l>>(
    format: LogFormat,
    writer: BoxMakeWriter,
) -> Box<dyn Layer<S> + Send + Sync> {
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
    match format {
        LogFormat::Json => lines.json().flatten_event(true).with_span_list(false).boxed(),
        LogFormat::Text => lines.with_target(false).with_ansi(io::stderr().is_terminal()).boxed(),
    }
}

fn filter(level: LogLevel) -> EnvFilter {
    EnvFilter::new(format!("warn,countersign_issuer={}", level.0))
}

impl Logs {
    /// What is logged.
    pub fn level(&self) -> LogLevel {
        *self.level.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Logs from `level` on, until the process ends or this is called again.
    pub fn set_level(&self, level: LogLevel) -> Result<(), Gone> {
        let mut current = self.level.lock().unwrap_or_else(PoisonError::into_inner);
        self.filter.reload(filter(level)).map_err(|_| Gone)?;
        *current = level;
        Ok(())
    }
}
