//! `countersign keys import`.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use countersign_shared::Algorithm;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use zeroize::Zeroizing;

use super::report::{KeyBody, Report, called, when};
use super::{Failure, algorithm};
use crate::cli::Outcome;
use crate::cli::operator::connect_by;
use crate::cli::output::Format;
use crate::config::{self, Readers, Secret, Sources, read_secret};
use crate::domain::signing_key::Purpose;
use crate::keys::MasterKey;
use crate::keys::import::{self, Imported, Wishes};
use crate::keys::rotation::{Change, Plan, Spare, size};
use crate::storage::Database;

pub(in crate::cli) const EXAMPLES: &str = "\
Examples:
  countersign keys import --private old.pem --public old.pub.pem --kid old-1
      the key of the system that is replaced: published now, and signs when everybody knows it
  countersign keys import --public old.pub.pem --kid old-1 --verifies-until 2027-01-31T00:00:00Z
      only published, so that what it has signed is verified until then; a private part isn't needed and isn't kept";

/// The longest that a key may be verified with that only verifies.
const LONGEST: time::Duration = time::Duration::days(366);
/// More than any PEM file of a key.
const MAX_PEM_BYTES: u64 = 64 * 1024;

#[derive(Debug, Args)]
pub(in crate::cli) struct Import {
    /// PEM file of the private key (PKCS#8, PKCS#1 or SEC 1, not encrypted); `-` reads standard input.
    #[arg(long, value_name = "FILE", required_unless_present = "public")]
    private: Option<PathBuf>,
    /// PEM file of the public key (SPKI or PKCS#1); `-` reads standard input. Besides a private key it is checked to be its other half.
    #[arg(long, value_name = "FILE")]
    public: Option<PathBuf>,
    /// What an RSA key signs with: RS256, which is the default, or PS256.
    #[arg(long, value_parser = algorithm)]
    algorithm: Option<Algorithm>,
    /// What its tokens call it in their header; without it, its RFC 7638 thumbprint.
    #[arg(long)]
    kid: Option<String>,
    /// What to use it for; without it, to sign where its private part is given.
    #[arg(long = "as", value_enum)]
    role: Option<Role>,
    /// Until when it is verified with, where it doesn't sign; at most 366 days from now.
    #[arg(long, value_name = "TIME", value_parser = instant)]
    verifies_until: Option<OffsetDateTime>,
    /// Print a JSON object instead of text.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Role {
    /// It signs, in place of the key that does.
    Active,
    /// It verifies only, until a time.
    Retiring,
}

pub(super) async fn run(sources: &Sources, options: &Import) -> Outcome {
    let config = config::Keys::from_sources(sources)?;
    let role = match (options.role, &options.private) {
        (Some(Role::Active), None) => {
            return Err("only what has a private key can sign: give --private".into());
        }
        (Some(role), _) => role,
        (None, Some(_)) => Role::Active,
        (None, None) => Role::Retiring,
    };
    let wishes = Wishes { algorithm: options.algorithm, kid: options.kid.as_deref() };
    let imported = read(options, role, wishes)?;
    let database = connect_by(config.plain).await?;
    let report = match role {
        Role::Active => {
            if options.verifies_until.is_some() {
                return Err("--verifies-until goes with --as retiring: a key that signs is verified with for as long as it takes".into());
            }
            sign_with(&database, &config.master_key, imported).await?
        }
        Role::Retiring => {
            let until = options
                .verifies_until
                .ok_or("until when is it to be verified with? Say --verifies-until TIME")?;
            verify_with(&database, &config.master_key, &imported, until).await?
        }
    };
    Ok(report.print(Format::of(options.json))?)
}

fn read(options: &Import, role: Role, wishes: Wishes<'_>) -> Result<Imported, Failure> {
    if [&options.private, &options.public].iter().all(|path| path.as_deref() == Some(Path::new("-"))) {
        return Err("only one of --private and --public can be standard input".into());
    }
    let private = options.private.as_deref().map(|path| pem(path, Readers::OwnerAndGroup)).transpose()?;
    let public = options.public.as_deref().map(|path| pem(path, Readers::Anyone)).transpose()?;
    let public = public.as_ref().map(Secret::expose);
    let imported = match &private {
        Some(private) => {
            let pair = import::private(private.expose(), public, wishes)?;
            if role == Role::Active { pair } else { pair.public_part() }
        }
        None => import::public(public.unwrap_or_default(), wishes)?,
    };
    Ok(imported)
}

fn pem(path: &Path, readers: Readers) -> Result<Secret, Failure> {
    if path != Path::new("-") {
        return read_secret(path, readers).map_err(|problem| format!("{} {problem}", path.display()).into());
    }
    let mut text = Zeroizing::new(String::new());
    std::io::stdin().take(MAX_PEM_BYTES).read_to_string(&mut text)?;
    Ok(Secret::new(text.as_str().to_owned()))
}

async fn sign_with(database: &Database, master: &MasterKey, imported: Imported) -> Result<Report, Failure> {
    let mut change = Change::begin(database, master).await?;
    let (purpose, algorithm) = (Purpose::Token, imported.algorithm());
    if !change.known.in_use().contains(&algorithm) {
        let name = algorithm.as_str();
        return Err(format!(
            "nothing is signed with {name}: set TOKEN_SIGNING_ALGORITHM to it, or a resource server's signing_algorithm, and import again"
        )
        .into());
    }
    if let Some(next) = change.known.scheduled(purpose, algorithm) {
        return Err(format!(
            "key {} is about to sign: `countersign keys retire {}` first, or wait",
            next.kid, next.kid
        )
        .into());
    }
    change.refuse_twins(&imported)?;
    let predecessor = change.known.active(purpose, algorithm).map(|key| key.kid.clone());
    let plan = Plan { purpose, algorithm, prepared: None, rsa_bits: 0, at: change.known.earliest() };
    let key = change.schedule(&plan, &mut Spare::imported(imported)).await?;
    let known = change.commit().await?;
    let key = known.key(&key.kid).cloned().unwrap_or(key);
    let mut follows = vec![format!("key {} is published", called(&key))];
    if let Some(from) = key.activates_at {
        follows.push(format!("it signs from {}", when(from, known.now)));
    }
    let predecessor = predecessor.and_then(|kid| known.key(&kid).cloned());
    let mut warnings = Vec::new();
    if let Some(bits) = size(&key).filter(|bits| predecessor.as_ref().and_then(size) != Some(*bits)) {
        warnings.push(format!(
            "issuers whose TOKEN_SIGNING_RSA_BITS isn't {bits} replace it by a key of their size: set it to {bits} to go on with this one"
        ));
    }
    if let Some(old) = &predecessor {
        let until = old.retires_at.map_or_else(|| "-".to_owned(), |until| when(until, known.now));
        follows.push(format!("the old key {} signs until then and verifies until {until}", old.kid));
    }
    Ok(Report {
        predecessor: predecessor.as_ref().map(KeyBody::from),
        key: Some(KeyBody::from(&key)),
        what_follows: follows,
        warnings,
    })
}

async fn verify_with(
    database: &Database,
    master: &MasterKey,
    imported: &Imported,
    until: OffsetDateTime,
) -> Result<Report, Failure> {
    let mut change = Change::begin(database, master).await?;
    let now = change.known.now;
    if until <= now + time::Duration::MINUTE || until > now + LONGEST {
        return Err("--verifies-until must be a time from a minute to 366 days from now".into());
    }
    change.refuse_twins(imported)?;
    let key = change.verify_until(imported, until).await?;
    change.commit().await?;
    let follows = vec![
        format!("key {} is published", called(&key)),
        format!("what it has signed is verified until {}", when(until, now)),
        "it signs nothing: its private part isn't kept here".to_owned(),
    ];
    Ok(Report { key: Some(KeyBody::from(&key)), what_follows: follows, ..Report::default() })
}

fn instant(text: &str) -> Result<OffsetDateTime, String> {
    OffsetDateTime::parse(text, &Rfc3339)
        .map_err(|_| "must be a time such as 2027-01-31T00:00:00Z (RFC 3339)".to_owned())
}
