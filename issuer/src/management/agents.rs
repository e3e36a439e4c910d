//! Registering and reading agents.

use countersign_shared::AgentId;

use super::caller::Caller;
use super::{ManagementError, new_id};
use crate::app::App;
use crate::domain::agent::{Agent, NewAgent};
use crate::domain::audit::{Action, Event, Origin, TargetType};
use crate::storage::agents::{self, Insertion};
use crate::storage::{Database, audit};

/// Registers an agent in the caller's tenant.
pub async fn create(
    app: &App,
    caller: &Caller,
    profile: &NewAgent,
    origin: &Origin,
) -> Result<Agent, ManagementError> {
    caller.require_may_grant(&profile.scopes)?;
    let mut transaction = app.database.begin().await?;
    let inserted = agents::insert(&mut transaction, caller.tenant(), AgentId(new_id()?), profile).await?;
    let Insertion::Inserted(agent) = inserted else { return Err(ManagementError::AgentAlreadyExists) };
    let event = Event::done(caller.tenant(), caller.agent(), Action::AgentCreated, origin)
        .on(TargetType::Agent, &agent.agent_id);
    audit::record_in(&mut transaction, &event).await?;
    Database::commit(transaction).await?;
    Ok(*agent)
}

/// An agent of the caller's tenant.
pub async fn find(app: &App, caller: &Caller, agent: AgentId) -> Result<Agent, ManagementError> {
    agents::find(&app.database, caller.tenant(), agent).await?.ok_or(ManagementError::AgentNotFound)
}
