//! The first tenant and its administrator, without whom nobody could make any.

use countersign_shared::{AgentId, CredentialId, TenantId};

use super::tenants::administrator as administrator_profile;
use super::{ManagementError, new_id};
use crate::config::Identifier;
use crate::domain::audit::{Action, Event, Origin, TargetType};
use crate::domain::client_secret::ClientSecret;
use crate::domain::resource_server::{NewResourceServer, ResourceServerProfile};
use crate::domain::scope::Scopes;
use crate::domain::tenant::{Limits, Plan, TenantProfile};
use crate::keys::ServerSecrets;
use crate::storage::agents::{self, Written};
use crate::storage::tenants::Naming;
use crate::storage::{Database, audit, credentials, resource_servers, tenants};

/// What to call the first of each.
pub struct Names<'a> {
    /// The tenant.
    pub tenant: &'a str,
    /// The administrator agent's email.
    pub email: &'a str,
    /// The default resource server.
    pub audience: &'a Identifier,
}

/// What there is afterwards.
pub struct Bootstrapped {
    /// The platform's tenant.
    pub tenant: TenantId,
    /// Its administrator agent, unless somebody made the tenant by other means.
    pub administrator: Option<AgentId>,
    /// The administrator's secret, if it was made just now.
    pub secret: Option<ClientSecret>,
}

/// Makes them, all or nothing; where the platform has its tenant already, changes nothing.
pub async fn bootstrap(
    database: &Database,
    secrets: &ServerSecrets,
    names: &Names<'_>,
) -> Result<Bootstrapped, ManagementError> {
    let mut transaction = database.begin_installation().await?;
    tenants::lock_bootstrap(&mut transaction).await?;
    if let Some((tenant, administrator)) = tenants::bootstrapped(&mut transaction).await? {
        return Ok(Bootstrapped { tenant, administrator, secret: None });
    }

    let (tenant, administrator) = (TenantId(new_id()?), AgentId(new_id()?));
    let profile =
        TenantProfile { name: names.tenant.to_owned(), plan: Plan::Paid, limits: Limits::default() };
    let Naming::Done(_) = tenants::insert(&mut transaction, tenant, &profile, true).await? else {
        return Err(ManagementError::TenantAlreadyExists);
    };
    let server = NewResourceServer {
        identifier: names.audience.clone(),
        profile: ResourceServerProfile { is_default: true, ..ResourceServerProfile::default() },
    };
    let owned = resource_servers::own(&mut transaction, tenant, names.audience.as_str()).await?;
    if !owned || resource_servers::insert(&mut transaction, tenant, new_id()?, &server).await?.is_none() {
        return Err(ManagementError::ResourceServerAlreadyExists);
    }
    let profile = administrator_profile(names.email, names.tenant, Scopes::platform_administrator());
    // There is no other agent in a new tenant, so the email is free.
    let Written::Written(_) = agents::insert(&mut transaction, tenant, administrator, &profile).await? else {
        return Err(ManagementError::AgentAlreadyExists);
    };
    let secret = ClientSecret::generate()?;
    let hash = secret.hash(&secrets.pepper);
    let credential = CredentialId(new_id()?);
    credentials::insert(&mut transaction, tenant, administrator, credential, hash.as_ref(), None).await?;
    let origin = Origin::default();
    let event = Event::done(tenant, None, Action::Bootstrapped, &origin);
    audit::record_in(&mut transaction, &event.on(TargetType::Tenant, &tenant)).await?;
    Database::commit(transaction).await?;
    Ok(Bootstrapped { tenant, administrator: Some(administrator), secret: Some(secret) })
}
