//! `countersign tenants`.

use std::str::FromStr;

use clap::{Args, Subcommand};
use countersign_shared::TenantId;

use super::Outcome;
use super::operator;
use super::output::{self, Format};
use super::revoke::tenant_id;
use crate::config::{self, Sources};
use crate::domain::agent::is_email;
use crate::domain::audit::Origin;
use crate::domain::page::Page;
use crate::domain::resource_server::{NewResourceServer, ResourceServerProfile};
use crate::domain::revision::Expected;
use crate::domain::tenant::{Limits, MAX_NAME_CHARACTERS, Plan, Tenant, TenantProfile, TenantStatus};
use crate::domain::transition::Transition;
use crate::http::list::ListBody;
use crate::http::tenants::{AdministratorBody, CreatedTenantBody, TenantBody};
use crate::keys;
use crate::management::tenants::{self, Administrator, NewAdministrator, NewTenant};
use crate::storage::Database;
use crate::storage::tenants::Filter;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// The installation's tenants, in the order they were made.
    #[command(after_help = LIST_EXAMPLES)]
    List(List),
    /// One tenant.
    #[command(
        after_help = "Example:\n  countersign tenants show 2f0c1c9e-8a55-4d0a-9d1f-0d6f6f1f2a11 --json"
    )]
    Show(One),
    /// Make a tenant, with its first administrator if --administrator names one.
    #[command(after_help = CREATE_EXAMPLES)]
    Create(Create),
    /// Change a tenant's name, plan or limits.
    #[command(after_help = UPDATE_EXAMPLES)]
    Update(Update),
    /// End a tenant's tokens, and let its clients get no more until it is reactivated.
    #[command(after_help = "Example:\n  countersign tenants suspend 2f0c1c9e-8a55-4d0a-9d1f-0d6f6f1f2a11")]
    Suspend(One),
    /// Let a suspended tenant's clients get tokens again.
    #[command(after_help = "Example:\n  countersign tenants reactivate 2f0c1c9e-8a55-4d0a-9d1f-0d6f6f1f2a11")]
    Reactivate(One),
    /// End a tenant for good. Its rows stay, and so do its name and its identifiers.
    #[command(
        after_help = "Example:\n  countersign tenants decommission 2f0c1c9e-8a55-4d0a-9d1f-0d6f6f1f2a11 --yes"
    )]
    Decommission(Decommission),
    /// Make another administrator of a tenant, say because the ones it had are lost. Of the platform's tenant too.
    #[command(after_help = ADD_EXAMPLES)]
    AddAdministrator(AddAdministrator),
}

const LIST_EXAMPLES: &str = "\
Examples:
  countersign tenants list
  countersign tenants list --status suspended --json";
const CREATE_EXAMPLES: &str = "\
Examples:
  countersign tenants create --name Acme --administrator root@acme.example --audience https://api.acme.example
  countersign tenants create --name Acme --plan paid --monthly-token-quota 5000000 --max-agents 200";
const UPDATE_EXAMPLES: &str = "\
Examples:
  countersign tenants update 2f0c1c9e-8a55-4d0a-9d1f-0d6f6f1f2a11 --plan paid
  countersign tenants update 2f0c1c9e-8a55-4d0a-9d1f-0d6f6f1f2a11 --requests-per-minute 6000 --max-agents default";
const ADD_EXAMPLES: &str = "\
Example:
  countersign tenants add-administrator 2f0c1c9e-8a55-4d0a-9d1f-0d6f6f1f2a11 --email second@acme.example";

#[derive(Debug, Args)]
pub(super) struct List {
    /// Only those with this status: active, suspended or decommissioned.
    #[arg(long, value_parser = word::<TenantStatus>)]
    status: Option<TenantStatus>,
    /// Only those with this plan: free or paid.
    #[arg(long, value_parser = word::<Plan>)]
    plan: Option<Plan>,
    /// How many at most.
    #[arg(long, default_value_t = Page::DEFAULT_LIMIT, value_parser = clap::value_parser!(u32).range(1..=i64::from(Page::MAX_LIMIT)))]
    limit: u32,
    /// Go on where an earlier list ended: its `next_cursor`.
    #[arg(long, value_parser = cursor)]
    cursor: Option<crate::domain::page::Position>,
    /// Print a JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct One {
    /// The tenant's id.
    #[arg(value_name = "ID", value_parser = tenant_id)]
    tenant: TenantId,
    /// Print a JSON object instead of text.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Decommission {
    #[command(flatten)]
    one: One,
    /// It can't be undone.
    #[arg(long, required = true)]
    yes: bool,
}

#[derive(Debug, Args)]
pub(super) struct Create {
    /// Its name, unique in the installation.
    #[arg(long, value_parser = name)]
    name: String,
    /// free or paid.
    #[arg(long, default_value = "free", value_parser = word::<Plan>)]
    plan: Plan,
    /// Tokens a calendar month; the plan's without it.
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u64).range(0..=Limits::MAX_QUOTA))]
    monthly_token_quota: Option<u64>,
    /// Requests a minute, of the tenant as a whole; the issuer's setting without it.
    #[arg(long, value_name = "REQUESTS", value_parser = clap::value_parser!(u32).range(1..=i64::from(Limits::MAX)))]
    requests_per_minute: Option<u32>,
    /// Requests a minute, of each of its clients; the issuer's setting without it.
    #[arg(long, value_name = "REQUESTS", value_parser = clap::value_parser!(u32).range(1..=i64::from(Limits::MAX)))]
    client_requests_per_minute: Option<u32>,
    /// Agents that aren't decommissioned; any number without it.
    #[arg(long, value_name = "AGENTS", value_parser = clap::value_parser!(u32).range(1..=i64::from(Limits::MAX)))]
    max_agents: Option<u32>,
    /// Email of its first administrator, an agent, which is made with a secret.
    #[arg(long, value_name = "EMAIL", value_parser = email)]
    administrator: Option<String>,
    /// Who answers for the administrator; the tenant's name without it.
    #[arg(long, requires = "administrator", value_parser = owner)]
    owner: Option<String>,
    /// Identifier of its default resource server: the API that tokens are for where none is named.
    #[arg(long, value_name = "IDENTIFIER", value_parser = identifier)]
    audience: Option<config::Identifier>,
    /// Print a JSON object instead of text.
    #[arg(long)]
    json: bool,
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
    /// Another name.
    #[arg(long, value_parser = name)]
    name: Option<String>,
    /// free or paid.
    #[arg(long, value_parser = word::<Plan>)]
    plan: Option<Plan>,
    /// Tokens a calendar month, or `default`: the plan's.
    #[arg(long, value_name = "TOKENS", value_parser = |text: &str| limit(text, 0, Limits::MAX_QUOTA))]
    monthly_token_quota: Option<Limit<u64>>,
    /// Requests a minute, of the tenant as a whole, or `default`: the issuer's setting.
    #[arg(long, value_name = "REQUESTS", value_parser = |text: &str| limit(text, 1, Limits::MAX))]
    requests_per_minute: Option<Limit<u32>>,
    /// Requests a minute, of each of its clients, or `default`: the issuer's setting.
    #[arg(long, value_name = "REQUESTS", value_parser = |text: &str| limit(text, 1, Limits::MAX))]
    client_requests_per_minute: Option<Limit<u32>>,
    /// Agents that aren't decommissioned, or `default`: any number.
    #[arg(long, value_name = "AGENTS", value_parser = |text: &str| limit(text, 1, Limits::MAX))]
    max_agents: Option<Limit<u32>>,
}

#[derive(Debug, Args)]
pub(super) struct AddAdministrator {
    #[command(flatten)]
    one: One,
    /// Email of the agent, unique in the tenant.
    #[arg(long, value_parser = email)]
    email: String,
    /// Who answers for it; the tenant's name without it.
    #[arg(long, value_parser = owner)]
    owner: Option<String>,
}

/// A limit, or that there is none of the tenant's own.
#[derive(Debug, Clone, Copy)]
struct Limit<T>(Option<T>);

pub(super) async fn run(sources: &Sources, command: &Command) -> Outcome {
    match command {
        Command::List(options) => list(sources, options).await,
        Command::Show(options) => show(sources, options).await,
        Command::Create(options) => create(sources, options).await,
        Command::Update(options) => update(sources, options).await,
        Command::Suspend(options) => change_status(sources, options, Transition::Suspend).await,
        Command::Reactivate(options) => change_status(sources, options, Transition::Reactivate).await,
        Command::Decommission(Decommission { one, .. }) => {
            change_status(sources, one, Transition::Decommission).await
        }
        Command::AddAdministrator(options) => add_administrator(sources, options).await,
    }
}

async fn list(sources: &Sources, options: &List) -> Outcome {
    let (database, _) = operator::open(sources, None).await?;
    let filter = Filter { status: options.status, plan: options.plan };
    let page = Page { limit: options.limit, after: options.cursor };
    let mut transaction = database.begin_installation().await?;
    let listed = tenants::list(&mut transaction, filter, page).await?;
    let row = |tenant: &Tenant| {
        vec![
            tenant.tenant_id.to_string(),
            tenant.profile.name.clone(),
            tenant.status.as_str().to_owned(),
            tenant.profile.plan.as_str().to_owned(),
            output::time(tenant.created_at),
        ]
    };
    let rows: Vec<Vec<String>> = listed.items.iter().map(row).collect();
    let format = Format::of(options.json);
    let body = ListBody::new(listed, TenantBody::from);
    output::list(format, &body, &["tenant_id", "name", "status", "plan", "created"], &rows)?;
    more(format, body.next_cursor())
}

async fn show(sources: &Sources, options: &One) -> Outcome {
    let (database, _) = operator::open(sources, None).await?;
    let mut transaction = database.begin_installation().await?;
    let tenant = tenants::find(&mut transaction, options.tenant).await?;
    print(Format::of(options.json), &tenant)
}

async fn create(sources: &Sources, options: &Create) -> Outcome {
    let config = config::TenantCreation::from_sources(sources)?;
    let (database, caller) = operator::open(sources, None).await?;
    let secrets = keys::load_secrets(&database, &config.keys.master_key).await?;
    let secrets = secrets.ok_or("there are no keys yet: run `countersign bootstrap`")?;
    let new = NewTenant {
        profile: TenantProfile {
            name: options.name.clone(),
            plan: options.plan,
            limits: Limits {
                monthly_token_quota: options.monthly_token_quota,
                requests_per_minute: options.requests_per_minute,
                client_requests_per_minute: options.client_requests_per_minute,
                max_agents: options.max_agents,
            },
        },
        administrator: options
            .administrator
            .clone()
            .map(|email| NewAdministrator { email, owner: options.owner.clone() }),
        default_resource_server: options.audience.clone().map(|identifier| NewResourceServer {
            identifier,
            profile: ResourceServerProfile { is_default: true, ..ResourceServerProfile::default() },
        }),
    };
    let mut transaction = database.begin_installation().await?;
    let made =
        tenants::create(&mut transaction, &secrets, &config.issuer_url, &caller, &new, &Origin::default())
            .await?;
    Database::commit(transaction).await?;
    let format = Format::of(options.json);
    let mut fields = fields(&made.tenant);
    if let Some(server) = &made.default_resource_server {
        fields.push(("default_resource_server", server.identifier.clone()));
    }
    if let Some(administrator) = &made.administrator {
        fields.extend(credentials(administrator));
    }
    output::record(format, &CreatedTenantBody::from(&made), &fields)?;
    if made.administrator.is_some() {
        output::note(format, SHOWN_ONCE)?;
    }
    Ok(())
}

async fn update(sources: &Sources, options: &Update) -> Outcome {
    let (database, caller) = operator::open(sources, None).await?;
    let Change {
        name,
        plan,
        monthly_token_quota,
        requests_per_minute,
        client_requests_per_minute,
        max_agents,
    } = &options.change;
    let change = |profile: &mut TenantProfile| {
        profile.name = name.clone().unwrap_or_else(|| std::mem::take(&mut profile.name));
        profile.plan = plan.unwrap_or(profile.plan);
        let limits = &mut profile.limits;
        let or = |limit: &Option<Limit<u32>>, old| limit.map_or(old, |Limit(limit)| limit);
        limits.monthly_token_quota =
            monthly_token_quota.map_or(limits.monthly_token_quota, |Limit(limit)| limit);
        limits.requests_per_minute = or(requests_per_minute, limits.requests_per_minute);
        limits.client_requests_per_minute = or(client_requests_per_minute, limits.client_requests_per_minute);
        limits.max_agents = or(max_agents, limits.max_agents);
    };
    let mut transaction = database.begin_installation().await?;
    let (tenant, origin) = (options.one.tenant, Origin::default());
    let changed = tenants::update(&mut transaction, &caller, tenant, &Expected::Any, change, &origin).await?;
    Database::commit(transaction).await?;
    print(Format::of(options.one.json), &changed)
}

async fn change_status(sources: &Sources, options: &One, transition: Transition) -> Outcome {
    let (database, caller) = operator::open(sources, None).await?;
    let mut transaction = database.begin_installation().await?;
    let (tenant, origin) = (options.tenant, Origin::default());
    let changed =
        tenants::change_status(&mut transaction, &caller, tenant, transition, None, &origin).await?;
    Database::commit(transaction).await?;
    print(Format::of(options.json), &changed)
}

async fn add_administrator(sources: &Sources, options: &AddAdministrator) -> Outcome {
    let config = config::Keys::from_sources(sources)?;
    let (database, caller) = operator::open(sources, None).await?;
    let secrets = keys::load_secrets(&database, &config.master_key).await?;
    let secrets = secrets.ok_or("there are no keys yet: run `countersign bootstrap`")?;
    let new = NewAdministrator { email: options.email.clone(), owner: options.owner.clone() };
    let mut transaction = database.begin_installation().await?;
    let (tenant, origin) = (options.one.tenant, Origin::default());
    let made = tenants::add_administrator(&mut transaction, &secrets, &caller, tenant, &new, &origin).await?;
    Database::commit(transaction).await?;
    let format = Format::of(options.one.json);
    output::record(format, &AdministratorBody::from(&made), &credentials(&made))?;
    output::note(format, SHOWN_ONCE)?;
    Ok(())
}

const SHOWN_ONCE: &str = "\nThe secret is shown this once: keep it now.";

/// Says how the list goes on.
pub(super) fn more(format: Format, next_cursor: Option<&str>) -> Outcome {
    if let Some(cursor) = next_cursor {
        output::note(format, &format!("\nThere are more: --cursor {cursor}"))?;
    }
    Ok(())
}

fn print(format: Format, tenant: &Tenant) -> Outcome {
    Ok(output::record(format, &TenantBody::from(tenant), &fields(tenant))?)
}

fn fields(tenant: &Tenant) -> Vec<(&'static str, String)> {
    let Tenant { profile: TenantProfile { name, plan, limits }, .. } = tenant;
    let or_default = |limit: Option<u64>| limit.map_or("default".to_owned(), |limit| limit.to_string());
    vec![
        ("tenant_id", tenant.tenant_id.to_string()),
        ("name", name.clone()),
        ("status", tenant.status.as_str().to_owned()),
        ("platform", if tenant.is_platform { "yes" } else { "no" }.to_owned()),
        ("plan", plan.as_str().to_owned()),
        ("monthly_token_quota", or_default(limits.monthly_token_quota)),
        ("requests_per_minute", or_default(limits.requests_per_minute.map(Into::into))),
        ("client_requests_per_minute", or_default(limits.client_requests_per_minute.map(Into::into))),
        ("max_agents", or_default(limits.max_agents.map(Into::into))),
        ("created", output::time(tenant.created_at)),
        ("updated", output::time(tenant.updated_at)),
    ]
}

fn credentials(administrator: &Administrator) -> Vec<(&'static str, String)> {
    let Administrator { agent, secret, .. } = administrator;
    vec![
        ("administrator", agent.profile.email.clone()),
        ("client_id", agent.agent_id.to_string()),
        ("client_secret", secret.expose().to_owned()),
    ]
}

/// For clap.
fn word<T: FromStr>(text: &str) -> Result<T, String>
where
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|error: T::Err| error.to_string())
}

#[expect(clippy::needless_pass_by_value, reason = "numbers")]
fn limit<T: FromStr + PartialOrd + std::fmt::Display>(
    text: &str,
    min: T,
    max: T,
) -> Result<Limit<T>, String> {
    if text == "default" {
        return Ok(Limit(None));
    }
    let number = text.parse().ok().filter(|number| (&min..=&max).contains(&number));
    number.map(|number| Limit(Some(number))).ok_or_else(|| format!("must be {min} to {max}, or `default`"))
}

/// Text as the API takes it.
pub(super) fn bounded(text: &str, max: usize) -> Result<String, String> {
    if (1..=max).contains(&text.chars().count()) && !text.chars().any(char::is_control) {
        Ok(text.to_owned())
    } else {
        Err(format!("must have 1 to {max} characters, none of them a control character"))
    }
}

fn name(text: &str) -> Result<String, String> {
    bounded(text, MAX_NAME_CHARACTERS)
}

fn owner(text: &str) -> Result<String, String> {
    bounded(text, tenants::MAX_OWNER_CHARACTERS)
}

fn email(text: &str) -> Result<String, String> {
    if is_email(text) { Ok(text.to_owned()) } else { Err("must be an email address".to_owned()) }
}

pub(super) fn identifier(text: &str) -> Result<config::Identifier, String> {
    let problem = || "must be 1 to 512 visible ASCII characters without `#`, `,`, `\"` and `\\`".to_owned();
    text.parse().map_err(|()| problem())
}

pub(super) fn cursor(text: &str) -> Result<crate::domain::page::Position, String> {
    crate::http::list::decode(text).ok_or_else(|| "must be the next_cursor of an earlier list".to_owned())
}
