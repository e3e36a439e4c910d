//! Logs: to standard error, so that what a command prints can be piped.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use crate::config::{LogFormat, Telemetry};

/// Starts logging. Libraries are heard from `WARN` on, whatever the level: below that they may show what is in requests.
pub fn start(config: Telemetry) {
    let filter = EnvFilter::new(format!("warn,countersign_issuer={}", config.level.0));
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // Fails only where something else has started logging already, as tests may.
    _ = match config.format {
        LogFormat::Json => logs.json().flatten_event(true).with_span_list(false).try_init(),
        LogFormat::Text => logs.with_target(false).with_ansi(std::io::stderr().is_terminal()).try_init(),
    };
}
