//! `countersign keys rotate`.

use clap::Args;
use countersign_shared::Algorithm;

use super::report::{KeyBody, Report, called, when};
use super::{Failure, PurposeArgument, algorithm};
use crate::cli::Outcome;
use crate::cli::operator::connect_by;
use crate::cli::output::{self, Format};
use crate::config::{self, Sources};
use crate::domain::signing_key::{KeyRecord, Purpose};
use crate::keys::rotation::{self, Change, RotationError, Spare, plan};
use crate::storage::signing_keys::{self, Known};

pub(in crate::cli) const EXAMPLES: &str = "\
Examples:
  countersign keys rotate                          a new key is published now, and signs tokens when everybody knows it
  countersign keys rotate --algorithm EdDSA        the key of resource servers that ask for EdDSA
  countersign keys rotate --purpose revocation     heads: after `keys generate --purpose revocation`, when every edge has the new key
  countersign keys rotate --now                    in an emergency: it signs at once, and who keeps the JWK Set refuses its tokens at first";

#[derive(Debug, Args)]
pub(in crate::cli) struct Rotate {
    /// What the key signs.
    #[arg(long, default_value = "token")]
    purpose: PurposeArgument,
    /// The key for this algorithm; without it, the installation's (`TOKEN_SIGNING_ALGORITHM`).
    #[arg(long, value_parser = algorithm)]
    algorithm: Option<Algorithm>,
    /// Don't wait until everybody knows the new key.
    #[arg(long)]
    now: bool,
    /// Print a JSON object instead of text.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(sources: &Sources, options: &Rotate) -> Outcome {
    let purpose = Purpose::from(options.purpose);
    let config = config::Keys::from_sources(sources)?;
    let database = connect_by(config.plain).await?;
    let (successor, predecessor, known) = loop {
        let known = signing_keys::known(&database).await?;
        let plan_now = |known: &Known| plan_for(known, purpose, options);
        let planned = plan_now(&known)?;
        let under_way = known.scheduled(purpose, planned.algorithm).is_some();
        let mut spare = if under_way {
            Spare::none()
        } else {
            rotation::room(&known, &planned)?; // before the work
            Spare::for_plan(&planned).await?
        };
        let mut change = Change::begin(&database, &config.master_key).await?;
        let planned = plan_now(&change.known)?;
        let predecessor = change.known.active(purpose, planned.algorithm).map(|key| key.kid.clone());
        let scheduled = change.known.scheduled(purpose, planned.algorithm).cloned();
        let successor = match scheduled {
            Some(key) => key,
            None => match change.schedule(&planned, &mut spare).await {
                Err(RotationError::Overtaken) => continue,
                scheduled => scheduled?,
            },
        };
        let successor = if options.now { change.hasten(&successor.kid).await? } else { successor };
        let known = change.commit().await?;
        let predecessor = predecessor.and_then(|kid| known.key(&kid).cloned());
        let successor = known.key(&successor.kid).cloned().ok_or(RotationError::NotFound)?;
        break (successor, predecessor, known);
    };
    let report = report(&successor, predecessor.as_ref(), &known, options.now);
    Ok(report.print(Format::of(options.json))?)
}

/// What the operator asks for; refused where it would come to nothing.
fn plan_for(known: &Known, purpose: Purpose, options: &Rotate) -> Result<rotation::Plan, Failure> {
    let plan = plan(known, purpose, options.algorithm);
    let name = plan.algorithm.as_str();
    match purpose {
        Purpose::Token if !known.in_use().contains(&plan.algorithm) => Err(format!(
            "nothing is signed with {name}: set TOKEN_SIGNING_ALGORITHM to it, or a resource server's signing_algorithm, and the key follows by itself"
        )
        .into()),
        Purpose::Revocation if plan.algorithm != Algorithm::EdDsa => {
            Err("revocation heads are signed with EdDSA".into())
        }
        // The edges trust the keys that REVOCATION_KEYS names: one that was made this moment isn't among them.
        Purpose::Revocation if plan.prepared.is_none() && known.scheduled(purpose, plan.algorithm).is_none() => {
            Err("no key for revocation heads is ready: run `countersign keys generate --purpose revocation`, put what \
                 `countersign keys export-public --purpose revocation` prints into REVOCATION_KEYS of every edge, then rotate"
                .into())
        }
        Purpose::Token | Purpose::Revocation => Ok(plan),
    }
}

fn report(successor: &KeyRecord, predecessor: Option<&KeyRecord>, known: &Known, at_once: bool) -> Report {
    let now = known.now;
    let mut report = Report { key: Some(KeyBody::from(successor)), ..Report::default() };
    let mut follows = vec![format!("key {} is published", called(successor))];
    if let Some(from) = successor.activates_at {
        follows.push(format!("it signs from {}", when(from, now)));
    }
    if let Some(old) = predecessor {
        report.predecessor = Some(KeyBody::from(old));
        let until = old.retires_at.map_or_else(|| "-".to_owned(), |until| when(until, now));
        follows.push(format!("the old key {} signs until then and verifies until {until}", old.kid));
    }
    report.what_follows = follows;
    match successor.purpose {
        Purpose::Revocation => report.warnings.push(
            "an edge whose REVOCATION_KEYS lacks the new key refuses all requests (503) half a minute after it signs".to_owned(),
        ),
        Purpose::Token if at_once => {
            let max_age = known.state.jwks_max_age;
            report.warnings.push(format!(
                "whoever keeps the JWK Set and doesn't fetch it again for an unknown kid refuses new tokens for up to {max_age} s, until {}",
                output::time(known.earliest())
            ));
        }
        Purpose::Token => {}
    }
    report
}
