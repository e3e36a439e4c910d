//! `countersign keys revoke`.

use std::time::Duration;

use clap::Args;
use tokio::time::timeout;

use super::report::{KeyBody, Report, called, when};
use crate::cli::Outcome;
use crate::cli::operator::connect_by;
use crate::cli::output::Format;
use crate::config::{self, Sources};
use crate::domain::signing_key::{KeyRecord, Purpose};
use crate::keys::rotation::{Change, Plan, RotationError, Spare, USUAL_RSA_BITS, size};
use crate::storage::signing_keys::{self, Known};

pub(in crate::cli) const EXAMPLES: &str = "\
Examples:
  countersign keys revoke NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs --reason \"the backup of 20 November was stolen\"
To end the tokens that a key has signed so far, and go on signing with it: `countersign revoke --key KID`.";

/// The longest reason, in characters.
const MAX_REASON: usize = 500;

#[derive(Debug, Args)]
pub(in crate::cli) struct Revoke {
    /// The key, as `countersign keys list` shows it.
    #[arg(allow_hyphen_values = true)]
    kid: String,
    /// Why; it is kept, and goes into the audit log.
    #[arg(long, value_parser = reason)]
    reason: String,
    /// Print a JSON object instead of text.
    #[arg(long)]
    json: bool,
}

/// How long the key may live that is revoked while another is made.
const PATIENCE: Duration = Duration::from_secs(1);

pub(super) async fn run(sources: &Sources, options: &Revoke) -> Outcome {
    let config = config::Keys::from_sources(sources)?;
    let database = connect_by(config.plain).await?;
    let known = signing_keys::known(&database).await?;
    let key = known.key(&options.kid).ok_or(RotationError::NotFound)?;
    // An RSA key may take seconds to make: a stolen one is not left in force for so long.
    let making =
        replacement(&known, key)?.map(|plan| tokio::spawn(async move { Spare::for_plan(&plan).await }));
    let (mut spare, making) = match making {
        None => (Spare::none(), None),
        Some(mut making) => match timeout(PATIENCE, &mut making).await {
            Ok(made) => (made??, None),
            Err(_) => (Spare::none(), Some(making)),
        },
    };
    let mut change = Change::begin(&database, &config.master_key).await?;
    let before = change.known.key(&options.kid).cloned().ok_or(RotationError::NotFound)?;
    let mut successor = change.revoke(&options.kid, &options.reason, &mut spare).await?;
    let key = change.known.key(&options.kid).cloned().ok_or(RotationError::NotFound)?;
    let mut known = change.known.clone();
    change.commit().await?;
    if let (None, Some(making)) = (&successor, making) {
        eprintln!("key {} is revoked; another is being made to sign in its place", called(&key));
        let mut spare = making.await??;
        let mut change = Change::begin(&database, &config.master_key).await?;
        successor = Some(change.replace(&key, &mut spare).await?);
        known = change.known.clone();
        change.commit().await?;
    }

    Ok(report(&before, &key, successor.as_ref(), &known).print(Format::of(options.json))?)
}

/// The plan for a key to sign in place of `key`, if one has to be made.
fn replacement(known: &Known, key: &KeyRecord) -> Result<Option<Plan>, String> {
    if !key.signs_at(known.now) || known.scheduled(key.purpose, key.algorithm).is_some() {
        return Ok(None);
    }
    let plan = known.plan(key.purpose, key.algorithm, size(key).unwrap_or(USUAL_RSA_BITS), None);
    if key.purpose == Purpose::Revocation && plan.prepared.is_none() {
        return Err("no other key for revocation heads is there, and the edges would believe none that is made now: run \
                    `countersign keys generate --purpose revocation`, put what `countersign keys export-public --purpose revocation` prints, \
                    without this key, into REVOCATION_KEYS of every edge, then revoke"
            .to_owned());
    }
    Ok(Some(plan))
}

fn report(before: &KeyRecord, key: &KeyRecord, successor: Option<&KeyRecord>, known: &Known) -> Report {
    let now = known.now;
    let mut report = Report {
        key: successor.map(KeyBody::from),
        predecessor: Some(KeyBody::from(key)),
        ..Report::default()
    };
    let follows = &mut report.what_follows;
    follows.push(format!("key {} is revoked: it signs no more and isn't published any more", called(key)));
    if let Some(successor) = successor {
        follows.push(format!("key {} signs from {}", called(successor), when(now, now)));
    }
    match key.purpose {
        Purpose::Token => {
            follows.push(
                "every token that it signed is refused: by the issuers now, by the edges about a second from now (if an issuer is running; else when one \
                 starts), by others when they next fetch the JWK Set"
                    .to_owned(),
            );
            follows.push(
                "clients see 401 with error=\"invalid_token\" for the tokens that they hold, and get new ones as usual".to_owned(),
            );
            let published = successor.and_then(|next| next.created_at);
            let known_to_all = published
                .is_some_and(|made| made + time::Duration::seconds(known.state.jwks_max_age.into()) < now);
            if successor.is_some() && !known_to_all {
                report.warnings.push(format!(
                    "whoever keeps the JWK Set and doesn't fetch it again for an unknown kid refuses new tokens for up to {} s",
                    known.state.jwks_max_age
                ));
            }
        }
        Purpose::Revocation => report.warnings.push(format!(
            "take the key out of REVOCATION_KEYS of every edge: until then who holds it can tell an edge that nothing was revoked. It was {} before",
            before.state.as_str()
        )),
    }
    report
}

fn reason(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() || text.chars().count() > MAX_REASON || text.chars().any(char::is_control) {
        return Err(format!("must be 1 to {MAX_REASON} characters on one line"));
    }
    Ok(text.to_owned())
}
