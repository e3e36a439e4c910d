//! Logs: to standard error, so that what a command prints can be piped.

use std::fmt;
use std::io::IsTerminal as _;
use std::sync::{Mutex, PoisonError};

use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, Registry, reload};

use crate::config::{LogFormat, LogLevel, Telemetry};

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
    let (filter, handle) = reload::Layer::new(filter(config.level));
    let logs = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let logs = match config.format {
        LogFormat::Json => logs.json().flatten_event(true).with_span_list(false).boxed(),
        LogFormat::Text => logs.with_target(false).with_ansi(std::io::stderr().is_terminal()).boxed(),
    };
    // Fails only where something else has started logging already, as tests may.
    _ = tracing_subscriber::registry().with(filter).with(logs).try_init();
    Logs { filter: handle, level: Mutex::new(config.level) }
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
