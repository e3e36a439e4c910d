//! Registering and changing resource servers: the APIs that a tenant's tokens are for (RFC 8707).
//!
//! An identifier is one tenant's in the whole installation, with everything that is easily taken for it, and stays that tenant's when its resource server
//! is deleted: an API that still accepts tokens for it never sees another tenant's.

use countersign_shared::Algorithm;
use serde_json::json;
use uuid::Uuid;

use super::caller::Caller;
use super::{ManagementError, new_id, require_revision};
use crate::config::IssuerUrl;
use crate::domain::agent::AgentStatus;
use crate::domain::audit::{Action, Event, Origin, TargetType};
use crate::domain::page::{Listed, Page, Position};
use crate::domain::resource_server::{
    NewResourceServer, RegisteredResourceServer, ResourceServerProfile, is_registrable, lookalikes,
};
use crate::domain::revision::Expected;
use crate::storage::{Transaction, agents, audit, resource_servers, tenants};

/// How many identifiers a tenant may have, those included whose resource servers it deleted.
pub const MAX_IDENTIFIERS: i64 = 1000;

/// Registers a resource server of the caller's tenant. Made the default, it takes the place of the one that was.
pub async fn create(
    transaction: &mut Transaction,
    issuer: &IssuerUrl,
    caller: &Caller,
    server: &NewResourceServer,
    origin: &Origin,
) -> Result<RegisteredResourceServer, ManagementError> {
    let (tenant, identifier) = (caller.tenant(), server.identifier.as_str());
    if !is_registrable(&server.identifier) {
        let problem = "must be written in its canonical form if it is a URL: lower-case host, no default port, no credentials";
        return Err(ManagementError::Field { field: "identifier", problem });
    }
    // Tokens for the issuer carry management scopes: no other API may accept them, be it by sloppy comparison.
    if lookalikes(identifier) == lookalikes(issuer.as_str()) {
        let problem = "must not be the issuer's URL: its own API is another one";
        return Err(ManagementError::Field { field: "identifier", problem });
    }
    lock(transaction, caller).await?;
    require_agent(transaction, caller, &server.profile).await?;
    if !resource_servers::own(transaction, tenant, identifier).await? {
        return Err(ManagementError::ResourceServerAlreadyExists);
    }
    if resource_servers::count_owned(transaction, tenant).await? > MAX_IDENTIFIERS {
        return Err(ManagementError::ResourceServerLimitReached);
    }
    let before = if server.profile.is_default {
        resource_servers::clear_default(transaction, tenant).await?
    } else {
        None
    };
    let inserted = resource_servers::insert(transaction, tenant, new_id()?, server).await?;
    let inserted = inserted.ok_or(ManagementError::ResourceServerAlreadyExists)?;
    let event = Event::done(tenant, caller.agent(), Action::ResourceServerCreated, origin)
        .on(TargetType::ResourceServer, &inserted.resource_server_id)
        .with(json!({ "identifier": identifier, "profile": described(&inserted.profile), "default_before": before }));
    audit::record_in(transaction, &event).await?;
    Ok(inserted)
}

/// A resource server of the caller's tenant.
pub async fn find(
    transaction: &mut Transaction,
    caller: &Caller,
    id: Uuid,
) -> Result<RegisteredResourceServer, ManagementError> {
    let found = resource_servers::find(transaction, caller.tenant(), id).await?;
    found.ok_or(ManagementError::ResourceServerNotFound)
}

/// A page of the caller's tenant's resource servers, in the order they were registered.
pub async fn list(
    transaction: &mut Transaction,
    caller: &Caller,
    page: Page,
) -> Result<Listed<RegisteredResourceServer>, ManagementError> {
    let rows = resource_servers::list(transaction, caller.tenant(), &page).await?;
    Ok(page.cut(rows, |server| Position { at: server.created_at, id: server.resource_server_id }))
}

/// Changes a resource server of the caller's tenant, if it still is as `expected`. Made the default, it takes the place of the one that was.
pub async fn update(
    transaction: &mut Transaction,
    caller: &Caller,
    id: Uuid,
    expected: &Expected,
    change: impl FnOnce(&mut ResourceServerProfile),
    origin: &Origin,
) -> Result<RegisteredResourceServer, ManagementError> {
    let tenant = caller.tenant();
    lock(transaction, caller).await?;
    let found = find(transaction, caller, id).await?;
    require_revision(Some(expected), found.revision)?;
    let mut profile = found.profile.clone();
    change(&mut profile);
    if profile == found.profile {
        return Ok(found);
    }
    if profile.agent_id != found.profile.agent_id {
        require_agent(transaction, caller, &profile).await?;
    }
    let before = if profile.is_default && !found.profile.is_default {
        resource_servers::clear_default(transaction, tenant).await?
    } else {
        None
    };
    let updated = resource_servers::update(transaction, tenant, id, &profile).await?;
    let event = Event::done(tenant, caller.agent(), Action::ResourceServerUpdated, origin)
        .on(TargetType::ResourceServer, &id)
        .with(json!({
            "identifier": found.identifier,
            "before": described(&found.profile),
            "after": described(&profile),
            "default_before": before,
        }));
    audit::record_in(transaction, &event).await?;
    Ok(updated)
}

/// Deletes a resource server of the caller's tenant, if it still is as `expected`: no more tokens for it. Those that there are live until they expire, and
/// its identifier stays the tenant's.
pub async fn delete(
    transaction: &mut Transaction,
    caller: &Caller,
    id: Uuid,
    expected: Option<&Expected>,
    origin: &Origin,
) -> Result<(), ManagementError> {
    lock(transaction, caller).await?;
    let found = find(transaction, caller, id).await?;
    require_revision(expected, found.revision)?;
    resource_servers::delete(transaction, caller.tenant(), id).await?;
    let event = Event::done(caller.tenant(), caller.agent(), Action::ResourceServerDeleted, origin)
        .on(TargetType::ResourceServer, &id)
        .with(json!({ "identifier": found.identifier, "profile": described(&found.profile) }));
    audit::record_in(transaction, &event).await?;
    Ok(())
}

/// Gives up `identifier`, and those that look like it, for any tenant to register. Only the operator's to do, who knows that no API takes tokens for it any more, or
/// that the tenant had no right to it.
pub async fn release(
    transaction: &mut Transaction,
    caller: &Caller,
    identifier: &str,
    origin: &Origin,
) -> Result<(), ManagementError> {
    lock(transaction, caller).await?;
    if !resource_servers::disown(transaction, caller.tenant(), identifier).await? {
        return Err(ManagementError::IdentifierInUse);
    }
    let event = Event::done(caller.tenant(), caller.agent(), Action::IdentifierReleased, origin)
        .with(json!({ "identifier": identifier }));
    audit::record_in(transaction, &event).await?;
    Ok(())
}

/// Holds up whoever else changes the tenant's resource servers.
async fn lock(transaction: &mut Transaction, caller: &Caller) -> Result<(), ManagementError> {
    let tenant = tenants::find_locked(transaction, caller.tenant()).await?;
    tenant.map(drop).ok_or(ManagementError::TenantNotFound)
}

/// The agent that the API is to authenticate as must be able to.
async fn require_agent(
    transaction: &mut Transaction,
    caller: &Caller,
    profile: &ResourceServerProfile,
) -> Result<(), ManagementError> {
    let Some(agent) = profile.agent_id else { return Ok(()) };
    let found = agents::find_locked(transaction, caller.tenant(), agent).await?;
    match found.map(|agent| agent.status) {
        Some(AgentStatus::Active | AgentStatus::Suspended) => Ok(()),
        Some(AgentStatus::Decommissioned) | None => {
            let problem = "must be an agent of this tenant that isn't decommissioned";
            Err(ManagementError::Field { field: "agent_id", problem })
        }
    }
}

fn described(profile: &ResourceServerProfile) -> serde_json::Value {
    let ResourceServerProfile { name, token_lifetime, is_default, agent_id, signing_algorithm, status_list } =
        profile;
    let signing_algorithm = signing_algorithm.map(Algorithm::as_str);
    json!({ "name": name, "token_lifetime_seconds": token_lifetime, "is_default": is_default, "agent_id": agent_id,
            "signing_algorithm": signing_algorithm, "status_list": status_list })
}
