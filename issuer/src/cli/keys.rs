//! `countersign keys`.

use time::format_description::well_known::Rfc3339;

use super::Outcome;
use crate::config::{self, Plain, Sources};
use crate::domain::signing_key::{KeyRecord, Purpose};
use crate::storage::{Database, schema, signing_keys};
use crate::{keys, telemetry};

pub(super) async fn list(sources: &Sources) -> Outcome {
    let records = records(Plain::from_sources(sources)?).await?;
    println!("{:<43}  {:<10}  {:<9}  {:<8}  CREATED", "KID", "PURPOSE", "ALGORITHM", "STATE");
    for key in &records {
        let created = key
            .created_at
            .and_then(|time| time.truncate_to_second().format(&Rfc3339).ok())
            .unwrap_or_default();
        let (purpose, algorithm, state) = (key.purpose.as_str(), key.algorithm.as_str(), key.state.as_str());
        println!("{:<43}  {purpose:<10}  {algorithm:<9}  {state:<8}  {created}", key.kid);
    }
    Ok(())
}

pub(super) async fn export_public(sources: &Sources, purpose: Purpose) -> Outcome {
    let config = config::Keys::from_sources(sources)?;
    let records = records(config.plain).await?;
    if records.iter().all(|record| record.purpose != purpose) {
        return Err(format!("there is no {} key yet: run `countersign bootstrap`", purpose.as_str()).into());
    }
    println!("{}", keys::published(&records, &config.master_key, purpose)?.document);
    Ok(())
}

async fn records(config: Plain) -> Result<Vec<KeyRecord>, Box<dyn std::error::Error + Send + Sync>> {
    telemetry::start(config.telemetry);
    let database = Database::connect(&config.database).await?;
    schema::check(&database).await?;
    Ok(signing_keys::list(&database).await?)
}
