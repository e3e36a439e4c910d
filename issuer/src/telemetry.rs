//! Logs: to standard error, so that what a command prints can be piped.

use std::fmt;
use std::io::IsTerminal as _;
use std::sync::{Mutex, PoisonError};

use tracing::Subscriber;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};

use crate::config::{LogFormat, LogLevel, Telemetry};
use crate::traces;

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

/// Starts logging. Libraries are heard from `WARN` on, whatever the level: below that they may show what is in requests.
pub fn start(config: Telemetry) -> Logs {
    start_beside(config, false)
}

/// The same; `traced`: the steps of requests go to [`traces`], too, whatever the level.
pub fn start_beside(config: Telemetry, traced: bool) -> Logs {
    let (filter, handle) = reload::Layer::new(filter(config.level));
    // Fails only where something else has started logging already, as tests may.
    _ = if traced {
        let steps = traces::Steps.with_filter(traces::seen_by_steps());
        tracing_subscriber::registry().with(lines(config.format).with_filter(filter)).with(steps).try_init()
    } else {
        tracing_subscriber::registry().with(filter).with(lines(config.format)).try_init()
    };
    Logs { filter: handle, level: Mutex::new(config.level) }
}

/// What writes them.
fn lines<S: Subscriber + for<'l> LookupSpan<'l>>(format: LogFormat) -> Box<dyn Layer<S> + Send + Sync> {
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    match format {
        LogFormat::Json => lines.json().flatten_event(true).with_span_list(false).boxed(),
        LogFormat::Text => lines.with_target(false).with_ansi(std::io::stderr().is_terminal()).boxed(),
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
