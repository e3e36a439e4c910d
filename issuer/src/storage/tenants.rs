//! `tenants` and their `resource_servers`.

use countersign_shared::{AgentId, TenantId};
use uuid::Uuid;

use super::{StorageError, Transaction};

/// Holds up every other bootstrap until the transaction ends.
pub async fn lock_bootstrap(transaction: &mut Transaction) -> Result<(), StorageError> {
    sqlx::query!("select pg_advisory_xact_lock(hashtextextended('countersign bootstrap', 0))")
        .execute(&mut **transaction)
        .await?;
    Ok(())
}

/// The oldest tenant and its oldest agent: those that bootstrap made.
pub async fn first(
    transaction: &mut Transaction,
) -> Result<Option<(TenantId, Option<AgentId>)>, StorageError> {
    let row = sqlx::query!(
        r#"select tenant_id,
                  (select agent_id from agents a where a.tenant_id = t.tenant_id order by a.created_at, agent_id limit 1)
                      as agent_id
           from tenants t order by created_at, tenant_id limit 1"#
    )
    .fetch_optional(&mut **transaction)
    .await?;
    Ok(row.map(|row| (TenantId(row.tenant_id), row.agent_id.map(AgentId))))
}

/// Adds a tenant.
pub async fn insert(transaction: &mut Transaction, tenant: TenantId, name: &str) -> Result<(), StorageError> {
    sqlx::query!("insert into tenants (tenant_id, name) values ($1, $2)", tenant.0, name)
        .execute(&mut **transaction)
        .await?;
    Ok(())
}

/// Adds the tenant's default resource server.
pub async fn insert_default_resource_server(
    transaction: &mut Transaction,
    tenant: TenantId,
    id: Uuid,
    identifier: &str,
) -> Result<(), StorageError> {
    sqlx::query!(
        "insert into resource_servers (resource_server_id, tenant_id, identifier, is_default) values ($1, $2, $3, true)",
        id,
        tenant.0,
        identifier,
    )
    .execute(&mut **transaction)
    .await?;
    Ok(())
}
