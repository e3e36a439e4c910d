//! The `countersign` binary.

use std::process::ExitCode;

use clap::Parser as _;
use countersign_issuer::cli::{self, Cli};
use tikv_jemallocator::Jemalloc;

// Its settings are compiled in, from .cargo/config.toml.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

#[tokio::main]
async fn main() -> ExitCode {
    cli::run(Cli::parse()).await
}
