//! Making credentials.

use countersign_shared::{AgentId, CredentialId};
use serde_json::json;
use time::OffsetDateTime;

use super::caller::Caller;
use super::{ManagementError, new_id};
use crate::app::App;
use crate::domain::agent::AgentStatus;
use crate::domain::audit::{Action, Event, Origin, TargetType};
use crate::domain::client_secret::ClientSecret;
use crate::domain::credential::Credential;
use crate::storage::{Database, agents, audit, credentials};

/// Makes a credential for an agent of the caller's tenant. The secret is returned here and nowhere else.
pub async fn create(
    app: &App,
    caller: &Caller,
    agent: AgentId,
    expires_at: Option<OffsetDateTime>,
    origin: &Origin,
) -> Result<(Credential, ClientSecret), ManagementError> {
    let secret = ClientSecret::generate()?;
    let credential = CredentialId(new_id()?);
    let mut transaction = app.database.begin().await?;
    let found = agents::find_locked(&mut transaction, caller.tenant(), agent).await?;
    let found = found.ok_or(ManagementError::AgentNotFound)?;
    // Who has a credential is the agent, with all its scopes.
    caller.require_may_grant(&found.profile.scopes)?;
    if found.status != AgentStatus::Active {
        return Err(ManagementError::AgentNotActive);
    }
    let hash = secret.hash(&app.secrets.pepper);
    let credential =
        credentials::insert(&mut transaction, caller.tenant(), agent, credential, hash.as_ref(), expires_at)
            .await?;
    let event = Event::done(caller.tenant(), caller.agent(), Action::CredentialCreated, origin)
        .on(TargetType::Credential, &credential.credential_id)
        .with(json!({ "agent_id": agent }));
    audit::record_in(&mut transaction, &event).await?;
    Database::commit(transaction).await?;
    Ok((credential, secret))
}
