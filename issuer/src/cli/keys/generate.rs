//! `countersign keys generate`.

use clap::Args;
use countersign_shared::Algorithm;

use super::report::{KeyBody, Report, called, when};
use super::{PurposeArgument, algorithm};
use crate::cli::Outcome;
use crate::cli::operator::connect_by;
use crate::cli::output::Format;
use crate::config::{self, Sources};
use crate::domain::signing_key::Purpose;
use crate::keys::rotation::{Change, Plan, Spare, USUAL_RSA_BITS, plan, room_for_spare};
use crate::storage::signing_keys;

pub(in crate::cli) const EXAMPLES: &str = "\
Examples:
  countersign keys generate                          a token key of the kind that signs now, to be rotated to later
  countersign keys generate --algorithm ES256        one for another algorithm
  countersign keys generate --purpose revocation     one for revocation heads: put it into REVOCATION_KEYS before `keys rotate`";

#[derive(Debug, Args)]
pub(in crate::cli) struct Generate {
    /// What it is to sign.
    #[arg(long, default_value = "token")]
    purpose: PurposeArgument,
    /// One of `RS256`, `PS256`, `ES256`, `EdDSA`; without it, the one that signs now. Heads are signed with `EdDSA`.
    #[arg(long, value_parser = algorithm)]
    algorithm: Option<Algorithm>,
    /// The size of an RSA key; without it, that of the key that signs now.
    #[arg(long, value_parser = ["2048", "3072", "4096"])]
    bits: Option<String>,
    /// Print a JSON object instead of text.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(sources: &Sources, options: &Generate) -> Outcome {
    let purpose = Purpose::from(options.purpose);
    if purpose == Purpose::Revocation
        && options.algorithm.is_some_and(|algorithm| algorithm != Algorithm::EdDsa)
    {
        return Err("revocation heads are signed with EdDSA".into());
    }
    let config = config::Keys::from_sources(sources)?;
    let database = connect_by(config.plain).await?;
    let known = signing_keys::known(&database).await?;
    let plan = plan(&known, purpose, options.algorithm);
    let rsa_bits = match &options.bits {
        Some(bits) => bits.parse().unwrap_or(USUAL_RSA_BITS), // one of the three
        None => plan.rsa_bits,
    };
    let plan = Plan { prepared: None, rsa_bits, ..plan };
    room_for_spare(&known, &plan)?; // before the work
    let mut spare = Spare::for_plan(&plan).await?;
    let mut change = Change::begin(&database, &config.master_key).await?;
    let key = change.generate(&plan, &mut spare).await?;
    let (now, earliest) = (change.known.now, change.known.earliest());
    let in_use = change.known.in_use().contains(&key.algorithm);
    change.commit().await?;

    let what_follows = match purpose {
        Purpose::Token if !in_use => vec![
            format!("key {} is published", called(&key)),
            format!("it signs when TOKEN_SIGNING_ALGORITHM or a resource server asks for {}", key.algorithm.as_str()),
        ],
        Purpose::Token => vec![
            format!("key {} is published", called(&key)),
            format!("it doesn't sign yet: `countersign keys rotate` lets it, from {} at the earliest", when(earliest, now)),
        ],
        Purpose::Revocation => vec![
            format!("key {} is made", called(&key)),
            "set REVOCATION_KEYS of every edge to what `countersign keys export-public --purpose revocation` prints".to_owned(),
            "when every edge has it, `countersign keys rotate --purpose revocation` lets it sign".to_owned(),
        ],
    };
    let report = Report { key: Some(KeyBody::from(&key)), what_follows, ..Report::default() };
    Ok(report.print(Format::of(options.json))?)
}
