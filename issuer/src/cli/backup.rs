//! `countersign backup`.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;

use super::Outcome;
use super::output::{self, Format};
use crate::backup::{self, Manifest, Place};
use crate::config::{self, Sources};
use crate::storage::Database;
use crate::telemetry;

#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "It has everything but the master key, without which its keys don't open: keep MASTER_KEY elsewhere, and as safe.

Examples:
  countersign backup --out /var/backups/countersign/ --keep 14
  BACKUP_KEY_FILE=/etc/countersign/backup.key countersign backup --out before-the-upgrade.dump.sealed
  countersign backup verify /var/backups/countersign/countersign-20261121T020000Z.dump"
)]
pub(super) struct Backup {
    #[command(subcommand)]
    command: Option<Command>,
    /// A file that isn't there yet, or a directory, in which it gets a name of its time.
    #[arg(long, value_name = "PATH", required = true)]
    out: Option<PathBuf>,
    /// Delete all but so many of the directory's backups of this database afterwards, the oldest first.
    #[arg(long, value_name = "NUMBER")]
    keep: Option<NonZeroUsize>,
    /// Print a JSON object instead of text.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Read a backup to its end: that it is what was written, that it opens, that it can be restored.
    #[command(
        after_help = "Example:\n  countersign backup verify /var/backups/countersign/countersign-20261121T020000Z.dump"
    )]
    Verify {
        /// The backup; its manifest is beside it.
        file: PathBuf,
        /// Print a JSON object instead of text.
        #[arg(long)]
        json: bool,
    },
}

pub(super) async fn run(sources: &Sources, options: &Backup) -> Outcome {
    if let Some(Command::Verify { file, json }) = &options.command {
        let config = config::BackupReading::from_sources(sources)?;
        telemetry::start(config.telemetry);
        let manifest = backup::verify(file, config.key, config.tools.as_deref()).await?;
        let format = Format::of(*json);
        output::record(format, &manifest, &fields(&file.display().to_string(), &manifest))?;
        return Ok(output::note(format, "it is whole")?);
    }
    let config = config::Backup::from_sources(sources)?;
    telemetry::start(config.telemetry);
    let out = options.out.as_deref().ok_or("--out is required: a file or a directory")?;
    let place = Place::of(out);
    if options.keep.is_some() && matches!(place, Place::File(_)) {
        return Err("--keep is about the backups in a directory: give that to --out".into());
    }
    let database = Database::connect(&config.database).await?;
    let made = backup::take(&database, &config, &place, options.keep.map(NonZeroUsize::get)).await?;
    let path = made.path.display().to_string();
    if options.json {
        let deleted: Vec<String> = made.deleted.iter().map(|path| path.display().to_string()).collect();
        return Ok(output::json(&json!({ "path": path, "manifest": made.manifest, "deleted": deleted }))?);
    }
    output::record(Format::Text, &(), &fields(&path, &made.manifest))?;
    for old in &made.deleted {
        println!("deleted {}", old.display());
    }
    Ok(())
}

fn fields(path: &str, manifest: &Manifest) -> Vec<(&'static str, String)> {
    vec![
        ("backup", path.to_owned()),
        ("of", format!("{}, {}", manifest.database, output::time(manifest.created_at))),
        ("bytes", manifest.bytes.to_string()),
        ("sha256", manifest.sha256.clone()),
        (
            "sealed",
            manifest.encryption.clone().unwrap_or_else(|| "no: whoever has the file can read it".to_owned()),
        ),
        ("schema", manifest.schema.to_string()),
        ("rows", manifest.rows.values().sum::<u64>().to_string()),
        ("needs the master key", manifest.master_keys.join(", ")),
    ]
}
