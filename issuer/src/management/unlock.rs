//! Ending lockouts.

use countersign_shared::AgentId;
use serde_json::json;

use super::ManagementError;
use super::caller::Caller;
use crate::domain::audit::{Action, Event, Origin, TargetType};
use crate::domain::limit::Network;
use crate::storage::{Transaction, agents, audit, limits};

/// Lets `agent` authenticate again from `network`, or from everywhere. Every running issuer hears of it when the transaction commits.
pub async fn unlock(
    transaction: &mut Transaction,
    caller: &Caller,
    agent: AgentId,
    network: Option<Network>,
    origin: &Origin,
) -> Result<(), ManagementError> {
    agents::find(transaction, caller.tenant(), agent).await?.ok_or(ManagementError::AgentNotFound)?;
    let event = Event::done(caller.tenant(), caller.agent(), Action::ClientUnlocked, origin)
        .on(TargetType::Agent, &agent)
        .with(json!({ "network": network.map(|network| network.to_string()) }));
    audit::record_in(transaction, &event).await?;
    limits::announce_unlock(transaction, agent, network).await?;
    Ok(())
}
