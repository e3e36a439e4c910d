//! `audit_events`: inserted, never changed.

use sqlx::PgExecutor;

use super::{Database, StorageError, Transaction};
use crate::domain::audit::Event;

/// Writes `event` by itself.
pub async fn record(database: &Database, event: &Event<'_>) -> Result<(), StorageError> {
    insert(&database.pool, event).await
}

/// Writes `event` together with what it is about.
pub async fn record_in(transaction: &mut Transaction, event: &Event<'_>) -> Result<(), StorageError> {
    insert(&mut **transaction, event).await
}

/// Where the event knows no tenant but names an agent, that agent's tenant is entered: its administrator wants to see failed attempts.
async fn insert(executor: impl PgExecutor<'_>, event: &Event<'_>) -> Result<(), StorageError> {
    let agent = event.actor.or_else(|| match &event.target {
        Some((crate::domain::audit::TargetType::Agent, id)) => id.parse().ok(),
        _ => None,
    });
    sqlx::query!(
        "insert into audit_events (tenant_id, actor_agent_id, action, outcome, target_type, target_id, request_id,
                                   client_ip, user_agent, details)
         values (coalesce($1::uuid, (select tenant_id from agents where agent_id = $2::uuid and $1::uuid is null)),
                 $3, $4, $5, $6, $7, $8, $9::text::inet, $10, $11)",
        event.tenant.map(|tenant| tenant.0),
        agent.map(|agent| agent.0),
        event.actor.map(|actor| actor.0),
        event.action.as_str(),
        event.outcome.as_str(),
        event.target.as_ref().map(|(target, _)| target.as_str()),
        event.target.as_ref().map(|(_, id)| id.as_str()),
        event.origin.request_id,
        event.origin.client_ip.map(|ip| ip.to_string()),
        event.origin.user_agent,
        event.details,
    )
    .execute(executor)
    .await?;
    Ok(())
}
