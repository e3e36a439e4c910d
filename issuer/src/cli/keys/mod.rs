//! `countersign keys`: one file a subcommand.

mod export_public;
mod generate;
mod import;
mod list;
mod report;
mod retire;
mod revoke;
mod rewrap;
mod rotate;

use clap::{Subcommand, ValueEnum};
use countersign_shared::Algorithm;

use super::Outcome;
use super::operator::connect_by;
use crate::config::{Plain, Sources};
use crate::domain::signing_key::{KeyRecord, Purpose};
use crate::storage::signing_keys;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Every key: what it signs and how, where it stands, and until when.
    #[command(after_help = "Examples:\n  countersign keys list\n  countersign keys list --json")]
    List(list::List),
    /// Make a key and publish it. It signs when `keys rotate` says so.
    #[command(after_help = generate::EXAMPLES)]
    Generate(generate::Generate),
    /// Let a new key sign in place of the one that does.
    #[command(after_help = rotate::EXAMPLES)]
    Rotate(rotate::Rotate),
    /// Stop verifying with a key that signs no more, or give up one that doesn't sign yet.
    #[command(after_help = retire::EXAMPLES)]
    Retire(retire::Retire),
    /// In an emergency: refuse everything that a key has signed, and sign with another at once.
    #[command(after_help = revoke::EXAMPLES)]
    Revoke(revoke::Revoke),
    /// Bring in the key of a system that is being replaced.
    #[command(after_help = import::EXAMPLES)]
    Import(import::Import),
    /// The public keys of one purpose, as a JWK Set.
    #[command(after_help = "Example:\n  countersign keys export-public --purpose revocation")]
    ExportPublic(export_public::ExportPublic),
    /// Seal everything under another master key: the one that `NEW_MASTER_KEY` says. Issuers may run meanwhile.
    #[command(after_help = rewrap::HELP)]
    Rewrap(rewrap::Rewrap),
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
        Command::List(options) => list::run(sources, options).await,
        Command::Generate(options) => generate::run(sources, options).await,
        Command::Rotate(options) => rotate::run(sources, options).await,
        Command::Retire(options) => retire::run(sources, options).await,
        Command::Revoke(options) => revoke::run(sources, options).await,
        Command::Import(options) => import::run(sources, options).await,
        Command::ExportPublic(options) => export_public::run(sources, options).await,
        Command::Rewrap(options) => rewrap::run(sources, options).await,
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

async fn records(config: Plain) -> Result<Vec<KeyRecord>, Failure> {
    Ok(signing_keys::list(&connect_by(config).await?).await?)
}

/// For clap.
pub(super) fn algorithm(text: &str) -> Result<Algorithm, String> {
    Algorithm::from_name(text).ok_or_else(|| "must be RS256, PS256, ES256 or EdDSA".to_owned())
}
