//! The first tenant and its administrator, without whom nobody could make any.

use std::collections::BTreeMap;

use countersign_shared::{AgentId, CredentialId, TenantId};

use super::{ManagementError, new_id};
use crate::config::Identifier;
use crate::domain::agent::{AgentType, DeploymentEnv, NewAgent};
use crate::domain::audit::{Action, Event, Origin, TargetType};
use crate::domain::client_secret::ClientSecret;
use crate::domain::scope::Scopes;
use crate::keys::ServerSecrets;
use crate::storage::agents::{self, Insertion};
use crate::storage::{Database, audit, credentials, tenants};

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
    /// The first tenant.
    pub tenant: TenantId,
    /// Its administrator agent, unless somebody made the tenant by other means.
    pub administrator: Option<AgentId>,
    /// The administrator's secret, if it was made just now.
    pub secret: Option<ClientSecret>,
}

/// Makes them, all or nothing; where there is a tenant already, changes nothing.
pub async fn bootstrap(
    database: &Database,
    secrets: &ServerSecrets,
    names: &Names<'_>,
) -> Result<Bootstrapped, ManagementError> {
    let mut transaction = database.begin().await?;
    tenants::lock_bootstrap(&mut transaction).await?;
    if let Some((tenant, administrator)) = tenants::first(&mut transaction).await? {
        return Ok(Bootstrapped { tenant, administrator, secret: None });
    }

    let (tenant, administrator) = (TenantId(new_id()?), AgentId(new_id()?));
    tenants::insert(&mut transaction, tenant, names.tenant).await?;
    tenants::insert_default_resource_server(&mut transaction, tenant, new_id()?, names.audience.as_str())
        .await?;
    let profile = NewAgent {
        email: names.email.to_owned(),
        agent_type: AgentType::Custom,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        capabilities: Vec::new(),
        owner: names.tenant.to_owned(),
        deployment_env: DeploymentEnv::Production,
        scopes: Scopes::management(),
        metadata: BTreeMap::new(),
    };
    // There is no other agent in a new tenant, so the email is free.
    let Insertion::Inserted(_) = agents::insert(&mut transaction, tenant, administrator, &profile).await?
    else {
        return Err(ManagementError::AgentAlreadyExists);
    };
    let secret = ClientSecret::generate()?;
    let hash = secret.hash(&secrets.pepper);
    let credential = CredentialId(new_id()?);
    credentials::insert(&mut transaction, tenant, administrator, credential, hash.as_ref(), None).await?;
    let origin = Origin::default();
    let event = Event { actor: None, ..Event::done(tenant, administrator, Action::Bootstrapped, &origin) };
    audit::record_in(&mut transaction, &event.on(TargetType::Tenant, &tenant)).await?;
    Database::commit(transaction).await?;
    Ok(Bootstrapped { tenant, administrator: Some(administrator), secret: Some(secret) })
}
