//! Registering, reading, changing and ending agents.
//!
//! Who has `agents:write` is not thereby above everybody else. Of management scopes a caller hands out only its own, and it changes only
//! agents of which it holds every management scope: else it could take an administrator's scopes away, suspend it, or put
//! its own address in the place of the administrator's. And nobody changes its own scopes or ends itself: more it can't give itself, and
//! with the last administrator's the tenant would be locked out.

use countersign_shared::AgentId;
use countersign_shared::revocation::Level;
use serde_json::json;

use super::caller::Caller;
use super::{ManagementError, new_id};
use crate::clock;
use crate::domain::agent::{Agent, AgentFilter, AgentPatch, AgentStatus, NewAgent, TooMuchMetadata};
use crate::domain::audit::{Action, Event, Origin, TargetType};
use crate::domain::page::{Listed, Page};
use crate::domain::revision::Expected;
use crate::domain::scope::{PLATFORM, Scopes};
use crate::domain::transition::{Final, Transition};
use crate::storage::agents::{self, Written};
use crate::storage::{Transaction, audit, not_before, tenants};

impl From<Final> for ManagementError {
    fn from(_: Final) -> Self {
        Self::AgentDecommissioned
    }
}

impl From<TooMuchMetadata> for ManagementError {
    fn from(_: TooMuchMetadata) -> Self {
        Self::TooMuchMetadata
    }
}

/// Registers an agent in the caller's tenant.
pub async fn create(
    transaction: &mut Transaction,
    caller: &Caller,
    profile: &NewAgent,
    origin: &Origin,
) -> Result<Agent, ManagementError> {
    caller.require_may_grant(&profile.scopes)?;
    let tenant = caller.tenant();
    let allowance = tenants::allowance(transaction, tenant).await?.ok_or(ManagementError::TenantNotFound)?;
    if !allowance.is_platform {
        refuse_platform_scopes(&profile.scopes)?;
    }
    // Where there is no limit nobody waits for anybody.
    if allowance.max_agents.is_some()
        && let Some(max) = tenants::max_agents_locked(transaction, tenant).await?
        && agents::has_as_many(transaction, tenant, max).await?
    {
        return Err(ManagementError::AgentLimitReached(max));
    }
    let inserted = agents::insert(transaction, tenant, AgentId(new_id()?), profile).await?;
    let Written::Written(agent) = inserted else { return Err(ManagementError::AgentAlreadyExists) };
    let event = Event::done(tenant, caller.agent(), Action::AgentCreated, origin)
        .on(TargetType::Agent, &agent.agent_id);
    audit::record_in(transaction, &event).await?;
    Ok(*agent)
}

/// An agent of the caller's tenant.
pub async fn find(
    transaction: &mut Transaction,
    caller: &Caller,
    agent: AgentId,
) -> Result<Agent, ManagementError> {
    agents::find(transaction, caller.tenant(), agent).await?.ok_or(ManagementError::AgentNotFound)
}

/// A page of the agents of the caller's tenant, by when they were registered.
pub async fn list(
    transaction: &mut Transaction,
    caller: &Caller,
    filter: &AgentFilter,
    page: &Page,
) -> Result<Listed<Agent>, ManagementError> {
    Ok(agents::list(transaction, caller.tenant(), filter, page).await?)
}

/// Changes an agent that is in the `expected` revision. Where nothing would be different nothing is written. An agent that loses scopes loses its
/// tokens: they may carry those, and it can ask for new ones.
pub async fn update(
    transaction: &mut Transaction,
    caller: &Caller,
    agent: AgentId,
    patch: &AgentPatch,
    expected: &Expected,
    origin: &Origin,
) -> Result<Agent, ManagementError> {
    let tenant = caller.tenant();
    let found = find_for_change(transaction, caller, agent, Some(expected)).await?;
    if found.status == AgentStatus::Decommissioned {
        return Err(ManagementError::AgentDecommissioned);
    }
    let profile = patch.apply(&found.profile)?;
    let differences = profile.differences(&found.profile);
    if differences.is_empty() {
        return Ok(found);
    }
    let (added, removed) =
        (profile.scopes.beyond(&found.profile.scopes), found.profile.scopes.beyond(&profile.scopes));
    if !(added.is_empty() && removed.is_empty()) && caller.agent() == Some(agent) {
        return Err(ManagementError::AgentIsCaller);
    }
    caller.require_may_grant(&added)?;
    if added.iter().any(|scope| PLATFORM.contains(&scope)) {
        let allowance = tenants::allowance(transaction, tenant).await?;
        if !allowance.is_some_and(|allowance| allowance.is_platform) {
            refuse_platform_scopes(&added)?;
        }
    }
    let updated = agents::update(transaction, tenant, agent, found.revision, &profile).await?;
    let changed = match updated {
        Some(Written::Written(agent)) => *agent,
        Some(Written::EmailTaken) => return Err(ManagementError::AgentAlreadyExists),
        None => return Err(ManagementError::PreconditionFailed),
    };
    if !removed.is_empty() {
        end_tokens(transaction, caller, agent).await?;
    }
    let mut details = json!({ "fields": differences });
    for (name, scopes) in [("scopes_added", &added), ("scopes_removed", &removed)] {
        if !scopes.is_empty() {
            details[name] = json!(scopes.iter().collect::<Vec<_>>());
        }
    }
    let event = Event::done(tenant, caller.agent(), Action::AgentUpdated, origin)
        .on(TargetType::Agent, &agent)
        .with(details);
    audit::record_in(transaction, &event).await?;
    Ok(changed)
}

/// Changes the status of an agent, which is in the `expected` revision if one is. An agent that may no longer act loses its tokens. Where the
/// agent is in the status already nothing is written.
pub async fn change_status(
    transaction: &mut Transaction,
    caller: &Caller,
    agent: AgentId,
    transition: Transition,
    expected: Option<&Expected>,
    origin: &Origin,
) -> Result<Agent, ManagementError> {
    if caller.agent() == Some(agent) && transition != Transition::Reactivate {
        return Err(ManagementError::AgentIsCaller);
    }
    let found = find_for_change(transaction, caller, agent, expected).await?;
    let status = found.status.after(transition)?;
    if status == found.status {
        return Ok(found);
    }
    let changed = agents::update_status(transaction, caller.tenant(), agent, found.revision, status).await?;
    let changed = changed.ok_or(ManagementError::PreconditionFailed)?;
    let action = match transition {
        Transition::Suspend => Action::AgentSuspended,
        Transition::Reactivate => Action::AgentReactivated,
        Transition::Decommission => Action::AgentDecommissioned,
    };
    if status == AgentStatus::Active {
        // What it may have got while its suspension was being committed stays ended too.
        let subject = agent.0.as_bytes();
        not_before::end_tokens(transaction, Some(caller.tenant()), Level::Agent, subject, clock::now())
            .await?;
    } else {
        end_tokens(transaction, caller, agent).await?;
    }
    let event = Event::done(caller.tenant(), caller.agent(), action, origin).on(TargetType::Agent, &agent);
    audit::record_in(transaction, &event).await?;
    Ok(changed)
}

/// The agent, locked, if the caller may change it and it is in the revision that the caller expects.
async fn find_for_change(
    transaction: &mut Transaction,
    caller: &Caller,
    agent: AgentId,
    expected: Option<&Expected>,
) -> Result<Agent, ManagementError> {
    let found = agents::find_for_change(transaction, caller.tenant(), agent).await?;
    let found = found.ok_or(ManagementError::AgentNotFound)?;
    caller.require_may_grant(&found.profile.scopes).map_err(|error| match error {
        ManagementError::ScopeEscalation(scopes) => ManagementError::BeyondCaller(scopes),
        other => other,
    })?;
    if expected.is_some_and(|expected| !expected.admits(found.revision)) {
        return Err(ManagementError::PreconditionFailed);
    }
    Ok(found)
}

/// Ends every token of the agent, and those that another replica issues before it has heard of the change.
async fn end_tokens(
    transaction: &mut Transaction,
    caller: &Caller,
    agent: AgentId,
) -> Result<(), ManagementError> {
    not_before::end_with_holder(transaction, caller.tenant(), Level::Agent, agent.0.as_bytes()).await?;
    Ok(())
}

fn refuse_platform_scopes(scopes: &Scopes) -> Result<(), ManagementError> {
    let platform: Scopes =
        scopes.iter().filter(|scope| PLATFORM.contains(scope)).map(str::to_owned).collect();
    if platform.is_empty() { Ok(()) } else { Err(ManagementError::PlatformScopes(platform)) }
}
