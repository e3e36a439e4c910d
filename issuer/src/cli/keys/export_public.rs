//! `countersign keys export-public`.

use clap::Args;

use super::{PurposeArgument, records};
use crate::cli::Outcome;
use crate::config::{self, Sources};
use crate::domain::signing_key::Purpose;
use crate::keys;

#[derive(Debug, Args)]
pub(in crate::cli) struct ExportPublic {
    /// What the keys sign.
    #[arg(long)]
    purpose: PurposeArgument,
}

pub(super) async fn run(sources: &Sources, options: &ExportPublic) -> Outcome {
    let purpose = Purpose::from(options.purpose);
    let config = config::Keys::from_sources(sources)?;
    let records = records(config.plain).await?;
    if records.iter().all(|record| record.purpose != purpose) {
        return Err(format!("there is no {} key yet: run `countersign bootstrap`", purpose.as_str()).into());
    }
    println!("{}", keys::published(&records, &config.master_key, purpose)?.document);
    Ok(())
}
