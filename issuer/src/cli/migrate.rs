//! `countersign migrate`.

use clap::{Args, Subcommand};
use serde::Serialize;
use time::OffsetDateTime;

use super::Outcome;
use super::output::{self, Format};
use crate::config::{Plain, Sources};
use crate::storage::Database;
use crate::storage::schema::{self, Fit, Known, State};
use crate::telemetry;

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  countersign migrate\n  countersign migrate status")]
pub(super) struct Migrate {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show what was applied, what this binary would apply, and what it doesn't know: nothing is changed.
    #[command(after_help = "Examples:\n  countersign migrate status\n  countersign migrate status --json")]
    Status {
        /// Print a JSON object instead of text.
        #[arg(long)]
        json: bool,
    },
}

pub(super) async fn run(sources: &Sources, options: &Migrate) -> Outcome {
    let config = Plain::from_sources(sources)?;
    telemetry::start(config.telemetry);
    let database = Database::connect(&config.database).await?;
    if let Some(Command::Status { json }) = &options.command {
        return status(&database, Format::of(*json)).await;
    }
    let migrated = schema::migrate(&database).await?;
    for migration in &migrated.applied {
        println!("applied {migration}");
    }
    if let Some(version) = migrated.newer {
        println!(
            "the schema is newer than this binary (migration {version}), and works with it: nothing to do"
        );
    } else if migrated.applied.is_empty() {
        println!("the schema is up to date");
    }
    Ok(())
}

#[derive(Serialize)]
struct Body {
    up_to_date: bool,
    /// Whether this binary works on it.
    works: bool,
    migrations: Vec<MigrationBody>,
}

#[derive(Serialize)]
struct MigrationBody {
    version: i64,
    description: String,
    state: &'static str,
    #[serde(with = "time::serde::rfc3339::option")]
    applied_at: Option<OffsetDateTime>,
}

async fn status(database: &Database, format: Format) -> Outcome {
    let migrations = schema::migrations(database).await?;
    let row = |migration: &Known| {
        vec![
            migration.version.to_string(),
            migration.state.as_str().to_owned(),
            output::time(migration.applied_at),
            migration.description.clone(),
        ]
    };
    let rows: Vec<Vec<String>> = migrations.iter().map(row).collect();
    let count = |state: State| migrations.iter().filter(|migration| migration.state == state).count();
    let (pending, unknown, altered, half) =
        (count(State::Pending), count(State::Unknown), count(State::Altered), count(State::Half));
    let works = matches!(schema::check(database).await, Ok(Fit::Exact | Fit::Newer(_)));
    let verdict = if altered + half > 0 {
        "something was altered or broken off: `countersign migrate` says what to do".to_owned()
    } else if unknown > 0 && works {
        format!("the schema is newer than this binary, by {unknown}, and works with it")
    } else if unknown > 0 {
        format!(
            "the schema is newer than this binary, by {unknown}: run the version that made it, or a newer one"
        )
    } else if pending > 0 {
        format!("{pending} to apply: run: countersign migrate")
    } else {
        "the schema is up to date".to_owned()
    };
    let body = Body {
        up_to_date: pending + unknown + altered + half == 0,
        works,
        migrations: migrations
            .into_iter()
            .map(|migration| MigrationBody {
                version: migration.version,
                description: migration.description,
                state: migration.state.as_str(),
                applied_at: migration.applied_at,
            })
            .collect(),
    };
    output::list(format, &body, &["version", "state", "applied", "what it does"], &rows)?;
    Ok(output::note(format, &verdict)?)
}
