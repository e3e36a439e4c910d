//! `countersign keys list`.

use time::format_description::well_known::Rfc3339;

use super::records;
use crate::cli::Outcome;
use crate::config::{Plain, Sources};

pub(super) async fn run(sources: &Sources) -> Outcome {
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
