//! `countersign migrate`.

use super::Outcome;
use crate::config::{Plain, Sources};
use crate::storage::{Database, schema};
use crate::telemetry;

pub(super) async fn run(sources: &Sources) -> Outcome {
    let config = Plain::from_sources(sources)?;
    telemetry::start(config.telemetry);
    let database = Database::connect(&config.database).await?;
    let migrated = schema::migrate(&database).await?;
    for migration in &migrated.applied {
        println!("applied {migration}");
    }
    if migrated.applied.is_empty() {
        println!("the schema is up to date");
    }
    Ok(())
}
