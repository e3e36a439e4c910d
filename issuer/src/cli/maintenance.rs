//! `countersign maintenance`.

use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;
use time::OffsetDateTime;

use super::output::{self, Format};
use super::{Outcome, operator};
use crate::clock;
use crate::config::Sources;
use crate::http::maintenance::check_reason;
use crate::maintenance::Mode;
use crate::management::maintenance;
use crate::storage::maintenance as storage;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Turn away what changes something, at every issuer, until it is turned off. Revocation and whatever else ends something go on.
    #[command(after_help = ON_EXAMPLES)]
    On(On),
    /// Let everything in again.
    #[command(after_help = "Example:\n  countersign maintenance off")]
    Off(Plainly),
    /// Whether it is on, since when and why.
    #[command(
        after_help = "Examples:\n  countersign maintenance status\n  countersign maintenance status --json"
    )]
    Status(Plainly),
}

const ON_EXAMPLES: &str = "\
Examples:
  countersign maintenance on --reason 'moving to another database, until 03:00 UTC'
  countersign maintenance on --tokens too --reason 'the same'

Issuers that run follow within a second, those that start later at once. To switch a single process, without the database: POST /maintenance at its admin
listener.";

#[derive(Debug, Args)]
pub(super) struct On {
    /// Why, and until when: told to whoever is turned away.
    #[arg(long, value_parser = reason)]
    reason: Option<String>,
    /// Whether tokens are issued meanwhile.
    #[arg(long, value_enum, default_value_t = Tokens::GoOn)]
    tokens: Tokens,
    #[command(flatten)]
    plainly: Plainly,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Tokens {
    /// They are.
    GoOn,
    /// They are refused, too.
    Too,
}

#[derive(Debug, Args)]
pub(super) struct Plainly {
    /// Print a JSON object instead of text.
    #[arg(long)]
    json: bool,
}

fn reason(text: &str) -> Result<String, String> {
    check_reason(text).map(|()| text.to_owned())
}

#[derive(Serialize)]
struct Body {
    on: bool,
    tokens: Option<bool>,
    reason: Option<String>,
    #[serde(with = "time::serde::rfc3339::option")]
    since: Option<OffsetDateTime>,
}

pub(super) async fn run(sources: &Sources, command: &Command) -> Outcome {
    let database = operator::connect(sources).await?;
    let (mode, plainly) = match command {
        Command::On(On { reason, tokens, plainly }) => {
            let mode =
                Mode { tokens: *tokens == Tokens::Too, reason: reason.clone(), since: clock::precise() };
            (Some(maintenance::begin(&database, mode).await?), plainly)
        }
        Command::Off(plainly) => {
            maintenance::end(&database).await?;
            (None, plainly)
        }
        Command::Status(plainly) => (storage::read(&database).await?, plainly),
    };
    let tokens = match &mode {
        Some(Mode { tokens: true, .. }) => "refused",
        _ => "issued",
    };
    let fields = [
        ("maintenance", if mode.is_some() { "on" } else { "off" }.to_owned()),
        ("tokens", tokens.to_owned()),
        ("reason", mode.as_ref().and_then(|mode| mode.reason.clone()).unwrap_or_else(|| "-".to_owned())),
        ("since", output::time(mode.as_ref().map(|mode| mode.since))),
    ];
    let body = Body {
        on: mode.is_some(),
        tokens: mode.as_ref().map(|mode| mode.tokens),
        since: mode.as_ref().map(|mode| mode.since),
        reason: mode.and_then(|mode| mode.reason),
    };
    output::record(Format::of(plainly.json), &body, &fields)?;
    Ok(())
}
