//! `countersign resource-servers`.

use clap::{Args, Subcommand};
use countersign_shared::{AgentId, Algorithm, TenantId};
use uuid::Uuid;

use super::Outcome;
use super::operator;
use super::output::{self, Format};
use super::revoke::tenant_id;
use super::tenants::{bounded, cursor, identifier, more};
use crate::config::{self, Identifier, Sources};
use crate::domain::audit::Origin;
use crate::domain::page::{Page, Position};
use crate::domain::resource_server::{NewResourceServer, RegisteredResourceServer, ResourceServerProfile};
use crate::domain::revision::Expected;
use crate::domain::tenant::{MAX_LIFETIME_SECONDS, MAX_NAME_CHARACTERS};
use crate::http::list::ListBody;
use crate::http::resource_servers::{ResourceServerBody, parse_id};
use crate::management::resource_servers;
use crate::storage::Database;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// The tenant's resource servers, in the order they were registered.
    #[command(after_help = LIST_EXAMPLES)]
    List(List),
    /// One resource server.
    #[command(
        after_help = "Example:\n  countersign resource-servers show 5d2a1c9e-8a55-4d0a-9d1f-0d6f6f1f2a11 --tenant 2f0c1c9e-8a55-4d0a-9d1f-0d6f6f1f2a11 --json"
    )]
    Show(One),
    /// Register a resource server.
    #[command(after_help = CREATE_EXAMPLES)]
    Create(Create),
    /// Change a resource server: all but its identifier.
    #[command(after_help = UPDATE_EXAMPLES)]
    Update(Update),
    /// Delete a resource server. Tokens for it live until they expire, and its identifier stays the tenant's.
    #[command(
        after_help = "Example:\n  countersign resource-servers delete 5d2a1c9e-8a55-4d0a-9d1f-0d6f6f1f2a11 --tenant 2f0c1c9e-8a55-4d0a-9d1f-0d6f6f1f2a11"
    )]
    Delete(One),
    /// Give up an identifier whose resource servers are deleted, for any tenant to register. An API that still takes tokens for it would
    /// take another tenant's.
    #[command(
        after_help = "Example:\n  countersign resource-servers release https://api.acme.example --tenant 2f0c1c9e-8a55-4d0a-9d1f-0d6f6f1f2a11"
    )]
    Release(Release),
}

const LIST_EXAMPLES: &str = "\
Examples:
  countersign resource-servers list
  countersign resource-servers list --tenant 2f0c1c9e-8a55-4d0a-9d1f-0d6f6f1f2a11 --json";
const CREATE_EXAMPLES: &str = "\
Examples:
  countersign resource-servers create https://orders.example --name Orders --token-lifetime 300
  countersign resource-servers create https://api.acme.example --tenant 2f0c1c9e-8a55-4d0a-9d1f-0d6f6f1f2a11 --default";
const UPDATE_EXAMPLES: &str = "\
Examples:
  countersign resource-servers update 5d2a1c9e-8a55-4d0a-9d1f-0d6f6f1f2a11 --default true
  countersign resource-servers update 5d2a1c9e-8a55-4d0a-9d1f-0d6f6f1f2a11 --token-lifetime default --agent none";

#[derive(Debug, Args)]
struct Common {
    /// The tenant whose it is; the platform's without it.
    #[arg(long, value_name = "ID", value_parser = tenant_id)]
    tenant: Option<TenantId>,
    /// Print a JSON object instead of text.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct List {
    /// How many at most.
    #[arg(long, default_value_t = Page::DEFAULT_LIMIT, value_parser = clap::value_parser!(u32).range(1..=i64::from(Page::MAX_LIMIT)))]
    limit: u32,
    /// Go on where an earlier list ended: its `next_cursor`.
    #[arg(long, value_parser = cursor)]
    cursor: Option<Position>,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub(super) struct One {
    /// The resource server's id.
    #[arg(value_name = "ID", value_parser = resource_server_id)]
    id: Uuid,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub(super) struct Create {
    /// The `aud` of its tokens, unique in the installation.
    #[arg(value_parser = identifier)]
    identifier: Identifier,
    /// For people.
    #[arg(long, value_parser = name)]
    name: Option<String>,
    /// The longest life of its tokens; the issuer's setting without it.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_LIFETIME_SECONDS)))]
    token_lifetime: Option<u32>,
    /// What its tokens are signed with, as soon as there is a key for that; as the installation signs without it.
    #[arg(long, value_name = "ALGORITHM", value_parser = super::keys::algorithm)]
    signing_algorithm: Option<Algorithm>,
    /// Tokens are for it where none is named, from now on.
    #[arg(long)]
    default: bool,
    /// Its tokens say where their status can be read, for verifiers that don't hold the revoked set.
    #[arg(long)]
    status_list: bool,
    /// The agent that this API itself authenticates as: it may introspect the tokens that are for it.
    #[arg(long, value_name = "ID", value_parser = agent_id)]
    agent: Option<AgentId>,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub(super) struct Update {
    #[command(flatten)]
    one: One,
    #[command(flatten)]
    change: Change,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
struct Change {
    /// Another name; empty: none.
    #[arg(long, value_parser = |text: &str| unless(text, "", name))]
    name: Option<Setting<String>>,
    /// The longest life of its tokens in seconds, or `default`: the issuer's setting.
    #[arg(long, value_name = "SECONDS", value_parser = |text: &str| unless(text, "default", lifetime))]
    token_lifetime: Option<Setting<u32>>,
    /// What its tokens are signed with: `RS256`, `PS256`, `ES256`, `EdDSA`, or `default`: as the installation signs.
    #[arg(long, value_name = "ALGORITHM", value_parser = |text: &str| unless(text, "default", super::keys::algorithm))]
    signing_algorithm: Option<Setting<Algorithm>>,
    /// Whether tokens are for it where none is named; true takes the place of the one that was.
    #[arg(long, value_name = "true|false")]
    default: Option<bool>,
    /// Whether its tokens say where their status can be read.
    #[arg(long, value_name = "true|false")]
    status_list: Option<bool>,
    /// The agent that this API itself authenticates as, or `none`.
    #[arg(long, value_name = "ID", value_parser = |text: &str| unless(text, "none", agent_id))]
    agent: Option<Setting<AgentId>>,
}

#[derive(Debug, Args)]
pub(super) struct Release {
    /// The identifier.
    #[arg(value_parser = identifier)]
    identifier: Identifier,
    #[command(flatten)]
    common: Common,
}

/// What something is set to, or that it isn't.
#[derive(Debug, Clone)]
struct Setting<T>(Option<T>);

pub(super) async fn run(sources: &Sources, command: &Command) -> Outcome {
    match command {
        Command::List(options) => list(sources, options).await,
        Command::Show(options) => show(sources, options).await,
        Command::Create(options) => create(sources, options).await,
        Command::Update(options) => update(sources, options).await,
        Command::Delete(options) => delete(sources, options).await,
        Command::Release(options) => release(sources, options).await,
    }
}

async fn list(sources: &Sources, options: &List) -> Outcome {
    let (database, caller) = operator::open(sources, options.common.tenant).await?;
    let page = Page { limit: options.limit, after: options.cursor };
    let mut transaction = database.begin_as(caller.tenant()).await?;
    let listed = resource_servers::list(&mut transaction, &caller, page).await?;
    let row = |server: &RegisteredResourceServer| {
        vec![
            server.resource_server_id.to_string(),
            server.identifier.clone(),
            server.profile.name.clone().unwrap_or_default(),
            server.profile.token_lifetime.map_or("default".to_owned(), |seconds| format!("{seconds} s")),
            if server.profile.is_default { "yes" } else { "" }.to_owned(),
        ]
    };
    let rows: Vec<Vec<String>> = listed.items.iter().map(row).collect();
    let format = Format::of(options.common.json);
    let body = ListBody::new(listed, ResourceServerBody::from);
    let headings = ["resource_server_id", "identifier", "name", "token lifetime", "default"];
    output::list(format, &body, &headings, &rows)?;
    more(format, body.next_cursor())
}

async fn show(sources: &Sources, options: &One) -> Outcome {
    let (database, caller) = operator::open(sources, options.common.tenant).await?;
    let mut transaction = database.begin_as(caller.tenant()).await?;
    let found = resource_servers::find(&mut transaction, &caller, options.id).await?;
    print(Format::of(options.common.json), &found)
}

async fn create(sources: &Sources, options: &Create) -> Outcome {
    let config = config::Registration::from_sources(sources)?;
    let (database, caller) = operator::open(sources, options.common.tenant).await?;
    let new = NewResourceServer {
        identifier: options.identifier.clone(),
        profile: ResourceServerProfile {
            name: options.name.clone(),
            token_lifetime: options.token_lifetime,
            is_default: options.default,
            agent_id: options.agent,
            signing_algorithm: options.signing_algorithm,
            status_list: options.status_list,
        },
    };
    let mut transaction = database.begin_as(caller.tenant()).await?;
    let made =
        resource_servers::create(&mut transaction, &config.issuer_url, &caller, &new, &Origin::default())
            .await?;
    Database::commit(transaction).await?;
    print(Format::of(options.common.json), &made)
}

async fn update(sources: &Sources, options: &Update) -> Outcome {
    let One { id, common } = &options.one;
    let (database, caller) = operator::open(sources, common.tenant).await?;
    let Change { name, token_lifetime, signing_algorithm, default, status_list, agent } = &options.change;
    let change = |profile: &mut ResourceServerProfile| {
        *profile = ResourceServerProfile {
            name: name.clone().map_or_else(|| profile.name.take(), |Setting(name)| name),
            token_lifetime: token_lifetime.as_ref().map_or(profile.token_lifetime, |Setting(life)| *life),
            is_default: default.unwrap_or(profile.is_default),
            agent_id: agent.as_ref().map_or(profile.agent_id, |Setting(agent)| *agent),
            signing_algorithm: signing_algorithm
                .as_ref()
                .map_or(profile.signing_algorithm, |Setting(name)| *name),
            status_list: status_list.unwrap_or(profile.status_list),
        };
    };
    let mut transaction = database.begin_as(caller.tenant()).await?;
    let origin = Origin::default();
    let changed =
        resource_servers::update(&mut transaction, &caller, *id, &Expected::Any, change, &origin).await?;
    Database::commit(transaction).await?;
    print(Format::of(common.json), &changed)
}

async fn delete(sources: &Sources, options: &One) -> Outcome {
    let (database, caller) = operator::open(sources, options.common.tenant).await?;
    let mut transaction = database.begin_as(caller.tenant()).await?;
    let found = resource_servers::find(&mut transaction, &caller, options.id).await?;
    resource_servers::delete(&mut transaction, &caller, options.id, None, &Origin::default()).await?;
    Database::commit(transaction).await?;
    let format = Format::of(options.common.json);
    print(format, &found)?;
    output::note(
        format,
        "\nDeleted. Tokens for it live until they expire; its identifier stays the tenant's.",
    )?;
    Ok(())
}

async fn release(sources: &Sources, options: &Release) -> Outcome {
    let (database, caller) = operator::open(sources, options.common.tenant).await?;
    let mut transaction = database.begin_as(caller.tenant()).await?;
    let identifier = options.identifier.as_str();
    resource_servers::release(&mut transaction, &caller, identifier, &Origin::default()).await?;
    Database::commit(transaction).await?;
    let released = serde_json::json!({ "released": identifier, "tenant_id": caller.tenant() });
    let fields = [("released", identifier.to_owned()), ("tenant_id", caller.tenant().to_string())];
    Ok(output::record(Format::of(options.common.json), &released, &fields)?)
}

fn print(format: Format, server: &RegisteredResourceServer) -> Outcome {
    let ResourceServerProfile { name, token_lifetime, is_default, agent_id, signing_algorithm, status_list } =
        &server.profile;
    let fields = [
        ("resource_server_id", server.resource_server_id.to_string()),
        ("tenant_id", server.tenant_id.to_string()),
        ("identifier", server.identifier.clone()),
        ("name", name.clone().unwrap_or_else(|| "-".to_owned())),
        ("token_lifetime", token_lifetime.map_or("default".to_owned(), |seconds| format!("{seconds} s"))),
        ("default", if *is_default { "yes" } else { "no" }.to_owned()),
        ("signing_algorithm", signing_algorithm.map_or("default", Algorithm::as_str).to_owned()),
        ("status_list", if *status_list { "yes" } else { "no" }.to_owned()),
        ("agent_id", agent_id.map_or("-".to_owned(), |agent| agent.to_string())),
        ("created", output::time(server.created_at)),
        ("updated", output::time(server.updated_at)),
    ];
    Ok(output::record(format, &ResourceServerBody::from(server), &fields)?)
}

/// For clap: `nothing` is the word for none.
fn unless<T>(
    text: &str,
    nothing: &str,
    read: impl FnOnce(&str) -> Result<T, String>,
) -> Result<Setting<T>, String> {
    if text == nothing { Ok(Setting(None)) } else { read(text).map(|value| Setting(Some(value))) }
}

fn name(text: &str) -> Result<String, String> {
    bounded(text, MAX_NAME_CHARACTERS)
}

fn lifetime(text: &str) -> Result<u32, String> {
    let seconds = text.parse().ok().filter(|seconds| (1..=MAX_LIFETIME_SECONDS).contains(seconds));
    seconds.ok_or_else(|| format!("must be 1 to {MAX_LIFETIME_SECONDS} seconds, or `default`"))
}

fn resource_server_id(text: &str) -> Result<Uuid, String> {
    parse_id(text).ok_or_else(|| "must be a UUID in lower-case hyphenated form".to_owned())
}

fn agent_id(text: &str) -> Result<AgentId, String> {
    text.parse().map_err(|_| "must be a UUID in lower-case hyphenated form".to_owned())
}
