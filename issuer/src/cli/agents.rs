//! `countersign agents`.

use clap::{Args, Subcommand};
use countersign_shared::{AgentId, TenantId};
use serde_json::{Map, Value, json};

use super::output::{self, Format};
use super::revoke::tenant_id;
use super::{Outcome, operator};
use crate::config::Sources;
use crate::domain::agent::{Agent, AgentFilter, AgentStatus, AgentType, DeploymentEnv};
use crate::domain::audit::Origin;
use crate::domain::page::Page;
use crate::domain::revision::Expected;
use crate::domain::transition::Transition;
use crate::http::agents::{AgentBody, new_agent_of, patch_of};
use crate::http::list::{ListBody, decode, encode};
use crate::management::agents;
use crate::storage::Database;

/// What to do with agents.
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:
  countersign agents list --status suspended --owner risk
  countersign agents create --email screener@example.com --agent-type screener --agent-version 1.0.0 --owner risk \\
    --deployment-env production --scope orders:read
  countersign agents suspend 7b0e1c9e-8a55-4d0a-9d1f-0d6f6f1f2a11 --json

Each command's --help has more.")]
pub(super) enum Agents {
    /// The tenant's agents, in the order in which they were registered.
    #[command(after_help = LIST_EXAMPLES)]
    List(List),
    /// One agent.
    #[command(after_help = "Example:\n  countersign agents show 7b0e1c9e-8a55-4d0a-9d1f-0d6f6f1f2a11 --json")]
    Show(One),
    /// Register an agent.
    #[command(after_help = CREATE_EXAMPLE)]
    Create(Create),
    /// Change an agent. One that loses scopes loses its tokens.
    #[command(after_help = UPDATE_EXAMPLES)]
    Update(Update),
    /// Let an agent get no more tokens, and end those it has.
    #[command(after_help = "Example:\n  countersign agents suspend 7b0e1c9e-8a55-4d0a-9d1f-0d6f6f1f2a11")]
    Suspend(One),
    /// Let a suspended agent act again. Tokens that it had before stay ended.
    #[command(after_help = "Example:\n  countersign agents reactivate 7b0e1c9e-8a55-4d0a-9d1f-0d6f6f1f2a11")]
    Reactivate(One),
    /// End an agent and its tokens for good. It can still be looked at.
    #[command(
        after_help = "Example:\n  countersign agents decommission 7b0e1c9e-8a55-4d0a-9d1f-0d6f6f1f2a11"
    )]
    Decommission(One),
}

const LIST_EXAMPLES: &str = "\
Examples:
  countersign agents list
  countersign agents list --status suspended --owner risk
  countersign agents list --agent-type screener --deployment-env production --json";
const CREATE_EXAMPLE: &str = "\
Example:
  countersign agents create --email screener@example.com --agent-type screener --agent-version 1.0.0 --owner risk \\
    --deployment-env production --scope orders:read --metadata model=large";
const UPDATE_EXAMPLES: &str = "\
Examples:
  countersign agents update 7b0e1c9e-8a55-4d0a-9d1f-0d6f6f1f2a11 --agent-version 1.1.0 --metadata model=large --remove-metadata team
  countersign agents update 7b0e1c9e-8a55-4d0a-9d1f-0d6f6f1f2a11 --scope orders:read --scope orders:write";

#[derive(Debug, Args)]
pub(super) struct Common {
    /// The tenant; without it, the agent's, or the platform's where no agent is named.
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
    /// Only the one with this email, whatever the case of its letters.
    #[arg(long)]
    email: Option<String>,
    /// Only those of this type.
    #[arg(long, value_name = "TYPE", value_parser = word::<AgentType>(AgentType::WORDS))]
    agent_type: Option<AgentType>,
    /// Only those that run there.
    #[arg(long, value_name = "ENV", value_parser = word::<DeploymentEnv>(DeploymentEnv::WORDS))]
    deployment_env: Option<DeploymentEnv>,
    /// Only those in this status.
    #[arg(long, value_parser = word::<AgentStatus>(AgentStatus::WORDS))]
    status: Option<AgentStatus>,
    /// Only those of this owner.
    #[arg(long)]
    owner: Option<String>,
    /// How many at once.
    #[arg(long, default_value_t = Page::DEFAULT_LIMIT, value_parser = clap::value_parser!(u32).range(1..=i64::from(Page::MAX_LIMIT)))]
    limit: u32,
    /// Where to go on: what the page before said.
    #[arg(long)]
    cursor: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct One {
    /// Which agent.
    #[arg(value_name = "AGENT_ID", value_parser = agent_id)]
    agent: AgentId,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub(super) struct Create {
    #[command(flatten)]
    common: Common,
    /// Unique in the tenant.
    #[arg(long)]
    email: String,
    /// What it does: screener, classifier, orchestrator, extractor, summarizer, router, monitor or custom.
    #[arg(long, value_name = "TYPE")]
    agent_type: String,
    /// Its own version.
    #[arg(long, value_name = "VERSION")]
    agent_version: String,
    /// Who answers for it.
    #[arg(long)]
    owner: String,
    /// Where it runs: development, staging or production.
    #[arg(long, value_name = "ENV")]
    deployment_env: String,
    /// What it says it can do; any number of times.
    #[arg(long = "capability", value_name = "CAPABILITY")]
    capabilities: Vec<String>,
    /// What it may ask for in tokens; any number of times.
    #[arg(long = "scope", value_name = "SCOPE")]
    scopes: Vec<String>,
    /// Anything else; any number of times.
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    metadata: Vec<(String, String)>,
}

#[derive(Debug, Args)]
pub(super) struct Update {
    /// Which agent.
    #[arg(value_name = "AGENT_ID", value_parser = agent_id)]
    agent: AgentId,
    #[command(flatten)]
    common: Common,
    /// Another email; unique in the tenant.
    #[arg(long)]
    email: Option<String>,
    /// What it does: screener, classifier, orchestrator, extractor, summarizer, router, monitor or custom.
    #[arg(long, value_name = "TYPE")]
    agent_type: Option<String>,
    /// Its own version.
    #[arg(long, value_name = "VERSION")]
    agent_version: Option<String>,
    /// Who answers for it.
    #[arg(long)]
    owner: Option<String>,
    /// Where it runs: development, staging or production.
    #[arg(long, value_name = "ENV")]
    deployment_env: Option<String>,
    /// All its capabilities anew; any number of times.
    #[arg(long = "capability", value_name = "CAPABILITY", conflicts_with = "no_capabilities")]
    capabilities: Vec<String>,
    /// Take all capabilities away.
    #[arg(long)]
    no_capabilities: bool,
    /// All its scopes anew; any number of times.
    #[arg(long = "scope", value_name = "SCOPE", conflicts_with = "no_scopes")]
    scopes: Vec<String>,
    /// Take all scopes away.
    #[arg(long)]
    no_scopes: bool,
    /// Metadata to set; any number of times. Other metadata stays.
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    metadata: Vec<(String, String)>,
    /// Metadata to remove; any number of times.
    #[arg(long, value_name = "NAME")]
    remove_metadata: Vec<String>,
}

pub(super) async fn run(sources: &Sources, command: &Agents) -> Outcome {
    match command {
        Agents::List(options) => list(sources, options).await,
        Agents::Show(options) => show(sources, options).await,
        Agents::Create(options) => create(sources, options).await,
        Agents::Update(options) => update(sources, options).await,
        Agents::Suspend(options) => change_status(sources, options, Transition::Suspend).await,
        Agents::Reactivate(options) => change_status(sources, options, Transition::Reactivate).await,
        Agents::Decommission(options) => change_status(sources, options, Transition::Decommission).await,
    }
}

async fn list(sources: &Sources, options: &List) -> Outcome {
    let after = options.cursor.as_deref().map(|cursor| decode(cursor).ok_or("--cursor is not one of a list"));
    let page = Page { limit: options.limit, after: after.transpose()? };
    let filter = AgentFilter {
        email: options.email.clone(),
        agent_type: options.agent_type,
        deployment_env: options.deployment_env,
        status: options.status,
        owner: options.owner.clone(),
    };
    let (database, caller) = operator::open(sources, options.common.tenant).await?;
    let mut transaction = database.begin_as(caller.tenant()).await?;
    let listed = agents::list(&mut transaction, &caller, &filter, &page).await?;
    let rows: Vec<Vec<String>> = listed
        .items
        .iter()
        .map(|agent| {
            vec![
                agent.agent_id.to_string(),
                agent.profile.email.clone(),
                agent.profile.agent_type.as_str().to_owned(),
                agent.profile.deployment_env.as_str().to_owned(),
                agent.status.as_str().to_owned(),
                agent.profile.owner.clone(),
                output::time(agent.created_at),
            ]
        })
        .collect();
    let format = Format::of(options.common.json);
    let next = listed.next.as_ref().map(encode);
    let headings = ["agent_id", "email", "type", "env", "status", "owner", "created"];
    output::list(format, &ListBody::new(listed, AgentBody::from), &headings, &rows)?;
    if let Some(next) = next {
        output::note(format, &format!("\nThere are more: --cursor {next}"))?;
    }
    Ok(())
}

async fn show(sources: &Sources, options: &One) -> Outcome {
    let (database, caller) = operator::open_for(sources, options.common.tenant, options.agent.0).await?;
    let mut transaction = database.begin_as(caller.tenant()).await?;
    let agent = agents::find(&mut transaction, &caller, options.agent).await?;
    print(&options.common, agent)
}

async fn create(sources: &Sources, options: &Create) -> Outcome {
    let profile = json!({
        "email": options.email,
        "agent_type": options.agent_type,
        "version": options.agent_version,
        "capabilities": options.capabilities,
        "owner": options.owner,
        "deployment_env": options.deployment_env,
        "scopes": options.scopes,
        "metadata": options.metadata.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
    });
    let profile = new_agent_of(members(profile))?;
    let (database, caller) = operator::open(sources, options.common.tenant).await?;
    let mut transaction = database.begin_as(caller.tenant()).await?;
    let agent = agents::create(&mut transaction, &caller, &profile, &Origin::default()).await?;
    Database::commit(transaction).await?;
    print(&options.common, agent)
}

async fn update(sources: &Sources, options: &Update) -> Outcome {
    let patch = patch_of(merge_patch(options))?;
    let (database, caller) = operator::open_for(sources, options.common.tenant, options.agent.0).await?;
    let mut transaction = database.begin_as(caller.tenant()).await?;
    let origin = Origin::default();
    let agent =
        agents::update(&mut transaction, &caller, options.agent, &patch, &Expected::Any, &origin).await?;
    Database::commit(transaction).await?;
    print(&options.common, agent)
}

/// The options as RFC 7396 has them.
fn merge_patch(options: &Update) -> Map<String, Value> {
    let mut patch = Map::new();
    for (name, value) in [
        ("email", &options.email),
        ("agent_type", &options.agent_type),
        ("version", &options.agent_version),
        ("owner", &options.owner),
        ("deployment_env", &options.deployment_env),
    ] {
        if let Some(value) = value {
            patch.insert(name.to_owned(), json!(value));
        }
    }
    for (name, values, none) in [
        ("capabilities", &options.capabilities, options.no_capabilities),
        ("scopes", &options.scopes, options.no_scopes),
    ] {
        if none || !values.is_empty() {
            patch.insert(name.to_owned(), json!(values));
        }
    }
    let removed = options.remove_metadata.iter().map(|name| (name.clone(), Value::Null));
    let set = options.metadata.iter().map(|(name, value)| (name.clone(), json!(value)));
    let metadata: Map<String, Value> = removed.chain(set).collect();
    if !metadata.is_empty() {
        patch.insert("metadata".to_owned(), Value::Object(metadata));
    }
    patch
}

async fn change_status(sources: &Sources, options: &One, transition: Transition) -> Outcome {
    let (database, caller) = operator::open_for(sources, options.common.tenant, options.agent.0).await?;
    let mut transaction = database.begin_as(caller.tenant()).await?;
    let origin = Origin::default();
    let agent =
        agents::change_status(&mut transaction, &caller, options.agent, transition, None, &origin).await?;
    Database::commit(transaction).await?;
    print(&options.common, agent)
}

fn print(common: &Common, agent: Agent) -> Outcome {
    let metadata = agent.profile.metadata.iter().map(|(name, value)| format!("{name}={value}"));
    let fields = [
        ("agent_id", agent.agent_id.to_string()),
        ("tenant_id", agent.tenant_id.to_string()),
        ("email", agent.profile.email.clone()),
        ("agent_type", agent.profile.agent_type.as_str().to_owned()),
        ("version", agent.profile.version.clone()),
        ("capabilities", agent.profile.capabilities.join(" ")),
        ("owner", agent.profile.owner.clone()),
        ("deployment_env", agent.profile.deployment_env.as_str().to_owned()),
        ("scopes", agent.profile.scopes.to_string()),
        ("metadata", metadata.collect::<Vec<_>>().join(" ")),
        ("status", agent.status.as_str().to_owned()),
        ("created_at", output::time(agent.created_at)),
        ("updated_at", output::time(agent.updated_at)),
    ];
    Ok(output::record(Format::of(common.json), &AgentBody::from(agent), &fields)?)
}

fn members(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}

/// For clap.
fn agent_id(text: &str) -> Result<AgentId, String> {
    text.parse().map_err(|_| "must be a UUID in lower-case hyphenated form".to_owned())
}

/// For clap.
fn pair(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    pair.ok_or_else(|| "must have the form NAME=VALUE".to_owned())
}

/// For clap.
fn word<T: std::str::FromStr>(
    words: &'static [&'static str],
) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static {
    move |text| text.parse().map_err(|_| format!("must be one of {}", words.join(", ")))
}
