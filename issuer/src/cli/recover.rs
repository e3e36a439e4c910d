//! `countersign recover`.

use clap::Args;
use serde_json::json;
use time::format_description::well_known::Rfc3339;

use super::{Outcome, operator};
use crate::clock;
use crate::config::Sources;
use crate::management::recovery::{self, Recovered};

#[derive(Debug, Args)]
#[command(
    after_help = "Run it once after each restore, with the issuers running or not, and before they are given traffic again.

Example:
  countersign recover --restored-from-backup --reason 'disk lost, restored to 12:00'"
)]
pub(super) struct Recover {
    /// That is what happened: without it nothing is done.
    #[arg(long, required = true)]
    restored_from_backup: bool,
    /// For the audit log.
    #[arg(long, value_parser = reason)]
    reason: String,
    /// Print a JSON object instead of text.
    #[arg(long)]
    json: bool,
}

pub(super) fn reason(text: &str) -> Result<String, &'static str> {
    let length = text.chars().count();
    if (1..=500).contains(&length) { Ok(text.to_owned()) } else { Err("must have 1 to 500 characters") }
}

pub(super) async fn run(sources: &Sources, options: &Recover) -> Outcome {
    let database = operator::connect(sources).await?;
    let recovered = recovery::recover(&database, &options.reason).await?;
    let ended = clock::timestamp(recovered.ended_up_to).format(&Rfc3339)?;
    if options.json {
        println!("{}", json!({ "epoch": recovered.epoch, "issued_up_to": ended }));
        return Ok(());
    }
    print(recovered, &ended);
    Ok(())
}

/// What was done, with `ended` as the time up to which tokens have ended, and what only people remember.
pub(super) fn print(recovered: Recovered, ended: &str) {
    println!("Every token that was issued up to {ended} has ended: clients get new ones by asking.");
    println!(
        "Heads are of epoch {} from now on, and edges take them instead of what they hold.",
        recovered.epoch
    );
    println!();
    println!("What was changed after the backup was made is gone, and has to be done again:");
    println!(
        "  agents and tenants suspended or decommissioned, credentials revoked or rotated: `countersign agents`, `tenants`, `credentials`;"
    );
    println!("  signing keys rotated or revoked: `countersign keys list` shows which are in force now.");
}
