//! `countersign credentials`.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use countersign_shared::{AgentId, CredentialId, TenantId};
use serde_json::{Map, Value};

use super::output::{self, Format};
use super::revoke::tenant_id;
use super::{Outcome, operator};
use crate::config::{self, Plain, Sources};
use crate::domain::audit::Origin;
use crate::domain::client_secret::ClientSecret;
use crate::domain::credential::{Credential, CredentialStatus, DEFAULT_OVERLAP_SECONDS, MAX_OVERLAP_SECONDS};
use crate::domain::page::Page;
use crate::http::credentials::{CredentialBody, MadeBody, new_credential_of, rotation_of};
use crate::http::list::{ListBody, decode, encode};
use crate::keys::{self, ServerSecrets};
use crate::management::caller::Caller;
use crate::management::credentials::{self, Made};
use crate::storage::{Database, tenants};

/// What to do with credentials.
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:
  countersign credentials list --agent 7b0e1c9e-8a55-4d0a-9d1f-0d6f6f1f2a11 --status active
  countersign credentials create --agent 7b0e1c9e-8a55-4d0a-9d1f-0d6f6f1f2a11 --name blue --expires-at 2027-06-01T00:00:00Z
  countersign credentials rotate 1f0a1c9e-8a55-4d0a-9d1f-0d6f6f1f2a11 --agent 7b0e1c9e-8a55-4d0a-9d1f-0d6f6f1f2a11

Each command's --help has more.")]
pub(super) enum Credentials {
    /// An agent's credentials, in the order in which they were made; never their secrets.
    #[command(after_help = LIST_EXAMPLES)]
    List(List),
    /// Make a credential. A secret is shown once.
    #[command(after_help = CREATE_EXAMPLES)]
    Create(Create),
    /// Give a credential a new secret or key; the old one stays good for the overlap.
    #[command(after_help = ROTATE_EXAMPLES)]
    Rotate(Rotate),
    /// End a credential for good, and every token obtained with it.
    #[command(after_help = REVOKE_EXAMPLE)]
    Revoke(Revoke),
}

const LIST_EXAMPLES: &str = "\
Examples:
  countersign credentials list --agent 7b0e1c9e-8a55-4d0a-9d1f-0d6f6f1f2a11
  countersign credentials list --agent 7b0e1c9e-8a55-4d0a-9d1f-0d6f6f1f2a11 --status active --json";
const CREATE_EXAMPLES: &str = "\
Examples:
  countersign credentials create --agent 7b0e1c9e-8a55-4d0a-9d1f-0d6f6f1f2a11 --name blue --expires-at 2027-06-01T00:00:00Z
  countersign credentials create --agent 7b0e1c9e-8a55-4d0a-9d1f-0d6f6f1f2a11 --public-jwk key.json
  countersign credentials create --agent 7b0e1c9e-8a55-4d0a-9d1f-0d6f6f1f2a11 --bcrypt-hash-file hash.txt";
const ROTATE_EXAMPLES: &str = "\
Examples:
  countersign credentials rotate 1f0a1c9e-8a55-4d0a-9d1f-0d6f6f1f2a11 --agent 7b0e1c9e-8a55-4d0a-9d1f-0d6f6f1f2a11 --overlap-seconds 3600
  countersign credentials rotate 1f0a1c9e-8a55-4d0a-9d1f-0d6f6f1f2a11 --agent 7b0e1c9e-8a55-4d0a-9d1f-0d6f6f1f2a11 --public-jwk key-2.json";
const REVOKE_EXAMPLE: &str = "\
Example:
  countersign credentials revoke 1f0a1c9e-8a55-4d0a-9d1f-0d6f6f1f2a11 --agent 7b0e1c9e-8a55-4d0a-9d1f-0d6f6f1f2a11";

#[derive(Debug, Args)]
struct Common {
    /// Whose credentials.
    #[arg(long, value_name = "ID", value_parser = agent_id)]
    agent: AgentId,
    /// The agent's tenant; found by the agent without it.
    #[arg(long, value_name = "ID", value_parser = tenant_id)]
    tenant: Option<TenantId>,
    /// Print JSON, as the HTTP API has it.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct List {
    #[command(flatten)]
    common: Common,
    /// Only those in this status: active, expired or revoked.
    #[arg(long, value_parser = status)]
    status: Option<CredentialStatus>,
    /// How many at once.
    #[arg(long, default_value_t = Page::DEFAULT_LIMIT, value_parser = clap::value_parser!(u32).range(1..=i64::from(Page::MAX_LIMIT)))]
    limit: u32,
    /// Where to go on: what the page before said.
    #[arg(long)]
    cursor: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct Create {
    #[command(flatten)]
    common: Common,
    /// For people.
    #[arg(long)]
    name: Option<String>,
    /// From when on it doesn't authenticate (RFC 3339); never without it.
    #[arg(long, value_name = "TIME")]
    expires_at: Option<String>,
    /// A file with a public JWK, instead of a secret.
    #[arg(long, value_name = "FILE", conflicts_with = "bcrypt_hash_file")]
    public_jwk: Option<PathBuf>,
    /// A file with the bcrypt hash of a secret that another system made, instead of a secret.
    #[arg(long, value_name = "FILE")]
    bcrypt_hash_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct Rotate {
    /// Which credential.
    #[arg(value_name = "CREDENTIAL_ID", value_parser = credential_id)]
    credential: CredentialId,
    #[command(flatten)]
    common: Common,
    /// How long the old secret or key stays good, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = DEFAULT_OVERLAP_SECONDS, value_parser = clap::value_parser!(u32).range(0..=i64::from(MAX_OVERLAP_SECONDS)))]
    overlap_seconds: u32,
    /// Of a rotation that is still under way, end the older secret or key now.
    #[arg(long)]
    end_previous: bool,
    /// For a public key: a file with the new one, as a JWK.
    #[arg(long, value_name = "FILE")]
    public_jwk: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct Revoke {
    /// Which credential.
    #[arg(value_name = "CREDENTIAL_ID", value_parser = credential_id)]
    credential: CredentialId,
    #[command(flatten)]
    common: Common,
}

pub(super) async fn run(sources: &Sources, command: &Credentials) -> Outcome {
    match command {
        Credentials::List(options) => list(sources, options).await,
        Credentials::Create(options) => create(sources, options).await,
        Credentials::Rotate(options) => rotate(sources, options).await,
        Credentials::Revoke(options) => revoke(sources, options).await,
    }
}

async fn list(sources: &Sources, options: &List) -> Outcome {
    let after = options.cursor.as_deref().map(|cursor| decode(cursor).ok_or("--cursor is not one of a list"));
    let page = Page { limit: options.limit, after: after.transpose()? };
    let (database, caller) = open(Plain::from_sources(sources)?, &options.common).await?;
    let mut transaction = database.begin_as(caller.tenant()).await?;
    let listed =
        credentials::list(&mut transaction, &caller, options.common.agent, options.status, &page).await?;
    let rows: Vec<Vec<String>> = listed
        .items
        .iter()
        .map(|credential| {
            vec![
                credential.credential_id.to_string(),
                credential.name.clone().unwrap_or_else(|| "-".to_owned()),
                credential.kind.as_str().to_owned(),
                credential.status.as_str().to_owned(),
                output::time(credential.created_at),
                output::time(credential.expires_at),
                output::time(credential.last_used_at),
                output::time(credential.previous_until),
            ]
        })
        .collect();
    let format = Format::of(options.common.json);
    let next = listed.next.as_ref().map(encode);
    let headings =
        ["credential_id", "name", "kind", "status", "created", "expires", "last used", "previous until"];
    let body = ListBody::new(listed, |credential| CredentialBody::from(&credential));
    output::list(format, &body, &headings, &rows)?;
    if let Some(next) = next {
        output::note(format, &format!("\nThere are more: --cursor {next}"))?;
    }
    Ok(())
}

async fn create(sources: &Sources, options: &Create) -> Outcome {
    let mut members = Map::new();
    if let Some(path) = &options.public_jwk {
        members.insert("kind".to_owned(), "public_key".into());
        members.insert("public_jwk".to_owned(), jwk(path)?);
    }
    if let Some(path) = &options.bcrypt_hash_file {
        members.insert("kind".to_owned(), "bcrypt_hash".into());
        members.insert("bcrypt_hash".to_owned(), read(path)?.trim().into());
    }
    for (name, value) in [("name", &options.name), ("expires_at", &options.expires_at)] {
        if let Some(value) = value {
            members.insert(name.to_owned(), value.as_str().into());
        }
    }
    let new = new_credential_of(members)?;
    let (database, caller, secrets) = open_with_secrets(sources, &options.common).await?;
    let mut transaction = database.begin_as(caller.tenant()).await?;
    let origin = Origin::default();
    let made =
        credentials::add(&mut transaction, &secrets, &caller, options.common.agent, &new, &origin).await?;
    Database::commit(transaction).await?;
    print_made(&options.common, &made)
}

async fn rotate(sources: &Sources, options: &Rotate) -> Outcome {
    let mut members = Map::new();
    members.insert("overlap_seconds".to_owned(), options.overlap_seconds.into());
    members.insert("end_previous".to_owned(), options.end_previous.into());
    if let Some(path) = &options.public_jwk {
        members.insert("public_jwk".to_owned(), jwk(path)?);
    }
    let rotation = rotation_of(members)?;
    let (database, caller, secrets) = open_with_secrets(sources, &options.common).await?;
    let mut transaction = database.begin_as(caller.tenant()).await?;
    let (agent, origin) = (options.common.agent, Origin::default());
    let rotated = credentials::rotate(
        &mut transaction,
        &secrets,
        &caller,
        agent,
        options.credential,
        &rotation,
        &origin,
    );
    let made = rotated.await?;
    Database::commit(transaction).await?;
    print_made(&options.common, &made)
}

async fn revoke(sources: &Sources, options: &Revoke) -> Outcome {
    let (database, caller) = open(Plain::from_sources(sources)?, &options.common).await?;
    let mut transaction = database.begin_as(caller.tenant()).await?;
    let (agent, origin) = (options.common.agent, Origin::default());
    let credential =
        credentials::revoke(&mut transaction, &caller, agent, options.credential, None, &origin).await?;
    Database::commit(transaction).await?;
    let format = Format::of(options.common.json);
    Ok(output::record(format, &CredentialBody::from(&credential), &fields(&credential))?)
}

fn print_made(common: &Common, made: &Made) -> Outcome {
    let format = Format::of(common.json);
    let mut fields = fields(&made.credential);
    if let Some(secret) = &made.secret {
        fields.push(("client_secret", ClientSecret::expose(secret).to_owned()));
    }
    output::record(format, &MadeBody::new(made), &fields)?;
    if made.secret.is_some() {
        output::note(format, "\nThe secret is shown this once: keep it now.")?;
    }
    Ok(())
}

fn fields(credential: &Credential) -> Vec<(&'static str, String)> {
    vec![
        ("credential_id", credential.credential_id.to_string()),
        ("client_id", credential.agent_id.to_string()),
        ("kind", credential.kind.as_str().to_owned()),
        ("name", credential.name.clone().unwrap_or_else(|| "-".to_owned())),
        ("status", credential.status.as_str().to_owned()),
        ("created_at", output::time(credential.created_at)),
        ("expires_at", output::time(credential.expires_at)),
        ("last_used_at", output::time(credential.last_used_at)),
        ("rotated_at", output::time(credential.rotated_at)),
        ("previous_expires_at", output::time(credential.previous_until)),
        ("revoked_at", output::time(credential.revoked_at)),
    ]
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Connects, and stands for the operator in the agent's tenant.
async fn open(config: Plain, common: &Common) -> Result<(Database, Caller), Failure> {
    let database = operator::connect_by(config).await?;
    let tenant = if let Some(tenant) = common.tenant {
        tenant
    } else {
        let owner = tenants::owner(&database, common.agent.0).await?;
        owner.ok_or_else(|| format!("there is no agent {} in any tenant", common.agent))?
    };
    Ok((database, Caller::operator(tenant)))
}

/// The same for who makes secrets.
async fn open_with_secrets(
    sources: &Sources,
    common: &Common,
) -> Result<(Database, Caller, ServerSecrets), Failure> {
    let config = config::Keys::from_sources(sources)?;
    let (database, caller) = open(config.plain, common).await?;
    let secrets = keys::load_secrets(&database, &config.master_key).await?;
    let secrets = secrets.ok_or("there are no keys yet: run `countersign bootstrap`")?;
    Ok((database, caller, secrets))
}

fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("{} can't be read: {error}", path.display()))
}

fn jwk(path: &Path) -> Result<Value, String> {
    let text = read(path)?;
    serde_json::from_str(&text).map_err(|_| format!("{} is not JSON", path.display()))
}

/// For clap.
fn agent_id(text: &str) -> Result<AgentId, String> {
    text.parse().map_err(|_| "must be a UUID in lower-case hyphenated form".to_owned())
}

/// For clap.
fn credential_id(text: &str) -> Result<CredentialId, String> {
    text.parse().map_err(|_| "must be a UUID in lower-case hyphenated form".to_owned())
}

/// For clap.
fn status(text: &str) -> Result<CredentialStatus, String> {
    text.parse().map_err(|_| format!("must be one of {}", CredentialStatus::WORDS.join(", ")))
}
