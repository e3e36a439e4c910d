//! Making and ending tenants: the platform's administrator's.
//!
//! What concerns another tenant than the caller's is done in a transaction that sees them all. The tenant concerned finds it in its own audit log, with the
//! platform's agent as the actor; the platform has it in its own.

use std::collections::BTreeMap;

use countersign_shared::TenantId;
use countersign_shared::revocation::Level;
use serde_json::{Value, json};

use super::caller::Caller;
use super::{ManagementError, agents, credentials, new_id, require_revision, resource_servers};
use crate::clock;
use crate::config::IssuerUrl;
use crate::domain::agent::{Agent, AgentType, DeploymentEnv, NewAgent};
use crate::domain::audit::{Action, Event, Origin, TargetType};
use crate::domain::client_secret::ClientSecret;
use crate::domain::credential::Credential;
use crate::domain::page::{Listed, Page, Position};
use crate::domain::resource_server::{NewResourceServer, RegisteredResourceServer};
use crate::domain::revision::Expected;
use crate::domain::scope::Scopes;
use crate::domain::tenant::{Tenant, TenantProfile, TenantStatus};
use crate::domain::transition::{Final, Transition};
use crate::keys::ServerSecrets;
use crate::storage::tenants::{Filter, Naming};
use crate::storage::{Transaction, audit, not_before, tenants};

/// What a tenant is made with.
pub struct NewTenant {
    /// What is said of it.
    pub profile: TenantProfile,
    /// Its first administrator; one can be added later.
    pub administrator: Option<NewAdministrator>,
    /// The API that its tokens are for where none is named.
    pub default_resource_server: Option<NewResourceServer>,
}

/// An administrator to be made.
#[derive(Debug, Clone)]
pub struct NewAdministrator {
    /// Of the agent.
    pub email: String,
    /// Who answers for it; the tenant's name without it.
    pub owner: Option<String>,
}

/// An administrator that was made: an agent with every management scope of its tenant.
pub struct Administrator {
    /// The agent.
    pub agent: Agent,
    /// What it authenticates with.
    pub credential: Credential,
    /// Returned here and nowhere else.
    pub secret: ClientSecret,
}

/// A tenant that was made.
pub struct Created {
    /// The tenant.
    pub tenant: Tenant,
    /// If one was asked for.
    pub administrator: Option<Administrator>,
    /// If one was asked for.
    pub default_resource_server: Option<RegisteredResourceServer>,
}

/// Makes a tenant, all of it or nothing.
pub async fn create(
    transaction: &mut Transaction,
    secrets: &ServerSecrets,
    issuer: &IssuerUrl,
    caller: &Caller,
    new: &NewTenant,
    origin: &Origin,
) -> Result<Created, ManagementError> {
    let id = TenantId(new_id()?);
    let tenant = named(tenants::insert(transaction, id, &new.profile, false).await?)?;
    record(transaction, caller, id, Action::TenantCreated, described(&tenant.profile), origin).await?;
    let within = caller.within(id)?;
    let administrator = match &new.administrator {
        Some(new) => Some(make_administrator(transaction, secrets, &within, &tenant, new, origin).await?),
        None => None,
    };
    let default_resource_server = match &new.default_resource_server {
        Some(new) => Some(resource_servers::create(transaction, issuer, &within, new, origin).await?),
        None => None,
    };
    Ok(Created { tenant, administrator, default_resource_server })
}

/// Any tenant.
pub async fn find(transaction: &mut Transaction, tenant: TenantId) -> Result<Tenant, ManagementError> {
    tenants::find(transaction, tenant).await?.ok_or(ManagementError::TenantNotFound)
}

/// A page of the installation's tenants, in the order they were made.
pub async fn list(
    transaction: &mut Transaction,
    filter: Filter,
    page: Page,
) -> Result<Listed<Tenant>, ManagementError> {
    let rows = tenants::list(transaction, filter, &page).await?;
    Ok(page.cut(rows, |tenant| Position { at: tenant.created_at, id: tenant.tenant_id.0 }))
}

/// Changes what is said of a tenant, if it still is as `expected`.
pub async fn update(
    transaction: &mut Transaction,
    caller: &Caller,
    tenant: TenantId,
    expected: &Expected,
    change: impl FnOnce(&mut TenantProfile),
    origin: &Origin,
) -> Result<Tenant, ManagementError> {
    let found = locked(transaction, tenant).await?;
    require_revision(Some(expected), found.revision)?;
    require_alive(&found)?;
    let mut profile = found.profile.clone();
    change(&mut profile);
    if profile == found.profile {
        return Ok(found);
    }
    let updated = named(tenants::update(transaction, tenant, &profile).await?)?;
    let details = json!({ "before": described(&found.profile), "after": described(&profile) });
    record(transaction, caller, tenant, Action::TenantUpdated, details, origin).await?;
    Ok(updated)
}

/// Changes the status of a tenant, which is in the `expected` revision if one is. Where it is in the status already nothing is written. One that may no
/// longer act loses its tokens; they stay ended when it is reactivated. One that is decommissioned never acts again; its rows stay, and so do its name and
/// its identifiers.
pub async fn change_status(
    transaction: &mut Transaction,
    caller: &Caller,
    tenant: TenantId,
    transition: Transition,
    expected: Option<&Expected>,
    origin: &Origin,
) -> Result<Tenant, ManagementError> {
    let found = locked(transaction, tenant).await?;
    require_revision(expected, found.revision)?;
    let status = found.status.after(transition).map_err(|Final| ManagementError::TenantDecommissioned)?;
    if status != TenantStatus::Active && found.is_platform {
        // Nobody would be left to undo it.
        return Err(ManagementError::PlatformTenant);
    }
    if status == found.status {
        return Ok(found);
    }
    let changed = tenants::set_status(transaction, tenant, status).await?;
    let subject = tenant.0.as_bytes();
    let (action, details) = if status == TenantStatus::Active {
        // What its clients may have got while the suspension was being committed stays ended too.
        not_before::end_tokens(transaction, Some(tenant), Level::Tenant, subject, clock::now()).await?;
        (Action::TenantReactivated, json!({}))
    } else {
        let until = not_before::end_with_holder(transaction, tenant, Level::Tenant, subject).await?;
        let for_good = status == TenantStatus::Decommissioned;
        let action = if for_good { Action::TenantDecommissioned } else { Action::TenantSuspended };
        (action, json!({ "status_before": found.status.as_str(), "tokens_ended_until": until.0 }))
    };
    record(transaction, caller, tenant, action, details, origin).await?;
    Ok(changed)
}

/// Gives a tenant another administrator, say because the one it had is lost. Not to one that is decommissioned.
pub async fn add_administrator(
    transaction: &mut Transaction,
    secrets: &ServerSecrets,
    caller: &Caller,
    tenant: TenantId,
    new: &NewAdministrator,
    origin: &Origin,
) -> Result<Administrator, ManagementError> {
    let tenant = locked(transaction, tenant).await?;
    require_alive(&tenant)?;
    let within = caller.within(tenant.tenant_id)?;
    make_administrator(transaction, secrets, &within, &tenant, new, origin).await
}

async fn make_administrator(
    transaction: &mut Transaction,
    secrets: &ServerSecrets,
    within: &Caller,
    tenant: &Tenant,
    new: &NewAdministrator,
    origin: &Origin,
) -> Result<Administrator, ManagementError> {
    let scopes =
        if tenant.is_platform { Scopes::platform_administrator() } else { Scopes::tenant_administrator() };
    let owner = new.owner.as_deref().unwrap_or(&tenant.profile.name);
    let profile = administrator(&new.email, owner, scopes);
    let agent = agents::create(transaction, within, &profile, origin).await?;
    let (credential, secret) =
        credentials::create(transaction, secrets, within, agent.agent_id, None, origin).await?;
    Ok(Administrator { agent, credential, secret })
}

/// The longest `owner` of an agent, in characters.
pub const MAX_OWNER_CHARACTERS: usize = 128;

/// What an administrator agent is registered with.
pub(super) fn administrator(email: &str, owner: &str, scopes: Scopes) -> NewAgent {
    NewAgent {
        email: email.to_owned(),
        agent_type: AgentType::Custom,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        capabilities: Vec::new(),
        owner: owner.chars().take(MAX_OWNER_CHARACTERS).collect(),
        deployment_env: DeploymentEnv::Production,
        scopes,
        metadata: BTreeMap::new(),
    }
}

async fn locked(transaction: &mut Transaction, tenant: TenantId) -> Result<Tenant, ManagementError> {
    tenants::find_locked(transaction, tenant).await?.ok_or(ManagementError::TenantNotFound)
}

fn require_alive(tenant: &Tenant) -> Result<(), ManagementError> {
    match tenant.status {
        TenantStatus::Active | TenantStatus::Suspended => Ok(()),
        TenantStatus::Decommissioned => Err(ManagementError::TenantDecommissioned),
    }
}

fn named<T>(naming: Naming<T>) -> Result<T, ManagementError> {
    match naming {
        Naming::Done(tenant) => Ok(tenant),
        Naming::NameTaken => Err(ManagementError::TenantAlreadyExists),
    }
}

/// Into the tenant's log, and into that of the platform where that is another.
async fn record(
    transaction: &mut Transaction,
    caller: &Caller,
    tenant: TenantId,
    action: Action,
    details: Value,
    origin: &Origin,
) -> Result<(), ManagementError> {
    let event =
        Event::done(tenant, caller.agent(), action, origin).on(TargetType::Tenant, &tenant).with(details);
    audit::record_in(transaction, &event).await?;
    if caller.tenant() != tenant {
        audit::record_in(transaction, &Event { tenant: Some(caller.tenant()), ..event }).await?;
    }
    Ok(())
}

fn described(profile: &TenantProfile) -> Value {
    let TenantProfile { name, plan, limits } = profile;
    json!({
        "name": name,
        "plan": plan.as_str(),
        "monthly_token_quota": limits.monthly_token_quota,
        "requests_per_minute": limits.requests_per_minute,
        "client_requests_per_minute": limits.client_requests_per_minute,
        "max_agents": limits.max_agents,
    })
}
