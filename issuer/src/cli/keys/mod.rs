//! `countersign keys`: one file a subcommand.

mod export_public;
mod list;

use clap::{Subcommand, ValueEnum};

use super::Outcome;
use crate::config::{Plain, Sources};
use crate::domain::signing_key::{KeyRecord, Purpose};
use crate::storage::{Database, schema, signing_keys};
use crate::telemetry;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Every key with its purpose, algorithm and state.
    List,
    /// The public keys of one purpose, as a JWK Set.
    ExportPublic(export_public::ExportPublic),
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum PurposeArgument {
    /// Access tokens.
    Token,
    /// Revocation heads: what the edge verifier takes as `REVOCATION_KEYS`.
    Revocation,
}

impl From<PurposeArgument> for Purpose {
    fn from(purpose: PurposeArgument) -> Self {
        match purpose {
            PurposeArgument::Token => Self::Token,
            PurposeArgument::Revocation => Self::Revocation,
        }
    }
}

pub(super) async fn run(sources: &Sources, command: &Command) -> Outcome {
    match command {
        Command::List => list::run(sources).await,
        Command::ExportPublic(options) => export_public::run(sources, options).await,
    }
}

async fn connect(config: Plain) -> Result<Database, Box<dyn std::error::Error + Send + Sync>> {
    telemetry::start(config.telemetry);
    let database = Database::connect(&config.database).await?;
    schema::check(&database).await?;
    Ok(database)
}

async fn records(config: Plain) -> Result<Vec<KeyRecord>, Box<dyn std::error::Error + Send + Sync>> {
    Ok(signing_keys::list(&connect(config).await?).await?)
}
