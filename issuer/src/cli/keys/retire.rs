//! `countersign keys retire`.

use clap::Args;

use super::report::{KeyBody, Report, called, when};
use crate::cli::Outcome;
use crate::cli::operator::connect_by;
use crate::cli::output::Format;
use crate::config::{self, Sources};
use crate::domain::signing_key::KeyState;
use crate::keys::rotation::{Change, RotationError};

pub(in crate::cli) const EXAMPLES: &str = "\
Examples:
  countersign keys retire NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs          give up a key that hasn't signed yet
  countersign keys retire NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs --now    also if tokens that it signed are still alive
Keys retire by themselves when everything that they signed has expired.";

#[derive(Debug, Args)]
pub(in crate::cli) struct Retire {
    /// The key, as `countersign keys list` shows it.
    #[arg(allow_hyphen_values = true)]
    kid: String,
    /// Before everything that it signed has expired.
    #[arg(long)]
    now: bool,
    /// Print a JSON object instead of text.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(sources: &Sources, options: &Retire) -> Outcome {
    let config = config::Keys::from_sources(sources)?;
    let database = connect_by(config.plain).await?;
    let mut change = Change::begin(&database, &config.master_key).await?;
    let now = change.known.now;
    let before = change.known.key(&options.kid).cloned().ok_or(RotationError::NotFound)?;
    let alive = before.retires_at.filter(|until| before.state == KeyState::Retiring && *until > now);
    // By its state, or by its time: the states follow a moment later, or when an issuer runs again.
    if before.state == KeyState::Active || before.signs_at(now) {
        return Err("it signs: rotate to another key first (`countersign keys rotate`), or revoke it (`countersign keys revoke`)".into());
    }
    if let Some(until) = alive.filter(|_| !options.now) {
        return Err(format!(
            "tokens that it signed may be alive until {}, and it retires by itself then; with --now it does at once, and they are refused",
            when(until, now)
        )
        .into());
    }
    let key = change.retire(&options.kid).await?;
    change.commit().await?;

    let mut report = Report { predecessor: Some(KeyBody::from(&key)), ..Report::default() };
    report.what_follows.push(format!("key {} is retired: it isn't published any more", called(&key)));
    if before.state == KeyState::Pending {
        report.what_follows.push("it hasn't signed anything".to_owned());
    }
    if alive.is_some() {
        let refused = "tokens that it signed are refused from now on, by each verifier when it next fetches the JWK Set";
        report.warnings.push(refused.to_owned());
    }
    Ok(report.print(Format::of(options.json))?)
}
