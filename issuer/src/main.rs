//! The `countersign` binary.

use std::process::ExitCode;

use clap::Parser as _;
use countersign_issuer::cli::{self, Cli};

#[tokio::main]
async fn main() -> ExitCode {
    cli::run(Cli::parse()).await
}
