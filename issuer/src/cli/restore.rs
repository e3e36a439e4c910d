//! `countersign restore`.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::Outcome;
use super::output::{self, Format};
use super::recover;
use crate::config::{self, Sources};
use crate::storage::Database;
use crate::{backup, clock, telemetry};

#[derive(Debug, Args)]
#[command(
    after_help = "Afterwards the database has the newest schema, and `countersign recover` was done: every token issued so far has ended, for which of them were \
revoked after the backup was made isn't known any more, and edges believe it. Start the issuers when it is through.

Example:
  createdb --owner countersign countersign_restored
  DATABASE_URL=postgres://countersign:…@127.0.0.1/countersign_restored countersign restore countersign-20261121T020000Z.dump"
)]
pub(super) struct Restore {
    /// The backup; its manifest is beside it.
    file: PathBuf,
    /// Into a database that isn't empty: what is in it is deleted once the backup is there.
    #[arg(long)]
    force: bool,
    /// For the audit log; else the backup's name and time.
    #[arg(long, value_parser = recover::reason)]
    reason: Option<String>,
    /// For a copy to look at: without `countersign recover`. No issuer may run on it that publishes anywhere.
    #[arg(long, conflicts_with = "reason")]
    no_recover: bool,
    /// Print a JSON object instead of text.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(sources: &Sources, options: &Restore) -> Outcome {
    let config = config::Backup::from_sources(sources)?;
    telemetry::start(config.telemetry);
    let database = Database::connect(&config.database).await?;
    let name = options.file.file_name().unwrap_or_default().to_string_lossy();
    let reason =
        options.reason.clone().unwrap_or_else(|| format!("restored from {name}").chars().take(500).collect());
    let reason = (!options.no_recover).then_some(reason.as_str());
    let restored = backup::restore(&database, &config, &options.file, options.force, reason).await?;
    let ended = restored.recovered.map(|recovered| output::time(clock::timestamp(recovered.ended_up_to)));
    if options.json {
        return Ok(output::json(&json!({
            "manifest": restored.manifest,
            "migrated": restored.migrated,
            "epoch": restored.recovered.map(|recovered| recovered.epoch),
            "issued_up_to": ended,
            "took_ms": u64::try_from(restored.took.as_millis()).unwrap_or(u64::MAX),
            "lost_seconds": restored.age.whole_seconds(),
        }))?);
    }
    let rows: u64 = restored.manifest.rows.values().sum();
    println!(
        "Restored {rows} rows, as of {}, in {:.1} s.",
        output::time(restored.manifest.created_at),
        restored.took.as_secs_f64()
    );
    println!(
        "What was done in the {} s between then and now is lost, but for what can be had from elsewhere.",
        restored.age.whole_seconds()
    );
    for migration in &restored.migrated {
        println!("applied {migration}");
    }
    output::note(
        Format::Text,
        &format!("Its keys open with the master key {}.", restored.manifest.master_keys.join(", ")),
    )?;
    println!();
    match (restored.recovered, ended) {
        (Some(recovered), Some(ended)) => recover::print(recovered, &ended),
        _ => println!("It is a copy. Before an issuer runs on it that publishes: countersign recover"),
    }
    Ok(())
}
