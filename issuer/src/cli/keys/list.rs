//! `countersign keys list`.

use clap::Args;
use serde::Serialize;

use super::records;
use super::report::{KeyBody, outlook};
use crate::cli::Outcome;
use crate::cli::output::{self, Format};
use crate::clock;
use crate::config::{Plain, Sources};
use crate::domain::signing_key::KeyRecord;

#[derive(Debug, Args)]
pub(in crate::cli) struct List {
    /// Print a JSON object instead of text.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Body {
    keys: Vec<KeyBody>,
}

pub(super) async fn run(sources: &Sources, options: &List) -> Outcome {
    let records = records(Plain::from_sources(sources)?).await?;
    let now = clock::precise();
    let row = |key: &KeyRecord| {
        vec![
            key.kid.clone(),
            key.purpose.as_str().to_owned(),
            key.algorithm.as_str().to_owned(),
            key.state.as_str().to_owned(),
            output::time(key.created_at),
            outlook(key, now),
        ]
    };
    let rows: Vec<Vec<String>> = records.iter().map(row).collect();
    let body = Body { keys: records.iter().map(KeyBody::from).collect() };
    let headings = ["kid", "purpose", "algorithm", "state", "created", "outlook"];
    Ok(output::list(Format::of(options.json), &body, &headings, &rows)?)
}
